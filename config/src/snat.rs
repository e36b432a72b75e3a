//! Source NAT: private hosts, whose gateway the director is, reach the world from an address of its own.

use std::fmt;
use std::net::IpAddr;

use crate::address::IpPrefix;
use crate::text::words;

/// One rule. A packet is translated by the first rule that matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnatRule {
    /// Unique name.
    pub name: String,
    /// Private network (or host) whose packets are translated.
    pub sources: IpPrefix,
    /// What their source becomes, of the family of `sources`, one at least: addresses of the director, no VIPs.
    pub addresses: Vec<IpAddr>,
    /// What is translated; no protocol twice, one at least.
    pub protocols: Vec<SnatProtocol>,
    /// Name of the port of the director (an interface) that packets leave by; `None`: any.
    pub port: Option<String>,
}

/// A protocol that source NAT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnatProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP or ICMPv6 echo, whose identifier takes the place of a port.
    Icmp,
}

impl SnatProtocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];
}

words!(SnatProtocol, "a protocol of [[snat]]", [
    "tcp" => Self::Tcp => Self::Tcp,
    "udp" => Self::Udp => Self::Udp,
    "sctp" => Self::Sctp => Self::Sctp,
    "icmp" => Self::Icmp => Self::Icmp,
]);

/// `office 10.1.0.0/24 by 192.168.150.11 tcp udp on wan`
impl fmt::Display for SnatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by", self.name, self.sources)?;
        for address in &self.addresses {
            write!(f, " {address}")?;
        }
        for protocol in &self.protocols {
            write!(f, " {protocol}")?;
        }
        match &self.port {
            Some(port) => write!(f, " on {port}"),
            None => Ok(()),
        }
    }
}
