//! Asks the processor for a cache line ahead of its use.
//!
//! The one intrinsic of the packet path; it has no effect on any value, so its scalar twin does nothing.

/// Starts to bring the first cache line of `value` into the first-level cache.
///
/// Cost: one instruction; hides a memory latency of about 80 ns when called a burst ahead (bench `path`).
#[inline(always)]
pub fn line<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[allow(unsafe_code)]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching never faults and the reference is valid anyway; there is no safe form of the
        // intrinsic because it takes a raw pointer.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

/// Starts to bring the cache lines of the first and the last byte of `value`: all of what is at most 65 bytes, or
/// lies in two lines.
#[inline(always)]
pub fn ends<T: zerocopy::IntoBytes + zerocopy::Immutable>(value: &T) {
    line(value);
    if let Some(last) = value.as_bytes().last() {
        line(last);
    }
}
