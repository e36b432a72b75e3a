//! What the machine's memory costs now: ns per random line at several working sets. A cell (one comparison of a suite)
//! lies between two calibrations; if they differ by more than 5 % the machine was another one meanwhile, and it is void.
//!
//! What made calibrations differ on a machine that did nothing else, and what is done about it:
//! - other pages each time: one block of huge pages, made once, serves before and after, its small sets in one page;
//! - how much of the large set the last-level cache still held, which depends on what ran before: the large set is many
//!   times that cache, a piece visits lines of which none was seen for all of it, and pieces lie between the rounds of a cell,
//!   so that both halves come after the same work;
//! - other CPUs: readings are taken where suites work, on the last CPU;
//! - moments in which the host's other guests share cache and memory: many short pieces, of which the least counts, as of
//!   the cell's rounds the least counts.
//!
//! So much of it is robust that other work on the same CPU hardly shows in it; that is told by the kernel, which counts how
//! long a thread has waited for its CPU. A cell of which that is more than 5 % of the time is void too.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use lb_dataplane::conn::memory::{Lender, Pages, Region};
use lb_dpdk::TableMemory;
use serde::{Deserialize, Serialize};

use crate::rig::{cpus, on_cpu};

/// A cache line.
pub type Line = [u32; 16];

/// Working sets, bytes: well within the first and second cache, and in no cache. One as large as a cache would show which
/// pages it got, not what the machine costs (1 MiB here: 7.3 to 10 ns on a quiet machine).
const SETS: [usize; 3] = [16 << 10, 512 << 10, 256 << 20];
/// Those that caches hold.
const CACHED: usize = 2;
/// Loads of a piece: 0.1 to 0.4 ms, which interrupts seldom hit.
const STEPS: [usize; 3] = [1 << 15, 1 << 14, 1 << 11];
/// Loads before a piece of the large set: its pages' translations have to be there.
const WARM: usize = 256;
/// Pieces of each set at the ends of a cell, and between its rounds.
const AT_ENDS: usize = 8;
const BETWEEN: usize = 2;
/// A set is read on until its two least pieces lie so near each other, or for so many times as many pieces: where others
/// have the CPU, most are interrupted.
const AGREED: f64 = 0.01;
const PATIENCE: usize = 12;
/// Largest drift of a cell that counts.
pub const TOLERANCE: f64 = 0.05;

/// Largest share of a cell's time that its thread may wait for its CPU, which others have.
pub const WAITING: f64 = 0.05;

/// ns per random line of each set.
type Reading = [f64; SETS.len()];
const NOTHING: Reading = [f64::INFINITY; SETS.len()];

/// What readings are taken with: made once, and the same for the life of the process.
pub struct Gauge {
    memory: Region<Line>,
    /// Where the next piece of each set begins.
    at: [usize; SETS.len()],
}

impl Gauge {
    /// Lays the lines out and warms up.
    ///
    /// Errors: no memory.
    pub fn new() -> anyhow::Result<Self> {
        let lender: Arc<dyn Lender> = TableMemory::new();
        let lines = SETS.iter().sum::<usize>() / size_of::<Line>();
        let memory = Region::lent(lines, "calibration".to_owned(), true, &lender);
        let mut gauge = Self { memory: memory.context("no memory to calibrate with")?, at: [0; SETS.len()] };
        for set in 0..SETS.len() {
            let range = range(set);
            circle(&mut gauge.memory[range]);
        }
        // a processor that was idle is slower at first
        gauge.read(AT_ENDS);
        Ok(gauge)
    }

    /// What its memory consists of.
    pub fn pages(&self) -> Pages {
        self.memory.pages()
    }

    /// The least of so many pieces of each set, or of more where they do not agree.
    fn read(&mut self, pieces: usize) -> Reading {
        let last = cpus().ok().filter(|cpus| cpus.len() > 1).and_then(|cpus| cpus.last().copied());
        let mut least = NOTHING;
        let mut read = || {
            let mut second = NOTHING;
            for piece in 0..pieces * PATIENCE {
                for set in 0..SETS.len() {
                    if piece >= pieces && second[set] <= least[set] * (1.0 + AGREED) {
                        continue;
                    }
                    let ns = self.piece(set);
                    second[set] = second[set].min(ns.max(least[set]));
                    least[set] = least[set].min(ns);
                }
            }
            Ok(())
        };
        // where it may not choose, it reads where it is
        let done = match last {
            Some(cpu) => on_cpu(cpu, &mut read),
            None => read(),
        };
        if done.is_err() && least == NOTHING {
            (0..SETS.len()).for_each(|set| least[set] = self.piece(set));
        }
        least
    }

    /// ns per line of one piece.
    fn piece(&mut self, set: usize) -> f64 {
        let lines = &self.memory[range(set)];
        let warm = if set < CACHED { lines.len() } else { WARM };
        let mut at = self.at[set];
        for _ in 0..warm {
            at = lines[at][0] as usize;
        }
        let start = Instant::now();
        for _ in 0..STEPS[set] {
            at = lines[at][0] as usize;
        }
        self.at[set] = black_box(at);
        start.elapsed().as_nanos() as f64 / STEPS[set] as f64
    }
}

/// The lines of a set.
fn range(set: usize) -> std::ops::Range<usize> {
    let lines = |sets: &[usize]| sets.iter().sum::<usize>() / size_of::<Line>();
    lines(&SETS[..set])..lines(&SETS[..=set])
}

/// The readings of one cell: of its first half, and of its second.
pub struct Watch {
    halves: [Reading; 2],
    begun: Instant,
    /// How long this thread had waited for its CPU by then, ns.
    waited_ns: u64,
}

/// How long this thread has waited for its CPU so far, ns; 0 where the kernel does not say. Source: Linux,
/// Documentation/scheduler/sched-stats.rst.
fn waited_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

impl Watch {
    /// Begins, before the cell's work.
    pub fn begin(gauge: &mut Gauge) -> Self {
        let (begun, waited_ns) = (Instant::now(), waited_ns());
        Self { halves: [gauge.read(AT_ENDS), NOTHING], begun, waited_ns }
    }

    /// Reads between two pieces of work; `part` of it is done, 0 to 1.
    pub fn glance(&mut self, gauge: &mut Gauge, part: f64) {
        self.take(usize::from(part >= 0.5), gauge.read(BETWEEN));
    }

    /// Ends, after the work.
    pub fn end(mut self, gauge: &mut Gauge) -> Drift {
        self.take(1, gauge.read(AT_ENDS));
        let [before, after] = self.halves.map(Vec::from);
        let waited =
            waited_ns().saturating_sub(self.waited_ns) as f64 / self.begun.elapsed().as_nanos() as f64;
        Drift { bytes: SETS.to_vec(), before, after, waited }
    }

    fn take(&mut self, half: usize, reading: Reading) {
        for (least, read) in self.halves[half].iter_mut().zip(reading) {
            *least = least.min(read);
        }
    }
}

/// Two calibrations around work, or over its first half and its second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Working sets, bytes.
    pub bytes: Vec<usize>,
    /// ns per dependent random line of each, before.
    pub before: Vec<f64>,
    /// The same, after.
    pub after: Vec<f64>,
    /// Share of the time that the thread waited for its CPU.
    #[serde(default)]
    pub waited: f64,
}

impl Drift {
    /// The largest relative difference.
    pub fn largest(&self) -> f64 {
        self.largest_of(self.before.len())
    }

    /// The largest of the sets that caches hold: the core's clock and its caches.
    pub fn of_caches(&self) -> f64 {
        self.largest_of(CACHED)
    }

    /// Whether the work between does not count.
    pub fn is_void(&self) -> bool {
        self.largest() > TOLERANCE || self.waited > WAITING
    }

    /// How bad it is, to choose the best of some.
    pub fn disturbance(&self) -> f64 {
        self.largest().max(self.waited)
    }

    fn largest_of(&self, sets: usize) -> f64 {
        let both = self.before.iter().zip(&self.after).take(sets);
        both.map(|(before, after)| (after / before - 1.0).abs()).fold(0.0, f64::max)
    }
}

/// Makes every line lead to another, in one circle through all (Sattolo's shuffle).
pub fn circle(lines: &mut [Line]) {
    for (at, line) in lines.iter_mut().enumerate() {
        *line = [at as u32; 16];
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..lines.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = (((seed >> 32) * at as u64) >> 32) as usize;
        let (a, b) = (lines[at][0], lines[other][0]);
        (lines[at][0], lines[other][0]) = (b, a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circle_leads_through_every_line() {
        let mut lines = [[0; 16]; 100];
        circle(&mut lines);
        let mut at = 0;
        for step in 1..=100 {
            at = lines[at as usize][0];
            assert_eq!(at == 0, step == 100);
        }
    }

    #[test]
    fn a_cell_is_void_when_memory_moved_and_caches_are_told_apart() {
        let drift = |after: [f64; 3]| Drift {
            bytes: SETS.to_vec(),
            before: vec![100.0; 3],
            after: after.to_vec(),
            waited: 0.04,
        };
        let alone = drift([100.0; 3]);
        assert!(!alone.is_void() && Drift { waited: 0.06, ..alone }.is_void());
        assert!(drift([100.0, 100.0, 106.0]).is_void() && drift([94.0, 100.0, 100.0]).is_void());
        assert!(!drift([104.0, 96.0, 104.0]).is_void());
        assert!(drift([100.0, 100.0, 120.0]).of_caches() < TOLERANCE);
        assert!(drift([100.0, 110.0, 100.0]).of_caches() > TOLERANCE);
    }

    #[test]
    fn halves_are_compared_by_the_least_of_each() {
        let mut watch = Watch { halves: [[10.0; 3], NOTHING], begun: Instant::now(), waited_ns: 0 };
        // a moment's disturbance is in neither half's least; a change that lasts is
        watch.take(0, [50.0; 3]);
        watch.take(1, [50.0; 3]);
        watch.take(1, [11.0, 10.0, 10.0]);
        assert_eq!(watch.halves, [[10.0; 3], [11.0, 10.0, 10.0]]);
    }

    #[test]
    fn sets_lie_one_behind_the_other_and_larger_ones_cost_more() {
        assert_eq!(range(0).len() * 64, SETS[0]);
        assert_eq!((range(1).start, range(2).start), (range(0).end, range(1).end));
        let mut gauge = Gauge::new().expect("memory");
        let drift = Watch::begin(&mut gauge).end(&mut gauge);
        assert!(drift.before.iter().chain(&drift.after).all(|ns| ns.is_finite() && *ns > 0.0), "{drift:?}");
        assert!(drift.before[2] > 3.0 * drift.before[0], "{drift:?}");
    }

    #[test]
    fn work_beside_others_on_the_same_cpu_is_void() {
        let cpu = *cpus().expect("CPUs").last().expect("one");
        let drift = on_cpu(cpu, || {
            let mut gauge = Gauge::new()?;
            // threads begin where this one may run
            let stop = std::sync::atomic::AtomicBool::new(false);
            Ok(std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
                let watch = Watch::begin(&mut gauge);
                let start = Instant::now();
                while start.elapsed().as_millis() < 200 {
                    black_box(gauge.piece(0));
                }
                let drift = watch.end(&mut gauge);
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                drift
            }))
        });
        let drift = drift.expect("a measurement");
        assert!(drift.waited > 0.3 && drift.is_void(), "{drift:?}");
    }
}
