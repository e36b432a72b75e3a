//! Failover and overflow: the highest weight.
//!
//! Source: IPVS, `ip_vs_fo.c`, `ip_vs_ovf.c`. The first in the list wins a tie.

use super::{Candidate, Question};

/// The able candidate with the highest weight.
pub fn fo<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    highest(question, |_| true)
}

/// The able candidate with the highest weight among those with at most as many active connections as weight. With N
/// workers a server may get up to N - 1 connections more than that before the next one is taken.
pub fn ovf<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    question.begin_reading();
    highest(question, |candidate| question.load(candidate).active <= u64::from(candidate.weight))
}

fn highest<'a>(question: &Question<'a>, fits: impl Fn(&Candidate) -> bool) -> Option<&'a Candidate> {
    let mut best: Option<&Candidate> = None;
    for candidate in question.candidates.iter().filter(|candidate| question.able(candidate)) {
        if best.is_none_or(|highest| candidate.weight > highest.weight) && fits(candidate) {
            best = Some(candidate);
        }
    }
    best
}
