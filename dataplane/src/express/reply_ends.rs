//! Which addresses may be those of servers' replies: asked for every packet, before any table.

use std::net::IpAddr;
use std::sync::Arc;

/// Bits for each address: one in 32 of those that are not in the filter passes it.
const BITS: usize = 32;

/// Where replies come from (servers of NAT) and go to (local ends of full NAT and source NAT).
///
/// A hint: never says no of an address that was added, and seldom yes of another; [`Snapshot::is_reply`] asks the sets
/// themselves then. Copies share their bits until one changes. Cost of a change: a copy of the bits, four bytes an
/// address.
///
/// [`Snapshot::is_reply`]: crate::snapshot::Snapshot::is_reply
#[derive(Clone, Debug, Default)]
pub struct ReplyEnds {
    sources: Filter,
    targets: Filter,
}

/// A bit for every address, by its hash.
#[derive(Clone, Debug, Default)]
struct Filter {
    words: Arc<[u64]>,
    /// Additions since it was made; addresses that went stay in it until then.
    added: usize,
}

/// An address of either family in 64 bits; some IPv6 addresses share theirs with others.
#[inline(always)]
fn folded(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ v6.to_bits() as u64,
    }
}

impl Filter {
    fn add(&mut self, address: IpAddr, all: impl Iterator<Item = IpAddr>) {
        if (self.added + 1) * BITS > self.words.len() * 64 {
            let all: Vec<IpAddr> = all.collect();
            let words = (2 * all.len() * BITS / 64).next_power_of_two().max(4);
            (self.words, self.added) = (vec![0; words].into(), 0);
            all.into_iter().for_each(|address| self.mark(address));
        }
        self.mark(address);
    }

    fn mark(&mut self, address: IpAddr) {
        let (at, bit) = self.place(address);
        if let Some(word) = Arc::make_mut(&mut self.words).get_mut(at) {
            *word |= bit;
        }
        self.added += 1;
    }

    /// Word, of a power of two of them, and bit.
    #[inline(always)]
    fn place(&self, address: IpAddr) -> (usize, u64) {
        let mixed = folded(address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as usize & self.words.len().wrapping_sub(1), 1 << (mixed >> 58))
    }

    #[inline(always)]
    fn may_hold(&self, address: IpAddr) -> bool {
        let (at, bit) = self.place(address);
        self.words.get(at).is_some_and(|word| word & bit != 0)
    }
}

impl ReplyEnds {
    /// A server whose replies pass the director. `all`: those that there are, this one included or not.
    pub fn add_source(&mut self, address: IpAddr, all: impl Iterator<Item = IpAddr>) {
        self.sources.add(address, all);
    }

    /// A local end. `all`: those that there are, this one included or not.
    pub fn add_target(&mut self, address: IpAddr, all: impl Iterator<Item = IpAddr>) {
        self.targets.add(address, all);
    }

    /// Whether replies may come from an address.
    #[inline(always)]
    pub fn may_be_from(&self, address: IpAddr) -> bool {
        self.sources.may_hold(address)
    }

    /// Whether replies may go to an address.
    #[inline(always)]
    pub fn may_be_to(&self, address: IpAddr) -> bool {
        self.targets.may_hold(address)
    }

    /// These sources and those targets.
    pub fn with_targets_of(&self, targets: &Self) -> Self {
        Self { sources: self.sources.clone(), targets: targets.targets.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|n| IpAddr::from(n.to_be_bytes())),
            any::<u128>().prop_map(|n| IpAddr::from(n.to_be_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn what_was_added_is_known_and_seldom_anything_else(
            added in prop::collection::vec(address(), 1..500),
            others in prop::collection::vec(address(), 1000),
        ) {
            let mut ends = ReplyEnds::default();
            let mut all = HashSet::new();
            prop_assert!(others.iter().all(|other| !ends.may_be_from(*other) && !ends.may_be_to(*other)));
            for address in &added {
                all.insert(*address);
                ends.add_source(*address, all.iter().copied());
                let copy = ends.clone();
                ends.add_target(*address, all.iter().copied());
                prop_assert!(copy.may_be_from(*address));
            }
            prop_assert!(added.iter().all(|address| ends.may_be_from(*address) && ends.may_be_to(*address)));
            let wrong = others.iter().filter(|other| ends.may_be_from(**other) && !all.contains(*other)).count();
            // at most one bit in 32 is set
            prop_assert!(wrong < 100, "{wrong} of 1000");
        }
    }
}
