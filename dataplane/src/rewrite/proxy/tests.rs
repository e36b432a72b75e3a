use proptest::prelude::*;

use super::*;
use crate::parse::{Net, parse};
use crate::rewrite::samples::{flow, segment, sum4};
use crate::wire::checksum;
use crate::wire::samples::{TestPacket, frame, hex};

fn ends(client: &str, vip: &str) -> ((IpAddr, u16), (IpAddr, u16)) {
    ((client.parse().unwrap(), 40000), (vip.parse().unwrap(), 80))
}

#[test]
fn headers_are_those_of_the_specification() {
    let (client, vip) = ends("192.168.1.2", "10.0.0.100");
    let header = Header::new(L4::Tcp, client, vip).unwrap();
    let signature = "0d0a0d0a000d0a515549540a";
    assert_eq!(header.bytes(), hex(&format!("{signature} 21 11 000c c0a80102 0a000064 9c40 0050")));
    let (client, vip) = ends("fd00:c::2", "fd00:a::100");
    let header = Header::new(L4::Udp, client, vip).unwrap();
    let addresses = "fd00000c000000000000000000000002 fd00000a000000000000000000000100";
    assert_eq!(header.bytes(), hex(&format!("{signature} 21 22 0024 {addresses} 9c40 0050")));
    assert_eq!(header.bytes().len(), MAX_LEN);
    assert_eq!(Header::new(L4::Tcp, client, ends("10.0.0.1", "10.0.0.1").1), None);
    assert_eq!(Header::new(L4::Sctp, client, vip), None);
}

#[test]
fn the_header_stands_before_the_data_of_a_segment() {
    let (client, vip) = ends("192.168.1.2", "10.0.0.100");
    let header = Header::new(L4::Tcp, client, vip).unwrap();
    for data in [&b""[..], b"GET", b"even"] {
        let (bytes, before) = segment(&[1, 1, 1, 1], data);
        let mut packet = TestPacket::new(&bytes);
        assert!(insert_header(&mut packet, 14, &before, &header, before.ip_len + 28));
        let after = packet.bytes();
        assert_eq!(after[58..], [header.bytes(), data].concat());
        assert_eq!(after[34..50], bytes[34..50]);
        assert_eq!(flow(after).ip_len, before.ip_len + 28);
        assert!(checksum::is_valid(sum4(after)));
        let mut packet = TestPacket::new(&bytes);
        assert!(!insert_header(&mut packet, 14, &before, &header, before.ip_len + 27));
        let mut packet = TestPacket::with_headroom(&bytes, 27);
        assert!(!insert_header(&mut packet, 14, &before, &header, 1500));
        assert_eq!(packet.bytes(), bytes);
    }
}

#[test]
fn a_datagram_carries_its_own() {
    let (client, vip) = ends("192.168.1.2", "10.0.0.100");
    let header = Header::new(L4::Udp, client, vip).unwrap();
    let mut bytes = frame("udp4");
    let before = flow(&bytes);
    let mut packet = TestPacket::new(&bytes);
    assert!(insert_header(&mut packet, 14, &before, &header, 1500));
    assert_eq!(packet.bytes()[42..], [header.bytes(), b"x"].concat());
    assert!(checksum::is_valid(sum4(packet.bytes())));
    assert_eq!(flow(packet.bytes()).ip_len, before.ip_len + 28);
    bytes[40..42].fill(0);
    let mut packet = TestPacket::new(&bytes);
    assert!(insert_header(&mut packet, 14, &before, &header, 1500));
    assert_eq!(packet.bytes()[38..42], [0, 37, 0, 0], "left out");
}

#[test]
fn over_ipv6_too() {
    let (client, vip) = ends("fd00:c::2", "fd00:a::100");
    for (name, protocol) in [("tcp6", L4::Tcp), ("udp6", L4::Udp)] {
        let header = Header::new(protocol, client, vip).unwrap();
        let bytes = frame(name);
        let Net::Flow6(before) = parse(&bytes).unwrap().net else { panic!() };
        let mut packet = TestPacket::new(&bytes);
        assert!(insert_header(&mut packet, 14, &before, &header, 1500));
        let Net::Flow6(after) = parse(packet.bytes()).unwrap().net else { panic!() };
        assert_eq!(after.ip_len, before.ip_len + 52);
        let (whole, protocol) = (packet.bytes(), protocol as u8);
        let pseudo = checksum::pseudo_header(&whole[22..54], &[], protocol, whole.len() - 54);
        assert!(checksum::is_valid(checksum::add(pseudo, &whole[54..])), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken(
        bytes in proptest::collection::vec(any::<u8>(), 0..90),
        l3 in 0u16..60,
        l4 in 0u16..90,
        udp in any::<bool>(),
    ) {
        let (client, vip) = ends("192.168.1.2", "10.0.0.100");
        let (_, known) = segment(&[], &[]);
        let protocol = if udp { L4::Udp } else { L4::Tcp };
        let flow = Flow { l4, protocol, ..known };
        insert_header(&mut TestPacket::new(&bytes), l3, &flow, &Header::new(protocol, client, vip).unwrap(), 1500);
    }
}
