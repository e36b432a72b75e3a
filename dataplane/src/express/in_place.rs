//! NAT, full NAT, source NAT, both ways, a run of packets at a time; and direct routing where a connection's state changes.
//!
//! As in [`super::direct`] frames are rewritten where they are, and what is settled by direct routing is left to that. A
//! packet that a server or a template is to be told of goes the other way.
//!
//! Runs took a quarter to a third of the instructions away (`lb-bench instructions` counts them).

use std::net::IpAddr;

use super::both_ways::Turn;
use super::direct::Run;
use super::ends::{raw_mac, set_macs};
use super::onward::Progress;
use super::redirect::Redirect;
use super::step::{Counted, Settled, step};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::snapshot::{DestEntry, Route, Snapshot, Way};
use crate::state::tcp;
use crate::transmit::Awaited;
use crate::wire::PROTOCOL_TCP;
use crate::worker::Worker;

/// Where a frame leaves, and the largest IP packet there.
#[derive(Clone, Copy)]
struct Leave {
    device: DeviceId,
    mtu: u16,
    dst: u64,
    src: u64,
}

impl Leave {
    /// Towards a destination whose MAC address is `station`.
    #[inline(always)]
    fn to(entry: &DestEntry, station: Option<u64>) -> Option<Self> {
        let dst = station.filter(|_| entry.vlan == 0)?;
        Some(Self { device: entry.device, mtu: entry.mtu, dst, src: raw_mac(entry.mac) })
    }
}

/// The ways to any address, of which the gateway's is asked for once.
struct Roads<'a> {
    snapshot: &'a Snapshot,
    gateway: Option<Option<Leave>>,
}

impl Roads<'_> {
    #[inline(always)]
    fn towards(&mut self, address: IpAddr) -> Option<Leave> {
        if self.snapshot.own_network(address).is_some() {
            return road(self.snapshot, address);
        }
        match self.gateway {
            Some(gateway) => gateway,
            None => {
                let gateway = road(self.snapshot, address);
                self.gateway = Some(gateway);
                gateway
            }
        }
    }
}

#[inline(never)]
fn road(snapshot: &Snapshot, address: IpAddr) -> Option<Leave> {
    let Route::Via(link, neighbor) = snapshot.route(address) else { return None };
    let hop = snapshot.hop(link, neighbor);
    let Awaited::Neighbor(neighbor) = hop.to else { return None };
    let dst = snapshot.cells.known(neighbor).filter(|_| hop.vlan == 0)?;
    let mtu = snapshot.links.get(usize::from(link.0))?.mtu;
    Some(Leave { device: hop.device, mtu, dst, src: raw_mac(hop.mac) })
}

impl<I: PacketIo> Worker<I> {
    /// Rewrites packets in place from the one at `at` on, until one of them goes otherwise, by another device, or is
    /// unusual in any way: that one is unchanged.
    #[inline(always)]
    pub(super) fn in_place<K: Redirect>(
        &mut self,
        frames: &mut [I::Packet],
        at: usize,
        progress: &mut Progress,
    ) -> Run {
        let run = self.direct::<K>(frames, at, *progress);
        if run.count > 0 || run.goes_on || !progress.fresh || frames.is_empty() {
            return run;
        }
        let batch = K::batch(&self.board);
        if batch.seconds_from(at).first().is_some_and(|second| second.turn != Turn::Other) {
            self.turned::<K>(frames, at, progress)
        } else if batch
            .rows_from(at)
            .first()
            .is_some_and(|row| row.noted.facts().steady && row.found.is_some())
        {
            self.stepped::<K>(frames, at, progress)
        } else {
            run
        }
    }

    /// Of packets with other ends.
    #[inline(never)]
    fn turned<K: Redirect>(&mut self, frames: &mut [I::Packet], at: usize, progress: &mut Progress) -> Run {
        // other directors hear of such a change where all are told of
        let told = self.teller.feeds.is_some();
        let Self { snapshot, counters, tables, now, guarded, board, .. } = self;
        let (rows, seconds) = (K::batch(board).rows_from(at), K::batch(board).seconds_from(at));
        let (snapshot, own, now): (&Snapshot, _, _) = (&**snapshot, &*counters.own, *now);
        let (dests, cells) = (snapshot.dests.view(), snapshot.cells.view());
        let (counters, timeouts) = (&counters.dests[..], &snapshot.timeouts[..]);
        let (table, _) = K::tables(tables);
        let mut roads = Roads { snapshot, gateway: None };
        let mut settled = Settled::NONE;
        let mut run = Run::NONE;
        for ((frame, row), second) in frames.iter_mut().zip(rows).zip(seconds) {
            let facts = row.noted.facts();
            let back = second.turn == Turn::Back;
            if second.turn == Turn::Other {
                break;
            }
            let found = if progress.disturbed { table.again(row.found) } else { row.found };
            let dest = found.meta.dest().0 as usize;
            let (Some(Some(entry)), Some(counted)) = (dests.get(dest), counters.get(dest)) else { break };
            let bytes = frame.bytes_mut();
            if entry.removed || !found.is_some() || !K::is_summed(bytes, facts.number) {
                break;
            }
            // a client's first packet may be of a new connection, a server's is an answer
            let is_usual = facts.steady
                || back && facts.event == tcp::SYN && is_plain_answer::<K>(bytes, snapshot, entry);
            if !is_usual {
                break;
            }
            let leave = if back || matches!(entry.way, Way::Snat(_)) {
                roads.towards(second.tuple.client().into())
            } else {
                Leave::to(entry, cells.known(entry.neighbor))
            };
            let Some(leave) = leave else { break };
            if facts.ip_len > leave.mtu {
                break;
            }
            if run.device != leave.device {
                run.goes_on = run.count > 0;
                if run.goes_on {
                    break;
                }
            }
            if settled.timeouts != u32::from(entry.timeouts) {
                let Some(times) = timeouts.get(usize::from(entry.timeouts)) else { break };
                settled = Settled::new(entry.timeouts, times, now);
            }
            let after = if facts.number == PROTOCOL_TCP { settled.tcp } else { settled.udp };
            let differs = found.meta.differs(after);
            let calm = row.noted.is_calm() && !(back && found.meta.no_output());
            if !calm || differs != 0 {
                let Some(times) = timeouts.get(usize::from(entry.timeouts)) else { break };
                let renewed = if calm { found.meta.renewed(after, now) } else { None };
                let counted = Counted { dest: counted, own };
                let next = || step(found.meta, (facts.event, back), times, (now, *guarded), counted);
                let Some(meta) = renewed.or_else(|| if told { None } else { next() }) else { break };
                table.update(found, meta);
                progress.disturbed = true;
            }
            #[cfg(test)]
            super::tests::taken(1 + usize::from(back));
            run.device = leave.device;
            run.count += 1;
            K::redirect(bytes, facts.number, &second.tuple);
            set_macs(bytes, leave.dst, leave.src);
            if back {
                counted.out_packets.add(1);
                counted.out_bytes.add(facts.ip_len.into());
            } else {
                counted.in_packets.add(1);
                counted.in_bytes.add(facts.ip_len.into());
            }
        }
        run
    }

    /// Of packets by direct routing, until one changes nothing: such a run is [`super::direct`]'s.
    #[inline(never)]
    fn stepped<K: Redirect>(&mut self, frames: &mut [I::Packet], at: usize, progress: &mut Progress) -> Run {
        if self.teller.feeds.is_some() {
            return Run::NONE;
        }
        let Self { snapshot, counters, tables, now, guarded, board, .. } = self;
        let rows = K::batch(board).rows_from(at);
        let (own, now) = (&*counters.own, *now);
        let (table, _) = K::tables(tables);
        let mut run = Run::NONE;
        for (frame, row) in frames.iter_mut().zip(rows) {
            let facts = row.noted.facts();
            let found =
                if progress.disturbed && row.found.is_some() { table.again(row.found) } else { row.found };
            let Some(entry) = snapshot.dest(found.meta.dest()) else { break };
            if !facts.steady || !found.is_some() || !entry.is_direct() || facts.ip_len > entry.mtu {
                break;
            }
            let Some(leave) = Leave::to(entry, snapshot.cells.known(entry.neighbor)) else { break };
            let (Some(times), Some(dest)) = (
                snapshot.timeouts.get(usize::from(entry.timeouts)),
                counters.dests.get(found.meta.dest().0 as usize),
            ) else {
                break;
            };
            run.goes_on = run.count > 0 && run.device != leave.device;
            if run.goes_on {
                break;
            }
            let counted = Counted { dest, own };
            let Some(meta) = step(found.meta, (facts.event, false), times, (now, *guarded), counted) else {
                break;
            };
            if meta != found.meta {
                table.update(found, meta);
                progress.disturbed = true;
            }
            #[cfg(test)]
            super::tests::taken(0);
            let bytes = frame.bytes_mut();
            run.device = leave.device;
            run.count += 1;
            K::step(bytes);
            set_macs(bytes, leave.dst, leave.src);
            dest.in_packets.add(1);
            dest.in_bytes.add(facts.ip_len.into());
            if meta == found.meta {
                // the next ones may be as settled
                run.goes_on = true;
                break;
            }
        }
        run
    }
}

/// Whether the first packet that a server sends may go on as any other.
#[inline(never)]
fn is_plain_answer<K: Redirect>(frame: &[u8], snapshot: &Snapshot, entry: &DestEntry) -> bool {
    let service = snapshot.policies.get(usize::from(entry.policy));
    K::ttl_and_df(frame).0 > 1 && service.is_none_or(|service| service.mss.is_none())
}
