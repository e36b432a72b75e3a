//! What a packet's addresses become: the second index of connections whose directions carry different addresses.
//!
//! With full NAT and source NAT the way on needs one too, from the key to the reply's tuple: under another number in
//! place of the protocol ([`crate::local_port`]), so that the two kinds never meet.
//!
//! With NAT a reply carries (server, client); a [`Pair`] leads from that tuple to the connection's own key. It is a
//! key like any other, so the same table holds it; only its first half is hashed and compared. Invariant: a pair
//! is in its table exactly as long as its connection is in the connection table; it has no time of its own.

use super::key::{ConnKey, HashKey, TableKey};

/// Marks the number of a pair that leads on; no protocol has it.
pub(crate) const ONWARD: u8 = 0x40;

/// The protocol that a pair's number stands for.
#[inline(always)]
fn unmarked(number: u8) -> u8 {
    number & !ONWARD
}

/// A tuple as packets carry it, and the key that it leads to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair<K> {
    /// Source and destination of the packets that look for it, in the places of client and VIP.
    pub tuple: K,
    /// What it leads to; not looked at by comparisons.
    pub other: K,
}

impl<K: PartialEq> PartialEq for Pair<K> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.tuple == other.tuple
    }
}

impl<K: Eq> Eq for Pair<K> {}

impl<K: ConnKey> Pair<K> {
    /// A pair to look for.
    #[inline]
    pub fn wanted(tuple: K) -> Self {
        Self { tuple, other: K::default() }
    }
}

impl<K: ConnKey> TableKey for Pair<K> {
    type Line = K::PairLine;

    /// As of the tuple itself, whichever kind of pair it is: with one secret who has hashed a packet's key need not hash
    /// it again.
    #[inline(always)]
    fn hash(&self, protocol: u8, key: &HashKey) -> u64 {
        self.tuple.hash(unmarked(protocol), key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::{Key4, Meta, Table};

    #[test]
    fn a_reply_s_tuple_leads_to_its_connection() {
        let mut table = Table::<Pair<Key4>>::new(100, HashKey([3, 5, 7, 11])).expect("memory");
        let at = |a: u32, ap: u16, b: u32, bp: u16| Key4::new(a.into(), ap, b.into(), bp);
        for n in 0..50 {
            let pair = Pair { tuple: at(20, 8080, n, 1024), other: at(n, 1024, 10, 80) };
            let probe = table.probe(&pair, 6);
            table.insert(pair, probe, Meta::of_pair(6)).expect("room");
        }
        let wanted = Pair::wanted(at(20, 8080, 7, 1024));
        let found = table.find(&wanted, 6, table.probe(&wanted, 6)).expect("inserted");
        assert_eq!(table.key(found).other, at(7, 1024, 10, 80));
        let unknown = Pair::wanted(at(20, 8080, 77, 1024));
        assert!(table.find(&unknown, 6, table.probe(&unknown, 6)).is_none());
    }

    #[test]
    fn with_one_secret_a_packet_is_hashed_once_for_all_tables() {
        let secret = HashKey([3, 5, 7, 11]);
        let table = Table::<Key4>::new(3_000, secret).expect("memory");
        let pairs = Table::<Pair<Key4>>::new(70_000, secret).expect("memory");
        for n in 0..1000_u32 {
            let key = Key4::new(n.into(), 1024, 10.into(), 80);
            for number in [6, 17, 6 | ONWARD, 17 | ONWARD] {
                let (like, own) = (
                    pairs.probe_like(table.probe(&key, unmarked(number))),
                    pairs.probe(&Pair::wanted(key), number),
                );
                assert_eq!((like.first, like.second, like.tag()), (own.first, own.second, own.tag()));
            }
        }
    }
}
