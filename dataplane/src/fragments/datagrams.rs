//! The datagrams of which fragments have come: their flow, what has come of them, and frames that wait.

use std::collections::HashMap;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::Resolved;
use crate::DropReason;
use crate::parse::Fragment;

/// Fragments of a datagram that are followed: 64 KiB over links of 1280 bytes come in 53.
pub const MAX_PARTS: usize = 64;

/// How long a datagram is remembered, nanoseconds: 30 s, as Linux's `ipfrag_time`.
const LIFETIME_NS: u64 = 30_000_000_000;

/// No entry.
const NONE: u32 = u32::MAX;

/// Frames that go on, in the order of their datagram.
pub type Ready<P> = ArrayVec<P, MAX_PARTS>;

/// When fragments go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// From the first fragment on each as it comes: for the worker that finds out the flow and hands them over.
    Early,
    /// All at once when the last one has come, as in IPVS: for the worker that owns the flow. A server waits for the
    /// last one anyway; it never gets half a datagram, nor one of which fragments overlap.
    Whole,
}

/// How much a worker remembers. A frame that waits takes a packet buffer of whatever size the pool has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Datagrams at once.
    pub datagrams: u16,
    /// Frames that wait, in all; one datagram may have a quarter of them.
    pub held: u16,
    /// When fragments go on.
    pub release: Release,
}

impl Default for Limits {
    /// 1024 datagrams take 640 KiB once they are used; 256 frames of 2 KiB as much again.
    fn default() -> Self {
        Self { datagrams: 1024, held: 256, release: Release::Whole }
    }
}

/// What all fragments of a datagram have in common: RFC 791 section 3.2; without the protocol RFC 8200 section 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// Of IPv4; 0 for IPv6.
    protocol: u8,
}

impl Key {
    fn of<A: Copy + Into<IpAddr>>(fragment: &Fragment<A>) -> Self {
        let (src, dst) = (fragment.src.into(), fragment.dst.into());
        Self { src, dst, id: fragment.id, protocol: if src.is_ipv4() { fragment.protocol } else { 0 } }
    }
}

/// What is known of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Something is missing: the first fragment, or with [`Release::Whole`] another one.
    Waiting,
    /// The first fragment has come, and each goes on as it comes.
    Going,
    /// Nothing of it goes on any more.
    Refused(DropReason),
}

#[derive(Debug)]
struct Entry {
    key: Key,
    fate: Fate,
    /// What the first fragment has told.
    resolved: Option<Resolved>,
    /// When it came to the end of its queue.
    since_ns: u64,
    older: u32,
    newer: u32,
    /// Begin and end of what has come, bytes.
    parts: ArrayVec<(u16, u16), MAX_PARTS>,
    /// Where the last fragment ends, bytes.
    total: Option<u16>,
    /// Offset in the datagram and place in `frames` of what waits.
    held: ArrayVec<(u16, u16), MAX_PARTS>,
}

/// A queue through the entries, oldest first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
}

const EMPTY: Queue = Queue { oldest: NONE, newest: NONE };

/// One worker's datagrams in fragments, of both families.
#[derive(Debug)]
pub struct Datagrams<P> {
    limits: Limits,
    index: HashMap<Key, u32>,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    frames: Vec<Option<P>>,
    free_frames: Vec<u16>,
    /// Those of which frames wait, and all others. The lifetime is the same for all, so each is in order of expiry.
    waiting: Queue,
    others: Queue,
}

impl<P> Datagrams<P> {
    /// None yet. Allocates all that there will ever be.
    pub fn new(limits: Limits) -> Self {
        let (datagrams, held) = (usize::from(limits.datagrams), usize::from(limits.held));
        Self {
            limits,
            // a map that is at most half full cleans up in place and never grows
            index: HashMap::with_capacity(2 * datagrams),
            entries: Vec::with_capacity(datagrams),
            free_entries: Vec::with_capacity(datagrams),
            frames: (0..held).map(|_| None).collect(),
            free_frames: (0..limits.held).rev().collect(),
            waiting: EMPTY,
            others: EMPTY,
        }
    }

    /// Frames that wait.
    pub fn held(&self) -> usize {
        self.frames.len() - self.free_frames.len()
    }

    /// Datagrams that are remembered.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn queue(&mut self, fate: Fate) -> &mut Queue {
        if fate == Fate::Waiting { &mut self.waiting } else { &mut self.others }
    }

    fn entry(&mut self, at: u32) -> Option<&mut Entry> {
        self.entries.get_mut(at as usize)
    }

    /// Puts an entry at the end of the queue of its fate.
    fn enqueue(&mut self, at: u32, now_ns: u64) {
        let Some(fate) = self.entry(at).map(|entry| entry.fate) else { return };
        let queue = self.queue(fate);
        let last = std::mem::replace(&mut queue.newest, at);
        if last == NONE {
            queue.oldest = at;
        } else if let Some(last) = self.entry(last) {
            last.newer = at;
        }
        if let Some(entry) = self.entry(at) {
            (entry.older, entry.newer, entry.since_ns) = (last, NONE, now_ns);
        }
    }

    fn dequeue(&mut self, at: u32) {
        let Some((older, newer, fate)) = self.entry(at).map(|e| (e.older, e.newer, e.fate)) else { return };
        match self.entry(older) {
            Some(older) => older.newer = newer,
            None => self.queue(fate).oldest = newer,
        }
        match self.entry(newer) {
            Some(newer) => newer.older = older,
            None => self.queue(fate).newest = older,
        }
    }

    /// Gives an entry another fate, and its place in the queue of that.
    fn decide(&mut self, at: u32, fate: Fate, now_ns: u64) {
        self.dequeue(at);
        if let Some(entry) = self.entry(at) {
            entry.fate = fate;
        }
        self.enqueue(at, now_ns);
    }

    /// Drops what waits of an entry.
    fn drop_held(&mut self, at: u32, reason: DropReason, lost: &mut impl FnMut(DropReason)) {
        let held = self.entry(at).map(|entry| std::mem::take(&mut entry.held)).unwrap_or_default();
        for (_, place) in held {
            if self.take_frame(place).is_some() {
                lost(reason);
            }
        }
    }

    fn take_frame(&mut self, place: u16) -> Option<P> {
        let frame = self.frames.get_mut(usize::from(place))?.take()?;
        self.free_frames.push(place);
        Some(frame)
    }

    fn remove(&mut self, at: u32, reason: DropReason, lost: &mut impl FnMut(DropReason)) {
        self.drop_held(at, reason, lost);
        self.dequeue(at);
        if let Some(key) = self.entry(at).map(|entry| entry.key) {
            self.index.remove(&key);
            self.free_entries.push(at);
        }
    }

    fn since(&mut self, at: u32) -> Option<u64> {
        self.entry(at).map(|entry| entry.since_ns)
    }

    /// The oldest entry of all.
    fn oldest(&mut self) -> u32 {
        let (waiting, others) = (self.waiting.oldest, self.others.oldest);
        match (self.since(waiting), self.since(others)) {
            (Some(a), Some(b)) if a <= b => waiting,
            (Some(_), None) => waiting,
            _ => others,
        }
    }

    /// Forgets datagrams whose time is over, at most `budget` of them; the worker calls it now and then.
    pub fn expire(&mut self, now_ns: u64, budget: usize, lost: &mut impl FnMut(DropReason)) {
        for _ in 0..budget {
            let at = self.oldest();
            match self.since(at) {
                Some(since) if now_ns.saturating_sub(since) >= LIFETIME_NS => {
                    self.remove(at, DropReason::FragmentExpired, lost);
                }
                _ => return,
            }
        }
    }

    /// The entry of `key`, made if need be; `None`: nothing may be remembered at all.
    fn find_or_make(&mut self, key: Key, now_ns: u64, lost: &mut impl FnMut(DropReason)) -> Option<u32> {
        if let Some(at) = self.index.get(&key).copied() {
            if now_ns.saturating_sub(self.since(at)?) < LIFETIME_NS {
                return Some(at);
            }
            self.remove(at, DropReason::FragmentExpired, lost);
        }
        if self.index.len() >= usize::from(self.limits.datagrams) {
            let oldest = self.oldest();
            self.remove(oldest, DropReason::FragmentQueueFull, lost);
        }
        let entry = Entry {
            key,
            fate: Fate::Waiting,
            resolved: None,
            since_ns: now_ns,
            older: NONE,
            newer: NONE,
            parts: ArrayVec::new(),
            total: None,
            held: ArrayVec::new(),
        };
        let at = match self.free_entries.pop() {
            Some(at) => {
                *self.entry(at)? = entry;
                at
            }
            None if self.entries.len() < usize::from(self.limits.datagrams) => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            None => return None,
        };
        self.index.insert(key, at);
        self.enqueue(at, now_ns);
        Some(at)
    }

    /// A place for a frame to wait in; when there is none the oldest datagram that waits gives way to `own`.
    fn place(&mut self, own: u32, lost: &mut impl FnMut(DropReason)) -> Option<u16> {
        if self.free_frames.is_empty() {
            let mut oldest = self.waiting.oldest;
            if oldest == own {
                oldest = self.entry(own).map_or(NONE, |entry| entry.newer);
            }
            self.remove(oldest, DropReason::FragmentQueueFull, lost);
        }
        self.free_frames.pop()
    }

    /// Takes a fragment. What goes on now is put into `ready`, which is empty before; the flow comes back with it.
    ///
    /// What goes on is in the order of its datagram. `None`: nothing does, the frame waits or was dropped. `lost` is
    /// told of every frame that is dropped. Cost: a look-up, and a comparison with each fragment of the datagram that
    /// came before.
    pub fn admit<A: Copy + Into<IpAddr>>(
        &mut self,
        now_ns: u64,
        fragment: &Fragment<A>,
        frame: P,
        ready: &mut Ready<P>,
        lost: &mut impl FnMut(DropReason),
    ) -> Option<Resolved> {
        let Some(at) = self.find_or_make(Key::of(fragment), now_ns, lost) else {
            lost(DropReason::FragmentQueueFull);
            return None;
        };
        let release = self.limits.release;
        let entry = self.entry(at)?;
        if let Fate::Refused(reason) = entry.fate {
            lost(reason);
            return None;
        }
        match entry.note(fragment.offset, fragment.len, fragment.more) {
            Ok(()) => {}
            Err(DropReason::FragmentDuplicate) => {
                lost(DropReason::FragmentDuplicate);
                return None;
            }
            Err(reason) => {
                self.refuse(at, reason, now_ns, lost);
                return None;
            }
        }
        if let Some(head) = fragment.head {
            entry.resolved = Some(Resolved { protocol: head.protocol, ports: head.ports });
        }
        let (is_whole, fate) = (entry.is_whole(), entry.fate);
        let Some(resolved) = entry.resolved.filter(|_| is_whole || release == Release::Early) else {
            self.hold(at, fragment.offset, frame, now_ns, lost);
            return None;
        };
        self.release(at, (fragment.offset, frame), ready, lost);
        if is_whole {
            // nothing more can come, and senders use identifications again soon
            self.remove(at, DropReason::FragmentExpired, lost);
        } else if fate == Fate::Waiting {
            self.decide(at, Fate::Going, now_ns);
        }
        Some(resolved)
    }

    /// Refuses a datagram from now on: what waits, and the fragment at hand.
    fn refuse(&mut self, at: u32, reason: DropReason, now_ns: u64, lost: &mut impl FnMut(DropReason)) {
        lost(reason);
        self.drop_held(at, reason, lost);
        self.decide(at, Fate::Refused(reason), now_ns);
    }

    fn hold(&mut self, at: u32, offset: u16, frame: P, now_ns: u64, lost: &mut impl FnMut(DropReason)) {
        let share = usize::from(self.limits.held).div_ceil(4);
        let has_room = self.entry(at).is_some_and(|entry| entry.held.len() < share && !entry.held.is_full());
        let place = if has_room { self.place(at, lost) } else { None };
        let Some(place) = place else { return self.refuse(at, DropReason::FragmentTooMany, now_ns, lost) };
        if let Some(room) = self.frames.get_mut(usize::from(place)) {
            *room = Some(frame);
        }
        if let Some(entry) = self.entry(at) {
            entry.held.push((offset, place));
        }
    }

    /// Puts what waits, and the frame at hand with its offset, in order.
    fn release(&mut self, at: u32, own: (u16, P), ready: &mut Ready<P>, lost: &mut impl FnMut(DropReason)) {
        let mut held = self.entry(at).map(|entry| std::mem::take(&mut entry.held)).unwrap_or_default();
        held.sort_unstable();
        let mut put = |frame: Option<P>| {
            // a datagram has no more parts than there is room
            if frame.is_some_and(|frame| ready.try_push(frame).is_err()) {
                lost(DropReason::FragmentTooMany);
            }
        };
        let (offset, mut own) = (own.0, Some(own.1));
        for (place_offset, place) in held {
            if offset < place_offset {
                put(own.take());
            }
            put(self.take_frame(place));
        }
        put(own);
    }
}

impl Entry {
    /// Notes that a fragment has come. Errors: it came before; or the datagram is to be refused.
    fn note(&mut self, offset: u16, len: u16, more: bool) -> Result<(), DropReason> {
        let (begin, end) = (offset, offset.saturating_add(len));
        if self.parts.contains(&(begin, end)) {
            return Err(DropReason::FragmentDuplicate);
        }
        let overlaps = self.parts.iter().any(|(b, e)| begin < *e && *b < end);
        let ends_elsewhere = match (self.total, more) {
            (Some(total), true) => end > total,
            (Some(_), false) => true,
            (None, false) => self.parts.iter().any(|(_, e)| *e > end),
            (None, true) => false,
        };
        if overlaps || ends_elsewhere {
            return Err(DropReason::FragmentOverlap);
        }
        self.parts.try_push((begin, end)).map_err(|_| DropReason::FragmentTooMany)?;
        if !more {
            self.total = Some(end);
        }
        Ok(())
    }

    /// Whether every byte has come; parts do not overlap.
    fn is_whole(&self) -> bool {
        let come: usize = self.parts.iter().map(|(b, e)| usize::from(e - b)).sum();
        self.total.is_some_and(|total| come == usize::from(total))
    }
}
