//! The first two passes where servers' replies pass the director: what a packet is looked up by, and what that leads to.
//!
//! A reply is found by its pair, which leads to its connection; a client's packet by its connection, which with a local
//! end leads to a pair. Each step asks for the memory of the next one for all packets of a burst before the first is
//! compared. IPv6 needs a step more at both, as its keys lie beside the line that says which of them it may be.

use arrayvec::ArrayVec;
use lb_config::ClientAddress;

use super::ends::Ends;
use super::glance::{Batch, Row};
use super::{Burden, Kind};
use crate::conn::{Found, Pair, Probe};
use crate::flow::reply_tuple;
use crate::io::{BURST, PacketIo, WorkerId};
use crate::local_port::forward;
use crate::snapshot::{DestEntry, Way};
use crate::steer;
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

impl<I: PacketIo> Worker<I> {
    /// The rest of the first pass where a packet may be another worker's.
    #[inline(never)]
    pub(super) fn note_foreign<K: Ends>(
        &self,
        burden: &Burden,
        batch: &mut Batch<K>,
        owners: &mut ArrayVec<WorkerId, BURST>,
        own: Kind,
    ) -> Kind {
        let Some(Row { key, noted, probe, .. }) = batch.last() else { return own };
        let (client, vip) = (key.client().into(), key.vip().into());
        // whose it is must not depend on a hint
        let reply = burden.replies
            && self.snapshot.may_be_reply(client, vip)
            && self.snapshot.is_reply((client, key.client_port()), vip, noted.number());
        let end = if reply { (vip, key.vip_port()) } else { (client, key.client_port()) };
        let owner = steer::owner(end.0, end.1, self.setup.workers, &self.setup.steer_key);
        let (table, pairs) = K::tables_ref(&self.tables);
        if owner != self.id {
            batch.pop();
            owners.push(owner);
            return Kind::Foreign;
        }
        if reply {
            noted.set_reply();
            pairs.prefetch(pairs.probe_like(*probe));
        } else {
            table.prefetch(*probe);
        }
        own
    }

    /// The second pass.
    #[inline(never)]
    pub(super) fn look_both_ways<K: Ends>(&self, batch: &mut Batch<K>) {
        let Batch { rows, seconds } = batch;
        if K::APART {
            self.fetch_keys(rows);
        }
        if self.look_first(rows, seconds) {
            if K::APART {
                self.fetch_other_keys(rows, seconds);
            }
            self.look_again(rows, seconds);
        }
    }

    /// Looks for replies' pairs and others' connections. Returns whether there is more to be looked for.
    #[inline(never)]
    fn look_first<K: Ends>(&self, rows: &mut [Row<K>], seconds: &mut ArrayVec<Second<K>, BURST>) -> bool {
        let (table, pairs) = K::tables_ref(&self.tables);
        let dests = self.snapshot.dests.view();
        let has_local_ends = !self.snapshot.local_ends.is_empty();
        let mut more = false;
        for row in rows {
            let (key, number) = (&row.key, row.noted.number());
            if row.noted.is_reply()
                && let at = pairs.probe_like(row.probe)
                && let Some(pair) = pairs.find(&Pair::wanted(*key), number, at)
            {
                let tuple = pairs.key(pair).other;
                let probe = table.probe(&tuple, number);
                table.prefetch(probe);
                seconds.push(Second { turn: Turn::Back, tuple, probe });
                more = true;
                continue;
            }
            table.find_into(key, number, row.probe, &mut row.found);
            let dest = row.found.meta.dest();
            self.counters.prefetch_dest(dest);
            let mut second = Second { turn: Turn::Other, tuple: K::default(), probe: Probe::default() };
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
                _ if has_local_ends => pairs.prefetch(pairs.probe_like(row.probe)),
                _ => {}
            }
            seconds.push(second);
        }
        more
    }

    /// Looks for the connections of replies, and for the local ends of others.
    #[inline(never)]
    fn look_again<K: Ends>(&self, rows: &mut [Row<K>], seconds: &mut [Second<K>]) {
        let (table, pairs) = K::tables_ref(&self.tables);
        let (dests, ends) = (self.snapshot.dests.view(), &self.snapshot.local_ends[..]);
        let tells = |entry: &DestEntry, number| match entry.way.local_ends() {
            Some(at) if number == PROTOCOL_TCP => {
                ends.get(usize::from(at)).map_or(ClientAddress::None, |ends| ends.client_address)
            }
            _ => ClientAddress::None,
        };
        for (row, second) in rows.iter_mut().zip(seconds) {
            let number = row.noted.number();
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

    /// Asks for the keys that [`Worker::look_first`] compares.
    #[inline(never)]
    fn fetch_keys<K: Ends>(&self, rows: &[Row<K>]) {
        let (table, pairs) = K::tables_ref(&self.tables);
        for row in rows {
            let number = row.noted.number();
            if row.noted.is_reply() {
                pairs.prefetch_spilled(&Pair::wanted(row.key), number, pairs.probe_like(row.probe));
            } else {
                table.prefetch_spilled(&row.key, number, row.probe);
            }
        }
    }

    /// Asks for the keys that [`Worker::look_again`] compares.
    #[inline(never)]
    fn fetch_other_keys<K: Ends>(&self, rows: &[Row<K>], seconds: &[Second<K>]) {
        let (table, pairs) = K::tables_ref(&self.tables);
        for (row, second) in rows.iter().zip(seconds) {
            let number = row.noted.number();
            if second.turn == Turn::Back {
                table.prefetch_spilled(&second.tuple, number, second.probe);
            } else if second.turn == Turn::Paired {
                let at = pairs.probe_like(row.probe);
                pairs.prefetch_spilled(&Pair::wanted(row.key), forward(number), at);
            }
        }
    }
}
