//! IPv4: keys stand in columns, so that one comparison takes a word of each of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

use super::{Line, of3};
use crate::conn::entry::Meta;
use crate::conn::key::Key4;
use crate::conn::pair::Pair;
use crate::conn::simd::{self, Level};

/// Three connections of IPv4 in 64 bytes.
///
/// The entries come first, so that any two bits are a place in every column: what would be the fourth slot is the
/// first of the next column.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Line4 {
    metas: [Meta; 3],
    clients: [u32; 3],
    vips: [u32; 3],
    ports: [u32; 3],
    unused: u32,
}

const _: () = assert!(size_of::<Line4>() == 64);

impl Line4 {
    #[inline(always)]
    fn vip(&self, slot: usize) -> u32 {
        let words: &simd::Words = transmute_ref!(self);
        words[9 + (slot & 3)]
    }
}

impl Line<Key4> for Line4 {
    const SLOTS: usize = 3;
    const EXACT: bool = false;
    const APART: bool = false;

    #[inline(always)]
    fn suspects(&self, key: &Key4, _: u8, _: u16) -> u32 {
        let [client, _, ports] = key.words();
        simd::alike_of_3(transmute_ref!(self), client, ports)
    }

    #[inline(always)]
    fn suspects_of_two<L: Level>(&self, level: L, second: &Self, key: &Key4, _: u8, _: u16) -> u32 {
        let [client, _, ports] = key.words();
        level.alike_of_two_times_3(transmute_ref!(self), transmute_ref!(second), client, ports)
    }

    /// A suspected slot has the client and the ports.
    #[inline(always)]
    fn has<L: Level>(&self, _: L, slot: usize, key: &Key4) -> bool {
        self.vip(slot) == key.words()[1]
    }

    #[inline]
    fn key(&self, slot: usize) -> Key4 {
        let slot = of3(slot);
        Key4::of_words([self.clients[slot], self.vips[slot], self.ports[slot]])
    }

    #[inline(always)]
    fn meta(&self, slot: usize) -> Meta {
        let words: &[u64; 8] = transmute_ref!(self);
        Meta::of_word(words[slot & 3])
    }

    #[inline(always)]
    fn set_meta(&mut self, slot: usize, meta: Meta) {
        self.metas[of3(slot)] = meta;
    }

    #[inline]
    fn set(&mut self, slot: usize, key: &Key4, meta: Meta, _: u16) {
        let slot = of3(slot);
        [self.clients[slot], self.vips[slot], self.ports[slot]] = key.words();
        self.metas[slot] = meta;
    }

    /// All of it: it is one cache line, and compared as it is.
    #[inline]
    fn empty(&mut self, slot: usize) {
        self.set(slot, &Key4::default(), Meta::EMPTY, 0);
    }

    #[inline(always)]
    fn prefetch_at(lines: &[Self], at: usize) {
        crate::prefetch::place(lines, at);
    }

    #[inline(always)]
    fn prefetch_slot(&self, _: usize) {}
}

/// Four pairs of IPv4 in 128 bytes: what is compared in the first half, where it leads to in the second.
///
/// Columns of four words: clients, VIPs, ports of the tuples, lower halves of the entries; then clients, VIPs, ports
/// of the other keys, upper halves of the entries.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct PairLine4 {
    compared: [u32; 16],
    other: [u32; 16],
}

const _: () = assert!(size_of::<PairLine4>() == 128);

/// Column of the entries' halves.
const META: usize = 12;

/// The three words of a slot in columns of four.
#[inline(always)]
fn words(columns: &[u32; 16], slot: usize) -> [u32; 3] {
    let slot = slot & 3;
    [columns[slot], columns[4 + slot], columns[8 + slot]]
}

#[inline(always)]
fn set_words(columns: &mut [u32; 16], slot: usize, words: [u32; 3]) {
    let slot = slot & 3;
    [columns[slot], columns[4 + slot], columns[8 + slot]] = words;
}

impl Line<Pair<Key4>> for PairLine4 {
    const SLOTS: usize = 4;
    const EXACT: bool = true;
    const APART: bool = false;

    #[inline(always)]
    fn suspects(&self, key: &Pair<Key4>, protocol: u8, _: u16) -> u32 {
        simd::equal_of_4(&self.compared, &key.tuple.words(), protocol)
    }

    #[inline]
    fn has<L: Level>(&self, _: L, slot: usize, key: &Pair<Key4>) -> bool {
        words(&self.compared, slot) == key.tuple.words()
    }

    #[inline]
    fn key(&self, slot: usize) -> Pair<Key4> {
        Pair {
            tuple: Key4::of_words(words(&self.compared, slot)),
            other: Key4::of_words(words(&self.other, slot)),
        }
    }

    #[inline(always)]
    fn meta(&self, slot: usize) -> Meta {
        let slot = slot & 3;
        Meta::of_word(u64::from(self.compared[META + slot]) | u64::from(self.other[META + slot]) << 32)
    }

    #[inline(always)]
    fn set_meta(&mut self, slot: usize, meta: Meta) {
        let (slot, word) = (slot & 3, meta.word());
        self.compared[META + slot] = word as u32;
        self.other[META + slot] = (word >> 32) as u32;
    }

    #[inline]
    fn set(&mut self, slot: usize, key: &Pair<Key4>, meta: Meta, _: u16) {
        set_words(&mut self.compared, slot, key.tuple.words());
        set_words(&mut self.other, slot, key.other.words());
        self.set_meta(slot, meta);
    }

    /// All of it, as a [`Line4`]'s.
    #[inline]
    fn empty(&mut self, slot: usize) {
        self.set(slot, &Pair::default(), Meta::EMPTY, 0);
    }

    /// A pair's protocol is never 0, and lies in the half that is compared.
    #[inline(always)]
    fn free(&self) -> u32 {
        (0..4).fold(0, |free, slot| free | u32::from(self.compared[META + slot] == 0) << slot)
    }

    /// Both halves: a hit is always followed by a look at what it leads to.
    #[inline(always)]
    fn prefetch(&self) {
        crate::prefetch::line(&self.compared);
        crate::prefetch::line(&self.other);
    }

    #[inline(always)]
    fn prefetch_front_at(lines: &[Self], at: usize) {
        crate::prefetch::place(lines, at);
    }

    #[inline(always)]
    fn prefetch_rest(&self, _: usize) {
        crate::prefetch::line(&self.other);
    }

    #[inline(always)]
    fn prefetch_slot(&self, _: usize) {}
}
