//! The end of removed destinations, some at a time.
//!
//! A round goes through all of them by index, a bounded number of steps per poll, so that the control core is never held
//! by how many there are. What a round takes out shows in the next snapshot, whoever publishes it.

use super::{DestKey, Registry, Totals};
use crate::director::hops::Hops;
use crate::director::tables::{Places, Tables};
use crate::ids::DestId;
use crate::neighbor::NeighborBook;
use crate::snapshot::Way;

/// Steps of a poll: a removed destination that is looked at is one of them.
const STEPS: usize = 16_384;
/// Steps that taking one out is worth: about 1.5 us, where a look is 0.1 us. So a poll takes out a thousand, in 2 ms.
const TAKEN_OUT: usize = 16;

/// Most that are taken out between two publications: their indices are not free before the next.
const UNPUBLISHED: usize = 1 << 16;

/// How far a round through the removed destinations is.
#[derive(Debug, Default)]
pub struct Round {
    /// The next destination to be looked at; `None`: no round is under way.
    next: Option<DestId>,
    /// How many it has taken out since somebody published what it did.
    unpublished: usize,
}

impl Round {
    /// Begins a round, unless one is under way.
    pub fn begin(&mut self) {
        self.next.get_or_insert(DestId(0));
    }

    /// Whether what it has taken out is to be published now.
    ///
    /// The first change after a publication copies what is shared with the snapshot, and the others find it copied: so a
    /// long round publishes seldom.
    pub fn publication_due(&mut self) -> bool {
        let now = self.unpublished > 0 && self.next.is_none() || self.unpublished >= UNPUBLISHED;
        if now {
            self.unpublished = 0;
        }
        now
    }
}

/// What destinations let go of.
pub struct Shared<'a> {
    pub book: &'a mut NeighborBook,
    pub next_hops: &'a mut Hops,
    pub tables: &'a mut Tables,
}

impl Registry {
    /// Takes removed destinations without connections out of use, as far as a poll's steps go, and frees indices that
    /// every worker has let go.
    ///
    /// `seen`: oldest generation that a worker uses; `building`: generation of the snapshot about to be built;
    /// `connections` and templates of an index over all workers.
    ///
    /// Cost: [`STEPS`].
    pub fn retire(
        &mut self,
        seen: u64,
        building: u64,
        connections: impl Fn(DestId) -> u64,
        readings: impl Fn(DestId) -> Totals,
        shared: &mut Shared<'_>,
    ) {
        while let Some((_, dest)) = self.quarantine.front().copied().filter(|(since, _)| *since <= seen) {
            self.quarantine.pop_front();
            self.free.push(dest);
        }
        let Some(from) = self.round.next else { return };
        let is_done = |dest: &DestId| {
            let Some(record) = self.record(*dest) else { return false };
            let is_cursor = || {
                let service = record.key.owner.service().and_then(|key| self.services.get(&key));
                service.is_some_and(|service| service.memory.refers_to(*dest))
            };
            // a worker with an older snapshot may still schedule to it
            record.removed_at <= seen && connections(*dest) == 0 && !is_cursor()
        };
        let (mut steps, mut done, mut next) = (STEPS, Vec::new(), None);
        for dest in self.removed.range(from..).copied() {
            if steps == 0 {
                next = Some(dest);
                break;
            }
            let is_done = is_done(&dest);
            steps = steps.saturating_sub(if is_done { TAKEN_OUT } else { 1 });
            done.extend(is_done.then_some(dest));
        }
        self.round.next = next;
        self.round.unpublished += done.len();
        for dest in done {
            self.take_out(dest, building, readings(dest), shared);
        }
    }

    fn take_out(&mut self, dest: DestId, building: u64, now: Totals, shared: &mut Shared<'_>) {
        let Some(record) = self.records.get_mut(dest.0 as usize).and_then(Option::take) else { return };
        if let Some(service) = record.key.owner.service().and_then(|key| self.services.get_mut(&key)) {
            (0..now.len()).for_each(|n| service.past[n] += now[n] - record.base[n]);
        }
        if let Some(entry) = self.entry(dest).copied() {
            shared.tables.release(Places::of(&entry));
            if !matches!(entry.way, Way::Snat(_)) {
                shared.next_hops.release(shared.book, entry.neighbor, building);
            }
            self.entries.set(dest.0 as usize, None);
        }
        self.by_server.remove(&record.key);
        self.names.set(dest.0 as usize, None);
        self.count_nat(&record.key, false);
        self.no_longer_removed(&record.key, dest);
        self.quarantine.push_back((building, dest));
    }

    /// A removed destination came back, or is gone for good.
    pub(super) fn no_longer_removed(&mut self, key: &DestKey, dest: DestId) {
        self.removed.remove(&dest);
        let Some(service) = key.owner.service() else { return };
        if let Some(removed) = self.removed_of.get_mut(&service) {
            removed.remove(&dest);
            if removed.is_empty() {
                self.removed_of.remove(&service);
            }
        }
    }
}
