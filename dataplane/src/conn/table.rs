//! A bounded hash table of connections, one cache line per IPv4 hit.
//!
//! A line holds [`SLOTS`] keys and their [`Meta`] words. Every key has two candidate lines; it lives in the first when
//! there was room at insertion, else in the second, else somebody is moved to their other line to make room
//! (cuckoo hashing; Pagh and Rodler 2004, with buckets). The first line counts the keys that live in their second
//! line, so a miss reads one line unless such keys exist.
//!
//! Invariant: a key is in at most one slot, that slot is in one of its two lines, and `spilled` of a line is the
//! number of entries whose first line it is and that live elsewhere.

use zerocopy::FromZeros;

use super::entry::{Meta, Tick};
use super::key::{ConnKey, HashKey};

/// Connections of a line. Three IPv4 keys fill 64 bytes, three IPv6 keys 192.
pub const SLOTS: usize = 3;

/// Slots filled to hold `max_connections`: above about 96 % a chain of moves may not end.
const LOAD_PERCENT: u64 = 90;

/// Lines beyond the load, so that chance does not fill a small table early.
///
/// No chain of moves ends exactly when more than 3k keys have both their lines among the same k lines (Hall). With n
/// keys in L lines that has a probability of at most the sum over k >= 2 of `C(L,k) * P(Bin(n, (k/L)^2) > 3k)`,
/// nearly all of it from k = 2. For n = 13 and the six lines that 90 % asks for, that is 6e-3 (seen in a test); with
/// these 512 lines more it is below 2e-14 for every n, greatest at n = 2000, and falls as L^-5 from there. Price: 32
/// KiB a table of IPv4, 96 KiB of IPv6.
const SLACK_LINES: u64 = 512;

#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Line<K> {
    pub(super) keys: [K; SLOTS],
    pub(super) spilled: u32,
    pub(super) metas: [Meta; SLOTS],
}

const _: () = assert!(size_of::<Line<super::Key4>>() == 64);
const _: () = assert!(size_of::<Line<super::Key6>>() == 192);

impl<K: ConnKey> Line<K> {
    #[inline]
    fn find(&self, key: &K, protocol: u8) -> Option<usize> {
        (0..SLOTS).find(|&slot| self.keys[slot] == *key && self.metas[slot].protocol() == protocol)
    }

    #[inline]
    pub(super) fn free(&self) -> Option<usize> {
        (0..SLOTS).find(|&slot| self.metas[slot].is_empty())
    }
}

/// The two candidate lines of a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    pub(super) first: u32,
    pub(super) second: u32,
}

/// Where a connection was found; valid until the table's next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) line: u32,
    pub(super) slot: u8,
    /// Its entry.
    pub meta: Meta,
}

/// The table has no room for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The system has no memory for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a connection table of {bytes} bytes; lower limits.max_connections")]
pub struct NoMemory {
    /// Size of the table.
    pub bytes: usize,
}

/// Connections of one address family of one worker.
#[derive(Debug)]
pub struct Table<K> {
    pub(super) lines: Box<[Line<K>]>,
    secret: HashKey,
    pub(super) len: u32,
    pub(super) max: u32,
    hand: u32,
    /// Where the next search for a victim begins.
    pub(super) victims: u32,
    pub(super) moved: u64,
}

impl<K: ConnKey> Table<K> {
    /// A table for at most `max_connections` (at least 1) connections.
    ///
    /// Cost: 64/0.9/3 = 24 bytes per IPv4 connection, 71 bytes per IPv6 connection, beside 512 lines; the
    /// system gives the memory page by page as connections first use it.
    ///
    /// Errors: [`NoMemory`] when the system refuses the address space.
    pub fn new(max_connections: u32, secret: HashKey) -> Result<Self, NoMemory> {
        let slots = u64::from(max_connections.max(1)) * 100 / LOAD_PERCENT;
        let lines = (slots / SLOTS as u64 + 2 + SLACK_LINES).min(u64::from(u32::MAX)) as usize;
        Self::with_lines(lines, max_connections.max(1), secret)
    }

    /// A table of so many lines, at least 2.
    pub(super) fn with_lines(lines: usize, max: u32, secret: HashKey) -> Result<Self, NoMemory> {
        let bytes = lines * size_of::<Line<K>>();
        let lines = <[Line<K>]>::new_box_zeroed_with_elems(lines).map_err(|_| NoMemory { bytes })?;
        Ok(Self { lines, secret, len: 0, max, hand: 0, victims: 0, moved: 0 })
    }

    /// Number of connections.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of lines, the unit of [`Table::sweep`] and [`Table::walk`].
    pub fn lines(&self) -> u32 {
        self.lines.len() as u32
    }

    /// Memory of the table, bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// The lines in which `key` may be.
    #[inline]
    pub fn probe(&self, key: &K, protocol: u8) -> Probe {
        let hash = key.hash(protocol, &self.secret);
        let pick = |half: u32| ((u64::from(half) * self.lines.len() as u64) >> 32) as u32;
        let first = pick((hash >> 32) as u32);
        let second = pick(hash as u32);
        // both the same would halve the room of some keys
        let second = if second == first { (first + 1) % self.lines.len() as u32 } else { second };
        Probe { first, second }
    }

    /// Starts to fetch the first line of `probe`.
    #[inline]
    pub fn prefetch(&self, probe: Probe) {
        crate::prefetch::line(&self.lines[probe.first as usize]);
    }

    /// Starts to fetch the second line, when the key may be there. Call it once the first line has had time to come.
    #[inline]
    pub fn prefetch_spilled(&self, key: &K, protocol: u8, probe: Probe) {
        let first = &self.lines[probe.first as usize];
        if first.spilled != 0 && first.find(key, protocol).is_none() {
            crate::prefetch::line(&self.lines[probe.second as usize]);
        }
    }

    /// The connection with this key, also when its deadline has passed.
    #[inline]
    pub fn find(&self, key: &K, protocol: u8, probe: Probe) -> Option<Found> {
        let first = &self.lines[probe.first as usize];
        if let Some(slot) = first.find(key, protocol) {
            return Some(Found { line: probe.first, slot: slot as u8, meta: first.metas[slot] });
        }
        if first.spilled == 0 {
            return None;
        }
        let second = &self.lines[probe.second as usize];
        let slot = second.find(key, protocol)?;
        Some(Found { line: probe.second, slot: slot as u8, meta: second.metas[slot] })
    }

    /// The key of a connection that was found, with what it holds beside the part that is compared.
    #[inline]
    pub fn key(&self, found: Found) -> K {
        self.lines[found.line as usize].keys[usize::from(found.slot)]
    }

    /// Replaces the entry of a connection.
    #[inline]
    pub fn update(&mut self, found: Found, meta: Meta) {
        // a store only when something changed keeps lines of steady flows clean
        if meta != found.meta {
            self.lines[found.line as usize].metas[usize::from(found.slot)] = meta;
        }
    }

    /// Adds a connection whose key is not in the table.
    ///
    /// Errors: [`Full`] at `max_connections`, or when no chain of moves made room; the table is as it was.
    pub fn insert(&mut self, key: K, probe: Probe, meta: Meta) -> Result<(), Full> {
        if self.len >= self.max {
            return Err(Full);
        }
        let slot = match self.free_slot(probe) {
            Some(slot) => slot,
            None => self.make_room(probe).ok_or(Full)?,
        };
        self.put(slot, key, meta, probe);
        self.len += 1;
        Ok(())
    }

    /// Removes a connection.
    pub fn remove(&mut self, found: Found) {
        self.clear(found.line, usize::from(found.slot));
        self.len -= 1;
    }

    /// A free slot of one of the two lines, the first if there is one.
    #[inline]
    pub(super) fn free_slot(&self, probe: Probe) -> Option<(u32, usize)> {
        let free = |line: u32| Some((line, self.lines[line as usize].free()?));
        free(probe.first).or_else(|| free(probe.second))
    }

    pub(super) fn put(&mut self, (line, slot): (u32, usize), key: K, meta: Meta, probe: Probe) {
        let target = &mut self.lines[line as usize];
        target.keys[slot] = key;
        target.metas[slot] = meta;
        if line != probe.first {
            self.lines[probe.first as usize].spilled += 1;
        }
    }

    pub(super) fn clear(&mut self, line: u32, slot: usize) {
        let key = self.lines[line as usize].keys[slot];
        let protocol = self.lines[line as usize].metas[slot].protocol();
        let probe = self.probe(&key, protocol);
        let target = &mut self.lines[line as usize];
        target.keys[slot] = K::default();
        target.metas[slot] = Meta::default();
        if line != probe.first {
            self.lines[probe.first as usize].spilled -= 1;
        }
    }

    /// Visits the next `lines` lines and removes every connection whose deadline has passed, telling `gone`. Of the
    /// others `rest` is shown the entry and the ticks that it has left, and may replace the entry.
    ///
    /// Cost: about one sequential line read each; bounded by `lines`.
    pub fn sweep(
        &mut self,
        lines: u32,
        now: Tick,
        rest: impl Fn(Meta, u32) -> Option<Meta>,
        mut gone: impl FnMut(&K, Meta),
    ) {
        for _ in 0..lines.min(self.lines()) {
            let line = self.hand;
            self.hand = if line + 1 == self.lines() { 0 } else { line + 1 };
            for slot in 0..SLOTS {
                let meta = self.lines[line as usize].metas[slot];
                if meta.is_empty() {
                    continue;
                }
                match meta.deadline().left(now) {
                    Some(left) => {
                        if let Some(changed) = rest(meta, left) {
                            self.lines[line as usize].metas[slot] = changed;
                        }
                    }
                    None => {
                        gone(&self.lines[line as usize].keys[slot], meta);
                        self.clear(line, slot);
                        self.len -= 1;
                    }
                }
            }
        }
    }

    /// How often an entry was moved to its other line: who walks the lines in steps may have missed it.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Removes those of `count` lines from line `from` on that `which` names, telling `gone`.
    pub fn remove_where(
        &mut self,
        from: u32,
        count: u32,
        which: impl Fn(&K, Meta) -> bool,
        mut gone: impl FnMut(&K, Meta),
    ) {
        for line in from.min(self.lines())..from.saturating_add(count).min(self.lines()) {
            for slot in 0..SLOTS {
                let held = &self.lines[line as usize];
                let (key, meta) = (held.keys[slot], held.metas[slot]);
                if !meta.is_empty() && which(&key, meta) {
                    self.clear(line, slot);
                    self.len -= 1;
                    gone(&key, meta);
                }
            }
        }
    }

    /// Shows the connections of `count` lines from line `from` on.
    pub fn walk(&self, from: u32, count: u32, mut see: impl FnMut(&K, Meta)) {
        let from = (from as usize).min(self.lines.len());
        let to = (from + count as usize).min(self.lines.len());
        for line in &self.lines[from..to] {
            for slot in 0..SLOTS {
                if !line.metas[slot].is_empty() {
                    see(&line.keys[slot], line.metas[slot]);
                }
            }
        }
    }
}
