//! Which destinations are full: thresholds with hysteresis.
//!
//! Source: IPVS, `ip_vs_bind_dest` and `ip_vs_unbind_dest` (`ip_vs_conn.c`), `__ip_vs_update_dest` (`ip_vs_ctl.c`):
//! the flag goes up when a new connection makes the total reach the upper threshold, and down when the end of one
//! leaves the total below the lower threshold, or without one below three quarters of the upper.
//!
//! The cells outlive snapshots and configurations. They are read at scheduling and written only when a flag changes,
//! so a line stays shared between the workers' caches. Invariant with several workers: whoever changes a flag looks at
//! the counts again afterwards, so a flag never stays up at a server whose last connection ended meanwhile. The upper
//! threshold may be passed by one connection for each other worker that schedules at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};

use zerocopy::FromZeros;

use crate::counters::WorkerCounters;
use crate::ids::DestId;

/// Thresholds and flag of a destination. Thresholds: control: wo, workers: ro; flag: both rw.
#[derive(Debug, Default, FromZeros)]
struct Cell {
    upper: AtomicU32,
    lower: AtomicU32,
    full: AtomicBool,
}

/// Every destination's, by index.
#[derive(Debug, Default)]
pub struct Overload(Box<[Cell]>);

impl Overload {
    /// For destinations 0 to `max_dests - 1`, none with a threshold.
    pub fn new(max_dests: usize) -> Self {
        Self(crate::counters::zeroed(max_dests))
    }

    /// Whether a destination is full.
    #[inline]
    pub fn is_set(&self, dest: DestId) -> bool {
        self.0.get(dest.0 as usize).is_some_and(|cell| cell.full.load(Relaxed))
    }

    /// Control core: an index begins a new life.
    pub fn renew(&self, dest: DestId, upper: u32, lower: u32) {
        let Some(cell) = self.0.get(dest.0 as usize) else { return };
        cell.full.store(false, SeqCst);
        cell.upper.store(upper, Relaxed);
        cell.lower.store(lower, Relaxed);
    }

    /// Control core: a destination was configured again. As in IPVS a higher upper threshold, or none, takes the flag
    /// down at once, and a lower one puts it up only when the next connection comes.
    pub fn configure(&self, dest: DestId, upper: u32, lower: u32) {
        let Some(cell) = self.0.get(dest.0 as usize) else { return };
        if upper == 0 || upper > cell.upper.load(Relaxed) {
            cell.full.store(false, SeqCst);
        }
        cell.upper.store(upper, Relaxed);
        cell.lower.store(lower, Relaxed);
    }

    /// Worker: a destination got one more connection, already counted.
    #[inline]
    pub fn bound(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        let Some(cell) = self.0.get(dest.0 as usize) else { return };
        if cell.upper.load(Relaxed) != 0 {
            cell.settle(dest, workers);
        }
    }

    /// Worker: a destination has one connection less, already counted.
    #[inline]
    pub fn unbound(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        let Some(cell) = self.0.get(dest.0 as usize) else { return };
        if cell.full.load(Relaxed) {
            cell.settle_down(dest, workers);
        }
    }
}

impl Cell {
    fn reached(&self, total: u64) -> bool {
        let upper = u64::from(self.upper.load(Relaxed));
        upper != 0 && total >= upper
    }

    fn relieved(&self, total: u64) -> bool {
        let (upper, lower) = (u64::from(self.upper.load(Relaxed)), u64::from(self.lower.load(Relaxed)));
        match (lower, upper) {
            (0, 0) => true,
            (0, upper) => total * 4 < upper * 3,
            (lower, _) => total < lower,
        }
    }

    #[cold]
    fn settle(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        if !self.full.load(Relaxed) && self.reached(total(dest, workers)) {
            self.full.store(true, SeqCst);
            // those that ended before the flag was up did not see a reason to take it down
            if self.relieved(total(dest, workers)) {
                self.full.store(false, SeqCst);
            }
        }
    }

    #[cold]
    fn settle_down(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        if self.relieved(total(dest, workers)) {
            self.full.store(false, SeqCst);
            if self.reached(total(dest, workers)) {
                self.full.store(true, SeqCst);
            }
        }
    }
}

/// Connections of a destination over all workers, the caller's latest change included for whoever looks after it.
fn total(dest: DestId, workers: &[Arc<WorkerCounters>]) -> u64 {
    fence(SeqCst);
    workers.iter().map(|worker| u64::from(worker.dests[dest.0 as usize].total.get())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab {
        overload: Overload,
        workers: Vec<Arc<WorkerCounters>>,
    }

    const DEST: DestId = DestId(0);

    impl Lab {
        fn new(upper: u32, lower: u32) -> Self {
            let overload = Overload::new(1);
            overload.renew(DEST, upper, lower);
            Self { overload, workers: (0..2).map(|_| Arc::new(WorkerCounters::new(0, 1))).collect() }
        }

        fn open(&self, worker: usize) -> bool {
            self.workers[worker].dests[0].total.up();
            self.overload.bound(DEST, &self.workers);
            self.overload.is_set(DEST)
        }

        fn close(&self, worker: usize) -> bool {
            self.workers[worker].dests[0].total.down();
            self.overload.unbound(DEST, &self.workers);
            self.overload.is_set(DEST)
        }
    }

    #[test]
    fn the_flag_goes_up_at_the_upper_and_down_below_the_lower_threshold() {
        let lab = Lab::new(4, 2);
        assert_eq!([0, 1, 0, 1].map(|worker| lab.open(worker)), [false, false, false, true]);
        assert_eq!([0, 1, 0].map(|worker| lab.close(worker)), [true, true, false]);
        assert_eq!([0, 0].map(|worker| lab.open(worker)), [false, false], "one and two are below four");
    }

    #[test]
    fn without_a_lower_threshold_three_quarters_of_the_upper_count() {
        let lab = Lab::new(6, 0);
        let ups: Vec<bool> = (0..6).map(|_| lab.open(0)).collect();
        assert_eq!(ups, [false, false, false, false, false, true]);
        assert!(lab.close(0), "5 * 4 is not below 6 * 3");
        assert!(!lab.close(0), "4 * 4 is");
    }

    #[test]
    fn a_higher_threshold_or_none_relieves_at_once_and_a_lower_one_waits() {
        for (upper, full) in [(2, true), (1, true), (3, false), (0, false)] {
            let lab = Lab::new(2, 1);
            lab.open(0);
            assert!(lab.open(0));
            lab.overload.configure(DEST, upper, 1);
            assert_eq!(lab.overload.is_set(DEST), full, "upper threshold {upper}");
        }
        let lab = Lab::new(5, 1);
        lab.open(0);
        lab.open(0);
        lab.overload.configure(DEST, 2, 1);
        assert!(!lab.overload.is_set(DEST));
        assert!(lab.open(0));
    }

    #[test]
    fn the_flag_is_right_when_many_workers_have_come_to_rest() {
        let rounds = if cfg!(miri) { 10 } else { 20_000 };
        let lab = Lab::new(2, 0);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let lab = &lab;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        lab.open(worker);
                        lab.close(worker);
                    }
                });
            }
        });
        assert!(!lab.overload.is_set(DEST), "no connection is left");
    }
}
