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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Buffer {
    start: u16,
    end: u16,
    device: DeviceId,
    bytes: [u8; SIZE],
}

/// Size of a buffer, bytes: headroom, a jumbo frame, and room for what tunnels put around it.
const SIZE: usize = HEADROOM + 9216;

impl Frame {
    /// A frame of these bytes, cut at 9216.
    pub fn new(device: DeviceId, bytes: &[u8]) -> Self {
        let mut frame = Self(Box::new(Buffer { start: 0, end: 0, device, bytes: [0; SIZE] }));
        frame.refill(device, bytes);
        frame
    }

    /// Puts other bytes in, cut at the buffer's end; allocates nothing.
    pub fn refill(&mut self, device: DeviceId, bytes: &[u8]) {
        let len = bytes.len().min(SIZE - HEADROOM);
        self.0.bytes[HEADROOM..HEADROOM + len].copy_from_slice(&bytes[..len]);
        (self.0.start, self.0.end, self.0.device) = (HEADROOM as u16, (HEADROOM + len) as u16, device);
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn prefetch(&self) {
        crate::prefetch::line(&self.0.bytes[HEADROOM]);
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
        let end = usize::from(self.0.start) + len;
        let room = end <= SIZE;
        self.0.end = if room { end as u16 } else { self.0.end };
        room
    }

    #[inline]
    fn device(&self) -> DeviceId {
        self.0.device
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

    fn tx(&mut self, device: DeviceId, from: &mut Burst<Frame>) {
        let taken = from.len().min(self.room);
        self.room -= taken;
        self.sent[usize::from(device.0)].extend(from.drain(..taken));
    }

    fn alloc(&mut self) -> Option<Frame> {
        self.pool = self.pool.checked_sub(1)?;
        Some(Frame::new(DeviceId(0), &[]))
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
