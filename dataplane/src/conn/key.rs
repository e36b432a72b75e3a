//! The key of a connection and its hash.
//!
//! A key is what the client's packets carry: client address and port, virtual address and port, as words that lie as in
//! the packet, so that nothing needs to be swapped. The protocol takes part in the hash and in every comparison, but lives beside the key, in
//! [`Meta`](super::entry::Meta), which has bits to spare.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

use super::line::{Line, Line4, Line6, PairLine4, PairLine6};
use super::pair::Pair;
use super::simd::Level;

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

/// A protocol where it is hashed: of IPv4 beside the ports, which have the lower half.
#[inline(always)]
fn beside(protocol: u8) -> u64 {
    u64::from(protocol) << 32
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
///
/// Both addresses are one word, as the hash reads them: a load that spans two stores still on their way waits for them
/// (6 ns, bench `table`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed(4))]
pub struct Key4 {
    /// The client's in the lower half.
    addresses: u64,
    ports: u32,
}

/// Client address, VIP, ports: 36 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed(4))]
pub struct Key6 {
    /// First and second half of the client's, of the VIP, each as `u64::from_le_bytes` reads it in a packet.
    addresses: [u64; 4],
    ports: u32,
}

/// Both ports in one word, host order.
#[inline]
fn ports(client: u16, vip: u16) -> u32 {
    u32::from(client) << 16 | u32::from(vip)
}

impl Key4 {
    /// Client, VIP, ports, each as `u32::from_le_bytes` reads it in a packet.
    #[inline(always)]
    pub(super) fn words(&self) -> [u32; 3] {
        zerocopy::transmute!(*self)
    }

    /// What [`Key4::words`] gave.
    #[inline(always)]
    pub(crate) fn of_words([client, vip, ports]: [u32; 3]) -> Self {
        Self::of_packet(u64::from(client) | u64::from(vip) << 32, ports)
    }

    /// Of a client's packet: source and destination address, and both ports, as `from_le_bytes` reads them.
    #[inline(always)]
    pub(crate) fn of_packet(addresses: u64, ports: u32) -> Self {
        Self { addresses, ports }
    }
}

impl TableKey for Key4 {
    type Line = Line4;

    #[inline(always)]
    fn hash(&self, protocol: u8, key: &HashKey) -> u64 {
        let mixed = fold(self.addresses ^ key.0[0], u64::from(self.ports) ^ (key.0[1] ^ beside(protocol)));
        fold(mixed ^ key.0[2], key.0[3])
    }
}

impl ConnKey for Key4 {
    type Address = Ipv4Addr;
    type PairLine = PairLine4;

    #[inline]
    fn new(client: Ipv4Addr, client_port: u16, vip: Ipv4Addr, vip_port: u16) -> Self {
        let ports = ports(client_port, vip_port).swap_bytes();
        Self::of_words([client.to_bits().swap_bytes(), vip.to_bits().swap_bytes(), ports])
    }

    #[inline]
    fn client(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.addresses as u32).swap_bytes())
    }

    #[inline]
    fn client_port(&self) -> u16 {
        (self.ports as u16).swap_bytes()
    }

    #[inline]
    fn vip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(((self.addresses >> 32) as u32).swap_bytes())
    }

    #[inline]
    fn vip_port(&self) -> u16 {
        ((self.ports >> 16) as u16).swap_bytes()
    }
}

impl Key6 {
    /// Client, VIP, ports, as they lie in a packet without extension headers.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8; 36]) -> Self {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let ports = bytes.last_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        Self { addresses: [word(0), word(8), word(16), word(24)], ports }
    }

    /// Equality in line: `==` of 36 bytes is a call.
    #[inline(always)]
    pub(super) fn is<L: Level>(&self, level: L, (addresses, ports): (&[u64; 4], u32)) -> bool {
        let is_same = level.is_same(transmute_ref!(addresses), self.both_addresses());
        is_same && ports == self.ports
    }

    #[inline(always)]
    fn both_addresses(&self) -> &[u8; 32] {
        self.as_bytes().first_chunk().unwrap_or(&[0; 32])
    }

    /// Addresses, and ports, as they lie in it.
    #[inline(always)]
    pub(super) fn parts(&self) -> ([u64; 4], u32) {
        (self.addresses, self.ports)
    }

    /// What [`Key6::parts`] gave.
    #[inline(always)]
    pub(super) fn of_parts(addresses: [u64; 4], ports: u32) -> Self {
        Self { addresses, ports }
    }

    #[inline]
    fn address(&self, at: usize) -> Ipv6Addr {
        let words = self.addresses;
        Ipv6Addr::from_bits((u128::from(words[at]) | u128::from(words[at + 1]) << 64).swap_bytes())
    }
}

impl TableKey for Key6 {
    type Line = Line6;

    #[inline(always)]
    fn hash(&self, protocol: u8, key: &HashKey) -> u64 {
        let words = self.addresses;
        let client = fold(words[0] ^ key.0[0], words[1] ^ key.0[1]);
        let vip = fold(words[2] ^ key.0[2], words[3] ^ key.0[3]);
        let mixed = fold(client ^ u64::from(self.ports) ^ key.0[1], vip ^ (key.0[0] ^ beside(protocol)));
        fold(mixed ^ key.0[2], key.0[3])
    }
}

impl ConnKey for Key6 {
    type Address = Ipv6Addr;
    type PairLine = PairLine6;

    #[inline]
    fn new(client: Ipv6Addr, client_port: u16, vip: Ipv6Addr, vip_port: u16) -> Self {
        let (client, vip) = (client.to_bits().swap_bytes(), vip.to_bits().swap_bytes());
        let behind = |wide: u128| (wide >> 64) as u64;
        let addresses = [client as u64, behind(client), vip as u64, behind(vip)];
        Self { addresses, ports: ports(client_port, vip_port).swap_bytes() }
    }

    #[inline]
    fn client(&self) -> Ipv6Addr {
        self.address(0)
    }

    #[inline]
    fn client_port(&self) -> u16 {
        (self.ports as u16).swap_bytes()
    }

    #[inline]
    fn vip(&self) -> Ipv6Addr {
        self.address(2)
    }

    #[inline]
    fn vip_port(&self) -> u16 {
        ((self.ports >> 16) as u16).swap_bytes()
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
