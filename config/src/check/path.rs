//! Checks by `via = "path"`: they are clients of the service, so it must be one that the kernel can be a client of.

use super::networks::Wire;
use crate::draft::{DraftAddress, DraftService};
use crate::fault::Problems;
use crate::health::{Check, CheckKind, PATH_PORTS, Via};
use crate::model::Protocol;
use crate::path::{Path, toml_path};

pub(super) fn check(index: usize, service: &DraftService, wire: &Wire<'_>, problems: &mut Problems) {
    let wide = service.health.as_deref().map_or(&[][..], |health| &health.checks);
    let mut count = 0;
    for (place, check) in by_path(wide) {
        count += service.servers.len();
        let path = |key: &'static str| toml_path!("services", index, "health", "checks", place, key);
        one(check, service, wire, path, problems);
    }
    for (at, server) in service.servers.iter().enumerate() {
        let own = server.health.as_deref().and_then(|health| health.checks.as_deref());
        for (place, check) in by_path(own.unwrap_or_default()) {
            count += 1;
            let path = |key: &'static str| {
                toml_path!("services", index, "servers", at, "health", "checks", place, key)
            };
            one(check, service, wire, path, problems);
        }
        let checked = by_path(own.unwrap_or(wide)).next().is_some();
        if let Some(address) = server.address.filter(|address| checked && wire.own.contains_key(address)) {
            let message = format!(
                "{address} is the director itself: what it sends to the VIP stays in its kernel, so no check goes via = \"path\""
            );
            problems.add(toml_path!("services", index, "servers", at, "address"), message);
        }
    }
    let limit = PATH_PORTS.len();
    if count > limit {
        let message = format!("{count} checks with via = \"path\" are above the limit {limit} of a service");
        problems.add(toml_path!("services", index, "health"), message);
    }
}

fn by_path(checks: &[Check]) -> impl Iterator<Item = (usize, &Check)> {
    checks.iter().enumerate().filter(|(_, check)| check.target.via == Via::Path)
}

fn one(
    check: &Check,
    service: &DraftService,
    wire: &Wire<'_>,
    path: impl Fn(&'static str) -> Path,
    problems: &mut Problems,
) {
    let target = &check.target;
    let others = [
        ("address", target.address.is_some()),
        ("port", target.port.is_some()),
        ("bind", target.bind.is_some()),
        ("bind_port", target.bind_port.is_some()),
        ("device", target.device.is_some()),
    ];
    for (key, _) in others.into_iter().filter(|(_, given)| *given) {
        problems.add(path(key), "is of no use with via = \"path\": the check goes to the VIP, as clients do");
    }
    let mut add = |message: String| problems.add(path("via"), message);
    let name = check.kind.name();
    let wanted = match check.kind {
        CheckKind::Tcp | CheckKind::Http(_) | CheckKind::Smtp { .. } => Protocol::Tcp,
        CheckKind::Udp(_) | CheckKind::Dns(_) => Protocol::Udp,
        CheckKind::Ping | CheckKind::Script(_) | CheckKind::File(_) => {
            return add(format!(
                "\"path\" is of no use in a check of type \"{name}\", which asks no service"
            ));
        }
    };
    let DraftAddress::Packet { vips: Some(vips), ports: Some(ports), protocol: Some(protocol) } =
        service.address
    else {
        if let DraftAddress::Mark { .. } = service.address {
            add("\"path\" needs a service of one VIP and port, not of a mark".to_owned());
        }
        return;
    };
    let Some(vip) = vips.single().filter(|_| ports.single().is_some_and(|port| port != 0)) else {
        return add("\"path\" needs a service of one VIP and one port".to_owned());
    };
    if protocol != wanted {
        return add(format!(
            "\"path\": a check of type \"{name}\" asks over {wanted}, the service is {protocol}"
        ));
    }
    let suits = |(own, port): (&std::net::IpAddr, &usize)| {
        wire.taps.get(*port) == Some(&true) && own.is_ipv4() == vip.is_ipv4()
    };
    if wire.complete && !wire.own.iter().any(suits) {
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        add(format!("\"path\" needs a port with exception = \"tap\" and an {family} address"));
    }
}
