//! The end of removed servers: their connections, their templates, their indices.

use lb_config::OnServerDown;

use super::registry::Shared;
use super::walks::LISTING_MS;
use super::{Director, readings};
use crate::ids::DestId;
use crate::mailbox::{ConnFilter, Listing, Mail, Purpose};

/// Removed destinations that a poll looks at, of those whose connections may have to be removed.
const LOOKS: usize = 16_384;

/// A look for what removed servers have left, some of them a poll.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The next one to be looked at; `None`: no look is under way.
    next: Option<DestId>,
    /// Some have templates; some have connections.
    found: (bool, bool),
    /// It has to be done once more, from the start.
    again: bool,
}

impl Director {
    /// Lets go of removed destinations whose last connection has ended, some a poll.
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
        self.registry.retire(seen, building, connections, of, &mut shared);
        if self.registry.round.publication_due() {
            self.republish();
        }
        self.next_hops.forget(&mut self.book, seen);
    }

    /// Removes the connections and templates of removed servers whose services schedule them anew, rather than at
    /// each one's next packet (IPVS: `ip_vs_expire_nodest_conn_flush`). Tried again until none is left.
    pub(super) fn expire_removed(&mut self) {
        if self.look.next.is_some() {
            self.look.again = true;
        } else {
            self.look = Look { next: Some(DestId(0)), ..Look::default() };
            self.look_for_expired();
        }
    }

    /// Goes on with it.
    pub(super) fn look_for_expired(&mut self) {
        let Some(from) = self.look.next else { return };
        let running = &self.running;
        // some that nothing uses any more may say so too, which costs the look
        let any = running.policies.iter().any(|policy| policy.on_server_down == OnServerDown::Reschedule);
        let expires = |dest: DestId| running.dest(dest).is_some_and(|entry| running.reschedules(entry));
        let templates = &self.setup.templates;
        let (mut templated, mut tracked) = self.look.found;
        let mut look = |dest: DestId| {
            if expires(dest) {
                templated |= templates.count(dest) > 0;
                tracked |= self.counters.iter().any(|worker| worker.dests[dest.0 as usize].total.get() > 0);
            }
        };
        let mut next = None;
        if any {
            if from == DestId(0) {
                self.drains.over().for_each(&mut look);
            }
            let mut removed = self.registry.removed.range(from..).copied();
            removed.by_ref().take(LOOKS).for_each(&mut look);
            next = removed.next().filter(|_| !(templated && tracked));
        }
        self.look.next = next;
        self.look.found = (templated, tracked);
        if next.is_some() {
            return;
        }
        if templated {
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
        if std::mem::take(&mut self.look.again) {
            self.look = Look { next: Some(DestId(0)), ..Look::default() };
        }
    }
}
