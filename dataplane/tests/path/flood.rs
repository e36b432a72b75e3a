//! Floods of first packets: who makes room, what goes on without an entry, what is dropped first.

use std::net::Ipv4Addr;

use lb_config::SynProxy;
use lb_dataplane::DropReason;
use lb_dataplane::classify::Lookup;
use lb_dataplane::director::{Entrance, Explanation, Outcome};
use lb_dataplane::flood::{BACKLOG, FLOOR, evict::Class};
use lb_dataplane::io::DeviceId;
use lb_dataplane::parse::L4;
use lb_dataplane::state::State;

use crate::frames::{ACK, FIN, RST, SYN, from_client, segment, tcp, udp};
use crate::lab::{Lab, web};

const SERVERS: [(u8, u32); 3] = [(12, 1), (13, 3), (14, 0)];

fn dns() -> String {
    web("rr", &SERVERS).replace("web", "dns").replace("tcp", "udp").replace("port = 80", "port = 53")
}

/// A client's TCP segment; `n` tells the client.
fn of(n: u32, flags: u8) -> Vec<u8> {
    from_client(
        &format!("10.9.{}.{}", n >> 8 & 255, n & 255),
        "192.168.150.100",
        6,
        &tcp((1024 + (n >> 16)) as u16, 80, flags, 0),
    )
}

fn query(n: u32) -> Vec<u8> {
    from_client(&format!("10.8.{}.{}", n >> 8 & 255, n & 255), "192.168.150.100", 17, &udp(1024, 53, 8))
}

fn put_all(lab: &mut Lab, frames: impl IntoIterator<Item = Vec<u8>>) {
    let mut count = 0;
    for frame in frames {
        lab.put(&frame);
        count += 1;
    }
    (0..=count / 32).for_each(|_| lab.turn());
    lab.clear();
}

/// 4096 connections at most; no number of SYNs is a flood.
fn calm(services: &str) -> Lab {
    Lab::warm(&format!("{services}\n[policy]\nsyn_flood = 0\n"))
}

/// But for those of strangers' ARP.
fn drops(lab: &Lab) -> Vec<(&'static str, u64)> {
    lab.drops().into_iter().filter(|(reason, _)| *reason != "arp_not_for_us").collect()
}

fn evicted(lab: &Lab, class: Class) -> u64 {
    lab.director.workers()[0].evicted[class as usize]
}

#[test]
fn the_half_open_make_room_and_the_established_stay() {
    let mut lab = calm(&web("rr", &SERVERS));
    put_all(&mut lab, (0..4000).flat_map(|n| [of(n, SYN), of(n, ACK)]));
    put_all(&mut lab, (4000..4096).map(|n| of(n, SYN)));
    assert_eq!(lab.director.workers()[0].connections, 4096);
    put_all(&mut lab, (100_000..110_000).map(|n| of(n, SYN)));
    let rows = lab.connections();
    let established = rows.iter().filter(|row| row.state == State::Established).count();
    assert_eq!((established, rows.len()), (4000, 4096), "{:?}", drops(&lab));
    let worker = &lab.director.workers()[0];
    // where the hand finds none of the few in time, a SYN goes on without an entry
    assert_eq!(evicted(&lab, Class::Embryonic) + worker.stateless, 10_000);
    assert!(evicted(&lab, Class::Embryonic) > 1000, "{worker:?}");
    assert_eq!(worker.embryonic, 96);
    assert_eq!(drops(&lab), []);
    let (active, inactive) = lab.counts().iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!((active, inactive), (4096, 0));
}

#[test]
fn classes_go_in_their_order() {
    let mut lab = calm(&format!("{}{}", web("rr", &SERVERS), dns()));
    // 1000 each of half open, closing, reset, one-way; the rest established or heard twice
    put_all(&mut lab, (0..1000).map(|n| of(n, SYN)));
    put_all(&mut lab, (1000..2000).flat_map(|n| [of(n, SYN), of(n, ACK), of(n, FIN | ACK)]));
    put_all(&mut lab, (2000..3000).flat_map(|n| [of(n, SYN), of(n, ACK), of(n, RST)]));
    put_all(&mut lab, (0..1000).map(query));
    put_all(&mut lab, (1000..1048).flat_map(|n| [query(n), query(n)]));
    put_all(&mut lab, (3000..3048).flat_map(|n| [of(n, SYN), of(n, ACK)]));
    let count = |lab: &Lab| Class::ALL.map(|class| evicted(lab, class));
    assert_eq!((lab.director.workers()[0].connections, count(&lab)), (4096, [0; 4]));
    // newcomers that stay, so that the dispensable become fewer
    let mut next = 100_000;
    let mut come = |lab: &mut Lab, n: u32| {
        put_all(lab, (next..next + n).flat_map(|n| [of(n, SYN), of(n, ACK)]));
        next += n;
    };
    come(&mut lab, 500);
    let [closed, embryonic, one_way, closing] = count(&lab);
    assert!(closed > 400 && one_way + closing < 15 && closed + embryonic > 485, "{:?}", count(&lab));
    come(&mut lab, 1400);
    let [closed, embryonic, one_way, closing] = count(&lab);
    assert!(closed > 850 && embryonic > 650 && closing < one_way.max(50), "{:?}", count(&lab));
    come(&mut lab, 3500);
    let [closed, embryonic, one_way, closing] = count(&lab);
    assert!(closed + embryonic + one_way >= 2990 && (900..=1000).contains(&closing), "{:?}", count(&lab));
    let rows = lab.connections();
    let stay = rows.iter().filter(|row| matches!(row.state, State::Established | State::Udp)).count();
    assert!(stay as u64 >= 4096 - (1000 - closing) - 10, "{stay}");
    // those heard twice, and the few others that chance has spared
    let udp = rows.iter().filter(|row| row.state == State::Udp).count();
    assert!((48..=58).contains(&udp), "{udp}");
    assert!(rows.len() == 4096 && lab.director.workers()[0].stateless >= 1400);
}

#[test]
fn a_full_table_sends_new_flows_by_hash_and_the_same_way_each_time() {
    for scheduler in ["rr", "wlc", "sh", "maglev"] {
        // sh without fallback has no server for the clients of one without weight
        let servers = if scheduler == "sh" { &SERVERS[..2] } else { &SERVERS };
        let mut lab = calm(&format!("{}{}", web(scheduler, servers), dns()));
        put_all(&mut lab, (0..4096).flat_map(|n| [of(n, SYN), of(n, ACK)]));
        let mut counts = [0; 3];
        for n in 200_000..200_400 {
            let first = lab.server_of(&of(n, SYN)).expect("a server");
            for flags in [ACK, ACK, FIN | ACK, ACK, RST, SYN] {
                assert_eq!(lab.server_of(&of(n, flags)), Some(first), "{scheduler} {n} {flags:#x}");
            }
            counts[usize::from(first - 12)] += 1;
        }
        assert!(counts[2] == 0 && counts[0] > 50 && counts[1] > 2 * counts[0], "{scheduler}: {counts:?}");
        let first = lab.server_of(&query(9)).expect("a server");
        assert!((0..5).all(|_| lab.server_of(&query(9)) == Some(first)));
        assert_eq!(lab.director.workers()[0].connections, 4096);
        assert_eq!(lab.director.workers()[0].stateless, 400 * 7 + 6);
        // old ones end: the flows get entries, and go on as they did
        put_all(&mut lab, (0..2000).map(|n| of(n, RST)));
        lab.wait(11_000);
        lab = lab.resolved();
        for n in 200_000..200_100 {
            let before = lab.director.services()[0].dests.iter().map(|dest| dest.conns).sum::<u64>();
            let server = lab.server_of(&of(n, ACK)).expect("a server");
            assert_eq!(lab.server_of(&of(n, ACK)), Some(server), "{n}");
            let after = lab.director.services()[0].dests.iter().map(|dest| dest.conns).sum::<u64>();
            assert_eq!(after, before + 1);
        }
        let states = lab.connections();
        assert_eq!(states.len(), 2096 + 100 + usize::from(lab.server_of(&query(9)) != Some(first)));
    }
}

#[test]
fn what_needs_an_entry_is_refused_when_there_is_no_room() {
    let persistent = web("rr", &SERVERS) + "persistence = { timeout = \"60s\" }\n";
    let mut lab = calm(&persistent);
    // of one client
    put_all(&mut lab, (0..4096).flat_map(|n| [of(n << 16, SYN), of(n << 16, ACK)]));
    assert_eq!(lab.server_of(&of(200_000, SYN)), None);
    assert_eq!(drops(&lab), [("table_full", 1)]);
    let one = |forwarding: &str| {
        format!(
            "[[services]]\nname = \"web\"\nvip = \"192.168.150.100\"\nport = 80\nforwarding = \"{forwarding}\"\n{}\
             servers = [{{ address = \"192.168.150.12\" }}]\n",
            if forwarding == "fullnat" { "local_addresses = [\"192.168.150.11\"]\n" } else { "" }
        )
    };
    for forwarding in ["nat", "fullnat"] {
        let mut lab = calm(&one(forwarding));
        put_all(&mut lab, (0..4096).flat_map(|n| [of(n, SYN), of(n, ACK)]));
        assert_eq!(lab.director.workers()[0].connections, 4096);
        assert_eq!(lab.server_of(&of(200_000, SYN)), None);
        assert_eq!(drops(&lab), [("table_full", 1)], "{forwarding}");
        // pairs went with what was evicted
        put_all(&mut lab, (0..1000).map(|n| of(n, RST)));
        put_all(&mut lab, (300_000..302_000).map(|n| of(n, SYN)));
        assert!((950..=1000).contains(&evicted(&lab, Class::Closed)));
        assert!(evicted(&lab, Class::Embryonic) > 0, "{forwarding}");
    }
}

#[test]
fn both_families_share_the_limit() {
    let six = web("rr", &[])
        .replace("\"web\"", "\"six\"")
        .replace("192.168.150.100", "fd00:150::100")
        .replace("servers = []", "servers = [{ address = \"fd00:150::12\" }]");
    let mut lab = calm(&format!("{}{six}", web("rr", &SERVERS)));
    let six =
        |n: u32, flags| from_client(&format!("fd00:9::{n:x}"), "fd00:150::100", 6, &tcp(1024, 80, flags, 0));
    put_all(&mut lab, (0..2000).map(|n| of(n, SYN)));
    put_all(&mut lab, (0..2096).flat_map(|n| [six(n, SYN), six(n, ACK)]));
    put_all(&mut lab, (3000..4000).flat_map(|n| [six(n, SYN), six(n, ACK)]));
    assert_eq!(evicted(&lab, Class::Embryonic), 1000);
    put_all(&mut lab, (5000..9000).flat_map(|n| [six(n, SYN), six(n, ACK)]));
    assert!((1950..=2000).contains(&evicted(&lab, Class::Embryonic)));
    assert_eq!(lab.director.workers()[0].connections, 4096);
}

/// The first SYNs get entries; from the flood's start on none does.
fn flooded(services: &str) -> Lab {
    let mut lab = Lab::warm(services);
    put_all(&mut lab, (0..FLOOR).map(|n| of(n, SYN)));
    lab.turn();
    assert_eq!(
        (lab.director.workers()[0].connections, lab.director.workers()[0].flood),
        (u64::from(FLOOR), true)
    );
    lab
}

#[test]
fn in_a_flood_a_client_s_ack_begins_its_connection() {
    let mut lab = flooded(&web("rr", &SERVERS));
    for n in 200_000..200_300 {
        let server = lab.server_of(&of(n, SYN)).expect("a server");
        assert_eq!(lab.director.workers()[0].connections, u64::from(FLOOR) + u64::from(n - 200_000));
        assert_eq!(lab.server_of(&of(n, SYN)), Some(server), "again");
        assert_eq!(lab.server_of(&of(n, ACK)), Some(server));
        assert_eq!(lab.server_of(&of(n, ACK)), Some(server));
    }
    let rows = lab.connections();
    assert_eq!(rows.iter().filter(|row| row.state == State::Established).count(), 300);
    assert_eq!((lab.director.workers()[0].unconfirmed, drops(&lab)), (600, vec![]));
    // one ACK alone makes no established connection
    lab.server_of(&of(400_000, ACK));
    assert_eq!(lab.director.workers()[0].embryonic, u64::from(FLOOR) + 1);
    // resets and ends of nothing go by hash and leave nothing
    lab.server_of(&of(400_001, RST));
    lab.server_of(&of(400_001, FIN | ACK));
    assert_eq!(lab.director.workers()[0].connections, u64::from(FLOOR) + 301);
}

#[test]
fn a_flood_ends_when_half_are_gone_and_strays_are_known_a_while_longer() {
    let mut lab = flooded(&web("rr", &SERVERS));
    let server = lab.server_of(&of(200_000, SYN));
    put_all(&mut lab, (0..FLOOR / 2 + 1).map(|n| of(n, ACK)));
    lab.turn();
    assert!(!lab.director.workers()[0].flood);
    assert_eq!(lab.server_of(&of(200_000, ACK)), server, "its SYN was before");
    let before = lab.director.workers()[0].connections;
    lab.server_of(&of(200_001, SYN));
    assert_eq!(lab.director.workers()[0].connections, before + 1);
    lab.wait(61_000);
    lab = lab.resolved();
    assert_eq!(lab.server_of(&of(200_002, ACK)), Some(254), "a reset, by the gateway");
    assert_eq!(lab.dropped(DropReason::NoConnection), 1);
}

#[test]
fn without_a_flood_an_ack_of_nothing_is_refused() {
    let mut lab = Lab::warm(&web("rr", &SERVERS));
    put_all(&mut lab, (0..FLOOR - 1).map(|n| of(n, SYN)));
    assert_eq!(lab.server_of(&of(200_000, ACK)), Some(254), "a reset, by the gateway");
    assert_eq!(drops(&lab), [("no_connection", 1)]);
    assert_eq!(lab.director.workers()[0].unconfirmed, 0);
}

#[test]
fn the_syn_proxy_waits_for_a_flood_if_it_is_told_to() {
    let nat = "[[services]]\nname = \"nat\"\nvip = \"192.168.150.101\"\nport = 80\nforwarding = \"nat\"\nservers = [{ \
               address = \"192.168.150.15\" }]\npolicy.syn_proxy = \"auto\"\n";
    let services = format!("{}{nat}", web("rr", &SERVERS));
    let syn = |port| from_client("10.7.0.1", "192.168.150.101", 6, &tcp(port, 80, SYN, 0));
    let mut lab = Lab::warm(&services);
    assert_eq!(lab.server_of(&syn(1000)), Some(15));
    let mut lab = flooded(&services);
    lab.pass(&syn(1000));
    assert_eq!(lab.director.workers()[0].cookies_sent, 1);
    assert_eq!(lab.director.workers()[0].connections, u64::from(FLOOR));
}

#[test]
fn while_frames_pile_up_first_packets_wait_and_others_do_not() {
    let mut lab = calm(&format!("{}{}", web("rr", &SERVERS), dns()));
    put_all(&mut lab, (0..100).flat_map(|n| [of(n, SYN), of(n, ACK)]));
    lab.workers[0].io_mut().tells_backlog = true;
    let established = 2000;
    for n in 0..established {
        lab.put(&of(n % 100, ACK));
        lab.put(&of(100_000 + n, SYN));
        lab.put(&query(n));
        // may be a first packet: nobody looks whether it is
        lab.put(&of(n % 100, SYN));
    }
    (0..4 * established / 32).for_each(|_| lab.turn());
    let dropped = lab.dropped(DropReason::Overload);
    assert!((4500..6000).contains(&dropped), "{dropped}");
    assert_eq!(drops(&lab).len(), 1, "{:?}", drops(&lab));
    let sent = lab.sent();
    assert_eq!(sent.len() as u64, 8000 - dropped);
    let of_connections = sent.iter().filter(|frame| frame[23] == 6 && frame[47] == ACK).count();
    assert_eq!(of_connections as u32, established, "none of theirs but SYNs");
    // the queue is empty again: so are the limits, soon
    (0..600).for_each(|_| lab.turn());
    put_all(&mut lab, (300_000..300_000 + BACKLOG as u32 / 2).map(|n| of(n, SYN)));
    assert_eq!(lab.dropped(DropReason::Overload), dropped);
}

#[test]
fn frames_that_do_not_pile_up_are_all_taken() {
    let mut lab = calm(&web("rr", &SERVERS));
    lab.workers[0].io_mut().tells_backlog = true;
    for round in 0..7 {
        put_all(&mut lab, (0..BACKLOG as u32).map(|n| of(n + round * 600, SYN)));
    }
    assert_eq!(drops(&lab), []);
    assert_eq!(lab.server_of(&segment(7, SYN)), Some(12));
}

/// What is said of the SYN of client `n` to the VIP that ends in `vip`.
fn told(lab: &Lab, n: u32, vip: u8) -> Explanation {
    let packet = Lookup {
        src: Ipv4Addr::new(10, 9, (n >> 8) as u8, n as u8).into(),
        dst: [192, 168, 150, vip].into(),
        src_port: (1024 + (n >> 16)) as u16,
        dst_port: 80,
        protocol: L4::Tcp,
        device: DeviceId(0),
        vlan: 0,
    };
    lab.director.explain(&packet, None)
}

/// Last byte of the server that was told.
fn server_told(lab: &Lab, told: &Explanation) -> u8 {
    let server = told.outcome.dest().and_then(|dest| lab.director.server_of(dest)).expect("a server");
    server.address.to_string().rsplit('.').next().and_then(|last| last.parse().ok()).expect("IPv4")
}

#[test]
fn what_is_told_of_a_syn_in_a_flood_is_what_becomes_of_it() {
    for scheduler in ["rr", "maglev"] {
        let services = web(scheduler, &SERVERS);
        let lab = Lab::warm(&services);
        assert_eq!(told(&lab, 200_000, 100).entrance, Some(Entrance::Entry));
        let mut lab = flooded(&services);
        for n in 200_000..200_050 {
            let told = told(&lab, n, 100);
            assert_eq!(told.entrance, Some(Entrance::Unconfirmed), "{scheduler}");
            assert!(matches!(told.outcome, Outcome::Hashed(_)) && told.hop.is_some(), "{told:?}");
            let server = server_told(&lab, &told);
            assert_eq!(lab.server_of(&of(n, SYN)), Some(server), "{scheduler} {n}");
        }
        assert_eq!(lab.director.workers()[0].unconfirmed, 50);
    }
}

#[test]
fn what_is_told_of_a_syn_for_a_full_table_is_what_becomes_of_it() {
    let mut lab = calm(&web("rr", &SERVERS));
    put_all(&mut lab, (0..4096).flat_map(|n| [of(n, SYN), of(n, ACK)]));
    for n in 200_000..200_050 {
        let told = told(&lab, n, 100);
        let Some(Entrance::Full(Some(dest))) = told.entrance else { panic!("{told:?}") };
        let server = server_told(&lab, &Explanation { outcome: Outcome::Hashed(dest), ..told });
        assert_eq!(lab.server_of(&of(n, SYN)), Some(server));
    }
    // a service that cannot do without
    let persistent = web("rr", &SERVERS)
        .replace("web", "sticky")
        .replace(".100", ".101")
        .replace("servers", "persistence = { timeout = \"300s\" }\nservers");
    let mut lab = calm(&format!("{}{persistent}", web("rr", &SERVERS)));
    put_all(&mut lab, (0..4096).flat_map(|n| [of(n, SYN), of(n, ACK)]));
    assert_eq!(told(&lab, 200_000, 101).entrance, Some(Entrance::Full(None)));
    lab.pass(&from_client("10.7.0.1", "192.168.150.101", 6, &tcp(1000, 80, SYN, 0)));
    assert_eq!(lab.dropped(DropReason::TableFull), 1);
}

#[test]
fn the_cookie_of_the_syn_proxy_is_told() {
    for (mode, calm, flood) in [
        ("off", Entrance::Entry, Entrance::Entry),
        ("auto", Entrance::Entry, Entrance::Proof(SynProxy::Auto)),
        ("always", Entrance::Proof(SynProxy::Always), Entrance::Proof(SynProxy::Always)),
    ] {
        let nat = format!(
            "[[services]]\nname = \"nat\"\nvip = \"192.168.150.101\"\nport = 80\nforwarding = \"nat\"\nservers = [{{ \
             address = \"192.168.150.15\" }}]\npolicy.syn_proxy = \"{mode}\"\n"
        );
        let services = format!("{}{nat}", web("rr", &SERVERS));
        for (mut lab, want) in [(Lab::warm(&services), calm), (flooded(&services), flood)] {
            let told = told(&lab, 200_000, 101);
            assert_eq!((told.entrance, server_told(&lab, &told)), (Some(want), 15), "{mode}");
            let before = lab.director.workers()[0].cookies_sent;
            lab.pass(&from_client("10.7.0.1", "192.168.150.101", 6, &tcp(1000, 80, SYN, 0)));
            let proves = matches!(want, Entrance::Proof(_));
            assert_eq!(lab.director.workers()[0].cookies_sent - before, u64::from(proves), "{mode}");
        }
    }
}
