//! Going through a table in bounded steps: expiry, and who looks at all connections.

use arrayvec::ArrayVec;

use super::entry::{Meta, Tick};
use super::key::TableKey;
use super::line::Line;
use super::table::{Found, Table};

/// Lines that the sweep asks for ahead: at the end of a step they are those that the next one begins with.
const AHEAD: usize = 16;

/// Connections that are ended together: enough that memory is waited for once, and a pause of some hundred ns.
pub(crate) const TOGETHER: usize = 16;

/// Connections that are over, some of those that a sweep ends.
pub(crate) type Over = ArrayVec<Found, TOGETHER>;

/// Slots of a line, a bit each, and without a branch, as most lines have neither: those whose deadline has passed, and
/// all others whose connection [may come to rest](Meta::may_rest).
#[inline(always)]
fn due<K: TableKey>(line: &K::Line, now: Tick) -> (u32, u32) {
    let (mut over, mut resting) = (0, 0);
    for slot in 0..K::Line::SLOTS {
        let meta = line.meta(slot);
        over |= u32::from(!meta.is_empty() & meta.deadline().is_over(now)) << slot;
        resting |= u32::from(meta.may_rest()) << slot;
    }
    (over, resting & !over)
}

/// The places of the bits that are set, from the lowest on.
#[inline(always)]
fn places(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (at < u32::BITS).then_some(at as usize)
    })
}

impl<K: TableKey> Table<K> {
    /// Visits the next `lines` lines and removes every connection whose deadline has passed, telling `gone`. Of the
    /// others `rest` is shown the entry and the ticks that it has left, if it [may come to rest](Meta::may_rest), and may
    /// replace the entry.
    ///
    /// Cost: about one sequential line read each, of which only the entries are looked at; bounded by `lines`.
    pub fn sweep(
        &mut self,
        lines: u32,
        now: Tick,
        rest: impl Fn(Meta, u32) -> Option<Meta>,
        gone: impl FnMut(&K, Meta),
    ) {
        self.sweep_some(lines, u32::MAX, now, rest, gone);
    }

    /// [`Table::sweep`] that stops after the line in which it has removed `ends` connections, or some lines later: ending
    /// one costs more than to visit a line. The next call goes on from there.
    pub fn sweep_some(
        &mut self,
        lines: u32,
        ends: u32,
        now: Tick,
        rest: impl Fn(Meta, u32) -> Option<Meta>,
        mut gone: impl FnMut(&K, Meta),
    ) {
        let (mut left, mut ended, mut over) = (lines.min(self.lines()), 0, Over::new());
        while left > 0 && ended < ends {
            left -= self.visit(left, ends - ended, now, &rest, &mut over);
            ended += over.len() as u32;
            for found in over.drain(..) {
                gone(&self.key(found), found.meta);
                self.remove(found);
            }
        }
    }

    /// Visits the next lines, at most `lines` and not beyond the one with the `ends`-th connection whose deadline has
    /// passed, nor beyond what `over` has room for, which gets these; their keys are asked for. `rest`: see
    /// [`Table::sweep`]. Returns how many it has visited.
    #[inline]
    pub(crate) fn visit(
        &mut self,
        lines: u32,
        ends: u32,
        now: Tick,
        rest: impl Fn(Meta, u32) -> Option<Meta>,
        over: &mut Over,
    ) -> u32 {
        let mut seen = 0;
        while seen < lines && (over.len() as u32) < ends && over.remaining_capacity() >= K::Line::SLOTS {
            let at = self.hand as usize;
            let held = &mut *self.lines;
            let ahead = if at + AHEAD < held.len() { at + AHEAD } else { AHEAD.min(held.len() - 1) };
            held[ahead].prefetch();
            self.hand = if at + 1 == held.len() { 0 } else { at as u32 + 1 };
            seen += 1;
            let line = &mut held[at];
            let (ended, resting) = due::<K>(line, now);
            if ended | resting == 0 {
                continue;
            }
            for slot in places(resting) {
                let meta = line.meta(slot);
                if let Some(changed) = meta.deadline().left(now).and_then(|left| rest(meta, left)) {
                    line.set_meta(slot, changed);
                }
            }
            for slot in places(ended) {
                line.prefetch_slot(slot);
                over.push(Found { line: at as u32, slot: slot as u8, meta: line.meta(slot) });
            }
        }
        seen
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
            for slot in 0..K::Line::SLOTS {
                let (key, meta) = self.entry(line, slot);
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
            for slot in 0..K::Line::SLOTS {
                let meta = line.meta(slot);
                if !meta.is_empty() {
                    see(&line.key(slot), meta);
                }
            }
        }
    }
}
