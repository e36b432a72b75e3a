//! SCTP (RFC 9260): ports, the chunk that decides, the checksum.
//!
//! The checksum is not verified on the way in: the server does it. Whatever changes a port must [`seal`] the packet:
//! CRC32c has no cheap incremental form.

use super::udp::Ports;
use crate::DropReason;
use crate::state::sctp::chunk::{ABORT, COOKIE_ACK, COOKIE_ECHO};

/// Length of the common header, bytes (RFC 9260 section 3.1).
pub const HEADER_LEN: usize = 12;
/// Length of a chunk's header, bytes (RFC 9260 section 3.2).
pub const CHUNK_HEADER_LEN: usize = 4;
/// Where the checksum is in the common header.
const CHECKSUM: std::ops::Range<usize> = 8..12;

/// Ports of an SCTP packet that fills `payload`, and the type of the chunk by which its state goes on.
///
/// That is the first chunk; behind COOKIE ECHO or COOKIE ACK an ABORT counts instead (IPVS: `set_sctp_state`; RFC
/// 9260 section 3.3.7: control chunks may stand before an ABORT). A chunk may be longer than the packet, as in the
/// first fragment of one.
///
/// Errors: [`DropReason::SctpTruncated`], [`DropReason::SctpChunkLength`].
#[inline]
pub fn parse(payload: &[u8]) -> Result<(Ports, u8), DropReason> {
    let header =
        payload.first_chunk::<{ HEADER_LEN + CHUNK_HEADER_LEN }>().ok_or(DropReason::SctpTruncated)?;
    let (mut kind, length) = (header[12], usize::from(u16::from_be_bytes([header[14], header[15]])));
    if length < CHUNK_HEADER_LEN {
        return Err(DropReason::SctpChunkLength);
    }
    if matches!(kind, COOKIE_ECHO | COOKIE_ACK) {
        let next = payload.get(HEADER_LEN + length.next_multiple_of(4)..).unwrap_or_default();
        if next.len() >= CHUNK_HEADER_LEN && next.first() == Some(&ABORT) {
            kind = ABORT;
        }
    }
    Ok((Ports::of([header[0], header[1], header[2], header[3]]), kind))
}

/// CRC32c's polynomial, bits reversed (RFC 9260 appendix A: 0x1EDC6F41).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][byte]`: what `byte` adds, seen from `n` bytes behind it ("slicing by 8", Kounavis and Berry 2005).
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][before as usize & 255];
            byte += 1;
        }
        table += 1;
    }
    tables
};

/// Takes `bytes` into a running CRC32c; begin with `!0`, invert the result.
#[inline]
pub(crate) fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<8>();
    for block in blocks {
        let [a, b, c, d, e, f, g, h] = *block;
        let [s, t, u, v] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        let at = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
        crc = at(7, s) ^ at(6, t) ^ at(5, u) ^ at(4, v) ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h);
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    crc
}

/// CRC32c of `bytes` (RFC 9260 appendix A, RFC 3720 appendix B.4).
///
/// Cost: about a cycle a byte, without special instructions.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

/// The checksum that belongs into the packet, as the header holds it: least significant byte first; its present one
/// counts as zero. `None`: shorter than a common header.
pub fn checksum(packet: &[u8]) -> Option<[u8; 4]> {
    let (before, rest) = (packet.get(..CHECKSUM.start)?, packet.get(CHECKSUM.end..)?);
    Some((!update(update(update(!0, before), &[0; 4]), rest)).to_le_bytes())
}

/// Whether the packet's checksum is right.
pub fn is_valid(packet: &[u8]) -> bool {
    checksum(packet).is_some_and(|sum| packet.get(CHECKSUM) == Some(&sum))
}

/// Stores the checksum of a whole SCTP packet, from the common header to the last chunk's padding. `false`: no room.
pub fn seal(packet: &mut [u8]) -> bool {
    let Some(sum) = checksum(packet) else { return false };
    packet.get_mut(CHECKSUM).map(|field| field.copy_from_slice(&sum)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sctp::chunk;
    use proptest::prelude::*;

    /// From port 40000 to port 80.
    fn packet(chunks: &[u8]) -> Vec<u8> {
        [&[0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 0], chunks].concat()
    }

    #[test]
    fn a_packet_gives_its_ports_and_its_first_chunk() {
        let init = packet(&[chunk::INIT, 0, 0, 4]);
        assert_eq!(parse(&init), Ok((Ports { src: 40000, dst: 80 }, chunk::INIT)));
        let data = packet(&[chunk::DATA, 3, 0, 200, 1, 2]);
        assert_eq!(parse(&data).map(|p| p.1), Ok(chunk::DATA), "longer than the packet: a first fragment");
    }

    #[test]
    fn a_packet_that_is_cut_short_is_refused_at_every_length() {
        let init = packet(&[chunk::INIT, 0, 0, 4]);
        for len in 0..init.len() {
            assert_eq!(parse(&init[..len]), Err(DropReason::SctpTruncated));
        }
        for length in 0..4 {
            assert_eq!(parse(&packet(&[chunk::INIT, 0, 0, length])), Err(DropReason::SctpChunkLength));
        }
    }

    #[test]
    fn an_abort_behind_a_cookie_counts() {
        let kind = |chunks: &[u8]| parse(&packet(chunks)).map(|parsed| parsed.1);
        for cookie in [chunk::COOKIE_ECHO, chunk::COOKIE_ACK] {
            assert_eq!(kind(&[cookie, 0, 0, 4, chunk::ABORT, 0, 0, 4]), Ok(chunk::ABORT));
            // a chunk of 5 bytes is padded to 8
            assert_eq!(kind(&[cookie, 0, 0, 5, 9, 0, 0, 0, chunk::ABORT, 0, 0, 4]), Ok(chunk::ABORT));
            assert_eq!(kind(&[cookie, 0, 0, 4, chunk::DATA, 0, 0, 4]), Ok(cookie));
            assert_eq!(kind(&[cookie, 0, 0, 4, chunk::ABORT, 0, 0]), Ok(cookie), "a header cut short");
            assert_eq!(kind(&[cookie, 0, 0xff, 0xff, chunk::ABORT, 0, 0, 4]), Ok(cookie));
        }
        assert_eq!(kind(&[chunk::DATA, 0, 0, 4, chunk::ABORT, 0, 0, 4]), Ok(chunk::DATA));
    }

    /// Vectors of RFC 3720 appendix B.4, and the customary check value.
    #[test]
    fn the_crc_is_that_of_the_rfc() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&up), 0x46dd_794e);
        assert_eq!(crc32c(&down), 0x113f_db5c);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn a_sealed_packet_is_valid_until_a_bit_changes(mut bytes in prop::collection::vec(any::<u8>(), 12..200), at: prop::sample::Index, bit in 0u8..8) {
            prop_assert!(seal(&mut bytes));
            prop_assert!(is_valid(&bytes));
            let mut zeroed = bytes.clone();
            zeroed[8..12].fill(0);
            prop_assert_eq!(&bytes[8..12], &crc32c(&zeroed).to_le_bytes());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!is_valid(&bytes));
        }

        #[test]
        fn slices_give_what_single_bits_give(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut crc = !0u32;
            for byte in &bytes {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
                }
            }
            prop_assert_eq!(crc32c(&bytes), !crc);
        }

        #[test]
        fn any_bytes_give_a_packet_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(parse(&bytes).is_ok(), bytes.len() >= 16 && (bytes[14] != 0 || bytes[15] > 3));
            prop_assert_eq!(seal(&mut bytes.clone()), bytes.len() >= 12);
        }
    }
}
