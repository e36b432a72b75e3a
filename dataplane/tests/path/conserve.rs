//! Packets are conserved, whatever comes.

use std::net::IpAddr;

use lb_dataplane::exception::director_mac;
use lb_dataplane::neighbor::LinkId;
use proptest::prelude::*;

use crate::arms::{cut, datagram, framed, packet};
use crate::frames::{ACK, DIRECTOR, SYN, arp, from_client, icmp, sctp, segment, server_mac, tcp, udp};
use crate::lab::{Lab, web};

const SCTP: &str = "[[services]]\nname = \"s1ap\"\nvip = \"192.168.150.101\"\nport = 36412\nprotocol = \"sctp\"\n\
                    servers = [{ address = \"192.168.150.12\" }]\n";

/// Services that put packets into tunnels and translate them, beside [`web`], which leaves them as they are.
const UDP: &str = "[[services]]\nname = \"t\"\nvip = \"192.168.150.100\"\nport = 90\nprotocol = \"udp\"\nforwarding = \"tunnel\"\n\
                   servers = [{ address = \"192.168.150.12\" }]\n\
                   [[services]]\nname = \"n\"\nvip = \"192.168.150.100\"\nport = 91\nprotocol = \"udp\"\nforwarding = \"nat\"\n\
                   servers = [{ address = \"192.168.150.13\", port = 8080 }]\n\
                   [[services]]\nname = \"d\"\nvip = \"192.168.150.100\"\nport = 92\nprotocol = \"udp\"\nforwarding = \"dr\"\n\
                   servers = [{ address = \"192.168.150.14\" }]\n";

/// One of the fragments of few datagrams, so that some get whole; now and then longer ones, which overlap.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![8 => Just(200usize), 1 => Just(208)];
    (0u16..4, 0u16..5, any::<prop::sample::Index>(), size, any::<bool>()).prop_map(
        |(id, service, which, size, back)| {
            let (client, vip) = (IpAddr::from([192, 168, 150, 1]), IpAddr::from([192, 168, 150, 100]));
            let server = IpAddr::from([192, 168, 150, 13]);
            let whole = match back {
                true => datagram((server, 8080), (client, id), 500),
                false => datagram((client, id), (vip, 90 + service), 500),
            };
            let parts = cut(&whole, size, id * 5 + service);
            framed(server_mac(if back { 13 } else { 1 }), which.get::<Vec<u8>>(&parts))
        },
    )
}

/// An error about a tunnel's packet of the client's port.
fn tunnel_error() -> impl Strategy<Value = Vec<u8>> {
    (0u16..9, 0u8..4).prop_map(|(port, code)| {
        let ip = |n: u8| IpAddr::from([192, 168, 150, n]);
        let inner = datagram((ip(1), port), (ip(100), 90), 20);
        let message = icmp([&[3, code, 0, 0, 0, 0, 5, 0][..], &packet(ip(11), ip(12), 4, &inner)].concat());
        framed(server_mac(12), &packet(ip(13), ip(11), 1, &message))
    })
}

/// Frames of every kind, then damaged.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        12 => fragment(),
        1 => tunnel_error(),
        2 => (0u16..50, prop_oneof![Just(SYN), Just(ACK), any::<u8>()])
            .prop_map(|(port, flags)| segment(port, flags)),
        2 => (0u16..9).prop_map(|port| from_client("192.168.150.1", "192.168.150.100", 17, &udp(port, 80, 10))),
        2 => (0u16..9, any::<u8>()).prop_map(|(port, chunk)| {
            from_client("192.168.150.1", "192.168.150.101", 132, &sctp(port, 36412, chunk & 15))
        }),
        2 => Just(from_client("192.168.150.1", "192.168.150.11", 1, &icmp(vec![8, 0, 0, 0, 0, 1, 0, 1]))),
        2 => Just(from_client("fd00:150::1", "fd00:150::11", 6, &tcp(1, 80, SYN, 0))),
        2 => Just(arp(1, [0xff; 6], (server_mac(1), [192, 168, 150, 1]), ([0; 6], [192, 168, 150, 100]))),
        2 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    (whole, any::<prop::sample::Index>(), any::<u8>(), 0u8..4).prop_map(|(mut bytes, at, value, damage)| {
        match damage {
            0 if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            1 => bytes.truncate(at.index(bytes.len() + 1)),
            _ => {}
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 96 }, ..ProptestConfig::default() })]

    #[test]
    fn received_and_originated_is_sent_delivered_held_or_dropped(
        frames in prop::collection::vec(frame(), 1..300),
        workers in 1u16..4,
        room in prop_oneof![Just(usize::MAX), 0usize..100],
        cold: bool,
        tap: bool,
    ) {
        let more = if tap { "\"null\"\nexception = \"tap\"\nexception_rate = 1000" } else { "\"null\"" };
        let base = crate::lab::BASE.replace("\"null\"", more);
        let text = format!("{base}{}{SCTP}{UDP}", web("rr", &[(12, 1), (13, 1)]));
        let mut lab = Lab::of(&text, workers);
        if !cold {
            lab = lab.resolved();
        }
        let kernel = lab.director.kernel();
        kernel.furnish(if tap { 1600 } else { 0 });
        let before = lab.director.totals();
        lab.workers.iter_mut().for_each(|worker| worker.io_mut().room = room);
        for (n, frame) in frames.iter().enumerate() {
            lab.put(frame);
            if tap && n % 3 == 0 {
                // some to the director, some through it
                let mut own = frame.clone();
                if n % 2 == 0 && own.len() > 6 {
                    own[..6].copy_from_slice(&director_mac(DIRECTOR));
                }
                kernel.send(LinkId(0), &own);
            }
        }
        lab.settle();
        lab.wait(200);
        let totals = lab.director.totals();
        prop_assert_eq!(totals.rx - before.rx, frames.len() as u64);
        let came = totals.rx + totals.originated + totals.from_kernel;
        let went = totals.tx + totals.delivered + totals.to_kernel + totals.dropped + totals.held;
        prop_assert_eq!(came, went, "{:?} {:?}", totals, lab.drops());
        let sent = lab.workers.iter_mut().map(|worker| worker.io_mut().sent[0].len() as u64).sum::<u64>();
        prop_assert!(sent <= totals.tx);
        let counted: u64 = lab.director.services().iter().flat_map(|s| &s.dests).map(|dest| dest.active + dest.inactive).sum();
        prop_assert_eq!(counted, lab.connections().len() as u64, "every connection is counted at its server");
    }
}
