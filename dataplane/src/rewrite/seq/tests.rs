use proptest::prelude::*;

use super::*;
use crate::rewrite::samples::{segment, sum4};
use crate::wire::checksum;
use crate::wire::samples::frame;

#[test]
fn numbers_and_sack_blocks_are_shifted() {
    // one block at an odd offset: padding, SACK 1000 to 2000; behind it an option that looks like one
    let options = [1, 5, 10, 0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0, 5, 10, 0, 0];
    let (mut bytes, flow) = segment(&options, b"abc");
    bytes[47] |= 0x10;
    let sum = checksum::update(u16::from_be_bytes([bytes[50], bytes[51]]), 0x9002, 0x9012);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    let flow = Flow { tcp_flags: TcpFlags(0x12), ..flow };
    let by = Shift { seq: 28, ack: 28u32.wrapping_neg() };
    assert!(shift(&mut bytes, &flow, by));
    assert_eq!(bytes[38..42], (1000u32 + 28).to_be_bytes());
    assert_eq!(bytes[42..46], 28u32.wrapping_neg().to_be_bytes());
    assert_eq!(bytes[57..65], [972u32.to_be_bytes(), 1972u32.to_be_bytes()].concat());
    assert_eq!(bytes[65..70], [0, 5, 10, 0, 0]);
    assert!(checksum::is_valid(sum4(&bytes)));
}

#[test]
fn without_ack_its_number_stays_and_other_protocols_do() {
    let (mut bytes, flow) = segment(&[], &[]);
    assert!(shift(&mut bytes, &flow, Shift { seq: 1, ack: 1 }));
    assert_eq!((&bytes[38..42], &bytes[42..46]), (&1001u32.to_be_bytes()[..], &[0; 4][..]));
    assert!(checksum::is_valid(sum4(&bytes)));
    let mut udp = frame("udp4");
    assert!(!shift(&mut udp, &Flow { protocol: L4::Udp, ..flow }, Shift { seq: 1, ack: 1 }));
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
        let there = Shift { seq, ack };
        prop_assert!(shift(&mut shifted, &flow, there));
        prop_assert!(checksum::is_valid(sum4(&shifted)));
        let back = Shift { seq: seq.wrapping_neg(), ack: ack.wrapping_neg() };
        prop_assert!(shift(&mut shifted, &flow, back));
        prop_assert_eq!(shifted, bytes);
    }

    #[test]
    fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..90), l4 in 0u16..90) {
        let (_, flow) = segment(&[], &[]);
        shift(&mut bytes, &Flow { l4, tcp_flags: TcpFlags::ACK, ..flow }, Shift { seq: 1, ack: 2 });
    }
}
