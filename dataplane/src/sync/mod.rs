//! Connections that several directors know: what a worker tells of its own, and how it takes those of others in.
//!
//! A [`Record`] is a connection, or a persistence template, in words that mean the same to every director of one
//! configuration: addresses and the [`DestKey`] of the server in place of indices. Files: this one (records and the
//! [`Feeds`] between workers and who speaks a protocol), `tell` (which connections are told, and when), `walk` (going
//! through the tables, for those who know nothing yet and for those that live long), `part` (connections that are thrown
//! out), `apply` (what was told by another
//! director becomes an entry), `template` (the same for templates).
//!
//! # When a connection is told
//! - When its state changes, and at its second packet: in the branch that keeps count of handshakes, which established
//!   connections do not take. What is told is read from the tables at the end of the turn, once all packets of the turn
//!   have left their marks.
//! - Once in [`TapSettings::refresh_ns`], when a packet of it was seen since: a hand goes through the tables, so that a
//!   packet of an established connection costs nothing.
//! - All of them when somebody asks, see [`Feeds::ask_for_all`].
//! - When it is thrown out, by a flush or because its server was removed: others forget it, too, as they would go on with
//!   it otherwise. The end by its protocol or its time everybody sees for himself.
//!
//! # Whose a connection is
//! One that was told by another director is *foreign* until a packet of it is seen here
//! ([`Meta::is_foreign`](crate::conn::Meta::is_foreign)): it is not told again, and may be changed by what others tell.
//! After its first packet it is this director's own, and is told as such.
//!
//! Invariants: without `[sync]` nothing of this runs ([`Snapshot::sync`](crate::snapshot::Snapshot::sync) is `None`);
//! no queue grows: what does not fit is counted ([`Feeds::lost`]) and made up for by asking for all.

mod apply;
mod part;
mod tell;
mod template;
mod walk;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crossbeam::queue::ArrayQueue;

use crate::conn::{HashKey, Splice, Stream};
use crate::io::WorkerId;
use crate::persist::TemplateKey;
use crate::state::State;
use crate::steer;

pub use crate::director::{DestKey, Owner};
pub use apply::Refusal;
pub(crate) use part::Parting;
pub(crate) use tell::{Changes, Teller};

/// Records that wait on their way from a worker, for each who listens: 4 MiB a worker, and what a worker that makes a
/// million connections a second tells in 16 ms.
const TOLD: usize = 16_384;
/// Records that wait on their way to a worker.
const HEARD: usize = 16_384;

/// What a director tells others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A connection.
    Connection(Connection),
    /// A persistence template.
    Template(Template),
    /// A connection was thrown out.
    Gone(Gone),
}

/// A connection that was thrown out before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// IANA number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Client address and port.
    pub client: (IpAddr, u16),
    /// Virtual address and port.
    pub vip: (IpAddr, u16),
    /// The server that it had.
    pub dest: DestKey,
}

/// A connection as every director of one configuration understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IANA number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Client address and port.
    pub client: (IpAddr, u16),
    /// Virtual address and port; with source NAT, whom the private host asked for.
    pub vip: (IpAddr, u16),
    /// Its server, and the service that it is of.
    pub dest: DestKey,
    /// With full NAT and source NAT: what its packets come from.
    pub local: Option<(IpAddr, u16)>,
    /// State; of `protocol`.
    pub state: State,
    /// What else is known of it.
    pub flags: Flags,
    /// Time left, in units of 1/[`Tick::PER_SECOND`](crate::conn::Tick::PER_SECOND) s.
    pub left: u32,
    /// How numbers of its two TCP streams differ.
    pub streams: Streams,
    /// The template that chose its server, if one did.
    pub template: Option<TemplateKey>,
    /// The worker's time when it was told, ns; not sent.
    pub told_ns: u64,
}

/// What is known of a connection beside its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// No packet of the server was seen.
    pub no_output: bool,
    /// Its server was chosen by a persistence template.
    pub controlled: bool,
    /// The template knows that it was established.
    pub assured: bool,
    /// Its server is told of its client by a PROXY header.
    pub proxied: bool,
    /// With a local end: the server has answered beyond its SYN.
    pub answered: bool,
}

/// How the numbers of a TCP connection's two streams differ between client and server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// They do not.
    #[default]
    Alike,
    /// A PROXY header goes ahead of the client's.
    Headed(Stream),
    /// The director did the handshake in the server's place.
    Spliced(Splice),
}

/// A persistence template as every director of one configuration understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Which clients, and what they asked for.
    pub key: TemplateKey,
    /// Their server.
    pub dest: DestKey,
    /// Life after its latest new connection, ns.
    pub timeout_ns: u64,
    /// What is left of it, ns.
    pub left_ns: u64,
    /// One of its connections was established.
    pub assured: bool,
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Other directors of this kind.
    Peers = 0,
    /// Linux directors, by IPVS's protocol.
    Ipvs = 1,
}

impl Listener {
    /// All.
    pub const ALL: [Self; 2] = [Self::Peers, Self::Ipvs];
}

/// What a listener wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapSettings {
    /// Connections before they are established, too.
    pub handshakes: bool,
    /// How often one that lives on is told again, ns; above 0.
    pub refresh_ns: u64,
}

/// What one listener hears.
#[derive(Debug)]
pub(crate) struct Tap {
    pub settings: TapSettings,
    pub rings: Box<[Ring]>,
}

/// From one worker to one listener.
#[derive(Debug)]
pub(crate) struct Ring {
    pub records: ArrayQueue<Record>,
    /// Records that found it full. Worker: rw, listener: ro.
    pub lost: AtomicU64,
    /// How often all connections were asked for. Listener: rw, worker: ro.
    pub wanted: AtomicU64,
    /// How much of that was done. Worker: wo, listener: ro.
    pub done: AtomicU64,
}

impl Ring {
    fn new() -> Self {
        Self {
            records: ArrayQueue::new(TOLD),
            lost: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// Worker: puts a record in.
    pub fn tell(&self, record: Record) {
        if self.records.push(record).is_err() {
            self.lose(1);
        }
    }

    /// Worker: counts records that did not get in.
    fn lose(&self, count: u64) {
        if count > 0 {
            self.lost.store(self.lost.load(Relaxed) + count, Relaxed);
        }
    }
}

/// To one worker, and what it makes of it.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub records: ArrayQueue<Record>,
    /// The worker's time, ns. Worker: wo, others: ro.
    pub now_ns: AtomicU64,
    /// Records that became entries or changed one. Worker: wo, others: ro.
    pub applied: AtomicU64,
    /// Those that did not, by [`Refusal`]. Worker: wo, others: ro.
    pub refused: [AtomicU64; Refusal::ALL.len()],
}

/// The queues between the workers and who speaks to other directors. Shared by all of them.
#[derive(Debug)]
pub struct Feeds {
    workers: u16,
    steer_key: HashKey,
    /// Some listener wants connections before they are established, too.
    pub(crate) handshakes: bool,
    /// Other directors' connections are here. Who speaks with them: wo, VRRP: ro.
    copied: AtomicBool,
    /// Other directors' connections come by these queues, so those of a client's port are at the worker of
    /// [`Feeds::owner`], whatever a NIC would choose.
    pub(crate) hears: bool,
    pub(crate) taps: [Option<Tap>; Listener::ALL.len()],
    pub(crate) inboxes: Box<[Inbox]>,
}

/// What became of the records of other directors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// They became entries or changed one.
    pub applied: u64,
    /// They did not, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
}

impl Feeds {
    /// Queues for so many workers and these listeners, in the order of [`Listener::ALL`].
    pub fn new(workers: u16, steer_key: HashKey, settings: [Option<TapSettings>; 2]) -> Self {
        let tap =
            |settings: TapSettings| Tap { settings, rings: (0..workers).map(|_| Ring::new()).collect() };
        let inbox = |_| Inbox {
            records: ArrayQueue::new(HEARD),
            now_ns: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            workers,
            steer_key,
            copied: AtomicBool::new(false),
            hears: true,
            handshakes: settings.iter().flatten().any(|settings| settings.handshakes),
            taps: settings.map(|settings| settings.map(tap)),
            inboxes: (0..workers).map(inbox).collect(),
        }
    }

    /// The same for listeners that only tell: NICs that spread flows go on with it.
    pub fn deaf(self) -> Self {
        Self { hears: false, ..self }
    }

    /// What a listener asked for; `None`: there is no such.
    pub fn settings(&self, listener: Listener) -> Option<TapSettings> {
        self.tap(listener).map(|tap| tap.settings)
    }

    /// Number of workers.
    pub fn workers(&self) -> u16 {
        self.workers
    }

    fn tap(&self, listener: Listener) -> Option<&Tap> {
        self.taps.get(listener as usize)?.as_ref()
    }

    fn ring(&self, listener: Listener, worker: u16) -> Option<&Ring> {
        self.tap(listener)?.rings.get(usize::from(worker))
    }

    /// Listener: the next record of a worker.
    pub fn next(&self, listener: Listener, worker: u16) -> Option<Record> {
        self.ring(listener, worker)?.records.pop()
    }

    /// Listener: records that were not told because it did not take them in time; [`Feeds::ask_for_all`] makes up for
    /// that.
    pub fn lost(&self, listener: Listener) -> u64 {
        let rings = self.tap(listener).map(|tap| tap.rings.iter()).into_iter().flatten();
        rings.map(|ring| ring.lost.load(Relaxed)).sum()
    }

    /// Listener: has all workers tell all connections, and one of them all templates. Asked again before it is done, it
    /// begins anew.
    pub fn ask_for_all(&self, listener: Listener) {
        for ring in self.tap(listener).map(|tap| tap.rings.iter()).into_iter().flatten() {
            ring.wanted.fetch_add(1, Release);
        }
    }

    /// Listener: whether all that was asked for has been told: what was not read before this said so is in the queues.
    pub fn is_all_told(&self, listener: Listener) -> bool {
        let mut rings = self.tap(listener).map(|tap| tap.rings.iter()).into_iter().flatten();
        rings.all(|ring| ring.done.load(Acquire) == ring.wanted.load(Relaxed))
    }

    /// Hands what another director told to the worker whose it is. Errors: its queue is full; the record is given back.
    #[allow(clippy::result_large_err, reason = "the queue gives back what it was given")]
    pub fn apply(&self, record: Record) -> Result<(), Record> {
        let worker = match &record {
            Record::Connection(connection) => self.owner(connection.client),
            Record::Gone(gone) => self.owner(gone.client),
            Record::Template(_) => WorkerId(0),
        };
        match self.inboxes.get(usize::from(worker.0)) {
            Some(inbox) => inbox.records.push(record),
            None => Ok(()),
        }
    }

    /// The worker whose the connections of a client's port are.
    pub fn owner(&self, (client, port): (IpAddr, u16)) -> WorkerId {
        steer::owner(client, port, self.workers, &self.steer_key)
    }

    /// Whether the workers have taken in all that was handed to them.
    pub fn is_applied(&self) -> bool {
        self.inboxes.iter().all(|inbox| inbox.records.is_empty())
    }

    /// A worker's time at its latest turn, ns.
    pub fn now_ns(&self, worker: u16) -> u64 {
        self.inboxes.get(usize::from(worker)).map_or(0, |inbox| inbox.now_ns.load(Relaxed))
    }

    /// Says whether the connections of all other directors are here and in the tables.
    pub fn set_copied(&self, copied: bool) {
        self.copied.store(copied, Release);
    }

    /// Whether they are.
    pub fn is_copied(&self) -> bool {
        self.copied.load(Acquire)
    }

    /// What became of the records of other directors, over all workers.
    pub fn applied(&self) -> Applied {
        let mut sum = Applied::default();
        for inbox in &self.inboxes {
            sum.applied += inbox.applied.load(Relaxed);
            sum.refused.iter_mut().zip(&inbox.refused).for_each(|(sum, own)| *sum += own.load(Relaxed));
        }
        sum
    }
}
