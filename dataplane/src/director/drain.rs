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

use super::registry::Registry;
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
    /// Makes it what the registry now holds. A deadline that was there before counts on.
    pub fn follow(&mut self, registry: &Registry) {
        let former = std::mem::take(&mut self.0);
        for (at, record) in registry.dests.iter().enumerate() {
            let Some(period) = record.as_ref().and_then(|record| record.drain_deadline()) else { continue };
            let dest = DestId(at as u32);
            let new = Drain { period, ends_ms: None, over: false };
            let same = former.get(&dest).filter(|drain| drain.period == period);
            self.0.insert(dest, same.copied().unwrap_or(new));
        }
    }

    /// Whether the deadline of `dest` has passed.
    pub fn is_over(&self, dest: DestId) -> bool {
        self.0.get(&dest).is_some_and(|drain| drain.over)
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
        notices.extend(passed.into_iter().filter_map(|dest| self.drained(dest)));
        self.republish();
        self.expire_removed();
    }

    fn drained(&self, dest: DestId) -> Option<Notice> {
        let record = self.registry.dests.get(dest.0 as usize)?.as_ref()?;
        let service =
            self.model.services.iter().find(|service| Some(service.address) == record.key.owner.service())?;
        let tracked = |worker: &std::sync::Arc<crate::counters::WorkerCounters>| {
            u64::from(worker.dests[dest.0 as usize].total.get())
        };
        Some(Notice::DrainOver {
            service: service.name.clone(),
            server: ServerRef { address: record.key.address, port: record.key.port },
            connections: self.counters.iter().map(tracked).sum(),
            fate: record.policy().on_server_down,
        })
    }
}
