//! A table of what an earlier process left in memory, which may have been killed at any moment, whatever it is.
//!
//! What is not certain is worked out anew: the number of connections, what no line uses. What cannot be is thrown out: an
//! entry in a line that is none of its key's two, one that is there twice, one without a protocol. An entry whose key was
//! half written hashes to other lines than the one that it is in, but for one chance in half the number of lines; the key
//! that it then stands for is nobody's, and its time ends it, after 18 h at the latest where that was damaged too.

use zerocopy::{FromZeros, IntoBytes};

use super::entry::Meta;
use super::key::TableKey;
use super::line::Line;
use super::table::Table;

impl<K: TableKey> Table<K> {
    /// Makes it a table of those entries that are sound and that `keep` wants. Returns how many were not sound.
    ///
    /// Nothing that is kept is changed or moved, so that it may be done again if it does not come to its end.
    ///
    /// Cost: all lines in sequence, and a random line for every second entry.
    pub fn repair(&mut self, mut keep: impl FnMut(&K, Meta) -> bool) -> u32 {
        let mut torn = 0;
        (self.len, self.hand, self.victims) = (0, 0, 0);
        for at in 0..self.lines() {
            let held = self.lines[at as usize];
            let mut line = K::Line::new_zeroed();
            for slot in 0..K::Line::SLOTS {
                let (key, meta) = (held.key(slot), held.meta(slot));
                if meta.is_empty() {
                    continue;
                }
                let (protocol, probe) = (meta.protocol(), self.probe(&key, meta.protocol()));
                let (first, second) = (probe.first, self.second(probe));
                let other = if first == at { second } else { first };
                let twice = line.find(&key, protocol, probe.tag()).is_some()
                    // lines from here on are not repaired yet: they will find it here
                    || other < at && self.lines[other as usize].find(&key, protocol, probe.tag()).is_some();
                if protocol == 0 || at != first && at != second || twice || self.len >= self.max {
                    torn += 1;
                } else if keep(&key, meta) {
                    line.set(slot, &key, meta, probe.tag());
                    self.len += 1;
                }
            }
            self.lines[at as usize] = line;
        }
        torn
    }

    /// The table as it lies in memory.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.lines.as_bytes()
    }

    /// Whether every slot is free for whoever asks, which is what lines alone tell.
    #[cfg(test)]
    pub(super) fn is_blank(&self) -> bool {
        let all = (1 << K::Line::SLOTS) - 1;
        let empty = |line: &K::Line| (0..K::Line::SLOTS).all(|slot| line.meta(slot).is_empty());
        self.lines.iter().all(|line| line.free() == all && empty(line))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::super::memory::{Lender, Life, Loan, Pages, Request};
    use super::super::{ConnKey, HashKey, Key4, Key6, Pair, Tick};
    use super::*;
    use crate::ids::DestId;
    use crate::state::State;

    const SECRET: HashKey =
        HashKey([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7, 0x1234_5678_9abc_def1]);

    /// Lends the bytes that it holds, as if an earlier process had left them.
    #[derive(Debug, Default)]
    struct Shelf(Mutex<Vec<u8>>);

    impl Lender for Shelf {
        fn lend(&self, request: &Request) -> Option<Loan> {
            let left = self.0.lock().expect("lock").clone();
            let memory = Box::leak(vec![0u8; request.bytes + 128].into_boxed_slice());
            let start = memory.as_ptr().align_offset(64);
            let memory = &mut memory[start..start + request.bytes];
            let fits = left.len() == memory.len();
            if fits {
                memory.copy_from_slice(&left);
            }
            let life = if fits { Life::Left } else { Life::Kept };
            Some(Loan { memory, pages: Pages::Small, life })
        }

        fn take_back(&self, _: &'static mut [u8]) {}
    }

    fn left<K: TableKey>(bytes: Vec<u8>, max: u32) -> Table<K> {
        let shelf: Arc<dyn Lender> = Arc::new(Shelf(Mutex::new(bytes)));
        Table::in_memory(max, SECRET, "test".to_owned(), true, &shelf).expect("memory")
    }

    fn v4(n: u32) -> Key4 {
        Key4::new((0x0a00_0000 + n / 7).into(), n as u16, 0xc0a8_9664.into(), 80)
    }

    fn v6(n: u32) -> Key6 {
        Key6::new(u128::from(n / 7).into(), n as u16, 7.into(), 80)
    }

    fn meta(n: u32) -> Meta {
        Meta::new(6, DestId(n % 9), State::Established, Tick::from_ns(u64::from(n) << 30))
    }

    fn all<K: TableKey>(table: &Table<K>) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        table.walk(0, table.lines(), |key, meta| {
            assert!(all.insert(format!("{key:?}"), meta.word()).is_none(), "{key:?} is there twice");
        });
        all
    }

    /// A full table comes back as it was, and goes on to work.
    fn comes_back<K: TableKey>(key: impl Fn(u32) -> K, meta: impl Fn(u32) -> Meta) {
        let max = 3000;
        let mut table = Table::<K>::new(max, SECRET).expect("memory");
        for n in 0..max {
            let probe = table.probe(&key(n), meta(n).protocol());
            table.insert(key(n), probe, meta(n)).expect("room");
        }
        let before = all(&table);
        let mut again = left::<K>(table.as_bytes().to_vec(), max);
        assert!(again.is_left() && again.is_empty());
        assert_eq!(again.repair(|_, _| true), 0);
        assert_eq!((again.len(), all(&again)), (max, before));
        assert_eq!(again.as_bytes(), table.as_bytes());
        let mut dropped = 0;
        assert_eq!(
            again.repair(|_, meta| {
                let keep = meta.word() % 3 != 0;
                dropped += u32::from(!keep);
                keep
            }),
            0
        );
        assert_eq!(again.len() + dropped, max);
        for n in 0..max {
            let protocol = meta(n).protocol();
            let probe = again.probe(&key(n), protocol);
            match again.find(&key(n), protocol, probe) {
                Some(found) => again.remove(found),
                None => assert_eq!(meta(n).word() % 3, 0),
            }
        }
        assert!(again.is_empty() && again.is_blank());
    }

    #[test]
    fn every_kind_of_table_comes_back_as_it_was() {
        comes_back(v4, meta);
        comes_back(v6, meta);
        let of_pair =
            |n: u32| Meta::of_word(Meta::of_pair(6).word() | u64::from(n) << 32 | u64::from(n & 12));
        comes_back(|n| Pair { tuple: v4(n), other: v4(n + 1) }, of_pair);
        comes_back(|n| Pair { tuple: v6(n), other: v6(n + 1) }, of_pair);
    }

    /// Bytes of garbage and of a real table mixed; what comes of it is a table in which every entry is found.
    fn survives<K: TableKey>(key: impl Fn(u32) -> K, meta: impl Fn(u32) -> Meta, spoil: &[(u32, u8)]) {
        let max = 400;
        let mut table = Table::<K>::new(max, SECRET).expect("memory");
        for n in 0..max {
            let probe = table.probe(&key(n), meta(n).protocol());
            table.insert(key(n), probe, meta(n)).expect("room");
        }
        let mut bytes = table.as_bytes().to_vec();
        for (at, byte) in spoil {
            let at = *at as usize % bytes.len();
            bytes[at] = *byte;
        }
        let mut table = left::<K>(bytes, max);
        table.repair(|_, _| true);
        let mut found = Vec::new();
        table.walk(0, table.lines(), |key, meta| found.push((*key, meta)));
        assert_eq!(found.len(), table.len() as usize);
        assert!(found.len() as u32 >= max - (2 * spoil.len() as u32).min(max), "{} of {max}", found.len());
        for (key, meta) in &found {
            let at = table.find(key, meta.protocol(), table.probe(key, meta.protocol()));
            assert_eq!(at.map(|at| at.meta), Some(*meta));
        }
        for (key, meta) in found {
            let at = table.find(&key, meta.protocol(), table.probe(&key, meta.protocol())).expect("once");
            table.remove(at);
        }
        assert!(table.is_empty() && table.is_blank());
        for n in 0..max {
            let probe = table.probe(&key(n), meta(n).protocol());
            table.insert(key(n), probe, meta(n)).expect("as good as new");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 64 }, ..ProptestConfig::default() })]

        #[test]
        fn spoiled_bytes_cost_the_entries_that_they_are_in(spoil in prop::collection::vec((any::<u32>(), any::<u8>()), 0..300)) {
            survives(v4, meta, &spoil);
            survives(v6, meta, &spoil);
            let of_pair = |_: u32| Meta::of_pair(6);
            survives(|n| Pair { tuple: v4(n), other: v4(n + 1) }, of_pair, &spoil);
            survives(|n| Pair { tuple: v6(n), other: v6(n + 1) }, of_pair, &spoil);
        }

        #[test]
        fn garbage_is_a_table_too(seed: u64) {
            let mut state = seed | 1;
            let bytes = |len: usize, state: &mut u64| -> Vec<u8> {
                (0..len).map(|_| { *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (*state >> 56) as u8 }).collect()
            };
            let len = Table::<Key4>::new(400, SECRET).expect("memory").bytes();
            let mut table = left::<Key4>(bytes(len, &mut state), 400);
            prop_assert!(table.repair(|_, _| true) > 0);
            prop_assert!(table.len() < 40, "{} entries in the right line by chance", table.len());
        }
    }

    #[test]
    fn who_was_being_moved_is_there_once() {
        let mut table = Table::<Key4>::new(100, SECRET).expect("memory");
        let (key, probe) = (v4(1), table.probe(&v4(1), 6));
        table.insert(key, probe, meta(1)).expect("room");
        // as between the two halves of a move
        table.put((probe.second, 2), key, meta(1), probe);
        let mut table = left::<Key4>(table.as_bytes().to_vec(), 100);
        assert_eq!(table.repair(|_, _| true), 1);
        let found = table.find(&key, 6, table.probe(&key, 6)).expect("there");
        table.remove(found);
        assert!(table.as_bytes().iter().all(|byte| *byte == 0));
    }
}
