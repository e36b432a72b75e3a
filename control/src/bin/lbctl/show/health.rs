//! Answers about health.

use lb_control::api::{EventList, HealthServer, HealthTable};

use crate::table::{Side, Table};

/// One block per service: its quorum, and a line per check of its servers.
pub fn health(table: &HealthTable) -> String {
    if table.services.is_empty() {
        return "no service has health checks\n".to_owned();
    }
    let mut rows = Table::new(&[
        ("  -> RemoteAddress:Port", Side::Left),
        ("State", Side::Left),
        ("Weight", Side::Right),
        ("Since", Side::Right),
        ("Check", Side::Left),
        ("Verdict", Side::Left),
        ("Last", Side::Right),
        ("Took", Side::Right),
        ("Next", Side::Right),
        ("Fails", Side::Right),
        ("Result", Side::Left),
    ]);
    for server in table.services.iter().flat_map(|service| &service.servers) {
        for (at, check) in server.checks.iter().enumerate() {
            let first = |text: String| if at == 0 { text } else { String::new() };
            rows.row([
                first(format!("  -> {}", server.address)),
                first(server.state.clone()),
                first(server.weight.to_string()),
                first(server.since_ms.map_or("-".to_owned(), time)),
                check.check.clone(),
                check.state.clone(),
                check.ago_ms.map_or("-".to_owned(), time),
                check.took_us.map_or("-".to_owned(), |us| format!("{}.{}ms", us / 1000, us % 1000 / 100)),
                check.next_ms.map_or("now".to_owned(), time),
                check.failures.to_string(),
                check.result.clone(),
            ]);
        }
        if let Some(why) = reason(server) {
            rows.row(std::iter::repeat_n(String::new(), 10).chain([why.to_owned()]));
        }
    }
    let mut lines = rows.lines();
    let mut text = lines.next().unwrap_or_default() + "\n";
    for service in &table.services {
        let state = match (service.quorum_up, service.sorry) {
            (true, _) => "quorum",
            (false, true) => "NO QUORUM, sorry server serves",
            (false, false) => "NO QUORUM",
        };
        let since = service.since_ms.map_or(String::new(), |since| format!(" for {}", time(since)));
        text += &format!(
            "{}: {state}{since}, weight {} of {} is up\n",
            service.service, service.live, service.quorum
        );
        for line in lines.by_ref().take(service.servers.iter().map(height).sum()) {
            text += &format!("{line}\n");
        }
    }
    if let Some(late) = &table.lateness {
        text += &format!(
            "{} different checks, {} made; they start late by {} us (half below), {} us (99 %), {} us (latest)\n",
            late.probes, late.checks, late.p50_us, late.p99_us, late.max_us
        );
    }
    text
}

/// Why a server is down although none of its checks says so.
fn reason(server: &HealthServer) -> Option<&str> {
    let told = server.state != "down" || server.checks.iter().any(|check| check.state == "down");
    (!told && !server.why.is_empty()).then_some(server.why.as_str())
}

/// Lines that a server has.
fn height(server: &HealthServer) -> usize {
    server.checks.len() + usize::from(reason(server).is_some())
}

/// One line per event.
pub fn events(list: &EventList) -> String {
    let line = |event: &lb_control::api::EventRow| {
        let of = match (&event.service, &event.server) {
            (Some(service), Some(server)) => format!(" {server} of {service}"),
            (Some(service), None) => format!(" {service}"),
            _ => String::new(),
        };
        format!("{} {}{of}: {}\n", clock(event.time_ms), event.event, event.reason)
    };
    list.events.iter().map(line).collect()
}

/// A time span, short: `950ms`, `12.3s`, `4m05s`, `3h02m`, `2d04h`.
fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Milliseconds since 1970 as a date and time of day in UTC.
fn clock(ms: u64) -> String {
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // Years begin in March: then the leap day is the last one (days from civil, H. Hinnant).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let day = day - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{CheckRow, EventRow, HealthRow, Lateness};

    #[test]
    fn a_table_has_a_line_per_check() {
        let check = |check: &str, passed: Option<bool>, result: &str| CheckRow {
            check: check.into(),
            state: "up".into(),
            passed,
            result: result.into(),
            ago_ms: passed.map(|_| 1_250),
            took_us: passed.map(|_| 1_234),
            failures: 0,
            next_ms: passed.map(|_| 3_750),
        };
        let server = |address: &str, state: &str, checks| HealthServer {
            address: address.parse().unwrap(),
            state: state.into(),
            weight: 1,
            why: "status 200".into(),
            since_ms: Some(3_723_000),
            checks,
        };
        let table = HealthTable {
            services: vec![HealthRow {
                service: "web".into(),
                quorum: 1,
                live: 1,
                quorum_up: true,
                sorry: false,
                since_ms: None,
                servers: vec![
                    server(
                        "192.168.150.12:80",
                        "up",
                        vec![
                            check("http /", Some(true), "status 200"),
                            check("ping", Some(true), "answered"),
                        ],
                    ),
                    server("192.168.150.13:80", "unknown", vec![check("http /", None, "")]),
                    HealthServer {
                        why: "its weight would be -5".into(),
                        ..server("192.168.150.14:80", "down", vec![check("http /", Some(true), "status 200")])
                    },
                ],
            }],
            lateness: Some(Lateness { probes: 3, checks: 17, p50_us: 600, p99_us: 1_100, max_us: 1_300 }),
        };
        let want = "  -> RemoteAddress:Port  State    Weight  Since  Check   Verdict  Last   Took  Next  Fails  Result
web: quorum, weight 1 of 1 is up
  -> 192.168.150.12:80   up            1  1h02m  http /  up       1.2s  1.2ms  3.7s      0  status 200
                                                 ping    up       1.2s  1.2ms  3.7s      0  answered
  -> 192.168.150.13:80   unknown       1  1h02m  http /  up          -      -   now      0
  -> 192.168.150.14:80   down          1  1h02m  http /  up       1.2s  1.2ms  3.7s      0  status 200
                                                                                            its weight would be -5
3 different checks, 17 made; they start late by 600 us (half below), 1100 us (99 %), 1300 us (latest)
";
        assert_eq!(health(&table), want);
        assert_eq!(health(&HealthTable::default()), "no service has health checks\n");
    }

    #[test]
    fn an_event_is_a_line() {
        let list = EventList {
            events: vec![
                EventRow {
                    number: 1,
                    time_ms: 951_782_400_042,
                    event: "down".into(),
                    service: Some("web".into()),
                    server: Some("192.168.150.12:80".into()),
                    reason: "http: connection refused".into(),
                },
                EventRow {
                    number: 2,
                    time_ms: 1_767_225_599_000,
                    event: "quorum_down".into(),
                    service: Some("web".into()),
                    server: None,
                    reason: "weight 0 of 1 is up".into(),
                },
            ],
            last: 2,
        };
        let want = "\
2000-02-29T00:00:00.042Z down 192.168.150.12:80 of web: http: connection refused
2025-12-31T23:59:59.000Z quorum_down web: weight 0 of 1 is up
";
        assert_eq!(events(&list), want);
    }
}
