//! Room for one more connection: others move to their other lines, or one that may go is removed.

use arrayvec::ArrayVec;

use super::entry::Meta;
use super::key::TableKey;
use super::line::Line;
use super::table::{Full, Probe, Table};

/// Lines looked at to make room. At 90 % load three quarters of the lines are full, so a search that fails this
/// often meets as many full lines in a row: 0.75^512.
const MAX_STEPS: usize = 512;

/// Of those, the lines in which a victim is looked for when no chain of moves ends.
const VICTIM_STEPS: usize = 64;

/// Lines in which a victim is looked for at the limit, when neither of the new key's own lines has one.
///
/// Where one connection in a hundred may go, 32 lines of three hold one with a probability of 62 %; the hand goes on
/// from there at the next try, so that every line of the table is seen in time.
const VICTIM_LINES: u32 = 32;

/// Of those, the lines that are looked at even when one has a victim, see [`Table::make_way`].
const MIN_VICTIM_LINES: u32 = 8;

/// Slots of the widest lines.
const MOST_SLOTS: usize = 4;

/// A line that an entry of another line could move to, in the search for room.
#[derive(Clone, Copy)]
struct Step {
    line: u32,
    /// Index of the step whose entry would move here, or [`NOWHERE`].
    from: u16,
    /// Slot of that entry.
    slot: u8,
}

/// Marks the two lines of the new key itself.
const NOWHERE: u16 = u16::MAX;

/// Lines that the search has reached, those of the new key first.
type Steps = ArrayVec<Step, MAX_STEPS>;

/// Whether `line` is a step already: a second way to it is never shorter, and would crowd out other lines.
fn is_known(steps: &[Step], line: u32) -> bool {
    steps.iter().any(|step| step.line == line)
}

/// The most dispensable entry seen so far: its rank and where it is.
type Victim = Option<(u8, (u32, usize))>;

impl<K: TableKey> Table<K> {
    /// Adds a connection whose key is not in the table, in the place of another one when there is no room.
    ///
    /// `rank` says how dispensable an entry is, the more the higher; `None`: it stays, whatever happens. At
    /// `max_connections` the victim is the highest of the new key's own two lines, else of a few lines at a hand that
    /// goes round; where chance has filled the lines early, of the lines that the search for room has seen. `gone` is
    /// told of it, before the new connection is in.
    ///
    /// Errors: [`Full`]; no connection was removed or added.
    ///
    /// Cost: as [`Table::insert`] while there is room; else two random lines and up to 32 in sequence.
    pub fn insert_evicting(
        &mut self,
        key: K,
        probe: Probe,
        meta: Meta,
        rank: impl Fn(&K, Meta) -> Option<u8>,
        gone: impl FnMut(&K, Meta),
    ) -> Result<(), Full> {
        if self.len < self.max
            && let Some(slot) = self.free_slot(probe)
        {
            self.put(slot, key, meta, probe);
            self.len += 1;
            return Ok(());
        }
        self.insert_crowded(key, probe, meta, rank, gone)
    }

    /// The rest of [`Table::insert_evicting`]: the limit is reached, or both lines are full.
    #[cold]
    fn insert_crowded(
        &mut self,
        key: K,
        probe: Probe,
        meta: Meta,
        rank: impl Fn(&K, Meta) -> Option<u8>,
        mut gone: impl FnMut(&K, Meta),
    ) -> Result<(), Full> {
        let at_limit = self.len >= self.max;
        let mut elsewhere = None;
        if at_limit {
            let mut victim = None;
            self.look(probe.first, &rank, &mut victim);
            self.look(self.second(probe), &rank, &mut victim);
            if let Some((_, slot)) = victim {
                self.evict(slot, &mut gone);
                self.put(slot, key, meta, probe);
                self.len += 1;
                return Ok(());
            }
            let (_, (line, slot)) = self.victim_at_hand(&rank).ok_or(Full)?;
            elsewhere = Some(self.entry(line, slot));
        }
        let mut steps = Steps::new();
        let room = self.free_slot(probe).or_else(|| self.search(probe, &mut steps));
        let slot = match room {
            Some(slot) => {
                if let Some((key, meta)) = elsewhere {
                    // the moves may have taken it along
                    let probe = self.probe(&key, meta.protocol());
                    let found = self.find(&key, meta.protocol(), probe).ok_or(Full)?;
                    self.evict((found.line, usize::from(found.slot)), &mut gone);
                }
                slot
            }
            None => {
                let mut victim = None;
                for step in steps.iter().take(VICTIM_STEPS) {
                    self.look(step.line, &rank, &mut victim);
                }
                let (_, free) = victim.ok_or(Full)?;
                self.evict(free, &mut gone);
                let step = steps.iter().find(|step| step.line == free.0).ok_or(Full)?;
                match step.from {
                    NOWHERE => free,
                    from => self.walk_back(&steps, (usize::from(from), usize::from(step.slot)), free),
                }
            }
        };
        self.put(slot, key, meta, probe);
        self.len += 1;
        Ok(())
    }

    fn evict(&mut self, (line, slot): (u32, usize), gone: &mut impl FnMut(&K, Meta)) {
        let (key, meta) = self.entry(line, slot);
        self.clear(line, slot);
        self.len -= 1;
        gone(&key, meta);
    }

    /// Takes the highest of a line for `victim`, if it is above that.
    fn look(&self, line: u32, rank: impl Fn(&K, Meta) -> Option<u8>, victim: &mut Victim) {
        for slot in 0..K::Line::SLOTS {
            let (key, meta) = self.entry(line, slot);
            if !meta.is_empty()
                && let Some(rank) = rank(&key, meta)
                && victim.is_none_or(|(best, _)| rank > best)
            {
                *victim = Some((rank, (line, slot)));
            }
        }
    }

    /// Removes one connection that `rank` says may go, of a few lines at a hand that goes round; `gone` is told of it.
    /// `false`: there is none in these lines.
    ///
    /// For a limit that several tables share. Cost: up to 32 lines in sequence.
    pub fn make_way(
        &mut self,
        rank: impl Fn(&K, Meta) -> Option<u8>,
        mut gone: impl FnMut(&K, Meta),
    ) -> bool {
        let (mut victim, mut line) = (None, self.victims);
        for seen in 0..VICTIM_LINES.min(self.lines()) {
            // the highest of a few lines at least, so that what is worth more does not go for want of a look around
            if victim.is_some() && seen >= MIN_VICTIM_LINES {
                break;
            }
            self.look(line, &rank, &mut victim);
            line = if line + 1 == self.lines() { 0 } else { line + 1 };
        }
        // elsewhere next time, so that all of the table is drawn on
        self.victims = line;
        let Some((_, slot)) = victim else { return false };
        self.evict(slot, &mut gone);
        true
    }

    /// The highest of the first lines at the hand that have one; the hand stays there for the next search.
    fn victim_at_hand(&mut self, rank: impl Fn(&K, Meta) -> Option<u8>) -> Victim {
        for _ in 0..VICTIM_LINES.min(self.lines()) {
            let mut victim = None;
            self.look(self.victims, &rank, &mut victim);
            if victim.is_some() {
                return victim;
            }
            self.victims = if self.victims + 1 == self.lines() { 0 } else { self.victims + 1 };
        }
        None
    }

    /// Frees a slot in one of two full lines by moving others to their other lines.
    pub(super) fn make_room(&mut self, probe: Probe) -> Option<(u32, usize)> {
        self.search(probe, &mut Steps::new())
    }

    /// The shortest chain of moves is searched first, without a change, then walked backwards, so that a failure
    /// leaves no trace and a key is never in no line.
    fn search(&mut self, probe: Probe, steps: &mut Steps) -> Option<(u32, usize)> {
        steps.push(Step { line: probe.first, from: NOWHERE, slot: 0 });
        steps.push(Step { line: self.second(probe), from: NOWHERE, slot: 0 });
        let mut at = 0;
        while at < steps.len() {
            let line = steps[at].line;
            // all of them, so that memory is waited for once
            let mut others = [0; MOST_SLOTS];
            for (slot, other) in others.iter_mut().enumerate().take(K::Line::SLOTS) {
                *other = self.other_line(line, slot);
                K::Line::prefetch_front_at(&self.lines, *other as usize);
            }
            for (slot, &next) in others.iter().enumerate().take(K::Line::SLOTS) {
                let free = self.lines[next as usize].free();
                if free != 0 {
                    let free = free.trailing_zeros() as usize;
                    return Some(self.walk_back(steps, (at, slot), (next, free)));
                }
                if !steps.is_full() && !is_known(steps, next) {
                    steps.push(Step { line: next, from: at as u16, slot: slot as u8 });
                }
            }
            at += 1;
        }
        None
    }

    /// What [`Table::search`] will look at first: the other lines of those in two full lines, or their keys where these
    /// are not there yet.
    #[cold]
    pub(super) fn prefetch_moves(&self, probe: Probe) {
        if !K::Line::APART {
            return self.prefetch_others(probe);
        }
        for line in [probe.first, probe.second] {
            (0..K::Line::SLOTS).for_each(|slot| self.lines[line as usize].prefetch_slot(slot));
        }
    }

    /// The rest of [`Table::prefetch_vacancy`], once the keys of those that may have to move have had time to come: where
    /// they may move to.
    #[inline]
    pub(crate) fn prefetch_moves_on(&self, probe: Probe) {
        if K::Line::APART && self.free_slot(probe).is_none() {
            self.prefetch_others(probe);
        }
    }

    /// The other lines of those in both lines.
    #[cold]
    fn prefetch_others(&self, probe: Probe) {
        for line in [probe.first, probe.second] {
            for slot in 0..K::Line::SLOTS {
                K::Line::prefetch_front_at(&self.lines, self.other_line(line, slot) as usize);
            }
        }
    }

    fn other_line(&self, line: u32, slot: usize) -> u32 {
        let (key, meta) = self.entry(line, slot);
        let probe = self.probe(&key, meta.protocol());
        if probe.first == line { self.second(probe) } else { probe.first }
    }

    /// Moves the entry in `slot` of the step `at` to `free`, then the one that leads to that step into its place,
    /// and so on; returns the slot that became free in one of the first two lines.
    fn walk_back(
        &mut self,
        steps: &[Step],
        (mut at, mut slot): (usize, usize),
        mut free: (u32, usize),
    ) -> (u32, usize) {
        loop {
            let step = steps[at];
            let (key, meta) = self.entry(step.line, slot);
            let probe = self.probe(&key, meta.protocol());
            // in this order, so that a process that is killed here leaves it twice rather than not at all
            self.put(free, key, meta, probe);
            self.clear(step.line, slot);
            self.moved += 1;
            free = (step.line, slot);
            if step.from == NOWHERE {
                return free;
            }
            (at, slot) = (usize::from(step.from), usize::from(step.slot));
        }
    }
}
