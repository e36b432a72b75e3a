//! Sending: frames collect per device and leave as bursts; frames without a MAC address wait.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::drop_reason::DropReason;
use crate::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::mailbox::Event;
use crate::neighbor::{LinkId, NeighborId, Resolution};
use crate::parse::Parsed;
use crate::rewrite::Fragments;
use crate::snapshot::Route;
use crate::wire::{Mac, ethernet, vlan};
use crate::worker::Worker;

/// Whose MAC address a frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A next hop that the control core resolves.
    Neighbor(NeighborId),
    /// A station on this link that the control core is about to be told of.
    Stranger(LinkId, IpAddr),
}

/// Where a frame goes on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextHop {
    pub to: Awaited,
    pub device: DeviceId,
    /// 802.1Q tag there, 0: untagged.
    pub vlan: u16,
    /// The director's MAC address there.
    pub mac: Mac,
}

#[derive(Debug)]
struct Held<P> {
    hop: NextHop,
    frame: P,
    since_ns: u64,
}

/// Frames to be sent by one device, and how many bytes they are.
#[derive(Debug)]
pub(crate) struct Outgoing<P> {
    pub frames: Burst<P>,
    bytes: u64,
}

impl<P: Packet> Outgoing<P> {
    pub fn new() -> Self {
        Self { frames: Burst::new(), bytes: 0 }
    }

    /// Adds a frame that is `len` bytes long. Errors: the frame comes back when there is no room.
    #[inline(always)]
    pub fn push(&mut self, frame: P, len: usize) -> Result<(), P> {
        self.frames.try_push(frame).map_err(|full| full.element())?;
        self.bytes += len as u64;
        Ok(())
    }

    /// Puts a frame before all others. Errors: it comes back when there is no room.
    fn push_first(&mut self, frame: P) -> Result<(), P> {
        let len = frame.frame_len() as u64;
        self.frames.try_insert(0, frame).map_err(|full| full.element())?;
        self.bytes += len;
        Ok(())
    }

    /// Gives up the last frame when there is no room for another. Returns whether it did.
    fn make_room(&mut self) -> bool {
        let last = if self.frames.is_full() { self.frames.pop() } else { None };
        let given_up = last.is_some();
        self.bytes -= last.map_or(0, |frame| frame.frame_len() as u64);
        given_up
    }
}

impl<P> Outgoing<P> {
    /// Takes all of a burst of so many bytes, in their order; `false`, unchanged: there is not so much room.
    #[inline(always)]
    fn take(&mut self, burst: &mut Burst<P>, bytes: u64) -> bool {
        if self.frames.is_empty() {
            self.frames = std::mem::take(burst);
            self.bytes = bytes;
        } else if self.frames.remaining_capacity() >= burst.len() {
            self.frames.extend(burst.drain(..));
            self.bytes += bytes;
        } else {
            return false;
        }
        true
    }
}

/// How long a frame waits for a next hop at most, ns: longer than resolution takes to fail (three questions, a
/// second apart), so only a frame whose question was never asked gets there.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Frames that are complete but for the MAC address of their next hop.
#[derive(Debug)]
pub(crate) struct Waiting<P> {
    frames: Vec<Held<P>>,
    limit: usize,
    /// Version of the neighbour cells, and snapshot, that were last looked at.
    seen: (u64, u64),
}

impl<P: Packet> Waiting<P> {
    pub fn new(limit: u16) -> Self {
        Self { frames: Vec::with_capacity(usize::from(limit)), limit: usize::from(limit), seen: (0, 0) }
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Errors: the frame comes back when the queue, or this neighbour's share of it, is full. The share keeps one
    /// silent server from taking the room of all others.
    fn hold(&mut self, hop: NextHop, frame: P, now_ns: u64) -> Result<(), P> {
        let own = self.frames.iter().filter(|held| held.hop.to == hop.to).count();
        if self.frames.len() >= self.limit || own >= self.limit.div_ceil(4) {
            return Err(frame);
        }
        self.frames.push(Held { hop, frame, since_ns: now_ns });
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
        if hop.to == Awaited::Neighbor(NeighborId::KERNEL) {
            return self.give_balanced(frame, &hop);
        }
        match self.resolve(hop.to) {
            Resolution::Resolved(mac) => {
                ethernet::rewrite_macs(frame.bytes_mut(), mac, hop.mac);
                self.send(hop.device, frame);
            }
            Resolution::Pending => {
                if self.waiting.hold(hop, frame, self.now_ns).is_err() {
                    self.counters.drop_packet(DropReason::NeighborQueueFull);
                }
            }
            Resolution::Failed => self.counters.drop_packet(DropReason::NeighborUnreachable),
        }
    }

    #[inline]
    fn resolve(&self, to: Awaited) -> Resolution {
        match to {
            Awaited::Neighbor(neighbor) => self.snapshot.cells.mac(neighbor),
            Awaited::Stranger(link, address) => match self.snapshot.neighbors.get(&(link, address)) {
                Some(neighbor) => self.snapshot.cells.mac(*neighbor),
                None => Resolution::Pending,
            },
        }
    }

    /// Tells the control core of a station whose MAC address is wanted.
    pub(crate) fn meet(&self, link: LinkId, address: IpAddr) {
        if self.mailbox.tell(Event::Stranger { link, address }).is_err() {
            self.counters.own.events_lost.add(1);
        }
    }

    /// The next hop towards any address, and the largest IP packet that its link takes; `None`: no route.
    ///
    /// The control core is told of a station that it does not know yet; frames for it wait.
    pub(crate) fn hop_towards(&mut self, address: IpAddr) -> Option<(NextHop, u16)> {
        let (link, hop) = match self.snapshot.route(address) {
            Route::Via(link, neighbor) => (link, self.snapshot.hop(link, neighbor)),
            Route::Stranger(link) => match self.hop_to_kernel(address) {
                // a server's answer to the director's own kernel
                Some(hop) => (link, hop),
                None => {
                    self.meet(link, address);
                    let hop = self.snapshot.hop(link, NeighborId(0));
                    (link, NextHop { to: Awaited::Stranger(link, address), ..hop })
                }
            },
            Route::None => return None,
        };
        Some((hop, self.snapshot.links[usize::from(link.0)].mtu))
    }

    /// Cuts a packet for a link that takes `mtu` bytes and sends the pieces in order.
    #[cold]
    pub(crate) fn send_fragments(&mut self, mut frame: I::Packet, parsed: &Parsed, hop: NextHop, mtu: u16) {
        if !self.io.gather(&mut frame) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.error_id = self.error_id.wrapping_add(1);
        let Some(plan) = Fragments::plan(frame.bytes(), parsed.l3, mtu, self.error_id.into()) else {
            return self.counters.drop_packet(DropReason::MtuExceeded);
        };
        // all or nothing: a datagram without one of its pieces is of no use
        let mut rest = ArrayVec::<I::Packet, { Fragments::MAX }>::new();
        for n in 1..plan.count() {
            let Some(piece) = self.piece(&plan, &frame, n) else {
                return self.counters.drop_packet(DropReason::NoBuffer);
            };
            rest.push(piece);
        }
        if !plan.keep_first(&mut frame) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.counters.own.originated.add(rest.len() as u64);
        self.send_tagged(hop, parsed.vlan, frame);
        for piece in rest {
            self.send_tagged(hop, parsed.vlan, piece);
        }
    }

    /// Fragment `n` in a frame of its own.
    fn piece(&mut self, plan: &Fragments, frame: &I::Packet, n: usize) -> Option<I::Packet> {
        let mut piece = self.io.alloc()?;
        let fits = piece.set_len(plan.frame_len(n)?);
        fits.then_some(())?;
        plan.write(frame.bytes(), n, piece.bytes_mut())?;
        Some(piece)
    }

    /// Gives a frame that has the tag `vlan` the tag of its next hop and sends it there.
    pub(crate) fn send_tagged(&mut self, hop: NextHop, vlan: u16, mut frame: I::Packet) {
        if (vlan != hop.vlan || hop.vlan == 0) && !vlan::set_vlan(&mut frame, hop.vlan) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.send_to(hop, frame);
    }

    /// Sends a complete frame with this turn's burst.
    pub(crate) fn send(&mut self, device: DeviceId, frame: I::Packet) {
        let (at, len) = (usize::from(device.0), frame.frame_len());
        if self.out[at].frames.is_full() {
            self.flush_device(at);
        }
        if self.out[at].push(frame, len).is_err() {
            self.counters.drop_packet(DropReason::TxFull);
        }
    }

    /// [`Worker::send`] of a whole burst of so many bytes. `false`, unchanged: one frame after the other is to be sent.
    #[inline(always)]
    pub(crate) fn send_all(&mut self, device: DeviceId, burst: &mut Burst<I::Packet>, bytes: u64) -> bool {
        let at = usize::from(device.0);
        self.out.get_mut(at).is_some_and(|out| out.take(burst, bytes)) || self.send_rest(at, burst, bytes)
    }

    #[inline(never)]
    fn send_rest(&mut self, at: usize, burst: &mut Burst<I::Packet>, bytes: u64) -> bool {
        if at < self.out.len() {
            self.flush_device(at);
        }
        self.out.get_mut(at).is_some_and(|out| out.take(burst, bytes))
    }

    /// Sends a complete frame before all others of this turn; where there is no room, one of those makes it.
    pub(crate) fn send_first(&mut self, device: DeviceId, frame: I::Packet) {
        let at = usize::from(device.0);
        if self.out[at].frames.is_full() {
            self.flush_device(at);
        }
        if self.out[at].make_room() {
            self.counters.drop_packet(DropReason::TxFull);
        }
        if self.out[at].push_first(frame).is_err() {
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
        let Outgoing { frames: burst, bytes } = &mut self.out[at];
        if burst.is_empty() {
            return;
        }
        let (frames, before) = (burst.len(), *bytes);
        self.io.tx(DeviceId(at as u16), burst);
        *bytes = self::bytes(burst);
        let sent = &self.counters.devices[at];
        sent.tx_packets.add((frames - burst.len()) as u64);
        sent.tx_bytes.add(before - *bytes);
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
        let version = (self.snapshot.cells.version(), self.snapshot.generation);
        let Some(oldest) = self.waiting.frames.first() else { return };
        let patient = self.now_ns.saturating_sub(oldest.since_ns) < PATIENCE_NS;
        if self.waiting.seen == version && patient {
            return;
        }
        self.waiting.seen = version;
        let mut at = 0;
        while at < self.waiting.frames.len() {
            let held = &self.waiting.frames[at];
            if self.resolve(held.hop.to) != Resolution::Pending {
                // in order: frames of one flow must not overtake each other
                let Held { hop, frame, .. } = self.waiting.frames.remove(at);
                self.send_to(hop, frame);
            } else if self.now_ns.saturating_sub(held.since_ns) < PATIENCE_NS {
                at += 1;
            } else {
                self.waiting.frames.remove(at);
                self.counters.drop_packet(DropReason::NeighborUnreachable);
            }
        }
    }
}

fn bytes<P: Packet>(burst: &Burst<P>) -> u64 {
    burst.iter().map(|frame| frame.frame_len() as u64).sum()
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
