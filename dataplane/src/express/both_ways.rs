//! The first two passes where servers' replies pass the director: what a packet is looked up by, and what that leads to.
//!
//! A reply is found by its pair, which leads to its connection; a client's packet by its connection, which with a local
//! end leads to a pair. Each step asks for the memory of the next one for all packets of a burst before the first is
//! compared. IPv6 needs a step more at both, as its keys lie beside the line that says which of them it may be.

use lb_config::ClientAddress;

use super::Kind;
use super::ends::Ends;
use super::glance::Row;
use crate::conn::{ConnKey, Found, Pair, Probe, Table};
use crate::counters::WorkerCounters;
use crate::flow::reply_tuple;
use crate::io::{BURST, PacketIo};
use crate::local_port::forward;
use crate::snapshot::{DestEntry, Snapshot, Way};
use crate::wire::PROTOCOL_TCP;
use crate::worker::Worker;

/// Where a packet goes, as far as the second pass knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// By direct routing or into a tunnel, or more is to be done than to give it other ends.
    Other,
    /// To the server.
    Onward,
    /// To the client.
    Back,
    /// To the server, by a pair that was asked for; of no packet after the second pass.
    Paired,
}

/// What the second pass says of a packet beside its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Second<K> {
    pub turn: Turn,
    /// Of packets that go onward or back: what they leave as replies of, see [`super::redirect`].
    pub tuple: K,
    /// Of those that go back: where the connection may be.
    probe: Probe,
}

impl<K: ConnKey> Second<K> {
    /// Nothing beside it.
    #[inline(always)]
    pub fn none() -> Self {
        Self { turn: Turn::Other, tuple: K::default(), probe: Probe::default() }
    }
}

/// What the second pass looks into.
#[derive(Clone, Copy)]
struct Sight<'a, K: Ends> {
    table: &'a Table<K>,
    pairs: &'a Table<Pair<K>>,
    snapshot: &'a Snapshot,
    counters: &'a WorkerCounters,
    /// What the packets are that stand where the rows do; those of another kind are passed over.
    kinds: &'a [Kind],
}

impl<I: PacketIo> Worker<I> {
    /// The second pass, over a family's packets from place `from` to before `to`.
    #[inline(never)]
    pub(super) fn look_both_ways<K: Ends>(&mut self, from: usize, to: usize) {
        let Self { snapshot, counters, tables, board, .. } = self;
        let (table, pairs) = K::tables_ref(tables);
        let (kinds, batch) = K::batch_mut(board);
        let range = from.min(BURST)..to.min(BURST);
        batch.two_ways = true;
        let (rows, seconds) = (&mut batch.rows[range.clone()], &mut batch.seconds[range.clone()]);
        let sight = Sight { table, pairs, snapshot, counters, kinds: &kinds[range] };
        if K::APART {
            sight.fetch_keys(rows);
        }
        if sight.look_first(rows, seconds) {
            if K::APART {
                sight.fetch_other_keys(rows, seconds);
            }
            sight.look_again(rows, seconds);
        }
    }
}

impl<K: Ends> Sight<'_, K> {
    /// Looks for replies' pairs and others' connections. Returns whether there is more to be looked for.
    #[inline(never)]
    fn look_first(&self, rows: &mut [Row<K>], seconds: &mut [Second<K>]) -> bool {
        let Self { table, pairs, .. } = *self;
        let dests = self.snapshot.dests.view();
        let has_local_ends = !self.snapshot.local_ends.is_empty();
        let mut more = false;
        for ((row, second), kind) in rows.iter_mut().zip(seconds).zip(self.kinds) {
            if *kind != K::KIND {
                continue;
            }
            let (key, number) = (&row.key, row.noted.number());
            if row.noted.is_reply()
                && let at = pairs.probe_like(row.probe)
                && let Some(pair) = pairs.find(&Pair::wanted(*key), number, at)
            {
                let tuple = pairs.key(pair).other;
                let probe = table.probe(&tuple, number);
                table.prefetch(probe);
                *second = Second { turn: Turn::Back, tuple, probe };
                more = true;
                continue;
            }
            table.find_into(key, number, row.probe, &mut row.found);
            let dest = row.found.meta.dest();
            self.counters.prefetch_dest(dest);
            second.turn = Turn::Other;
            match dests.get(dest.0 as usize) {
                Some(Some(entry)) if row.found.is_some() => match entry.way {
                    Way::Nat => {
                        if let Some(tuple) = reply_tuple(key, entry) {
                            (second.turn, second.tuple) = (Turn::Onward, tuple);
                        }
                    }
                    Way::FullNat(_) | Way::Snat(_) => {
                        pairs.prefetch(pairs.probe_like(row.probe));
                        second.turn = Turn::Paired;
                        more = true;
                    }
                    Way::Dr | Way::Tunnel(_) => {}
                },
                // what has no connection may get one with a local end
                _ if has_local_ends => pairs.prefetch_front(pairs.probe_like(row.probe)),
                _ => {}
            }
        }
        more
    }

    /// Looks for the connections of replies, and for the local ends of others.
    #[inline(never)]
    fn look_again(&self, rows: &mut [Row<K>], seconds: &mut [Second<K>]) {
        let Self { table, pairs, .. } = *self;
        let (dests, ends) = (self.snapshot.dests.view(), &self.snapshot.local_ends[..]);
        let tells = |entry: &DestEntry, number| match entry.way.local_ends() {
            Some(at) if number == PROTOCOL_TCP => {
                ends.get(usize::from(at)).map_or(ClientAddress::None, |ends| ends.client_address)
            }
            _ => ClientAddress::None,
        };
        for ((row, second), kind) in rows.iter_mut().zip(seconds).zip(self.kinds) {
            let number = row.noted.number();
            if *kind != K::KIND {
                continue;
            }
            if second.turn == Turn::Back {
                table.find_into(&second.tuple, number, second.probe, &mut row.found);
                let dest = row.found.meta.dest();
                self.counters.prefetch_dest(dest);
                match dests.get(dest.0 as usize) {
                    Some(Some(entry)) if entry.way.sees_replies() => {
                        if tells(entry, number) != ClientAddress::None {
                            second.turn = Turn::Other;
                        }
                    }
                    // what is a reply by a pair that is no longer meant is found anew
                    _ => (second.turn, row.found) = (Turn::Other, Found::NOTHING),
                }
            } else if second.turn == Turn::Paired {
                second.turn = Turn::Other;
                let at = pairs.probe_like(row.probe);
                if let Some(pair) = pairs.find(&Pair::wanted(row.key), forward(number), at)
                    && let Some(Some(entry)) = dests.get(row.found.meta.dest().0 as usize)
                {
                    let told = pair.meta.is_pair_proxied()
                        || tells(entry, number) == ClientAddress::Toa && !pair.meta.answered();
                    if !told || matches!(entry.way, Way::Snat(_)) {
                        (second.turn, second.tuple) = (Turn::Onward, pairs.key(pair).other);
                    }
                }
            }
        }
    }

    /// Asks for the keys that [`Sight::look_first`] compares.
    #[inline(never)]
    fn fetch_keys(&self, rows: &[Row<K>]) {
        let Self { table, pairs, .. } = *self;
        for (row, _) in rows.iter().zip(self.kinds).filter(|(_, kind)| **kind == K::KIND) {
            let number = row.noted.number();
            if row.noted.is_reply() {
                pairs.prefetch_key(&Pair::wanted(row.key), number, pairs.probe_like(row.probe));
            } else {
                table.prefetch_key(&row.key, number, row.probe);
            }
        }
    }

    /// Asks for the keys that [`Sight::look_again`] compares.
    #[inline(never)]
    fn fetch_other_keys(&self, rows: &[Row<K>], seconds: &[Second<K>]) {
        let Self { table, pairs, .. } = *self;
        for ((row, second), kind) in rows.iter().zip(seconds).zip(self.kinds) {
            let number = row.noted.number();
            if *kind != K::KIND {
                continue;
            }
            if second.turn == Turn::Back {
                table.prefetch_key(&second.tuple, number, second.probe);
            } else if second.turn == Turn::Paired {
                let at = pairs.probe_like(row.probe);
                pairs.prefetch_key(&Pair::wanted(row.key), forward(number), at);
            }
        }
    }
}
