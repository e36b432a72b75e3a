//! The control core's side of the packet path: turns a [`Model`] into snapshots, resolves next hops, adds up
//! counters.
//!
//! A [`Director`] does no I/O and reads no clock: `lbd` calls [`Director::poll`] with the time, some ten times a
//! second. Files: this one (applying, polling), `registry` (indices), `context` (what they are made with),
//! `strangers` (next hops that are only met), `drain` (deadlines of servers), `announce` (gratuitous ARP), `walks`
//! (listing and flushing connections), `report` (what `lbctl` shows), `explain` (what would become of a packet).

mod addressing;
mod announce;
mod context;
mod drain;
mod explain;
mod registry;
mod report;
mod shared;
mod strangers;
mod walks;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{Device, EffectivePolicy, Model, OnServerDown, ServerRef};

use crate::classify::Classifier;
use crate::conn::HashKey;
use crate::counters::WorkerCounters;
use crate::ids::DestId;
use crate::io::{DeviceId, WorkerId};
use crate::local_port::LocalEnds;
use crate::mailbox::{ConnFilter, Event, Listing, Mail, Mailbox, Purpose};
use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::owner::Shared;
use crate::persist::{Rule, Templates};
use crate::rewrite::Encap;
use crate::sched::{FlowHash, Overload};
use crate::setup::{DeviceSetup, Setup, WorkerSeed};
use crate::snapshot::{Link, LocalAddress, Snapshot};
use crate::state::TimeoutTable;

use announce::Announcer;
use context::Context;
use drain::Drains;
use registry::{DestRecord, Registry, Totals};

pub use explain::{Explanation, Hop, Known, Outcome, Tried};
use strangers::MAX_STRANGERS;
use walks::{Collected, LISTING_MS};

pub use shared::{bfd_source, link_local, link_of, virtual_mac};
pub use walks::MAX_LISTING;

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
    drains: Drains,
    book: NeighborBook,
    announcer: Announcer,
    owners: shared::Owners,
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
    /// Version of the neighbour cells that was last looked at.
    noticed: u64,
    polled_ms: u64,
    retired_ms: u64,
    /// Workers that still remove connections of servers that were removed.
    expiring: usize,
    /// Since when, ms.
    expiring_ms: u64,
}

/// What a snapshot is made of beside what the director keeps.
struct Published {
    links: Vec<Link>,
    timeouts: Vec<TimeoutTable>,
    tunnels: Vec<Encap>,
    local_ends: Vec<LocalEnds>,
    rules: Vec<Rule>,
    policies: Vec<EffectivePolicy>,
    gateways: [Option<(LinkId, NeighborId)>; 2],
    shared: Arc<Shared>,
}

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
            local_ends: Vec::new(),
            translated: HashSet::new(),
            snat: Vec::new(),
            rules: Vec::new(),
            policy: model.policy,
            policies: Vec::new(),
            timeouts: Vec::new(),
            neighbors: HashMap::new(),
            gateways: [None; 2],
            cells: book.cells(),
            flow_hash: FlowHash::from_secret(model.appliance.cluster_secret.as_deref()),
            overload: Arc::new(Overload::new(max_dests as usize)),
            shared: Arc::default(),
        };
        let counters: Vec<_> = (0..workers)
            .map(|_| Arc::new(WorkerCounters::new(setup.devices.len(), max_dests as usize)))
            .collect();
        let mut director = Self {
            setup: setup.clone(),
            model: model.clone(),
            running: Arc::new(empty),
            registry: Registry::new(max_dests),
            drains: Drains::default(),
            book,
            announcer: Announcer::default(),
            owners: shared::Owners::default(),
            friends: HashSet::new(),
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
            expiring: 0,
            expiring_ms: 0,
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
        let mut local_ends = Vec::new();
        let mut rules = Vec::new();
        let mut policies = Vec::new();
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
            local_ends: &mut local_ends,
            rules: &mut rules,
            director_policy: model.policy,
            policies: &mut policies,
            gateways,
            hash: &self.running.flow_hash,
            overload: &self.running.overload,
            readings: &|dest| readings(counters, dest),
        };
        self.registry.apply(model, &mut context)?;
        self.friends = shared::friends(model, &links, &mut self.book);
        self.model = model.clone();
        self.drains.follow(&self.registry);
        let shared = Arc::new(shared::shared(model, &links, &mut self.owners));
        self.publish(Published { links, timeouts, tunnels, local_ends, rules, policies, gateways, shared });
        self.expire_removed();
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
            local_ends: running.local_ends.clone(),
            rules: running.rules.clone(),
            policies: running.policies.clone(),
            gateways: running.gateways,
            shared: running.shared.clone(),
        });
    }

    fn publish(
        &mut self,
        Published { links, timeouts, tunnels, local_ends, rules, policies, gateways, shared }: Published,
    ) {
        let registry = &self.registry;
        let mut local = HashMap::new();
        for vip in self.model.services.iter().filter_map(|service| service.address.vip()) {
            local.insert(vip, LocalAddress { link: context::link_to(&links, vip).map(|(id, _)| id) });
        }
        let marks = self.model.marks.iter().filter_map(|rule| addressing::mark(rule, &links)).collect();
        let translated: HashSet<IpAddr> =
            local_ends.iter().flat_map(|ends| ends.addresses.iter().copied()).collect();
        for address in &translated {
            local.insert(
                *address,
                LocalAddress { link: context::link_to(&links, *address).map(|(id, _)| id) },
            );
        }
        for (at, link) in links.iter().enumerate() {
            for address in &link.addresses {
                local.insert(address.addr, LocalAddress { link: Some(LinkId(at as u16)) });
            }
        }
        for (address, shared) in shared.iter() {
            local.insert(address, LocalAddress { link: Some(shared.link) });
        }
        let entry = |(at, record): (usize, &Option<DestRecord>)| {
            let mut entry = *record.as_ref()?.entry();
            entry.removed |= self.drains.is_over(DestId(at as u32));
            Some(entry)
        };
        let snapshot = Arc::new(Snapshot {
            generation: self.running.generation + 1,
            services: registry.classifier(marks),
            dests: registry.dests.iter().enumerate().map(entry).collect(),
            nat_servers: registry.nat_servers(),
            snat: registry.snat_entries(),
            translated,
            local_ends,
            tunnels,
            rules,
            policy: self.model.policy,
            policies,
            neighbors: self.wanted_neighbors(&gateways),
            cells: self.running.cells.clone(),
            flow_hash: self.running.flow_hash.clone(),
            overload: self.running.overload.clone(),
            links,
            local,
            timeouts,
            gateways,
            shared,
        });
        self.announcer.added(&self.running, &snapshot);
        self.running = snapshot;
        for mailbox in &self.mailboxes {
            mailbox.publish(self.running.clone());
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
            self.sweep_templates();
            self.registry.tick_schedulers(now_ms);
            self.expire_removed();
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

    /// Lets persistence templates end, all of them once a second.
    fn sweep_templates(&mut self) {
        let now_ns = self.workers_now_ns();
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
            let published: HashSet<_> = self.running.neighbors.values().copied().collect();
            self.book.retain(|id| published.contains(&id));
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

    /// Removes the connections and templates of removed servers whose services schedule them anew, rather than at
    /// each one's next packet (IPVS: `ip_vs_expire_nodest_conn_flush`). Tried again until none is left.
    fn expire_removed(&mut self) {
        let running = &self.running;
        let expires = |dest: DestId| running.dest(dest).is_some_and(|entry| running.reschedules(entry));
        let templates = &self.setup.templates;
        let (mut any, mut tracked) = (false, false);
        for dest in (0..running.dests.len()).map(|at| DestId(at as u32)).filter(|dest| expires(*dest)) {
            any |= templates.count(dest) > 0;
            tracked |= self.counters.iter().any(|worker| worker.dests[dest.0 as usize].total.get() > 0);
        }
        if any {
            templates.drop_unused(self.workers_now_ns(), |listed| expires(listed.dest));
        }
        // a worker whose answer was lost is not waited for
        if tracked && (self.expiring == 0 || self.polled_ms.saturating_sub(self.expiring_ms) >= LISTING_MS) {
            (self.expiring, self.expiring_ms) = (0, self.polled_ms);
            for mailbox in &self.mailboxes {
                let walk = Listing::new(0, Purpose::Expire, ConnFilter::default(), Vec::new());
                self.expiring += usize::from(mailbox.send(Mail::List(walk)).is_ok());
            }
        }
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
