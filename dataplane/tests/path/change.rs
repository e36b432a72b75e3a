//! The configuration changes while packets come.

use lb_dataplane::DropReason;

use crate::frames::{ACK, FIN, RST, SYN, segment};
use crate::lab::{Lab, web};

#[test]
fn a_removed_server_keeps_its_connections_and_gets_no_others() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    for port in 1..=4 {
        lab.pass(&segment(port, SYN));
        lab.pass(&segment(port, ACK));
    }
    lab.apply(&web("rr", &[(12, 1)]));
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
    for port in 5..=8 {
        assert_eq!(lab.server_of(&segment(port, SYN)), Some(12));
    }
    let row = &lab.director.services()[0].dests[1];
    assert!(row.removed && row.active == 2, "{row:?}");
    // its connections end, and so does it
    for port in [2, 4] {
        lab.pass(&segment(port, RST | ACK));
    }
    lab.wait(15_000);
    assert_eq!(lab.director.services()[0].dests.len(), 1);
    assert_eq!(lab.director.services()[0].conns, 8, "what it did still counts for the service");
}

#[test]
fn a_new_handshake_does_not_go_to_a_removed_server() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    lab.pass(&segment(1, SYN));
    lab.pass(&segment(2, SYN));
    lab.pass(&segment(2, ACK));
    lab.pass(&segment(2, FIN | ACK));
    lab.apply(&web("rr", &[(12, 1)]));
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(12));
}

#[test]
fn a_server_that_comes_back_has_its_connections_and_counters() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    (1..=4).for_each(|port| {
        lab.pass(&segment(port, SYN));
    });
    lab.apply(&web("rr", &[(12, 1)]));
    lab.wait(3_000);
    lab.apply(&web("rr", &[(12, 1), (13, 1)]));
    assert_eq!(lab.counts(), [(2, 0), (2, 0)]);
    assert_eq!(lab.director.services()[0].dests[1].conns, 2);
}

#[test]
fn an_index_is_not_given_on_while_a_connection_has_it() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    lab.pass(&segment(1, SYN));
    lab.pass(&segment(2, SYN));
    lab.pass(&segment(2, ACK));
    lab.apply(&web("rr", &[(12, 1)]));
    lab.wait(5_000);
    lab.apply(&web("rr", &[(12, 1), (14, 1), (15, 1), (16, 1)]));
    lab.settle();
    lab.clear();
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
}

#[test]
fn rr_goes_on_where_it_was_through_changes() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1), (14, 1)]));
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(13));
    lab.apply(&web("rr", &[(12, 1), (14, 1)]));
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(14), "13's predecessor 12 was the last, 14 follows");
    lab.apply(&web("rr", &[(12, 1), (13, 1), (14, 1)]));
    assert_eq!(lab.server_of(&segment(4, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(5, SYN)), Some(13));
}

#[test]
fn weight_zero_drains() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    lab.pass(&segment(1, SYN));
    lab.pass(&segment(2, SYN));
    lab.apply(&web("rr", &[(12, 1), (13, 0)]));
    assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
    (10..14).for_each(|port| assert_eq!(lab.server_of(&segment(port, SYN)), Some(12)));
    lab.apply(&web("rr", &[(12, 0), (13, 0)]));
    assert_eq!(lab.server_of(&segment(30, SYN)), None);
    assert_eq!(lab.dropped(DropReason::NoServer), 1);
}

#[test]
fn a_removed_service_keeps_its_connections_too() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.pass(&segment(1, SYN));
    lab.apply("");
    assert_eq!(lab.server_of(&segment(1, ACK)), Some(12));
    assert_eq!(lab.server_of(&segment(2, SYN)), None);
    assert_eq!(lab.dropped(DropReason::NotForUs), 1);
}

#[test]
fn changed_timeouts_hold_from_the_next_packet_on() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.pass(&segment(1, SYN));
    lab.apply(&format!("{}[services.timeouts]\ntcp_syn_recv = \"5s\"\n", web("rr", &[(12, 1)])));
    lab.pass(&segment(1, SYN));
    assert!(lab.connections()[0].expires_ms() <= 5_000);
    lab.wait(7_000);
    assert_eq!(lab.connections(), []);
}

#[test]
fn what_is_fixed_at_start_is_refused() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let text = format!("[limits]\nmax_connections = 8192\n{}{}", crate::lab::BASE, web("rr", &[(12, 1)]));
    let refused = lab.director.apply(&crate::lab::model(&text)).expect_err("refused");
    assert_eq!(refused.to_string(), "[limits] cannot change without a restart");
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12), "and nothing changed");
}

#[test]
fn servers_beyond_the_limit_are_refused_whole() {
    let head = "[appliance]\nworkers = [0]\n[limits]\nmax_connections = 4096\nmax_servers = 2\n";
    let text = |servers: &[(u8, u32)]| format!("{}{}", crate::lab::BASE, web("rr", servers));
    let mut lab = Lab::with_head(head, &text(&[(12, 1), (13, 1)])).resolved();
    lab.pass(&segment(1, SYN));
    lab.pass(&segment(2, SYN));
    let other = crate::lab::model(&format!("{head}{}", text(&[(14, 1), (15, 1)])));
    let refused = lab.director.apply(&other).expect_err("both old servers still drain");
    assert_eq!(refused.to_string(), "2 servers and 2 that still drain exceed limits.max_servers = 2");
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(12));
}
