//! Checks of `[[services.servers]]`: values, ports, and that the director can reach each.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Firsts;
use super::networks::{Networks, Wire};
use super::services::name;
use crate::bounds;
use crate::draft::{DraftServer, DraftService};
use crate::edit::ServerRef;
use crate::fault::Problems;
use crate::forwarding::{Forwarding, Tunnel};
use crate::ifaddr::{bits_of, special};
use crate::model::IfAddr;
use crate::path::toml_path;

/// What a server's address is held against.
pub(super) struct Site<'d> {
    /// VIPs, alone and in ranges, with the first service of each.
    pub vips: Networks,
    pub services: &'d [DraftService],
    pub wire: &'d Wire<'d>,
    /// Addresses of servers, with the first service of each; made when it is first asked.
    servers: OnceCell<HashMap<IpAddr, usize>>,
}

impl<'d> Site<'d> {
    pub fn new(services: &'d [DraftService], wire: &'d Wire<'d>) -> Self {
        let mut vips = Networks::default();
        for (index, service) in services.iter().enumerate() {
            if let Some(range) = service.address.vips() {
                vips.add(&IfAddr { addr: range.network(), prefix_len: range.prefix_len() }, index);
            }
        }
        Self { vips, services, wire, servers: OnceCell::new() }
    }

    /// The first service that has a server with this address.
    pub fn server_of(&self, address: IpAddr) -> Option<usize> {
        let index = || {
            let mut first = HashMap::new();
            for (index, service) in self.services.iter().enumerate() {
                for address in service.servers.iter().filter_map(|server| server.address) {
                    first.entry(address).or_insert(index);
                }
            }
            first
        };
        self.servers.get_or_init(index).get(&address).copied()
    }
}

pub(super) fn check(index: usize, service: &DraftService, site: &Site<'_>, problems: &mut Problems) {
    if let Some(Err(message)) = service.forwarding.map(tunnel) {
        problems.add(toml_path!("services", index, "tunnel"), message);
    }
    let mut firsts = Firsts::default();
    let sorry = service.health.as_ref().and_then(|health| health.sorry_server);
    let sorry = sorry.map(|sorry| DraftServer::from(&sorry.server(sorry.weight)));
    for (at, server) in service.servers.iter().chain(&sorry).enumerate() {
        let is_sorry = at == service.servers.len();
        let mut add = |key: &'static str, result: Result<(), String>| {
            if let Err(message) = result {
                let path = match is_sorry {
                    true => toml_path!("services", index, "health", "sorry_server", key),
                    false => toml_path!("services", index, "servers", at, key),
                };
                problems.add(path, message);
            }
        };
        add("weight", server.weight.map_or(Ok(()), |weight| bounds::WEIGHT.check(weight.into()).map(drop)));
        add("upper_threshold", server.upper_threshold.map_or(Ok(()), threshold));
        add("lower_threshold", lower_threshold(server));
        add("tunnel", server.forwarding.map_or(Ok(()), tunnel));
        add("port", port(service, server));
        let (Some(address), Some(port)) = (server.address, server.port) else { continue };
        let key = ServerRef { address, port };
        add(
            "address",
            match firsts.repeats(key, at) {
                Some(first) => Err(format!("{key} is already servers[{first}] of this service")),
                None => server.forwarding.map_or(Ok(()), |f| reachable(service, address, f, site)),
            },
        );
    }
}

fn threshold(connections: u32) -> Result<(), String> {
    bounds::THRESHOLD.check(connections.into()).map(drop)
}

/// Source: `ip_vs_add_dest`, which refuses a lower threshold above the upper one, also when that is 0.
fn lower_threshold(server: &DraftServer) -> Result<(), String> {
    let Some(lower) = server.lower_threshold else { return Ok(()) };
    threshold(lower)?;
    match server.upper_threshold {
        Some(upper) if lower > upper => Err(format!("{lower} is above the server's upper_threshold {upper}")),
        _ => Ok(()),
    }
}

/// A tunnel that was made by hand.
fn tunnel(forwarding: Forwarding) -> Result<(), String> {
    match forwarding.tunnel().and_then(Tunnel::port) {
        Some(port) => bounds::L4_PORT.check(port.into()).map(drop).map_err(|e| format!("port: {e}")),
        None => Ok(()),
    }
}

/// Only NAT and full NAT have a place to put another port than the client's.
fn port(service: &DraftService, server: &DraftServer) -> Result<(), String> {
    let (Some(port), Some(forwarding)) = (server.port, server.forwarding) else { return Ok(()) };
    let why = "keeps the port, only \"nat\" and \"fullnat\" change it";
    match service.address.port() {
        // A server of a service of many ports gets packets on the port that the client used.
        Some(0) if port == 0 => Ok(()),
        Some(0) if forwarding.keeps_port() => Err(format!(
            "{port} is of no use in a service of several ports: forwarding \"{}\" {why}",
            forwarding.name()
        )),
        Some(own) if forwarding.keeps_port() && own != port => {
            Err(format!("{port} is not the service's port {own}: forwarding \"{}\" {why}", forwarding.name()))
        }
        Some(_) => bounds::L4_PORT.check(port.into()).map(drop),
        None => Ok(()),
    }
}

/// A server's address is its own and the director can send there: DR over a shared link, as it changes the MAC
/// address alone, the others also through a gateway. The family is the VIP's, which only a tunnel may change.
fn reachable(
    service: &DraftService,
    address: IpAddr,
    forwarding: Forwarding,
    site: &Site<'_>,
) -> Result<(), String> {
    let wire = site.wire;
    let name_of = forwarding.name();
    if let Some(why) = special(address) {
        return Err(format!("{address} is {why}"));
    }
    if let Some(ipv6) = service.address.is_ipv6()
        && ipv6 != address.is_ipv6()
        && forwarding.tunnel().is_none()
    {
        let of = match service.address.vips() {
            Some(vips) => {
                format!("the VIP {}", vips.single().map_or_else(|| vips.to_string(), |vip| vip.to_string()))
            }
            None => "the service".to_owned(),
        };
        return Err(format!("{address} is not of the family of {of}: forwarding \"{name_of}\" needs that"));
    }
    if let Some(port) = wire.own.get(&address) {
        return local(address, forwarding, wire.taps.get(*port) == Some(&true), wire.port_name(*port));
    }
    if let Some((range, other)) = site.vips.find(address, bits_of(address)) {
        let is = if range.prefix_len == bits_of(address) { "the VIP" } else { "a VIP" };
        return Err(format!("{address} is {is} of the service {}", name(site.services, other)));
    }
    let family = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
    match wire.networks.find(address, bits_of(address)) {
        Some((network, _)) => match network.reserved(address) {
            Some(why) => Err(format!("{address} is {why} of {network}")),
            None => Ok(()),
        },
        None if !wire.complete => Ok(()),
        None if forwarding != Forwarding::Dr && wire.gateways.keys().any(family) => Ok(()),
        None => {
            let needs = match forwarding {
                Forwarding::Dr => "forwarding \"dr\" needs that".to_owned(),
                _ => format!("forwarding \"{name_of}\" needs that or a gateway of its family"),
            };
            let described = wire.described(address);
            Err(format!("{address} is on no directly connected network ({described}): {needs}"))
        }
    }
}

/// A server on the director itself is the kernel's: it gets its packets by the port's TAP interface.
fn local(address: IpAddr, forwarding: Forwarding, has_tap: bool, port: &str) -> Result<(), String> {
    let is = format!("{address} is the director's own address on {port}");
    match forwarding {
        Forwarding::Dr | Forwarding::Nat if has_tap => Ok(()),
        Forwarding::Dr | Forwarding::Nat => {
            Err(format!("{is}: a server on the director itself needs exception = \"tap\" on that port"))
        }
        Forwarding::Tunnel(_) | Forwarding::FullNat => Err(format!(
            "{is}: forwarding \"{}\" does not lead to the director itself, \"dr\" and \"nat\" do",
            forwarding.name()
        )),
    }
}
