//! What a table keeps together: a few connections in neighbouring cache lines, in the way that suits their keys.
//!
//! Four layouts, all free of padding so that any memory can hold them:
//!
//! | of | slots | bytes | a hit reads | compared by |
//! |---|---|---|---|---|
//! | [`Key4`](super::Key4) | 3 | 64 | 1 line | clients and ports at once, in columns, then one key |
//! | [`Key6`](super::Key6) | 4 | 192 | 2 lines | 16-bit tags, then one key |
//! | [`Pair`](super::Pair) of IPv4 | 4 | 128 | 2 lines | all tuples at once, in columns |
//! | [`Pair`](super::Pair) of IPv6 | 3 | 256 | 2 lines | 16-bit tags, then one tuple |

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::entry::Meta;
use super::simd::{Every, Level};

mod v4;
mod v6;

pub use v4::{Line4, PairLine4};
pub use v6::{Line6, PairLine6};

/// The slot of three, or the last one in place of one that does not exist.
#[inline(always)]
fn of3(slot: usize) -> usize {
    slot.min(2)
}

/// A line of a table: some slots.
///
/// Slots are numbered from 0; a slot that does not exist may be answered for as another one, never by a panic.
pub trait Line<K>:
    Copy + std::fmt::Debug + FromBytes + IntoBytes + KnownLayout + Immutable + 'static
{
    /// Connections that it holds.
    const SLOTS: usize;
    /// Whether [`Line::suspects`] compares all of the key.
    const EXACT: bool;
    /// Whether keys lie in other cache lines than what [`Line::suspects`] reads.
    const APART: bool;

    /// The slots that may hold `key`, a bit each; reads the first cache line alone.
    ///
    /// The slot that holds it is always among them.
    fn suspects(&self, key: &K, protocol: u8, tag: u16) -> u32;

    /// [`Line::suspects`] of two lines: the slots of the second one from bit 4 on.
    #[inline(always)]
    fn suspects_of_two<L: Level>(&self, _: L, second: &Self, key: &K, protocol: u8, tag: u16) -> u32 {
        self.suspects(key, protocol, tag) | second.suspects(key, protocol, tag) << 4
    }

    /// Whether a suspected slot has `key`, under whatever protocol.
    fn has<L: Level>(&self, level: L, slot: usize, key: &K) -> bool;

    /// Whether a suspected slot holds `key`.
    #[inline(always)]
    fn holds(&self, slot: usize, key: &K, protocol: u8) -> bool {
        self.has(Every, slot, key) && self.meta(slot).protocol() == protocol
    }

    /// The key of a slot.
    fn key(&self, slot: usize) -> K;

    /// The entry of a slot; empty where there is no connection.
    fn meta(&self, slot: usize) -> Meta;

    /// Replaces the entry of a slot.
    fn set_meta(&mut self, slot: usize, meta: Meta);

    /// Fills a slot. `tag`: not 0.
    fn set(&mut self, slot: usize, key: &K, meta: Meta, tag: u16);

    /// Empties a slot: nothing is found in it, whatever is left of its key.
    fn empty(&mut self, slot: usize);

    /// Starts to fetch what [`Line::suspects`] reads.
    #[inline(always)]
    fn prefetch(&self) {
        crate::prefetch::line(self);
    }

    /// [`Line::prefetch`] of `lines[at]`; nothing useful where there is none.
    #[inline(always)]
    fn prefetch_at(lines: &[Self], at: usize) {
        if let Some(line) = lines.get(at) {
            line.prefetch();
        }
    }

    /// Starts to fetch what [`Line::holds`] and [`Line::key`] read of a slot.
    fn prefetch_slot(&self, slot: usize);

    /// Starts to fetch what [`Line::suspects`] and [`Line::free`] read of `lines[at]`, and no more.
    #[inline(always)]
    fn prefetch_front_at(lines: &[Self], at: usize) {
        Self::prefetch_at(lines, at);
    }

    /// Starts to fetch what [`Line::set`] writes of a slot beside that.
    #[inline(always)]
    fn prefetch_rest(&self, slot: usize) {
        self.prefetch_slot(slot);
    }

    /// The slot that holds `key`.
    #[inline(always)]
    fn find(&self, key: &K, protocol: u8, tag: u16) -> Option<usize> {
        let mut suspects = self.suspects(key, protocol, tag);
        while suspects != 0 {
            let slot = suspects.trailing_zeros() as usize;
            if Self::EXACT || self.holds(slot, key, protocol) {
                return Some(slot);
            }
            suspects &= suspects - 1;
        }
        None
    }

    /// The slots without a connection, a bit each.
    #[inline(always)]
    fn free(&self) -> u32 {
        (0..Self::SLOTS).fold(0, |free, slot| free | u32::from(self.meta(slot).is_empty()) << slot)
    }

    /// [`Line::free`] of two lines.
    #[inline(always)]
    fn free_of_two(&self, second: &Self) -> [u32; 2] {
        [self.free(), second.free()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConnKey, Key4, Key6, Pair, TableKey};
    use super::*;
    use crate::conn::Tick;
    use crate::ids::DestId;
    use crate::state::State;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    /// A line against a plain list of slots; few keys and tags, so that they meet.
    fn behaves<K: TableKey>(steps: &[(u8, u8, u8)], key: impl Fn(u8) -> K, meta: impl Fn(u8) -> Meta) {
        let slots = <K::Line as Line<K>>::SLOTS;
        let mut line = K::Line::new_zeroed();
        let mut model: Vec<Option<(u8, Meta)>> = vec![None; slots];
        let tag = |n: u8| 1 + u16::from(n % 3);
        for &(what, n, slot) in steps {
            let slot = usize::from(slot) % slots;
            match what % 4 {
                0 | 1 if !model.iter().flatten().any(|(held, _)| *held == n) => {
                    line.set(slot, &key(n), meta(n), tag(n));
                    model[slot] = Some((n, meta(n)));
                }
                2 => {
                    line.empty(slot);
                    model[slot] = None;
                }
                _ => {
                    if let Some(held) = &mut model[slot] {
                        held.1 = meta(held.0.wrapping_add(1));
                        let new =
                            Meta::of_word(held.1.word() & !(255 << 24) | meta(held.0).word() & 255 << 24);
                        held.1 = new;
                        line.set_meta(slot, new);
                    }
                }
            }
            let free = model.iter().enumerate().map(|(slot, held)| u32::from(held.is_none()) << slot);
            let free = free.sum::<u32>();
            let (all, blank) = ((1 << slots) - 1, K::Line::new_zeroed());
            assert_eq!(
                (line.free(), line.free_of_two(&blank), blank.free_of_two(&line)),
                (free, [free, all], [all, free])
            );
            for n in 0..8 {
                let at = model.iter().position(|held| held.is_some_and(|(held, _)| held == n));
                assert_eq!(line.find(&key(n), meta(n).protocol(), tag(n)), at);
                let (empty, protocol) = (K::Line::new_zeroed(), meta(n).protocol());
                let suspects = line.suspects(&key(n), protocol, tag(n));
                let none = empty.suspects(&key(n), protocol, tag(n));
                let both = |a: &K::Line, b| a.suspects_of_two(Every, b, &key(n), protocol, tag(n));
                assert_eq!(
                    (both(&line, &empty), both(&empty, &line)),
                    (suspects | none << 4, none | suspects << 4)
                );
                assert!(at.is_none_or(|slot| line.has(Every, slot, &key(n))));
                assert_eq!(line.find(&key(n), 99, tag(n)), None);
                if let Some(slot) = at {
                    assert_eq!(line.key(slot), key(n));
                    assert_eq!(Some(line.meta(slot)), model[slot].map(|(_, meta)| meta));
                }
            }
        }
    }

    fn v4(n: u8) -> Key4 {
        Key4::new(u32::from(n & 1).into(), u16::from(n >> 1 & 1), 7.into(), u16::from(n >> 2))
    }

    fn v6(n: u8) -> Key6 {
        Key6::new(u128::from(n & 1).into(), u16::from(n >> 1 & 1), 7.into(), u16::from(n >> 2))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]

        #[test]
        fn every_line_is_a_list_of_slots(steps in prop::collection::vec((0u8..4, 0u8..8, 0u8..4), 1..80)) {
            let of_conn = |n: u8| Meta::new(1 + n % 2, DestId(u32::from(n)), State::Established, Tick::from_ns(u64::from(n) << 40));
            let of_pair = |n: u8| Meta::of_word(Meta::of_pair(1 + n % 2).word() | u64::from(n) << 40 | u64::from(n & 15));
            behaves::<Key4>(&steps, v4, of_conn);
            behaves::<Key6>(&steps, v6, of_conn);
            behaves::<Pair<Key4>>(&steps, |n| Pair { tuple: v4(n), other: v4(n ^ 7) }, of_pair);
            behaves::<Pair<Key6>>(&steps, |n| Pair { tuple: v6(n), other: v6(n ^ 7) }, of_pair);
        }
    }
}
