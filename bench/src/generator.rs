//! Frames made as fast as a worker takes them: a port in memory whose sender is also its receiver.
//!
//! Buffers go round in order of first in, first out, as through a NIC's ring. A frame is written for the next time
//! right when the worker has sent it, while its buffer is still in the first cache: with few buffers ([`HOT`]) frames
//! stay in the second cache, with many ([`COLD`]) what the worker receives is in no cache of its core, as after DMA.

use std::collections::VecDeque;
use std::sync::Arc;

use lb_dataplane::io::{Burst, DeviceId, PacketIo, WorkerId};

use crate::frames::{Family, LEN4, LEN6, Learned, Leg, SYN, write4, write6};
use crate::packet::Buf;

/// Buffers that stay in the second-level cache.
pub const HOT: usize = 512;
/// Buffers that do not: 230 MB of them.
pub const COLD: usize = 100_000;

/// Bit of a tag: the frame is a client's first.
const FIRST: u64 = 1 << 63;

/// One step of a script: a packet of this leg with these TCP flags.
pub type Step = (Leg, u8);

/// Which flow's frame comes next, and which frame of it.
#[derive(Clone, Debug)]
pub enum Order {
    /// Flows 0 to `flows - 1`, over and over: as flows look random, so does their order.
    Round {
        /// How many.
        flows: u64,
        /// The packet.
        step: Step,
    },
    /// Flows of these ranks, over and over.
    Ranks {
        /// The ranks.
        ranks: Arc<[u32]>,
        /// The packet.
        step: Step,
    },
    /// Lives: of `block` flows the first step, then of all of them the second, and so on to the last step; then the
    /// next `block` flows. After `flows` flows it begins anew. A block is larger than the number of buffers, so that
    /// what was learned of a flow's first packet is known when its answer is written.
    Lives {
        /// How many; `u64::MAX`: never one twice.
        flows: u64,
        /// How many go on at a time.
        block: u64,
        /// Their packets.
        steps: &'static [Step],
    },
}

/// A port of one worker that receives what the generator makes, and makes new frames of what is sent.
pub struct Generator {
    ring: VecDeque<Buf>,
    family: Family,
    order: Order,
    /// Flow of the next frame, or place in the ranks.
    at: u64,
    /// First flow of the block, and step, of lives.
    block: u64,
    step: usize,
    left: u64,
    sent: u64,
    /// What was learned of each flow; no flow is learned where it is empty. Of a power of two of flows, or of all.
    learned: Vec<Learned>,
    mask: u64,
}

impl Generator {
    /// A generator of frames of this family in these buffers.
    pub fn new(family: Family, buffers: Vec<Buf>) -> Self {
        let order = Order::Round { flows: 1, step: (Leg::In, SYN) };
        let ring = buffers.into();
        Self { ring, family, order, at: 0, block: 0, step: 0, left: 0, sent: 0, learned: Vec::new(), mask: 0 }
    }

    /// Learns where answers have to go, of all of `flows` flows.
    pub fn learn_all(&mut self, flows: u64) {
        (self.learned, self.mask) = (vec![Learned::NONE; flows as usize], u64::MAX);
    }

    /// Learns it of the last `window` flows, a power of two.
    pub fn learn_last(&mut self, window: usize) {
        (self.learned, self.mask) =
            (vec![Learned::NONE; window.next_power_of_two()], window.next_power_of_two() as u64 - 1);
    }

    /// Begins an order of frames; [`Generator::offer`] says how many.
    pub fn begin(&mut self, order: Order) {
        self.begin_at(order, 0);
    }

    /// Begins an order at its frame `at`, counted modulo its length; lives begin at their first.
    pub fn begin_at(&mut self, order: Order, at: u64) {
        self.at = match &order {
            Order::Round { flows, .. } => at % flows,
            Order::Ranks { ranks, .. } => at % ranks.len() as u64,
            Order::Lives { .. } => 0,
        };
        (self.order, self.block, self.step, self.left) = (order, 0, 0, 0);
        for _ in 0..self.ring.len() {
            if let Some(buf) = self.ring.pop_front() {
                self.refill(buf);
            }
        }
    }

    /// Offers the next `packets` frames.
    pub fn offer(&mut self, packets: u64) {
        self.left = packets;
    }

    /// Frames not yet received.
    #[inline]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Uses other buffers, and gives back those that it had. The order has to be begun anew.
    pub fn swap_buffers(&mut self, buffers: Vec<Buf>) -> Vec<Buf> {
        self.left = 0;
        std::mem::replace(&mut self.ring, buffers.into()).into()
    }

    /// The flow and packet that come next.
    #[inline]
    fn next(&mut self) -> (u64, Step) {
        match &self.order {
            Order::Round { flows, step } => {
                let n = self.at;
                self.at = if n + 1 == *flows { 0 } else { n + 1 };
                (n, *step)
            }
            Order::Ranks { ranks, step } => {
                let n = ranks[self.at as usize];
                self.at = if self.at as usize + 1 == ranks.len() { 0 } else { self.at + 1 };
                (n.into(), *step)
            }
            Order::Lives { flows, block, steps } => {
                let (n, step) = (self.at, steps[self.step]);
                self.at += 1;
                if self.at == (self.block + block).min(*flows) {
                    self.step += 1;
                    if self.step == steps.len() {
                        (self.step, self.block) = (0, if self.at == *flows { 0 } else { self.at });
                    }
                    self.at = self.block;
                }
                (n, step)
            }
        }
    }

    /// Writes the next frame into a buffer and queues it.
    #[inline]
    fn refill(&mut self, mut buf: Buf) {
        let (n, (leg, flags)) = self.next();
        let slot = n & self.mask;
        let learned = self.learned.get(slot as usize).copied().unwrap_or(Learned::NONE);
        let tag = if flags == SYN && leg == Leg::In { slot | FIRST } else { slot };
        match self.family {
            Family::V4 => write4(buf.reset::<LEN4>(tag), n, leg, flags, learned),
            Family::V6 => write6(buf.reset::<LEN6>(tag), n, leg, flags, learned),
        }
        self.ring.push_back(buf);
    }

    /// Learns from a frame that was sent.
    #[inline]
    fn learn(&mut self, buf: &Buf) {
        use lb_dataplane::io::Packet as _;
        if buf.tag() & FIRST != 0
            && let Some(learned) = self.learned.get_mut((buf.tag() & !FIRST) as usize)
        {
            *learned = Learned::read(self.family, buf.bytes());
        }
    }
}

impl PacketIo for Generator {
    type Packet = Buf;

    #[inline]
    fn rx(&mut self, _device: DeviceId, into: &mut Burst<Buf>) {
        while self.left > 0
            && !into.is_full()
            && let Some(buf) = self.ring.pop_front()
        {
            into.push(buf);
            self.left -= 1;
        }
    }

    #[inline]
    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Buf>) {
        for buf in from.drain(..) {
            self.sent += 1;
            self.learn(&buf);
            self.refill(buf);
        }
    }

    fn alloc(&mut self) -> Option<Buf> {
        None
    }

    fn hand_over(&mut self, _to: WorkerId, _from: &mut Burst<Buf>) {}

    fn take_over(&mut self, _into: &mut Burst<Buf>) {}
}

#[cfg(test)]
mod tests {
    use lb_dataplane::io::Packet as _;

    use super::*;
    use crate::frames::{ACK, SYN_ACK};

    /// The next `n` frames.
    fn frames(generator: &mut Generator, n: u64) -> Vec<Vec<u8>> {
        generator.offer(n);
        let (mut all, mut burst) = (Vec::new(), Burst::new());
        while generator.left() > 0 {
            generator.rx(DeviceId(0), &mut burst);
            all.extend(burst.iter().map(|buf| buf.bytes().to_vec()));
            generator.tx(DeviceId(0), &mut burst);
        }
        all
    }

    #[test]
    fn every_flow_comes_once_a_round() {
        for flows in [1u64, 5, 1000] {
            let mut generator = Generator::new(Family::V4, Buf::pool(64));
            generator.begin(Order::Round { flows, step: (Leg::In, ACK) });
            let mut first = frames(&mut generator, flows);
            assert_eq!(first, frames(&mut generator, flows), "{flows}");
            first.sort_unstable();
            first.dedup();
            assert_eq!((first.len() as u64, generator.sent()), (flows, 2 * flows));
        }
    }

    #[test]
    fn ranks_come_in_their_order() {
        let mut generator = Generator::new(Family::V6, Buf::pool(40));
        generator.begin(Order::Ranks { ranks: [0, 0, 7].into(), step: (Leg::In, ACK) });
        let all = frames(&mut generator, 6);
        assert!(all[0] == all[1] && all[1] != all[2] && all[..3] == all[3..]);
    }

    #[test]
    fn lives_go_step_by_step_in_blocks_and_answers_go_where_requests_came_from() {
        const STEPS: &[Step] = &[(Leg::In, SYN), (Leg::OutToLocal, SYN_ACK)];
        let mut generator = Generator::new(Family::V4, Buf::pool(32));
        generator.learn_last(100);
        generator.begin(Order::Lives { flows: 150, block: 100, steps: STEPS });
        let all = frames(&mut generator, 600);
        let flags: Vec<u8> = all.iter().map(|frame| frame[47]).collect();
        assert!(flags[..100].iter().all(|f| *f == SYN) && flags[100..200].iter().all(|f| *f == SYN_ACK));
        assert!(flags[200..250].iter().all(|f| *f == SYN) && flags[250..300].iter().all(|f| *f == SYN_ACK));
        assert_eq!(all[..300], all[300..]);
        // nobody rewrote the request: its source is the client, its destination's last bits are the VIP's
        assert_eq!((&all[100][32..34], &all[100][36..38]), (&all[0][28..30], &all[0][34..36]));
        assert_eq!(all[100][28..30], all[0][32..34]);
    }
}
