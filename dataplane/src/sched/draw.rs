//! Randomness of a worker, for schedulers that draw.

use std::cell::Cell;

/// A stream of random numbers; owned by one worker.
///
/// Source: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). Not for
/// secrets.
#[derive(Debug)]
pub struct DrawSource {
    state: Cell<u64>,
    seed: u64,
}

impl DrawSource {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: Cell::new(seed), seed }
    }

    /// A stream of its own for every caller.
    pub fn random() -> Self {
        Self::new(crate::conn::HashKey::random().0[0])
    }

    /// What it was made of: where a sequence begins that goes on by itself.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next 64 random bits.
    pub fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit` (at least 1); every one is as likely as the others to within 2^-64 * `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_the_limit_and_spread_evenly() {
        let draws = DrawSource::new(1);
        let mut counts = [0u32; 5];
        (0..10_000).for_each(|_| counts[draws.below(5) as usize] += 1);
        assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
        assert_eq!(draws.below(1), 0);
    }

    #[test]
    fn a_seed_is_a_sequence() {
        // first outputs of SplitMix64 for seed 1234567, as its reference implementation gives them
        let draws = DrawSource::new(1_234_567);
        assert_eq!([draws.next(), draws.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
