//! Schedulers in the packet path: thresholds, edits, several workers.

use crate::frames::{ACK, FIN, RST, SYN, segment};
use crate::lab::{BASE, Lab, web};

/// Service 192.168.150.100:80/tcp; of each server its last byte, weight, upper and lower threshold.
fn limited(scheduler: &str, servers: &[(u8, u32, u32, u32)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(n, weight, upper, lower)| {
            format!(
                "{{ address = \"192.168.150.{n}\", weight = {weight}, upper_threshold = {upper}, \
                 lower_threshold = {lower} }}"
            )
        })
        .collect();
    format!(
        "[[services]]\nname = \"web\"\nvip = \"192.168.150.100\"\nport = 80\nscheduler = \"{scheduler}\"\n\
         servers = [{}]\n[services.timeouts]\ntcp_fin_wait = \"1s\"\n",
        servers.join(", ")
    )
}

/// The server of a new connection, when questions for next hops may leave at the same time.
fn forwarded_to(lab: &mut Lab, port: u16) -> Option<u8> {
    lab.pass(&segment(port, SYN)).iter().find(|frame| frame[12..14] == [8, 0]).map(|frame| frame[5])
}

#[test]
fn a_full_server_gets_nobody_until_enough_connections_have_expired() {
    let mut lab = Lab::warm(&limited("rr", &[(12, 1, 3, 2), (13, 1, 0, 0)]));
    for port in 1..=10 {
        lab.pass(&segment(port, SYN));
        lab.pass(&segment(port, ACK));
    }
    assert_eq!(lab.counts(), [(3, 0), (7, 0)]);
    // one of three ends: two are not below the lower threshold
    lab.pass(&segment(1, FIN | ACK));
    lab.wait(3_000);
    assert_eq!(lab.counts(), [(2, 0), (7, 0)]);
    assert_eq!(forwarded_to(&mut lab, 11), Some(13));
    lab.pass(&segment(3, FIN | ACK));
    lab.wait(3_000);
    assert_eq!(forwarded_to(&mut lab, 12), Some(12));
}

#[test]
fn a_connection_whose_port_is_used_again_makes_room_too() {
    let mut lab = Lab::warm(&limited("rr", &[(12, 1, 1, 0)]));
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(2, SYN)), None);
    lab.pass(&segment(1, ACK));
    lab.pass(&segment(1, RST));
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12), "the connection in CLOSE is over");
}

#[test]
fn thresholds_count_over_all_workers_and_a_higher_one_relieves() {
    let text = format!("{BASE}{}", limited("wlc", &[(12, 9, 40, 0), (13, 1, 20, 0)]));
    let mut lab = Lab::warm_of(&text, 3);
    let served = |lab: &mut Lab, ports: std::ops::Range<u16>| {
        ports.filter(|port| lab.server_of(&segment(*port, SYN)).is_some()).count()
    };
    assert_eq!(served(&mut lab, 1000..1100), 60);
    assert_eq!(lab.counts(), [(40, 0), (20, 0)]);
    lab.apply(&limited("wlc", &[(12, 9, 41, 0), (13, 1, 20, 0)]));
    assert_eq!(served(&mut lab, 2000..2010), 1);
    lab.apply(&limited("wlc", &[(12, 9, 0, 0), (13, 1, 20, 0)]));
    assert_eq!(served(&mut lab, 3000..3010), 10);
    assert_eq!(lab.counts(), [(51, 0), (20, 0)]);
}

#[test]
fn wrr_keeps_one_sequence_over_three_workers() {
    let mut lab = Lab::warm_of(&format!("{BASE}{}", web("wrr", &[(12, 4), (13, 3), (14, 2)])), 3);
    let round = [12, 12, 13, 12, 13, 14, 12, 13, 14];
    for n in 0..270u16 {
        let want = Some(round[usize::from(n) % round.len()]);
        assert_eq!(lab.server_of(&segment(40_000 + n, SYN)), want, "connection {n}");
    }
    assert!(lab.director.workers().iter().all(|worker| worker.connections > 40));
}

#[test]
fn an_edit_restarts_wrr_and_so_does_one_that_changes_nothing() {
    let config = web("wrr", &[(12, 3), (13, 2), (14, 1)]);
    let mut lab = Lab::warm(&config);
    let mut port = 1000;
    let mut next = |lab: &mut Lab| {
        port += 1;
        lab.server_of(&segment(port, SYN))
    };
    assert_eq!([0; 3].map(|_| next(&mut lab)), [12, 12, 13].map(Some), "levels 3, 2, 2");
    lab.apply(&config);
    assert_eq!(next(&mut lab), Some(12), "nothing was edited: on to level 1");
    let service = lab.director.model().services[0].clone();
    lab.director.touch(&service);
    assert_eq!([0; 3].map(|_| next(&mut lab)), [12, 13, 14].map(Some), "level 1 from the head");
    lab.apply(&web("rr", &[(12, 3), (13, 2), (14, 1)]));
    lab.apply(&config);
    assert_eq!(next(&mut lab), Some(12), "another scheduler in between: from the beginning");
    lab.apply(&limited("wrr", &[(12, 3, 100, 0), (13, 2, 0, 0), (14, 1, 0, 0)]));
    assert_eq!(
        [0; 2].map(|_| next(&mut lab)),
        [12, 12].map(Some),
        "a new threshold is an edit: level 3 again"
    );
}

#[test]
fn rr_goes_on_behind_the_predecessor_of_a_removed_server_that_came_back() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1), (14, 1)]));
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(13));
    lab.apply(&web("rr", &[(12, 1), (14, 1)]));
    lab.apply(&web("rr", &[(13, 1), (12, 1), (14, 1)]));
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(14), "the cursor went to 12 when 13 was removed");
}

#[test]
fn mh_keeps_the_slots_of_a_drained_server_for_its_return() {
    let all = |weight: u32| web("mh", &[(12, 1), (13, weight), (14, 1)]);
    let mut lab = Lab::warm(&all(2));
    // IPVS's constant keys hash the client's address alone: one client has one server
    let home = lab.server_of(&segment(1, SYN)).expect("a server");
    let drained: Vec<_> = [(12, 1), (13, 2), (14, 1)]
        .into_iter()
        .map(|(n, weight)| if n == home { (n, 0) } else { (n, weight) })
        .collect();
    lab.apply(&web("mh", &drained));
    assert_eq!(lab.server_of(&segment(2, SYN)), None, "refused, not moved");
    lab.apply(&web("mh", &drained).replace("forwarding", "scheduler_flags = [\"mh-fallback\"]\nforwarding"));
    let other = lab.server_of(&segment(3, SYN)).expect("another server");
    assert_ne!(other, home);
    lab.apply(&all(2));
    assert_eq!(lab.server_of(&segment(4, SYN)), Some(home));
}

#[test]
fn lblc_keeps_an_address_with_its_server_and_forgets_it_after_a_day() {
    let config = web("lblc", &[(12, 9), (13, 9)]);
    let mut lab = Lab::warm(&config);
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    // without a memory the second connection went to 13, which has none
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(12));
    lab.apply(&web("lblc", &[(12, 9)]));
    lab.apply(&web("lblc", &[(13, 9), (12, 9)]));
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(12), "the memory outlives changes");
    // the kernel's timer: a look a minute, every thirtieth of them forgets what is a day old
    for _ in 0..24 * 60 + 31 {
        lab.now_ms += 60_000;
        lab.turn();
    }
    [12, 13].into_iter().for_each(|n| lab.answer_arp(n));
    lab.settle();
    lab.clear();
    assert_eq!(forwarded_to(&mut lab, 4), Some(13), "the head of the list");
}
