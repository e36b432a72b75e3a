//! Candidates, counts and questions for the tests of the schedulers.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Candidate, DrawSource, FlowHash, NewConnection, Overload, Question};
use crate::counters::WorkerCounters;
use crate::ids::{DestId, ServiceId};
use crate::io::DeviceId;
use crate::neighbor::NeighborId;
use crate::paged::Paged;
use crate::snapshot::{DestEntry, Way};

/// Most destinations of a lab.
const MAX: usize = 64;

/// One service's candidates.
pub(crate) struct Lab {
    pub candidates: Vec<Candidate>,
    pub dests: Paged<Option<DestEntry>>,
    pub workers: Vec<Arc<WorkerCounters>>,
    pub overload: Overload,
    pub new: NewConnection,
    pub flow_hash: FlowHash,
    pub draws: DrawSource,
}

fn entry(position: u32) -> DestEntry {
    DestEntry {
        neighbor: NeighborId(0),
        position,
        service: ServiceId(0),
        device: DeviceId(0),
        vlan: 0,
        mtu: 1500,
        timeouts: 0,
        mac: [0; 6],
        draining: false,
        policy: 0,
        removed: false,
        rule: DestEntry::NO_RULE,
        way: Way::Dr,
        port: 80,
        address: IpAddr::from([192, 168, 150, 12]),
    }
}

impl Lab {
    /// Destinations 0, 1, 2 ... with these weights, and one worker.
    pub fn new(weights: &[u32]) -> Self {
        let mut lab = Self {
            candidates: Vec::new(),
            dests: Paged::default(),
            workers: Vec::new(),
            overload: Overload::new(MAX),
            new: NewConnection {
                client: IpAddr::from([192, 168, 0, 1]),
                client_port: 1024,
                target: IpAddr::from([10, 0, 0, 100]),
            },
            flow_hash: FlowHash::new([0; 2]),
            draws: DrawSource::new(1),
        };
        lab.set_workers(1);
        for (dest, weight) in weights.iter().enumerate() {
            lab.insert(dest, dest as u32, *weight);
        }
        lab
    }

    pub fn set_workers(&mut self, count: usize) {
        self.workers = (0..count).map(|_| Arc::new(WorkerCounters::new(0, MAX))).collect();
    }

    pub fn weights(&self) -> Vec<u32> {
        self.candidates.iter().map(|candidate| candidate.weight).collect()
    }

    pub fn insert(&mut self, at: usize, dest: u32, weight: u32) {
        self.candidates.insert(at, Candidate { dest: DestId(dest), weight, tag: u64::from(dest) });
        self.renumber();
    }

    pub fn remove(&mut self, dest: u32) {
        self.candidates.retain(|candidate| candidate.dest.0 != dest);
        self.dests.set(dest as usize, None);
        self.renumber();
    }

    fn renumber(&mut self) {
        for (position, candidate) in self.candidates.iter().enumerate() {
            self.dests.set(candidate.dest.0 as usize, Some(entry(position as u32)));
        }
    }

    /// Makes a destination overloaded.
    pub fn fill(&self, dest: u32) {
        let (upper, workers) = (1, [Arc::new(WorkerCounters::new(0, MAX))]);
        workers[0].dests[dest as usize].total.up();
        self.overload.renew(DestId(dest), upper, 0);
        self.overload.bound(DestId(dest), &workers);
    }

    /// The opposite.
    pub fn relieve(&self, dest: u32) {
        self.overload.renew(DestId(dest), 0, 0);
    }

    /// A connection of a worker.
    pub fn open(&self, worker: usize, dest: u32, active: bool) {
        let counters = &self.workers[worker].dests[dest as usize];
        counters.total.up();
        if active {
            counters.active.up();
        }
    }

    pub fn question(&self) -> Question<'_> {
        self.question_with(&self.draws)
    }

    pub fn question_with<'a>(&'a self, draws: &'a DrawSource) -> Question<'a> {
        Question {
            candidates: &self.candidates,
            dests: &self.dests,
            workers: &self.workers,
            overload: &self.overload,
            new: &self.new,
            flow_hash: &self.flow_hash,
            draws,
        }
    }

    /// Asks `rounds` times in each of `threads` threads; how often each destination was chosen.
    pub fn count_in_threads(
        &self,
        threads: u32,
        rounds: u32,
        pick: impl Fn(&Question<'_>) -> Option<DestId> + Sync,
    ) -> Vec<u32> {
        let parts = Parts {
            candidates: &self.candidates,
            dests: &self.dests,
            workers: &self.workers,
            overload: &self.overload,
            new: &self.new,
            flow_hash: &self.flow_hash,
        };
        let (parts, pick) = (&parts, &pick);
        let mut totals = vec![0; self.candidates.len()];
        std::thread::scope(|scope| {
            let count = |thread: u32| {
                move || {
                    let draws = DrawSource::new(u64::from(thread));
                    let mut own = vec![0; parts.candidates.len()];
                    for _ in 0..rounds {
                        let chosen = pick(&parts.question(&draws)).expect("a candidate").0 as usize;
                        own[chosen] += 1;
                        if let Some(counters) = parts.workers.get(thread as usize) {
                            counters.dests[chosen].total.up();
                            counters.dests[chosen].active.up();
                        }
                    }
                    own
                }
            };
            let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(count(thread))).collect();
            for handle in handles {
                let own: Vec<u32> = handle.join().expect("no panic");
                totals.iter_mut().zip(own).for_each(|(total, own)| *total += own);
            }
        });
        totals
    }
}

/// What threads share of a lab.
struct Parts<'a> {
    candidates: &'a [Candidate],
    dests: &'a Paged<Option<DestEntry>>,
    workers: &'a [Arc<WorkerCounters>],
    overload: &'a Overload,
    new: &'a NewConnection,
    flow_hash: &'a FlowHash,
}

impl<'a> Parts<'a> {
    fn question(&self, draws: &'a DrawSource) -> Question<'a> {
        Question {
            candidates: self.candidates,
            dests: self.dests,
            workers: self.workers,
            overload: self.overload,
            new: self.new,
            flow_hash: self.flow_hash,
            draws,
        }
    }
}
