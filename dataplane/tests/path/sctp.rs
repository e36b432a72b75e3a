//! SCTP services under direct routing.

use lb_dataplane::DropReason;

use crate::frames::{from_client, sctp, segment, server_mac};
use crate::lab::{Lab, web};

const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const COOKIE_ECHO: u8 = 10;
const DATA: u8 = 0;

/// An SCTP service on `vip`:80 with these servers.
fn s1ap(vip: &str, servers: &[&str]) -> String {
    let servers: Vec<_> = servers.iter().map(|server| format!("{{ address = \"{server}\" }}")).collect();
    format!(
        "[[services]]\nname = \"s1ap\"\nvip = \"{vip}\"\nport = 80\nprotocol = \"sctp\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

const SERVERS: [&str; 2] = ["192.168.150.12", "192.168.150.13"];

fn packet(port: u16, chunk: u8) -> Vec<u8> {
    from_client("192.168.150.1", "192.168.150.100", 132, &sctp(port, 80, chunk))
}

#[test]
fn an_association_stays_with_its_server_through_its_states() {
    let mut lab = Lab::warm(&s1ap("192.168.150.100", &SERVERS));
    for n in 0..6 {
        let server = Some(12 + (n % 2) as u8);
        for (chunk, state, active, expires_s) in [
            (INIT, "INIT1", 0, 4),
            (COOKIE_ECHO, "ESTABLISHED", 1, 900),
            (DATA, "ESTABLISHED", 1, 900),
            (SHUTDOWN, "S-RECEIVED", 0, 61),
        ] {
            assert_eq!(lab.server_of(&packet(n, chunk)), server, "port {n}, chunk {chunk}");
            let row = lab.connections().into_iter().find(|row| row.client.1 == n).expect("listed");
            assert_eq!(
                (row.state.name(), row.protocol.as_str(), row.expires_ms()),
                (state, "sctp", expires_s * 1000)
            );
            let now: u64 = lab.counts().iter().map(|count| count.0).sum();
            assert_eq!(now, active, "active after chunk {chunk}");
        }
    }
    assert_eq!(lab.counts(), [(0, 3), (0, 3)]);
}

#[test]
fn a_frame_differs_in_macs_and_ttl_alone() {
    let mut lab = Lab::warm(&s1ap("192.168.150.100", &SERVERS));
    let init = packet(7, INIT);
    let sent = lab.pass(&init);
    assert_eq!(sent.len(), 1);
    assert_eq!((&sent[0][..6], sent[0][22]), (&server_mac(12)[..], init[22] - 1));
    assert_eq!(sent[0][26..], init[26..], "addresses and the whole SCTP packet");
}

#[test]
fn only_an_init_opens_an_association() {
    let mut lab = Lab::warm(&s1ap("192.168.150.100", &SERVERS));
    for chunk in (0..=255u8).filter(|chunk| *chunk != INIT) {
        assert_eq!(lab.server_of(&packet(9, chunk)), None, "chunk {chunk}");
    }
    assert_eq!(lab.dropped(DropReason::NoConnection), 255);
    assert_eq!(lab.server_of(&packet(9, INIT)), Some(12));
    assert_eq!(lab.server_of(&packet(9, 200)), Some(12), "a chunk that nobody knows");
}

#[test]
fn an_init_on_a_closed_association_is_a_new_one() {
    let mut lab = Lab::warm(&s1ap("192.168.150.100", &SERVERS));
    assert_eq!(lab.server_of(&packet(9, INIT)), Some(12));
    assert_eq!(lab.server_of(&packet(9, INIT)), Some(12), "an INIT that was repeated");
    assert_eq!(lab.server_of(&packet(9, ABORT)), Some(12));
    assert_eq!(lab.server_of(&packet(9, INIT)), Some(13));
    assert_eq!(lab.counts(), [(0, 0), (0, 1)], "the old one is counted out at once");
}

#[test]
fn the_same_port_of_tcp_is_another_service() {
    let both = format!("{}{}", s1ap("192.168.150.100", &SERVERS[..1]), web("rr", &[(13, 1)]));
    let mut lab = Lab::warm(&both);
    assert_eq!(lab.server_of(&packet(9, INIT)), Some(12));
    assert_eq!(lab.server_of(&segment(9, crate::frames::SYN)), Some(13));
    assert_eq!(lab.connections().len(), 2);
}

#[test]
fn sctp_works_over_ipv6() {
    let mut lab = Lab::warm(&s1ap("fd00:150::100", &["fd00:150::77"]));
    let init = from_client("fd00:150::1", "fd00:150::100", 132, &sctp(9, 80, INIT));
    assert!(lab.pass(&init).iter().all(|frame| frame[0] == 0x33), "the server's address is not known yet");
    let sent = lab.pass(&crate::local::advertisement(0x77));
    assert_eq!(sent.len(), 1, "{:?}", lab.drops());
    assert_eq!((&sent[0][..6], &sent[0][22..]), (&server_mac(0x77)[..], &init[22..]));
    let rows = lab.connections();
    assert_eq!((rows.len(), rows[0].state.name()), (1, "INIT1"));
}
