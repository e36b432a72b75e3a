//! DPDK's error numbers.

use std::ffi::{CStr, c_int};
use std::fmt;

/// An error number of DPDK or the kernel, shown with its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(c_int);

impl Errno {
    /// Of a function that returns a negative error number.
    pub(crate) fn from_return(code: c_int) -> Self {
        Self(code.saturating_abs())
    }

    /// Of a function that leaves its error number in `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer. No safe form: the variable belongs to DPDK.
        Self(unsafe { dpdk_sys::sluice_errno() })
    }

    /// The number itself, positive.
    pub fn code(self) -> c_int {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror returns a terminated string that lives until this thread's next call of it, which is
        // past the copy that `write!` makes. No safe form: std knows nothing of DPDK's own numbers.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (error {})", text.to_string_lossy(), self.0)
    }
}
