//! Fragments of balanced protocols. All of this is off the path of whole packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Flow, Net, Parsed, TcpFlags};
use crate::DropReason;
use crate::state::Event;
use crate::wire::ethernet::Ethernet;
use crate::wire::udp::{self, Ports};
use crate::wire::{Ip, L4, Piece, ipv4, ipv6, tcp};

/// A fragment of a TCP, UDP or SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification: equal for all fragments of a datagram.
    pub id: u32,
    /// What the header names: the protocol of an IPv4 packet and of a first fragment. Of a later IPv6 fragment it
    /// may be an extension header and means nothing (RFC 8200 section 4.5).
    pub protocol: u8,
    /// Where it begins in its datagram, bytes; 0: it is the first one.
    pub offset: u16,
    /// What it carries of its datagram, bytes.
    pub len: u16,
    /// Whether more follow.
    pub more: bool,
    /// The transport header, of the first fragment alone.
    pub head: Option<Head>,
    /// Offset of what it carries, for the first one of the transport header, from the start of the frame, bytes.
    pub l4: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whole IP packet, header included, bytes.
    pub ip_len: u16,
    /// Routers may not fragment it: IPv4's DF bit, always for IPv6.
    pub df: bool,
}

/// What a first fragment says of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Protocol.
    pub protocol: L4,
    /// Ports.
    pub ports: Ports,
    /// The TCP control bits; 0 for UDP and SCTP.
    pub tcp_flags: TcpFlags,
    /// What it means to the state of its connection.
    pub event: Event,
}

impl<A: Copy> Fragment<A> {
    /// The fragment as a packet of its flow, whose protocol and ports the first fragment has told.
    ///
    /// Of a later fragment flags and event say nothing: it is no packet of its own to the state of a connection.
    pub fn flow(&self, protocol: L4, ports: Ports) -> Flow<A> {
        let (tcp_flags, event) = self.head.map(|head| (head.tcp_flags, head.event)).unwrap_or_default();
        Flow {
            src: self.src,
            dst: self.dst,
            src_port: ports.src,
            dst_port: ports.dst,
            protocol,
            tcp_flags,
            event,
            l4: self.l4,
            ttl: self.ttl,
            ip_len: self.ip_len,
            df: self.df,
        }
    }
}

/// The transport header of a first fragment, which must hold all of it (RFC 1858 section 3, RFC 7112 section 5).
fn head<A: Copy>(ip: &Ip<A>, l3: u16, protocol: L4, payload: &[u8]) -> Result<Head, DropReason> {
    let tiny = |_| DropReason::FragmentTiny;
    if protocol == L4::Udp {
        // the datagram is longer than what is here
        let bytes = payload.first_chunk::<{ udp::HEADER_LEN }>().ok_or(DropReason::FragmentTiny)?;
        let ports = Ports::of([bytes[0], bytes[1], bytes[2], bytes[3]]);
        return Ok(Head { protocol, ports, tcp_flags: TcpFlags::default(), event: Event::default() });
    }
    let flow = Flow::parse(ip, l3, protocol, payload).map_err(tiny)?;
    let ports = Ports { src: flow.src_port, dst: flow.dst_port };
    Ok(Head { protocol, ports, tcp_flags: flow.tcp_flags, event: flow.event })
}

/// `other`: what a fragment of a protocol that is not balanced is refused as.
fn fragment<A: Copy>(
    (ip, piece): (Ip<A>, Piece),
    packet: &[u8],
    ethernet: Ethernet,
    other: DropReason,
) -> Result<Fragment<A>, DropReason> {
    let protocol = L4::of(ip.protocol);
    let head = match (piece.offset, protocol) {
        (0, Some(protocol)) => {
            let payload = packet.get(usize::from(ip.header_len)..usize::from(ip.ip_len));
            Some(head(&ip, ethernet.l3, protocol, payload.unwrap_or_default())?)
        }
        (0, None) => return Err(other),
        // a first fragment holds the whole header, and fragments are cut at multiples of 8
        (offset, Some(L4::Tcp)) if (offset as usize) < tcp::HEADER_LEN => {
            return Err(DropReason::FragmentTiny);
        }
        // behind which one of IPv6 may be any protocol: the first fragment knows
        (_, None) if !(other == DropReason::Ipv6Fragment && ipv6::is_extension(ip.protocol)) => {
            return Err(other);
        }
        _ => None,
    };
    Ok(Fragment {
        src: ip.src,
        dst: ip.dst,
        id: piece.id,
        protocol: ip.protocol,
        offset: piece.offset as u16,
        len: piece.len,
        more: piece.more,
        head,
        l4: ethernet.l3 + ip.header_len,
        ttl: ip.ttl,
        ip_len: ip.ip_len,
        df: ip.df,
    })
}

/// An IPv4 packet that was refused for `reason`: if that is that it is a fragment, what it is.
#[cold]
#[inline(never)]
pub(super) fn parse4(packet: &[u8], ethernet: Ethernet, reason: DropReason) -> Result<Parsed, DropReason> {
    if reason != DropReason::Ipv4Fragment {
        return Err(reason);
    }
    let part = fragment::<Ipv4Addr>(ipv4::parse_fragment(packet)?, packet, ethernet, reason)?;
    Ok(Parsed { vlan: ethernet.vlan, l3: ethernet.l3, net: Net::Fragment4(part) })
}

/// An IPv6 packet that was refused for `reason`: if that is that it is a fragment, what it is.
#[cold]
#[inline(never)]
pub(super) fn parse6(packet: &[u8], ethernet: Ethernet, reason: DropReason) -> Result<Parsed, DropReason> {
    if reason != DropReason::Ipv6Fragment {
        return Err(reason);
    }
    let (ip, piece) = ipv6::parse_fragment(packet)?;
    if ip.src.is_unspecified() {
        return Err(DropReason::Ipv6Source);
    }
    let part = fragment::<Ipv6Addr>((ip, piece), packet, ethernet, reason)?;
    Ok(Parsed { vlan: ethernet.vlan, l3: ethernet.l3, net: Net::Fragment6(part) })
}
