//! Where packets come from and go to: the one seam between the packet path and DPDK.
//!
//! Invariant: a packet is owned by exactly one of a driver, a burst, a ring between workers, or the queue of
//! frames that wait for a neighbour; dropping it frees it.
//!
//! A frame longer than a buffer comes in several ([`Packet::is_whole`]); [`crate::pieces`] says what becomes of it.

use arrayvec::ArrayVec;

/// Largest number of packets that a worker takes from a queue at once.
pub const BURST: usize = 32;

/// Index of a device, in the order in which the configuration first names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u16);

/// Index of a worker, in the order of `appliance.workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Up to [`BURST`] packets, on the stack.
pub type Burst<P> = ArrayVec<P, BURST>;

/// A frame in memory that the packet path may read and rewrite.
pub trait Packet: Sized {
    /// The frame from its Ethernet header on, without FCS; where it is not whole, what its first buffer holds.
    fn bytes(&self) -> &[u8];
    /// The same, to be rewritten in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Starts to fetch what says where the frame is, which another core has had.
    #[inline]
    fn prefetch_head(&self) {}
    /// Starts to fetch the frame's headers.
    #[inline]
    fn prefetch(&self) {
        crate::prefetch::bytes(self.bytes());
    }
    /// Makes the frame `n` bytes longer at its front; the new bytes are unspecified. `false`: no room, unchanged.
    fn grow_front(&mut self, n: usize) -> bool;
    /// Cuts `n` bytes off the front. `false`: shorter than that, unchanged.
    fn shrink_front(&mut self, n: usize) -> bool;
    /// Makes the whole frame `len` bytes long, cutting or extending its end; new bytes are unspecified.
    /// `false`: no room, unchanged. A frame that is not whole can only be cut.
    fn set_len(&mut self, len: usize) -> bool;
    /// Length of the whole frame, bytes.
    #[inline]
    fn frame_len(&self) -> usize {
        self.bytes().len()
    }
    /// Whether [`Packet::bytes`] is all of the frame. Where it is not, the rest is in further buffers, which are sent
    /// with the first.
    #[inline]
    fn is_whole(&self) -> bool {
        true
    }
    /// Device that received it (after [`PacketIo::rx`] and across [`PacketIo::hand_over`]).
    fn device(&self) -> DeviceId;
    /// Makes a frame from [`PacketIo::alloc`] one that `device` received. Frames that know of one device only need not
    /// do anything.
    fn set_device(&mut self, device: DeviceId) {
        let _ = device;
    }
}

/// One worker's queues: its rx/tx queue of every device and its rings to the other workers.
pub trait PacketIo {
    /// The frames of this kind of port.
    type Packet: Packet;

    /// Fills the free tail of `into` from this worker's rx queue of `device`. Nothing comes from a device whose
    /// queues belong to other workers.
    fn rx(&mut self, device: DeviceId, into: &mut Burst<Self::Packet>);

    /// Frames that wait in this worker's rx queue of `device`, as far as the device tells; asked only after a whole
    /// burst. 0: none, or it does not tell.
    fn backlog(&self, device: DeviceId) -> usize {
        let _ = device;
        0
    }

    /// Time on a clock of its own that goes on while the process is stopped, ns; always 0: it has none. Cheap: asked
    /// once or twice a turn.
    fn clock_ns(&self) -> u64 {
        0
    }

    /// Sends from the front of `from` and removes what was taken. What is left did not fit.
    fn tx(&mut self, device: DeviceId, from: &mut Burst<Self::Packet>);

    /// Drops all packets of `burst` but the first `keep`, together where that costs less.
    #[inline]
    fn discard(&mut self, burst: &mut Burst<Self::Packet>, keep: usize) {
        burst.truncate(keep);
    }

    /// A new frame of length 0 with the usual headroom, or `None` when the pool is empty.
    fn alloc(&mut self) -> Option<Self::Packet>;

    /// Brings a frame into one buffer that is large enough. `false`: none is free, unchanged.
    fn gather(&mut self, frame: &mut Self::Packet) -> bool {
        frame.is_whole()
    }

    /// Gives packets to another worker, removing from `from` what its ring took.
    fn hand_over(&mut self, to: WorkerId, from: &mut Burst<Self::Packet>);

    /// Fills the free tail of `into` with what other workers handed over.
    fn take_over(&mut self, into: &mut Burst<Self::Packet>);
}
