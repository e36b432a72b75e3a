//! Least connections, plain and weighted, shortest expected delay, never queue.
//!
//! Source: IPVS, `ip_vs_lc.c`, `ip_vs_wlc.c`, `ip_vs_sed.c`, `ip_vs_nq.c`. All pass over what is overloaded, and the
//! first in the list wins a tie. Bound with several workers: [`super::load`].

use super::load::{Load, heavier};
use super::{Candidate, Question};

/// The candidate with the least cost for its weight, among the able ones.
///
/// In the kernel's loops a candidate with weight 0 takes part in the comparison and can never win it.
pub(super) fn least<'a>(question: &Question<'a>, cost: impl Fn(Load) -> u64) -> Option<&'a Candidate> {
    question.begin_reading();
    let mut best: Option<(&Candidate, u64)> = None;
    for candidate in question.candidates.iter().filter(|candidate| question.able(candidate)) {
        let own = cost(question.load(candidate));
        if best.is_none_or(|(least, load)| heavier(load, least.weight, own, candidate.weight)) {
            best = Some((candidate, own));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// Least overhead, whatever the weight.
pub fn lc<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    question.begin_reading();
    let able = question.candidates.iter().filter(|candidate| question.able(candidate));
    able.min_by_key(|candidate| question.load(candidate).overhead())
}

/// Least overhead for the weight.
pub fn wlc<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    least(question, Load::overhead)
}

/// Least `(active + 1) / weight`: the delay that the new connection itself would see.
pub fn sed<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    least(question, |load| load.active + 1)
}

/// The first one without an active connection, else as [`sed`].
pub fn nq<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    question.begin_reading();
    let able = |candidate: &&Candidate| question.able(candidate);
    let idle = question.candidates.iter().filter(able).find(|candidate| question.load(candidate).active == 0);
    idle.or_else(|| sed(question))
}
