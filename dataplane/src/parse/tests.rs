//! Packet cases: a frame in, a value or a drop reason out.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::wire::checksum;
use crate::wire::samples::{CLIENT, FRAMES, frame, hex};

const CIP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const CIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 2);
const NEIGHBOR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0x100);

/// `frame` with `bytes` at `at`; at the end it grows.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame.resize(frame.len().max(at + bytes.len()), 0);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// An untagged IPv4 frame with a right header checksum.
fn sum4(frame: Vec<u8>) -> Vec<u8> {
    let frame = with(frame, 24, &[0, 0]);
    let end = (14 + usize::from(frame[14] & 15) * 4).clamp(34, frame.len());
    let sum = checksum::finish(checksum::add(0, &frame[14..end]));
    with(frame, 24, &sum.to_be_bytes())
}

/// An untagged IPv6 frame whose ICMPv6 checksum is right.
fn sum6(frame: Vec<u8>) -> Vec<u8> {
    let mut frame = with(frame, 56, &[0, 0]);
    let pseudo = checksum::pseudo_header(&frame[22..38], &frame[38..54], 58, frame.len() - 54);
    let sum = checksum::finish(checksum::add(pseudo, &frame[54..]));
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The sample cut to `len` bytes, with the lengths of its IP header made to fit.
fn shortened(name: &str, len: usize) -> Vec<u8> {
    let mut frame = frame(name);
    frame.truncate(len);
    if frame[12..14] == [0x08, 0x00] {
        sum4(with(frame, 16, &((len - 14) as u16).to_be_bytes()))
    } else {
        with(frame, 18, &((len - 54) as u16).to_be_bytes())
    }
}

fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// A fragment with `len` bytes of the sample's payload, or zeros, and this word of flags and offset.
fn fragment4_of(frame: &[u8], word: u16, len: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(34 + len, 0);
    let frame = with(frame, 16, &(20 + len as u16).to_be_bytes());
    sum4(with(frame, 18, &[0x12, 0x34, (word >> 8) as u8, word as u8]))
}

fn fragment4(name: &str, word: u16, len: usize) -> Vec<u8> {
    fragment4_of(&frame(name), word, len)
}

/// An IPv6 fragment that names `next`, with this word of offset and flag, and `len` bytes like a UDP header to port
/// 80 with more.
fn fragment6(next: u8, word: u16, len: usize) -> Vec<u8> {
    let mut frame = frame("udp6");
    frame.truncate(54);
    let [a, b] = word.to_be_bytes();
    frame.extend([next, 0, a, b, 0xde, 0xad, 0xbe, 0xef]);
    let mut payload = hex("13880050 03e8 0000");
    payload.resize(len, 0);
    frame.extend(payload);
    with(with(frame, 20, &[44]), 18, &(8 + len as u16).to_be_bytes())
}

#[test]
fn fragments_are_what_they_are() {
    let frame = fragment4("udp4", 0x2000, 16);
    let Net::Fragment4(first) = parse(&frame).unwrap().net else { panic!("no fragment") };
    let head = first.head.unwrap();
    assert_eq!((head.protocol, head.ports.src, head.ports.dst), (L4::Udp, 5000, 80));
    assert_eq!((first.src, first.dst, first.id, first.protocol), (CIP, VIP, 0x1234, 17));
    assert_eq!((first.offset, first.len, first.more, first.l4, first.ip_len), (0, 16, true, 34, 36));
    let flow = first.flow(head.protocol, head.ports);
    assert_eq!((flow.src_port, flow.dst_port, flow.l4, flow.ip_len, flow.df), (5000, 80, 34, 36, false));

    let Net::Fragment4(later) = parse(&fragment4("udp4", 0x4000 | 185, 9)).unwrap().net else { panic!() };
    assert_eq!((later.offset, later.len, later.more, later.head, later.df), (1480, 9, false, None, true));

    let Net::Fragment4(syn) = parse(&fragment4("tcp4", 0x2000, 24)).unwrap().net else { panic!() };
    assert_eq!(
        syn.head.map(|head| (head.tcp_flags, head.event)),
        Some((TcpFlags::SYN, crate::state::tcp::SYN))
    );
    assert!(matches!(parse(&fragment4("tcp4", 3, 8)).unwrap().net, Net::Fragment4(_)), "behind TCP's header");
    assert!(matches!(parse(&fragment4("sctp4", 0x2000, 16)).unwrap().net, Net::Fragment4(_)));
}

#[test]
fn ipv6_fragments_are_what_they_are() {
    let Net::Fragment6(first) = parse(&fragment6(17, 1, 16)).unwrap().net else { panic!("no fragment") };
    assert_eq!(
        first.head.map(|head| (head.protocol, head.ports.src, head.ports.dst)),
        Some((L4::Udp, 5000, 80))
    );
    assert_eq!((first.src, first.dst, first.id, first.protocol), (CIP6, VIP6, 0xdead_beef, 17));
    assert_eq!(
        (first.offset, first.len, first.more, first.l4, first.ip_len, first.df),
        (0, 16, true, 62, 64, true)
    );

    let Net::Fragment6(later) = parse(&fragment6(17, 1480, 9)).unwrap().net else { panic!() };
    assert_eq!((later.offset, later.len, later.more, later.head), (1480, 9, false, None));
    // what a later one names may be anything
    let Net::Fragment6(later) = parse(&fragment6(60, 1480, 9)).unwrap().net else { panic!() };
    assert_eq!((later.protocol, later.head), (60, None));

    // destination options behind the fragment header, and before it
    let options = with(fragment6(60, 1, 24), 62, &[17, 0, 1, 4, 0, 0, 0, 0, 0x13, 0x88, 0, 80]);
    let Net::Fragment6(first) = parse(&options).unwrap().net else { panic!() };
    assert_eq!((first.protocol, first.len, first.l4), (17, 24, 70));
    assert_eq!(first.head.map(|head| head.ports.dst), Some(80));
    let mut before = fragment6(17, 8, 8);
    before.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
    let before = with(with(before, 20, &[60]), 18, &[0, 24]);
    let Net::Fragment6(later) = parse(&before).unwrap().net else { panic!() };
    assert_eq!((later.offset, later.len, later.l4), (8, 8, 70));
}

#[test]
fn every_kind_of_frame_is_what_it_is() {
    let tcp4 = Flow {
        src: CIP,
        dst: VIP,
        src_port: 40000,
        dst_port: 80,
        protocol: L4::Tcp,
        tcp_flags: TcpFlags::SYN,
        event: crate::state::tcp::SYN,
        l4: 34,
        ttl: 64,
        ip_len: 40,
        df: true,
    };
    let udp = |l4, ip_len| (5000, 80, L4::Udp, TcpFlags(0), l4, ip_len);
    let parts = |f: Flow<Ipv6Addr>| (f.src_port, f.dst_port, f.protocol, f.tcp_flags, f.l4, f.ip_len);
    for (name, _) in FRAMES {
        let parsed =
            parse(&frame(name.split(',').next().unwrap())).unwrap_or_else(|r| panic!("{name}: {r:?}"));
        assert_eq!((parsed.vlan, parsed.l3), (0, 14));
        match (name.split(',').next().unwrap(), parsed.net) {
            ("tcp4", Net::Flow4(flow)) => assert_eq!(flow, tcp4),
            ("udp4", Net::Flow4(f)) => {
                assert_eq!((f.src_port, f.dst_port, f.protocol, f.tcp_flags, f.l4, f.ip_len), udp(34, 29));
            }
            ("echo4", Net::Icmp4(icmp)) => {
                assert_eq!((icmp.src, icmp.dst, icmp.l4, icmp.ip_len, icmp.ttl), (CIP, VIP, 34, 32, 64));
                assert!(icmp.is_echo_request() && icmp.inner.is_none());
            }
            ("error4", Net::Icmp4(icmp)) => {
                assert!(icmp.is_error());
                let protocol = L4::Tcp;
                assert_eq!(
                    icmp.inner,
                    Some(Inner { src: CIP, dst: VIP, src_port: 40000, dst_port: 80, protocol })
                );
            }
            ("sctp4", Net::Flow4(f)) => {
                assert_eq!((f.src, f.dst, f.event), (CIP, VIP, crate::state::sctp::INIT));
                let got = (f.src_port, f.dst_port, f.protocol, f.tcp_flags, f.l4, f.ip_len);
                assert_eq!(got, (40000, 80, L4::Sctp, TcpFlags(0), 34, 36));
            }
            ("gre4", net) => assert_eq!(net, Net::Other4 { src: CIP, dst: VIP, protocol: 47 }),
            ("arp", net) => {
                let (sender_mac, sender_ip, target_ip) = (CLIENT, Ipv4Addr::new(10, 0, 0, 2), VIP);
                assert_eq!(net, Net::Arp(Arp::Request { sender_mac, sender_ip, target_ip }));
            }
            ("tcp6", Net::Flow6(f)) => {
                assert_eq!((f.src, f.dst, f.ttl, f.df), (CIP6, VIP6, 64, true));
                assert_eq!(parts(f), (40000, 80, L4::Tcp, TcpFlags::SYN, 54, 64));
            }
            ("udp6", Net::Flow6(f)) => assert_eq!(parts(f), udp(54, 49)),
            ("echo6", Net::Icmp6(icmp)) => {
                assert_eq!((icmp.src, icmp.dst, icmp.l4, icmp.ip_len), (CIP6, VIP6, 54, 52));
                assert!(icmp.is_echo_request() && icmp.inner.is_none());
            }
            ("error6", Net::Icmp6(icmp)) => {
                let (protocol, src_port, dst_port) = (L4::Tcp, 40000, 80);
                assert!(icmp.is_error());
                assert_eq!(icmp.inner, Some(Inner { src: CIP6, dst: VIP6, src_port, dst_port, protocol }));
            }
            ("sctp6", Net::Flow6(f)) => {
                assert_eq!((f.src, f.dst, f.event), (CIP6, VIP6, crate::state::sctp::INIT));
                assert_eq!(parts(f), (40000, 80, L4::Sctp, TcpFlags(0), 54, 56));
            }
            ("gre6", net) => assert_eq!(net, Net::Other6 { src: CIP6, dst: VIP6, protocol: 47 }),
            ("solicitation", Net::Nd(Nd::Solicit(s))) => {
                assert_eq!((s.target, s.source_lla), (VIP6, Some(CLIENT)));
            }
            ("probe", Net::Nd(Nd::Solicit(s))) => {
                assert!(s.src.is_unspecified(), "duplicate address detection");
                assert_eq!((s.target, s.source_lla), (NEIGHBOR6, None));
            }
            ("advertisement", Net::Nd(Nd::Advert(a))) => {
                assert_eq!((a.target, a.target_lla), (NEIGHBOR6, Some(CLIENT)));
                assert!(a.solicited && a.overrides && !a.router);
            }
            (name, net) => panic!("{name} is {net:?}"),
        }
    }
}

/// One case per reason and cause; the causes inside one header are cases of that header's file.
fn refused() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    use DropReason::*;
    let tcp4 = || frame("tcp4");
    vec![
        ("empty frame", vec![], EthernetTruncated),
        ("13 bytes", tcp4()[..13].to_vec(), EthernetTruncated),
        ("tag cut short", tagged(&tcp4(), 5)[..17].to_vec(), VlanTruncated),
        ("two tags", tagged(&tagged(&tcp4(), 5), 6), EtherTypeUnsupported),
        ("service tag", with(tagged(&tcp4(), 5), 12, &[0x88, 0xa8]), EtherTypeUnsupported),
        ("802.3 length", with(tcp4(), 12, &[0, 40]), EtherTypeUnsupported),
        ("LLDP", with(tcp4(), 12, &[0x88, 0xcc]), EtherTypeUnsupported),
        ("ARP of 27 bytes", frame("arp")[..41].to_vec(), ArpTruncated),
        ("ARP operation 9", with(frame("arp"), 21, &[9]), ArpMalformed),
        ("IPv4 of 19 bytes", tcp4()[..33].to_vec(), Ipv4Truncated),
        ("IPv6 behind IPv4's EtherType", with(frame("tcp6"), 12, &[8, 0]), Ipv4Version),
        ("header of 16 bytes", sum4(with(tcp4(), 14, &[0x44])), Ipv4HeaderLength),
        ("total length past the frame", sum4(with(tcp4(), 17, &[41])), Ipv4TotalLength),
        ("header checksum", with(tcp4(), 25, &[0]), Ipv4Checksum),
        ("from loopback", sum4(with(tcp4(), 26, &[127])), Ipv4Source),
        ("first fragment of ICMP", fragment4("echo4", 0x2000, 8), Ipv4Fragment),
        ("later fragment of ICMP", fragment4("echo4", 8, 8), Ipv4Fragment),
        ("fragment of 20 bytes and more to come", sum4(with(tcp4(), 20, &[0x20])), FragmentMalformed),
        ("empty fragment", fragment4("udp4", 8, 0), FragmentMalformed),
        ("fragment past 65,535 bytes", fragment4("udp4", 0x1fff, 8), FragmentMalformed),
        ("first fragment with 16 bytes of TCP", fragment4("tcp4", 0x2000, 16), FragmentTiny),
        ("TCP fragment at 8", fragment4("tcp4", 1, 8), FragmentTiny),
        ("TCP fragment at 16", fragment4("tcp4", 2, 8), FragmentTiny),
        (
            "data offset past the first fragment",
            fragment4_of(&with(tcp4(), 46, &[0x70]), 0x2000, 24),
            FragmentTiny,
        ),
        ("IPv6 of 39 bytes", frame("tcp6")[..53].to_vec(), Ipv6Truncated),
        ("IPv4 behind IPv6's EtherType", with(frame("error4"), 12, &[0x86, 0xdd]), Ipv6Version),
        ("payload length past the frame", with(frame("tcp6"), 19, &[25]), Ipv6PayloadLength),
        ("from multicast", with(frame("tcp6"), 22, &[0xff]), Ipv6Source),
        ("TCP from ::", with(frame("tcp6"), 22, &[0; 16]), Ipv6Source),
        ("echo from ::", sum6(with(frame("echo6"), 22, &[0; 16])), Ipv6Source),
        ("advertisement from ::", sum6(with(frame("advertisement"), 22, &[0; 16])), Ipv6Source),
        ("hop-by-hop header cut short", with(shortened("tcp6", 58), 20, &[0]), Ipv6ExtensionHeader),
        ("first fragment of ICMPv6", fragment6(58, 1, 8), Ipv6Fragment),
        ("later fragment of ICMPv6", fragment6(58, 8, 8), Ipv6Fragment),
        ("IPv6 fragment of 9 bytes and more to come", fragment6(17, 1, 9), FragmentMalformed),
        ("IPv6 fragment past 65,535 bytes", fragment6(17, 0xfff8, 8), FragmentMalformed),
        ("empty IPv6 fragment", fragment6(17, 8, 0), FragmentMalformed),
        ("first fragment with 16 bytes of TCP over IPv6", fragment6(6, 1, 16), FragmentTiny),
        ("fragment header cut short", with(shortened("udp6", 58), 20, &[44]), Ipv6ExtensionHeader),
        ("first fragment without its headers", with(fragment6(60, 1, 8), 62, &[17, 1]), Ipv6ExtensionHeader),
        ("fragment from ::", with(fragment6(17, 8, 8), 22, &[0; 16]), Ipv6Source),
        ("TCP of 19 bytes", shortened("tcp4", 53), TcpTruncated),
        ("TCP of 19 bytes over IPv6", shortened("tcp6", 73), TcpTruncated),
        ("data offset 4", with(tcp4(), 46, &[0x40]), TcpDataOffset),
        ("data offset past the end", with(tcp4(), 46, &[0x60]), TcpDataOffset),
        ("UDP of 7 bytes", shortened("udp4", 41), UdpTruncated),
        ("UDP length 7", with(frame("udp4"), 39, &[7]), UdpLength),
        ("UDP length past the packet", with(frame("udp6"), 59, &[10]), UdpLength),
        ("SCTP of 15 bytes", shortened("sctp4", 49), SctpTruncated),
        ("SCTP of 15 bytes over IPv6", shortened("sctp6", 69), SctpTruncated),
        ("chunk length 3", with(frame("sctp4"), 49, &[3]), SctpChunkLength),
        ("ICMP of 7 bytes", shortened("echo4", 41), IcmpTruncated),
        ("ICMPv6 of 7 bytes", shortened("echo6", 61), IcmpTruncated),
        ("ICMPv6 of no bytes", shortened("echo6", 54), IcmpTruncated),
        ("echo with a wrong checksum", with(frame("echo4"), 45, &[0]), IcmpChecksum),
        ("error with a wrong checksum", with(frame("error6"), 61, &[1]), IcmpChecksum),
        ("solicitation with a wrong checksum", with(frame("solicitation"), 85, &[9]), IcmpChecksum),
        ("echo to a group", sum4(with(frame("echo4"), 30, &[224])), IcmpEchoBroadcast),
        ("echo to all", sum4(with(frame("echo4"), 30, &[255; 4])), IcmpEchoBroadcast),
        ("echo by Ethernet broadcast", with(frame("echo4"), 0, &[255; 6]), IcmpEchoBroadcast),
        ("echo to an IPv6 group", sum6(with(frame("echo6"), 38, &[0xff, 2])), IcmpEchoBroadcast),
        ("solicitation by way of a router", with(frame("solicitation"), 21, &[254]), NdMalformed),
        ("solicitation of 23 bytes", sum6(shortened("solicitation", 77)), NdMalformed),
    ]
}

#[test]
fn every_fault_has_its_drop_reason() {
    for (what, frame, reason) in refused() {
        assert_eq!(parse(&frame), Err(reason), "{what}");
        if frame.len() > 14 && frame[12..14] != [0x81, 0x00] {
            let reason =
                if reason == DropReason::EthernetTruncated { DropReason::VlanTruncated } else { reason };
            assert_eq!(parse(&tagged(&frame, 100)), Err(reason), "{what}, tagged");
        }
    }
}

#[test]
fn every_drop_reason_of_parsing_has_a_case() {
    // the reasons that later steps give
    use DropReason::*;
    let later = [
        NotOurMac,
        VlanUnknown,
        ArpNotForUs,
        IcmpUnsupported,
        IcmpErrorUnmatched,
        NdNotForUs,
        ProtocolUnsupported,
        FragmentDuplicate,
        FragmentOverlap,
        FragmentTooMany,
        FragmentQueueFull,
        FragmentExpired,
    ];
    let cases: HashSet<DropReason> = refused().into_iter().map(|(_, _, reason)| reason).collect();
    for reason in DropReason::ALL.iter().take_while(|reason| **reason != NotForUs) {
        assert!(cases.contains(reason) != later.contains(reason), "{}", reason.name());
    }
}

#[test]
fn a_tag_moves_the_offsets_and_changes_nothing_else() {
    for (name, text) in FRAMES {
        let frame = hex(text);
        let plain = parse(&frame).unwrap();
        for (tci, vlan) in [(0x0064, 100), (0xefff, 0xfff), (0xe000, 0)] {
            let got = parse(&tagged(&frame, tci)).unwrap();
            assert_eq!((got.vlan, got.l3), (vlan, 18), "{name}");
            match (got.net, plain.net) {
                (Net::Flow4(a), Net::Flow4(b)) => assert_eq!(a, Flow { l4: b.l4 + 4, ..b }),
                (Net::Flow6(a), Net::Flow6(b)) => assert_eq!(a, Flow { l4: b.l4 + 4, ..b }),
                (Net::Icmp4(a), Net::Icmp4(b)) => assert_eq!(a, Icmp { l4: b.l4 + 4, ..b }),
                (Net::Icmp6(a), Net::Icmp6(b)) => assert_eq!(a, Icmp { l4: b.l4 + 4, ..b }),
                (a, b) => assert_eq!(a, b),
            }
        }
    }
}

#[test]
fn padding_behind_the_packet_does_not_matter() {
    for (name, text) in FRAMES {
        let frame = hex(text);
        for padding in [1, 18, 46] {
            assert_eq!(parse(&[&frame[..], &vec![0; padding]].concat()), parse(&frame), "{name}");
        }
    }
}

#[test]
fn a_frame_cut_short_at_any_byte_is_refused_for_its_length() {
    use DropReason::*;
    for (name, text) in FRAMES {
        let frame = hex(text);
        for len in 0..frame.len() {
            let reason = parse(&frame[..len]).expect_err(name);
            let expected = [EthernetTruncated, ArpTruncated, Ipv4Truncated, Ipv4TotalLength, Ipv6Truncated];
            assert!(expected.contains(&reason) || reason == Ipv6PayloadLength, "{name} at {len}: {reason:?}");
        }
    }
}

#[test]
fn a_packet_cut_short_with_matching_lengths_is_refused_for_what_is_missing() {
    use DropReason::*;
    for (name, header, fixed, reason) in [
        ("tcp4", 34, 20, TcpTruncated),
        ("tcp6", 54, 20, TcpTruncated),
        ("udp4", 34, 8, UdpTruncated),
        ("udp6", 54, 8, UdpTruncated),
        ("echo4", 34, 8, IcmpTruncated),
        ("echo6", 54, 8, IcmpTruncated),
        ("error4", 34, 8, IcmpTruncated),
        ("error6", 54, 8, IcmpTruncated),
        ("solicitation", 54, 24, NdMalformed),
        ("advertisement", 54, 24, NdMalformed),
    ] {
        for len in header..frame(name).len() {
            let got = parse(&shortened(name, len));
            // without its first byte a message has no type, so it is not known to be of neighbour discovery
            let first = if reason == NdMalformed && len == header { IcmpTruncated } else { reason };
            if len < header + fixed {
                assert_eq!(got, Err(first), "{name} at {len}");
            } else if frame(name)[len..].iter().any(|byte| *byte != 0) {
                // zeros cut from the end leave a checksum right
                let reason = got.expect_err(name);
                assert!(
                    [TcpDataOffset, UdpLength, IcmpChecksum].contains(&reason),
                    "{name} at {len}: {reason:?}"
                );
            }
        }
    }
}

#[test]
fn messages_that_are_not_acted_upon_are_handed_on_unverified() {
    let reply = parse(&with(frame("echo4"), 34, &[0])).unwrap();
    assert!(matches!(reply.net, Net::Icmp4(Icmp { kind: 0, inner: None, .. })));
    let router = parse(&with(frame("echo6"), 54, &[134])).unwrap();
    assert!(matches!(router.net, Net::Icmp6(Icmp { kind: 134, inner: None, .. })));
    let unspecified = with(with(frame("echo6"), 54, &[133]), 22, &[0; 16]);
    assert!(
        matches!(parse(&unspecified).unwrap().net, Net::Icmp6(Icmp { kind: 133, .. })),
        "RFC 4861 section 4.1"
    );
}

/// Offsets that later steps rely on.
fn check_offsets(frame: &[u8]) -> Result<(), TestCaseError> {
    let Ok(parsed) = parse(frame) else { return Ok(()) };
    let (l4, ip_len) = match parsed.net {
        Net::Flow4(flow) => (flow.l4, flow.ip_len),
        Net::Flow6(flow) => (flow.l4, flow.ip_len),
        Net::Icmp4(icmp) => (icmp.l4, icmp.ip_len),
        Net::Icmp6(icmp) => (icmp.l4, icmp.ip_len),
        _ => (parsed.l3, 0),
    };
    let (l3, l4, end) =
        (usize::from(parsed.l3), usize::from(l4), usize::from(parsed.l3) + usize::from(ip_len));
    prop_assert!(l3 <= l4 && l4 < frame.len() && end <= frame.len(), "{:?}", parsed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_offsets(&bytes)?;
    }

    #[test]
    fn damaged_frames_never_panic_and_keep_offsets_inside(
        which in 0..FRAMES.len(),
        damage in proptest::collection::vec((14usize..100, any::<u8>()), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
        len in 0usize..200,
        tag: Option<u16>,
    ) {
        let mut bytes = [hex(FRAMES[which].1), tail].concat();
        for (at, byte) in damage {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        if bytes[12..14] == [8, 0] && bytes.len() >= 34 {
            bytes = sum4(bytes);
        }
        if let Some(tci) = tag {
            bytes = tagged(&bytes, tci);
        }
        bytes.truncate(len.max(14));
        check_offsets(&bytes)?;
    }
}

#[test]
fn a_fragment_makes_parsed_no_larger_than_an_icmpv6_error_does() {
    // one is copied for every frame of a burst
    assert!(size_of::<Fragment<Ipv6Addr>>() <= size_of::<Icmp<Ipv6Addr>>());
}
