//! NAT against whole checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::parse::{Net, parse};
use crate::wire::samples::frame;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xb, 0, 0, 0, 0, 0, 0x11);

fn flow4(bytes: &[u8]) -> Flow<Ipv4Addr> {
    let Net::Flow4(flow) = parse(bytes).unwrap().net else { panic!("no flow over IPv4") };
    flow
}

fn flow6(bytes: &[u8]) -> Flow<Ipv6Addr> {
    let Net::Flow6(flow) = parse(bytes).unwrap().net else { panic!("no flow over IPv6") };
    flow
}

/// Whether the TCP or UDP checksum of an untagged frame without options is right.
fn is_right(frame: &[u8]) -> bool {
    let (l4, addresses, protocol) =
        if frame[12] == 8 { (34, 26..34, frame[23]) } else { (54, 22..54, frame[20]) };
    let pseudo = checksum::pseudo_header(&frame[addresses], &[], protocol, frame.len() - l4);
    checksum::is_valid(checksum::add(pseudo, &frame[l4..]))
}

#[test]
fn a_translated_packet_has_its_new_ends_and_right_checksums() {
    for name in ["tcp4", "udp4"] {
        let mut bytes = frame(name);
        let before = flow4(&bytes);
        let to = Translation { src: Some((SERVER, 1)), dst: Some((Ipv4Addr::BROADCAST, 65535)) };
        assert!(is_right(&bytes) && translate(&mut bytes, 14, &before, &to) && is_right(&bytes), "{name}");
        let after = flow4(&bytes);
        let expected = Flow { src: SERVER, src_port: 1, dst: Ipv4Addr::BROADCAST, dst_port: 65535, ..before };
        assert_eq!(after, expected);
    }
    for name in ["tcp6", "udp6"] {
        let mut bytes = frame(name);
        let before = flow6(&bytes);
        let to = Translation { src: None, dst: Some((SERVER6, 8080)) };
        assert!(is_right(&bytes) && translate(&mut bytes, 14, &before, &to) && is_right(&bytes), "{name}");
        assert_eq!(flow6(&bytes), Flow { dst: SERVER6, dst_port: 8080, ..before });
    }
}

#[test]
fn nothing_to_translate_leaves_the_packet_as_it_is() {
    for name in ["tcp4", "udp4"] {
        let mut bytes = frame(name);
        let flow = flow4(&bytes);
        assert!(translate(&mut bytes, 14, &flow, &Translation::default()));
        assert_eq!(bytes, frame(name));
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for (name, at) in [("tcp4", 50), ("udp4", 40)] {
        let mut bytes = frame(name);
        bytes[at] ^= 4;
        let flow = flow4(&bytes);
        assert!(translate(&mut bytes, 14, &flow, &Translation { src: None, dst: Some((SERVER, 8080)) }));
        assert!(!is_right(&bytes), "{name}");
    }
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_ones() {
    let mut bytes = frame("udp4");
    let flow = flow4(&bytes);
    // the port that takes the checksum to zero: one's complement, so it grows by what the checksum is
    let checksum = u16::from_be_bytes([bytes[40], bytes[41]]);
    let sum = u32::from(flow.dst_port) + u32::from(checksum);
    let port = (sum & 0xffff) as u16 + (sum >> 16) as u16;
    assert!(translate(&mut bytes, 14, &flow, &Translation { src: None, dst: Some((flow.dst, port)) }));
    assert_eq!(bytes[40..42], [0xff, 0xff]);
    assert!(is_right(&bytes));
}

#[test]
fn a_udp_checksum_that_was_left_out_is_computed_unless_the_end_is_not_here() {
    for (name, at) in [("udp4", 40), ("udp6", 60)] {
        let mut bytes = frame(name);
        bytes[at..at + 2].fill(0);
        let mut padded = [&bytes[..], &[9; 5]].concat();
        if name == "udp4" {
            let to = Translation { src: None, dst: Some((SERVER, 8080)) };
            assert!(translate(&mut padded, 14, &flow4(&bytes), &to));
        } else {
            let to = Translation { src: None, dst: Some((SERVER6, 8080)) };
            assert!(translate(&mut padded, 14, &flow6(&bytes), &to));
        }
        assert!(is_right(&padded[..bytes.len()]), "{name}: padding does not count");
        assert_eq!(padded[bytes.len()..], [9; 5]);
    }
    let mut first = frame("udp4");
    let flow = flow4(&first);
    // the datagram goes on in the next fragment
    first[39] = 200;
    first[40..42].fill(0);
    assert!(translate_first(&mut first, 14, &flow, &Translation { src: None, dst: Some((SERVER, 8080)) }));
    assert_eq!(first[40..42], [0, 0]);
    assert_eq!(first[36..38], 8080u16.to_be_bytes());
}

#[test]
fn the_crc_of_sctp_is_made_right_when_a_port_changes_and_left_when_none_does() {
    let mut bytes = frame("sctp4");
    let flow = flow4(&bytes);
    assert!(!translate_first(&mut bytes, 14, &flow, &Translation { src: Some((flow.src, 1)), dst: None }));
    assert_eq!(bytes, frame("sctp4"));
    assert!(translate(&mut bytes, 14, &flow, &Translation { src: None, dst: Some((SERVER, flow.dst_port)) }));
    assert_eq!((&bytes[30..34], &bytes[34..]), (&SERVER.octets()[..], &frame("sctp4")[34..]));
    let mut padded = [&bytes[..], &[1; 9]].concat();
    let flow = flow4(&padded);
    assert!(translate(&mut padded, 14, &flow, &Translation { src: None, dst: Some((SERVER, 8080)) }));
    assert!(sctp::is_valid(&padded[34..bytes.len()]));
    assert_eq!(flow4(&padded), Flow { dst_port: 8080, ..flow });
    let mut bytes = frame("sctp6");
    let flow = flow6(&bytes);
    assert!(translate(&mut bytes, 14, &flow, &Translation { src: Some((SERVER6, 1)), dst: None }));
    assert!(sctp::is_valid(&bytes[54..]) && flow6(&bytes) == Flow { src: SERVER6, src_port: 1, ..flow });
}

#[test]
fn later_fragments_get_addresses_alone() {
    let mut bytes = frame("udp4");
    let to = Translation { src: Some((SERVER, 1)), dst: Some((SERVER, 2)) };
    assert!(translate_fragment(&mut bytes, 14, &to));
    assert_eq!(bytes[26..34], [10, 1, 0, 11, 10, 1, 0, 11]);
    assert_eq!(bytes[34..], frame("udp4")[34..]);
    assert_eq!(checksum::fold(checksum::add(0, &bytes[14..34])), 0xffff);
    let mut bytes = frame("udp6");
    assert!(translate_fragment(&mut bytes, 14, &Translation { src: Some((SERVER6, 1)), dst: None }));
    assert_eq!((&bytes[22..38], &bytes[54..]), (&SERVER6.octets()[..], &frame("udp6")[54..]));
    for len in 0..34 {
        let mut short = frame("udp4");
        short.truncate(len);
        assert!(!translate_fragment(&mut short, 14, &to));
        assert_eq!(short, frame("udp4")[..len]);
    }
}

#[test]
fn a_frame_that_does_not_hold_the_flow_is_left_alone() {
    let to = Translation { src: Some((SERVER, 1)), dst: Some((SERVER, 2)) };
    for (name, headers, summed) in [("tcp4", 52, true), ("udp4", 42, true), ("udp4", 42, false)] {
        let mut whole = frame(name);
        if !summed {
            whole[40..42].fill(0);
        }
        let flow = flow4(&whole);
        let mut translated = whole.clone();
        assert!(translate(&mut translated, 14, &flow, &to));
        for len in 0..whole.len() {
            let mut short = whole[..len].to_vec();
            // data that is elsewhere is not looked at, unless it is to be summed
            let enough = len >= headers && summed;
            assert_eq!(translate(&mut short, 14, &flow, &to), enough, "{name}: {len}");
            assert_eq!(short, if enough { &translated[..len] } else { &whole[..len] });
        }
    }
}

proptest! {
    #[test]
    fn there_and_back_again(src in any::<u32>(), dst in any::<u32>(), ports in any::<(u16, u16)>()) {
        for name in ["tcp4", "udp4"] {
            let mut bytes = frame(name);
            let before = flow4(&bytes);
            let there = Translation {
                src: Some((Ipv4Addr::from_bits(src), ports.0)),
                dst: Some((Ipv4Addr::from_bits(dst), ports.1)),
            };
            prop_assert!(translate(&mut bytes, 14, &before, &there));
            prop_assert!(is_right(&bytes));
            let back = Translation {
                src: Some((before.src, before.src_port)),
                dst: Some((before.dst, before.dst_port)),
            };
            prop_assert!(translate(&mut bytes, 14, &before, &back));
            prop_assert_eq!(&bytes, &frame(name));
        }
    }

    #[test]
    fn any_flow_in_any_bytes_is_translated_or_left_alone(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        l3 in 0u16..40,
        l4 in 0u16..140,
        ip_len in 0u16..140,
    ) {
        let flow = Flow { l4, ip_len, ..flow4(&frame("udp4")) };
        translate(&mut bytes, l3, &flow, &Translation { src: None, dst: Some((SERVER, 1)) });
        let flow = Flow { l4, ip_len, ..flow6(&frame("tcp6")) };
        translate(&mut bytes, l3, &flow, &Translation { src: None, dst: Some((SERVER6, 1)) });
    }
}
