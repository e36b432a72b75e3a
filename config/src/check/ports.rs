//! Checks of `[[ports]]`: names, devices, addresses, networks, gateways.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use super::networks::Wire;
use super::{Firsts, names};
use crate::bounds::{self, MTU_MIN_IPV6};
use crate::draft::{Draft, DraftPort};
use crate::fault::Problems;
use crate::ifaddr::{bits_of, special};
use crate::model::{Device, IfAddr};
use crate::path::{Path, toml_path};
use crate::text::show;

/// Checks the ports and returns what the services' checks need of them.
pub(super) fn check<'d>(draft: &'d Draft, problems: &mut Problems) -> Wire<'d> {
    let Some(ports) = &draft.ports else { return Wire::default() };
    if ports.is_empty() {
        problems.add(toml_path!("ports"), "is empty: a director has at least one port");
        return Wire::default();
    }
    names(ports.iter().map(|p| p.name.as_deref()), "ports", problems);
    devices(ports, problems);
    taps(ports, problems);
    let mut wire = Wire::default();
    wire.complete = true;
    for (index, port) in ports.iter().enumerate() {
        let name = port.name.as_deref().map_or_else(|| format!("ports[{index}]").into(), Into::into);
        wire.port_names.push(name);
        link(index, port, problems);
        wire.taps.push(port.has_tap());
        addresses(index, port, &mut wire, problems);
    }
    overlaps(ports, &mut wire, problems);
    let mut routes: HashMap<u8, usize> = HashMap::new();
    for (index, port) in ports.iter().enumerate() {
        for (at, gateway) in gateways_of(port) {
            let path = || gateway_path(index, port, at);
            gateway_checks(port, gateway, &wire, path, problems);
            wire.gateways.insert(gateway, index);
            match routes.entry(bits_of(gateway)) {
                Entry::Vacant(route) => {
                    route.insert(index);
                }
                Entry::Occupied(first) => {
                    let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
                    let first = wire.port_name(*first.get());
                    problems.add(path(), format!("{gateway}: {first} already has the one {family} gateway"));
                }
            }
        }
    }
    wire.describe_networks();
    wire
}

fn gateways_of(port: &DraftPort) -> impl Iterator<Item = (usize, IpAddr)> {
    let gateways = port.gateways.iter().flatten().enumerate();
    gateways.filter_map(|(at, gateway)| gateway.map(|gateway| (at, gateway)))
}

/// `gateway` may be one address or an array of them.
fn gateway_path(index: usize, port: &DraftPort, at: usize) -> Path {
    match port.gateways.as_ref().map(Vec::len) {
        Some(2..) => toml_path!("ports", index, "gateway", at),
        _ => toml_path!("ports", index, "gateway"),
    }
}

/// No device carries the same VLAN twice.
fn devices(ports: &[DraftPort], problems: &mut Problems) {
    let mut vlans = Firsts::default();
    for (index, port) in ports.iter().enumerate() {
        let Some(device) = &port.device else { continue };
        if device.to_string().parse().as_ref() != Ok(device) {
            problems.add(toml_path!("ports", index, "device"), format!("{device:?} is not a device"));
        }
        let Some(vlan) = port.vlan else { continue };
        // Every null device is one of its own: nothing arrives on it.
        if *device == Device::Null {
            continue;
        }
        if let Some(first) = vlans.repeats((device, vlan), index) {
            let what = vlan.map_or_else(|| "untagged".to_owned(), |vlan| format!("with VLAN {vlan}"));
            let first = ports[first].name.clone().unwrap_or_else(|| format!("ports[{first}]"));
            let message = format!("{device} {what} is already the device of {first}");
            problems.add(toml_path!("ports", index, "device"), message);
        }
    }
}

/// The kernel's interfaces: their names, which no other of them and no device has.
fn taps(ports: &[DraftPort], problems: &mut Problems) {
    let taken = |name: &str| {
        ports.iter().find_map(|port| match &port.device {
            Some(device @ (Device::AfPacket(own) | Device::AfXdp(own) | Device::Tap(own))) if own == name => {
                Some(device)
            }
            _ => None,
        })
    };
    for (index, port) in ports.iter().enumerate() {
        let mut add = |key: &'static str, message: String| {
            problems.add(toml_path!("ports", index, key), message);
        };
        if !port.has_tap() {
            // what holds by default goes by the device
            let knows = port.exception.is_some() && port.device.is_some();
            if knows && matches!(port.exception_interface, Some(Some(_))) {
                add("exception_interface", "is of use with exception = \"tap\" only".to_owned());
            }
            if knows && matches!(port.exception_rate, Some(Some(_))) {
                add("exception_rate", "is of use with exception = \"tap\" only".to_owned());
            }
            continue;
        }
        if let Some(Some(rate)) = port.exception_rate
            && let Err(message) = bounds::EXCEPTION_RATE.check(rate.into())
        {
            add("exception_rate", message);
        }
        let Some(name) = port.interface() else { continue };
        let made = match &port.exception_interface {
            Some(None) => " (made from the port's name; exception_interface sets another)",
            _ => "",
        };
        if let Err(message) = crate::device::interface(&name) {
            add("exception_interface", format!("{} is {message}{made}", show(&name)));
        } else if let Some(device) = taken(&name) {
            add("exception_interface", format!("{} is the interface of {device}{made}", show(&name)));
        }
    }
}

/// VLAN and MTU.
fn link(index: usize, port: &DraftPort, problems: &mut Problems) {
    if let Some(Some(vlan)) = port.vlan
        && let Err(message) = bounds::VLAN.check(vlan.into())
    {
        problems.add(toml_path!("ports", index, "vlan"), message);
    }
    let Some(mtu) = port.mtu else { return };
    let has_ipv6 = port.addresses.iter().flatten().flatten().any(|a| a.addr.is_ipv6());
    if let Err(message) = bounds::MTU.check(mtu.into()) {
        problems.add(toml_path!("ports", index, "mtu"), message);
    } else if has_ipv6 && mtu < MTU_MIN_IPV6 {
        let message = format!("{mtu} is below the limit {MTU_MIN_IPV6} of a port with an IPv6 address");
        problems.add(toml_path!("ports", index, "mtu"), message);
    }
}

/// Each address alone, and that none is given twice. Fills `wire.own` and `wire.complete`.
fn addresses<'d>(index: usize, port: &'d DraftPort, wire: &mut Wire<'d>, problems: &mut Problems) {
    let Some(addresses) = &port.addresses else {
        wire.complete = false;
        return;
    };
    if addresses.is_empty() {
        problems.add(toml_path!("ports", index, "addresses"), "is empty: a port has at least one address");
        wire.complete = false;
    }
    for (at, address) in addresses.iter().enumerate() {
        let path = || toml_path!("ports", index, "addresses", at);
        let Some(address) = address else {
            wire.complete = false;
            continue;
        };
        if address.prefix_len > address.family_bits() {
            let max = address.family_bits();
            problems.add(path(), format!("\"{address}\": the prefix length is not 0 to {max}"));
            wire.complete = false;
        } else if let Some(why) = special(address.addr) {
            problems.add(path(), format!("{} is {why}", address.addr));
        } else if let Some(why) = address.reserved(address.addr) {
            let network = IfAddr { addr: address.network(), ..*address };
            problems.add(path(), format!("{} is {why} of {network}", address.addr));
        } else if let Some(other) = wire.own.insert(address.addr, index) {
            wire.own.insert(address.addr, other);
            problems
                .add(path(), format!("{} is already an address of {}", address.addr, wire.port_name(other)));
        }
    }
}

/// Networks of two ports may not overlap: it would be open which port leads there. Fills `wire.networks`.
fn overlaps(ports: &[DraftPort], wire: &mut Wire<'_>, problems: &mut Problems) {
    let mut all: Vec<(usize, usize, IfAddr)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        for (at, address) in port.addresses.iter().flatten().enumerate() {
            let usable = |a: &&IfAddr| a.prefix_len <= a.family_bits() && special(a.addr).is_none();
            if let Some(address) = address.as_ref().filter(usable) {
                all.push((index, at, *address));
            }
        }
    }
    // Short prefixes first: what overlaps a network then is a network that holds its address.
    all.sort_by_key(|(index, at, address)| (address.prefix_len, *index, *at));
    for (index, at, address) in all {
        // A repeated address is told already.
        let first = wire.own.get(&address.addr) == Some(&index);
        match wire.networks.find(address.addr, address.prefix_len) {
            Some((other, port)) if port != index && first => {
                let network = IfAddr { addr: address.network(), ..address };
                let message = format!("{network} overlaps {other} on {}", wire.port_name(port));
                problems.add(toml_path!("ports", index, "addresses", at), message);
            }
            _ => wire.networks.add(&address, index),
        }
    }
}

fn gateway_checks(
    port: &DraftPort,
    gateway: IpAddr,
    wire: &Wire<'_>,
    path: impl Fn() -> Path,
    problems: &mut Problems,
) {
    if let Some(own) = wire.own.get(&gateway) {
        problems.add(path(), format!("{gateway} is the director's own address on {}", wire.port_name(*own)));
        return;
    }
    let Some(addresses) = &port.addresses else { return };
    let network = addresses.iter().flatten().find(|a| a.prefix_len <= a.family_bits() && a.contains(gateway));
    match network {
        Some(network) => {
            if let Some(why) = network.reserved(gateway).or_else(|| special(gateway)) {
                let network = IfAddr { addr: network.network(), ..*network };
                problems.add(path(), format!("{gateway} is {why} of {network}"));
            }
        }
        // An address that could not be read may be the one that the gateway goes with.
        None if addresses.iter().any(Option::is_none) => {}
        None => {
            let list: Vec<String> = addresses.iter().flatten().map(ToString::to_string).collect();
            let message = format!("{gateway} is in no network of the port ({})", list.join(", "));
            problems.add(path(), message);
        }
    }
}
