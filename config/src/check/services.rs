//! Checks of `[[services]]`: what each is called and set to, and that no two are the same.

use std::borrow::Cow;
use std::time::Duration;

use super::full_nat;
use super::networks::Wire;
use super::servers::{self, Site};
use super::{Firsts, address, names, timeout};
use crate::bounds;
use crate::draft::{Draft, DraftAddress, DraftService};
use crate::duration;
use crate::fault::Problems;
use crate::fields::SERVICE_TIMEOUTS;
use crate::forwarding::{ClientAddress, Forwarding};
use crate::model::Protocol;
use crate::path::toml_path;
use crate::policy::{OnNoServer, OnServerDown, SynProxy};

pub(super) fn check(draft: &Draft, wire: &Wire<'_>, problems: &mut Problems) {
    let services = &draft.services;
    counts(draft, problems);
    names(services.iter().map(|s| s.name.as_deref()), "services", problems);
    let mut firsts = Firsts::default();
    for (index, service) in services.iter().enumerate() {
        address::check(index, service, wire, problems);
        if let Some(address) = service.address.whole()
            && let Some(first) = firsts.repeats(address, index)
        {
            let key = if address.mark().is_some() { "mark" } else { "vip" };
            let message = format!("{address} is already the service {}", name(services, first));
            problems.add(toml_path!("services", index, key), message);
        }
        timeouts(index, service, problems);
        options(index, service, problems);
        policy(index, service, problems);
    }
    address::overlaps(services, problems);
    let site = Site::new(services, wire);
    for (index, service) in services.iter().enumerate() {
        servers::check(index, service, &site, problems);
        full_nat::check(index, service, &site, problems);
        deadlines(index, service, draft, problems);
        crate::health::check_service(index, service, problems);
        super::path::check(index, service, wire, problems);
    }
}

/// Rules of the servers' `drain_deadline`: that it is one, and that something happens then.
fn deadlines(index: usize, service: &DraftService, draft: &Draft, problems: &mut Problems) {
    // A policy with a fault was left at its default, which need not be what was meant.
    let keeps = |problems: &Problems| {
        draft.policy.on_server_down(&service.policy) == OnServerDown::Keep
            && !problems.concern(&toml_path!("services", index, "policy", "on_server_down"))
            && !problems.concern(&toml_path!("policy", "compat"))
            && !problems.concern(&toml_path!("policy", "expire_nodest_conn"))
    };
    let one_packet = service.one_packet == Some(true) && service.address.protocol() == Some(Protocol::Udp);
    for (at, server) in service.servers.iter().enumerate() {
        let Some(Some(deadline)) = server.drain_deadline else { continue };
        let text = duration::format(deadline);
        let message = if let Err(message) = drain_deadline(deadline) {
            message
        } else if let Some(weight) = server.weight.filter(|weight| *weight > 0) {
            format!("{text} is of use with weight 0 only, not with weight {weight}")
        } else if one_packet {
            format!("{text} is of no use with one_packet, which keeps no connections")
        } else if keeps(problems) {
            format!(
                "{text}: nothing would happen at the deadline, as the service's on_server_down is \"keep\"; set that \
                 to \"reset\", \"reschedule\" or \"drop\""
            )
        } else {
            continue;
        };
        problems.add(toml_path!("services", index, "servers", at, "drain_deadline"), message);
    }
}

fn drain_deadline(deadline: Duration) -> Result<(), String> {
    let text = duration::format(deadline);
    let (min, max) = (bounds::MIN_DRAIN, bounds::MAX_DRAIN);
    if !deadline.subsec_nanos().is_multiple_of(1_000_000) {
        Err(format!("{deadline:?} is not a whole number of milliseconds"))
    } else if deadline < min {
        Err(format!("{text} is below the limit {}", duration::format(min)))
    } else if deadline > max {
        Err(format!("{text} is above the limit {} (31 days)", duration::format(max)))
    } else {
        Ok(())
    }
}

/// Name of a service for a message; `services[2]` where it could not be read.
pub(super) fn name(services: &[DraftService], index: usize) -> Cow<'_, str> {
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
    let sorry = |s: &DraftService| s.health.as_ref().is_some_and(|health| health.sorry_server.is_some());
    let servers: usize = draft.services.iter().map(|s| s.servers.len() + usize::from(sorry(s))).sum();
    if servers > usize::try_from(max_servers).unwrap_or(usize::MAX) {
        let message = format!(
            "{servers} servers over all services are above the limit {max_servers} (limits.max_servers)"
        );
        problems.add(toml_path!("services"), message);
    }
}

fn timeouts(index: usize, service: &DraftService, problems: &mut Problems) {
    for field in &SERVICE_TIMEOUTS {
        let Some(duration) = (field.get)(&service.timeouts) else { continue };
        let path = || toml_path!("services", index, "timeouts", field.key);
        match service.address.protocol() {
            Some(protocol) if protocol != field.protocol => {
                let message = format!("is of use in {} services only, not with {protocol}", field.protocol);
                problems.add(path(), message);
            }
            _ => timeout(duration, path, problems),
        }
    }
}

/// Rules of `persistence` and `one_packet`.
fn options(index: usize, service: &DraftService, problems: &mut Problems) {
    if let Some(Some(persistence)) = service.persistence {
        let at = |key| toml_path!("services", index, "persistence", key);
        if let Err(message) = persistence_timeout(persistence.timeout) {
            problems.add(at("timeout"), message);
        }
        if let Some(ipv6) = service.address.is_ipv6() {
            let (bounds, family) = if ipv6 { (bounds::PREFIX_IPV6, 6) } else { (bounds::PREFIX_IPV4, 4) };
            if let Err(message) = bounds.check(persistence.prefix_len.into()) {
                problems.add(at("prefix"), format!("{message} of an IPv{family} VIP"));
            }
        }
    }
    if let DraftAddress::Packet { ports: Some(ports), vips, .. } = service.address
        && ports.single() == Some(0)
    {
        if vips.is_some_and(|vips| vips.single().is_none()) {
            let message =
                "0 (every port) goes with one VIP only; with a network of them say ports = \"1-65535\"";
            problems.add(toml_path!("services", index, "port"), message);
        } else if service.persistence == Some(None) {
            let message = "0 (every port without a service of its own) needs persistence, as in IPVS; without it say \
                       ports = \"1-65535\"";
            problems.add(toml_path!("services", index, "port"), message);
        }
    }
    if service.one_packet == Some(true)
        && let Some(protocol) = service.address.protocol()
        && protocol != Protocol::Udp
    {
        let message = format!("is of use in udp services only, not with {protocol}");
        problems.add(toml_path!("services", index, "one_packet"), message);
    }
}

/// Whole seconds, as `ipvsadm --persistent` counts.
fn persistence_timeout(timeout: Duration) -> Result<(), String> {
    let text = duration::format(timeout);
    let (min, max) = (bounds::MIN_PERSISTENCE, bounds::MAX_PERSISTENCE);
    if timeout < min {
        Err(format!("{text} is below the limit {}", duration::format(min)))
    } else if timeout > max {
        Err(format!("{text} is above the limit {} (31 days)", duration::format(max)))
    } else if timeout.subsec_nanos() != 0 {
        Err(format!("{timeout:?} is not a whole number of seconds"))
    } else {
        Ok(())
    }
}

/// Rules of `[services.policy]`: their ranges, and that none does nothing.
fn policy(index: usize, service: &DraftService, problems: &mut Problems) {
    let policy = &service.policy;
    let mut add = |key: &'static str, message: String| {
        problems.add(toml_path!("services", index, "policy", key), message);
    };
    let protocol = service.address.protocol();
    if protocol == Some(Protocol::Udp) {
        if policy.on_no_server == Some(OnNoServer::Reset) {
            add("on_no_server", "\"reset\" is of no use in udp services, which have no resets".to_owned());
        }
        if policy.on_server_down == Some(OnServerDown::Reset) {
            add("on_server_down", "\"reset\" is of no use in udp services, which have no resets".to_owned());
        }
    }
    // A mark may be given to packets of every protocol.
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Protocol::Tcp) {
        let set = [
            ("reuse", policy.reuse.is_some()),
            ("mss", policy.mss.is_some()),
            ("dr_close_timeout", policy.dr_close_timeout.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            add(key, format!("is of use in tcp services only, not with {protocol}"));
        }
    }
    if let Some(Err(message)) = policy.mss.map(|mss| bounds::MSS.check(mss.into())) {
        add("mss", message);
    }
    if let Some(Err(message)) =
        policy.max_connections.map(|limit| bounds::SERVICE_CONNECTIONS.check(limit.into()))
    {
        add("max_connections", message);
    }
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Protocol::Udp)
        && policy.udp_activity.is_some()
    {
        add("udp_activity", format!("is of use in udp services only, not with {protocol}"));
    } else if policy.udp_activity.is_some() && service.one_packet == Some(true) {
        add("udp_activity", "is of no use with one_packet, which keeps no connections".to_owned());
    }
    if policy.syn_proxy.is_some_and(|when| when != SynProxy::Off) {
        if let Some(protocol) = protocol.filter(|protocol| *protocol != Protocol::Tcp) {
            add("syn_proxy", format!("is of use in tcp services only, not with {protocol}"));
        }
        let mut forwardings =
            service.servers.iter().map(|server| server.forwarding).chain([service.forwarding]);
        let other = forwardings.find_map(|way| match way {
            Some(Forwarding::Nat | Forwarding::FullNat) | None => None,
            Some(other) => Some(other.name()),
        });
        if let Some(other) = other {
            let message = format!(
                "needs the forwarding \"nat\" or \"fullnat\", where replies pass the director, not \"{other}\""
            );
            add("syn_proxy", message);
        }
        if service.client_address == Some(ClientAddress::ProxyV2) {
            let message = "cannot be together with client_address \"proxy-v2\": both renumber the stream";
            add("syn_proxy", message.to_owned());
        }
    }
    for (key, time) in [("dr_close_timeout", policy.dr_close_timeout), ("udp_activity", policy.udp_activity)]
    {
        if let Some(time) = time {
            timeout(time, || toml_path!("services", index, "policy", key), problems);
        }
    }
}
