//! Tunnels to real servers: IPIP, GUE and GRE around either family, over either family.
//!
//! The outer header copies what IPVS copies (`wire.json`): TTL after it was taken down, DSCP, ECN with congestion
//! experienced sent as ECT(0) (RFC 3168 section 9.1.1), and of an IPv4 packet DF, with identification 0 then. An
//! IPv6 packet in IPv4 may be fragmented on the way. A datagram that came in fragments is wrapped as a whole
//! ([`Gather`]). What comes back about the outer packet is in [`peel`].

pub use lb_config::{Tunnel as TunnelKind, TunnelChecksum};

mod gather;
pub mod peel;

pub use gather::Gather;

use std::net::IpAddr;

use super::address::Address;
use crate::io::Packet;
use crate::parse::Parsed;
use crate::wire::{PROTOCOL_UDP, checksum, ethernet, ipv4, ipv6};

/// IP protocol number of IPv4 in IP (IANA protocol numbers).
const PROTOCOL_IPIP: u8 = 4;
/// IP protocol number of IPv6 in IP (IANA protocol numbers).
const PROTOCOL_IPV6: u8 = 41;
/// IP protocol number of GRE (IANA protocol numbers).
const PROTOCOL_GRE: u8 = 47;

/// Length of a UDP header, bytes.
const UDP_LEN: usize = 8;
/// Length of a GUE header of variant 0 without options, bytes (draft-ietf-intarea-gue section 3.1).
const GUE_LEN: usize = 4;
/// Length of a GRE header without and with its checksum, bytes (RFC 2784 section 2.1).
const GRE_LEN: [usize; 2] = [4, 8];
/// Longest head: IPv6, UDP, GUE.
const MAX_HEAD: usize = ipv6::HEADER_LEN + UDP_LEN + GUE_LEN;

/// Smallest MTU of an IPv4 link (RFC 791 section 3.2); what a tunnel must take, as in IPVS.
const MIN_MTU4: u16 = 68;
/// Smallest MTU of an IPv6 link (RFC 8200 section 5); what a tunnel over IPv6 must take, as in IPVS.
const MIN_MTU6: u16 = 1280;

/// First of the source ports that GUE spreads flows over, and how many there are: Linux's ephemeral ports.
const GUE_PORTS: (u16, u16) = (32768, 28232);

/// One tunnel of the director to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelPlan {
    /// How packets are wrapped.
    pub kind: TunnelKind,
    /// Outer source: the director's address on the link.
    pub local: IpAddr,
    /// Outer destination: the real server.
    pub remote: IpAddr,
    /// MTU towards the real server, bytes of an IP packet.
    pub link_mtu: u16,
}

/// Why a tunnel cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The outer addresses are of different families.
    #[error("tunnel from {local} to {remote}: the addresses are of different families")]
    Families {
        /// The director's.
        local: IpAddr,
        /// The real server's.
        remote: IpAddr,
    },
    /// Too little would fit.
    #[error(
        "tunnel to {remote}: a link MTU of {link_mtu} leaves less than {least} bytes for packets (overhead {overhead})"
    )]
    Mtu {
        /// The real server's.
        remote: IpAddr,
        /// MTU of the link.
        link_mtu: u16,
        /// What the outer headers take.
        overhead: u16,
        /// What must fit.
        least: u16,
    },
}

/// The outer headers of a tunnel, ready but for what each packet brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// Outer IP header and what follows it.
    head: [u8; MAX_HEAD],
    head_len: u8,
    kind: TunnelKind,
    outer_v6: bool,
    /// The outer packet has the inner one's DF.
    df: bool,
    inner_mtu: u16,
    link_mtu: u16,
    /// Sum of both outer addresses.
    addresses: u64,
}

fn put(head: &mut [u8; MAX_HEAD], at: usize, bytes: &[u8]) {
    for (to, from) in head.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Puts both addresses into the IP header and gives their sum.
fn ends<A: Address>(head: &mut [u8; MAX_HEAD], local: A, remote: A) -> u64 {
    put(head, A::SRC, local.wire().as_ref());
    put(head, A::DST, remote.wire().as_ref());
    checksum::add(checksum::add(0, local.wire().as_ref()), remote.wire().as_ref())
}

impl Encap {
    /// Makes the outer headers.
    ///
    /// Errors: [`PlanError`]; afterwards [`Encap::inner_mtu`] is at least what every host may send.
    pub fn new(plan: &TunnelPlan) -> Result<Self, PlanError> {
        let TunnelPlan { kind, local, remote, link_mtu } = *plan;
        let mut head = [0; MAX_HEAD];
        let (ip_len, least, addresses) = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                put(&mut head, 0, &[0x45]);
                (ipv4::HEADER_LEN, MIN_MTU4, ends(&mut head, local, remote))
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                put(&mut head, 0, &[0x60]);
                (ipv6::HEADER_LEN, MIN_MTU6, ends(&mut head, local, remote))
            }
            _ => return Err(PlanError::Families { local, remote }),
        };
        let shim = match kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue { port, .. } => {
                put(&mut head, ip_len + 2, &port.to_be_bytes());
                UDP_LEN + GUE_LEN
            }
            TunnelKind::Gre { checksum } => {
                put(&mut head, ip_len, &[u8::from(checksum) << 7]);
                GRE_LEN[usize::from(checksum)]
            }
        };
        let overhead = (ip_len + shim) as u16;
        match link_mtu.checked_sub(overhead).filter(|inner| *inner >= least) {
            Some(inner_mtu) => Ok(Self {
                head,
                head_len: overhead as u8,
                kind,
                outer_v6: remote.is_ipv6(),
                df: true,
                inner_mtu,
                link_mtu,
                addresses,
            }),
            None => Err(PlanError::Mtu { remote, link_mtu, overhead, least }),
        }
    }

    /// The same, whose outer packets have the DF of what is inside, or never (IPVS's `pmtu_disc` off).
    pub fn with_df(self, df: bool) -> Self {
        Self { df, ..self }
    }

    /// How packets are wrapped.
    pub fn kind(&self) -> TunnelKind {
        self.kind
    }

    /// Whether packets are spread by a hash of their flow.
    #[inline]
    pub fn wants_hash(&self) -> bool {
        matches!(self.kind, TunnelKind::Gue { .. })
    }

    /// What fits into the tunnel, bytes of an IP packet.
    #[inline]
    pub fn inner_mtu(&self) -> u16 {
        self.inner_mtu
    }

    /// Whether it carries a checksum over the whole packet.
    #[inline]
    pub fn sums(&self) -> bool {
        match self.kind {
            TunnelKind::Ipip => false,
            TunnelKind::Gue { checksum, .. } => checksum != TunnelChecksum::None,
            TunnelKind::Gre { checksum } => checksum,
        }
    }

    /// MTU of the link under the tunnel, bytes of an IP packet.
    #[inline]
    pub fn link_mtu(&self) -> u16 {
        self.link_mtu
    }

    /// Length of the outer IP header, bytes.
    #[inline]
    fn ip_len(&self) -> usize {
        if self.outer_v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
    }

    /// Smallest MTU of a link of the outer family, bytes.
    fn least_mtu(&self) -> u16 {
        if self.outer_v6 { MIN_MTU6 } else { MIN_MTU4 }
    }

    /// EtherType of the outer packet.
    #[inline]
    fn ethertype(&self) -> [u8; 2] {
        if self.outer_v6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 }.to_be_bytes()
    }

    /// What the outer headers take, bytes.
    #[inline]
    pub fn overhead(&self) -> u16 {
        u16::from(self.head_len)
    }
}

/// What the outer header takes from the inner one.
#[derive(Clone, Copy, Debug)]
struct Inner {
    v6: bool,
    /// Whole packet, bytes.
    len: usize,
    tos: u8,
    ttl: u8,
    df: bool,
}

impl Inner {
    /// What the header says, whether or not the packet is as long.
    #[inline]
    fn fields(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let inner = match header[0] >> 4 {
            4 => Self {
                v6: false,
                len: usize::from(u16::from_be_bytes([header[2], header[3]])),
                tos: header[1],
                ttl: header[8],
                df: header[6] & 0x40 != 0,
            },
            6 => Self {
                v6: true,
                len: ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]])),
                tos: header[0] << 4 | header[1] >> 4,
                ttl: header[7],
                df: false,
            },
            _ => return None,
        };
        Some(inner)
    }

    /// Protocol number as the next header of IP or GUE.
    #[inline]
    fn protocol(&self) -> u8 {
        if self.v6 { PROTOCOL_IPV6 } else { PROTOCOL_IPIP }
    }

    #[inline]
    fn ethertype(&self) -> [u8; 2] {
        if self.v6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 }.to_be_bytes()
    }

    /// The traffic class of the outer header: congestion experienced stays inside (RFC 3168 section 9.1.1).
    #[inline]
    fn outer_tos(&self) -> u8 {
        const CE: u8 = 3;
        const ECT_0: u8 = 2;
        if self.tos & CE == CE { self.tos & !CE | ECT_0 } else { self.tos }
    }
}

/// The outer IPv4 header at the front of `packet`, which is `packet_len` long.
#[inline]
fn finish4(packet: &mut [u8], inner: &Inner, protocol: u8, packet_len: u16, id: u16) -> Option<()> {
    let header = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
    header[1] = inner.outer_tos();
    header[2..4].copy_from_slice(&packet_len.to_be_bytes());
    // RFC 6864 section 4.1: of no meaning with DF; Linux sends 0
    header[4..6].copy_from_slice(&if inner.df { 0 } else { id }.to_be_bytes());
    header[6] = if inner.df { 0x40 } else { 0 };
    header[8] = inner.ttl;
    header[9] = protocol;
    let sum = checksum::finish(checksum::add(0, header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The outer IPv6 header at the front of `packet`, with `payload_len` behind it. Flow label 0, as in IPVS.
#[inline]
fn finish6(packet: &mut [u8], inner: &Inner, protocol: u8, payload_len: u16) -> Option<()> {
    let header = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
    let tos = inner.outer_tos();
    header[0] = 0x60 | tos >> 4;
    header[1] = tos << 4;
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = protocol;
    header[7] = inner.ttl;
    Some(())
}

/// The source port of a flow in GUE.
#[inline(always)]
fn gue_port(flow_hash: u32) -> u16 {
    let (first, count) = GUE_PORTS;
    first + ((u64::from(flow_hash) * u64::from(count)) >> 32) as u16
}

/// The shim between outer and inner IP header, before `len` bytes of inner packet, which add up to what `sum` says.
/// Gives the outer header's protocol.
#[inline]
fn finish_shim(
    shim: &mut [u8],
    encap: &Encap,
    inner: &Inner,
    flow_hash: u32,
    sum: impl FnOnce() -> u64,
) -> Option<u8> {
    match encap.kind {
        TunnelKind::Ipip => Some(inner.protocol()),
        TunnelKind::Gue { checksum, .. } => {
            let header = shim.first_chunk_mut::<{ UDP_LEN + GUE_LEN }>()?;
            let len = u16::try_from(header.len() + inner.len).ok()?;
            header[..2].copy_from_slice(&gue_port(flow_hash).to_be_bytes());
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header[UDP_LEN + 1] = inner.protocol();
            if checksum != TunnelChecksum::None {
                let pseudo = encap.addresses + u64::from(PROTOCOL_UDP) + u64::from(len);
                let sum = match checksum::finish(checksum::add(pseudo + sum(), header)) {
                    // RFC 768: zero says that there is none
                    0 => 0xffff,
                    sum => sum,
                };
                header[6..8].copy_from_slice(&sum.to_be_bytes());
            }
            Some(PROTOCOL_UDP)
        }
        TunnelKind::Gre { checksum } => {
            shim.get_mut(2..4)?.copy_from_slice(&inner.ethertype());
            if checksum {
                let sum = checksum::finish(checksum::add(sum(), shim));
                shim.get_mut(4..6)?.copy_from_slice(&sum.to_be_bytes());
            }
            Some(PROTOCOL_GRE)
        }
    }
}

/// Wraps the IP packet of a frame for its way through a tunnel; [`pass`](super::pass()) comes before.
///
/// The outer packet begins where the inner one did, behind the same Ethernet header, whose EtherType becomes the
/// outer family's; Ethernet's padding goes. `flow_hash`: equal for all packets of a flow, spread over all 32 bits
/// (GUE's source port). `id`: another one for every packet. When the packet is longer than [`Encap::link_mtu`]
/// afterwards, it is to be cut ([`Fragments`](super::Fragments)), whatever its DF says. `false`: no room in front,
/// or more than 65,535 bytes; unchanged but for padding. Cost: no more than the headers, but for checksums over the
/// whole packet.
#[inline]
pub fn encapsulate<P: Packet>(
    packet: &mut P,
    parsed: &Parsed,
    encap: &Encap,
    flow_hash: u32,
    id: u16,
) -> bool {
    wrap(packet, usize::from(parsed.l3), encap, flow_hash, id).is_some()
}

/// [`encapsulate`] for what is at `l3`.
#[inline]
pub(crate) fn wrap<P: Packet>(
    packet: &mut P,
    l3: usize,
    encap: &Encap,
    flow_hash: u32,
    id: u16,
) -> Option<()> {
    let read = Inner::fields(packet.bytes().get(l3..)?)?;
    // sums go over all of the packet, the rest only over its headers
    if l3 + read.len > packet.frame_len() || encap.sums() && l3 + read.len > packet.bytes().len() {
        return None;
    }
    let inner = Inner { df: read.df && encap.df, ..read };
    let (head, head_len) = (&encap.head, usize::from(encap.head_len));
    let packet_len = u16::try_from(head_len + inner.len).ok()?;
    if l3 < ethernet::HEADER_LEN || !packet.set_len(l3 + inner.len) || !packet.grow_front(head_len) {
        return None;
    }
    let frame = packet.bytes_mut();
    frame.copy_within(head_len..head_len + l3, 0);
    let (link, outer) = frame.split_at_mut_checked(l3)?;
    *link.last_chunk_mut::<2>()? = encap.ethertype();
    outer.get_mut(..head_len)?.copy_from_slice(head.get(..head_len)?);
    let ip_len = encap.ip_len();
    let (headers, payload) = outer.split_at_mut_checked(head_len)?;
    let sum = || checksum::add(0, payload);
    let protocol = finish_shim(headers.get_mut(ip_len..)?, encap, &inner, flow_hash, sum)?;
    if encap.outer_v6 {
        finish6(outer, &inner, protocol, packet_len - ip_len as u16)
    } else {
        finish4(outer, &inner, protocol, packet_len, id)
    }
}

/// [`encapsulate`] for a whole packet right behind the Ethernet header of a plain frame, whose MAC addresses the caller
/// writes afterwards.
#[inline(always)]
pub(crate) fn wrap_plain<P: Packet>(packet: &mut P, encap: &Encap, flow_hash: u32, id: u16) -> Option<()> {
    const L3: usize = ethernet::HEADER_LEN;
    if encap.sums() {
        return wrap(packet, L3, encap, flow_hash, id);
    }
    let inner = Inner::fields(packet.bytes().get(L3..)?)?;
    let head_len = usize::from(encap.head_len);
    if head_len + inner.len > usize::from(u16::MAX)
        || !packet.set_len(L3 + inner.len)
        || !packet.grow_front(head_len)
    {
        return None;
    }
    put_plain(packet.bytes_mut(), encap, &inner, flow_hash, id)
}

/// [`wrap_plain`] of a frame that has become longer at its front by the outer headers, which carry no checksum over the
/// whole packet; a packet of `ip_len` bytes that fits into the tunnel is inside.
#[inline(always)]
pub(crate) fn wrap_grown<P: Packet>(
    packet: &mut P,
    encap: &Encap,
    ip_len: u16,
    flow_hash: u32,
    id: u16,
) -> Option<()> {
    let at = ethernet::HEADER_LEN + usize::from(encap.head_len);
    let len = at + usize::from(ip_len);
    // padding goes; to cut a frame needs no room
    if packet.frame_len() != len && !packet.set_len(len) {
        return None;
    }
    let inner = Inner::fields(packet.bytes().get(at..)?)?;
    put_plain(packet.bytes_mut(), encap, &inner, flow_hash, id)
}

/// The shim of a tunnel that carries no checksum over the whole packet, `len` bytes with what is inside. Gives the outer
/// header's protocol.
#[inline(always)]
fn put_plain_shim(behind: &mut [u8], encap: &Encap, inner: &Inner, flow_hash: u32, len: u16) -> Option<u8> {
    Some(match encap.kind {
        TunnelKind::Ipip => inner.protocol(),
        TunnelKind::Gue { port, .. } => {
            let shim = behind.first_chunk_mut::<{ UDP_LEN + GUE_LEN }>()?;
            let [port_a, port_b] = port.to_be_bytes();
            let [src_a, src_b] = gue_port(flow_hash).to_be_bytes();
            let [len_a, len_b] = len.to_be_bytes();
            *shim = [src_a, src_b, port_a, port_b, len_a, len_b, 0, 0, 0, inner.protocol(), 0, 0];
            PROTOCOL_UDP
        }
        TunnelKind::Gre { .. } => {
            let [a, b] = inner.ethertype();
            *behind.first_chunk_mut::<{ GRE_LEN[0] }>()? = [0, 0, a, b];
            PROTOCOL_GRE
        }
    })
}

/// EtherType, outer header and shim of a frame that has room for them behind its MAC addresses.
#[inline(always)]
fn put_plain(frame: &mut [u8], encap: &Encap, inner: &Inner, flow_hash: u32, id: u16) -> Option<()> {
    if encap.outer_v6 {
        put_plain6(frame, encap, inner, flow_hash)
    } else {
        put_plain4(frame, encap, inner, flow_hash, id)
    }
}

#[inline(always)]
fn put_plain4(frame: &mut [u8], encap: &Encap, inner: &Inner, flow_hash: u32, id: u16) -> Option<()> {
    const L3: usize = ethernet::HEADER_LEN;
    const IP: usize = ipv4::HEADER_LEN;
    const A_SRC: usize = <std::net::Ipv4Addr as Address>::SRC;
    let packet_len = (usize::from(encap.head_len) + inner.len) as u16;
    let (front, behind) = frame.split_first_chunk_mut::<{ L3 + IP }>()?;
    let protocol = put_plain_shim(behind, encap, inner, flow_hash, packet_len - IP as u16)?;
    // words as they lie in memory: sums over them are right in either byte order (RFC 1071 section 2 (B))
    let local = encap.head[A_SRC..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    let remote = encap.head[A_SRC + 4..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    let words = [
        0x45 | u32::from(inner.outer_tos()) << 8 | u32::from(packet_len.swap_bytes()) << 16,
        // RFC 6864 section 4.1: of no meaning with DF; Linux sends 0
        if inner.df && encap.df { 0x40 << 16 } else { u32::from(id.swap_bytes()) },
        u32::from(inner.ttl) | u32::from(protocol) << 8,
        local,
        remote,
    ];
    let sum = checksum::finish(words.iter().map(|word| u64::from(*word)).sum());
    let [.., a, b] = front.first_chunk_mut::<L3>()?;
    [*a, *b] = ethernet::ETHERTYPE_IPV4.to_be_bytes();
    let (header, _) = front.get_mut(L3..)?.as_chunks_mut::<4>();
    let header = header.first_chunk_mut::<5>()?;
    *header = words.map(u32::to_le_bytes);
    header[2] = (words[2] | u32::from(sum) << 16).to_le_bytes();
    Some(())
}

#[inline(always)]
fn put_plain6(frame: &mut [u8], encap: &Encap, inner: &Inner, flow_hash: u32) -> Option<()> {
    const L3: usize = ethernet::HEADER_LEN;
    const IP: usize = ipv6::HEADER_LEN;
    let payload_len = (usize::from(encap.head_len) - IP + inner.len) as u16;
    let (front, behind) = frame.split_first_chunk_mut::<{ L3 + IP }>()?;
    let protocol = put_plain_shim(behind, encap, inner, flow_hash, payload_len)?;
    let tos = inner.outer_tos();
    let [len_a, len_b] = payload_len.to_be_bytes();
    let [.., a, b] = front.first_chunk_mut::<L3>()?;
    [*a, *b] = ethernet::ETHERTYPE_IPV6.to_be_bytes();
    let header = front.last_chunk_mut::<IP>()?;
    *header = *encap.head.first_chunk::<IP>()?;
    // flow label 0, as in IPVS
    *header.first_chunk_mut::<8>()? = [0x60 | tos >> 4, tos << 4, 0, 0, len_a, len_b, protocol, inner.ttl];
    Some(())
}

#[cfg(test)]
mod tests;
