//! Sending: frames collect per device and leave as bursts; frames without a MAC address wait.

use crate::drop_reason::DropReason;
use crate::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::neighbor::{NeighborId, Resolution};
use crate::wire::{Mac, ethernet};
use crate::worker::Worker;

/// Where a frame goes on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextHop {
    pub neighbor: NeighborId,
    pub device: DeviceId,
    /// The director's MAC address there.
    pub mac: Mac,
}

/// Frames that are complete but for the MAC address of their next hop.
#[derive(Debug)]
pub(crate) struct Waiting<P> {
    frames: Vec<(NextHop, P)>,
    limit: usize,
    /// Version of the neighbour cells that was last looked at.
    seen: u64,
}

impl<P: Packet> Waiting<P> {
    pub fn new(limit: u16) -> Self {
        Self { frames: Vec::with_capacity(usize::from(limit)), limit: usize::from(limit), seen: 0 }
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Errors: the frame comes back when the queue, or this neighbour's share of it, is full. The share keeps one
    /// silent server from taking the room of all others.
    fn hold(&mut self, hop: NextHop, frame: P) -> Result<(), P> {
        let own = self.frames.iter().filter(|(waits_for, _)| waits_for.neighbor == hop.neighbor).count();
        if self.frames.len() >= self.limit || own >= self.limit.div_ceil(4) {
            return Err(frame);
        }
        self.frames.push((hop, frame));
        Ok(())
    }
}

/// How many frames of its own a worker may still send in answer to packets: ICMP errors, 1000 a second, bursts of
/// 100 (RFC 1812 section 4.3.2.8; RFC 4443 section 2.4 (f)).
#[derive(Debug, Default)]
pub(crate) struct Budget {
    left: u64,
    refilled_ns: u64,
}

impl Budget {
    const BURST: u64 = 100;
    const NS_PER_FRAME: u64 = 1_000_000;

    pub fn take(&mut self, now_ns: u64) -> bool {
        let earned = now_ns.saturating_sub(self.refilled_ns) / Self::NS_PER_FRAME;
        if earned > 0 {
            self.left = (self.left + earned).min(Self::BURST);
            self.refilled_ns = now_ns;
        }
        let able = self.left > 0;
        self.left -= u64::from(able);
        able
    }
}

impl<I: PacketIo> Worker<I> {
    /// Sends a frame to a next hop, now or when its MAC address is known.
    pub(crate) fn send_to(&mut self, hop: NextHop, mut frame: I::Packet) {
        match self.snapshot.cells.mac(hop.neighbor) {
            Resolution::Resolved(mac) => {
                ethernet::rewrite_macs(frame.bytes_mut(), mac, hop.mac);
                self.send(hop.device, frame);
            }
            Resolution::Pending => {
                if self.waiting.hold(hop, frame).is_err() {
                    self.counters.drop_packet(DropReason::NeighborQueueFull);
                }
            }
            Resolution::Failed => self.counters.drop_packet(DropReason::NeighborUnreachable),
        }
    }

    /// Sends a complete frame with this turn's burst.
    pub(crate) fn send(&mut self, device: DeviceId, frame: I::Packet) {
        let at = usize::from(device.0);
        if self.out[at].is_full() {
            self.flush_device(at);
        }
        if self.out[at].try_push(frame).is_err() {
            self.counters.drop_packet(DropReason::TxFull);
        }
    }

    /// Hands a frame to the worker that owns its flow with this turn's burst.
    pub(crate) fn hand_over(&mut self, to: WorkerId, frame: I::Packet) {
        let at = usize::from(to.0);
        if self.hand[at].is_full() {
            self.flush_hand(at);
        }
        if self.hand[at].try_push(frame).is_err() {
            self.counters.drop_packet(DropReason::HandoverFull);
        }
    }

    /// Sends what has collected. What the device or the ring does not take stays for the next turn.
    pub(crate) fn flush(&mut self) {
        (0..self.out.len()).for_each(|device| self.flush_device(device));
        (0..self.hand.len()).for_each(|worker| self.flush_hand(worker));
    }

    fn flush_device(&mut self, at: usize) {
        let burst = &mut self.out[at];
        if burst.is_empty() {
            return;
        }
        let (frames, bytes) = (burst.len(), bytes(burst));
        self.io.tx(DeviceId(at as u16), burst);
        let sent = &self.counters.devices[at];
        sent.tx_packets.add((frames - burst.len()) as u64);
        sent.tx_bytes.add((bytes - self::bytes(burst)) as u64);
    }

    fn flush_hand(&mut self, at: usize) {
        let burst = &mut self.hand[at];
        if burst.is_empty() {
            return;
        }
        let frames = burst.len();
        self.io.hand_over(WorkerId(at as u16), burst);
        self.counters.own.handed_over.add((frames - burst.len()) as u64);
    }

    /// Sends the frames whose next hop has answered and drops those whose next hop is given up.
    pub(crate) fn release_waiting(&mut self) {
        let version = self.snapshot.cells.version();
        if self.waiting.frames.is_empty() || self.waiting.seen == version {
            return;
        }
        self.waiting.seen = version;
        let mut at = 0;
        while at < self.waiting.frames.len() {
            if self.snapshot.cells.mac(self.waiting.frames[at].0.neighbor) == Resolution::Pending {
                at += 1;
            } else {
                // in order: frames of one flow must not overtake each other
                let (hop, frame) = self.waiting.frames.remove(at);
                self.send_to(hop, frame);
            }
        }
    }
}

fn bytes<P: Packet>(burst: &Burst<P>) -> usize {
    burst.iter().map(|frame| frame.bytes().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_its_rate() {
        let mut budget = Budget::default();
        let second = 1_000_000_000;
        let taken = |budget: &mut Budget, now| (0..5000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, second), 100);
        assert_eq!(taken(&mut budget, second), 0);
        assert_eq!(taken(&mut budget, second + 5_000_000), 5);
    }
}
