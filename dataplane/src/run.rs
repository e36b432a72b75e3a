//! The loop of a worker's thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::io::PacketIo;
use crate::worker::Worker;

/// What the loop asks of the machine.
pub trait Machine {
    /// One turn in this many with packets is timed; 0: none. It ends where the next begins, whose time is read
    /// anyhow: a sample costs two stores, and at 32 packets a turn there is one per 512 packets (`lb-bench latency`).
    const SAMPLE_EVERY: u32 = 16;

    /// Nanoseconds since any fixed point, never going back.
    fn now_ns(&self) -> u64;
    /// Called after a turn without packets, with the number of such turns in a row.
    fn idle(&self, turns: u32);
}

/// Turns until `stop` is set. What is still to be sent then is sent, as far as the devices take it.
pub fn run<I: PacketIo, M: Machine>(worker: &mut Worker<I>, machine: &M, stop: &AtomicBool) {
    let (mut idle, mut busy) = (0u32, 0u32);
    let mut timed = None;
    while !stop.load(Relaxed) {
        let start = machine.now_ns();
        if let Some(before) = timed.take() {
            worker.mailbox().samples.push(start.saturating_sub(before));
        }
        // a listing under way goes on at once: it takes many turns
        if worker.turn(start) == 0 && !worker.is_listing() {
            idle = idle.saturating_add(1);
            machine.idle(idle);
            continue;
        }
        idle = 0;
        busy = busy.wrapping_add(1);
        if M::SAMPLE_EVERY > 0 && busy.is_multiple_of(M::SAMPLE_EVERY) {
            timed = Some(start);
        }
    }
    worker.turn(machine.now_ns());
}
