//! `[notify]`, `[services.health]`, `[services.servers.health]` and their checks, key by key.
//!
//! What cannot be read is left at its default: no other check depends on it, and there is no Model anyway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::services::{Inherited, forwarding};
use super::{Field, Reader, value};
use crate::bounds;
use crate::forwarding::Forwarding;
use crate::health::{
    Check, CheckKind, DnsCheck, FileCheck, FileMeaning, HttpCheck, KINDS, Mail, Notify, OnFailure, Pace,
    Pattern, RegexCheck, ScriptCheck, ServerHealth, ServerNotify, ServiceHealth, ServiceNotify, SorryServer,
    StatusRange, Target, TlsCheck, UdpCheck, UrlCheck, Via,
};
use crate::text::{nearest, show};

pub(super) const NOTIFY: [&str; 5] = ["webhook", "ca", "timeout", "user", "mail"];
pub(super) const MAIL: [&str; 6] = ["server", "port", "helo", "from", "to", "timeout"];
pub(super) const SERVICE: [&str; 15] = [
    "interval",
    "timeout",
    "retries",
    "retry_delay",
    "warmup",
    "fast_recovery",
    "assume",
    "on_failure",
    "quorum",
    "hysteresis",
    "sorry_server",
    "host",
    "down_at_stop",
    "notify",
    "checks",
];
pub(super) const SERVER: [&str; 11] = [
    "interval",
    "timeout",
    "retries",
    "retry_delay",
    "warmup",
    "fast_recovery",
    "assume",
    "on_failure",
    "host",
    "notify",
    "checks",
];
pub(super) const SORRY: [&str; 6] = ["address", "port", "weight", "forwarding", "tunnel", "drain"];
pub(super) const SERVICE_NOTIFY: [&str; 6] = ["up", "down", "quorum_up", "quorum_down", "webhook", "mail"];
pub(super) const SERVER_NOTIFY: [&str; 2] = ["up", "down"];
/// Keys of every check, whatever its type.
const COMMON: [&str; 15] = [
    "type",
    "address",
    "port",
    "bind",
    "bind_port",
    "device",
    "mark",
    "via",
    "interval",
    "timeout",
    "retries",
    "retry_delay",
    "warmup",
    "fast_recovery",
    "assume",
];
pub(super) const URL: [&str; 9] =
    ["path", "host", "method", "status", "digest", "regex", "regex_absent", "min_offset", "max_offset"];
/// Keys of a check beside [`COMMON`] and [`URL`], and the types that have them.
const OWN: [(&str, &[&str]); 20] = [
    ("version", &["http", "https"]),
    ("urls", &["http", "https"]),
    ("weight_header", &["http", "https"]),
    ("sni", &["https"]),
    ("verify", &["https"]),
    ("ca", &["https"]),
    ("certificate", &["https"]),
    ("key", &["https"]),
    ("payload", &["udp"]),
    ("reply", &["udp"]),
    ("min_length", &["udp"]),
    ("max_length", &["udp"]),
    ("record", &["dns"]),
    ("name", &["dns"]),
    ("helo", &["smtp"]),
    ("command", &["script"]),
    ("dynamic", &["script"]),
    ("user", &["script"]),
    ("file", &["file"]),
    ("meaning", &["file"]),
];
/// As [`OWN`].
const FACTOR: (&str, &[&str]) = ("factor", &["file"]);

/// Keys of a check.
pub(super) const CHECK: [&str; 45] = check_keys();

const fn check_keys() -> [&'static str; 45] {
    let mut keys = [""; 45];
    let mut at = 0;
    while at < 45 {
        keys[at] = if at < 15 {
            COMMON[at]
        } else if at < 24 {
            URL[at - 15]
        } else if at < 44 {
            OWN[at - 24].0
        } else {
            FACTOR.0
        };
        at += 1;
    }
    keys
}

pub(super) fn notify(r: &mut Reader<'_>, t: &DeTable<'_>) -> Notify {
    let default = Notify::default();
    Notify {
        webhook: r.field(t, "webhook", value::text).optional().flatten(),
        ca: r.field(t, "ca", value::text).optional().flatten().map(PathBuf::from),
        timeout: r.field(t, "timeout", value::duration).or_default(default.timeout),
        user: r.field(t, "user", value::text).optional().flatten(),
        mail: r.table(t, "mail", &MAIL, mail).flatten(),
    }
}

fn mail(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Mail> {
    let server = r.required(t, "server", value::text);
    let port = r.field(t, "port", value::integer(bounds::L4_PORT)).or(25);
    let helo = r.field(t, "helo", value::text).optional().flatten();
    let from = r.required(t, "from", value::text);
    if !t.contains_key("to") {
        r.at("to", |r| r.fault("is missing"));
    }
    let to = texts(r, t, "to");
    let timeout = r.field(t, "timeout", value::duration).or_default(Duration::from_secs(30));
    Some(Mail { server: server?, port: port?, helo, from: from?, to, timeout })
}

pub(super) fn service(
    r: &mut Reader<'_>,
    t: &DeTable<'_>,
    inherited: &Inherited,
) -> Option<Arc<ServiceHealth>> {
    let read = |r: &mut Reader<'_>, t: &DeTable<'_>| ServiceHealth {
        pace: pace(r, t),
        on_failure: r.field(t, "on_failure", value::parsed).or_default(OnFailure::Remove),
        quorum: r.field(t, "quorum", value::integer(bounds::QUORUM)).or_default(1),
        hysteresis: r.field(t, "hysteresis", value::integer(bounds::HYSTERESIS)).or_default(0),
        sorry_server: r.table(t, "sorry_server", &SORRY, |r, t| sorry(r, t, inherited)).flatten(),
        host: r.field(t, "host", value::text).optional().flatten(),
        down_at_stop: r.field(t, "down_at_stop", value::boolean).or_default(false),
        notify: r.table(t, "notify", &SERVICE_NOTIFY, service_notify).unwrap_or_default(),
        checks: checks(r, t).unwrap_or_default(),
    };
    r.table(t, "health", &SERVICE, read).map(Arc::new)
}

pub(super) fn server(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Arc<ServerHealth>> {
    let read = |r: &mut Reader<'_>, t: &DeTable<'_>| ServerHealth {
        pace: pace(r, t),
        on_failure: r.field(t, "on_failure", value::parsed).optional().flatten(),
        host: r.field(t, "host", value::text).optional().flatten(),
        notify: r
            .table(t, "notify", &SERVER_NOTIFY, |r, t| ServerNotify {
                up: texts(r, t, "up"),
                down: texts(r, t, "down"),
            })
            .unwrap_or_default(),
        checks: checks(r, t),
    };
    r.table(t, "health", &SERVER, read).map(Arc::new)
}

fn service_notify(r: &mut Reader<'_>, t: &DeTable<'_>) -> ServiceNotify {
    ServiceNotify {
        up: texts(r, t, "up"),
        down: texts(r, t, "down"),
        quorum_up: texts(r, t, "quorum_up"),
        quorum_down: texts(r, t, "quorum_down"),
        webhook: r.field(t, "webhook", value::text).optional().flatten(),
        mail: r.field(t, "mail", value::boolean).optional().flatten(),
    }
}

fn sorry(r: &mut Reader<'_>, t: &DeTable<'_>, inherited: &Inherited) -> Option<SorryServer> {
    let address = r.required(t, "address", value::ip);
    let port = match r.field(t, "port", value::integer(bounds::SERVICE_PORT)) {
        Field::Absent => inherited.port,
        field => field.optional().flatten(),
    };
    let weight = r.field(t, "weight", value::integer(bounds::SORRY_WEIGHT)).or(1);
    let forwarding = forwarding(r, t, inherited.forwarding.or(Some(Forwarding::Dr)));
    let drain = r.field(t, "drain", value::boolean).or_default(false);
    Some(SorryServer { address: address?, port: port?, weight: weight?, forwarding: forwarding?, drain })
}

fn pace(r: &mut Reader<'_>, t: &DeTable<'_>) -> Pace {
    let mut time = |key| r.field(t, key, value::duration).optional().flatten();
    let (interval, timeout, retry_delay, warmup) =
        (time("interval"), time("timeout"), time("retry_delay"), time("warmup"));
    Pace {
        interval,
        timeout,
        retries: r.field(t, "retries", value::integer(bounds::RETRIES)).optional().flatten(),
        retry_delay,
        warmup,
        fast_recovery: r.field(t, "fast_recovery", value::boolean).optional().flatten(),
        assume: r.field(t, "assume", value::parsed).optional().flatten(),
    }
}

/// The texts of an array; none where there is no such key.
fn texts(r: &mut Reader<'_>, t: &DeTable<'_>, key: &'static str) -> Vec<String> {
    r.list(t, key, value::text).or_default(Vec::new()).into_iter().flatten().collect()
}

fn checks(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Vec<Check>> {
    let list = r.tables(t, "checks", &CHECK, check).optional().flatten()?;
    Some(list.into_iter().flatten().collect())
}

/// Whether a check of this type may have `key`.
fn has(kind: &str, key: &str) -> bool {
    if COMMON.contains(&key) {
        return true;
    }
    if URL.contains(&key) {
        return matches!(kind, "http" | "https");
    }
    OWN.iter().chain([&FACTOR]).any(|(other, kinds)| *other == key && kinds.contains(&kind))
}

/// Every key is read whatever the type, so that each wrong value is told; then the type takes what is its own.
fn check(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Check> {
    let kind = r.required(t, "type", |v| {
        let text = value::text(v)?;
        match KINDS.contains(&text.as_str()) {
            true => Ok(text),
            false => {
                let hint =
                    nearest(&text, KINDS).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                Err(format!("{} is not a type of check (known: {}){hint}", show(&text), KINDS.join(", ")))
            }
        }
    });
    let target = Target {
        address: r.field(t, "address", value::ip).optional().flatten(),
        port: r.field(t, "port", value::integer(bounds::L4_PORT)).optional().flatten(),
        bind: r.field(t, "bind", value::ip).optional().flatten(),
        bind_port: r.field(t, "bind_port", value::integer(bounds::L4_PORT)).optional().flatten(),
        device: r.field(t, "device", value::text).optional().flatten(),
        mark: r.field(t, "mark", value::integer(bounds::MARK)).optional().flatten(),
        via: r.field(t, "via", value::parsed).or_default(Via::Kernel),
    };
    let pace = pace(r, t);
    let mut http = http(r, t);
    let tls = tls(r, t);
    let udp = UdpCheck {
        payload: r.field(t, "payload", value::parsed).or_default(Pattern::default()),
        reply: r.field(t, "reply", value::parsed).optional().flatten(),
        min_length: r.field(t, "min_length", value::integer(bounds::REPLY_LENGTH)).or_default(0),
        max_length: r.field(t, "max_length", value::integer(bounds::REPLY_LENGTH)).or_default(255),
    };
    let dns = DnsCheck {
        record: r.field(t, "record", value::parsed).or_default(Default::default()),
        name: r.field(t, "name", value::text).or_default(".".to_owned()),
    };
    let helo = r.field(t, "helo", value::text).or_default("sluice".to_owned());
    let script = ScriptCheck {
        command: texts(r, t, "command"),
        dynamic: r.field(t, "dynamic", value::boolean).or_default(false),
        user: r.field(t, "user", value::text).optional().flatten(),
    };
    let path = r.field(t, "file", value::text).optional();
    let (meaning, factor) = (
        r.field(t, "meaning", value::parsed).or_default(FileMeaning::State),
        r.field(t, "factor", signed).or_default(1),
    );
    let kind = kind?;
    for key in CHECK.iter().filter(|key| t.contains_key(**key) && !has(&kind, key)) {
        r.at(*key, |r| r.fault(format!("is of no use in a check of type \"{kind}\"")));
    }
    let kind = match kind.as_str() {
        "tcp" => CheckKind::Tcp,
        "http" | "https" => {
            http.tls = (kind == "https").then_some(tls);
            CheckKind::Http(Box::new(http))
        }
        "udp" => CheckKind::Udp(Box::new(udp)),
        "dns" => CheckKind::Dns(dns),
        "smtp" => CheckKind::Smtp { helo },
        "ping" => CheckKind::Ping,
        "script" => {
            if !t.contains_key("command") {
                r.at("command", |r| r.fault("is missing"));
                return None;
            }
            CheckKind::Script(Box::new(script))
        }
        _ => {
            let Some(Some(path)) = path else {
                if path.is_some() {
                    r.at("file", |r| r.fault("is missing"));
                }
                return None;
            };
            CheckKind::File(Box::new(FileCheck { path: path.into(), meaning, factor }))
        }
    };
    Some(Check { kind, target, pace })
}

fn signed(v: &DeValue<'_>) -> Result<i32, String> {
    let DeValue::Integer(number) = v else { return Err(value::wrong_type("a whole number", v)) };
    let parsed = i32::from_str_radix(number.as_str(), number.radix());
    parsed
        .map_err(|_| format!("{} is beyond the limits {} and {}", show(number.as_str()), i32::MIN, i32::MAX))
}

fn http(r: &mut Reader<'_>, t: &DeTable<'_>) -> HttpCheck {
    let urls = r.tables(t, "urls", &URL, |r, t| Some(url(r, t))).optional().flatten();
    let single = url(r, t);
    let urls = match urls {
        Some(urls) => {
            if let Some(key) = URL.iter().find(|key| t.contains_key(**key)) {
                r.at(*key, |r| r.fault("stands beside urls, each of which has its own"));
            }
            urls.into_iter().flatten().collect()
        }
        None => vec![single],
    };
    HttpCheck {
        tls: None,
        version: r.field(t, "version", value::parsed).or_default(Default::default()),
        urls,
        weight_header: r.field(t, "weight_header", value::text).optional().flatten(),
    }
}

fn tls(r: &mut Reader<'_>, t: &DeTable<'_>) -> TlsCheck {
    let mut path = |key| r.field(t, key, value::text).optional().flatten().map(PathBuf::from);
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    TlsCheck {
        sni: r.field(t, "sni", value::text).optional().flatten(),
        verify: r.field(t, "verify", value::boolean).or_default(false),
        ca,
        certificate,
        key,
    }
}

fn url(r: &mut Reader<'_>, t: &DeTable<'_>) -> UrlCheck {
    let pattern = r.field(t, "regex", value::text).optional().flatten();
    let absent = r.field(t, "regex_absent", value::boolean).or_default(false);
    let min_offset = r.field(t, "min_offset", value::integer(bounds::BODY_OFFSET)).or_default(0);
    let max_offset = r.field(t, "max_offset", value::integer(bounds::BODY_OFFSET)).optional().flatten();
    if !t.contains_key("regex")
        && let Some(key) =
            ["regex_absent", "min_offset", "max_offset"].into_iter().find(|key| t.contains_key(*key))
        && !matches!(t.get(key).map(|v| v.get_ref()), Some(DeValue::Datetime(_)))
    {
        r.at(key, |r| r.fault("is of use with regex only"));
    }
    UrlCheck {
        path: r.field(t, "path", value::text).or_default("/".to_owned()),
        host: r.field(t, "host", value::text).optional().flatten(),
        method: r.field(t, "method", value::parsed).or_default(Default::default()),
        status: status(r, t),
        digest: r.field(t, "digest", value::parsed).optional().flatten(),
        regex: pattern.map(|pattern| RegexCheck { pattern, absent, min_offset, max_offset }),
    }
}

/// One status code or range, or an array of them; a code may be a number.
fn status(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vec<StatusRange> {
    let one = |v: &DeValue<'_>| match v {
        DeValue::Integer(number) => number.as_str().parse::<StatusRange>().map_err(|e| e.to_string()),
        DeValue::String(text) => text.parse::<StatusRange>().map_err(|e| e.to_string()),
        other => {
            Err(value::wrong_type("a status code or a range of them in quotes, or an array of these", other))
        }
    };
    match t.get("status").map(|v| v.get_ref()) {
        None => vec![StatusRange::SUCCESS],
        Some(DeValue::Array(_)) => {
            r.list(t, "status", one).or_default(Vec::new()).into_iter().flatten().collect()
        }
        Some(_) => match r.field(t, "status", one) {
            Field::Is(range) => vec![range],
            _ => vec![StatusRange::SUCCESS],
        },
    }
}
