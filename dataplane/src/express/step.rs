//! What a plain packet makes of its connection: of a settled one, and where that is more than another deadline, at
//! handshakes and ends.

use crate::conn::{Meta, Tick};
use crate::counters::{DestCounters, OwnCounters};
use crate::flood::evict::is_embryonic;
use crate::parse::L4;
use crate::state::{self, Direction, Event, State, TimeoutTable};
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP};

/// What the words of settled connections are after a packet, under one table of timeouts.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    /// Index of the table; none while it is more than an index can be.
    pub timeouts: u32,
    pub tcp: Meta,
    pub udp: Meta,
}

impl Settled {
    pub const NONE: Self = Self { timeouts: u32::MAX, tcp: Meta::EMPTY, udp: Meta::EMPTY };

    #[inline(never)]
    pub fn new(at: u16, timeouts: &TimeoutTable, now: Tick) -> Self {
        let of = |protocol, state| {
            Meta::settled(protocol, state, timeouts.is_active(state), now.later(timeouts.of(state)))
        };
        Self {
            timeouts: at.into(),
            tcp: of(PROTOCOL_TCP, State::Established),
            udp: of(PROTOCOL_UDP, State::Udp),
        }
    }
}

/// What is counted of a connection's state.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    /// Its destination's.
    pub dest: &'a DestCounters,
    /// Its worker's.
    pub own: &'a OwnCounters,
}

/// The entry after a packet other than the first, as [`Worker::next_meta`](crate::worker::Worker::next_meta) gives it;
/// counts what changes. `None`, nothing counted: its time is over, a template may have to be told, or its packets are
/// more than rewritten.
#[inline(never)]
pub(super) fn step(
    meta: Meta,
    (event, outbound): (Event, bool),
    timeouts: &TimeoutTable,
    (now, guarded): (Tick, bool),
    counted: Counted<'_>,
) -> Option<Meta> {
    if meta.deadline().is_over(now)
        || meta.controlled() && !meta.assured()
        || meta.is_spliced()
        || meta.is_proxied()
    {
        return None;
    }
    let protocol = if meta.protocol() == PROTOCOL_TCP { L4::Tcp } else { L4::Udp };
    let mut no_output = meta.no_output();
    let direction = Direction::of(outbound, &mut no_output);
    let state = state::advance(protocol, meta.state(), direction, event, guarded);
    let active = timeouts.is_active(state);
    if active != meta.active() {
        if active { counted.dest.active.up() } else { counted.dest.active.down() }
    }
    let deadline = now.later(timeouts.after(state, no_output));
    let new = meta.with_no_output(no_output).after_packet(state, active, deadline).with_heard();
    if !new.is_as(meta) {
        match (is_embryonic(meta), is_embryonic(new)) {
            (true, false) => counted.own.embryonic.down(),
            (false, true) => counted.own.embryonic.up(),
            _ => {}
        }
    }
    Some(new)
}
