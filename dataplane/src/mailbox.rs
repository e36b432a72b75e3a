//! How the control core and a worker talk: the one publishing mechanism.
//!
//! Everything goes through bounded queues; a worker looks at one word a turn, the doorbell, and at the queues only
//! when it changed. A snapshot is picked up between bursts; the one it replaces travels back and is freed on the
//! control core, so a worker never frees configuration and never touches a shared reference count per turn.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::channel::{CONTROL_QUEUE, ControlFrame};
use crate::conn::Tick;
use crate::exception::Pipe;
use crate::ids::DestId;
use crate::io::DeviceId;
use crate::latency::SampleRing;
use crate::neighbor::{LinkId, Sighting};
use crate::snapshot::Snapshot;
use crate::state::State;

/// Longest frame that the control core sends through a worker, bytes.
pub const MAX_INJECT: usize = 192;

/// Mail and events that may wait.
const QUEUE: usize = 1024;

/// A queue between the control core and a worker is full: the reader is 1024 messages behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// A frame that the control core made.
#[derive(Clone, Debug)]
pub struct Injected {
    /// Where it goes out.
    pub device: DeviceId,
    /// Ethernet header to the end, without FCS.
    pub frame: arrayvec::ArrayVec<u8, MAX_INJECT>,
}

/// Which connections to list; `None` takes any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnFilter {
    /// Client address.
    pub client: Option<IpAddr>,
    /// Client port.
    pub client_port: Option<u16>,
    /// VIP.
    pub vip: Option<IpAddr>,
    /// Port of the VIP.
    pub vip_port: Option<u16>,
    /// Real server.
    pub server: Option<IpAddr>,
    /// Protocol.
    pub protocol: Option<lb_config::Protocol>,
    /// State.
    pub state: Option<State>,
}

/// What a connection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnProtocol {
    /// A protocol that is balanced.
    Flow(lb_config::Protocol),
    /// Echo of ICMP or ICMPv6, by source NAT; its identifier stands for the client's port.
    Echo,
}

impl ConnProtocol {
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flow(protocol) => protocol.as_str(),
            Self::Echo => "icmp",
        }
    }
}

/// A connection as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRow {
    /// Protocol.
    pub protocol: ConnProtocol,
    /// Client address and port.
    pub client: (IpAddr, u16),
    /// VIP and port.
    pub vip: (IpAddr, u16),
    /// Destination.
    pub dest: DestId,
    /// With full NAT and source NAT: what its packets come from.
    pub local: Option<(IpAddr, u16)>,
    /// State.
    pub state: State,
    /// No packet of the server was seen.
    pub no_output: bool,
    /// A persistence template chose its server.
    pub controlled: bool,
    /// Time left, units of 1/[`Tick::PER_SECOND`] s.
    pub expires_ticks: u32,
}

impl ConnRow {
    /// Time left, ms.
    pub fn expires_ms(&self) -> u64 {
        u64::from(self.expires_ticks) * 1000 / Tick::PER_SECOND
    }
}

/// What a walk through the tables is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Connections that match are listed.
    List,
    /// They are removed.
    Flush,
    /// Those of removed servers are removed, where that is their service's policy; the filter does not count.
    Expire,
}

/// A listing under way. The worker fills `rows` up to its capacity and never beyond: it does not allocate.
#[derive(Debug)]
pub struct Listing {
    /// Number that the asker knows it by.
    pub ticket: u64,
    /// What becomes of them.
    pub purpose: Purpose,
    /// Which.
    pub filter: ConnFilter,
    /// The result.
    pub rows: Vec<ConnRow>,
    /// Connections that matched, listed or not; that were removed.
    pub matched: u64,
    /// Next line of the table; IPv6 lines follow IPv4 lines.
    pub cursor: u64,
    /// Moves of entries within the tables when the walk began.
    pub moved: u64,
    /// It is the second walk: entries were moved during the first, which may have missed them.
    pub again: bool,
}

impl Listing {
    /// One that begins. `rows`: empty, with room for what is to be listed.
    pub fn new(ticket: u64, purpose: Purpose, filter: ConnFilter, rows: Vec<ConnRow>) -> Self {
        Self { ticket, purpose, filter, rows, matched: 0, cursor: 0, moved: 0, again: false }
    }
}

/// Control core to worker.
#[derive(Debug)]
pub enum Mail {
    /// Send this frame.
    Inject(Injected),
    /// List or remove connections.
    List(Listing),
}

/// Worker to control core.
#[derive(Debug)]
pub enum Event {
    /// Frames wait for a station on a link that nobody has asked for yet.
    Stranger {
        /// Its link.
        link: LinkId,
        /// Its address.
        address: IpAddr,
    },
    /// A station that is a configured next hop spoke.
    NeighborHeard(Sighting),
    /// Another station says that it has one of the director's addresses.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The station.
        mac: [u8; 6],
    },
    /// A listing is complete.
    Listed(Listing),
}

/// The queues between the control core and one worker.
#[derive(Debug)]
pub struct Mailbox {
    /// Rung after something was put in. Control core, VRRP's and the kernel's thread: rw, worker: ro.
    doorbell: CachePadded<AtomicU64>,
    snapshots: ArrayQueue<Arc<Snapshot>>,
    retired: ArrayQueue<Arc<Snapshot>>,
    mail: ArrayQueue<Mail>,
    events: ArrayQueue<Event>,
    control_out: ArrayQueue<ControlFrame>,
    control_in: ArrayQueue<ControlFrame>,
    /// Frames to and from the kernel.
    pub(crate) pipe: Pipe,
    /// Latency samples.
    pub samples: SampleRing,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            doorbell: CachePadded::default(),
            // one is enough: a newer snapshot replaces one that was not yet picked up
            snapshots: ArrayQueue::new(1),
            retired: ArrayQueue::new(8),
            mail: ArrayQueue::new(QUEUE),
            events: ArrayQueue::new(QUEUE),
            control_out: ArrayQueue::new(CONTROL_QUEUE),
            control_in: ArrayQueue::new(CONTROL_QUEUE),
            pipe: Pipe::default(),
            samples: SampleRing::default(),
        }
    }
}

impl Mailbox {
    /// Control core: gives the worker a snapshot; it is picked up before the next burst.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        // what comes back was never seen by the worker and is freed here
        drop(self.snapshots.force_push(snapshot));
        self.ring();
    }

    /// Control core: frees the snapshots that the worker has replaced.
    pub fn reclaim(&self) {
        while self.retired.pop().is_some() {}
    }

    /// Control core: sends mail. Errors: the queue is full; the mail is lost.
    pub fn send(&self, mail: Mail) -> Result<(), QueueFull> {
        self.mail.push(mail).map_err(|_| QueueFull)?;
        self.ring();
        Ok(())
    }

    /// Control core: the next event.
    pub fn next_event(&self) -> Option<Event> {
        self.events.pop()
    }

    pub(crate) fn ring(&self) {
        self.doorbell.fetch_add(1, Release);
    }

    /// Worker: the number of rings so far.
    #[inline]
    pub fn rings(&self) -> u64 {
        self.doorbell.load(Acquire)
    }

    /// Worker: the newest snapshot, if there is one; `current` goes back to the control core in its place.
    pub fn refresh(&self, current: &mut Arc<Snapshot>) -> bool {
        // without room to send the old one back the new one waits, so that nothing is ever freed here
        if self.retired.is_full() {
            return false;
        }
        let Some(snapshot) = self.snapshots.pop() else { return false };
        let old = std::mem::replace(current, snapshot);
        let _freed_by_control = self.retired.push(old);
        true
    }

    /// Worker: whether a snapshot waits.
    pub fn has_snapshot(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Worker: the next mail.
    pub fn next_mail(&self) -> Option<Mail> {
        self.mail.pop()
    }

    /// VRRP's thread: sends a frame before all packets. Errors: the queue is full; the frame is lost.
    pub(crate) fn send_control(&self, frame: ControlFrame) -> Result<(), QueueFull> {
        self.control_out.push(frame).map_err(|_| QueueFull)?;
        self.ring();
        Ok(())
    }

    /// VRRP's thread: the next frame that the worker passed on.
    pub(crate) fn heard_control(&self) -> Option<ControlFrame> {
        self.control_in.pop()
    }

    /// VRRP's thread: whether the worker has taken everything.
    pub(crate) fn is_control_drained(&self) -> bool {
        self.control_out.is_empty()
    }

    /// Worker: the next frame to be sent before all packets.
    pub(crate) fn next_control(&self) -> Option<ControlFrame> {
        self.control_out.pop()
    }

    /// Worker: passes a frame to VRRP's thread. Errors: the queue is full; the frame is lost.
    pub(crate) fn tell_control(&self, frame: ControlFrame) -> Result<(), QueueFull> {
        self.control_in.push(frame).map_err(|_| QueueFull)
    }

    /// Worker: tells the control core something. Errors: the queue is full; the event is lost.
    pub fn tell(&self, event: Event) -> Result<(), QueueFull> {
        self.events.push(event).map_err(|_| QueueFull)
    }
}
