//! Ports at which packets arrive by a schedule, and whose clock is the worker's alone.

use std::collections::VecDeque;

use lb_dataplane::io::{Burst, DeviceId, PacketIo, WorkerId};
use lb_dataplane::memory::Frame;
use lb_dpdk::Clock;

use crate::rig::{Kind, Ports};

/// Packets that may be late before they are lost: a NIC's queue.
const QUEUE: u64 = 4096;

/// Ports at which packets arrive by a schedule.
pub struct Paced {
    ports: Ports,
    /// Ticks between two packets, with 16 bits of fraction; 0: all are there at once, and none is lost.
    interval: u64,
    /// The worker's time when it began, ticks.
    pub start: u64,
    /// Ticks that these ports took, and others, which the clock leaves out.
    own: u64,
    /// When the worker was last left alone, ticks.
    since: u64,
    /// The most that it takes from there to its next call, ticks.
    pub limit: u64,
    /// How often that was exceeded.
    pub gaps: u64,
    /// Ticks beyond it.
    pub others: u64,
    /// While it is asked for: the least of each such stretch, in the order of a pass.
    pub stretches: Option<Vec<u32>>,
    at: usize,
    /// Packets that have arrived or were lost.
    arrived: u64,
    /// Those that are still to arrive, and those that were lost.
    pub left: u64,
    pub lost: u64,
    /// When each packet that the worker has was due. Packets of one worker leave in the order in which they came.
    pub due: VecDeque<u64>,
    /// Ticks that each packet took.
    pub taken: Vec<u32>,
    /// The client's side and the server's take turns, so that a turn sends on one device and keeps the order.
    pub side: u16,
}

impl Paced {
    /// A packet every so many ticks; 0: all are there at once, and none is lost.
    pub fn new(ports: Ports, interval: f64) -> Self {
        let interval = (interval * 65536.0) as u64;
        Self {
            ports,
            interval,
            start: 0,
            own: 0,
            since: 0,
            limit: u64::MAX,
            gaps: 0,
            others: 0,
            stretches: None,
            at: 0,
            arrived: 0,
            left: 0,
            lost: 0,
            due: VecDeque::with_capacity(QUEUE as usize),
            taken: Vec::new(),
            side: 0,
        }
    }

    /// So many packets from now on.
    pub fn begin(&mut self, packets: u64) {
        self.taken.clear();
        self.taken.reserve(packets as usize);
        (self.arrived, self.left, self.lost) = (0, packets, 0);
        (self.gaps, self.others, self.at) = (0, 0, 0);
        self.since = Clock::ticks();
        self.start = self.now();
    }

    /// The worker calls: its time stands still. Returns it.
    #[inline]
    fn pause(&mut self) -> u64 {
        let ticks = Clock::ticks();
        let took = ticks.saturating_sub(self.since);
        if let Some(stretches) = &mut self.stretches {
            let took = u32::try_from(took).unwrap_or(u32::MAX);
            match stretches.get_mut(self.at) {
                Some(least) => *least = took.min(*least),
                None => stretches.push(took),
            }
            self.at += 1;
        }
        if took > self.limit {
            self.gaps += 1;
            self.others += took - self.limit;
            self.own += took - self.limit;
        }
        ticks - self.own
    }

    /// The worker goes on; its time was `now`.
    #[inline]
    fn resume(&mut self, now: u64) {
        self.since = Clock::ticks();
        self.own = self.since - now;
    }

    /// The worker's time, ticks.
    #[inline]
    pub fn now(&self) -> u64 {
        Clock::ticks() - self.own
    }

    fn due(&self, packet: u64) -> u64 {
        self.start + ((u128::from(packet) * u128::from(self.interval)) >> 16) as u64
    }
}

impl PacketIo for Paced {
    type Packet = Frame;

    fn rx(&mut self, device: DeviceId, into: &mut Burst<Frame>) {
        if device.0 != self.side {
            return;
        }
        let now = self.pause();
        while self.interval > 0 && self.left > 0 && self.due(self.arrived + QUEUE) < now {
            (self.arrived, self.left, self.lost) = (self.arrived + 1, self.left - 1, self.lost + 1);
        }
        while self.left > 0 && !into.is_full() && self.due(self.arrived) <= now {
            let Some(frame) = self.ports.make(device) else { break };
            into.push(frame);
            self.due.push_back(self.due(self.arrived));
            (self.arrived, self.left) = (self.arrived + 1, self.left - 1);
        }
        self.resume(now);
    }

    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Frame>) {
        let now = self.pause();
        for _ in 0..from.len() {
            let due = self.due.pop_front().unwrap_or(now);
            self.taken.push(u32::try_from(now.saturating_sub(due)).unwrap_or(u32::MAX));
        }
        if self.ports.kind() == Kind::Nat {
            self.side ^= 1;
        }
        self.ports.recycle(from);
        self.resume(now);
    }

    fn alloc(&mut self) -> Option<Frame> {
        None
    }

    fn hand_over(&mut self, _to: WorkerId, _from: &mut Burst<Frame>) {}

    fn take_over(&mut self, _into: &mut Burst<Frame>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(interval: f64) -> Paced {
        let ports = Ports::for_workers(Kind::Dr, 1, 100).into_iter().next().expect("a worker's");
        Paced::new(ports, interval)
    }

    /// A stretch of work of so many ticks.
    fn work(ticks: u64) {
        let start = Clock::ticks();
        while Clock::ticks() - start < ticks {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn what_exceeds_the_limit_is_others_and_is_left_out_of_the_clock() {
        let mut port = port(1000.0);
        port.limit = 1_000_000_000;
        port.begin(1000);
        let now = port.now();
        work(10_000);
        let later = port.pause();
        port.resume(later);
        assert!(later - now >= 10_000 && (port.gaps, port.others) == (0, 0));
        port.limit = 1_000;
        port.since = Clock::ticks();
        let now = port.now();
        work(500_000);
        let later = port.pause();
        port.resume(later);
        assert_eq!(port.gaps, 1);
        assert!(port.others >= 499_000, "{}", port.others);
        // the clock went on by the limit, and by the moment between the first two lines
        assert!((500..400_000).contains(&(later - now)), "{}", later - now);
    }

    #[test]
    fn of_each_stretch_the_least_of_all_passes_is_kept() {
        let mut port = port(0.0);
        port.stretches = Some(Vec::new());
        for ticks in [[3_000_000, 1_000], [1_000, 3_000_000]] {
            port.begin(100);
            for ticks in ticks {
                work(ticks);
                let now = port.pause();
                port.resume(now);
            }
        }
        let stretches = port.stretches.expect("asked for");
        assert!(stretches.len() == 2 && stretches.iter().all(|ticks| *ticks < 3_000_000), "{stretches:?}");
    }
}
