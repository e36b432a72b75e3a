//! Virtual routers, groups and BFD sessions.

use lb_control::api::{LeaseRow, Vrrp};

use crate::table::{Side, Table};

/// Milliseconds as the two largest units that count: `3d4h`, `5m7s`, `12s`, `340ms`.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A table of instances, why each is in its state, what of theirs is down or counts, adverts that were dropped; groups; sessions.
pub fn vrrp(status: &Vrrp) -> String {
    if status.instances.is_empty() && status.bfd.is_empty() {
        return "no vrrp and no bfd is configured\n".to_owned();
    }
    let mut text = String::new();
    if !status.instances.is_empty() {
        text += &instances(status);
    }
    if !status.groups.is_empty() {
        let mut table =
            Table::new(&[("Group", Side::Left), ("State", Side::Left), ("Instances", Side::Left)]);
        for row in &status.groups {
            table.row([row.name.clone(), row.state.clone(), row.instances.join(" ")]);
        }
        text += &format!("\n{table}");
    }
    if !status.bfd.is_empty() {
        let mut table = Table::new(&[
            ("BFD", Side::Left),
            ("Neighbor", Side::Left),
            ("State", Side::Left),
            ("Since", Side::Right),
            ("Detect", Side::Right),
            ("Downs", Side::Right),
            ("Last", Side::Left),
        ]);
        for row in &status.bfd {
            table.row([
                row.name.clone(),
                row.neighbor.to_string(),
                row.state.clone(),
                time(row.since_ms),
                format!("{}us", row.detection_us),
                row.downs.to_string(),
                row.diagnostic.clone(),
            ]);
        }
        text += if text.is_empty() { "" } else { "\n" };
        text += &table.to_string();
    }
    text
}

fn instances(status: &Vrrp) -> String {
    let mut table = Table::new(&[
        ("Instance", Side::Left),
        ("Port", Side::Left),
        ("VRID", Side::Right),
        ("State", Side::Left),
        ("Since", Side::Right),
        ("Prio", Side::Right),
        ("Master", Side::Left),
        ("MPrio", Side::Right),
        ("Became", Side::Right),
        ("Sent", Side::Right),
        ("Heard", Side::Right),
        ("Addresses", Side::Left),
    ]);
    let mut notes = String::new();
    for row in &status.instances {
        let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        table.row([
            row.name.clone(),
            row.port.clone(),
            row.vrid.to_string(),
            row.state.clone(),
            time(row.since_ms),
            row.priority.to_string(),
            or_dash(row.master),
            or_dash(row.master_priority),
            row.became_master.to_string(),
            row.adverts_sent.to_string(),
            row.adverts_heard.to_string(),
            addresses.join(" "),
        ]);
        if !row.why.is_empty() {
            notes += &format!("{}: {}: {}\n", row.name, row.state, row.why);
        }
        if let Some(lease) = &row.lease {
            notes += &self::lease(&row.name, lease);
        }
        for track in row.tracked.iter().filter(|track| !track.up || track.fault || track.weight != 0) {
            let state = if track.up { "up" } else { "down" };
            let effect =
                if track.fault { "fault".to_owned() } else { format!("priority {:+}", track.weight) };
            notes += &format!("{}: {} {} is {state}: {effect}\n", row.name, track.kind, track.name);
        }
        for (reason, count) in &row.refused {
            notes += &format!("{}: {count} adverts dropped: {reason}\n", row.name);
        }
    }
    format!("{table}{notes}")
}

/// One line: who may have the addresses of an instance.
fn lease(name: &str, lease: &LeaseRow) -> String {
    let state = match (lease.state.as_str(), &lease.holder, lease.left_ms) {
        (_, Some(holder), _) => format!("held by {holder}"),
        ("held", _, Some(left)) => format!("held, {left}ms left"),
        ("away", ..) => "etcd does not answer".to_owned(),
        (state, ..) => state.to_owned(),
    };
    let wanted = if lease.wanted && lease.state != "held" { ", wanted here" } else { "" };
    format!("{name}: lease {}: {state}{wanted}, since {}\n", lease.key, time(lease.since_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{BfdRow, TrackRow, VrrpGroupRow, VrrpRow};

    #[test]
    fn everything_that_matters_is_on_a_line() {
        let status = Vrrp {
            instances: vec![VrrpRow {
                name: "outside".to_owned(),
                port: "lan".to_owned(),
                vrid: 51,
                version: 3,
                state: "backup".to_owned(),
                since_ms: 61_000,
                why: "preempted by 10.0.0.2 with priority 120".to_owned(),
                priority: 90,
                base_priority: 100,
                master: Some("10.0.0.2".parse().unwrap()),
                master_priority: Some(120),
                advert_interval_ms: 1000,
                addresses: vec!["10.0.0.100".parse().unwrap()],
                became_master: 2,
                adverts_sent: 7,
                adverts_heard: 9,
                refused: [("checksum".to_owned(), 3)].into(),
                tracked: vec![TrackRow {
                    kind: "script".to_owned(),
                    name: "nginx".to_owned(),
                    up: false,
                    fault: false,
                    weight: -10,
                }],
                lease: Some(LeaseRow {
                    key: "/sluice/vip/group/all".to_owned(),
                    state: "other".to_owned(),
                    since_ms: 2000,
                    wanted: true,
                    holder: Some("node02".to_owned()),
                    left_ms: None,
                }),
            }],
            groups: vec![VrrpGroupRow {
                name: "all".to_owned(),
                state: "backup".to_owned(),
                instances: vec!["outside".to_owned()],
            }],
            bfd: vec![BfdRow {
                name: "peer".to_owned(),
                neighbor: "10.0.0.2".parse().unwrap(),
                state: "up".to_owned(),
                since_ms: 500,
                diagnostic: "none".to_owned(),
                detection_us: 30_000,
                downs: 0,
            }],
        };
        let text = vrrp(&status);
        for part in [
            "outside",
            "51",
            "backup",
            "1m1s",
            "10.0.0.2",
            "120",
            "outside: backup: preempted by 10.0.0.2 with priority 120\n",
            "script nginx is down: priority -10",
            "outside: lease /sluice/vip/group/all: held by node02, wanted here, since 2s",
            "3 adverts dropped: checksum",
            "all",
            "500ms",
            "30000us",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(vrrp(&Vrrp::default()), "no vrrp and no bfd is configured\n");
        assert_eq!([1, 59_999, 90_061_000].map(time), ["1ms", "59s", "1d1h"]);
    }
}
