//! Connections that one director began go on through another.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb_dataplane::mailbox::ConnFilter;
use lb_dataplane::state::State;
use lb_dataplane::sync::{Feeds, Listener, Record};

use crate::frames::{ACK, CLIENT, FIN, SYN, from_client, segment, tcp, udp};
use crate::lab::{BASE, Lab, web};
use crate::nat::{self, CIP, RIP, STATION, TWO_ARMS, VIP, hopped, resolved};

/// That there is another director, for both.
const SYNC: &str = "[[sync]]\nname = \"other\"\nlisten = \"127.0.0.1:8849\"\npeer = \"127.0.0.2:8849\"\n\
                    key = \"0123456789abcdef\"\n";

fn feeds(lab: &Lab) -> Arc<Feeds> {
    lab.director.feeds().expect("[[sync]] is there")
}

/// What a director has told since the last time.
fn told(lab: &Lab) -> Vec<Record> {
    let feeds = feeds(lab);
    (0..feeds.workers()).flat_map(|worker| drain(&feeds, worker)).collect()
}

fn drain(feeds: &Arc<Feeds>, worker: u16) -> Vec<Record> {
    std::iter::from_fn(|| feeds.next(Listener::Peers, worker)).collect()
}

/// Hands what `from` has told to `to`. Returns how many records.
fn pass_on(from: &Lab, to: &mut Lab) -> usize {
    let records = told(from);
    let feeds = feeds(to);
    for record in &records {
        feeds.apply(*record).expect("room");
    }
    (0..1 + records.len() / 32).for_each(|_| to.turn());
    assert!(feeds.is_applied());
    records.len()
}

/// Rows of the connections, without what differs by nature.
fn rows(lab: &mut Lab) -> Vec<String> {
    let rows = lab.connections().into_iter();
    rows.map(|row| format!("{:?}", (row.protocol, row.client, row.vip, row.local, row.state, row.controlled)))
        .collect()
}

fn states(records: &[Record]) -> Vec<(u16, State)> {
    let of = |record: &Record| match record {
        Record::Connection(connection) => (connection.client.1, connection.state),
        Record::Template(_) | Record::Gone(_) => panic!("connections alone"),
    };
    records.iter().map(of).collect()
}

#[test]
fn a_connection_is_told_when_it_is_established_and_when_it_ends_and_no_more() {
    let mut lab = Lab::warm(&format!("{}{SYNC}", web("rr", &[(12, 1), (13, 1)])));
    lab.pass(&segment(1000, SYN));
    assert_eq!(told(&lab), [], "a handshake is nobody's business");
    lab.pass(&segment(1000, ACK));
    assert_eq!(states(&told(&lab)), [(1000, State::Established)]);
    (0..20).for_each(|_| drop(lab.pass(&segment(1000, ACK))));
    assert_eq!(told(&lab), []);
    lab.pass(&segment(1000, FIN | ACK));
    assert_eq!(states(&told(&lab)), [(1000, State::FinWait)]);
}

#[test]
fn without_other_directors_there_are_no_queues() {
    let lab = Lab::warm(&web("rr", &[(12, 1)]));
    assert!(lab.director.feeds().is_none());
}

#[test]
fn handshakes_are_told_where_they_are_asked_for() {
    let mut lab = Lab::warm(&format!("{}{SYNC}handshakes = true\n", web("rr", &[(12, 1)])));
    lab.pass(&segment(1000, SYN));
    assert_eq!(states(&told(&lab)), [(1000, State::SynRecv)]);
}

#[test]
fn udp_is_told_when_its_client_goes_on() {
    let service = "[[services]]\nname = \"dns\"\nvip = \"192.168.150.100\"\nport = 53\nprotocol = \"udp\"\n\
                   servers = [{ address = \"192.168.150.12\" }]\n";
    let mut lab = Lab::warm(&format!("{service}{SYNC}"));
    let datagram = from_client("192.168.150.1", "192.168.150.100", 17, &udp(1000, 53, 4));
    lab.pass(&datagram);
    assert_eq!(told(&lab), []);
    lab.pass(&datagram);
    assert_eq!(states(&told(&lab)), [(1000, State::Udp)]);
    lab.pass(&datagram);
    assert_eq!(told(&lab), []);
}

#[test]
fn connections_go_on_through_the_other_director_with_the_same_servers() {
    for workers in [1, 3] {
        let services = format!("{}{SYNC}", web("rr", &[(12, 1), (13, 1), (14, 1)]));
        let text = format!("{BASE}{services}");
        let [mut a, mut b] = [Lab::warm_of(&text, workers), Lab::warm_of(&text, workers)];
        // its scheduler stands elsewhere
        b.pass(&segment(9, SYN));
        let servers: Vec<_> = (1000..1040).map(|port| a.server_of(&segment(port, SYN))).collect();
        (1000..1040).for_each(|port| drop(a.pass(&segment(port, ACK))));
        assert_eq!(pass_on(&a, &mut b), 40);
        let services = b.director.services();
        let active: u64 = services[0].dests.iter().map(|dest| dest.active).sum();
        assert_eq!(active, 41, "they count for schedulers and limits");
        assert_eq!(told(&b), [], "what was told by others is not told again");
        for (port, server) in (1000..1040).zip(servers) {
            assert_eq!(b.server_of(&segment(port, ACK)), server, "{port}");
        }
        // from now on they are this one's own
        assert_eq!(told(&b).len(), 40);
        let mut rows = rows(&mut b);
        rows.retain(|row| !row.contains("SynRecv"));
        assert_eq!(rows, self::rows(&mut a));
        b.wait(1_000_000);
        assert_eq!(b.connections(), [], "and end as others");
        let left: u64 = b.director.services()[0].dests.iter().map(|d| d.active + d.inactive).sum();
        assert_eq!(left, 0);
    }
}

fn nat_service(protocol: &str, forwarding: &str, more: &str) -> String {
    let local = if forwarding == "fullnat" { "local_addresses = [\"10.1.0.1\", \"10.1.0.2\"]" } else { "" };
    format!(
        "[[services]]\nname = \"{protocol}\"\nvip = \"{VIP}\"\nport = 80\nprotocol = \"{protocol}\"\nforwarding = \"{forwarding}\"\n\
         {local}\n{more}\nservers = [{{ address = \"{RIP}\", port = 8080 }}]\n"
    )
}

fn local_end(packet: &[u8]) -> (Ipv4Addr, u16) {
    let address: [u8; 4] = packet[12..16].try_into().expect("four bytes");
    (address.into(), u16::from_be_bytes([packet[20], packet[21]]))
}

#[test]
fn translated_connections_go_on_both_ways() {
    for (forwarding, workers) in [("nat", 1), ("nat", 3), ("fullnat", 1), ("fullnat", 3)] {
        let text = format!("{TWO_ARMS}{}{SYNC}", nat_service("tcp", forwarding, ""));
        let [mut a, mut b] = [resolved(&text, workers), resolved(&text, workers)];
        let mut ends = Vec::new();
        for port in 1000..1030 {
            let out = nat::from_client(&mut a, &nat::segment((CIP, port), (VIP, 80), SYN));
            let end = local_end(&out[0].1);
            nat::from_server(&mut a, &nat::segment((RIP, 8080), end, SYN | ACK));
            nat::from_client(&mut a, &nat::segment((CIP, port), (VIP, 80), ACK));
            ends.push((port, end));
        }
        assert!(pass_on(&a, &mut b) >= 30, "{forwarding}");
        assert_eq!(rows(&mut b), rows(&mut a), "{:?}", feeds(&b).applied());
        for (port, end) in ends {
            // the server may be the first to speak
            let back = nat::from_server(&mut b, &nat::segment((RIP, 8080), end, ACK));
            assert_eq!(
                back,
                [(CLIENT, hopped(nat::segment((VIP, 80), (CIP, port), ACK)))],
                "{forwarding} {port} {:?}",
                b.drops()
            );
            let on = nat::from_client(&mut b, &nat::segment((CIP, port), (VIP, 80), ACK));
            assert_eq!(on, [(STATION, hopped(nat::segment(end, (RIP, 8080), ACK)))]);
        }
        // a local end that came from the other director is in use
        for port in 2000..2050 {
            let out = nat::from_client(&mut b, &nat::segment((CIP, port), (VIP, 80), SYN));
            let end = local_end(&out[0].1);
            assert!(nat::from_server(&mut b, &nat::segment((RIP, 8080), end, SYN | ACK)).len() == 1);
        }
        b.wait(1_000_000);
        assert_eq!(b.connections(), []);
    }
}

#[test]
fn directors_that_steer_otherwise_say_so() {
    let of = |key: &str| {
        let sync = SYNC.replace("0123456789abcdef", key);
        resolved(&format!("{TWO_ARMS}{}{sync}", nat_service("tcp", "fullnat", "")), 3)
    };
    let [mut a, mut b] = [of("0123456789abcdef"), of("fedcba9876543210")];
    for port in 1000..1030 {
        nat::from_client(&mut a, &nat::segment((CIP, port), (VIP, 80), SYN));
        nat::from_client(&mut a, &nat::segment((CIP, port), (VIP, 80), ACK));
    }
    pass_on(&a, &mut b);
    let applied = feeds(&b).applied();
    assert!(applied.refused[4] > 5, "{applied:?}");
}

#[test]
fn the_whole_table_is_told_to_who_asks_and_templates_with_it() {
    let text =
        format!("{BASE}{}persistence = {{ timeout = \"300s\" }}\n{SYNC}", web("rr", &[(12, 1), (13, 1)]));
    let [mut a, mut b] = [Lab::warm_of(&text, 2), Lab::warm_of(&text, 2)];
    let server = a.server_of(&segment(1000, SYN));
    for port in 1000..1200 {
        a.pass(&segment(port, SYN));
        a.pass(&segment(port, ACK));
    }
    told(&a);
    // a client whose connections have ended
    let other = |flags| from_client("192.168.150.9", "192.168.150.100", 6, &tcp(7, 80, flags, 0));
    let others = a.server_of(&other(SYN));
    assert_ne!(others, server);
    a.pass(&other(ACK));
    a.wait(1_000);
    told(&a);
    feeds(&a).ask_for_all(Listener::Peers);
    assert!(!feeds(&a).is_all_told(Listener::Peers));
    let mut records = Vec::new();
    for _ in 0..200 {
        a.turn();
        let done = feeds(&a).is_all_told(Listener::Peers);
        records.extend(told(&a));
        if done {
            break;
        }
    }
    assert!(feeds(&a).is_all_told(Listener::Peers));
    let templates = records.iter().filter(|record| matches!(record, Record::Template(_))).count();
    assert_eq!((records.len() - templates, templates), (201, 2));
    // the template alone of the other client
    for record in records.iter().filter(|record| match record {
        Record::Connection(connection) => connection.client.1 != 7,
        Record::Template(_) | Record::Gone(_) => true,
    }) {
        feeds(&b).apply(*record).expect("room");
    }
    (0..30).for_each(|_| b.turn());
    assert_eq!(feeds(&b).applied().refused, [0; 6]);
    assert_eq!(b.server_of(&segment(1005, ACK)), server);
    assert_eq!(b.server_of(&segment(5000, SYN)), server, "a new connection of a known client");
    assert_eq!(b.server_of(&other(SYN)), others);
    assert!(b.connections().iter().all(|row| row.controlled));
}

#[test]
fn one_that_lives_on_is_told_again_and_an_idle_one_is_not() {
    let mut lab = Lab::warm(&format!("{}{SYNC}refresh = \"10s\"\n", web("rr", &[(12, 1)])));
    for port in [1000, 2000] {
        lab.pass(&segment(port, SYN));
        lab.pass(&segment(port, ACK));
    }
    lab.wait(30_000);
    told(&lab);
    let mut again = 0;
    for _ in 0..12 {
        lab.wait(5_000);
        lab.pass(&segment(1000, ACK));
        let told = states(&told(&lab));
        assert!(told.iter().all(|(port, state)| (*port, *state) == (1000, State::Established)), "{told:?}");
        again += told.len();
    }
    // once in 10 s, give or take what walks and packets have to do with each other
    assert!((4..=8).contains(&again), "{again} times in a minute");
}

#[test]
fn what_is_this_director_s_own_is_not_changed_by_others() {
    let services = format!("{}{SYNC}", web("rr", &[(12, 1), (13, 1)]));
    let [mut a, mut b] = [Lab::warm(&services), Lab::warm(&services)];
    a.pass(&segment(9, SYN));
    let servers = [&mut a, &mut b].map(|lab| {
        let server = lab.server_of(&segment(1000, SYN));
        lab.pass(&segment(1000, ACK));
        server
    });
    assert_ne!(servers[0], servers[1]);
    pass_on(&a, &mut b);
    assert_eq!(feeds(&b).applied().refused[1], 1);
    assert_eq!(b.server_of(&segment(1000, ACK)), servers[1]);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let services = format!("{}{SYNC}", web("rr", &[(12, 1)]));
    let [mut a, mut b] = [Lab::warm(&services), Lab::warm(&services)];
    a.pass(&segment(1000, SYN));
    a.pass(&segment(1000, ACK));
    let records = told(&a);
    let Record::Connection(good) = records[0] else { panic!("a connection") };
    let mut server = good;
    server.dest.address = IpAddr::from([192, 168, 150, 77]);
    let mut state = good;
    state.state = State::SctpEstablished;
    let mut mixed = good;
    mixed.client.0 = "fd00::1".parse().expect("an address");
    let mut over = good;
    over.left = 0;
    let mut protocol = good;
    protocol.protocol = 1;
    for odd in [server, state, mixed, over, protocol] {
        feeds(&b).apply(Record::Connection(odd)).expect("room");
    }
    b.settle();
    assert_eq!(b.connections(), []);
    assert_eq!(feeds(&b).applied().refused, [1, 0, 0, 0, 0, 4]);
    let left: u64 = b.director.services()[0].dests.iter().map(|d| d.active + d.inactive).sum();
    assert_eq!(left, 0);
}

#[test]
fn a_full_table_takes_no_more_and_counts_stay_right() {
    let services = format!("{}{SYNC}", web("rr", &[(12, 1)]));
    let mut a = Lab::warm(&services);
    let head = "[appliance]\nworkers = [0]\n[limits]\nmax_connections = 1024\n";
    let mut b = Lab::with_head(head, &format!("{BASE}{services}")).resolved();
    for port in 1000..2500 {
        a.pass(&segment(port, SYN));
        a.pass(&segment(port, ACK));
    }
    pass_on(&a, &mut b);
    let applied = feeds(&b).applied();
    assert_eq!((applied.applied, applied.refused[2]), (1024, 476));
    assert_eq!(b.director.services()[0].dests[0].active, 1024);
}

#[test]
fn queues_that_nobody_reads_lose_and_say_so() {
    let mut lab = Lab::warm(&format!("{}{SYNC}handshakes = true\n", web("rr", &[(12, 1)])));
    for flags in [SYN, ACK, FIN | ACK, SYN, ACK, FIN | ACK] {
        for port in 1000..5000 {
            lab.put(&segment(port, flags));
            if port % 32 == 0 {
                lab.turn();
            }
        }
        lab.settle();
        lab.clear();
    }
    // some of the handshakes were taken for a flood and have no entry
    assert!(feeds(&lab).lost(Listener::Peers) > 1000);
    told(&lab);
    feeds(&lab).ask_for_all(Listener::Peers);
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..500 {
        lab.turn();
        ports.extend(states(&told(&lab)).into_iter().map(|(port, _)| port));
    }
    assert_eq!(ports.len(), lab.connections().len());
    assert!(ports.len() > 3000);
}

#[test]
fn queues_come_and_go_with_the_configuration() {
    let services = web("rr", &[(12, 1)]);
    let mut lab = Lab::warm(&services);
    lab.pass(&segment(1000, SYN));
    lab.apply(&format!("{services}{SYNC}"));
    lab.settle();
    lab.pass(&segment(1000, ACK));
    assert_eq!(states(&told(&lab)), [(1000, State::Established)]);
    let old = feeds(&lab);
    lab.apply(&services);
    lab.settle();
    assert!(lab.director.feeds().is_none());
    lab.pass(&segment(1000, FIN | ACK));
    assert_eq!(drain(&old, 0), []);
    assert_eq!(Arc::strong_count(&old), 1, "nobody else has it");
}

/// Removes connections. Returns how many.
fn flush(lab: &mut Lab, filter: ConnFilter) -> u64 {
    let ticket = lab.director.flush_connections(filter).expect("room for mail");
    (0..1000).for_each(|_| lab.turn());
    lab.settle();
    lab.director.connections(ticket).expect("the walk is over").1
}

/// The ports of clients that a listing of these shows.
fn ports(lab: &mut Lab) -> Vec<u16> {
    let mut ports: Vec<_> = lab.connections().iter().map(|row| row.client.1).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn what_is_flushed_others_forget_too_unless_it_is_their_own() {
    for workers in [1, 3] {
        let text = format!("{BASE}{}{SYNC}", web("rr", &[(12, 1), (13, 1)]));
        let [mut a, mut b] = [Lab::warm_of(&text, workers), Lab::warm_of(&text, workers)];
        for port in 1000..1040 {
            a.pass(&segment(port, SYN));
            a.pass(&segment(port, ACK));
        }
        pass_on(&a, &mut b);
        // seen by the other one: its own from now on
        b.pass(&segment(1001, ACK));
        told(&b);
        // a handshake that nobody was told of is nobody's loss
        a.pass(&segment(2000, SYN));
        let one = ConnFilter { client_port: Some(1007), ..ConnFilter::default() };
        assert_eq!(flush(&mut a, one), 1);
        assert_eq!(pass_on(&a, &mut b), 1);
        assert!(!ports(&mut b).contains(&1007) && ports(&mut b).len() == 39);
        assert_eq!(flush(&mut a, ConnFilter::default()), 40);
        assert_eq!(pass_on(&a, &mut b), 39);
        assert_eq!(ports(&mut b), [1001], "{workers} workers");
        assert_eq!(feeds(&b).applied().refused[1], 1);
        // nothing is left behind of the others
        let left: u64 = b.director.services()[0].dests.iter().map(|d| d.active + d.inactive).sum();
        assert_eq!(left, 1);
    }
}

#[test]
fn local_ends_of_flushed_connections_are_free_at_others() {
    let text = format!("{TWO_ARMS}{}{SYNC}", nat_service("tcp", "fullnat", ""));
    let [mut a, mut b] = [resolved(&text, 1), resolved(&text, 1)];
    let out = nat::from_client(&mut a, &nat::segment((CIP, 1000), (VIP, 80), SYN));
    let end = local_end(&out[0].1);
    nat::from_server(&mut a, &nat::segment((RIP, 8080), end, SYN | ACK));
    nat::from_client(&mut a, &nat::segment((CIP, 1000), (VIP, 80), ACK));
    pass_on(&a, &mut b);
    flush(&mut a, ConnFilter::default());
    pass_on(&a, &mut b);
    assert_eq!(b.connections(), []);
    assert!(nat::from_server(&mut b, &nat::segment((RIP, 8080), end, ACK)).is_empty());
}

#[test]
fn a_local_end_belongs_to_the_connection_that_was_told_of_last() {
    let text = format!("{TWO_ARMS}{}{SYNC}", nat_service("tcp", "fullnat", ""));
    for is_own in [false, true] {
        let [mut a, mut b] = [resolved(&text, 1), resolved(&text, 1)];
        let out = nat::from_client(&mut a, &nat::segment((CIP, 1000), (VIP, 80), SYN));
        let end = local_end(&out[0].1);
        nat::from_server(&mut a, &nat::segment((RIP, 8080), end, SYN | ACK));
        nat::from_client(&mut a, &nat::segment((CIP, 1000), (VIP, 80), ACK));
        let records = told(&a);
        let [Record::Connection(first)] = records[..] else { panic!("{records:?}") };
        feeds(&b).apply(Record::Connection(first)).expect("room");
        b.turn();
        if is_own {
            nat::from_client(&mut b, &nat::segment((CIP, 1000), (VIP, 80), ACK));
        }
        // there the first is over, and its end was given to the next one before it is over here
        let next = lb_dataplane::sync::Connection { client: (first.client.0, 1001), ..first };
        feeds(&b).apply(Record::Connection(next)).expect("room");
        b.turn();
        let clients: Vec<_> = b.connections().iter().map(|row| row.client.1).collect();
        let refused = feeds(&b).applied().refused[3];
        assert_eq!((clients, refused), if is_own { (vec![1000], 1) } else { (vec![1001], 0) });
        let back = nat::from_server(&mut b, &nat::segment((RIP, 8080), end, ACK));
        assert_eq!(back.len(), 1, "to who has it");
        let left: u64 = b.director.services()[0].dests.iter().map(|d| d.active + d.inactive).sum();
        assert_eq!(left, 1);
    }
}

#[test]
fn a_flush_waits_for_room_to_tell_of_it() {
    const COUNT: u64 = 3900;
    let mut lab = Lab::warm(&format!("{}{SYNC}", web("rr", &[(12, 1)])));
    let ports = 1000..1000 + COUNT as u16;
    for port in ports.clone() {
        lab.pass(&segment(port, SYN));
        lab.pass(&segment(port, ACK));
    }
    // nobody takes what is told: the queue fills up
    for _ in 0..2 {
        feeds(&lab).ask_for_all(Listener::Peers);
        while !feeds(&lab).is_all_told(Listener::Peers) {
            lab.turn();
        }
    }
    ports.for_each(|port| drop(lab.pass(&segment(port, FIN | ACK))));
    let ticket = lab.director.flush_connections(ConnFilter::default()).expect("room for mail");
    (0..500).for_each(|_| lab.turn());
    lab.settle();
    assert_eq!(lab.director.connections(ticket), None, "there is no room for all");
    let mut gone = 0;
    for _ in 0..500 {
        gone += told(&lab).iter().filter(|record| matches!(record, Record::Gone(_))).count();
        lab.turn();
    }
    lab.settle();
    assert_eq!(lab.director.connections(ticket), Some((Vec::new(), COUNT)));
    assert_eq!((gone as u64, feeds(&lab).lost(Listener::Peers)), (COUNT, 0));
}

#[test]
fn connections_of_a_removed_server_are_gone_at_others_that_still_have_it() {
    let of = |servers: &[(u8, u32)]| {
        format!("{BASE}{}policy.on_server_down = \"reschedule\"\n{SYNC}", web("rr", servers))
    };
    let both = of(&[(12, 1), (13, 1)]);
    let [mut a, mut b] = [Lab::warm_of(&both, 1), Lab::warm_of(&both, 1)];
    for port in 1000..1040 {
        a.pass(&segment(port, SYN));
        a.pass(&segment(port, ACK));
    }
    pass_on(&a, &mut b);
    // a check of the first director has found the server dead
    a.apply_text(&of(&[(12, 1)]));
    for _ in 0..20 {
        a.wait(200);
        a.turn();
    }
    assert_eq!(a.connections().len(), 20);
    // beside what lives on and is told again
    assert!(pass_on(&a, &mut b) >= 20);
    assert_eq!(ports(&mut b), ports(&mut a));
}
