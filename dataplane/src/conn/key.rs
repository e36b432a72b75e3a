//! The key of a connection and its hash.
//!
//! A key is what the client's packets carry: client address and port, virtual address and port, as words that lie as in
//! the packet, so that nothing needs to be swapped. The protocol takes part in the hash and in every comparison, but lives beside the key, in
//! [`Meta`](super::entry::Meta), which has bits to spare.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute, transmute_ref};

use super::line::{Line, Line4, Line6, PairLine4, PairLine6};
use super::pair::Pair;

/// Secret of a table's hash, random at every start: who does not know it cannot aim at one line.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(pub [u64; 4]);

impl HashKey {
    /// The same, or one whose last word is odd: what is multiplied by that keeps all its bits.
    pub(super) fn odd(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([a, b, c, d | 1])
    }

    /// From the operating system's randomness, by way of the standard library's per-process keys.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(std::array::from_fn(|word| RandomState::new().hash_one(word)))
    }
}

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
///
/// Keys are folded twice: once alone is multiplication by a constant for keys that differ in their ports alone, and of
/// such sets the two lines depend on each other (Dietzfelbinger and Schellbach 2009, on cuckoo hashing with simple
/// universal hash classes).
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// What a table can hold under a hash: the key of a connection or a [`Pair`].
pub trait TableKey: Copy + Eq + Default + std::fmt::Debug {
    /// How a table keeps such keys.
    type Line: Line<Self>;

    /// 64 bits of which both halves are fit to pick a line.
    fn hash(&self, protocol: u8, key: &HashKey) -> u64;
}

/// The key of a connection.
pub trait ConnKey: TableKey {
    /// Address family of the key.
    type Address: Copy + Eq;
    /// How a table keeps pairs of such keys.
    type PairLine: Line<Pair<Self>>;

    /// Makes a key. Ports in host order.
    fn new(client: Self::Address, client_port: u16, vip: Self::Address, vip_port: u16) -> Self;
    /// Client address.
    fn client(&self) -> Self::Address;
    /// Client port, host order.
    fn client_port(&self) -> u16;
    /// Virtual address.
    fn vip(&self) -> Self::Address;
    /// Virtual port, host order.
    fn vip_port(&self) -> u16;
}

/// Client address, VIP, ports: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Key4([u32; 3]);

/// Client address, VIP, ports: 36 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Key6([u32; 9]);

/// Both ports in one word, host order.
#[inline]
fn ports(client: u16, vip: u16) -> u32 {
    u32::from(client) << 16 | u32::from(vip)
}

impl Key4 {
    /// Client, VIP, ports, each as `u32::from_le_bytes` reads it in a packet.
    #[inline(always)]
    pub(super) fn words(&self) -> &[u32; 3] {
        &self.0
    }

    /// What [`Key4::words`] gave.
    #[inline(always)]
    pub(crate) fn of_words(words: [u32; 3]) -> Self {
        Self(words)
    }
}

impl TableKey for Key4 {
    type Line = Line4;

    #[inline(always)]
    fn hash(&self, protocol: u8, key: &HashKey) -> u64 {
        let addresses = u64::from(self.0[1]) << 32 | u64::from(self.0[0]);
        let rest = u64::from(self.0[2]) << 8 | u64::from(protocol);
        let mixed = fold(addresses ^ key.0[0], rest ^ key.0[1]);
        fold(mixed ^ key.0[2], key.0[3])
    }
}

impl ConnKey for Key4 {
    type Address = Ipv4Addr;
    type PairLine = PairLine4;

    #[inline]
    fn new(client: Ipv4Addr, client_port: u16, vip: Ipv4Addr, vip_port: u16) -> Self {
        let ports = ports(client_port, vip_port).swap_bytes();
        Self([client.to_bits().swap_bytes(), vip.to_bits().swap_bytes(), ports])
    }

    #[inline]
    fn client(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0[0].swap_bytes())
    }

    #[inline]
    fn client_port(&self) -> u16 {
        (self.0[2] as u16).swap_bytes()
    }

    #[inline]
    fn vip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0[1].swap_bytes())
    }

    #[inline]
    fn vip_port(&self) -> u16 {
        ((self.0[2] >> 16) as u16).swap_bytes()
    }
}

impl Key6 {
    /// Client, VIP, ports, as they lie in a packet without extension headers.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8; 36]) -> Self {
        let words: [u32; 9] = transmute!(*bytes);
        Self(words.map(u32::from_le))
    }

    /// Whether it is the same key: three comparisons, none of them by a call.
    #[inline(always)]
    pub(super) fn is(&self, other: &Self) -> bool {
        let [ours, theirs]: [&[u8; 36]; 2] = [transmute_ref!(&self.0), transmute_ref!(&other.0)];
        let wide = |bytes: &[u8; 36], at: usize| {
            bytes[at..].first_chunk::<16>().map_or(0, |word| u128::from_le_bytes(*word))
        };
        let differs = (wide(ours, 0) ^ wide(theirs, 0)) | (wide(ours, 16) ^ wide(theirs, 16));
        differs == 0 && self.0[8] == other.0[8]
    }

    /// Two words as they lie in memory.
    #[inline(always)]
    fn pair(&self, at: usize) -> u64 {
        u64::from(self.0[at + 1]) << 32 | u64::from(self.0[at])
    }

    fn address(words: [u32; 4]) -> Ipv6Addr {
        Ipv6Addr::from_bits(words.iter().fold(0, |wide, word| wide << 32 | u128::from(word.swap_bytes())))
    }
}

impl TableKey for Key6 {
    type Line = Line6;

    #[inline(always)]
    fn hash(&self, protocol: u8, key: &HashKey) -> u64 {
        let client = fold(self.pair(0) ^ key.0[0], self.pair(2) ^ key.0[1]);
        let vip = fold(self.pair(4) ^ key.0[2], self.pair(6) ^ key.0[3]);
        let rest = u64::from(self.0[8]) << 8 | u64::from(protocol);
        let mixed = fold(client ^ rest ^ key.0[1], vip ^ key.0[0]);
        fold(mixed ^ key.0[2], key.0[3])
    }
}

impl ConnKey for Key6 {
    type Address = Ipv6Addr;
    type PairLine = PairLine6;

    #[inline]
    fn new(client: Ipv6Addr, client_port: u16, vip: Ipv6Addr, vip_port: u16) -> Self {
        let (c, v) = (client.to_bits(), vip.to_bits());
        let word = |wide: u128, shift: u32| ((wide >> shift) as u32).swap_bytes();
        Self([
            word(c, 96),
            word(c, 64),
            word(c, 32),
            word(c, 0),
            word(v, 96),
            word(v, 64),
            word(v, 32),
            word(v, 0),
            ports(client_port, vip_port).swap_bytes(),
        ])
    }

    fn client(&self) -> Ipv6Addr {
        let [a, b, c, d, ..] = self.0;
        Self::address([a, b, c, d])
    }

    fn client_port(&self) -> u16 {
        (self.0[8] as u16).swap_bytes()
    }

    fn vip(&self) -> Ipv6Addr {
        let [_, _, _, _, a, b, c, d, _] = self.0;
        Self::address([a, b, c, d])
    }

    fn vip_port(&self) -> u16 {
        ((self.0[8] >> 16) as u16).swap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_v4_key_gives_back_what_it_was_made_of(c: u32, cp: u16, v: u32, vp: u16) {
            let key = Key4::new(c.into(), cp, v.into(), vp);
            prop_assert_eq!((key.client(), key.client_port(), key.vip(), key.vip_port()), (c.into(), cp, v.into(), vp));
        }

        #[test]
        fn a_v6_key_gives_back_what_it_was_made_of(c: u128, cp: u16, v: u128, vp: u16) {
            let key = Key6::new(c.into(), cp, v.into(), vp);
            prop_assert_eq!((key.client(), key.client_port(), key.vip(), key.vip_port()), (c.into(), cp, v.into(), vp));
        }
    }

    /// Chi-square of `bins` over hashes of sequential ports and addresses, the worst input that traffic has.
    fn chi_square(shift: u32, hash: impl Fn(u32) -> u64) -> f64 {
        let (bins, per_bin) = (1024usize, 64u32);
        let mut counts = vec![0u32; bins];
        for n in 0..bins as u32 * per_bin {
            counts[(hash(n) >> shift) as usize % bins] += 1;
        }
        counts.iter().map(|c| (f64::from(*c) - f64::from(per_bin)).powi(2) / f64::from(per_bin)).sum()
    }

    #[test]
    fn sequential_keys_spread_evenly_in_both_halves() {
        let secret = HashKey([
            0x9e37_79b9_7f4a_7c15,
            0xd1b5_4a32_d192_ed03,
            0x8cb9_2ba7_2f3d_8dd7,
            0x1234_5678_9abc_def1,
        ]);
        for shift in [0, 22, 32, 54] {
            let v4 = chi_square(shift, |n| {
                Key4::new((0x0a00_0000 + n / 500).into(), 1024 + (n % 500) as u16, 0xc0a8_9664.into(), 80)
                    .hash(1, &secret)
            });
            let v6 = chi_square(shift, |n| {
                let client = Ipv6Addr::from_bits((0xfd00u128 << 112) + u128::from(n / 500));
                Key6::new(client, 1024 + (n % 500) as u16, Ipv6Addr::LOCALHOST, 80).hash(1, &secret)
            });
            // 1023 degrees of freedom: mean 1023, standard deviation 45; 7 deviations either way
            assert!((700.0..1340.0).contains(&v4), "v4 bits {shift}: {v4}");
            assert!((700.0..1340.0).contains(&v6), "v6 bits {shift}: {v6}");
        }
    }
}
