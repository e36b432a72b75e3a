//! Who has which index: services, destinations, next hops, over all configurations that the process has seen.
//!
//! Invariants: an index that a worker's table may still hold is never given to another destination; a server that
//! comes back while connections of its former life exist gets its old index, and with it its connections and
//! counters, as IPVS revives a destination from its trash (`ip_vs_trash_get_dest`).
//!
//! What snapshots hold is kept here ready to be copied, and a service that does not change is not looked at. Files: this
//! one (what there is), `apply` (changes), `retire` (the end of removed destinations).

mod apply;
mod retire;

pub use apply::Difference;
pub use retire::{Round, Shared};

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use lb_config::{Forwarding, Server, Service, ServiceAddress, SnatRule};

use crate::classify::Classifier;
use crate::express::ReplyEnds;
use crate::ids::{DestId, ServiceId};
use crate::neighbor::LinkId;
use crate::paged::Paged;
use crate::sched::Memory;
use crate::shards::Shards;
use crate::snapshot::{DestEntry, Link, ServiceEntry};
use crate::snat::SnatEntry;

use super::addressing;

/// Counters of a destination at a point in time: connections, packets and bytes in, packets and bytes out.
pub type Totals = [u64; 5];

/// What makes a destination the same over configurations, and to every director of one configuration. Another
/// forwarding is another destination: connections keep the one that they began with, as IPVS's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestKey {
    /// Whose it is.
    pub owner: Owner,
    /// The server's address; of source NAT its first local address.
    pub address: IpAddr,
    /// The server's port, host order; 0: the one that the client used.
    pub port: u16,
    /// How packets get there.
    pub forwarding: Forwarding,
}

/// Whose destination it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A service's.
    Service(ServiceAddress),
    /// A rule's of source NAT: what it matches, protocols as [`SnatEntry::bits`].
    Snat {
        /// Private hosts.
        sources: lb_config::IpPrefix,
        /// Protocols, a bit each.
        protocols: u8,
        /// Where packets come from, if that matters.
        link: Option<LinkId>,
    },
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

/// A destination, configured or still draining after its removal; what the packet path knows of it is in
/// [`Registry::entries`].
#[derive(Debug)]
pub struct DestRecord {
    pub key: DestKey,
    /// As configured; the weight of a removed one is 0.
    pub server: Server,
    /// No longer configured. A destination whose drain is over is removed for the packet path alone.
    pub removed: bool,
    /// Its latest weight above 0 since it was added.
    last_weight: u32,
    /// The one that stood before it when it was removed.
    predecessor: Option<DestId>,
    /// Generation of the snapshot that removed it.
    removed_at: u64,
    /// Readings of the index's counters when this destination got it.
    pub base: Totals,
}

impl DestRecord {
    /// Whether it gets connections.
    pub fn stands(&self) -> bool {
        !self.removed && self.server.weight > 0
    }

    /// Upper and lower, 0: none.
    pub fn thresholds(&self) -> (u32, u32) {
        (self.server.upper_threshold, self.server.lower_threshold)
    }

    /// How long its connections may go on; `None`: no such limit, or it was removed.
    pub fn drain_deadline(&self) -> Option<Duration> {
        self.server.drain_deadline.filter(|_| !self.removed)
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

impl ServiceRecord {
    /// A server was edited to what it was.
    pub fn touch(&self) {
        self.memory.touch();
    }
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    pub services: HashMap<ServiceAddress, ServiceRecord>,
    records: Vec<Option<DestRecord>>,
    /// See [`crate::snapshot::Snapshot::dests`].
    pub entries: Paged<Option<DestEntry>>,
    /// How packets find their services.
    pub classifier: Classifier<Arc<ServiceEntry>>,
    /// See [`crate::snapshot::Snapshot::nat_servers`].
    pub nat_servers: Shards<(IpAddr, u16, u8), u32>,
    /// Likewise: a hint of these.
    pub sources: ReplyEnds,
    /// Destinations of the rules of source NAT, in the order of the configuration.
    pub snat: Vec<DestId>,
    /// Destinations that are no longer configured.
    pub removed: BTreeSet<DestId>,
    /// The same by service.
    removed_of: HashMap<ServiceAddress, BTreeSet<DestId>>,
    /// The look at them that is under way.
    pub round: Round,
    /// Destinations that the latest change looked at.
    pub touched: Vec<DestId>,
    /// Services whose schedulers forget what is old.
    caching: HashSet<ServiceAddress>,
    /// See [`crate::snapshot::Snapshot::by_name`].
    pub by_server: Shards<DestKey, DestId>,
    /// See [`crate::snapshot::Snapshot::names`].
    pub names: Paged<Option<DestKey>>,
    free: Vec<DestId>,
    /// Indices out of use since the snapshot of this generation; free when every worker has seen it.
    quarantine: VecDeque<(u64, DestId)>,
    /// Indices that an earlier process has used and this one shall use for the same.
    reserved: HashMap<DestKey, DestId>,
    /// Destinations that have got their indices, or began or ceased to get connections, since somebody wrote that down.
    pub unwritten: Vec<DestId>,
    max_dests: u32,
    next_service: u32,
}

impl Registry {
    pub fn new(max_dests: u32) -> Self {
        Self {
            services: HashMap::new(),
            records: Vec::new(),
            entries: Paged::default(),
            classifier: Classifier::new(Vec::new(), []),
            nat_servers: Shards::default(),
            sources: ReplyEnds::default(),
            snat: Vec::new(),
            removed: BTreeSet::new(),
            removed_of: HashMap::new(),
            round: Round::default(),
            touched: Vec::new(),
            caching: HashSet::new(),
            by_server: Shards::default(),
            names: Paged::default(),
            free: Vec::new(),
            quarantine: VecDeque::new(),
            reserved: HashMap::new(),
            unwritten: Vec::new(),
            max_dests,
            next_service: 0,
        }
    }

    /// Keeps indices for destinations that are to come, until [`Registry::release`]. To be called before any is used.
    pub fn reserve(&mut self, former: impl IntoIterator<Item = (DestId, DestKey)>) {
        let mut indices = BTreeSet::new();
        for (dest, key) in former {
            if dest.0 < self.max_dests && !self.reserved.contains_key(&key) && indices.insert(dest) {
                self.reserved.insert(key, dest);
            }
        }
        let len = indices.last().map_or(0, |last| last.0 + 1);
        self.records.resize_with(len as usize, || None);
        self.free = (0..len).rev().map(DestId).filter(|dest| !indices.contains(dest)).collect();
    }

    /// Gives the indices that nobody came for to whoever comes next.
    pub fn release(&mut self) {
        let left = std::mem::take(&mut self.reserved);
        self.free.extend(left.into_values());
    }

    /// All destinations, removed ones too.
    pub fn all(&self) -> impl Iterator<Item = (DestId, &DestRecord)> {
        let records = self.records.iter().enumerate();
        records.filter_map(|(at, record)| Some((DestId(at as u32), record.as_ref()?)))
    }

    /// A destination; `None`: the index is unused.
    pub fn record(&self, dest: DestId) -> Option<&DestRecord> {
        self.records.get(dest.0 as usize)?.as_ref()
    }

    fn record_mut(&mut self, dest: DestId) -> Option<&mut DestRecord> {
        self.records.get_mut(dest.0 as usize)?.as_mut()
    }

    /// The destination of a server that is configured.
    pub fn find(&self, key: &DestKey) -> Option<DestId> {
        let dest = *self.by_server.get(key)?;
        self.record(dest).is_some_and(|record| !record.removed).then_some(dest)
    }

    /// What the packet path knows of a destination.
    pub fn entry(&self, dest: DestId) -> Option<&DestEntry> {
        self.entries.get(dest.0 as usize)?.as_ref()
    }

    /// Changes what the packet path knows of a destination; an entry that stays as it was copies nothing.
    fn set_entry(&mut self, dest: DestId, entry: DestEntry) {
        if self.entry(dest) != Some(&entry) {
            self.entries.set(dest.0 as usize, Some(entry));
        }
    }

    /// The drain of a destination is over: for the packet path it is removed.
    pub fn end(&mut self, dest: DestId) {
        if let Some(entry) = self.entry(dest).copied() {
            self.set_entry(dest, DestEntry { removed: true, ..entry });
        }
    }

    /// The rules of source NAT as the packet path needs them.
    pub fn snat_entries(&self) -> Vec<SnatEntry> {
        let entry = |dest: &DestId| {
            let Owner::Snat { sources, protocols, link } = self.record(*dest)?.key.owner else { return None };
            Some(SnatEntry { sources: addressing::prefix(sources), protocols, link, dest: *dest })
        };
        self.snat.iter().filter_map(entry).collect()
    }

    fn last_weight(&self, dest: DestId) -> u32 {
        self.record(dest).map_or(0, |record| record.last_weight)
    }

    /// Once a second: schedulers forget what is old. `now_ms`: since any fixed point.
    pub fn tick_schedulers(&self, now_ms: u64) {
        let now_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let records = self.caching.iter().filter_map(|address| self.services.get(address));
        records.for_each(|service| service.memory.tick(now_s));
    }

    /// Counts a destination among the servers whose replies pass the director, or no longer.
    fn count_nat(&mut self, key: &DestKey, more: bool) {
        if key.forwarding != Forwarding::Nat {
            return;
        }
        for protocol in key.owner.service().map(addressing::protocols).unwrap_or_default() {
            let server = (key.address, key.port, protocol);
            let count = self.nat_servers.get(&server).copied().unwrap_or_default();
            if more {
                self.nat_servers.insert(server, count + 1);
                if count == 0 {
                    let all = self.nat_servers.iter().map(|((address, ..), _)| *address);
                    self.sources.add_source(key.address, all);
                }
            } else if count > 1 {
                self.nat_servers.insert(server, count - 1);
            } else {
                self.nat_servers.remove(&server);
            }
        }
    }
}
