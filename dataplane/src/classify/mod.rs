//! Which service a packet without a connection is for.
//!
//! Kept on the control core; a copy of it, which costs some pointers, is part of each snapshot. The order is IPVS's, with the ranges that IPVS does
//! not know put where they are more specific than its catch-alls:
//!
//! 1. a firewall mark: the first [`MarkRule`] that matches gives the mark; a service of this mark and address family;
//! 2. exactly this protocol, VIP and port;
//! 3. a port range on exactly this VIP, the narrowest;
//! 4. TCP to port 20 or to an unprivileged port: the VIP's FTP service, when it is persistent (FTP's data connections
//!    follow their control connection by its template);
//! 5. the VIP's port 0 service, for every port;
//! 6. the longest VIP prefix that has a range with this port, and of its ranges the narrowest.
//!
//! Invariant: a configuration without marks and ranges costs one hash probe for a packet that has a service. Each
//! mark rule costs a compare of its fields for every new connection; each distinct length of VIP prefixes a probe.
//! Source: the order of 1, 2, 4 and 5 is `ip_vs_service_find`'s.

mod mark;
mod prefix;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

pub use mark::MarkRule;
pub use prefix::{IpPrefix, PortRange};

use crate::io::DeviceId;
use crate::parse::{Flow, L4};
use crate::shards::Shards;

/// Control port of FTP (RFC 959 section 8).
pub const FTP: u16 = 21;
/// Data port of active FTP (RFC 959 section 3.2). IPVS schedules no connection that comes from it, whatever its
/// protocol: it would be a server's own data connection.
pub const FTP_DATA: u16 = 20;
/// First port that needs no privilege, Linux's default of `net.ipv4.ip_unprivileged_port_start`; from here on a port
/// may be one of FTP's passive mode.
const UNPRIVILEGED: u16 = 1024;

/// What is known of a packet that looks for its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Source address: the client.
    pub src: IpAddr,
    /// Destination address: the VIP.
    pub dst: IpAddr,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Protocol.
    pub protocol: L4,
    /// Device that the packet came from.
    pub device: DeviceId,
    /// VLAN that it came in, 0: untagged.
    pub vlan: u16,
}

impl Lookup {
    /// A packet that came from this device, in this VLAN.
    #[inline]
    pub(crate) fn of<A: Copy + Into<IpAddr>>(flow: &Flow<A>, device: DeviceId, vlan: u16) -> Self {
        Self {
            src: flow.src.into(),
            dst: flow.dst.into(),
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            protocol: flow.protocol,
            device,
            vlan,
        }
    }
}

/// What clients address when they want a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// One VIP and port; port 0 is every port that no other service of the VIP has.
    Vip {
        /// Virtual address.
        vip: IpAddr,
        /// Port, host order; 0: any.
        port: u16,
        /// Protocol.
        protocol: L4,
    },
    /// All VIPs of a prefix, all ports of a range.
    Range {
        /// Virtual addresses.
        vips: IpPrefix,
        /// Ports.
        ports: PortRange,
        /// Protocol.
        protocol: L4,
    },
    /// Whatever got this mark, in one address family.
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// IPv6, else IPv4.
        ipv6: bool,
    },
}

/// How a service was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By this firewall mark.
    Mark(u32),
    /// By protocol, VIP and port.
    Exact,
    /// By a port range of its one VIP.
    PortRange,
    /// As a data connection of the VIP's persistent FTP service.
    FtpData,
    /// As the VIP's service for every port.
    AnyPort,
    /// By VIP prefix and port range.
    Prefix,
}

/// A service and how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'a, S> {
    /// The service.
    pub service: &'a S,
    /// Which step found it.
    pub how: How,
}

#[derive(Clone, Debug)]
struct Known<S> {
    service: S,
    persistent: bool,
}

/// Protocol, VIP and port, quick to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exact {
    vip: IpAddr,
    port: u16,
    protocol: L4,
}

impl Exact {
    #[inline]
    fn new(protocol: L4, vip: IpAddr, port: u16) -> Self {
        Self { vip, port, protocol }
    }
}

impl Hash for Exact {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rest = u64::from(self.port) << 8 | u64::from(self.protocol as u8);
        match self.vip {
            IpAddr::V4(v4) => state.write_u64(u64::from(v4.to_bits()) << 32 | rest),
            IpAddr::V6(v6) => {
                state.write_u128(v6.to_bits());
                state.write_u64(rest);
            }
        }
    }
}

/// Port ranges of one address or prefix, the narrowest first.
type Ranges<S> = Vec<(PortRange, S)>;

/// By protocol and network.
type RangesOf<S> = Shards<(L4, IpAddr), Ranges<S>>;

/// All prefixes of one length.
#[derive(Clone, Debug)]
struct Length<S> {
    len: u8,
    ranges: RangesOf<S>,
    /// The networks in `ranges`, whatever the protocol, and how many ranges each has.
    networks: Shards<IpAddr, u32>,
}

/// Finds services; see the module's text for the order.
#[derive(Clone, Debug)]
pub struct Classifier<S> {
    marks: Arc<[MarkRule]>,
    by_mark: Shards<(u32, bool), S>,
    exact: Shards<Exact, Known<S>>,
    on_vip: RangesOf<S>,
    /// By falling length, so that the first hit is the longest; IPv4 and IPv6 apart.
    prefixes: [Vec<Length<S>>; 2],
    /// VIPs, and how many services each has.
    vips: Shards<IpAddr, u32>,
    /// Number of services on FTP's port.
    ftp: u32,
    /// Number of services for every port.
    any_port: u32,
}

impl<S: Clone> Classifier<S> {
    /// A classifier of these services; the flag says whether a service is persistent. `marks`: the first rule that
    /// matches counts.
    ///
    /// The caller may assume that of two services with the same address the first is found (the Model refuses a
    /// second one), and of two ranges of equal width that overlap on one prefix the first.
    pub fn new(marks: Vec<MarkRule>, services: impl IntoIterator<Item = (Address, bool, S)>) -> Self {
        let mut new = Self {
            marks: marks.into(),
            by_mark: Shards::default(),
            exact: Shards::default(),
            on_vip: Shards::default(),
            prefixes: [Vec::new(), Vec::new()],
            vips: Shards::default(),
            ftp: 0,
            any_port: 0,
        };
        for (address, persistent, service) in services {
            new.add(address, persistent, service);
        }
        new
    }

    /// Other rules for marks.
    pub fn set_marks(&mut self, marks: Vec<MarkRule>) {
        self.marks = marks.into();
    }

    /// Adds a service, unless there is one of the same address.
    pub fn add(&mut self, address: Address, persistent: bool, service: S) {
        match address {
            Address::Mark { mark, ipv6 } => {
                if !self.by_mark.contains_key(&(mark, ipv6)) {
                    self.by_mark.insert((mark, ipv6), service);
                }
            }
            Address::Vip { vip, port, protocol } => {
                if self.exact.contains_key(&Exact::new(protocol, vip, port)) {
                    return;
                }
                self.exact.insert(Exact::new(protocol, vip, port), Known { service, persistent });
                self.ftp += u32::from(port == FTP && protocol == L4::Tcp);
                self.any_port += u32::from(port == 0);
                count_up(&mut self.vips, vip);
            }
            Address::Range { vips, ports, protocol } => {
                let (ranges, networks) = self.ranges_of(vips, ports);
                let key = (protocol, vips.network());
                let mut list = ranges.get(&key).cloned().unwrap_or_default();
                // behind those that are as narrow
                let at = list.partition_point(|(other, _)| other.width() <= ports.width());
                list.insert(at, (ports, service));
                ranges.insert(key, list);
                count_up(networks, vips.network());
            }
        }
    }

    /// Takes a service out.
    pub fn remove(&mut self, address: Address) {
        match address {
            Address::Mark { mark, ipv6 } => {
                self.by_mark.remove(&(mark, ipv6));
            }
            Address::Vip { vip, port, protocol } => {
                if self.exact.remove(&Exact::new(protocol, vip, port)).is_some() {
                    self.ftp -= u32::from(port == FTP && protocol == L4::Tcp);
                    self.any_port -= u32::from(port == 0);
                    count_down(&mut self.vips, vip);
                }
            }
            Address::Range { vips, ports, protocol } => {
                let (ranges, networks) = self.ranges_of(vips, ports);
                let key = (protocol, vips.network());
                let mut list = ranges.get(&key).cloned().unwrap_or_default();
                let Some(at) = list.iter().position(|(other, _)| *other == ports) else { return };
                list.remove(at);
                if list.is_empty() {
                    ranges.remove(&key);
                } else {
                    ranges.insert(key, list);
                }
                count_down(networks, vips.network());
                let lengths = &mut self.prefixes[usize::from(vips.is_ipv6())];
                lengths.retain(|length| !length.networks.is_empty());
            }
        }
    }

    /// Where ranges of ports of these VIPs are kept.
    fn ranges_of(
        &mut self,
        vips: IpPrefix,
        ports: PortRange,
    ) -> (&mut RangesOf<S>, &mut Shards<IpAddr, u32>) {
        if vips.is_host() && !ports.is_all() {
            return (&mut self.on_vip, &mut self.vips);
        }
        let lengths = &mut self.prefixes[usize::from(vips.is_ipv6())];
        let at = lengths.partition_point(|length| length.len > vips.len());
        if lengths.get(at).is_none_or(|length| length.len != vips.len()) {
            let (ranges, networks) = (Shards::default(), Shards::default());
            lengths.insert(at, Length { len: vips.len(), ranges, networks });
        }
        let length = &mut lengths[at];
        (&mut length.ranges, &mut length.networks)
    }
}

fn count_up(counts: &mut Shards<IpAddr, u32>, address: IpAddr) {
    let count = counts.get(&address).copied().unwrap_or_default();
    counts.insert(address, count + 1);
}

fn count_down(counts: &mut Shards<IpAddr, u32>, address: IpAddr) {
    match counts.get(&address) {
        Some(count @ 2..) => {
            let left = count - 1;
            counts.insert(address, left);
        }
        _ => {
            counts.remove(&address);
        }
    }
}

impl<S> Classifier<S> {
    /// The service of a packet.
    #[inline]
    pub fn find(&self, packet: &Lookup) -> Option<&S> {
        self.explain(packet).map(|hit| hit.service)
    }

    /// The service of exactly this protocol, VIP and port, where that is all that has to be asked: there are no marks.
    #[inline]
    pub(crate) fn exactly(&self, protocol: L4, vip: IpAddr, port: u16) -> Option<&S> {
        let known =
            if self.marks.is_empty() { self.exact.get(&Exact::new(protocol, vip, port)) } else { None };
        known.map(|known| &known.service)
    }

    /// The service of a packet, and which step found it.
    pub fn explain(&self, packet: &Lookup) -> Option<Hit<'_, S>> {
        if let Some(mark) = self.mark(packet)
            && let Some(service) = self.by_mark.get(&(mark, packet.dst.is_ipv6()))
        {
            return Some(Hit { service, how: How::Mark(mark) });
        }
        let (protocol, vip, port) = (packet.protocol, packet.dst, packet.dst_port);
        if let Some(known) = self.exact.get(&Exact::new(protocol, vip, port)) {
            let how = if port == 0 { How::AnyPort } else { How::Exact };
            return Some(Hit { service: &known.service, how });
        }
        if !self.on_vip.is_empty()
            && let Some(ranges) = self.on_vip.get(&(protocol, vip))
            && let Some(service) = narrowest(ranges, port)
        {
            return Some(Hit { service, how: How::PortRange });
        }
        if self.ftp > 0
            && protocol == L4::Tcp
            && (port == FTP_DATA || port >= UNPRIVILEGED)
            && let Some(known) = self.exact.get(&Exact::new(protocol, vip, FTP))
        {
            // an FTP service without persistence ends the search in IPVS too, which then leaves the packet to the host
            return known.persistent.then_some(Hit { service: &known.service, how: How::FtpData });
        }
        if self.any_port > 0
            && let Some(known) = self.exact.get(&Exact::new(protocol, vip, 0))
        {
            return Some(Hit { service: &known.service, how: How::AnyPort });
        }
        self.prefixes[usize::from(vip.is_ipv6())].iter().find_map(|length| {
            let ranges = length.ranges.get(&(protocol, prefix::network(vip, length.len)))?;
            Some(Hit { service: narrowest(ranges, port)?, how: How::Prefix })
        })
    }

    /// The firewall mark of a packet: that of the first rule that matches. `None`: no rule, or a rule for mark 0,
    /// which takes packets out of the rules behind it.
    pub fn mark(&self, packet: &Lookup) -> Option<u32> {
        let rule = self.marks.iter().find(|rule| rule.matches(packet))?;
        (rule.value != 0).then_some(rule.value)
    }

    /// Whether `address` is virtual: a service's VIP or in one's prefix. Services by mark have no addresses.
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains_key(&address)
            || self.prefixes[usize::from(address.is_ipv6())]
                .iter()
                .any(|length| length.networks.contains_key(&prefix::network(address, length.len)))
    }
}

fn narrowest<S>(ranges: &[(PortRange, S)], port: u16) -> Option<&S> {
    ranges.iter().find(|(ports, _)| ports.contains(port)).map(|(_, service)| service)
}
