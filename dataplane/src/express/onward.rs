//! A client's packet of a known connection on its way to the server.

use lb_config::ClientAddress;

use super::ends::{Ends, raw_mac, set_macs};
use super::glance::{Facts, Packet};
use crate::conn::{Found, Meta, Pair};
use crate::drop_reason::DropReason;
use crate::flow::{peer_of, server_of};
use crate::io::{DeviceId, Packet as _, PacketIo};
use crate::local_port::forward;
use crate::parse::L4;
use crate::rewrite::{Translation, wrap_plain};
use crate::snapshot::{DestEntry, Route, Way};
use crate::state::{State, tcp};
use crate::steer;
use crate::transmit::Awaited;
use crate::worker::Worker;

/// Where a frame leaves and whom it is for; known, untagged.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    device: DeviceId,
    dst: u64,
    src: u64,
}

/// A rewritten packet: where it leaves, its connection, and what it made of that.
#[derive(Clone, Copy)]
pub(super) struct Going<'a, K> {
    pub exit: Exit,
    pub found: Found,
    pub key: &'a K,
    pub meta: Meta,
}

/// How far the third pass is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// What was looked up is still where it was: no packet has gone the other way, which may change the tables.
    pub fresh: bool,
    /// Entries of connections may be other ones than those that were looked up.
    pub disturbed: bool,
    /// What was not found then may be there by now: a bit for each of the first lines that have got a connection since.
    pub grown: u64,
}

impl Progress {
    /// Nothing has happened yet.
    pub const BEGUN: Self = Self { fresh: true, disturbed: false, grown: 0 };
    /// Anything may have.
    pub const UNSURE: Self = Self { fresh: false, disturbed: true, grown: u64::MAX };
}

impl<I: PacketIo> Worker<I> {
    /// Sends a packet on, or gives it back unchanged, when anything about it is unusual.
    #[inline(always)]
    pub(super) fn onward_plain<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        progress: &mut Progress,
    ) -> Result<(), I::Packet> {
        let facts = packet.facts();
        if facts.reply
            && let Some(at) = self.answered(packet)
        {
            return self.back_plain(frame, packet, at, progress);
        }
        let found = self.found_now(packet, progress);
        let Some(entry) = self.snapshot.dest(found.meta.dest()).filter(|_| found.is_some()) else {
            return Err(frame);
        };
        if found.meta.deadline().is_over(self.now) || entry.removed || found.meta.is_spliced() {
            return Err(frame);
        }
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
        if facts.ip_len > mtu {
            return Err(frame);
        }
        let done = match entry.way {
            Way::Dr => {
                K::step(frame.bytes_mut());
                true
            }
            Way::Nat => {
                let Some(dst) = server_of::<K>(entry, packet.key.vip_port()) else { return Err(frame) };
                let to = Translation { src: None, dst: Some(dst) };
                K::translate(frame.bytes_mut(), facts.protocol(), &to)
            }
            Way::Tunnel(at) => return self.tunnelled(frame, packet, at, (exit, found), progress),
            Way::FullNat(at) | Way::Snat(at) => match self.local_end(packet, entry, at) {
                Some(to) => K::translate(frame.bytes_mut(), facts.protocol(), &to),
                None => false,
            },
        };
        if !done {
            return Err(frame);
        }
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false));
        self.counters.inbound(found.meta.dest(), facts.ip_len);
        self.leave_plain(frame, Going { exit, found, key: packet.key, meta }, progress);
        Ok(())
    }

    /// What a packet's connection is by now.
    #[inline(always)]
    fn found_now<K: Ends>(&self, packet: &Packet<'_, K>, progress: &Progress) -> Found {
        let (table, _) = K::tables_ref(&self.tables);
        let found = packet.found();
        if !packet.fresh {
            table.find(packet.key, packet.facts().protocol() as u8, packet.probe()).unwrap_or(Found::NOTHING)
        } else if progress.disturbed && found.is_some() {
            // an earlier packet of the burst may have been of the same connection
            table.again(found)
        } else {
            found
        }
    }

    /// [`Worker::onward_plain`] for a tunnel.
    #[inline(never)]
    fn tunnelled<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        at: u16,
        (exit, found): (Exit, Found),
        progress: &mut Progress,
    ) -> Result<(), I::Packet> {
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        let meta = self.renewed(found.meta, entry, packet, (packet.key, false));
        self.counters.inbound(found.meta.dest(), packet.facts().ip_len);
        K::step(frame.bytes_mut());
        if self.wrap_plain(&mut frame, packet, at) {
            self.leave_plain(frame, Going { exit, found, key: packet.key, meta }, progress);
        } else {
            self.keep(found, packet.key, meta);
            progress.disturbed = true;
            self.counters.drop_packet(DropReason::NoBuffer);
        }
        Ok(())
    }

    /// Keeps what a packet made of its connection, gives it its MAC addresses, and puts it among those to be sent.
    #[inline(always)]
    pub(super) fn leave_plain<K: Ends>(
        &mut self,
        frame: I::Packet,
        Going { exit, found, key, meta }: Going<'_, K>,
        progress: &mut Progress,
    ) {
        if meta != found.meta {
            self.keep(found, key, meta);
            progress.disturbed = true;
        }
        self.go(exit, frame);
    }

    /// Gives a complete frame its addresses and puts it among those to be sent.
    #[inline(always)]
    pub(super) fn go(&mut self, exit: Exit, mut frame: I::Packet) {
        let bytes = frame.bytes_mut();
        set_macs(bytes, exit.dst, exit.src);
        let len = bytes.len();
        let full = match self.out.get_mut(usize::from(exit.device.0)) {
            Some(out) => out.push(frame, len),
            None => Err(frame),
        };
        if let Err(frame) = full {
            self.send(exit.device, frame);
        }
    }

    /// What the ends of a client's packet become where its connection has a local end; `None`: more than that is to be
    /// done with it.
    #[inline(always)]
    pub(super) fn local_end<K: Ends>(
        &self,
        packet: &Packet<'_, K>,
        entry: &DestEntry,
        at: u16,
    ) -> Option<Translation<K::Address>> {
        let (_, pairs) = K::tables_ref(&self.tables);
        let probe = pairs.probe_like(packet.probe());
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
    pub(super) fn wrap_plain<K: Ends>(
        &mut self,
        frame: &mut I::Packet,
        packet: &Packet<'_, K>,
        at: u16,
    ) -> bool {
        self.error_id = self.error_id.wrapping_add(1);
        let Some(encap) = self.snapshot.tunnels.get(usize::from(at)) else { return false };
        let hash =
            || steer::hash(packet.key.client().into(), packet.key.client_port(), &self.setup.steer_key);
        let hash = if encap.wants_hash() { hash() } else { 0 };
        wrap_plain(frame, encap, hash, self.error_id).is_some()
    }

    /// Where a destination's frames leave.
    #[inline(always)]
    pub(super) fn exit(&self, entry: &DestEntry) -> Option<Exit> {
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

    /// The entry after a packet, as [`Worker::next_meta`] gives it.
    #[inline(always)]
    pub(super) fn renewed<K: Ends>(
        &self,
        meta: Meta,
        entry: &DestEntry,
        packet: &Packet<'_, K>,
        (key, outbound): (&K, bool),
    ) -> Meta {
        match self.renewed_settled(meta, entry, &packet.facts(), outbound) {
            Some(meta) => meta,
            None => self.renewed_otherwise(meta, entry, packet, (key, outbound)),
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
    ) -> Meta {
        self.next_meta(key, meta, entry, (packet.facts().protocol(), packet.facts().event), outbound)
            .with_heard()
    }
}
