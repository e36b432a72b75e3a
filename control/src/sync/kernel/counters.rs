//! What a daemon has done, for `lbctl sync`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::convert::{Unheard, Unsaid};

/// Counters of a daemon. Its thread: rw, others: ro.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages sent or taken.
    pub messages: AtomicU64,
    /// Connections and templates in them.
    pub entries: AtomicU64,
    /// Messages that could not be sent; those received that were none, or for another sync id.
    pub refused: AtomicU64,
    /// Entries that were none.
    pub malformed: AtomicU64,
    /// Connections for which the kernel's protocol has no words, by [`Unsaid`].
    pub unsaid: [AtomicU64; Unsaid::ALL.len()],
    /// Entries that this director does not take over, by [`Unheard`].
    pub unheard: [AtomicU64; Unheard::ALL.len()],
    /// Entries for which the workers had no room in time.
    pub late: AtomicU64,
    /// Why it does not work; empty: it does.
    pub fault: Mutex<String>,
}

/// Adds to a counter that one thread writes.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Relaxed);
}
