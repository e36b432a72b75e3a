//! What the machine's memory costs now: ns per random line. A run between two calibrations that differ by more than
//! 5 % was disturbed, and is void.

use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Working sets, bytes: well within the first and second cache, and in no cache. One as large as a cache would show which
/// pages it got, not what the machine costs (1 MiB here: 7.3 to 10 ns on a quiet machine).
const SETS: [usize; 3] = [16 << 10, 512 << 10, 64 << 20];
/// Loads of one repetition.
const STEPS: usize = 1 << 19;
/// Repetitions.
const REPETITIONS: usize = 15;
/// Largest drift of a run that counts.
pub const TOLERANCE: f64 = 0.05;

/// Memory to measure with: the same pages before and after a run.
pub struct Calibration {
    sets: Vec<Vec<[u32; 16]>>,
    before: Vec<f64>,
}

/// Two calibrations around a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drift {
    /// Working sets, bytes.
    pub bytes: Vec<usize>,
    /// ns per dependent random line of each, before.
    pub before: Vec<f64>,
    /// The same, after.
    pub after: Vec<f64>,
}

impl Calibration {
    /// Measures before a run.
    pub fn before() -> Self {
        let sets: Vec<_> = SETS.iter().map(|bytes| circle(bytes / 64)).collect();
        // the first round is to warm up: a processor that was idle is slower at first
        sets.iter().for_each(|set| {
            black_box(chase(set));
        });
        let before = sets.iter().map(|set| chase(set)).collect();
        Self { sets, before }
    }

    /// Measures again.
    pub fn after(self) -> Drift {
        let after = self.sets.iter().map(|set| chase(set)).collect();
        Drift { bytes: SETS.to_vec(), before: self.before, after }
    }
}

impl Drift {
    /// The largest relative difference.
    pub fn largest(&self) -> f64 {
        self.before
            .iter()
            .zip(&self.after)
            .map(|(before, after)| (after / before - 1.0).abs())
            .fold(0.0, f64::max)
    }

    /// Whether the run between them does not count.
    pub fn is_void(&self) -> bool {
        self.largest() > TOLERANCE
    }
}

/// Lines that lead one to the other through all of them (Sattolo's shuffle: one cycle).
fn circle(lines: usize) -> Vec<[u32; 16]> {
    let mut next: Vec<[u32; 16]> = (0..lines).map(|line| [line as u32; 16]).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..lines).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        next.swap(at, (seed >> 33) as usize % at);
    }
    next
}

/// ns per line of a pointer chase, least of [`REPETITIONS`].
fn chase(next: &[[u32; 16]]) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let mut at = 0;
        let start = Instant::now();
        for _ in 0..STEPS {
            at = next[at as usize][0];
        }
        black_box(at);
        least = least.min(start.elapsed().as_nanos() as f64 / STEPS as f64);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circle_leads_through_every_line() {
        let next = circle(100);
        let mut at = 0;
        for step in 1..=100 {
            at = next[at as usize][0];
            assert_eq!(at == 0, step == 100);
        }
    }

    #[test]
    fn a_run_is_void_when_memory_moved() {
        let drift = |after| Drift { bytes: vec![1], before: vec![100.0], after: vec![after] };
        assert!(drift(106.0).is_void() && drift(94.0).is_void() && !drift(104.0).is_void());
    }
}
