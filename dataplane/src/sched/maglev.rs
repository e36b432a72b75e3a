//! Maglev's consistent hashing.
//!
//! Source: Eisenbud et al., Maglev, NSDI 2016, section 3.4. Every server has its own permutation of the table's
//! slots; in turn each takes the next free slot of its permutation. Weights: a server takes part in a share
//! `weight / max_weight` of the turns (as Envoy and Katran do), so slots are in proportion to weights. Hashes are
//! keyed by the cluster's secret: directors with the same secret and servers agree on every flow, and nobody
//! without it can aim at one server.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::fill::{Modulus, Turn, fill};
use crate::ids::DestId;

/// A keyed 64-bit hash that is the same on every director with the same secret.
#[derive(Clone, Debug)]
pub struct FlowHash {
    flows: SipHasher13,
    offsets: SipHasher13,
    skips: SipHasher13,
}

impl FlowHash {
    /// From 128 secret bits.
    pub fn new(key: [u64; 2]) -> Self {
        let salted = |salt: u64| SipHasher13::new_with_keys(key[0] ^ salt, key[1]);
        Self { flows: salted(0), offsets: salted(1), skips: salted(2) }
    }

    /// From the cluster's secret, any text; without one from randomness.
    pub fn from_secret(secret: Option<&str>) -> Self {
        match secret {
            Some(text) => Self::new([0, 1].map(|word| {
                let mut sip = SipHasher13::new_with_keys(word, 0);
                sip.write(text.as_bytes());
                sip.finish()
            })),
            None => {
                let random = crate::conn::HashKey::random().0;
                Self::new([random[0], random[1]])
            }
        }
    }

    /// Hash of a client. Port 0 stands for the address alone.
    pub fn of(&self, address: IpAddr, port: u16) -> u64 {
        let mut sip = self.flows;
        write_address(&mut sip, address);
        sip.write(&port.to_be_bytes());
        sip.finish()
    }
}

/// As bytes in wire order, so that the result does not depend on the machine.
fn write_address(sip: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => sip.write(&v4.octets()),
        IpAddr::V6(v6) => sip.write(&v6.octets()),
    }
}

/// A server to be given slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What its permutation is made from, so that all directors agree.
    pub address: IpAddr,
    /// Likewise its port where that differs from the service's, else 0: so services with the same servers give a
    /// client the same one.
    pub port: u16,
    /// Share of the slots; 0: none.
    pub weight: u32,
    /// What the slots hold.
    pub dest: DestId,
}

/// Slot to destination.
#[derive(Debug, PartialEq, Eq)]
pub struct MaglevTable {
    slots: Box<[DestId]>,
}

impl MaglevTable {
    /// Fills the table. Members with weight 0 get no slot; without any other member the table is empty.
    ///
    /// `size`: number of slots; prime, as the permutations need, and below 2^20.
    ///
    /// Cost: see [`fill`](super::fill).
    pub fn new(members: &[Member], size: usize, hash: &FlowHash) -> Self {
        let modulus = Modulus::new(size as u64);
        let turns = Self::turns(members, size, hash);
        Self { slots: fill(&turns, modulus).into_iter().map(DestId).collect() }
    }

    /// The permutations of the members that get slots, in the order of turns; values are destinations.
    pub fn turns(members: &[Member], size: usize, hash: &FlowHash) -> Vec<Turn> {
        let mut able: Vec<&Member> = members.iter().filter(|member| member.weight > 0).collect();
        // the order of turns decides who gets a contested slot: it must not depend on the order of configuration
        able.sort_by_key(|member| (member.address, member.port));
        let modulus = Modulus::new(size as u64);
        let other = Modulus::new((size as u64).saturating_sub(1));
        let turn = |member: &&Member| {
            let keyed = |mut sip: SipHasher13| {
                write_address(&mut sip, member.address);
                if member.port != 0 {
                    sip.write(&member.port.to_be_bytes());
                }
                sip.finish()
            };
            Turn {
                offset: modulus.reduce(keyed(hash.offsets)) as u32,
                skip: other.reduce(keyed(hash.skips)) as u32 + 1,
                weight: member.weight,
                value: member.dest.0,
            }
        };
        able.iter().map(turn).collect()
    }

    /// What each slot holds.
    pub fn slots(&self) -> &[DestId] {
        &self.slots
    }

    /// The destination of a flow with this hash: that of its slot, or of the first slot behind it whose destination
    /// is `able`.
    ///
    /// Cost: O(1), for those whose own destination is able; the caller makes sure that there is an able one.
    pub fn pick(&self, hash: u64, able: impl Fn(DestId) -> bool) -> Option<DestId> {
        // the high half scaled to the table: no division
        let at = (((hash >> 32) * self.slots.len() as u64) >> 32) as usize;
        let (before, behind) = self.slots.split_at_checked(at)?;
        behind.iter().chain(before).copied().find(|dest| able(*dest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 65537;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(n, &weight): (usize, &u32)| Member {
            address: IpAddr::from([10, 0, 1, n as u8]),
            port: 0,
            weight,
            dest: DestId(n as u32),
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn shares(table: &MaglevTable, of: usize) -> Vec<f64> {
        let mut counts = vec![0usize; of];
        table.slots.iter().for_each(|dest| counts[dest.0 as usize] += 1);
        counts.iter().map(|count| *count as f64 / SLOTS as f64).collect()
    }

    fn hash() -> FlowHash {
        FlowHash::from_secret(Some("a secret"))
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn slots_are_in_proportion_to_weights() {
        let table = MaglevTable::new(&members(&[1, 2, 3, 0]), SLOTS, &hash());
        for (share, want) in shares(&table, 4).iter().zip([1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0, 0.0]) {
            assert!((share - want).abs() < 0.001, "{share} instead of {want}");
        }
    }

    #[test]
    fn without_an_able_member_nothing_is_picked() {
        assert_eq!(MaglevTable::new(&[], SLOTS, &hash()).pick(7, |_| true), None);
        assert_eq!(MaglevTable::new(&members(&[0, 0]), SLOTS, &hash()).pick(7, |_| true), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn the_order_of_configuration_does_not_matter_and_the_secret_does() {
        let mut list = members(&[1; 10]);
        let table = MaglevTable::new(&list, SLOTS, &hash());
        list.reverse();
        assert_eq!(MaglevTable::new(&list, SLOTS, &hash()), table);
        assert_ne!(MaglevTable::new(&list, SLOTS, &FlowHash::from_secret(Some("another"))), table);
    }

    /// The paper's figure 12 finds a few percent of moved entries at 65537 slots; the bound here is its order.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn removing_one_of_many_moves_few_others() {
        let mut list = members(&[1; 100]);
        let before = MaglevTable::new(&list, SLOTS, &hash());
        list[37].weight = 0;
        let after = MaglevTable::new(&list, SLOTS, &hash());
        let moved = before.slots.iter().zip(&after.slots).filter(|(a, b)| a != b && a.0 != 37).count();
        assert!(moved < SLOTS / 33, "{moved} slots of other servers moved");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn servers_on_two_ports_of_one_address_share_the_slots() {
        let mut list = members(&[1, 1]);
        (list[1].address, list[1].port) = (list[0].address, 8080);
        let shares = shares(&MaglevTable::new(&list, SLOTS, &hash()), 2);
        assert!(shares.iter().all(|share| (share - 0.5).abs() < 0.001), "{shares:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn the_large_table_is_nearer_to_the_weights() {
        let list = members(&[7, 11, 13, 17]);
        let table = MaglevTable::new(&list, 655_373, &hash());
        let mut counts = [0usize; 4];
        table.slots.iter().for_each(|dest| counts[dest.0 as usize] += 1);
        for (count, member) in counts.iter().zip(&list) {
            let (share, want) = (*count as f64 / 655_373.0, f64::from(member.weight) / 48.0);
            assert!((share - want).abs() < 0.000_01, "{share} instead of {want}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn flows_of_a_full_server_spread_over_the_others_and_the_rest_stay() {
        let table = MaglevTable::new(&members(&[1; 4]), SLOTS, &hash());
        let mut others = [0; 4];
        for flow in 0..4000u64 {
            let hash = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let home = table.pick(hash, |_| true).expect("a server");
            let now = table.pick(hash, |dest| dest.0 != 2).expect("another server");
            if home.0 == 2 { others[now.0 as usize] += 1 } else { assert_eq!(home, now) }
        }
        assert!(others.iter().enumerate().all(|(at, count)| (*count > 200) == (at != 2)), "{others:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn flows_spread_over_the_servers() {
        let table = MaglevTable::new(&members(&[1; 4]), SLOTS, &hash());
        let mut counts = [0; 4];
        for port in 0..40_000u16 {
            let dest =
                table.pick(hash().of(IpAddr::from([192, 168, 150, 1]), port), |_| true).expect("a server");
            counts[dest.0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
