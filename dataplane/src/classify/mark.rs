//! Rules that give packets their firewall mark: what `iptables -j MARK` does for IPVS.

use super::{IpPrefix, Lookup, PortRange};
use crate::io::DeviceId;
use crate::parse::L4;

/// Gives a mark to what matches all that it names; a field that is `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark; 0: no mark, and no further rule is looked at.
    pub value: u32,
    /// Where the packet comes from.
    pub source: Option<IpPrefix>,
    /// Where it goes to.
    pub destination: Option<IpPrefix>,
    /// Its protocol.
    pub protocol: Option<L4>,
    /// Its source port.
    pub source_ports: Option<PortRange>,
    /// Its destination port.
    pub ports: Option<PortRange>,
    /// The device that it came from.
    pub device: Option<DeviceId>,
    /// The VLAN that it came in; `Some(0)`: untagged only.
    pub vlan: Option<u16>,
}

impl MarkRule {
    /// A rule that marks every packet; to be narrowed.
    pub fn any(value: u32) -> Self {
        Self {
            value,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            ports: None,
            device: None,
            vlan: None,
        }
    }

    /// Whether a packet has everything that the rule names.
    pub fn matches(&self, packet: &Lookup) -> bool {
        self.destination.is_none_or(|prefix| prefix.contains(packet.dst))
            && self.source.is_none_or(|prefix| prefix.contains(packet.src))
            && self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && self.ports.is_none_or(|ports| ports.contains(packet.dst_port))
            && self.source_ports.is_none_or(|ports| ports.contains(packet.src_port))
            && self.device.is_none_or(|device| device == packet.device)
            && self.vlan.is_none_or(|vlan| vlan == packet.vlan)
    }
}
