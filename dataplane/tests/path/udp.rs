//! `udp_activity`: UDP connections count as active while packets come.

use std::collections::HashMap;

use crate::drain::heard;
use crate::frames::{from_client, udp};
use crate::lab::{BASE, Lab};

/// How late the sweep may be, ms: a pass of a second, twice as long when rounding costs a line a turn.
const LATE: u64 = 2_000;

/// A service 192.168.150.100:53/udp.
fn dns(scheduler: &str, policy: &str, servers: &[(u8, u32)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(n, weight)| format!("{{ address = \"192.168.150.{n}\", weight = {weight} }}"))
        .collect();
    format!(
        "[[services]]\nname = \"dns\"\nvip = \"192.168.150.100\"\nport = 53\nprotocol = \"udp\"\nscheduler = \"{scheduler}\"\n\
         servers = [{}]\n[services.policy]\n{policy}\n",
        servers.join(", ")
    )
}

const TEN: &str = "udp_activity = \"10s\"";
const BOTH: [(u8, u32); 2] = [(12, 1), (13, 1)];

/// Time goes on; the servers answer the director's questions.
fn wait(lab: &mut Lab, ms: u64) {
    lab.wait(ms);
    heard(lab);
}

fn datagram(port: u16) -> Vec<u8> {
    from_client("192.168.150.1", "192.168.150.100", 17, &udp(port, 53, 30))
}

fn datagram6(port: u16) -> Vec<u8> {
    from_client("fd00:150::1", "fd00:150::100", 17, &udp(port, 53, 30))
}

#[test]
fn a_flow_is_active_until_no_packet_came_for_the_time() {
    let mut lab = Lab::warm(&dns("rr", TEN, &BOTH));
    assert_eq!(lab.server_of(&datagram(1)), Some(12));
    assert_eq!(lab.counts(), [(1, 0), (0, 0)]);
    wait(&mut lab, 9_500);
    assert_eq!(lab.counts(), [(1, 0), (0, 0)]);
    assert_eq!(lab.server_of(&datagram(1)), Some(12));
    wait(&mut lab, 9_500);
    assert_eq!(lab.counts(), [(1, 0), (0, 0)], "each packet counts anew");
    wait(&mut lab, 500 + LATE);
    assert_eq!(lab.counts(), [(0, 1), (0, 0)]);
    assert_eq!(lab.server_of(&datagram(1)), Some(12), "it is known still");
    assert_eq!(lab.counts(), [(1, 0), (0, 0)]);
    wait(&mut lab, 10_000 + LATE);
    assert_eq!(lab.counts(), [(0, 1), (0, 0)]);
    wait(&mut lab, 290_000);
    assert_eq!(
        (lab.counts(), lab.connections().len()),
        (vec![(0, 0), (0, 0)], 0),
        "and ends when it always did"
    );
}

#[test]
fn a_time_beyond_the_timeout_lasts_as_long_as_the_flow() {
    let mut lab = Lab::warm(&format!(
        "{}[services.timeouts]\nudp = \"20s\"\n",
        dns("rr", "udp_activity = \"1m\"", &BOTH)
    ));
    lab.pass(&datagram(1));
    wait(&mut lab, 19_500);
    assert_eq!(lab.counts(), [(1, 0), (0, 0)]);
    wait(&mut lab, 500 + LATE);
    assert_eq!(lab.counts(), [(0, 0), (0, 0)]);
}

#[test]
fn schedulers_go_by_the_flows_that_are_alive() {
    for scheduler in ["lc", "wlc", "sed", "nq", "ovf"] {
        // ovf leaves a server when it has more active connections than weight
        let alive: &[u16] = if scheduler == "ovf" { &[1, 4] } else { &[1] };
        let by_all = if scheduler.ends_with("lc") { 13 } else { 12 };
        for (policy, second, third) in [(TEN, 13, 13), ("", by_all, 12)] {
            let mut lab = Lab::warm(&dns(scheduler, policy, &BOTH));
            let go_to = |lab: &mut Lab, ports: &[u16], server| {
                for port in ports {
                    let got = lab.server_of(&datagram(*port));
                    assert_eq!(got, Some(server), "{scheduler} {policy}: {port}");
                }
            };
            go_to(&mut lab, alive, 12);
            go_to(&mut lab, &[2], second);
            wait(&mut lab, 10_000 + LATE);
            go_to(&mut lab, alive, 12);
            go_to(&mut lab, &[3], third);
        }
    }
}

#[test]
fn a_change_counts_from_the_next_packet_or_the_next_sweep() {
    let mut lab = Lab::warm(&dns("rr", "", &BOTH));
    lab.pass(&datagram(1));
    lab.pass(&datagram(2));
    lab.apply(&dns("rr", TEN, &BOTH));
    assert_eq!(lab.counts(), [(0, 1), (0, 1)]);
    lab.pass(&datagram(1));
    assert_eq!(lab.counts(), [(1, 0), (0, 1)]);
    lab.apply(&dns("rr", "", &BOTH));
    wait(&mut lab, LATE);
    assert_eq!(lab.counts(), [(0, 1), (0, 1)], "without another packet");
}

#[test]
fn connections_of_a_removed_server_rest_too() {
    let mut lab = Lab::warm(&dns("rr", TEN, &BOTH));
    lab.pass(&datagram(1));
    lab.pass(&datagram(2));
    lab.apply(&dns("rr", TEN, &BOTH[..1]));
    assert_eq!(lab.counts(), [(1, 0), (1, 0)]);
    wait(&mut lab, 10_000 + LATE);
    assert_eq!(lab.counts(), [(0, 1), (0, 1)]);
    wait(&mut lab, 290_000);
    assert_eq!(lab.counts(), [(0, 0)]);
}

/// Flows of both families over three workers, at random, against a list of when each had its latest packet.
#[test]
fn active_connections_are_those_with_a_packet_of_late() {
    let ten = "udp_activity = \"10s\"\n[services.timeouts]\nudp = \"40s\"";
    let six = dns("lc", ten, &BOTH).replace("dns", "dns6").replace("192.168.150.100", "fd00:150::100");
    let six = six.replace("192.168.150.", "fd00:150::");
    let mut lab = Lab::warm_of(&format!("{BASE}{}{six}", dns("wlc", ten, &BOTH)), 3);
    for n in [0x12, 0x13] {
        lab.put(&crate::local::advertisement(n));
        lab.turn();
    }
    let mut latest: HashMap<(u16, bool), u64> = HashMap::new();
    let mut random = 7u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let (mut rose, mut rested) = (false, false);
    for _ in 0..150 {
        for _ in 0..next() % 12 {
            let (port, is_six) = (1000 + (next() % 60) as u16, next() % 2 == 0);
            lab.put(&if is_six { datagram6(port) } else { datagram(port) });
            latest.insert((port, is_six), lab.now_ms);
        }
        (0..3).for_each(|_| lab.turn());
        wait(&mut lab, next() % 4_000);
        let younger = |ms: u64| latest.values().filter(|at| lab.now_ms - **at < ms).count() as u64;
        let rows: Vec<_> = lab.director.services().into_iter().flat_map(|service| service.dests).collect();
        let active: u64 = rows.iter().map(|row| row.active).sum();
        let all: u64 = rows.iter().map(|row| row.active + row.inactive).sum();
        assert!((younger(9_900)..=younger(10_100 + LATE)).contains(&active), "{active} at {}", lab.now_ms);
        assert!((younger(39_900)..=younger(40_100 + LATE)).contains(&all), "{all} at {}", lab.now_ms);
        rose |= active > 10;
        rested |= all > active + 10;
        let totals = lab.director.totals();
        assert_eq!(
            totals.rx + totals.originated,
            totals.tx + totals.delivered + totals.dropped + totals.held
        );
    }
    assert!(rose && rested);
    wait(&mut lab, 40_000 + LATE);
    let rows = lab.director.services().into_iter().flat_map(|service| service.dests);
    assert!(rows.map(|row| (row.active, row.inactive)).all(|counts| counts == (0, 0)));
}
