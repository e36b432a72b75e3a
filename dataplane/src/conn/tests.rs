//! The table as its users see it.

use super::entry::{Meta, Tick};
use super::key::{ConnKey, HashKey, Key4, Key6, TableKey};
use super::line::{Line, Line4};
use super::pair::Pair;
use super::table::*;
use crate::ids::DestId;
use crate::state::State;
use proptest::prelude::*;
use std::collections::HashMap;

type V4 = Table<Key4>;
type V6 = Table<Key6>;

const SLOTS: usize = <Line4 as Line<Key4>>::SLOTS;

const SECRET: HashKey = HashKey([1, 0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7]);

fn key(n: u32) -> Key4 {
    Key4::new((0x0a00_0000 + n / 60000).into(), (1024 + n % 60000) as u16, 0xc0a8_9664.into(), 80)
}

fn meta(n: u32, deadline: Tick) -> Meta {
    Meta::new(1, DestId(n & 0xffff), State::Established, deadline)
}

#[test]
fn a_table_holds_all_that_it_promises() {
    for max in [1, 2, 3, 10, 1000, 100_000] {
        let mut table = V4::new(max, SECRET).expect("memory");
        let deadline = Tick::from_ns(0).after(100);
        for n in 0..max {
            let probe = table.probe(&key(n), 1);
            assert_eq!(table.insert(key(n), probe, meta(n, deadline)), Ok(()), "{n} of {max}");
        }
        let probe = table.probe(&key(max), 1);
        assert_eq!(table.insert(key(max), probe, meta(max, deadline)), Err(Full));
        for n in 0..max {
            let found = table.find(&key(n), 1, table.probe(&key(n), 1)).expect("inserted");
            assert_eq!(found.meta.dest(), DestId(n & 0xffff));
            assert!(
                table.find(&key(n), 2, table.probe(&key(n), 2)).is_none(),
                "the protocol is part of the key"
            );
        }
        assert_eq!(table.len(), max);
    }
}

#[test]
fn a_v6_table_holds_all_that_it_promises() {
    let mut table = V6::new(50_000, SECRET).expect("memory");
    let key =
        |n: u32| Key6::new(u128::from(n / 7).into(), (n % 7) as u16, std::net::Ipv6Addr::LOCALHOST, 443);
    for n in 0..50_000 {
        let probe = table.probe(&key(n), 1);
        assert_eq!(table.insert(key(n), probe, meta(n, Tick::from_ns(0))), Ok(()), "{n}");
    }
    for n in 0..50_000 {
        assert!(table.find(&key(n), 1, table.probe(&key(n), 1)).is_some());
    }
}

#[test]
fn the_sweep_removes_the_dead_and_only_them() {
    let mut table = V4::new(1000, SECRET).expect("memory");
    let now = Tick::from_ns(0);
    for n in 0..1000 {
        let probe = table.probe(&key(n), 1);
        let deadline = now.after(if n % 2 == 0 { 16 } else { 160 });
        table.insert(key(n), probe, meta(n, deadline)).expect("room");
    }
    let mut gone = 0;
    let lines = table.lines();
    table.sweep(lines, Tick::from_ns(2_000_000_000), |_, _| None, |_, _| gone += 1);
    assert_eq!((gone, table.len()), (500, 500));
    table.sweep(lines, Tick::from_ns(11_000_000_000), |_, _| None, |_, _| gone += 1);
    assert_eq!((gone, table.len()), (1000, 0));
    assert!(table.is_blank());
}

#[test]
fn the_sweep_changes_the_living_and_only_them() {
    let mut table = V4::new(10, SECRET).expect("memory");
    let now = Tick::from_ns(0);
    for (n, protocol, timeout) in [(0, 17, 16), (1, 17, 48), (2, 17, 160), (3, 6, 48)] {
        let state = State::of(protocol, 1);
        let active = Meta::new(protocol, DestId(n), state, now).after_packet(state, true, now.after(timeout));
        table.insert(key(n), table.probe(&key(n), protocol), active).expect("room");
    }
    let rest =
        |meta: Meta, left| (left < 100).then(|| meta.after_packet(meta.state(), false, meta.deadline()));
    let lines = table.lines();
    table.sweep(lines, Tick::from_ns(2_000_000_000), rest, |key, _| assert_eq!(*key, self::key(0)));
    let found = |n, protocol| table.find(&key(n), protocol, table.probe(&key(n), protocol));
    let active = |n| found(n, 17).map(|found| found.meta.active());
    assert_eq!([0, 1, 2].map(active), [None, Some(false), Some(true)]);
    assert_eq!(found(1, 17).expect("kept").meta.deadline(), now.after(48));
    assert!(found(3, 6).expect("kept").meta.active(), "TCP's packets tell");
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn secret(&mut self) -> HashKey {
        HashKey(std::array::from_fn(|_| self.next()))
    }

    fn key(&mut self) -> Key4 {
        let (addresses, ports) = (self.next(), self.next());
        Key4::new((addresses as u32).into(), ports as u16, 0xc0a8_9664.into(), (ports >> 16) as u16)
    }
}

/// In CI a table for 13 connections once refused the thirteenth: ten had both their lines among the same three.
#[test]
fn a_small_table_never_fills_early() {
    let mut random = Random(7);
    let rounds: u32 = if cfg!(miri) { 3 } else { 3000 };
    for round in 0..rounds {
        let max = 1 + round % 60;
        let mut table = V4::new(max, random.secret()).expect("memory");
        let mut held = Vec::new();
        // filled to the brim, then each newcomer takes the place of one at random
        for _ in 0..max * 6 {
            if held.len() as u32 == max {
                let gone: Key4 = held.swap_remove(random.next() as usize % held.len());
                let found = table.find(&gone, 1, table.probe(&gone, 1)).expect("held");
                table.remove(found);
            }
            let new = random.key();
            let inserted = table.insert(new, table.probe(&new, 1), meta(1, Tick::from_ns(0)));
            assert_eq!(inserted, Ok(()), "{} of {max} connections", held.len());
            held.push(new);
        }
    }
}

/// Whether every key fits in one of its two lines: bipartite matching, the slow way.
fn fit(table: &V4, keys: &[Key4]) -> bool {
    fn place(at: usize, lines: &[[u32; 2]], holds: &mut [Vec<usize>], seen: &mut [bool]) -> bool {
        for &line in &lines[at] {
            let line = line as usize;
            if std::mem::replace(&mut seen[line], true) {
                continue;
            }
            if holds[line].len() < SLOTS {
                holds[line].push(at);
                return true;
            }
            for slot in 0..SLOTS {
                if place(holds[line][slot], lines, holds, seen) {
                    holds[line][slot] = at;
                    return true;
                }
            }
        }
        false
    }
    let lines: Vec<_> =
        keys.iter().map(|key| table.probe(key, 1)).map(|p| [p.first, table.second(p)]).collect();
    let mut holds = vec![Vec::new(); table.lines.len()];
    (0..keys.len()).all(|at| place(at, &lines, &mut holds, &mut vec![false; table.lines.len()]))
}

#[test]
fn a_table_of_few_lines_refuses_only_what_cannot_fit() {
    let mut random = Random(11);
    let rounds: usize = if cfg!(miri) { 2 } else { 400 };
    let mut refused = 0;
    for round in 0..rounds {
        let lines = 2 + round % 40;
        let mut table = V4::with_lines(lines, u32::MAX, random.secret()).expect("memory");
        let mut held = Vec::new();
        for _ in 0..lines * SLOTS * 2 {
            let new = random.key();
            let inserted = table.insert(new, table.probe(&new, 1), meta(1, Tick::from_ns(0)));
            held.push(new);
            assert_eq!(inserted.is_ok(), fit(&table, &held), "{} keys in {lines} lines", held.len());
            if inserted.is_err() {
                held.pop();
                refused += 1;
            }
        }
        for key in &held {
            assert!(table.find(key, 1, table.probe(key, 1)).is_some());
        }
        assert_eq!(table.len() as usize, held.len());
    }
    assert!(refused > rounds, "{refused} keys refused");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 128 }, ..ProptestConfig::default() })]

    /// The table against a HashMap: inserts, lookups, removals, sweeps in any order.
    #[test]
    fn a_table_is_a_map(steps in prop::collection::vec((0u8..4, 0u32..300, 1u32..50), 1..1500), max in 1u32..280, dense: bool) {
        // the slack leaves small tables nearly empty: moves need a table without it
        let lines = max as usize / SLOTS + 2;
        let table = if dense { V4::with_lines(lines, max, SECRET) } else { V4::new(max, SECRET) };
        let mut table = table.expect("memory");
        let mut model: HashMap<u32, Meta> = HashMap::new();
        let mut now_ns = 0u64;
        for (what, n, timeout) in steps {
            let now = Tick::from_ns(now_ns);
            let probe = table.probe(&key(n), 1);
            let found = table.find(&key(n), 1, probe);
            prop_assert_eq!(found.map(|f| f.meta), model.get(&n).copied());
            match (what, found) {
                (0 | 1, None) => {
                    let new = meta(n, now.after(timeout));
                    if table.insert(key(n), probe, new).is_ok() {
                        model.insert(n, new);
                    } else if !dense {
                        prop_assert_eq!(model.len() as u32, max);
                    }
                }
                (0 | 1, Some(found)) => {
                    let new = found.meta.after_packet(State::FinWait, true, now.after(timeout));
                    table.update(found, new);
                    model.insert(n, new);
                }
                (2, Some(found)) => {
                    table.remove(found);
                    model.remove(&n);
                }
                _ => {
                    now_ns += 100_000_000;
                    let now = Tick::from_ns(now_ns);
                    let lines = table.lines();
                    table.sweep(lines, now, |_, _| None, |_, _| ());
                    model.retain(|_, m| m.deadline().left(now).is_some());
                }
            }
            prop_assert_eq!(table.len() as usize, model.len());
        }
        let mut seen = 0;
        table.walk(0, table.lines(), |_, _| seen += 1);
        prop_assert_eq!(seen, model.len());
    }
}

/// Entries of odd destinations may go, the higher the destination the sooner.
fn odd_go(_: &Key4, meta: Meta) -> Option<u8> {
    (meta.dest().0 % 2 == 1).then_some((meta.dest().0 / 2) as u8)
}

#[test]
fn at_the_limit_the_dispensable_give_way_and_nobody_else() {
    let mut random = Random(5);
    let rounds: usize = if cfg!(miri) { 2 } else { 200 };
    for round in 0..rounds {
        let max = 1 + (round % 50) as u32;
        // physically full tables and tables with a limit below that
        let lines = if round % 2 == 0 { 2 + max as usize / SLOTS } else { 2 + max as usize };
        let mut table = V4::with_lines(lines, max, random.secret()).expect("memory");
        let mut model: HashMap<[u8; 12], Meta> = HashMap::new();
        let name = |key: &Key4| {
            let mut name = [0; 12];
            name[..4].copy_from_slice(&key.client().octets());
            name[4..8].copy_from_slice(&key.vip().octets());
            name[8..10].copy_from_slice(&key.client_port().to_be_bytes());
            name[10..].copy_from_slice(&key.vip_port().to_be_bytes());
            name
        };
        for _ in 0..max * 8 {
            let key = random.key();
            let meta = meta(random.next() as u32 % 40, Tick::from_ns(0));
            let mut gone = Vec::new();
            let inserted = table.insert_evicting(key, table.probe(&key, 1), meta, odd_go, |key, meta| {
                gone.push((name(key), meta));
            });
            assert!(gone.len() <= 1 && (inserted.is_ok() || gone.is_empty()));
            for (key, meta) in gone {
                assert!(odd_go(&Key4::default(), meta).is_some(), "{meta:?} was to stay");
                assert_eq!(model.remove(&key), Some(meta));
            }
            if inserted.is_ok() {
                model.insert(name(&key), meta);
            } else if lines <= 8 {
                assert!(model.values().all(|meta| meta.dest().0 % 2 == 0), "one more could have gone");
            }
            assert!(table.len() <= max && table.len() as usize == model.len());
        }
        let mut seen = HashMap::new();
        table.walk(0, table.lines(), |key, meta| {
            assert!(table.find(key, 1, table.probe(key, 1)).is_some());
            seen.insert(name(key), meta);
        });
        assert_eq!(seen, model);
    }
}

#[test]
fn a_victim_is_found_wherever_it_is() {
    let max = if cfg!(miri) { 100 } else { 3000 };
    let mut table = V4::new(max, SECRET).expect("memory");
    for n in 0..max {
        let dest = u32::from(n == max / 2);
        table.insert(key(n), table.probe(&key(n), 1), meta(dest, Tick::from_ns(0))).expect("room");
    }
    let mut gone = 0;
    // the hand comes round
    let tries = (max..).take(table.lines() as usize).find(|&n| {
        table
            .insert_evicting(key(n), table.probe(&key(n), 1), meta(0, Tick::from_ns(0)), odd_go, |_, _| {
                gone += 1
            })
            .is_ok()
    });
    assert!(tries.is_some());
    assert_eq!((gone, table.len()), (1, max));
    assert!(table.find(&key(max / 2), 1, table.probe(&key(max / 2), 1)).is_none());
}

/// A key from its number, for every kind; few different words, so that keys have much in common.
trait Numbered: TableKey {
    fn numbered(n: u32) -> Self;
    /// An entry that its line can hold.
    fn entry(n: u32, deadline: Tick) -> Meta;
}

impl Numbered for Key4 {
    fn numbered(n: u32) -> Self {
        key(n)
    }

    fn entry(n: u32, deadline: Tick) -> Meta {
        meta(n, deadline)
    }
}

impl Numbered for Key6 {
    fn numbered(n: u32) -> Self {
        let address = |low: u32| (u128::from(low) | 0xfd00 << 112).into();
        Key6::new(address(n / 7), (n % 7) as u16, address(3), 443)
    }

    fn entry(n: u32, deadline: Tick) -> Meta {
        meta(n, deadline)
    }
}

impl<K: ConnKey + Numbered> Numbered for Pair<K> {
    fn numbered(n: u32) -> Self {
        Pair { tuple: K::numbered(n), other: K::numbered(!n % 5000) }
    }

    fn entry(n: u32, _: Tick) -> Meta {
        if n.is_multiple_of(2) { Meta::of_pair(1) } else { Meta::of_pair(1).with_answered() }
    }
}

/// What is done, to which key, and how long it shall live.
type Todo = (u8, u32, u32);

/// The table against a HashMap, eviction included: no key is lost but to `gone`, none found that is not there.
fn is_a_map<K: Numbered>(steps: &[Todo], lines: usize, max: u32) {
    let mut table = Table::<K>::with_lines(lines, max, SECRET).expect("memory");
    let mut model: HashMap<u32, Meta> = HashMap::new();
    // pairs have no time
    let timed = K::entry(0, Tick::from_ns(0).after(1)) != K::entry(0, Tick::from_ns(0).after(2));
    let mut now_ns = 0;
    let number_of = |model: &HashMap<u32, Meta>, key: &K| {
        *model.keys().find(|n| K::numbered(**n) == *key).expect("known")
    };
    for &(what, n, timeout) in steps {
        let now = Tick::from_ns(now_ns);
        let (key, entry) = (K::numbered(n), K::entry(n, now.after(timeout)));
        let probe = table.probe(&key, 1);
        table.prefetch(probe);
        table.prefetch_key(&key, 1, probe);
        let found = table.find(&key, 1, probe);
        assert_eq!(found.map(|found| found.meta), model.get(&n).copied());
        assert_eq!(table.find(&key, 2, table.probe(&key, 2)), None, "the protocol is part of the key");
        match (what, found) {
            (0, None) => {
                let done = table.insert(key, probe, entry);
                assert!(done.is_ok() || table.len() == max || u64::from(table.len()) > table.slots() / 3);
                if done.is_ok() {
                    model.insert(n, entry);
                }
            }
            (1, None) => {
                let mut gone = None;
                let rank = |key: &K, _: Meta| (number_of(&model, key) % 3 > 0).then_some(1);
                let done = table.insert_evicting(key, probe, entry, rank, |key, meta| {
                    gone = Some((*key, meta));
                });
                if let Some((key, meta)) = gone {
                    let number = number_of(&model, &key);
                    assert!(number % 3 > 0 && done.is_ok());
                    assert_eq!(model.remove(&number), Some(meta));
                }
                if done.is_ok() {
                    model.insert(n, entry);
                }
            }
            (0 | 1, Some(found)) => {
                assert_eq!(table.key(found), key);
                let changed = K::entry(n + 1, now.after(timeout));
                table.update(found, changed);
                model.insert(n, changed);
            }
            (2, Some(found)) => {
                table.remove(found);
                model.remove(&n);
            }
            (3, _) if timed => {
                now_ns += 100_000_000;
                let now = Tick::from_ns(now_ns);
                let lines = table.lines();
                table.sweep(lines, now, |_, _| None, |_, _| ());
                model.retain(|_, meta| meta.deadline().left(now).is_some());
            }
            (4, _) => {
                let lines = table.lines();
                let which = |key: &K, _: Meta| number_of(&model, key) % 7 == n % 7;
                table.remove_where(0, lines, which, |_, _| ());
                model.retain(|number, _| number % 7 != n % 7);
            }
            _ => {}
        }
        assert_eq!(table.len() as usize, model.len());
        assert!(table.len() <= max);
    }
    let mut seen = HashMap::new();
    table.walk(0, table.lines(), |key, meta| {
        assert!(seen.insert(number_of(&model, key), meta).is_none(), "seen twice");
    });
    assert_eq!(seen, model);
    let lines = table.lines();
    table.remove_where(0, lines, |_, _| true, |_, _| ());
    assert!(table.is_empty() && table.is_blank());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, ..ProptestConfig::default() })]

    #[test]
    fn tables_of_every_kind_are_maps(steps in prop::collection::vec((0u8..5, 0u32..200, 1u32..50), 1..400), lines in 2usize..60, max in 1u32..190) {
        is_a_map::<Key4>(&steps, lines, max);
        is_a_map::<Key6>(&steps, lines, max);
        is_a_map::<Pair<Key4>>(&steps, lines, max);
        is_a_map::<Pair<Key6>>(&steps, lines, max);
    }
}

/// At the load that tables promise nothing is refused, however long connections come and go.
fn holds_its_load<K: Numbered>(random: &mut Random) {
    let max = if cfg!(miri) { 200 } else { 20_000 };
    // without the slack, which would hide it
    let slots = <K::Line as Line<K>>::SLOTS;
    let lines = (u64::from(max) * 100).div_ceil(load_percent(slots) * slots as u64) as usize;
    let mut table = Table::<K>::with_lines(lines, max, random.secret()).expect("memory");
    let mut held: Vec<u32> = (0..max).collect();
    for n in 0..max * 5 {
        if n >= max {
            let at = random.next() as usize % held.len();
            let gone = K::numbered(std::mem::replace(&mut held[at], n));
            let found = table.find(&gone, 1, table.probe(&gone, 1)).expect("held");
            table.remove(found);
        }
        let key = K::numbered(n);
        let inserted = table.insert(key, table.probe(&key, 1), K::entry(n, Tick::from_ns(0)));
        assert_eq!(inserted, Ok(()), "{n} with {} of {} slots filled", table.len(), table.slots());
    }
}

#[test]
fn tables_of_every_kind_hold_their_load() {
    let mut random = Random(3);
    if !cfg!(miri) {
        holds_its_load::<Key4>(&mut random);
        holds_its_load::<Key6>(&mut random);
        holds_its_load::<Pair<Key4>>(&mut random);
        holds_its_load::<Pair<Key6>>(&mut random);
    }
}

#[test]
fn a_vacancy_is_filled_as_an_insertion_would_and_none_is_left_at_the_limit() {
    let (mut table, mut other) =
        (V4::new(500, SECRET).expect("memory"), V4::new(500, SECRET).expect("memory"));
    let deadline = Tick::from_ns(0).after(100);
    for n in 0..500 {
        let probe = table.probe(&key(n), 1);
        let vacancy = table.vacancy(probe).expect("room");
        table.fill(vacancy, key(n), probe, meta(n, deadline));
        other.insert(key(n), probe, meta(n, deadline)).expect("room");
        assert_eq!(table.find(&key(n), 1, probe), other.find(&key(n), 1, probe));
        assert!(table.find(&key(n), 1, probe).is_some());
    }
    assert_eq!(table.len(), 500);
    assert!(table.vacancy(table.probe(&key(500), 1)).is_none());
}

#[test]
fn a_sweep_that_stops_early_goes_on_from_there() {
    for ends in [1, 5, 40] {
        let mut table = V4::new(1000, SECRET).expect("memory");
        let (soon, late) = (Tick::from_ns(0).after(16), Tick::from_ns(0).after(1600));
        for n in 0..1000 {
            let probe = table.probe(&key(n), 1);
            table.insert(key(n), probe, meta(n, if n % 3 == 0 { late } else { soon })).expect("room");
        }
        let (now, lines, mut gone) = (Tick::from_ns(2_000_000_000), table.lines(), 0);
        while table.len() > 334 {
            let before = gone;
            table.sweep_some(lines, ends, now, |_, _| None, |_, _| gone += 1);
            assert!((1..ends + 3).contains(&(gone - before)), "{} of {ends}", gone - before);
        }
        assert_eq!(gone, 666);
    }
}
