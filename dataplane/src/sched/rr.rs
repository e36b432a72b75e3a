//! Round robin.
//!
//! Source: IPVS, `ip_vs_rr.c`: from the last chosen position on, the next candidate with a weight above 0; when
//! the last chosen is removed, its predecessor takes its place.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Question;
use crate::ids::DestId;

/// The destination chosen last. All workers: rw, once per new connection.
#[derive(Debug)]
pub struct Cursor(AtomicU32);

/// Nothing chosen yet.
const NONE: u32 = u32::MAX;

impl Default for Cursor {
    fn default() -> Self {
        Self(AtomicU32::new(NONE))
    }
}

impl Cursor {
    /// The destination chosen last.
    pub fn last(&self) -> Option<DestId> {
        let last = self.0.load(Relaxed);
        (last != NONE).then_some(DestId(last))
    }
}

/// The next candidate after the last chosen one.
///
/// With several workers the choice is one compare-and-swap, so the sequence over all of them is exact: nobody
/// gets a turn twice and nobody is passed over.
pub fn pick(cursor: &Cursor, question: &Question<'_>) -> Option<DestId> {
    let candidates = question.candidates;
    let mut last = cursor.0.load(Relaxed);
    loop {
        let start = match last {
            NONE => 0,
            last => (question.position)(DestId(last)).map_or(0, |at| at as usize + 1),
        };
        let chosen = (0..candidates.len())
            .map(|step| candidates[(start + step) % candidates.len()])
            .find(|candidate| candidate.weight > 0)?
            .dest;
        match cursor.0.compare_exchange_weak(last, chosen.0, Relaxed, Relaxed) {
            Ok(_) => return Some(chosen),
            Err(now) => last = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::{Candidate, FlowHash};
    use std::net::IpAddr;

    fn ask(
        cursor: &Cursor,
        candidates: &[Candidate],
        position: &dyn Fn(DestId) -> Option<u32>,
    ) -> Option<u32> {
        let flow_hash = FlowHash::new([0; 2]);
        let client = IpAddr::from([10, 0, 0, 1]);
        let question =
            Question { candidates, position, workers: &[], client, client_port: 1, flow_hash: &flow_hash };
        pick(cursor, &question).map(|dest| dest.0)
    }

    fn candidates(weights: &[(u32, u32)]) -> Vec<Candidate> {
        weights.iter().map(|&(dest, weight)| Candidate { dest: DestId(dest), weight }).collect()
    }

    #[test]
    fn it_goes_round_and_passes_over_weight_zero() {
        let cursor = Cursor::default();
        let list = candidates(&[(5, 1), (6, 0), (7, 3)]);
        let position = |dest: DestId| list.iter().position(|c| c.dest == dest).map(|at| at as u32);
        let picks: Vec<_> = (0..5).map(|_| ask(&cursor, &list, &position)).collect();
        assert_eq!(picks, [Some(5), Some(7), Some(5), Some(7), Some(5)]);
        assert_eq!(ask(&cursor, &candidates(&[(5, 0)]), &position), None);
        assert_eq!(ask(&cursor, &[], &position), None);
    }

    #[test]
    fn after_a_removal_it_goes_on_behind_the_predecessor() {
        let cursor = Cursor::default();
        let list = candidates(&[(1, 1), (2, 1), (3, 1)]);
        let position = |dest: DestId| Some(dest.0 - 1);
        assert_eq!(ask(&cursor, &list, &position), Some(1));
        assert_eq!(ask(&cursor, &list, &position), Some(2));
        // 2 is removed: its predecessor 1 stands at 0, so 3 is next
        let list = candidates(&[(1, 1), (3, 1)]);
        let position = |dest: DestId| {
            Some(match dest.0 {
                3 => 1,
                _ => 0,
            })
        };
        assert_eq!(ask(&cursor, &list, &position), Some(3));
        assert_eq!(ask(&cursor, &list, &position), Some(1));
    }

    #[test]
    fn many_threads_share_one_exact_sequence() {
        let cursor = Cursor::default();
        let list = candidates(&[(0, 1), (1, 1), (2, 1)]);
        let position = |dest: DestId| Some(dest.0);
        let rounds = if cfg!(miri) { 30 } else { 30_000 };
        let mut totals = [0u32; 3];
        std::thread::scope(|scope| {
            let count = || {
                let mut own = [0u32; 3];
                for _ in 0..rounds {
                    own[ask(&cursor, &list, &position).expect("a candidate") as usize] += 1;
                }
                own
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            for thread in threads {
                let own = thread.join().expect("no panic");
                (0..3).for_each(|dest| totals[dest] += own[dest]);
            }
        });
        assert_eq!(totals, [4 * rounds / 3; 3]);
    }
}
