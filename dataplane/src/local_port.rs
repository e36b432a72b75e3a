//! Local addresses and ports: what packets come from that the director sends in another's name (full NAT, source NAT).
//!
//! A connection gets a local end of its own, (address, port), towards one peer. It is chosen so that
//! [`steer::owner`] of the local end is the worker that chooses, to whom replies then come
//! without any rule in a NIC. The worker's table of pairs holds both ways: the reply's tuple leads to the connection's
//! key, and the key, under `forward`'s number in place of the protocol, to the reply's tuple. Numbers of the two kinds
//! are never the same, so that a key that equals a reply's tuple is no matter. What has a pair is in use: an end is
//! given out again only when its connection has ended.

use std::net::IpAddr;

use lb_config::ClientAddress;

use crate::conn::pair::ONWARD;
use crate::conn::{ConnKey, HashKey, Meta, Pair, Probe, Table};
use crate::flow::{Family, peer_of};
use crate::ids::DestId;
use crate::io::WorkerId;
use crate::snapshot::DestEntry;
use crate::steer;

/// First port that is given out: below are those of well-known services (RFC 6056 section 3.2).
pub const FIRST_PORT: u16 = 1024;
/// How many there are.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;
/// Ends that are looked up before a connection is refused: when nine of ten are in use, all of them are with a
/// probability of 0.9^128 = 1e-6.
const LOOKUPS: u32 = 128;

/// The golden ratio as a fraction of 2^64: whatever the turn, those before it divide the circle into parts of three
/// lengths at most, of which none is longer than 2.7 times another (Sós 1958).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// As a fraction of 2^64: from one end to another, beside it or some further.
const BESIDE: u64 = 1 << 49;

/// Steps from one port to the next that is tried, without a common divisor with [`PORTS`]: each leads to all ports. One
/// of them is drawn for each connection, so that ports in use do not grow into runs that the next search has to cross:
/// where four of five are in use, five are tried on average.
const STRIDES: [u32; 8] = [5_003, 10_007, 20_011, 25_013, 30_011, 40_009, 50_021, 60_013];

/// Where packets of a service by full NAT, or of a rule of source NAT, come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalEnds {
    /// Addresses, one at least.
    pub addresses: Vec<IpAddr>,
    /// How servers are told who their client is.
    pub client_address: ClientAddress,
}

/// The number under which a pair leads from a connection's key to its reply's tuple.
///
/// Protocols are 1, 6, 17, 58 and 132: with this bit changed none becomes another or 0. Of such a number it is the
/// protocol again.
#[inline]
pub(crate) fn forward(protocol: u8) -> u8 {
    protocol ^ ONWARD
}

/// Who chooses for whom.
pub(crate) struct Chooser<'a> {
    pub worker: WorkerId,
    pub workers: u16,
    pub steer_key: &'a HashKey,
    /// The end that is tried first, of all in turn: see [`turn`].
    pub turn: u64,
    /// Where the search begins when that is in use: unlike from one connection to the next.
    pub start: u64,
}

/// Whose turn it is: of a destination's `number`-th connection of a worker, whose stream of random numbers has this seed.
///
/// Each turn is as far as can be from those before it, so that an end towards a server rests for about as many connections
/// as there are ends before its turn comes again, and is then free unless it is that old (RFC 6056 section 3.3.3 has a
/// counter from a secret offset for the same end).
pub(crate) fn turn(seed: u64, dest: DestId, number: u64) -> u64 {
    seed.wrapping_add(u64::from(dest.0).wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(number.wrapping_mul(GOLDEN))
}

impl Chooser<'_> {
    /// An end of `ends` that is this worker's and free; `keep`, where it is not below [`FIRST_PORT`], if it can be had.
    ///
    /// Cost: at most [`LOOKUPS`] calls of `is_free`, and as many times the number of workers of the steering function.
    /// `None`: none was found.
    pub fn choose<A: Copy + Into<IpAddr>>(
        &self,
        ends: &[A],
        keep: Option<u16>,
        mut is_free: impl FnMut(A, u16) -> bool,
    ) -> Option<(A, u16)> {
        let count = u32::try_from(ends.len()).ok().filter(|count| *count > 0)?;
        // as large a part of a range as the number is of its own: no division
        let part = |number: u32, of: u32| ((u64::from(number) * u64::from(of)) >> 32) as u32;
        let begin = part(self.start as u32, count);
        let mut left = LOOKUPS;
        let mut fits = |address: A, port: u16| {
            let is_own = || steer::owner(address.into(), port, self.workers, self.steer_key) == self.worker;
            if left == 0 || self.workers > 1 && !is_own() {
                return false;
            }
            left -= 1;
            is_free(address, port)
        };
        if let Some(port) = keep.filter(|port| *port >= FIRST_PORT) {
            for at in 0..count.min(8) {
                let address = *ends.get(((begin + at) % count) as usize)?;
                if fits(address, port) {
                    return Some((address, port));
                }
            }
        }
        // of several workers each has some of the ends that are near
        let beside = if self.workers > 1 { 4 * u64::from(self.workers) } else { 1 };
        for near in 0..beside {
            let turn = self.turn.wrapping_add(near * BESIDE);
            let whole = (turn >> 32) * u64::from(count);
            let address = *ends.get((whole >> 32) as usize)?;
            let port = FIRST_PORT + part(whole as u32, PORTS) as u16;
            if fits(address, port) {
                return Some((address, port));
            }
        }
        let stride = STRIDES[self.start as usize % STRIDES.len()];
        let (mut at, mut port) = (begin, part((self.start >> 32) as u32, PORTS));
        for _ in 0..LOOKUPS * u32::from(self.workers.max(1)) {
            let end = (*ends.get(at as usize)?, FIRST_PORT + port as u16);
            if fits(end.0, end.1) {
                return Some(end);
            }
            at = if at + 1 == count { 0 } else { at + 1 };
            if at == begin {
                port = if port + stride < PORTS { port + stride } else { port + stride - PORTS };
            }
        }
        None
    }
}

/// What replies of a connection carry that has this local end; `None`: its server is of another family.
pub(crate) fn tuple<K: Family>(key: &K, entry: &DestEntry, end: (IpAddr, u16)) -> Option<K> {
    let peer = peer_of(key, entry)?;
    Some(K::new(peer.0, peer.1, K::address(end.0)?, end.1))
}

/// Enters both pairs of a connection whose replies carry `reply`; `false`: no room, nothing changed.
///
/// `on`: what the pair from the key to the reply's tuple knows, under [`forward`]'s number.
pub(crate) fn enter<K: ConnKey>(
    pairs: &mut Table<Pair<K>>,
    key: K,
    reply: K,
    protocol: u8,
    on: Meta,
) -> bool {
    let ahead = pairs.probe(&Pair::wanted(key), forward(protocol));
    let back = pairs.probe(&Pair::wanted(reply), protocol);
    enter_at(pairs, (key, reply), protocol, on, (ahead, back))
}

/// [`enter`], where it is known where the pairs may be: the one that leads on, and the one that leads back.
pub(crate) fn enter_at<K: ConnKey>(
    pairs: &mut Table<Pair<K>>,
    (key, reply): (K, K),
    protocol: u8,
    on: Meta,
    (ahead, back): (Probe, Probe),
) -> bool {
    if pairs.insert(Pair { tuple: key, other: reply }, ahead, on).is_err() {
        return false;
    }
    if pairs.insert(Pair { tuple: reply, other: key }, back, Meta::of_pair(protocol)).is_ok() {
        return true;
    }
    leave_at(pairs, key, protocol, ahead);
    false
}

/// Removes both pairs of a connection.
pub(crate) fn leave<K: ConnKey>(pairs: &mut Table<Pair<K>>, key: K, protocol: u8) {
    let ahead = pairs.probe(&Pair::wanted(key), forward(protocol));
    leave_at(pairs, key, protocol, ahead);
}

/// [`leave`], where it is known where the pair may be that leads on.
pub(crate) fn leave_at<K: ConnKey>(pairs: &mut Table<Pair<K>>, key: K, protocol: u8, ahead: Probe) {
    let Some(found) = pairs.find(&Pair::wanted(key), forward(protocol), ahead) else { return };
    let wanted = Pair::wanted(pairs.key(found).other);
    pairs.remove(found);
    let back = pairs.probe(&wanted, protocol);
    if let Some(found) = pairs.find(&wanted, protocol, back)
        && pairs.key(found).other == key
    {
        pairs.remove(found);
    }
}

/// The tuple that replies of a connection carry, and where its pair is.
pub(crate) fn reply_of<K: ConnKey>(
    pairs: &Table<Pair<K>>,
    key: K,
    protocol: u8,
) -> Option<(crate::conn::Found, K)> {
    let on = Pair::wanted(key);
    let found = pairs.find(&on, forward(protocol), pairs.probe(&on, forward(protocol)))?;
    Some((found, pairs.key(found).other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Key4;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    const KEY: HashKey =
        HashKey([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7, 0x1234_5678_9abc_def1]);

    fn chooser(worker: u16, workers: u16, start: u64) -> Chooser<'static> {
        Chooser { worker: WorkerId(worker), workers, steer_key: &KEY, turn: start.rotate_left(7), start }
    }

    #[test]
    fn an_end_rests_until_most_others_had_their_turn() {
        for (workers, addresses) in [(1_u16, 1_u8), (1, 3), (2, 2)] {
            let ends: Vec<_> = (0..addresses).map(|n| Ipv4Addr::new(10, 1, 0, n)).collect();
            let all = u64::from(PORTS) * u64::from(addresses) / u64::from(workers);
            let (mut used, mut again) = (HashSet::new(), 0);
            for number in 0..all / 2 {
                let turn = turn(7, DestId(9), number);
                let chooser = Chooser { worker: WorkerId(0), workers, steer_key: &KEY, turn, start: !turn };
                let first = chooser.choose(&ends, None, |_, _| true).expect("all are free");
                again += u64::from(!used.insert(first));
            }
            // by chance it would be 21 in 100
            let most = if workers == 1 { all / 2 / 50 } else { all / 2 / 5 };
            assert!(again <= most, "{workers} workers, {addresses} addresses: {again} of {}", all / 2);
        }
    }

    #[test]
    fn an_end_belongs_to_who_chose_it_and_is_given_out_once() {
        let ends = [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 3)];
        for workers in [1, 3] {
            let mut used = HashSet::new();
            for n in 0..20_000_u64 {
                let worker = (n % u64::from(workers)) as u16;
                let start = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let chosen =
                    chooser(worker, workers, start).choose(&ends, None, |a, p| !used.contains(&(a, p)));
                let (address, port) = chosen.expect("three of four are free");
                assert!(port >= FIRST_PORT);
                assert_eq!(steer::owner(address.into(), port, workers, &KEY), WorkerId(worker));
                assert!(used.insert((address, port)), "{address}:{port} twice");
            }
            assert!(ends.iter().all(|end| used.iter().filter(|(a, _)| a == end).count() > 9000));
        }
    }

    #[test]
    fn every_stride_leads_to_every_port() {
        for stride in STRIDES {
            let seen: HashSet<u32> =
                (0..PORTS).map(|n| (u64::from(n) * u64::from(stride) % u64::from(PORTS)) as u32).collect();
            assert_eq!(seen.len(), PORTS as usize, "{stride}");
        }
    }

    #[test]
    fn few_ports_are_tried_when_four_of_five_are_in_use() {
        let ends = [Ipv4Addr::LOCALHOST];
        let (mut used, mut tried) = (HashSet::new(), 0_u64);
        let random = crate::sched::DrawSource::new(5);
        let begin = |used: &HashSet<(Ipv4Addr, u16)>, tried: &mut u64| {
            chooser(0, 1, random.next()).choose(&ends, None, |a, p| {
                *tried += 1;
                !used.contains(&(a, p))
            })
        };
        let most = PORTS as usize * 4 / 5;
        while used.len() < most {
            used.insert(begin(&used, &mut tried).expect("a free one"));
        }
        tried = 0;
        (0..1000).for_each(|_| assert!(begin(&used, &mut tried).is_some()));
        assert!(tried < 6000, "{tried} for 1000");
    }

    #[test]
    fn the_search_is_bounded() {
        let mut asked = 0;
        let none = chooser(2, 3, 77).choose(&[Ipv4Addr::LOCALHOST], Some(5000), |_, _| {
            asked += 1;
            false
        });
        assert_eq!(none, None);
        assert!((64..=LOOKUPS + 64).contains(&asked), "{asked}");
        assert_eq!(chooser(0, 1, 7).choose(&[] as &[Ipv4Addr], Some(5000), |_, _| true), None);
    }

    #[test]
    fn a_port_is_kept_where_it_can_be() {
        let ends = [Ipv4Addr::LOCALHOST];
        assert_eq!(chooser(0, 1, 7).choose(&ends, Some(5000), |_, _| true), Some((ends[0], 5000)));
        let other = chooser(0, 1, 7).choose(&ends, Some(5000), |_, port| port != 5000).expect("free ones");
        assert_ne!(other.1, 5000);
        let high = chooser(0, 1, 7).choose(&ends, Some(80), |_, _| true).expect("free ones");
        assert!(high.1 >= FIRST_PORT, "{high:?}");
    }

    #[test]
    fn both_ways_come_and_go_together_and_a_key_may_equal_a_tuple() {
        let at = |a: u32, ap: u16, b: u32, bp: u16| Key4::new(a.into(), ap, b.into(), bp);
        for protocol in [1, 6, 17, 58, 132] {
            let mut pairs = Table::<Pair<Key4>>::new(100, KEY).expect("memory");
            let (key, reply) = (at(1, 1000, 10, 80), at(20, 8080, 30, 5000));
            // the reply's tuple of the one is the key of the other
            let on = Meta::of_pair(forward(protocol));
            assert!(enter(&mut pairs, key, reply, protocol, on));
            assert!(enter(&mut pairs, reply, key, protocol, on.with_pair_proxied()));
            assert_eq!(pairs.len(), 4);
            assert_eq!(reply_of(&pairs, key, protocol).map(|(_, tuple)| tuple), Some(reply));
            assert_eq!(reply_of(&pairs, reply, protocol).map(|(_, tuple)| tuple), Some(key));
            leave(&mut pairs, key, protocol);
            assert_eq!(pairs.len(), 2);
            assert!(reply_of(&pairs, key, protocol).is_none());
            leave(&mut pairs, reply, protocol);
            leave(&mut pairs, reply, protocol);
            assert!(pairs.is_empty());
        }
    }

    #[test]
    fn without_room_nothing_stays() {
        let at = |a: u32| Key4::new(a.into(), 1, 10.into(), 80);
        let mut pairs = Table::<Pair<Key4>>::new(3, KEY).expect("memory");
        let on = Meta::of_pair(forward(6));
        assert!(enter(&mut pairs, at(1), at(2), 6, on));
        assert!(!enter(&mut pairs, at(3), at(4), 6, on));
        assert_eq!(pairs.len(), 2);
    }
}
