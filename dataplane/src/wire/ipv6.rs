//! IPv6 headers and extension headers (RFC 8200).
//!
//! Options inside extension headers are not looked at. An atomic fragment (RFC 6946: offset 0 and no more to come)
//! is a whole packet. Limits: no jumbograms; at most [`MAX_EXTENSION_HEADERS`].

use std::net::Ipv6Addr;

use super::{DEFAULT_TTL, Ip, Mac, PROTOCOL_ICMP6, PROTOCOL_TCP, PROTOCOL_UDP, Piece};
use crate::DropReason;

/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 40;

/// Extension headers that are walked at most: RFC 8200 section 4.1 lists 7, destination options twice.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// All nodes on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The multicast address that a node with `address` listens on (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c))
}

/// The Ethernet address of a multicast address (RFC 2464 section 7).
pub fn multicast_mac(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The address at `at` of a header.
#[inline(always)]
fn address(header: &[u8; HEADER_LEN], at: usize) -> Ipv6Addr {
    match header.get(at..).and_then(|tail| tail.first_chunk::<16>()) {
        Some(octets) => Ipv6Addr::from_bits(u128::from_be_bytes(*octets)),
        None => Ipv6Addr::UNSPECIFIED,
    }
}

/// Walks the extension headers of `packet`, an IPv6 packet without padding, from its fixed header on.
///
/// Gives the protocol behind them and its offset. Errors: [`DropReason::Ipv6ExtensionHeader`],
/// [`DropReason::Ipv6Fragment`] (unless it `may_be_first`: then the first fragment passes).
#[cold]
#[inline(never)]
fn walk(packet: &[u8], first: u8, may_be_first: bool) -> Result<(u8, usize), DropReason> {
    let (mut next, mut at) = (first, HEADER_LEN);
    for count in 0..=MAX_EXTENSION_HEADERS {
        let rest = packet.get(at..).ok_or(DropReason::Ipv6ExtensionHeader)?;
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            return Ok((next, at));
        }
        let header = rest.first_chunk::<8>().ok_or(DropReason::Ipv6ExtensionHeader)?;
        let len = match next {
            // RFC 8200 section 4.1: only right behind the fixed header
            HOP_BY_HOP if count > 0 => return Err(DropReason::Ipv6ExtensionHeader),
            // RFC 8200 section 4.4: the director is the destination and knows no routing type
            ROUTING if header[3] != 0 => return Err(DropReason::Ipv6ExtensionHeader),
            FRAGMENT => {
                let offset_and_more = u16::from_be_bytes([header[2], header[3]]) & 0xfff9;
                if offset_and_more > 1 || offset_and_more == 1 && !may_be_first {
                    return Err(DropReason::Ipv6Fragment);
                }
                8
            }
            // RFC 4302 section 2.2: in words of 4 bytes, minus 2
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        (next, at) = (header[0], at + len);
    }
    Err(DropReason::Ipv6ExtensionHeader)
}

/// Whether a packet can come from `src`: not multicast and not loopback (RFC 4291 sections 2.7 and 2.5.3).
///
/// The unspecified address is left to the caller, who knows whether the packet is of neighbour discovery.
#[inline(always)]
pub fn is_source(src: Ipv6Addr) -> bool {
    // on the whole word: taken apart into octets the address is moved in pieces
    let bits = src.to_bits();
    bits >> 120 != 0xff && bits != 1
}

/// Reads the header at the front of `packet`, which may be longer than the payload length says.
///
/// Errors: the reasons `Ipv6*`. After `Ok` the packet has `ip_len` bytes of which `header_len` are headers.
#[inline(always)]
pub fn parse(packet: &[u8]) -> Result<Ip<Ipv6Addr>, DropReason> {
    parse_within(packet, packet.len())
}

/// The same of a packet that is `len` bytes long and of which `packet` holds the beginning.
#[inline(always)]
pub(crate) fn parse_within(packet: &[u8], len: usize) -> Result<Ip<Ipv6Addr>, DropReason> {
    let header = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv6Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let ip_len = HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if ip_len > len {
        return Err(DropReason::Ipv6PayloadLength);
    }
    let here = packet.get(..ip_len).unwrap_or(packet);
    let (src, dst) = (address(header, 8), address(header, 24));
    if !is_source(src) {
        return Err(DropReason::Ipv6Source);
    }
    let (protocol, header_len) = match header[6] {
        usual @ (PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_ICMP6) => (usual, HEADER_LEN),
        first => walk(here, first, false)?,
    };
    // payloads of more than 65,495 bytes are refused: no link carries them, and lengths stay in 16 bits
    let ip_len = u16::try_from(ip_len).map_err(|_| DropReason::Ipv6PayloadLength)?;
    Ok(Ip { src, dst, protocol, ttl: header[7], ip_len, header_len: header_len as u16, df: true })
}

/// Whether this next header value stands for an extension header.
pub fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// The fragment header of `packet`, and where it ends. `None`: none, or not before the headers end.
fn fragment_header(packet: &[u8], first: u8) -> Option<(&[u8; 8], usize)> {
    let (mut next, mut at) = (first, HEADER_LEN);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let header = packet.get(at..)?.first_chunk::<8>()?;
        match next {
            FRAGMENT => return Some((header, at + 8)),
            AUTHENTICATION => at += (usize::from(header[1]) + 2) * 4,
            next if is_extension(next) => at += (usize::from(header[1]) + 1) * 8,
            _ => return None,
        }
        next = header[0];
    }
    None
}

/// Reads the headers of a packet that [`parse`] refused as a fragment, and where it belongs.
///
/// Of the first fragment the protocol is what the headers end in, and `header_len` leads there; of a later one the
/// next header value in its fragment header, and `header_len` leads behind that. Errors:
/// [`DropReason::FragmentMalformed`], [`DropReason::Ipv6ExtensionHeader`] for a first fragment without the whole
/// header chain (RFC 7112 section 5).
#[cold]
pub fn parse_fragment(packet: &[u8]) -> Result<(Ip<Ipv6Addr>, Piece), DropReason> {
    let header = packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv6Truncated)?;
    let ip_len = HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let whole = packet.get(..ip_len).ok_or(DropReason::Ipv6PayloadLength)?;
    let (fragment, end) = fragment_header(whole, header[6]).ok_or(DropReason::Ipv6ExtensionHeader)?;
    let word = u16::from_be_bytes([fragment[2], fragment[3]]);
    let id = u32::from_be_bytes([fragment[4], fragment[5], fragment[6], fragment[7]]);
    let len = u16::try_from(ip_len.saturating_sub(end)).map_err(|_| DropReason::Ipv6PayloadLength)?;
    let piece = Piece { id, offset: u32::from(word & 0xfff8), len, more: word & 1 != 0 }.checked()?;
    let (protocol, header_len) =
        if piece.offset == 0 { walk(whole, header[6], true)? } else { (fragment[0], end) };
    let ip_len = u16::try_from(ip_len).map_err(|_| DropReason::Ipv6PayloadLength)?;
    let (src, dst) = (address(header, 8), address(header, 24));
    let ip = Ip { src, dst, protocol, ttl: header[7], ip_len, header_len: header_len as u16, df: true };
    Ok((ip, piece))
}

/// What an ICMPv6 error quotes of a packet: its headers, and as much of the rest as there is.
///
/// `None`: not IPv6, headers not whole, or not the first fragment.
pub fn parse_quoted(quote: &[u8]) -> Option<(Ip<Ipv6Addr>, &[u8])> {
    let header = quote.first_chunk::<HEADER_LEN>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (protocol, header_len) = walk(quote, header[6], true).ok()?;
    let (src, dst) = (address(header, 8), address(header, 24));
    let ip_len = u16::from_be_bytes([header[4], header[5]]).saturating_add(HEADER_LEN as u16);
    let ip = Ip { src, dst, protocol, ttl: header[7], ip_len, header_len: header_len as u16, df: true };
    Some((ip, quote.get(header_len..)?))
}

/// A header of the director's own: traffic class and flow label 0.
#[derive(Clone, Copy, Debug)]
pub struct Emit {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Hop limit: [`DEFAULT_TTL`], or 255 for neighbour discovery.
    pub hop_limit: u8,
    /// What comes behind the header, bytes.
    pub payload_len: u16,
}

impl Emit {
    /// An ICMPv6 packet that may be routed.
    pub fn icmp(src: Ipv6Addr, dst: Ipv6Addr, payload_len: u16) -> Self {
        Self { src, dst, protocol: PROTOCOL_ICMP6, hop_limit: DEFAULT_TTL, payload_len }
    }
}

/// Writes a header; `None`: less than 40 bytes of room.
pub fn emit(packet: &mut [u8], ip: &Emit) -> Option<usize> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&ip.payload_len.to_be_bytes());
    header[6] = ip.protocol;
    header[7] = ip.hop_limit;
    header[8..24].copy_from_slice(&ip.src.octets());
    header[24..].copy_from_slice(&ip.dst.octets());
    Some(HEADER_LEN)
}

/// Takes one off the hop limit of the header at `l3` (RFC 8200 section 3).
///
/// `false`: it is 0 or 1, so the packet may not be sent on, or there is no header; unchanged.
#[inline]
pub fn decrement_hop_limit6(frame: &mut [u8], l3: usize) -> bool {
    match frame.get_mut(l3..).and_then(|packet| packet.first_chunk_mut::<HEADER_LEN>()) {
        Some(header) if header[7] > 1 => {
            header[7] -= 1;
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

    const NONE: u8 = 59;

    /// A packet from fd00:c::2 to fd00:a::100 whose fixed header says `next` and that goes on with `payload`.
    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet =
            hex("60000000 0000 00 40 fd00000c000000000000000000000002 fd00000a000000000000000000000100");
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next;
        packet.extend_from_slice(payload);
        packet
    }

    #[track_caller]
    fn check(what: &str, next: u8, payload: &str, want: Result<(u8, u16), DropReason>) {
        let got = parse(&packet(next, &hex(payload))).map(|ip| (ip.protocol, ip.header_len));
        assert_eq!(got, want, "{what}");
    }

    #[test]
    fn a_header_is_read_with_padding_behind_the_packet() {
        let (src, dst) = ("fd00:c::2".parse().unwrap(), "fd00:a::100".parse().unwrap());
        let ip = Ip { src, dst, protocol: 17, ttl: 64, ip_len: 48, header_len: 40, df: true };
        assert_eq!(parse(&packet(17, &[0; 8])), Ok(ip));
        assert_eq!(parse(&[packet(17, &[0; 8]), vec![0; 9]].concat()), Ok(ip));
    }

    #[test]
    fn extension_headers_are_walked_to_what_is_behind_them() {
        check("none", 6, "", Ok((6, 40)));
        check("no next header", NONE, "", Ok((NONE, 40)));
        check("ESP is not looked into", 50, "0000000000000000", Ok((50, 40)));
        check("hop-by-hop", 0, "0600010400000000 aabb", Ok((6, 48)));
        check("destination options of 16 bytes", 60, "1101000000000000 0000000000000000", Ok((17, 56)));
        check("AH of 24 bytes", 51, "0604000000000000 0000000000000000 0000000000000000", Ok((6, 64)));
        check("used-up routing header", 43, "3a00000000000000", Ok((58, 48)));
        check("atomic fragment", 44, "0600000000000001", Ok((6, 48)));
        check(
            "destination options after the fragment header",
            44,
            "3c00000000000001 1100000000000000",
            Ok((17, 56)),
        );
        let seven = "3c00000000000000".repeat(7);
        check("eight", 60, &format!("{seven} 0600000000000000"), Ok((6, 104)));
    }

    #[test]
    fn every_fault_of_the_headers_has_its_reason() {
        let bad = Err(DropReason::Ipv6ExtensionHeader);
        check("hop-by-hop in second place", 60, "0000000000000000 0600000000000000", bad);
        check("header cut short", 0, "06000000000000", bad);
        check("header past the end", 60, "0601000000000000", bad);
        check("segments left", 43, "0600000100000000", bad);
        check("nine", 60, &format!("{} 0600000000000000", "3c00000000000000".repeat(8)), bad);
        let fragment = Err(DropReason::Ipv6Fragment);
        check("first fragment", 44, "0600000100000001", fragment);
        check("last fragment", 44, "0600000800000001", fragment);
        check("fragment behind options", 60, "2c00000000000000 0600000900000001", fragment);
        for (first, source) in [(0xff, "multicast"), (0, "loopback")] {
            let mut packet = packet(NONE, &[]);
            packet[8..24].fill(0);
            packet[8] = first;
            packet[23] = 1;
            assert_eq!(parse(&packet), Err(DropReason::Ipv6Source), "{source}");
        }
        let mut version = packet(NONE, &[]);
        version[0] = 0x45;
        assert_eq!(parse(&version), Err(DropReason::Ipv6Version));
        assert_eq!(parse(&packet(17, &[0; 65500])), Err(DropReason::Ipv6PayloadLength), "65,540 bytes");
    }

    #[test]
    fn a_packet_cut_short_is_refused_at_every_length() {
        let whole = packet(17, &[0; 8]);
        for len in 0..48 {
            let reason = if len < 40 { DropReason::Ipv6Truncated } else { DropReason::Ipv6PayloadLength };
            assert_eq!(parse(&whole[..len]), Err(reason));
        }
    }

    #[test]
    fn the_hop_limit_goes_down_and_stops_before_zero() {
        let mut packet = packet(NONE, &[]);
        packet[7] = 2;
        assert!(decrement_hop_limit6(&mut packet, 0));
        assert_eq!(packet[7], 1);
        assert!(!decrement_hop_limit6(&mut packet, 0));
        assert_eq!(packet[7], 1);
        assert!(!decrement_hop_limit6(&mut packet, 1));
    }

    #[test]
    fn multicast_addresses_are_those_of_the_rfcs() {
        let address = "2037::01:800:200e:8c6c".parse().unwrap();
        let group = solicited_node(address);
        assert_eq!(
            group,
            "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap(),
            "example of RFC 4291 section 2.7.1"
        );
        assert_eq!(multicast_mac(group), [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(src: u128, dst: u128, protocol in 61u8.., hop_limit: u8, len in 0u16..1000) {
            let src = Ipv6Addr::from_bits((src & ((1 << 120) - 1)) | (0xfd << 120));
            let mut packet = vec![0xff; 40 + usize::from(len)];
            emit(&mut packet, &Emit { src, dst: dst.into(), protocol, hop_limit, payload_len: len }).unwrap();
            let ip = Ip { src, dst: dst.into(), protocol, ttl: hop_limit, ip_len: 40 + len, header_len: 40, df: true };
            prop_assert_eq!(parse(&packet), Ok(ip));
        }

        #[test]
        fn arbitrary_headers_never_panic(next: u8, payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let packet = packet(next, &payload);
            if let Ok(ip) = parse(&packet) {
                prop_assert!(ip.header_len <= ip.ip_len);
            }
            let _ = parse_quoted(&packet);
        }
    }
}
