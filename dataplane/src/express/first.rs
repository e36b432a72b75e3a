//! A plain packet without a connection: admitted as any, and sent on as those of known connections are.

use super::ends::Ends;
use super::glance::Packet;
use crate::classify::Lookup;
use crate::drop_reason::DropReason;
use crate::flow::server_of;
use crate::io::{Packet as _, PacketIo};
use crate::parse::Flow;
use crate::rewrite::Translation;
use crate::snapshot::{DestEntry, Way};
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// What is other than it was as soon as a connection was entered or removed.
    #[inline(always)]
    pub(super) fn entered<K: Ends>(&self) -> [u64; 5] {
        let (table, pairs) = K::tables_ref(&self.tables);
        let own = &self.counters.own;
        [own.inserted.get(), table.len().into(), table.moved(), pairs.len().into(), pairs.moved()]
    }

    /// Admits a packet and sends it on, as [`Worker::flow`] does; gives it back, and has changed nothing, when it has a
    /// connection or is a server's reply. `admitted`: it has got its share of the worker's time.
    #[inline(never)]
    pub(super) fn first_plain<K: Ends>(
        &mut self,
        frame: I::Packet,
        packet: &Packet<'_, K>,
        admitted: bool,
    ) -> Result<(), I::Packet> {
        let facts = packet.facts();
        let (table, _) = K::tables_ref(&self.tables);
        let known = if packet.fresh {
            packet.found().is_some()
        } else {
            table.find(packet.key, facts.protocol() as u8, packet.probe()).is_some()
        };
        if known || facts.reply {
            return Err(frame);
        }
        let flow = packet.flow(frame.bytes());
        // the control core's and the kernel's own, whatever the load
        if self.is_bfd(&flow) || self.is_control(&flow) {
            return Err(frame);
        }
        if !admitted && !self.flood.shedding.admits(flow.is_syn()) {
            self.counters.drop_packet(DropReason::Overload);
            return Ok(());
        }
        let lookup = Lookup::of(&flow, frame.device(), 0);
        match self.admit(*packet.key, &lookup, Some(&flow), packet.probe()) {
            Ok((dest, entry)) => {
                self.counters.inbound(dest, flow.ip_len);
                if let Err(frame) = self.first_onward(frame, packet, &flow, &entry) {
                    self.forward::<K>(frame, &packet.parsed(flow), &flow, &entry);
                }
            }
            Err(refusal) => self.turn_away(frame, &packet.parsed(flow), refusal),
        }
        Ok(())
    }

    /// Sends it on; gives it back, but for the segment size that it may ask for, when anything about that is unusual.
    #[inline(always)]
    fn first_onward<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) -> Result<(), I::Packet> {
        if flow.ttl <= 1 || flow.ip_len > entry.mtu {
            return Err(frame);
        }
        let Some(exit) = self.exit(entry) else { return Err(frame) };
        let to = match entry.way {
            Way::Dr | Way::Tunnel(_) => None,
            Way::Nat => match server_of::<K>(entry, flow.dst_port) {
                Some(dst) => Some(Translation { src: None, dst: Some(dst) }),
                None => return Err(frame),
            },
            Way::FullNat(at) => match self.local_end(packet, entry, at) {
                Some(to) => Some(to),
                None => return Err(frame),
            },
            Way::Snat(_) => return Err(frame),
        };
        self.clamp(&mut frame, flow, entry);
        match to {
            Some(to) if !K::translate(frame.bytes_mut(), flow.protocol, &to) => return Err(frame),
            Some(_) => {}
            None => K::step(frame.bytes_mut()),
        }
        #[cfg(test)]
        super::tests::taken(3);
        if let Way::Tunnel(at) = entry.way
            && !self.wrap_plain(&mut frame, packet, at)
        {
            self.counters.drop_packet(DropReason::NoBuffer);
            return Ok(());
        }
        self.go(exit, frame);
        Ok(())
    }
}
