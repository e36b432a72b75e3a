//! Receive and transmit queues of a port. Each exists once and has one owner, which is what DPDK demands of them.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;

use dpdk_sys::rte_mbuf;
use lb_dataplane::io::{Burst, Packet};

use crate::backlog::Backlog;
use crate::mbuf::Mbuf;
use crate::port::Port;

/// A receive queue.
pub(crate) struct RxQueue {
    port: Arc<Port>,
    queue: u16,
    /// Where frames that wait can be seen; the port keeps it mapped.
    backlog: Backlog,
    /// Not `Sync`: one thread at a time.
    _owned: PhantomData<Cell<()>>,
}

/// A transmit queue.
pub(crate) struct TxQueue {
    port: Arc<Port>,
    queue: u16,
    /// Whether the driver sends packets of several segments; else their bytes are brought into the first.
    takes_chains: bool,
    _owned: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// # Safety
    /// `queue` is a receive queue of the started `port`, `backlog` is of it, and no other `RxQueue` was made for it.
    pub(crate) unsafe fn new(port: Arc<Port>, queue: u16, backlog: Backlog) -> Self {
        Self { port, queue, backlog, _owned: PhantomData }
    }

    /// Fills the free tail of `into`.
    ///
    /// A tag that the driver took out of a frame is put back. Frames longer than the MTU allows, and such that the tag
    /// has no room in, are dropped and counted with the port.
    #[inline]
    pub(crate) fn receive(&mut self, into: &mut Burst<Mbuf>) {
        let first = into.len();
        let (tail, room) = spare(into);
        // SAFETY: `tail` has room for `room` pointers; the queue is ours alone and its port started. No safe form: an
        // FFI call.
        let n = unsafe { dpdk_sys::sluice_rx_burst(self.port.id(), self.queue, tail, room) };
        // SAFETY: the driver wrote `n` buffers to the tail and gave them up. No safe form: filled by C.
        unsafe { take_spare(into, usize::from(n)) };
        let mut odd = 0;
        for packet in &mut into[first..] {
            packet.mark_device(self.port.device());
            odd += usize::from(!packet.is_whole() || packet.is_tag_stripped());
        }
        if odd != 0 {
            self.mend(into);
        }
    }

    /// Frames that wait, about; 0 also where nobody can tell.
    pub(crate) fn waiting(&self) -> usize {
        if let Some(waiting) = self.backlog.waiting() {
            return waiting;
        }
        // SAFETY: the queue is ours alone and its port started. No safe form: an FFI call.
        let waiting = unsafe { dpdk_sys::sluice_rx_waiting(self.port.id(), self.queue) };
        usize::try_from(waiting).unwrap_or(0)
    }

    /// What few drivers make necessary. Looks at all of `into`: frames from earlier calls are as they should be. A frame
    /// in one segment is not measured: buffers suit the MTU, and the driver may take what fits them.
    #[cold]
    fn mend(&self, into: &mut Burst<Mbuf>) {
        let before = into.len();
        let limit = self.port.longest_frame();
        into.retain(|packet| {
            (packet.is_whole() || packet.frame_len() <= limit)
                && (!packet.is_tag_stripped() || packet.restore_tag())
        });
        self.port.count_too_long(before - into.len());
    }
}

impl TxQueue {
    /// # Safety
    /// `queue` is a transmit queue of the started `port`, and no other `TxQueue` was made for it.
    pub(crate) unsafe fn new(port: Arc<Port>, queue: u16, takes_chains: bool) -> Self {
        Self { port, queue, takes_chains, _owned: PhantomData }
    }

    /// Sends from the front of `from` and removes what the driver took.
    #[inline]
    pub(crate) fn send(&mut self, from: &mut Burst<Mbuf>) {
        if from.is_empty() {
            return;
        }
        if !self.takes_chains && from.iter().any(|packet| !packet.is_whole()) {
            self.linearize(from);
        }
        let packets = from.as_mut_ptr().cast::<*mut rte_mbuf>();
        // SAFETY: an Mbuf is one pointer wide, `from` holds `len` of them; the queue is ours alone. No safe form: an
        // FFI call.
        let n = unsafe { dpdk_sys::sluice_tx_burst(self.port.id(), self.queue, packets, from.len() as u16) };
        // SAFETY: the driver owns the first `n` now. No safe form: see `give_up`.
        unsafe { give_up(from, usize::from(n)) };
    }

    /// For a driver that would send the first segment alone. What has no room in it, which is longer than this device's
    /// MTU, is dropped and counted.
    #[cold]
    fn linearize(&self, from: &mut Burst<Mbuf>) {
        let before = from.len();
        from.retain(|packet| packet.is_whole() || packet.linearize());
        self.port.count_not_sent(before - from.len());
    }
}

/// The free tail of `burst`, for C to write buffers to, and how many fit.
#[inline]
pub(crate) fn spare(burst: &mut Burst<Mbuf>) -> (*mut *mut rte_mbuf, u16) {
    let len = burst.len();
    // SAFETY: `len` is within the array. No safe form: ArrayVec shows its free tail only through pointers.
    let tail = unsafe { burst.as_mut_ptr().add(len) };
    (tail.cast(), burst.remaining_capacity() as u16)
}

/// Frees all packets of `burst` but the first `keep`, those of one pool together.
#[inline]
pub(crate) fn free_behind(burst: &mut Burst<Mbuf>, keep: usize) {
    let Some(gone @ 1..) = burst.len().checked_sub(keep) else { return };
    // SAFETY: `keep` is within the array, an Mbuf is one pointer wide, and `gone` of them stand there, whose only owner
    // we are. No safe form: an FFI call.
    unsafe { dpdk_sys::sluice_mbuf_free_bulk(burst.as_mut_ptr().add(keep).cast(), gone as u32) };
    // SAFETY: those behind are no longer ours. No safe form: any other would free them again.
    unsafe { burst.set_len(keep) };
}

/// Removes the first `n` packets of `burst`, which somebody else owns now.
///
/// # Safety
/// C has taken them, and they are no more than there are.
#[inline]
pub(crate) unsafe fn give_up(burst: &mut Burst<Mbuf>, n: usize) {
    if n == burst.len() {
        // SAFETY: none is left that is ours. No safe form: any other would free them.
        unsafe { burst.set_len(0) };
    } else {
        burst.drain(..n).for_each(mem::forget);
    }
}

/// Makes the first `n` of the tail that [`spare`] gave part of `burst`.
///
/// # Safety
/// They were written with buffers that are the caller's to give.
#[inline]
pub(crate) unsafe fn take_spare(burst: &mut Burst<Mbuf>, n: usize) {
    let len = burst.len() + n;
    // SAFETY: the caller wrote them, and `spare` told how many fit. No safe form: see `spare`.
    unsafe { burst.set_len(len) };
}
