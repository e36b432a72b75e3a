//! Checks of `local_addresses` and `client_address`: what full NAT needs.

use std::net::IpAddr;

use super::Firsts;
use super::servers::Site;
use super::services::name;
use crate::draft::DraftService;
use crate::fault::Problems;
use crate::forwarding::{ClientAddress, Forwarding};
use crate::ifaddr::{bits_of, special};
use crate::model::Protocol;
use crate::path::toml_path;

/// Local addresses of a service: a port of each is one connection to a server, 64,512 of them.
const MOST: usize = 256;

pub(super) fn check(index: usize, service: &DraftService, site: &Site<'_>, problems: &mut Problems) {
    let mut forwardings = service.servers.iter().map(|server| server.forwarding).chain([service.forwarding]);
    // Of a forwarding that could not be read nothing is said.
    let unknown = forwardings.clone().any(|forwarding| forwarding.is_none());
    let used = forwardings.any(|forwarding| forwarding == Some(Forwarding::FullNat));
    let mut add = |key: &'static str, message: String| {
        problems.add(toml_path!("services", index, key), message);
    };
    if used && service.one_packet == Some(true) {
        add(
            "one_packet",
            "is of no use with \"fullnat\": replies find their client by the connection".to_owned(),
        );
    }
    match service.client_address {
        Some(ClientAddress::None) | None => {}
        Some(way) if !used && !unknown => {
            add("client_address", format!("\"{way}\" is of use with forwarding \"fullnat\" only"));
        }
        Some(way) => {
            if let Some(protocol) = service.address.protocol().filter(|protocol| *protocol != Protocol::Tcp) {
                add(
                    "client_address",
                    format!("\"{way}\" is of use in tcp services only, not with {protocol}"),
                );
            }
        }
    }
    let Some(addresses) = &service.local_addresses else { return };
    if addresses.is_empty() && used {
        add("local_addresses", "is missing: forwarding \"fullnat\" needs one at least".to_owned());
    }
    if !addresses.is_empty() && !used && !unknown {
        add("local_addresses", "is of use with forwarding \"fullnat\" only".to_owned());
    }
    if addresses.len() > MOST {
        add("local_addresses", format!("{} addresses are above the limit {MOST}", addresses.len()));
    }
    let mut firsts = Firsts::default();
    for (at, address) in addresses.iter().enumerate() {
        let Some(address) = *address else { continue };
        let result = match firsts.repeats(address, at) {
            Some(first) => Err(format!("{address} is already local_addresses[{first}]")),
            None => local(service, address, site),
        };
        if let Err(message) = result {
            problems.add(toml_path!("services", index, "local_addresses", at), message);
        }
    }
}

fn local(service: &DraftService, address: IpAddr, site: &Site<'_>) -> Result<(), String> {
    let wire = site.wire;
    if let Some(ipv6) = service.address.is_ipv6()
        && ipv6 != address.is_ipv6()
    {
        return Err(format!(
            "{address} is not of the family of the service: forwarding \"fullnat\" needs that"
        ));
    }
    own(address, site)?;
    match wire.networks.find(address, bits_of(address)) {
        None if wire.complete => Err(format!(
            "{address} is on no directly connected network ({}): nobody would send replies to it",
            wire.described(address)
        )),
        _ => Ok(()),
    }
}

/// An address that packets may come from and replies may go to: nobody else's, and no VIP, whose ports are clients'.
pub(super) fn own(address: IpAddr, site: &Site<'_>) -> Result<(), String> {
    let Site { wire, services, .. } = *site;
    if let Some(why) = special(address) {
        return Err(format!("{address} is {why}"));
    }
    if let Some((_, other)) = site.vips.find(address, bits_of(address)) {
        return Err(format!("{address} is a VIP of the service {}", name(services, other)));
    }
    if let Some((network, _)) = wire.networks.find(address, bits_of(address))
        && let Some(why) = network.reserved(address)
    {
        return Err(format!("{address} is {why} of {network}"));
    }
    if let Some(port) = wire.gateways.get(&address) {
        return Err(format!("{address} is the gateway of {}", wire.port_name(*port)));
    }
    // That a server has the director's own address is said at the server.
    match site.server_of(address).filter(|_| !wire.own.contains_key(&address)) {
        Some(index) => Err(format!("{address} is a server of the service {}", name(services, index))),
        None => Ok(()),
    }
}
