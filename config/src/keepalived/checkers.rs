//! The checkers of a `real_server`.

use std::path::PathBuf;

use super::Import;
use super::lex::Entry;
use crate::bounds;
use crate::health::{
    Check, CheckKind, DnsCheck, FileCheck, FileMeaning, HttpCheck, HttpVersion, Pace, Pattern, RegexCheck,
    ScriptCheck, StatusRange, Target, TlsCheck, UdpCheck, UrlCheck,
};
use crate::vrrp::VrrpFile;

const CHECKERS: [&str; 10] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
    "BFD_CHECK",
];

/// Whether a key begins a checker.
pub(super) fn is_checker(key: &str) -> bool {
    CHECKERS.contains(&key)
}

impl CheckKind {
    /// Whether it asks a port.
    pub(super) fn has_port(&self) -> bool {
        !matches!(self, Self::Ping | Self::Script(_) | Self::File(_))
    }
}

impl Import {
    /// The checks of a checker; `wide`: when those of its server run.
    pub(super) fn checker(&mut self, entry: &Entry, wide: &Pace) -> Vec<Check> {
        let mut check = Check::new(CheckKind::Tcp);
        let kind = match entry.key() {
            "TCP_CHECK" => self.plain(entry, &mut check, CheckKind::Tcp),
            "PING_CHECK" => self.plain(entry, &mut check, CheckKind::Ping),
            "HTTP_GET" | "SSL_GET" => self.http(entry, &mut check),
            "SMTP_CHECK" => return self.smtp(entry, check),
            "DNS_CHECK" => self.dns(entry, &mut check),
            "MISC_CHECK" => self.misc(entry, &mut check),
            "UDP_CHECK" => self.udp(entry, &mut check),
            "FILE_CHECK" => self.file_check(entry, &mut check),
            _ => {
                self.skip(entry);
                None
            }
        };
        let Some(kind) = kind else { return Vec::new() };
        check.kind = kind;
        // keepalived's defaults by checker, where they are not the director's.
        let pace = check.pace.or(wide);
        let (interval, second) = (pace.interval, std::time::Duration::from_secs(1));
        match &check.kind {
            CheckKind::Dns(_) => {
                check.pace.retries = check.pace.retries.or(wide.retries.is_none().then_some(3));
                if pace.retry_delay.is_none() {
                    check.pace.retry_delay = interval;
                }
            }
            CheckKind::Http(_) if pace.retry_delay.is_none() => check.pace.retry_delay = Some(second * 3),
            CheckKind::Script(_) => check.pace.timeout = check.pace.timeout.or(interval),
            _ => {}
        }
        vec![check]
    }

    /// What all checkers have. False: the key is none of these.
    fn common(&mut self, line: &Entry, check: &mut Check) -> bool {
        self.target_of(line, &mut check.target) || self.pace(line, &mut check.pace)
    }

    fn target_of(&mut self, line: &Entry, target: &mut Target) -> bool {
        match line.key() {
            "connect_ip" => target.address = self.ip_at(line, 1),
            "connect_port" => target.port = self.number(line, 1, 65_535),
            "bindto" => target.bind = self.ip_at(line, 1),
            "bind_port" => target.bind_port = self.number(line, 1, 65_535),
            "bind_if" => target.device = self.word(line).map(str::to_owned),
            "fwmark" => target.mark = self.number::<u32>(line, 0, u32::MAX.into()).filter(|mark| *mark > 0),
            _ => return false,
        }
        true
    }

    fn plain(&mut self, entry: &Entry, check: &mut Check, kind: CheckKind) -> Option<CheckKind> {
        for line in entry.inner() {
            if !self.common(line, check) {
                self.skip(line);
            }
        }
        Some(kind)
    }

    fn http(&mut self, entry: &Entry, check: &mut Check) -> Option<CheckKind> {
        let mut http =
            HttpCheck { tls: None, version: HttpVersion::V10, urls: Vec::new(), weight_header: None };
        let mut tls = self.global.tls.clone();
        let mut host = None;
        for line in entry.inner() {
            match line.key() {
                "url" if http.urls.len() >= bounds::URLS => self.note(line, "is one of too many"),
                "url" => {
                    let url = self.url(line);
                    http.urls.push(url);
                }
                "virtualhost" => host = self.word(line).map(str::to_owned),
                "http_protocol" => match self.word(line).unwrap_or_default().to_ascii_lowercase().parse() {
                    Ok(version) => http.version = version,
                    Err(_) => self.note(line, "is none of 1.0, 1.0C, 1.1"),
                },
                // The name in the handshake is the virtual host's whenever there is one.
                "enable_sni" => {}
                "sni_name" => tls.sni = self.word(line).map(str::to_owned),
                _ if self.common(line, check) => {}
                _ => self.skip(line),
            }
        }
        if http.urls.is_empty() {
            self.note(entry, "has no url; / is taken");
            http.urls.push(UrlCheck::new("/"));
        }
        for url in http.urls.iter_mut().filter(|url| url.host.is_none()) {
            url.host = host.clone();
        }
        if entry.key() == "SSL_GET" {
            http.tls = Some(TlsCheck { verify: false, ca: None, ..tls });
        }
        Some(CheckKind::Http(Box::new(http)))
    }

    fn url(&mut self, entry: &Entry) -> UrlCheck {
        let mut url = UrlCheck::new("/");
        let mut status = Vec::new();
        let mut regex: Option<(&Entry, String)> = None;
        let (mut flags, mut absent, mut min_offset, mut max_offset) = (String::new(), false, 0, None);
        for line in entry.inner() {
            match line.key() {
                "path" => url.path = self.word(line).unwrap_or("/").to_owned(),
                "virtualhost" => url.host = self.word(line).map(str::to_owned),
                "digest" => match self.word(line).unwrap_or_default().parse() {
                    Ok(digest) => url.digest = Some(digest),
                    Err(error) => self.note(line, format!("{error}")),
                },
                "status_code" => {
                    for word in line.args() {
                        match word.parse::<StatusRange>() {
                            Ok(range) => status.push(range),
                            Err(error) => self.note(line, error.to_string()),
                        }
                    }
                }
                "regex" => regex = self.word(line).map(|pattern| (line, pattern.to_owned())),
                "regex_no_match" => absent = true,
                "regex_min_offset" => {
                    min_offset = self.number(line, 0, bounds::BODY_OFFSET.max.into()).unwrap_or(0);
                }
                "regex_max_offset" => max_offset = self.number(line, 0, bounds::BODY_OFFSET.max.into()),
                "regex_options" => {
                    for word in line.args() {
                        match word.as_str() {
                            "caseless" => flags.push('i'),
                            "multiline" => flags.push('m'),
                            "dotall" => flags.push('s'),
                            "extended" => flags.push('x'),
                            "ungreedy" => flags.push('U'),
                            // All of them are.
                            "utf" | "ucp" => {}
                            other => self.note(line, format!("{} is not offered", crate::text::show(other))),
                        }
                    }
                }
                _ => self.skip(line),
            }
        }
        if !status.is_empty() {
            url.status = status;
        }
        if let Some((line, pattern)) = regex {
            let flags = if flags.is_empty() { flags } else { format!("(?{flags})") };
            let pattern = flags + &pattern;
            match regex::bytes::Regex::new(&pattern) {
                Ok(_) => {
                    // keepalived counts from behind; a match begins in front of it.
                    let max_offset = max_offset.filter(|max| *max >= min_offset);
                    url.regex = Some(RegexCheck { pattern, absent, min_offset, max_offset });
                }
                Err(_) => self
                    .note(line, "is no regular expression of Rust's crate regex: the body is not looked at"),
            }
        }
        url
    }

    /// A check per `host`, or one of the server.
    fn smtp(&mut self, entry: &Entry, mut check: Check) -> Vec<Check> {
        let mut helo = "sluice".to_owned();
        let mut hosts = Vec::new();
        for line in entry.inner() {
            match line.key() {
                "helo_name" => helo = self.word(line).map_or(helo, str::to_owned),
                "host" => hosts.push(line),
                _ if self.common(line, &mut check) => {}
                _ => self.skip(line),
            }
        }
        check.kind = CheckKind::Smtp { helo };
        if hosts.is_empty() {
            return vec![check];
        }
        let mut checks = Vec::new();
        for host in hosts {
            let mut one = check.clone();
            for line in host.inner() {
                if !self.common(line, &mut one) {
                    self.skip(line);
                }
            }
            checks.push(one);
        }
        checks
    }

    fn dns(&mut self, entry: &Entry, check: &mut Check) -> Option<CheckKind> {
        let mut dns = DnsCheck { record: Default::default(), name: ".".to_owned() };
        for line in entry.inner() {
            match line.key() {
                "type" => match self.word(line).unwrap_or_default().to_ascii_uppercase().parse() {
                    Ok(record) => dns.record = record,
                    Err(error) => self.note(line, format!("{error}; SOA is taken")),
                },
                "name" => {
                    dns.name = self.word(line).filter(|name| !name.is_empty()).unwrap_or(".").to_owned()
                }
                _ if self.common(line, check) => {}
                _ => self.skip(line),
            }
        }
        Some(CheckKind::Dns(dns))
    }

    fn misc(&mut self, entry: &Entry, check: &mut Check) -> Option<CheckKind> {
        let user = self.global.user.clone();
        let mut script = ScriptCheck { command: Vec::new(), dynamic: false, user };
        for line in entry.inner() {
            match line.key() {
                "misc_path" => script.command = self.command(line),
                "misc_timeout" => check.pace.timeout = self.check_time(line),
                "misc_dynamic" => script.dynamic = true,
                "user" => script.user = self.user(line),
                _ if self.common(line, check) => {}
                _ => self.skip(line),
            }
        }
        if script.command.is_empty() {
            self.note(entry, "has no misc_path");
            return None;
        }
        Some(CheckKind::Script(Box::new(script)))
    }

    fn udp(&mut self, entry: &Entry, check: &mut Check) -> Option<CheckKind> {
        let mut udp = UdpCheck { payload: Pattern::default(), reply: None, min_length: 0, max_length: 255 };
        let most = i64::from(bounds::REPLY_LENGTH.max);
        for line in entry.inner() {
            match line.key() {
                "payload" => match line.args().concat().parse::<Pattern>() {
                    Ok(payload) if payload.bytes().is_some() => udp.payload = payload,
                    Ok(_) => self.note(line, "has x, which only a reply may have"),
                    Err(error) => self.note(line, error.to_string()),
                },
                "require_reply" => match line.args().concat().parse() {
                    Ok(reply) => udp.reply = Some(reply),
                    Err(error) => {
                        self.note(line, format!("{error}; any reply is taken"));
                        udp.reply = Some(Pattern::default());
                    }
                },
                "min_reply_length" => udp.min_length = self.number(line, 0, most).unwrap_or(0),
                "max_reply_length" => udp.max_length = self.number(line, 0, most).unwrap_or(255),
                _ if self.common(line, check) => {}
                _ => self.skip(line),
            }
        }
        if udp.min_length > udp.max_length {
            self.note(entry, "min_reply_length is above max_reply_length; both are left at their defaults");
            (udp.min_length, udp.max_length) = (0, 255);
        }
        Some(CheckKind::Udp(Box::new(udp)))
    }

    fn file_check(&mut self, entry: &Entry, check: &mut Check) -> Option<CheckKind> {
        let mut file: Option<VrrpFile> = None;
        let (mut weight, mut reverse) = (None, false);
        for line in entry.inner() {
            match line.key() {
                "track_file" => {
                    let there = self.word(line).unwrap_or_default().to_owned();
                    let here = self.names.get(&("vrrp_files", there));
                    file =
                        here.and_then(|name| self.ha.files.iter().find(|file| file.name == *name)).cloned();
                    if file.is_none() {
                        self.note(line, "is not the name of a track_file of this file");
                    }
                }
                "weight" => {
                    let word = line.arg(1).and_then(|word| word.parse::<i32>().ok());
                    weight = self.number(line, -2_147_483_647, 2_147_483_647).or(word);
                    reverse = line.arg(2) == Some("reverse");
                }
                _ if self.common(line, check) => {}
                _ => self.skip(line),
            }
        }
        let Some(file) = file else {
            self.note(entry, "has no track_file");
            return None;
        };
        let weight = weight.unwrap_or(file.weight.into());
        let (meaning, factor) = match (weight, reverse) {
            (0, false) => (FileMeaning::State, 1),
            (0, true) => (FileMeaning::Reverse, 1),
            (weight, false) => (FileMeaning::Offset, weight),
            (weight, true) => (FileMeaning::Offset, -weight),
        };
        Some(CheckKind::File(Box::new(FileCheck { path: PathBuf::from(file.path), meaning, factor })))
    }
}
