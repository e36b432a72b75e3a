//! NAT, full NAT, source NAT, both ways, a run of packets at a time; and direct routing where a connection's state changes.
//!
//! As in [`super::direct`] frames are rewritten where they are, and what is settled by direct routing is left to that. A
//! packet that a server or a template is to be told of goes the other way.

use std::net::IpAddr;

use lb_config::ClientAddress;

use super::direct::{Run, Settled};
use super::ends::{raw_mac, set_macs};
use super::glance::{Batch, Row, Second};
use super::onward::Progress;
use super::redirect::Redirect;
use super::step::{Counted, step};
use crate::conn::{Found, Pair};
use crate::flow::reply_tuple;
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::local_port::forward;
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
        batch: &Batch<K>,
        at: usize,
        progress: &mut Progress,
    ) -> Run {
        let rows = batch.rows().get(at..).unwrap_or_default();
        let run = self.direct(frames, rows, *progress);
        if run.count > 0 || run.goes_on || !progress.fresh {
            return run;
        }
        let seconds = batch.seconds.get(at..).unwrap_or_default();
        let is_known = rows.first().is_some_and(|row| row.noted.facts().steady)
            || matches!(seconds.first(), Some(Second::Connection(..)));
        if is_known { self.rewritten(frames, rows, seconds, progress) } else { run }
    }

    #[inline(never)]
    fn rewritten<K: Redirect>(
        &mut self,
        frames: &mut [I::Packet],
        rows: &[Row<K>],
        seconds: &[Second],
        progress: &mut Progress,
    ) -> Run {
        let Self { snapshot, counters, tables, now, guarded, .. } = self;
        let (snapshot, own, now): (&Snapshot, _, _) = (&**snapshot, &*counters.own, *now);
        let (dests, cells) = (snapshot.dests.view(), snapshot.cells.view());
        let (counters, timeouts, ends) =
            (&counters.dests[..], &snapshot.timeouts[..], &snapshot.local_ends[..]);
        let lives = |frame: &I::Packet| K::ttl_and_df(frame.bytes()).0 > 1;
        let asks_less = |entry: &DestEntry| {
            snapshot.policies.get(usize::from(entry.policy)).is_some_and(|service| service.mss.is_some())
        };
        let tells =
            |at: u16| ends.get(usize::from(at)).map_or(ClientAddress::None, |ends| ends.client_address);
        let (table, pairs) = K::tables(tables);
        let mut roads = Roads { snapshot, gateway: None };
        let mut settled = Settled::NONE;
        let mut run = Run::NONE;
        for (at, (frame, row)) in frames.iter_mut().zip(rows).enumerate() {
            let second = seconds.get(at).unwrap_or(&Second::No);
            let facts = row.noted.facts();
            let outbound = matches!(second, Second::Connection(..));
            // a client's first packet may be of a new connection, a server's is an answer
            if !facts.steady && !(outbound && facts.event == tcp::SYN && lives(frame)) {
                break;
            }
            let number = facts.number;
            let is_tcp = number == PROTOCOL_TCP;
            let mut key = row.key;
            let found = if let Second::Connection(pair, probe) = second {
                key = pairs.key(*pair).other;
                let mut found = Found::NOTHING;
                table.find_into(&key, number, *probe, &mut found);
                found
            } else if progress.disturbed && row.found.is_some() {
                table.again(row.found)
            } else {
                row.found
            };
            if !found.is_some() {
                break;
            }
            let dest = found.meta.dest().0 as usize;
            let (Some(Some(entry)), Some(counted)) = (dests.get(dest), counters.get(dest)) else { break };
            if entry.removed || !facts.steady && asks_less(entry) {
                break;
            }
            // what goes out is a reply of this
            let is_direct = entry.way == Way::Dr && !outbound;
            let tuple = match entry.way {
                Way::Dr if is_direct => key,
                _ if outbound => {
                    if let Some(at) = entry.way.local_ends()
                        && is_tcp
                        && tells(at) != ClientAddress::None
                    {
                        break;
                    }
                    key
                }
                Way::Nat => match reply_tuple(&key, entry) {
                    Some(tuple) => tuple,
                    None => break,
                },
                Way::FullNat(at) | Way::Snat(at) => {
                    let Second::Pair(probe) = *second else { break };
                    let Some(pair) = pairs.find(&Pair::wanted(key), forward(number), probe) else { break };
                    let tuple = pairs.key(pair).other;
                    if matches!(entry.way, Way::FullNat(_))
                        && (pair.meta.is_pair_proxied()
                            || is_tcp && tells(at) == ClientAddress::Toa && !pair.meta.answered())
                    {
                        break;
                    }
                    tuple
                }
                Way::Dr | Way::Tunnel(_) => break,
            };
            let by_route = outbound || matches!(entry.way, Way::Snat(_));
            let leave = if by_route {
                roads.towards(tuple.client().into())
            } else {
                Leave::to(entry, cells.known(entry.neighbor))
            };
            let Some(leave) = leave else { break };
            let bytes = frame.bytes_mut();
            if facts.ip_len > leave.mtu
                || bytes.len() < K::HEAD
                || !(is_direct || K::is_summed(bytes, number))
            {
                break;
            }
            if run.device != leave.device {
                run.goes_on = run.count > 0;
                if run.goes_on {
                    break;
                }
            }
            let Some(times) = timeouts.get(usize::from(entry.timeouts)) else { break };
            if settled.timeouts != u32::from(entry.timeouts) {
                settled = Settled::new(entry.timeouts, times, now);
            }
            let after = if is_tcp { settled.tcp } else { settled.udp };
            let differs = found.meta.differs(after);
            let calm = row.noted.is_calm() && !(outbound && found.meta.no_output());
            if calm && differs == 0 && is_direct && run.count > 0 {
                run.goes_on = true;
                break;
            }
            if !calm || differs != 0 {
                let renewed = if calm { found.meta.renewed(after, differs, now) } else { None };
                let meta = match renewed {
                    Some(meta) => meta,
                    None => {
                        let counted = Counted { dest: counted, own };
                        match step(found.meta, (facts.event, outbound), times, (now, *guarded), counted) {
                            Some(meta) => meta,
                            None => break,
                        }
                    }
                };
                table.update(found, meta);
                progress.disturbed = true;
            }
            #[cfg(test)]
            super::tests::taken(if is_direct { 0 } else { 1 + usize::from(outbound) });
            run.device = leave.device;
            run.count += 1;
            run.bytes += bytes.len() as u64;
            if is_direct {
                K::step(bytes);
            } else {
                K::redirect(bytes, number, &tuple);
            }
            set_macs(bytes, leave.dst, leave.src);
            if outbound {
                counted.out_packets.add(1);
                counted.out_bytes.add(facts.ip_len.into());
            } else {
                counted.in_packets.add(1);
                counted.in_bytes.add(facts.ip_len.into());
            }
        }
        run
    }
}
