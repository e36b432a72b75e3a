//! Counters that one worker writes and the control core reads.
//!
//! Invariant: every cell has exactly one writer, so an increment is a plain load, add and store: no locked
//! instruction, no line shared between writers. Readers may see a value that is one packet old.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::drop_reason::DropReason;
use crate::ids::DestId;

/// A monotonic count. Worker: wo, control: ro.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the value. Only the owning worker may call it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// A level that goes up and down, such as the number of connections. Worker: wo, control and other workers: ro.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// Adds one. Only the owning worker may call it.
    #[inline]
    pub fn up(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Takes one off. Only the owning worker may call it.
    #[inline]
    pub fn down(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The value, from any thread.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts for one destination; one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct DestCounters {
    /// Connections in an active state (IPVS: `activeconns`).
    pub active: Gauge,
    /// All tracked connections (IPVS: `activeconns + inactconns`).
    pub total: Gauge,
    /// Connections scheduled.
    pub conns: Counter,
    /// Packets from clients.
    pub in_packets: Counter,
    /// Bytes of these, IP header included (IPVS counts the same).
    pub in_bytes: Counter,
    /// Packets from the server to clients; none where replies go past the director.
    pub out_packets: Counter,
    /// Bytes of these, IP header included.
    pub out_bytes: Counter,
}

const _: () = assert!(size_of::<DestCounters>() == 64);

/// Frames and bytes of one device as one worker saw them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct DeviceCounters {
    /// Frames received.
    pub rx_packets: Counter,
    /// Bytes of these, Ethernet header included, FCS not.
    pub rx_bytes: Counter,
    /// Frames sent.
    pub tx_packets: Counter,
    /// Bytes of these.
    pub tx_bytes: Counter,
}

/// Everything that one worker counts.
///
/// Packets are conserved: `rx + originated = tx + delivered + drops + held + in rings between workers`, where rx
/// and tx are sums over devices and all terms are sums over workers.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Per device.
    pub devices: Box<[DeviceCounters]>,
    /// Per destination, indexed by `DestId`.
    pub dests: Box<[DestCounters]>,
    /// Per [`DropReason`].
    pub drops: Box<[Counter; DropReason::COUNT]>,
    /// The rest.
    pub own: CachePadded<OwnCounters>,
}

/// Counters of a worker that belong to no device and no destination.
#[derive(Debug, Default)]
pub struct OwnCounters {
    /// Frames that the director itself made; also those that carry a datagram in fragments through a tunnel.
    pub originated: Counter,
    /// Frames that were for the director itself and ended there (an ARP reply, say); also the fragments of a datagram
    /// that goes on through a tunnel in other frames.
    pub delivered: Counter,
    /// Frames waiting now: for a neighbour, a device, or the rest of their datagram.
    pub held: Counter,
    /// Frames given to the worker that owns their connection.
    pub handed_over: Counter,
    /// Frames taken from other workers.
    pub taken_over: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Turns that found at least one packet.
    pub busy_turns: Counter,
    /// Connections in this worker's tables now.
    pub connections: Counter,
    /// Connections inserted.
    pub inserted: Counter,
    /// Connections that ended by their timeout.
    pub expired: Counter,
    /// Generation of the snapshot in use.
    pub generation: Counter,
    /// The worker's clock at its latest turn, ns.
    pub now_ns: Counter,
    /// Messages to the control core that found its queue full.
    pub events_lost: Counter,
}

impl WorkerCounters {
    /// Counters for `devices` devices and destinations 0 to `max_dests - 1`.
    pub fn new(devices: usize, max_dests: usize) -> Self {
        Self {
            devices: (0..devices).map(|_| DeviceCounters::default()).collect(),
            dests: (0..max_dests).map(|_| DestCounters::default()).collect(),
            drops: Box::new(std::array::from_fn(|_| Counter::default())),
            own: CachePadded::default(),
        }
    }

    /// Counts a client's packet of so many bytes to a destination.
    #[inline(always)]
    pub fn inbound(&self, dest: DestId, bytes: u16) {
        let dest = &self.dests[dest.0 as usize];
        dest.in_packets.add(1);
        dest.in_bytes.add(u64::from(bytes));
    }

    /// Counts a packet of so many bytes from a destination's server to a client.
    #[inline]
    pub fn outbound(&self, dest: DestId, bytes: u16) {
        let dest = &self.dests[dest.0 as usize];
        dest.out_packets.add(1);
        dest.out_bytes.add(u64::from(bytes));
    }

    /// Starts to fetch what is counted for a destination.
    #[inline(always)]
    pub fn prefetch_dest(&self, dest: DestId) {
        if let Some(counters) = self.dests.get(dest.0 as usize) {
            crate::prefetch::line(counters);
        }
    }

    /// Counts one packet as dropped.
    #[inline]
    pub fn drop_packet(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_and_a_gauge_goes_up_and_down() {
        let counters = WorkerCounters::new(1, 2);
        counters.dests[1].conns.add(3);
        counters.dests[1].active.up();
        counters.dests[1].active.up();
        counters.dests[1].active.down();
        counters.drop_packet(DropReason::NoServer);
        assert_eq!(counters.dests[1].conns.get(), 3);
        assert_eq!(counters.dests[1].active.get(), 1);
        assert_eq!(counters.dests[0].conns.get(), 0);
        assert_eq!(counters.drops[DropReason::NoServer as usize].get(), 1);
    }
}
