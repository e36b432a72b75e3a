//! New connections go where the scheduler says, known ones stay.

use lb_dataplane::drop_reason::DropReason;
use lb_dataplane::io::{BURST, DeviceId};
use lb_dataplane::memory::Frame;

use crate::frames::{ACK, FIN, RST, SYN, from_client, segment, server_mac, tcp, udp};
use crate::lab::{BASE, Lab, web};

#[test]
fn a_forwarded_frame_differs_in_macs_and_ttl_alone() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    let syn = segment(40000, SYN);
    let sent = lab.pass(&syn);
    let mut expected = syn.clone();
    expected[..6].copy_from_slice(&server_mac(12));
    expected[6..12].copy_from_slice(&crate::frames::DIRECTOR);
    expected[22] = 63;
    // the checksum by a full computation
    expected[24..26].fill(0);
    let sum = crate::frames::checksum(&expected[14..34]);
    expected[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(sent, [expected]);
}

#[test]
fn rr_alternates_and_a_connection_stays() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    for n in 0..10 {
        let server = Some(12 + (n % 2) as u8);
        let port = 40000 + n;
        for flags in [SYN, ACK, ACK, FIN | ACK, ACK] {
            assert_eq!(lab.server_of(&segment(port, flags)), server, "port {port} flags {flags}");
        }
    }
}

#[test]
fn rr_alternates_over_three_workers_too() {
    let mut lab = Lab::warm_of(&format!("{BASE}{}", web("rr", &[(12, 1), (13, 1), (14, 1)])), 3);
    for n in 0..300u16 {
        assert_eq!(lab.server_of(&segment(40000 + n, SYN)), Some(12 + (n % 3) as u8), "connection {n}");
    }
    let workers = lab.director.workers();
    assert!(workers.iter().all(|worker| worker.connections > 50), "every worker owns some: {workers:?}");
    assert!(workers[0].handed_over > 100);
    for n in 0..300u16 {
        assert_eq!(lab.server_of(&segment(40000 + n, ACK)), Some(12 + (n % 3) as u8), "connection {n} again");
    }
}

#[test]
fn a_worker_takes_over_what_two_others_hand_it_turn_after_turn() {
    const TURNS: usize = 100;
    let mut lab = Lab::warm_of(&format!("{BASE}{}", web("rr", &[(12, 1)])), 3);
    let port = (40000..).find(|port| {
        lab.pass(&segment(*port, SYN));
        lab.director.workers()[0].connections == 1
    });
    let frame = segment(port.expect("a port of the first worker's"), ACK);
    let before = lab.director.workers()[0].taken_over;
    for _ in 0..TURNS {
        for worker in &mut lab.workers[1..] {
            worker.io_mut().receive[0].extend((0..BURST).map(|_| Frame::new(DeviceId(0), &frame)));
        }
        lab.turn();
    }
    lab.turn();
    assert_eq!(lab.sent().len(), 2 * BURST * TURNS);
    assert_eq!(lab.director.workers()[0].taken_over - before, (2 * BURST * TURNS) as u64);
    assert_eq!(lab.dropped(DropReason::HandoverFull), 0);
}

#[test]
fn lc_follows_held_connections() {
    let mut lab = Lab::warm(&web("lc", &[(12, 1), (13, 1)]));
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(2, SYN)), Some(13));
    lab.pass(&segment(1, ACK));
    lab.pass(&segment(1, FIN | ACK));
    assert_eq!(lab.counts(), [(0, 1), (1, 0)]);
    assert_eq!(lab.server_of(&segment(3, SYN)), Some(12), "one inactive weighs less than one active");
    assert_eq!(lab.server_of(&segment(4, SYN)), Some(13), "256 + 1 against 256");
}

#[test]
fn maglev_gives_nothing_to_a_server_of_weight_zero_and_a_flow_stays_on_its_server() {
    let mut lab = Lab::warm(&web("maglev", &[(12, 1), (13, 1), (14, 1)]));
    let before: Vec<_> =
        (0..200u16).map(|n| lab.server_of(&segment(1000 + n, SYN)).expect("a server")).collect();
    assert!([12, 13, 14].iter().all(|server| before.contains(server)));
    lab.apply(&web("maglev", &[(12, 1), (13, 1), (14, 0)]));
    for (n, server) in (0..200u16).zip(&before) {
        assert_eq!(
            lab.server_of(&segment(1000 + n, ACK)),
            Some(*server),
            "known connections stay, also with weight 0"
        );
        assert_ne!(lab.server_of(&segment(3000 + n, SYN)), Some(14));
    }
}

#[test]
fn maglev_with_the_same_secret_agrees_on_two_directors() {
    let secret = "[appliance]\ncluster_secret = \"correct horse battery\"\nworkers = [0]\n[limits]\nmax_connections = 4096\n";
    let services = |last: u32| web("maglev", &[(12, 1), (13, 1), (14, last)]);
    let picks = |last: u32| -> Vec<u8> {
        let text = format!("{BASE}{}", services(last));
        let mut lab = Lab::with_head(secret, &text).resolved();
        (0..300u16).map(|n| lab.server_of(&segment(1000 + n, SYN)).expect("a server")).collect()
    };
    let all = picks(1);
    assert_eq!(all, picks(1));
    let without = picks(0);
    let moved = all.iter().zip(&without).filter(|(a, b)| a != b && **a != 14).count();
    assert!(moved <= 15, "{moved} of 300 flows of other servers moved");
}

#[test]
fn udp_is_balanced_and_never_active() {
    let services = "[[services]]\nname = \"dns\"\nvip = \"192.168.150.100\"\nport = 53\nprotocol = \"udp\"\nscheduler = \"rr\"\n\
                    servers = [{ address = \"192.168.150.12\" }, { address = \"192.168.150.13\" }]\n";
    let mut lab = Lab::warm(services);
    let datagram = |port| from_client("192.168.150.1", "192.168.150.100", 17, &udp(port, 53, 30));
    assert_eq!(lab.server_of(&datagram(1)), Some(12));
    assert_eq!(lab.server_of(&datagram(2)), Some(13));
    assert_eq!(lab.server_of(&datagram(1)), Some(12));
    assert_eq!(lab.counts(), [(0, 1), (0, 1)]);
    lab.wait(299_000);
    assert_eq!(lab.counts(), [(0, 1), (0, 1)]);
    lab.wait(3_000);
    assert_eq!(lab.counts(), [(0, 0), (0, 0)]);
}

#[test]
fn ipv6_goes_the_same_way() {
    let services = "[[services]]\nname = \"web6\"\nvip = \"fd00:150::100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
                    servers = [{ address = \"fd00:150::12\" }, { address = \"fd00:150::13\" }]\n";
    let mut lab = Lab::warm(services);
    for n in [0x12, 0x13] {
        lab.put(&crate::local::advertisement(n));
        lab.turn();
    }
    lab.clear();
    let syn = |port| from_client("fd00:150::1", "fd00:150::100", 6, &tcp(port, 80, SYN, 0));
    assert_eq!(lab.server_of(&syn(1)), Some(0x12));
    assert_eq!(lab.server_of(&syn(2)), Some(0x13));
    assert_eq!(lab.server_of(&syn(1)), Some(0x12));
    let sent = lab.pass(&syn(3));
    assert_eq!(sent[0][21], 63, "hop limit");
    assert_eq!(lab.counts(), [(2, 0), (1, 0)]);
}

#[test]
fn states_and_timeouts_are_those_of_ipvs() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let mut expect = |flags: u8, state: &str, seconds: u64| {
        lab.pass(&segment(7, flags));
        let rows = lab.connections();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].state.name(), state);
        assert!(rows[0].expires_ms().abs_diff(seconds * 1000) < 200, "{state}: {} ms", rows[0].expires_ms());
    };
    expect(SYN, "SYN_RECV", 60);
    expect(ACK, "ESTABLISHED", 900);
    expect(FIN | ACK, "FIN_WAIT", 120);
    expect(ACK, "FIN_WAIT", 120);
    expect(RST, "CLOSE", 10);
    lab.wait(12_000);
    assert_eq!(lab.connections(), []);
    assert_eq!(lab.counts(), [(0, 0)]);
}

#[test]
fn an_unfinished_handshake_is_active_for_a_minute() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.pass(&segment(7, SYN));
    lab.wait(58_000);
    assert_eq!(lab.counts(), [(1, 0)]);
    lab.wait(4_000);
    assert_eq!(lab.counts(), [(0, 0)]);
}

#[test]
fn a_reused_port_is_a_new_connection_after_a_reset() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1), (13, 1)]));
    assert_eq!(lab.server_of(&segment(7, SYN)), Some(12));
    assert_eq!(lab.server_of(&segment(7, RST)), Some(12));
    // RST in SYN_RECV leaves SYN_RECV (INPUT-ONLY table); from ESTABLISHED it closes
    assert_eq!(lab.server_of(&segment(7, ACK)), Some(12));
    assert_eq!(lab.server_of(&segment(7, RST)), Some(12));
    assert_eq!(lab.server_of(&segment(7, SYN)), Some(13), "CLOSE: scheduled anew");
    assert_eq!(lab.counts(), [(0, 0), (1, 0)]);
}
