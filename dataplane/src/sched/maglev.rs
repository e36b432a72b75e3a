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

use crate::ids::DestId;

/// Slots of a table; prime, as the permutations need. The paper's small size (its section 5.3).
pub const SLOTS: usize = 65537;

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
    /// Cost: about `SLOTS * ln(SLOTS)` steps (the paper's bound), on the control core.
    pub fn new(members: &[Member], hash: &FlowHash) -> Self {
        let mut able: Vec<&Member> = members.iter().filter(|member| member.weight > 0).collect();
        // the order of turns decides who gets a contested slot: it must not depend on the order of configuration
        able.sort_by_key(|member| member.address);
        let Some(max_weight) = able.iter().map(|member| u64::from(member.weight)).max() else {
            return Self { slots: Box::default() };
        };
        struct Turn {
            next: usize,
            skip: usize,
            credit: u64,
        }
        let mut turns: Vec<Turn> = able
            .iter()
            .map(|member| {
                let keyed = |mut sip: SipHasher13| {
                    write_address(&mut sip, member.address);
                    sip.finish()
                };
                let next = (keyed(hash.offsets) % SLOTS as u64) as usize;
                let skip = (keyed(hash.skips) % (SLOTS as u64 - 1)) as usize + 1;
                Turn { next, skip, credit: 0 }
            })
            .collect();
        const FREE: DestId = DestId(u32::MAX);
        let mut slots = vec![FREE; SLOTS];
        let mut left = SLOTS;
        while left > 0 {
            for (turn, member) in turns.iter_mut().zip(&able) {
                turn.credit += u64::from(member.weight);
                if turn.credit < max_weight {
                    continue;
                }
                turn.credit -= max_weight;
                while slots[turn.next] != FREE {
                    turn.next = (turn.next + turn.skip) % SLOTS;
                }
                slots[turn.next] = member.dest;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { slots: slots.into() }
    }

    /// The destination of a flow with this hash.
    pub fn pick(&self, hash: u64) -> Option<DestId> {
        if self.slots.is_empty() {
            return None;
        }
        // the high half scaled to the table: no division
        Some(self.slots[(((hash >> 32) * self.slots.len() as u64) >> 32) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(n, &weight): (usize, &u32)| Member {
            address: IpAddr::from([10, 0, 1, n as u8]),
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
        let table = MaglevTable::new(&members(&[1, 2, 3, 0]), &hash());
        for (share, want) in shares(&table, 4).iter().zip([1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0, 0.0]) {
            assert!((share - want).abs() < 0.001, "{share} instead of {want}");
        }
    }

    #[test]
    fn without_an_able_member_nothing_is_picked() {
        assert_eq!(MaglevTable::new(&[], &hash()).pick(7), None);
        assert_eq!(MaglevTable::new(&members(&[0, 0]), &hash()).pick(7), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn the_order_of_configuration_does_not_matter_and_the_secret_does() {
        let mut list = members(&[1; 10]);
        let table = MaglevTable::new(&list, &hash());
        list.reverse();
        assert_eq!(MaglevTable::new(&list, &hash()), table);
        assert_ne!(MaglevTable::new(&list, &FlowHash::from_secret(Some("another"))), table);
    }

    /// The paper's figure 12 finds a few percent of moved entries at 65537 slots; the bound here is its order.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn removing_one_of_many_moves_few_others() {
        let mut list = members(&[1; 100]);
        let before = MaglevTable::new(&list, &hash());
        list[37].weight = 0;
        let after = MaglevTable::new(&list, &hash());
        let moved = before.slots.iter().zip(&after.slots).filter(|(a, b)| a != b && a.0 != 37).count();
        assert!(moved < SLOTS / 33, "{moved} slots of other servers moved");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of pure arithmetic")]
    fn flows_spread_over_the_servers() {
        let table = MaglevTable::new(&members(&[1; 4]), &hash());
        let mut counts = [0; 4];
        for port in 0..40_000u16 {
            let dest = table.pick(hash().of(IpAddr::from([192, 168, 150, 1]), port)).expect("a server");
            counts[dest.0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
