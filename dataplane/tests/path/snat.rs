//! Source NAT through whole workers: flows, pings and errors of private hosts.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use lb_dataplane::DropReason;
use lb_dataplane::mailbox::ConnProtocol;

use crate::frames::{ACK, CLIENT, DIRECTOR, RST, SYN, ethernet, icmp, ipv4, udp};
use crate::lab::Lab;
use crate::nat::{CIP, RIP, STATION, TWO_ARMS, VIP, error_head, hopped, resolved, segment, sent};

/// The director's own address in the world.
const OUT: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 11);
/// Where the world is, and its router.
const WORLD: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

fn rule(more: &str) -> String {
    format!("[[snat]]\nname = \"office\"\nsources = \"10.1.0.0/24\"\naddress = \"{OUT}\"\n{more}\n")
}

fn lab_of(text: &str, workers: u16) -> Lab {
    let mut lab = resolved(&format!("{TWO_ARMS}{text}"), workers);
    crate::nat::answer(&mut lab, 0, ROUTER, [192, 168, 150, 254].into(), OUT);
    // the private host is a stranger whom the director asks for when an answer comes
    lab.put_on(1, &crate::frames::arp(1, [0xff; 6], (STATION, RIP.octets()), ([0; 6], [10, 1, 0, 1])));
    lab.settle();
    crate::nat::answer(&mut lab, 1, STATION, RIP, [10, 1, 0, 1].into());
    lab.clear();
    lab
}

fn lab(workers: u16) -> Lab {
    lab_of(&rule(""), workers)
}

/// What the world gets for a private host's packet.
fn out(lab: &mut Lab, packet: &[u8]) -> Vec<([u8; 6], Vec<u8>)> {
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, packet));
    sent(lab, 0)
}

/// What the private host gets for the world's.
fn back(lab: &mut Lab, packet: &[u8]) -> Vec<([u8; 6], Vec<u8>)> {
    lab.put(&ethernet(DIRECTOR, ROUTER, 0x0800, packet));
    sent(lab, 1)
}

fn datagram(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut datagram = udp(src.1, dst.1, 4);
    let sum = crate::frames::checksum(&crate::nat::pseudo(src.0, dst.0, 17, &datagram));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(src.0, dst.0, 17, 64, true, &datagram)
}

fn echo(src: Ipv4Addr, dst: Ipv4Addr, kind: u8, id: u16) -> Vec<u8> {
    let id = id.to_be_bytes();
    ipv4(src, dst, 1, 64, false, &icmp(vec![kind, 0, 0, 0, id[0], id[1], 0, 1, 9, 9]))
}

fn source_port(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[20], packet[21]])
}

fn conserved(lab: &Lab) {
    let totals = lab.director.totals();
    assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
}

#[test]
fn private_hosts_reach_the_world_and_its_answers_come_back() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        let mut ports = HashSet::new();
        for port in 2000..2040 {
            let sent = out(&mut lab, &segment((RIP, port), (WORLD, 443), SYN));
            assert_eq!(sent.len(), 1, "{:?}", lab.drops());
            let chosen = source_port(&sent[0].1);
            assert!(workers > 1 || chosen == port, "one worker keeps all ports");
            assert!(ports.insert(chosen));
            assert_eq!(sent, [(ROUTER, hopped(segment((OUT, chosen), (WORLD, 443), SYN)))]);
            let answer = back(&mut lab, &segment((WORLD, 443), (OUT, chosen), SYN | ACK));
            assert_eq!(answer, [(STATION, hopped(segment((WORLD, 443), (RIP, port), SYN | ACK)))]);
            let sent = out(&mut lab, &segment((RIP, port), (WORLD, 443), ACK));
            assert_eq!(sent, [(ROUTER, hopped(segment((OUT, chosen), (WORLD, 443), ACK)))]);
        }
        assert!(ports.iter().filter(|port| (2000..2040).contains(*port)).count() >= 5, "some keep theirs");
        let (name, row) = lab.director.snat().remove(0);
        assert_eq!((name.as_str(), row.active, row.conns), ("office", 40, 40));
        assert_eq!((row.in_packets, row.out_packets, row.in_bytes), (80, 40, 80 * 44));
        for row in lab.connections() {
            assert_eq!(
                (row.client.0, row.vip, row.state.name()),
                (RIP.into(), (WORLD.into(), 443), "ESTABLISHED")
            );
            assert!(row.local.is_some_and(|local| local.0 == OUT && ports.contains(&local.1)));
        }
        let sent = out(&mut lab, &datagram((RIP, 5353), (WORLD, 53)));
        let chosen = source_port(&sent[0].1);
        assert_eq!(sent, [(ROUTER, hopped(datagram((OUT, chosen), (WORLD, 53))))]);
        let answer = back(&mut lab, &datagram((WORLD, 53), (OUT, chosen)));
        assert_eq!(answer, [(STATION, hopped(datagram((WORLD, 53), (RIP, 5353))))]);
        conserved(&lab);
    }
}

#[test]
fn a_port_that_another_host_has_towards_the_same_peer_is_not_kept() {
    let mut lab = lab(1);
    let other = Ipv4Addr::new(10, 1, 0, 13);
    let first = source_port(&out(&mut lab, &segment((RIP, 2000), (WORLD, 443), SYN))[0].1);
    let second = source_port(&out(&mut lab, &segment((other, 2000), (WORLD, 443), SYN))[0].1);
    let elsewhere = source_port(&out(&mut lab, &segment((other, 2000), (WORLD, 80), SYN))[0].1);
    assert_eq!((first, elsewhere), (2000, 2000));
    assert_ne!(second, 2000);
}

#[test]
fn pings_are_told_apart_by_their_identifiers() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        for id in [7, 7000, 7001] {
            let sent = out(&mut lab, &echo(RIP, WORLD, 8, id));
            assert_eq!(sent.len(), 1, "{:?}", lab.drops());
            let chosen = u16::from_be_bytes([sent[0].1[24], sent[0].1[25]]);
            assert_eq!(sent, [(ROUTER, hopped(echo(OUT, WORLD, 8, chosen)))]);
            let answer = back(&mut lab, &echo(WORLD, OUT, 0, chosen));
            assert_eq!(answer, [(STATION, hopped(echo(WORLD, RIP, 0, id)))]);
        }
        let rows = lab.connections();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.protocol == ConnProtocol::Echo && row.local.is_some()));
        assert_eq!(back(&mut lab, &echo(WORLD, OUT, 0, 99)), [], "nobody asked");
        assert_eq!(lab.dropped(DropReason::NoConnection), 1);
        lab.wait(32_000);
        assert_eq!(lab.connections(), []);
        let (_, row) = lab.director.snat().remove(0);
        assert_eq!((row.conns, row.in_packets, row.out_packets, row.active + row.inactive), (3, 3, 3, 0));
        conserved(&lab);
    }
}

#[test]
fn the_director_s_own_pings_are_still_answered() {
    let mut lab = lab(2);
    lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &echo(CIP, OUT, 8, 5)));
    let told = sent(&mut lab, 0);
    assert_eq!((told.len(), told[0].1[20]), (1, 0));
}

#[test]
fn errors_find_their_host() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        let sent = out(&mut lab, &datagram((RIP, 2000), (WORLD, 33434)));
        let end = (OUT, source_port(&sent[0].1));
        let expired = |quoted: &[u8]| icmp([&[11, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat());
        // traceroute: the world's router stays who it is
        let hop = Ipv4Addr::new(9, 9, 9, 9);
        let quoted = datagram(end, (WORLD, 33434));
        let told = back(&mut lab, &ipv4(hop, OUT, 1, 64, false, &expired(&quoted)));
        assert_eq!(told.len(), 1, "{:?}", lab.drops());
        let (to, packet) = &told[0];
        assert_eq!((*to, &packet[12..20]), (STATION, &[hop.octets(), RIP.octets()].concat()[..]));
        assert_eq!(packet[20..28], error_head(&packet[20..]));
        assert_eq!(packet[40..48], [RIP.octets(), WORLD.octets()].concat());
        assert_eq!(packet[48..52], [2000u16.to_be_bytes(), 33434u16.to_be_bytes()].concat());
        // the host has closed its socket: the world hears of it from the local end
        let quoted = datagram((WORLD, 33434), (RIP, 2000));
        let unreachable = icmp([&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
        let told = out(&mut lab, &ipv4(RIP, WORLD, 1, 64, false, &unreachable));
        assert_eq!(told.len(), 1, "{:?}", lab.drops());
        let (to, packet) = &told[0];
        assert_eq!((*to, &packet[12..20]), (ROUTER, &[OUT.octets(), WORLD.octets()].concat()[..]));
        assert_eq!(packet[20..28], error_head(&packet[20..]));
        assert_eq!(packet[40..48], [WORLD.octets(), OUT.octets()].concat());
        assert_eq!(packet[48..52], [33434u16.to_be_bytes(), end.1.to_be_bytes()].concat());
        conserved(&lab);
    }
}

#[test]
fn what_no_rule_takes_does_not_pass() {
    let mut lab = lab_of(&rule("protocols = [\"tcp\"]\nport = \"wan\""), 2);
    assert_eq!(out(&mut lab, &datagram((RIP, 2000), (WORLD, 53))), []);
    assert_eq!(out(&mut lab, &echo(RIP, WORLD, 8, 5)), []);
    assert_eq!(out(&mut lab, &segment(([10, 2, 0, 1].into(), 2000), (WORLD, 443), SYN)), []);
    assert_eq!(lab.dropped(DropReason::NotForUs), 3, "{:?}", lab.drops());
    // a private address that comes from the world is not its own
    assert_eq!(back(&mut lab, &segment((RIP, 2000), (WORLD, 443), SYN)), []);
    assert_eq!(lab.sent_on(0), [] as [Vec<u8>; 0]);
    assert_eq!(lab.dropped(DropReason::NotForUs), 4);
    // one that leaves by another port
    let inside = Ipv4Addr::new(10, 1, 0, 99);
    assert_eq!(out(&mut lab, &segment((RIP, 2000), (inside, 443), SYN)), []);
    assert_eq!(lab.dropped(DropReason::NotForUs), 5);
    assert_eq!(out(&mut lab, &segment((RIP, 2000), (WORLD, 443), SYN)).len(), 1);
    conserved(&lab);
}

#[test]
fn a_host_is_told_by_the_director_of_what_does_not_go_on() {
    let mut lab = lab(1);
    let mut last = segment((RIP, 2000), (WORLD, 443), SYN);
    last[8] = 1;
    last[10..12].fill(0);
    let sum = crate::frames::checksum(&last[..20]);
    last[10..12].copy_from_slice(&sum.to_be_bytes());
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &last));
    let told = sent(&mut lab, 1);
    assert_eq!((told.len(), told[0].1[20]), (1, 11), "{:?}", lab.drops());
    assert_eq!(told[0].1[12..20], [[10, 1, 0, 1], RIP.octets()].concat());
    // a segment of a connection that the director does not know
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &segment((RIP, 2001), (WORLD, 443), ACK)));
    let told = sent(&mut lab, 1);
    assert_eq!((told.len(), told[0].1[33] & RST), (1, RST));
}

#[test]
fn a_server_by_nat_is_a_private_host_too() {
    let service = format!(
        "[[services]]\nname = \"web\"\nvip = \"{VIP}\"\nport = 80\nforwarding = \"nat\"\nservers = [{{ address = \
         \"10.1.0.12\", port = 8080 }}]\n"
    );
    for workers in [1, 3] {
        let mut lab = lab_of(&format!("{service}{}", rule("")), workers);
        let in_ = {
            lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &segment((CIP, 1000), (VIP, 80), SYN)));
            sent(&mut lab, 1)
        };
        assert_eq!(in_, [(STATION, hopped(segment((CIP, 1000), (RIP, 8080), SYN)))]);
        let reply = out(&mut lab, &segment((RIP, 8080), (CIP, 1000), SYN | ACK));
        assert_eq!(reply, [(CLIENT, hopped(segment((VIP, 80), (CIP, 1000), SYN | ACK)))]);
        // from the port of the service, and from another
        for port in [8080, 4000] {
            let sent = out(&mut lab, &segment((RIP, port), (WORLD, 443), SYN));
            let chosen = source_port(&sent[0].1);
            assert_eq!(sent, [(ROUTER, hopped(segment((OUT, chosen), (WORLD, 443), SYN)))]);
            let answer = back(&mut lab, &segment((WORLD, 443), (OUT, chosen), SYN | ACK));
            assert_eq!(answer, [(STATION, hopped(segment((WORLD, 443), (RIP, port), SYN | ACK)))]);
            let unreachable =
                icmp([&[3, 3, 0, 0, 0, 0, 0, 0][..], &segment((WORLD, 443), (RIP, port), ACK)].concat());
            let told = out(&mut lab, &ipv4(RIP, WORLD, 1, 64, false, &unreachable));
            assert_eq!(told.len(), 1, "{port}: {:?}", lab.drops());
        }
        conserved(&lab);
    }
}

#[test]
fn connections_of_a_rule_that_was_taken_out_go_on_and_then_it_is_gone() {
    let mut lab = lab(1);
    let sent_ = out(&mut lab, &datagram((RIP, 2000), (WORLD, 53)));
    let chosen = source_port(&sent_[0].1);
    lab.apply_text(TWO_ARMS);
    lab.settle();
    lab.clear();
    assert_eq!(lab.director.snat(), []);
    let answer = back(&mut lab, &datagram((WORLD, 53), (OUT, chosen)));
    assert_eq!(answer.len(), 1, "{:?}", lab.drops());
    assert_eq!(out(&mut lab, &datagram((RIP, 2001), (WORLD, 53))), [], "nobody new");
    lab.wait(305_000);
    assert_eq!(lab.connections(), []);
    lab.wait(3_000);
    lab.apply_text(&format!("{TWO_ARMS}{}", rule("")));
    lab.settle();
    assert_eq!(lab.director.snat()[0].1.conns, 0, "a new life");
    conserved(&lab);
}

#[test]
fn it_is_explained() {
    use lb_dataplane::classify::Lookup;
    use lb_dataplane::director::Outcome;
    use lb_dataplane::parse::L4;
    let mut lab = lab_of(&rule("protocols = [\"tcp\"]"), 3);
    let (device, vlan) = lab.director.port("lan").expect("the private hosts' port");
    let packet = |protocol| Lookup {
        src: RIP.into(),
        dst: WORLD.into(),
        src_port: 2000,
        dst_port: 443,
        protocol,
        device,
        vlan,
    };
    let told = lab.director.explain(&packet(L4::Tcp), None);
    assert_eq!(told.outcome, Outcome::Translated(lab.director.snat()[0].1.dest));
    let hop = told.hop.expect("a way");
    assert_eq!((hop.local.as_slice(), hop.link.as_deref()), (&[OUT.into()][..], Some("wan")));
    assert_eq!(hop.neighbor.map(|row| row.ip.to_string()).as_deref(), Some("192.168.150.254"));
    let told = lab.director.explain(&packet(L4::Udp), None);
    assert!(matches!(told.outcome, Outcome::Refused(_)));
    // and so it goes, by the worker that is named
    out(&mut lab, &segment((RIP, 2000), (WORLD, 443), SYN));
    let told = lab.director.explain(&packet(L4::Tcp), None);
    assert_eq!(lab.director.workers()[usize::from(told.worker.0)].connections, 1);
}
