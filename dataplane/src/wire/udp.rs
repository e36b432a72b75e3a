//! UDP (RFC 768): ports. The checksum is not verified: with direct routing the server does it.

use crate::DropReason;

/// Length of a UDP header, bytes.
pub const HEADER_LEN: usize = 8;

/// The ports of a TCP or UDP packet, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
}

impl Ports {
    /// From the first four bytes of a TCP or UDP header.
    #[inline]
    pub fn of(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self { src: u16::from_be_bytes([a, b]), dst: u16::from_be_bytes([c, d]) }
    }
}

/// Ports of a UDP datagram in `payload`, which may be longer than the datagram.
///
/// Errors: [`DropReason::UdpTruncated`], [`DropReason::UdpLength`] (also for length 0, a jumbogram's in RFC 2675).
#[inline(always)]
pub fn parse(payload: &[u8]) -> Result<Ports, DropReason> {
    let header = payload.first_chunk::<HEADER_LEN>().ok_or(DropReason::UdpTruncated)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if length < HEADER_LEN || length > payload.len() {
        return Err(DropReason::UdpLength);
    }
    Ok(Ports::of([header[0], header[1], header[2], header[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 9] = [0x13, 0x88, 0x00, 0x50, 0x00, 0x09, 0xa7, 0xf5, 0x61];

    #[test]
    fn a_datagram_gives_its_ports() {
        assert_eq!(parse(&DATAGRAM), Ok(Ports { src: 5000, dst: 80 }));
        assert_eq!(
            parse(&[&DATAGRAM[..], &[0; 7]].concat()),
            Ok(Ports { src: 5000, dst: 80 }),
            "trailing bytes"
        );
    }

    #[test]
    fn a_datagram_that_is_cut_short_is_refused_at_every_length() {
        for len in 0..8 {
            assert_eq!(parse(&DATAGRAM[..len]), Err(DropReason::UdpTruncated));
        }
        assert_eq!(parse(&DATAGRAM[..8]), Err(DropReason::UdpLength));
    }

    #[test]
    fn a_length_below_the_header_is_refused() {
        for length in 0..8 {
            let mut datagram = DATAGRAM;
            datagram[5] = length;
            assert_eq!(parse(&datagram), Err(DropReason::UdpLength));
        }
    }
}
