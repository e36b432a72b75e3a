//! ICMP errors about the director's own tunnels: the client hears of them, as if the way were its own.
//!
//! IPVS does the same for IPv4 in IPv4 (`ip_vs_in_icmp`). What becomes of the frame is
//! [`crate::rewrite::tunnel::peel`]'s; here is whose it is: only an error about a packet that this director has
//! wrapped, for a connection that it has, to the server that the connection has.

use std::net::IpAddr;

use crate::conn::{Key4, Key6};
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::io::{Packet, PacketIo};
use crate::parse::{Inner, Parsed};
use crate::rewrite::tunnel::peel::{self, Client, Peeled};
use crate::snapshot::Way;
use crate::steer;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// What an ICMP error says about one of the director's tunnels, if it looks like one that does.
    ///
    /// Tunnels begin at the director's own addresses, which tells them from packets of services on virtual ones.
    pub(crate) fn about_tunnel(&self, frame: &I::Packet, parsed: &Parsed) -> Option<Peeled> {
        let is_own = |address: IpAddr| {
            let mut addresses = self.snapshot.links.iter().flat_map(|link| &link.addresses);
            addresses.any(|own| own.addr == address)
        };
        peel::peel(frame.bytes(), parsed).filter(|peeled| is_own(peeled.local))
    }

    /// Tells the client of what happened to its packet in a tunnel.
    pub(crate) fn tunnel_error(&mut self, frame: I::Packet, parsed: &Parsed, peeled: &Peeled, steered: bool) {
        match &peeled.client {
            Client::V4(flow) => self.relay_error::<Key4>(frame, parsed, peeled, flow, steered),
            Client::V6(flow) => self.relay_error::<Key6>(frame, parsed, peeled, flow, steered),
        }
    }

    /// `flow`: of the client's packet, to the virtual address.
    fn relay_error<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        peeled: &Peeled,
        flow: &Inner<K::Address>,
        steered: bool,
    ) {
        let Inner { src, dst, src_port, dst_port, protocol } = *flow;
        if !steered {
            let owner = steer::owner(src.into(), src_port, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        let hit = self.find(K::new(src, src_port, dst, dst_port), protocol as u8);
        let is_its_tunnel = hit.is_some_and(|hit| match hit.entry.way {
            Way::Tunnel(at) => peeled.is_of(&self.snapshot.tunnels[usize::from(at)]),
            _ => false,
        });
        if !is_its_tunnel {
            return self.counters.drop_packet(DropReason::IcmpErrorUnmatched);
        }
        let Some((hop, _)) = self.hop_towards(src.into()) else {
            return self.counters.drop_packet(DropReason::NoRoute);
        };
        self.error_id = self.error_id.wrapping_add(1);
        if peel::relay(&mut frame, parsed, peeled, self.error_id) {
            self.send_tagged(hop, parsed.vlan, frame);
        } else {
            // it is of no use to the client, who lets routers cut its packets
            self.counters.own.delivered.add(1);
        }
    }
}
