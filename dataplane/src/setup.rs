//! What is fixed for the life of the process, and what a worker is made from.

use std::sync::Arc;

use crate::conn::HashKey;
use crate::counters::WorkerCounters;
use crate::io::WorkerId;
use crate::mailbox::Mailbox;
use crate::persist::Templates;
use crate::snapshot::Snapshot;

/// A device as the driver reports it, in the order of [`crate::io::DeviceId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSetup {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Whether the NIC itself gives every flow to one worker's queue; else workers hand frames to the owner.
    pub rss: bool,
}

/// Sizes and facts that do not change while the process runs.
#[derive(Debug)]
pub struct Setup {
    /// Devices.
    pub devices: Vec<DeviceSetup>,
    /// Number of workers, at least 1.
    pub workers: u16,
    /// Connections that one worker may track.
    pub connections_per_worker: u32,
    /// Frames of one worker that may wait for next hops.
    pub neighbor_queue: u16,
    /// Number of [`crate::ids::DestId`]s.
    pub max_dests: u32,
    /// Key of [`crate::steer::owner`], random per start.
    pub steer_key: HashKey,
    /// Persistence templates of all workers.
    pub templates: Templates,
}

/// Everything that a worker is made from, beside its queues.
pub struct WorkerSeed {
    /// Which worker.
    pub id: WorkerId,
    /// Facts.
    pub setup: Arc<Setup>,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Its queues to and from the control core.
    pub mailbox: Arc<Mailbox>,
    /// Every worker's counters; its own at index `id`.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// What it knows of floods at its start.
    pub flood: FloodSeed,
}

/// What a worker knows of floods at its start.
#[derive(Clone, Copy, Debug)]
pub struct FloodSeed {
    /// Key of its SYN cookies.
    pub cookies: HashKey,
    /// Until then an earlier process's cookies may come back, ns of the worker's clock; 0: there was none.
    pub cookies_until_ns: u64,
    /// Until then packets may come of connections that went without an entry, ns of the worker's clock.
    pub strays_until_ns: u64,
}
