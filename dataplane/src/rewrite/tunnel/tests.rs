//! Tunnels against a slow decapsulation; the bytes that Linux writes are in `tests/rewrite`.

use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::wire::samples::{TestPacket, frame};

pub(super) const KINDS: [TunnelKind; 6] = [
    TunnelKind::Ipip,
    TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::None },
    TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::Full },
    TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::Remote },
    TunnelKind::Gre { checksum: false },
    TunnelKind::Gre { checksum: true },
];

pub(super) fn plan(kind: TunnelKind, six: bool, link_mtu: u16) -> TunnelPlan {
    let (local, remote) = if six { ("fd00:b::1", "fd00:b::11") } else { ("10.1.0.1", "10.1.0.11") };
    TunnelPlan { kind, local: local.parse().unwrap(), remote: remote.parse().unwrap(), link_mtu }
}

/// What is inside an outer packet, its headers checked one by one.
pub(super) fn unwrapped(packet: &[u8], kind: TunnelKind) -> (u8, &[u8]) {
    let (protocol, addresses, rest, tos) = if packet[0] >> 4 == 4 {
        assert_eq!(packet[0], 0x45);
        assert!(checksum::is_valid(checksum::add(0, &packet[..20])));
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        (packet[9], &packet[12..20], &packet[20..], packet[1])
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
        (packet[6], &packet[8..40], &packet[40..], packet[0] << 4 | packet[1] >> 4)
    };
    let (inner_protocol, inner) = match kind {
        TunnelKind::Ipip => (protocol, rest),
        TunnelKind::Gue { port, checksum } => {
            assert_eq!((protocol, &rest[2..4]), (17, &port.to_be_bytes()[..]));
            assert!(u16::from_be_bytes([rest[0], rest[1]]) >= 32768);
            assert_eq!(usize::from(u16::from_be_bytes([rest[4], rest[5]])), rest.len());
            let sum = checksum::add(checksum::pseudo_header(addresses, &[], 17, rest.len()), rest);
            if checksum == TunnelChecksum::None {
                assert_eq!(rest[6..8], [0, 0]);
            } else {
                assert!(checksum::is_valid(sum));
            }
            assert_eq!((rest[8], &rest[10..12]), (0, &[0, 0][..]));
            (rest[9], &rest[12..])
        }
        TunnelKind::Gre { checksum } => {
            assert_eq!((protocol, &rest[..2]), (47, &[u8::from(checksum) << 7, 0][..]));
            if checksum {
                assert!(checksum::is_valid(checksum::add(0, rest)));
            }
            let inner = if rest[2..4] == [0x08, 0x00] { 4 } else { 41 };
            (inner, &rest[if checksum { 8 } else { 4 }..])
        }
    };
    assert_eq!(inner_protocol, if inner[0] >> 4 == 4 { 4 } else { 41 });
    (tos, inner)
}

#[test]
fn every_kind_wraps_every_family_in_every_family() {
    for (kind, six, name) in KINDS.into_iter().flat_map(|kind| {
        [(false, "tcp4"), (false, "udp6"), (true, "error4"), (true, "tcp6")]
            .map(|(six, name)| (kind, six, name))
    }) {
        let bytes = frame(name);
        let encap = Encap::new(&plan(kind, six, 1500)).unwrap();
        assert_eq!(encap.inner_mtu() + encap.overhead(), encap.link_mtu());
        for vlan in [false, true] {
            let tag: &[u8] = if vlan { &[0x81, 0, 0, 7] } else { &[] };
            let tagged = [&bytes[..12], tag, &bytes[12..], &[0; 9]].concat();
            let parsed = parse(&tagged).unwrap();
            let l3 = usize::from(parsed.l3);
            let mut packet = TestPacket::new(&tagged);
            assert!(encapsulate(&mut packet, &parsed, &encap, u32::MAX, 7), "{kind:?} {name}");
            let ethertype = if six { [0x86, 0xdd] } else { [0x08, 0x00] };
            assert_eq!(packet.bytes()[..l3], [&bytes[..12], tag, &ethertype].concat());
            let (_, inner) = unwrapped(&packet.bytes()[l3..], kind);
            assert_eq!(inner, &bytes[14..], "without padding");
            assert_eq!(packet.bytes().len(), tagged.len() - 9 + usize::from(encap.overhead()));
        }
    }
}

#[test]
fn what_is_larger_than_the_link_is_cut_in_either_outer_family() {
    use crate::rewrite::{Fragments, Towards, Verdict, pass};
    let mut large = frame("tcp4");
    large.resize(14 + 1500, 7);
    // without DF, 1500 bytes long
    large[16..18].copy_from_slice(&1500u16.to_be_bytes());
    large[20] = 0;
    large[24..26].fill(0);
    let sum = checksum::finish(checksum::add(0, &large[14..34]));
    large[24..26].copy_from_slice(&sum.to_be_bytes());
    for (kind, six) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let encap = Encap::new(&plan(kind, six, 1500)).unwrap();
        let parsed = parse(&large).unwrap();
        let mut packet = TestPacket::new(&large);
        assert_eq!(pass(packet.bytes_mut(), &parsed, encap.inner_mtu(), Towards::Server), Verdict::Fragments);
        assert!(encapsulate(&mut packet, &parsed, &encap, 1, 2));
        let cut = Fragments::plan(packet.bytes(), 14, encap.link_mtu(), 3).unwrap();
        assert_eq!(cut.count(), 2);
        let ip_len = if six { 40 } else { 20 };
        let headers = 14 + ip_len + if six { 8 } else { 0 };
        let mut payload = Vec::<u8>::new();
        for n in 0..2 {
            let mut out = vec![0; 1514];
            let len = cut.write(packet.bytes(), n, &mut out).unwrap();
            assert!(len <= 1514);
            payload.extend(&out[headers..len]);
        }
        assert_eq!(payload, packet.bytes()[14 + ip_len..], "{kind:?} {six}");
    }
}

#[test]
fn congestion_experienced_stays_inside() {
    for (inner, outer) in [(0xb8, 0xb8), (0x01, 0x01), (0x02, 0x02), (0x03, 0x02), (0xff, 0xfe)] {
        for (name, six) in [("tcp4", false), ("tcp4", true), ("tcp6", false), ("tcp6", true)] {
            let (mut bytes, parsed) = (frame(name), parse(&frame(name)).unwrap());
            if name == "tcp4" {
                bytes[15] = inner;
            } else {
                bytes[14] = 0x60 | inner >> 4;
                bytes[15] = inner << 4;
            }
            let mut packet = TestPacket::new(&bytes);
            let encap = Encap::new(&plan(TunnelKind::Ipip, six, 1500)).unwrap();
            assert!(encapsulate(&mut packet, &parsed, &encap, 0, 0));
            assert_eq!(unwrapped(&packet.bytes()[14..], TunnelKind::Ipip), (outer, &bytes[14..]));
        }
    }
}

#[test]
fn tunnels_that_cannot_be_are_refused_with_what_is_wrong() {
    let mixed = TunnelPlan { remote: "fd00::1".parse().unwrap(), ..plan(TunnelKind::Ipip, false, 1500) };
    let error = Encap::new(&mixed).unwrap_err();
    assert_eq!(error.to_string(), "tunnel from 10.1.0.1 to fd00::1: the addresses are of different families");
    assert!(Encap::new(&plan(TunnelKind::Ipip, false, 88)).is_ok());
    assert!(Encap::new(&plan(TunnelKind::Ipip, true, 1320)).is_ok());
    let error = Encap::new(&plan(TunnelKind::Ipip, false, 87)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tunnel to 10.1.0.11: a link MTU of 87 leaves less than 68 bytes for packets (overhead 20)"
    );
    assert!(
        Encap::new(&plan(KINDS[1], true, 1331)).is_err() && Encap::new(&plan(KINDS[1], true, 1332)).is_ok()
    );
    assert!(Encap::new(&plan(KINDS[5], false, 0)).is_err());
}

#[test]
fn without_room_in_front_the_packet_stays() {
    let bytes = frame("tcp4");
    let (parsed, encap) = (parse(&bytes).unwrap(), Encap::new(&plan(KINDS[2], true, 1500)).unwrap());
    let mut packet = TestPacket::with_headroom(&bytes, 51);
    assert!(!encapsulate(&mut packet, &parsed, &encap, 0, 0));
    assert_eq!(packet.bytes(), bytes);
    assert!(encapsulate(&mut TestPacket::with_headroom(&bytes, 52), &parsed, &encap, 0, 0));
}

#[test]
fn flows_spread_over_linux_s_ephemeral_ports() {
    let (bytes, encap) = (frame("tcp4"), Encap::new(&plan(KINDS[1], false, 1500)).unwrap());
    for (hash, port) in [(0, 32768), (u32::MAX / 2, 46883), (u32::MAX, 60999)] {
        let mut packet = TestPacket::new(&bytes);
        assert!(encapsulate(&mut packet, &parse(&bytes).unwrap(), &encap, hash, 0));
        assert_eq!(u16::from_be_bytes([packet.bytes()[34], packet.bytes()[35]]), port);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_wrapped_or_left(
        bytes in proptest::collection::vec(any::<u8>(), 0..160),
        l3 in 0u16..30,
        version in prop_oneof![Just(4u8), Just(6), any::<u8>()],
        kind in 0usize..6,
        six in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.get_mut(usize::from(l3)) {
            *first = version << 4 | 5;
        }
        let parsed = crate::parse::Parsed { l3, ..parse(&frame("tcp4")).unwrap() };
        let encap = Encap::new(&plan(KINDS[kind], six, 1500)).unwrap();
        let mut packet = TestPacket::new(&bytes);
        encapsulate(&mut packet, &parsed, &encap, 1, 2);
    }
}
