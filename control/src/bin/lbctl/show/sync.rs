//! Directors that connections are shared with.

use std::net::SocketAddr;

use lb_control::api::{IpvsSyncRow, SyncStatus};

use super::vrrp::time;
use crate::table::{Side, Table};

/// Directors, daemons of IPVS's protocol, then what became of what they told.
pub fn sync(status: &SyncStatus) -> String {
    if status.peers.is_empty() && status.ipvs.is_empty() {
        return "no sync is configured\n".to_owned();
    }
    let mut text = String::new();
    if !status.peers.is_empty() {
        text += &peers(status);
    }
    if !status.ipvs.is_empty() {
        text += if text.is_empty() { "" } else { "\n" };
        text += &daemons(&status.ipvs);
    }
    text += &format!("records taken over: {}\n", status.applied);
    for (reason, count) in &status.refused {
        text += &format!("records not taken over: {count}: {reason}\n");
    }
    if status.lost > 0 {
        text += &format!("changes that could not be told in time: {}\n", status.lost);
    }
    text
}

/// Daemons of IPVS's connection sync, then why what was left out.
fn daemons(rows: &[IpvsSyncRow]) -> String {
    let mut table = Table::new(&[
        ("IPVS", Side::Left),
        ("Interface", Side::Left),
        ("Group", Side::Left),
        ("Id", Side::Right),
        ("Messages", Side::Right),
        ("Entries", Side::Right),
    ]);
    let mut notes = String::new();
    for row in rows {
        table.row([
            row.state.clone(),
            row.interface.clone(),
            SocketAddr::new(row.group, row.port).to_string(),
            row.sync_id.to_string(),
            row.messages.to_string(),
            row.entries.to_string(),
        ]);
        if let Some(fault) = &row.fault {
            notes += &format!("{}: does not work: {fault}\n", row.state);
        }
        let master = row.state == "master";
        let odd = [
            (row.refused, if master { "messages not sent" } else { "messages of no use" }),
            (row.malformed, "entries malformed"),
            (row.late, "entries for which workers had no room"),
        ];
        for (count, what) in odd.into_iter().filter(|(count, _)| *count > 0) {
            notes += &format!("{}: {count} {what}\n", row.state);
        }
        for (reason, count) in &row.left_out {
            notes += &format!("{}: {count} left out: {reason}\n", row.state);
        }
    }
    format!("{table}{notes}")
}

/// A table of directors, then what is odd about them.
fn peers(status: &SyncStatus) -> String {
    let mut table = Table::new(&[
        ("Director", Side::Left),
        ("Address", Side::Left),
        ("State", Side::Left),
        ("Since", Side::Right),
        ("Copy", Side::Left),
        ("Took", Side::Right),
        ("Told", Side::Right),
        ("Heard", Side::Right),
        ("Sent", Side::Right),
        ("Again", Side::Right),
        ("Waiting", Side::Right),
        ("Lag p50", Side::Right),
        ("p99", Side::Right),
        ("Most", Side::Right),
    ]);
    let mut notes = String::new();
    for row in &status.peers {
        table.row([
            row.name.clone(),
            row.peer.to_string(),
            row.state.clone(),
            time(row.since_ms),
            row.copy.clone(),
            time(row.copy_ms),
            row.told.to_string(),
            row.heard.to_string(),
            row.datagrams_sent.to_string(),
            row.datagrams_repeated.to_string(),
            row.datagrams_waiting.to_string(),
            format!("{}us", row.lag_p50_us),
            format!("{}us", row.lag_p99_us),
            format!("{}us", row.lag_max_us),
        ]);
        let odd = [
            (row.datagrams_forged, "not made with the key"),
            (row.datagrams_strange, "of no session"),
            (row.datagrams_gone, "lost for good"),
        ];
        for (count, what) in odd.into_iter().filter(|(count, _)| *count > 0) {
            notes += &format!("{}: {count} datagrams {what}\n", row.name);
        }
    }
    format!("{table}{notes}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::SyncRow;

    #[test]
    fn it_shows_sessions_and_what_is_odd() {
        assert_eq!(sync(&SyncStatus::default()), "no sync is configured\n");
        let row = SyncRow {
            name: "second".into(),
            listen: "10.9.0.1:8849".parse().unwrap(),
            peer: "10.9.0.2:8849".parse().unwrap(),
            state: "up".into(),
            since_ms: 65_000,
            sessions: 1,
            copy: "complete".into(),
            copy_ms: 12,
            told: 7,
            heard: 8,
            datagrams_sent: 3,
            datagrams_repeated: 1,
            datagrams_waiting: 0,
            datagrams_heard: 4,
            datagrams_useless: 0,
            datagrams_gone: 0,
            datagrams_strange: 0,
            datagrams_forged: 2,
            lag_p50_us: 900,
            lag_p99_us: 2100,
            lag_max_us: 3000,
        };
        let refused = [("no_server".to_owned(), 5)].into();
        let status =
            SyncStatus { peers: vec![row], complete: true, applied: 3, refused, ..SyncStatus::default() };
        let text = sync(&status);
        assert_eq!(text.lines().count(), 5, "{text}");
        for wanted in [
            "1m5s",
            "complete",
            "900us",
            "second: 2 datagrams not made with the key",
            "records taken over: 3",
            "records not taken over: 5: no_server",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }

    #[test]
    fn it_shows_the_daemons_of_ipvs() {
        let row = IpvsSyncRow {
            state: "backup".into(),
            interface: "eth2".into(),
            sync_id: 7,
            group: "224.0.0.81".parse().unwrap(),
            port: 8848,
            fault: Some("No such device".into()),
            messages: 3,
            entries: 9,
            refused: 1,
            malformed: 0,
            late: 2,
            left_out: [("no_server".to_owned(), 4)].into(),
        };
        let text = sync(&SyncStatus { ipvs: vec![row], ..SyncStatus::default() });
        assert_eq!(text.lines().count(), 7, "{text}");
        for wanted in [
            "224.0.0.81:8848",
            "backup: does not work: No such device",
            "backup: 1 messages of no use",
            "backup: 2 entries for which workers had no room",
            "backup: 4 left out: no_server",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
