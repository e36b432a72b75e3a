//! Who has which index: services, destinations, next hops, over all configurations that the process has seen.
//!
//! Invariants: an index that a worker's table may still hold is never given to another destination; a server that
//! comes back while connections of its former life exist gets its old index, and with it its connections and
//! counters, as IPVS revives a destination from its trash (`ip_vs_trash_get_dest`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{Forwarding, Model, Server, Service, ServiceAddress, Tunnel};

use crate::classify::{Classifier, MarkRule};
use crate::ids::{DestId, ServiceId};
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::persist::Rule;
use crate::rewrite::{Encap, PlanError, TunnelPlan};
use crate::sched::build::{self, Change};
use crate::sched::{Candidate, FlowHash, Memory, Overload, Scheduler, ServerState};
use crate::snapshot::{DestEntry, Link, ServiceEntry, Way};
use crate::state::TimeoutTable;

use super::{ApplyError, addressing};

/// Counters of a destination at a point in time: connections, packets and bytes in, packets and bytes out.
pub type Totals = [u64; 5];

/// What makes a destination the same over configurations. Another forwarding is another destination: connections
/// keep the one that they began with, as IPVS's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestKey {
    pub service: ServiceAddress,
    pub address: IpAddr,
    pub port: u16,
    pub forwarding: Forwarding,
}

impl DestKey {
    fn of(service: &Service, server: &Server) -> Self {
        let Server { address, port, forwarding, .. } = *server;
        Self { service: service.address, address, port, forwarding }
    }
}

/// A destination, configured or still draining after its removal.
#[derive(Debug)]
pub struct DestRecord {
    pub key: DestKey,
    part: Part,
    /// Its latest weight above 0 since it was added.
    last_weight: u32,
    /// The one that stood before it when it was removed.
    predecessor: Option<DestId>,
    /// Generation of the snapshot that removed it.
    pub removed_at: u64,
    /// Readings of the index's counters when this destination got it.
    pub base: Totals,
}

/// What a configuration says of a destination.
#[derive(Debug)]
struct Part {
    server: Server,
    entry: DestEntry,
    timeouts: TimeoutTable,
    encap: Option<Encap>,
    /// Persistence of its service.
    rule: Option<Rule>,
}

impl DestRecord {
    /// 0 for a removed one.
    pub fn weight(&self) -> u32 {
        self.part.server.weight
    }

    /// Upper and lower, 0: none.
    pub fn thresholds(&self) -> (u32, u32) {
        (self.part.server.upper_threshold, self.part.server.lower_threshold)
    }

    /// What the packet path knows of it.
    pub fn entry(&self) -> &DestEntry {
        &self.part.entry
    }
}

/// A configured service.
#[derive(Debug)]
pub struct ServiceRecord {
    pub id: ServiceId,
    memory: Memory,
    pub entry: Arc<ServiceEntry>,
    /// What destinations that are gone for good had counted.
    pub past: Totals,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    pub services: HashMap<ServiceAddress, ServiceRecord>,
    pub dests: Vec<Option<DestRecord>>,
    by_server: HashMap<DestKey, DestId>,
    free: Vec<DestId>,
    /// Indices out of use since the snapshot of this generation; free when every worker has seen it.
    quarantine: Vec<(u64, DestId)>,
    max_dests: u32,
    next_service: u32,
}

impl Registry {
    pub fn new(max_dests: u32) -> Self {
        Self {
            services: HashMap::new(),
            dests: Vec::new(),
            by_server: HashMap::new(),
            free: Vec::new(),
            quarantine: Vec::new(),
            max_dests,
            next_service: 0,
        }
    }

    /// Checks that `model` fits before anything is changed.
    pub fn check(&self, model: &Model) -> Result<(), ApplyError> {
        let wanted: HashSet<DestKey> = model
            .services
            .iter()
            .flat_map(|service| service.servers.iter().map(|server| DestKey::of(service, server)))
            .collect();
        let new = wanted.iter().filter(|server| !self.by_server.contains_key(server)).count();
        let used = self.by_server.len() + self.quarantine.len();
        if used + new > self.max_dests as usize {
            let draining = used - self.by_server.keys().filter(|server| wanted.contains(server)).count();
            return Err(ApplyError::TooManyServers { wanted: wanted.len(), draining, limit: self.max_dests });
        }
        Ok(())
    }

    /// Makes the registry what `model` says.
    ///
    /// Errors: as [`Registry::check`]; then nothing is changed.
    pub fn apply(&mut self, model: &Model, context: &mut Context<'_>) -> Result<(), ApplyError> {
        self.check(model)?;
        let mut hops = context.next_hops(model)?.into_iter();
        let mut former = std::mem::take(&mut self.services);
        for service in &model.services {
            let key = service.address;
            let mut record = former.remove(&key).unwrap_or_else(|| self.new_service());
            let table = TimeoutTable::new(&model.timeouts, &service.timeouts);
            let timeouts = context.timeouts(table);
            let former = record.entry.rule.as_ref();
            let rule = service.persistence.map(|persistence| {
                let rule = addressing::rule(service.address, persistence);
                former.map_or(rule.clone(), |former| rule.clone().succeeding(former))
            });
            let rule_at = context.rule(rule.as_ref());
            let mut candidates = Vec::with_capacity(service.servers.len());
            let mut edited = false;
            for (position, (server, hop)) in service.servers.iter().zip(&mut hops).enumerate() {
                let link = &context.links[usize::from(hop.link.0)];
                let (way, mtu) = context.way(server.forwarding, hop.encap.as_ref(), link);
                let neighbor = hop.neighbor;
                let entry = DestEntry {
                    neighbor,
                    position: position as u32,
                    service: record.id,
                    device: link.device,
                    vlan: link.vlan,
                    mtu,
                    timeouts,
                    mac: link.mac,
                    removed: false,
                    way,
                    rule: rule_at,
                    port: server.port,
                    address: server.address,
                };
                let part = Part {
                    server: server.clone(),
                    entry,
                    timeouts: table,
                    encap: hop.encap,
                    rule: rule.clone(),
                };
                let (dest, changed) = self.place(DestKey::of(service, server), part, context);
                edited |= changed;
                let tag = build::tag(server.address, server.port, context.hash);
                candidates.push(Candidate { dest, weight: server.weight, tag });
            }
            self.remove_all_but(&record.entry.candidates, &candidates, context.generation);
            record.schedule(self, service, Edited { candidates, any: edited, rule }, context.hash);
            self.services.insert(key, record);
        }
        for gone in former.values() {
            self.remove_all_but(&gone.entry.candidates, &[], context.generation);
        }
        self.place_removed(context);
        Ok(())
    }

    fn new_service(&mut self) -> ServiceRecord {
        let id = ServiceId(self.next_service);
        self.next_service += 1;
        let entry = Arc::new(ServiceEntry {
            id,
            scheduler: Scheduler::Lc,
            candidates: Vec::new(),
            rule: None,
            one_packet: false,
        });
        ServiceRecord { id, memory: Memory::default(), entry, past: [0; 5] }
    }

    /// Gives a server its index: the one it has, the one it had, or a free one. Returns it, and whether the server is
    /// new or differs from what it was.
    fn place(&mut self, key: DestKey, part: Part, context: &Context<'_>) -> (DestId, bool) {
        let Server { upper_threshold: upper, lower_threshold: lower, weight, .. } = part.server;
        if let Some(&dest) = self.by_server.get(&key) {
            let Some(record) = &mut self.dests[dest.0 as usize] else { return (dest, false) };
            let changed = record.part.entry.removed || record.part.server != part.server;
            if record.part.entry.removed || weight > 0 {
                record.last_weight = weight;
            }
            (record.part, record.predecessor) = (part, None);
            context.overload.configure(dest, upper, lower);
            return (dest, changed);
        }
        let dest = self.free.pop().unwrap_or_else(|| {
            self.dests.push(None);
            DestId(self.dests.len() as u32 - 1)
        });
        context.overload.renew(dest, upper, lower);
        let base = (context.readings)(dest);
        let record = DestRecord { key, part, last_weight: weight, predecessor: None, removed_at: 0, base };
        self.dests[dest.0 as usize] = Some(record);
        self.by_server.insert(key, dest);
        (dest, true)
    }

    /// Marks those of `old` that are not in `new` as removed.
    fn remove_all_but(&mut self, old: &[Candidate], new: &[Candidate], generation: u64) {
        let stays: HashSet<DestId> = new.iter().map(|candidate| candidate.dest).collect();
        for (at, candidate) in old.iter().enumerate() {
            if stays.contains(&candidate.dest) {
                continue;
            }
            if let Some(record) = &mut self.dests[candidate.dest.0 as usize] {
                record.part.entry.removed = true;
                record.part.server.weight = 0;
                record.removed_at = generation;
                record.predecessor = at.checked_sub(1).map(|before| old[before].dest);
            }
        }
    }

    /// Gives every removed destination the position of its nearest predecessor that still stands, and its timeouts
    /// a place in the new snapshot: its connections go on.
    fn place_removed(&mut self, context: &mut Context<'_>) {
        for at in 0..self.dests.len() {
            let Some(record) = &self.dests[at] else { continue };
            if !record.part.entry.removed {
                continue;
            }
            let mut before = record.predecessor;
            // a chain of removed ones is at most as long as the registry
            let mut position = u32::MAX;
            for _ in 0..self.dests.len() {
                let Some(standing) = before.and_then(|dest| self.dests[dest.0 as usize].as_ref()) else {
                    break;
                };
                if !standing.part.entry.removed {
                    position = standing.part.entry.position;
                    break;
                }
                before = standing.predecessor;
            }
            if let Some(record) = &mut self.dests[at] {
                record.part.entry.position = position;
                record.part.entry.timeouts = context.timeouts(record.part.timeouts);
                record.part.entry.rule = context.rule(record.part.rule.as_ref());
                if let Some(encap) = &record.part.encap {
                    record.part.entry.way = Way::Tunnel(context.tunnel(encap));
                }
            }
        }
    }

    /// Takes removed destinations without connections out of use and frees indices that every worker has let go.
    ///
    /// `seen`: oldest generation that a worker uses; `building`: generation of the snapshot about to be built;
    /// `connections` and templates of an index over all workers. Returns whether anything was taken out.
    pub fn retire(
        &mut self,
        seen: u64,
        building: u64,
        connections: impl Fn(DestId) -> u64,
        readings: impl Fn(DestId) -> Totals,
    ) -> bool {
        self.quarantine.retain(|(generation, dest)| {
            let held = *generation > seen;
            if !held {
                self.free.push(*dest);
            }
            held
        });
        let mut any = false;
        for at in 0..self.dests.len() {
            let dest = DestId(at as u32);
            let Some(record) = &self.dests[at] else { continue };
            // a worker with an older snapshot may still schedule to it
            let done = record.part.entry.removed && record.removed_at <= seen && connections(dest) == 0;
            let is_cursor = || {
                self.services.get(&record.key.service).is_some_and(|service| service.memory.refers_to(dest))
            };
            if !done || is_cursor() {
                continue;
            }
            if let Some(service) = self.services.get_mut(&record.key.service) {
                let now = readings(dest);
                (0..now.len()).for_each(|n| service.past[n] += now[n] - record.base[n]);
            }
            self.by_server.remove(&record.key);
            self.dests[at] = None;
            self.quarantine.push((building, dest));
            any = true;
        }
        any
    }

    /// How packets find their services.
    pub fn classifier(&self, marks: Vec<MarkRule>) -> Classifier<Arc<ServiceEntry>> {
        let service = |(key, record): (&ServiceAddress, &ServiceRecord)| {
            (addressing::address(*key), record.entry.rule.is_some(), record.entry.clone())
        };
        Classifier::new(marks, self.services.iter().map(service))
    }

    /// See [`crate::snapshot::Snapshot::nat_servers`].
    pub fn nat_servers(&self) -> HashSet<(IpAddr, u16, u8)> {
        let nat = |record: &&DestRecord| record.part.entry.way == Way::Nat;
        let servers = |record: &DestRecord| {
            let DestKey { service, address, port, .. } = record.key;
            addressing::protocols(service).into_iter().map(move |protocol| (address, port, protocol))
        };
        self.dests.iter().flatten().filter(nat).flat_map(servers).collect()
    }

    fn last_weight(&self, dest: DestId) -> u32 {
        let record = self.dests.get(dest.0 as usize).and_then(|record| record.as_ref());
        record.map_or(0, |record| record.last_weight)
    }

    /// Once a second: schedulers forget what is old. `now_ms`: since any fixed point.
    pub fn tick_schedulers(&self, now_ms: u64) {
        let now_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        self.services.values().for_each(|service| service.memory.tick(now_s));
    }

    /// The next hops in use.
    pub fn neighbors(&self) -> HashSet<NeighborId> {
        self.dests.iter().flatten().map(|record| record.part.entry.neighbor).collect()
    }
}

impl ServiceRecord {
    /// Renews the entry for new candidates. `edited`: a server is new or differs from what it was.
    fn schedule(
        &mut self,
        registry: &Registry,
        service: &Service,
        Edited { candidates, any, rule }: Edited,
        hash: &FlowHash,
    ) {
        let state = |(server, candidate): (&Server, &Candidate)| ServerState {
            address: server.address,
            port: server.port,
            last_weight: registry.last_weight(candidate.dest),
        };
        let servers: Vec<ServerState> = service.servers.iter().zip(&candidates).map(state).collect();
        let old = &self.entry.candidates;
        // whoever was removed or stands elsewhere
        let same = old.iter().map(|candidate| candidate.dest).eq(candidates.iter().map(|c| c.dest));
        let change =
            Change { service, old, candidates: &candidates, servers: &servers, edited: any || !same, hash };
        let scheduler = self.memory.update(&change);
        let one_packet = service.one_packet;
        self.entry = Arc::new(ServiceEntry { id: self.id, scheduler, candidates, rule, one_packet });
    }

    /// A server was edited to what it was.
    pub fn touch(&self) {
        self.memory.touch();
    }
}

/// What an edit made of a service's servers.
struct Edited {
    candidates: Vec<Candidate>,
    /// Whether any of them is new or differs.
    any: bool,
    rule: Option<Rule>,
}

/// How a server is reached.
struct Hop {
    neighbor: NeighborId,
    link: LinkId,
    encap: Option<Encap>,
}

/// What applying a configuration needs beside the registry.
pub struct Context<'a> {
    pub generation: u64,
    pub links: &'a [Link],
    pub book: &'a mut NeighborBook,
    pub tables: &'a mut Vec<TimeoutTable>,
    pub tunnels: &'a mut Vec<Encap>,
    pub rules: &'a mut Vec<Rule>,
    pub gateways: [Option<(LinkId, NeighborId)>; 2],
    pub hash: &'a FlowHash,
    pub overload: &'a Overload,
    /// Present counters of an index.
    pub readings: &'a dyn Fn(DestId) -> Totals,
}

impl Context<'_> {
    fn timeouts(&mut self, table: TimeoutTable) -> u16 {
        let at = self.tables.iter().position(|other| *other == table).unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        });
        at as u16
    }

    /// The place of a service's persistence in the new snapshot.
    fn rule(&mut self, rule: Option<&Rule>) -> u16 {
        let Some(rule) = rule else { return DestEntry::NO_RULE };
        let at = self.rules.iter().position(|other| other == rule).unwrap_or_else(|| {
            self.rules.push(rule.clone());
            self.rules.len() - 1
        });
        at as u16
    }

    /// What is done to a server's packets, and the largest that then fits `link`.
    fn way(&mut self, forwarding: Forwarding, encap: Option<&Encap>, link: &Link) -> (Way, u16) {
        match (forwarding, encap) {
            (_, Some(encap)) => (Way::Tunnel(self.tunnel(encap)), encap.inner_mtu()),
            (Forwarding::Nat, None) => (Way::Nat, link.mtu),
            _ => (Way::Dr, link.mtu),
        }
    }

    /// The place of a tunnel in the new snapshot.
    fn tunnel(&mut self, encap: &Encap) -> u16 {
        let at = self.tunnels.iter().position(|other| other == encap).unwrap_or_else(|| {
            self.tunnels.push(*encap);
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
    fn next_hops(&mut self, model: &Model) -> Result<Vec<Hop>, ApplyError> {
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
                    Forwarding::Dr | Forwarding::Nat => None,
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
