//! What a worker's loop asks of its CPU: the time, and rest.

use std::time::Duration;

use lb_config::Idle;
use lb_dataplane::run::Machine;
use lb_dpdk::{Clock, idle_sleep};

/// Empty turns before the first rest: a pause inside a busy stream costs no sleep.
const AWAKE_TURNS: u32 = 64;

/// Each further empty turn sleeps this much longer.
const STEP: Duration = Duration::from_micros(10);

/// Longest sleep within the first second or so without packets: what the next packet waits at most.
const LONG: Duration = Duration::from_millis(1);

/// Empty turns after which nobody seems to be there: a second of [`LONG`] sleeps after those that grew.
const LONELY_TURNS: u32 = AWAKE_TURNS + 100 + 1000;

/// Longest sleep then. A wake-up costs 20 us of CPU in a virtual machine: 2.4 % of a core at 1 ms, 0.6 % at 4 ms.
/// The rings of the software ports hold 2048 frames, what comes in 4 ms at 500,000 packets/s.
const LONGEST: Duration = Duration::from_millis(4);

/// The CPU of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Lcore {
    pub clock: Clock,
    /// What is added to it, ns, modulo 2^64: times in tables that were taken over go on.
    pub offset_ns: u64,
    pub idle: Idle,
}

impl Machine for Lcore {
    fn now_ns(&self) -> u64 {
        self.clock.now_ns().wrapping_add(self.offset_ns)
    }

    fn idle(&self, turns: u32) {
        match (self.idle, rest(turns)) {
            (Idle::Adaptive, Some(time)) => idle_sleep(time),
            (Idle::Spin, _) | (Idle::Adaptive, None) => std::hint::spin_loop(),
        }
    }
}

/// How long to sleep after so many empty turns in a row.
fn rest(turns: u32) -> Option<Duration> {
    let rests = turns.checked_sub(AWAKE_TURNS).filter(|rests| *rests > 0)?;
    Some(if turns > LONELY_TURNS { LONGEST } else { STEP.saturating_mul(rests).min(LONG) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_their_bound() {
        assert_eq!(rest(1), None);
        assert_eq!(rest(64), None);
        assert_eq!(rest(65), Some(Duration::from_micros(10)));
        assert_eq!(rest(164), Some(LONG));
        assert_eq!(rest(1164), Some(LONG));
        assert_eq!(rest(u32::MAX), Some(LONGEST));
    }
}
