//! What the director answers itself, and how it finds its next hops.

use std::net::Ipv6Addr;

use lb_dataplane::DropReason;
use lb_dataplane::neighbor::NeighborState;

use crate::frames::{
    CLIENT, DIRECTOR, SYN, arp, checksum, ethernet, from_client, icmp, icmp6, ipv6, segment, server_mac, vlan,
};
use crate::lab::{Lab, web};

const EVERYONE: [u8; 6] = [0xff; 6];
const VIP: [u8; 4] = [192, 168, 150, 100];

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x150, 0, 0, 0, 0, 0, n)
}

/// Server fd00:150::`n` answers the director's solicitation.
pub fn advertisement(n: u8) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(v6(n.into()).octets());
    message.extend([2, 1]);
    message.extend(server_mac(n));
    ethernet(
        DIRECTOR,
        server_mac(n),
        0x86dd,
        &ipv6(v6(n.into()), v6(0x11), 58, 255, &icmp6(v6(n.into()), v6(0x11), message)),
    )
}

#[test]
fn arp_for_vip_and_dip_is_answered_and_for_others_not() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    for address in [VIP, [192, 168, 150, 11]] {
        let sent = lab.pass(&arp(1, EVERYONE, (CLIENT, [192, 168, 150, 1]), ([0; 6], address)));
        assert_eq!(sent, [arp(2, CLIENT, (DIRECTOR, address), (CLIENT, [192, 168, 150, 1]))]);
    }
    let before = lab.dropped(DropReason::ArpNotForUs);
    assert!(
        lab.pass(&arp(1, EVERYONE, (CLIENT, [192, 168, 150, 1]), ([0; 6], [192, 168, 150, 99]))).is_empty()
    );
    assert_eq!(lab.dropped(DropReason::ArpNotForUs), before + 1);
}

#[test]
fn a_solicitation_for_the_vip_is_answered() {
    let services = "[[services]]\nname = \"web6\"\nvip = \"fd00:150::100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"rr\"\n";
    let mut lab = Lab::warm(services);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(v6(0x100).octets());
    message.extend([1, 1]);
    message.extend(CLIENT);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100);
    let packet = ipv6(v6(1), group, 58, 255, &icmp6(v6(1), group, message));
    let sent = lab.pass(&ethernet([0x33, 0x33, 0xff, 0, 1, 0], CLIENT, 0x86dd, &packet));
    let mut answer = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    answer.extend(v6(0x100).octets());
    answer.extend([2, 1]);
    answer.extend(DIRECTOR);
    let expected = ipv6(v6(0x100), v6(1), 58, 255, &icmp6(v6(0x100), v6(1), answer));
    assert_eq!(sent, [ethernet(CLIENT, DIRECTOR, 0x86dd, &expected)]);
}

#[test]
fn ping_of_vip_and_dip_comes_back() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    for to in ["192.168.150.100", "192.168.150.11"] {
        let message = icmp([&[8, 0, 0, 0, 0, 7, 0, 1][..], b"some data"].concat());
        let sent = lab.pass(&from_client("192.168.150.1", to, 1, &message));
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][..6], CLIENT);
        assert_eq!(sent[0][34], 0, "echo reply");
        assert_eq!(checksum(&sent[0][34..]), 0);
        assert_eq!(checksum(&sent[0][14..34]), 0);
        assert_eq!(&sent[0][42..], b"some data");
    }
    let message = icmp6(v6(1), v6(0x11), vec![128, 0, 0, 0, 0, 7, 0, 1]);
    let sent = lab.pass(&from_client("fd00:150::1", "fd00:150::11", 58, &message));
    assert_eq!(sent[0][54], 129);
}

#[test]
fn a_ping_from_behind_the_gateway_is_answered_over_the_gateway() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let sent = lab.pass(&from_client("10.9.8.7", "192.168.150.100", 1, &icmp(vec![8, 0, 0, 0, 0, 7, 0, 1])));
    assert_eq!(sent[0][..6], server_mac(254));
}

#[test]
fn at_start_every_address_is_announced_three_times_and_every_next_hop_asked_for() {
    let mut lab = Lab::cold(&web("rr", &[(12, 1)]));
    lab.turn();
    let announced = arp(1, EVERYONE, (DIRECTOR, VIP), ([0; 6], VIP));
    let asked = |n| arp(1, EVERYONE, (DIRECTOR, [192, 168, 150, 11]), ([0; 6], [192, 168, 150, n]));
    lab.wait(5_000);
    let sent = lab.sent();
    let count = |frame: &[u8]| sent.iter().filter(|other| *other == frame).count();
    assert_eq!(count(&announced), 3);
    assert!(count(&asked(12)) >= 3 && count(&asked(254)) >= 3);
}

#[test]
fn frames_wait_for_their_next_hop_in_order() {
    let mut lab = Lab::cold(&web("rr", &[(12, 1)]));
    lab.clear();
    for port in 1..=5 {
        lab.put(&segment(port, SYN));
    }
    lab.turn();
    assert!(lab.sent().iter().all(|frame| frame[12..14] != [8, 0]), "nothing goes out before the answer");
    assert_eq!(lab.director.totals().held, 5);
    lab.answer_arp(12);
    lab.settle();
    let ports: Vec<u8> =
        lab.sent().iter().filter(|frame| frame[12..14] == [8, 0]).map(|frame| frame[35]).collect();
    assert_eq!(ports, [1, 2, 3, 4, 5]);
    assert_eq!(lab.director.totals().held, 0);
}

#[test]
fn a_next_hop_that_does_not_answer_is_given_up_and_asked_again() {
    let mut lab = Lab::cold(&web("rr", &[(12, 1)]));
    lab.put(&segment(1, SYN));
    lab.wait(5_000);
    assert_eq!(lab.dropped(DropReason::NeighborUnreachable), 1);
    assert_eq!(lab.director.services()[0].dests[0].reachable, Some(false));
    lab.answer_arp(12);
    lab.settle();
    lab.clear();
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
}

#[test]
fn the_queue_of_waiting_frames_is_bounded() {
    let mut lab = Lab::cold(&web("rr", &[(12, 1)]));
    for port in 1001..=1300 {
        lab.put(&segment(port, SYN));
    }
    lab.settle();
    assert_eq!(lab.director.totals().held, 64, "a quarter of limits.neighbor_queue = 256");
    assert_eq!(lab.dropped(DropReason::NeighborQueueFull), 236);
}

#[test]
fn a_moved_server_is_followed_by_its_gratuitous_arp() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let moved = [2, 0, 0, 0, 9, 9];
    lab.pass(&arp(1, EVERYONE, (moved, [192, 168, 150, 12]), ([0; 6], [192, 168, 150, 12])));
    lab.turn();
    assert_eq!(lab.pass(&segment(1, SYN))[0][..6], moved);
}

#[test]
fn a_silent_next_hop_is_probed_and_then_forgotten() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.wait(45_000);
    let row = lab
        .director
        .neighbors(lab.now_ms)
        .into_iter()
        .find(|(_, row)| row.ip.to_string() == "192.168.150.12");
    assert_eq!(row.expect("listed").1.state, NeighborState::Failed);
}

#[test]
fn vlans_are_told_apart_and_rewritten() {
    let text = r#"
[[ports]]
name = "clients"
device = "null"
vlan = 10
addresses = ["10.0.0.11/24"]
[[ports]]
name = "servers"
device = "null"
vlan = 20
addresses = ["192.168.150.11/24"]
[[services]]
name = "web"
vip = "10.0.0.100"
port = 80
protocol = "tcp"
servers = [{ address = "192.168.150.12" }]
"#;
    let mut lab = Lab::of(text, 1);
    lab.put(&vlan(
        20,
        &arp(2, DIRECTOR, (server_mac(12), [192, 168, 150, 12]), (DIRECTOR, [192, 168, 150, 11])),
    ));
    lab.settle();
    lab.clear();
    let syn = from_client("10.0.0.1", "10.0.0.100", 6, &crate::frames::tcp(7, 80, SYN, 0));
    let sent = lab.pass(&vlan(10, &syn));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][..6], server_mac(12));
    assert_eq!(sent[0][12..18], [0x81, 0, 0, 20, 8, 0]);
    // ARP for the VIP is answered on the clients' VLAN alone
    let question = arp(1, EVERYONE, (CLIENT, [10, 0, 0, 1]), ([0; 6], [10, 0, 0, 100]));
    assert_eq!(lab.pass(&vlan(10, &question)).len(), 1);
    assert_eq!(lab.pass(&vlan(20, &question)).len(), 0);
    lab.pass(&vlan(30, &question));
    assert_eq!(lab.dropped(DropReason::VlanUnknown), 1);
    assert!(lab.pass(&vlan(30, &syn)).is_empty(), "nothing passes from a VLAN without a port");
    assert!(lab.pass(&syn).is_empty(), "nor untagged, when every port has its VLAN");
    assert_eq!(lab.dropped(DropReason::VlanUnknown), 3);
}

#[test]
fn another_station_with_the_vip_is_noticed() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.put(&arp(1, EVERYONE, (server_mac(66), VIP), ([0; 6], VIP)));
    lab.workers[0].turn(lab.now_ms * 1_000_000);
    let notices = lab.director.poll(lab.now_ms);
    assert!(format!("{notices:?}").contains("AddressConflict"), "{notices:?}");
}
