//! Checks of `[[services]]` and their servers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use super::networks::Wire;
use super::{Firsts, names, timeout};
use crate::bounds;
use crate::draft::{Draft, DraftService};
use crate::edit::ServiceRef;
use crate::fault::Problems;
use crate::fields::SERVICE_TIMEOUTS;
use crate::ifaddr::{bits_of, special};
use crate::model::Forwarding;
use crate::path::toml_path;

pub(super) fn check(draft: &Draft, wire: &Wire<'_>, problems: &mut Problems) {
    let services = &draft.services;
    counts(draft, problems);
    names(services.iter().map(|s| s.name.as_deref()), "services", problems);
    let mut keys = Firsts::default();
    for (index, service) in services.iter().enumerate() {
        vip(index, service, wire, problems);
        if let Some(port) = service.port
            && let Err(message) = bounds::L4_PORT.check(port.into())
        {
            problems.add(toml_path!("services", index, "port"), message);
        }
        if let (Some(vip), Some(port), Some(protocol)) = (service.vip, service.port, service.protocol)
            && let Some(first) = keys.repeats((vip, port, protocol), index)
        {
            let key = ServiceRef::Key { vip, port, protocol };
            let message = format!("{key} is already the service {}", name(services, first));
            problems.add(toml_path!("services", index, "vip"), message);
        }
        timeouts(index, service, problems);
    }
    let vips = services.iter().enumerate().rev().filter_map(|(i, s)| Some((s.vip?, i)));
    let site = Site { vips: vips.collect(), services, wire };
    for (index, service) in services.iter().enumerate() {
        servers(index, service, &site, problems);
    }
}

/// What a server's address is held against.
struct Site<'d> {
    /// First service of each VIP.
    vips: HashMap<IpAddr, usize>,
    services: &'d [DraftService],
    wire: &'d Wire<'d>,
}

/// Name of a service for a message; `services[2]` where it could not be read.
fn name(services: &[DraftService], index: usize) -> Cow<'_, str> {
    match services.get(index).and_then(|s| s.name.as_deref()) {
        Some(name) => name.into(),
        None => format!("services[{index}]").into(),
    }
}

/// Numbers of services and servers.
fn counts(draft: &Draft, problems: &mut Problems) {
    let services = draft.services.len();
    let (max_services, max_servers) = (draft.limits.max_services, draft.limits.max_servers);
    if services > usize::try_from(max_services).unwrap_or(usize::MAX) {
        let message = format!("{services} services are above the limit {max_services} (limits.max_services)");
        problems.add(toml_path!("services"), message);
    }
    let servers: usize = draft.services.iter().map(|s| s.servers.len()).sum();
    if servers > usize::try_from(max_servers).unwrap_or(usize::MAX) {
        let message = format!(
            "{servers} servers over all services are above the limit {max_servers} (limits.max_servers)"
        );
        problems.add(toml_path!("services"), message);
    }
}

/// A VIP may be one of the director's addresses, as in IPVS, but nothing that a host cannot have.
fn vip(index: usize, service: &DraftService, wire: &Wire<'_>, problems: &mut Problems) {
    let Some(vip) = service.vip else { return };
    let network = wire.networks.find(vip, bits_of(vip));
    let why = if let Some(why) = special(vip) {
        format!("{vip} is {why}")
    } else if let Some((network, why)) = network.and_then(|(n, _)| Some((n, n.reserved(vip)?))) {
        format!("{vip} is {why} of {network}")
    } else if let Some(port) = wire.gateways.get(&vip) {
        format!("{vip} is the gateway of {}", wire.port_name(*port))
    } else {
        return;
    };
    problems.add(toml_path!("services", index, "vip"), why);
}

fn timeouts(index: usize, service: &DraftService, problems: &mut Problems) {
    for field in &SERVICE_TIMEOUTS {
        let Some(duration) = (field.get)(&service.timeouts) else { continue };
        let path = || toml_path!("services", index, "timeouts", field.key);
        match service.protocol {
            Some(protocol) if protocol != field.protocol => {
                let message = format!("is of use in {} services only, not with {protocol}", field.protocol);
                problems.add(path(), message);
            }
            _ => timeout(duration, path, problems),
        }
    }
}

fn servers(index: usize, service: &DraftService, site: &Site<'_>, problems: &mut Problems) {
    let mut firsts = Firsts::default();
    for (at, server) in service.servers.iter().enumerate() {
        if let Some(weight) = server.weight
            && let Err(message) = bounds::WEIGHT.check(weight.into())
        {
            problems.add(toml_path!("services", index, "servers", at, "weight"), message);
        }
        let Some(address) = server.address else { continue };
        let message = if let Some(first) = firsts.repeats(address, at) {
            Some(format!("{address} is already servers[{first}] of this service"))
        } else {
            match service.forwarding {
                Some(Forwarding::Dr) => dr_address(service, address, site).err(),
                None => None,
            }
        };
        if let Some(message) = message {
            problems.add(toml_path!("services", index, "servers", at, "address"), message);
        }
    }
}

/// DR changes the MAC address alone: the server has the VIP's family, shares a link with the director, and its
/// address is its own.
fn dr_address(service: &DraftService, address: IpAddr, site: &Site<'_>) -> Result<(), String> {
    let wire = site.wire;
    if let Some(why) = special(address) {
        return Err(format!("{address} is {why}"));
    }
    if let Some(vip) = service.vip
        && vip.is_ipv4() != address.is_ipv4()
    {
        return Err(format!("{address} is not of the family of the VIP {vip}: forwarding \"dr\" needs that"));
    }
    if let Some(port) = wire.own.get(&address) {
        return Err(format!("{address} is the director's own address on {}", wire.port_name(*port)));
    }
    if let Some(other) = site.vips.get(&address) {
        return Err(format!("{address} is the VIP of the service {}", name(site.services, *other)));
    }
    match wire.networks.find(address, bits_of(address)) {
        Some((network, _)) => match network.reserved(address) {
            Some(why) => Err(format!("{address} is {why} of {network}")),
            None => Ok(()),
        },
        None if !wire.complete => Ok(()),
        None => Err(format!(
            "{address} is on no directly connected network ({}): forwarding \"dr\" needs that",
            wire.described(address)
        )),
    }
}
