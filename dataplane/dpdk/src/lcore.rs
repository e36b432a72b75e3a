//! Runs workers on the pinned threads that the EAL made.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use lb_dataplane::io::WorkerId;

use crate::args::MAIN_LCORE;
use crate::eal::{Eal, EalHandle};
use crate::errno::Errno;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no such worker.
    #[error("worker {worker} does not exist: DPDK was started with {workers}")]
    NoSuchWorker {
        /// As asked for.
        worker: u16,
        /// Workers there are.
        workers: u16,
    },
    /// DPDK refused, most likely because the worker runs already.
    #[error("worker {worker} did not start: {errno}")]
    Refused {
        /// As asked for.
        worker: u16,
        /// DPDK's error number.
        errno: Errno,
    },
}

/// A worker that runs. Dropping it waits for its end.
#[derive(Debug)]
pub struct WorkerThread {
    lcore: u32,
    ended: Receiver<()>,
    _eal: EalHandle,
}

struct Job {
    run: Box<dyn FnOnce() + Send>,
    /// Dropped at the end, which wakes whoever joins.
    _ended: Sender<()>,
    _eal: EalHandle,
}

impl Eal {
    /// Runs `run` on the thread of `worker`, pinned to its CPU, with timers as exact as the kernel has them.
    ///
    /// A panic in `run` ends the process, with its message on standard error: other workers may wait for what this
    /// one holds.
    ///
    /// Errors: see [`LaunchError`]; `run` was dropped without running.
    pub fn launch(
        &self,
        worker: WorkerId,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<WorkerThread, LaunchError> {
        if worker.0 >= self.workers() {
            return Err(LaunchError::NoSuchWorker { worker: worker.0, workers: self.workers() });
        }
        let (sender, ended) = channel();
        let eal = self.handle().clone();
        let job = Box::new(Job { run: Box::new(run), _ended: sender, _eal: eal.clone() });
        let job = Box::into_raw(job);
        let lcore = MAIN_LCORE + 1 + u32::from(worker.0);
        let _one_at_a_time = self.handle().launching();
        // SAFETY: `entry` matches lcore_function_t and takes the box over; the lcore exists, no other launch runs. No
        // safe form: it starts a C callback.
        let code = unsafe { dpdk_sys::rte_eal_remote_launch(Some(entry), job.cast::<c_void>(), lcore) };
        if code < 0 {
            // SAFETY: DPDK did not take the job, so the box made above is still ours alone. No safe form: a raw box.
            drop(unsafe { Box::from_raw(job) });
            return Err(LaunchError::Refused { worker: worker.0, errno: Errno::from_return(code) });
        }
        Ok(WorkerThread { lcore, ended, _eal: eal })
    }
}

impl WorkerThread {
    /// Waits for the worker to return, asleep.
    pub fn join(self) {}

    /// Whether the worker has returned.
    pub fn is_finished(&self) -> bool {
        matches!(self.ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // Ends with an error when the job, and with it the sender, is gone. DPDK's own wait spins; after this it has
        // only the worker's last instructions to wait for.
        let _ = self.ended.recv();
        // SAFETY: the lcore exists. No safe form: an FFI call.
        unsafe { dpdk_sys::rte_eal_wait_lcore(self.lcore) };
    }
}

extern "C" fn entry(job: *mut c_void) -> c_int {
    // SAFETY: `launch` passed a box of Job and gave it up. No safe form: a C callback has one untyped argument.
    let job = unsafe { Box::from_raw(job.cast::<Job>()) };
    lower_timer_slack();
    let Job { run, _ended, _eal } = *job;
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("a worker panicked, the process ends: {}", message(&*panic));
        std::process::abort();
    }
    0
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Lets this thread's sleeps end on time: 1 ns of slack in place of 50 us. Source: prctl(2), PR_SET_TIMERSLACK.
pub(crate) fn lower_timer_slack() {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::warn!("timer slack stays as it is, idle workers sleep longer than asked: {error}");
    }
}
