//! What applying a configuration needs beside the registry: links, next hops, and the places of what destinations
//! share in the new snapshot.

use std::net::IpAddr;

use lb_config::{EffectivePolicy, Forwarding, Model, Policy, Tunnel};

use super::ApplyError;
use super::registry::Totals;
use crate::ids::DestId;
use crate::local_port::LocalEnds;
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::persist::Rule;
use crate::rewrite::{Encap, PlanError, TunnelPlan};
use crate::sched::{FlowHash, Overload};
use crate::snapshot::{DestEntry, Link, Way};
use crate::state::TimeoutTable;

/// How a server is reached.
pub(super) struct Hop {
    pub neighbor: NeighborId,
    pub link: LinkId,
    pub encap: Option<Encap>,
}

/// What applying a configuration needs beside the registry.
pub struct Context<'a> {
    pub generation: u64,
    pub links: &'a [Link],
    pub book: &'a mut NeighborBook,
    pub tables: &'a mut Vec<TimeoutTable>,
    pub tunnels: &'a mut Vec<Encap>,
    pub local_ends: &'a mut Vec<LocalEnds>,
    pub rules: &'a mut Vec<Rule>,
    pub director_policy: Policy,
    pub policies: &'a mut Vec<EffectivePolicy>,
    pub gateways: [Option<(LinkId, NeighborId)>; 2],
    pub hash: &'a FlowHash,
    pub overload: &'a Overload,
    /// Present counters of an index.
    pub readings: &'a dyn Fn(DestId) -> Totals,
}

impl Context<'_> {
    pub(super) fn timeouts(&mut self, table: TimeoutTable) -> u16 {
        let at = self.tables.iter().position(|other| *other == table).unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        });
        at as u16
    }

    /// The place of a service's persistence in the new snapshot.
    pub(super) fn rule(&mut self, rule: Option<&Rule>) -> u16 {
        let Some(rule) = rule else { return DestEntry::NO_RULE };
        let at = self.rules.iter().position(|other| other == rule).unwrap_or_else(|| {
            self.rules.push(rule.clone());
            self.rules.len() - 1
        });
        at as u16
    }

    /// The place of a service's policy in the new snapshot.
    pub(super) fn policy(&mut self, policy: &EffectivePolicy) -> u16 {
        let at = self.policies.iter().position(|other| other == policy).unwrap_or_else(|| {
            self.policies.push(*policy);
            self.policies.len() - 1
        });
        at as u16
    }

    /// What is done to a server's packets, and the largest that then fits `link`.
    pub(super) fn way(
        &mut self,
        forwarding: Forwarding,
        encap: Option<&Encap>,
        ends: Option<&LocalEnds>,
        link: &Link,
    ) -> (Way, u16) {
        match (forwarding, encap, ends) {
            (_, Some(encap), _) => (Way::Tunnel(self.tunnel(encap)), encap.inner_mtu()),
            (_, None, Some(ends)) => (Way::FullNat(self.local_ends(ends)), link.mtu),
            (Forwarding::Nat, None, None) => (Way::Nat, link.mtu),
            _ => (Way::Dr, link.mtu),
        }
    }

    /// The place of local ends in the new snapshot.
    pub(super) fn local_ends(&mut self, ends: &LocalEnds) -> u16 {
        let at = self.local_ends.iter().position(|other| other == ends).unwrap_or_else(|| {
            self.local_ends.push(ends.clone());
            self.local_ends.len() - 1
        });
        at as u16
    }

    /// The place of a tunnel in the new snapshot.
    pub(super) fn tunnel(&mut self, encap: &Encap) -> u16 {
        let encap = encap.with_df(self.director_policy.pmtu_disc);
        let at = self.tunnels.iter().position(|other| *other == encap).unwrap_or_else(|| {
            self.tunnels.push(encap);
            self.tunnels.len() - 1
        });
        at as u16
    }

    /// The outer packet comes from the director's own address on the link that it leaves by, as Linux chooses it.
    fn encap(kind: Tunnel, remote: IpAddr, link: &Link) -> Result<Encap, PlanError> {
        let same_family = |address: &&lb_config::IfAddr| address.addr.is_ipv4() == remote.is_ipv4();
        let inside = link.addresses.iter().find(|network| network.contains(remote));
        let unspecified = match remote {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        let local =
            inside.or_else(|| link.addresses.iter().find(same_family)).map_or(unspecified, |of| of.addr);
        Encap::new(&TunnelPlan { kind, local, remote, link_mtu: link.mtu })
    }

    /// The next hop of every server, in the order of the model: all that can fail comes before the first change.
    ///
    /// With direct routing the server is on a connected network; else the gateway will do.
    pub(super) fn next_hops(&mut self, model: &Model) -> Result<Vec<Hop>, ApplyError> {
        let mut hops = Vec::new();
        for service in &model.services {
            for server in &service.servers {
                let (link, neighbor) = match link_to(self.links, server.address) {
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
                let wrong = |reason| ApplyError::Tunnel { service: service.name.clone(), reason };
                let encap = match server.forwarding {
                    Forwarding::Tunnel(tunnel) => Some(
                        Self::encap(tunnel, server.address, &self.links[usize::from(link.0)])
                            .map_err(wrong)?,
                    ),
                    Forwarding::Dr | Forwarding::Nat | Forwarding::FullNat => None,
                };
                hops.push(Hop { neighbor, link, encap });
            }
        }
        Ok(hops)
    }
}

/// The link in whose networks `address` is.
pub fn link_to(links: &[Link], address: IpAddr) -> Option<(LinkId, &Link)> {
    let at = links.iter().position(|link| link.addresses.iter().any(|network| network.contains(address)))?;
    Some((LinkId(at as u16), &links[at]))
}
