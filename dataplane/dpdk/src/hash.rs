//! DPDK's hash table (`rte_hash`): the peer of our own in lb-bench. The packet path does not use it.

use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{rte_hash, rte_hash_parameters};

use crate::eal::{Eal, EalHandle};
use crate::errno::Errno;

/// Bytes of a key.
pub const KEY_LEN: usize = 16;
/// Most keys of one lookup.
pub const BULK: usize = dpdk_sys::RTE_HASH_LOOKUP_BULK_MAX as usize;
/// Pages that DPDK takes the lent memory for, bytes; addresses in it are never given to a device.
const PAGE: usize = 2 << 20;

/// Why a table could not be made or a key not be added.
#[derive(Debug, thiserror::Error)]
#[error("rte_hash: {call}: {errno}")]
pub struct HashError {
    call: &'static str,
    errno: Errno,
}

/// A table from 16 bytes to a word.
#[derive(Debug)]
pub struct Hash {
    raw: NonNull<rte_hash>,
    _eal: EalHandle,
}

impl Hash {
    /// A table for `entries` keys with DPDK's own hash function, for one thread, in `memory`, which is not given back.
    ///
    /// Errors: DPDK's; among them too little memory (60 bytes a key are enough, and as many again for the rounding of
    /// `entries` to a power of two).
    pub fn new(eal: &Eal, entries: u32, memory: &'static mut [u8]) -> Result<Self, HashError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("sluice_hash_{number}")).unwrap_or_default();
        let start = memory.as_mut_ptr().cast::<c_void>();
        let pages = memory.len() / PAGE;
        // SAFETY: the EAL is started; the name is copied. No safe form: an FFI call.
        let code = unsafe { dpdk_sys::rte_malloc_heap_create(name.as_ptr()) };
        check("rte_malloc_heap_create", code)?;
        // SAFETY: `memory` is ours for ever, and DPDK's from here on; no addresses of pages means that they have none
        // for devices. No safe form: an FFI call.
        let code = unsafe {
            dpdk_sys::rte_malloc_heap_memory_add(
                name.as_ptr(),
                start,
                pages * PAGE,
                std::ptr::null_mut(),
                pages as u32,
                PAGE,
            )
        };
        check("rte_malloc_heap_memory_add", code)?;
        // SAFETY: as above. No safe form: an FFI call.
        let socket_id = unsafe { dpdk_sys::rte_malloc_heap_get_socket(name.as_ptr()) };
        check("rte_malloc_heap_get_socket", socket_id)?;
        let parameters = rte_hash_parameters {
            name: name.as_ptr(),
            entries,
            key_len: KEY_LEN as u32,
            socket_id,
            ..rte_hash_parameters::default()
        };
        // SAFETY: the parameters are read during the call alone; no function means DPDK's own. No safe form: an FFI
        // call.
        let raw = unsafe { dpdk_sys::rte_hash_create(&raw const parameters) };
        let raw = NonNull::new(raw).ok_or(HashError { call: "rte_hash_create", errno: Errno::last() })?;
        Ok(Self { raw, _eal: eal.handle().clone() })
    }

    /// Adds a key, or replaces its word.
    ///
    /// Errors: no room.
    pub fn insert(&mut self, key: &[u8; KEY_LEN], word: usize) -> Result<(), HashError> {
        let data = std::ptr::without_provenance_mut::<c_void>(word);
        // SAFETY: the key is as long as the table's and copied; the word is never followed. No safe form: an FFI call.
        let code = unsafe { dpdk_sys::rte_hash_add_key_data(self.raw.as_ptr(), key.as_ptr().cast(), data) };
        check("rte_hash_add_key_data", code)
    }

    /// Looks up to [`BULK`] keys up (`rte_hash_lookup_bulk_data`). Returns a bit for each that is there; its word is
    /// in `words`.
    #[inline]
    pub fn lookup(&self, keys: &[&[u8; KEY_LEN]], words: &mut [usize; BULK]) -> u64 {
        let mut hits = 0;
        let count = keys.len().min(BULK) as u32;
        // SAFETY: `keys` holds as many thin pointers to keys of the table's length, `words` room for BULK pointers,
        // which are as wide as usize. No safe form: an FFI call.
        let code = unsafe {
            dpdk_sys::rte_hash_lookup_bulk_data(
                self.raw.as_ptr(),
                keys.as_ptr().cast_mut().cast(),
                count,
                &raw mut hits,
                words.as_mut_ptr().cast(),
            )
        };
        if code < 0 { 0 } else { hits }
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and this is the only user. No safe form: an FFI call.
        unsafe { dpdk_sys::rte_hash_free(self.raw.as_ptr()) };
    }
}

fn check(call: &'static str, code: i32) -> Result<(), HashError> {
    if code < 0 { Err(HashError { call, errno: Errno::last() }) } else { Ok(()) }
}
