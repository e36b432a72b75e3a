//! Rates per second, and counters that can be set back to 0, as IPVS's estimator has them.
//!
//! Counters are read every [`TICK_MS`]; what is shown is what was read last. A rate is an exponentially weighted mean:
//! each tick moves it by a quarter towards the rate since the last one. Setting back moves the zero point to the last
//! reading, so nothing that is counted later is lost.
//!
//! Source: ipvs.md section 1.7; the recording `rate.json`.

use std::collections::HashMap;
use std::hash::Hash;

/// Time between two readings, ms.
pub const TICK_MS: u64 = 2_000;

/// Binary places of a rate of connections or packets while it is kept. One tick is two seconds, so a difference of
/// one counts for half of `1 << COUNT_PLACES`.
const COUNT_PLACES: u32 = 10;
/// The same for bytes, of which there are many more.
const BYTE_PLACES: u32 = 5;

/// Connections, packets in, packets out, bytes in, bytes out.
pub type Counters = [u64; 5];

/// Places of each counter's rate.
const PLACES: [u32; 5] = [COUNT_PLACES, COUNT_PLACES, COUNT_PLACES, BYTE_PLACES, BYTE_PLACES];

/// One object's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimator {
    /// As read at the last tick.
    read: Counters,
    /// What counts as 0.
    zero: Counters,
    /// Means, with [`PLACES`] binary places.
    means: Counters,
}

impl Estimator {
    /// Takes a reading, [`TICK_MS`] after the last one. Counters that went back are those of a new object.
    pub fn tick(&mut self, now: Counters) {
        *self = self.of_object(now);
        for (at, places) in PLACES.into_iter().enumerate() {
            let rate = (now[at] - self.read[at]) << (places - 1);
            let mean = self.means[at];
            // A quarter of the way, rounded down on either side, as an arithmetic shift does.
            self.means[at] =
                if rate >= mean { mean + (rate - mean) / 4 } else { mean - (mean - rate).div_ceil(4) };
        }
        self.read = now;
    }

    /// This estimator, or a new one when counters that have reached `now` cannot be those that it read: the object was
    /// made anew since.
    pub fn of_object(self, now: Counters) -> Self {
        let went_back = now.iter().zip(self.read).any(|(now, read)| *now < read);
        if went_back { Self::default() } else { self }
    }

    /// Counts from 0 from the last tick on.
    pub fn set_back(&mut self) {
        self.zero = self.read;
        self.means = Counters::default();
    }

    /// Counted until the last tick.
    pub fn counters(&self) -> Counters {
        std::array::from_fn(|at| self.read[at] - self.zero[at])
    }

    /// Per second. Counts are rounded up from a half, bytes likewise.
    pub fn rates(&self) -> Counters {
        std::array::from_fn(|at| {
            let places = PLACES[at];
            (self.means[at] + (1 << (places - 1)) - 1) >> places
        })
    }
}

/// The estimators of all objects of a kind.
#[derive(Clone, Debug)]
pub struct Rates<K> {
    /// With the round in which each was read last.
    estimators: HashMap<K, (u64, Estimator)>,
    round: u64,
    /// Objects read in this round.
    read: usize,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { estimators: HashMap::new(), round: 0, read: 0 }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// Reads an object's counters. Every object is read once between two ends of a round, which are [`TICK_MS`] apart.
    pub fn read(&mut self, key: K, counters: Counters) {
        let (round, estimator) = self.estimators.entry(key).or_default();
        self.read += usize::from(std::mem::replace(round, self.round + 1) != self.round + 1);
        estimator.tick(counters);
    }

    /// Everything there is was read: what was not is no longer there, and forgotten.
    ///
    /// Cost: a pass over all objects if one is gone.
    pub fn end_round(&mut self) {
        self.round += 1;
        if std::mem::take(&mut self.read) < self.estimators.len() {
            self.estimators.retain(|_, (round, _)| *round == self.round);
        }
    }

    /// The estimator of one object; one that has counted nothing until its first tick.
    pub fn get(&self, key: &K) -> Estimator {
        self.estimators.get(key).map_or_else(Estimator::default, |(_, estimator)| *estimator)
    }

    /// Sets one object's counters back.
    pub fn set_back(&mut self, key: &K) {
        if let Some((_, estimator)) = self.estimators.get_mut(key) {
            estimator.set_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Recording {
        samples: Vec<Sample>,
    }

    #[derive(Deserialize)]
    struct Sample {
        stats: HashMap<String, Counters>,
        rate: HashMap<String, Counters>,
    }

    fn tick<K: Eq + Hash>(rates: &mut Rates<K>, now: impl IntoIterator<Item = (K, Counters)>) {
        now.into_iter().for_each(|(key, counters)| rates.read(key, counters));
        rates.end_round();
    }

    #[test]
    fn rates_are_those_that_the_kernel_showed() {
        let path = format!("{}/../tests/golden/rate.json", env!("CARGO_MANIFEST_DIR"));
        let recording: Recording = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut rates, mut ticks) = (Rates::default(), 0);
        let mut last: Option<Sample> = None;
        for sample in recording.samples {
            // A tick shows as a change; between two samples there is one at most.
            if last.as_ref().is_none_or(|last| (&last.stats, &last.rate) != (&sample.stats, &sample.rate)) {
                tick(&mut rates, sample.stats.clone());
                ticks += 1;
            }
            for (key, want) in &sample.rate {
                let estimator = rates.get(key);
                assert_eq!(
                    (estimator.counters(), estimator.rates()),
                    (sample.stats[key], *want),
                    "{key} {ticks}"
                );
            }
            last = Some(sample);
        }
        assert!(ticks > 15, "{ticks}");
    }

    #[test]
    fn setting_back_moves_the_zero_point_to_the_last_tick() {
        let mut rates: Rates<u8> = Rates::default();
        tick(&mut rates, [(1, [10, 10, 0, 400, 0]), (2, [4, 4, 4, 4, 4])]);
        assert_eq!(rates.get(&1).counters(), [10, 10, 0, 400, 0]);
        assert_ne!(rates.get(&1).rates(), [0; 5]);
        rates.set_back(&1);
        assert_eq!((rates.get(&1).counters(), rates.get(&1).rates()), ([0; 5], [0; 5]));
        assert_eq!(rates.get(&2).counters(), [4; 5]);
        tick(&mut rates, [(1, [13, 11, 0, 440, 0])]);
        assert_eq!(rates.get(&1).counters(), [3, 1, 0, 40, 0]);
        // Gone and back: a new object.
        assert_eq!(rates.get(&2).counters(), [0; 5]);
        assert_eq!(rates.get(&1).of_object([13, 11, 0, 440, 1]), rates.get(&1));
        assert_eq!(rates.get(&1).of_object([1, 0, 0, 0, 0]), Estimator::default());
        tick(&mut rates, [(1, [1, 0, 0, 0, 0])]);
        assert_eq!(rates.get(&1).counters(), [1, 0, 0, 0, 0]);
    }
}
