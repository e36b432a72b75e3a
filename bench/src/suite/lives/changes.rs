//! A random sequence of changes to a service's servers, as an operator would make them.

use anyhow::Context as _;
use lb_config::edit::{self, ServerEdit};
use lb_config::{Forwarding, Model, Server, ServerRef, Service, ServiceRef};

use super::rivals::host_of;
use crate::frames::{Family, SERVERS};

/// Hosts that may be servers.
pub const HOSTS: u16 = 64;
/// Servers that a service keeps at least, and that it has at most.
const SERVERS_KEPT: std::ops::RangeInclusive<usize> = 10..=40;
/// Servers that take new connections at least.
const ABLE: usize = 8;
/// Weights that servers are given: 1 and up to this.
const HEAVIEST: u64 = 4;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server is added.
    Add,
    /// A server is removed, whether or not it drains.
    Remove,
    /// A server gets weight 0.
    Drain,
    /// A server gets another weight, perhaps after it had 0.
    Weigh,
}

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Add, Self::Remove, Self::Drain, Self::Weigh];

    /// What it is called, of several.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "added",
            Self::Remove => "removed",
            Self::Drain => "drained",
            Self::Weigh => "weights changed",
        }
    }
}

/// The sequence.
pub struct Changes {
    random: u64,
    service: String,
}

impl Changes {
    /// Of the servers of this service; the seed decides all.
    pub fn new(service: &str, seed: u64) -> Self {
        Self { random: seed, service: service.to_owned() }
    }

    /// A number below `n` (SplitMix64).
    pub fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * u128::from(n)) >> 64) as u64
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let at = self.below(list.len() as u64);
        list.get(at as usize).copied()
    }

    /// The service in a model. Errors: it is not there.
    pub fn service<'a>(&self, model: &'a Model) -> anyhow::Result<&'a Service> {
        let mut all = model.services.iter();
        all.find(|service| service.name == self.service).context("no service")
    }

    /// The next change of `model`.
    pub fn make(&mut self, model: &Model) -> anyhow::Result<(Kind, Model)> {
        loop {
            let kind = Kind::ALL[self.below(Kind::ALL.len() as u64) as usize];
            let mut changed = model.clone();
            if self.try_one(kind, &mut changed)? {
                return Ok((kind, changed));
            }
        }
    }

    /// `false`: this kind cannot be now.
    fn try_one(&mut self, kind: Kind, model: &mut Model) -> anyhow::Result<bool> {
        let name = ServiceRef::Name(self.service.clone());
        let service = self.service(model)?;
        let all: Vec<(ServerRef, u32)> =
            service.servers.iter().map(|server| (ServerRef::of(server), server.weight)).collect();
        let used: Vec<u16> = service.servers.iter().map(|server| host_of(server.address)).collect();
        let forwarding: Forwarding = service.servers.first().context("no server")?.forwarding;
        let able: Vec<ServerRef> =
            all.iter().filter(|(_, weight)| *weight > 0).map(|(server, _)| *server).collect();
        let weight = 1 + self.below(HEAVIEST) as u32;
        match kind {
            Kind::Add => {
                let free: Vec<u16> = (SERVERS..SERVERS + HOSTS).filter(|host| !used.contains(host)).collect();
                let Some(host) = self.one_of(&free).filter(|_| all.len() < *SERVERS_KEPT.end()) else {
                    return Ok(false);
                };
                let address = Family::V4.host(host).parse()?;
                let port = all.first().map_or(80, |(server, _)| server.port);
                edit::add_server(model, &name, Server { weight, ..Server::new(address, port, forwarding) })?;
            }
            Kind::Remove => {
                let Some((server, old)) = self.one_of(&all) else { return Ok(false) };
                if all.len() <= *SERVERS_KEPT.start() || old > 0 && able.len() <= ABLE {
                    return Ok(false);
                }
                edit::delete_server(model, &name, server)?;
            }
            Kind::Drain => {
                let Some(server) = self.one_of(&able).filter(|_| able.len() > ABLE) else { return Ok(false) };
                edit::drain_server(model, &name, server, None)?;
            }
            Kind::Weigh => {
                let Some((server, old)) = self.one_of(&all) else { return Ok(false) };
                if old == weight {
                    return Ok(false);
                }
                let edit = ServerEdit { weight: Some(weight), ..ServerEdit::default() };
                edit::edit_server(model, &name, server, &edit)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Forwarding as Way, Plan};

    #[test]
    fn every_kind_comes_and_servers_stay_within_their_bounds() {
        let mut model = lb_config::parse(&Plan::new(Way::Nat, Family::V4, 1024).config()).unwrap();
        let mut changes = Changes::new("web", 7);
        let mut counts = [0; Kind::ALL.len()];
        for _ in 0..400 {
            let (kind, next) = changes.make(&model).unwrap();
            counts[kind as usize] += 1;
            assert_ne!(next, model);
            model = next;
            let servers = &changes.service(&model).unwrap().servers;
            let able = servers.iter().filter(|server| server.weight > 0).count();
            assert!(SERVERS_KEPT.contains(&servers.len()) && able >= ABLE, "{} {able}", servers.len());
        }
        assert!(counts.iter().all(|count| *count > 30), "{counts:?}");
    }
}
