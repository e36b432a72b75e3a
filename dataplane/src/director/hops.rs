//! Next hops in use, and those that are no longer.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::neighbor::{LinkId, NeighborBook, NeighborId};
use crate::shards::Shards;

/// Who uses which next hop: destinations, gateways, and stations that workers met.
#[derive(Debug, Default)]
pub struct Hops {
    /// Users, and the generation of the snapshot without it when the last one went; by index.
    uses: Vec<(u32, u64)>,
    /// What snapshots hold: all with a user.
    pub published: Shards<(LinkId, IpAddr), NeighborId>,
    /// Those without, by the generation of the snapshot that no longer has them.
    idle: VecDeque<(u64, NeighborId)>,
}

impl Hops {
    fn at(&mut self, id: NeighborId) -> Option<&mut (u32, u64)> {
        if id == NeighborId::KERNEL {
            return None;
        }
        let at = id.0 as usize;
        if self.uses.len() <= at {
            self.uses.resize(at + 1, (0, 0));
        }
        self.uses.get_mut(at)
    }

    /// A next hop has one more user.
    pub fn hold(&mut self, book: &NeighborBook, id: NeighborId) {
        let Some((uses, _)) = self.at(id) else { return };
        *uses += 1;
        if *uses == 1
            && let Some(address) = book.address(id)
        {
            self.published.insert(address, id);
        }
    }

    /// It has one less. `building`: generation of the snapshot about to be built.
    pub fn release(&mut self, book: &NeighborBook, id: NeighborId, building: u64) {
        let Some((uses, since)) = self.at(id) else { return };
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            *since = building;
            self.idle.push_back((building, id));
            if let Some(address) = book.address(id) {
                self.published.remove(&address);
            }
        }
    }

    /// It may have been asked for in vain.
    pub fn spare(&mut self, id: NeighborId, building: u64) {
        let Some((uses, since)) = self.at(id) else { return };
        if *uses == 0 {
            *since = building;
            self.idle.push_back((building, id));
        }
    }

    /// Forgets those that nobody uses and no worker can see. `seen`: oldest generation that a worker uses.
    pub fn forget(&mut self, book: &mut NeighborBook, seen: u64) {
        while let Some(&(since, id)) = self.idle.front().filter(|(since, _)| *since <= seen) {
            self.idle.pop_front();
            // it may have been used again, and left again later
            if self.at(id).is_some_and(|now| *now == (0, since)) {
                book.forget(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_forgotten_when_the_last_snapshot_with_it_is_gone() {
        let (mut book, mut hops) = (NeighborBook::new(4), Hops::default());
        let address = (LinkId(0), IpAddr::from([10, 0, 0, 1]));
        let id = book.intern(address.0, address.1).unwrap();
        hops.hold(&book, id);
        hops.hold(&book, id);
        hops.release(&book, id, 2);
        assert_eq!(hops.published.get(&address), Some(&id));
        hops.release(&book, id, 3);
        assert_eq!(hops.published.get(&address), None);
        hops.hold(&book, id);
        hops.release(&book, id, 5);
        hops.forget(&mut book, 4);
        assert_eq!(book.rows(0).len(), 1, "generation 4 has it");
        hops.forget(&mut book, 5);
        assert_eq!(book.rows(0).len(), 0);
    }
}
