//! Starts and ends DPDK's environment abstraction layer (EAL).
//!
//! Invariant: every object of this crate that DPDK's memory backs holds an [`EalHandle`], so DPDK is ended only when
//! all of them are gone.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lb_config::HugePages;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::errno::Errno;
use crate::hugepages::{self, HugePageError};
use crate::log::{self, Said};
use crate::{args, lcore};

/// What the EAL is started with.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Name of the director; names DPDK's runtime folder.
    pub instance: String,
    /// Kind of memory.
    pub huge_pages: HugePages,
    /// Memory for packets, rings and drivers, MiB. With huge pages it is taken at once, without it is the limit.
    pub memory_mib: u32,
    /// CPU of the calling thread; `None`: every CPU that the process may use.
    pub main_cpu: Option<u16>,
    /// CPU of each worker, 1 to 64 of them.
    pub worker_cpus: Vec<u16>,
    /// Addresses of the PCI devices to open; no others are touched.
    pub pci: Vec<String>,
}

/// Why DPDK did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// A second start in one process, which DPDK cannot do.
    #[error("DPDK was started before in this process")]
    Twice,
    /// A CPU that the process may not use.
    #[error("CPU {cpu} is not open to this process (open: {allowed})")]
    Cpu {
        /// As configured.
        cpu: u16,
        /// CPUs that may be used, joined by commas.
        allowed: String,
    },
    /// A CPU that two workers were given.
    #[error("CPU {cpu} is given to two workers")]
    CpuTwice {
        /// As configured.
        cpu: u16,
    },
    /// No worker, or too many.
    #[error("{workers} workers are configured, 1 to {limit} are possible")]
    Workers {
        /// As configured.
        workers: usize,
        /// Most workers.
        limit: usize,
    },
    /// Not a PCI address.
    #[error("\"{address}\" is not a PCI address")]
    PciAddress {
        /// As configured.
        address: String,
    },
    /// The CPUs of the process cannot be read.
    #[error("the CPUs open to this process cannot be read: {0}")]
    Affinity(nix::Error),
    /// Huge pages are missing.
    #[error(transparent)]
    HugePages(#[from] HugePageError),
    /// DPDK refused.
    #[error("DPDK did not start: {errno}{}", Said(.log))]
    Init {
        /// Its error number.
        errno: Errno,
        /// Its warnings.
        log: String,
    },
}

/// DPDK, started. PCI devices are put back when the last object made from it is gone; memory goes with the process.
#[derive(Debug)]
pub struct Eal {
    handle: EalHandle,
}

/// Keeps DPDK from ending.
pub(crate) type EalHandle = Arc<EalInner>;

#[derive(Debug)]
pub(crate) struct EalInner {
    workers: u16,
    memory_mib: u32,
    runtime_folder: Option<PathBuf>,
    has_pci: bool,
    leave_mapped: AtomicBool,
    /// DPDK wants launches one at a time.
    launching: Mutex<()>,
}

impl Eal {
    /// Starts DPDK; the calling thread becomes its main thread, pinned to `main_cpu`. Call it before other threads
    /// are made: they inherit the CPUs that are set here.
    ///
    /// Errors: see [`EalError`]; nothing was started, but after [`EalError::Init`] DPDK refuses another try.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        static STARTED: AtomicBool = AtomicBool::new(false);

        let args = args::build(config, &allowed_cpus()?)?;
        hugepages::check(config.huge_pages, config.memory_mib)?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Twice);
        }
        log::install();
        let (code, log) = log::capture(|| start(&args));
        if code < 0 {
            return Err(EalError::Init { errno: Errno::last(), log });
        }
        lcore::lower_timer_slack();
        let workers = u16::try_from(config.worker_cpus.len()).unwrap_or(u16::MAX);
        tracing::info!(workers, memory_mib = config.memory_mib, huge_pages = ?config.huge_pages, "DPDK started");
        let inner = EalInner {
            workers,
            memory_mib: config.memory_mib,
            runtime_folder: runtime_folder(),
            has_pci: !config.pci.is_empty(),
            leave_mapped: AtomicBool::new(false),
            launching: Mutex::new(()),
        };
        Ok(Self { handle: Arc::new(inner) })
    }

    /// Number of workers, at least 1.
    pub fn workers(&self) -> u16 {
        self.handle.workers
    }

    pub(crate) fn handle(&self) -> &EalHandle {
        &self.handle
    }
}

impl EalInner {
    pub(crate) fn workers(&self) -> u16 {
        self.workers
    }

    /// Configured memory, MiB.
    pub(crate) fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// Held while a worker is launched.
    pub(crate) fn launching(&self) -> MutexGuard<'_, ()> {
        self.launching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves DPDK's memory mapped until the process ends, because something may still point into it.
    pub(crate) fn leave_mapped(&self) {
        self.leave_mapped.store(true, Ordering::SeqCst);
    }
}

impl Drop for EalInner {
    fn drop(&mut self) {
        // rte_eal_cleanup resets PCI devices; beyond that it unmaps memory, which nobody but us has and which goes with
        // the process. It does so while DPDK's interrupt thread may still read what a driver had there (seen with
        // memif on 22.11.11: the process ends with SIGSEGV), so without PCI devices it is left out.
        if self.has_pci && !self.leave_mapped.load(Ordering::SeqCst) {
            // SAFETY: this is the last handle, so nothing of this crate points into DPDK's memory any more; `init`
            // made the only start. No safe form: an FFI call.
            let code = unsafe { dpdk_sys::rte_eal_cleanup() };
            if code < 0 {
                tracing::warn!("DPDK did not end cleanly: {}", Errno::from_return(code));
            }
        }
        if let Some(folder) = &self.runtime_folder {
            // Empty unless another director of this name made something in it; then it is that one's to remove.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// CPUs that this process may run on: its affinity, which a container's CPU set narrows.
fn allowed_cpus() -> Result<Vec<u16>, EalError> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(EalError::Affinity)?;
    let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    Ok(cpus.filter_map(|cpu| u16::try_from(cpu).ok()).collect())
}

/// Calls `rte_eal_init`. Returns its code.
fn start(args: &[String]) -> c_int {
    // DPDK reorders argv and keeps pointers into it: it lives as long as the process.
    let mut argv: Vec<*mut c_char> = Vec::with_capacity(args.len() + 1);
    argv.extend(args.iter().filter_map(|arg| CString::new(arg.as_str()).ok()).map(CString::into_raw));
    let argc = c_int::try_from(argv.len()).unwrap_or(0);
    argv.push(std::ptr::null_mut());
    let argv = Vec::leak(argv);
    // SAFETY: `argv` has `argc` terminated, writable strings and a null, and lives for ever; the caller saw to it that
    // this runs once. No safe form: an FFI call.
    unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) }
}

fn runtime_folder() -> Option<PathBuf> {
    // SAFETY: after the start this returns a terminated string in static memory. No safe form: an FFI call.
    let folder = unsafe { dpdk_sys::rte_eal_get_runtime_dir() };
    // SAFETY: as above; null is excluded. No safe form: a C string.
    let folder = (!folder.is_null()).then(|| unsafe { CStr::from_ptr(folder) });
    folder.and_then(|folder| folder.to_str().ok()).map(PathBuf::from)
}
