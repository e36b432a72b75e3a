//! Who gets a new connection: the one place where schedulers live.
//!
//! A scheduler is data in the snapshot ([`Scheduler`]) plus, for those with a memory, one word that all workers
//! share ([`Cursor`]), touched once per new connection and never per packet.

pub mod lc;
pub mod maglev;
pub mod rr;

use std::net::IpAddr;
use std::sync::Arc;

use crate::counters::WorkerCounters;
use crate::ids::DestId;

pub use maglev::{FlowHash, MaglevTable, Member};
pub use rr::Cursor;

/// A destination as its service's scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index of its counters and of its entry in the snapshot.
    pub dest: DestId,
    /// 0: takes no new connection.
    pub weight: u32,
}

/// How a service schedules.
#[derive(Clone, Debug)]
pub enum Scheduler {
    /// Round robin; the cursor outlives snapshots.
    Rr(Arc<Cursor>),
    /// Least connections.
    Lc,
    /// Maglev hashing; `true` in the second field hashes the source address alone.
    Maglev(Arc<MaglevTable>, bool),
}

/// What a scheduler may ask for.
pub struct Question<'a> {
    /// Candidates in scheduling order.
    pub candidates: &'a [Candidate],
    /// Where a destination stands in `candidates`; of one that was removed, where its predecessor stands.
    pub position: &'a dyn Fn(DestId) -> Option<u32>,
    /// Every worker's counters.
    pub workers: &'a [Arc<WorkerCounters>],
    /// Client's address.
    pub client: IpAddr,
    /// Client's port.
    pub client_port: u16,
    /// Keyed hash of clients, the same on all directors of a cluster.
    pub flow_hash: &'a FlowHash,
}

impl Scheduler {
    /// The destination of a new connection, or `None` when no candidate may take it.
    ///
    /// Cost: rr O(candidates with weight 0 in a row), lc O(candidates x workers), maglev O(1).
    pub fn pick(&self, question: &Question<'_>) -> Option<DestId> {
        match self {
            Scheduler::Rr(cursor) => rr::pick(cursor, question),
            Scheduler::Lc => lc::pick(question),
            Scheduler::Maglev(table, source_only) => {
                let port = if *source_only { 0 } else { question.client_port };
                table.pick(question.flow_hash.of(question.client, port))
            }
        }
    }
}
