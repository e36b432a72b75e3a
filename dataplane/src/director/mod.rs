//! The control core's side of the packet path: turns a [`Model`] into snapshots, resolves next hops, adds up
//! counters.
//!
//! A [`Director`] does no I/O and reads no clock: `lbd` calls [`Director::poll`] with the time, some ten times a
//! second. Files: this one (applying, polling), `registry` (indices), `announce` (gratuitous ARP), `report`
//! (what `lbctl` shows).

mod addressing;
mod announce;
mod registry;
mod report;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{Device, Model};

use crate::classify::Classifier;
use crate::conn::HashKey;
use crate::counters::WorkerCounters;
use crate::ids::DestId;
use crate::io::{DeviceId, WorkerId};
use crate::mailbox::{ConnFilter, ConnRow, Event, Listing, Mail, Mailbox};
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::persist::{Rule, Templates};
use crate::rewrite::Encap;
use crate::sched::{FlowHash, Overload};
use crate::setup::{DeviceSetup, Setup, WorkerSeed};
use crate::snapshot::{Link, LocalAddress, Snapshot};
use crate::state::TimeoutTable;

use announce::Announcer;
use registry::{Context, Registry, Totals};

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

/// The devices of a configuration in the order of [`DeviceId`], each with the largest MTU asked of it.
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
    book: NeighborBook,
    announcer: Announcer,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<WorkerCounters>>,
    samples_read: Vec<u64>,
    listings: HashMap<u64, Collected>,
    next_ticket: u64,
    reachable: HashMap<(LinkId, IpAddr), bool>,
    /// Stations on connected networks that workers asked for, and since when, ms.
    strangers: HashMap<(LinkId, IpAddr), u64>,
    /// Version of the neighbour cells that was last looked at.
    noticed: u64,
    polled_ms: u64,
    retired_ms: u64,
}

/// What a snapshot is made of beside what the director keeps.
struct Published {
    links: Vec<Link>,
    timeouts: Vec<TimeoutTable>,
    tunnels: Vec<Encap>,
    rules: Vec<Rule>,
    gateways: [Option<(LinkId, NeighborId)>; 2],
}

/// The parts of a listing that have come back.
#[derive(Debug, Default)]
struct Collected {
    rows: Vec<ConnRow>,
    matched: u64,
    outstanding: usize,
    /// When it was asked for, ms.
    since_ms: u64,
}

/// Largest number of connections that one listing shows.
pub const MAX_LISTING: usize = 1_000_000;

/// How long a listing waits to be fetched, ms.
const LISTING_MS: u64 = 60_000;

/// Stations beside servers and gateways that are known at a time, and for how long, ms; who is still needed after
/// that is asked for again.
const MAX_STRANGERS: usize = 16_384;
const STRANGER_MS: u64 = 300_000;

/// How often removed destinations are looked through, ms.
const RETIRE_MS: u64 = 1000;

impl Director {
    /// A director that runs `model` from the first packet on, and what its workers are made from.
    ///
    /// `devices`: as the drivers report them, in the order of [`devices`].
    pub fn new(model: &Model, devices: Vec<DeviceSetup>) -> Result<(Self, Vec<WorkerSeed>), ApplyError> {
        let workers = model.appliance.workers.len() as u16;
        let max_dests = model.limits.max_servers;
        let setup = Arc::new(Setup {
            devices,
            workers,
            connections_per_worker: model.limits.max_connections.div_ceil(u32::from(workers.max(1))),
            neighbor_queue: model.limits.neighbor_queue,
            max_dests,
            steer_key: HashKey::random(),
            templates: Templates::new(
                model.limits.max_connections.div_ceil(8) as usize,
                max_dests,
                HashKey::random(),
            ),
        });
        // twice: while a change is applied both the old and the new next hops are known
        let book = NeighborBook::new(2 * (max_dests as usize + model.ports.len() + 1) + MAX_STRANGERS);
        let empty = Snapshot {
            generation: 0,
            links: Vec::new(),
            local: HashMap::new(),
            services: Classifier::new(Vec::new(), []),
            dests: Vec::new(),
            nat_servers: HashSet::new(),
            tunnels: Vec::new(),
            rules: Vec::new(),
            timeouts: Vec::new(),
            neighbors: HashMap::new(),
            gateways: [None; 2],
            cells: book.cells(),
            flow_hash: FlowHash::from_secret(model.appliance.cluster_secret.as_deref()),
            overload: Arc::new(Overload::new(max_dests as usize)),
        };
        let counters: Vec<_> = (0..workers)
            .map(|_| Arc::new(WorkerCounters::new(setup.devices.len(), max_dests as usize)))
            .collect();
        let mut director = Self {
            setup: setup.clone(),
            model: model.clone(),
            running: Arc::new(empty),
            registry: Registry::new(max_dests),
            book,
            announcer: Announcer::default(),
            mailboxes: (0..workers).map(|_| Arc::default()).collect(),
            samples_read: vec![0; usize::from(workers)],
            counters: counters.clone(),
            listings: HashMap::new(),
            next_ticket: 0,
            reachable: HashMap::new(),
            strangers: HashMap::new(),
            noticed: 0,
            polled_ms: 0,
            retired_ms: 0,
        };
        director.apply(model)?;
        let seed = |id: u16| WorkerSeed {
            id: WorkerId(id),
            setup: setup.clone(),
            snapshot: director.running.clone(),
            mailbox: director.mailboxes[usize::from(id)].clone(),
            counters: counters.clone(),
        };
        let seeds = (0..workers).map(seed).collect();
        Ok((director, seeds))
    }

    /// The configuration that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs `model` instead. Workers pick it up between bursts; connections stay with their servers, also with
    /// servers that `model` no longer has, until they end.
    ///
    /// Errors: nothing was changed.
    pub fn apply(&mut self, model: &Model) -> Result<(), ApplyError> {
        self.check_fixed(model)?;
        let device_of = |device: &Device| {
            devices(model).iter().position(|(other, _)| other == device).unwrap_or_default()
        };
        let links: Vec<Link> = model
            .ports
            .iter()
            .map(|port| {
                let device = device_of(&port.device);
                Link {
                    name: port.name.clone(),
                    device: DeviceId(device as u16),
                    vlan: port.vlan.unwrap_or(0),
                    mac: self.setup.devices[device].mac,
                    mtu: port.mtu,
                    addresses: port.addresses.clone(),
                }
            })
            .collect();
        let counters = &self.counters;
        let mut timeouts = Vec::new();
        let mut tunnels = Vec::new();
        let mut rules = Vec::new();
        let mut gateways = [None; 2];
        for (at, port) in model.ports.iter().enumerate() {
            for gateway in &port.gateways {
                let link = LinkId(at as u16);
                let neighbor = self.book.intern(link, *gateway).map_err(|_| ApplyError::TooManyNeighbors)?;
                gateways[usize::from(gateway.is_ipv6())] = Some((link, neighbor));
            }
        }
        let mut context = Context {
            generation: self.running.generation + 1,
            links: &links,
            book: &mut self.book,
            tables: &mut timeouts,
            tunnels: &mut tunnels,
            rules: &mut rules,
            gateways,
            hash: &self.running.flow_hash,
            overload: &self.running.overload,
            readings: &|dest| readings(counters, dest),
        };
        self.registry.apply(model, &mut context)?;
        self.model = model.clone();
        self.publish(Published { links, timeouts, tunnels, rules, gateways });
        Ok(())
    }

    /// A server of `service` was edited to what it was. IPVS tells the scheduler of that too: `wrr` starts at the
    /// head of its list again.
    pub fn touch(&self, service: &lb_config::Service) {
        if let Some(record) = self.registry.services.get(&service.address) {
            record.touch();
        }
    }

    /// Devices, workers and sizes do not change while the process runs.
    fn check_fixed(&self, model: &Model) -> Result<(), ApplyError> {
        let differs = |what| Err(ApplyError::NeedsRestart { what });
        let shape = |model: &Model| -> Vec<_> {
            model.ports.iter().map(|port| (port.device.clone(), port.vlan, port.mtu)).collect()
        };
        if model.appliance != self.model.appliance {
            return differs("[appliance]");
        }
        if model.limits != self.model.limits {
            return differs("[limits]");
        }
        if shape(model) != shape(&self.model) {
            return differs("a port's device, vlan or mtu, or the list of ports,");
        }
        Ok(())
    }

    /// Publishes what runs once more: indices or next hops changed.
    fn republish(&mut self) {
        let running = self.running.clone();
        self.publish(Published {
            links: running.links.clone(),
            timeouts: running.timeouts.clone(),
            tunnels: running.tunnels.clone(),
            rules: running.rules.clone(),
            gateways: running.gateways,
        });
    }

    fn publish(&mut self, Published { links, timeouts, tunnels, rules, gateways }: Published) {
        let registry = &self.registry;
        let mut local = HashMap::new();
        for vip in self.model.services.iter().filter_map(|service| service.address.vip()) {
            local.insert(vip, LocalAddress { link: registry::link_to(&links, vip).map(|(id, _)| id) });
        }
        let marks = self.model.marks.iter().filter_map(|rule| addressing::mark(rule, &links)).collect();
        for (at, link) in links.iter().enumerate() {
            for address in &link.addresses {
                local.insert(address.addr, LocalAddress { link: Some(LinkId(at as u16)) });
            }
        }
        let snapshot = Arc::new(Snapshot {
            generation: self.running.generation + 1,
            services: registry.classifier(marks),
            dests: registry
                .dests
                .iter()
                .map(|record| record.as_ref().map(|record| *record.entry()))
                .collect(),
            nat_servers: registry.nat_servers(),
            tunnels,
            rules,
            neighbors: self.book.rows(0).iter().map(|row| ((row.link, row.ip), row.id)).collect(),
            cells: self.running.cells.clone(),
            flow_hash: self.running.flow_hash.clone(),
            overload: self.running.overload.clone(),
            links,
            local,
            timeouts,
            gateways,
        });
        self.announcer.added(&self.running, &snapshot);
        self.running = snapshot;
        for mailbox in &self.mailboxes {
            mailbox.publish(self.running.clone());
        }
    }

    /// Everything that time and events bring: next hops, announcements, listings, the end of removed servers.
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
        if now_ms.saturating_sub(self.retired_ms) >= RETIRE_MS {
            self.retired_ms = now_ms;
            self.sweep_templates();
            self.registry.tick_schedulers(now_ms);
            self.retire();
        }
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
                if let Some(collected) = self.listings.get_mut(&listing.ticket) {
                    collected.rows.extend(listing.rows);
                    collected.matched += listing.matched;
                    collected.outstanding -= 1;
                }
            }
        }
    }

    /// A worker has frames for a station that nobody has asked for yet.
    fn meet(&mut self, link: LinkId, address: IpAddr, now_ms: u64) {
        if self.strangers.len() >= MAX_STRANGERS || self.strangers.contains_key(&(link, address)) {
            return;
        }
        if self.book.intern(link, address).is_ok() {
            self.strangers.insert((link, address), now_ms);
        }
    }

    /// Makes known to the workers who was met, and forgets whom they met long ago.
    fn settle_strangers(&mut self, now_ms: u64) {
        let before = self.strangers.len();
        self.strangers.retain(|_, since| now_ms.saturating_sub(*since) < STRANGER_MS);
        let is_new = |at: &(LinkId, IpAddr)| !self.running.neighbors.contains_key(at);
        if before != self.strangers.len() || self.strangers.keys().any(is_new) {
            self.republish();
        }
    }

    fn notice_neighbors(&mut self, now_ms: u64, notices: &mut Vec<Notice>) {
        use crate::neighbor::Resolution;
        let version = self.running.cells.version();
        if std::mem::replace(&mut self.noticed, version) == version {
            return;
        }
        for row in self.book.rows(now_ms) {
            let known = self.reachable.entry((row.link, row.ip));
            let resolution = self.running.cells.mac(row.id);
            let now = match resolution {
                Resolution::Resolved(_) => true,
                Resolution::Failed => false,
                Resolution::Pending => continue,
            };
            let before = match known {
                std::collections::hash_map::Entry::Occupied(mut held) => Some(held.insert(now)),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(now);
                    None
                }
            };
            if before != Some(now) {
                let link = self
                    .running
                    .links
                    .get(usize::from(row.link.0))
                    .map(|link| link.name.clone())
                    .unwrap_or_default();
                notices.push(Notice::Neighbor { link, address: row.ip, mac: row.mac.filter(|_| now) });
            }
        }
    }

    /// Lets persistence templates end, all of them once a second.
    fn sweep_templates(&mut self) {
        // workers and templates live on the workers' clock, which may be another than the caller's
        let now_ns = self.counters.iter().map(|worker| worker.own.now_ns.get()).max().unwrap_or_default();
        let counters = &self.counters;
        let has_connections =
            |dest: DestId| counters.iter().any(|worker| worker.dests[dest.0 as usize].total.get() > 0);
        self.setup.templates.sweep(now_ns, self.setup.templates.buckets(), has_connections);
    }

    /// Lets go of removed destinations whose last connection has ended.
    fn retire(&mut self) {
        let seen = self.generation_seen();
        let counters = &self.counters;
        let connections = |dest: DestId| {
            let tracked = counters.iter().map(|w| u64::from(w.dests[dest.0 as usize].total.get()));
            tracked.sum::<u64>() + u64::from(self.setup.templates.count(dest))
        };
        let building = self.running.generation + 1;
        if self.registry.retire(seen, building, connections, |dest| readings(counters, dest)) {
            self.republish();
        } else if seen == self.running.generation {
            // no worker has an older snapshot, so nobody looks at what only those used
            let used = self.registry.neighbors();
            let gateways = self.running.gateways;
            let strangers: HashSet<_> =
                self.strangers.keys().filter_map(|at| self.running.neighbors.get(at)).copied().collect();
            self.book.retain(|id| {
                used.contains(&id)
                    || strangers.contains(&id)
                    || gateways.iter().flatten().any(|(_, gateway)| *gateway == id)
            });
        }
    }

    /// The oldest generation that a worker uses.
    pub fn generation_seen(&self) -> u64 {
        self.counters.iter().map(|worker| worker.own.generation.get()).min().unwrap_or_default()
    }

    /// Generation of the newest snapshot.
    pub fn generation(&self) -> u64 {
        self.running.generation
    }

    /// Asks the workers for their connections; [`Director::connections`] gives the result after some polls.
    ///
    /// `limit`: rows, at most [`MAX_LISTING`]. Errors: `None` when a worker's mailbox is full.
    pub fn list_connections(&mut self, filter: ConnFilter, limit: usize) -> Option<u64> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut collected = Collected { since_ms: self.polled_ms, ..Collected::default() };
        for (mailbox, counters) in self.mailboxes.iter().zip(&self.counters) {
            // room for what is there now and some more; the worker does not grow it
            let room = (counters.own.connections.get() as usize + 64).min(limit.min(MAX_LISTING));
            let listing = Listing { ticket, filter, rows: Vec::with_capacity(room), matched: 0, cursor: 0 };
            if mailbox.send(Mail::List(listing)).is_ok() {
                collected.outstanding += 1;
            } else if collected.outstanding == 0 {
                return None;
            }
        }
        self.listings.insert(ticket, collected);
        Some(ticket)
    }

    /// The connections of a listing and how many matched, when all workers have answered.
    pub fn connections(&mut self, ticket: u64) -> Option<(Vec<ConnRow>, u64)> {
        if self.listings.get(&ticket)?.outstanding > 0 {
            return None;
        }
        let collected = self.listings.remove(&ticket)?;
        Some((collected.rows, collected.matched))
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
