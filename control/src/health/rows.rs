//! Health as the API's rows.

use std::net::SocketAddr;

use lb_config::Model;
use lb_config::health::{CheckKind, UrlCheck};
use tokio::time::Instant;

use super::Health;
use super::event::{Event, wall_ms};
use super::probe::ProbeSpec;
use crate::api::{CheckRow, EventRow, HealthRow, HealthServer, HealthTable, Lateness};

/// Most of a command line that is shown, characters.
const COMMAND: usize = 60;

impl Health {
    /// Services with checks, or the one of this name, in the order of the configuration.
    pub fn table(&self, model: &Model, only: Option<&str>) -> HealthTable {
        let now = Self::wall_ms();
        let wanted = model.services.iter().filter(|service| only.is_none_or(|only| only == service.name));
        let rows = wanted.filter_map(|service| {
            let state = self.board.services.get(service.name.as_str())?;
            let since = |server| self.since(&service.name, server).map(|since| now.saturating_sub(since));
            let servers = service.servers.iter().filter_map(|server| {
                let known = state.servers.get(&server.key())?;
                Some(HealthServer {
                    address: server.key(),
                    state: match (known.up, known.known) {
                        (true, _) => "up",
                        (false, true) => "down",
                        (false, false) if known.why == super::NOT_CHECKED => "unknown",
                        (false, false) => "down",
                    }
                    .to_owned(),
                    weight: known.weight,
                    why: known.why.clone(),
                    since_ms: since(Some(server.key())),
                    checks: known
                        .checks
                        .iter()
                        .map(|check| self.check(&check.probe, server.key(), now))
                        .collect(),
                })
            });
            let health = service.health.as_ref();
            Some(HealthRow {
                service: service.name.clone(),
                quorum: health.map_or(1, |health| health.quorum),
                live: state.live,
                quorum_up: state.quorum_up,
                sorry: !state.quorum_up && health.is_some_and(|health| health.sorry_server.is_some()),
                since_ms: since(None),
                servers: servers.collect(),
            })
        });
        let lateness = self.drift().map(|(checks, [p50, p99, max])| Lateness {
            checks,
            p50_us: p50,
            p99_us: p99,
            max_us: max,
            probes: self.board.probes.len() as u64,
        });
        HealthTable { services: rows.collect(), lateness }
    }

    fn check(&self, probe: &ProbeSpec, server: SocketAddr, now_ms: u64) -> CheckRow {
        let seen = self.statuses.get(probe).map(|status| status.seen()).unwrap_or_default();
        let verdict = self.board.probes.get(probe).and_then(|probe| probe.verdict.as_ref());
        let state = match verdict.map(|verdict| verdict.up) {
            None => "unknown",
            Some(true) => "up",
            Some(false) => "down",
        };
        let until = |next: Instant| next.saturating_duration_since(Instant::now());
        CheckRow {
            check: name(probe, server),
            state: state.to_owned(),
            passed: seen.at.map(|_| seen.passed),
            result: seen.why,
            ago_ms: seen.at.map(|at| now_ms.saturating_sub(wall_ms(at))),
            took_us: seen.at.map(|_| u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX)),
            failures: seen.failures,
            next_ms: seen.next.map(|next| u64::try_from(until(next).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whether a configured server is down now; `None`: it is up or not checked.
    pub fn why_down(&self, service: &str, server: SocketAddr) -> Option<&str> {
        let state = self.board.services.get(service)?.servers.get(&server)?;
        (!state.up).then_some(state.why.as_str())
    }
}

/// `www.example.org/health`; without a virtual host `/health`.
fn place(url: &UrlCheck) -> String {
    format!("{}{}", url.host.as_deref().unwrap_or_default(), url.path)
}

/// A command line, or its beginning.
fn short(text: &str) -> String {
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `http /health`, `tcp 10.0.0.1:81` where another than the server is asked.
fn name(probe: &ProbeSpec, server: SocketAddr) -> String {
    let kind = probe.kind.name();
    let what = match &probe.kind {
        CheckKind::Http(http) => match http.urls.as_slice() {
            [url] => format!("{kind} {}", place(url)),
            urls => {
                format!("{kind} {} and {} more", urls.first().map(place).unwrap_or_default(), urls.len() - 1)
            }
        },
        CheckKind::Dns(dns) => format!("{kind} {} {}", dns.record, dns.name),
        CheckKind::Script(script) => format!("{kind} {}", short(&script.command.join(" "))),
        CheckKind::File(file) => return format!("{kind} {}", file.path.display()),
        CheckKind::Tcp | CheckKind::Udp(_) | CheckKind::Smtp { .. } | CheckKind::Ping => kind.to_owned(),
    };
    let to = probe.target.to;
    if probe.target.path.is_some() {
        return format!("{what} via path");
    }
    let elsewhere = match probe.kind {
        CheckKind::Ping => to.ip() != server.ip(),
        _ => to != server,
    };
    match (elsewhere, &probe.kind) {
        (true, CheckKind::Ping) => format!("{what} {}", to.ip()),
        (true, _) => format!("{what} at {to}"),
        (false, _) => what,
    }
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            number: event.number,
            time_ms: event.time_ms,
            event: event.kind.as_str().to_owned(),
            service: text(&event.service),
            server: text(&event.server),
            reason: event.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_differ_can_be_told_apart() {
        let mut url = UrlCheck::new("/health");
        assert_eq!(place(&url), "/health");
        url.host = Some("www.example.org".to_owned());
        assert_eq!(place(&url), "www.example.org/health");
        assert_eq!(short("/bin/sh -c exit 0"), "/bin/sh -c exit 0");
        assert_eq!(short(&"\u{fc}".repeat(61)), format!("{}...", "\u{fc}".repeat(60)));
    }
}
