//! Safe DPDK for the packet path: what moves frames between a wire and [`lb_dataplane`].
//!
//! In the order in which a process uses it:
//! 1. [`Eal`]: starts DPDK from our own configuration, once per process, without leaving files behind.
//! 2. [`open`]: makes the pool of packet buffers and starts every device; returns [`Devices`] for the control core
//!    and one [`WorkerIo`] per worker, which implements [`lb_dataplane::io::PacketIo`].
//! 3. [`Eal::launch`]: runs a worker on its pinned thread; [`Clock`] and [`idle_sleep`] are its time.
//!
//! The one invariant: whatever points into DPDK's memory keeps the EAL alive, except [`Mbuf`], which is one pointer
//! wide; a pool that misses packets when it goes is therefore left mapped (see `mempool`).
//!
//! Limits: one pool for all devices; single-segment packets; DPDK's default NUMA placement.

mod args;
mod clock;
mod devices;
mod eal;
mod errno;
pub mod hash;
mod hugepages;
mod io;
mod lcore;
mod log;
mod mbuf;
mod mempool;
mod netdev;
mod port;
mod queue;
mod ring;
mod table_memory;
mod vdev;

pub use clock::{Clock, idle_sleep};
pub use devices::{DeviceInfo, DeviceSpec, Devices, OpenError, open};
pub use eal::{Eal, EalConfig, EalError};
pub use errno::Errno;
pub use hugepages::HugePageError;
pub use io::WorkerIo;
pub use lcore::{LaunchError, WorkerThread};
pub use mbuf::Mbuf;
pub use mempool::PoolError;
pub use port::{DeviceStats, PortError};
pub use ring::RingError;
pub use table_memory::TableMemory;
