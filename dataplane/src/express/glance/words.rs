//! The words of a plain frame's headers, each at its place, as there are neither options nor tags.

use super::Noted;
use crate::conn::{Key4, Key6};
use crate::parse::TcpFlags;
use crate::state::{Event, tcp};
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP, checksum, ethernet, ipv4, ipv6, udp};

/// Bytes of Ethernet, IPv4 and TCP headers without options.
pub(in crate::express) const HEAD4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + 20;
/// Bytes of Ethernet, IPv6 and TCP headers without options.
pub(in crate::express) const HEAD6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 20;

/// Four bytes as they lie in memory: sums over them are right in either byte order (RFC 1071 section 2 (B)).
#[inline(always)]
pub(in crate::express) fn raw32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

/// Eight bytes as they lie in memory.
#[inline(always)]
pub(in crate::express) fn raw64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline(always)]
pub(super) fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |word| u16::from_be_bytes(*word))
}

/// What a packet is, by its transport header at `at`; `rest`: bytes of the packet from there on.
#[inline(always)]
pub(super) fn transport<const N: usize>(
    head: &[u8; N],
    at: usize,
    (number, ttl): (u8, u8),
    ip_len: u16,
    rest: i32,
) -> Option<Noted> {
    const CALM: u32 = Noted::STEADY | Noted::CALM;
    let lives = ttl > 1;
    if number == PROTOCOL_TCP {
        let header_len = i32::from(head[at + 12] >> 2 & 0x3c);
        if header_len < 20 || header_len > rest {
            return None;
        }
        let flags = head[at + 13];
        if flags & DECIDING == TcpFlags::ACK.0 {
            return Some(Noted::new(ip_len, PROTOCOL_TCP, tcp::ACK, if lives { CALM } else { 0 }));
        }
        let event = tcp::event(flags);
        let steady = lives && !event.is_new();
        Some(Noted::new(ip_len, PROTOCOL_TCP, event, if steady { Noted::STEADY } else { 0 }))
    } else if number == PROTOCOL_UDP {
        let len = i32::from(be16(head, at + 4));
        if len < udp::HEADER_LEN as i32 || len > rest {
            return None;
        }
        Some(Noted::new(ip_len, PROTOCOL_UDP, Event::default(), if lives { CALM } else { 0 }))
    } else {
        None
    }
}

/// Flags that make a segment another event than [`tcp::ACK`], and ACK.
pub(super) const DECIDING: u8 = TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::FIN.0 | TcpFlags::ACK.0;

/// The sum of the words of an IPv4 header without options that is no fragment's, in one's complement arithmetic: the
/// same modulo 0xffff whatever the words' width. Of another header it is of no use.
///
/// The first eight bytes end in the fragment's offset, which is 0, so four more may be added without a carry.
#[inline(always)]
pub(super) fn sum(first: u64, middle: u32, last: u64) -> u64 {
    let (sum, over) = first.wrapping_add(middle.into()).overflowing_add(last);
    sum.wrapping_add(over.into())
}

/// Whether the checksum of such a header is right; its version is not 0.
#[inline(always)]
pub(super) fn is_sum_right(head: &[u8; HEAD4]) -> bool {
    checksum::is_multiple(sum(raw64(head, 14), raw32(head, 22), raw64(head, 26)))
}

/// Client, VIP and ports stand in a row in packets without options, as they do in a key.
#[inline(always)]
pub(super) fn key4(head: &[u8; HEAD4]) -> Key4 {
    Key4::of_packet(raw64(head, 26), raw32(head, 34))
}

#[inline(always)]
pub(super) fn key6(head: &[u8; HEAD6]) -> Key6 {
    Key6::read(head[22..].first_chunk().unwrap_or(&[0; 36]))
}
