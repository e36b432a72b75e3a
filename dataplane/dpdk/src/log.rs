//! Sends DPDK's log to `tracing` (target `dpdk`) and keeps what a failing step said for its error message.

use std::ffi::c_char;
use std::slice;
use std::sync::{Mutex, Once, PoisonError};

/// Longest text kept for one error message, bytes.
const CAPTURE_LIMIT: usize = 2048;

/// Warnings and errors since [`capture`] began; `None` outside it.
static CAPTURED: Mutex<Option<String>> = Mutex::new(None);

/// Takes DPDK's log over, once per process. Without it DPDK writes to standard error and syslog.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sink` lives for ever, is called with a valid range and does not unwind into C (it aborts). No
        // safe form: it registers a C callback.
        let failed = unsafe { dpdk_sys::sluice_log_to(Some(sink)) } != 0;
        if failed {
            tracing::warn!("DPDK's log stays on standard error: no stream for it could be made");
        }
    });
}

/// Runs `step` and returns with its result what DPDK warned of meanwhile, on one line.
pub(crate) fn capture<R>(step: impl FnOnce() -> R) -> (R, String) {
    *lock() = Some(String::new());
    let result = step();
    (result, lock().take().unwrap_or_default())
}

fn lock() -> std::sync::MutexGuard<'static, Option<String>> {
    CAPTURED.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the shim passes the buffer that stdio gave it, readable for `len` bytes during the call. No safe form:
    // a C buffer.
    let bytes = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    if level <= dpdk_sys::SLUICE_LOG_WARNING
        && let Some(kept) = lock().as_mut().filter(|kept| kept.len() + text.len() < CAPTURE_LIMIT)
    {
        if !kept.is_empty() {
            kept.push_str("; ");
        }
        kept.push_str(text);
    }
    match level {
        0..=dpdk_sys::SLUICE_LOG_ERR => tracing::error!(target: "dpdk", "{text}"),
        dpdk_sys::SLUICE_LOG_WARNING => tracing::warn!(target: "dpdk", "{text}"),
        dpdk_sys::SLUICE_LOG_NOTICE => tracing::info!(target: "dpdk", "{text}"),
        _ => tracing::debug!(target: "dpdk", "{text}"),
    }
}

/// How captured text is appended to an error message.
pub(crate) struct Said<'a>(pub(crate) &'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; DPDK said: {}", self.0) }
    }
}
