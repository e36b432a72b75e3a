//! How many packets the kernel gets: a token bucket per worker, port and kind.
//!
//! The rate is shared out to the workers in equal parts, as nothing is shared between them. What a worker may give at
//! once is what comes together in a twentieth of a second, and four packets at least; the last quarter of that is kept
//! for control protocols, so that they get all of the rate while others want more than there is.

/// Time over which the allowance adds up, ns.
const BURST_NS: u64 = 50_000_000;

/// What of the rate is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Time that was not used yet, ns.
    left_ns: u64,
    filled_ns: u64,
}

impl Bucket {
    /// Whether one more packet may go, which it then has.
    ///
    /// `rate`: packets a second, of all workers; `workers`: how many share it.
    pub fn take(&mut self, now_ns: u64, rate: u32, workers: u16, urgent: bool) -> bool {
        let cost = 1_000_000_000 * u64::from(workers.max(1)) / u64::from(rate.max(1));
        let most = BURST_NS.max(4 * cost);
        self.left_ns = self.left_ns.saturating_add(now_ns.saturating_sub(self.filled_ns)).min(most);
        self.filled_ns = now_ns;
        let kept = if urgent { 0 } else { most / 4 };
        let able = self.left_ns >= cost + kept;
        if able {
            self.left_ns -= cost;
        }
        able
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Packets of `plain` and `urgent` that pass in a second when each comes so often a millisecond.
    fn passed(rate: u32, workers: u16, plain: u32, urgent: u32) -> (u32, u32) {
        let mut bucket = Bucket::default();
        let (mut through, mut through_urgent) = (0, 0);
        // the first tenth empties what was saved
        for ms in 0..1100_u64 {
            let now = SECOND + ms * 1_000_000;
            let count = |bucket: &mut Bucket, times, urgent| {
                (0..times).filter(|_| bucket.take(now, rate, workers, urgent)).count() as u32
            };
            let (a, b) = (count(&mut bucket, plain, false), count(&mut bucket, urgent, true));
            if ms >= 100 {
                (through, through_urgent) = (through + a, through_urgent + b);
            }
        }
        (through, through_urgent)
    }

    #[test]
    fn the_rate_is_kept_and_shared_by_workers() {
        assert!((19_900..=20_100).contains(&passed(20_000, 1, 1000, 0).0));
        assert!((4_950..=5_050).contains(&passed(20_000, 4, 1000, 0).0));
        assert_eq!(passed(20_000, 1, 5, 0).0, 5_000, "who stays below it loses nothing");
    }

    #[test]
    fn control_protocols_go_before_all_others() {
        let (plain, urgent) = passed(20_000, 1, 1000, 10);
        assert_eq!(urgent, 10_000, "all of them");
        assert!((9_900..=10_100).contains(&plain), "what is left: {plain}");
        let (plain, urgent) = passed(20_000, 1, 1000, 1000);
        assert!(plain < 100 && urgent > 19_800, "{plain} {urgent}");
    }

    #[test]
    fn the_lowest_rate_over_many_workers_still_lets_packets_through() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(10 * SECOND, 100, 64, false));
        let hour = (0..3600_u64).filter(|s| bucket.take((11 + s) * SECOND, 100, 64, false)).count();
        assert!((3590..=3600).contains(&hour), "{hour}");
    }

    #[test]
    fn a_burst_is_bounded() {
        let mut bucket = Bucket::default();
        let at_once = (0..100_000).filter(|_| bucket.take(1000 * SECOND, 20_000, 1, true)).count();
        assert_eq!(at_once, 1000);
    }
}
