//! Direct routing: packets of settled connections get other MAC addresses, a run of them at a time.
//!
//! Of such a packet nothing is kept but that it came: its connection's word is compared with what it would be after it,
//! and most often is that already.

use super::ends::{Ends, raw_mac, set_macs};
use super::glance::Row;
use super::onward::Progress;
use crate::conn::{Found, Meta, Table, Tick};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::state::{State, TimeoutTable};
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::worker::Worker;

/// The first packets of a burst that were rewritten: as many as leave by one device.
pub(super) struct Run {
    pub count: usize,
    pub device: DeviceId,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Behind them comes one that leaves by another device.
    pub goes_on: bool,
}

impl Run {
    /// No device: more than there can be.
    pub const NOWHERE: u16 = u16::MAX;
    pub const NONE: Self = Self { count: 0, device: DeviceId(Self::NOWHERE), bytes: 0, goes_on: false };
}

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

impl<I: PacketIo> Worker<I> {
    /// Rewrites packets from the first on, until one of them goes otherwise, by another device, or is unusual in any
    /// way: that one is unchanged.
    #[inline(always)]
    pub(super) fn direct<K: Ends>(
        &mut self,
        frames: &mut [I::Packet],
        rows: &[Row<K>],
        progress: Progress,
    ) -> Run {
        // as the second pass saw it: what is wrong by now goes the other way, which looks again
        let leads = |row: &Row<K>| match self.snapshot.dest(row.found.meta.dest()) {
            Some(entry) if row.found.is_some() => entry.is_direct(),
            _ => !progress.fresh,
        };
        let begins = |row: &Row<K>| row.noted.is_calm() && leads(row);
        if !rows.first().is_some_and(begins) {
            Run::NONE
        } else if progress.disturbed {
            self.direct_run::<K, true>(frames, rows, progress)
        } else {
            self.direct_run::<K, false>(frames, rows, progress)
        }
    }

    /// `AGAIN`: what was looked up may not be so any more.
    #[inline(never)]
    fn direct_run<K: Ends, const AGAIN: bool>(
        &mut self,
        frames: &mut [I::Packet],
        rows: &[Row<K>],
        progress: Progress,
    ) -> Run {
        let Self { snapshot, counters, tables, now, .. } = self;
        // what packets are written to might be any of this, for all that the compiler knows
        let (dests, cells) = (snapshot.dests.view(), snapshot.cells.view());
        let (counters, timeouts, now) = (&counters.dests[..], &snapshot.timeouts[..], *now);
        let (table, _) = K::tables(tables);
        let mut settled = Settled::NONE;
        let (mut count, mut bytes, mut device, mut goes_on) = (0, 0, DeviceId(Run::NOWHERE), false);
        for (frame, row) in frames.iter_mut().zip(rows) {
            let found = if AGAIN { once_more(table, row, progress) } else { row.found };
            let dest = found.meta.dest().0 as usize;
            let Some(Some(entry)) = dests.get(dest) else { break };
            if !row.noted.is_calm() || !entry.is_direct() || row.noted.ip_len() > entry.mtu {
                break;
            }
            let (Some(dst), Some(counted)) = (cells.known(entry.neighbor), counters.get(dest)) else { break };
            if settled.timeouts != u32::from(entry.timeouts) {
                let Some(table) = timeouts.get(usize::from(entry.timeouts)) else { break };
                settled = Settled::new(entry.timeouts, table, now);
            }
            let after = if row.noted.number() == PROTOCOL_TCP { settled.tcp } else { settled.udp };
            let frame = frame.bytes_mut();
            if frame.len() < K::HEAD {
                break;
            }
            if device != entry.device {
                goes_on = count > 0;
                if goes_on {
                    break;
                }
                device = entry.device;
            }
            let differs = found.meta.differs(after);
            if differs != 0 && !renew(table, &found, after, now) {
                break;
            }
            #[cfg(test)]
            super::tests::taken(0);
            count += 1;
            bytes += frame.len() as u64;
            K::step(frame);
            set_macs(frame, dst, raw_mac(entry.mac));
            counted.in_packets.add(1);
            counted.in_bytes.add(row.noted.ip_len().into());
        }
        Run { count, device, bytes, goes_on }
    }
}

/// Keeps what a connection is after a packet; packets of it behind that one give it the same word. `false`, unchanged:
/// more than its deadline changes, or it has passed.
#[inline(never)]
fn renew<K: Ends>(table: &mut Table<K>, found: &Found, after: Meta, now: Tick) -> bool {
    let renewed = found.meta.renewed(after, found.meta.differs(after), now);
    renewed.map(|meta| table.update(*found, meta)).is_some()
}

/// What a packet's connection is now, after others of its burst.
#[inline(never)]
fn once_more<K: Ends>(table: &Table<K>, row: &Row<K>, progress: Progress) -> Found {
    if !progress.fresh {
        table.find(&row.key, row.noted.number(), row.probe).unwrap_or(Found::NOTHING)
    } else if row.found.is_some() {
        table.again(row.found)
    } else {
        row.found
    }
}
