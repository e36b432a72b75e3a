//! The end of removed destinations.

use super::{DestKey, Registry, Totals};
use crate::director::hops::Hops;
use crate::director::tables::{Places, Tables};
use crate::ids::DestId;
use crate::neighbor::NeighborBook;
use crate::snapshot::Way;

/// What destinations let go of.
pub struct Shared<'a> {
    pub book: &'a mut NeighborBook,
    pub next_hops: &'a mut Hops,
    pub tables: &'a mut Tables,
}

impl Registry {
    /// Takes removed destinations without connections out of use and frees indices that every worker has let go.
    ///
    /// `seen`: oldest generation that a worker uses; `building`: generation of the snapshot about to be built;
    /// `connections` and templates of an index over all workers. Returns whether anything was taken out.
    ///
    /// Cost: in proportion to the removed destinations.
    pub fn retire(
        &mut self,
        seen: u64,
        building: u64,
        connections: impl Fn(DestId) -> u64,
        readings: impl Fn(DestId) -> Totals,
        shared: &mut Shared<'_>,
    ) -> bool {
        self.quarantine.retain(|(generation, dest)| {
            let held = *generation > seen;
            if !held {
                self.free.push(*dest);
            }
            held
        });
        let is_done = |dest: &DestId| {
            let Some(record) = self.record(*dest) else { return false };
            let is_cursor = || {
                let service = record.key.owner.service().and_then(|key| self.services.get(&key));
                service.is_some_and(|service| service.memory.refers_to(*dest))
            };
            // a worker with an older snapshot may still schedule to it
            record.removed_at <= seen && connections(*dest) == 0 && !is_cursor()
        };
        let done: Vec<DestId> = self.removed.iter().copied().filter(is_done).collect();
        for dest in &done {
            self.take_out(*dest, building, readings(*dest), shared);
        }
        !done.is_empty()
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
        self.count_nat(&record.key, false);
        self.no_longer_removed(&record.key, dest);
        self.quarantine.push((building, dest));
    }

    /// A removed destination came back, or is gone for good.
    pub(super) fn no_longer_removed(&mut self, key: &DestKey, dest: DestId) {
        self.removed.remove(&dest);
        let Some(service) = key.owner.service() else { return };
        if let Some(removed) = self.removed_of.get_mut(&service) {
            removed.retain(|other| *other != dest);
            if removed.is_empty() {
                self.removed_of.remove(&service);
            }
        }
    }
}
