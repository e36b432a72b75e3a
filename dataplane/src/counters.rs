//! Counters that one worker writes and the control core reads.
//!
//! Invariant: every cell has exactly one writer, so an increment is a plain load, add and store: no locked
//! instruction, no line shared between writers. Readers may see a value that is one packet old.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use zerocopy::FromZeros;

use crate::drop_reason::DropReason;
use crate::express::{NextStamp, Shortcut};
use crate::ids::DestId;

/// A monotonic count. Worker: wo, control: ro.
#[derive(Debug, Default, FromZeros)]
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
#[derive(Debug, Default, FromZeros)]
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
#[derive(Debug, Default, FromZeros)]
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
    /// No count: what the worker keeps beside them, so that a packet reads one line of its destination's.
    pub(crate) shortcut: Shortcut,
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
/// Packets are conserved: `rx + originated + from_kernel = tx + delivered + to_kernel + drops + held + in rings between
/// workers`, where rx and tx are sums over devices and all terms are sums over workers.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Per device.
    pub devices: Box<[DeviceCounters]>,
    /// Per destination, indexed by `DestId`.
    pub dests: Box<[DestCounters]>,
    /// Per [`DropReason`].
    pub drops: Box<CachePadded<[Counter; DropReason::COUNT]>>,
    /// The rest.
    pub own: CachePadded<OwnCounters>,
    /// Of the destinations' shortcuts.
    pub(crate) next_stamp: CachePadded<NextStamp>,
}

/// Counters of a worker that belong to no device and no destination.
#[derive(Debug, Default)]
pub struct OwnCounters {
    /// Frames that the director itself made; also those that carry a datagram in fragments through a tunnel.
    pub originated: Counter,
    /// Frames that were for the director itself and ended there (an ARP reply, say); also the fragments of a datagram
    /// that goes on through a tunnel in other frames.
    pub delivered: Counter,
    /// Frames that were given to the kernel.
    pub to_kernel: Counter,
    /// Frames that the kernel sent.
    pub from_kernel: Counter,
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
    /// Connections whose handshake is under way.
    pub embryonic: Gauge,
    /// 1 while SYNs are a flood, see [`crate::flood`].
    pub flood: Counter,
    /// Connections that made room for others, by [`Class`](crate::flood::evict::Class).
    pub evicted: [Counter; 4],
    /// SYNs that went on without an entry because they are a flood.
    pub unconfirmed: Counter,
    /// Packets that went on without an entry because the table is full, or the connection has none.
    pub stateless: Counter,
    /// SYNs that were answered with a cookie.
    pub cookies_sent: Counter,
    /// Connections begun by a cookie that came back.
    pub cookies_accepted: Counter,
    /// ACKs without a connection whose number is no cookie, or too old.
    pub cookies_refused: Counter,
    /// SYNs to servers that were said again for clients that had proved themselves.
    pub calls_repeated: Counter,
    /// Clients that were given a reset because their server did not answer.
    pub calls_given_up: Counter,
}

impl WorkerCounters {
    /// Counters for `devices` devices and destinations 0 to `max_dests - 1`.
    ///
    /// Memory: 64 bytes for each destination, which the system gives when it is first used.
    pub fn new(devices: usize, max_dests: usize) -> Self {
        Self {
            devices: (0..devices).map(|_| DeviceCounters::default()).collect(),
            dests: zeroed(max_dests),
            drops: Box::new(CachePadded::new(std::array::from_fn(|_| Counter::default()))),
            own: CachePadded::default(),
            next_stamp: CachePadded::default(),
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
        crate::prefetch::place(&self.dests, dest.0 as usize);
    }

    /// Counts one packet as dropped.
    #[inline]
    pub fn drop_packet(&self, reason: DropReason) {
        self.drop_packets(reason, 1);
    }

    /// Counts so many dropped packets.
    #[inline]
    pub fn drop_packets(&self, reason: DropReason, n: u32) {
        self.drops[reason as usize].add(n.into());
    }
}

/// So many values of zero bytes. The memory is asked of the system as such, and not touched.
pub(crate) fn zeroed<T: FromZeros>(len: usize) -> Box<[T]> {
    // too long for an address space, as nothing that is configured is, is no memory at all
    <[T]>::new_box_zeroed_with_elems(len).unwrap_or_else(|_| Box::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cache lines of what a worker writes while packets pass.
    fn lines(counters: &WorkerCounters) -> Vec<usize> {
        fn of<T: ?Sized>(part: &T) -> std::ops::RangeInclusive<usize> {
            let first = std::ptr::from_ref(part).cast::<u8>() as usize;
            first / 64..=(first + size_of_val(part) - 1) / 64
        }
        let WorkerCounters { devices, dests, drops, own, next_stamp } = counters;
        let lists = of(&devices[..]).chain(of(&dests[..])).chain(of(&**drops));
        lists.chain(of(own)).chain(of(next_stamp)).collect()
    }

    #[test]
    fn no_cache_line_is_written_by_two_workers() {
        let all: Vec<_> = (0..16).map(|_| WorkerCounters::new(3, 5)).collect();
        let mut lines: Vec<usize> = all.iter().flat_map(lines).collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count);
    }

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
