//! Direct routing and tunnels: packets of settled connections get other MAC addresses or outer headers, a run of them at
//! a time.
//!
//! Of such a packet nothing is kept but that it came: its connection's word is compared with what it would be after it,
//! and most often is that already. What its destination takes is in one cache line, see [`super::shortcut`].

use super::ends::Ends;
use super::glance::{Bare, Row, place};
use super::onward::Progress;
use super::shortcut::Class;
use crate::conn::simd::{Every, Level};
use crate::conn::{HashKey, Meta, Tick, View};
use crate::counters::DestCounters;
use crate::ids::DestId;
use crate::io::{DeviceId, Packet, PacketIo};
use crate::rewrite::wrap_grown;
use crate::snapshot::{Snapshot, Way};
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
    /// There was no second pass; where keys lie apart, it is known where one lies that looks right.
    pub const TABLE: u8 = 1;
    /// It may be another one by now.
    pub const AGAIN: u8 = 2;
}

/// Packets to be rewritten that are of one class, protocol and kind of connection: as many as are so from the first on.
/// `TUNNEL`: they go by tunnels.
struct Packets<'a, P, K: Ends, const FROM: u8, const TUNNEL: bool> {
    frames: &'a mut [P],
    rows: &'a [Row<K>],
    table: View<'a, K>,
    // what packets are written to might be any of this, for all that the compiler knows: so it is not looked for again
    dests: &'a [DestCounters],
    /// The class's stamp, and the largest packet.
    stamp: u32,
    limit: u32,
    /// What all of them are, and what that makes of their connections.
    what: Bare,
    after: Meta,
    now: Tick,
    progress: Progress,
    tunnels: Tunnels<'a>,
}

/// What packets by tunnel need beside.
struct Tunnels<'a> {
    snapshot: &'a Snapshot,
    key: &'a HashKey,
    id: &'a mut u16,
    grown: &'a mut u64,
}

impl<P: Packet, K: Ends, const FROM: u8, const TUNNEL: bool> Work for Packets<'_, P, K, FROM, TUNNEL> {
    /// How many.
    type Out = usize;

    #[inline(always)]
    fn run<L: Level>(self, level: L) -> usize {
        let Self { frames, rows, mut table, dests, stamp, limit, what, after, now, progress, mut tunnels } =
            self;
        let mut count = 0;
        for (frame, row) in frames.iter_mut().zip(rows) {
            let Some((at, meta)) = found::<K, L, FROM>(level, &table, row, progress) else { break };
            let dest = meta.dest();
            let Some(counted) = dests.get(dest.0 as usize) else { break };
            let ip_len = row.noted.ip_len_like(what);
            if counted.shortcut.stamp() != stamp || ip_len > u64::from(limit) {
                break;
            }
            let differs = meta.differs(after);
            if differs != 0 {
                let Some(meta) = meta.put_off(differs, now) else { break };
                let near = FROM == from::TABLE && !K::APART;
                table.update(if near { View::<K>::place(row.probe, at) } else { row.found.place() }, meta);
            }
            if TUNNEL {
                if !tunnels.wrap(frame, row, dest) {
                    break;
                }
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
            counted.in_bytes.add(ip_len);
        }
        count
    }
}

impl Tunnels<'_> {
    /// Puts a packet into its destination's tunnel; `false`, unchanged: there is none, or no room.
    #[inline(always)]
    fn wrap<P: Packet, K: Ends>(&mut self, frame: &mut P, row: &Row<K>, dest: DestId) -> bool {
        let Some(Way::Tunnel(at)) = self.snapshot.dest(dest).map(|entry| &entry.way) else { return false };
        let Some(encap) = self.snapshot.tunnels.get(usize::from(*at)) else { return false };
        let (len, overhead) = (frame.frame_len(), usize::from(encap.overhead()));
        if !frame.grow_front(overhead) {
            return false;
        }
        *self.id = self.id.wrapping_add(1);
        K::step(frame.bytes_mut().get_mut(overhead..).unwrap_or_default());
        let hash = || steer::hash(row.key.client().into(), row.key.client_port(), self.key);
        let hash = if encap.wants_hash() { hash() } else { 0 };
        let wrapped = wrap_grown(frame, encap, row.noted.ip_len() as u16, hash, *self.id);
        debug_assert!(wrapped.is_some(), "there is room, and it fits");
        *self.grown = self.grown.wrapping_add(frame.frame_len() as u64).wrapping_sub(len as u64);
        true
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
        self.direct_from::<K, { from::TABLE }, false>(frames, 0, Progress::BEGUN)
    }

    #[inline(never)]
    fn direct_from<K: Ends, const FROM: u8, const TUNNEL: bool>(
        &mut self,
        frames: &mut [I::Packet],
        at: usize,
        progress: Progress,
    ) -> Run {
        let Self { snapshot, counters, tables, now, board, shortcuts, setup, error_id, wide, .. } = self;
        let dests = &counters.dests[..];
        let (table, _) = K::tables(tables);
        let rows = K::batch(board).rows_from(at);
        let mut run = Run::NONE;
        while let (Some(row), Some(rest)) = (rows.get(run.count), frames.get_mut(run.count..)) {
            let Some((_, meta)) = found::<K, _, FROM>(Every, &table.view_mut(), row, progress) else { break };
            let Some(counted) = dests.get(meta.dest().0 as usize).filter(|_| !rest.is_empty()) else { break };
            let stamp = counted.shortcut.stamp();
            let Some(class) = shortcuts.class_of(stamp, snapshot, counters, meta.dest()) else { break };
            let limit = if TUNNEL { class.inner_mtu } else { class.mtu };
            if run.count > 0 && (class.device != run.device || limit == 0) {
                run.goes_on = true;
                break;
            }
            run.device = class.device;
            let after = if row.noted.is_calm_tcp() {
                class.tcp
            } else if row.noted.is_calm_udp() {
                class.udp
            } else {
                break;
            };
            let Some(after) = meta.like(after) else { break };
            let tunnels =
                Tunnels { snapshot, key: &setup.steer_key, id: &mut *error_id, grown: &mut run.grown };
            let count = wide.run(Packets::<I::Packet, K, FROM, TUNNEL> {
                frames: rest,
                rows: &rows[run.count..],
                table: table.view_mut(),
                dests,
                stamp: class.stamp,
                limit,
                what: row.noted.bare(),
                after,
                now: *now,
                progress,
                tunnels,
            });
            if count == 0 {
                break;
            }
            run.count += count;
        }
        run
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

/// The entry of a packet's connection, and of one that comes from the table where that is.
#[inline(always)]
fn found<K: Ends, L: Level, const FROM: u8>(
    level: L,
    table: &View<'_, K>,
    row: &Row<K>,
    progress: Progress,
) -> Option<(u8, Meta)> {
    match FROM {
        from::TABLE if K::APART => Some((0, table.near_at(level, &row.key, row.found.place())?)),
        from::TABLE => table.near(level, &row.key, row.probe),
        from::AGAIN => Some((0, once_more(table, row, progress))),
        _ => Some((0, row.found.meta)),
    }
}

/// What a packet's connection is now, after others of its burst; where it was found it is.
#[inline(never)]
fn once_more<K: Ends>(table: &View<'_, K>, row: &Row<K>, progress: Progress) -> Meta {
    let now = if !progress.fresh {
        table.find(&row.key, row.noted.number(), row.probe)
    } else if row.found.is_some() {
        table.again(row.found)
    } else {
        row.found
    };
    // one that is elsewhere by now goes the other way
    if now.place() == row.found.place() { now.meta } else { Meta::EMPTY }
}
