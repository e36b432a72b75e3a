//! Schedulers made from the configuration, on the control core, and what they remember from one to the next.
//!
//! As in IPVS a service that gets another scheduler starts anew, and one that keeps it keeps its memory through edits
//! of the service; edits of its servers do what `add_dest`, `del_dest` and `upd_dest` of the kernel's modules do.

use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{MaglevHash, MaglevSize, Service};

use super::mh::Share;
use super::{
    Candidate, Cursor, FlowHash, Lblc, Lblcr, MaglevTable, Member, MhTable, Scheduler, SourceTable, WrrMark,
    WrrPlan,
};
use crate::ids::DestId;

/// What a scheduler needs to know of a candidate's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight, or when that is 0 the last one above it since it was added.
    pub last_weight: u32,
}

/// A service's servers before and after a change of the configuration.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// The service as it is now.
    pub service: &'a Service,
    /// Candidates before.
    pub old: &'a [Candidate],
    /// Candidates now.
    pub candidates: &'a [Candidate],
    /// Their servers, in the same order.
    pub servers: &'a [ServerState],
    /// Whether a server was added, removed, moved or changed in any of its settings.
    pub edited: bool,
    /// Keyed hash of the cluster.
    pub hash: &'a FlowHash,
}

/// What a service's scheduler remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// The scheduler's name.
    name: &'static str,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Rr(Arc<Cursor>),
    Wrr(Arc<WrrMark>, WrrPlan),
    Lblc(Arc<Lblc>),
    Lblcr(Arc<Lblcr>),
    Sh(Vec<u32>, Arc<SourceTable>),
    Mh(Vec<Share>, Arc<MhTable>),
    Maglev(Vec<Member>, MaglevSize, Arc<MaglevTable>),
}

/// Who a server is, whatever its index.
pub fn tag(address: IpAddr, port: u16, hash: &FlowHash) -> u64 {
    hash.of(address, port)
}

impl Memory {
    /// The scheduler after a change.
    pub fn update(&mut self, change: &Change<'_>) -> Scheduler {
        let name = change.service.scheduler.name();
        let state = std::mem::take(&mut self.state);
        let state = if name == self.name { state } else { State::Nothing };
        self.name = name;
        let flags = change.service.scheduler_flags;
        use lb_config::Scheduler as Wanted;
        let (state, scheduler) = match change.service.scheduler {
            Wanted::Rr => {
                let cursor = cursor(state, change);
                (State::Rr(cursor.clone()), Scheduler::Rr(cursor))
            }
            Wanted::Wrr => {
                let (mark, plan) = mark(state, change);
                (State::Wrr(mark.clone(), plan), Scheduler::Wrr(mark, plan))
            }
            Wanted::Lc => (State::Nothing, Scheduler::Lc),
            Wanted::Wlc => (State::Nothing, Scheduler::Wlc),
            Wanted::Sed => (State::Nothing, Scheduler::Sed),
            Wanted::Nq => (State::Nothing, Scheduler::Nq),
            Wanted::Lblc => {
                let cache = if let State::Lblc(cache) = state { cache } else { Arc::default() };
                (State::Lblc(cache.clone()), Scheduler::Lblc(cache))
            }
            Wanted::Lblcr => {
                let cache = if let State::Lblcr(cache) = state { cache } else { Arc::default() };
                (State::Lblcr(cache.clone()), Scheduler::Lblcr(cache))
            }
            Wanted::Dh => (State::Nothing, Scheduler::Dh),
            Wanted::Sh => {
                let (weights, table) = source_table(state, change);
                (State::Sh(weights, table.clone()), Scheduler::Sh(table, flags))
            }
            Wanted::Fo => (State::Nothing, Scheduler::Fo),
            Wanted::Ovf => (State::Nothing, Scheduler::Ovf),
            Wanted::Twos => (State::Nothing, Scheduler::Twos),
            Wanted::Mh => {
                let (shares, table) = mh_table(state, change);
                (State::Mh(shares, table.clone()), Scheduler::Mh(table, flags))
            }
            Wanted::Maglev(input, size) => {
                let (members, table) = maglev_table(state, size, change);
                let scheduler = Scheduler::Maglev(table.clone(), input == MaglevHash::Source);
                (State::Maglev(members, size, table), scheduler)
            }
        };
        self.state = state;
        scheduler
    }

    /// A server was edited to what it was: the kernel's `upd_dest` without a change, which `wrr` takes notice of.
    pub fn touch(&self) {
        if let State::Wrr(mark, plan) = &self.state {
            mark.restart(plan);
        }
    }

    /// Once a second: caches forget what is old. `now_s`: since any fixed point, s.
    pub fn tick(&self, now_s: u32) {
        match &self.state {
            State::Lblc(cache) => cache.tick(now_s),
            State::Lblcr(cache) => cache.tick(now_s),
            _ => {}
        }
    }

    /// Whether the scheduler still knows a destination by its index, which must not pass to another then.
    pub fn refers_to(&self, dest: DestId) -> bool {
        match &self.state {
            State::Rr(cursor) => cursor.last() == Some(dest),
            State::Wrr(mark, _) => mark.last() == Some(dest),
            _ => false,
        }
    }
}

fn cursor(state: State, change: &Change<'_>) -> Arc<Cursor> {
    let State::Rr(cursor) = state else { return Arc::default() };
    cursor.removed(change.old, |dest| change.candidates.iter().any(|candidate| candidate.dest == dest));
    cursor
}

fn weights(change: &Change<'_>) -> Vec<u32> {
    change.candidates.iter().map(|candidate| candidate.weight).collect()
}

fn mark(state: State, change: &Change<'_>) -> (Arc<WrrMark>, WrrPlan) {
    let plan = WrrPlan::new(&weights(change));
    let State::Wrr(mark, _) = state else { return (Arc::new(WrrMark::new(&plan)), plan) };
    if change.edited {
        mark.restart(&plan);
    }
    (mark, plan)
}

fn source_table(state: State, change: &Change<'_>) -> (Vec<u32>, Arc<SourceTable>) {
    let weights = weights(change);
    match state {
        State::Sh(of, table) if of == weights => (of, table),
        _ => {
            let table = Arc::new(SourceTable::new(&weights));
            (weights, table)
        }
    }
}

fn mh_table(state: State, change: &Change<'_>) -> (Vec<Share>, Arc<MhTable>) {
    let ipv6 = change.service.address.is_ipv6();
    let share = |server: &ServerState| Share::new(server.address, server.port, ipv6, server.last_weight);
    let shares: Vec<Share> = change.servers.iter().map(share).collect();
    match state {
        State::Mh(of, table) if of == shares => (of, table),
        _ => {
            let table = Arc::new(MhTable::new(&shares));
            (shares, table)
        }
    }
}

fn maglev_table(state: State, size: MaglevSize, change: &Change<'_>) -> (Vec<Member>, Arc<MaglevTable>) {
    let both = change.candidates.iter().zip(change.servers);
    let member = |(candidate, server): (&Candidate, &ServerState)| Member {
        address: server.address,
        port: if server.port == change.service.address.port() { 0 } else { server.port },
        weight: candidate.weight,
        dest: candidate.dest,
    };
    let members: Vec<Member> = both.map(member).collect();
    match state {
        State::Maglev(of, of_size, table) if of == members && of_size == size => (of, table),
        _ => {
            let table = Arc::new(MaglevTable::new(&members, size.slots() as usize, change.hash));
            (members, table)
        }
    }
}
