//! The control core's side of the packet path: turns a [`Model`] into snapshots, resolves next hops, adds up
//! counters.
//!
//! A [`Director`] does no I/O and reads no clock: `lbd` calls [`Director::poll`] with the time, some ten times a
//! second. Files: this one (polling), `apply` (a new model becomes a snapshot), `registry` (indices), `context` (what they
//! are made with), `tables`, `hops` and `addresses` (what destinations and services share), `journal` (who writes down which index is whose), `strangers` (next hops that
//! are only met), `drain` (deadlines of servers), `expire` (the end of removed servers), `announce` (gratuitous ARP),
//! `feeds` (the queues of [`crate::sync`]), `walks` (listing and flushing connections), `report` (what `lbctl` shows), `explain` (what would become of a packet).
//!
//! Cost: a change of the configuration costs in proportion to what changed, and a compare of two pointers and the copy of
//! one for each service; a poll in proportion to next hops whose time has come, and at most some ms for removed
//! servers, templates and announcements, however many there are: what is left waits for the next poll.

mod addresses;
mod addressing;
mod announce;
mod apply;
mod context;
mod drain;
mod expire;
mod explain;
mod feeds;
mod hops;
mod journal;
mod pins;
mod registry;
mod report;
mod shared;
mod strangers;
mod tables;
#[cfg(test)]
mod tests;
mod walks;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{Device, Model, OnServerDown, ServerRef};

use crate::classify::Classifier;
use crate::counters::WorkerCounters;
use crate::express::ReplyEnds;
use crate::ids::DestId;
use crate::io::WorkerId;
use crate::keep::{self, Estate};
use crate::mailbox::{Event, Mailbox, Purpose};
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::paged::Paged;
use crate::persist::Templates;
use crate::sched::{FlowHash, Overload};
use crate::setup::{DeviceSetup, FloodSeed, Setup, WorkerSeed};
use crate::shards::Shards;
use crate::snapshot::Snapshot;
use crate::sync::Feeds;

use addresses::Addresses;
use announce::Announcer;
use drain::Drains;
use expire::Look;
use hops::Hops;
use registry::{Registry, Totals};
use tables::Tables;

pub use explain::{Entrance, Explanation, Hop, Known, Outcome, Tried};
pub use feeds::steering;
pub use journal::Journal;
use strangers::MAX_STRANGERS;
use walks::{Collected, LISTING_MS};

pub use pins::{Pin, Pins};
pub use shared::{bfd_source, link_local, link_of, virtual_mac};
pub use walks::MAX_LISTING;

pub use addressing::rule as persistence_rule;
pub use registry::{DestKey, Owner};
pub use report::{DestRow, DeviceRow, ServiceRow, Totals as PacketTotals, WorkerRow};

/// Why a configuration could not be applied. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// More destinations than `limits.max_servers`.
    #[error("{wanted} servers and {draining} that still drain exceed limits.max_servers = {limit}")]
    TooManyServers {
        /// In the new configuration.
        wanted: usize,
        /// Removed, with connections left.
        draining: usize,
        /// The limit.
        limit: u32,
    },
    /// More next hops than the neighbour table holds.
    #[error("the neighbour table is full")]
    TooManyNeighbors,
    /// A server outside every directly connected network.
    #[error("server {server} of service {service} is in no network of a port")]
    NotConnected {
        /// The server.
        server: IpAddr,
        /// Its service.
        service: String,
    },
    /// A tunnel that cannot be.
    #[error("service {service}: {reason}")]
    Tunnel {
        /// The service.
        service: String,
        /// Why.
        reason: crate::rewrite::PlanError,
    },
    /// More distinct values of something than 65,535, which is what a destination can name.
    #[error("service {service}: there are too many distinct {what}, the limit is 65535")]
    TooManyDistinct {
        /// What.
        what: &'static str,
        /// The service that wanted one more.
        service: String,
    },
    /// Something that is fixed at start differs.
    #[error("{what} cannot change without a restart")]
    NeedsRestart {
        /// What.
        what: &'static str,
    },
}

/// Something that the operator should read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A server's drain deadline has passed.
    DrainOver {
        /// Name of its service.
        service: String,
        /// The server.
        server: ServerRef,
        /// Connections that it still had.
        connections: u64,
        /// What becomes of them.
        fate: OnServerDown,
    },
    /// Another station uses one of the director's addresses.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The station's MAC address.
        mac: [u8; 6],
    },
    /// A next hop changed between reachable and not.
    Neighbor {
        /// Port.
        link: String,
        /// Its address.
        address: IpAddr,
        /// Its MAC address; `None`: it no longer answers.
        mac: Option<[u8; 6]>,
    },
}

/// The devices of a configuration in the order of [`DeviceId`](crate::io::DeviceId), each with the largest MTU asked of it.
pub fn devices(model: &Model) -> Vec<(Device, u16)> {
    let mut devices: Vec<(Device, u16)> = Vec::new();
    for port in &model.ports {
        match devices.iter_mut().find(|(device, _)| *device == port.device) {
            Some((_, mtu)) => *mtu = port.mtu.max(*mtu),
            None => devices.push((port.device.clone(), port.mtu)),
        }
    }
    devices
}

/// The control core's side of the packet path.
#[derive(Debug)]
pub struct Director {
    setup: Arc<Setup>,
    model: Model,
    running: Arc<Snapshot>,
    registry: Registry,
    drains: Drains,
    book: NeighborBook,
    next_hops: Hops,
    tables: Tables,
    addresses: Addresses,
    announcer: Announcer,
    owners: shared::Owners,
    pins: Vec<Pin>,
    /// Other directors, which unicast VRRP and BFD go to.
    friends: HashSet<NeighborId>,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<WorkerCounters>>,
    samples_read: Vec<u64>,
    listings: HashMap<u64, Collected>,
    next_ticket: u64,
    reachable: HashMap<(LinkId, IpAddr), bool>,
    /// Stations on connected networks that workers asked for, and since when, ms.
    strangers: HashMap<(LinkId, IpAddr), u64>,
    polled_ms: u64,
    retired_ms: u64,
    /// Buckets of templates that this second's sweep has not seen.
    unswept: usize,
    look: Look,
    /// Workers that still remove connections of servers that were removed.
    expiring: usize,
    /// Since when, ms.
    expiring_ms: u64,
    /// Queues of [`crate::sync`], what they were made for, and those that workers may still have, since when.
    feeds: Option<Arc<Feeds>>,
    feeds_wanted: Option<feeds::Wanted>,
    old_feeds: Vec<(u64, Arc<Feeds>)>,
    /// Who writes down what indices stand for, if anybody does.
    journal: Option<Box<dyn Journal>>,
}

/// Buckets of persistence templates that a poll sweeps: about 1 ms. Those of a million connections take four polls.
const SWEPT: usize = 8192;

/// How often removed destinations are looked through, ms.
const RETIRE_MS: u64 = 1000;

impl Director {
    /// A director that runs `model` from the first packet on, and what its workers are made from.
    ///
    /// `devices`: as the drivers report them, in the order of [`devices`].
    pub fn new(model: &Model, devices: Vec<DeviceSetup>) -> Result<(Self, Vec<WorkerSeed>), ApplyError> {
        Self::heir(model, devices, Estate::new(model.appliance.workers.len()))
    }

    /// [`Director::new`] with what an earlier process left: destinations that it had have the same indices, those that
    /// `model` no longer has are removed as by a change of the configuration, and templates are there again.
    pub fn heir(
        model: &Model,
        devices: Vec<DeviceSetup>,
        estate: Estate,
    ) -> Result<(Self, Vec<WorkerSeed>), ApplyError> {
        let workers = model.appliance.workers.len() as u16;
        let max_dests = model.limits.max_servers;
        let Estate { secrets, former, services, templates: memory, left } = estate;
        let mut templates = Templates::new(keep::templates(model), max_dests, secrets.templates);
        if let Some(memory) = memory {
            templates.keep_in(memory);
        }
        let setup = Arc::new(Setup {
            devices,
            workers,
            connections_per_worker: model.limits.max_connections.div_ceil(u32::from(workers.max(1))),
            neighbor_queue: model.limits.neighbor_queue,
            max_dests,
            steer_key: keep::steering(model).unwrap_or(secrets.steering),
            templates,
        });
        // twice: while a change is applied both the old and the new next hops are known
        let book = NeighborBook::new(2 * (max_dests as usize + model.ports.len() + 1) + MAX_STRANGERS);
        let empty = Snapshot {
            generation: 0,
            networks: crate::networks::Networks::default(),
            links: Vec::new(),
            local: Shards::default(),
            services: Classifier::new(Vec::new(), []),
            dests: Paged::default(),
            nat_servers: Shards::default(),
            tunnels: Arc::default(),
            local_ends: Arc::default(),
            translated: Shards::default(),
            reply_ends: ReplyEnds::default(),
            snat: Vec::new(),
            rules: Arc::default(),
            policy: model.policy,
            policies: Arc::default(),
            timeouts: Arc::default(),
            neighbors: Shards::default(),
            gateways: [None; 2],
            cells: book.cells(),
            flow_hash: match &model.appliance.cluster_secret {
                secret @ Some(_) => FlowHash::from_secret(secret.as_deref()),
                None => FlowHash::new(secrets.flows),
            },
            overload: Arc::new(Overload::new(max_dests as usize)),
            shared: Arc::default(),
            sync: None,
            names: Paged::default(),
            by_name: Shards::default(),
            pins: Arc::default(),
        };
        let counters: Vec<_> = (0..workers)
            .map(|_| Arc::new(WorkerCounters::new(setup.devices.len(), max_dests as usize)))
            .collect();
        let mut director = Self {
            setup: setup.clone(),
            model: model.without_services(),
            running: Arc::new(empty),
            registry: Registry::new(max_dests),
            drains: Drains::default(),
            book,
            next_hops: Hops::default(),
            tables: Tables::default(),
            addresses: Addresses::default(),
            announcer: Announcer::default(),
            owners: shared::Owners::default(),
            pins: Vec::new(),
            friends: HashSet::new(),
            mailboxes: (0..workers).map(|_| Arc::default()).collect(),
            samples_read: vec![0; usize::from(workers)],
            counters: counters.clone(),
            listings: HashMap::new(),
            next_ticket: 0,
            reachable: HashMap::new(),
            strangers: HashMap::new(),
            polled_ms: 0,
            retired_ms: 0,
            unswept: 0,
            look: Look::default(),
            expiring: 0,
            expiring_ms: 0,
            feeds: None,
            feeds_wanted: None,
            old_feeds: Vec::new(),
            journal: None,
        };
        director.registry.reserve(former);
        director.apply_former(model, services);
        director.apply(model)?;
        director.registry.release();
        setup.templates.restore(left, |dest| director.running.dest(dest).is_some());
        let flood = |id: u16| secrets.workers.get(usize::from(id)).map(|worker| worker.flood);
        let seed = |id: u16| WorkerSeed {
            id: WorkerId(id),
            setup: setup.clone(),
            snapshot: director.running.clone(),
            mailbox: director.mailboxes[usize::from(id)].clone(),
            counters: counters.clone(),
            flood: flood(id).unwrap_or_else(FloodSeed::random),
        };
        let seeds = (0..workers).map(seed).collect();
        Ok((director, seeds))
    }

    /// The configuration that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A server of `service` was edited to what it was. IPVS tells the scheduler of that too: `wrr` starts at the
    /// head of its list again.
    pub fn touch(&self, service: &lb_config::Service) {
        if let Some(record) = self.registry.services.get(&service.address) {
            record.touch();
        }
    }

    /// Everything that time and events bring: next hops, announcements, listings, deadlines, the end of removed servers.
    ///
    /// `now_ms`: since any fixed point. Call it some ten times a second. Returns what should be logged.
    pub fn poll(&mut self, now_ms: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.polled_ms = now_ms;
        self.listings.retain(|_, listing| now_ms.saturating_sub(listing.since_ms) < LISTING_MS);
        for worker in 0..self.mailboxes.len() {
            self.mailboxes[worker].reclaim();
            while let Some(event) = self.mailboxes[worker].next_event() {
                self.hear(event, now_ms, &mut notices);
            }
        }
        self.settle_strangers(now_ms);
        self.send_probes(now_ms);
        self.send_announcements(now_ms);
        self.notice_neighbors(now_ms, &mut notices);
        self.end_drains(now_ms, &mut notices);
        if now_ms.saturating_sub(self.retired_ms) >= RETIRE_MS {
            self.retired_ms = now_ms;
            self.unswept = self.setup.templates.buckets();
            self.registry.tick_schedulers(now_ms);
            self.registry.round.begin();
            self.expire_removed();
        } else {
            self.look_for_expired();
        }
        self.retire();
        self.release_feeds();
        self.sweep_templates();
        notices
    }

    fn hear(&mut self, event: Event, now_ms: u64, notices: &mut Vec<Notice>) {
        match event {
            Event::Stranger { link, address } => self.meet(link, address, now_ms),
            Event::NeighborHeard(sighting) => {
                self.book.heard(now_ms, &sighting);
            }
            Event::AddressConflict { address, mac } => notices.push(Notice::AddressConflict { address, mac }),
            Event::Listed(listing) => {
                if listing.purpose == Purpose::Expire {
                    self.expiring = self.expiring.saturating_sub(1);
                    if self.expiring == 0 {
                        // now their templates have none
                        self.expire_removed();
                    }
                } else if let Some(collected) = self.listings.get_mut(&listing.ticket) {
                    collected.rows.extend(listing.rows);
                    collected.matched += listing.matched;
                    collected.outstanding -= 1;
                }
            }
        }
    }

    /// The clock of workers and templates, which may be another than the caller's.
    fn workers_now_ns(&self) -> u64 {
        self.counters.iter().map(|worker| worker.own.now_ns.get()).max().unwrap_or_default()
    }

    /// Lets persistence templates end: all of them once a second where that is no more than a poll does.
    fn sweep_templates(&mut self) {
        let now_ns = self.workers_now_ns();
        let counters = &self.counters;
        let has_connections =
            |dest: DestId| counters.iter().any(|worker| worker.dests[dest.0 as usize].total.get() > 0);
        let now = self.unswept.min(SWEPT);
        self.unswept -= now;
        self.setup.templates.sweep(now_ns, now, has_connections);
    }

    /// The oldest generation that a worker uses.
    pub fn generation_seen(&self) -> u64 {
        self.counters.iter().map(|worker| worker.own.generation.get()).min().unwrap_or_default()
    }

    /// Generation of the newest snapshot.
    pub fn generation(&self) -> u64 {
        self.running.generation
    }
}

/// Present counters of an index over all workers.
fn readings(counters: &[Arc<WorkerCounters>], dest: DestId) -> Totals {
    let mut totals = [0; 5];
    for worker in counters {
        let own = &worker.dests[dest.0 as usize];
        totals[0] += own.conns.get();
        totals[1] += own.in_packets.get();
        totals[2] += own.in_bytes.get();
        totals[3] += own.out_packets.get();
        totals[4] += own.out_bytes.get();
    }
    totals
}
