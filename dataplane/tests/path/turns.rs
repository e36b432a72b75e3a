//! The loop of a worker's thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use lb_dataplane::io::DeviceId;
use lb_dataplane::memory::Frame;
use lb_dataplane::run::{Machine, run};

use crate::frames::{SYN, segment};
use crate::lab::{Lab, web};

/// A clock on which every reading takes 1000 ns; ends the loop when there is nothing more to do.
struct Ticking<'a, const EVERY: u32> {
    now_ns: Cell<u64>,
    readings: Cell<u64>,
    stop: &'a AtomicBool,
}

impl<const EVERY: u32> Machine for Ticking<'_, EVERY> {
    const SAMPLE_EVERY: u32 = EVERY;

    fn now_ns(&self) -> u64 {
        self.readings.set(self.readings.get() + 1);
        self.now_ns.set(self.now_ns.get() + 1000);
        self.now_ns.get()
    }

    fn idle(&self, _turns: u32) {
        self.stop.store(true, Relaxed);
    }
}

/// Samples of so many turns with packets, and readings of the clock.
fn samples<const EVERY: u32>(turns: u16) -> (Vec<u32>, u64) {
    let mut lab = Lab::warm(&web("rr", &[(12, 1)]));
    for port in 0..turns * 32 {
        let frame = Frame::new(DeviceId(0), &segment(1024 + port, SYN));
        lab.workers[0].io_mut().receive[0].push_back(frame);
    }
    let stop = AtomicBool::new(false);
    let machine =
        Ticking::<EVERY> { now_ns: Cell::new(lab.now_ms * 1_000_000), readings: Cell::new(0), stop: &stop };
    run(&mut lab.workers[0], &machine, &stop);
    let mut seen = Vec::new();
    lab.workers[0].mailbox().samples.drain(&mut 0, |ns| seen.push(ns));
    (seen, machine.readings.get())
}

#[test]
fn latency_is_sampled_always_and_without_another_look_at_the_clock() {
    // with packets, the one without, and the one after the end
    assert_eq!(samples::<16>(80), (vec![1000; 5], 82));
    assert_eq!(samples::<1>(80), (vec![1000; 80], 82));
    assert_eq!(samples::<0>(80), (vec![], 82));
    struct Product;
    impl Machine for Product {
        fn now_ns(&self) -> u64 {
            0
        }
        fn idle(&self, _turns: u32) {}
    }
    assert_eq!(Product::SAMPLE_EVERY, 16, "what lbd runs with");
}
