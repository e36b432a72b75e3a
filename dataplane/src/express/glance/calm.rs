//! What calm frames look like: the words that decide about a frame compared at once, then its transport header.

use super::words::{DECIDING, be16};
use crate::conn::simd::Pattern;
use crate::parse::TcpFlags;
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP, udp};

/// What calm frames of a family to one MAC address look like in their first 32 bytes.
pub(crate) struct Looks {
    pub(super) tcp: Pattern,
    pub(super) udp: Pattern,
}

impl Looks {
    /// `to`: as [`Gate`](crate::express::see::Gate) has it. `None`: there are none.
    #[inline(always)]
    pub(super) fn new(to: u64, tcp: &Pattern, udp: &Pattern) -> Option<Self> {
        let with = |pattern: &Pattern| {
            let mut pattern = *pattern;
            if let Some(bytes) = pattern.value.first_chunk_mut::<8>() {
                *bytes = (to >> 16).to_le_bytes();
            }
            pattern
        };
        (to & 0xffff == 0).then(|| Self { tcp: with(tcp), udp: with(udp) })
    }
}

/// Bytes 0 to 31 of a frame, in which what decides about its kind stands: whom it is for, EtherType, version, flags and
/// offset of IPv4, protocol.
#[inline(always)]
pub(super) fn window<const N: usize>(head: &[u8; N]) -> &[u8; 32] {
    head.first_chunk().unwrap_or(&[0; 32])
}

/// What counts of these for every family: destination and EtherType.
pub(super) const fn pattern(ether_type: [u8; 2]) -> Pattern {
    let (mut value, mut mask) = ([0; 32], [0; 32]);
    let mut at = 0;
    while at < 6 {
        mask[at] = 0xff;
        at += 1;
    }
    [value[12], value[13]] = ether_type;
    [mask[12], mask[13]] = [0xff; 2];
    Pattern { value, mask }
}

/// Untagged IPv4 of a header of five words, not a fragment, with this protocol, in a [`window`].
const fn pattern4(protocol: u8) -> Pattern {
    let Pattern { mut value, mut mask } = pattern([0x08, 0x00]);
    [value[14], value[23]] = [0x45, protocol];
    [mask[14], mask[20], mask[21], mask[23]] = [0xff, 0x3f, 0xff, 0xff];
    Pattern { value, mask }
}

/// Untagged IPv6 with this protocol right behind its header, in a [`window`].
const fn pattern6(protocol: u8) -> Pattern {
    let Pattern { mut value, mut mask } = pattern([0x86, 0xdd]);
    [value[14], value[20]] = [0x60, protocol];
    [mask[14], mask[20]] = [0xf0, 0xff];
    Pattern { value, mask }
}

pub(super) static TCP4: Pattern = pattern4(PROTOCOL_TCP);
pub(super) static UDP4: Pattern = pattern4(PROTOCOL_UDP);
pub(super) static TCP6: Pattern = pattern6(PROTOCOL_TCP);
pub(super) static UDP6: Pattern = pattern6(PROTOCOL_UDP);

/// Whether a TCP header at `at` is whole and changes no established connection, in a packet of which `len` bytes begin
/// with it; of these, and what is behind it in the frame, `room` were received.
///
/// What would be less than nothing is more than anything here, so each pair of limits is one comparison.
#[inline(always)]
pub(super) fn is_calm_tcp<const N: usize>(head: &[u8; N], at: usize, len: u32, room: u32) -> bool {
    let options = (u32::from(head[at + 12] >> 4) * 4).wrapping_sub(TCP_HEADER);
    let rest = len.wrapping_sub(TCP_HEADER);
    rest <= room.wrapping_sub(TCP_HEADER) && head[at + 13] & DECIDING == TcpFlags::ACK.0 && options <= rest
}

/// Whether a UDP header is whole, likewise.
#[inline(always)]
pub(super) fn is_right_udp<const N: usize>(head: &[u8; N], at: usize, len: u32, room: u32) -> bool {
    const HEADER: u32 = udp::HEADER_LEN as u32;
    let rest = len.wrapping_sub(HEADER);
    rest <= room.wrapping_sub(HEADER) && u32::from(be16(head, at + 4)).wrapping_sub(HEADER) <= rest
}

/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;
