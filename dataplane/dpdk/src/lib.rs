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
//! Limits: one pool for all devices, and one of large buffers where frames may be in several; DPDK's default NUMA
//! placement.
//!
//! Checksums are verified and computed in software, on purpose. To verify an IPv4 header costs 12 instructions of words
//! that are at hand anyway (77 against 65 for the whole header with the device's verdict, callgrind), and where the
//! device does not look, as no software port does, to ask for its verdict costs 3 more. On the way out NAT updates the
//! sums that are there, other headers are of precomputed sums, and packets of the director's own are short; to ask a
//! device for a sum writes a second line of the buffer's header. The one sum over whole packets that a device could take
//! off the CPU, the outer one of GUE and GRE with `csum`, needs `RTE_ETH_TX_OFFLOAD_OUTER_UDP_CKSUM`, which only NICs
//! have: none of the ports that this crate is tested on does, tap's included, so it is not asked for.

mod args;
mod backlog;
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
mod shelf;
mod table_memory;
mod tap;
mod vdev;

pub use clock::{Clock, idle_sleep};
pub use devices::{DeviceInfo, DeviceSpec, Devices, OpenError, Options, open, open_with};
pub use eal::{Eal, EalConfig, EalError};
pub use errno::Errno;
pub use hugepages::HugePageError;
pub use io::WorkerIo;
pub use lcore::{LaunchError, WorkerThread};
pub use mbuf::Mbuf;
pub use mempool::PoolError;
pub use port::{DeviceStats, PortError};
pub use ring::RingError;
pub use shelf::{Folder, Shelf, hugetlbfs};
pub use table_memory::TableMemory;
pub use tap::open_tap;
