//! IPv6: keys are too long to be compared all; 16 bits of each one's hash in the first cache line tell which to look at.
//!
//! Ports lie in the first cache line too, so that the addresses of a key, or of a pair's two, are in one line and no more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Line, of3};
use crate::conn::entry::Meta;
use crate::conn::key::Key6;
use crate::conn::pair::Pair;
use crate::conn::simd::{self, Level};

/// Tags of a line's slots, the first in the lowest bits; 0 where there is no connection.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
struct Tags(u64);

impl Tags {
    /// The slots with this tag, a bit each: four comparisons in one word.
    #[inline(always)]
    fn equal(self, tag: u16) -> u32 {
        const LOW: u64 = 0x7fff_7fff_7fff_7fff;
        let differ = self.0 ^ u64::from(tag).wrapping_mul(0x0001_0001_0001_0001);
        // the top bit of a lane is set where any other bit of it is
        let zero = !(((differ & LOW) + LOW) | differ | LOW);
        // bits 15, 31, 47, 63 to bits 0 to 3
        ((zero >> 15).wrapping_mul(0x0001_0002_0004_0008) >> 48) as u32 & 15
    }

    #[inline]
    fn set(&mut self, slot: usize, tag: u16) {
        let shift = 16 * (slot as u32 & 3);
        self.0 = self.0 & !(0xffff << shift) | u64::from(tag) << shift;
    }
}

/// Two addresses, as in [`Key6`].
type Addresses = [u64; 4];

/// Four connections of IPv6 in 192 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Line6 {
    metas: [Meta; 4],
    tags: Tags,
    ports: [u32; 4],
    unused: u64,
    addresses: [Addresses; 4],
}

const _: () = assert!(size_of::<Line6>() == 192 && std::mem::offset_of!(Line6, addresses) == 64);

impl Line<Key6> for Line6 {
    const SLOTS: usize = 4;
    const EXACT: bool = false;
    const APART: bool = true;

    #[inline(always)]
    fn suspects(&self, _: &Key6, _: u8, tag: u16) -> u32 {
        self.tags.equal(tag)
    }

    #[inline(always)]
    fn suspects_of_two<L: Level>(&self, _: L, second: &Self, _: &Key6, _: u8, tag: u16) -> u32 {
        simd::equal_of_two_times_4([self.tags.0, second.tags.0], tag)
    }

    #[inline(always)]
    fn free(&self) -> u32 {
        self.tags.equal(0)
    }

    #[inline(always)]
    fn free_of_two(&self, second: &Self) -> [u32; 2] {
        let both = simd::equal_of_two_times_4([self.tags.0, second.tags.0], 0);
        [both & 15, both >> 4 & 15]
    }

    #[inline(always)]
    fn has<L: Level>(&self, level: L, slot: usize, key: &Key6) -> bool {
        let slot = slot & 3;
        key.is(level, (&self.addresses[slot], self.ports[slot]))
    }

    #[inline]
    fn key(&self, slot: usize) -> Key6 {
        let slot = slot & 3;
        Key6::of_parts(self.addresses[slot], self.ports[slot])
    }

    #[inline(always)]
    fn meta(&self, slot: usize) -> Meta {
        self.metas[slot & 3]
    }

    #[inline(always)]
    fn set_meta(&mut self, slot: usize, meta: Meta) {
        self.metas[slot & 3] = meta;
    }

    #[inline]
    fn set(&mut self, slot: usize, key: &Key6, meta: Meta, tag: u16) {
        let slot = slot & 3;
        (self.addresses[slot], self.ports[slot]) = key.parts();
        self.metas[slot] = meta;
        self.tags.set(slot, tag);
    }

    /// The key stays: it would be one line more to write.
    #[inline]
    fn empty(&mut self, slot: usize) {
        self.metas[slot & 3] = Meta::EMPTY;
        self.tags.set(slot, 0);
    }

    #[inline(always)]
    fn prefetch_at(lines: &[Self], at: usize) {
        crate::prefetch::place(lines, at);
    }

    #[inline(always)]
    fn prefetch_slot(&self, slot: usize) {
        crate::prefetch::line(&self.addresses[slot & 3]);
    }
}

/// Three pairs of IPv6 in 256 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct PairLine6 {
    metas: [Meta; 3],
    tags: Tags,
    /// Of tuple and other key of a slot, as all that follows.
    ports: [[u32; 2]; 3],
    unused: u64,
    addresses: [[Addresses; 2]; 3],
}

const _: () = assert!(size_of::<PairLine6>() == 256 && std::mem::offset_of!(PairLine6, addresses) == 64);

impl Line<Pair<Key6>> for PairLine6 {
    const SLOTS: usize = 3;
    const EXACT: bool = false;
    const APART: bool = true;

    #[inline(always)]
    fn suspects(&self, _: &Pair<Key6>, _: u8, tag: u16) -> u32 {
        self.tags.equal(tag) & 7
    }

    #[inline(always)]
    fn suspects_of_two<L: Level>(&self, _: L, second: &Self, _: &Pair<Key6>, _: u8, tag: u16) -> u32 {
        simd::equal_of_two_times_4([self.tags.0, second.tags.0], tag) & 0x77
    }

    #[inline(always)]
    fn free(&self) -> u32 {
        self.tags.equal(0) & 7
    }

    #[inline(always)]
    fn free_of_two(&self, second: &Self) -> [u32; 2] {
        let both = simd::equal_of_two_times_4([self.tags.0, second.tags.0], 0);
        [both & 7, both >> 4 & 7]
    }

    #[inline(always)]
    fn has<L: Level>(&self, level: L, slot: usize, key: &Pair<Key6>) -> bool {
        let slot = of3(slot);
        key.tuple.is(level, (&self.addresses[slot][0], self.ports[slot][0]))
    }

    #[inline]
    fn key(&self, slot: usize) -> Pair<Key6> {
        let slot = of3(slot);
        let [tuple, other] = [0, 1].map(|at| Key6::of_parts(self.addresses[slot][at], self.ports[slot][at]));
        Pair { tuple, other }
    }

    #[inline(always)]
    fn meta(&self, slot: usize) -> Meta {
        self.metas[of3(slot)]
    }

    #[inline(always)]
    fn set_meta(&mut self, slot: usize, meta: Meta) {
        self.metas[of3(slot)] = meta;
    }

    #[inline]
    fn set(&mut self, slot: usize, key: &Pair<Key6>, meta: Meta, tag: u16) {
        let slot = of3(slot);
        for (at, key) in [key.tuple, key.other].iter().enumerate() {
            (self.addresses[slot][at], self.ports[slot][at]) = key.parts();
        }
        self.metas[slot] = meta;
        self.tags.set(slot, tag);
    }

    /// The tuple and the other key stay, as a [`Line6`]'s.
    #[inline]
    fn empty(&mut self, slot: usize) {
        let slot = of3(slot);
        self.metas[slot] = Meta::EMPTY;
        self.tags.set(slot, 0);
    }

    #[inline(always)]
    fn prefetch_slot(&self, slot: usize) {
        crate::prefetch::line(&self.addresses[of3(slot)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tags_are_compared_lane_by_lane(tags: [u16; 4], tag: u16, few: bool) {
            // few different ones, so that they meet
            let tags = tags.map(|tag| if few { tag & 0x8001 } else { tag });
            let tag = if few { tag & 0x8001 } else { tag };
            let mut word = Tags(0);
            (0..4).for_each(|slot| word.set(slot, tags[slot]));
            let want = (0..4).map(|slot| u32::from(tags[slot] == tag) << slot).sum::<u32>();
            prop_assert_eq!(word.equal(tag), want);
        }
    }
}
