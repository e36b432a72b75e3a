//! Headers: what the bytes of a frame mean, one file per protocol.
//!
//! Every file has the same inner order: constants, the parsed value, `parse`, `emit` or the rewriting functions,
//! tests with literal bytes. Invariant: `parse` gives a value or a [`DropReason`](crate::DropReason), whatever the
//! bytes are; numbers in parsed values are in host order. Limits: one 802.1Q tag, no IPv6 jumbograms, and the
//! checksums of TCP and UDP are left to the server.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod tcp;
pub mod udp;
pub mod vlan;

#[cfg(test)]
pub(crate) mod samples;

pub use ethernet::{Link, Mac};

/// IP protocol number of ICMP (IANA protocol numbers).
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP (IANA protocol numbers).
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP (IANA protocol numbers).
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6 (RFC 4443 section 1).
pub const PROTOCOL_ICMP6: u8 = 58;

/// TTL and hop limit of packets of the director's own (RFC 1700: 64, as Linux has it).
pub const DEFAULT_TTL: u8 = 64;

/// A transport protocol that is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L4 {
    /// TCP.
    Tcp = PROTOCOL_TCP,
    /// UDP.
    Udp = PROTOCOL_UDP,
}

impl L4 {
    /// The protocol with this number, `None` when it is not balanced.
    #[inline]
    pub fn of(protocol: u8) -> Option<Self> {
        match protocol {
            PROTOCOL_TCP => Some(L4::Tcp),
            PROTOCOL_UDP => Some(L4::Udp),
            _ => None,
        }
    }
}

/// What the IP header of either family says, extension headers of IPv6 already walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Protocol of the payload.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whole IP packet, header included, bytes.
    pub ip_len: u16,
    /// Offset of the payload from the start of the IP header, bytes.
    pub header_len: u16,
    /// IPv4's don't-fragment bit; always set for IPv6, which routers never fragment.
    pub df: bool,
}
