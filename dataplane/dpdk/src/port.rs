//! One started device: a port of DPDK with its virtual device and kernel interface, if it has them.
//!
//! Invariant: a [`Port`] is started as long as it lives; its queues hold it, so it stops after its last queue is gone.

mod start;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys as sys;
use lb_dataplane::io::{Burst, DeviceId};

use crate::errno::Errno;
use crate::log::Said;
use crate::mbuf::Mbuf;
use crate::mempool::Pool;
use crate::netdev::Interface;
use crate::queue::{spare, take_spare};
use crate::vdev::PlanError;

use start::Vdev;
pub(crate) use start::{Started, Wanted, scatters, start};

/// Why a device did not start. It was left as it was found.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The configuration asks for something that this kind of device cannot be asked for.
    #[error("device {device}: {reason}")]
    Plan {
        /// As configured.
        device: String,
        /// What and why.
        reason: String,
    },
    /// The kernel interface is missing or cannot be used.
    #[error("device {device}: interface {interface} of this network namespace: {error}")]
    Interface {
        /// As configured.
        device: String,
        /// Its name.
        interface: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The MTU exceeds the kernel interface's.
    #[error("device {device}: an MTU of {mtu} is configured, the interface's is {interface_mtu}")]
    Mtu {
        /// As configured.
        device: String,
        /// As configured, bytes.
        mtu: u16,
        /// The interface's, bytes.
        interface_mtu: usize,
    },
    /// No driver has taken the PCI device.
    #[error("device {device}: no DPDK driver has it; is it bound to vfio-pci (dpdk-devbind.py --status)?")]
    NotFound {
        /// As configured.
        device: String,
    },
    /// The driver refused.
    #[error("device {device}: {step} failed: {errno}{needs}{}", Said(.log))]
    Driver {
        /// As configured.
        device: String,
        /// What it was asked for.
        step: &'static str,
        /// What this kind of device needs of the kernel, which is what is most often missing.
        needs: &'static str,
        /// DPDK's error number.
        errno: Errno,
        /// DPDK's warnings.
        log: String,
    },
}

/// Counters of a device since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because the workers did not take them in time, as far as the driver counts them.
    pub rx_missed: u64,
    /// Frames that came damaged.
    pub rx_errors: u64,
    /// Frames lost because the pool was empty.
    pub rx_no_mbuf: u64,
    /// Frames in several buffers dropped because they were longer than the MTU allows.
    pub rx_too_long: u64,
    /// Frames that the driver took and could not send, or that it could not be given.
    pub tx_errors: u64,
}

#[derive(Debug)]
pub(crate) struct Port {
    id: u16,
    device: DeviceId,
    name: String,
    mac: [u8; 6],
    rss: bool,
    started: bool,
    /// Frames dropped for their length. worker: adds (a rare path), control: ro.
    too_long: AtomicU64,
    /// Frames that could not be made fit for the driver. worker: adds (a rare path), control: ro.
    not_sent: AtomicU64,
    /// Longest frame at this MTU, bytes, without FCS.
    longest_frame: usize,
    /// Receive queues whose frames the driver would not free when it is closed: those of a device that loops back.
    to_drain: u16,
    // The order of these is that of their end: driver, interface, pool.
    _vdev: Option<Vdev>,
    _interface: Option<Interface>,
    _pool: Arc<Pool>,
}

impl Port {
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    #[inline]
    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    pub(crate) fn rss(&self) -> bool {
        self.rss
    }

    pub(crate) fn count_too_long(&self, frames: usize) {
        self.too_long.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_not_sent(&self, frames: usize) {
        self.not_sent.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn longest_frame(&self) -> usize {
        self.longest_frame
    }

    /// Whether the link is up; `false` when the driver cannot tell.
    pub(crate) fn link_up(&self) -> bool {
        // SAFETY: the port exists. No safe form: an FFI call.
        unsafe { sys::sluice_link_up(self.id) == 1 }
    }

    pub(crate) fn stats(&self) -> DeviceStats {
        let mut raw = sys::rte_eth_stats::default();
        // SAFETY: the port exists, `raw` is ours; drivers allow this beside running workers. No safe form: an FFI call.
        let code = unsafe { sys::rte_eth_stats_get(self.id, &mut raw) };
        if code < 0 {
            tracing::debug!(device = self.name, "no counters: {}", Errno::from_return(code));
        }
        DeviceStats {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_no_mbuf: raw.rx_nombuf,
            rx_too_long: self.too_long.load(Ordering::Relaxed),
            tx_errors: raw.oerrors + self.not_sent.load(Ordering::Relaxed),
        }
    }

    /// Frees what a device that loops back still holds.
    fn drain(&self) {
        let mut frames = Burst::<Mbuf>::new();
        for queue in 0..self.to_drain {
            loop {
                let (tail, room) = spare(&mut frames);
                // SAFETY: the queue's owner is gone, so this is its only user. No safe form: an FFI call.
                let n = unsafe { sys::sluice_rx_burst(self.id, queue, tail, room) };
                // SAFETY: the driver wrote `n` buffers and gave them up. No safe form: filled by C.
                unsafe { take_spare(&mut frames, n.into()) };
                if frames.is_empty() {
                    break;
                }
                frames.clear();
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.started {
            self.drain();
            // SAFETY: the port is started and its queues are gone. No safe form: an FFI call.
            let code = unsafe { sys::rte_eth_dev_stop(self.id) };
            if code < 0 {
                tracing::warn!(device = self.name, "did not stop: {}", Errno::from_return(code));
            }
        }
        // SAFETY: the port is stopped; nobody uses its number after this. No safe form: an FFI call.
        let code = unsafe { sys::rte_eth_dev_close(self.id) };
        if code < 0 {
            tracing::warn!(device = self.name, "did not close: {}", Errno::from_return(code));
        }
    }
}

impl From<(String, PlanError)> for PortError {
    fn from((device, error): (String, PlanError)) -> Self {
        Self::Plan { device, reason: error.to_string() }
    }
}
