//! A bounded hash table of connections, one cache line per IPv4 hit.
//!
//! A line ([`Line`]) holds a few keys and their [`Meta`] words. Every key has two candidate lines; it lives in the one
//! that had more room at insertion (Azar, Broder, Karlin and Upfal 1999), and where neither had any, somebody is moved to
//! their other line (cuckoo hashing; Pagh and Rodler 2004, with buckets). Both lines are fetched and compared whatever
//! the first says, so it does not matter in which a key is. Until a table is full, 6 to 8 insertions in 100 move
//! somebody; where the first line was filled first it was 11 to 12.
//!
//! Invariant: a key is in at most one slot, and that slot is in one of its two lines.

use std::sync::Arc;

use super::entry::Meta;
use super::key::{ConnKey, HashKey, TableKey};
use super::line::Line;
use super::memory::{Lender, Life, Pages, Region};
use super::simd::{Every, Level};

/// Slots filled to hold `max_connections`, by the number of slots of a line: a chain of moves may not end above 96 %
/// of lines of three, above 98 % of lines of four. The rest is what keeps searches short and most keys in their first
/// line.
pub(super) const fn load_percent(slots: usize) -> u64 {
    if slots < 4 { 90 } else { 93 }
}

/// Lines beyond the load, so that chance does not fill a small table early.
///
/// No chain of moves ends exactly when more than `s*k` keys have both their lines among the same k lines of s slots
/// (Hall). With n keys in L lines that has a probability of at most the sum over k >= 2 of
/// `C(L,k) * P(Bin(n, (k/L)^2) > s*k)`, nearly all of it from k = 2. For n = 13, s = 3 and the six lines that 90 % asks
/// for, that is 6e-3 (seen in a test); with these 512 lines more it is below 2e-14 for every n, greatest at n = 2000,
/// and falls as L^-5 from there. With s = 4 and 93 % it is below 1e-19. Price: 32 KiB a table of IPv4, 96 KiB of IPv6.
const SLACK_LINES: u64 = 512;

/// Where a key may be: both candidate lines, and what its tag follows from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    pub(super) first: u32,
    pub(super) second: u32,
    hash: u64,
}

impl Probe {
    /// One bit of 64, the same for a key whenever it is asked for; few keys of a burst share theirs.
    #[inline(always)]
    pub(crate) fn bit(self) -> u64 {
        1 << (self.hash & 63)
    }

    /// The lowest 16 bits of the hash: the first line is picked by the uppermost bits, as many as it takes to tell the
    /// lines apart, the second by as many of the next, which leaves these in a table of 16 million lines. Never 0, which
    /// marks the empty slot.
    #[inline(always)]
    pub(super) fn tag(self) -> u16 {
        (self.hash as u16).max(1)
    }
}

/// Where a connection was found; valid until the table's next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) line: u32,
    pub(super) slot: u8,
    /// Its entry.
    pub meta: Meta,
}

impl Default for Found {
    fn default() -> Self {
        Self::NOTHING
    }
}

impl Found {
    /// Stands for no connection where a place is kept for one.
    pub const NOTHING: Self = Self { line: 0, slot: 0, meta: Meta::EMPTY };

    /// Where it stands: line and slot.
    #[inline(always)]
    pub(crate) fn place(&self) -> (u32, u8) {
        (self.line, self.slot)
    }

    /// Makes the place another one.
    #[inline(always)]
    pub(crate) fn set_place(&mut self, (line, slot): (u32, u8)) {
        (self.line, self.slot) = (line, slot);
    }

    /// Whether it is a connection.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        !self.meta.is_empty()
    }
}

/// A free slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy {
    line: u32,
    slot: usize,
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

/// How many of the lowest four bits are set; `count_ones` is a dozen instructions where the processor is not known.
#[inline(always)]
fn count_of_4(bits: u32) -> u64 {
    0x4332_3221_3221_2110 >> (4 * (bits & 15)) & 15
}

/// Connections of one address family of one worker.
#[derive(Debug)]
pub struct Table<K: TableKey> {
    pub(super) lines: Region<K::Line>,
    secret: HashKey,
    pub(super) len: u32,
    pub(super) max: u32,
    /// Where the sweep is.
    pub(super) hand: u32,
    /// Where the next search for a victim begins.
    pub(super) victims: u32,
    pub(super) moved: u64,
}

impl<K: TableKey> Table<K> {
    /// A table for at most `max_connections` (at least 1) connections, on the heap.
    ///
    /// Errors: [`NoMemory`] when the system refuses the address space.
    pub fn new(max_connections: u32, secret: HashKey) -> Result<Self, NoMemory> {
        Self::with_lines(Self::lines_for(max_connections), max_connections.max(1), secret)
    }

    /// [`Table::new`] in memory that `lender` has, else on the heap. `name`, `used`: see
    /// [`Request`](super::memory::Request).
    ///
    /// Cost, beside 512 lines: 64/3/0.9 = 24 bytes per IPv4 connection, 192/4/0.93 = 52 per IPv6 connection, 34 per
    /// IPv4 pair, 95 per IPv6 pair.
    ///
    /// Errors: [`NoMemory`] when the heap has none either.
    pub fn in_memory(
        max_connections: u32,
        secret: HashKey,
        name: String,
        used: bool,
        lender: &Arc<dyn Lender>,
    ) -> Result<Self, NoMemory> {
        let lines = Self::lines_for(max_connections);
        let bytes = lines * size_of::<K::Line>();
        let region = Region::lent(lines, name, used, lender).ok_or(NoMemory { bytes })?;
        Ok(Self::of(region, max_connections.max(1), secret))
    }

    fn lines_for(max_connections: u32) -> usize {
        let slots = u64::from(max_connections.max(1)) * 100 / load_percent(K::Line::SLOTS);
        (slots / K::Line::SLOTS as u64 + 2 + SLACK_LINES).min(u64::from(u32::MAX)) as usize
    }

    /// A table of so many lines, at least 2, that holds at most `max` connections: a fuller one than
    /// [`Table::new`] makes, whose insertions may fail before. For measurements and tests.
    ///
    /// Errors: [`NoMemory`].
    pub fn with_lines(lines: usize, max: u32, secret: HashKey) -> Result<Self, NoMemory> {
        let lines = lines.max(2);
        let bytes = lines.saturating_mul(size_of::<K::Line>());
        Ok(Self::of(Region::own(lines).ok_or(NoMemory { bytes })?, max, secret))
    }

    fn of(lines: Region<K::Line>, max: u32, secret: HashKey) -> Self {
        Self { lines, secret: secret.odd(), len: 0, max, hand: 0, victims: 0, moved: 0 }
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

    /// What that memory consists of.
    pub fn pages(&self) -> Pages {
        self.lines.pages()
    }

    /// Whether its lines are what an earlier process left: nothing is found in them before [`Table::repair`].
    pub fn is_left(&self) -> bool {
        self.lines.life() == Life::Left
    }

    /// Whether its lines outlive the process.
    pub fn is_kept(&self) -> bool {
        self.lines.life() != Life::Process
    }

    /// Number of connections that the lines would hold if every slot were filled.
    pub fn slots(&self) -> u64 {
        self.lines.len() as u64 * K::Line::SLOTS as u64
    }

    /// The lines in which `key` may be.
    #[inline(always)]
    pub fn probe(&self, key: &K, protocol: u8) -> Probe {
        self.prober().probe(key, protocol)
    }

    /// What [`Table::probe`] goes by, for loops that would read it again and again.
    #[inline(always)]
    pub(crate) fn prober(&self) -> Prober<'_, K> {
        Prober { secret: self.secret, lines: &self.lines }
    }

    /// Where a key may be in this table by where it may be in another one with the same secret.
    #[inline(always)]
    pub(crate) fn probe_like(&self, other: Probe) -> Probe {
        self.prober().of_hash(other.hash)
    }

    /// The second candidate line.
    #[inline(always)]
    pub(super) fn second(&self, probe: Probe) -> u32 {
        probe.second
    }

    /// Starts to fetch both lines of `probe`, as far as a comparison needs them.
    ///
    /// The second one too, though three hits in four need the first alone: memory answers many requests at once, so
    /// that 64 lines of a burst cost less than 32 and then the few that are found missing (bench `calibrate`).
    #[inline]
    pub fn prefetch(&self, probe: Probe) {
        self.prober().prefetch(probe);
    }

    /// Starts to fetch as much of both lines as it takes to see whether a key is there and where there is room.
    #[inline]
    pub(crate) fn prefetch_front(&self, probe: Probe) {
        K::Line::prefetch_front_at(&self.lines, probe.first as usize);
        K::Line::prefetch_front_at(&self.lines, probe.second as usize);
    }

    /// Starts to fetch what an insertion will write beside that, or will look at where there is no room. Call it once that
    /// has had time to come.
    #[inline]
    pub(crate) fn prefetch_vacancy(&self, probe: Probe) {
        match self.free_slot(probe) {
            Some((line, slot)) => self.lines[line as usize].prefetch_rest(slot),
            None => self.prefetch_moves(probe),
        }
    }

    /// Starts to fetch what else a hit will read: the key in the slot that looks like it, where comparisons do not
    /// read all keys. Call it once the lines have had time to come.
    #[inline]
    pub fn prefetch_key(&self, key: &K, protocol: u8, probe: Probe) {
        if !K::Line::EXACT {
            self.prober().fetch_suspect(key, protocol, probe);
        }
    }

    /// The connection with this key, also when its deadline has passed.
    ///
    /// Both lines are compared whatever the first says: which of them it is, chance decides, and a branch on that costs
    /// more than the comparison.
    #[inline(always)]
    pub fn find(&self, key: &K, protocol: u8, probe: Probe) -> Option<Found> {
        let mut found = Found::NOTHING;
        self.find_into(key, protocol, probe, &mut found);
        found.is_some().then_some(found)
    }

    /// [`Table::find`] to a place of its own, so that a result is not read as a whole just after it was written in parts;
    /// [`Found::NOTHING`] where there is nothing.
    #[inline(always)]
    pub fn find_into(&self, key: &K, protocol: u8, probe: Probe, found: &mut Found) {
        Self::find_in(&self.lines, key, protocol, probe, found);
    }

    #[inline(always)]
    fn find_in(lines: &[K::Line], key: &K, protocol: u8, probe: Probe, found: &mut Found) {
        let (first, second) = (&lines[probe.first as usize], &lines[probe.second as usize]);
        let slots = first.suspects_of_two(Every, second, key, protocol, probe.tag());
        if slots == 0 {
            (found.line, found.slot, found.meta) = (0, 0, Meta::EMPTY);
            return;
        }
        let at = slots.trailing_zeros() as usize;
        let (line, held) = if at & 4 == 0 { (probe.first, first) } else { (probe.second, second) };
        let slot = at & 3;
        if K::Line::EXACT || held.holds(slot, key, protocol) {
            (found.line, found.slot, found.meta) = (line, slot as u8, held.meta(slot));
        } else {
            *found = Self::find_in_turn(lines, key, protocol, probe).unwrap_or(Found::NOTHING);
        }
    }

    /// [`Table::find`] among all that look like the key.
    #[cold]
    #[inline(never)]
    fn find_in_turn(lines: &[K::Line], key: &K, protocol: u8, probe: Probe) -> Option<Found> {
        let first = &lines[probe.first as usize];
        if let Some(slot) = first.find(key, protocol, probe.tag()) {
            return Some(Found { line: probe.first, slot: slot as u8, meta: first.meta(slot) });
        }
        let second = &lines[probe.second as usize];
        let slot = second.find(key, protocol, probe.tag())?;
        Some(Found { line: probe.second, slot: slot as u8, meta: second.meta(slot) })
    }

    /// The lines, which then need not be looked for every time.
    #[inline(always)]
    pub(crate) fn view_mut(&mut self) -> View<'_, K> {
        View(&mut self.lines)
    }

    /// What was found, with its entry as it is now; the table's only changes since were [`Table::update`]s.
    #[inline(always)]
    pub fn again(&self, found: Found) -> Found {
        Found { meta: self.lines[found.line as usize].meta(usize::from(found.slot)), ..found }
    }

    /// The key of a connection that was found, with what it holds beside the part that is compared.
    #[inline]
    pub fn key(&self, found: Found) -> K {
        self.lines[found.line as usize].key(usize::from(found.slot))
    }

    /// Replaces the entry of a connection.
    #[inline]
    pub fn update(&mut self, found: Found, meta: Meta) {
        // a store only when something changed keeps lines of steady flows clean
        if meta != found.meta {
            self.lines[found.line as usize].set_meta(usize::from(found.slot), meta);
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

    /// A place for a new connection that asks nobody to move.
    #[inline]
    pub(crate) fn vacancy(&self, probe: Probe) -> Option<Vacancy> {
        if self.len >= self.max {
            return None;
        }
        self.free_slot(probe).map(|(line, slot)| Vacancy { line, slot })
    }

    /// [`Table::vacancy`] after others have moved.
    #[cold]
    pub(crate) fn make_vacancy(&mut self, probe: Probe) -> Option<Vacancy> {
        if self.len >= self.max {
            return None;
        }
        self.make_room(probe).map(|(line, slot)| Vacancy { line, slot })
    }

    /// [`Table::insert`] at a [`Table::vacancy`] of `probe`, the table's latest change being older than that.
    #[inline]
    pub(crate) fn fill(&mut self, at: Vacancy, key: K, probe: Probe, meta: Meta) {
        self.put((at.line, at.slot), key, meta, probe);
        self.len += 1;
    }

    /// Removes a connection.
    pub fn remove(&mut self, found: Found) {
        self.clear(found.line, usize::from(found.slot));
        self.len -= 1;
    }

    /// A free slot of the line that has more of them, of the first where both have as many.
    #[inline]
    pub(super) fn free_slot(&self, probe: Probe) -> Option<(u32, usize)> {
        let (first, second) = (&self.lines[probe.first as usize], &self.lines[probe.second as usize]);
        let free = first.free_of_two(second);
        let is_second = count_of_4(free[1]) > count_of_4(free[0]);
        let (line, slots) = if is_second { (probe.second, free[1]) } else { (probe.first, free[0]) };
        (slots != 0).then(|| (line, slots.trailing_zeros() as usize))
    }

    #[inline]
    pub(super) fn put(&mut self, (line, slot): (u32, usize), key: K, meta: Meta, probe: Probe) {
        self.lines[line as usize].set(slot, &key, meta, probe.tag());
    }

    #[inline]
    pub(super) fn clear(&mut self, line: u32, slot: usize) {
        self.lines[line as usize].empty(slot);
    }

    #[inline]
    pub(super) fn entry(&self, line: u32, slot: usize) -> (K, Meta) {
        let held = &self.lines[line as usize];
        (held.key(slot), held.meta(slot))
    }
}

/// What tells where keys may be, and their lines, which loops would read again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prober<'a, K: TableKey> {
    secret: HashKey,
    lines: &'a [K::Line],
}

impl<K: TableKey> Prober<'_, K> {
    /// See [`Table::probe`].
    #[inline(always)]
    pub fn probe(&self, key: &K, protocol: u8) -> Probe {
        self.of_hash(key.hash(protocol, &self.secret))
    }

    /// The hash, taken as a fraction of 2^64, times the number of lines is the first line; what is behind the point is
    /// a fraction again, of the bits that have not been used, and picks the second one (Lemire 2019, on random integers
    /// in an interval, has the first step).
    #[inline(always)]
    fn of_hash(&self, hash: u64) -> Probe {
        // of 32 bits, so that the compiler sees that what it picks is
        let lines = u128::from(self.lines.len() as u32);
        let wide = u128::from(hash) * lines;
        let first = (wide >> 64) as u32;
        let second = ((u128::from(wide as u64) * lines) >> 64) as u32;
        let second = if second == first { self.next(second) } else { second };
        Probe { first, second, hash }
    }

    /// The second line of who would have the same one twice, which would halve its room.
    #[cold]
    #[inline(never)]
    fn next(&self, line: u32) -> u32 {
        if line as usize + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    /// See [`Table::prefetch`].
    #[inline(always)]
    pub fn prefetch(&self, probe: Probe) {
        K::Line::prefetch_at(self.lines, probe.first as usize);
        K::Line::prefetch_at(self.lines, probe.second as usize);
    }

    /// See [`Table::prefetch_key`]. Nothing is fetched where no slot looks like the key: packets of a burst are mostly
    /// alike in that.
    #[inline(always)]
    fn fetch_suspect(&self, key: &K, protocol: u8, probe: Probe) {
        let (Some(first), Some(second)) =
            (self.lines.get(probe.first as usize), self.lines.get(probe.second as usize))
        else {
            return;
        };
        let slots = first.suspects_of_two(Every, second, key, protocol, probe.tag());
        if slots != 0 {
            let at = slots.trailing_zeros();
            let held = if at & 4 == 0 { first } else { second };
            held.prefetch_slot(at as usize & 3);
        }
    }

    /// [`Table::prefetch_key`], and where that is: line and slot of the first that looks like the key, or of any
    /// where none does. `None`: it is of another table.
    #[inline(always)]
    pub fn suspect<L: Level>(&self, level: L, key: &K, protocol: u8, probe: Probe) -> Option<(u32, u8)> {
        let (first, second) = (self.lines.get(probe.first as usize)?, self.lines.get(probe.second as usize)?);
        let at = first.suspects_of_two(level, second, key, protocol, probe.tag()).trailing_zeros();
        // to fetch what nobody needs costs less than a branch that chance decides
        let (line, held) = if at & 4 == 0 { (probe.first, first) } else { (probe.second, second) };
        held.prefetch_slot(at as usize & 3);
        Some((line, at as u8 & 3))
    }
}

/// The lines of a table, in which nothing but entries may change.
pub(crate) struct View<'a, K: TableKey>(&'a mut [K::Line]);

impl<K: ConnKey> View<'_, K> {
    /// The first slot that looks as if it held the key, if it has it, whatever its protocol, which the caller compares
    /// as a part of the entry, and that entry. `None` where it has not, though another slot may hold the key.
    ///
    /// Slots of the second line are numbered from 4 on: which line that is need be known only where the entry changes.
    #[inline(always)]
    pub fn near<L: Level>(&self, level: L, key: &K, probe: Probe) -> Option<(u8, Meta)> {
        let (first, second) = (self.0.get(probe.first as usize)?, self.0.get(probe.second as usize)?);
        let slots = first.suspects_of_two(level, second, key, 0, probe.tag());
        if slots == 0 {
            return None;
        }
        let at = slots.trailing_zeros();
        let held = if at & 4 == 0 { first } else { second };
        let slot = (at & 3) as usize;
        held.has(level, slot, key).then(|| (at as u8, held.meta(slot)))
    }

    /// The entry at a place that [`Prober::suspect`] gave, if it has the key, likewise.
    #[inline(always)]
    pub fn near_at<L: Level>(&self, level: L, key: &K, (line, slot): (u32, u8)) -> Option<Meta> {
        let (held, slot) = (self.0.get(line as usize)?, usize::from(slot));
        held.has(level, slot, key).then(|| held.meta(slot))
    }

    /// Where what [`View::near`] gave stands.
    #[inline(always)]
    pub fn place(probe: Probe, at: u8) -> (u32, u8) {
        (if at & 4 == 0 { probe.first } else { probe.second }, at & 3)
    }

    /// As [`Table::find`]; [`Found::NOTHING`] where there is nothing.
    pub fn find(&self, key: &K, protocol: u8, probe: Probe) -> Found {
        let mut found = Found::NOTHING;
        Table::<K>::find_in(self.0, key, protocol, probe, &mut found);
        found
    }

    /// As [`Table::again`].
    pub fn again(&self, found: Found) -> Found {
        Found { meta: self.0[found.line as usize].meta(usize::from(found.slot)), ..found }
    }

    /// As [`Table::update`].
    #[inline(always)]
    pub fn update(&mut self, (line, slot): (u32, u8), meta: Meta) {
        self.0[line as usize].set_meta(usize::from(slot), meta);
    }
}
