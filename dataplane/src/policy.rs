//! Decisions that are the operator's: `[policy]` and `[services.policy]` in the packet path.
//!
//! Services carry theirs ([`ServiceEntry::policy`](crate::snapshot::ServiceEntry)), destinations name theirs by its
//! place in [`Snapshot::policies`](crate::snapshot::Snapshot), because connections outlive services. A packet of a known
//! connection looks at neither, unless it is the first of a connection (SYN, INIT) or its server was removed. What IPVS
//! would decide is what [`Compat::Ipvs`](lb_config::Compat) makes of the same values; its names are kept.

use std::sync::Arc;

use lb_config::{EffectivePolicy, OnNoServer, OnServerDown, Policy, Reuse};

use crate::conn::Meta;
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::parse::L4;
use crate::sched::Candidate;
use crate::snapshot::DestEntry;
use crate::state::State;

/// Share of a worker's connections that must be left, or they run short (`secure_tcp` 1 and 2): one in so many.
///
/// IPVS compares free memory with `amemthresh`; here memory is taken at start and the table is what runs out.
const SHORT: u32 = 8;

/// Whether TCP's stricter table is in force (`secure_tcp`), with `used` of `max` connections.
#[inline]
pub fn is_guarded(policy: &Policy, used: u32, max: u32) -> bool {
    match policy.secure_tcp {
        0 => false,
        1 | 2 => max - used.min(max) <= max / SHORT,
        _ => true,
    }
}

/// Whether packets of `protocol` other than the first may begin a connection.
#[inline]
pub fn is_sloppy(policy: &Policy, protocol: L4) -> bool {
    match protocol {
        L4::Tcp => policy.sloppy_tcp,
        L4::Udp => false,
        L4::Sctp => policy.sloppy_sctp,
    }
}

/// A connection that another one may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Its state.
    pub state: State,
    /// No packet of its server was seen.
    pub no_output: bool,
    /// A persistence template chose its server.
    pub controlled: bool,
}

impl From<Meta> for Old {
    #[inline]
    fn from(meta: Meta) -> Self {
        Self { state: meta.state(), no_output: meta.no_output(), controlled: meta.controlled() }
    }
}

/// Whether the first packet of a connection, on a known one, takes its place.
///
/// Source of [`Reuse::Ipvs`] and `expire_nodest_conn`: IPVS, `ip_vs_in`. There a SYN to a removed server follows
/// [`OnServerDown`] alone.
pub fn begins_anew(director: &Policy, service: &EffectivePolicy, old: &Old, entry: &DestEntry) -> bool {
    let old = match service.reuse {
        Reuse::Closing => entry.draining || old.state.is_closing(),
        Reuse::Ipvs => {
            let over = old.state.is_over(old.no_output, director.conn_reuse_mode);
            over && !old.controlled || entry.draining && director.expire_nodest_conn
        }
    };
    old || entry.removed && (service.reuse == Reuse::Closing || service.on_server_down != OnServerDown::Drop)
}

/// Whether persistence may lead to `entry`.
pub fn holds(director: &Policy, entry: &DestEntry) -> bool {
    !(entry.removed || director.expire_quiescent_template && entry.draining)
}

/// Connections of a service over all its configured servers and all workers.
///
/// Cost: O(candidates x workers). With N workers that open connections at the same moment it may miss N - 1.
pub fn connections(candidates: &[Candidate], workers: &[Arc<WorkerCounters>]) -> u64 {
    let of = |candidate: &Candidate| -> u64 {
        let total = |worker: &Arc<WorkerCounters>| {
            worker.dests.get(candidate.dest.0 as usize).map_or(0, |dest| u64::from(dest.total.get()))
        };
        workers.iter().map(total).sum()
    };
    candidates.iter().map(of).sum()
}

/// What a client hears when its packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nothing,
    /// ICMP port unreachable.
    Unreachable,
    /// A TCP reset or an SCTP abort; UDP has none.
    Reset,
    /// A question whether it is there: a SYN gets a cookie, which an ACK may bring back. The largest segment that the
    /// service allows, bytes.
    Proof(u16),
}

/// A packet that is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// What its sender hears.
    pub answer: Answer,
}

impl Refusal {
    /// Of a packet that no service decides about: as a host without such a port answers, which is where IPVS leaves it.
    pub fn of_host(reason: DropReason, protocol: L4) -> Self {
        let answer = match (reason, protocol) {
            (DropReason::NoService, L4::Udp) => Answer::Unreachable,
            (DropReason::NoService | DropReason::NoConnection, L4::Tcp | L4::Sctp) => Answer::Reset,
            _ => Answer::Nothing,
        };
        Self { reason, answer }
    }

    /// Of a new connection that no server of its service takes.
    pub fn of_service(reason: DropReason, service: &EffectivePolicy) -> Self {
        let answer = match service.on_no_server {
            OnNoServer::Icmp => Answer::Unreachable,
            OnNoServer::Reset => Answer::Reset,
            OnNoServer::Drop => Answer::Nothing,
        };
        Self { reason, answer }
    }

    /// Of a segment whose sender has to prove that it is there, see [`crate::flood::handshake`].
    pub fn until_proved(service: &EffectivePolicy) -> Self {
        Self { reason: DropReason::NoConnection, answer: Answer::Proof(service.mss.unwrap_or(u16::MAX)) }
    }

    /// Without a word.
    pub fn silent(reason: DropReason) -> Self {
        Self { reason, answer: Answer::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_run_short_when_an_eighth_is_left() {
        let policy = |secure_tcp| Policy { secure_tcp, ..Policy::default() };
        for (mode, used, want) in
            [(0, 800, false), (1, 699, false), (1, 700, true), (2, 800, true), (2, 0, false), (3, 0, true)]
        {
            assert_eq!(is_guarded(&policy(mode), used, 800), want, "{mode} with {used} used");
        }
    }
}
