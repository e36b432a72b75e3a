//! Fragments find the connection of their datagram.
//!
//! Only the first fragment carries ports. All fragments of a datagram go to one worker, the datagram's
//! ([`owner`]), which follows from what each of them carries. It learns the ports from the first one and holds what
//! comes before that ([`Datagrams`], [`Release::Early`]); then each goes on to the worker that owns the flow, as
//! whole packets do, with the flow written into the frame ([`mark`]). That worker waits until it has them all
//! ([`Release::Whole`]) and sends them on as they came. A worker that is alone, or both, needs the second step only.
//!
//! Invariant: of a datagram nothing goes on before its first fragment, and nothing after two of its fragments
//! overlapped (RFC 5722). Limits: bounded numbers of datagrams and of frames that wait; when one is reached the
//! oldest give way.

mod datagrams;

use std::net::IpAddr;

use crate::conn::HashKey;
use crate::io::WorkerId;
use crate::parse::Fragment;
use crate::steer;
use crate::wire::L4;
use crate::wire::udp::Ports;

pub use datagrams::{Datagrams, Limits, MAX_PARTS, Ready, Release};

/// The flow of a datagram, as its first fragment tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Protocol.
    pub protocol: L4,
    /// Ports.
    pub ports: Ports,
}

/// The worker that finds out the flow of this fragment: the same for all fragments of a datagram.
#[inline]
pub fn owner<A: Copy + Into<IpAddr>>(fragment: &Fragment<A>, workers: u16, key: &HashKey) -> WorkerId {
    steer::owner(fragment.src.into(), (fragment.id ^ fragment.id >> 16) as u16, workers, key)
}

/// First byte of a marked frame: a group address of local administration (IEEE 802). A frame that is handed over
/// unmarked was sent to a station, the director, and has the group bit unset.
const MARK: u8 = 0x03;

/// Writes the flow into the frame of a fragment, in place of the MAC address that it was sent to.
///
/// For the way from one worker to another, between which a frame alone travels. `false`: no Ethernet header.
pub fn mark(frame: &mut [u8], resolved: &Resolved) -> bool {
    let Some(destination) = frame.first_chunk_mut::<6>() else { return false };
    let ([a, b], [c, d]) = (resolved.ports.src.to_be_bytes(), resolved.ports.dst.to_be_bytes());
    *destination = [MARK, resolved.protocol as u8, a, b, c, d];
    true
}

/// The flow that another worker wrote into the frame of a fragment; puts the director's own MAC address back.
///
/// Only for fragments that were handed over: what comes from a device can look like a marked one. `None`: not
/// marked, unchanged.
pub fn unmark(frame: &mut [u8], own: [u8; 6]) -> Option<Resolved> {
    let destination = frame.first_chunk_mut::<6>()?;
    let [MARK, protocol, a, b, c, d] = *destination else { return None };
    let protocol = L4::of(protocol)?;
    *destination = own;
    Some(Resolved { protocol, ports: Ports::of([a, b, c, d]) })
}

#[cfg(test)]
mod tests;
