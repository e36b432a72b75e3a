//! The loop of a worker's thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::io::PacketIo;
use crate::worker::Worker;

/// One turn in this many with packets is timed from its start to its end.
///
/// At 32 packets a turn this is one clock read and two stores per 512 packets.
const SAMPLE_EVERY: u32 = 16;

/// What the loop asks of the machine.
pub trait Machine {
    /// Nanoseconds since any fixed point, never going back.
    fn now_ns(&self) -> u64;
    /// Called after a turn without packets, with the number of such turns in a row.
    fn idle(&self, turns: u32);
}

/// Turns until `stop` is set. What is still to be sent then is sent, as far as the devices take it.
pub fn run<I: PacketIo>(worker: &mut Worker<I>, machine: &impl Machine, stop: &AtomicBool) {
    let (mut idle, mut busy) = (0u32, 0u32);
    while !stop.load(Relaxed) {
        let start = machine.now_ns();
        // a listing under way goes on at once: it takes many turns
        if worker.turn(start) == 0 && !worker.is_listing() {
            idle = idle.saturating_add(1);
            machine.idle(idle);
            continue;
        }
        idle = 0;
        busy = busy.wrapping_add(1);
        if busy.is_multiple_of(SAMPLE_EVERY) {
            worker.mailbox().samples.push(machine.now_ns() - start);
        }
    }
    worker.turn(machine.now_ns());
}
