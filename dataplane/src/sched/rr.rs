//! Round robin.
//!
//! Source: IPVS, `ip_vs_rr.c`: from the last chosen position on, the next able candidate; when the last chosen is
//! removed, its predecessor takes its place. Adding a server, which IPVS does at the head, changes nothing.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{Candidate, Question};
use crate::ids::DestId;

/// The destination chosen last. All workers: rw, once per new connection; control: rw, when that one is removed.
#[derive(Debug)]
pub struct Cursor(AtomicU32);

/// The head of the list: nothing chosen yet.
const HEAD: u32 = u32::MAX;

impl Default for Cursor {
    fn default() -> Self {
        Self(AtomicU32::new(HEAD))
    }
}

impl Cursor {
    /// One that stands at the same place and goes its own way.
    pub fn copy(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Relaxed)))
    }

    /// The destination chosen last.
    pub fn last(&self) -> Option<DestId> {
        let last = self.0.load(Relaxed);
        (last != HEAD).then_some(DestId(last))
    }

    /// Control core: servers were removed. `old`: the list before; `stays`: whether one is still in it.
    ///
    /// A worker that does not know yet may put the cursor on a removed one again; such a one stands where its
    /// predecessor does ([`Question::position`]).
    pub fn removed(&self, old: &[Candidate], stays: impl Fn(DestId) -> bool) {
        let mut last = self.0.load(Relaxed);
        while last != HEAD && !stays(DestId(last)) {
            let before = old.iter().take_while(|candidate| candidate.dest.0 != last);
            let to = before.filter(|candidate| stays(candidate.dest)).last().map_or(HEAD, |c| c.dest.0);
            match self.0.compare_exchange(last, to, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => last = now,
            }
        }
    }
}

/// The next able candidate after the last chosen one.
///
/// With several workers the choice is one compare-and-swap, so the sequence over all of them is exact: nobody
/// gets a turn twice and nobody is passed over.
pub fn pick(cursor: &Cursor, question: &Question<'_>) -> Option<DestId> {
    let candidates = question.candidates;
    let mut last = cursor.0.load(Relaxed);
    loop {
        let start = match last {
            HEAD => 0,
            last => question.position(DestId(last)).map_or(0, |at| (at + 1).min(candidates.len())),
        };
        // most often it is the very next one
        let next = candidates.get(if start < candidates.len() { start } else { 0 });
        let chosen = match next.filter(|candidate| question.able(candidate)) {
            Some(next) => next.dest,
            None => {
                let (before, after) = candidates.split_at(start);
                after.iter().chain(before).find(|candidate| question.able(candidate))?.dest
            }
        };
        match cursor.0.compare_exchange_weak(last, chosen.0, Relaxed, Relaxed) {
            Ok(_) => return Some(chosen),
            Err(now) => last = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::lab::Lab;

    #[test]
    fn it_goes_round_and_passes_over_weight_zero_and_the_full() {
        let cursor = Cursor::default();
        let lab = Lab::new(&[1, 0, 3]);
        let ask = |lab: &Lab| pick(&cursor, &lab.question()).map(|dest| dest.0);
        let picks: Vec<_> = (0..5).map(|_| ask(&lab)).collect();
        assert_eq!(picks, [Some(0), Some(2), Some(0), Some(2), Some(0)]);
        lab.fill(2);
        assert_eq!([ask(&lab), ask(&lab)], [Some(0), Some(0)]);
        lab.fill(0);
        assert_eq!(ask(&lab), None);
        assert_eq!(pick(&cursor, &Lab::new(&[]).question()), None);
    }

    #[test]
    fn after_a_removal_it_goes_on_behind_the_predecessor() {
        for (removed, next) in [(vec![1], 2), (vec![0, 1], 2), (vec![0], 2), (vec![2], 0)] {
            let cursor = Cursor::default();
            let mut lab = Lab::new(&[1, 1, 1]);
            for chosen in 0..2 {
                assert_eq!(pick(&cursor, &lab.question()), Some(DestId(chosen)));
            }
            let old = lab.candidates.clone();
            removed.iter().for_each(|dest| lab.remove(*dest));
            cursor.removed(&old, |dest| !removed.contains(&dest.0));
            assert_eq!(pick(&cursor, &lab.question()), Some(DestId(next)), "without {removed:?}");
        }
    }

    #[test]
    fn a_removed_one_that_comes_back_at_the_head_is_not_where_the_cursor_stands() {
        let cursor = Cursor::default();
        let mut lab = Lab::new(&[1, 1, 1]);
        assert_eq!([0, 1].map(|_| pick(&cursor, &lab.question())), [0, 1].map(|dest| Some(DestId(dest))));
        let old = lab.candidates.clone();
        lab.remove(1);
        cursor.removed(&old, |dest| dest.0 != 1);
        lab.insert(0, 1, 1);
        assert_eq!(pick(&cursor, &lab.question()), Some(DestId(2)), "behind 0, the predecessor");
        assert_eq!(pick(&cursor, &lab.question()), Some(DestId(1)), "the head");
    }

    #[test]
    fn many_threads_share_one_exact_sequence() {
        let cursor = Cursor::default();
        let lab = Lab::new(&[1, 1, 1]);
        let rounds = if cfg!(miri) { 30 } else { 30_000 };
        let totals = lab.count_in_threads(4, rounds, |question| pick(&cursor, question));
        assert_eq!(totals, [4 * rounds / 3; 3]);
    }
}
