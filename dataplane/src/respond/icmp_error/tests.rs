//! The oracle is what Linux 6.1's IPVS sent in the same situation.

use super::*;
use crate::parse::{Inner, Net, parse};
use crate::wire::L4;
use crate::wire::samples::{CLIENT, DIRECTOR, hex};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0x100);

fn from4(id: u16, vlan: u16) -> ErrorFrom<Ipv4Addr> {
    ErrorFrom { link: Link { mac: DIRECTOR, vlan }, to: CLIENT, src: VIP, id }
}

fn from6() -> ErrorFrom<Ipv6Addr> {
    ErrorFrom { link: Link { mac: DIRECTOR, vlan: 0 }, to: CLIENT, src: VIP6, id: 0 }
}

/// A recording with its TCP payload, the bytes 0, 1, 2 ... 255, 0 ..., left out: filled up to `len` bytes.
fn recorded(text: &str, len: usize) -> Vec<u8> {
    let mut packet = hex(text);
    packet.extend((0..=255u8).cycle().take(len - packet.len()));
    packet
}

#[track_caller]
fn check4(packet: &[u8], error: IcmpError, id: u16, golden: &[u8]) {
    for vlan in [0, 100] {
        let mut frame = [0xcc; MAX_ERROR4_LEN];
        let len = icmp_error4(&mut frame, packet, error, &from4(id, vlan)).unwrap();
        let l3 = header_len(vlan);
        assert_eq!(&frame[l3..len], golden);
        let parsed = parse(&frame[..len]).unwrap();
        assert_eq!((parsed.vlan, usize::from(parsed.l3)), (vlan, l3));
        assert_eq!((ethernet::destination(&frame), ethernet::source(&frame)), (Some(CLIENT), Some(DIRECTOR)));
        let Net::Icmp4(icmp) = parsed.net else { panic!("{parsed:?}") };
        assert!(icmp.inner.is_some());
    }
}

#[test]
fn time_exceeded_is_linux_s() {
    // golden case dr-tos-ttl, third packet
    let packet = hex("45000028000140000106adc1c0a801020a000064 9c400050000003e9000013895010fde831db0000");
    let golden = hex("45c00044f0b500004001bd350a000064c0a80102 0b00c12800000000
         45000028000140000106adc1c0a801020a000064 9c400050000003e9000013895010fde831db0000");
    check4(&packet, IcmpError::TimeExceeded, 0xf0b5, &golden);
    check4(&[&packet[..], &[0; 6]].concat(), IcmpError::TimeExceeded, 0xf0b5, &golden);
}

#[test]
fn fragmentation_needed_is_linux_s_and_576_bytes_long() {
    // golden case mtu-dr, third packet: 1401 bytes towards an MTU of 1400; the TTL is taken down first
    let mut packet =
        recorded("450005790001400040066970c0a801020a000064 9c400050000003e9000013895018fde8fcfc0000", 1401);
    assert!(ipv4::decrement_ttl4(&mut packet, 0));
    let golden = recorded(
        "45c00240afc500004001fc290a000064c0a80102 0304740100000578
         45000579000140003f066a70c0a801020a000064 9c400050000003e9000013895018fde8fcfc0000",
        576,
    );
    check4(&packet, IcmpError::TooBig { mtu: 1400 }, 0xafc5, &golden);
}

#[test]
fn port_unreachable_is_linux_s() {
    // golden case no-service, second packet
    let packet = hex("4500001d0001400040116ec1c0a801020a000064 138800500009a7f5 78");
    let golden = hex("45c0003968df0000400145170a000064c0a80102 0303c92500000000
         4500001d0001400040116ec1c0a801020a000064 138800500009a7f5 78");
    check4(&packet, IcmpError::PortUnreachable, 0x68df, &golden);
}

#[test]
fn of_the_packet_s_type_of_service_the_low_bits_stay_but_the_last() {
    for (tos, expected) in [(0x00, 0xc0), (0x10, 0xd0), (0xb8, 0xd8), (0xff, 0xde), (0x01, 0xc0)] {
        let mut packet = hex("4500001d0001400040116ec1c0a801020a000064 138800500009a7f5 78");
        packet[1] = tos;
        let mut frame = [0; MAX_ERROR4_LEN];
        let len = icmp_error4(&mut frame, &packet, IcmpError::PortUnreachable, &from4(1, 0)).unwrap();
        assert_eq!(frame[15], expected, "{tos:#04x}");
        assert!(parse(&frame[..len]).is_ok());
    }
}

/// Compares from the payload length on: Linux puts a flow label before it, which is for the sender to choose.
#[track_caller]
fn check6(packet: &[u8], error: IcmpError, golden: &[u8]) {
    let mut frame = [0xcc; MAX_ERROR6_LEN];
    let len = icmp_error6(&mut frame, packet, error, &from6()).unwrap();
    assert_eq!(frame[14..18], [0x60, 0, 0, 0]);
    assert_eq!(&frame[18..len], &golden[4..]);
    let Net::Icmp6(icmp) = parse(&frame[..len]).unwrap().net else { panic!() };
    let src = "fd00:c::2".parse().unwrap();
    let (src_port, dst_port, protocol) = (40000, 80, L4::Tcp);
    assert_eq!(icmp.inner, Some(Inner { src, dst: VIP6, src_port, dst_port, protocol }));
}

#[test]
fn errors_over_ipv6_are_linux_s() {
    // golden cases ip6ip6, third packet; no-server6, first
    let expired = "6000000000140601fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c400050000003e9000013895010fde802d00000";
    let outer =
        "6001864b00443a40fd00000a000000000000000000000100fd00000c000000000000000000000002 03009b6c00000000";
    check6(&hex(expired), IcmpError::TimeExceeded, &hex(&format!("{outer}{expired}")));
    let refused = "6000000000140640fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c400050000003e8000000005002fde816680000";
    let outer =
        "600880f200443a40fd00000a000000000000000000000100fd00000c000000000000000000000002 01049d2900000000";
    check6(&hex(refused), IcmpError::PortUnreachable, &hex(&format!("{outer}{refused}")));
}

#[test]
fn packet_too_big_is_linux_s_and_1280_bytes_long() {
    // golden case mtu-ip6ip6, second packet: 1500 bytes towards an MTU of 1460; the hop limit is taken down first
    let headers = "6000000005b40640fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c400050000003e9000013895018fde872d00000";
    let mut packet = recorded(headers, 1500);
    assert!(ipv6::decrement_hop_limit6(&mut packet, 0));
    let golden = recorded(
        "6005c23904d83a40fd00000a000000000000000000000100fd00000c000000000000000000000002 0200ebc5000005b4
         6000000005b4063ffd00000c000000000000000000000002fd00000a000000000000000000000100
         9c400050000003e9000013895018fde872d00000",
        1280,
    );
    check6(&packet, IcmpError::TooBig { mtu: 1460 }, &golden);
}

#[test]
fn no_error_is_sent_about_errors_later_fragments_and_groups() {
    let tcp = hex("45000028000140000106adc1c0a801020a000064 9c400050000003e9000013895010fde831db0000");
    let cases: [(&str, usize, &[u8], bool); 14] = [
        ("TCP", 0, &[], true),
        ("first fragment", 6, &[0x20, 0], true),
        ("later fragment", 6, &[0x20, 1], false),
        ("from a group", 12, &[224], false),
        ("from everyone", 12, &[255; 4], false),
        ("from nowhere", 12, &[0; 4], false),
        ("from loopback", 12, &[127], false),
        ("to a group", 16, &[239], false),
        ("to everyone", 16, &[255; 4], false),
        ("IPv6", 0, &[0x65], false),
        ("echo request", 9, &[1], true),
        ("unreachable", 9, &[1], false),
        ("redirect", 9, &[1], false),
        ("source quench", 9, &[1], false),
    ];
    for (what, at, bytes, allowed) in cases {
        let mut packet = tcp.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet[20] = match what {
            "echo request" => 8,
            "unreachable" => 3,
            "redirect" => 5,
            "source quench" => 4,
            _ => packet[20],
        };
        let mut frame = [0; MAX_ERROR4_LEN];
        let sent = icmp_error4(&mut frame, &packet, IcmpError::TimeExceeded, &from4(1, 0));
        assert_eq!(sent.is_some(), allowed, "{what}");
    }
    let mut icmp_header_alone = tcp[..20].to_vec();
    icmp_header_alone[9] = 1;
    let mut frame = [0; MAX_ERROR4_LEN];
    assert_eq!(icmp_error4(&mut frame, &icmp_header_alone, IcmpError::TimeExceeded, &from4(1, 0)), None);
}

#[test]
fn no_error_is_sent_over_ipv6_about_errors_and_groups() {
    let tcp = hex("6000000000140640fd00000c000000000000000000000002fd00000a000000000000000000000100
         9c400050000003e8000000005002fde816680000");
    let (expired, big) = (IcmpError::TimeExceeded, IcmpError::TooBig { mtu: 1280 });
    let cases: [(&str, usize, &[u8], IcmpError, bool); 10] = [
        ("TCP", 0, &[], expired, true),
        ("from a group", 8, &[0xff], expired, false),
        ("from nowhere", 8, &[0; 16], expired, false),
        ("to a group", 24, &[0xff], expired, false),
        ("too big to a group", 24, &[0xff], big, true),
        ("later fragment", 6, &[44], expired, false),
        ("IPv4", 0, &[0x45], expired, false),
        ("ICMPv6 error", 6, &[58], expired, false),
        ("ICMPv6 redirect", 6, &[58], expired, false),
        ("ICMPv6 echo", 6, &[58], expired, true),
    ];
    for (what, at, bytes, error, allowed) in cases {
        let mut packet = tcp.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet[40] = match what {
            "ICMPv6 error" => 1,
            "ICMPv6 redirect" => 137,
            "ICMPv6 echo" => 128,
            _ => packet[40],
        };
        if what == "later fragment" {
            packet[40..48].copy_from_slice(&[6, 0, 0, 8, 0, 0, 0, 1]);
        }
        let mut frame = [0; MAX_ERROR6_LEN];
        assert_eq!(icmp_error6(&mut frame, &packet, error, &from6()).is_some(), allowed, "{what}");
    }
}

#[test]
fn without_room_nothing_is_written_and_short_packets_cannot_panic() {
    let packet =
        recorded("450005790001400040066970c0a801020a000064 9c400050000003e9000013895018fde8fcfc0000", 1401);
    for len in 0..MAX_ERROR4_LEN {
        let sent = icmp_error4(&mut vec![0; len], &packet, IcmpError::TimeExceeded, &from4(1, 100));
        assert_eq!(sent, None, "{len}");
    }
    let mut frame = [0; MAX_ERROR6_LEN];
    for len in 0..60 {
        let _ = icmp_error4(&mut frame, &packet[..len], IcmpError::TimeExceeded, &from4(1, 0));
        let mut six = packet[..len].to_vec();
        if let Some(version) = six.first_mut() {
            *version = 0x60;
        }
        let _ = icmp_error6(&mut frame, &six, IcmpError::TimeExceeded, &from6());
    }
}
