//! Connections that have no entry: by a hash of the client, so that all packets of one go to one server.
//!
//! Two cases, by direct routing and tunnels alone, and without persistence, whose templates are state too:
//! - While SYNs are a flood ([`super`]) a SYN goes on without an entry; the client's ACK begins the connection.
//! - When the table is full and none of its connections may go, packets that would begin one go on without.
//!
//! The server is the one that the scheduler names where that is a hash itself (dh, sh, mh, maglev), else one by the
//! keyed hash of the client's address and port, with a probability in proportion to its weight; the same on all
//! directors of a cluster. Upper thresholds do not count, as they come and go with connections. As long as servers
//! and weights stay as they are, every packet of a flow gets the same answer; a server that loses its weight takes
//! only its own flows along.
//!
//! What a packet means that is not the first of a connection and has none: while either case lasts, and for as long
//! after as such a flow may still be there (60 s, or 15 min where the table was full), it is taken to be of a flow
//! without entry. It goes where the hash says, and with an ACK that neither resets nor ends it gets an entry if there
//! is room: embryonic, so that a flood of ACKs gains nothing that a flood of SYNs does not, and established with the
//! next packet. If there was no such flow the server answers with a reset, as the director would have.

use super::evict::Class;
use crate::classify::Lookup;
use crate::counters::WorkerCounters;
use crate::ids::DestId;
use crate::io::PacketIo;
use crate::sched::{Candidate, NewConnection, Scheduler};
use crate::snapshot::{DestEntry, ServiceEntry, Snapshot, Way};
use crate::worker::Worker;

/// Candidates that are asked by chance; then the next in the list that has a weight.
const DRAWS: u64 = 64;

/// Of candidates whose greatest weight is `heaviest`, one by `hash`. `None`: none has a weight.
///
/// Cost: as many draws as `heaviest` times their number is greater than the sum of weights, on average.
pub fn pick(candidates: &[Candidate], heaviest: u32, hash: u64) -> Option<&Candidate> {
    if heaviest == 0 {
        return None;
    }
    let mut at = 0;
    for draw in 1..=DRAWS {
        // SplitMix64, see `DrawSource`
        let mixed = hash.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        at = (((mixed >> 32) * candidates.len() as u64) >> 32) as usize;
        let candidate = candidates.get(at)?;
        if ((mixed & u64::from(u32::MAX)) * u64::from(heaviest)) >> 32 < u64::from(candidate.weight) {
            return Some(candidate);
        }
    }
    candidates.iter().cycle().skip(at).take(candidates.len()).find(|candidate| candidate.weight > 0)
}

/// Where packets of a client's flow without an entry go; `schedule` asks the service's scheduler, where that goes by a
/// hash itself. `None`: they may not, or there is no server.
pub(crate) fn of_client(
    snapshot: &Snapshot,
    service: &ServiceEntry,
    new: &NewConnection,
    schedule: impl FnOnce() -> Option<DestId>,
) -> Option<(DestId, DestEntry)> {
    if service.rule.is_some() {
        return None;
    }
    let dest = match service.scheduler {
        Scheduler::Dh | Scheduler::Sh(..) | Scheduler::Mh(..) | Scheduler::Maglev(..) => schedule()?,
        _ => {
            let hash = snapshot.flow_hash.of(new.client, new.client_port);
            pick(&service.candidates, service.heaviest, hash)?.dest
        }
    };
    let entry = *snapshot.dest(dest)?;
    matches!(entry.way, Way::Dr | Way::Tunnel(_)).then_some((dest, entry))
}

impl<I: PacketIo> Worker<I> {
    /// Where packets of a flow without an entry go. `None`: they may not, or there is no server.
    pub(crate) fn by_hash(&self, service: &ServiceEntry, lookup: &Lookup) -> Option<(DestId, DestEntry)> {
        let new = NewConnection { client: lookup.src, client_port: lookup.src_port, target: lookup.dst };
        let schedule = || self.snapshot.schedule(service, &new, &self.all_counters, &self.draws);
        of_client(&self.snapshot, service, &new, schedule)
    }

    /// A packet that would begin a connection for which there is no room. `None`: it cannot do without.
    pub(crate) fn without_entry(&mut self, lookup: &Lookup) -> Option<(DestId, DestEntry)> {
        let service = self.snapshot.services.find(lookup)?.clone();
        let chosen = self.by_hash(&service, lookup)?;
        self.flood.stateless(self.now_ns);
        self.counters.own.stateless.add(1);
        Some(chosen)
    }
}

/// A connection has made room.
pub(crate) fn count(counters: &WorkerCounters, class: Option<Class>) {
    if let Some(class) = class {
        counters.own.evicted[class as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let of = |(at, weight): (usize, &u32)| Candidate { dest: DestId(at as u32), weight: *weight, tag: 0 };
        weights.iter().enumerate().map(of).collect()
    }

    fn spread(weights: &[u32]) -> Vec<u32> {
        let (candidates, heaviest) = (candidates(weights), weights.iter().copied().max().unwrap_or(0));
        let mut counts = vec![0; weights.len()];
        for n in 0..10_000_u64 {
            let hash = n.wrapping_mul(0xd1b5_4a32_d192_ed03);
            let picked = pick(&candidates, heaviest, hash).expect("a server");
            assert_eq!(pick(&candidates, heaviest, hash), Some(picked));
            counts[picked.dest.0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn servers_get_flows_by_their_weight() {
        for (at, count) in spread(&[1, 0, 3, 4]).into_iter().enumerate() {
            let want = [1250, 0, 3750, 5000][at];
            assert!(count.abs_diff(want) < 200 && (want > 0 || count == 0), "{at}: {count}");
        }
        assert_eq!(spread(&[0, 7]), [0, 10_000]);
        let lopsided = spread(&[&[65_535][..], &[1; 99]].concat());
        assert!(lopsided[0] > 4000, "draws are bounded: {}", lopsided[0]);
        assert_eq!(pick(&candidates(&[0, 0]), 0, 5), None);
        assert_eq!(pick(&[], 0, 5), None);
    }

    #[test]
    fn a_server_without_weight_takes_only_its_own_flows_along() {
        let (before, after) = (candidates(&[2, 2, 2, 2]), candidates(&[2, 0, 2, 2]));
        for n in 0..10_000_u64 {
            let hash = n.wrapping_mul(0xd1b5_4a32_d192_ed03);
            let was = pick(&before, 2, hash).expect("a server").dest;
            let is = pick(&after, 2, hash).expect("a server").dest;
            assert!(was == is || was == DestId(1), "{n}: {was:?} to {is:?}");
        }
    }
}
