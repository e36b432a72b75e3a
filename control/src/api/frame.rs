//! Frames: a length of 4 bytes, big endian, then that many bytes of payload.
//!
//! Invariant: a length is checked against its limit before a byte of the payload is stored, and memory grows with
//! what has arrived, never with what a peer announces.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Largest payload, bytes: a configuration of about 100,000 servers.
pub const MAX_FRAME: usize = 16 << 20;

/// Largest payload from a client that has not said hello or may only read, bytes.
pub const MAX_SMALL_FRAME: usize = 64 << 10;

/// Bytes of the length in front of the payload.
pub const HEADER: usize = 4;

/// A frame that cannot be read or sent. Where the next frame starts is then unknown: close the connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("frame of {length} bytes is above the limit of {limit} bytes")]
pub struct FrameTooLong {
    /// Length of the payload, bytes.
    pub length: usize,
    /// Limit that it broke, bytes.
    pub limit: usize,
}

/// Takes the first whole frame out of `buffer`; `None` when more bytes are needed.
///
/// Errors: the announced length is above `limit` (bytes); `buffer` is left as it was.
pub fn take(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameTooLong> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    // A u32 always fits: usize has at least 32 bits on every platform that DPDK runs on.
    let length = u32::from_be_bytes(*header) as usize;
    if length > limit {
        return Err(FrameTooLong { length, limit });
    }
    if buffer.len() - HEADER < length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Puts the length in front of `payload`.
///
/// Errors: the payload is above [`MAX_FRAME`].
pub fn wrap(payload: &[u8]) -> Result<Bytes, FrameTooLong> {
    let length = payload.len();
    let too_long = FrameTooLong { length, limit: MAX_FRAME };
    if length > MAX_FRAME {
        return Err(too_long);
    }
    let mut frame = BytesMut::with_capacity(HEADER + length);
    frame.put_u32(u32::try_from(length).map_err(|_| too_long)?);
    frame.put_slice(payload);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_its_length_and_its_bytes() {
        assert_eq!(wrap(b"abc").unwrap().as_ref(), b"\0\0\0\x03abc");
        let mut buffer = BytesMut::from(&b"\0\0\0\x03abc\0\0\0\0\0\0"[..]);
        assert_eq!(take(&mut buffer, 3).unwrap().unwrap().as_ref(), b"abc");
        assert_eq!(take(&mut buffer, 3).unwrap().unwrap().as_ref(), b"");
        assert_eq!(take(&mut buffer, 3), Ok(None));
        assert_eq!(buffer.as_ref(), b"\0\0");
    }

    #[test]
    fn a_huge_length_is_refused_from_its_header_alone() {
        let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff"[..]);
        let refused = take(&mut buffer, MAX_FRAME).unwrap_err();
        assert_eq!(refused.to_string(), "frame of 4294967295 bytes is above the limit of 16777216 bytes");
        let mut buffer = BytesMut::from(&b"\0\x01\0\x01x"[..]);
        assert_eq!(take(&mut buffer, MAX_SMALL_FRAME), Err(FrameTooLong { length: 65537, limit: 65536 }));
        let mut buffer = BytesMut::from(&b"\0\x01\0\0x"[..]);
        assert_eq!(take(&mut buffer, MAX_SMALL_FRAME), Ok(None));
    }

    #[test]
    fn a_payload_above_the_limit_is_not_sent() {
        assert!(wrap(&vec![0; MAX_FRAME]).is_ok());
        assert_eq!(
            wrap(&vec![0; MAX_FRAME + 1]),
            Err(FrameTooLong { length: MAX_FRAME + 1, limit: MAX_FRAME })
        );
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
                                  step in 1usize..9) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| wrap(p).unwrap()).collect();
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take(&mut buffer, 64).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn garbage_never_panics_and_never_gives_more_than_came(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut taken = 0;
            while let Ok(Some(frame)) = take(&mut buffer, 100) {
                prop_assert!(frame.len() <= 100);
                taken += HEADER + frame.len();
            }
            prop_assert_eq!(taken + buffer.len(), bytes.len());
        }
    }
}
