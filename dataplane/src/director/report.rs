//! What `lbctl` shows: counters added up over workers.

use std::net::IpAddr;

use lb_config::{Forwarding, Persistence, Scheduler, ServerRef, ServiceAddress};

use super::registry;
use super::{Director, readings};
use crate::drop_reason::DropReason;
use crate::ids::DestId;
use crate::neighbor::{NeighborId, NeighborRow, Resolution};
use crate::persist::Listed;

/// A destination and its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestRow {
    /// Its index, as [`crate::mailbox::ConnRow`] names it.
    pub dest: DestId,
    /// Real server.
    pub address: IpAddr,
    /// Its port; 0: the one that the client used.
    pub port: u16,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// Connections from which on it gets no new ones; 0: no such limit.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again.
    pub lower_threshold: u32,
    /// Weight; 0 for a removed one.
    pub weight: u32,
    /// Removed from the service, with connections left.
    pub removed: bool,
    /// With weight 0 and a deadline: how long its connections may go on, ms; 0: the deadline has passed.
    pub drain_left_ms: Option<u64>,
    /// Whether its MAC address is known; `None`: not yet decided.
    pub reachable: Option<bool>,
    /// Connections in an active state.
    pub active: u64,
    /// Other connections.
    pub inactive: u64,
    /// Persistence templates that name it.
    pub persistent: u64,
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes of these, IP header included.
    pub in_bytes: u64,
    /// Packets from the server to clients, where they pass the director.
    pub out_packets: u64,
    /// Bytes of these, IP header included.
    pub out_bytes: u64,
}

/// A service and its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// Name.
    pub name: String,
    /// What clients address.
    pub address: ServiceAddress,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Forwarding of servers without one of their own.
    pub forwarding: Forwarding,
    /// Whether clients come back to their servers.
    pub persistence: Option<Persistence>,
    /// Whether every packet is scheduled anew.
    pub one_packet: bool,
    /// Connections scheduled, those of servers that are gone included.
    pub conns: u64,
    /// Packets from clients, likewise.
    pub in_packets: u64,
    /// Bytes of these, likewise.
    pub in_bytes: u64,
    /// Packets to clients, likewise.
    pub out_packets: u64,
    /// Bytes of these, likewise.
    pub out_bytes: u64,
    /// Servers in scheduling order, then removed ones that still have connections.
    pub dests: Vec<DestRow>,
}

/// One device's frames over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// As the configuration names it.
    pub device: String,
    /// Frames and bytes received.
    pub rx: [u64; 2],
    /// Frames and bytes sent.
    pub tx: [u64; 2],
}

/// Where packets went, over all workers. `rx + originated + from_kernel = tx + delivered + to_kernel + dropped + held`, but
/// for frames that are in a ring between two workers at the moment of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames received.
    pub rx: u64,
    /// Frames that the director made.
    pub originated: u64,
    /// Frames sent.
    pub tx: u64,
    /// Frames for the director itself.
    pub delivered: u64,
    /// Frames that were given to the kernel.
    pub to_kernel: u64,
    /// Frames that the kernel sent.
    pub from_kernel: u64,
    /// Frames dropped, see [`Director::drops`].
    pub dropped: u64,
    /// Frames that wait for a next hop or a transmit queue now.
    pub held: u64,
}

/// A worker and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRow {
    /// Index.
    pub worker: u16,
    /// CPU.
    pub cpu: u16,
    /// Turns of its loop.
    pub turns: u64,
    /// Turns with packets.
    pub busy_turns: u64,
    /// Frames received.
    pub rx: u64,
    /// Frames sent.
    pub tx: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames given to other workers.
    pub handed_over: u64,
    /// Frames taken from other workers.
    pub taken_over: u64,
    /// Connections in its tables.
    pub connections: u64,
    /// Connections that it may track.
    pub max_connections: u64,
    /// Connections inserted.
    pub inserted: u64,
    /// Connections that ended by their timeout.
    pub expired: u64,
    /// Generation of its snapshot.
    pub generation: u64,
    /// Messages to the control core that were lost.
    pub events_lost: u64,
    /// Connections whose handshake is under way.
    pub embryonic: u64,
    /// SYNs are a flood now.
    pub flood: bool,
    /// Connections that made room for others, by [`Class`](crate::flood::evict::Class).
    pub evicted: [u64; 4],
    /// SYNs that went on without an entry because they are a flood.
    pub unconfirmed: u64,
    /// Packets that went on without an entry because the table is full, or the connection has none.
    pub stateless: u64,
    /// SYNs that were answered with a cookie.
    pub cookies_sent: u64,
    /// Connections begun by a cookie that came back.
    pub cookies_accepted: u64,
    /// ACKs without a connection whose number is no cookie, or too old.
    pub cookies_refused: u64,
    /// SYNs to servers that were said again for clients that had proved themselves.
    pub calls_repeated: u64,
    /// Clients that were given a reset because their server did not answer.
    pub calls_given_up: u64,
}

impl Director {
    /// Every service, in the order of the configuration.
    ///
    /// Cost: in proportion to all servers; [`Director::services_in`] takes some at a time.
    pub fn services(&self) -> Vec<ServiceRow> {
        self.services_in(0..self.model.services.len())
    }

    /// The services at these places of the configuration; those beyond its end are none.
    pub fn services_in(&self, places: std::ops::Range<usize>) -> Vec<ServiceRow> {
        let mut removed: std::collections::HashMap<_, Vec<DestId>> = std::collections::HashMap::new();
        for dest in &self.registry.removed {
            if let Some(service) = self.registry.record(*dest).and_then(|record| record.key.owner.service()) {
                removed.entry(service).or_default().push(*dest);
            }
        }
        let mut rows = Vec::with_capacity(places.len());
        for service in self.model.services.iter().skip(places.start).take(places.len()) {
            let key = service.address;
            let Some(record) = self.registry.services.get(&key) else { continue };
            let standing = record.entry.candidates.iter().map(|candidate| candidate.dest);
            let gone = removed.get(&key).into_iter().flatten().copied();
            // one that was removed is of interest as long as it drains
            let shown = |row: &DestRow| !row.removed || row.active + row.inactive > 0;
            let rows_of = standing.chain(gone).filter_map(|dest| self.dest_row(dest));
            let (dests, idle): (Vec<DestRow>, Vec<DestRow>) = rows_of.partition(shown);
            let sum =
                |past: u64, of: fn(&DestRow) -> u64| past + dests.iter().chain(&idle).map(of).sum::<u64>();
            rows.push(ServiceRow {
                name: service.name.clone(),
                address: service.address,
                scheduler: service.scheduler,
                forwarding: service.forwarding,
                persistence: service.persistence,
                one_packet: service.one_packet,
                conns: sum(record.past[0], |dest| dest.conns),
                in_packets: sum(record.past[1], |dest| dest.in_packets),
                in_bytes: sum(record.past[2], |dest| dest.in_bytes),
                out_packets: sum(record.past[3], |dest| dest.out_packets),
                out_bytes: sum(record.past[4], |dest| dest.out_bytes),
                dests,
            });
        }
        rows
    }

    /// The rules of source NAT by name, in the order of the configuration, with their counts: `in` is out into the
    /// world.
    pub fn snat(&self) -> Vec<(String, DestRow)> {
        let rules = self.model.snat.iter().zip(&self.registry.snat);
        rules.filter_map(|(rule, dest)| Some((rule.name.clone(), self.dest_row(*dest)?))).collect()
    }

    /// Whether a destination is a rule of source NAT, one that was removed included.
    pub fn is_snat(&self, dest: DestId) -> bool {
        let record = self.registry.record(dest);
        record.is_some_and(|record| record.key.owner.service().is_none())
    }

    fn dest_row(&self, dest: DestId) -> Option<DestRow> {
        let (record, entry) = (self.registry.record(dest)?, self.registry.entry(dest)?);
        let now = readings(&self.counters, dest);
        let (mut active, mut total) = (0, 0);
        for worker in &self.counters {
            active += u64::from(worker.dests[dest.0 as usize].active.get());
            total += u64::from(worker.dests[dest.0 as usize].total.get());
        }
        let since = |n: usize| now[n] - record.base[n];
        Some(DestRow {
            dest,
            address: record.key.address,
            port: record.key.port,
            forwarding: record.key.forwarding,
            upper_threshold: record.thresholds().0,
            lower_threshold: record.thresholds().1,
            weight: record.server.weight,
            removed: record.removed,
            drain_left_ms: self.drains.left_ms(dest, self.polled_ms),
            reachable: match self.running.cells.mac(entry.neighbor) {
                _ if entry.neighbor == NeighborId::KERNEL => Some(true),
                Resolution::Resolved(_) => Some(true),
                Resolution::Failed => Some(false),
                Resolution::Pending => None,
            },
            active,
            inactive: total.saturating_sub(active),
            persistent: u64::from(self.setup.templates.count(dest)),
            conns: since(0),
            in_packets: since(1),
            in_bytes: since(2),
            out_packets: since(3),
            out_bytes: since(4),
        })
    }

    /// Address and port of a destination's server; `None`: the index is unused.
    pub fn server_of(&self, dest: DestId) -> Option<ServerRef> {
        let key = &self.registry.record(dest)?.key;
        Some(ServerRef { address: key.address, port: key.port })
    }

    /// The persistence templates, in no order.
    pub fn templates(&self) -> Vec<Listed> {
        // the workers' clock, by which templates end
        let now_ns = self.counters.iter().map(|worker| worker.own.now_ns.get()).max().unwrap_or_default();
        let mut rows = Vec::new();
        self.setup.templates.list(now_ns, |row| rows.push(row));
        rows
    }

    /// The destination of a server of a service.
    pub fn dest_of(&self, service: &lb_config::Service, server: ServerRef) -> Option<DestId> {
        let record: &registry::ServiceRecord = self.registry.services.get(&service.address)?;
        record.entry.candidates.iter().map(|c| c.dest).find(|dest| self.server_of(*dest) == Some(server))
    }

    /// Every drop reason and its count over all workers.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let count =
            |reason: DropReason| self.counters.iter().map(|worker| worker.drops[reason as usize].get()).sum();
        DropReason::ALL.iter().map(|reason| (*reason, count(*reason))).collect()
    }

    /// Every device and its frames.
    pub fn devices(&self) -> Vec<DeviceRow> {
        let row = |(at, (device, _)): (usize, (lb_config::Device, u16))| {
            let mut row = DeviceRow { device: device.to_string(), rx: [0; 2], tx: [0; 2] };
            for worker in &self.counters {
                let own = &worker.devices[at];
                row.rx[0] += own.rx_packets.get();
                row.rx[1] += own.rx_bytes.get();
                row.tx[0] += own.tx_packets.get();
                row.tx[1] += own.tx_bytes.get();
            }
            row
        };
        super::devices(&self.model).into_iter().enumerate().map(row).collect()
    }

    /// Where packets went.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.counters {
            totals.rx += worker.devices.iter().map(|device| device.rx_packets.get()).sum::<u64>();
            totals.tx += worker.devices.iter().map(|device| device.tx_packets.get()).sum::<u64>();
            totals.originated += worker.own.originated.get();
            totals.delivered += worker.own.delivered.get();
            totals.to_kernel += worker.own.to_kernel.get();
            totals.from_kernel += worker.own.from_kernel.get();
            totals.held += worker.own.held.get();
            totals.dropped += worker.drops.iter().map(|count| count.get()).sum::<u64>();
        }
        totals
    }

    /// Every worker.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let row = |(at, worker): (usize, &std::sync::Arc<crate::counters::WorkerCounters>)| WorkerRow {
            worker: at as u16,
            cpu: self.model.appliance.workers[at],
            turns: worker.own.turns.get(),
            busy_turns: worker.own.busy_turns.get(),
            rx: worker.devices.iter().map(|device| device.rx_packets.get()).sum(),
            tx: worker.devices.iter().map(|device| device.tx_packets.get()).sum(),
            dropped: worker.drops.iter().map(|count| count.get()).sum(),
            handed_over: worker.own.handed_over.get(),
            taken_over: worker.own.taken_over.get(),
            connections: worker.own.connections.get(),
            max_connections: u64::from(self.setup.connections_per_worker),
            inserted: worker.own.inserted.get(),
            expired: worker.own.expired.get(),
            generation: worker.own.generation.get(),
            events_lost: worker.own.events_lost.get(),
            embryonic: worker.own.embryonic.get().into(),
            flood: worker.own.flood.get() != 0,
            evicted: std::array::from_fn(|class| worker.own.evicted[class].get()),
            unconfirmed: worker.own.unconfirmed.get(),
            stateless: worker.own.stateless.get(),
            cookies_sent: worker.own.cookies_sent.get(),
            cookies_accepted: worker.own.cookies_accepted.get(),
            cookies_refused: worker.own.cookies_refused.get(),
            calls_repeated: worker.own.calls_repeated.get(),
            calls_given_up: worker.own.calls_given_up.get(),
        };
        self.counters.iter().enumerate().map(row).collect()
    }

    /// Every next hop, with the name of its port.
    pub fn neighbors(&self, now_ms: u64) -> Vec<(String, NeighborRow)> {
        let name =
            |row: &NeighborRow| self.running.links.get(usize::from(row.link.0)).map(|link| link.name.clone());
        self.book.rows(now_ms).into_iter().map(|row| (name(&row).unwrap_or_default(), row)).collect()
    }

    /// Shows the latency samples of worker `worker` since the last call, ns.
    pub fn drain_latency(&mut self, worker: usize, see: impl FnMut(u32)) {
        self.mailboxes[worker].samples.drain(&mut self.samples_read[worker], see);
    }
}
