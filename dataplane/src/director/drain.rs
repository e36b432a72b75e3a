//! Servers that drain until a deadline.
//!
//! A deadline counts from the first poll that finds it configured. When it has passed, the snapshot shows the
//! destination as removed ([`DestEntry::removed`]), so that the packet path does with its connections what its service
//! says of servers that are gone; the registry keeps it as configured. Limit: late by the time between two polls.
//!
//! [`DestEntry::removed`]: crate::snapshot::DestEntry::removed

use std::collections::HashMap;
use std::time::Duration;

use lb_config::ServerRef;

use super::registry::{DestRecord, Registry};
use super::{Director, Notice};
use crate::ids::DestId;

/// Which destinations have a deadline.
#[derive(Debug, Default)]
pub struct Drains(HashMap<DestId, Drain>);

/// A destination's deadline.
#[derive(Clone, Copy, Debug)]
struct Drain {
    period: Duration,
    /// When it is, ms; `None`: no poll has seen it.
    ends_ms: Option<u64>,
    /// It has passed, and the snapshots say so.
    over: bool,
}

impl Drains {
    /// Makes it what the registry now holds of the destinations that it touched. A deadline that was there before
    /// counts on; where it has passed, the packet path goes on to see the destination as removed.
    pub fn follow(&mut self, registry: &mut Registry) {
        for dest in std::mem::take(&mut registry.touched) {
            let Some(period) = registry.record(dest).and_then(DestRecord::drain_deadline) else {
                self.0.remove(&dest);
                continue;
            };
            let new = Drain { period, ends_ms: None, over: false };
            let drain = self.0.entry(dest).or_insert(new);
            if drain.period != period {
                *drain = new;
            }
            if drain.over {
                registry.end(dest);
            }
        }
    }

    /// The destinations whose deadlines have passed.
    pub fn over(&self) -> impl Iterator<Item = DestId> {
        self.0.iter().filter(|(_, drain)| drain.over).map(|(dest, _)| *dest)
    }

    /// Time that `dest` has left, ms, 0 when it is over; `None`: it has no deadline.
    pub fn left_ms(&self, dest: DestId, now_ms: u64) -> Option<u64> {
        let drain = self.0.get(&dest)?;
        Some(match (drain.over, drain.ends_ms) {
            (true, _) => 0,
            (false, Some(ends_ms)) => ends_ms.saturating_sub(now_ms),
            (false, None) => millis(drain.period),
        })
    }

    /// Starts the clocks of new deadlines; those that have just passed, in the order of their indices.
    fn tick(&mut self, now_ms: u64) -> Vec<DestId> {
        let mut passed = Vec::new();
        for (dest, drain) in self.0.iter_mut().filter(|(_, drain)| !drain.over) {
            let ends_ms = *drain.ends_ms.get_or_insert(now_ms.saturating_add(millis(drain.period)));
            if ends_ms <= now_ms {
                drain.over = true;
                passed.push(*dest);
            }
        }
        passed.sort_unstable_by_key(|dest| dest.0);
        passed
    }
}

fn millis(period: Duration) -> u64 {
    u64::try_from(period.as_millis()).unwrap_or(u64::MAX)
}

impl Director {
    /// Ends the drains whose deadlines have passed.
    pub(super) fn end_drains(&mut self, now_ms: u64, notices: &mut Vec<Notice>) {
        let passed = self.drains.tick(now_ms);
        if passed.is_empty() {
            return;
        }
        passed.iter().for_each(|dest| self.registry.end(*dest));
        notices.extend(passed.into_iter().filter_map(|dest| self.drained(dest)));
        self.republish();
        self.expire_removed();
    }

    fn drained(&self, dest: DestId) -> Option<Notice> {
        let record = self.registry.record(dest)?;
        let service =
            self.model.services.iter().find(|service| Some(service.address) == record.key.owner.service())?;
        let tracked = |worker: &std::sync::Arc<crate::counters::WorkerCounters>| {
            u64::from(worker.dests[dest.0 as usize].total.get())
        };
        Some(Notice::DrainOver {
            service: service.name.clone(),
            server: ServerRef { address: record.key.address, port: record.key.port },
            connections: self.counters.iter().map(tracked).sum(),
            fate: self.model.policy.of(service).on_server_down,
        })
    }
}
