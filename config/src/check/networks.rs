//! The directly connected networks, and the addresses that the director has on them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::ifaddr::{bits_of, prefix};
use crate::model::IfAddr;

/// Networks by family and prefix length.
///
/// Cost: a look-up is one hash per prefix length in use, however many networks there are.
#[derive(Debug, Default)]
pub(super) struct Networks {
    by_length: BTreeMap<(u8, u8), HashMap<IpAddr, usize>>,
}

impl Networks {
    /// Adds the network of `addr`, of port `port`; the first port of a network keeps it.
    pub fn add(&mut self, addr: &IfAddr, port: usize) {
        let networks = self.by_length.entry((addr.family_bits(), addr.prefix_len)).or_default();
        networks.entry(addr.network()).or_insert(port);
    }

    /// The longest network no longer than `longest` bits that holds `ip`, and its port.
    pub fn find(&self, ip: IpAddr, longest: u8) -> Option<(IfAddr, usize)> {
        let family = bits_of(ip);
        self.by_length.range((family, 0)..=(family, longest)).rev().find_map(|((_, len), networks)| {
            let network = prefix(ip, *len);
            networks.get(&network).map(|port| (IfAddr { addr: network, prefix_len: *len }, *port))
        })
    }

    /// All networks with their ports, in the order of the ports.
    pub fn list(&self) -> Vec<(usize, IfAddr)> {
        let of_length = |(len, networks): (u8, &HashMap<IpAddr, usize>)| -> Vec<(usize, IfAddr)> {
            networks.iter().map(|(addr, port)| (*port, IfAddr { addr: *addr, prefix_len: len })).collect()
        };
        let mut list: Vec<_> =
            self.by_length.iter().flat_map(|((_, len), networks)| of_length((*len, networks))).collect();
        list.sort_by_key(|(port, network)| (*port, network.addr, network.prefix_len));
        list
    }
}

/// What the checks of services need to know about the ports.
#[derive(Debug, Default)]
pub(super) struct Wire<'d> {
    /// Whether every port could be read: else an address may be missing, and nothing is said to be off-link.
    pub complete: bool,
    pub networks: Networks,
    /// Port of each own address.
    pub own: HashMap<IpAddr, usize>,
    /// Whether a port has a TAP interface, by port.
    pub taps: Vec<bool>,
    /// Port of each gateway.
    pub gateways: HashMap<IpAddr, usize>,
    /// Name of each port; `ports[2]` where it could not be read.
    pub port_names: Vec<Cow<'d, str>>,
    /// The networks as text, IPv4 and IPv6.
    described: (String, String),
}

impl Wire<'_> {
    /// Name of a port for a message.
    pub fn port_name(&self, port: usize) -> &str {
        self.port_names.get(port).map_or("", |name| name.as_ref())
    }

    /// The networks of the family of `ip`: `192.168.150.0/24 on lan, 10.1.0.0/16 on wan`, eight at most.
    pub fn described(&self, ip: IpAddr) -> &str {
        if ip.is_ipv4() { &self.described.0 } else { &self.described.1 }
    }

    /// Fills what [`Wire::described`] gives, once for many faults.
    pub fn describe_networks(&mut self) {
        self.described = (self.describe(32), self.describe(128));
    }

    fn describe(&self, family: u8) -> String {
        const SHOWN: usize = 8;
        let of_family = |(_, network): &(usize, IfAddr)| network.family_bits() == family;
        let list: Vec<_> = self.networks.list().into_iter().filter(of_family).collect();
        if list.is_empty() {
            return format!("there is none for IPv{}", if family == 32 { 4 } else { 6 });
        }
        let text = |(port, network): &(usize, IfAddr)| format!("{network} on {}", self.port_name(*port));
        let mut parts: Vec<_> = list.iter().take(SHOWN).map(text).collect();
        if list.len() > SHOWN {
            parts.push(format!("{} more", list.len() - SHOWN));
        }
        parts.join(", ")
    }
}
