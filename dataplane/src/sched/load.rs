//! How busy a candidate is: connections summed over the workers.
//!
//! Bound with N workers, where connections only open: a worker that schedules sees every connection of its own and
//! all those of others but the ones being scheduled at that moment. Take the instant at which the last of N workers to
//! do so read the counts of a server before choosing it: what it saw was within the scheduler's rule, and after it
//! every worker can add at most the one connection that it has already decided on. So a server gets at most N
//! connections (with one worker: exactly the one) beyond the point where the rule would have it passed over.

use std::sync::atomic::{Ordering::SeqCst, fence};

use super::{Candidate, Question};

/// Connections of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// In an active state.
    pub active: u64,
    /// The others.
    pub inactive: u64,
}

impl Load {
    /// What IPVS's least-connection schedulers compare: an active connection weighs as much as 256 inactive ones
    /// (`ip_vs_dest_conn_overhead` of Linux 6.1; kernels from 2026 on count 257 to 1).
    pub fn overhead(self) -> u64 {
        (self.active << 8) + self.inactive
    }
}

impl Question<'_> {
    /// Makes the worker's own latest counts visible before it reads the others': the bound above rests on it. Once
    /// per new connection.
    pub(super) fn begin_reading(&self) {
        if self.workers.len() > 1 {
            fence(SeqCst);
        }
    }

    /// Connections of a candidate.
    pub fn load(&self, candidate: &Candidate) -> Load {
        let (mut active, mut total) = (0u64, 0u64);
        for worker in self.workers {
            let counters = &worker.dests[candidate.dest.0 as usize];
            active += u64::from(counters.active.get());
            total += u64::from(counters.total.get());
        }
        // a reader can see active one step ahead of total
        Load { active, inactive: total.saturating_sub(active) }
    }
}

/// Whether load `a` for weight `a_weight` is more than load `b` for weight `b_weight`; without a division.
pub(super) fn heavier(a: u64, a_weight: u32, b: u64, b_weight: u32) -> bool {
    // weights have 16 bits and counts at most 40, so products have room
    a * u64::from(b_weight) > b * u64::from(a_weight)
}
