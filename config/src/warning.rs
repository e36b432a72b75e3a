//! What a configuration may say and is unlikely to mean: warnings, which refuse nothing.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use crate::bounds::{MTU, MTU_MIN_IPV6};
use crate::edit::name_object;
use crate::fault::{Faults, Problems};
use crate::forwarding::{Forwarding, Tunnel};
use crate::health::CheckKind;
use crate::model::{IfAddr, Model, Port, Server, Service};
use crate::path::toml_path;

/// Something that is allowed and yet unlikely to be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line in the text that was read, from 1; `None`: the Model came from no text.
    pub line: Option<usize>,
    /// TOML path, or without a text the object in an operator's words.
    pub place: String,
    /// What is doubtful and why, with the values.
    pub message: String,
}

/// `line 12: services[0].servers[1].address: ...`
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What is doubtful in a Model.
pub fn warnings(model: &Model) -> Vec<Warning> {
    let named = |problem: crate::fault::Problem| Warning {
        line: None,
        place: name_object(model, &problem.path),
        message: problem.message,
    };
    find(model).list.into_iter().map(named).collect()
}

/// What is doubtful in `new` and was not in `old`.
///
/// Cost: in proportion to the services that the two do not share, and to all services where there are marks.
pub fn new_warnings(old: &Model, new: &Model) -> Vec<Warning> {
    let (mut before, mut after) = (old, new);
    let parts;
    if old.ports == new.ports && old.marks.is_empty() && new.marks.is_empty() {
        let (old_part, new_part) = old.services.apart(&new.services);
        let part = |model: &Model, part: &[Arc<Service>]| Model {
            services: part.iter().cloned().collect(),
            ..model.without_services()
        };
        parts = (part(old, old_part), part(new, new_part));
        (before, after) = (&parts.0, &parts.1);
    }
    let known: HashSet<(String, String)> =
        warnings(before).into_iter().map(|warning| (warning.place, warning.message)).collect();
    let is_new = |warning: &Warning| !known.contains(&(warning.place.clone(), warning.message.clone()));
    warnings(after).into_iter().filter(is_new).collect()
}

/// What is doubtful in a Model, with the lines of the text that it was read from.
pub(crate) fn located(text: &str, document: &Spanned<DeTable<'_>>, model: &Model) -> Vec<Warning> {
    let doubts = find(model);
    if doubts.list.is_empty() {
        return Vec::new();
    }
    let faults = Faults::locate(text, document, doubts);
    let warning = |fault: &crate::fault::Fault| Warning {
        line: Some(fault.line),
        place: fault.path.clone(),
        message: fault.message.clone(),
    };
    faults.iter().map(warning).collect()
}

fn find(model: &Model) -> Problems {
    let mut doubts = Problems::default();
    for (at, service) in model.services.iter().enumerate() {
        for (index, server) in service.servers.iter().enumerate() {
            let doubt = match server.forwarding {
                Forwarding::Dr | Forwarding::FullNat => None,
                Forwarding::Nat => bypass(model, service, server),
                Forwarding::Tunnel(tunnel) => narrow(model, service, server, tunnel),
            };
            if let Some(message) = doubt {
                doubts.add(toml_path!("services", at, "servers", index, "address"), message);
            }
        }
    }
    for (at, service) in model.services.iter().enumerate() {
        if let Some((key, message)) = health(service) {
            doubts.add(toml_path!("services", at, "health", key), message);
        }
    }
    let used: HashSet<u32> = model.services.iter().filter_map(|service| service.address.mark()).collect();
    for (at, mark) in model.marks.iter().map(|rule| rule.value).enumerate() {
        if !used.contains(&mark) {
            doubts.add(toml_path!("marks", at, "value"), format!("no service goes by the mark {mark}"));
        }
    }
    let given: HashSet<u32> = model.marks.iter().map(|rule| rule.value).collect();
    for (at, service) in model.services.iter().enumerate() {
        if let Some(mark) = service.address.mark().filter(|mark| !given.contains(mark)) {
            let message =
                format!("no rule in [[marks]] gives the mark {mark}: no packet comes to this service");
            doubts.add(toml_path!("services", at, "mark"), message);
        }
    }
    doubts
}

/// Health settings without a check, and a quorum that all servers together do not make.
fn health(service: &Service) -> Option<(&'static str, String)> {
    let health = service.health.as_ref()?;
    let checks =
        service.servers.iter().filter_map(|server| server.health.as_ref()?.checks.as_ref()).flatten();
    let checks: Vec<_> = health.checks.iter().chain(checks).collect();
    if checks.is_empty() && !service.servers.is_empty() {
        return Some(("checks", "there are none: servers are always up".to_owned()));
    }
    let says_weight = checks.iter().any(|check| match &check.kind {
        CheckKind::Script(script) => script.dynamic,
        CheckKind::File(_) => true,
        CheckKind::Http(http) => http.weight_header.is_some(),
        _ => false,
    });
    let most: u64 = service.servers.iter().map(|server| u64::from(server.weight)).sum();
    let wanted = u64::from(health.quorum) + u64::from(health.hysteresis);
    // The least quorum is that of who did not think of one.
    let doubtful = health.quorum > 1 && wanted > most && !says_weight && !service.servers.is_empty();
    doubtful.then(|| {
        let message = format!(
            "{} and the hysteresis {} are above the weight {most} of all servers: a quorum that was lost never comes back",
            health.quorum, health.hysteresis
        );
        ("quorum", message)
    })
}

/// A NAT server that has the clients' network for its own answers them past the director, from an address that they
/// never asked.
fn bypass(model: &Model, service: &Service, server: &Server) -> Option<String> {
    let shared = |port: &Port| port.addresses.iter().copied().find(|n| n.contains(server.address));
    let (port, network) = model.ports.iter().find_map(|port| Some((port, shared(port)?)))?;
    // the director's own, whose answers it sees whatever they are to
    if model.ports.iter().flat_map(|port| &port.addresses).any(|own| own.addr == server.address) {
        return None;
    }
    let vips = service.vips()?;
    network.contains(vips.network()).then(|| {
        format!(
            "{} is in {} on {}, the network of the VIP {}: it answers clients of that network directly, past the \
             director, and NAT is not undone; put NAT servers on a network of their own, or use forwarding \"dr\"",
            server.address,
            IfAddr { addr: network.network(), prefix_len: network.prefix_len },
            port.name,
            vips.single().map_or_else(|| vips.to_string(), |vip| vip.to_string())
        )
    })
}

/// A tunnel that leaves less than every host must take.
///
/// Source: RFC 791 section 3.1 (576), RFC 8200 section 5 (1280).
fn narrow(model: &Model, service: &Service, server: &Server, tunnel: Tunnel) -> Option<String> {
    let port = towards(model, server.address)?;
    let overhead = tunnel.overhead(server.address.is_ipv6());
    let rest = port.mtu.saturating_sub(overhead);
    let least = if service.is_ipv6() { MTU_MIN_IPV6 } else { u16::try_from(MTU.min).unwrap_or(0) };
    let family = if service.is_ipv6() { 6 } else { 4 };
    (rest < least).then(|| {
        format!(
            "a tunnel {} to {} over {} with its mtu {} leaves {rest} bytes, below the {least} that IPv{family} needs; \
             raise the mtu by {} at least",
            tunnel.name(),
            server.address,
            port.name,
            port.mtu,
            least - rest
        )
    })
}

/// The port through which packets to `address` leave: the one of its network, else the one of the gateway.
fn towards(model: &Model, address: IpAddr) -> Option<&Port> {
    let connected = |port: &&Port| port.addresses.iter().any(|network| network.contains(address));
    let gateway = |port: &&Port| port.gateways.iter().any(|next| next.is_ipv4() == address.is_ipv4());
    model.ports.iter().find(connected).or_else(|| model.ports.iter().find(gateway))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::validate;
    use crate::tests::{SMALL, small};

    fn of(text: &str) -> Vec<String> {
        crate::parse_with_warnings(text).unwrap().1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_small_configuration_has_none() {
        assert_eq!(of(SMALL), Vec::<String>::new());
        assert_eq!(warnings(&small()), []);
    }

    #[test]
    fn a_nat_server_beside_the_clients_is_doubtful() {
        let text = SMALL.replace("\"192.168.150.13\"", "\"192.168.150.13\"\nforwarding = \"nat\"");
        let message = "192.168.150.13 is in 192.168.150.0/24 on lan, the network of the VIP 192.168.150.100: it \
                       answers clients of that network directly, past the director, and NAT is not undone; put NAT \
                       servers on a network of their own, or use forwarding \"dr\"";
        assert_eq!(of(&text), [format!("line 15: services[0].servers[1].address: {message}")]);
        let model = crate::parse(&text).unwrap();
        let lines: Vec<String> = warnings(&model).iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("service web: server 192.168.150.13:80: address: {message}")]);
        assert_eq!(of(&text.replace("192.168.150.100", "203.0.113.1")), Vec::<String>::new());
    }

    #[test]
    fn a_tunnel_that_leaves_too_little_is_doubtful() {
        let mut model = small();
        model.services[0].servers[0].forwarding = "tunnel:gue:6080:remote".parse().unwrap();
        for (mtu, count) in [(1500, 0), (1280, 0), (616, 0), (615, 1)] {
            model.ports[0].mtu = mtu;
            assert_eq!(warnings(&model).len(), count, "{mtu}");
        }
        model.ports[0].mtu = 1500;
        model.services[0].address = "[2001:db8::1]:80/tcp".parse().unwrap();
        model.services[0].servers.truncate(1);
        assert_eq!(validate(&model), Ok(()), "IPv6 in IPv4");
        for (mtu, count) in [(1500, 0), (1320, 0), (1319, 1)] {
            model.ports[0].mtu = mtu;
            assert_eq!(warnings(&model).len(), count, "{mtu}");
        }
        assert_eq!(
            warnings(&model)[0].to_string(),
            "service web: server 192.168.150.12:80: address: a tunnel gue to 192.168.150.12 over lan with its mtu 1319 \
             leaves 1279 bytes, below the 1280 that IPv6 needs; raise the mtu by 1 at least"
        );
    }

    #[test]
    fn marks_that_nobody_gives_or_takes_are_doubtful() {
        let text = format!("{SMALL}[[marks]]\nvalue = 7\n[[services]]\nname = \"m\"\nmark = 8\n");
        assert_eq!(
            of(&text),
            [
                "line 17: marks[0].value: no service goes by the mark 7",
                "line 20: services[1].mark: no rule in [[marks]] gives the mark 8: no packet comes to this service"
            ]
        );
        assert_eq!(of(&text.replace("mark = 8", "mark = 7")), Vec::<String>::new());
    }

    #[test]
    fn a_quorum_out_of_reach_and_health_without_checks_are_doubtful() {
        let with = |health: &str| SMALL.replacen("port = 80\n", &format!("port = 80\n{health}\n"), 1);
        let quorum = |n| with(&format!("[services.health]\nquorum = {n}\nchecks = [{{ type = \"tcp\" }}]"));
        assert_eq!(of(&quorum(2)), Vec::<String>::new());
        let want = "line 11: services[0].health.quorum: 3 and the hysteresis 0 are above the weight 2 of all servers: a \
                    quorum that was lost never comes back";
        assert_eq!(of(&quorum(3)), [want]);
        assert_eq!(
            of(&quorum(3).replace("\"tcp\"", "\"http\", weight_header = \"w\"")),
            Vec::<String>::new()
        );
        let want = "line 10: services[0].health.checks: there are none: servers are always up";
        assert_eq!(of(&with("[services.health]")), [want]);
    }

    #[test]
    fn the_way_through_a_gateway_counts() {
        let text =
            SMALL.replace("device = \"null\"", "device = \"null\"\nmtu = 1280\ngateway = \"192.168.150.1\"");
        let mut model = crate::parse(&text).unwrap();
        model.services[0].servers[0].address = "10.9.9.9".parse().unwrap();
        model.services[0].servers[0].forwarding = "tunnel".parse().unwrap();
        assert_eq!((validate(&model), warnings(&model)), (Ok(()), vec![]));
        model.ports[0].mtu = 590;
        assert!(warnings(&model)[0].message.contains("over lan with its mtu 590 leaves 570 bytes"));
    }
}
