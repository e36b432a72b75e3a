//! A plain frame is rewritten in place: TTL, addresses, ports, and the sums over them in one step.
//!
//! The same bytes as [`crate::rewrite`] makes, for frames that [`super::glance`] has seen; sums are taken over words as
//! they lie in memory (RFC 1071 section 2 (B)).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::glance::{HEAD4, HEAD6, Plain, raw32};
use crate::conn::{Key4, Key6};
use crate::parse::L4;
use crate::rewrite::Translation;
use crate::wire::{Mac, checksum};

/// What one off the TTL adds to a sum over memory words: minus one in the byte that comes first.
const TTL_STEP: u64 = 0xfffe;

/// Offset of the checksum in a TCP and in a UDP header.
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;

/// The rewriting of a family's plain frames.
pub(crate) trait Ends: Plain {
    /// Keys lie beside the lines of a table that say which of them it may be.
    const APART: bool;

    /// Takes one off the TTL, which is above 1.
    fn step(frame: &mut [u8]);

    /// [`Ends::step`], and the packet gets other ends. `false`: its UDP checksum was left out; unchanged.
    fn translate(frame: &mut [u8], protocol: L4, to: &Translation<Self::Address>) -> bool;
}

/// One off the first byte, and one more in the sum, which goes over; a function of its own so that it stays a branch,
/// which is taken once in 32,768 packets.
#[cold]
#[inline(never)]
fn over(word: u32) -> u32 {
    word.wrapping_add(0x1_ffff)
}

/// Replaces four bytes; gives what that adds to a sum over them (RFC 1624 eqn 3).
#[inline(always)]
fn replace<const N: usize>(head: &mut [u8; N], at: usize, new: u32) -> u64 {
    let old = raw32(head, at);
    if let Some(bytes) = head[at..].first_chunk_mut::<4>() {
        *bytes = new.to_le_bytes();
    }
    u64::from(!old) + u64::from(new)
}

/// Updates the sum at `at` by `delta`.
#[inline(always)]
fn renew<const N: usize>(head: &mut [u8; N], at: usize, delta: u64) -> u16 {
    let old = u16::from_le_bytes([head[at], head[at + 1]]);
    let new = checksum::finish(u64::from(!old) + delta);
    head[at..at + 2].copy_from_slice(&new.to_le_bytes());
    new
}

/// The word of both ports after a translation.
#[inline(always)]
fn ports<A: Copy>(old: u32, to: &Translation<A>) -> u32 {
    let raw = |port: u16| u32::from(port.swap_bytes());
    let src = to.src.map_or(old & 0xffff, |(_, port)| raw(port));
    let dst = to.dst.map_or(old >> 16, |(_, port)| raw(port));
    src | dst << 16
}

/// Whether the packet's transport checksum can be updated: a sender of UDP may leave it out.
#[inline(always)]
fn is_summed<const N: usize>(head: &[u8; N], l4: usize, protocol: L4) -> bool {
    protocol == L4::Tcp || head[l4 + UDP_SUM] != 0 || head[l4 + UDP_SUM + 1] != 0
}

/// Updates the transport checksum by what addresses and ports add.
#[inline(always)]
fn renew_transport<const N: usize>(head: &mut [u8; N], l4: usize, protocol: L4, delta: u64) {
    if protocol == L4::Tcp {
        renew(head, l4 + TCP_SUM, delta);
    } else if renew(head, l4 + UDP_SUM, delta) == 0 {
        // RFC 768: zero says that there is none
        head[l4 + UDP_SUM..l4 + UDP_SUM + 2].fill(0xff);
    }
}

impl Ends for Key4 {
    const APART: bool = false;

    #[inline(always)]
    fn step(frame: &mut [u8]) {
        if let Some(head) = frame.first_chunk_mut::<HEAD4>() {
            // one off the first byte is one more in the sum, which has no 0xffff (RFC 1624 section 3)
            let word = raw32(head, 22);
            let word = if word >= 0xfffe_0000 { over(word) } else { word.wrapping_add(0xffff) };
            head[22..26].copy_from_slice(&word.to_le_bytes());
        }
    }

    #[inline(always)]
    fn translate(frame: &mut [u8], protocol: L4, to: &Translation<Ipv4Addr>) -> bool {
        let Some(head) = frame.first_chunk_mut::<HEAD4>() else { return false };
        if !is_summed(head, Self::L4_AT, protocol) {
            return false;
        }
        let mut delta = 0;
        if let Some((src, _)) = to.src {
            delta += replace(head, 26, u32::from_le_bytes(src.octets()));
        }
        if let Some((dst, _)) = to.dst {
            delta += replace(head, 30, u32::from_le_bytes(dst.octets()));
        }
        head[22] = head[22].wrapping_sub(1);
        renew(head, 24, delta + TTL_STEP);
        delta += replace(head, 34, ports(raw32(head, 34), to));
        renew_transport(head, Self::L4_AT, protocol, delta);
        true
    }
}

impl Ends for Key6 {
    const APART: bool = true;

    #[inline(always)]
    fn step(frame: &mut [u8]) {
        if let Some(head) = frame.first_chunk_mut::<HEAD6>() {
            head[21] = head[21].wrapping_sub(1);
        }
    }

    #[inline(always)]
    fn translate(frame: &mut [u8], protocol: L4, to: &Translation<Ipv6Addr>) -> bool {
        let Some(head) = frame.first_chunk_mut::<HEAD6>() else { return false };
        if !is_summed(head, Self::L4_AT, protocol) {
            return false;
        }
        let mut delta = 0;
        for (at, end) in [(22, to.src), (38, to.dst)] {
            if let Some((address, _)) = end {
                for (n, word) in address.octets().as_chunks::<4>().0.iter().enumerate() {
                    delta += replace(head, at + 4 * n, u32::from_le_bytes(*word));
                }
            }
        }
        head[21] = head[21].wrapping_sub(1);
        delta += replace(head, 54, ports(raw32(head, 54), to));
        renew_transport(head, Self::L4_AT, protocol, delta);
        true
    }
}

/// Writes both MAC addresses, given as their six bytes lie in memory.
#[inline(always)]
pub(super) fn set_macs(frame: &mut [u8], dst: u64, src: u64) {
    if let Some(head) = frame.first_chunk_mut::<12>() {
        let (first, last) = (dst | src << 48, (src >> 16) as u32);
        if let Some(bytes) = head.first_chunk_mut::<8>() {
            *bytes = first.to_le_bytes();
        }
        if let Some(bytes) = head.last_chunk_mut::<4>() {
            *bytes = last.to_le_bytes();
        }
    }
}

/// A MAC address as its six bytes lie in memory.
#[inline(always)]
pub(super) fn raw_mac([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from(u32::from_le_bytes([a, b, c, d])) | u64::from(u16::from_le_bytes([e, f])) << 32
}
