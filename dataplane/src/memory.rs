//! Ports in memory: [`PacketIo`] without DPDK, for tests, fuzzing and benchmarks.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};

/// Room in front of a new frame, bytes; as much as DPDK's default headroom.
const HEADROOM: usize = 128;

/// A frame in a buffer of its own; one pointer wide, as an mbuf is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Box<Buffer>);

/// What an mbuf's lines are: those of the header, and from the headroom's end on those of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
struct Buffer {
    start: u16,
    end: u16,
    /// Bytes behind `end` that are the frame's as well, as if in further buffers.
    rest: u16,
    device: DeviceId,
    bytes: Space,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(64))]
struct Space([u8; SIZE]);

/// Size of a buffer, bytes: headroom, a jumbo frame, and room for what tunnels put around it.
const SIZE: usize = HEADROOM + 9216;

impl Frame {
    /// A frame of these bytes, cut at 9216.
    pub fn new(device: DeviceId, bytes: &[u8]) -> Self {
        let mut frame = Self(Box::new(Buffer { start: 0, end: 0, rest: 0, device, bytes: Space([0; SIZE]) }));
        frame.refill(device, bytes);
        frame
    }

    /// Puts other bytes in, cut at the buffer's end; allocates nothing.
    pub fn refill(&mut self, device: DeviceId, bytes: &[u8]) {
        let len = bytes.len().min(SIZE - HEADROOM);
        self.0.bytes.0[HEADROOM..HEADROOM + len].copy_from_slice(&bytes[..len]);
        (self.0.start, self.0.end, self.0.device) = (HEADROOM as u16, (HEADROOM + len) as u16, device);
        self.0.rest = 0;
    }

    /// The same frame as a device delivers it that has buffers of `first` bytes: what is behind that is in others.
    pub fn split(mut self, first: usize) -> Self {
        let len = self.frame_len();
        let first = first.min(len);
        (self.0.end, self.0.rest) = (self.0.start + first as u16, (len - first) as u16);
        self
    }

    /// All bytes of the frame, those in further buffers too.
    pub fn whole(&self) -> &[u8] {
        &self.0.bytes.0[usize::from(self.0.start)..usize::from(self.0.end + self.0.rest)]
    }

    fn join(&mut self) {
        (self.0.end, self.0.rest) = (self.0.end + self.0.rest, 0);
    }
}

impl Frame {
    /// [`Packet::set_len`] where further buffers hold a part.
    #[cold]
    fn cut(&mut self, len: usize) -> bool {
        let first = self.bytes().len();
        if len > self.frame_len() {
            return false;
        }
        self.0.rest = len.saturating_sub(first) as u16;
        self.0.end = self.0.start + len.min(first) as u16;
        true
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.0.bytes.0[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes.0[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn prefetch_head(&self) {
        crate::prefetch::line(&*self.0);
    }

    #[inline(always)]
    fn prefetch(&self) {
        crate::prefetch::line(&self.0.bytes.0[HEADROOM]);
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let room = usize::from(self.0.start) >= n;
        self.0.start -= if room { n as u16 } else { 0 };
        room
    }

    fn shrink_front(&mut self, n: usize) -> bool {
        let long = usize::from(self.0.end - self.0.start) >= n;
        self.0.start += if long { n as u16 } else { 0 };
        long
    }

    fn set_len(&mut self, len: usize) -> bool {
        if !self.is_whole() {
            return self.cut(len);
        }
        let end = usize::from(self.0.start) + len;
        let room = end <= SIZE;
        self.0.end = if room { end as u16 } else { self.0.end };
        room
    }

    #[inline]
    fn frame_len(&self) -> usize {
        usize::from(self.0.end - self.0.start + self.0.rest)
    }

    #[inline]
    fn is_whole(&self) -> bool {
        self.0.rest == 0
    }

    #[inline]
    fn device(&self) -> DeviceId {
        self.0.device
    }

    fn set_device(&mut self, device: DeviceId) {
        self.0.device = device;
    }
}

/// One worker's ports in memory: frames put into [`MemoryIo::receive`] are received, what is sent is in
/// [`MemoryIo::sent`].
#[derive(Debug)]
pub struct MemoryIo {
    /// Frames to be received, by device.
    pub receive: Vec<VecDeque<Frame>>,
    /// Frames that were sent, by device.
    pub sent: Vec<Vec<Frame>>,
    /// Frames that a device still takes; for tests of a full transmit queue.
    pub room: usize,
    /// Buffers to allocate from.
    pub pool: usize,
    /// Devices tell how many frames wait.
    pub tells_backlog: bool,
    /// What its clock shows, ns.
    pub clock_ns: u64,
    own: WorkerId,
    rings: Vec<Arc<ArrayQueue<Frame>>>,
}

impl MemoryIo {
    /// The ports of `workers` workers with `devices` devices and rings of 1024 frames between them.
    pub fn for_workers(devices: usize, workers: u16) -> Vec<Self> {
        let rings: Vec<_> = (0..workers).map(|_| Arc::new(ArrayQueue::new(1024))).collect();
        let io = |own| Self {
            receive: (0..devices).map(|_| VecDeque::new()).collect(),
            sent: (0..devices).map(|_| Vec::new()).collect(),
            room: usize::MAX,
            pool: usize::MAX,
            tells_backlog: false,
            clock_ns: 0,
            own: WorkerId(own),
            rings: rings.clone(),
        };
        (0..workers).map(io).collect()
    }
}

impl PacketIo for MemoryIo {
    type Packet = Frame;

    fn rx(&mut self, device: DeviceId, into: &mut Burst<Frame>) {
        while !into.is_full()
            && let Some(frame) = self.receive[usize::from(device.0)].pop_front()
        {
            into.push(frame);
        }
    }

    fn backlog(&self, device: DeviceId) -> usize {
        if self.tells_backlog { self.receive[usize::from(device.0)].len() } else { 0 }
    }

    fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    fn tx(&mut self, device: DeviceId, from: &mut Burst<Frame>) {
        let taken = from.len().min(self.room);
        self.room -= taken;
        self.sent[usize::from(device.0)].extend(from.drain(..taken));
    }

    fn alloc(&mut self) -> Option<Frame> {
        self.pool = self.pool.checked_sub(1)?;
        Some(Frame::new(DeviceId(0), &[]))
    }

    fn gather(&mut self, frame: &mut Frame) -> bool {
        if frame.is_whole() {
            return true;
        }
        let Some(left) = self.pool.checked_sub(1) else { return false };
        self.pool = left;
        frame.join();
        true
    }

    fn hand_over(&mut self, to: WorkerId, from: &mut Burst<Frame>) {
        while let Some(frame) = from.pop_at(0) {
            if let Err(frame) = self.rings[usize::from(to.0)].push(frame) {
                from.insert(0, frame);
                return;
            }
        }
    }

    fn take_over(&mut self, into: &mut Burst<Frame>) {
        while !into.is_full()
            && let Some(frame) = self.rings[usize::from(self.own.0)].pop()
        {
            into.push(frame);
        }
    }
}
