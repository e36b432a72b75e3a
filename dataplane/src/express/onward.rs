//! A client's packet of a known connection on its way to the server.

use lb_config::ClientAddress;

use super::ends::{Ends, set_macs};
use super::glance::{Packet, Second};
use crate::conn::{Meta, Pair, Probe};
use crate::drop_reason::DropReason;
use crate::flow::{peer_of, server_of};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::local_port::forward;
use crate::neighbor::Resolution;
use crate::parse::L4;
use crate::rewrite::{Translation, wrap};
use crate::snapshot::{DestEntry, Route, Way};
use crate::state::{State, tcp};
use crate::steer;
use crate::transmit::Awaited;
use crate::wire::{Mac, ethernet};
use crate::worker::Worker;

/// Where a frame leaves and whom it is for; known, untagged.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    device: DeviceId,
    dst: Mac,
    src: Mac,
}

impl<I: PacketIo> Worker<I> {
    /// Where the pair may be that says what the source of a client's packet becomes.
    #[inline(always)]
    pub(super) fn onward_probe<K: Ends>(&self, key: &K, protocol: L4) -> Probe {
        let (_, pairs) = K::tables_ref(&self.tables);
        pairs.probe(&Pair::wanted(*key), forward(protocol as u8))
    }

    /// Sends a packet on, or gives it back unchanged, when anything about it is unusual.
    #[inline(always)]
    pub(super) fn to_server<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
    ) -> Result<(), I::Packet> {
        let (table, _) = K::tables_ref(&self.tables);
        let found = if packet.fresh {
            packet.slot.found.map(|found| table.again(found))
        } else {
            table.find(packet.key, packet.slot.protocol as u8, packet.slot.probe)
        };
        let Some(found) = found else {
            return if packet.slot.reply { self.to_client(frame, packet) } else { Err(frame) };
        };
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        if found.meta.deadline().left(self.now).is_none() || entry.removed || found.meta.is_spliced() {
            return Err(frame);
        }
        if entry.way != Way::Dr {
            let entry = *entry;
            return self.to_server_otherwise(frame, packet, (found, &entry));
        }
        if packet.slot.ip_len > entry.mtu {
            return Err(frame);
        }
        let Some(exit) = self.exit(entry) else { return Err(frame) };
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
        self.keep::<K>(found, meta);
        self.counters.inbound(found.meta.dest(), packet.slot.ip_len);
        K::step(frame.bytes_mut());
        self.go(exit, frame);
        Ok(())
    }

    /// [`Worker::to_server`] for what is not direct routing.
    #[inline(always)]
    fn to_server_otherwise<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        (found, entry): (crate::conn::Found, &DestEntry),
    ) -> Result<(), I::Packet> {
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
        if packet.slot.ip_len > mtu {
            return Err(frame);
        }
        let to = match entry.way {
            Way::Tunnel(at) => {
                let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
                self.keep::<K>(found, meta);
                self.counters.inbound(dest, packet.slot.ip_len);
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
        if !K::translate(frame.bytes_mut(), packet.slot.protocol, &to) {
            return Err(frame);
        }
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false), &frame);
        self.keep::<K>(found, meta);
        self.counters.inbound(dest, packet.slot.ip_len);
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
        let probe = match packet.second {
            Second::Pair(probe) if packet.fresh && packet.slot.found.is_some() => probe,
            _ => self.onward_probe(packet.key, packet.slot.protocol),
        };
        let pair = pairs.find(&Pair::wanted(*packet.key), forward(packet.slot.protocol as u8), probe)?;
        let told = pair.meta.is_pair_proxied()
            || self.tells(at, packet.slot.protocol) == ClientAddress::Toa && !pair.meta.answered();
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
        match self.snapshot.cells.mac(entry.neighbor) {
            Resolution::Resolved(dst) if entry.vlan == 0 => {
                Some(Exit { device: entry.device, dst, src: entry.mac })
            }
            _ => None,
        }
    }

    /// Where frames to any address leave, and the largest IP packet there.
    #[inline(always)]
    pub(super) fn exit_towards(&self, address: std::net::IpAddr) -> Option<(Exit, u16)> {
        let Route::Via(link, neighbor) = self.snapshot.route(address) else { return None };
        let hop = self.snapshot.hop(link, neighbor);
        let Awaited::Neighbor(neighbor) = hop.to else { return None };
        match self.snapshot.cells.mac(neighbor) {
            Resolution::Resolved(dst) if hop.vlan == 0 => {
                let mtu = self.snapshot.links.get(usize::from(link.0))?.mtu;
                Some((Exit { device: hop.device, dst, src: hop.mac }, mtu))
            }
            _ => None,
        }
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
        // established and acknowledged stays established, whoever speaks, see the tables; so does UDP
        let state = match packet.slot.protocol {
            L4::Tcp if packet.slot.event == tcp::ACK && meta.is_settled(State::Established) => {
                State::Established
            }
            L4::Udp if meta.is_settled(State::Udp) => State::Udp,
            _ => return self.renewed_otherwise(meta, entry, packet, (key, outbound), frame),
        };
        let Some(timeouts) = self.snapshot.timeouts.get(usize::from(entry.timeouts)) else { return meta };
        let told = meta.heard() && (!outbound || !meta.no_output());
        if !told || timeouts.is_active(state) != meta.active() {
            return self.renewed_otherwise(meta, entry, packet, (key, outbound), frame);
        }
        meta.with_deadline(self.now.after(timeouts.of(state)))
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
