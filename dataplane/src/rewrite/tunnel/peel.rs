//! ICMP errors about a tunnel: the outer packet that they quote is the director's, the inner one a client's.
//!
//! As IPVS does, the error is sent on to the client as if the way through the tunnel were its own: without the outer
//! headers, from the virtual address, with the MTU that fits into the tunnel. Beyond IPVS, which knows IPv4 in IPv4
//! alone, every pair of families; across families the kinds are mapped. Limits: routers that quote no more than 8
//! bytes behind the outer header (RFC 792) do not quote the inner packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Encap, GRE_LEN, GUE_LEN, PROTOCOL_GRE, PROTOCOL_IPIP, PROTOCOL_IPV6, TunnelKind, UDP_LEN};
use crate::io::Packet;
use crate::parse::{Icmp, Inner, L4, Net, Parsed};
use crate::rewrite::Address;
use crate::wire::udp::Ports;
use crate::wire::{Ip, PROTOCOL_ICMP, PROTOCOL_ICMP6, PROTOCOL_UDP, checksum, ethernet, icmp, ipv4, ipv6};

/// Longest IPv4 packet with an error, bytes (RFC 1812 section 4.3.2.3: what every host takes).
const MAX_PACKET4: usize = 576;
/// Longest IPv6 packet with an error, bytes (RFC 4443 section 2.4 (c): the minimum MTU).
const MAX_PACKET6: usize = 1280;
/// RFC 1812 section 4.3.2.5: internetwork control; and the bits of the original that Linux keeps below it.
const TOS: (u8, u8) = (0xc0, 0x1e);
/// What IPVS leaves to an IPv4 packet at least, bytes (RFC 791).
const MIN_MTU4: u16 = 68;
/// RFC 4443 section 3.1: no route to destination, address unreachable.
const NO_ROUTE6: u8 = 0;
const ADDRESS_UNREACHABLE6: u8 = 3;
/// RFC 792: net unreachable, host unreachable.
const NET_UNREACHABLE4: u8 = 0;
const HOST_UNREACHABLE4: u8 = 1;

/// The inner packet that an error quotes, as its client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Of IPv4.
    V4(Inner<Ipv4Addr>),
    /// Of IPv6.
    V6(Inner<Ipv6Addr>),
}

/// How the quoted packet is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// IP in IP.
    Ipip,
    /// GUE to this port.
    Gue(u16),
    /// GRE.
    Gre,
}

impl Wrap {
    /// Whether a tunnel of this kind wraps so.
    pub fn is_of(self, kind: &TunnelKind) -> bool {
        match (self, kind) {
            (Wrap::Ipip, TunnelKind::Ipip) | (Wrap::Gre, TunnelKind::Gre { .. }) => true,
            (Wrap::Gue(to), TunnelKind::Gue { port, .. }) => to == *port,
            _ => false,
        }
    }
}

/// What an ICMP error about a tunnel is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeled {
    /// Outer source: one of the director's addresses, or the packet is not ours.
    pub local: IpAddr,
    /// Outer destination: the real server.
    pub remote: IpAddr,
    /// How it is wrapped.
    pub wrap: Wrap,
    /// The flow inside, from client to virtual address: the key of its connection.
    pub client: Client,
    /// What fits into the tunnel by this error, bytes of an IP packet; `None`: the error is not about the size.
    pub mtu: Option<u16>,
    /// What is sent on: type, code, second word. `None`: nothing, the client has nothing to learn.
    message: Option<(u8, u8, u32)>,
    /// Offset of the quoted inner packet in the frame.
    inner: usize,
    /// Where the quote ends.
    end: usize,
    tos: u8,
}

impl Peeled {
    /// Whether the quoted packet can have come out of this tunnel.
    pub fn is_of(&self, encap: &Encap) -> bool {
        let has = |at: usize, bytes: &[u8]| encap.head.get(at..).is_some_and(|head| head.starts_with(bytes));
        let same_ends = match (self.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                !encap.outer_v6 && has(Ipv4Addr::SRC, &local.octets()) && has(Ipv4Addr::DST, &remote.octets())
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                encap.outer_v6 && has(Ipv6Addr::SRC, &local.octets()) && has(Ipv6Addr::DST, &remote.octets())
            }
            _ => false,
        };
        same_ends && self.wrap.is_of(&encap.kind)
    }
}

/// Length of the shim behind the outer IP header and the wrap. `None`: not one of ours.
fn shim(protocol: u8, rest: &[u8]) -> Option<(usize, Wrap)> {
    match protocol {
        PROTOCOL_IPIP | PROTOCOL_IPV6 => Some((0, Wrap::Ipip)),
        PROTOCOL_UDP => {
            let header = rest.first_chunk::<{ UDP_LEN + GUE_LEN }>()?;
            // version 0, no control message, options by their length
            let options = usize::from(header[UDP_LEN] & 0x1f) * 4;
            (header[UDP_LEN] & 0xe0 == 0).then_some((
                UDP_LEN + GUE_LEN + options,
                Wrap::Gue(u16::from_be_bytes([header[2], header[3]])),
            ))
        }
        PROTOCOL_GRE => match rest.first_chunk::<2>()? {
            [flags @ (0 | 0x80), 0] => Some((GRE_LEN[usize::from(*flags >> 7)], Wrap::Gre)),
            _ => None,
        },
        _ => None,
    }
}

fn flow<A>((ip, rest): (Ip<A>, &[u8])) -> Option<Inner<A>> {
    let protocol = L4::of(ip.protocol)?;
    let ports = Ports::of(*rest.first_chunk::<4>()?);
    Some(Inner { src: ip.src, dst: ip.dst, src_port: ports.src, dst_port: ports.dst, protocol })
}

/// The inner packet of a quote: its flow, traffic class, and whether a client that sent it wants to know about sizes.
fn client(quote: &[u8]) -> Option<(Client, u8, bool)> {
    let header = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    match header[0] >> 4 {
        4 => Some((Client::V4(flow(ipv4::parse_quoted(quote)?)?), header[1], header[6] & 0x40 != 0)),
        _ => Some((Client::V6(flow(ipv6::parse_quoted(quote)?)?), header[0] << 4 | header[1] >> 4, true)),
    }
}

/// Kind and code for a client of the other family than the outer packet. Beside RFC 2473 section 8, which would
/// make everything unreachable, a TTL that ran out stays one: the outer packet carries the client's own.
fn mapped(outer_v6: bool, kind: u8, code: u8) -> Option<(u8, u8)> {
    use icmp::*;
    match (outer_v6, kind, code) {
        (false, UNREACHABLE4, FRAGMENTATION_NEEDED4) => Some((PACKET_TOO_BIG6, 0)),
        (false, UNREACHABLE4, NET_UNREACHABLE4) => Some((UNREACHABLE6, NO_ROUTE6)),
        (false, UNREACHABLE4, _) => Some((UNREACHABLE6, ADDRESS_UNREACHABLE6)),
        (false, TIME_EXCEEDED4, _) => Some((TIME_EXCEEDED6, 0)),
        (true, PACKET_TOO_BIG6, _) => Some((UNREACHABLE4, FRAGMENTATION_NEEDED4)),
        (true, UNREACHABLE6, NO_ROUTE6) => Some((UNREACHABLE4, NET_UNREACHABLE4)),
        (true, UNREACHABLE6, _) => Some((UNREACHABLE4, HOST_UNREACHABLE4)),
        (true, TIME_EXCEEDED6, _) => Some((TIME_EXCEEDED4, 0)),
        _ => None,
    }
}

/// Reads the quote of an error at `quote` to `end`, whose outer packet is `ip` with `rest` behind its header.
fn read<A: Copy + Into<IpAddr>>(
    frame: &[u8],
    error: &Icmp<A>,
    (quote, end): (usize, usize),
    (ip, rest): (Ip<A>, &[u8]),
) -> Option<Peeled> {
    let (shim_len, wrap) = shim(ip.protocol, rest)?;
    let overhead = usize::from(ip.header_len) + shim_len;
    let inner = quote + overhead;
    let (client, tos, wants_size) = client(frame.get(inner..end)?)?;
    let word = u32::from_be_bytes(*frame.get(quote - 4..)?.first_chunk::<4>()?);
    let (local, remote) = (ip.src.into(), ip.dst.into());
    let outer_v6 = remote.is_ipv6();
    let about_size = match outer_v6 {
        false => (error.kind, error.code) == (icmp::UNREACHABLE4, icmp::FRAGMENTATION_NEEDED4),
        true => error.kind == icmp::PACKET_TOO_BIG6,
    };
    let mtu = about_size.then(|| {
        // RFC 1191 section 4: the upper half is unused; RFC 4443 section 3.2: all of it counts
        let mtu = if outer_v6 { u16::try_from(word).unwrap_or(u16::MAX) } else { word as u16 };
        let overhead = overhead as u16;
        if mtu > MIN_MTU4 + overhead { mtu - overhead } else { mtu }
    });
    let same_family = outer_v6 == matches!(client, Client::V6(_));
    let kind =
        if same_family { Some((error.kind, error.code)) } else { mapped(outer_v6, error.kind, error.code) };
    let word = match mtu {
        Some(mtu) => u32::from(mtu),
        None if same_family => word,
        None => 0,
    };
    let told = mtu.is_none() || wants_size;
    let message = kind.filter(|_| told).map(|(kind, code)| (kind, code, word));
    Some(Peeled { local, remote, wrap, client, mtu, message, inner, end, tos })
}

/// What a verified ICMP error about a tunnel is about. `None`: it quotes no tunnel's packet.
pub fn peel(frame: &[u8], parsed: &Parsed) -> Option<Peeled> {
    let l3 = usize::from(parsed.l3);
    match &parsed.net {
        Net::Icmp4(error) if error.is_error() => {
            let range = (usize::from(error.l4) + icmp::HEADER_LEN, l3 + usize::from(error.ip_len));
            read(frame, error, range, ipv4::parse_quoted(frame.get(range.0..range.1)?)?)
        }
        Net::Icmp6(error) if error.is_error() => {
            let range = (usize::from(error.l4) + icmp::HEADER_LEN, l3 + usize::from(error.ip_len));
            read(frame, error, range, ipv6::parse_quoted(frame.get(range.0..range.1)?)?)
        }
        _ => None,
    }
}

/// Turns the frame of a peeled error into the error that its client gets, from the virtual address.
///
/// MAC addresses are left to the caller. `id`: identification of the IPv4 packet. `false`: the client gets none,
/// unchanged.
pub fn relay<P: Packet>(packet: &mut P, parsed: &Parsed, peeled: &Peeled, id: u16) -> bool {
    rewrite(packet, usize::from(parsed.l3), peeled, id).is_some()
}

fn rewrite<P: Packet>(packet: &mut P, l3: usize, peeled: &Peeled, id: u16) -> Option<()> {
    let (kind, code, word) = peeled.message?;
    let (ip_len, max, ethertype) = match peeled.client {
        Client::V4(_) => (ipv4::HEADER_LEN, MAX_PACKET4, ethernet::ETHERTYPE_IPV4),
        Client::V6(_) => (ipv6::HEADER_LEN, MAX_PACKET6, ethernet::ETHERTYPE_IPV6),
    };
    let cut = peeled.inner.checked_sub(l3 + ip_len + icmp::HEADER_LEN)?;
    let len = (peeled.end - peeled.inner + ip_len + icmp::HEADER_LEN).min(max);
    if packet.bytes().len() < peeled.end || l3 < ethernet::HEADER_LEN || !packet.set_len(cut + l3 + len) {
        return None;
    }
    packet.bytes_mut().copy_within(..l3, cut);
    if !packet.shrink_front(cut) {
        return None;
    }
    let (link, out) = packet.bytes_mut().split_at_mut_checked(l3)?;
    *link.last_chunk_mut::<2>()? = ethertype.to_be_bytes();
    let message = out.get_mut(ip_len..)?;
    let [a, b, c, d] = word.to_be_bytes();
    *message.first_chunk_mut::<{ icmp::HEADER_LEN }>()? = [kind, code, 0, 0, a, b, c, d];
    let payload_len = message.len();
    match peeled.client {
        Client::V4(flow) => {
            icmp::seal(message, 0).then_some(())?;
            let (src, dst, protocol) = (flow.dst, flow.src, PROTOCOL_ICMP);
            let tos = TOS.0 | peeled.tos & TOS.1;
            ipv4::emit(out, &ipv4::Emit { src, dst, protocol, tos, id, total_len: len as u16 })?;
        }
        Client::V6(flow) => {
            let (src, dst) = (flow.dst, flow.src);
            let pseudo = checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_ICMP6, payload_len);
            icmp::seal(message, pseudo).then_some(())?;
            ipv6::emit(out, &ipv6::Emit::icmp(src, dst, payload_len as u16))?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
