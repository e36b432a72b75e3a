//! Work over a burst, compiled a second time for the instructions that x86-64 processors have had since 2013.
//!
//! A program for every x86-64 has neither three-operand vectors nor multiplications that leave the flags alone; the
//! passes over a burst take a tenth fewer instructions with them (callgrind, DR hit; see `lb-bench instructions`). Which
//! of the two a worker runs is asked of the processor once. Both are the same source, so the one for every x86-64 is the
//! other's twin; the tests of [`crate::express`] run both.

#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::conn::simd::V3;
use crate::conn::simd::{Every, Level};

/// Something to be done that is worth compiling twice.
///
/// What [`Work::run`] calls counts only where it is inlined: mark all of it `inline(always)`.
pub(crate) trait Work {
    /// What comes of it.
    type Out;

    /// Does it with what instructions there are. Implementations are `inline(always)`.
    fn run<L: Level>(self, level: L) -> Self::Out;
}

/// Whether this processor has x86-64-v3 (AVX2, BMI, LZCNT, MOVBE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wide(bool);

impl Wide {
    /// Asks the processor.
    pub fn of_this_processor() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        return Self(
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("movbe"),
        );
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        Self(false)
    }

    /// What every processor has.
    #[cfg(test)]
    pub const NO: Self = Self(false);

    /// Does the work with the best instructions that there are.
    ///
    /// Cost: a branch, once a burst.
    #[inline(always)]
    pub fn run<W: Work>(self, work: W) -> W::Out {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.0 {
            #[allow(unsafe_code)]
            // SAFETY: a `Wide` is true only where the processor has said that it has all that `v3` is compiled for. No
            // safe form: the compiler cannot know what was asked.
            return unsafe { v3(work) };
        }
        work.run(Every)
    }
}

/// The work with x86-64-v3.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe")]
#[inline(never)]
fn v3<W: Work>(work: W) -> W::Out {
    #[allow(unsafe_code)]
    // SAFETY: this function is compiled for AVX2, and it runs only where the processor has that. No safe form: such a
    // value is the proof of it.
    work.run(unsafe { V3::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [u64]);

    impl Work for Sum<'_> {
        type Out = u64;

        #[inline(always)]
        fn run<L: Level>(self, _: L) -> u64 {
            self.0.iter().map(|n| n.leading_zeros() as u64 ^ n.wrapping_mul(77)).sum()
        }
    }

    #[test]
    fn both_do_the_same() {
        let all: Vec<u64> = (0..1000).map(|n| n * n).collect();
        assert_eq!(Wide::of_this_processor().run(Sum(&all)), Wide::NO.run(Sum(&all)));
    }
}
