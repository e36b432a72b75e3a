//! Next hops and their Ethernet addresses: ARP and neighbour discovery behind one state machine.
//!
//! The control core owns the [`NeighborBook`]: which next hops are wanted, what was heard of them, when to ask
//! again. Workers read the outcome from [`NeighborCells`], one word per next hop. States and times are those of
//! RFC 4861 section 7.3 for both families, with one difference: a next hop in use is configured, so its entry never
//! goes stale unasked; after [`REACHABLE_MS`] it is probed whether or not packets flow. Times are passed in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::wire::Mac;

mod cells;
mod sighting;

pub use cells::{NeighborCells, Resolution};
pub use sighting::{Heard, Sighting};

/// Time between two probes, ms (RFC 4861 section 10: RETRANS_TIMER).
pub const RETRANS_MS: u64 = 1_000;
/// Time that an answer is trusted, ms (RFC 4861 section 10: REACHABLE_TIME).
pub const REACHABLE_MS: u64 = 30_000;
/// Unanswered multicast or broadcast probes after which a next hop counts as failed
/// (RFC 4861 section 10: MAX_MULTICAST_SOLICIT).
pub const MAX_MULTICAST_PROBES: u32 = 3;
/// Unanswered unicast probes after which an address is no longer used (RFC 4861 section 10: MAX_UNICAST_SOLICIT).
pub const MAX_UNICAST_PROBES: u32 = 3;

/// Index of a next hop, stable until it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeighborId(pub u32);

impl NeighborId {
    /// The kernel of the machine, see [`crate::exception`]: no station, and of no book.
    pub const KERNEL: Self = Self(u32::MAX);
}

/// Index of an L3 interface, in the order of the configuration's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u16);

/// The book has no room for another next hop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("next hop {ip} on link {}: the neighbour book is full, its limit is {capacity} entries", .link.0)]
pub struct Full {
    /// Link of the next hop.
    pub link: LinkId,
    /// Address of the next hop.
    pub ip: IpAddr,
    /// How many the book holds.
    pub capacity: usize,
}

/// How much is known of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborState {
    /// Asked, no answer yet; frames wait.
    Incomplete,
    /// Answered less than [`REACHABLE_MS`] ago.
    Reachable,
    /// Has an address that is being verified; frames are sent to it.
    Probe,
    /// Did not answer; frames are dropped, asking goes on.
    Failed,
}

impl NeighborState {
    /// Name in `lbctl neighbors`.
    pub const fn name(self) -> &'static str {
        match self {
            NeighborState::Incomplete => "incomplete",
            NeighborState::Reachable => "reachable",
            NeighborState::Probe => "probe",
            NeighborState::Failed => "failed",
        }
    }
}

/// A question that the control core must send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where to send it.
    pub link: LinkId,
    /// Address that is asked for.
    pub ip: IpAddr,
    /// Station to ask; `None`: everyone (ARP) or the solicited-node group (ND).
    pub unicast: Option<Mac>,
}

/// A next hop as `lbctl neighbors` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborRow {
    /// Its index.
    pub id: NeighborId,
    /// Where it is.
    pub link: LinkId,
    /// Its address.
    pub ip: IpAddr,
    /// Its station, if known and in use.
    pub mac: Option<Mac>,
    /// How much is known.
    pub state: NeighborState,
    /// Time in this state, ms.
    pub since_ms: u64,
    /// Probes sent since the last answer.
    pub probes: u32,
}

/// What is remembered of a next hop.
#[derive(Clone, Debug)]
struct Entry {
    link: LinkId,
    ip: IpAddr,
    state: NeighborState,
    /// Some in Reachable and Probe, None in Incomplete and Failed.
    mac: Option<Mac>,
    /// When the state was entered; `None` until the first tick.
    since_ms: Option<u64>,
    /// When the next tick has something to do.
    due_ms: u64,
    /// When the book looks at it next, not after that.
    queued_ms: u64,
    /// Probes sent in this state.
    sent: u32,
    /// Probes sent since the last answer.
    probes: u32,
}

impl Entry {
    fn new(link: LinkId, ip: IpAddr) -> Self {
        let state = NeighborState::Incomplete;
        Self { link, ip, state, mac: None, since_ms: None, due_ms: 0, queued_ms: 0, sent: 0, probes: 0 }
    }

    fn enter(&mut self, state: NeighborState, now_ms: u64) {
        (self.state, self.since_ms, self.sent) = (state, Some(now_ms), 0);
    }

    fn resolution(&self) -> Resolution {
        match (self.state, self.mac) {
            (_, Some(mac)) => Resolution::Resolved(mac),
            (NeighborState::Failed, None) => Resolution::Failed,
            (_, None) => Resolution::Pending,
        }
    }

    /// Moves on if its time has come, and gives the probe to send.
    fn tick(&mut self, now_ms: u64) -> Option<Probe> {
        self.since_ms.get_or_insert(now_ms);
        if now_ms < self.due_ms {
            return None;
        }
        if self.state == NeighborState::Reachable {
            self.enter(NeighborState::Probe, now_ms);
        } else if self.state == NeighborState::Probe && self.sent >= MAX_UNICAST_PROBES {
            self.mac = None;
            self.enter(NeighborState::Incomplete, now_ms);
        } else if self.state == NeighborState::Incomplete && self.sent >= MAX_MULTICAST_PROBES {
            self.enter(NeighborState::Failed, now_ms);
        }
        (self.sent, self.probes) = (self.sent.saturating_add(1), self.probes.saturating_add(1));
        self.due_ms = now_ms.saturating_add(RETRANS_MS);
        Some(Probe { link: self.link, ip: self.ip, unicast: self.mac })
    }

    /// Takes an address that has not been confirmed: used at once, verified by the next tick.
    fn suspect(&mut self, now_ms: u64, mac: Mac) {
        self.mac = Some(mac);
        self.enter(NeighborState::Probe, now_ms);
        self.due_ms = now_ms;
    }

    /// RFC 4861 section 7.2.3 for announcements, 7.2.5 for replies.
    fn heard(&mut self, now_ms: u64, sighting: &Sighting) {
        // a reply without an address confirms the one that is known
        let Some(mac) = sighting.mac.or(self.mac) else { return };
        match (sighting.how, self.mac) {
            // someone else answers: the known address stays, but must be verified
            (Heard::Reply { overrides: false } | Heard::Announcement { overrides: false }, Some(known))
                if known != mac =>
            {
                if self.state == NeighborState::Reachable {
                    self.suspect(now_ms, known);
                }
            }
            (Heard::Reply { .. }, _) => {
                self.mac = Some(mac);
                self.probes = 0;
                self.enter(NeighborState::Reachable, now_ms);
                self.due_ms = now_ms.saturating_add(REACHABLE_MS);
            }
            (Heard::Announcement { .. }, Some(known)) if known == mac => {}
            (Heard::Announcement { .. }, _) => self.suspect(now_ms, mac),
        }
    }
}

/// The next hops that are wanted; lives on the control core.
#[derive(Debug)]
pub struct NeighborBook {
    cells: Arc<NeighborCells>,
    /// By [`NeighborId`]; `None`: free.
    entries: Vec<Option<Entry>>,
    by_address: HashMap<(LinkId, IpAddr), NeighborId>,
    free: Vec<NeighborId>,
    /// Who is due when; an item that is not at its entry's `queued_ms` is of the past.
    queue: BinaryHeap<Reverse<(u64, NeighborId)>>,
    /// What workers see of these changed since [`NeighborBook::take_changed`].
    changed: Vec<NeighborId>,
}

/// Most next hops that one tick moves on; the others wait for the next one.
const TICK_MOST: usize = 4096;

impl NeighborBook {
    /// A book for at most `capacity` next hops; 8 bytes each are taken at once.
    pub fn new(capacity: usize) -> Self {
        let cells = Arc::new(NeighborCells::new(capacity));
        Self {
            cells,
            entries: Vec::new(),
            by_address: HashMap::new(),
            free: Vec::new(),
            queue: BinaryHeap::new(),
            changed: Vec::new(),
        }
    }

    /// What workers read.
    pub fn cells(&self) -> Arc<NeighborCells> {
        Arc::clone(&self.cells)
    }

    /// The index of the next hop `ip` on `link`, the same as long as it is remembered. A new one is asked for at the
    /// next tick.
    ///
    /// Errors: [`Full`]; nothing changed.
    pub fn intern(&mut self, link: LinkId, ip: IpAddr) -> Result<NeighborId, Full> {
        if let Some(id) = self.by_address.get(&(link, ip)) {
            return Ok(*id);
        }
        let capacity = self.cells.capacity();
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.entries.len() < capacity => {
                self.entries.push(None);
                NeighborId((self.entries.len() - 1) as u32)
            }
            None => return Err(Full { link, ip, capacity }),
        };
        if let Some(slot) = self.entries.get_mut(id.0 as usize) {
            *slot = Some(Entry::new(link, ip));
        }
        self.by_address.insert((link, ip), id);
        self.queue.push(Reverse((0, id)));
        self.cells.set(id, Resolution::Pending);
        Ok(id)
    }

    /// Forgets a next hop; its index may be given out again.
    ///
    /// Call it once every worker has left the snapshots that use it.
    pub fn forget(&mut self, id: NeighborId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.by_address.remove(&(entry.link, entry.ip));
        self.cells.set(id, Resolution::Pending);
        self.free.push(id);
    }

    /// Link and address of a next hop.
    pub fn address(&self, id: NeighborId) -> Option<(LinkId, IpAddr)> {
        let entry = self.entries.get(id.0 as usize)?.as_ref()?;
        Some((entry.link, entry.ip))
    }

    /// Takes in what was heard on a link. `true`: what workers see of the next hop changed. A station that is no
    /// wanted next hop is ignored (RFC 4861 section 7.2.5).
    pub fn heard(&mut self, now_ms: u64, sighting: &Sighting) -> bool {
        let Some(id) = self.by_address.get(&(sighting.link, sighting.ip)) else { return false };
        let Some(Some(entry)) = self.entries.get_mut(id.0 as usize) else { return false };
        entry.heard(now_ms, sighting);
        if entry.due_ms < entry.queued_ms {
            entry.queued_ms = entry.due_ms;
            self.queue.push(Reverse((entry.due_ms, *id)));
        }
        let changed = self.cells.set(*id, entry.resolution());
        self.changed.extend(changed.then_some(*id));
        changed
    }

    /// Moves the next hops on whose time has come, some thousand at most, and appends the probes to send now to `out`.
    ///
    /// Cost: in proportion to those. At most one step and one probe per next hop, however late the call is.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Probe>) {
        for _ in 0..TICK_MOST {
            let Some(&Reverse((due_ms, id))) = self.queue.peek().filter(|first| first.0.0 <= now_ms) else {
                return;
            };
            self.queue.pop();
            let entry = self.entries.get_mut(id.0 as usize).and_then(Option::as_mut);
            let Some(entry) = entry.filter(|entry| entry.queued_ms == due_ms) else { continue };
            out.extend(entry.tick(now_ms));
            entry.queued_ms = entry.due_ms;
            self.queue.push(Reverse((entry.due_ms, id)));
            let changed = self.cells.set(id, entry.resolution());
            self.changed.extend(changed.then_some(id));
        }
    }

    /// The next hops of which workers see something else since the last call, each once, by index.
    pub fn take_changed(&mut self) -> Vec<NeighborId> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// One next hop.
    pub fn row(&self, id: NeighborId, now_ms: u64) -> Option<NeighborRow> {
        Some(row(id, self.entries.get(id.0 as usize)?.as_ref()?, now_ms))
    }

    /// Every next hop, by index.
    pub fn rows(&self, now_ms: u64) -> Vec<NeighborRow> {
        let entries = (0..).map(NeighborId).zip(&self.entries);
        entries.filter_map(|(id, entry)| Some(row(id, entry.as_ref()?, now_ms))).collect()
    }
}

fn row(id: NeighborId, entry: &Entry, now_ms: u64) -> NeighborRow {
    NeighborRow {
        id,
        link: entry.link,
        ip: entry.ip,
        mac: entry.mac,
        state: entry.state,
        since_ms: entry.since_ms.map_or(0, |since| now_ms.saturating_sub(since)),
        probes: entry.probes,
    }
}

#[cfg(test)]
mod tests;
