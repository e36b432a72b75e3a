//! What applying a configuration needs beside the registry, and the plan of it: all that can fail comes before the first
//! change.

use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{EffectivePolicy, Forwarding, Model, Server, Service, Tunnel};

use super::hops::Hops;
use super::registry::Totals;
use super::tables::{Places, Tables};
use super::{ApplyError, addressing};
use crate::ids::DestId;
use crate::local_port::LocalEnds;
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::persist::Rule;
use crate::rewrite::{Encap, TunnelPlan};
use crate::sched::{FlowHash, Overload};
use crate::snapshot::{Link, Way};
use crate::state::TimeoutTable;

/// How a server is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub neighbor: NeighborId,
    pub link: LinkId,
    pub way: Way,
    /// Largest IP packet on this way.
    pub mtu: u16,
}

/// A service that is about to be applied; holds a use of each of its places.
#[derive(Debug)]
pub(super) struct Plan {
    pub service: Arc<Service>,
    pub policy: EffectivePolicy,
    pub rule: Option<Rule>,
    pub places: Places,
    /// Of its servers; those by tunnel hold a use of the tunnel.
    pub hops: Vec<Hop>,
}

/// What applying a configuration needs beside the registry.
pub struct Context<'a> {
    /// Of the snapshot that will be built.
    pub generation: u64,
    pub model: &'a Model,
    pub links: &'a [Link],
    pub book: &'a mut NeighborBook,
    pub next_hops: &'a mut Hops,
    pub tables: &'a mut Tables,
    pub gateways: [Option<(LinkId, NeighborId)>; 2],
    pub hash: &'a FlowHash,
    pub overload: &'a Overload,
    /// Present counters of an index.
    pub readings: &'a dyn Fn(DestId) -> Totals,
}

impl Context<'_> {
    /// The plans of these services. `former`: persistence as it is.
    ///
    /// Errors: a server that cannot be reached, or no room; nothing is held then.
    pub(super) fn plans(
        &mut self,
        services: Vec<Arc<Service>>,
        former: impl Fn(&Service) -> Option<Rule>,
    ) -> Result<Vec<Plan>, ApplyError> {
        let mut plans = Vec::with_capacity(services.len());
        for service in services {
            let former = former(&service);
            let (plan, error) = self.plan(service, former);
            plans.extend(plan);
            if let Some(error) = error {
                plans.into_iter().for_each(|plan| self.give_back(plan));
                return Err(error);
            }
        }
        Ok(plans)
    }

    fn give_back(&mut self, plan: Plan) {
        for hop in &plan.hops {
            self.next_hops.spare(hop.neighbor, self.generation);
        }
        self.let_go(&plan, plan.hops.len());
    }

    /// Ends a plan's uses; `tunnels` of its servers are still held by it alone.
    pub(super) fn let_go(&mut self, plan: &Plan, tunnels: usize) {
        self.tables.release(plan.places);
        for hop in plan.hops.iter().take(tunnels) {
            if let Way::Tunnel(at) = hop.way {
                self.tables.tunnels.release(at);
            }
        }
    }

    /// The plan as far as it goes, and why not further.
    fn plan(&mut self, service: Arc<Service>, former: Option<Rule>) -> (Option<Plan>, Option<ApplyError>) {
        let policy = self.model.policy.of(&service);
        let table = TimeoutTable::new(&self.model.timeouts, &service.timeouts).with_policy(&policy);
        let rule = service.persistence.map(|persistence| {
            let rule = addressing::rule(service.address, persistence);
            former.map_or(rule.clone(), |former| rule.succeeding(&former))
        });
        let ends = service.servers.iter().any(|server| server.forwarding == Forwarding::FullNat).then(|| {
            LocalEnds { addresses: service.local_addresses.clone(), client_address: service.client_address }
        });
        let full = |what| (None, Some(ApplyError::TooManyDistinct { what, service: service.name.clone() }));
        // what was acquired before one that found no room stays in use: nothing is wrong with that but its room
        let Some(timeouts) = self.tables.timeouts(table) else { return full("timeouts") };
        let Some(policy_at) = self.tables.policy(&policy) else { return full("policies") };
        let Some(rule_at) = self.tables.rule(rule.as_ref()) else { return full("persistence settings") };
        let ends = match ends {
            None => None,
            Some(ends) => match self.tables.ends(&ends) {
                Some(at) => Some(at),
                None => return full("local addresses"),
            },
        };
        let places = Places { timeouts, policy: policy_at, rule: rule_at, tunnel: None, ends };
        let hops = Vec::with_capacity(service.servers.len());
        let mut plan = Plan { service: service.clone(), policy, rule, places, hops };
        for server in &service.servers {
            match self.hop(&service, server, ends) {
                Ok(hop) => plan.hops.push(hop),
                Err(error) => return (Some(plan), Some(error)),
            }
        }
        (Some(plan), None)
    }

    /// With direct routing the server is on a connected network; else the gateway will do.
    fn hop(&mut self, service: &Service, server: &Server, ends: Option<u16>) -> Result<Hop, ApplyError> {
        let (link, neighbor) = match link_to(self.links, server.address) {
            Some((link, on)) if on.addresses.iter().any(|own| own.addr == server.address) => {
                (link, NeighborId::KERNEL)
            }
            Some((link, _)) => {
                let id = self.book.intern(link, server.address);
                (link, id.map_err(|_| ApplyError::TooManyNeighbors)?)
            }
            None => self.gateways[usize::from(server.address.is_ipv6())]
                .filter(|_| server.forwarding != Forwarding::Dr)
                .ok_or_else(|| ApplyError::NotConnected {
                    server: server.address,
                    service: service.name.clone(),
                })?,
        };
        let on = &self.links[usize::from(link.0)];
        let (way, mtu) = match (server.forwarding, ends) {
            (Forwarding::Tunnel(tunnel), _) => {
                let wrong = |reason| ApplyError::Tunnel { service: service.name.clone(), reason };
                let plan = tunnel_plan(tunnel, server.address, on);
                let encap = Encap::new(&plan).map_err(wrong)?;
                let at = self.tables.tunnel(&plan, &encap, self.model.policy.pmtu_disc);
                let full = || ApplyError::TooManyDistinct { what: "tunnels", service: service.name.clone() };
                (Way::Tunnel(at.ok_or_else(full)?), encap.inner_mtu())
            }
            (Forwarding::FullNat, Some(ends)) => (Way::FullNat(ends), on.mtu),
            (Forwarding::Nat, _) => (Way::Nat, on.mtu),
            _ => (Way::Dr, on.mtu),
        };
        Ok(Hop { neighbor, link, way, mtu })
    }
}

/// The outer packet comes from the director's own address on the link that it leaves by, as Linux chooses it.
fn tunnel_plan(kind: Tunnel, remote: IpAddr, link: &Link) -> TunnelPlan {
    let same_family = |address: &&lb_config::IfAddr| address.addr.is_ipv4() == remote.is_ipv4();
    let inside = link.addresses.iter().find(|network| network.contains(remote));
    let unspecified = match remote {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let local = inside.or_else(|| link.addresses.iter().find(same_family)).map_or(unspecified, |of| of.addr);
    TunnelPlan { kind, local, remote, link_mtu: link.mtu }
}

/// The link in whose networks `address` is.
pub fn link_to(links: &[Link], address: IpAddr) -> Option<(LinkId, &Link)> {
    let at = links.iter().position(|link| link.addresses.iter().any(|network| network.contains(address)))?;
    Some((LinkId(at as u16), &links[at]))
}
