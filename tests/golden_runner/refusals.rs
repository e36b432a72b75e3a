//! What IPVS takes and this director refuses, on purpose: recognised by the reason it gives, and remembered, because a
//! service or server that was refused is missing from everything that a recording shows later.

use crate::programs::Done;

/// Reasons of refusals and the rows of the table of meant differences that stand for them.
const REASONS: &[(&str, &str)] = &[
    ("is not a prefix's", "netmask"),
    ("is not that of a prefix", "netmask"),
    ("the persistence engine sip", "engine-sip"),
    ("\"none\" is not a scheduler", "scheduler-none"),
    ("the director's own address", "local-server"),
    ("is a loopback address", "local-server"),
    ("timeouts.tcp_established", "timeout-limit"),
    ("timeouts.tcp_fin_wait", "timeout-limit"),
    ("timeouts.udp", "timeout-limit"),
    ("is above the limit 65535", "weight-limit"),
];

/// The row of the table for a refusal, if it has one.
pub fn rule(stderr: &str) -> Option<&'static str> {
    REASONS.iter().find(|(reason, _)| stderr.contains(reason)).map(|(_, rule)| *rule)
}

/// What has been refused so far.
#[derive(Default)]
pub struct Refusals {
    services: Vec<(&'static str, Name)>,
    servers: Vec<(&'static str, Name, String)>,
    /// The listing of timeouts is another since then.
    timeouts: Option<&'static str>,
}

/// A service as listings and rules name it: `TCP` or `FWM`, and its address or mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    kind: &'static str,
    address: String,
}

/// Ports that listings show by name.
const PORTS: &[(&str, &str)] = &[
    ("http", "80"),
    ("https", "443"),
    ("http-alt", "8080"),
    ("domain", "53"),
    ("sip", "5060"),
    ("mdns", "5353"),
];

/// An address with its port as a number.
fn numeric(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((address, port)) => {
            let number = PORTS.iter().find(|(name, _)| *name == port).map_or(port, |(_, number)| number);
            // of the hosts, the one that everybody's /etc/hosts names
            let address = if address == "localhost" { "127.0.0.1" } else { address };
            format!("{address}:{number}")
        }
        None => format!("{text}:0"),
    }
}

/// The service of options as `-t ADDRESS` or `-f MARK -6`.
fn service_of(words: &[&str]) -> Option<Name> {
    let at = words.iter().position(|word| matches!(*word, "-t" | "-u" | "--sctp-service" | "-f"))?;
    let value = words.get(at + 1)?;
    Some(match words[at] {
        "-f" => {
            let mark = value.parse::<u32>().map_or((*value).to_owned(), |mark| (mark as i32).to_string());
            let ipv6 = if words.contains(&"-6") { " IPv6" } else { "" };
            Name { kind: "FWM", address: format!("{mark}{ipv6}") }
        }
        "-t" => Name { kind: "TCP", address: numeric(value) },
        "-u" => Name { kind: "UDP", address: numeric(value) },
        _ => Name { kind: "SCTP", address: numeric(value) },
    })
}

fn server_of(words: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| *word == "-r")?;
    words.get(at + 1).map(|value| numeric(value))
}

impl Refusals {
    /// Explains the exit and messages of a command of ipvsadm: refused for a reason in the table, or about something
    /// that was refused before. Returns the rule.
    pub fn explain(&mut self, line: &str, expected: &Done, got: &Done) -> Option<&'static str> {
        let words: Vec<_> = line.split_whitespace().collect();
        if words.first() != Some(&"ipvsadm") || line.contains([';', '|', '&']) {
            return None;
        }
        let service = service_of(&words);
        if let Some(rule) = rule(&got.stderr).filter(|_| got.code != 0) {
            match (words.get(1), &service) {
                (Some(&"-A"), Some(service)) => self.services.push((rule, service.clone())),
                (Some(&"-a"), Some(service)) => {
                    // DR and tunnels keep the service's port
                    self.servers.push((rule, service.clone(), server_of(&words)?));
                }
                (Some(&"--set"), _) if expected.code == 0 => self.timeouts = Some(rule),
                _ => {}
            }
            return Some(rule);
        }
        let missing = ["No such service", "Service not defined", "No such destination"];
        let about_nothing = got.code != 0 && missing.contains(&got.stderr.trim());
        let (rule, _) = self.services.iter().find(|(_, name)| service.as_ref() == Some(name))?;
        let rule = *rule;
        if words.get(1) == Some(&"-D") {
            self.services.retain(|(_, name)| service.as_ref() != Some(name));
        }
        about_nothing.then_some(rule)
    }

    /// Takes out of a recorded listing or save what was refused. Returns the rules that it was refused by.
    pub fn take_out(&self, expected: &str) -> (String, Vec<&'static str>) {
        let (mut lines, mut rules) = (String::new(), Vec::new());
        let mut service: Option<Name> = None;
        for line in expected.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let mut server = None;
            match words[..] {
                [kind @ ("TCP" | "UDP" | "SCTP"), address, ..] => {
                    let kind =
                        ["TCP", "UDP", "SCTP"].into_iter().find(|known| *known == kind).unwrap_or_default();
                    service = Some(Name { kind, address: numeric(address) });
                }
                ["FWM", mark, ref rest @ ..] => {
                    let ipv6 = if rest.first() == Some(&"IPv6") { " IPv6" } else { "" };
                    service = Some(Name { kind: "FWM", address: format!("{mark}{ipv6}") });
                }
                ["->", address, ..] => server = Some(numeric(address)),
                ["-A", ..] => service = service_of(&words),
                ["-a", ..] => (service, server) = (service_of(&words), server_of(&words)),
                ["Timeout", ..] if self.timeouts.is_some() => {
                    rules.extend(self.timeouts);
                    continue;
                }
                _ => {}
            }
            let gone =
                self.services.iter().find(|(_, name)| service.as_ref() == Some(name)).map(|(rule, _)| *rule);
            let gone = gone.or_else(|| {
                let is = |(_, of, address): &&(&str, Name, String)| {
                    service.as_ref() == Some(of)
                        && server.as_ref().is_some_and(|server| same_host(server, address))
                };
                self.servers.iter().find(is).map(|(rule, ..)| *rule)
            });
            match gone {
                Some(rule) => rules.push(rule),
                None => {
                    lines.push_str(line);
                    lines.push('\n');
                }
            }
        }
        (lines, rules)
    }
}

/// Whether both are one server; its port may be the service's instead of what was typed.
fn same_host(listed: &str, typed: &str) -> bool {
    let host = |text: &str| text.rsplit_once(':').map(|(host, _)| host.to_owned());
    listed == typed || host(listed) == host(typed)
}
