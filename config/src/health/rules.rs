//! Checks of `[services.health]`, `[services.servers.health]` and `[notify]`: ranges, and what goes together.

use std::path::PathBuf;
use std::time::Duration;

use super::{Check, CheckKind, FileMeaning, HttpCheck, Mail, Notify, Pace, ServiceHealth, UrlCheck};
use crate::bounds::{self, Bounds};
use crate::draft::DraftService;
use crate::duration;
use crate::fault::Problems;
use crate::path::{Path, Step};
use crate::text::show;

/// Faults below a table.
struct At<'p> {
    path: Path,
    problems: &'p mut Problems,
}

impl At<'_> {
    fn below(&mut self, steps: impl IntoIterator<Item = Step>) -> At<'_> {
        let mut path = self.path.clone();
        path.0.extend(steps);
        At { path, problems: self.problems }
    }

    fn add(&mut self, key: &'static str, message: impl Into<String>) {
        let mut path = self.path.clone();
        path.0.push(key.into());
        self.problems.add(path, message);
    }

    fn result(&mut self, key: &'static str, result: Result<(), String>) {
        if let Err(message) = result {
            self.add(key, message);
        }
    }

    fn integer(&mut self, key: &'static str, value: u32, bounds: Bounds) {
        self.result(key, bounds.check(value.into()).map(drop));
    }

    fn time(&mut self, key: &'static str, value: Option<Duration>, min: Duration) {
        let Some(time) = value else { return };
        let (text, max) = (duration::format(time), bounds::MAX_CHECK_TIME);
        if !time.subsec_nanos().is_multiple_of(1_000_000) {
            self.add(key, format!("{time:?} is not a whole number of milliseconds"));
        } else if time < min {
            self.add(key, format!("{text} is below the limit {}", duration::format(min)));
        } else if time > max {
            self.add(key, format!("{text} is above the limit {} (24h)", duration::format(max)));
        }
    }

    fn pace(&mut self, pace: &Pace) {
        self.time("interval", pace.interval, bounds::MIN_CHECK_TIME);
        self.time("timeout", pace.timeout, bounds::MIN_CHECK_TIME);
        self.time("retry_delay", pace.retry_delay, bounds::MIN_CHECK_TIME);
        self.time("warmup", pace.warmup, Duration::ZERO);
        if let Some(retries) = pace.retries {
            self.integer("retries", retries, bounds::RETRIES);
        }
    }

    fn command(&mut self, key: &'static str, argv: &[String]) {
        if let Some(program) = argv.first()
            && (!program.starts_with('/') || argv.iter().any(|text| text.contains('\0')))
        {
            self.add(key, format!("{} is not the absolute path of a program", show(program)));
        }
    }

    fn user(&mut self, user: Option<&String>) {
        if let Some(user) = user
            && (user.is_empty() || user.len() > 32 || user.contains([':', '/', '\0', ' ']))
        {
            self.add("user", format!("{} is not the name of a user", show(user)));
        }
    }

    fn host(&mut self, key: &'static str, host: Option<&String>) {
        if let Some(host) = host
            && (host.is_empty()
                || host.len() > 253
                || !host.bytes().all(|b| b.is_ascii_graphic())
                || host.contains('/'))
        {
            self.add(key, format!("{} is not the name of a host", show(host)));
        }
    }

    fn path(&mut self, key: &'static str, path: Option<&PathBuf>) {
        if let Some(path) = path.filter(|path| !path.is_absolute()) {
            self.add(key, format!("{} is not an absolute path", show(&path.to_string_lossy())));
        }
    }

    fn webhook(&mut self, url: Option<&String>) {
        let Some(url) = url else { return };
        let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
        let good = |rest: &&str| {
            !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(|b| b.is_ascii_graphic())
        };
        if rest.filter(good).is_none() {
            self.add("webhook", format!("{} is not a URL: http://HOST/PATH or https://HOST/PATH", show(url)));
        }
    }

    fn checks(&mut self, checks: &[Check], server_ports: bool) {
        if checks.len() > bounds::CHECKS {
            let count = checks.len();
            self.add("checks", format!("{count} checks are above the limit {}", bounds::CHECKS));
        }
        for (index, check) in checks.iter().enumerate() {
            let mut at = self.below(["checks".into(), index.into()]);
            at.check(check);
            let needs_port =
                !matches!(check.kind, CheckKind::Ping | CheckKind::Script(_) | CheckKind::File(_));
            if needs_port && !server_ports && check.target.port.is_none() {
                at.add("port", "is missing: the service has no port of its own that could be asked");
            }
        }
    }

    fn check(&mut self, check: &Check) {
        self.pace(&check.pace);
        let target = &check.target;
        for (key, port) in [("port", target.port), ("bind_port", target.bind_port)] {
            if let Some(port) = port {
                self.integer(key, port.into(), bounds::L4_PORT);
            }
        }
        if let (Some(bind), Some(address)) = (target.bind, target.address)
            && bind.is_ipv4() != address.is_ipv4()
        {
            self.add("bind", format!("{bind} is not of the family of {address}"));
        }
        if let Some(device) = &target.device
            && (device.is_empty()
                || device.len() > bounds::INTERFACE_NAME_LEN
                || device.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/'))
        {
            self.add("device", format!("{} is not the name of an interface", show(device)));
        }
        if target.mark == Some(0) {
            self.add("mark", "0 is below the limit 1");
        }
        match &check.kind {
            CheckKind::Tcp | CheckKind::Ping => {}
            CheckKind::Http(http) => self.http(http),
            CheckKind::Udp(udp) => {
                if udp.payload.bytes().is_none() {
                    self.add("payload", "has \"x\", which only a reply may have");
                }
                for (key, length) in [("min_length", udp.min_length), ("max_length", udp.max_length)] {
                    self.integer(key, length, bounds::REPLY_LENGTH);
                }
                if udp.min_length > udp.max_length {
                    let (min, max) = (udp.min_length, udp.max_length);
                    self.add("min_length", format!("{min} is above max_length = {max}"));
                }
            }
            CheckKind::Dns(dns) => self.result("name", domain(&dns.name)),
            CheckKind::Smtp { helo } => self.host("helo", Some(helo)),
            CheckKind::Script(script) => {
                match script.command.as_slice() {
                    [] => self.add("command", "is missing"),
                    argv => self.command("command", argv),
                }
                self.user(script.user.as_ref());
            }
            CheckKind::File(file) => {
                if !file.path.is_absolute() {
                    let text = show(&file.path.to_string_lossy());
                    self.add("file", format!("{text} is not an absolute path"));
                }
                if file.factor != 1 && file.meaning != FileMeaning::Offset {
                    self.add("factor", "is of use with meaning = \"offset\" only");
                }
            }
        }
    }

    fn http(&mut self, http: &HttpCheck) {
        if http.urls.is_empty() || http.urls.len() > bounds::URLS {
            let message = format!("{} URLs: the limits are 1 and {}", http.urls.len(), bounds::URLS);
            self.add("urls", message);
        }
        match http.urls.as_slice() {
            [url] => self.url(url),
            urls => {
                for (index, url) in urls.iter().enumerate() {
                    self.below(["urls".into(), index.into()]).url(url);
                }
            }
        }
        if let Some(name) = &http.weight_header
            && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
        {
            self.add("weight_header", format!("{} is not the name of a header field", show(name)));
        }
        let Some(tls) = &http.tls else { return };
        self.host("sni", tls.sni.as_ref());
        for (key, path) in [("ca", &tls.ca), ("certificate", &tls.certificate), ("key", &tls.key)] {
            self.path(key, path.as_ref());
        }
        match (&tls.certificate, &tls.key) {
            (Some(_), None) => self.add("certificate", "needs its key"),
            (None, Some(_)) => self.add("key", "needs its certificate"),
            _ => {}
        }
        if tls.ca.is_some() && !tls.verify {
            self.add("ca", "is of use with verify = true only");
        }
    }

    fn url(&mut self, url: &UrlCheck) {
        if !url.path.starts_with('/') || !url.path.bytes().all(|b| b.is_ascii_graphic()) {
            self.add("path", format!("{} is not the path of a URL: it begins with \"/\"", show(&url.path)));
        }
        self.host("host", url.host.as_ref());
        if url.status.is_empty() {
            self.add("status", "is empty");
        }
        if url.method == super::HttpMethod::Head && (url.digest.is_some() || url.regex.is_some()) {
            self.add("method", "\"HEAD\" gets no body that digest or regex could look at");
        }
        let Some(regex) = &url.regex else { return };
        if let Err(error) = regex::bytes::Regex::new(&regex.pattern) {
            self.add("regex", format!("{}: {error}", show(&regex.pattern)));
        }
        if let Some(max) = regex.max_offset.filter(|max| *max < regex.min_offset) {
            self.add("max_offset", format!("{max} is below min_offset = {}", regex.min_offset));
        }
    }
}

/// Source: RFC 1035 section 2.3.4.
fn domain(name: &str) -> Result<(), String> {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let good = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
    match labels.is_empty() && name == "." || labels.len() <= 253 && labels.split('.').all(good) {
        true => Ok(()),
        false => Err(format!("{} is not a domain name", show(name))),
    }
}

/// Checks what one service and its servers say of health.
pub(crate) fn service(index: usize, service: &DraftService, problems: &mut Problems) {
    let base = crate::path::toml_path!("services", index);
    let mut at = At { path: base, problems };
    // Only a service of one port, or servers with their own, have a port to ask.
    let port = service.address.port().is_none_or(|port| port > 0)
        || matches!(service.address, crate::draft::DraftAddress::Packet { ports: Some(ports), .. } if ports.first() > 0);
    if let Some(health) = &service.health {
        at.below(["health".into()])
            .service(health, port || service.servers.iter().all(|s| s.port != Some(0)));
    }
    for (number, server) in service.servers.iter().enumerate() {
        let Some(health) = &server.health else { continue };
        let mut at = at.below(["servers".into(), number.into(), "health".into()]);
        at.pace(&health.pace);
        at.host("host", health.host.as_ref());
        at.checks(
            health.checks.as_deref().unwrap_or_default(),
            port || server.port.is_none_or(|port| port > 0),
        );
        let mut at = at.below(["notify".into()]);
        at.command("up", &health.notify.up);
        at.command("down", &health.notify.down);
    }
}

impl At<'_> {
    fn service(&mut self, health: &ServiceHealth, server_ports: bool) {
        self.pace(&health.pace);
        self.integer("quorum", health.quorum, bounds::QUORUM);
        if health.hysteresis >= health.quorum {
            let (hysteresis, quorum) = (health.hysteresis, health.quorum);
            self.add("hysteresis", format!("{hysteresis} is not below quorum = {quorum}"));
        }
        self.host("host", health.host.as_ref());
        self.checks(&health.checks, server_ports);
        let notify = &health.notify;
        let mut at = self.below(["notify".into()]);
        for (key, argv) in [
            ("up", &notify.up),
            ("down", &notify.down),
            ("quorum_up", &notify.quorum_up),
            ("quorum_down", &notify.quorum_down),
        ] {
            at.command(key, argv);
        }
        at.webhook(notify.webhook.as_ref());
    }
}

/// Checks `[notify]`.
pub(crate) fn notify(notify: &Notify, problems: &mut Problems) {
    let mut at = At { path: crate::path::toml_path!("notify"), problems };
    at.webhook(notify.webhook.as_ref());
    at.path("ca", notify.ca.as_ref());
    at.time("timeout", Some(notify.timeout), bounds::MIN_CHECK_TIME);
    at.user(notify.user.as_ref());
}

/// Checks `mail` of `[notify]`.
pub(crate) fn mail(mail: &Mail, problems: &mut Problems) {
    let mut at = At { path: crate::path::toml_path!("notify", "mail"), problems };
    at.host("server", Some(&mail.server));
    at.integer("port", mail.port.into(), bounds::L4_PORT);
    at.host("helo", mail.helo.as_ref());
    at.time("timeout", Some(mail.timeout), bounds::MIN_CHECK_TIME);
    let good = |text: &str| {
        (1..=254).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
    };
    if !good(&mail.from) {
        at.add("from", format!("{} is not a mail address", show(&mail.from)));
    }
    if mail.to.is_empty() {
        at.add("to", "is empty");
    }
    if let Some(bad) = mail.to.iter().find(|to| !good(to)) {
        at.add("to", format!("{} is not a mail address", show(bad)));
    }
}
