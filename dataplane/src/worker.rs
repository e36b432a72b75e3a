//! A worker: one core's share of the director.
//!
//! This file holds the turn; every step of it has a file of its own: [`crate::receive`], [`crate::flow`],
//! [`crate::forward`], [`crate::local`], [`crate::transmit`], [`crate::post`].

use std::sync::Arc;

use crate::conn::Tick;
use crate::conn::table::NoMemory;
use crate::counters::WorkerCounters;
use crate::datagram::Pieces;
use crate::ending::Ending;
use crate::exception::Allowance;
use crate::express::{Board, Shortcuts};
use crate::flood::Flood;
use crate::io::{Burst, DeviceId, PacketIo, WorkerId};
use crate::mailbox::{Listing, Mailbox};
use crate::owner::HELD_UP_NS;
use crate::policy::is_guarded;
use crate::sched::DrawSource;
use crate::setup::{Setup, WorkerSeed};
use crate::snapshot::Snapshot;
use crate::sync::Teller;
use crate::tables::Tables;
use crate::transmit::{Budget, Outgoing, Waiting};
use crate::wide::Wide;

/// Lines that the sweep visits in a turn with packets: bounds the pause that it makes.
pub const SWEEP_BUSY: u32 = 32;
/// Connections that it ends in such a turn, those of one line more: each costs a few random lines.
pub const ENDS_BUSY: u32 = 8;
/// Lines that have to be due, of the longer table: fewer do not end enough connections to wait for memory together.
const SWEEP_STEP: u32 = 32;
/// Lines that it visits in a turn without packets, when nobody waits.
const SWEEP_IDLE: u32 = 1024;
/// Connections that it ends in such a turn.
const ENDS_IDLE: u32 = 1024;
/// Time for one pass of the sweep over the whole table, ns: how late an entry may be removed or no longer count as
/// active. Up to twice as long where rounding costs a line a turn, longer while turns are too few for the table.
const SWEEP_PASS_NS: u64 = 1_000_000_000;

/// One core's share of the director. Owned by its thread; shares only what [`crate::counters`] and
/// [`crate::mailbox`] hold.
pub struct Worker<I: PacketIo> {
    pub(crate) id: WorkerId,
    pub(crate) setup: Arc<Setup>,
    pub(crate) io: I,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) all_counters: Vec<Arc<WorkerCounters>>,
    /// Randomness for schedulers.
    pub(crate) draws: DrawSource,
    pub(crate) tables: Tables,
    /// TCP's stricter table is in force, see [`crate::policy::is_guarded`].
    pub(crate) guarded: bool,
    /// Some address of the director is another one's at present, see [`crate::owner`].
    pub(crate) absent: bool,
    /// Frames to be sent, by device.
    pub(crate) out: Vec<Outgoing<I::Packet>>,
    /// Frames to be handed over, by worker.
    pub(crate) hand: Vec<Burst<I::Packet>>,
    pub(crate) waiting: Waiting<I::Packet>,
    /// Fragments that wait for the others of their datagram.
    pub(crate) pieces: Pieces<I::Packet>,
    pub(crate) errors: Budget,
    /// What the kernel may still get, by link.
    pub(crate) allowances: Vec<Allowance>,
    /// Identification of the latest ICMP error.
    pub(crate) error_id: u16,
    pub(crate) now_ns: u64,
    pub(crate) now: Tick,
    pub(crate) listing: Option<Listing>,
    pub(crate) flood: Flood,
    /// What other directors are told.
    pub(crate) teller: Teller,
    rings_seen: u64,
    /// What the port's clock showed when the last turn ended, or frames came; see [`Worker::look_at_clock`].
    pub(crate) looked_ns: u64,
    swept_ns: u64,
    /// Plain packets of known connections go by [`crate::express`].
    pub(crate) express: bool,
    /// What instructions that has.
    pub(crate) wide: Wide,
    /// What it knows of the burst at hand.
    pub(crate) board: Box<Board>,
    pub(crate) shortcuts: Shortcuts,
}

impl<I: PacketIo> Worker<I> {
    /// A worker with empty tables.
    ///
    /// Errors: no memory for the tables.
    pub fn new(seed: WorkerSeed, io: I) -> Result<Self, NoMemory> {
        let tables = Tables::new(seed.setup.connections_per_worker)?;
        Ok(Self::with_tables(seed, io, tables))
    }

    /// A worker with tables from [`Tables::for_workers`].
    pub fn with_tables(seed: WorkerSeed, io: I, tables: Tables) -> Self {
        let (setup, snapshot) = (seed.setup, seed.snapshot);
        let teller = Teller::new(&snapshot);
        Self {
            id: seed.id,
            io,
            mailbox: seed.mailbox,
            counters: seed.counters[usize::from(seed.id.0)].clone(),
            all_counters: seed.counters,
            draws: DrawSource::random(),
            tables,
            out: setup.devices.iter().map(|_| Outgoing::new()).collect(),
            hand: (0..setup.workers).map(|_| Burst::new()).collect(),
            guarded: false,
            absent: false,
            waiting: Waiting::new(setup.neighbor_queue),
            pieces: Pieces::new(setup.workers),
            errors: Budget::default(),
            allowances: vec![Allowance::default(); snapshot.links.len()],
            error_id: 0,
            now_ns: 0,
            now: Tick::from_ns(0),
            listing: None,
            teller,
            flood: Flood::of(&seed.flood),
            looked_ns: 0,
            rings_seen: 0,
            swept_ns: 0,
            express: true,
            wide: Wide::of_this_processor(),
            board: Box::default(),
            shortcuts: Shortcuts::new(),
            setup,
            snapshot,
        }
    }

    /// One turn: configuration, packets of every queue, sending, upkeep. Returns the number of packets taken in.
    ///
    /// `now_ns`: time since any fixed point, ns, never going back.
    pub fn turn(&mut self, now_ns: u64) -> usize {
        let held_up = self.now_ns != 0 && now_ns.saturating_sub(self.now_ns) > HELD_UP_NS;
        (self.now_ns, self.now) = (now_ns, Tick::from_ns(now_ns));
        let mut packets = self.refresh();
        if held_up {
            self.snapshot.shared.doubt();
            self.looked_ns = self.io.clock_ns();
        }
        self.guarded = is_guarded(&self.snapshot.policy, self.tables.len(), self.tables.max);
        let embryonic = self.counters.own.embryonic.get();
        self.flood.turn(embryonic, self.tables.max, self.snapshot.policy.syn_flood);
        self.absent = self.snapshot.shared.any_absent();
        // else frames stay where they are for the millisecond that it takes
        if !self.snapshot.shared.is_doubtful() {
            for device in 0..self.setup.devices.len() {
                packets += self.receive_from(DeviceId(device as u16));
            }
            packets += self.receive_handed_over();
        }
        self.release_waiting();
        if self.flood.calls.is_due(now_ns) {
            self.call_again();
        }
        self.flush();
        if self.teller.feeds.is_some() {
            self.sync(packets);
        }
        self.upkeep(packets);
        if self.snapshot.shared.is_used() {
            self.looked_ns = self.io.clock_ns();
        }
        packets
    }

    /// Picks up a new snapshot, mail and the kernel's frames, if the doorbell rang. Returns how many of these.
    fn refresh(&mut self) -> usize {
        let mut packets = 0;
        let rings = self.mailbox.rings();
        if rings != self.rings_seen {
            self.send_control();
            if self.mailbox.refresh(&mut self.snapshot) {
                self.teller.follow(&self.snapshot);
                self.counters.own.generation.set(self.snapshot.generation);
            }
            self.read_mail();
            packets = self.take_from_kernel();
            // a snapshot that could not be taken, or what was left, is looked for again next turn
            if !self.mailbox.has_snapshot() && !self.mailbox.pipe.has_more() {
                self.rings_seen = rings;
            }
        }
        if self.listing.is_some() {
            self.continue_listing();
        }
        packets
    }

    /// Expiry and the counters that describe the turn.
    fn upkeep(&mut self, packets: usize) {
        let counters = &self.counters;
        counters.own.turns.add(1);
        counters.own.now_ns.set(self.now_ns);
        counters.own.flood.set(u64::from(self.flood.active));
        if packets > 0 {
            counters.own.busy_turns.add(1);
        }
        self.sweep(packets > 0);
        let counters = &self.counters;
        self.pieces.expire(self.now_ns, counters);
        counters.own.connections.set(u64::from(self.tables.len()));
        let bursts =
            self.out.iter().map(|out| &out.frames).chain(&self.hand).map(|burst| burst.len()).sum::<usize>();
        counters.own.held.set((self.waiting.len() + self.pieces.held() + bursts) as u64);
    }

    /// Lines of the tables that are due are visited, some at a time. What there was no time for is due at the next turn.
    fn sweep(&mut self, is_busy: bool) {
        let (limit, ends) = if is_busy { (SWEEP_BUSY, ENDS_BUSY) } else { (SWEEP_IDLE, ENDS_IDLE) };
        let Tables { v4, v6, pairs4, pairs6, .. } = &mut self.tables;
        let (lines4, lines6) = (v4.lines(), v6.lines());
        let most = u64::from(lines4.max(lines6));
        let elapsed = self.now_ns.saturating_sub(self.swept_ns).min(SWEEP_PASS_NS);
        if most * elapsed < u64::from(SWEEP_STEP) * SWEEP_PASS_NS {
            return;
        }
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        let step = elapsed.min(u64::from(limit) * SWEEP_PASS_NS / most);
        // what was not visited, as time of that table
        let late = |lines: u32, seen: u32, due: u32| u64::from(due - seen) * SWEEP_PASS_NS / u64::from(lines);
        let due = |lines: u32| (u64::from(lines) * step / SWEEP_PASS_NS) as u32;
        let (due4, due6, mut left) = (due(lines4), due(lines6), elapsed - step);
        if !v4.is_empty() {
            let seen = ending.sweep((v4, pairs4), (due4, ends), self.now);
            left = left.max(elapsed - step + late(lines4, seen, due4));
        }
        if !v6.is_empty() {
            let seen = ending.sweep((v6, pairs6), (due6, ends), self.now);
            left = left.max(elapsed - step + late(lines6, seen, due6));
        }
        self.swept_ns = self.now_ns - left;
    }

    /// Whether a listing of connections is under way.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// The worker's queues, for tests and benchmarks that put frames in.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// The same worker on other queues; frames that were still to be sent are dropped.
    pub fn with_io<J: PacketIo>(self, io: J) -> Worker<J> {
        Worker {
            id: self.id,
            io,
            snapshot: self.snapshot,
            mailbox: self.mailbox,
            counters: self.counters,
            all_counters: self.all_counters,
            draws: self.draws,
            tables: self.tables,
            out: self.setup.devices.iter().map(|_| Outgoing::new()).collect(),
            hand: (0..self.setup.workers).map(|_| Burst::new()).collect(),
            guarded: self.guarded,
            absent: self.absent,
            waiting: Waiting::new(self.setup.neighbor_queue),
            pieces: Pieces::new(self.setup.workers),
            errors: self.errors,
            allowances: self.allowances,
            error_id: self.error_id,
            now_ns: self.now_ns,
            now: self.now,
            listing: self.listing,
            flood: self.flood,
            teller: self.teller,
            looked_ns: self.looked_ns,
            rings_seen: self.rings_seen,
            swept_ns: self.swept_ns,
            express: self.express,
            wide: self.wide,
            board: self.board,
            shortcuts: self.shortcuts,
            setup: self.setup,
        }
    }

    /// The worker's mailbox, for what runs beside the turn.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}
