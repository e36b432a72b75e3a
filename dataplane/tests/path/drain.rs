//! Servers that drain until a deadline.

use lb_config::{OnServerDown, ServerRef};
use lb_dataplane::DropReason;
use lb_dataplane::director::Notice;

use crate::frames::{ACK, CLIENT, RST, SYN, segment, server_mac};
use crate::lab::{Lab, web};

/// Servers .12 and .13, the latter with weight `weight` and `deadline`.
fn service(fate: &str, weight: u32, deadline: Option<&str>) -> String {
    let text = web("rr", &[(12, 1), (13, weight)]);
    let text = match deadline {
        Some(time) => text.replace("weight = 0 }", &format!("weight = 0, drain_deadline = \"{time}\" }}")),
        None => text,
    };
    format!("{text}[services.policy]\non_server_down = \"{fate}\"\n")
}

fn draining(fate: &str) -> String {
    service(fate, 0, Some("1m"))
}

/// A director whose clients' ports 1 and 2 have connections with .12 and .13.
fn busy(fate: &str) -> Lab {
    let mut lab = Lab::warm(&service(fate, 1, None));
    for port in [1, 2] {
        let server = Some(11 + port as u8);
        assert_eq!(lab.server_of(&segment(port, SYN)), server);
        assert_eq!(lab.server_of(&segment(port, ACK)), server);
    }
    lab
}

/// The next hops have answered lately.
pub fn heard(lab: &mut Lab) {
    [12, 13, 254].into_iter().for_each(|n| lab.answer_arp(n));
    lab.settle();
    lab.clear();
}

/// Time goes on; what the director wants logged.
fn wait(lab: &mut Lab, ms: u64) -> Vec<Notice> {
    let (end, mut notices) = (lab.now_ms + ms, Vec::new());
    while lab.now_ms < end {
        lab.now_ms = (lab.now_ms + 100).min(end);
        for worker in &mut lab.workers {
            worker.turn(lab.now_ms * 1_000_000);
        }
        notices.extend(lab.director.poll(lab.now_ms));
    }
    heard(lab);
    notices.retain(|notice| matches!(notice, Notice::DrainOver { .. }));
    notices
}

/// What is left of .13's time, ms.
fn left(lab: &Lab) -> Option<u64> {
    let rows = lab.director.services().remove(0).dests;
    let row = rows.into_iter().find(|row| row.address.to_string() == "192.168.150.13").expect("configured");
    assert!(!row.removed);
    row.drain_left_ms
}

fn over(connections: u64, fate: OnServerDown) -> Vec<Notice> {
    let server = ServerRef { address: [192, 168, 150, 13].into(), port: 80 };
    vec![Notice::DrainOver { service: "web".into(), server, connections, fate }]
}

fn conserved(lab: &Lab) {
    let totals = lab.director.totals();
    let sum = totals.tx + totals.delivered + totals.dropped + totals.held;
    assert_eq!(totals.rx + totals.originated, sum, "{totals:?} {:?}", lab.drops());
}

#[test]
fn connections_go_on_until_the_deadline_and_not_longer() {
    let mut lab = busy("drop");
    assert_eq!(left(&lab), None);
    lab.apply(&draining("drop"));
    assert_eq!(left(&lab), Some(60_000), "before the first poll");
    assert_eq!(wait(&mut lab, 59_900), []);
    assert!((1..=200).contains(&left(&lab).expect("it drains")), "{:?}", left(&lab));
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(4, SYN)), Some(12));
    assert_eq!(wait(&mut lab, 200), over(1, OnServerDown::Drop));
    assert_eq!(left(&lab), Some(0));
    assert_eq!(lab.server_of(&segment(2, ACK)), None);
    assert_eq!(lab.dropped(DropReason::ServerGone), 1);
    assert_eq!(lab.server_of(&segment(1, ACK)), Some(12));
    assert_eq!(lab.counts()[1], (1, 0), "it is kept until its time is over");
    assert_eq!(wait(&mut lab, 120_000), [], "told once");
    conserved(&lab);
}

#[test]
fn what_is_left_is_reset() {
    let mut lab = busy("reset");
    lab.apply(&draining("reset"));
    assert_eq!(wait(&mut lab, 60_200), over(1, OnServerDown::Reset));
    let sent = lab.pass(&segment(2, ACK));
    let to = |mac: [u8; 6]| sent.iter().find(|frame| frame[..6] == mac).expect("a reset");
    assert_eq!((to(CLIENT)[47] & RST, to(server_mac(13))[47] & RST), (RST, RST), "both ends hear");
    assert_eq!(lab.counts()[1], (0, 0));
    conserved(&lab);
}

#[test]
fn what_is_left_is_scheduled_anew() {
    let mut lab = busy("reschedule");
    lab.apply(&draining("reschedule"));
    assert_eq!(wait(&mut lab, 60_200), over(1, OnServerDown::Reschedule));
    assert_eq!((lab.counts()[1], lab.connections().len()), ((0, 0), 1), "without waiting for a packet");
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(12));
    conserved(&lab);
}

#[test]
fn a_weight_takes_the_deadline_away_before_it_and_after_it() {
    let mut lab = busy("drop");
    lab.apply(&draining("drop"));
    wait(&mut lab, 30_000);
    lab.apply(&service("drop", 1, None));
    assert_eq!((left(&lab), wait(&mut lab, 60_000)), (None, vec![]));
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
    lab.apply(&draining("drop"));
    assert_eq!(wait(&mut lab, 60_200).len(), 1, "it counts anew");
    assert_eq!(lab.server_of(&segment(2, ACK)), None);
    lab.apply(&service("drop", 1, None));
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
    assert!([3, 4].iter().any(|port| lab.server_of(&segment(*port, SYN)) == Some(13)));
    lab.apply(&service("drop", 0, None));
    assert_eq!((left(&lab), wait(&mut lab, 120_000)), (None, vec![]), "a drain without a deadline");
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
}

#[test]
fn the_same_deadline_counts_on_and_another_one_anew() {
    let mut lab = busy("drop");
    lab.apply(&draining("drop"));
    assert_eq!(wait(&mut lab, 40_000), []);
    lab.apply(&draining("drop"));
    assert!(left(&lab).expect("it drains") <= 20_100);
    lab.apply(&service("drop", 0, Some("30s")));
    assert_eq!(wait(&mut lab, 29_000), []);
    assert_eq!(wait(&mut lab, 1_200).len(), 1);
    lab.apply(&service("drop", 0, Some("30s")));
    assert_eq!((left(&lab), wait(&mut lab, 60_000)), (Some(0), vec![]), "over is over");
    assert_eq!(lab.server_of(&segment(2, ACK)), None);
}

#[test]
fn a_change_of_mind_about_connections_holds_after_the_deadline() {
    let mut lab = busy("drop");
    lab.apply(&draining("drop"));
    wait(&mut lab, 60_200);
    assert_eq!(lab.server_of(&segment(2, ACK)), None);
    lab.apply(&draining("reschedule"));
    lab.settle();
    assert_eq!((lab.counts()[1], left(&lab)), ((0, 0), Some(0)));
}

#[test]
fn a_deadline_in_the_first_configuration_counts_from_the_start() {
    let mut lab = Lab::warm(&draining("drop"));
    let begun = left(&lab).expect("it drains");
    assert!((55_000..=60_000).contains(&begun), "{begun}");
    assert_eq!(wait(&mut lab, begun + 100), over(0, OnServerDown::Drop));
}

#[test]
fn a_server_removed_and_brought_back_counts_anew() {
    let mut lab = busy("drop");
    lab.apply(&draining("drop"));
    wait(&mut lab, 60_200);
    let alone = format!("{}[services.policy]\non_server_down = \"drop\"\n", web("rr", &[(12, 1)]));
    lab.apply(&alone);
    assert_eq!(lab.server_of(&segment(2, ACK)), None);
    lab.apply(&draining("drop"));
    assert_eq!((left(&lab), lab.server_of(&segment(2, ACK))), (Some(60_000), Some(13)));
}

#[test]
fn persistence_lets_go_at_the_deadline() {
    let sticky =
        |text: String| text.replace("forwarding", "persistence = { timeout = \"300s\" }\nforwarding");
    let mut lab = Lab::warm(&sticky(service("drop", 1, None).replace("\"rr\"", "\"wrr\"")));
    let server = lab.server_of(&segment(1, SYN)).expect("a server");
    let drain = format!("192.168.150.{server}\", weight = 1");
    let by = format!("192.168.150.{server}\", weight = 0, drain_deadline = \"1m\"");
    lab.apply(&sticky(service("drop", 1, None).replace("\"rr\"", "\"wrr\"").replace(&drain, &by)));
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(server), "as IPVS: the template leads there");
    assert_eq!(wait(&mut lab, 60_200).len(), 1);
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(25 - server));
}

#[test]
fn every_worker_obeys() {
    let base = crate::lab::BASE;
    let mut lab = Lab::warm_of(&format!("{base}{}", service("drop", 1, None)), 3);
    let servers: Vec<_> =
        (1001..=1060).map(|port| lab.server_of(&segment(port, SYN)).expect("a server")).collect();
    lab.apply(&draining("drop"));
    assert_eq!(wait(&mut lab, 59_000), []);
    for (port, server) in (1001..=1060).zip(&servers) {
        assert_eq!(lab.server_of(&segment(port, ACK)), Some(*server));
    }
    assert_eq!(wait(&mut lab, 1_200), over(30, OnServerDown::Drop));
    for (port, server) in (1001..=1060).zip(&servers) {
        assert_eq!(lab.server_of(&segment(port, ACK)).is_some(), *server == 12);
    }
    conserved(&lab);
}
