//! Walks over all connections: every worker visits its tables some lines a turn, for listings and for flushing.

use super::Director;
use crate::mailbox::{ConnFilter, ConnRow, Listing, Mail, Purpose};

/// The parts of a listing that have come back.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub rows: Vec<ConnRow>,
    pub matched: u64,
    pub outstanding: usize,
    /// When it was asked for, ms.
    pub since_ms: u64,
}

/// Largest number of connections that one listing shows.
pub const MAX_LISTING: usize = 1_000_000;

/// How long a listing waits to be fetched, ms.
pub(super) const LISTING_MS: u64 = 60_000;

impl Director {
    /// Removes connections at once, as if their time was over; [`Director::connections`] gives their number, without
    /// rows, after some polls. Templates stay, unless they were never established.
    ///
    /// Errors: `None` when a worker's mailbox is full.
    pub fn flush_connections(&mut self, filter: ConnFilter) -> Option<u64> {
        self.walk(Purpose::Flush, filter, 0)
    }

    /// Asks the workers for their connections; [`Director::connections`] gives the result after some polls.
    ///
    /// `limit`: rows, at most [`MAX_LISTING`]. Errors: `None` when a worker's mailbox is full.
    pub fn list_connections(&mut self, filter: ConnFilter, limit: usize) -> Option<u64> {
        self.walk(Purpose::List, filter, limit)
    }

    fn walk(&mut self, purpose: Purpose, filter: ConnFilter, limit: usize) -> Option<u64> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut collected = Collected { since_ms: self.polled_ms, ..Collected::default() };
        for (mailbox, counters) in self.mailboxes.iter().zip(&self.counters) {
            // room for what is there now and some more; the worker does not grow it
            let room = (counters.own.connections.get() as usize + 64).min(limit.min(MAX_LISTING));
            let room = if purpose == Purpose::List { room } else { 0 };
            let listing = Listing::new(ticket, purpose, filter, Vec::with_capacity(room));
            if mailbox.send(Mail::List(listing)).is_ok() {
                collected.outstanding += 1;
            } else if collected.outstanding == 0 {
                return None;
            }
        }
        self.listings.insert(ticket, collected);
        Some(ticket)
    }

    /// The connections of a listing and how many matched, when all workers have answered.
    pub fn connections(&mut self, ticket: u64) -> Option<(Vec<ConnRow>, u64)> {
        if self.listings.get(&ticket)?.outstanding > 0 {
            return None;
        }
        let collected = self.listings.remove(&ticket)?;
        Some((collected.rows, collected.matched))
    }
}
