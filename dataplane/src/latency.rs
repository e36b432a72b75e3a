//! Samples of the time that packets spend in the director.
//!
//! A worker leaves every sample in a ring that only it writes; the control core takes them out and folds them into
//! histograms. Nobody waits: samples that are not fetched in time are overwritten.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crossbeam::utils::CachePadded;

/// Samples that a ring keeps.
pub const CAPACITY: usize = 4096;

/// Durations in nanoseconds. Worker: wo, control: ro.
#[derive(Debug)]
pub struct SampleRing {
    samples: Box<[Line]>,
    written: CachePadded<AtomicU64>,
}

/// As many samples as fill a cache line, so that the ring shares none with what somebody else writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU32; LINE]);

/// Samples in a line.
const LINE: usize = 16;

impl Default for SampleRing {
    fn default() -> Self {
        Self {
            samples: (0..CAPACITY / LINE).map(|_| Line::default()).collect(),
            written: CachePadded::default(),
        }
    }
}

impl SampleRing {
    fn sample(&self, at: u64) -> &AtomicU32 {
        let at = at as usize % CAPACITY;
        &self.samples[at / LINE].0[at % LINE]
    }

    /// Leaves a sample; 4.29 s and more count as that. Only the owning worker may call it.
    pub fn push(&self, ns: u64) {
        let written = self.written.load(Relaxed);
        let sample = u32::try_from(ns).unwrap_or(u32::MAX);
        self.sample(written).store(sample, Relaxed);
        self.written.store(written + 1, Release);
    }

    /// Shows the samples since `read` that are still there and moves `read` on. Only the control core may call it.
    pub fn drain(&self, read: &mut u64, mut see: impl FnMut(u32)) {
        let written = self.written.load(Acquire);
        for at in (*read).max(written.saturating_sub(CAPACITY as u64))..written {
            see(self.sample(at).load(Relaxed));
        }
        *read = written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_samples_come_out_once() {
        let ring = SampleRing::default();
        let mut read = 0;
        let mut seen = Vec::new();
        ring.push(7);
        ring.push(u64::MAX);
        ring.drain(&mut read, |ns| seen.push(ns));
        ring.drain(&mut read, |ns| seen.push(ns));
        assert_eq!(seen, [7, u32::MAX]);
        for ns in 0..2 * CAPACITY as u64 {
            ring.push(ns);
        }
        seen.clear();
        ring.drain(&mut read, |ns| seen.push(ns));
        assert_eq!((seen.len(), seen[0] as usize), (CAPACITY, CAPACITY));
    }
}
