//! Rings of packets between workers: one receiver, one or more senders.

use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{SLUICE_RING_SC, SLUICE_RING_SP, rte_ring};
use lb_dataplane::io::{BURST, Burst};

use crate::eal::EalHandle;
use crate::errno::Errno;
use crate::mbuf::Mbuf;
use crate::queue::{give_up, spare, take_spare};

/// Packets that a ring holds and one: a rx queue's worth of descriptors, so that one burst of a device fits whole.
pub(crate) const SLOTS: u32 = 1024;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[error("no ring of {slots} packets between workers: {errno}; appliance.memory_mib = {memory_mib}")]
pub struct RingError {
    slots: u32,
    memory_mib: u32,
    errno: Errno,
}

struct Ring {
    raw: NonNull<rte_ring>,
    _eal: EalHandle,
}

// SAFETY: DPDK's rings are made for several threads; `Sender` and `Receiver` keep to the number that this one was
// made for. No safe form: a raw pointer is in it.
unsafe impl Send for Ring {}
// SAFETY: as for Send.
unsafe impl Sync for Ring {}

/// The end that puts packets in. Not `Clone`: the ring was made for the number of senders there are.
pub(crate) struct Sender(Arc<Ring>);

/// The end that takes packets out.
pub(crate) struct Receiver(Arc<Ring>);

/// Makes a ring with `senders` senders (at least 1).
///
/// Errors: no memory.
pub(crate) fn ring(eal: &EalHandle, senders: usize) -> Result<(Vec<Sender>, Receiver), RingError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = CString::new(format!("sluice_ring_{number}")).unwrap_or_default();
    let single = if senders <= 1 { SLUICE_RING_SP } else { 0 };
    // SAFETY: the EAL is started; the name is copied. -1: on any NUMA node. No safe form: an FFI call.
    let raw = unsafe { dpdk_sys::rte_ring_create(name.as_ptr(), SLOTS, -1, single | SLUICE_RING_SC) };
    let Some(raw) = NonNull::new(raw) else {
        return Err(RingError { slots: SLOTS, memory_mib: eal.memory_mib(), errno: Errno::last() });
    };
    let ring = Arc::new(Ring { raw, _eal: eal.clone() });
    Ok(((0..senders).map(|_| Sender(ring.clone())).collect(), Receiver(ring)))
}

impl Sender {
    /// Puts packets from the front of `from` in and removes them there; what did not fit stays.
    #[inline]
    pub(crate) fn send(&mut self, from: &mut Burst<Mbuf>) {
        let packets = from.as_ptr().cast::<*mut c_void>();
        // SAFETY: an Mbuf is one pointer wide, `from` holds `len` of them. `&mut self` makes us the only user of this
        // sender. No safe form: an FFI call.
        let n = unsafe { dpdk_sys::sluice_ring_enqueue(self.0.raw.as_ptr(), packets, from.len() as u32) };
        // SAFETY: the ring owns the first `n` now. No safe form: see `give_up`.
        unsafe { give_up(from, n as usize) };
    }
}

impl Receiver {
    /// Fills the free tail of `into`.
    #[inline]
    pub(crate) fn receive(&mut self, into: &mut Burst<Mbuf>) {
        let (tail, room) = spare(into);
        // SAFETY: `tail` has room for `room` pointers; `&mut self` makes us the only receiver. No safe form: an FFI
        // call.
        let n = unsafe { dpdk_sys::sluice_ring_dequeue(self.0.raw.as_ptr(), tail.cast(), room.into()) };
        // SAFETY: the ring wrote `n` buffers that it owned to the tail. No safe form: filled by C.
        unsafe { take_spare(into, n as usize) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut raw = [std::ptr::null_mut::<c_void>(); BURST];
        loop {
            // SAFETY: both ends are gone, so this is the only user; `raw` has BURST places. No safe form: an FFI call.
            let n =
                unsafe { dpdk_sys::sluice_ring_dequeue(self.raw.as_ptr(), raw.as_mut_ptr(), BURST as u32) };
            for packet in raw[..n as usize].iter().filter_map(|p| NonNull::new(p.cast())) {
                // SAFETY: the ring owned it. No safe form: a raw pointer.
                drop(unsafe { Mbuf::from_raw(packet) });
            }
            if n == 0 {
                break;
            }
        }
        // SAFETY: as above, and it is empty. No safe form: an FFI call.
        unsafe { dpdk_sys::rte_ring_free(self.raw.as_ptr()) };
    }
}
