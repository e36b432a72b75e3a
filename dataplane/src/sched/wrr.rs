//! Weighted round robin.
//!
//! Source: IPVS, `ip_vs_wrr.c`. A level falls from the highest weight in steps of the weights' divisor; at each level
//! the servers whose weight reaches it are taken in list order. After an edit of the servers the walk starts at the
//! head of the list again, at the level where it was, clamped to the new weights.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Question;
use crate::ids::DestId;

/// What follows from the weights alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrrPlan {
    /// Where the level starts: the highest weight less `step - 1`; 0: no server has a weight.
    top: u32,
    /// Greatest common divisor of the weights, at least 1.
    step: u32,
}

/// Greatest common divisor of those that are not 0; 0 without any.
pub(super) fn divisor(weights: impl Iterator<Item = u32>) -> u32 {
    fn common(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { common(b, a % b) }
    }
    weights.fold(0, common)
}

impl WrrPlan {
    /// Of these weights.
    pub fn new(weights: &[u32]) -> Self {
        let step = divisor(weights.iter().copied()).max(1);
        let highest = weights.iter().copied().max().unwrap_or_default();
        Self { top: highest.saturating_sub(step - 1), step }
    }
}

/// Where the walk stands. All workers: rw, once per new connection; control: rw, when servers are edited.
#[derive(Debug)]
pub struct WrrMark(AtomicU64);

/// The head of the list: the walk begins at the first server.
const HEAD: u32 = u32::MAX;

/// The mark's word taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Destination chosen last, or [`HEAD`].
    last: u32,
    /// Weight that a server must have to be taken.
    level: u32,
}

impl Mark {
    fn unpack(word: u64) -> Self {
        Self { last: (word >> 32) as u32, level: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.last) << 32 | u64::from(self.level)
    }
}

impl WrrMark {
    /// At the beginning.
    pub fn new(plan: &WrrPlan) -> Self {
        Self(AtomicU64::new(Mark { last: HEAD, level: plan.top }.pack()))
    }

    /// One that stands at the same place and goes its own way.
    pub fn copy(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Relaxed)))
    }

    /// The destination chosen last.
    pub fn last(&self) -> Option<DestId> {
        let last = Mark::unpack(self.0.load(Relaxed)).last;
        (last != HEAD).then_some(DestId(last))
    }

    /// Control core: servers were added, removed or edited, even if to what they were.
    pub fn restart(&self, plan: &WrrPlan) {
        let restarted = |word| {
            let level = match Mark::unpack(word).level {
                level if level > plan.top || level == 0 => plan.top,
                level if plan.step > 1 => level / plan.step * plan.step + 1,
                level => level,
            };
            Mark { last: HEAD, level }.pack()
        };
        let mut word = self.0.load(Relaxed);
        while let Err(now) = self.0.compare_exchange(word, restarted(word), Relaxed, Relaxed) {
            word = now;
        }
    }
}

/// The next candidate of the walk. One compare-and-swap, so the sequence over all workers is exact.
pub fn pick(mark: &WrrMark, plan: &WrrPlan, question: &Question<'_>) -> Option<DestId> {
    if plan.top == 0 {
        return None;
    }
    let mut word = mark.0.load(Relaxed);
    loop {
        let (next, chosen) = walk(Mark::unpack(word), plan, question);
        match mark.0.compare_exchange_weak(word, next.pack(), Relaxed, Relaxed) {
            Ok(_) => return chosen,
            Err(now) => word = now,
        }
    }
}

/// One choice: where the mark goes, and who is chosen. The kernel's walk ends when every server has been looked at at
/// the lowest level; its passes that cannot find anybody are taken in one step.
fn walk(mark: Mark, plan: &WrrPlan, question: &Question<'_>) -> (Mark, Option<DestId>) {
    let candidates = question.candidates;
    let start = match mark.last {
        HEAD => None,
        last => question.position(DestId(last)),
    };
    let mut from = start.map_or(0, |at| at + 1);
    let mut level = if mark.level == 0 { plan.top } else { mark.level };
    let (mut last_pass, mut restarted) = (false, false);
    let mut stop = None;
    let mut highest = None;
    loop {
        for (at, candidate) in candidates.iter().enumerate().skip(from) {
            if candidate.weight >= level && !question.overloaded(candidate) {
                return (Mark { last: candidate.dest.0, level }, Some(candidate.dest));
            }
            if stop == Some(at) {
                return (Mark { last: candidate.dest.0, level }, None);
            }
        }
        if level > plan.step {
            level -= plan.step;
        } else {
            level = plan.top;
            // everybody was looked at at the lowest level
            if last_pass || start.is_none() {
                return (Mark { last: HEAD, level }, None);
            }
            restarted = true;
        }
        let highest = *highest.get_or_insert_with(|| {
            let able = candidates.iter().filter(|candidate| question.able(candidate));
            able.map(|candidate| candidate.weight).max().unwrap_or_default()
        });
        let floor = highest.max(plan.step);
        level -= level.saturating_sub(floor).div_ceil(plan.step) * plan.step;
        last_pass = level <= plan.step;
        if last_pass && restarted && start.is_some() {
            // those behind the start had their look at the lowest level
            stop = start;
        }
        from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::lab::Lab;

    fn sequence(lab: &Lab, mark: &WrrMark, count: usize) -> Vec<u32> {
        let plan = WrrPlan::new(&lab.weights());
        (0..count).filter_map(|_| pick(mark, &plan, &lab.question())).map(|dest| dest.0).collect()
    }

    fn fresh(lab: &Lab) -> WrrMark {
        WrrMark::new(&WrrPlan::new(&lab.weights()))
    }

    #[test]
    fn the_sequence_is_that_of_the_ipvs_documentation() {
        // wiki.linuxvirtualserver.org, Weighted Round-Robin Scheduling: A=4, B=3, C=2 give AABABCABC
        let lab = Lab::new(&[4, 3, 2]);
        assert_eq!(sequence(&lab, &fresh(&lab), 18), [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn it_ends_when_nobody_may_be_chosen() {
        let lab = Lab::new(&[0, 0]);
        assert_eq!(sequence(&lab, &fresh(&lab), 2), []);
        let lab = Lab::new(&[65_535, 1, 30]);
        let mark = fresh(&lab);
        assert_eq!(sequence(&lab, &mark, 2), [0, 0]);
        (0..3).for_each(|dest| lab.fill(dest));
        assert_eq!(sequence(&lab, &mark, 3), []);
        assert_eq!(sequence(&Lab::new(&[]), &mark, 1), []);
    }

    #[test]
    fn a_full_server_is_passed_over_until_it_has_room() {
        let lab = Lab::new(&[65_535, 1]);
        let mark = fresh(&lab);
        lab.fill(0);
        assert_eq!(sequence(&lab, &mark, 3), [1, 1, 1]);
        lab.relieve(0);
        assert_eq!(sequence(&lab, &mark, 2), [0, 0]);
    }

    #[test]
    fn an_edit_starts_at_the_head_at_the_level_where_it_was() {
        let lab = Lab::new(&[1, 2, 3]);
        let mark = fresh(&lab);
        assert_eq!(sequence(&lab, &mark, 2), [2, 1], "levels 3 and 2");
        mark.restart(&WrrPlan::new(&[1, 2, 3]));
        assert_eq!(sequence(&lab, &mark, 3), [1, 2, 0], "level 2 from the head");
        let heavy = Lab::new(&[4, 8]);
        mark.restart(&WrrPlan::new(&[4, 8]));
        assert_eq!(mark.0.load(Relaxed) as u32, 1, "level 1 rounds to a multiple of 4 and 1");
        assert_eq!(sequence(&heavy, &mark, 3), [0, 1, 1]);
    }

    #[test]
    fn many_threads_share_one_exact_sequence() {
        let lab = Lab::new(&[4, 3, 2]);
        let mark = fresh(&lab);
        let plan = WrrPlan::new(&lab.weights());
        let rounds = if cfg!(miri) { 27 } else { 27_000 };
        let totals = lab.count_in_threads(4, rounds, |question| pick(&mark, &plan, question));
        assert_eq!(totals, [4, 3, 2].map(|weight| 4 * rounds / 9 * weight));
    }
}
