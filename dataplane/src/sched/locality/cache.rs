//! Destination addresses and what is remembered of each: a chained hash table of fixed capacity.
//!
//! Source: IPVS, `ip_vs_lblc.c`: 1024 buckets; every minute, with more than 16384 entries, those unused for six minutes
//! go until enough are gone; every 30 minutes all that are unused for a day. The kernel grows the table as long as it
//! has memory (later ones up to half above the 16384); here that half is the capacity, and a new address finds no
//! place beyond it.

use std::net::IpAddr;

use super::EXPIRATION_S;
use crate::sched::hashed::{fold, hash_32};

/// Source: `IP_VS_LBLC_TAB_BITS`.
const BITS: u32 = 10;
const BUCKETS: usize = 1 << BITS;
/// Entries above which those go that were not used lately. Source: `ip_vs_lblc_init_svc`.
const MAX_SIZE: usize = BUCKETS * 16;
/// Entries that there is room for.
pub(super) const CAPACITY: usize = MAX_SIZE * 3 / 2;
/// Between two looks, s. Source: `CHECK_EXPIRE_INTERVAL`.
const INTERVAL_S: u32 = 60;
/// Looks between two full sweeps. Source: `COUNT_FOR_FULL_EXPIRATION`.
const LOOKS: u32 = 30;
/// Age from which on an entry goes when there are too many, s. Source: `ENTRY_TIMEOUT`.
const ENTRY_TIMEOUT_S: u32 = 6 * 60;
/// Buckets swept in one go: bounds how long a worker may wait for the lock.
const STRIDE: usize = 64;

/// No entry.
const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Node<V> {
    address: u128,
    value: V,
    used_s: u32,
    next: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Cache<V> {
    buckets: Box<[u32]>,
    nodes: Vec<Node<V>>,
    free: u32,
    entries: usize,
    rover: usize,
    looks: u32,
    next_look_s: Option<u32>,
    /// The control core's clock, s.
    pub now_s: u32,
}

/// A sweep under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    age_s: u32,
    /// Entries still to be removed; `None`: all of that age.
    goal: Option<usize>,
    buckets: usize,
}

/// IPv4 addresses by their place in IPv6, so that the families do not meet.
fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl<V> Cache<V> {
    /// Empty; its memory is reserved here and touched as entries come.
    pub fn new() -> Self {
        Self {
            buckets: vec![NIL; BUCKETS].into(),
            nodes: Vec::with_capacity(CAPACITY),
            free: NIL,
            entries: 0,
            rover: 0,
            looks: 1,
            next_look_s: None,
            now_s: 0,
        }
    }

    /// Number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// What is remembered of an address, which does not count as a use.
    pub fn peek(&self, address: IpAddr) -> Option<&V> {
        let wanted = wide(address);
        let mut at = self.buckets[hash_32(fold(address), BITS) as usize];
        loop {
            let node = self.nodes.get(at as usize)?;
            if node.address == wanted {
                return Some(&node.value);
            }
            at = node.next;
        }
    }

    /// What is remembered of an address, which counts as a use.
    pub fn get(&mut self, address: IpAddr) -> Option<&mut V> {
        let wanted = wide(address);
        let mut at = self.buckets[hash_32(fold(address), BITS) as usize];
        while at != NIL {
            let node = &self.nodes[at as usize];
            if node.address == wanted {
                break;
            }
            at = node.next;
        }
        let node = self.nodes.get_mut(at as usize)?;
        node.used_s = self.now_s;
        Some(&mut node.value)
    }

    /// Remembers an address that is not known; `None`: there is no room.
    pub fn insert(&mut self, address: IpAddr, value: V) -> Option<()> {
        let bucket = hash_32(fold(address), BITS) as usize;
        let node = Node { address: wide(address), value, used_s: self.now_s, next: self.buckets[bucket] };
        let at = if self.free != NIL {
            let at = self.free;
            self.free = self.nodes[at as usize].next;
            self.nodes[at as usize] = node;
            at
        } else if self.nodes.len() < CAPACITY {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            return None;
        };
        self.buckets[bucket] = at;
        self.entries += 1;
        Some(())
    }

    /// Once a second: whether it is time to sweep.
    pub fn look(&mut self, now_s: u32) -> Option<Sweep> {
        self.now_s = now_s;
        let due = *self.next_look_s.get_or_insert(now_s + INTERVAL_S);
        if now_s < due {
            return None;
        }
        self.next_look_s = Some(now_s + INTERVAL_S);
        if self.looks.is_multiple_of(LOOKS) {
            self.looks = 1;
            return Some(Sweep { age_s: EXPIRATION_S, goal: None, buckets: BUCKETS });
        }
        let excess = self.entries.saturating_sub(MAX_SIZE);
        if excess == 0 {
            self.looks += 1;
            return None;
        }
        let goal = (excess * 4 / 3).min(MAX_SIZE / 2);
        Some(Sweep { age_s: ENTRY_TIMEOUT_S, goal: Some(goal), buckets: BUCKETS })
    }

    /// The next part of a sweep; whether more is to be done. `gone` gets what was remembered.
    pub fn sweep(&mut self, sweep: &mut Sweep, mut gone: impl FnMut(&mut V)) -> bool {
        for _ in 0..STRIDE.min(sweep.buckets) {
            sweep.buckets -= 1;
            self.rover = (self.rover + 1) % BUCKETS;
            let removed = self.sweep_bucket(self.rover, sweep.age_s, &mut gone);
            if let Some(goal) = &mut sweep.goal {
                *goal = goal.saturating_sub(removed);
                if *goal == 0 {
                    return false;
                }
            }
        }
        sweep.buckets > 0
    }

    fn sweep_bucket(&mut self, bucket: usize, age_s: u32, gone: &mut impl FnMut(&mut V)) -> usize {
        let mut removed = 0;
        let (mut before, mut at) = (NIL, self.buckets[bucket]);
        while at != NIL {
            let node = &mut self.nodes[at as usize];
            let next = node.next;
            if self.now_s.saturating_sub(node.used_s) < age_s {
                before = at;
            } else {
                gone(&mut node.value);
                node.next = self.free;
                self.free = at;
                removed += 1;
                match before {
                    NIL => self.buckets[bucket] = next,
                    before => self.nodes[before as usize].next = next,
                }
            }
            at = next;
        }
        self.entries -= removed;
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    fn run(cache: &mut Cache<u32>, now_s: u32) -> usize {
        let before = cache.len();
        if let Some(mut sweep) = cache.look(now_s) {
            while cache.sweep(&mut sweep, |_| {}) {}
        }
        before - cache.len()
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_a_day_old() {
        let mut cache = Cache::new();
        run(&mut cache, 0);
        for n in 0..3000 {
            assert_eq!(cache.insert(address(n), n), Some(()));
        }
        for n in 0..3000 {
            assert_eq!(cache.get(address(n)), Some(&mut { n }));
        }
        assert_eq!(cache.get(address(3000)), None);
        for minute in 1..24 * 60 {
            assert_eq!(run(&mut cache, minute * 60), 0, "minute {minute}");
            cache.get(address(7));
        }
        let gone: usize = (24 * 60..24 * 60 + 31).map(|minute| run(&mut cache, minute * 60)).sum();
        assert_eq!((gone, cache.len()), (2999, 1));
        assert_eq!(cache.get(address(7)), Some(&mut 7));
    }

    #[test]
    fn too_many_entries_are_thinned_out_by_age() {
        let mut cache = Cache::new();
        run(&mut cache, 0);
        for n in 0..CAPACITY as u32 {
            assert_eq!(cache.insert(address(n), n), Some(()));
        }
        assert_eq!(cache.insert(address(u32::MAX >> 8), 0), None, "full");
        for minute in 1..6 {
            assert_eq!(run(&mut cache, minute * 60), 0, "nothing is six minutes old");
        }
        let goal = MAX_SIZE / 2;
        let gone = run(&mut cache, 360);
        assert!((goal..goal + 100).contains(&gone), "{gone}");
        assert_eq!(cache.insert(address(u32::MAX >> 8), 5), Some(()));
        assert_eq!(cache.get(address(u32::MAX >> 8)), Some(&mut 5));
        assert_eq!(cache.nodes.len(), CAPACITY, "what was freed is used again");
    }
}
