//! Checks of what services are addressed by: VIPs, ranges of them, and marks with their rules.

use std::collections::{BTreeMap, HashMap};

use super::Firsts;
use super::networks::Wire;
use super::services::name;
use crate::address::{IpPrefix, PortRange, ServiceAddress};
use crate::bounds::{self, MARK_RULES};
use crate::draft::{Draft, DraftAddress, DraftMark, DraftService};
use crate::fault::Problems;
use crate::ifaddr::{bits_of, special};
use crate::path::toml_path;
use crate::text::show;

/// Checks the address of one service by itself.
pub(super) fn check(index: usize, service: &DraftService, wire: &Wire<'_>, problems: &mut Problems) {
    match service.address {
        DraftAddress::Unknown => {}
        DraftAddress::Mark { mark, .. } => {
            if let Some(Err(message)) = mark.map(|mark| bounds::MARK.check(mark.into())) {
                problems.add(toml_path!("services", index, "mark"), message);
            }
        }
        DraftAddress::Packet { vips, ports, .. } => {
            let why = match vips.map(|vips| (vips, vips.single())) {
                Some((_, Some(vip))) => single(vip, wire),
                Some((vips, None)) => several(vips, wire),
                None => None,
            };
            if let Some(why) = why {
                problems.add(toml_path!("services", index, "vip"), why);
            }
            if let Some(ports) = ports.filter(|ports| ports.single().is_none())
                && let Err(message) = bounds::L4_PORT.check(ports.first().into())
            {
                problems.add(toml_path!("services", index, "ports"), message);
            }
        }
    }
}

/// A VIP may be one of the director's addresses, as in IPVS, but nothing that a host cannot have.
fn single(vip: std::net::IpAddr, wire: &Wire<'_>) -> Option<String> {
    let network = wire.networks.find(vip, bits_of(vip));
    if let Some(why) = special(vip) {
        Some(format!("{vip} is {why}"))
    } else if let Some((network, why)) = network.and_then(|(n, _)| Some((n, n.reserved(vip)?))) {
        Some(format!("{vip} is {why} of {network}"))
    } else {
        let port = wire.gateways.get(&vip)?;
        Some(format!("{vip} is the gateway of {}", wire.port_name(*port)))
    }
}

/// A range of VIPs is of ordinary addresses, and leaves the neighbours theirs: the director answers for all of it.
fn several(vips: IpPrefix, wire: &Wire<'_>) -> Option<String> {
    for end in [vips.network(), vips.last()] {
        if let Some(why) = special(end) {
            return Some(format!("{vips} has {end}, which is {why}"));
        }
    }
    let covered = |(_, network): &(usize, crate::model::IfAddr)| {
        network.prefix_len >= vips.prefix_len() && vips.contains(network.addr)
    };
    if let Some((port, network)) = wire.networks.list().into_iter().find(covered) {
        let port = wire.port_name(port);
        return Some(format!(
            "{vips} covers {network} on {port}: the director would answer for every host there"
        ));
    }
    let (gateway, port) = wire.gateways.iter().filter(|(gateway, _)| vips.contains(**gateway)).min()?;
    Some(format!("{vips} has {gateway}, which is the gateway of {}", wire.port_name(*port)))
}

/// Two ranges of the same prefix and protocol, equally wide, with ports in common: neither is more specific.
pub(super) fn overlaps(services: &[DraftService], problems: &mut Problems) {
    let mut groups: BTreeMap<_, Vec<(PortRange, usize)>> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        if let Some(ServiceAddress::Range { vips, ports, protocol }) = service.address.whole() {
            let width = ports.last() - ports.first();
            groups.entry((vips, protocol, width)).or_default().push((ports, index));
        }
    }
    for group in groups.values_mut() {
        group.sort_unstable();
        for pair in group.windows(2) {
            let [(one, first), (two, second)] = pair else { continue };
            // The same range twice is told as such.
            if one != two && one.contains(two.first()) {
                let (index, other) = (first.max(second), first.min(second));
                let (ports, others) = if index == second { (two, one) } else { (one, two) };
                let message = format!(
                    "{ports} overlaps {others} of the service {}, and neither is the narrower one",
                    name(services, *other)
                );
                problems.add(toml_path!("services", *index, "ports"), message);
            }
        }
    }
}

/// Checks `[[marks]]`.
pub(super) fn marks(draft: &Draft, wire: &Wire<'_>, problems: &mut Problems) {
    let rules = &draft.marks;
    if rules.len() > MARK_RULES {
        let message = format!("{} rules are above the limit {MARK_RULES}", rules.len());
        problems.add(toml_path!("marks"), message);
    }
    let ports: HashMap<&str, usize> =
        wire.port_names.iter().zip(0..).map(|(name, at)| (name.as_ref(), at)).collect();
    let mut firsts = Firsts::default();
    for (index, rule) in rules.iter().enumerate() {
        let mut add = |key: &'static str, message: String| {
            problems.add(toml_path!("marks", index, key), message);
        };
        if let Some(Err(message)) = rule.value.map(|value| bounds::MARK.check(value.into())) {
            add("value", message);
        }
        if let Some(Err(message)) = rule.vlan.flatten().map(|vlan| bounds::VLAN.check(vlan.into())) {
            add("vlan", message);
        }
        if let (Some(Some(source)), Some(Some(destination))) = (rule.source, rule.destination)
            && source.network().is_ipv6() != destination.network().is_ipv6()
        {
            add("destination", format!("{destination} is not of the family of the source {source}"));
        }
        if let Some(Some(port)) = &rule.port
            && wire.complete
            && !ports.contains_key(port.as_str())
        {
            add("port", format!("there is no port {} (see [[ports]])", show(port)));
        }
        if let Some(key) = matched(rule)
            && let Some(first) = firsts.repeats(key, index)
        {
            add("value", format!("never matches: marks[{first}] matches the same packets before it"));
        }
    }
}

/// What a rule matches; `None`: not all of it could be read.
fn matched(rule: &DraftMark) -> Option<impl Eq + std::hash::Hash> {
    let ports = (rule.source_ports?, rule.ports?);
    Some((rule.source?, rule.destination?, rule.protocol?, ports, rule.port.clone()?, rule.vlan?))
}
