//! The pool of packet buffers.
//!
//! Invariant: an [`Mbuf`] does not keep its pool alive (it is one pointer wide), so a pool that goes while buffers
//! are missing from it is not freed: it stays mapped, with all of DPDK's memory, until the process ends. That also
//! covers drivers that keep buffers when they are closed, as AF_XDP's does.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{SLUICE_MBUF_HEADROOM, SLUICE_MBUF_SIZE, rte_mempool};

use crate::eal::EalHandle;
use crate::errno::Errno;
use crate::log::{self, Said};
use crate::mbuf::Mbuf;

/// Bytes in front of a frame. DPDK's default; an IPv6 tunnel header needs 40.
pub(crate) const HEADROOM: usize = SLUICE_MBUF_HEADROOM as usize;

/// DPDK's header of a pool element, rounded to a cache line, bytes.
const ELEMENT_HEADER: usize = (dpdk_sys::SLUICE_MEMPOOL_HEADER_SIZE as usize).next_multiple_of(64);

/// What an element needs beside room for a frame, bytes.
pub(crate) const OVERHEAD: usize = ELEMENT_HEADER + SLUICE_MBUF_SIZE as usize + HEADROOM;

/// Largest room for a frame, bytes: DPDK keeps headroom and room together in 16 bits.
pub(crate) const MAX_ROOM: usize = u16::MAX as usize - HEADROOM;

/// Most buffers that one thread keeps at hand. Source: DPDK's examples; its limit is 512.
const CACHE: u32 = 256;

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not enough memory.
    #[error(
        "limits.mbufs = {mbufs} buffers of {bytes} bytes need {needed_mib} MiB of appliance.memory_mib = \
         {memory_mib}: {errno}{}", Said(.log)
    )]
    Memory {
        /// Buffers asked for.
        mbufs: u32,
        /// Size of one with its overhead, bytes.
        bytes: usize,
        /// Their sum, MiB.
        needed_mib: usize,
        /// As configured, MiB.
        memory_mib: u32,
        /// DPDK's error number.
        errno: Errno,
        /// DPDK's warnings.
        log: String,
    },
}

/// A pool of equal buffers that any thread may take from and free to.
pub(crate) struct Pool {
    raw: NonNull<rte_mempool>,
    size: u32,
    eal: EalHandle,
}

// SAFETY: DPDK's pools may be used from any thread: a thread of the EAL has a cache of its own, others go to the
// common ring. No safe form: a raw pointer is in it.
unsafe impl Send for Pool {}
// SAFETY: as for Send.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool of `mbufs` buffers with `room` bytes each behind the headroom.
    ///
    /// Errors: see [`PoolError`].
    pub(crate) fn new(eal: &EalHandle, mbufs: u32, room: usize) -> Result<Arc<Self>, PoolError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("sluice_mbufs_{number}")).unwrap_or_default();
        let cache = cache_size(mbufs, eal.workers());
        let data_room = u16::try_from(HEADROOM + room).unwrap_or(u16::MAX);
        let (raw, log) = log::capture(|| {
            // SAFETY: the EAL is started; the name is copied. -1: on any NUMA node. No safe form: an FFI call.
            unsafe { dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), mbufs, cache, 0, data_room, -1) }
        });
        let Some(raw) = NonNull::new(raw) else {
            let bytes = OVERHEAD + room.next_multiple_of(64);
            let needed_mib = (bytes * mbufs as usize).div_ceil(1 << 20);
            let memory_mib = eal.memory_mib();
            return Err(PoolError::Memory {
                mbufs,
                bytes,
                needed_mib,
                memory_mib,
                errno: Errno::last(),
                log,
            });
        };
        Ok(Arc::new(Self { raw, size: mbufs, eal: eal.clone() }))
    }

    /// Takes a buffer: a frame of length 0 behind the headroom.
    #[inline]
    pub(crate) fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives. No safe form: an FFI call.
        let raw = unsafe { dpdk_sys::sluice_mbuf_alloc(self.raw.as_ptr()) };
        // SAFETY: a buffer fresh from a pool is single-segment and nobody else's. No safe form: a raw pointer.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Buffers that are free now: exact when no other thread uses the pool, else near it.
    pub(crate) fn free(&self) -> u32 {
        // SAFETY: the pool lives. No safe form: an FFI call.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Buffers in all.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }

    pub(crate) fn eal(&self) -> &EalHandle {
        &self.eal
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let free = self.free();
        if free < self.size {
            tracing::debug!(missing = self.size - free, "buffers are still out: the pool stays mapped");
            self.eal.leave_mapped();
            return;
        }
        // SAFETY: this is the last owner and every buffer is back, so nothing points into the pool. No safe form: an
        // FFI call.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).field("free", &self.free()).finish()
    }
}

/// Buffers that each thread may keep at hand: all threads together at most a quarter of the pool, since a thread
/// keeps up to 1.5 times as many. Source: `rte_mempool_create`, `CACHE_FLUSHTHRESH_MULTIPLIER`.
pub(crate) fn cache_size(mbufs: u32, workers: u16) -> u32 {
    (mbufs / 6 / (u32::from(workers) + 1)).min(CACHE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_hold_at_most_a_quarter_of_the_pool() {
        assert_eq!(cache_size(16384, 2), 256);
        for (mbufs, workers) in [(64, 1), (512, 2), (1000, 64), (8192, 16)] {
            let kept = cache_size(mbufs, workers) * 3 / 2 * (u32::from(workers) + 1);
            assert!(kept <= mbufs / 4, "{kept} of {mbufs}");
        }
    }
}
