//! Which template a connection belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use crate::classify::{FTP, IpPrefix};
use crate::parse::L4;

/// Protocol number in the key of a firewall mark's template (IANA protocol numbers: IPv4's pseudo protocol "IP", as
/// `ipvsadm -Lnc` prints it).
pub const PROTOCOL_IP: u8 = 0;

/// Lengths of client prefixes that a rule remembers beside its own.
const FORMER: usize = 4;

/// What a service's templates stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A service with this port: 0 for every port, 21 for FTP, whose templates cover the data connections too.
    Port(u16),
    /// A service by this firewall mark: one template for all its addresses, ports and protocols.
    Mark(u32),
    /// A service on a VIP prefix or port range: one template for all its addresses and ports.
    Range {
        /// Its VIPs.
        vips: IpPrefix,
        /// Its lowest port, host order.
        first_port: u16,
    },
}

/// How a persistent service, or one that was persistent, ties clients to servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What one template covers.
    pub scope: Scope,
    /// Life of a template after its latest new connection, ns.
    pub timeout_ns: u64,
    prefix_len: u8,
    former: ArrayVec<u8, FORMER>,
}

/// A connection as persistence sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Client.
    pub client: IpAddr,
    /// Virtual address that it sends to.
    pub vip: IpAddr,
    /// Virtual port that it sends to, host order.
    pub vport: u16,
    /// Protocol.
    pub protocol: L4,
}

/// Identifies a template among those that can be found.
///
/// Addresses are numbers, an IPv4 address in the low half word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    pub(super) client: u128,
    pub(super) vip: u128,
    pub(super) vport: u16,
    pub(super) protocol: u8,
    pub(super) ipv6: bool,
    /// Of a service on a prefix or range: never the same as one that IPVS knows.
    pub(super) range: bool,
}

impl Rule {
    /// A rule whose clients are told apart by the first `prefix_len` bits of their address.
    pub fn new(scope: Scope, prefix_len: u8, timeout_ns: u64) -> Self {
        Self { scope, timeout_ns, prefix_len, former: ArrayVec::new() }
    }

    /// The rule that takes the place of `old`: connections that were made under another prefix length still find
    /// their template. The four lengths used last are remembered.
    pub fn succeeding(mut self, old: &Rule) -> Self {
        let lens = std::iter::once(old.prefix_len).chain(old.former.iter().copied());
        self.former = lens.filter(|&len| len != self.prefix_len).take(FORMER).collect();
        self
    }

    /// The template of a new connection.
    ///
    /// Source: `ip_vs_sched_persist`. A packet to port 0 of a service by mark has the template of a port 0 service
    /// there, and so here.
    pub fn key(&self, child: &Child) -> TemplateKey {
        self.key_with(child, self.prefix_len)
    }

    /// The template of a connection of old: under the rule as it is, then as it was.
    pub fn keys<'a>(&'a self, child: &'a Child) -> impl Iterator<Item = TemplateKey> + 'a {
        std::iter::once(self.prefix_len)
            .chain(self.former.iter().copied())
            .map(|prefix_len| self.key_with(child, prefix_len))
    }

    fn key_with(&self, child: &Child, prefix_len: u8) -> TemplateKey {
        let mut key = TemplateKey {
            client: bits(IpPrefix::new(child.client, prefix_len).network()),
            vip: bits(child.vip),
            vport: 0,
            protocol: child.protocol as u8,
            ipv6: child.client.is_ipv6(),
            range: false,
        };
        match self.scope {
            Scope::Port(port) if port == child.vport && port != FTP => key.vport = port,
            Scope::Port(_) => {}
            Scope::Mark(_) if child.vport == 0 => {}
            Scope::Mark(mark) => {
                key.protocol = PROTOCOL_IP;
                // the mark takes the place of the first four bytes of the address
                key.vip = if key.ipv6 { u128::from(mark) << 96 } else { u128::from(mark) };
            }
            Scope::Range { vips, first_port } => {
                (key.vip, key.vport, key.range) = (bits(vips.network()), first_port, true);
            }
        }
        key
    }
}

impl TemplateKey {
    /// Of these, which the functions below give; `None`: the addresses are of two families.
    pub fn of_parts(client: IpAddr, vip: IpAddr, vport: u16, protocol: u8, range: bool) -> Option<Self> {
        let ipv6 = client.is_ipv6();
        let key = Self { client: bits(client), vip: bits(vip), vport, protocol, ipv6, range };
        (vip.is_ipv6() == ipv6).then_some(key)
    }

    /// Whether it is of a service on a prefix of addresses or a range of ports.
    pub fn is_of_range(&self) -> bool {
        self.range
    }

    /// The client's network.
    pub fn client(&self) -> IpAddr {
        address(self.client, self.ipv6)
    }

    /// The virtual address; of a mark's template its number, written as an address.
    pub fn vip(&self) -> IpAddr {
        address(self.vip, self.ipv6)
    }

    /// The virtual port, host order; 0: all.
    pub fn vport(&self) -> u16 {
        self.vport
    }

    /// IANA protocol number, [`PROTOCOL_IP`] for a mark's template.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(bits: u128, ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
}
