//! Headers: what the bytes of a frame mean, one file per protocol.
//!
//! Every file has the same inner order: constants, the parsed value, `parse`, `emit` or the rewriting functions,
//! tests with literal bytes. Invariant: `parse` gives a value or a [`DropReason`](crate::DropReason), whatever the
//! bytes are; numbers in parsed values are in host order. Limits: one 802.1Q tag, no IPv6 jumbograms, and the
//! checksums of TCP, UDP and SCTP are left to the server.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

#[cfg(test)]
pub(crate) mod samples;

pub use ethernet::{Link, Mac};

use lb_config::Protocol;

/// IP protocol number of ICMP (IANA protocol numbers).
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP (IANA protocol numbers).
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP (IANA protocol numbers).
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of SCTP (IANA protocol numbers).
pub const PROTOCOL_SCTP: u8 = 132;
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
    /// SCTP.
    Sctp = PROTOCOL_SCTP,
}

impl L4 {
    /// The protocol with this number, `None` when it is not balanced.
    #[inline]
    pub fn of(protocol: u8) -> Option<Self> {
        match protocol {
            PROTOCOL_TCP => Some(L4::Tcp),
            PROTOCOL_UDP => Some(L4::Udp),
            PROTOCOL_SCTP => Some(L4::Sctp),
            _ => None,
        }
    }

    /// The configuration's word for it.
    pub fn protocol(self) -> Protocol {
        match self {
            L4::Tcp => Protocol::Tcp,
            L4::Udp => Protocol::Udp,
            L4::Sctp => Protocol::Sctp,
        }
    }
}

impl From<Protocol> for L4 {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => L4::Tcp,
            Protocol::Udp => L4::Udp,
            Protocol::Sctp => L4::Sctp,
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

/// Where a fragment belongs in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification: equal for all fragments of a datagram; 16 bits of it for IPv4.
    pub id: u32,
    /// Where it begins, bytes from the start of what was cut; a multiple of 8.
    pub offset: u32,
    /// How much it carries, bytes.
    pub len: u16,
    /// Whether more follow.
    pub more: bool,
}

impl Piece {
    /// Itself, when a sender can have made it: all but the last are cut at a multiple of 8, none is empty, and none
    /// ends past 65,535 bytes (RFC 791 section 3.2; RFC 8200 section 4.5).
    fn checked(self) -> Result<Self, crate::DropReason> {
        let uneven = self.more && !self.len.is_multiple_of(8);
        if uneven || self.len == 0 || self.offset + u32::from(self.len) > u32::from(u16::MAX) {
            return Err(crate::DropReason::FragmentMalformed);
        }
        Ok(self)
    }
}
