//! ICMP errors of the director's own: time exceeded, too big, port unreachable.
//!
//! Shaped like those of Linux: TTL 64, type of service 0xc0 (RFC 1812 section 4.3.2.5: internetwork control) with the
//! low bits of the packet's (IPv4), DF not set, as much of the packet quoted as fits the smallest MTU that every host
//! takes. Limits: a subnet's broadcast address is not known here, so the caller must not ask about frames that came by
//! Ethernet broadcast; nor are errors rate-limited here.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::ethernet::{self, HEADER_LEN, Link, Mac, header_len};
use crate::wire::{Ip, PROTOCOL_ICMP, PROTOCOL_ICMP6, checksum, icmp, ipv4, ipv6, vlan};

/// Longest IPv4 packet with an error, bytes (RFC 1812 section 4.3.2.3: what every host takes).
const MAX_PACKET4: usize = 576;
/// Longest IPv6 packet with an error, bytes (RFC 4443 section 2.4 (c): the minimum MTU).
const MAX_PACKET6: usize = 1280;
/// Longest frame that [`icmp_error4`] writes, bytes.
pub const MAX_ERROR4_LEN: usize = HEADER_LEN + vlan::TAG_LEN + MAX_PACKET4;
/// Longest frame that [`icmp_error6`] writes, bytes.
pub const MAX_ERROR6_LEN: usize = HEADER_LEN + vlan::TAG_LEN + MAX_PACKET6;

/// RFC 1812 section 4.3.2.5: precedence 6, internetwork control; and the bits of the original that Linux keeps below
/// it (`RT_TOS`).
const TOS: (u8, u8) = (0xc0, 0x1e);

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its TTL or hop limit ran out.
    TimeExceeded,
    /// It is larger than the next link takes and may not be fragmented.
    TooBig {
        /// MTU of that link, bytes of an IP packet.
        mtu: u16,
    },
    /// Nobody takes its port.
    PortUnreachable,
}

impl IcmpError {
    /// Type, code and the second word of the header.
    fn header4(self) -> (u8, u8, u32) {
        match self {
            IcmpError::TimeExceeded => (icmp::TIME_EXCEEDED4, 0, 0),
            IcmpError::TooBig { mtu } => (icmp::UNREACHABLE4, icmp::FRAGMENTATION_NEEDED4, mtu.into()),
            IcmpError::PortUnreachable => (icmp::UNREACHABLE4, icmp::PORT_UNREACHABLE4, 0),
        }
    }

    /// Type, code and the second word of the header.
    fn header6(self) -> (u8, u8, u32) {
        match self {
            IcmpError::TimeExceeded => (icmp::TIME_EXCEEDED6, 0, 0),
            IcmpError::TooBig { mtu } => (icmp::PACKET_TOO_BIG6, 0, mtu.into()),
            IcmpError::PortUnreachable => (icmp::UNREACHABLE6, icmp::PORT_UNREACHABLE6, 0),
        }
    }
}

/// Who sends an error, and by which way.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFrom<A> {
    /// The director's side of the link.
    pub link: Link,
    /// Next hop towards the packet's source.
    pub to: Mac,
    /// Source address of the error; as in Linux's IPVS, the VIP that the packet was sent to.
    pub src: A,
    /// Identification of the IPv4 packet, another one for each (RFC 6864 section 4.2); IPv6 has none.
    pub id: u16,
}

/// Whether an error may be sent about an IPv4 packet: RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7.
fn may_answer4(ip: &Ip<Ipv4Addr>, payload: &[u8]) -> bool {
    let about_error =
        ip.protocol == PROTOCOL_ICMP && payload.first().is_none_or(|kind| icmp::is_any_error4(*kind));
    !about_error && ipv4::is_source(ip.src) && !ip.dst.is_multicast() && !ip.dst.is_broadcast()
}

/// Whether an error may be sent about an IPv6 packet: RFC 4443 section 2.4 (e).
fn may_answer6(ip: &Ip<Ipv6Addr>, payload: &[u8], error: IcmpError) -> bool {
    let about_error =
        ip.protocol == PROTOCOL_ICMP6 && payload.first().is_none_or(|kind| icmp::is_any_error6(*kind));
    let is_too_big = matches!(error, IcmpError::TooBig { .. });
    !about_error
        && ipv6::is_source(ip.src)
        && !ip.src.is_unspecified()
        && (is_too_big || !ip.dst.is_multicast())
}

/// Writes the ICMP message about `quote` to the front of `message`, but for the checksum. `None`: no room.
fn body<'a>(message: &'a mut [u8], (kind, code, word): (u8, u8, u32), quote: &[u8]) -> Option<&'a mut [u8]> {
    let message = message.get_mut(..icmp::HEADER_LEN + quote.len())?;
    let (header, rest) = message.split_first_chunk_mut::<{ icmp::HEADER_LEN }>()?;
    let [a, b, c, d] = word.to_be_bytes();
    *header = [kind, code, 0, 0, a, b, c, d];
    rest.copy_from_slice(quote);
    Some(message)
}

/// The first `ip_len` bytes of `packet`, without padding, at most `max`.
fn quote(packet: &[u8], ip_len: u16, max: usize) -> &[u8] {
    let len = packet.len().min(usize::from(ip_len)).min(max);
    packet.get(..len).unwrap_or(packet)
}

/// Writes a frame with an error about `packet`, an IPv4 packet from its header on, to the front of `frame`.
///
/// Gives its length. `None`: no error may be sent about the packet (it is an error itself, a later fragment, or to
/// or from several stations), or no room for [`MAX_ERROR4_LEN`] bytes.
pub fn icmp_error4(
    frame: &mut [u8],
    packet: &[u8],
    error: IcmpError,
    from: &ErrorFrom<Ipv4Addr>,
) -> Option<usize> {
    let (ip, payload) = ipv4::parse_quoted(packet)?;
    if !may_answer4(&ip, payload) {
        return None;
    }
    let quote = quote(packet, ip.ip_len, MAX_PACKET4 - ipv4::HEADER_LEN - icmp::HEADER_LEN);
    let out = ethernet::emit(frame, &from.link, from.to, ethernet::ETHERTYPE_IPV4)?;
    let message = body(out.get_mut(ipv4::HEADER_LEN..)?, error.header4(), quote)?;
    let total_len = ipv4::HEADER_LEN + message.len();
    if !icmp::seal(message, 0) {
        return None;
    }
    let (src, dst, protocol) = (from.src, ip.src, PROTOCOL_ICMP);
    let tos = TOS.0 | packet.get(1)? & TOS.1;
    ipv4::emit(out, &ipv4::Emit { src, dst, protocol, tos, id: from.id, total_len: total_len as u16 })?;
    Some(header_len(from.link.vlan) + total_len)
}

/// Writes a frame with an error about `packet`, an IPv6 packet from its header on, to the front of `frame`.
///
/// Gives its length. `None`: no error may be sent about the packet (it is an error itself, a later fragment, or to
/// or from several stations), or no room for [`MAX_ERROR6_LEN`] bytes.
pub fn icmp_error6(
    frame: &mut [u8],
    packet: &[u8],
    error: IcmpError,
    from: &ErrorFrom<Ipv6Addr>,
) -> Option<usize> {
    let (ip, payload) = ipv6::parse_quoted(packet)?;
    if !may_answer6(&ip, payload, error) {
        return None;
    }
    let quote = quote(packet, ip.ip_len, MAX_PACKET6 - ipv6::HEADER_LEN - icmp::HEADER_LEN);
    let out = ethernet::emit(frame, &from.link, from.to, ethernet::ETHERTYPE_IPV6)?;
    let message = body(out.get_mut(ipv6::HEADER_LEN..)?, error.header6(), quote)?;
    let (len, src, dst) = (message.len(), from.src, ip.src);
    let pseudo = checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_ICMP6, len);
    if !icmp::seal(message, pseudo) {
        return None;
    }
    ipv6::emit(out, &ipv6::Emit::icmp(src, dst, len as u16))?;
    Some(header_len(from.link.vlan) + ipv6::HEADER_LEN + len)
}

#[cfg(test)]
mod tests;
