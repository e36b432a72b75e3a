//! What the machine's memory costs now: ns per random line. A run between two calibrations that differ by more than
//! 5 % was disturbed.

use std::hint::black_box;
use std::time::Instant;

/// A pointer chase through `bytes` of memory in 64-byte lines, ns per line.
fn chase(bytes: usize, steps: usize) -> f64 {
    let lines = bytes / 64;
    // Sattolo's shuffle: one cycle through all lines
    let mut next: Vec<[usize; 8]> = (0..lines).map(|line| [line; 8]).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..lines).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        next.swap(at, (seed >> 33) as usize % at);
    }
    let mut at = 0;
    let start = Instant::now();
    for _ in 0..steps {
        at = next[at][0];
    }
    black_box(at);
    start.elapsed().as_nanos() as f64 / steps as f64
}

/// Dependent loads in working sets of 16 KiB, 1 MiB and 64 MiB; ns per line, least of three.
pub fn lines() -> [f64; 3] {
    [16 << 10, 1 << 20, 64 << 20]
        .map(|bytes| (0..3).map(|_| chase(bytes, 1 << 20)).fold(f64::INFINITY, f64::min))
}

/// Largest relative difference of two calibrations.
pub fn drift(before: &[f64; 3], after: &[f64; 3]) -> f64 {
    before.iter().zip(after).map(|(b, a)| (a / b - 1.0).abs()).fold(0.0, f64::max)
}
