//! Direct routing and tunnels: packets of settled connections get other MAC addresses or outer headers, a run of them at
//! a time.
//!
//! Of such a packet nothing is kept but that it came: its connection's word is compared with what it would be after it,
//! and most often is that already. What its destination takes is in one cache line, see [`super::shortcut`].

use std::marker::PhantomData;

use super::ends::Ends;
use super::glance::{Row, place};
use super::onward::Progress;
use super::shortcut::Class;
use crate::conn::{Found, Meta, Tick, View};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::rewrite::wrap_grown;
use crate::snapshot::Way;
use crate::steer;
use crate::wide::Work;
use crate::worker::Worker;

/// The first packets of a burst that were rewritten: as many as leave by one device.
pub(super) struct Run {
    pub count: usize,
    pub device: DeviceId,
    /// Bytes by which their frames have grown, modulo 2^64.
    pub grown: u64,
    /// Behind them comes one that leaves by another device, or is of the other kind.
    pub goes_on: bool,
}

impl Run {
    pub const NONE: Self = Self { count: 0, device: Class::NONE.device, grown: 0, goes_on: false };
}

/// Where a packet's connection is to be had from.
mod from {
    /// The second pass has found it, and nothing has changed since.
    pub const FOUND: u8 = 0;
    /// There was no second pass.
    pub const TABLE: u8 = 1;
    /// It may be another one by now.
    pub const AGAIN: u8 = 2;
}

/// Packets to be rewritten, the first of which stands at `at`. `TUNNEL`: they go by tunnels.
struct Packets<'a, I: PacketIo, K, const FROM: u8, const TUNNEL: bool> {
    worker: &'a mut Worker<I>,
    frames: &'a mut [I::Packet],
    at: usize,
    progress: Progress,
    family: PhantomData<K>,
}

impl<I: PacketIo, K: Ends, const FROM: u8, const TUNNEL: bool> Work for Packets<'_, I, K, FROM, TUNNEL> {
    type Out = Run;

    #[inline(always)]
    fn run(self) -> Run {
        self.worker.direct_run::<K, FROM, TUNNEL>(self.frames, self.at, self.progress)
    }
}

impl<I: PacketIo> Worker<I> {
    /// Rewrites packets from the first on, which stands at `at`, until one of them goes otherwise, by another device, or
    /// is unusual in any way: that one is unchanged.
    #[inline(always)]
    pub(super) fn direct<K: Ends>(&mut self, frames: &mut [I::Packet], at: usize, progress: Progress) -> Run {
        let row = &K::batch(&self.board).rows[place(at)];
        // as the second pass saw it: what is wrong by now goes the other way, which looks again
        let stamp = match self.counters.dests.get(row.found.meta.dest().0 as usize) {
            Some(counted) if row.found.is_some() => counted.shortcut.stamp(),
            _ if progress.fresh => self.shortcuts.otherwise(),
            _ => Class::NONE.stamp,
        };
        if stamp == self.shortcuts.otherwise() || frames.is_empty() {
            return Run::NONE;
        }
        let tunnel = self.shortcuts.class(stamp).is_some_and(|class| class.inner_mtu > 0);
        match (tunnel, progress.disturbed) {
            (false, false) => self.direct_from::<K, { from::FOUND }, false>(frames, at, progress),
            (false, true) => self.direct_from::<K, { from::AGAIN }, false>(frames, at, progress),
            (true, false) => self.direct_from::<K, { from::FOUND }, true>(frames, at, progress),
            (true, true) => self.direct_from::<K, { from::AGAIN }, true>(frames, at, progress),
        }
    }

    /// [`Worker::direct`] of a burst without a second pass, for direct routing alone.
    #[inline(always)]
    pub(super) fn direct_at_once<K: Ends>(&mut self, frames: &mut [I::Packet]) -> Run {
        let progress = Progress { fresh: true, disturbed: false };
        self.direct_from::<K, { from::TABLE }, false>(frames, 0, progress)
    }

    #[inline(never)]
    fn direct_from<K: Ends, const FROM: u8, const TUNNEL: bool>(
        &mut self,
        frames: &mut [I::Packet],
        at: usize,
        progress: Progress,
    ) -> Run {
        let wide = self.wide;
        wide.run(Packets::<I, K, FROM, TUNNEL> { worker: self, frames, at, progress, family: PhantomData })
    }

    #[inline(always)]
    fn direct_run<K: Ends, const FROM: u8, const TUNNEL: bool>(
        &mut self,
        frames: &mut [I::Packet],
        at: usize,
        progress: Progress,
    ) -> Run {
        let Self { snapshot, counters, tables, now, board, shortcuts, setup, error_id, .. } = self;
        // what packets are written to might be any of this, for all that the compiler knows
        let (dests, entries, tunnels) = (&counters.dests[..], snapshot.dests.view(), &snapshot.tunnels[..]);
        let (now, mut id) = (*now, *error_id);
        let mut table = K::tables(tables).0.view_mut();
        let rows = K::batch(board).rows.get(at..).unwrap_or_default();
        let mut class = Class::NONE;
        let (mut count, mut grown, mut goes_on) = (0, 0u64, false);
        for (frame, row) in frames.iter_mut().zip(rows) {
            let found = match FROM {
                from::TABLE => match table.near(&row.key, row.probe) {
                    Some(found) => found,
                    None => break,
                },
                from::AGAIN => once_more(&table, row, progress),
                _ => row.found,
            };
            let dest = found.meta.dest();
            let Some(counted) = dests.get(dest.0 as usize) else { break };
            let stamp = counted.shortcut.stamp();
            if stamp != class.stamp {
                let Some(next) = shortcuts.class_of(stamp, snapshot, counters, dest) else { break };
                let limit = if TUNNEL { next.inner_mtu } else { next.mtu };
                if count > 0 && (next.device != class.device || limit == 0) {
                    goes_on = true;
                    break;
                }
                class = next;
            }
            let after = if row.noted.is_calm_tcp() {
                class.tcp
            } else if row.noted.is_calm_udp() {
                class.udp
            } else {
                break;
            };
            let ip_len = row.noted.ip_len();
            if ip_len > if TUNNEL { class.inner_mtu } else { class.mtu } {
                break;
            }
            if found.meta.differs(after) != 0 && !renew(&mut table, found.place(), (found.meta, after), now) {
                break;
            }
            if TUNNEL {
                let Some(Some(Way::Tunnel(tunnel))) = entries.get(dest.0 as usize).map(|e| e.map(|e| e.way))
                else {
                    break;
                };
                let Some(encap) = tunnels.get(usize::from(tunnel)) else { break };
                let (len, overhead) = (frame.frame_len(), usize::from(encap.overhead()));
                if !frame.grow_front(overhead) {
                    break;
                }
                id = id.wrapping_add(1);
                K::step(frame.bytes_mut().get_mut(overhead..).unwrap_or_default());
                let hash = || steer::hash(row.key.client().into(), row.key.client_port(), &setup.steer_key);
                let hash = if encap.wants_hash() { hash() } else { 0 };
                let wrapped = wrap_grown(frame, encap, ip_len, hash, id);
                debug_assert!(wrapped.is_some(), "there is room, and it fits");
                grown = grown.wrapping_add(frame.frame_len() as u64).wrapping_sub(len as u64);
                put_macs(frame.bytes_mut(), counted.shortcut.macs());
            } else {
                let bytes = frame.bytes_mut();
                // it was looked at in the first pass; said again, so that nothing need be asked below
                if bytes.len() < K::HEAD {
                    break;
                }
                K::step(bytes);
                put_macs(bytes, counted.shortcut.macs());
            }
            #[cfg(test)]
            super::tests::taken(if TUNNEL { 1 } else { 0 });
            count += 1;
            counted.in_packets.add(1);
            counted.in_bytes.add(ip_len.into());
        }
        *error_id = id;
        Run { count, device: class.device, grown, goes_on }
    }
}

/// Writes both MAC addresses as they lie in a frame.
#[inline(always)]
fn put_macs(frame: &mut [u8], (first, second): (u64, u32)) {
    if let Some(head) = frame.first_chunk_mut::<12>() {
        if let Some(bytes) = head.first_chunk_mut::<8>() {
            *bytes = first.to_le_bytes();
        }
        if let Some(bytes) = head.last_chunk_mut::<4>() {
            *bytes = second.to_le_bytes();
        }
    }
}

/// Keeps what a connection is after a packet; packets of it behind that one give it the same word. `false`, unchanged:
/// more than its deadline changes, or it has passed.
#[inline(never)]
fn renew<K: Ends>(table: &mut View<'_, K>, at: (u32, u8), (meta, after): (Meta, Meta), now: Tick) -> bool {
    let renewed = meta.renewed(after, meta.differs(after), now);
    renewed.map(|meta| table.update(at, meta)).is_some()
}

/// What a packet's connection is now, after others of its burst.
#[inline(never)]
fn once_more<K: Ends>(table: &View<'_, K>, row: &Row<K>, progress: Progress) -> Found {
    if !progress.fresh {
        table.find(&row.key, row.noted.number(), row.probe)
    } else if row.found.is_some() {
        table.again(row.found)
    } else {
        row.found
    }
}
