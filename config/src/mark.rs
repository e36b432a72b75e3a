//! Rules that give packets a mark, which services may go by: what `iptables -j MARK` does before IPVS.

use std::fmt;

use crate::address::{IpPrefix, PortRange};
use crate::model::Protocol;

/// One rule. A packet gets the mark of the first rule that matches it; what a rule does not name matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MarkRule {
    /// The mark, from 1 on.
    pub value: u32,
    /// Where the packet comes from.
    pub source: Option<IpPrefix>,
    /// Where it goes to; of the family of `source`.
    pub destination: Option<IpPrefix>,
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// The client's port.
    pub source_ports: Option<PortRange>,
    /// The port that it goes to.
    pub ports: Option<PortRange>,
    /// Name of the port of the director (an interface) that it came in by.
    pub port: Option<String>,
    /// 802.1Q VLAN that it came in with, 1 to 4094.
    pub vlan: Option<u16>,
}

/// `7 tcp from 10.0.0.0/8 ports 1024-65535 to 10.1.0.0/16 ports 80-90 on wan vlan 10`
impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)?;
        if let Some(protocol) = self.protocol {
            write!(f, " {protocol}")?;
        }
        for (word, prefix, ports) in
            [("from", self.source, self.source_ports), ("to", self.destination, self.ports)]
        {
            match (prefix, ports) {
                (None, None) => {}
                (Some(prefix), None) => write!(f, " {word} {prefix}")?,
                (None, Some(ports)) => write!(f, " {word} ports {ports}")?,
                (Some(prefix), Some(ports)) => write!(f, " {word} {prefix} ports {ports}")?,
            }
        }
        if let Some(port) = &self.port {
            write!(f, " on {port}")?;
        }
        match self.vlan {
            Some(vlan) => write!(f, " vlan {vlan}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_with_what_it_names() {
        assert_eq!(MarkRule { value: 7, ..MarkRule::default() }.to_string(), "7");
        let all = MarkRule {
            value: 7,
            source: "10.0.0.0/8".parse().ok(),
            destination: "10.1.0.1".parse().ok(),
            protocol: Some(Protocol::Tcp),
            source_ports: PortRange::new(1024, 65_535),
            ports: PortRange::new(80, 80),
            port: Some("wan".to_owned()),
            vlan: Some(10),
        };
        assert_eq!(
            all.to_string(),
            "7 tcp from 10.0.0.0/8 ports 1024-65535 to 10.1.0.1/32 ports 80 on wan vlan 10"
        );
        let ports =
            MarkRule { source: None, destination: None, protocol: None, port: None, vlan: None, ..all };
        assert_eq!(ports.to_string(), "7 from ports 1024-65535 to ports 80");
    }
}
