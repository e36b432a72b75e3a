//! What happens when a connection ends: counts go down, the way of its replies goes, its template is told.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::conn::walk::{Over, TOGETHER};
use crate::conn::{Found, Line as _, Meta, Pair, Probe, Table, TableKey, Tick};
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

/// How replies find a connection.
#[derive(Clone, Copy, Debug)]
enum Back<K> {
    /// They do not pass, or by its own key.
    None,
    /// By the pair of this tuple.
    Straight(K),
    /// By the pair that the one leads to which has the connection's own key.
    ByPair,
}

/// A connection that is ended with others.
struct Leaving<K> {
    found: Found,
    key: K,
    back: Back<K>,
    /// The pair that leads on, once it is known.
    ahead: Found,
    /// Where the pair may be that is looked for next.
    probe: Probe,
}

impl<K: Family> Leaving<K> {
    /// The pair that leads on, to look for, and its number.
    #[inline(always)]
    fn ahead_of(&self) -> (Pair<K>, u8) {
        (Pair::wanted(self.key), local_port::forward(self.found.meta.protocol()))
    }
}

/// Removes the pair of a reply's tuple, if it leads to `key`: a younger connection may have it.
#[inline(always)]
fn leave_back<K: Family>(
    pairs: &mut Table<Pair<K>>,
    (wanted, key): (&Pair<K>, &K),
    number: u8,
    probe: Probe,
) {
    if let Some(found) = pairs.find(wanted, number, probe)
        && pairs.key(found).other == *key
    {
        pairs.remove(found);
    }
}

impl Ending<'_> {
    /// `key` and `meta` have just left their table. `forced`: see [`Ending::of_child`].
    pub fn of<K: Family>(&self, key: &K, meta: Meta, pairs: &mut Table<Pair<K>>, forced: bool) {
        self.count(key, meta, forced);
        let number = meta.protocol();
        match self.back(key, meta) {
            Back::None => {}
            Back::Straight(tuple) => {
                let wanted = Pair::wanted(tuple);
                leave_back(pairs, (&wanted, key), number, pairs.probe(&wanted, number));
            }
            Back::ByPair => local_port::leave(pairs, *key, number),
        }
    }

    /// Visits the next lines of a table, at most `lines`, and ends the connections whose deadlines have passed, about `ends`
    /// at most, a few at a time: each of them would wait for memory alone. Returns how many lines it has visited.
    pub fn sweep<K: Family>(
        &self,
        (table, pairs): (&mut Table<K>, &mut Table<Pair<K>>),
        (lines, ends): (u32, u32),
        now: Tick,
    ) -> u32 {
        let (mut left, mut ended, mut over) = (lines, 0, Over::new());
        while left > 0 && ended < ends {
            left -= table.visit(left, ends - ended, now, |meta, left| self.rest(meta, left), &mut over);
            ended += over.len() as u32;
            if !over.is_empty() {
                self.all(table, pairs, &mut over);
            }
        }
        lines - left
    }

    /// Ends connections, side by side: what each of them reads next is asked for while others are looked at.
    #[inline(never)]
    fn all<K: Family>(&self, table: &mut Table<K>, pairs: &mut Table<Pair<K>>, over: &mut Over) {
        let apart = <Pair<K> as TableKey>::Line::APART;
        let mut leaving: ArrayVec<Leaving<K>, TOGETHER> = over
            .drain(..)
            .map(|found| {
                let key = table.key(found);
                let number = found.meta.protocol();
                let back = self.back(&key, found.meta);
                let wanted = match back {
                    Back::None => {
                        return Leaving { found, key, back, ahead: Found::NOTHING, probe: Probe::default() };
                    }
                    Back::Straight(tuple) => (tuple, number),
                    Back::ByPair => (key, local_port::forward(number)),
                };
                let probe = pairs.probe(&Pair::wanted(wanted.0), wanted.1);
                pairs.prefetch(probe);
                Leaving { found, key, back, ahead: Found::NOTHING, probe }
            })
            .collect();
        let by_pair = |one: &Leaving<K>| matches!(one.back, Back::ByPair);
        if apart {
            for one in leaving.iter().filter(|one| by_pair(one)) {
                let (wanted, number) = one.ahead_of();
                pairs.prefetch_key(&wanted, number, one.probe);
            }
        }
        for one in leaving.iter_mut().filter(|one| by_pair(one)) {
            let (wanted, number) = one.ahead_of();
            pairs.find_into(&wanted, number, one.probe, &mut one.ahead);
            one.back = Back::None;
            if one.ahead.is_some() {
                let tuple = pairs.key(one.ahead).other;
                one.back = Back::Straight(tuple);
                one.probe = pairs.probe(&Pair::wanted(tuple), one.found.meta.protocol());
                pairs.prefetch(one.probe);
            }
        }
        if apart {
            for one in &leaving {
                if let Back::Straight(tuple) = one.back {
                    pairs.prefetch_key(&Pair::wanted(tuple), one.found.meta.protocol(), one.probe);
                }
            }
        }
        for one in leaving {
            let meta = one.found.meta;
            table.remove(one.found);
            self.count(&one.key, meta, false);
            if one.ahead.is_some() {
                pairs.remove(one.ahead);
            }
            if let Back::Straight(tuple) = one.back {
                leave_back(pairs, (&Pair::wanted(tuple), &one.key), meta.protocol(), one.probe);
            }
        }
    }

    /// What counts a connection counts one less.
    fn count<K: Family>(&self, key: &K, meta: Meta, forced: bool) {
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
    }

    /// How replies find a connection.
    #[inline(always)]
    fn back<K: Family>(&self, key: &K, meta: Meta) -> Back<K> {
        let Some(entry) = self.snapshot.dest(meta.dest()) else { return Back::None };
        if entry.way.local_ends().is_some() || meta.is_spliced() {
            return Back::ByPair;
        }
        let tuple = if entry.way == Way::Nat { reply_tuple(key, entry) } else { None };
        tuple.map_or(Back::None, Back::Straight)
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
