//! Taking in: bursts from devices and workers, and which way a packet goes that the express path leaves.

use crate::conn::{ConnKey, Key4, Key6, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, DeviceId, Packet, PacketIo};
use crate::owner::HELD_UP_NS;
use crate::parse::{Flow, Net, Parsed};
use crate::wire::ethernet;
use crate::worker::Worker;

/// Where a burst comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A device's queue; flows in it may be other workers'.
    Device,
    /// A device's queue that holds this worker's own flows.
    Steered,
    /// Another worker, which has found out that this one is the owner.
    Worker,
}

/// The key of a client's packet.
#[inline]
fn key<K: ConnKey>(flow: &Flow<K::Address>) -> K {
    K::new(flow.src, flow.src_port, flow.dst, flow.dst_port)
}

/// Looks for VRRP's thread at most, whatever the port's clock says.
const WAITS: u32 = 100_000;

impl<I: PacketIo> Worker<I> {
    /// One burst from this worker's queue of `device`. Returns its size.
    pub(crate) fn receive_from(&mut self, device: DeviceId) -> usize {
        let mut burst = Burst::new();
        self.io.rx(device, &mut burst);
        if burst.is_empty() {
            return 0;
        }
        if burst.is_full() {
            self.flood.shedding.saw(self.io.backlog(device));
        }
        if self.snapshot.shared.is_used() {
            self.look_at_clock();
        }
        let received = &self.counters.devices[usize::from(device.0)];
        received.rx_packets.add(burst.len() as u64);
        let rss = self.setup.devices[usize::from(device.0)].rss;
        let hears = self.teller.feeds.as_ref().is_some_and(|feeds| feeds.hears);
        let steered = self.setup.workers == 1 || rss && !self.snapshot.has_replies() && !hears;
        self.process(&mut burst, if steered { Origin::Steered } else { Origin::Device })
    }

    /// Frames came after the turn's time was read. A process that was stopped in between finds here that it was, before
    /// it answers for addresses that another director may have by now.
    #[inline]
    fn look_at_clock(&mut self) {
        let now_ns = self.io.clock_ns();
        let before = std::mem::replace(&mut self.looked_ns, now_ns);
        if before != 0 && now_ns.saturating_sub(before) > HELD_UP_NS {
            self.wait_for_owners();
        }
    }

    /// Waits until VRRP's thread has looked at its clock too, a millisecond if it is there: the frames are out of the
    /// port's queue and cannot stay where they are.
    #[cold]
    fn wait_for_owners(&mut self) {
        let shared = &self.snapshot.shared;
        shared.doubt();
        let begun = self.looked_ns;
        for _ in 0..WAITS {
            if !shared.is_doubtful() || self.io.clock_ns().saturating_sub(begun) > HELD_UP_NS {
                break;
            }
            std::thread::yield_now();
        }
        self.absent = shared.any_absent();
    }

    /// Bursts from the other workers, as many as they may have brought in from the devices in a turn like this one.
    /// Returns their size.
    pub(crate) fn receive_handed_over(&mut self) -> usize {
        if self.setup.workers == 1 {
            return 0;
        }
        let mut packets = 0;
        // by a burst a turn a busy worker would lose on the rings what others have looked at already, in place of
        // leaving new frames to the devices' queues
        for _ in 0..=self.setup.devices.len() {
            let mut burst = Burst::new();
            self.io.take_over(&mut burst);
            let taken = burst.len();
            self.counters.own.taken_over.add(taken as u64);
            packets += self.process(&mut burst, Origin::Worker);
            if taken < BURST {
                break;
            }
        }
        packets
    }

    #[inline]
    pub(crate) fn fetch_ahead(&self, parsed: &Result<Parsed, DropReason>) -> Probe {
        match parsed {
            Ok(Parsed { net: Net::Flow4(flow), .. }) => {
                let probe = self.tables.v4.probe(&key::<Key4>(flow), flow.protocol as u8);
                self.tables.v4.prefetch(probe);
                probe
            }
            Ok(Parsed { net: Net::Flow6(flow), .. }) => {
                let probe = self.tables.v6.probe(&key::<Key6>(flow), flow.protocol as u8);
                self.tables.v6.prefetch(probe);
                probe
            }
            _ => Probe::default(),
        }
    }

    /// By now the first lines of the burst are here: those that point elsewhere fetch their second line.
    #[inline]
    pub(crate) fn fetch_key(&self, parsed: &Result<Parsed, DropReason>, probe: Probe) {
        match parsed {
            Ok(Parsed { net: Net::Flow4(flow), .. }) => {
                self.tables.v4.prefetch_key(&key::<Key4>(flow), flow.protocol as u8, probe);
            }
            Ok(Parsed { net: Net::Flow6(flow), .. }) => {
                self.tables.v6.prefetch_key(&key::<Key6>(flow), flow.protocol as u8, probe);
            }
            _ => {}
        }
    }

    #[inline(never)]
    pub(crate) fn dispatch(&mut self, frame: I::Packet, parsed: &Parsed, probe: Probe, origin: Origin) {
        let device = frame.device();
        let to_us = frame.bytes().starts_with(&self.setup.devices[usize::from(device.0)].mac)
            || self.snapshot.shared.takes(device, frame.bytes());
        let to_group = frame.bytes().first().is_some_and(|first| first & 1 != 0);
        if !to_us && !to_group {
            return self.counters.drop_packet(DropReason::NotOurMac);
        }
        // a VLAN without a port is another network: nothing of it passes, flows to a VIP included
        let Some(link) = self.snapshot.link(device, parsed.vlan) else {
            return self.counters.drop_packet(DropReason::VlanUnknown);
        };
        if self.absent && parsed.net.destination().is_some_and(|dst| self.snapshot.shared.is_absent(dst)) {
            return self.counters.drop_packet(DropReason::NotMaster);
        }
        let steered = origin != Origin::Device;
        match &parsed.net {
            // RFC 1812 section 5.3.4: a unicast packet does not come in a broadcast frame
            Net::Flow4(flow) if to_us => self.flow::<Key4>(frame, parsed, flow, probe, steered),
            Net::Flow6(flow) if to_us => self.flow::<Key6>(frame, parsed, flow, probe, steered),
            Net::Fragment4(part) => self.fragment::<Key4>(frame, part, origin == Origin::Worker),
            Net::Fragment6(part) => self.fragment::<Key6>(frame, part, origin == Origin::Worker),
            _ => self.local(frame, parsed, link, steered),
        }
    }

    /// MAC address that a frame came from.
    pub(crate) fn source(frame: &I::Packet) -> [u8; 6] {
        ethernet::source(frame.bytes()).unwrap_or_default()
    }
}
