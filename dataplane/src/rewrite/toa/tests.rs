use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::parse::{Net, parse};
use crate::rewrite::samples::{flow, segment, sum4};
use crate::wire::checksum;
use crate::wire::samples::{TestPacket, frame};

const CLIENT: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2)), 40000);

#[test]
fn the_option_comes_first_and_everything_else_stays() {
    let (bytes, before) = segment(&[2, 4, 5, 0xb4], b"data!");
    let mut packet = TestPacket::new(&bytes);
    assert_eq!(insert_option(&mut packet, 14, &before, CLIENT, 1500), Toa::Inserted(8));
    let after = packet.bytes();
    assert_eq!(after[54..], [&[254, 8, 0x9c, 0x40, 192, 168, 1, 2, 2, 4, 5, 0xb4][..], b"data!"].concat());
    assert_eq!((after[46], flow(after).ip_len), (0x80, before.ip_len + 8));
    assert!(checksum::is_valid(sum4(after)));
    assert_eq!(after[..16], bytes[..16]);
}

#[test]
fn an_ipv6_client_fits_too() {
    let bytes = frame("tcp6");
    let Net::Flow6(before) = parse(&bytes).unwrap().net else { panic!() };
    let mut packet = TestPacket::new(&bytes);
    let client = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 2);
    assert_eq!(insert_option(&mut packet, 14, &before, (client.into(), 7), 1500), Toa::Inserted(20));
    let after = packet.bytes();
    assert_eq!(after[74..94], [&[254, 20, 0, 7][..], &client.octets()].concat());
    let Net::Flow6(flow) = parse(after).unwrap().net else { panic!() };
    assert_eq!(flow.ip_len, before.ip_len + 20);
    let pseudo = checksum::pseudo_header(&after[22..54], &[], 6, after.len() - 54);
    assert!(checksum::is_valid(checksum::add(pseudo, &after[54..])));
}

#[test]
fn without_room_nothing_changes() {
    let (bytes, before) = segment(&[1; 36], &[]);
    let mut packet = TestPacket::new(&bytes);
    assert_eq!(insert_option(&mut packet, 14, &before, CLIENT, 1500), Toa::NoRoom, "header of 56 bytes");
    assert_eq!(packet.bytes(), bytes);
    let (bytes, before) = segment(&[1; 32], &[0; 20]);
    for (mtu, expected) in [(before.ip_len + 7, Toa::NoRoom), (before.ip_len + 8, Toa::Inserted(8))] {
        assert_eq!(insert_option(&mut TestPacket::new(&bytes), 14, &before, CLIENT, mtu), expected);
    }
    let mut packet = TestPacket::with_headroom(&bytes, 7);
    assert_eq!(insert_option(&mut packet, 14, &before, CLIENT, 1500), Toa::NoRoom);
    assert_eq!(packet.bytes(), bytes);
    let udp = frame("udp4");
    assert_eq!(insert_option(&mut TestPacket::new(&udp), 14, &flow(&udp), CLIENT, 1500), Toa::NoRoom);
}

#[test]
fn what_a_client_calls_toa_is_blanked_wherever_it_stands() {
    let forged = [254, 8, 0, 80, 10, 0, 0, 1];
    for (options, left) in [
        (forged.to_vec(), vec![1; 8]),
        ([&[1][..], &forged, &[1, 1, 1]].concat(), vec![1; 12]),
        ([&[2, 4, 5, 0xb4][..], &forged, &forged].concat(), [&[2, 4, 5, 0xb4][..], &[1; 16]].concat()),
        ([&[3, 3, 7][..], &[254, 20], &[9; 18], &[0]].concat(), [&[3, 3, 7][..], &[1; 20], &[0]].concat()),
        (vec![254, 2, 0, 0], vec![1, 1, 0, 0]),
    ] {
        let (mut bytes, flow) = segment(&options, b"x");
        assert!(strip(&mut bytes, &flow), "{options:?}");
        assert_eq!(bytes[54..54 + left.len()], left);
        assert!(checksum::is_valid(sum4(&bytes)));
    }
    for options in [vec![2, 4, 5, 0xb4], vec![0, 254, 8, 0], vec![2, 0, 254, 2], vec![254, 9, 0, 0]] {
        let (mut bytes, flow) = segment(&options, &[]);
        assert!(!strip(&mut bytes, &flow), "{options:?}");
    }
}

proptest! {
    #[test]
    fn any_options_are_stripped_and_leave_a_right_checksum(
        options in proptest::collection::vec(prop_oneof![0u8..10, Just(254)], 0..40),
    ) {
        let (mut bytes, flow) = segment(&options[..options.len() / 4 * 4], b"abc");
        strip(&mut bytes, &flow);
        prop_assert!(checksum::is_valid(sum4(&bytes)));
        prop_assert!(!strip(&mut bytes, &flow), "nothing is left");
    }

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..90), l3 in 0u16..60, l4 in 0u16..90) {
        let (_, known) = segment(&[], &[]);
        let flow = Flow { l4, ..known };
        strip(&mut bytes.clone(), &flow);
        insert_option(&mut TestPacket::new(&bytes), l3, &flow, CLIENT, 1500);
    }
}
