//! Who has which index: services, destinations, next hops, over all configurations that the process has seen.
//!
//! Invariants: an index that a worker's table may still hold is never given to another destination; a server that
//! comes back while connections of its former life exist gets its old index, and with it its connections and
//! counters, as IPVS revives a destination from its trash (`ip_vs_trash_get_dest`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{
    ClientAddress, EffectivePolicy, Forwarding, Model, Server, Service, ServiceAddress, SnatRule,
};

use crate::classify::{Classifier, MarkRule};
use crate::ids::{DestId, ServiceId};
use crate::io::DeviceId;
use crate::local_port::LocalEnds;
use crate::neighbor::{LinkId, NeighborId};
use crate::persist::Rule;
use crate::rewrite::Encap;
use crate::sched::build::{self, Change};
use crate::sched::{Candidate, FlowHash, Memory, Scheduler, ServerState};
use crate::snapshot::{DestEntry, Link, ServiceEntry, Way};
use crate::snat::SnatEntry;
use crate::state::TimeoutTable;

use super::context::Context;
use super::{ApplyError, addressing};

/// Counters of a destination at a point in time: connections, packets and bytes in, packets and bytes out.
pub type Totals = [u64; 5];

/// What makes a destination the same over configurations. Another forwarding is another destination: connections
/// keep the one that they began with, as IPVS's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestKey {
    pub owner: Owner,
    pub address: IpAddr,
    pub port: u16,
    pub forwarding: Forwarding,
}

/// Whose destination it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A service's.
    Service(ServiceAddress),
    /// A rule's of source NAT: what it matches, protocols as [`SnatEntry::bits`].
    Snat { sources: lb_config::IpPrefix, protocols: u8, link: Option<LinkId> },
}

impl Owner {
    /// The service.
    pub fn service(self) -> Option<ServiceAddress> {
        match self {
            Owner::Service(address) => Some(address),
            Owner::Snat { .. } => None,
        }
    }
}

impl DestKey {
    /// A rule of source NAT; `None`: it names a port of the director that is not there.
    fn of_rule(rule: &SnatRule, links: &[Link]) -> Option<Self> {
        let link = match &rule.port {
            Some(name) => Some(LinkId(links.iter().position(|link| link.name == *name)? as u16)),
            None => None,
        };
        let owner = Owner::Snat { sources: rule.sources, protocols: SnatEntry::bits(&rule.protocols), link };
        // it stands for the servers that there are not
        let address = *rule.addresses.first()?;
        Some(Self { owner, address, port: 0, forwarding: Forwarding::FullNat })
    }

    fn of(service: &Service, server: &Server) -> Self {
        let Server { address, port, forwarding, .. } = *server;
        Self { owner: Owner::Service(service.address), address, port, forwarding }
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
    /// Where its packets come from, with full NAT and source NAT.
    ends: Option<LocalEnds>,
    /// Persistence of its service.
    rule: Option<Rule>,
    /// What its service decides.
    policy: EffectivePolicy,
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

    /// How long its connections may go on; `None`: no such limit, or it was removed.
    pub fn drain_deadline(&self) -> Option<Duration> {
        self.part.server.drain_deadline.filter(|_| !self.part.entry.removed)
    }

    /// What its service decides.
    pub fn policy(&self) -> &EffectivePolicy {
        &self.part.policy
    }

    /// What the packet path knows of it, but for a drain that is over.
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
    /// Destinations of the rules of source NAT, in the order of the configuration.
    pub snat: Vec<DestId>,
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
            snat: Vec::new(),
            by_server: HashMap::new(),
            free: Vec::new(),
            quarantine: Vec::new(),
            max_dests,
            next_service: 0,
        }
    }

    /// Checks that `model` fits before anything is changed.
    pub fn check(&self, model: &Model, links: &[Link]) -> Result<(), ApplyError> {
        let wanted: HashSet<DestKey> = model
            .services
            .iter()
            .flat_map(|service| service.servers.iter().map(|server| DestKey::of(service, server)))
            .chain(model.snat.iter().filter_map(|rule| DestKey::of_rule(rule, links)))
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
        self.check(model, context.links)?;
        let mut hops = context.next_hops(model)?.into_iter();
        let mut former = std::mem::take(&mut self.services);
        for service in &model.services {
            let key = service.address;
            let mut record =
                former.remove(&key).unwrap_or_else(|| self.new_service(&model.policy.of(service)));
            let policy = model.policy.of(service);
            let table = TimeoutTable::new(&model.timeouts, &service.timeouts).with_policy(&policy);
            let policy_at = context.policy(&policy);
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
                let ends = (server.forwarding == Forwarding::FullNat).then(|| LocalEnds {
                    addresses: service.local_addresses.clone(),
                    client_address: service.client_address,
                });
                let (way, mtu) = context.way(server.forwarding, hop.encap.as_ref(), ends.as_ref(), link);
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
                    draining: server.weight == 0,
                    policy: policy_at,
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
                    ends,
                    rule: rule.clone(),
                    policy,
                };
                let (dest, changed) = self.place(DestKey::of(service, server), part, context);
                edited |= changed;
                let tag = build::tag(server.address, server.port, context.hash);
                candidates.push(Candidate { dest, weight: server.weight, tag });
            }
            self.remove_all_but(&record.entry.candidates, &candidates, context.generation);
            let edited = Edited { candidates, any: edited, rule, policy };
            record.schedule(self, service, edited, context.hash);
            self.services.insert(key, record);
        }
        for gone in former.values() {
            self.remove_all_but(&gone.entry.candidates, &[], context.generation);
        }
        self.apply_snat(model, context);
        self.place_removed(context);
        Ok(())
    }

    /// Rules of source NAT are destinations without servers.
    fn apply_snat(&mut self, model: &Model, context: &mut Context<'_>) {
        let table = TimeoutTable::new(&model.timeouts, &lb_config::ServiceTimeouts::default());
        let timeouts = context.timeouts(table);
        // connections of a rule that was taken out go on; no service is asked
        let policy = EffectivePolicy {
            on_no_server: lb_config::OnNoServer::Drop,
            on_server_down: lb_config::OnServerDown::Keep,
            reuse: lb_config::Reuse::Closing,
            mss: None,
            dr_close_timeout: None,
            max_connections: None,
            udp_activity: None,
            syn_proxy: lb_config::SynProxy::Off,
        };
        let former = std::mem::take(&mut self.snat);
        for rule in &model.snat {
            let Some(key) = DestKey::of_rule(rule, context.links) else { continue };
            let ends = LocalEnds { addresses: rule.addresses.clone(), client_address: ClientAddress::None };
            // every packet goes where its destination is: what is said here of the way is not looked at
            let entry = DestEntry {
                neighbor: NeighborId(0),
                position: u32::MAX,
                service: ServiceId(u32::MAX),
                device: DeviceId(0),
                vlan: 0,
                mtu: 0,
                timeouts,
                mac: [0; 6],
                removed: false,
                draining: false,
                policy: context.policy(&policy),
                rule: DestEntry::NO_RULE,
                way: Way::Snat(context.local_ends(&ends)),
                port: 0,
                address: key.address,
            };
            let server = Server::new(key.address, 0, Forwarding::FullNat);
            let part =
                Part { server, entry, timeouts: table, encap: None, ends: Some(ends), rule: None, policy };
            let (dest, _) = self.place(key, part, context);
            self.snat.push(dest);
        }
        let candidates = |dests: &[DestId]| -> Vec<Candidate> {
            dests.iter().map(|dest| Candidate { dest: *dest, weight: 1, tag: 0 }).collect()
        };
        let standing = candidates(&self.snat);
        self.remove_all_but(&candidates(&former), &standing, context.generation);
    }

    /// The rules of source NAT as the packet path needs them.
    pub fn snat_entries(&self) -> Vec<SnatEntry> {
        let entry = |dest: &DestId| {
            let record = self.dests.get(dest.0 as usize)?.as_ref()?;
            let Owner::Snat { sources, protocols, link } = record.key.owner else { return None };
            Some(SnatEntry { sources: addressing::prefix(sources), protocols, link, dest: *dest })
        };
        self.snat.iter().filter_map(entry).collect()
    }

    fn new_service(&mut self, policy: &EffectivePolicy) -> ServiceRecord {
        let id = ServiceId(self.next_service);
        self.next_service += 1;
        let entry = Arc::new(ServiceEntry {
            id,
            scheduler: Scheduler::Lc,
            candidates: Vec::new(),
            heaviest: 0,
            rule: None,
            one_packet: false,
            policy: *policy,
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
                record.part.entry.draining = true;
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
            let service =
                self.dests[at].as_ref().and_then(|record| self.services.get(&record.key.owner.service()?));
            let policy = service.map(|service| service.entry.policy);
            if let Some(record) = &mut self.dests[at] {
                // its service may have changed its mind since
                record.part.policy = policy.unwrap_or(record.part.policy);
                record.part.entry.policy = context.policy(&record.part.policy);
                record.part.entry.position = position;
                record.part.entry.timeouts = context.timeouts(record.part.timeouts);
                record.part.entry.rule = context.rule(record.part.rule.as_ref());
                if let Some(encap) = &record.part.encap {
                    record.part.entry.way = Way::Tunnel(context.tunnel(encap));
                }
                if let Some(ends) = &record.part.ends {
                    let at = context.local_ends(ends);
                    let is_snat = matches!(record.part.entry.way, Way::Snat(_));
                    record.part.entry.way = if is_snat { Way::Snat(at) } else { Way::FullNat(at) };
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
                let service = record.key.owner.service().and_then(|key| self.services.get(&key));
                service.is_some_and(|service| service.memory.refers_to(dest))
            };
            if !done || is_cursor() {
                continue;
            }
            if let Some(service) = record.key.owner.service().and_then(|key| self.services.get_mut(&key)) {
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
            let DestKey { owner, address, port, .. } = record.key;
            let protocols = owner.service().map(addressing::protocols).unwrap_or_default();
            protocols.into_iter().map(move |protocol| (address, port, protocol))
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
        let has_one = |record: &&DestRecord| !matches!(record.part.entry.way, Way::Snat(_));
        self.dests.iter().flatten().filter(has_one).map(|record| record.part.entry.neighbor).collect()
    }
}

impl ServiceRecord {
    /// Renews the entry for new candidates. `edited`: a server is new or differs from what it was.
    fn schedule(
        &mut self,
        registry: &Registry,
        service: &Service,
        Edited { candidates, any, rule, policy }: Edited,
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
        let heaviest = heaviest(&candidates);
        self.entry =
            Arc::new(ServiceEntry { id: self.id, scheduler, candidates, heaviest, rule, one_packet, policy });
    }

    /// A server was edited to what it was.
    pub fn touch(&self) {
        self.memory.touch();
    }
}

fn heaviest(candidates: &[Candidate]) -> u32 {
    candidates.iter().map(|candidate| candidate.weight).max().unwrap_or(0)
}

/// What an edit made of a service's servers.
struct Edited {
    candidates: Vec<Candidate>,
    /// Whether any of them is new or differs.
    any: bool,
    rule: Option<Rule>,
    policy: EffectivePolicy,
}
