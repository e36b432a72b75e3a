//! Checks that take the clients' way (`via = "path"`): to the VIP, and by the packet path to the one server.
//!
//! Such a check comes from an address of the director's own and a port that stands for server and check; the packet path
//! has a [`Pin`] for it, by which it goes to that server whatever the scheduler would say. Invariant: the port depends on
//! the server, the check's place and the other servers of the service alone, so a check stays the same while other
//! things change.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use lb_config::health::{FullCheck, PATH_PORTS};
use lb_config::{Forwarding, IfAddr, Model, Server, Service};
use lb_dataplane::director::Pin;

use super::Health;

/// Ports that checks of a service have taken so far.
#[derive(Debug, Default)]
pub(super) struct Ports(HashSet<u16>);

impl Ports {
    /// The next free one for a check of a server.
    fn take(&mut self, server: SocketAddr, place: usize) -> u16 {
        // its keys are constants: the same server has the same port in every lbd
        let mut hasher = DefaultHasher::new();
        (server, place).hash(&mut hasher);
        let (first, count) = (*PATH_PORTS.start(), PATH_PORTS.end() - PATH_PORTS.start() + 1);
        let start = (hasher.finish() % u64::from(count)) as u16;
        let ports = (0..count).map(|n| first + (start + n) % count);
        // there are more ports than a service may have such checks
        let free = ports.clone().find(|port| !self.0.contains(port)).unwrap_or(first);
        self.0.insert(free);
        free
    }
}

/// The checks of a server with everything filled in.
pub(super) fn checks_of(
    model: &Model,
    service: &Service,
    server: &Server,
    ports: &mut Ports,
) -> Vec<FullCheck> {
    let mut checks = service.checks_of(server);
    for (place, check) in checks.iter_mut().enumerate().filter(|(_, check)| check.target.path.is_some()) {
        check.target.bind = source(model, check.target.to.ip(), server);
        check.target.bind_port = ports.take(server.key(), place);
    }
    checks
}

/// The address that checks of a VIP come from: on the server's network, so that answers need no route, or else any of the
/// kernel's.
///
/// By NAT, where answers have to come back by the director, one on another network, the VIP's if there is one: so a server
/// is found whose gateway is not the director. Where the director has an address on the server's network alone (one arm)
/// its gateway cannot be tried.
fn source(model: &Model, vip: IpAddr, server: &Server) -> Option<IpAddr> {
    let with_tap = || model.ports.iter().filter(|port| port.exception.is_some());
    let near = |own: &IfAddr| own.contains(server.address);
    let suits = |own: &&IfAddr| own.addr.is_ipv4() == vip.is_ipv4();
    if server.forwarding == Forwarding::Nat {
        let far = || with_tap().flat_map(|port| &port.addresses).filter(suits).filter(|own| !near(own));
        if let Some(own) = far().find(|own| own.contains(vip)).or_else(|| far().next()) {
            return Some(own.addr);
        }
    }
    let beside = with_tap().filter(|port| port.addresses.iter().any(near));
    let towards =
        with_tap().filter(|port| port.gateways.iter().any(|next| next.is_ipv4() == server.address.is_ipv4()));
    let found = beside.chain(towards).chain(with_tap()).find_map(|port| {
        let on_net = port.addresses.iter().filter(suits).find(|own| near(own));
        on_net.or_else(|| port.addresses.iter().find(suits))
    });
    found.map(|own| own.addr)
}

impl Health {
    /// What leads the checks to their servers.
    pub fn pins(&self, model: &Model) -> Vec<Pin> {
        let mut pins = Vec::new();
        for service in &model.services {
            let Some(state) = self.board.services.get(service.name.as_str()) else { continue };
            for server in &service.servers {
                let checks = state.servers.get(&server.key()).map_or(&[][..], |known| &known.checks);
                let targets = checks.iter().map(|check| &check.probe.target);
                pins.extend(targets.filter(|target| target.path.is_some()).filter_map(|target| {
                    Some(Pin {
                        source: SocketAddr::new(target.bind?, target.bind_port),
                        service: service.address,
                        server: server.key(),
                        forwarding: server.forwarding,
                    })
                }));
            }
        }
        pins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_a_port_of_its_own_that_stays() {
        let servers: Vec<SocketAddr> =
            (0..4000u16).map(|n| ([10, 0, (n >> 8) as u8, n as u8], 80).into()).collect();
        let all = || {
            let mut ports = Ports::default();
            servers.iter().map(|server| ports.take(*server, 0)).collect::<Vec<_>>()
        };
        let ports = all();
        assert_eq!(ports, all());
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 4000);
        assert!(ports.iter().all(|port| PATH_PORTS.contains(port)));
        let mut alone = Ports::default();
        let (first, second) = (alone.take(servers[0], 0), alone.take(servers[0], 1));
        assert!(first == ports[0] && first != second);
    }

    #[test]
    fn checks_come_from_the_servers_network() {
        let text = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\nexception = \"tap\"\naddresses = [\"10.0.0.1/24\"]\n\
                    gateway = \"10.0.0.254\"\n[[ports]]\nname = \"back\"\ndevice = \"null\"\nexception = \"tap\"\n\
                    addresses = [\"10.1.0.1/24\", \"fd00::1/64\"]\n";
        let model = lb_config::parse(text).unwrap();
        let of = |forwarding, vip: &str, server: &str| {
            let server = Server::new(server.parse().unwrap(), 80, forwarding);
            source(&model, vip.parse().unwrap(), &server).map(|source| source.to_string())
        };
        let of_dr = |vip, server| of(Forwarding::Dr, vip, server);
        assert_eq!(of_dr("10.0.0.100", "10.1.0.7").as_deref(), Some("10.1.0.1"));
        assert_eq!(of_dr("10.0.0.100", "10.9.0.7").as_deref(), Some("10.0.0.1"), "towards the gateway");
        assert_eq!(of_dr("fd00::100", "10.0.0.7").as_deref(), Some("fd00::1"), "of the VIP's family");
        let of_nat = |vip, server| of(Forwarding::Nat, vip, server);
        assert_eq!(of_nat("10.0.0.100", "10.1.0.7").as_deref(), Some("10.0.0.1"), "its answers want a route");
        assert_eq!(of_nat("10.1.0.100", "10.9.0.7").as_deref(), Some("10.1.0.1"), "of the VIP's network");
        assert_eq!(of_nat("fd00::100", "fd00::7").as_deref(), Some("fd00::1"), "one arm");
    }
}
