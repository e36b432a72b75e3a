//! The first two passes where servers' replies pass the director: what a packet is looked up by, and what that leads to.
//!
//! A reply is found by its pair, which leads to its connection; a client's packet by its connection, which with a local
//! end leads to a pair. Each step asks for the memory of the next one for all packets of a burst before the first is
//! compared. IPv6 needs a step more at both, as its keys lie beside the line that says which of them it may be.

use arrayvec::ArrayVec;

use super::ends::Ends;
use super::glance::{Batch, Row, Second};
use super::{Burden, Kind};
use crate::conn::Pair;
use crate::io::{BURST, PacketIo, WorkerId};
use crate::local_port::forward;
use crate::steer;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// The rest of the first pass where a packet may be a reply or another worker's.
    #[inline(never)]
    pub(super) fn note_more<K: Ends>(
        &self,
        burden: &Burden,
        batch: &mut Batch<K>,
        owners: &mut ArrayVec<WorkerId, BURST>,
        own: Kind,
    ) -> Kind {
        let Some(Row { key, noted, probe, .. }) = batch.last() else { return own };
        let (client, vip) = (key.client().into(), key.vip().into());
        let mut reply = burden.replies && self.snapshot.may_be_reply(client, vip);
        if burden.foreign {
            // whose it is must not depend on a hint
            reply = reply && self.snapshot.is_reply((client, key.client_port()), vip, noted.number());
            let end = if reply { (vip, key.vip_port()) } else { (client, key.client_port()) };
            let owner = steer::owner(end.0, end.1, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                batch.pop();
                owners.push(owner);
                return Kind::Foreign;
            }
        }
        let (table, pairs) = K::tables_ref(&self.tables);
        let second = if reply {
            noted.set_reply();
            let probe = pairs.probe_like(*probe);
            pairs.prefetch(probe);
            Second::Pair(probe)
        } else {
            table.prefetch(*probe);
            Second::No
        };
        batch.seconds.push(second);
        own
    }

    /// The second pass.
    #[inline(never)]
    pub(super) fn look_both_ways<K: Ends>(&self, batch: &mut Batch<K>) {
        let (table, pairs) = K::tables_ref(&self.tables);
        let dests = self.snapshot.dests.view();
        let has_local_ends = !self.snapshot.local_ends.is_empty();
        let (rows, seconds) = batch.rows_mut();
        if K::APART {
            for (row, second) in rows.iter().zip(&*seconds) {
                match second {
                    Second::Pair(probe) => {
                        pairs.prefetch_spilled(&Pair::wanted(row.key), row.noted.number(), *probe)
                    }
                    _ => table.prefetch_spilled(&row.key, row.noted.number(), row.probe),
                }
            }
        }
        for (row, second) in rows.iter_mut().zip(&mut *seconds) {
            let (key, number) = (&row.key, row.noted.number());
            if let Second::Pair(probe) = *second
                && let Some(pair) = pairs.find(&Pair::wanted(*key), number, probe)
            {
                let key = pairs.key(pair).other;
                let probe = table.probe(&key, number);
                table.prefetch(probe);
                *second = Second::Connection(pair, probe);
                continue;
            }
            *second = Second::No;
            table.find_into(key, number, row.probe, &mut row.found);
            let dest = row.found.meta.dest();
            self.counters.prefetch_dest(dest);
            // what has no connection may get one with a local end
            let leads_on = || match dests.get(dest.0 as usize) {
                Some(Some(entry)) if row.found.is_some() => entry.way.local_ends().is_some(),
                _ => true,
            };
            if has_local_ends && leads_on() {
                let probe = pairs.probe_like(row.probe);
                pairs.prefetch(probe);
                *second = Second::Pair(probe);
            }
        }
        if K::APART {
            for (row, second) in rows.iter().zip(&*seconds) {
                match second {
                    Second::Connection(pair, probe) => {
                        table.prefetch_spilled(&pairs.key(*pair).other, row.noted.number(), *probe)
                    }
                    Second::Pair(probe) => {
                        pairs.prefetch_spilled(&Pair::wanted(row.key), forward(row.noted.number()), *probe)
                    }
                    Second::No => {}
                }
            }
        }
    }
}
