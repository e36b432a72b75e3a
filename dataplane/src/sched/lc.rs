//! Least connections.
//!
//! Source: IPVS, `ip_vs_lc.c`: least `active * 256 + inactive` among candidates with a weight above 0, the first
//! wins a tie. Counts are summed over all workers at scheduling; another worker's count may be a few connections
//! old, so with N workers the choice is within N - 1 connections of the least.

use super::Question;
use crate::ids::DestId;

/// What a connection count weighs: an active connection as much as 256 inactive ones.
fn overhead(question: &Question<'_>, dest: DestId) -> u64 {
    let (mut active, mut total) = (0u64, 0u64);
    for worker in question.workers {
        let counters = &worker.dests[dest.0 as usize];
        active += u64::from(counters.active.get());
        total += u64::from(counters.total.get());
    }
    // a reader can see active one step ahead of total
    (active << 8) + total.saturating_sub(active)
}

/// The candidate with the least overhead.
pub fn pick(question: &Question<'_>) -> Option<DestId> {
    let able = question.candidates.iter().filter(|candidate| candidate.weight > 0);
    able.map(|candidate| candidate.dest).min_by_key(|dest| overhead(question, *dest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::WorkerCounters;
    use crate::sched::{Candidate, FlowHash};
    use std::net::IpAddr;
    use std::sync::Arc;

    #[test]
    fn the_least_over_all_workers_wins_and_the_first_of_equals() {
        let workers = [Arc::new(WorkerCounters::new(0, 3)), Arc::new(WorkerCounters::new(0, 3))];
        let flow_hash = FlowHash::new([0; 2]);
        let candidates: Vec<_> = (0..3).map(|dest| Candidate { dest: DestId(dest), weight: 1 }).collect();
        let pick = |weights_zero: usize| {
            let mut candidates = candidates.clone();
            candidates[..weights_zero].iter_mut().for_each(|c| c.weight = 0);
            let question = Question {
                candidates: &candidates,
                position: &|_| None,
                workers: &workers,
                client: IpAddr::from([10, 0, 0, 1]),
                client_port: 1,
                flow_hash: &flow_hash,
            };
            super::pick(&question).map(|dest| dest.0)
        };
        assert_eq!(pick(0), Some(0));
        let open = |worker: usize, dest: usize, active: bool| {
            workers[worker].dests[dest].total.up();
            if active {
                workers[worker].dests[dest].active.up();
            }
        };
        open(0, 0, false);
        assert_eq!(pick(0), Some(1));
        open(1, 1, true);
        open(0, 2, true);
        assert_eq!(pick(0), Some(0), "one inactive weighs less than one active");
        assert_eq!(pick(1), Some(1));
        open(0, 1, false);
        assert_eq!(pick(1), Some(2));
        assert_eq!(pick(3), None);
    }
}
