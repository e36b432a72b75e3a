//! TCP (RFC 9293): ports and flags. The checksum is not verified: with direct routing the server does it.

use super::udp::Ports;
use crate::DropReason;

/// Length of a TCP header without options, bytes (RFC 9293 section 3.1).
pub const HEADER_LEN: usize = 20;

/// The control bits of a TCP header; 0 for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has no more data.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Opens a connection.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Aborts a connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// The acknowledgment number counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);

    /// Whether any flag of `flags` is set.
    #[inline]
    pub fn any(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }
}

/// Ports and flags of a TCP segment that fills `payload`.
///
/// Errors: [`DropReason::TcpTruncated`], [`DropReason::TcpDataOffset`].
#[inline(always)]
pub fn parse(payload: &[u8]) -> Result<(Ports, TcpFlags), DropReason> {
    let header = payload.first_chunk::<HEADER_LEN>().ok_or(DropReason::TcpTruncated)?;
    let data_offset = usize::from(header[12] >> 4) * 4;
    if data_offset < HEADER_LEN || data_offset > payload.len() {
        return Err(DropReason::TcpDataOffset);
    }
    Ok((Ports::of([header[0], header[1], header[2], header[3]]), TcpFlags(header[13])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: [u8; 24] = [
        0x9c, 0x40, 0x00, 0x50, 0x00, 0x00, 0x03, 0xe8, 0x00, 0x00, 0x00, 0x00, 0x60, 0x12, 0xfd, 0xe8, 0xfe,
        0xab, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
    ];

    #[test]
    fn a_segment_with_options_gives_ports_and_flags() {
        let (ports, flags) = parse(&SEGMENT).unwrap();
        assert_eq!((ports.src, ports.dst), (40000, 80));
        assert!(flags.any(TcpFlags::SYN) && flags.any(TcpFlags::ACK));
        assert!(!flags.any(TcpFlags::RST) && !flags.any(TcpFlags::FIN));
    }

    #[test]
    fn a_segment_shorter_than_its_header_is_refused_at_every_length() {
        for len in 0..20 {
            assert_eq!(parse(&SEGMENT[..len]), Err(DropReason::TcpTruncated));
        }
        for len in 20..24 {
            assert_eq!(parse(&SEGMENT[..len]), Err(DropReason::TcpDataOffset), "options cut short");
        }
    }

    #[test]
    fn a_data_offset_below_five_words_is_refused() {
        for words in 0..5 {
            let mut segment = SEGMENT;
            segment[12] = words << 4;
            assert_eq!(parse(&segment), Err(DropReason::TcpDataOffset));
        }
    }
}
