//! Latency: the workers' samples in a histogram each.

use hdrhistogram::{CreationError, Histogram};
use lb_dataplane::director::Director;

use crate::api::LatencyRow;

/// Longest time told apart, ns: the largest sample of [`lb_dataplane::latency`].
const MAX_NS: u64 = u32::MAX as u64;

/// Significant decimal digits: an error of 0.1 % for about 200 KiB a worker.
const DIGITS: u8 = 3;

/// One histogram per worker, of all samples since the start.
pub(super) struct Histograms {
    by_worker: Vec<Histogram<u64>>,
    /// The sum of `by_worker`.
    all: Histogram<u64>,
}

impl Histograms {
    /// Empty histograms.
    ///
    /// Errors: no memory.
    pub(super) fn new(workers: usize) -> Result<Self, CreationError> {
        let empty = || Histogram::new_with_bounds(1, MAX_NS, DIGITS);
        Ok(Self { by_worker: (0..workers).map(|_| empty()).collect::<Result<_, _>>()?, all: empty()? })
    }

    /// Takes the samples that have come since the last time. The rings hold 4096; at one sample in 512 packets a
    /// worker at 10 million packets a second fills its ring in 200 ms.
    pub(super) fn collect(&mut self, director: &mut Director) {
        for (worker, histogram) in self.by_worker.iter_mut().enumerate() {
            director.drain_latency(worker, |ns| {
                histogram.saturating_record(u64::from(ns));
                self.all.saturating_record(u64::from(ns));
            });
        }
    }

    /// A row per worker, then one for all.
    pub(super) fn rows(&self) -> Vec<LatencyRow> {
        let by_worker = (0..).zip(&self.by_worker).map(|(worker, histogram)| row(Some(worker), histogram));
        by_worker.chain([row(None, &self.all)]).collect()
    }
}

fn row(worker: Option<u16>, histogram: &Histogram<u64>) -> LatencyRow {
    LatencyRow {
        worker,
        samples: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p90_ns: histogram.value_at_quantile(0.9),
        p99_ns: histogram.value_at_quantile(0.99),
        p999_ns: histogram.value_at_quantile(0.999),
        max_ns: histogram.max(),
    }
}
