use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

#[test]
fn the_fingerprint_is_the_same_every_time() {
    assert_eq!(fingerprint(), fingerprint());
    assert_ne!(fingerprint(), 0);
}

proptest! {
    #[test]
    fn a_deadline_is_over_when_its_time_has_come_however_long_nobody_was_there(
        set in 0..1000_u64, timeout in 1..=Tick::MAX_TIMEOUT / 16, lag in 0..700_u64, away in 0..18 * 3600_u64
    ) {
        // what is over for more than 12 minutes the sweep has taken out
        // set by a worker up to two seconds after the last beat, or some time before
        let last_ns = (1_000_000 + lag) * S;
        let set_ns = (1_000_000 + set.min(lag + 1)) * S;
        let now_ns = last_ns + 2 * S + away * S;
        let deadline = Tick::from_ns(set_ns).after(timeout * 16);
        let moment = Moment { last_ns, now_ns };
        let over = set_ns + u64::from(timeout) * S <= now_ns;
        prop_assert_eq!(moment.is_over(deadline), over);
        // a process that came back before the beat's grace is over
        let soon = Moment { last_ns, now_ns: last_ns + S };
        prop_assert_eq!(soon.is_over(deadline), set_ns + u64::from(timeout) * S <= last_ns + S);
    }
}
