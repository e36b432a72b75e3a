//! The end of removed servers: their connections, their templates, their indices.

use super::registry::Shared;
use super::walks::LISTING_MS;
use super::{Director, readings};
use crate::ids::DestId;
use crate::mailbox::{ConnFilter, Listing, Mail, Purpose};

impl Director {
    /// Lets go of removed destinations whose last connection has ended.
    pub(super) fn retire(&mut self) {
        let seen = self.generation_seen();
        let counters = &self.counters;
        let connections = |dest: DestId| {
            let tracked = counters.iter().map(|w| u64::from(w.dests[dest.0 as usize].total.get()));
            tracked.sum::<u64>() + u64::from(self.setup.templates.count(dest))
        };
        let building = self.running.generation + 1;
        let mut shared =
            Shared { book: &mut self.book, next_hops: &mut self.next_hops, tables: &mut self.tables };
        let of = |dest| readings(counters, dest);
        if self.registry.retire(seen, building, connections, of, &mut shared) {
            self.republish();
        }
        self.next_hops.forget(&mut self.book, seen);
    }

    /// Removes the connections and templates of removed servers whose services schedule them anew, rather than at
    /// each one's next packet (IPVS: `ip_vs_expire_nodest_conn_flush`). Tried again until none is left.
    pub(super) fn expire_removed(&mut self) {
        let running = &self.running;
        let expires = |dest: DestId| running.dest(dest).is_some_and(|entry| running.reschedules(entry));
        let templates = &self.setup.templates;
        let (mut any, mut tracked) = (false, false);
        let gone = self.registry.removed.iter().copied().chain(self.drains.over());
        for dest in gone.filter(|dest| expires(*dest)) {
            any |= templates.count(dest) > 0;
            tracked |= self.counters.iter().any(|worker| worker.dests[dest.0 as usize].total.get() > 0);
        }
        if any {
            templates.drop_unused(self.workers_now_ns(), |listed| expires(listed.dest));
        }
        // a worker whose answer was lost is not waited for
        if tracked && (self.expiring == 0 || self.polled_ms.saturating_sub(self.expiring_ms) >= LISTING_MS) {
            (self.expiring, self.expiring_ms) = (0, self.polled_ms);
            for mailbox in &self.mailboxes {
                let walk = Listing::new(0, Purpose::Expire, ConnFilter::default(), Vec::new());
                self.expiring += usize::from(mailbox.send(Mail::List(walk)).is_ok());
            }
        }
    }
}
