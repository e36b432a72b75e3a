//! What services and mark rules of the configuration are to the packet path.

use lb_config::{Persistence, ServiceAddress};

use crate::classify::{Address, IpPrefix, MarkRule, PortRange};
use crate::parse::L4;
use crate::persist::{Rule, Scope};
use crate::snapshot::Link;

/// A network in the packet path's terms.
pub fn prefix(prefix: lb_config::IpPrefix) -> IpPrefix {
    IpPrefix::new(prefix.network(), prefix.prefix_len())
}

fn ports(ports: lb_config::PortRange) -> PortRange {
    PortRange::new(ports.first(), ports.last())
}

/// What clients address.
pub fn address(address: ServiceAddress) -> Address {
    match address {
        ServiceAddress::Vip { vip, port, protocol } => Address::Vip { vip, port, protocol: protocol.into() },
        ServiceAddress::Range { vips, ports: range, protocol } => {
            Address::Range { vips: prefix(vips), ports: ports(range), protocol: protocol.into() }
        }
        ServiceAddress::Mark { mark, ipv6 } => Address::Mark { mark, ipv6 },
    }
}

/// The protocols that a service takes, IANA numbers.
pub fn protocols(address: ServiceAddress) -> Vec<u8> {
    let all = vec![L4::Tcp, L4::Udp, L4::Sctp];
    let own = address.protocol().map_or(all, |protocol| vec![protocol.into()]);
    own.into_iter().map(|protocol| protocol as u8).collect()
}

/// A rule by which packets get a mark. `None`: it names a port of the director that is not there.
pub fn mark(rule: &lb_config::MarkRule, links: &[Link]) -> Option<MarkRule> {
    let link = match &rule.port {
        Some(name) => Some(links.iter().find(|link| link.name == *name)?),
        None => None,
    };
    Some(MarkRule {
        value: rule.value,
        source: rule.source.map(prefix),
        destination: rule.destination.map(prefix),
        protocol: rule.protocol.map(L4::from),
        source_ports: rule.source_ports.map(ports),
        ports: rule.ports.map(ports),
        device: link.map(|link| link.device),
        vlan: rule.vlan.or(link.map(|link| link.vlan)),
    })
}

/// What one template of a service covers.
pub fn rule(address: ServiceAddress, persistence: Persistence) -> Rule {
    let scope = match address {
        ServiceAddress::Vip { port, .. } => Scope::Port(port),
        ServiceAddress::Range { vips, ports, .. } => {
            Scope::Range { vips: prefix(vips), first_port: ports.first() }
        }
        ServiceAddress::Mark { mark, .. } => Scope::Mark(mark),
    };
    let timeout_ns = u64::try_from(persistence.timeout.as_nanos()).unwrap_or(u64::MAX);
    Rule::new(scope, persistence.prefix_len, timeout_ns)
}
