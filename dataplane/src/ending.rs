//! What happens when a connection ends: counts go down, the way of its replies goes, its template is told.

use std::sync::Arc;

use crate::conn::{Meta, Pair, Table, Tick};
use crate::counters::WorkerCounters;
use crate::flood::evict::is_embryonic;
use crate::flow::{Family, reply_tuple};
use crate::local_port;
use crate::parse::L4;
use crate::persist::{Child, Rule, Templates};
use crate::snapshot::{Snapshot, Way};
use crate::state::State;

/// What happens when a connection ends, by its timeout or before.
pub(crate) struct Ending<'a> {
    pub snapshot: &'a Snapshot,
    pub counters: &'a WorkerCounters,
    pub workers: &'a [Arc<WorkerCounters>],
    pub templates: &'a Templates,
    pub now_ns: u64,
}

impl Ending<'_> {
    /// `key` and `meta` have just left their table. `forced`: see [`Ending::of_child`].
    pub fn of<K: Family>(&self, key: &K, meta: Meta, pairs: &mut Table<Pair<K>>, forced: bool) {
        let dest = &self.counters.dests[meta.dest().0 as usize];
        dest.total.down();
        if meta.active() {
            dest.active.down();
        }
        self.counters.own.expired.add(1);
        if is_embryonic(meta) {
            self.counters.own.embryonic.down();
        }
        self.snapshot.unbound(meta.dest(), self.workers);
        self.of_child(key, meta, forced);
        let Some(entry) = self.snapshot.dest(meta.dest()) else { return };
        if entry.way.local_ends().is_some() || meta.is_spliced() {
            return local_port::leave(pairs, *key, meta.protocol());
        }
        let tuple = if entry.way == Way::Nat { reply_tuple(key, entry) } else { None };
        let Some(wanted) = tuple.map(Pair::wanted) else { return };
        let probe = pairs.probe(&wanted, meta.protocol());
        if let Some(found) = pairs.find(&wanted, meta.protocol(), probe)
            && pairs.key(found).other == *key
        {
            pairs.remove(found);
        }
    }

    /// Asks for the memory that ending connections will read whose deadlines have passed, a step of `lines` lines of the
    /// sweep ahead and another one: each of them would wait for it alone.
    pub fn fetch<K: Family>(
        &self,
        (table, pairs): (&Table<K>, &Table<Pair<K>>),
        (ahead, lines): (u32, u32),
        now: Tick,
    ) {
        if pairs.is_empty() {
            return;
        }
        let way = |meta: Meta| self.snapshot.dest(meta.dest()).map(|entry| (entry, entry.way));
        // what was asked for a step before leads to the other pair
        table.coming(ahead, lines, now, |key, meta| {
            let number = meta.protocol();
            if let Some((_, Way::FullNat(_) | Way::Snat(_))) = way(meta)
                && let Some((_, tuple)) = local_port::reply_of(pairs, *key, number)
            {
                pairs.prefetch(pairs.probe(&Pair::wanted(tuple), number));
            }
        });
        table.coming(ahead.saturating_add(lines), lines, now, |key, meta| {
            let (wanted, number) = match way(meta) {
                Some((entry, Way::Nat)) => (reply_tuple(key, entry), meta.protocol()),
                Some((_, Way::FullNat(_) | Way::Snat(_))) => {
                    (Some(*key), local_port::forward(meta.protocol()))
                }
                _ => (None, 0),
            };
            if let Some(wanted) = wanted.map(Pair::wanted) {
                pairs.prefetch(pairs.probe(&wanted, number));
            }
        });
    }

    /// The entry of a connection that has `left` ticks, when it counts as active and no longer should: one of UDP
    /// that no packet came for, see `udp_activity`. Moves the destination's active count along.
    #[inline]
    pub fn rest(&self, meta: Meta, left: u32) -> Option<Meta> {
        let entry = self.snapshot.dest(meta.dest())?;
        if !self.snapshot.timeouts[usize::from(entry.timeouts)].is_idle(left) {
            return None;
        }
        self.counters.dests[meta.dest().0 as usize].active.down();
        Some(meta.after_packet(State::Udp, false, meta.deadline()))
    }

    /// Tells the template, if the connection has one.
    ///
    /// `forced`: the connection was thrown out rather than timed out or replaced.
    pub fn of_child<K: Family>(&self, key: &K, meta: Meta, forced: bool) {
        if let Some((rule, child)) = self.template(key, meta) {
            self.templates.child_ended(rule, &child, meta.dest(), self.now_ns, forced);
        }
    }

    /// The connection is established: its template may rely on it.
    pub(crate) fn assure<K: Family>(&self, key: &K, meta: Meta) {
        if let Some((rule, child)) = self.template(key, meta) {
            self.templates.assure(rule, &child, meta.dest());
        }
    }

    fn template<K: Family>(&self, key: &K, meta: Meta) -> Option<(&Rule, Child)> {
        let entry = self.snapshot.dest(meta.dest()).filter(|_| meta.controlled())?;
        let rule = self.snapshot.rules.get(usize::from(entry.rule))?;
        let protocol = L4::of(meta.protocol())?;
        Some((
            rule,
            Child { client: key.client().into(), vip: key.vip().into(), vport: key.vip_port(), protocol },
        ))
    }
}
