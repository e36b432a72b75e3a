//! IPVS's connection sync, version 1, in both directions: a Linux director can be the neighbour.
//!
//! ```text
//! workers -> Feeds -> master: convert -> wire -> socket -> 224.0.0.81:8848 -> Linux
//! Linux -> socket -> backup: wire -> convert -> Feeds -> workers
//! ```
//! * bytes: [`wire`]
//! * [`convert`]: connections in the director's words and in the kernel's
//! * multicast: [`socket`]
//! * [`master`], [`backup`]: the two daemons; [`daemon`]: their threads and the control core's end of them
//! * [`counters`]: what they did
//!
//! Limits, all of the protocol: no authentication, no confirmation, no repair. What this side adds: messages leave within
//! 20 ms, not 2 s; all connections are told at the start of the master, twice more soon after, every `resync`, and when a
//! queue overflowed.
//! Linux counts packets to tell when a connection is told again (`sync_threshold`); here it is time (`refresh`).

pub mod backup;
pub mod convert;
pub mod counters;
pub mod daemon;
pub mod master;
pub mod socket;
pub mod wire;

pub use daemon::Daemons;

use lb_config::Model;
use nix::errno::Errno;

/// Whether the interfaces of daemons that `new` adds are there, as `ipvsadm --start-daemon` has it. A configuration file
/// may name one that comes later: its daemon waits.
///
/// Errors: the system's for one that is missing.
pub fn check_interfaces(old: &Model, new: &Model) -> Result<(), Errno> {
    let added = new.ha.ipvs_sync.iter().filter(|daemon| !old.ha.ipvs_sync.contains(daemon));
    added.map(|daemon| daemon.interface.as_str()).try_for_each(|name| socket::index(name).map(drop))
}
