//! Going through the tables: all connections for who knows none, and those that live on for who knows them.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::tell::{Words, is_worth};
use super::{Record, Ring, TapSettings};
use crate::conn::{Meta, Tick};
use crate::flow::Family;
use crate::io::PacketIo;
use crate::snapshot::Snapshot;
use crate::tables::Tables;
use crate::worker::Worker;

/// Lines that a turn with packets visits, and one without.
const LINES_BUSY: u64 = 32;
const LINES_IDLE: u64 = 1024;
/// Places that stay free for what changes while all are told.
const RESERVE: usize = 4096;
/// Most connections in a line.
const SLOTS: usize = 4;
/// Buckets of templates that a turn visits.
const BUCKETS: usize = 16;

/// How far a walk is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    /// Next line of the tables; lines of IPv6 follow those of IPv4, templates' buckets those.
    cursor: u64,
    /// All are told, rather than those that live on.
    all: bool,
    /// How often all were asked for.
    wanted: u64,
    /// Moves of entries within the tables when it began.
    moved: u64,
    /// It is the second: entries were moved during the first, which may have missed them.
    again: bool,
    /// When lines were last visited, ns.
    visited_ns: u64,
}

/// What is told of the lines that are visited.
struct Visit<'a> {
    words: Words<'a>,
    ring: &'a Ring,
    settings: TapSettings,
    all: bool,
    /// Some address is another director's.
    absent: bool,
}

impl Visit<'_> {
    fn see<K: Family>(&self, key: &K, meta: Meta) {
        if !is_worth(meta, self.settings.handshakes)
            || self.absent && self.words.snapshot.shared.is_absent(key.vip().into())
            || !self.all && !self.is_due(meta)
        {
            return;
        }
        if let Some(connection) = self.words.connection(key, meta) {
            self.ring.tell(Record::Connection(connection));
        }
    }

    /// Whether a packet of an own connection was seen since the last walk.
    fn is_due(&self, meta: Meta) -> bool {
        let snapshot: &Snapshot = self.words.snapshot;
        let Some(entry) = snapshot.dest(meta.dest()).filter(|_| !meta.is_foreign()) else { return false };
        let Some(timeouts) = snapshot.timeouts.get(usize::from(entry.timeouts)) else { return false };
        let whole = timeouts.after(meta.state(), meta.no_output());
        let Some(left) = meta.deadline().left(self.words.now) else { return false };
        let period = self.settings.refresh_ns.saturating_mul(Tick::PER_SECOND) / 1_000_000_000;
        // a packet that came between two visits of its line; a tick more for rounding
        u64::from(whole.saturating_sub(left)) <= period + 1
    }
}

impl<I: PacketIo> Worker<I> {
    /// Visits the lines that are due for a listener.
    pub(super) fn walk(&mut self, at: usize, settings: TapSettings, ring: &Ring, packets: usize) {
        let Some(mut walk) = self.teller.walks.get(at).copied() else { return };
        let Tables { v4, v6, .. } = &self.tables;
        let (lines4, lines6) = (u64::from(v4.lines()), u64::from(v6.lines()));
        let moved = v4.moved() + v6.moved();
        let wanted = ring.wanted.load(Acquire);
        if wanted != walk.wanted {
            walk = Walk { wanted, all: true, moved, ..Walk::default() };
        }
        let buckets = if self.id.0 == 0 { self.setup.templates.buckets() as u64 } else { 0 };
        let lines = lines4 + lines6;
        let end = lines + if walk.all { buckets } else { 0 };
        let most = if packets > 0 { LINES_BUSY } else { LINES_IDLE };
        let count = if walk.all {
            let free = ring.records.capacity() - ring.records.len();
            most.min(free.saturating_sub(RESERVE) as u64 / SLOTS as u64)
        } else {
            // empty tables are passed over
            let span = if v4.is_empty() { 0 } else { lines4 } + if v6.is_empty() { 0 } else { lines6 };
            if span == 0 {
                // no lines are owed for that time: whoever comes next is told as new alone
                walk.visited_ns = self.now_ns;
            }
            let elapsed = self.now_ns.saturating_sub(walk.visited_ns).min(settings.refresh_ns);
            let due = u128::from(span) * u128::from(elapsed) / u128::from(settings.refresh_ns.max(1));
            (due as u64).min(most)
        };
        if count == 0 {
            self.keep_walk(at, walk);
            return;
        }
        walk.visited_ns = self.now_ns;
        let (now, now_ns) = (self.now, self.now_ns);
        let words = Words { snapshot: &self.snapshot, tables: &self.tables, now, now_ns };
        let visit = Visit { words, ring, settings, all: walk.all, absent: self.absent };
        if walk.cursor < lines4 {
            let count = if v4.is_empty() { lines4 } else { count }.min(lines4 - walk.cursor);
            if !v4.is_empty() {
                v4.walk(walk.cursor as u32, count as u32, |key, meta| visit.see(key, meta));
            }
            walk.cursor += count;
        } else if walk.cursor < lines {
            let count = if v6.is_empty() { lines6 } else { count }.min(lines - walk.cursor);
            if !v6.is_empty() {
                v6.walk((walk.cursor - lines4) as u32, count as u32, |key, meta| visit.see(key, meta));
            }
            walk.cursor += count;
        } else if walk.cursor < end {
            let count = (BUCKETS as u64).min(end - walk.cursor);
            for bucket in walk.cursor - lines..walk.cursor - lines + count {
                self.tell_templates(bucket as usize, ring);
            }
            walk.cursor += count;
        }
        if walk.cursor >= end {
            if walk.all && walk.moved != moved && !walk.again {
                walk = Walk { again: true, moved, cursor: 0, ..walk };
            } else {
                if walk.all {
                    ring.done.store(walk.wanted, Release);
                }
                walk = Walk { wanted: walk.wanted, visited_ns: walk.visited_ns, ..Walk::default() };
            }
        }
        self.keep_walk(at, walk);
    }

    fn keep_walk(&mut self, at: usize, walk: Walk) {
        if let Some(place) = self.teller.walks.get_mut(at) {
            *place = walk;
        }
    }
}
