//! Locality-based schedulers: what is asked for stays where it was served last.
//!
//! Source: IPVS, `ip_vs_lblc.c`, `ip_vs_lblcr.c`. A service remembers destination addresses (`cache`); `lblc` a
//! server for each, `lblcr` a set of servers. The memory is shared by all workers, as a client's address decides
//! which worker it meets: a mutex, taken twice at most per new connection of such a service and never per packet,
//! for some tens of ns; no memory is allocated under it.

mod cache;
mod lblc;
mod lblcr;

pub use lblc::Lblc;
pub use lblcr::Lblcr;

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Candidate, Question};

/// Age from which on an entry goes in the half-hourly sweep, s; and from which on a set shrinks. Source:
/// `DEFAULT_EXPIRATION` (sysctl `lblc_expiration`, `lblcr_expiration`).
const EXPIRATION_S: u32 = 24 * 60 * 60;

/// A server as a cache knows it: by its tag, as indices may pass to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    tag: u64,
    /// Where it stood in the list when last seen.
    hint: u32,
}

impl Remembered {
    fn new(candidate: &Candidate, question: &Question<'_>) -> Self {
        let hint = question.position(candidate.dest).unwrap_or_default() as u32;
        Self { tag: candidate.tag, hint }
    }

    /// The server, if it still is one of the service's.
    fn find<'a>(&self, question: &Question<'a>) -> Option<&'a Candidate> {
        let same = |candidate: &&Candidate| candidate.tag == self.tag;
        let there = question.candidates.get(self.hint as usize).filter(same);
        there.or_else(|| question.candidates.iter().find(same))
    }
}

/// Whether a server has more active connections than weight while another is less than half full.
fn crowded(candidate: &Candidate, question: &Question<'_>) -> bool {
    question.load(candidate).active > u64::from(candidate.weight)
        && question.candidates.iter().any(|other| question.load(other).active * 2 < u64::from(other.weight))
}

/// A mutex whose holder cannot leave a half-made change: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
