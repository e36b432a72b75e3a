//! ICMP errors about balanced packets: they find the connection by what they quote, and go where the packet came from.
//!
//! An error about a packet to a client is the server's (IPVS: `ip_vs_in_icmp`), one about a packet to a NATed server
//! is the client's (`ip_vs_out_icmp`); both may carry the path's MTU.

use crate::classify::Lookup;
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit, peer_of};
use crate::ids::DestId;
use crate::io::{Packet, PacketIo};
use crate::parse::{Icmp, Inner, Parsed};
use crate::rewrite::{self, ErrorTranslation, Translation};
use crate::snapshot::{DestEntry, Way};
use crate::steer;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// An ICMP error that was sent to this station.
    pub(crate) fn icmp_error<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        steered: bool,
    ) {
        if let Some(peeled) = self.about_tunnel(&frame, parsed) {
            return self.tunnel_error(frame, parsed, &peeled, steered);
        }
        let Some(inner) = &icmp.inner else {
            return self.exceptional(frame, parsed, DropReason::IcmpErrorUnmatched);
        };
        let Inner { src, dst, src_port, dst_port, protocol } = *inner;
        // the quoted packet, turned round, is what its receiver would send
        let about_reply = !self.snapshot.is_reply((dst.into(), dst_port), src.into(), protocol as u8);
        if !steered {
            let (client, port) = if about_reply { (dst, dst_port) } else { (src, src_port) };
            let owner = steer::owner(client.into(), port, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        // turned round it is a server's reply, or else a client's packet; servers by NAT may be private hosts too
        let tuple = K::new(dst, dst_port, src, src_port);
        let asked = if about_reply { None } else { self.find_reply(tuple, protocol as u8) };
        if let Some(hit) = asked {
            return self.error_to_client(frame, parsed, icmp, &hit);
        }
        match self.find(tuple, protocol as u8) {
            Some(hit) => {
                // a server believes errors about what it has sent (RFC 5927 section 4.1)
                if let Some(delta) = self.spliced_delta(hit.found.meta, hit.key) {
                    rewrite::renumber_error(frame.bytes_mut(), parsed.l3, icmp, |n| n.wrapping_sub(delta));
                }
                self.error_to_server(frame, parsed, icmp, &hit.key, hit.found.meta.dest(), &hit.entry);
            }
            None if about_reply && self.snapshot.policy.schedule_icmp => {
                self.error_of_nobody::<K>(frame, parsed, icmp, inner);
            }
            None => self.exceptional(frame, parsed, DropReason::IcmpErrorUnmatched),
        }
    }

    /// An error about a packet of no connection begins one, if its client's packet would have (`schedule_icmp`):
    /// hashing schedulers choose the server that sent the quoted packet before the director forgot of it.
    ///
    /// A refusal has no answer: errors are not answered.
    #[cold]
    fn error_of_nobody<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        inner: &Inner<K::Address>,
    ) {
        let lookup = Lookup {
            src: inner.dst.into(),
            dst: inner.src.into(),
            src_port: inner.dst_port,
            dst_port: inner.src_port,
            protocol: inner.protocol,
            device: frame.device(),
            vlan: parsed.vlan,
        };
        let key = K::new(inner.dst, inner.dst_port, inner.src, inner.src_port);
        let protocol = inner.protocol as u8;
        let table = K::tables(&mut self.tables).0;
        let probe = table.probe(&key, protocol);
        if let Some(over) = table.find(&key, protocol, probe) {
            self.forget(over, key);
        }
        match self.admit(key, &lookup, None, probe) {
            Ok((dest, entry)) => self.error_to_server(frame, parsed, icmp, &key, dest, &entry),
            Err(refusal) if matches!(refusal.reason, DropReason::NotForUs | DropReason::NoService) => {
                self.exceptional(frame, parsed, DropReason::IcmpErrorUnmatched);
            }
            Err(refusal) => self.counters.drop_packet(refusal.reason),
        }
    }

    /// The living connection with this key.
    pub(crate) fn find<K: Family>(&mut self, key: K, protocol: u8) -> Option<Hit<K>> {
        let table = K::tables(&mut self.tables).0;
        let found = table.find(&key, protocol, table.probe(&key, protocol))?;
        found.meta.deadline().left(self.now)?;
        let entry = *self.snapshot.dest(found.meta.dest())?;
        Some(Hit { found, key, entry })
    }

    fn error_to_server<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        key: &K,
        dest: DestId,
        entry: &DestEntry,
    ) {
        if let Way::Snat(_) = entry.way {
            return self.error_out(frame, parsed, icmp, key, dest);
        }
        let Some(cut) = self.may_reach(&mut frame, parsed, entry) else { return };
        self.counters.inbound(dest, icmp.ip_len);
        let mut limit = entry.mtu;
        match entry.way {
            Way::Dr => {}
            Way::Nat => {
                let server = peer_of(key, entry);
                let quoted = Translation { src: server, dst: None };
                let to = ErrorTranslation { src: None, dst: server.map(|(address, _)| address), quoted };
                if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
                    return self.counters.drop_packet(DropReason::IcmpTruncated);
                }
            }
            Way::FullNat(_) => {
                let protocol = icmp.inner.map_or(0, |inner| inner.protocol as u8);
                let (Some(server), Some((_, reply))) = (peer_of(key, entry), self.local_of(*key, protocol))
                else {
                    return self.counters.drop_packet(DropReason::IcmpErrorUnmatched);
                };
                // the server knows of no client: the error too comes from the local end
                let end = (reply.vip(), reply.vip_port());
                let quoted = Translation { src: Some(server), dst: Some(end) };
                let to = ErrorTranslation { src: Some(end.0), dst: Some(server.0), quoted };
                if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
                    return self.counters.drop_packet(DropReason::IcmpTruncated);
                }
            }
            // went its way above
            Way::Snat(_) => return,
            Way::Tunnel(at) => match self.wrap(&mut frame, parsed, at) {
                Some(link_mtu) => limit = link_mtu,
                None => return,
            },
        }
        self.leave(frame, parsed, entry.hop(), cut.then_some(limit));
    }

    /// A private host complains about the world's reply: the world hears of it from the local end.
    fn error_out<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        key: &K,
        dest: DestId,
    ) {
        let Some((hop, cut)) = self.way_back(&mut frame, parsed, key.vip().into()) else { return };
        self.counters.inbound(dest, icmp.ip_len);
        let protocol = icmp.inner.map_or(0, |inner| inner.protocol as u8);
        let Some((_, reply)) = self.local_of(*key, protocol) else {
            return self.counters.drop_packet(DropReason::IcmpErrorUnmatched);
        };
        let end = (reply.vip(), reply.vip_port());
        let quoted = Translation { src: None, dst: Some(end) };
        let to = ErrorTranslation { src: Some(end.0), dst: None, quoted };
        if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        }
        self.leave(frame, parsed, hop, cut);
    }

    /// The client has never heard of the server: it sees an error about its packet to the VIP, from the VIP.
    fn error_to_client<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        hit: &Hit<K>,
    ) {
        let client = hit.key.client().into();
        let Some((hop, cut)) = self.way_back(&mut frame, parsed, client) else { return };
        self.counters.outbound(hit.found.meta.dest(), icmp.ip_len);
        let back = hit.back();
        let quoted = Translation { src: back.dst, dst: back.src };
        // of the world's routers a private host may know: traceroute shows them
        let src = if let Way::Snat(_) = hit.entry.way { None } else { back.src.map(|end| end.0) };
        let to = ErrorTranslation { src, dst: back.dst.map(|end| end.0), quoted };
        if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        }
        // a client believes errors about what it has sent (RFC 5927 section 4.1)
        if let Some(number) = self.quoted_number(hit) {
            rewrite::renumber_error(frame.bytes_mut(), parsed.l3, icmp, number);
        }
        self.leave(frame, parsed, hop, cut);
    }
}
