//! Full NAT through whole workers: both ways, ports, errors, the client's address.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use lb_dataplane::DropReason;
use lb_dataplane::state::State;
use proptest::prelude::*;

use crate::arms::{cut, datagram, joined};
use crate::frames::{ACK, CLIENT, DIRECTOR, FIN, RST, SYN, arp, checksum, ethernet, icmp, ipv4, ipv6, udp};
use crate::lab::Lab;
use crate::nat::{
    CIP, RIP, STATION, TWO_ARMS, VIP, error_head, from_client, from_server, hopped, pseudo, resolved,
    segment, sent,
};

/// What the director has in the servers' network: its own address, and another.
const LIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)];

fn service(protocol: &str, more: &str) -> String {
    format!(
        "[[services]]\nname = \"{protocol}\"\nvip = \"{VIP}\"\nport = 80\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
         forwarding = \"fullnat\"\nlocal_addresses = [\"10.1.0.1\", \"10.1.0.2\"]\n{more}\n\
         servers = [{{ address = \"10.1.0.12\", port = 8080 }}]\n"
    )
}

fn lab(workers: u16) -> Lab {
    resolved(&format!("{TWO_ARMS}{}{}", service("tcp", ""), service("udp", "")), workers)
}

/// Source of a packet that was sent to a server.
fn local_end(packet: &[u8]) -> (Ipv4Addr, u16) {
    let address: [u8; 4] = packet[12..16].try_into().expect("four bytes");
    (address.into(), u16::from_be_bytes([packet[20], packet[21]]))
}

fn conserved(lab: &Lab) {
    let totals = lab.director.totals();
    assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
}

#[test]
fn both_ends_are_translated_both_ways_whichever_worker_gets_the_frame() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        let mut ends = HashSet::new();
        for port in 1000..1060 {
            let out = from_client(&mut lab, &segment((CIP, port), (VIP, 80), SYN));
            assert_eq!(out.len(), 1, "{:?}", lab.drops());
            let end = local_end(&out[0].1);
            assert!(LIPS.contains(&end.0) && end.1 >= 1024, "{end:?}");
            assert!(ends.insert(end), "{end:?} twice");
            assert_eq!(out, [(STATION, hopped(segment(end, (RIP, 8080), SYN)))]);
            let back = from_server(&mut lab, &segment((RIP, 8080), end, SYN | ACK));
            assert_eq!(back, [(CLIENT, hopped(segment((VIP, 80), (CIP, port), SYN | ACK)))], "{port}");
            let again = from_client(&mut lab, &segment((CIP, port), (VIP, 80), ACK));
            assert_eq!(again, [(STATION, hopped(segment(end, (RIP, 8080), ACK)))], "the end stays");
        }
        assert!(LIPS.iter().all(|lip| ends.iter().filter(|end| end.0 == *lip).count() > 10), "{ends:?}");
        let row = &lab.director.services()[0].dests[0];
        assert_eq!((row.active, row.conns, row.in_packets, row.out_packets), (60, 60, 120, 60));
        let listed: HashSet<_> = lab.connections().into_iter().filter_map(|row| row.local).collect();
        assert_eq!(listed, ends.into_iter().map(|(address, port)| (address.into(), port)).collect());
        assert!(lab.connections().iter().all(|row| row.state == State::Established));
        conserved(&lab);
    }
}

#[test]
fn an_end_is_free_again_when_its_connection_has_ended() {
    let mut lab = lab(1);
    let out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let end = local_end(&out[0].1);
    lab.wait(62_000);
    assert_eq!(lab.connections(), []);
    lab.clear();
    // what is late is told so by the address that it goes to, as by a host
    let told = {
        lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &segment((RIP, 8080), end, ACK)));
        sent(&mut lab, 1)
    };
    assert_eq!((told.len(), told[0].1[33] & RST), (1, RST), "{:?}", lab.drops());
    assert_eq!(lab.dropped(DropReason::NoConnection) + lab.dropped(DropReason::NoService), 1);
    crate::nat::answer(&mut lab, 1, STATION, RIP, LIPS[0]);
    lab.clear();
    // a connection that was closed gives its place to the next from the same port, with another end
    for flags in [SYN, FIN | ACK] {
        from_client(&mut lab, &segment((CIP, 1001), (VIP, 80), flags));
    }
    let first = local_end(&from_client(&mut lab, &segment((CIP, 1001), (VIP, 80), RST))[0].1);
    let second = local_end(&from_client(&mut lab, &segment((CIP, 1001), (VIP, 80), SYN))[0].1);
    assert_ne!(first, second);
    assert_eq!(lab.connections().len(), 1);
    conserved(&lab);
}

#[test]
fn both_ends_of_a_removed_server_s_connection_are_reset() {
    let policy = "[services.policy]\non_server_down = \"reset\"\n";
    let text = format!("{TWO_ARMS}{}{policy}", service("tcp", ""));
    let mut lab = resolved(&text, 1);
    let out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let end = local_end(&out[0].1);
    from_server(&mut lab, &segment((RIP, 8080), end, SYN | ACK));
    let servers = "servers = [{ address = \"10.1.0.12\", port = 8080 }]";
    lab.apply_text(&text.replace(servers, "servers = []"));
    lab.settle();
    lab.clear();
    lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &segment((CIP, 1000), (VIP, 80), ACK)));
    let (server, client) = (sent(&mut lab, 1), sent(&mut lab, 0));
    assert_eq!((server.len(), client.len()), (1, 1), "{:?}", lab.drops());
    assert_eq!((local_end(&server[0].1), server[0].1[33] & RST), (end, RST));
    assert_eq!(
        (&client[0].1[12..20], client[0].1[33] & RST),
        (&[VIP.octets(), CIP.octets()].concat()[..], RST)
    );
    assert_eq!(lab.connections(), []);
    conserved(&lab);
}

#[test]
fn when_no_port_is_free_the_packet_is_dropped_for_that() {
    let head = "[appliance]\nworkers = [0]\n[limits]\nmax_connections = 200000\n";
    let text = format!("{TWO_ARMS}{}", service("udp", "")).replace("\"10.1.0.1\", ", "");
    let mut lab = Lab::with_head(head, &text);
    crate::nat::answer(&mut lab, 1, STATION, RIP, [10, 1, 0, 1].into());
    let datagram = |n: u32| {
        let client = Ipv4Addr::from_bits(0x0808_0000 + n / 60_000);
        ethernet(
            DIRECTOR,
            CLIENT,
            0x0800,
            &ipv4(client, VIP, 17, 64, true, &udp((n % 60_000) as u16 + 1000, 80, 4)),
        )
    };
    for n in 0..66_000 {
        lab.put(&datagram(n));
        if n % 32 == 31 {
            lab.workers[0].turn(lab.now_ms * 1_000_000);
        }
    }
    lab.settle();
    let refused = lab.dropped(DropReason::PortsExhausted);
    let made = lab.director.workers()[0].connections;
    assert_eq!(made + refused, 66_000, "{:?}", lab.drops());
    assert!((62_000..=64_512).contains(&made), "{made}");
    let sent = lab.sent_on(1);
    let sent = sent.iter().filter(|frame| frame[..6] == STATION);
    let ends: HashSet<_> = sent.map(|frame| local_end(&frame[14..])).collect();
    assert_eq!(ends.len() as u64, made, "each has its own");
    let row = &lab.director.services()[0].dests[0];
    assert_eq!((row.conns, row.inactive), (made, made));
    conserved(&lab);
    // what has ended gives its port back
    lab.wait(310_000);
    assert_eq!(lab.connections(), []);
    for n in 0..2_000 {
        lab.put(&datagram(n));
        lab.workers[0].turn(lab.now_ms * 1_000_000);
    }
    assert_eq!(lab.dropped(DropReason::PortsExhausted), refused);
    conserved(&lab);
}

#[test]
fn errors_are_translated_both_ways() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        let datagram = |src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)| {
            ipv4(src.0, dst.0, 17, 64, false, &udp(src.1, dst.1, 4))
        };
        let out = from_client(&mut lab, &datagram((CIP, 1000), (VIP, 80)));
        let end = local_end(&out[0].1);
        let port_unreachable = |quoted: &[u8]| icmp([&[3, 3, 0, 0, 0, 0, 0, 0][..], quoted].concat());

        // the server has nobody on that port: the client hears of it from the VIP, about its own packet
        let quoted = hopped(datagram(end, (RIP, 8080)));
        let back = from_server(&mut lab, &ipv4(RIP, end.0, 1, 64, false, &port_unreachable(&quoted)));
        assert_eq!(back.len(), 1, "{:?}", lab.drops());
        let (to, packet) = &back[0];
        assert_eq!((*to, &packet[12..20]), (CLIENT, &[VIP.octets(), CIP.octets()].concat()[..]));
        assert_eq!(packet[20..28], error_head(&packet[20..]));
        assert_eq!(packet[40..48], [CIP.octets(), VIP.octets()].concat());
        assert_eq!(packet[48..52], [1000u16.to_be_bytes(), 80u16.to_be_bytes()].concat());

        // the client's router complains about the reply: the server hears of it from the local end
        let quoted = hopped(datagram((VIP, 80), (CIP, 1000)));
        let router = Ipv4Addr::new(192, 168, 150, 254);
        let out = from_client(&mut lab, &ipv4(router, VIP, 1, 64, false, &port_unreachable(&quoted)));
        assert_eq!(out.len(), 1, "{:?}", lab.drops());
        let (to, packet) = &out[0];
        assert_eq!((*to, &packet[12..20]), (STATION, &[end.0.octets(), RIP.octets()].concat()[..]));
        assert_eq!(packet[20..28], error_head(&packet[20..]));
        assert_eq!(packet[40..48], [RIP.octets(), end.0.octets()].concat());
        assert_eq!(packet[48..52], [8080u16.to_be_bytes(), end.1.to_be_bytes()].concat());
        conserved(&lab);
    }
}

#[test]
fn the_director_answers_for_its_local_addresses() {
    let mut lab = lab(1);
    lab.put_on(1, &arp(1, [0xff; 6], (STATION, RIP.octets()), ([0; 6], [10, 1, 0, 2])));
    lab.settle();
    let answered = lab.sent_on(1);
    assert_eq!((answered.len(), &answered[0][6..12], answered[0][21]), (1, &DIRECTOR[..], 2));
    // and only where they are
    lab.put(&arp(1, [0xff; 6], (CLIENT, CIP.octets()), ([0; 6], [10, 1, 0, 2])));
    lab.settle();
    assert_eq!(lab.sent(), [] as [Vec<u8>; 0]);
}

#[test]
fn connections_of_a_server_that_was_taken_out_go_on() {
    let mut lab = lab(1);
    let out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let end = local_end(&out[0].1);
    lab.apply_text(&format!("{TWO_ARMS}{}", service("udp", "")));
    lab.wait(2_000);
    lab.clear();
    let mut back = from_server(&mut lab, &segment((RIP, 8080), end, SYN | ACK));
    back.retain(|(to, _)| *to != [0xff; 6]);
    assert_eq!(back, [(CLIENT, hopped(segment((VIP, 80), (CIP, 1000), SYN | ACK)))], "{:?}", lab.drops());
    let mut out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), ACK));
    out.retain(|(to, _)| *to != [0xff; 6]);
    assert_eq!(out, [(STATION, hopped(segment(end, (RIP, 8080), ACK)))]);
}

/// A TCP segment with these options, a multiple of four bytes, and this much data.
fn with_options(
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    flags: u8,
    options: &[u8],
    data: usize,
) -> Vec<u8> {
    let mut tcp = crate::frames::tcp(src.1, dst.1, flags, 0);
    tcp[12] = (5 + options.len() as u8 / 4) << 4;
    tcp.extend(options);
    tcp.extend(vec![7; data]);
    let sum = checksum(&pseudo(src.0, dst.0, 6, &tcp));
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(src.0, dst.0, 6, 64, true, &tcp)
}

/// TOA of a client of the tests.
fn toa(port: u16) -> Vec<u8> {
    [&[254, 8][..], &port.to_be_bytes(), &CIP.octets()].concat()
}

#[test]
fn toa_is_told_until_the_server_has_answered() {
    let mss = [2, 4, 5, 0xb4];
    for workers in [1, 3] {
        let text = format!("{TWO_ARMS}{}", service("tcp", "client_address = \"toa\""));
        let mut lab = resolved(&text, workers);
        let syn = with_options((CIP, 1000), (VIP, 80), SYN, &mss, 0);
        let out = from_client(&mut lab, &syn);
        let end = local_end(&out[0].1);
        let told = |flags, options: &[u8], data| {
            let options = [&toa(1000), options].concat();
            vec![(STATION, hopped(with_options(end, (RIP, 8080), flags, &options, data)))]
        };
        assert_eq!(out, told(SYN, &mss, 0));
        // the server's SYN asks for segments that leave room: 1460 less the option's 8
        let back = from_server(&mut lab, &with_options((RIP, 8080), end, SYN | ACK, &mss, 0));
        let clamped = with_options((VIP, 80), (CIP, 1000), SYN | ACK, &[2, 4, 5, 0xac], 0);
        assert_eq!(back, [(CLIENT, hopped(clamped))]);
        for data in [0, 1452] {
            let out = from_client(&mut lab, &with_options((CIP, 1000), (VIP, 80), ACK, &[], data));
            assert_eq!(out, told(ACK, &[], data), "{data}");
        }
        // what would not fit the link any more goes as it is
        let large = with_options((CIP, 1000), (VIP, 80), ACK, &[], 1460);
        let out = from_client(&mut lab, &large);
        assert_eq!(out, [(STATION, hopped(with_options(end, (RIP, 8080), ACK, &[], 1460)))]);
        // a client's own is blanked
        let forged = with_options((CIP, 1000), (VIP, 80), ACK, &[254, 8, 0, 9, 9, 9, 9, 9], 4);
        assert_eq!(from_client(&mut lab, &forged), told(ACK, &[1; 8], 4));
        from_server(&mut lab, &segment((RIP, 8080), end, ACK));
        let out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), ACK));
        assert_eq!(out, [(STATION, hopped(segment(end, (RIP, 8080), ACK)))], "it knows");
        conserved(&lab);
    }
}

#[test]
fn ipv6_goes_the_same_way() {
    let text = r#"
[[ports]]
name = "lan"
device = "null"
addresses = ["fd00:150::11/64"]

[[services]]
name = "web"
vip = "fd00:150::100"
port = 80
forwarding = "fullnat"
local_addresses = ["fd00:150::200"]
client_address = "toa"
servers = [{ address = "fd00:150::12", port = 8080 }]
"#;
    let ip = |n: u16| Ipv6Addr::new(0xfd00, 0x150, 0, 0, 0, 0, 0, n);
    let tcp6 = |src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16), flags: u8, options: &[u8]| {
        let mut tcp = crate::frames::tcp(src.1, dst.1, flags, 0);
        tcp[12] = (5 + options.len() as u8 / 4) << 4;
        tcp.extend(options);
        let len = (tcp.len() as u32).to_be_bytes();
        let pseudo = [&src.0.octets()[..], &dst.0.octets(), &len, &[0, 0, 0, 6], &tcp].concat();
        let sum = checksum(&pseudo);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        ipv6(src.0, dst.0, 6, 64, &tcp)
    };
    for workers in [1, 3] {
        let mut lab = Lab::of(text, workers);
        for (n, mac) in [(0x12, STATION), (1, CLIENT)] {
            let from = ipv6(ip(n), ip(0x11), 58, 255, &advert(ip(n), ip(0x11), mac));
            lab.put(&ethernet(DIRECTOR, mac, 0x86dd, &from));
            lab.settle();
        }
        lab.clear();
        let out =
            lab.pass(&ethernet(DIRECTOR, CLIENT, 0x86dd, &tcp6((ip(1), 1000), (ip(0x100), 80), SYN, &[])));
        lab.settle();
        assert_eq!(out.len(), 1, "{:?}", lab.drops());
        let port = u16::from_be_bytes([out[0][54], out[0][55]]);
        let option = [&[254, 20, 3, 0xe8][..], &ip(1).octets()].concat();
        let mut want = tcp6((ip(0x200), port), (ip(0x12), 8080), SYN, &option);
        want[7] = 63;
        assert_eq!((&out[0][..6], &out[0][14..]), (&STATION[..], &want[..]));
        let back = tcp6((ip(0x12), 8080), (ip(0x200), port), SYN | ACK, &[]);
        lab.put(&ethernet(DIRECTOR, STATION, 0x86dd, &back));
        lab.settle();
        // the client is a stranger whom the director asks for
        let advert = advert(ip(1), ip(0x11), CLIENT);
        lab.put(&ethernet(DIRECTOR, CLIENT, 0x86dd, &ipv6(ip(1), ip(0x11), 58, 255, &advert)));
        lab.settle();
        let mut want = tcp6((ip(0x100), 80), (ip(1), 1000), SYN | ACK, &[]);
        want[7] = 63;
        let sent = lab.sent();
        assert!(sent.iter().any(|frame| frame[..6] == CLIENT && frame[14..] == want), "{:?}", lab.drops());
        conserved(&lab);
    }
}

/// A neighbour advertisement.
pub fn advert(of: Ipv6Addr, to: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &of.octets(), &[2, 1], &mac].concat();
    crate::frames::icmp6(of, to, message)
}

#[test]
fn a_datagram_in_fragments_goes_both_ways() {
    for workers in [1, 3] {
        let mut lab = lab(workers);
        let ends = |src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)| {
            datagram((src.0.into(), src.1), (dst.0.into(), dst.1), 3000)
        };
        for port in 1000..1006 {
            let mut parts = cut(&ends((CIP, port), (VIP, 80)), 1400, port);
            parts.rotate_left(usize::from(port % 3));
            for part in &parts {
                lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, part));
                lab.settle();
            }
            let out: Vec<_> = sent(&mut lab, 1).into_iter().map(|(_, packet)| packet).collect();
            assert_eq!(out.len(), 3, "{:?}", lab.drops());
            let whole = joined(&out);
            let end = local_end(&whole);
            assert_eq!(whole, crate::arms::hopped(ends(end, (RIP, 8080))));
            for part in cut(&ends((RIP, 8080), end), 1400, port).iter().rev() {
                lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, part));
                lab.settle();
            }
            let back: Vec<_> = sent(&mut lab, 0).into_iter().map(|(_, packet)| packet).collect();
            assert_eq!(joined(&back), crate::arms::hopped(ends((VIP, 80), (CIP, port))));
        }
        conserved(&lab);
    }
}

/// Frames that full NAT and source NAT have to do with, from either side, then damaged.
fn frame() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let address = prop_oneof![
        Just(CIP),
        Just(VIP),
        Just(RIP),
        Just(LIPS[0]),
        Just(LIPS[1]),
        Just(Ipv4Addr::new(8, 8, 8, 8))
    ];
    let port = || prop_oneof![Just(80u16), Just(8080), 1000u16..1010, 1024u16..1034];
    let flags = prop_oneof![Just(SYN), Just(ACK), Just(SYN | ACK), Just(RST), any::<u8>()];
    let ends = ((address.clone(), port()), (address, port()));
    (0u16..2, ends, flags, 0u8..5, any::<prop::sample::Index>(), any::<u8>(), 0u8..6).prop_map(
        |(device, (src, dst), flags, kind, at, value, damage)| {
            let datagram = ipv4(src.0, dst.0, 17, 64, false, &udp(src.1, dst.1, 4));
            let packet = match kind {
                0 | 1 => with_options(src, dst, flags, &[254, 8, 1, 2, 3, 4, 5, 6], usize::from(value)),
                2 => datagram,
                3 => {
                    let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &datagram].concat();
                    ipv4(dst.0, src.0, 1, 64, false, &icmp(error))
                }
                _ => ipv4(src.0, dst.0, 1, 64, false, &icmp(vec![value & 8, 0, 0, 0, 4, flags, 0, 1])),
            };
            let mut frame = ethernet(DIRECTOR, if device == 0 { CLIENT } else { STATION }, 0x0800, &packet);
            if damage == 0 {
                let at = at.index(frame.len());
                frame[at] = value;
            } else if damage == 1 {
                frame.truncate(at.index(frame.len() + 1));
            }
            (device, frame)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, ..ProptestConfig::default() })]

    #[test]
    fn packets_and_connections_are_conserved(frames in prop::collection::vec(frame(), 1..200), workers in 1u16..4, proxy: bool) {
        let snat = "[[snat]]\nname = \"out\"\nsources = \"10.1.0.0/24\"\naddress = \"192.168.150.11\"\n";
        let told = if proxy { "client_address = \"proxy-v2\"" } else { "client_address = \"toa\"" };
        let services = service("tcp", told) + &service("udp", "");
        let mut lab = resolved(&format!("{TWO_ARMS}{services}{snat}"), workers);
        for (device, frame) in &frames {
            lab.put_on(*device, frame);
        }
        lab.settle();
        lab.wait(200);
        let totals = lab.director.totals();
        prop_assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held, "{:?}", lab.drops());
        let services = lab.director.services();
        let dests = services.iter().flat_map(|s| s.dests.clone()).chain(lab.director.snat().into_iter().map(|(_, row)| row));
        let counted: u64 = dests.map(|dest| dest.active + dest.inactive).sum();
        let rows = lab.connections();
        prop_assert_eq!(counted, rows.len() as u64);
        let ends: HashSet<_> = rows.iter().map(|row| (row.protocol, row.local.unwrap(), row.vip)).collect();
        prop_assert_eq!(ends.len(), rows.len(), "each has a local end of its own towards its peer");
    }
}
