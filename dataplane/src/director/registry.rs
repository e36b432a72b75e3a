//! Who has which index: services, destinations, next hops, over all configurations that the process has seen.
//!
//! Invariants: an index that a worker's table may still hold is never given to another destination; a server that
//! comes back while connections of its former life exist gets its old index, and with it its connections and
//! counters, as IPVS revives a destination from its trash (`ip_vs_trash_get_dest`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{MaglevHash, Model, Service};

use crate::ids::{DestId, ServiceId};
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::sched::{Candidate, Cursor, FlowHash, MaglevTable, Member, Scheduler};
use crate::snapshot::{DestEntry, Link, ServiceEntry, ServiceKey};
use crate::state::TimeoutTable;

use super::ApplyError;

/// Counters of a destination at a point in time: connections, packets, bytes.
pub type Totals = [u64; 3];

/// A destination, configured or still draining after its removal.
#[derive(Debug)]
pub struct DestRecord {
    pub service: ServiceKey,
    pub address: IpAddr,
    pub weight: u32,
    pub entry: DestEntry,
    timeouts: TimeoutTable,
    /// The one that stood before it when it was removed.
    predecessor: Option<DestId>,
    /// Generation of the snapshot that removed it.
    pub removed_at: u64,
    /// Readings of the index's counters when this destination got it.
    pub base: Totals,
}

/// A configured service.
#[derive(Debug)]
pub struct ServiceRecord {
    pub id: ServiceId,
    cursor: Arc<Cursor>,
    maglev: Option<(Vec<Member>, Arc<MaglevTable>)>,
    pub entry: Arc<ServiceEntry>,
    /// What destinations that are gone for good had counted.
    pub past: Totals,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    pub services: HashMap<ServiceKey, ServiceRecord>,
    pub dests: Vec<Option<DestRecord>>,
    by_server: HashMap<(ServiceKey, IpAddr), DestId>,
    free: Vec<DestId>,
    /// Indices out of use since the snapshot of this generation; free when every worker has seen it.
    quarantine: Vec<(u64, DestId)>,
    max_dests: u32,
    next_service: u32,
}

/// What clients address.
pub fn key_of(service: &Service) -> ServiceKey {
    let protocol = match service.protocol {
        lb_config::Protocol::Tcp => crate::parse::L4::Tcp,
        lb_config::Protocol::Udp => crate::parse::L4::Udp,
    };
    ServiceKey { vip: service.vip, port: service.port, protocol: protocol as u8 }
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
        let wanted: HashSet<(ServiceKey, IpAddr)> = model
            .services
            .iter()
            .flat_map(|service| service.servers.iter().map(|server| (key_of(service), server.address)))
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
        let hops = context.next_hops(model)?;
        let mut hops = hops.into_iter();
        let mut former = std::mem::take(&mut self.services);
        for service in &model.services {
            let key = key_of(service);
            let mut record = former.remove(&key).unwrap_or_else(|| self.new_service());
            let table = TimeoutTable::new(&model.timeouts, &service.timeouts);
            let timeouts = context.timeouts(table);
            let mut candidates = Vec::with_capacity(service.servers.len());
            for (position, (server, (neighbor, link))) in service.servers.iter().zip(&mut hops).enumerate() {
                let link = &context.links[usize::from(link.0)];
                let entry = DestEntry {
                    neighbor,
                    position: position as u32,
                    service: record.id,
                    device: link.device,
                    vlan: link.vlan,
                    mtu: link.mtu,
                    timeouts,
                    mac: link.mac,
                    removed: false,
                };
                let dest = self.place((key, server.address), server.weight, entry, table, context);
                candidates.push(Candidate { dest, weight: server.weight });
            }
            self.remove_all_but(&record.entry.candidates, &candidates, context.generation);
            record.schedule(self, service, candidates, context.hash);
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
        let entry = Arc::new(ServiceEntry { id, scheduler: Scheduler::Lc, candidates: Vec::new() });
        ServiceRecord { id, cursor: Arc::default(), maglev: None, entry, past: [0; 3] }
    }

    /// Gives a server its index: the one it has, the one it had, or a free one.
    fn place(
        &mut self,
        (service, address): (ServiceKey, IpAddr),
        weight: u32,
        entry: DestEntry,
        timeouts: TimeoutTable,
        context: &Context<'_>,
    ) -> DestId {
        if let Some(&dest) = self.by_server.get(&(service, address)) {
            if let Some(record) = &mut self.dests[dest.0 as usize] {
                (record.entry, record.weight, record.timeouts, record.predecessor) =
                    (entry, weight, timeouts, None);
            }
            return dest;
        }
        let dest = self.free.pop().unwrap_or_else(|| {
            self.dests.push(None);
            DestId(self.dests.len() as u32 - 1)
        });
        let base = (context.readings)(dest);
        let record =
            DestRecord { service, address, weight, entry, timeouts, predecessor: None, removed_at: 0, base };
        self.dests[dest.0 as usize] = Some(record);
        self.by_server.insert((service, address), dest);
        dest
    }

    /// Marks those of `old` that are not in `new` as removed.
    fn remove_all_but(&mut self, old: &[Candidate], new: &[Candidate], generation: u64) {
        let stays: HashSet<DestId> = new.iter().map(|candidate| candidate.dest).collect();
        for (at, candidate) in old.iter().enumerate() {
            if stays.contains(&candidate.dest) {
                continue;
            }
            if let Some(record) = &mut self.dests[candidate.dest.0 as usize] {
                record.entry.removed = true;
                record.weight = 0;
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
            if !record.entry.removed {
                continue;
            }
            let mut before = record.predecessor;
            // a chain of removed ones is at most as long as the registry
            let mut position = u32::MAX;
            for _ in 0..self.dests.len() {
                let Some(standing) = before.and_then(|dest| self.dests[dest.0 as usize].as_ref()) else {
                    break;
                };
                if !standing.entry.removed {
                    position = standing.entry.position;
                    break;
                }
                before = standing.predecessor;
            }
            if let Some(record) = &mut self.dests[at] {
                record.entry.position = position;
                record.entry.timeouts = context.timeouts(record.timeouts);
            }
        }
    }

    /// Takes removed destinations without connections out of use and frees indices that every worker has let go.
    ///
    /// `seen`: oldest generation that a worker uses; `building`: generation of the snapshot about to be built;
    /// `connections` of an index over all workers. Returns whether anything was taken out.
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
            let done = record.entry.removed && record.removed_at <= seen && connections(dest) == 0;
            let is_cursor = || {
                self.services.get(&record.service).is_some_and(|service| service.cursor.last() == Some(dest))
            };
            if !done || is_cursor() {
                continue;
            }
            if let Some(service) = self.services.get_mut(&record.service) {
                let now = readings(dest);
                (0..3).for_each(|n| service.past[n] += now[n] - record.base[n]);
            }
            self.by_server.remove(&(record.service, record.address));
            self.dests[at] = None;
            self.quarantine.push((building, dest));
            any = true;
        }
        any
    }

    /// The next hops in use.
    pub fn neighbors(&self) -> HashSet<NeighborId> {
        self.dests.iter().flatten().map(|record| record.entry.neighbor).collect()
    }
}

impl ServiceRecord {
    /// Renews the entry for new candidates, if anything changed.
    fn schedule(
        &mut self,
        registry: &Registry,
        service: &Service,
        candidates: Vec<Candidate>,
        hash: &FlowHash,
    ) {
        let scheduler = match service.scheduler {
            lb_config::Scheduler::Rr => Scheduler::Rr(self.cursor.clone()),
            lb_config::Scheduler::Lc => Scheduler::Lc,
            lb_config::Scheduler::Maglev(input) => {
                let member = |candidate: &Candidate| {
                    let record = registry.dests[candidate.dest.0 as usize].as_ref()?;
                    Some(Member { address: record.address, weight: candidate.weight, dest: candidate.dest })
                };
                let members: Vec<Member> = candidates.iter().filter_map(member).collect();
                let table = match &self.maglev {
                    Some((of, table)) if *of == members => table.clone(),
                    _ => Arc::new(MaglevTable::new(&members, hash)),
                };
                self.maglev = Some((members, table.clone()));
                Scheduler::Maglev(table, input == MaglevHash::Source)
            }
        };
        self.entry = Arc::new(ServiceEntry { id: self.id, scheduler, candidates });
    }
}

/// What applying a configuration needs beside the registry.
pub struct Context<'a> {
    pub generation: u64,
    pub links: &'a [Link],
    pub book: &'a mut NeighborBook,
    pub tables: &'a mut Vec<TimeoutTable>,
    pub hash: &'a FlowHash,
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

    /// The next hop of every server, in the order of the model: all that can fail comes before the first change.
    fn next_hops(&mut self, model: &Model) -> Result<Vec<(NeighborId, LinkId)>, ApplyError> {
        let mut hops = Vec::new();
        for service in &model.services {
            for server in &service.servers {
                let not_connected =
                    || ApplyError::NotConnected { server: server.address, service: service.name.clone() };
                let (link, _) = link_to(self.links, server.address).ok_or_else(not_connected)?;
                let neighbor =
                    self.book.intern(link, server.address).map_err(|_| ApplyError::TooManyNeighbors)?;
                hops.push((neighbor, link));
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
