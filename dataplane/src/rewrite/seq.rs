//! Sequence numbers of a TCP connection into which bytes were put.
//!
//! What the client sends from then on is numbered higher by as much; what the server acknowledges, in SACK blocks
//! (RFC 2018 section 3) too, is numbered lower before it goes back.

use super::address::Delta;
use super::options::{self, NOP};
use crate::flood::cookie::Offer;
use crate::parse::{Flow, L4, TcpFlags};

/// RFC 2018 section 3: SACK blocks of two edges each.
const SACK: u8 = 5;
/// RFC 9293 section 3.1: what was sent so far is for the application now.
pub const PUSH: u8 = 0x08;

fn header_of<'a, A>(frame: &'a mut [u8], flow: &Flow<A>) -> Option<&'a mut [u8]> {
    options::header(frame, usize::from(flow.l4)).filter(|_| flow.protocol == L4::Tcp)
}

fn number(header: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*header.get(at..)?.first_chunk::<4>()?))
}

/// Replaces the number at `at`, which is anywhere in the header; gives the new one.
fn map(delta: &mut Delta, header: &mut [u8], at: usize, to: impl Fn(u32) -> u32) -> Option<u32> {
    let new = to(number(header, at)?);
    delta.replace_anywhere(header, at, &new.to_be_bytes())?;
    Some(new)
}

/// Sequence and acknowledgment number of a segment of `flow`. `None`: not TCP.
pub fn numbers<A>(frame: &[u8], flow: &Flow<A>) -> Option<(u32, u32)> {
    let header = frame.get(usize::from(flow.l4)..).filter(|_| flow.protocol == L4::Tcp)?;
    Some((number(header, 4)?, number(header, 8)?))
}

/// Adds `n` to the sequence number of a segment of `flow` and updates its checksum. `false`: not TCP, unchanged.
pub fn shift<A>(frame: &mut [u8], flow: &Flow<A>, n: u32) -> bool {
    let Some(header) = header_of(frame, flow) else { return false };
    let mut delta = Delta::default();
    map(&mut delta, header, 4, |seq| seq.wrapping_add(n)).is_some() && delta.apply(header, 16).is_some()
}

fn acknowledge(header: &mut [u8], to: impl Fn(u32) -> u32) -> Option<()> {
    let mut delta = Delta::default();
    map(&mut delta, header, 8, &to)?;
    let found = options::all(header).find(|(_, kind, _)| *kind == SACK);
    if let Some((at, _, len)) = found {
        let mut is_empty = false;
        for block in (at + 2..).step_by(8).take((len - 2) / 8) {
            let left = map(&mut delta, header, block, &to)?;
            is_empty |= left == map(&mut delta, header, block + 4, &to)?;
        }
        // a block of nothing but what was put in: SACK is advice, and the next one says what is still true of it
        for place in (at..at + len).filter(|_| is_empty) {
            delta.replace_anywhere(header, place, &[NOP])?;
        }
    }
    delta.apply(header, 16).map(|_| ())
}

/// Replaces what a segment of `flow` acknowledges, in SACK blocks too, by what `to` makes of it, and updates its
/// checksum; a block that becomes empty takes its option with it. `false`: nothing is acknowledged, unchanged.
pub fn map_acks<A>(frame: &mut [u8], flow: &Flow<A>, to: impl Fn(u32) -> u32) -> bool {
    flow.tcp_flags.any(TcpFlags::ACK)
        && header_of(frame, flow).is_some_and(|header| acknowledge(header, to).is_some())
}

/// Lowers the window of a SYN of `flow`, which is never scaled (RFC 7323 section 2.2), by `n` bytes, and updates its
/// checksum. `false`: not TCP, unchanged.
pub fn narrow<A>(frame: &mut [u8], flow: &Flow<A>, n: u16) -> bool {
    let Some(header) = header_of(frame, flow) else { return false };
    let mut delta = Delta::default();
    let Some(old) = header.get(14..).and_then(|tail| tail.first_chunk::<2>()) else { return false };
    let new = u16::from_be_bytes(*old).saturating_sub(n);
    delta.replace16(header, 14, new).is_some() && delta.apply(header, 16).is_some()
}

/// What a SYN of `flow` offers: 536 or 1220 bytes where it names no segment size (RFC 9293 section 3.7.1). `None`: not
/// TCP, or cut short.
pub fn offer<A: super::Address>(frame: &[u8], flow: &Flow<A>) -> Option<Offer> {
    let segment = frame.get(usize::from(flow.l4)..).filter(|_| flow.protocol == L4::Tcp)?;
    let header = segment.get(..usize::from(*segment.get(12)? >> 4) * 4)?;
    let mut offer = Offer { mss: if A::CHECKSUM.is_some() { 536 } else { 1220 }, scale: None, sack: false };
    for (at, kind, len) in options::all(header) {
        match (kind, len) {
            (2, 4) => offer.mss = u16::from_be_bytes(*header.get(at + 2..)?.first_chunk::<2>()?),
            // RFC 7323 section 2.3: 14 at most
            (3, 3) => offer.scale = Some((*header.get(at + 2)?).min(14)),
            (4, 2) => offer.sack = true,
            _ => {}
        }
    }
    Some(offer)
}

/// The window of a segment of `flow`, as it is in its header. `None`: not TCP.
pub fn window<A>(frame: &[u8], flow: &Flow<A>) -> Option<u16> {
    let header = frame.get(usize::from(flow.l4)..).filter(|_| flow.protocol == L4::Tcp)?;
    Some(u16::from_be_bytes(*header.get(14..)?.first_chunk::<2>()?))
}

/// Shifts the window of a segment of `flow` left, or right where `shift` is negative, and updates its checksum; one
/// that is too large becomes the largest, one that is open stays so. `false`: not TCP, unchanged.
pub fn rescale<A>(frame: &mut [u8], flow: &Flow<A>, shift: i8) -> bool {
    if shift == 0 {
        return true;
    }
    let Some(old) = window(frame, flow) else { return false };
    let Some(header) = header_of(frame, flow) else { return false };
    let bytes = u32::from(old);
    let amount = u32::from(shift.unsigned_abs()).min(16);
    let new = if shift > 0 { (bytes << amount).min(u16::MAX.into()) } else { bytes >> amount };
    let mut delta = Delta::default();
    delta.replace16(header, 14, new.max(u32::from(old > 0)) as u16).is_some()
        && delta.apply(header, 16).is_some()
}

/// Sets the push flag of a segment of `flow` and updates its checksum. `false`: not TCP, unchanged.
pub fn push<A>(frame: &mut [u8], flow: &Flow<A>) -> bool {
    let Some(header) = header_of(frame, flow) else { return false };
    let mut delta = Delta::default();
    let Some(&[offset, flags]) = header.get(12..).and_then(|tail| tail.first_chunk::<2>()) else {
        return false;
    };
    delta.replace(header, 12, &[offset, flags | PUSH]).is_some() && delta.apply(header, 16).is_some()
}

#[cfg(test)]
mod tests;
