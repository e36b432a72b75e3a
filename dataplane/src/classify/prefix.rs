//! Sets of addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network of `address` with the first `len` bits of it, the rest 0. A `len` beyond the family's counts as its
/// whole length.
#[inline]
pub fn network(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    network: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// The prefix of `len` bits that `address` is in; a `len` beyond the family's (32, 128) counts as that.
    pub fn new(address: IpAddr, len: u8) -> Self {
        let len = len.min(if address.is_ipv6() { 128 } else { 32 });
        Self { network: network(address, len), len }
    }

    /// The lowest address of it.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Bits that its addresses share.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it shares no bit: all addresses of its family.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds IPv6 addresses, else IPv4.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Whether it is a single address.
    pub fn is_host(&self) -> bool {
        self.len == if self.is_ipv6() { 128 } else { 32 }
    }

    /// Whether `address` is in it; never one of the other family.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        network(address, self.len) == self.network
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The ports from `first` to `last`, in whichever order they are given.
    pub fn new(first: u16, last: u16) -> Self {
        Self { first: first.min(last), last: first.max(last) }
    }

    /// Its lowest port.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// Its highest port.
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Number of ports, less one.
    pub fn width(&self) -> u16 {
        self.last - self.first
    }

    /// Whether it has every port, or all but 0, which no client sends to.
    pub fn is_all(&self) -> bool {
        self.first <= 1 && self.last == u16::MAX
    }

    /// Whether `port` is in it.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}
