//! Taking tables over where they lie: every entry is checked, and counted where this process counts.

use super::{Loss, Moment, Taken};
use crate::conn::{Meta, Pair, Splice, Table};
use crate::flood::evict::is_embryonic;
use crate::flow::{Family, reply_tuple};
use crate::io::WorkerId;
use crate::local_port::{forward, reply_of};
use crate::parse::L4;
use crate::persist::Child;
use crate::setup::WorkerSeed;
use crate::snapshot::{DestEntry, Way};
use crate::tables::Tables;
use crate::wire::{PROTOCOL_ICMP, PROTOCOL_ICMP6};

/// Makes the connections that an earlier process left in `tables` those of the worker that `seed` is for: to be called
/// before that is made, and once. Tables that nobody left anything in are empty and stay so.
pub fn take_over(tables: &mut Tables, seed: &WorkerSeed, moment: &Moment) -> Taken {
    let Tables { v4, v6, pairs4, pairs6, .. } = tables;
    let mut census = Census { seed, moment: *moment, taken: Taken::default() };
    census.family(v4, pairs4);
    census.family(v6, pairs6);
    census.taken
}

/// Whether what a pair knows can be: what packets go by without a check of their own.
pub(super) fn is_pair(meta: Meta) -> bool {
    let number = meta.protocol();
    let known = |protocol| L4::of(protocol).is_some() || matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMP6);
    let fits = match meta.splice() {
        Some(Splice::Open { to_server, to_client, .. }) => to_server <= 14 && (-14..=14).contains(&to_client),
        Some(Splice::Opening { .. }) | None => true,
    };
    fits && (known(number) || known(forward(number)))
}

/// Checks and counts connections for one worker.
pub(super) struct Census<'a> {
    pub seed: &'a WorkerSeed,
    pub moment: Moment,
    pub taken: Taken,
}

impl Census<'_> {
    fn family<K: Family>(&mut self, table: &mut Table<K>, pairs: &mut Table<Pair<K>>) {
        if pairs.is_left() {
            pairs.repair(|_, meta| is_pair(meta));
        }
        if table.is_left() {
            let torn = table.repair(|key, meta| match self.judge(key, meta, pairs) {
                Ok(entry) => {
                    self.count(self.seed.id, key, meta, &entry);
                    true
                }
                Err(loss) => {
                    self.taken.lose(loss);
                    false
                }
            });
            self.taken.lost[Loss::Torn as usize] += u64::from(torn);
        }
        self.drop_orphans(table, pairs);
    }

    /// Where a connection goes; or why it cannot go on. The pair by which replies by NAT find it is made where it is missing.
    pub(super) fn judge<K: Family>(
        &self,
        key: &K,
        meta: Meta,
        pairs: &mut Table<Pair<K>>,
    ) -> Result<DestEntry, Loss> {
        let snapshot = &self.seed.snapshot;
        if self.moment.is_over(meta.deadline()) {
            return Err(Loss::Expired);
        }
        let entry = *snapshot.dest(meta.dest()).ok_or(Loss::Gone)?;
        let protocol = meta.protocol();
        let is_snat = matches!(entry.way, Way::Snat(_));
        let fits = match L4::of(protocol) {
            Some(_) => true,
            None => is_snat && matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMP6),
        };
        let same_family = matches!(entry.way, Way::Tunnel(_)) || K::address(entry.address).is_some();
        if !fits || !same_family {
            return Err(Loss::Torn);
        }
        if snapshot.reschedules(&entry) {
            return Err(Loss::Gone);
        }
        if entry.way.local_ends().is_some() || meta.is_spliced() {
            self.check_pairs(key, meta, pairs)?;
        } else if entry.way == Way::Nat
            && let Some(tuple) = reply_tuple(key, &entry)
        {
            let pair = Pair { tuple, other: *key };
            let probe = pairs.probe(&pair, protocol);
            if pairs.find(&pair, protocol, probe).is_none() {
                pairs.insert(pair, probe, Meta::of_pair(protocol)).map_err(|_| Loss::NoRoom)?;
            }
        }
        Ok(entry)
    }

    /// Both pairs of a connection that has a local end, or whose handshake the director did, lead to each other.
    fn check_pairs<K: Family>(&self, key: &K, meta: Meta, pairs: &Table<Pair<K>>) -> Result<(), Loss> {
        let protocol = meta.protocol();
        let (found, reply) = reply_of(pairs, *key, protocol).ok_or(Loss::Torn)?;
        let back = Pair::wanted(reply);
        let back = pairs.find(&back, protocol, pairs.probe(&back, protocol)).ok_or(Loss::Torn)?;
        let agree = pairs.key(back).other == *key
            && found.meta.splice().is_some() == meta.is_spliced()
            && found.meta.is_pair_proxied() == meta.is_proxied();
        if agree { Ok(()) } else { Err(Loss::Torn) }
    }

    /// Counts a connection that goes on, as its beginning would have been.
    pub(super) fn count<K: Family>(&mut self, worker: WorkerId, key: &K, meta: Meta, entry: &DestEntry) {
        let (seed, at) = (self.seed, meta.dest().0 as usize);
        let Some(counters) = seed.counters.get(usize::from(worker.0)) else { return };
        let Some(dest) = counters.dests.get(at) else { return };
        dest.total.up();
        if meta.active() {
            dest.active.up();
        }
        if is_embryonic(meta) {
            counters.own.embryonic.up();
        }
        counters.own.connections.add(1);
        seed.snapshot.bound(meta.dest(), &seed.counters);
        if meta.controlled()
            && let Some(rule) = seed.snapshot.rules.get(usize::from(entry.rule))
            && let Some(protocol) = L4::of(meta.protocol())
        {
            let (client, vip, vport) = (key.client().into(), key.vip().into(), key.vip_port());
            let child = Child { client, vip, vport, protocol };
            seed.setup.templates.adopt(rule, &child, meta.dest(), self.moment.now_ns, meta.assured());
        }
        self.taken.kept += 1;
    }

    /// Removes the pairs that no connection has: they have no time of their own.
    fn drop_orphans<K: Family>(&self, table: &Table<K>, pairs: &mut Table<Pair<K>>) {
        if !pairs.is_left() {
            return;
        }
        let mut orphans = Vec::new();
        pairs.walk(0, pairs.lines(), |pair, meta| {
            if !self.is_pair_of(pair, meta, table, pairs) {
                orphans.push((*pair, meta.protocol()));
            }
        });
        for (pair, number) in orphans {
            if let Some(found) = pairs.find(&pair, number, pairs.probe(&pair, number)) {
                pairs.remove(found);
            }
        }
    }

    /// Whether a connection has this pair.
    fn is_pair_of<K: Family>(
        &self,
        pair: &Pair<K>,
        meta: Meta,
        table: &Table<K>,
        pairs: &Table<Pair<K>>,
    ) -> bool {
        let number = meta.protocol();
        // numbers of the two kinds are never the same
        let is_on = L4::of(number).is_none() && !matches!(number, PROTOCOL_ICMP | PROTOCOL_ICMP6);
        let (key, protocol) = if is_on { (pair.tuple, forward(number)) } else { (pair.other, number) };
        let Some(found) = table.find(&key, protocol, table.probe(&key, protocol)) else { return false };
        let Some(entry) = self.seed.snapshot.dest(found.meta.dest()) else { return false };
        let has_both = entry.way.local_ends().is_some() || found.meta.is_spliced();
        match (has_both, is_on) {
            (true, true) => true,
            (true, false) => reply_of(pairs, key, protocol).is_some_and(|(_, reply)| reply == pair.tuple),
            (false, true) => false,
            (false, false) => entry.way == Way::Nat && reply_tuple(&key, entry) == Some(pair.tuple),
        }
    }
}
