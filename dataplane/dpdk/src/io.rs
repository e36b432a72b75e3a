//! One worker's queues and rings: what its packet path receives from and sends to.
//!
//! Where a device has fewer transmit queues than there are workers, a worker without one puts its frames on a ring
//! to the queue's owner, which sends them in its own turn, at its next `rx` or `tx` of that device.

use std::fmt;
use std::sync::Arc;

use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};

use crate::clock::Clock;
use crate::mbuf::Mbuf;
use crate::mempool::Pool;
use crate::queue::{RxQueue, TxQueue, free_behind};
use crate::ring::{Receiver, Sender};

/// A worker's way to the wire and to the other workers. `Send`: made on the main thread, used on the worker's.
///
/// A device or worker that does not exist gives nothing and takes nothing.
///
/// Received frames in several buffers and longer than the MTU allows are dropped and counted in [`crate::DeviceStats::rx_too_long`]; 802.1Q tags
/// that a driver took out of a frame are back in it.
pub struct WorkerIo {
    devices: Box<[Queues]>,
    /// By receiving worker; `None` at our own index.
    to_workers: Box<[Option<Sender>]>,
    from_workers: Box<[Receiver]>,
    /// Which of `from_workers` is asked first, so that a busy one does not starve the others.
    next_from: usize,
    pool: Arc<Pool>,
    /// Buffers for whole frames, where those of `pool` are not.
    large: Option<Arc<Pool>>,
    clock: Clock,
}

/// A worker's queues of one device.
pub(crate) struct Queues {
    /// None where other workers receive, several where an interface has more queues than there are workers.
    pub(crate) rx: Vec<RxQueue>,
    /// Which of `rx` is asked first.
    pub(crate) next_rx: usize,
    pub(crate) tx: Tx,
}

/// Where a worker's frames for one device go.
pub(crate) enum Tx {
    /// To its own queue, which may have guests.
    Own { queue: TxQueue, guests: Option<Box<Guests>> },
    /// By a ring to the worker that owns the queue.
    Guest(Sender),
}

/// Frames of the workers that share a transmit queue.
pub(crate) struct Guests {
    ring: Receiver,
    /// Taken from the ring and not yet by the driver.
    waiting: Burst<Mbuf>,
}

impl Guests {
    pub(crate) fn new(ring: Receiver) -> Self {
        Self { ring, waiting: Burst::new() }
    }
}

impl WorkerIo {
    pub(crate) fn new(
        devices: Vec<Queues>,
        (to_workers, from_workers): (Vec<Option<Sender>>, Vec<Receiver>),
        pool: Arc<Pool>,
        large: Option<Arc<Pool>>,
        clock: Clock,
    ) -> Self {
        Self {
            devices: devices.into(),
            to_workers: to_workers.into(),
            from_workers: from_workers.into(),
            next_from: 0,
            pool,
            large,
            clock,
        }
    }

    #[inline]
    fn queues(&mut self, device: DeviceId) -> Option<&mut Queues> {
        self.devices.get_mut(usize::from(device.0))
    }
}

impl fmt::Debug for WorkerIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerIo").field("devices", &self.devices.len()).finish_non_exhaustive()
    }
}

impl Tx {
    /// Sends what guests have put on the ring, as much as the driver takes.
    #[inline]
    fn send_for_guests(&mut self) {
        if let Self::Own { queue, guests: Some(guests) } = self {
            if guests.waiting.is_empty() {
                guests.ring.receive(&mut guests.waiting);
            }
            queue.send(&mut guests.waiting);
        }
    }
}

impl PacketIo for WorkerIo {
    type Packet = Mbuf;

    #[inline]
    fn rx(&mut self, device: DeviceId, into: &mut Burst<Mbuf>) {
        let Some(queues) = self.queues(device) else { return };
        queues.tx.send_for_guests();
        let count = queues.rx.len();
        for turn in 0..count {
            if into.is_full() {
                break;
            }
            queues.rx[(queues.next_rx + turn) % count].receive(into);
        }
        if count > 1 {
            queues.next_rx = (queues.next_rx + 1) % count;
        }
    }

    fn backlog(&self, device: DeviceId) -> usize {
        let queues = self.devices.get(usize::from(device.0));
        queues.map_or(0, |queues| queues.rx.iter().map(RxQueue::waiting).sum())
    }

    #[inline]
    fn clock_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    #[inline]
    fn tx(&mut self, device: DeviceId, from: &mut Burst<Mbuf>) {
        let Some(queues) = self.queues(device) else { return };
        queues.tx.send_for_guests();
        match &mut queues.tx {
            Tx::Own { queue, .. } => queue.send(from),
            Tx::Guest(ring) => ring.send(from),
        }
    }

    #[inline]
    fn discard(&mut self, burst: &mut Burst<Mbuf>, keep: usize) {
        free_behind(burst, keep);
    }

    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    #[cold]
    fn gather(&mut self, frame: &mut Mbuf) -> bool {
        if frame.is_whole() || frame.linearize() {
            return true;
        }
        let Some(mut large) = self.large.as_ref().and_then(|pool| pool.alloc()) else { return false };
        if !large.append(frame) {
            return false;
        }
        large.mark_device(frame.device());
        *frame = large;
        true
    }

    #[inline]
    fn hand_over(&mut self, to: WorkerId, from: &mut Burst<Mbuf>) {
        if let Some(Some(ring)) = self.to_workers.get_mut(usize::from(to.0)) {
            ring.send(from);
        }
    }

    #[inline]
    fn take_over(&mut self, into: &mut Burst<Mbuf>) {
        let count = self.from_workers.len();
        for turn in 0..count {
            if into.is_full() {
                break;
            }
            self.from_workers[(self.next_from + turn) % count].receive(into);
        }
        if count > 1 {
            self.next_from = (self.next_from + 1) % count;
        }
    }
}
