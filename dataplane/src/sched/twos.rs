//! Power of two choices.
//!
//! Source: IPVS, `ip_vs_twos.c`: two servers are drawn with chances in proportion to their weights, the one with the
//! lower overhead for its weight is taken, the first drawn in a tie. As in the kernel a draw is a number from 0 to the
//! sum of the weights, both included, so the first server's share is larger by 1 in that sum.

use super::load::heavier;
use super::{Candidate, Question};

/// The less loaded of two random candidates.
pub fn pick<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    let able = || question.candidates.iter().filter(|candidate| question.able(candidate));
    let sum: u64 = able().map(|candidate| u64::from(candidate.weight)).sum();
    let draw = || {
        let mut left = question.draws.below(sum + 1);
        able().find(|candidate| {
            let weight = u64::from(candidate.weight);
            let here = left <= weight;
            left = left.saturating_sub(weight);
            here
        })
    };
    let draw = || draw().or_else(|| able().next_back());
    question.begin_reading();
    let (first, second) = (draw()?, draw()?);
    let [one, two] = [first, second].map(|candidate| question.load(candidate).overhead());
    Some(if heavier(one, first.weight, two, second.weight) { second } else { first })
}
