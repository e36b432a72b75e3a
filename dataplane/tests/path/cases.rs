//! One case per drop reason: what comes in, and the one counter that moves.

use std::collections::HashSet;

use lb_dataplane::DropReason;

use crate::frames::{
    ACK, CLIENT, DIRECTOR, RST, SYN, arp, ethernet, from_client, icmp, icmp6, ipv4, ipv6, sctp, segment, tcp,
    udp, vlan,
};
use crate::lab::{Lab, web};

/// A case: name, frame, reason.
type Case = (&'static str, Vec<u8>, DropReason);

fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame with its IPv4 header checksum made right.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let end = 14 + usize::from(frame[14] & 15) * 4;
    let sum = crate::frames::checksum(&frame[14..end.max(34).min(frame.len())]);
    with(frame, 24, &sum.to_be_bytes())
}

fn malformed() -> Vec<Case> {
    use DropReason as R;
    let good = || segment(9, SYN);
    let good6 = || from_client("fd00:150::1", "fd00:150::11", 6, &tcp(9, 80, SYN, 0));
    let udp4 = || from_client("192.168.150.1", "192.168.150.100", 17, &udp(9, 80, 4));
    let arp = || arp(1, [0xff; 6], (CLIENT, [192, 168, 150, 1]), ([0; 6], [192, 168, 150, 100]));
    let v6 = |last| std::net::Ipv6Addr::new(0xfd00, 0x150, 0, 0, 0, 0, 0, last);
    let nd = {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(v6(0x11).octets());
        ipv6(v6(1), v6(0x11), 58, 64, &icmp6(v6(1), v6(0x11), message))
    };
    vec![
        ("thirteen bytes", good()[..13].to_vec(), R::EthernetTruncated),
        ("another station's frame", with(good(), 0, &[2, 0, 0, 0, 0, 0x99]), R::NotOurMac),
        ("a tag without its EtherType", vlan(5, &good())[..16].to_vec(), R::VlanTruncated),
        ("a VLAN that is not configured: ARP", vlan(5, &arp()), R::VlanUnknown),
        ("a VLAN that is not configured: TCP to the VIP", vlan(5, &good()), R::VlanUnknown),
        ("LLDP", ethernet(DIRECTOR, CLIENT, 0x88cc, &[0; 46]), R::EtherTypeUnsupported),
        ("half an ARP packet", arp()[..30].to_vec(), R::ArpTruncated),
        ("ARP of another hardware type", with(arp(), 15, &[6]), R::ArpMalformed),
        ("ARP for a neighbour", with(arp(), 38, &[192, 168, 150, 77]), R::ArpNotForUs),
        ("half an IPv4 header", good()[..24].to_vec(), R::Ipv4Truncated),
        ("version 5", with(good(), 14, &[0x55]), R::Ipv4Version),
        ("a header of 16 bytes", with(good(), 14, &[0x44]), R::Ipv4HeaderLength),
        ("a total length beyond the frame", summed(with(good(), 16, &[0, 200])), R::Ipv4TotalLength),
        ("a wrong header checksum", with(good(), 24, &[1, 2]), R::Ipv4Checksum),
        (
            "from a multicast address",
            from_client("224.0.0.9", "192.168.150.100", 6, &tcp(9, 80, SYN, 0)),
            R::Ipv4Source,
        ),
        (
            "a first fragment of GRE",
            summed(with(with(good(), 20, &[0x20, 0]), 16, &[0, 36, 0, 1, 0x20, 0, 64, 47])),
            R::Ipv4Fragment,
        ),
        ("a later fragment of GRE", summed(with(good(), 20, &[0, 7, 64, 47])), R::Ipv4Fragment),
        ("a first fragment of 20 bytes", summed(with(good(), 20, &[0x20, 0])), R::FragmentMalformed),
        ("a fragment that reaches into TCP's header", summed(with(good(), 20, &[0, 1])), R::FragmentTiny),
        ("half an IPv6 header", good6()[..40].to_vec(), R::Ipv6Truncated),
        ("version 5 after IPv6's EtherType", with(good6(), 14, &[0x50]), R::Ipv6Version),
        ("a payload beyond the frame", with(good6(), 18, &[1, 0]), R::Ipv6PayloadLength),
        ("from ff02::1", from_client("ff02::1", "fd00:150::11", 6, &tcp(9, 80, SYN, 0)), R::Ipv6Source),
        (
            "an extension header cut short",
            from_client("fd00:150::1", "fd00:150::11", 0, &[6, 9, 0, 0, 0, 0, 0, 0]),
            R::Ipv6ExtensionHeader,
        ),
        (
            "a fragment of ICMPv6",
            from_client(
                "fd00:150::1",
                "fd00:150::11",
                44,
                &[58, 0, 0, 1, 0, 0, 0, 1, 128, 0, 0, 0, 0, 0, 0, 0],
            ),
            R::Ipv6Fragment,
        ),
        (
            "half a TCP header",
            from_client("192.168.150.1", "192.168.150.100", 6, &tcp(9, 80, SYN, 0)[..12]),
            R::TcpTruncated,
        ),
        ("a data offset of 4 words", with(good(), 46, &[0x40]), R::TcpDataOffset),
        (
            "half a UDP header",
            from_client("192.168.150.1", "192.168.150.100", 17, &udp(9, 80, 0)[..5]),
            R::UdpTruncated,
        ),
        ("a UDP length beyond the packet", with(udp4(), 38, &[0, 99]), R::UdpLength),
        (
            "half an SCTP header",
            from_client("192.168.150.1", "192.168.150.100", 132, &sctp(9, 80, 1)[..11]),
            R::SctpTruncated,
        ),
        (
            "an SCTP chunk of 3 bytes",
            with(from_client("192.168.150.1", "192.168.150.100", 132, &sctp(9, 80, 1)), 49, &[3]),
            R::SctpChunkLength,
        ),
        (
            "half an ICMP header",
            from_client("192.168.150.1", "192.168.150.100", 1, &[8, 0, 0]),
            R::IcmpTruncated,
        ),
        (
            "a wrong ICMP checksum",
            from_client("192.168.150.1", "192.168.150.100", 1, &[8, 0, 1, 1, 0, 0, 0, 0]),
            R::IcmpChecksum,
        ),
        (
            "a timestamp request",
            from_client(
                "192.168.150.1",
                "192.168.150.100",
                1,
                &icmp(vec![13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ),
            R::IcmpUnsupported,
        ),
        (
            "a ping of everyone",
            with(
                from_client("192.168.150.1", "192.168.150.255", 1, &icmp(vec![8, 0, 0, 0, 0, 0, 0, 0])),
                0,
                &[0xff; 6],
            ),
            R::IcmpEchoBroadcast,
        ),
        (
            "an ICMP error about an unknown connection",
            from_client(
                "192.168.150.1",
                "192.168.150.100",
                1,
                &icmp([&[3, 4, 0, 0, 0, 0, 5, 0][..], &good()[14..42]].concat()),
            ),
            R::IcmpErrorUnmatched,
        ),
        ("a solicitation with hop limit 64", ethernet(DIRECTOR, CLIENT, 0x86dd, &nd), R::NdMalformed),
        ("an unasked advertisement", crate::local::advertisement(0x77), R::NdNotForUs),
        (
            "GRE to the VIP",
            from_client("192.168.150.1", "192.168.150.100", 47, &[0; 8]),
            R::ProtocolUnsupported,
        ),
        (
            "a packet for somebody else",
            from_client("192.168.150.1", "8.8.8.8", 6, &tcp(9, 80, SYN, 0)),
            R::NotForUs,
        ),
        (
            "a port without a service",
            from_client("192.168.150.1", "192.168.150.100", 6, &tcp(9, 81, SYN, 0)),
            R::NoService,
        ),
        ("the same port of another protocol", udp4(), R::NoService),
        ("an ACK out of nowhere", segment(9, ACK), R::NoConnection),
        ("an RST out of nowhere", segment(9, SYN | RST), R::NoConnection),
        (
            "TTL 1",
            ethernet(
                DIRECTOR,
                CLIENT,
                0x0800,
                &ipv4(
                    [192, 168, 150, 1].into(),
                    [192, 168, 150, 100].into(),
                    6,
                    1,
                    true,
                    &tcp(9, 80, SYN, 0),
                ),
            ),
            R::TtlExpired,
        ),
        (
            "more than the MTU",
            from_client("192.168.150.1", "192.168.150.100", 6, &tcp(9, 80, SYN, 1481)),
            R::MtuExceeded,
        ),
    ]
}

/// Reasons that need more than one frame; each has a test of its own.
const ELSEWHERE: &[DropReason] = &[
    DropReason::NoServer,            // change::weight_zero_drains
    DropReason::ServiceFull,         // policy::a_service_has_no_more_connections_than_it_may_have
    DropReason::ServerGone,          // policy::connections_of_a_removed_server_are_dropped_silently
    DropReason::PortsExhausted,      // full_nat::when_no_port_is_free_the_packet_is_dropped_for_that
    DropReason::TableFull,           // flood::what_needs_an_entry_is_refused_when_there_is_no_room
    DropReason::Overload,            // flood::while_frames_pile_up_first_packets_wait_and_others_do_not
    DropReason::NeighborUnreachable, // local::a_next_hop_that_does_not_answer_is_given_up_and_asked_again
    DropReason::NeighborQueueFull,   // local::the_queue_of_waiting_frames_is_bounded
    DropReason::NoRoute,             // nat::a_client_without_a_route_is_told_nothing
    DropReason::HandoverFull,        // a_full_ring_drops_with_its_reason
    DropReason::TxFull,              // a_full_transmit_queue_keeps_a_burst_and_drops_the_rest
    DropReason::FragmentDuplicate,   // fragments::an_overlap_ends_a_datagram_and_a_duplicate_does_not
    DropReason::FragmentOverlap,     // the same
    DropReason::FragmentTooMany,     // fragments::a_datagram_in_too_many_fragments_is_dropped
    DropReason::FragmentQueueFull,   // fragments::what_waits_is_bounded
    DropReason::FragmentExpired,     // fragments::what_never_gets_whole_is_given_up_after_half_a_minute
    DropReason::NotMaster,           // shared::a_vip_is_balanced_and_answered_for_by_its_master_alone
    DropReason::NotAccepted,         // shared::ping_is_for_masters_that_accept
    DropReason::ControlNotForUs,     // shared::adverts_reach_the_control_core_before_packets_leave_room
    DropReason::ControlQueueFull,    // the same
    DropReason::ExceptionRate,       // exception::the_rate_holds_and_control_protocols_come_first
    DropReason::ExceptionQueueFull,  // exception::a_kernel_that_is_behind_loses_frames_and_nothing_else
    DropReason::NoBuffer,            // an_empty_pool_drops_the_directors_own_frames
];

#[test]
fn every_drop_reason_has_its_case() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let mut covered: HashSet<_> = ELSEWHERE.iter().copied().collect();
    for (what, frame, reason) in malformed() {
        let before = lab.director.totals().dropped;
        let count = lab.dropped(reason);
        let sent = lab.pass(&frame);
        assert!(sent.iter().all(|frame| frame[..6] == CLIENT), "{what}: only an ICMP error may come back");
        assert_eq!(lab.dropped(reason), count + 1, "{what}: {:?} instead of {}", lab.drops(), reason.name());
        assert_eq!(lab.director.totals().dropped, before + 1, "{what}: one reason a packet");
        covered.insert(reason);
    }
    let missing: Vec<_> = DropReason::ALL.iter().filter(|reason| !covered.contains(reason)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn every_truncation_of_every_frame_is_counted_and_harmless() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let mut frames: Vec<_> = malformed().into_iter().map(|(_, frame, _)| frame).collect();
    frames.push(segment(1, SYN));
    for frame in frames {
        for len in 0..frame.len() {
            lab.pass(&frame[..len]);
        }
    }
    let totals = lab.director.totals();
    assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
}

#[test]
fn a_ttl_of_one_and_a_large_packet_are_answered_as_linux_does() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    let packet =
        ipv4([192, 168, 150, 1].into(), [192, 168, 150, 100].into(), 6, 1, true, &tcp(9, 80, SYN, 0));
    let sent = lab.pass(&ethernet(DIRECTOR, CLIENT, 0x0800, &packet));
    assert_eq!(sent.len(), 1);
    // wire.json, dr-tos-ttl: from the VIP, TTL 64, TOS 0xc0, ICMP 11/0, quoting the packet
    assert_eq!((sent[0][15], sent[0][22], sent[0][34], sent[0][35]), (0xc0, 64, 11, 0));
    assert_eq!(sent[0][26..34], [192, 168, 150, 100, 192, 168, 150, 1]);
    assert_eq!(sent[0][42..], packet);
    let sent = lab.pass(&from_client("192.168.150.1", "192.168.150.100", 6, &tcp(9, 80, SYN, 1481)));
    // mtu-dr: ICMP 3/4 with the MTU, 576 bytes in all
    assert_eq!((sent[0][34], sent[0][35], &sent[0][40..42]), (3, 4, &1500u16.to_be_bytes()[..]));
    assert_eq!(sent[0].len(), 14 + 576);
}

#[test]
fn an_icmp_error_about_a_connection_goes_to_its_server() {
    let mut lab = Lab::warm_of(&format!("{}{}", crate::lab::BASE, web("rr", &[(12, 1), (13, 1)])), 2);
    for port in 1..=6 {
        let server = lab.server_of(&segment(port, SYN));
        let quoted = ipv4(
            [192, 168, 150, 100].into(),
            [192, 168, 150, 1].into(),
            6,
            64,
            true,
            &tcp(80, port, ACK, 0)[..8],
        );
        let error = icmp([&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat());
        assert_eq!(lab.server_of(&from_client("10.1.1.1", "192.168.150.100", 1, &error)), server);
    }
}

#[test]
fn a_full_transmit_queue_keeps_a_burst_and_drops_the_rest() {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    lab.workers[0].io_mut().room = 0;
    for port in 1000..1100 {
        lab.put(&segment(port, SYN));
    }
    lab.settle();
    assert_eq!((lab.dropped(DropReason::TxFull), lab.director.totals().held), (68, 32));
    lab.workers[0].io_mut().room = 1000;
    lab.settle();
    assert_eq!((lab.sent().len(), lab.director.totals().held), (32, 0));
}

#[test]
fn a_full_ring_drops_with_its_reason() {
    let mut lab = Lab::warm_of(&format!("{}{}", crate::lab::BASE, web("rr", &[(12, 1)])), 2);
    // the second worker does not turn: its ring of 1024 fills, then the burst in front of it
    for port in 0..6000 {
        lab.put(&segment(port, SYN));
        if port % 32 == 0 {
            lab.workers[0].turn(lab.now_ms * 1_000_000);
        }
    }
    (0..20).for_each(|_| {
        lab.workers[0].turn(lab.now_ms * 1_000_000);
    });
    assert!(lab.dropped(DropReason::HandoverFull) > 1000, "{:?}", lab.drops());
}

#[test]
fn an_empty_pool_drops_the_directors_own_frames() {
    let mut lab = Lab::cold(&web("rr", &[(12, 1)]));
    lab.clear();
    let before = lab.dropped(DropReason::NoBuffer);
    lab.workers[0].io_mut().pool = 0;
    lab.wait(1_100);
    assert!(lab.dropped(DropReason::NoBuffer) > before);
    assert!(lab.sent().is_empty());
}
