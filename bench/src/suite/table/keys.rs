//! Keys of every kind, made from a number without memory.

use lb_dataplane::conn::{ConnKey, HashKey, Key4, Key6, Pair, TableKey};
use lb_dpdk::hash::KEY_LEN;

/// Secret of the tables: the same in every run.
pub const SECRET: HashKey =
    HashKey([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7, 0x1234_5678_9abc_def1]);

/// Protocol of the keys.
pub const TCP: u8 = 6;

/// A key that can be made from its number.
pub trait Made: TableKey {
    /// How it is called in results.
    const NAME: &'static str;

    /// The `n`-th key; all are different.
    fn made(n: u32) -> Self;
}

/// Addresses and ports of client `n` as one multiplication spreads them: every number another pair.
#[inline(always)]
fn client(n: u32) -> (u32, u16) {
    let mixed = n.wrapping_mul(0x9e37_79b1);
    (0x0a00_0000 | mixed >> 12, 1024 + (mixed & 0xfff) as u16)
}

impl Made for Key4 {
    const NAME: &'static str = "IPv4";

    #[inline(always)]
    fn made(n: u32) -> Self {
        let (address, port) = client(n);
        Key4::new(address.into(), port, 0xc0a8_9664.into(), 80)
    }
}

impl Made for Key6 {
    const NAME: &'static str = "IPv6";

    #[inline(always)]
    fn made(n: u32) -> Self {
        let (address, port) = client(n);
        let wide = |low: u32| (0x2001_0db8_u128 << 96 | u128::from(low)).into();
        Key6::new(wide(address), port, wide(0x0100_0000), 80)
    }
}

impl Made for Pair<Key4> {
    const NAME: &'static str = "IPv4 pair";

    #[inline(always)]
    fn made(n: u32) -> Self {
        Pair { tuple: Key4::made(n), other: Key4::made(!n) }
    }
}

impl Made for Pair<Key6> {
    const NAME: &'static str = "IPv6 pair";

    #[inline(always)]
    fn made(n: u32) -> Self {
        Pair { tuple: Key6::made(n), other: Key6::made(!n) }
    }
}

/// The same 5-tuple in DPDK's key: 13 bytes, padded to 16, which `rte_hash` compares in one instruction.
#[inline(always)]
pub fn padded(n: u32) -> [u8; KEY_LEN] {
    let (address, port) = client(n);
    let words = [address, 0xc0a8_9664, u32::from(port) << 16 | 80, u32::from(TCP)];
    let wide = words.iter().rev().fold(0_u128, |wide, word| wide << 32 | u128::from(*word));
    wide.to_le_bytes()
}

/// Numbers below `count` in random order, each once a round: a generator of full period, others skipped.
#[derive(Clone, Copy)]
pub struct Order {
    mask: u32,
    count: u32,
    at: u32,
}

impl Order {
    /// Numbers below `count`.
    pub fn new(count: u32) -> Self {
        Self { mask: count.next_power_of_two() - 1, count, at: 0 }
    }

    /// The next number.
    #[inline(always)]
    pub fn next(&mut self) -> u32 {
        loop {
            // Hull and Dobell: full period modulo a power of two; the upper bits alone are random
            self.at = self.at.wrapping_mul(0x915f_77f5).wrapping_add(0x3c6e_f35f) & self.mask;
            let bits = self.mask.count_ones();
            let mixed = (self.at ^ self.at >> (bits / 2).max(1)) & self.mask;
            if mixed < self.count {
                return mixed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_comes_once_a_round() {
        for count in [1, 2, 5, 1000, 4096] {
            let mut order = Order::new(count);
            let mut seen: Vec<u32> = (0..count).map(|_| order.next()).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn keys_are_different() {
        let keys: HashSet<_> = (0..10_000).map(padded).collect();
        assert_eq!(keys.len(), 10_000);
        for n in 0..1000 {
            assert_ne!(Key4::made(n), Key4::made(n + 1));
            assert_ne!(Key6::made(n), Key6::made(n + 1));
        }
    }
}
