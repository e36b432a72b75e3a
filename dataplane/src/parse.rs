//! The first step of the packet path: what a frame is.
//!
//! One pass over the headers of Ethernet, 802.1Q, ARP, IPv4, IPv6, ICMP, neighbour discovery, TCP, UDP and SCTP, each in
//! its file under [`wire`]. Invariant: any bytes give a [`Parsed`] or a [`DropReason`]; offsets in
//! `Parsed` are inside the frame. Limits: checksums of TCP, UDP and SCTP are not verified, because with direct routing
//! the packet reaches the server as it came and the server verifies them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::DropReason;
use crate::state::{self, Event};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::{self, Ip, PROTOCOL_ICMP, PROTOCOL_ICMP6, ipv4, ipv6, sctp, tcp, udp};

mod fragment;

pub use crate::wire::L4;
pub use crate::wire::arp::Arp;
pub use crate::wire::icmp::{Icmp, Inner};
pub use crate::wire::nd::{Advert, Nd, Solicit};
pub use crate::wire::tcp::TcpFlags;
pub use fragment::{Fragment, Head};

/// A frame that passed every check of its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// VLAN identifier; 0: untagged or priority-tagged.
    pub vlan: u16,
    /// Offset of the IP or ARP header from the start of the frame, bytes: 14 or 18.
    pub l3: u16,
    /// What the frame carries.
    pub net: Net,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// TCP, UDP or SCTP over IPv4.
    Flow4(Flow<Ipv4Addr>),
    /// TCP, UDP or SCTP over IPv6.
    Flow6(Flow<Ipv6Addr>),
    /// A fragment of TCP, UDP or SCTP over IPv4.
    Fragment4(Fragment<Ipv4Addr>),
    /// A fragment of TCP, UDP or SCTP over IPv6.
    Fragment6(Fragment<Ipv6Addr>),
    /// ARP for Ethernet and IPv4.
    Arp(Arp),
    /// ICMP; kinds that the director does not act upon have not been verified.
    Icmp4(Icmp<Ipv4Addr>),
    /// ICMPv6 without neighbour discovery; kinds that the director does not act upon have not been verified.
    Icmp6(Icmp<Ipv6Addr>),
    /// A valid neighbour solicitation or advertisement.
    Nd(Nd),
    /// IPv4 with another protocol.
    Other4 {
        /// Source address.
        src: Ipv4Addr,
        /// Destination address.
        dst: Ipv4Addr,
        /// IANA protocol number.
        protocol: u8,
    },
    /// IPv6 with another protocol behind its extension headers.
    Other6 {
        /// Source address.
        src: Ipv6Addr,
        /// Destination address.
        dst: Ipv6Addr,
        /// IANA protocol number.
        protocol: u8,
    },
}

impl Net {
    /// Where an IP packet goes; `None`: it is ARP or neighbour discovery, which have rules of their own.
    #[inline]
    pub fn destination(&self) -> Option<IpAddr> {
        Some(match self {
            Self::Flow4(flow) => flow.dst.into(),
            Self::Flow6(flow) => flow.dst.into(),
            Self::Fragment4(part) => part.dst.into(),
            Self::Fragment6(part) => part.dst.into(),
            Self::Icmp4(icmp) => icmp.dst.into(),
            Self::Icmp6(icmp) => icmp.dst.into(),
            Self::Other4 { dst, .. } => (*dst).into(),
            Self::Other6 { dst, .. } => (*dst).into(),
            Self::Arp(_) | Self::Nd(_) => return None,
        })
    }
}

/// A packet of TCP, UDP or SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: L4,
    /// The TCP control bits; 0 for UDP and SCTP.
    pub tcp_flags: TcpFlags,
    /// What it means to the state of its connection.
    pub event: Event,
    /// Offset of the TCP, UDP or SCTP header from the start of the frame, bytes.
    pub l4: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whole IP packet, header included, bytes.
    pub ip_len: u16,
    /// Routers may not fragment it: IPv4's DF bit, always for IPv6.
    pub df: bool,
}

impl<A: Copy> Flow<A> {
    /// Whether it is the first segment of a TCP handshake.
    #[inline]
    pub(crate) fn is_syn(&self) -> bool {
        self.tcp_flags.0 & (TcpFlags::SYN.0 | TcpFlags::ACK.0 | TcpFlags::RST.0) == TcpFlags::SYN.0
    }

    /// Reads the TCP, UDP or SCTP header in `payload`; `l3` is the offset of the IP header in the frame.
    #[inline(always)]
    pub(crate) fn parse(ip: &Ip<A>, l3: u16, protocol: L4, payload: &[u8]) -> Result<Self, DropReason> {
        let none = TcpFlags::default();
        let (ports, tcp_flags, event) = match protocol {
            L4::Tcp => {
                tcp::parse(payload).map(|(ports, flags)| (ports, flags, state::tcp::event(flags.0)))?
            }
            L4::Udp => (udp::parse(payload)?, none, Event::default()),
            L4::Sctp => sctp::parse(payload).map(|(ports, kind)| (ports, none, state::sctp::event(kind)))?,
        };
        Ok(Flow {
            src: ip.src,
            dst: ip.dst,
            src_port: ports.src,
            dst_port: ports.dst,
            protocol,
            tcp_flags,
            event,
            l4: l3 + ip.header_len,
            ttl: ip.ttl,
            ip_len: ip.ip_len,
            df: ip.df,
        })
    }
}

/// Whether the Ethernet destination of a frame is a group.
fn is_to_group(frame: &[u8]) -> bool {
    ethernet::destination(frame).is_some_and(|mac| ethernet::is_group(&mac))
}

/// The header of the IPv4 packet at the front of `packet`, and its payload without padding.
#[inline(always)]
fn split4(packet: &[u8]) -> Result<(Ip<Ipv4Addr>, &[u8]), DropReason> {
    let ip = ipv4::parse(packet)?;
    let payload = packet.get(usize::from(ip.header_len)..usize::from(ip.ip_len));
    Ok((ip, payload.ok_or(DropReason::Ipv4TotalLength)?))
}

/// The headers of the IPv6 packet at the front of `packet`, and its payload without padding.
#[inline(always)]
fn split6(packet: &[u8]) -> Result<(Ip<Ipv6Addr>, &[u8]), DropReason> {
    let ip = ipv6::parse(packet)?;
    let payload = packet.get(usize::from(ip.header_len)..usize::from(ip.ip_len));
    Ok((ip, payload.ok_or(DropReason::Ipv6PayloadLength)?))
}

/// An IPv4 packet that is neither TCP, UDP nor SCTP.
///
/// Reads the header anew: if [`parse`] lent it out, it would have to live in memory for TCP and UDP too (measured on
/// a 64-byte TCP frame: 21 ns against 13).
#[inline(never)]
fn other4(frame: &[u8], packet: &[u8], ethernet: Ethernet) -> Result<Parsed, DropReason> {
    let Ethernet { vlan, l3, .. } = ethernet;
    let (ip, payload) = split4(packet)?;
    if ip.protocol != PROTOCOL_ICMP {
        return Ok(Parsed { vlan, l3, net: Net::Other4 { src: ip.src, dst: ip.dst, protocol: ip.protocol } });
    }
    let icmp = wire::icmp::parse4(&ip, l3, payload)?;
    // a frame to a group with a unicast packet carries a subnet's broadcast, or misleads
    if icmp.is_echo_request() && (is_to_group(frame) || ip.dst.is_multicast() || ip.dst.is_broadcast()) {
        return Err(DropReason::IcmpEchoBroadcast);
    }
    Ok(Parsed { vlan, l3, net: Net::Icmp4(icmp) })
}

/// An IPv6 packet that is neither TCP, UDP nor SCTP; reads the header anew as [`other4`] does.
#[inline(never)]
fn other6(frame: &[u8], packet: &[u8], ethernet: Ethernet) -> Result<Parsed, DropReason> {
    use wire::nd::{ADVERTISEMENT, ROUTER_SOLICITATION, SOLICITATION};
    let Ethernet { vlan, l3, .. } = ethernet;
    let (ip, payload) = split6(packet)?;
    let kind = payload.first().copied().filter(|_| ip.protocol == PROTOCOL_ICMP6);
    if ip.src.is_unspecified() && !matches!(kind, Some(SOLICITATION | ROUTER_SOLICITATION)) {
        return Err(DropReason::Ipv6Source);
    }
    if ip.protocol != PROTOCOL_ICMP6 {
        return Ok(Parsed { vlan, l3, net: Net::Other6 { src: ip.src, dst: ip.dst, protocol: ip.protocol } });
    }
    if matches!(kind, Some(SOLICITATION | ADVERTISEMENT)) {
        return Ok(Parsed { vlan, l3, net: Net::Nd(wire::nd::parse(&ip, payload)?) });
    }
    let icmp = wire::icmp::parse6(&ip, l3, payload)?;
    if icmp.is_echo_request() && (is_to_group(frame) || ip.dst.is_multicast()) {
        return Err(DropReason::IcmpEchoBroadcast);
    }
    Ok(Parsed { vlan, l3, net: Net::Icmp6(icmp) })
}

/// Any IPv6 packet; a function of its own so that IPv4 need not save the registers that it takes.
#[inline(never)]
fn net6(frame: &[u8], packet: &[u8], ethernet: Ethernet) -> Result<Parsed, DropReason> {
    let (ip, payload) = match split6(packet) {
        Ok(parts) => parts,
        Err(reason) => return fragment::parse6(packet, ethernet, reason),
    };
    let Some(protocol) = L4::of(ip.protocol) else { return other6(frame, packet, ethernet) };
    if ip.src.is_unspecified() {
        return Err(DropReason::Ipv6Source);
    }
    let flow = Flow::parse(&ip, ethernet.l3, protocol, payload)?;
    Ok(Parsed { vlan: ethernet.vlan, l3: ethernet.l3, net: Net::Flow6(flow) })
}

/// A frame that is not IP.
#[inline(never)]
fn not_ip(packet: &[u8], ethernet: Ethernet) -> Result<Parsed, DropReason> {
    match ethernet.ethertype {
        ethernet::ETHERTYPE_ARP => {
            Ok(Parsed { vlan: ethernet.vlan, l3: ethernet.l3, net: Net::Arp(wire::arp::parse(packet)?) })
        }
        _ => Err(DropReason::EtherTypeUnsupported),
    }
}

/// What `frame`, from its Ethernet header on and without FCS, is.
///
/// Errors: the reason why it must be dropped. Bytes behind the IP packet (Ethernet's padding) do not matter.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
    // every branch makes a whole `Parsed`: one that is put together from parts is copied on the way
    let ethernet = ethernet::parse(frame)?;
    let packet = frame.get(usize::from(ethernet.l3)..).unwrap_or_default();
    match ethernet.ethertype {
        ethernet::ETHERTYPE_IPV4 => {
            let (ip, payload) = match split4(packet) {
                Ok(parts) => parts,
                Err(reason) => return fragment::parse4(packet, ethernet, reason),
            };
            let Some(protocol) = L4::of(ip.protocol) else { return other4(frame, packet, ethernet) };
            let flow = Flow::parse(&ip, ethernet.l3, protocol, payload)?;
            Ok(Parsed { vlan: ethernet.vlan, l3: ethernet.l3, net: Net::Flow4(flow) })
        }
        ethernet::ETHERTYPE_IPV6 => net6(frame, packet, ethernet),
        _ => not_ip(packet, ethernet),
    }
}

#[cfg(test)]
mod tests;
