//! Connections of an earlier process, which this one goes on with.
//!
//! What outlives a process lies in memory that does ([`crate::conn::memory::Lender`]): the workers' tables, and a copy of the
//! persistence templates. Their entries mean something only together with the [`Secrets`] of their hashes, the clock that
//! they go by, and what the indices of destinations stand for ([`crate::director::Journal`]); the control core keeps
//! these, this module has no I/O. A process that starts
//! 1. compares [`fingerprint()`] with that of the memory: another layout is of no use;
//! 2. makes its director from an [`Estate`], which gives destinations the indices that they had;
//! 3. [takes tables over](take_over) where they lie when workers and limits are as they were, or [moves what is in
//!    them](move_in) to others.
//!
//! An earlier process may have been killed at any instruction, and files may be damaged: every entry is checked before
//! its first use. Invariant: to take over changes no entry that stays, so that it may be broken off at any moment and
//! begun again.

mod census;
mod fingerprint;
mod moving;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lb_config::{Model, Service};

use crate::conn::{HashKey, Tick};
use crate::director::DestKey;
use crate::ids::DestId;
use crate::setup::FloodSeed;

pub use crate::director::steering;
pub use census::take_over;
pub use fingerprint::fingerprint;
pub use moving::move_in;

/// Templates that there is room for in a director of this configuration.
pub fn templates(model: &Model) -> usize {
    model.limits.max_connections.div_ceil(8) as usize
}

/// What entries are found by, and what clients have been told.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Which worker owns a flow.
    pub steering: HashKey,
    /// Hash of flows, where no secret of the cluster is configured.
    pub flows: [u64; 2],
    /// Where persistence templates are.
    pub templates: HashKey,
    /// Of each worker.
    pub workers: Vec<WorkerSecrets>,
}

/// Those of one worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSecrets {
    /// Hash of its tables.
    pub table: HashKey,
    /// SYN cookies and what it knows of floods.
    pub flood: FloodSeed,
}

impl FloodSeed {
    /// Of a worker that nobody was before.
    pub fn random() -> Self {
        Self { cookies: HashKey::random(), cookies_until_ns: 0, strays_until_ns: 0 }
    }
}

impl Secrets {
    /// Those of a director that nobody was before.
    pub fn random(workers: usize) -> Self {
        let flows = HashKey::random().0;
        let worker = || WorkerSecrets { table: HashKey::random(), flood: FloodSeed::random() };
        Self {
            steering: HashKey::random(),
            flows: [flows[0], flows[1]],
            templates: HashKey::random(),
            workers: (0..workers).map(|_| worker()).collect(),
        }
    }
}

/// What a director begins with.
#[derive(Debug)]
pub struct Estate {
    /// Secrets, of as many workers as there are.
    pub secrets: Secrets,
    /// What indices stood for.
    pub former: Vec<(DestId, DestKey)>,
    /// Services as they were, with the servers that have indices.
    pub services: Vec<Arc<Service>>,
    /// Memory that persistence templates are copied to, of [`Templates::kept_bytes`](crate::persist::Templates::kept_bytes).
    pub templates: Option<&'static mut [u8]>,
    /// Those that an earlier process left, there or elsewhere.
    pub left: Vec<crate::persist::Left>,
}

impl Estate {
    /// Of a director that nobody was before.
    pub fn new(workers: usize) -> Self {
        let secrets = Secrets::random(workers);
        Self { secrets, former: Vec::new(), services: Vec::new(), templates: None, left: Vec::new() }
    }
}

/// The times of a take-over, ns of the workers' clock, which goes on where the earlier process's was.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When the earlier process was last known to run; it may have run for [`Moment::UNKNOWN_NS`] more.
    pub last_ns: u64,
    /// Now.
    pub now_ns: u64,
}

impl Moment {
    /// How long a process may run on after it was last known to run, ns.
    pub const UNKNOWN_NS: u64 = 2_000_000_000;

    /// Whether a deadline has passed. A circle of ticks tells that only near the time that it was set at: no deadline is
    /// further from the earlier process's last moment than the longest timeout.
    fn is_over(&self, deadline: Tick) -> bool {
        let from = (self.last_ns + Self::UNKNOWN_NS).min(self.now_ns.max(self.last_ns));
        let away = self.now_ns.saturating_sub(from) / (1_000_000_000 / Tick::PER_SECOND);
        deadline.left(Tick::from_ns(from)).is_none_or(|left| u64::from(left) <= away)
    }
}

/// Why a connection was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its time had passed.
    Expired,
    /// Its server is no longer in the configuration, and its service says that such connections end.
    Gone,
    /// It makes no sense: half written, or damaged.
    Torn,
    /// It belongs to another worker than its replies, now that there are more or fewer.
    Apart,
    /// There is no room for it.
    NoRoom,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 5] = [Loss::Expired, Loss::Gone, Loss::Torn, Loss::Apart, Loss::NoRoom];

    /// As the log says it.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Expired => "their time had passed",
            Loss::Gone => "server removed",
            Loss::Torn => "half written or damaged",
            Loss::Apart => "their replies belong to another worker now",
            Loss::NoRoom => "no room",
        }
    }
}

/// What became of a worker's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Taken over.
    pub kept: u64,
    /// Not taken over, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

impl Taken {
    fn lose(&mut self, loss: Loss) {
        self.lost[loss as usize] += 1;
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self { kept: self.kept + other.kept, lost: std::array::from_fn(|n| self.lost[n] + other.lost[n]) }
    }
}
