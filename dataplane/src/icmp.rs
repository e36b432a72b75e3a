//! ICMP errors about balanced packets: they find the connection by what they quote, and go where the packet came from.
//!
//! An error about a packet to a client is the server's (IPVS: `ip_vs_in_icmp`), one about a packet to a NATed server
//! is the client's (`ip_vs_out_icmp`); both may carry the path's MTU.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit};
use crate::io::{Packet, PacketIo};
use crate::parse::{Icmp, Inner, Parsed};
use crate::rewrite::{self, ErrorTranslation, Towards, Translation};
use crate::snapshot::Way;
use crate::steer;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// An ICMP error that was sent to this station.
    pub(crate) fn icmp_error<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        steered: bool,
    ) {
        let Some(inner) = &icmp.inner else {
            return self.refuse(icmp.dst.into(), DropReason::IcmpErrorUnmatched);
        };
        let Inner { src, dst, src_port, dst_port, protocol } = *inner;
        let about_reply = !self.snapshot.is_nat_server(dst.into(), dst_port, protocol as u8);
        if !steered {
            let (client, port) = if about_reply { (dst, dst_port) } else { (src, src_port) };
            let owner = steer::owner(client.into(), port, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        // either way the client's end of the quoted packet comes second in the tuple, the other end first or last
        let hit = if about_reply {
            self.find(K::new(dst, dst_port, src, src_port), protocol as u8)
        } else {
            self.find_reply(K::new(dst, dst_port, src, src_port), protocol as u8)
        };
        let Some(hit) = hit else {
            return self.refuse(icmp.dst.into(), DropReason::IcmpErrorUnmatched);
        };
        if about_reply {
            self.error_to_server(frame, parsed, icmp, &hit);
        } else {
            self.error_to_client(frame, parsed, icmp, &hit);
        }
    }

    /// The living connection with this key.
    fn find<K: Family>(&mut self, key: K, protocol: u8) -> Option<Hit<K>> {
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
        hit: &Hit<K>,
    ) {
        let entry = &hit.entry;
        let Some(cut) = self.may_pass(&mut frame, parsed, entry.mtu, Towards::Server) else { return };
        let counters = &self.counters.dests[hit.found.meta.dest().0 as usize];
        counters.in_packets.add(1);
        counters.in_bytes.add(u64::from(icmp.ip_len));
        let mut limit = entry.mtu;
        match entry.way {
            Way::Dr => {}
            Way::Nat => {
                let port = if entry.port == 0 { hit.key.vip_port() } else { entry.port };
                let server = K::address(entry.address);
                let quoted = Translation { src: server.map(|server| (server, port)), dst: None };
                let to = ErrorTranslation { src: None, dst: server, quoted };
                if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
                    return self.counters.drop_packet(DropReason::IcmpTruncated);
                }
            }
            Way::Tunnel(at) => match self.wrap(&mut frame, parsed, at) {
                Some(link_mtu) => limit = link_mtu,
                None => return,
            },
        }
        self.leave(frame, parsed, entry.hop(), cut.then_some(limit));
    }

    /// The client has never heard of the server: it sees an error about its packet to the VIP, from the VIP.
    fn error_to_client<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        hit: &Hit<K>,
    ) {
        let client: IpAddr = hit.key.client().into();
        let Some((hop, mtu)) = self.hop_towards(client) else {
            return self.counters.drop_packet(DropReason::NoRoute);
        };
        let Some(cut) = self.may_pass(&mut frame, parsed, mtu, Towards::Client) else { return };
        let counters = &self.counters.dests[hit.found.meta.dest().0 as usize];
        counters.out_packets.add(1);
        counters.out_bytes.add(u64::from(icmp.ip_len));
        let vip = (hit.key.vip(), hit.key.vip_port());
        let quoted = Translation { src: None, dst: Some(vip) };
        let to = ErrorTranslation { src: Some(vip.0), dst: None, quoted };
        if !rewrite::translate_error(frame.bytes_mut(), parsed.l3, icmp, &to) {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        }
        self.leave(frame, parsed, hop, cut.then_some(mtu));
    }
}
