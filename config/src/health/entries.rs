//! Keys and values as they are written: for files and for differences.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::{
    Check, CheckKind, FileMeaning, HttpMethod, HttpVersion, Mail, Notify, OnFailure, Pace, ServerHealth,
    ServerNotify, ServiceHealth, ServiceNotify, SorryServer, StatusRange, TlsCheck, UrlCheck,
};
use crate::duration;

/// Keys with their values as TOML, in the order of the documented example. What has its default is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries(pub Vec<(&'static str, String)>);

pub(crate) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn texts(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|text| quoted(text)).collect();
    format!("[{}]", list.join(", "))
}

/// `{ key = value, ... }`
pub(crate) fn inline(entries: &Entries) -> String {
    let list: Vec<String> = entries.0.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    match list.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", list.join(", ")),
    }
}

/// `[{ ... }, { ... }]`
pub(crate) fn inlines(entries: impl Iterator<Item = Entries>) -> String {
    format!("[{}]", entries.map(|entries| inline(&entries)).collect::<Vec<_>>().join(", "))
}

impl Entries {
    fn plain(&mut self, key: &'static str, value: impl Display) {
        self.0.push((key, value.to_string()));
    }

    fn some(&mut self, key: &'static str, value: Option<impl Display>) {
        self.0.extend(value.map(|value| (key, value.to_string())));
    }

    fn text(&mut self, key: &'static str, value: Option<impl AsRef<str>>) {
        self.some(key, value.map(|value| quoted(value.as_ref())));
    }

    fn path(&mut self, key: &'static str, value: Option<&Path>) {
        self.text(key, value.map(|path| path.to_string_lossy().into_owned()));
    }

    fn time(&mut self, key: &'static str, value: Option<Duration>) {
        self.text(key, value.map(duration::format));
    }

    fn command(&mut self, key: &'static str, argv: &[String]) {
        self.some(key, (!argv.is_empty()).then(|| texts(argv)));
    }

    fn pace(&mut self, pace: &Pace) {
        self.time("interval", pace.interval);
        self.time("timeout", pace.timeout);
        self.some("retries", pace.retries);
        self.time("retry_delay", pace.retry_delay);
        self.time("warmup", pace.warmup);
        self.some("fast_recovery", pace.fast_recovery);
        self.text("assume", pace.assume.map(|assume| assume.as_str()));
    }
}

impl ServiceHealth {
    /// All but `checks`, which stand in tables of their own.
    pub(crate) fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.pace(&self.pace);
        e.text("on_failure", (self.on_failure != OnFailure::Remove).then(|| self.on_failure.as_str()));
        e.plain("quorum", self.quorum);
        e.some("hysteresis", (self.hysteresis > 0).then_some(self.hysteresis));
        e.some("sorry_server", self.sorry_server.map(|sorry| inline(&sorry.entries())));
        e.text("host", self.host.as_ref());
        e.some("down_at_stop", self.down_at_stop.then_some(true));
        let notify = self.notify.entries();
        e.some("notify", (!notify.0.is_empty()).then(|| inline(&notify)));
        e
    }

    /// Everything, for comparing.
    pub(crate) fn all_entries(&self) -> Entries {
        let mut e = self.entries();
        e.plain("checks", inlines(self.checks.iter().map(Check::entries)));
        e
    }
}

impl ServerHealth {
    /// All but a list of `checks` that is not empty.
    pub(crate) fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.pace(&self.pace);
        e.text("on_failure", self.on_failure.map(|on_failure| on_failure.as_str()));
        e.text("host", self.host.as_ref());
        let notify = self.notify.entries();
        e.some("notify", (!notify.0.is_empty()).then(|| inline(&notify)));
        e.some("checks", self.checks.as_ref().filter(|checks| checks.is_empty()).map(|_| "[]"));
        e
    }

    /// Everything, for comparing.
    pub(crate) fn all_entries(&self) -> Entries {
        let mut e = self.entries();
        if let Some(checks) = self.checks.as_ref().filter(|checks| !checks.is_empty()) {
            e.plain("checks", inlines(checks.iter().map(Check::entries)));
        }
        e
    }
}

impl SorryServer {
    fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.text("address", Some(self.address.to_string()));
        e.plain("port", self.port);
        e.plain("weight", self.weight);
        e.text("forwarding", Some(self.forwarding.name()));
        e.some("tunnel", self.forwarding.tunnel().map(crate::write::inline));
        e.some("drain", self.drain.then_some(true));
        e
    }
}

impl ServiceNotify {
    fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.command("up", &self.up);
        e.command("down", &self.down);
        e.command("quorum_up", &self.quorum_up);
        e.command("quorum_down", &self.quorum_down);
        e.text("webhook", self.webhook.as_ref());
        e.some("mail", self.mail);
        e
    }
}

impl ServerNotify {
    fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.command("up", &self.up);
        e.command("down", &self.down);
        e
    }
}

impl Notify {
    /// Everything.
    pub(crate) fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.text("webhook", self.webhook.as_ref());
        e.path("ca", self.ca.as_deref());
        e.time("timeout", Some(self.timeout));
        e.text("user", self.user.as_ref());
        e.some("mail", self.mail.as_ref().map(|mail| inline(&mail.entries())));
        e
    }
}

impl Mail {
    fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.text("server", Some(&self.server));
        e.plain("port", self.port);
        e.text("helo", self.helo.as_ref());
        e.text("from", Some(&self.from));
        e.plain("to", texts(&self.to));
        e.time("timeout", Some(self.timeout));
        e
    }
}

impl Check {
    /// Everything.
    pub(crate) fn entries(&self) -> Entries {
        let mut e = Entries::default();
        e.text("type", Some(self.kind.name()));
        let target = &self.target;
        e.text("address", target.address.map(|address| address.to_string()));
        e.some("port", target.port);
        match &self.kind {
            CheckKind::Tcp | CheckKind::Ping => {}
            CheckKind::Http(http) => {
                e.text("version", (http.version != HttpVersion::V11).then(|| http.version.as_str()));
                match http.urls.as_slice() {
                    [url] => url.entries(&mut e),
                    urls => e.plain(
                        "urls",
                        inlines(urls.iter().map(|url| {
                            let mut e = Entries::default();
                            url.entries(&mut e);
                            e
                        })),
                    ),
                }
                e.text("weight_header", http.weight_header.as_ref());
                if let Some(tls) = &http.tls {
                    tls.entries(&mut e);
                }
            }
            CheckKind::Udp(udp) => {
                e.text("payload", (!udp.payload.is_empty()).then(|| udp.payload.to_string()));
                e.text("reply", udp.reply.as_ref().map(ToString::to_string));
                e.plain("min_length", udp.min_length);
                e.plain("max_length", udp.max_length);
            }
            CheckKind::Dns(dns) => {
                e.text("record", Some(dns.record.as_str()));
                e.text("name", Some(&dns.name));
            }
            CheckKind::Smtp { helo } => e.text("helo", Some(helo)),
            CheckKind::Script(script) => {
                e.command("command", &script.command);
                e.some("dynamic", script.dynamic.then_some(true));
                e.text("user", script.user.as_ref());
            }
            CheckKind::File(file) => {
                e.path("file", Some(&file.path));
                e.text("meaning", (file.meaning != FileMeaning::State).then(|| file.meaning.as_str()));
                e.some("factor", (file.factor != 1).then_some(file.factor));
            }
        }
        e.text("bind", target.bind.map(|address| address.to_string()));
        e.some("bind_port", target.bind_port);
        e.text("device", target.device.as_ref());
        e.some("mark", target.mark);
        e.text("via", (target.via != super::Via::Kernel).then(|| target.via.as_str()));
        e.pace(&self.pace);
        e
    }
}

impl UrlCheck {
    fn entries(&self, e: &mut Entries) {
        e.text("path", Some(&self.path));
        e.text("host", self.host.as_ref());
        e.text("method", (self.method != HttpMethod::Get).then(|| self.method.as_str()));
        if self.status != [StatusRange::SUCCESS] {
            e.plain("status", texts(&self.status.iter().map(ToString::to_string).collect::<Vec<_>>()));
        }
        e.text("digest", self.digest.map(|digest| digest.to_string()));
        if let Some(regex) = &self.regex {
            e.text("regex", Some(&regex.pattern));
            e.some("regex_absent", regex.absent.then_some(true));
            e.some("min_offset", (regex.min_offset > 0).then_some(regex.min_offset));
            e.some("max_offset", regex.max_offset);
        }
    }
}

impl TlsCheck {
    fn entries(&self, e: &mut Entries) {
        e.text("sni", self.sni.as_ref());
        e.some("verify", self.verify.then_some(true));
        e.path("ca", self.ca.as_deref());
        e.path("certificate", self.certificate.as_deref());
        e.path("key", self.key.as_deref());
    }
}
