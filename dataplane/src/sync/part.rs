//! Connections that are thrown out are told, so that nobody goes on with them.

use super::tell::is_worth;
use super::{Feeds, Gone, Listener, Record, Ring};
use crate::conn::Meta;
use crate::flow::Family;
use crate::io::WorkerId;
use crate::snapshot::Snapshot;

/// Most connections in a line of a table.
const SLOTS: usize = 4;

/// Tells other directors which connections this one throws out.
pub(crate) struct Parting<'a> {
    /// `None`: there are no others.
    ring: Option<&'a Ring>,
    handshakes: bool,
    snapshot: &'a Snapshot,
}

impl<'a> Parting<'a> {
    /// That of a worker.
    pub fn of(feeds: Option<&'a Feeds>, worker: WorkerId, snapshot: &'a Snapshot) -> Self {
        let ring = feeds.and_then(|feeds| feeds.ring(Listener::Peers, worker.0));
        Self { ring, handshakes: feeds.is_some_and(|feeds| feeds.handshakes), snapshot }
    }

    /// How many lines of at most `most` can be looked at now: what is thrown out unheard of would be known to others for
    /// ever, so there must be room to tell it.
    pub fn lines(&self, most: u64) -> u64 {
        self.ring.map_or(most, |ring| {
            let free = ring.records.capacity().saturating_sub(ring.records.len());
            most.min((free / SLOTS) as u64)
        })
    }

    /// Tells of one that was thrown out. Of those to another director's addresses nothing is said: they are its own.
    pub fn tell<K: Family>(&self, key: &K, meta: Meta) {
        let Some(ring) = self.ring else { return };
        if !is_worth(meta, self.handshakes) || self.snapshot.shared.is_absent(key.vip().into()) {
            return;
        }
        let name = self.snapshot.names.get(meta.dest().0 as usize).copied().flatten();
        if let Some(dest) = name {
            let client = (key.client().into(), key.client_port());
            let vip = (key.vip().into(), key.vip_port());
            ring.tell(Record::Gone(Gone { protocol: meta.protocol(), client, vip, dest }));
        }
    }
}
