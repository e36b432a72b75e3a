//! Time for workers: the CPU's time-stamp counter, read without a system call.

use std::time::Duration;

use crate::eal::Eal;

/// Fraction bits of the factor from ticks to nanoseconds: less than 1 ns lost per second up to 4.2 GHz.
const SHIFT: u32 = 32;

/// Turns the time-stamp counter into nanoseconds since the CPU's start. The same for every thread.
///
/// Limits: relies on a counter that runs at one rate and agrees between CPUs (`constant_tsc`, `nonstop_tsc`), as on
/// every x86-64 server of the last decade.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u64,
    factor: u128,
}

impl Clock {
    /// Uses the rate that DPDK measured or read at its start.
    pub fn new(_started: &Eal) -> Self {
        // SAFETY: reads a variable that the start has set, as `_started` shows. No safe form: an FFI call.
        Self::with_hz(unsafe { dpdk_sys::rte_get_tsc_hz() })
    }

    fn with_hz(hz: u64) -> Self {
        let hz = hz.max(1);
        Self { hz, factor: (1_000_000_000_u128 << SHIFT) / u128::from(hz) }
    }

    /// The counter, ticks.
    #[inline]
    pub fn ticks() -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: RDTSC exists on every x86-64 CPU and touches no memory. No safe form before std has one.
        let ticks = unsafe { core::arch::x86_64::_rdtsc() };
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: reads a counter register, touches no memory. No safe form: an FFI call.
        let ticks = unsafe { dpdk_sys::sluice_rdtsc() };
        ticks
    }

    /// Ticks per second.
    pub fn hz(self) -> u64 {
        self.hz
    }

    /// `ticks` in nanoseconds, rounded down.
    #[inline]
    pub fn to_ns(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * self.factor) >> SHIFT) as u64
    }

    /// Now, nanoseconds.
    #[inline]
    pub fn now_ns(self) -> u64 {
        self.to_ns(Self::ticks())
    }
}

/// Sleeps for `time`: what an idle worker does between polls. [`Eal::launch`] has lowered the thread's timer slack, so
/// sleeps of some microseconds are possible.
pub fn idle_sleep(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_without_drift() {
        let clock = Clock::with_hz(2_596_145_000);
        assert_eq!(clock.to_ns(0), 0);
        let day = clock.to_ns(clock.hz() * 86_400);
        let wanted = 86_400 * 1_000_000_000_u64;
        assert!(wanted - day < 100_000, "off by {} ns in a day", wanted - day);
        assert_eq!(Clock::with_hz(1_000_000_000).to_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn the_counter_does_not_run_backwards() {
        let first = Clock::ticks();
        assert!(Clock::ticks() >= first);
    }
}
