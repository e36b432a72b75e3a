//! IPv4 headers (RFC 791), checked as RFC 1812 section 5.2.2 asks. Options are allowed and not looked at.

use std::net::Ipv4Addr;

use super::{DEFAULT_TTL, Ip, Piece, checksum};
use crate::DropReason;

/// Length of a header without options, bytes.
pub const HEADER_LEN: usize = 20;

/// Don't fragment, in the word of flags and fragment offset.
const DF: u32 = 0x4000;
/// More fragments, or a fragment offset.
const FRAGMENT: u32 = 0x3fff;
/// More fragments alone.
const MORE: u32 = 0x2000;
/// Fragment offset alone.
const OFFSET: u32 = 0x1fff;

/// The five words of a header without options, host order: version to total length, identification to fragment
/// offset, TTL to checksum, source, destination.
#[inline(always)]
fn words(header: &[u8; HEADER_LEN]) -> [u32; 5] {
    let (chunks, _) = header.as_chunks::<4>();
    std::array::from_fn(|n| u32::from_be_bytes(chunks[n]))
}

/// What a header says, nothing checked.
#[inline(always)]
fn fields(words: [u32; 5]) -> Ip<Ipv4Addr> {
    let [first, second, third, src, dst] = words;
    Ip {
        src: Ipv4Addr::from_bits(src),
        dst: Ipv4Addr::from_bits(dst),
        protocol: (third >> 16) as u8,
        ttl: (third >> 24) as u8,
        ip_len: first as u16,
        header_len: ((first >> 24) & 0x0f) as u16 * 4,
        df: second & DF != 0,
    }
}

/// Whether a packet can come from `src`: not multicast, broadcast, loopback or unspecified (RFC 1812 section 5.3.7).
/// 240.0.0.0/4 but its last address passes, as in Linux.
#[inline(always)]
pub fn is_source(src: Ipv4Addr) -> bool {
    // on the whole word: taken apart into octets the check costs a load for each
    let bits = src.to_bits();
    !(bits == 0 || bits >> 24 == 127 || bits >> 28 == 0xe || bits == u32::MAX)
}

/// Checks 1 to 4 of a header that does not begin with the usual 0x45, and the sum of one with options.
#[cold]
#[inline(never)]
fn check_unusual(packet: &[u8], header_len: usize) -> Result<(), DropReason> {
    if packet.first().is_none_or(|first| first >> 4 != 4) {
        return Err(DropReason::Ipv4Version);
    }
    if header_len < HEADER_LEN {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let with_options = packet.get(..header_len).ok_or(DropReason::Ipv4HeaderLength)?;
    if checksum::is_valid(checksum::add(0, with_options)) { Ok(()) } else { Err(DropReason::Ipv4Checksum) }
}

/// Reads the header at the front of `packet`, which may be longer than the total length (Ethernet's padding).
///
/// Errors: the reasons `Ipv4*`, checks in the order of RFC 1812 section 5.2.2, fragments last. After `Ok` the packet
/// has `ip_len` bytes of which `header_len` are the header's.
#[inline(always)]
pub fn parse(packet: &[u8]) -> Result<Ip<Ipv4Addr>, DropReason> {
    parse_within(packet, packet.len())
}

/// The same of a packet that is `len` bytes long and of which `packet` holds the beginning.
#[inline(always)]
pub(crate) fn parse_within(packet: &[u8], len: usize) -> Result<Ip<Ipv4Addr>, DropReason> {
    let header = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv4Truncated)?;
    let words = words(header);
    let ip = fields(words);
    if words[0] >> 24 == 0x45 {
        if !checksum::is_valid(words.iter().map(|word| u64::from(*word)).sum()) {
            return Err(DropReason::Ipv4Checksum);
        }
    } else {
        check_unusual(packet, usize::from(ip.header_len))?;
    }
    if ip.ip_len < ip.header_len || usize::from(ip.ip_len) > len {
        return Err(DropReason::Ipv4TotalLength);
    }
    if !is_source(ip.src) {
        return Err(DropReason::Ipv4Source);
    }
    if words[1] & FRAGMENT != 0 {
        return Err(DropReason::Ipv4Fragment);
    }
    Ok(ip)
}

/// Reads the header of a packet that [`parse`] refused as a fragment, and where it belongs.
///
/// Errors: [`DropReason::FragmentMalformed`].
#[cold]
pub fn parse_fragment(packet: &[u8]) -> Result<(Ip<Ipv4Addr>, Piece), DropReason> {
    let words = words(packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv4Truncated)?);
    let (ip, word) = (fields(words), words[1]);
    let len = ip.ip_len.checked_sub(ip.header_len).ok_or(DropReason::Ipv4TotalLength)?;
    let piece = Piece { id: word >> 16, offset: (word & OFFSET) * 8, len, more: word & MORE != 0 };
    piece.checked().map(|piece| (ip, piece))
}

/// What an ICMP error quotes of a packet: its header, and as much of the rest as there is.
///
/// `None`: not IPv4, no whole header, or not the first fragment. Checksum and total length are not verified: the
/// packet was cut, and routers on its way may have changed it.
pub fn parse_quoted(quote: &[u8]) -> Option<(Ip<Ipv4Addr>, &[u8])> {
    let words = words(quote.first_chunk::<HEADER_LEN>()?);
    let ip = fields(words);
    let header_len = usize::from(ip.header_len);
    if words[0] >> 28 != 4 || header_len < HEADER_LEN || words[1] & OFFSET != 0 {
        return None;
    }
    Some((ip, quote.get(header_len..)?))
}

/// A header of the director's own: no options, DF not set, TTL [`DEFAULT_TTL`].
#[derive(Clone, Copy, Debug)]
pub struct Emit {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Identification, for reassembly (RFC 6864: not repeated soon for the same addresses and protocol).
    pub id: u16,
    /// Whole packet, header included, bytes.
    pub total_len: u16,
}

/// Writes a header with its checksum; `None`: less than 20 bytes of room.
pub fn emit(packet: &mut [u8], ip: &Emit) -> Option<usize> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    header.fill(0);
    header[0] = 0x45;
    header[1] = ip.tos;
    header[2..4].copy_from_slice(&ip.total_len.to_be_bytes());
    header[4..6].copy_from_slice(&ip.id.to_be_bytes());
    header[8] = DEFAULT_TTL;
    header[9] = ip.protocol;
    header[12..16].copy_from_slice(&ip.src.octets());
    header[16..].copy_from_slice(&ip.dst.octets());
    let sum = checksum::finish(checksum::add(0, header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(HEADER_LEN)
}

/// Sets the TTL and updates the checksum.
#[inline]
pub(crate) fn set_ttl(header: &mut [u8; HEADER_LEN], ttl: u8) {
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] = ttl;
    let new = u16::from_be_bytes([header[8], header[9]]);
    let sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), old, new);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Takes one off the TTL of the header at `l3` and updates its checksum (RFC 1812 section 5.3.1).
///
/// `false`: the TTL is 0 or 1, so the packet may not be sent on, or there is no header; unchanged.
#[inline]
pub fn decrement_ttl4(frame: &mut [u8], l3: usize) -> bool {
    match frame.get_mut(l3..).and_then(|packet| packet.first_chunk_mut::<HEADER_LEN>()) {
        Some(header) if header[8] > 1 => {
            set_ttl(header, header[8] - 1);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::hex;
    use super::*;
    use proptest::prelude::*;

    fn packet() -> Vec<u8> {
        // Linux 6.1, client to VIP: TCP SYN
        hex("45b800280001400040066e09c0a801020a000064 9c400050000003e8000000005002fde845730000")
    }

    /// `packet` with a right header checksum.
    fn summed(mut packet: Vec<u8>) -> Vec<u8> {
        let len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        let sum = checksum::finish(checksum::add(0, &packet[..len]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut packet = packet();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        summed(packet)
    }

    #[test]
    fn a_header_is_read_with_padding_behind_the_packet() {
        let (src, dst) = (Ipv4Addr::new(192, 168, 1, 2), Ipv4Addr::new(10, 0, 0, 100));
        let ip = Ip { src, dst, protocol: 6, ttl: 64, ip_len: 40, header_len: 20, df: true };
        assert_eq!(parse(&packet()), Ok(ip));
        assert_eq!(parse(&[&packet()[..], &[0; 6]].concat()), Ok(ip));
        assert_eq!(parse(&with(6, &[0, 0])), Ok(Ip { df: false, ..ip }));
    }

    #[test]
    fn options_are_skipped() {
        let mut long = packet();
        long[0] = 0x46;
        long[3] = 44;
        long.splice(20..20, [0x94, 4, 0, 0]);
        assert_eq!(parse(&summed(long.clone())).map(|ip| ip.header_len), Ok(24));
        assert_eq!(parse(&long), Err(DropReason::Ipv4Checksum));
    }

    #[test]
    fn every_check_of_the_header_has_its_reason() {
        let cases: [(&str, Vec<u8>, DropReason); 14] = [
            ("version 6", with(0, &[0x65]), DropReason::Ipv4Version),
            ("header of 16 bytes", with(0, &[0x44]), DropReason::Ipv4HeaderLength),
            ("header past the end", with(0, &[0x4f]), DropReason::Ipv4HeaderLength),
            ("total length 19", with(2, &[0, 19]), DropReason::Ipv4TotalLength),
            ("total length 41", with(2, &[0, 41]), DropReason::Ipv4TotalLength),
            (
                "checksum off by one",
                [&packet()[..11], &[0x0a], &packet()[12..]].concat(),
                DropReason::Ipv4Checksum,
            ),
            ("from 0.0.0.0", with(12, &[0, 0, 0, 0]), DropReason::Ipv4Source),
            ("from 127.1.1.1", with(12, &[127, 1, 1, 1]), DropReason::Ipv4Source),
            ("from 224.0.0.1", with(12, &[224, 0, 0, 1]), DropReason::Ipv4Source),
            ("from 239.255.255.255", with(12, &[239, 255, 255, 255]), DropReason::Ipv4Source),
            ("from 255.255.255.255", with(12, &[255; 4]), DropReason::Ipv4Source),
            ("first fragment", with(6, &[0x20, 0]), DropReason::Ipv4Fragment),
            ("middle fragment", with(6, &[0x20, 5]), DropReason::Ipv4Fragment),
            ("last fragment", with(6, &[0, 5]), DropReason::Ipv4Fragment),
        ];
        for (what, packet, reason) in cases {
            assert_eq!(parse(&packet), Err(reason), "{what}");
        }
        assert!(parse(&with(12, &[240, 0, 0, 1])).is_ok());
    }

    #[test]
    fn a_packet_cut_short_is_refused_at_every_length() {
        for len in 0..40 {
            let reason = if len < 20 { DropReason::Ipv4Truncated } else { DropReason::Ipv4TotalLength };
            assert_eq!(parse(&packet()[..len]), Err(reason));
        }
    }

    #[test]
    fn ttl_and_checksum_change_as_in_linux() {
        // golden case dr-tos-ttl: what came from the client, what went to the server
        let cases = [
            ("45b800280001400040066e09c0a801020a000064", "45b80028000140003f066f09c0a801020a000064"),
            ("45000028000140000206acc1c0a801020a000064", "45000028000140000106adc1c0a801020a000064"),
            ("45000028004d00004006ae75c0a801020a000064", "45000028004d00003f06af75c0a801020a000064"),
        ];
        for (before, after) in cases {
            let mut frame = [vec![0; 14], hex(before)].concat();
            assert!(decrement_ttl4(&mut frame, 14));
            assert_eq!(frame[14..], hex(after));
        }
    }

    #[test]
    fn a_ttl_that_runs_out_is_left_alone() {
        for ttl in [0, 1] {
            let before = with(8, &[ttl]);
            let mut after = before.clone();
            assert!(!decrement_ttl4(&mut after, 0));
            assert_eq!(after, before);
        }
        assert!(!decrement_ttl4(&mut packet(), 21));
        assert!(!decrement_ttl4(&mut packet(), 99));
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(src in 1u32..0x7f00_0000, dst: u32, protocol: u8, tos: u8, id: u16, len in 20u16..1500) {
            let mut packet = vec![0xff; 1500];
            let ip = Emit { src: src.into(), dst: dst.into(), protocol, tos, id, total_len: len };
            prop_assert_eq!(emit(&mut packet, &ip), Some(20));
            let back = Ip { src: ip.src, dst: ip.dst, protocol, ttl: 64, ip_len: len, header_len: 20, df: false };
            prop_assert_eq!(parse(&packet), Ok(back));
            for _ in 0..63 {
                prop_assert!(decrement_ttl4(&mut packet, 0));
                prop_assert!(parse(&packet).is_ok(), "checksum after decrement");
            }
        }

        #[test]
        fn quotes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_quoted(&bytes);
        }
    }
}
