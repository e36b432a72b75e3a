//! TOA: a client's address in a TCP option, for a server that sees the director's address instead (full NAT).
//!
//! The option is that of Alibaba's TOA module and of DPVS: kind 254 (RFC 4727: for experiments), then length, the
//! client's port and its address in wire order. A client could send one of its own and be taken for another, so
//! whatever comes from a client is stripped, whether or not there is room for the true one.

use std::net::IpAddr;

use super::address::Delta;
use super::insert::insert;
use super::options::{self, NOP};
use crate::io::Packet;
use crate::parse::{Flow, L4};

/// The option's kind.
const KIND: u8 = 254;
/// Its length with an IPv4 and an IPv6 address, bytes.
const LEN: [usize; 2] = [8, 20];
/// Longest TCP header, bytes (RFC 9293 section 3.1).
const MAX_HEADER: usize = 60;

/// What came of [`insert_option`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toa {
    /// The option is there: the packet is this many bytes longer, its `ip_len` too.
    Inserted(u16),
    /// The options leave no room, or the packet would not fit the link any more.
    NoRoom,
}

/// Blanks whatever the client calls TOA, and updates the checksum. `true`: there was something.
pub fn strip<A>(frame: &mut [u8], flow: &Flow<A>) -> bool {
    if flow.protocol != L4::Tcp {
        return false;
    }
    let Some(header) = options::header(frame, usize::from(flow.l4)) else { return false };
    let mut stripped = false;
    // the list keeps its shape but for what is blanked: the next look goes past it
    loop {
        let found = options::all(header).find(|(_, kind, _)| *kind == KIND);
        let Some((at, _, len)) = found else { return stripped };
        let mut delta = Delta::default();
        for place in at..at + len {
            if delta.replace_anywhere(header, place, &[NOP]).is_none() {
                return stripped;
            }
        }
        if delta.apply(header, 16).is_none() {
            return stripped;
        }
        stripped = true;
    }
}

/// The option for `client`.
fn option((address, port): (IpAddr, u16)) -> ([u8; LEN[1]], usize) {
    let mut option = [0; LEN[1]];
    let len = LEN[usize::from(address.is_ipv6())];
    option[0] = KIND;
    option[1] = len as u8;
    option[2..4].copy_from_slice(&port.to_be_bytes());
    match address {
        IpAddr::V4(v4) => option[4..8].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => option[4..].copy_from_slice(&v6.octets()),
    }
    (option, len)
}

/// Tells the server of a segment of `flow`, whose IP header is at `l3`, its client's address and port.
///
/// The option goes before all others; checksums are updated. `mtu`: of the link to the server. What a client sent
/// as TOA is to be stripped before ([`strip`]). Afterwards offsets up to the TCP header are as before.
pub fn insert_option<A, P: Packet>(
    packet: &mut P,
    l3: u16,
    flow: &Flow<A>,
    client: (IpAddr, u16),
    mtu: u16,
) -> Toa {
    let (option, len) = option(client);
    let Some(option) = option.get(..len) else { return Toa::NoRoom };
    match put(packet, usize::from(l3), flow, option, mtu) {
        Some(()) => Toa::Inserted(len as u16),
        None => Toa::NoRoom,
    }
}

fn put<A, P: Packet>(packet: &mut P, l3: usize, flow: &Flow<A>, option: &[u8], mtu: u16) -> Option<()> {
    let l4 = usize::from(flow.l4);
    let header_len = options::header(packet.bytes_mut(), l4)?.len();
    let fits = usize::from(flow.ip_len) + option.len() <= usize::from(mtu);
    if flow.protocol != L4::Tcp || header_len + option.len() > MAX_HEADER || !fits {
        return None;
    }
    let mut delta = insert(packet, l3, l4 + crate::wire::tcp::HEADER_LEN, option)?;
    let segment = packet.bytes_mut().get_mut(l4..)?;
    let [offset, flags] = *segment.get(12..)?.first_chunk::<2>()?;
    delta.replace(segment, 12, &[offset + ((option.len() as u8 / 4) << 4), flags])?;
    delta.apply(segment, 16).map(|_| ())
}

#[cfg(test)]
mod tests;
