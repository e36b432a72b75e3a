//! A client's packet of a known connection on its way to the server.

use lb_config::ClientAddress;

use super::ends::{Ends, raw_mac, set_macs};
use super::glance::{Facts, Packet, Second};
use crate::conn::{Found, Meta, Pair, Probe};
use crate::drop_reason::DropReason;
use crate::flow::{peer_of, server_of};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::local_port::forward;
use crate::parse::L4;
use crate::rewrite::{Translation, wrap};
use crate::snapshot::{DestEntry, Route, Way};
use crate::state::{State, tcp};
use crate::steer;
use crate::transmit::Awaited;
use crate::wire::ethernet;
use crate::worker::Worker;

/// Where a frame leaves and whom it is for; known, untagged.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    device: DeviceId,
    dst: u64,
    src: u64,
}

/// How far the third pass is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// What was looked up is still where it was: no packet has gone the other way, which may change the tables.
    pub fresh: bool,
    /// Entries of connections may be other ones than those that were looked up.
    pub disturbed: bool,
}

impl<I: PacketIo> Worker<I> {
    /// Where the pair may be that says what the source of a client's packet becomes.
    #[inline(always)]
    pub(super) fn onward_probe<K: Ends>(&self, key: &K, protocol: L4) -> Probe {
        let (_, pairs) = K::tables_ref(&self.tables);
        pairs.probe(&Pair::wanted(*key), forward(protocol as u8))
    }

    /// Sends a packet on, or gives it back unchanged, when anything about it is unusual.
    #[inline(never)]
    pub(super) fn onward_plain<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
    ) -> Result<(), I::Packet> {
        let (table, _) = K::tables_ref(&self.tables);
        let found = if packet.fresh {
            packet.found()
        } else {
            table.find(packet.key, packet.facts().protocol() as u8, packet.probe()).unwrap_or(Found::NOTHING)
        };
        if !found.is_some() {
            return if packet.facts().reply { self.back_plain(frame, packet) } else { Err(frame) };
        }
        // an earlier packet of the burst may have been of the same connection
        let found = table.again(found);
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        if found.meta.deadline().left(self.now).is_none() || entry.removed || found.meta.is_spliced() {
            return Err(frame);
        }
        if entry.way != Way::Dr {
            return self.onward_otherwise(frame, packet, found);
        }
        if packet.facts().ip_len > entry.mtu {
            return Err(frame);
        }
        let Some(exit) = self.exit(entry) else { return Err(frame) };
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
        self.keep::<K>(found, meta);
        self.counters.inbound(found.meta.dest(), packet.facts().ip_len);
        K::step(frame.bytes_mut());
        self.go(exit, frame);
        Ok(())
    }

    /// [`Worker::onward_plain`] for what is not direct routing.
    #[inline(never)]
    fn onward_otherwise<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        found: Found,
    ) -> Result<(), I::Packet> {
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        let dest = found.meta.dest();
        let (exit, mtu) = match entry.way {
            Way::Snat(_) => match self.exit_towards(packet.key.vip().into()) {
                Some(exit) => exit,
                None => return Err(frame),
            },
            _ => match self.exit(entry) {
                Some(exit) => (exit, entry.mtu),
                None => return Err(frame),
            },
        };
        if packet.facts().ip_len > mtu {
            return Err(frame);
        }
        let to = match entry.way {
            Way::Tunnel(at) => {
                let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
                self.keep::<K>(found, meta);
                self.counters.inbound(dest, packet.facts().ip_len);
                K::step(frame.bytes_mut());
                if self.wrap_plain(&mut frame, packet, at) {
                    self.go(exit, frame);
                } else {
                    self.counters.drop_packet(DropReason::NoBuffer);
                }
                return Ok(());
            }
            Way::Nat => {
                let Some(dst) = server_of::<K>(entry, packet.key.vip_port()) else { return Err(frame) };
                Translation { src: None, dst: Some(dst) }
            }
            Way::FullNat(at) | Way::Snat(at) => match self.local_end(packet, entry, at) {
                Some(to) => to,
                None => return Err(frame),
            },
            Way::Dr => return Err(frame),
        };
        if !K::translate(frame.bytes_mut(), packet.facts().protocol(), &to) {
            return Err(frame);
        }
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
        self.keep::<K>(found, meta);
        self.counters.inbound(dest, packet.facts().ip_len);
        self.go(exit, frame);
        Ok(())
    }

    /// What the ends of a client's packet become where its connection has a local end; `None`: more than that is to be
    /// done with it.
    #[inline(always)]
    fn local_end<K: Ends>(
        &self,
        packet: &Packet<'_, K>,
        entry: &DestEntry,
        at: u16,
    ) -> Option<Translation<K::Address>> {
        let (_, pairs) = K::tables_ref(&self.tables);
        let probe = match packet.second() {
            Second::Pair(probe) if packet.fresh => probe,
            _ => self.onward_probe(packet.key, packet.facts().protocol()),
        };
        let pair = pairs.find(&Pair::wanted(*packet.key), forward(packet.facts().protocol() as u8), probe)?;
        let told = pair.meta.is_pair_proxied()
            || self.tells(at, packet.facts().protocol()) == ClientAddress::Toa && !pair.meta.answered();
        let is_full = matches!(entry.way, Way::FullNat(_));
        if is_full && told {
            return None;
        }
        let reply = pairs.key(pair).other;
        let dst = if is_full { Some(peer_of(packet.key, entry)?) } else { None };
        Some(Translation { src: Some((reply.vip(), reply.vip_port())), dst })
    }

    /// Puts a packet into a tunnel. `false`: no room.
    #[inline(always)]
    fn wrap_plain<K: Ends>(&mut self, frame: &mut I::Packet, packet: &Packet<'_, K>, at: u16) -> bool {
        self.error_id = self.error_id.wrapping_add(1);
        let Some(encap) = self.snapshot.tunnels.get(usize::from(at)) else { return false };
        let hash =
            || steer::hash(packet.key.client().into(), packet.key.client_port(), &self.setup.steer_key);
        let hash = if encap.wants_hash() { hash() } else { 0 };
        wrap(frame, ethernet::HEADER_LEN, encap, hash, self.error_id).is_some()
    }

    /// Where a destination's frames leave.
    #[inline(always)]
    fn exit(&self, entry: &DestEntry) -> Option<Exit> {
        let dst = self.snapshot.cells.known(entry.neighbor).filter(|_| entry.vlan == 0)?;
        Some(Exit { device: entry.device, dst, src: raw_mac(entry.mac) })
    }

    /// Where frames to any address leave, and the largest IP packet there.
    #[inline(always)]
    pub(super) fn exit_towards(&self, address: std::net::IpAddr) -> Option<(Exit, u16)> {
        let Route::Via(link, neighbor) = self.snapshot.route(address) else { return None };
        let hop = self.snapshot.hop(link, neighbor);
        let Awaited::Neighbor(neighbor) = hop.to else { return None };
        let dst = self.snapshot.cells.known(neighbor).filter(|_| hop.vlan == 0)?;
        let mtu = self.snapshot.links.get(usize::from(link.0))?.mtu;
        Some((Exit { device: hop.device, dst, src: raw_mac(hop.mac) }, mtu))
    }

    /// Gives a complete frame its addresses and puts it among those to be sent.
    #[inline(always)]
    pub(super) fn go(&mut self, exit: Exit, mut frame: I::Packet) {
        set_macs(frame.bytes_mut(), exit.dst, exit.src);
        self.send(exit.device, frame);
    }

    /// The entry after a packet, as [`Worker::next_meta`] gives it.
    #[inline(always)]
    pub(super) fn renewed<K: Ends>(
        &self,
        meta: Meta,
        entry: &DestEntry,
        packet: &Packet<'_, K>,
        (key, outbound): (&K, bool),
        frame: &I::Packet,
    ) -> Meta {
        match self.renewed_settled(meta, entry, &packet.facts(), outbound) {
            Some(meta) => meta,
            None => self.renewed_otherwise(meta, entry, packet, (key, outbound), frame),
        }
    }

    /// [`Worker::renewed`] of a connection whose packets change nothing but its deadline; `None`: of another one.
    #[inline(always)]
    pub(super) fn renewed_settled(
        &self,
        meta: Meta,
        entry: &DestEntry,
        facts: &Facts,
        outbound: bool,
    ) -> Option<Meta> {
        // established and acknowledged stays established, whoever speaks, see the tables; so does UDP
        let state = match facts.protocol() {
            L4::Tcp if facts.event == tcp::ACK && meta.is_settled(State::Established) => State::Established,
            L4::Udp if meta.is_settled(State::Udp) => State::Udp,
            _ => return None,
        };
        let timeouts = self.snapshot.timeouts.get(usize::from(entry.timeouts))?;
        if !meta.heard() || outbound && meta.no_output() || timeouts.is_active(state) != meta.active() {
            return None;
        }
        Some(meta.with_deadline(self.now.later(timeouts.of(state))))
    }

    #[inline(never)]
    fn renewed_otherwise<K: Ends>(
        &self,
        meta: Meta,
        entry: &DestEntry,
        packet: &Packet<'_, K>,
        (key, outbound): (&K, bool),
        frame: &I::Packet,
    ) -> Meta {
        self.next_meta(key, meta, entry, &packet.flow(frame.bytes()), outbound).with_heard()
    }
}
