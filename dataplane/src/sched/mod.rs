//! Who gets a new connection: the one place where schedulers live.
//!
//! A scheduler is data in the snapshot ([`Scheduler`]) plus, for those with a memory, state that all workers share
//! ([`Cursor`], [`WrrMark`], [`locality`]), touched once per new connection and never per packet. Source: IPVS's
//! modules of the same names (Linux 6.1); with one worker every choice is the one that they make.
//!
//! With N workers: `rr` and `wrr` are exact, their next choice is one compare-and-swap. `dh`, `sh`, `mh`, `maglev`,
//! `fo` have no counts and are exact. The others read every worker's counts at scheduling; a choice may miss what the
//! other workers are choosing at that moment, at most one connection each: where connections only open, no server is
//! ever more than N connections above what the scheduler would allow it ([`load`]).
//!
//! Files: one per scheduler or family of them; [`build`] makes them on the control core.

pub mod build;
pub mod draw;
pub mod failover;
pub mod fill;
pub mod hashed;
pub mod least;
pub mod load;
pub mod locality;
pub mod maglev;
pub mod mh;
pub mod overload;
pub mod rr;
pub mod twos;
pub mod wrr;

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use lb_config::SchedulerFlags;

use crate::counters::WorkerCounters;
use crate::ids::DestId;
use crate::paged::Paged;
use crate::snapshot::DestEntry;

pub use build::{Memory, ServerState};
pub use draw::DrawSource;
pub use hashed::SourceTable;
pub use locality::{Lblc, Lblcr};
pub use maglev::{FlowHash, MaglevTable, Member};
pub use mh::MhTable;
pub use overload::Overload;
pub use rr::Cursor;
pub use wrr::{WrrMark, WrrPlan};

/// A destination as its service's scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index of its counters and of its entry in the snapshot.
    pub dest: DestId,
    /// 0: takes no new connection.
    pub weight: u32,
    /// Who it is, whatever its index: the same when a server comes back. See [`build::tag`].
    pub tag: u64,
}

/// How a service schedules.
#[derive(Clone, Debug)]
pub enum Scheduler {
    /// Round robin; the cursor outlives snapshots.
    Rr(Arc<Cursor>),
    /// Weighted round robin; the mark outlives snapshots.
    Wrr(Arc<WrrMark>, WrrPlan),
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Locality-based least connections; the cache outlives snapshots.
    Lblc(Arc<Lblc>),
    /// The same with sets of servers.
    Lblcr(Arc<Lblcr>),
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh(Arc<SourceTable>, SchedulerFlags),
    /// Failover.
    Fo,
    /// Overflow.
    Ovf,
    /// Power of two choices.
    Twos,
    /// IPVS's Maglev hashing.
    Mh(Arc<MhTable>, SchedulerFlags),
    /// Maglev hashing; `true` in the second field hashes the source address alone.
    Maglev(Arc<MaglevTable>, bool),
}

/// A connection that wants a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// Client's address.
    pub client: IpAddr,
    /// Client's port.
    pub client_port: u16,
    /// Address that the client wrote to.
    pub target: IpAddr,
}

/// What a scheduler may ask for.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Candidates in scheduling order, which is IPVS's list order.
    pub candidates: &'a [Candidate],
    /// Every destination, by index.
    pub dests: &'a Paged<Option<DestEntry>>,
    /// Every worker's counters.
    pub workers: &'a [Arc<WorkerCounters>],
    /// Which destinations are at their upper threshold.
    pub overload: &'a Overload,
    /// The connection.
    pub new: &'a NewConnection,
    /// Keyed hash of clients, the same on all directors of a cluster.
    pub flow_hash: &'a FlowHash,
    /// Randomness of the asking worker.
    pub draws: &'a DrawSource,
}

impl Question<'_> {
    /// Where a destination stands in the list; of one that was removed, where its predecessor stands; `None`: before
    /// the first.
    pub fn position(&self, dest: DestId) -> Option<usize> {
        let entry = self.dests.get(dest.0 as usize)?.as_ref()?;
        (entry.position != u32::MAX).then_some(entry.position as usize)
    }

    /// Whether a candidate has reached its upper threshold (IPVS: `IP_VS_DEST_F_OVERLOAD`).
    pub fn overloaded(&self, candidate: &Candidate) -> bool {
        self.overload.is_set(candidate.dest)
    }

    /// Whether a candidate may take a connection: it has a weight and is not overloaded.
    pub fn able(&self, candidate: &Candidate) -> bool {
        candidate.weight > 0 && !self.overloaded(candidate)
    }
}

impl Scheduler {
    /// The destination of a new connection, or `None` when no candidate may take it.
    ///
    /// Cost: dh, sh, mh and maglev O(1) (a fallback: at most a walk over the table); rr O(unable candidates in a row);
    /// the others O(candidates), those that look at counts O(candidates x workers). No lock but in lblc and lblcr, no
    /// allocation.
    pub fn pick(&self, question: &Question<'_>) -> Option<DestId> {
        let chosen = match self {
            Scheduler::Rr(cursor) => return rr::pick(cursor, question),
            Scheduler::Wrr(mark, plan) => return wrr::pick(mark, plan, question),
            Scheduler::Lc => least::lc(question),
            Scheduler::Wlc => least::wlc(question),
            Scheduler::Sed => least::sed(question),
            Scheduler::Nq => least::nq(question),
            Scheduler::Lblc(cache) => cache.pick(question),
            Scheduler::Lblcr(cache) => cache.pick(question),
            Scheduler::Dh => hashed::dh(question),
            Scheduler::Sh(table, flags) => table.pick(*flags, question),
            Scheduler::Fo => failover::fo(question),
            Scheduler::Ovf => failover::ovf(question),
            Scheduler::Twos => twos::pick(question),
            Scheduler::Mh(table, flags) => table.pick(*flags, question),
            Scheduler::Maglev(table, source_only) => {
                let port = if *source_only { 0 } else { question.new.client_port };
                // without an able candidate the walk would find nothing
                let _any = question.candidates.iter().find(|candidate| question.able(candidate))?;
                let hash = question.flow_hash.of(question.new.client, port);
                return table.pick(hash, |dest| !question.overload.is_set(dest));
            }
        };
        chosen.map(|candidate| candidate.dest)
    }

    /// What [`Scheduler::pick`] would say now, without a trace: no cursor moves, nothing is remembered. `twos` draws anew
    /// each time.
    pub fn look(&self, question: &Question<'_>) -> Option<DestId> {
        match self {
            Scheduler::Rr(cursor) => rr::pick(&cursor.copy(), question),
            Scheduler::Wrr(mark, plan) => wrr::pick(&mark.copy(), plan, question),
            Scheduler::Lblc(cache) => cache.look(question).map(|candidate| candidate.dest),
            Scheduler::Lblcr(cache) => cache.look(question).map(|candidate| candidate.dest),
            other => other.pick(question),
        }
    }
}
