//! Which tuples may be those of servers' replies: asked for every packet, before any table.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

/// Bits for each address: one in 32 of those that are not in the filter passes it.
const BITS: usize = 32;

/// Where replies come from (servers of NAT) and go to (local ends of full NAT and source NAT), made for fast answers.
///
/// Says the same as the sets that it was made of.
#[derive(Clone, Debug, Default)]
pub struct ReplyEnds {
    sources: Filter,
    targets: Filter,
    /// Address, port (0: any), protocol.
    servers: HashSet<(u128, u32), Hash>,
    /// Address, family alone.
    local: HashSet<(u128, u32), Hash>,
}

/// A bit for every address, by its hash; never says no for one that is in it.
#[derive(Clone, Debug, Default)]
struct Filter(Box<[u64]>);

/// What is looked up was configured, so nobody gains from keys that meet.
type Hash = BuildHasherDefault<Folded>;

#[derive(Clone, Copy, Debug, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }

    #[inline]
    fn write_u128(&mut self, wide: u128) {
        self.write_u64(wide as u64);
        self.write_u64((wide >> 64) as u64);
    }
}

/// An address of either family as a number; those of IPv4 as IPv6 maps them (RFC 4291 section 2.5.5.2).
#[inline]
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => 0xffff << 32 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Filter {
    fn of(addresses: impl ExactSizeIterator<Item = u128>) -> Self {
        if addresses.len() == 0 {
            return Self::default();
        }
        let words = (addresses.len() * BITS / 64).next_power_of_two().max(4);
        let mut filter = Self(vec![0; words].into());
        for address in addresses {
            let (word, bit) = filter.place(address);
            filter.0[word] |= bit;
        }
        filter
    }

    /// Of at least one word.
    #[inline]
    fn place(&self, address: u128) -> (usize, u64) {
        let folded = (address as u64 ^ (address >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((folded >> 32) as usize & (self.0.len() - 1), 1 << (folded >> 58))
    }

    #[inline]
    fn may_hold(&self, address: u128) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (word, bit) = self.place(address);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

impl ReplyEnds {
    /// Of what a snapshot holds: [`nat_servers`](crate::snapshot::Snapshot::nat_servers) and
    /// [`translated`](crate::snapshot::Snapshot::translated).
    pub fn new(servers: &HashSet<(IpAddr, u16, u8)>, local: &HashSet<IpAddr>) -> Self {
        Self {
            sources: Filter::of(servers.iter().map(|(address, ..)| number(*address))),
            targets: Filter::of(local.iter().map(|address| number(*address))),
            servers: servers
                .iter()
                .map(|(address, port, of)| (number(*address), rest(*address, *port, *of)))
                .collect(),
            local: local.iter().map(|address| (number(*address), rest(*address, 0, 0))).collect(),
        }
    }

    /// Whether a packet of this protocol, IANA number, from `src` and `port` to `dst` may be a reply; see
    /// [`Snapshot::is_reply`](crate::snapshot::Snapshot::is_reply).
    #[inline]
    pub fn is_reply(&self, (src, port): (IpAddr, u16), dst: IpAddr, protocol: u8) -> bool {
        let (from, to) = (number(src), number(dst));
        self.targets.may_hold(to) && self.local.contains(&(to, rest(dst, 0, 0)))
            || self.sources.may_hold(from)
                && (self.servers.contains(&(from, rest(src, port, protocol)))
                    || self.servers.contains(&(from, rest(src, 0, protocol))))
    }
}

/// What is looked up beside the number of an address: its family too, as IPv6 can carry what stands for IPv4's.
#[inline]
fn rest(address: IpAddr, port: u16, protocol: u8) -> u32 {
    u32::from(address.is_ipv6()) << 24 | u32::from(port) << 8 | u32::from(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few addresses of both families, some of which stand for each other.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..64).prop_map(|n| IpAddr::from((0x0a00_0000 + n * 7).to_be_bytes())),
            (0u128..64).prop_map(|n| IpAddr::from(((0xfd00 << 112) | (n * 7)).to_be_bytes())),
            (0u128..64).prop_map(|n| IpAddr::from((0xffff_0a00_0000 + n * 7).to_be_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn it_says_what_the_sets_say(
            servers in prop::collection::hash_set((address(), 0u16..3, 6u8..8), 0..50),
            local in prop::collection::hash_set(address(), 0..50),
            asked in prop::collection::vec((address(), 0u16..4, address(), 6u8..8), 200),
        ) {
            let ends = ReplyEnds::new(&servers, &local);
            for (src, port, dst, protocol) in asked {
                let said = local.contains(&dst)
                    || servers.contains(&(src, port, protocol))
                    || servers.contains(&(src, 0, protocol));
                prop_assert_eq!(ends.is_reply((src, port), dst, protocol), said);
            }
        }
    }
}
