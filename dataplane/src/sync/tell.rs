//! Which connections a worker tells of, and when.

use std::sync::Arc;

use super::{Connection, Feeds, Flags, Record, Streams, walk};
use crate::conn::{Key4, Key6, Meta, Tick};
use crate::flood::evict::is_embryonic;
use crate::flow::Family;
use crate::io::PacketIo;
use crate::local_port;
use crate::parse::L4;
use crate::persist::Child;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::tables::Tables;
use crate::worker::Worker;

/// Connections of a family that may change in a turn and be told at its end: more than the packets of a turn, but for
/// directors with many ports. Those beyond are counted as lost.
const CHANGED: usize = 1024;

/// What a worker has to tell.
#[derive(Debug)]
pub(crate) struct Teller {
    /// Where it tells; as in the snapshot, whose director lets old ones go once every worker goes by a newer snapshot.
    pub feeds: Option<Arc<Feeds>>,
    changed4: Vec<(Key4, u8)>,
    changed6: Vec<(Key6, u8)>,
    /// Changes of this turn that were not noted.
    unnoted: u64,
    pub walks: [walk::Walk; 2],
}

/// A family's connections that changed.
pub(crate) trait Changes: Sized {
    fn changed(teller: &mut Teller) -> &mut Vec<(Self, u8)>;
}

impl Changes for Key4 {
    fn changed(teller: &mut Teller) -> &mut Vec<(Self, u8)> {
        &mut teller.changed4
    }
}

impl Changes for Key6 {
    fn changed(teller: &mut Teller) -> &mut Vec<(Self, u8)> {
        &mut teller.changed6
    }
}

impl Teller {
    /// One that goes by a worker's first snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        Self {
            feeds: snapshot.sync.clone(),
            changed4: Vec::with_capacity(CHANGED),
            changed6: Vec::with_capacity(CHANGED),
            unnoted: 0,
            walks: Default::default(),
        }
    }

    /// Goes by a new snapshot.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let same = match (&self.feeds, &snapshot.sync) {
            (Some(own), Some(new)) => Arc::ptr_eq(own, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.feeds = snapshot.sync.clone();
            self.walks = Default::default();
            self.changed4.clear();
            self.changed6.clear();
        }
    }

    /// Notes that a connection changed.
    #[cold]
    pub fn note<K: Changes>(&mut self, key: K, protocol: u8) {
        let changed = K::changed(self);
        if changed.len() < changed.capacity() {
            changed.push((key, protocol));
        } else {
            self.unnoted += 1;
        }
    }

    /// Whether nothing changed.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.changed4.is_empty() && self.changed6.is_empty()
    }
}

/// Whether a connection is worth telling: established or later, and of UDP, where its client went on after its first
/// packet.
pub(super) fn is_worth(meta: Meta, handshakes: bool) -> bool {
    match meta.state() {
        State::Udp => handshakes || meta.heard() || meta.is_foreign(),
        _ if L4::of(meta.protocol()).is_none() => false,
        _ => handshakes || !is_embryonic(meta),
    }
}

/// What is needed to put a connection into words.
pub(super) struct Words<'a> {
    pub snapshot: &'a Snapshot,
    pub tables: &'a Tables,
    pub now: Tick,
    pub now_ns: u64,
}

impl Words<'_> {
    /// A connection in words; `None`: its time is over, or it is of a kind that is not told.
    pub fn connection<K: Family>(&self, key: &K, meta: Meta) -> Option<Connection> {
        let protocol = meta.protocol();
        let l4 = L4::of(protocol)?;
        let entry = self.snapshot.dest(meta.dest())?;
        let dest = *self.snapshot.names.get(meta.dest().0 as usize)?.as_ref()?;
        let left = meta.deadline().left(self.now)?;
        let mut flags = Flags {
            no_output: meta.no_output(),
            controlled: meta.controlled(),
            assured: meta.assured(),
            proxied: meta.is_proxied(),
            answered: false,
        };
        let (mut local, mut streams) = (None, Streams::Alike);
        if entry.way.local_ends().is_some() || meta.is_spliced() {
            let (_, pairs) = K::tables_ref(self.tables);
            let (pair, reply) = local_port::reply_of(pairs, *key, protocol)?;
            if entry.way.local_ends().is_some() {
                local = Some((reply.vip().into(), reply.vip_port()));
            }
            flags.answered = pair.meta.answered();
            streams = match pair.meta.splice() {
                Some(splice) => Streams::Spliced(splice),
                None if meta.is_proxied() => Streams::Headed(pair.meta.stream()),
                None => Streams::Alike,
            };
        }
        let (client, vip) = ((key.client().into(), key.client_port()), (key.vip().into(), key.vip_port()));
        let template = if meta.controlled() {
            let rule = self.snapshot.rules.get(usize::from(entry.rule));
            rule.map(|rule| rule.key(&Child { client: client.0, vip: vip.0, vport: vip.1, protocol: l4 }))
        } else {
            None
        };
        let state = meta.state();
        let told_ns = self.now_ns;
        Some(Connection {
            protocol,
            client,
            vip,
            dest,
            local,
            state,
            flags,
            left,
            streams,
            template,
            told_ns,
        })
    }
}

impl<I: PacketIo> Worker<I> {
    /// A connection is in another state, or was heard for the first time.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_change<K: Family + Changes>(&mut self, key: K, meta: Meta) {
        let Some(feeds) = &self.teller.feeds else { return };
        if is_worth(meta, feeds.handshakes) {
            self.teller.note(key, meta.protocol());
        }
    }

    /// Takes in what other directors told, and tells what changed in this turn and what is due.
    #[cold]
    pub(crate) fn sync(&mut self, packets: usize) {
        // put back below: no count of references is touched
        let Some(feeds) = self.teller.feeds.take() else { return };
        self.take_in(&feeds);
        if !self.teller.is_quiet() {
            self.tell_changed::<Key4>(&feeds);
            self.tell_changed::<Key6>(&feeds);
        }
        let unnoted = std::mem::take(&mut self.teller.unnoted);
        for (at, tap) in feeds.taps.iter().enumerate() {
            if let Some(tap) = tap
                && let Some(ring) = tap.rings.get(usize::from(self.id.0))
            {
                ring.lose(unnoted);
                self.walk(at, tap.settings, ring, packets);
            }
        }
        self.teller.feeds = Some(feeds);
    }

    fn tell_changed<K: Family + Changes>(&mut self, feeds: &Feeds) {
        let mut changed = std::mem::take(K::changed(&mut self.teller));
        let (now, now_ns) = (self.now, self.now_ns);
        let words = Words { snapshot: &self.snapshot, tables: &self.tables, now, now_ns };
        let (table, _) = K::tables_ref(&self.tables);
        for (key, protocol) in changed.drain(..) {
            let Some(found) = table.find(&key, protocol, table.probe(&key, protocol)) else { continue };
            let mut record = None;
            for tap in feeds.taps.iter().flatten() {
                if !is_worth(found.meta, tap.settings.handshakes) {
                    continue;
                }
                record = record.or_else(|| words.connection(&key, found.meta).map(Record::Connection));
                if let (Some(record), Some(ring)) = (record, tap.rings.get(usize::from(self.id.0))) {
                    ring.tell(record);
                }
            }
        }
        *K::changed(&mut self.teller) = changed;
    }
}
