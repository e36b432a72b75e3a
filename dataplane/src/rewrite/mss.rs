//! TCP's maximum segment size, bounded on its way through.
//!
//! A tunnel makes packets larger. Where ICMP errors do not come through, a connection whose segments fit from the
//! start is the only one that works.

use super::address::Delta;
use super::options;
use crate::parse::{Flow, L4, TcpFlags};

/// RFC 9293 section 3.2: maximum segment size, 4 bytes.
const MSS: u8 = 2;

/// Makes a SYN of `flow` ask for segments of at most `mss` bytes, and updates its checksum.
///
/// `false`: unchanged, because it is no SYN, asks for no more, or carries no such option: then the other side sends
/// 536 or 1220 bytes anyway (RFC 9293 section 3.7.1).
pub fn clamp<A>(frame: &mut [u8], flow: &Flow<A>, mss: u16) -> bool {
    if flow.protocol != L4::Tcp || !flow.tcp_flags.any(TcpFlags::SYN) {
        return false;
    }
    let Some(segment) = frame.get_mut(usize::from(flow.l4)..) else { return false };
    let Some(header_len) = segment.get(12).map(|byte| usize::from(byte >> 4) * 4) else { return false };
    let Some(header) = segment.get_mut(..header_len) else { return false };
    let Some(at) = options::find(header, MSS, 4) else { return false };
    let Some(value) = header.get(at..).and_then(|tail| tail.first_chunk::<2>()) else { return false };
    if u16::from_be_bytes(*value) <= mss {
        return false;
    }
    let mut delta = Delta::default();
    delta.replace_anywhere(header, at, &mss.to_be_bytes()).is_some() && delta.apply(header, 16).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;
    use proptest::prelude::*;

    use crate::rewrite::samples::{segment, sum4};

    fn syn(options: &[u8]) -> (Vec<u8>, Flow<std::net::Ipv4Addr>) {
        segment(options, &[])
    }

    #[test]
    fn a_larger_segment_size_is_lowered_at_even_and_odd_offsets() {
        for (options, at) in [
            (&[2, 4, 5, 0xb4][..], 56),
            (&[1, 2, 4, 5, 0xb4, 1, 1, 0], 57),
            (&[3, 3, 7, 2, 4, 5, 0xb4, 0], 59),
            (&[4, 2, 2, 4, 5, 0xb4, 1, 1], 58),
        ] {
            let (mut bytes, flow) = syn(options);
            assert!(clamp(&mut bytes, &flow, 1400), "{options:?}");
            assert_eq!(bytes[at..at + 2], 1400u16.to_be_bytes(), "{options:?}");
            assert!(checksum::is_valid(sum4(&bytes)), "{options:?}");
        }
    }

    #[test]
    fn what_asks_for_no_more_or_is_no_syn_stays() {
        for options in [&[2, 4, 5, 0x78][..], &[], &[0, 2, 4, 5, 0xb4, 0, 0, 0], &[2, 4], &[2, 0, 0, 0]] {
            let padded = [options, &[0; 3]].concat();
            let (mut bytes, flow) = syn(&padded[..padded.len() / 4 * 4]);
            let before = bytes.clone();
            assert!(!clamp(&mut bytes, &flow, 1400), "{options:?}");
            assert_eq!(bytes, before);
        }
        let (mut bytes, flow) = syn(&[2, 4, 5, 0xb4]);
        assert!(!clamp(&mut bytes, &Flow { tcp_flags: TcpFlags::ACK, ..flow }, 1400));
        assert!(!clamp(&mut bytes, &Flow { protocol: L4::Udp, ..flow }, 1400));
    }

    proptest! {
        #[test]
        fn any_options_leave_a_right_checksum(options in proptest::collection::vec(0u8..6, 0..40), mss in any::<u16>()) {
            let (mut bytes, flow) = syn(&options[..options.len() / 4 * 4]);
            clamp(&mut bytes, &flow, mss);
            prop_assert!(checksum::is_valid(sum4(&bytes)));
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), l4 in 0u16..90) {
            let (_, flow) = syn(&[]);
            clamp(&mut bytes, &Flow { l4, ..flow }, 536);
        }
    }
}
