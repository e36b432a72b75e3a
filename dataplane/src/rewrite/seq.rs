//! Sequence numbers of a TCP connection into which bytes were put.
//!
//! What the client sends from then on is numbered higher by as much; what the server acknowledges, in SACK blocks
//! (RFC 2018 section 3) too, is numbered lower before it goes back.

use super::address::Delta;
use super::options;
use crate::parse::{Flow, L4, TcpFlags};

/// RFC 2018 section 3: SACK blocks of two edges each.
const SACK: u8 = 5;

/// What is added to the numbers of a segment, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// To the sequence number: towards the server what was put in.
    pub seq: u32,
    /// To the acknowledgment number and SACK blocks: towards the client minus what was put in.
    pub ack: u32,
}

/// Adds to the number at `at`, which is anywhere in the header.
fn add(delta: &mut Delta, header: &mut [u8], at: usize, n: u32) -> Option<()> {
    let old = u32::from_be_bytes(*header.get(at..)?.first_chunk::<4>()?);
    delta.replace_anywhere(header, at, &old.wrapping_add(n).to_be_bytes())
}

fn rewrite<A>(frame: &mut [u8], flow: &Flow<A>, by: Shift) -> Option<()> {
    let header = options::header(frame, usize::from(flow.l4)).filter(|_| flow.protocol == L4::Tcp)?;
    let mut delta = Delta::default();
    add(&mut delta, header, 4, by.seq)?;
    if by.ack != 0 && flow.tcp_flags.any(TcpFlags::ACK) {
        add(&mut delta, header, 8, by.ack)?;
        let found = options::all(header).find(|(_, kind, _)| *kind == SACK);
        if let Some((at, _, len)) = found {
            for edge in (at + 2..).step_by(4).take((len - 2) / 4) {
                add(&mut delta, header, edge, by.ack)?;
            }
        }
    }
    delta.apply(header, 16).map(|_| ())
}

/// Shifts the numbers of a segment of `flow` and updates its checksum. `false`: not TCP, unchanged.
pub fn shift<A>(frame: &mut [u8], flow: &Flow<A>, by: Shift) -> bool {
    rewrite(frame, flow, by).is_some()
}

#[cfg(test)]
mod tests;
