use proptest::prelude::*;

use super::*;
use crate::rewrite::samples::{segment, sum4};
use crate::wire::checksum;
use crate::wire::samples::frame;
use std::net::Ipv4Addr;

/// A segment that acknowledges 0.
fn ack(options: &[u8]) -> (Vec<u8>, Flow<Ipv4Addr>) {
    let (mut bytes, flow) = segment(options, b"abc");
    bytes[47] |= 0x10;
    bytes[50..52].fill(0);
    let sum = checksum::finish(sum4(&bytes));
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    (bytes, Flow { tcp_flags: TcpFlags(0x12), ..flow })
}

#[test]
fn numbers_and_sack_blocks_are_replaced() {
    // one block at an odd offset: padding, SACK 1000 to 2000; behind it an option that looks like one
    let options = [1, 5, 10, 0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0, 5, 10, 0, 0];
    let (mut bytes, flow) = ack(&options);
    assert_eq!(numbers(&bytes, &flow), Some((1000, 0)));
    assert!(shift(&mut bytes, &flow, 28));
    assert_eq!(numbers(&bytes, &flow), Some((1028, 0)));
    assert!(map_acks(&mut bytes, &flow, |n| n.wrapping_sub(28)));
    assert_eq!(numbers(&bytes, &flow), Some((1028, 28u32.wrapping_neg())));
    assert_eq!(bytes[57..65], [972u32.to_be_bytes(), 1972u32.to_be_bytes()].concat());
    assert_eq!(bytes[65..70], [0, 5, 10, 0, 0]);
    assert!(checksum::is_valid(sum4(&bytes)));
}

#[test]
fn a_block_that_becomes_empty_takes_the_option_with_it() {
    let options = [1, 5, 10, 0, 0, 3, 0xe8, 0, 0, 3, 0xf0, 0];
    let (mut bytes, flow) = ack(&options);
    assert!(map_acks(&mut bytes, &flow, |n| n.min(1000)));
    assert_eq!(bytes[54..66], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert!(checksum::is_valid(sum4(&bytes)));
}

#[test]
fn window_and_push_flag_are_set() {
    let (mut bytes, flow) = ack(&[]);
    let window = u16::from_be_bytes([bytes[48], bytes[49]]);
    assert!(narrow(&mut bytes, &flow, 52) && push(&mut bytes, &flow));
    assert_eq!((&bytes[48..50], bytes[47] & PUSH), (&(window - 52).to_be_bytes()[..], PUSH));
    assert!(checksum::is_valid(sum4(&bytes)));
    assert!(narrow(&mut bytes, &flow, u16::MAX));
    assert_eq!(bytes[48..50], [0, 0]);
}

#[test]
fn without_ack_its_number_stays_and_other_protocols_do() {
    let (mut bytes, flow) = segment(&[], &[]);
    assert!(!map_acks(&mut bytes, &flow, |_| 1));
    assert!(shift(&mut bytes, &flow, 1));
    assert_eq!((&bytes[38..42], &bytes[42..46]), (&1001u32.to_be_bytes()[..], &[0; 4][..]));
    assert!(checksum::is_valid(sum4(&bytes)));
    let (mut udp, flow) = (frame("udp4"), Flow { protocol: L4::Udp, tcp_flags: TcpFlags::ACK, ..flow });
    assert!(!shift(&mut udp, &flow, 1) && !map_acks(&mut udp, &flow, |_| 1));
    assert!(!narrow(&mut udp, &flow, 1) && !push(&mut udp, &flow) && numbers(&udp, &flow).is_none());
    assert_eq!(udp, frame("udp4"));
}

proptest! {
    #[test]
    fn there_and_back_leaves_everything_and_the_checksum_is_right(
        options in proptest::collection::vec(0u8..12, 0..40),
        seq in any::<u32>(),
        ack in any::<u32>(),
    ) {
        let (bytes, flow) = segment(&options[..options.len() / 4 * 4], b"abc");
        let flow = Flow { tcp_flags: TcpFlags::ACK, ..flow };
        let mut shifted = bytes.clone();
        // what is blanked does not come back
        map_acks(&mut shifted, &flow, |n| n);
        let there = shifted.clone();
        prop_assert!(shift(&mut shifted, &flow, seq) && map_acks(&mut shifted, &flow, |n| n.wrapping_add(ack)));
        prop_assert!(checksum::is_valid(sum4(&shifted)));
        prop_assert!(shift(&mut shifted, &flow, seq.wrapping_neg()));
        prop_assert!(map_acks(&mut shifted, &flow, |n| n.wrapping_sub(ack)));
        prop_assert_eq!(shifted, there);
    }

    #[test]
    fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..90), l4 in 0u16..90) {
        let (_, flow) = segment(&[], &[]);
        let flow = Flow { l4, tcp_flags: TcpFlags::ACK, ..flow };
        shift(&mut bytes, &flow, 1);
        map_acks(&mut bytes, &flow, |n| n / 2);
        narrow(&mut bytes, &flow, 7);
        push(&mut bytes, &flow);
        numbers(&bytes, &flow);
    }
}
