//! Filling Maglev's table.
//!
//! The outcome is that of the paper's pseudocode 1, slot for slot: in turn every server takes the first slot of its
//! permutation `offset + n * skip` (modulo the prime size) that is still free. That takes about `size * ln(size)`
//! looks at slots, most of them at the end, where hardly any slot is free. What is done about it:
//!
//! - permutations are walked by additions, and looked at in a map of one bit per slot, which stays in the L1 cache;
//! - several slots are looked at together without a branch, as nobody can predict which one is free;
//! - the last `TAIL` slots are found from the other end: the place of a slot in a permutation is
//!   `(slot - offset) / skip` modulo the size, and of the slots that are free the one with the lowest place is the
//!   next. That is work for `TAIL` slots rather than for `size / free` of them;
//! - where most servers sit most rounds out (one of a high weight among many low ones) a heap says whose turn is next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Free slots from which on places are computed rather than looked for.
const TAIL: usize = 400;

/// Slots that are looked at together: while a third is free, and after that.
const FEW: usize = 4;
const MANY: usize = 8;

/// Most slots of a table: places are compared with 43 bits, which holds below 2^20 (see [`Places`]).
const MOST: u64 = 1 << 20;
/// Words of a map with a bit for each slot of the largest table: a size that the compiler knows, so that it need not
/// check bounds.
const WORDS: usize = MOST as usize / 64;

/// A server's part in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// First slot of its permutation, below the size.
    pub offset: u32,
    /// Distance from one slot to the next, 1 to size - 1.
    pub skip: u32,
    /// Its share of the turns; not 0.
    pub weight: u32,
    /// What its slots hold; not `u32::MAX`.
    pub value: u32,
}

/// Division by a number that is not known to the compiler, by multiplication.
#[derive(Clone, Copy, Debug)]
pub struct Modulus {
    by: u64,
    /// 2^64 / `by`, rounded down.
    inverse: u64,
}

impl Modulus {
    /// The remainders by `by`; of 0 everything is 0.
    pub fn new(by: u64) -> Self {
        Self { by, inverse: u64::MAX.checked_div(by).unwrap_or(0) }
    }

    /// `value` modulo the number.
    #[inline]
    pub fn reduce(self, value: u64) -> u64 {
        let quotient = ((u128::from(value) * u128::from(self.inverse)) >> 64) as u64;
        let mut rest = value.wrapping_sub(quotient.wrapping_mul(self.by));
        // the quotient is too small by two at most
        for _ in 0..2 {
            rest = if rest >= self.by { rest.wrapping_sub(self.by) } else { rest };
        }
        rest
    }

    fn times(self, a: u64, b: u64) -> u64 {
        self.reduce(a * b)
    }

    /// The inverses of numbers that have one.
    ///
    /// Source: Montgomery, Speeding the Pollard and elliptic curve methods of factorization (1987), section 10.3.1.
    fn inverses(self, of: impl DoubleEndedIterator<Item = u64> + Clone) -> Vec<u64> {
        let mut product = 1;
        let before = of.clone().map(|value| {
            let next = self.times(product, value);
            std::mem::replace(&mut product, next)
        });
        let mut inverses: Vec<u64> = before.collect();
        // Fermat: a^(p - 2)
        let (mut rest, mut base, mut power) = (1, product, self.by.saturating_sub(2));
        while power > 0 {
            rest = if power & 1 == 1 { self.times(rest, base) } else { rest };
            base = self.times(base, base);
            power >>= 1;
        }
        for (inverse, value) in inverses.iter_mut().rev().zip(of.rev()) {
            *inverse = self.times(*inverse, rest);
            rest = self.times(rest, value);
        }
        inverses
    }
}

/// What each slot holds; empty without turns. `size`: a prime below 2^20.
///
/// Cost: `size * ln(size / TAIL)` looks and `TAIL^2 / 2` multiplications.
pub fn fill(turns: &[Turn], size: Modulus) -> Vec<u32> {
    let Some(most) = turns.iter().map(|turn| u64::from(turn.weight)).max() else { return Vec::new() };
    if size.by < 2 || size.by >= MOST {
        return Vec::new();
    }
    let mut table = Filling::new(turns, size);
    let sum: u64 = turns.iter().map(|turn| u64::from(turn.weight)).sum();
    if sum == most * turns.len() as u64 {
        while table.left > 0 {
            for at in 0..turns.len() {
                if !table.take(at) {
                    break;
                }
            }
        }
    } else if sum / most * SPARSE >= turns.len() as u64 {
        let mut credits = vec![0; turns.len()];
        while table.left > 0 {
            for (at, credit) in credits.iter_mut().enumerate() {
                *credit += u64::from(turns[at].weight);
                if *credit >= most {
                    *credit -= most;
                    if !table.take(at) {
                        break;
                    }
                }
            }
        }
    } else {
        // the n-th turn of a server is in the first round in which `round * weight >= n * most`
        let round = |at: usize, n: u64| (n * most).div_ceil(u64::from(turns[at].weight));
        let mut next: BinaryHeap<Reverse<(u64, usize, u64)>> =
            (0..turns.len()).map(|at| Reverse((round(at, 1), at, 1))).collect();
        while let Some(mut first) = next.peek_mut() {
            let Reverse((_, at, n)) = *first;
            if !table.take(at) {
                break;
            }
            *first = Reverse((round(at, n + 1), at, n + 1));
        }
    }
    table.slots
}

/// How many servers may sit out for each that takes a turn before a heap is cheaper than asking all.
const SPARSE: u64 = 16;

/// A table that is being filled.
struct Filling<'a> {
    turns: &'a [Turn],
    size: Modulus,
    slots: Vec<u32>,
    /// A bit for each slot that is free.
    free: Box<[u64; WORDS]>,
    /// Where each server goes on.
    next: Vec<u32>,
    left: usize,
    tail: Option<Tail>,
}

/// The free slots at the end, and what places are computed from.
struct Tail {
    free: Vec<u32>,
    places: Vec<Places>,
}

/// Places of slots in a permutation, as fractions of 2^64: a slot's is `slot * step + start`.
///
/// The place is `(slot - offset) / skip` modulo the size; divided by the size, its fraction is what a wrapping product
/// with `(1 / skip) / size` leaves. That is rounded down at 43 bits, 2^21; a product with less than 2^20 is wrong by less
/// than 2^41, on either side; places are 2^44 apart. `start` holds 2^41 more, so that the first does not go below 0.
#[derive(Clone, Copy)]
struct Places {
    step: u64,
    start: u64,
}

impl Places {
    fn new(turn: &Turn, inverse: u64, size: Modulus) -> Self {
        let step = ((inverse << 43) / size.by) << 21;
        Self { step, start: (1u64 << 41).wrapping_sub(step.wrapping_mul(u64::from(turn.offset))) }
    }

    #[inline]
    fn of(self, slot: u32) -> u64 {
        self.step.wrapping_mul(u64::from(slot)).wrapping_add(self.start)
    }
}

impl<'a> Filling<'a> {
    fn new(turns: &'a [Turn], size: Modulus) -> Self {
        let slots = size.by as usize;
        let mut free = Box::new([0; WORDS]);
        free[..slots / 64].fill(u64::MAX);
        free[slots / 64] = (1 << (slots % 64)) - 1;
        Self {
            turns,
            size,
            slots: vec![u32::MAX; slots],
            free,
            next: turns.iter().map(|turn| turn.offset).collect(),
            left: slots,
            tail: None,
        }
    }

    /// Server `at` takes its next slot; `false`: it was the last one.
    #[inline]
    fn take(&mut self, at: usize) -> bool {
        if self.left > TAIL {
            let slot =
                if self.left * 3 >= self.slots.len() { self.look::<FEW>(at) } else { self.look::<MANY>(at) };
            self.free[slot as usize / 64 % WORDS] &= !(1 << (slot % 64));
            self.slots[slot as usize] = self.turns[at].value;
        } else {
            self.take_late(at);
        }
        self.left -= 1;
        self.left > 0
    }

    /// The first free slot in the rest of a permutation.
    #[inline]
    fn look<const N: usize>(&mut self, at: usize) -> u32 {
        let (size, skip) = (self.size.by as u32, self.turns[at].skip);
        let mut slot = self.next[at];
        loop {
            let mut seen = [0; N];
            let mut found = 0u32;
            for (n, seen) in seen.iter_mut().enumerate() {
                *seen = slot;
                found |= (((self.free[slot as usize / 64 % WORDS] >> (slot % 64)) & 1) as u32) << n;
                slot += skip;
                slot = slot.min(slot.wrapping_sub(size));
            }
            if found != 0 {
                let first = seen[(found.trailing_zeros() as usize) % N];
                self.next[at] = first;
                return first;
            }
        }
    }

    fn take_late(&mut self, at: usize) {
        if self.tail.is_none() {
            self.tail = Some(self.tail());
        }
        let Some(Tail { free, places }) = &mut self.tail else { return };
        let places = places[at];
        let mut best = (u64::MAX, 0);
        for (n, slot) in free.iter().enumerate() {
            let place = places.of(*slot);
            best = if place < best.0 { (place, n) } else { best };
        }
        self.slots[free.swap_remove(best.1) as usize] = self.turns[at].value;
    }

    #[cold]
    fn tail(&self) -> Tail {
        let inverses = self.size.inverses(self.turns.iter().map(|turn| u64::from(turn.skip)));
        let places = self.turns.iter().zip(inverses);
        let mut free = Vec::with_capacity(self.left);
        for (first, word) in (0..).step_by(64).zip(self.free.iter()) {
            let mut word = *word;
            while word != 0 {
                free.push(first + word.trailing_zeros());
                word &= word - 1;
            }
        }
        Tail { free, places: places.map(|(turn, inverse)| Places::new(turn, inverse, self.size)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The paper's pseudocode 1, with weights by credit.
    fn textbook(turns: &[Turn], size: usize) -> Vec<u32> {
        let Some(most) = turns.iter().map(|turn| u64::from(turn.weight)).max() else { return Vec::new() };
        let mut next: Vec<usize> = turns.iter().map(|turn| turn.offset as usize).collect();
        let mut credits = vec![0; turns.len()];
        let mut slots = vec![u32::MAX; size];
        let mut left = size;
        while left > 0 {
            for (at, turn) in turns.iter().enumerate() {
                credits[at] += u64::from(turn.weight);
                if credits[at] < most {
                    continue;
                }
                credits[at] -= most;
                while slots[next[at]] != u32::MAX {
                    next[at] = (next[at] + turn.skip as usize) % size;
                }
                slots[next[at]] = turn.value;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        slots
    }

    const PRIMES: [u32; 6] = [2, 257, 1009, 4093, 65_537, 655_373];

    fn turns(size: u32) -> impl Strategy<Value = Vec<Turn>> {
        let weight = prop_oneof![3 => Just(1u32), 2 => 1..8u32, 1 => 1..=65_535u32];
        let turn =
            (0..size, 1..size.max(2), weight).prop_map(|(offset, skip, weight)| (offset, skip, weight));
        proptest::collection::vec(turn, 0..60).prop_map(|list| {
            let turn = |(at, (offset, skip, weight))| Turn { offset, skip, weight, value: at as u32 };
            list.into_iter().enumerate().map(turn).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
        fn the_table_is_that_of_the_textbook(
            (size, turns) in (0..5usize).prop_flat_map(|at| turns(PRIMES[at]).prop_map(move |list| (PRIMES[at], list)))
        ) {
            prop_assert!(fill(&turns, Modulus::new(u64::from(size))) == textbook(&turns, size as usize));
        }

        #[test]
        fn remainders_are_those_of_the_machine(value: u64, by in 1u64..(1 << 32)) {
            prop_assert_eq!(Modulus::new(by).reduce(value), value % by);
        }
    }

    fn many(count: u64, size: u32, weight: impl Fn(u64) -> u32) -> Vec<Turn> {
        let mix = |n: u64| {
            (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let turn = |n: u64| Turn {
            offset: (mix(n) % u64::from(size)) as u32,
            skip: (mix(n + count) % u64::from(size - 1)) as u32 + 1,
            weight: weight(n),
            value: n as u32,
        };
        (0..count).map(turn).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn large_tables_are_those_of_the_textbook() {
        let cases = [
            (1000, 65_537, 1),
            (3, 655_373, 1),
            (70_000, 65_537, 1),
            (300, 4_093, 1000),
            (40, 1_009, 60_000),
        ];
        for (count, size, heavy) in cases {
            let turns = many(count, size, |n| if n == 5 { heavy } else { 1 });
            let table = fill(&turns, Modulus::new(u64::from(size)));
            assert!(
                table == textbook(&turns, size as usize),
                "{count} servers, {size} slots, one of {heavy}"
            );
        }
    }

    #[test]
    #[ignore = "a measurement: run it in a release build"]
    fn time_of_a_fill() {
        for size in [65_537, 655_373] {
            for count in [10, 100, 1000] {
                let turns = many(count, size, |_| 1);
                let time = |of: &dyn Fn() -> Vec<u32>| {
                    let once = |_| {
                        let start = std::time::Instant::now();
                        std::hint::black_box(of());
                        start.elapsed()
                    };
                    (0..60).map(once).min().unwrap_or_default()
                };
                let new = time(&|| fill(&turns, Modulus::new(u64::from(size))));
                println!(
                    "{size} x {count}: {new:?}, textbook {:?}",
                    time(&|| textbook(&turns, size as usize))
                );
            }
        }
    }
}
