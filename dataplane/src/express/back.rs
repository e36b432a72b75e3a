//! A server's packet of a known connection on its way back to the client.

use lb_config::ClientAddress;

use super::ends::Ends;
use super::glance::{Packet, Second};
use crate::conn::Pair;
use crate::flow::Hit;
use crate::io::{Packet as _, PacketIo};
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Sends a reply on, or gives it back unchanged, when anything about it is unusual.
    #[inline(never)]
    pub(super) fn back_plain<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
    ) -> Result<(), I::Packet> {
        let protocol = packet.facts().protocol() as u8;
        let (table, pairs) = K::tables_ref(&self.tables);
        let at = match packet.second() {
            Second::Connection(pair, probe) if packet.fresh => Some((pairs.key(pair).other, probe)),
            _ if packet.fresh => None,
            _ => {
                let wanted = Pair::wanted(*packet.key);
                pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol)).map(|pair| {
                    let key = pairs.key(pair).other;
                    (key, table.probe(&key, protocol))
                })
            }
        };
        let Some((key, probe)) = at else { return Err(frame) };
        let Some(found) = table.find(&key, protocol, probe) else { return Err(frame) };
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        let told = entry.way.local_ends().is_some_and(|at| {
            found.meta.is_proxied() || self.tells(at, packet.facts().protocol()) != ClientAddress::None
        });
        if found.meta.deadline().left(self.now).is_none() || entry.removed || told || found.meta.is_spliced()
        {
            return Err(frame);
        }
        let Some((exit, mtu)) = self.exit_towards(key.client().into()) else { return Err(frame) };
        if packet.facts().ip_len > mtu {
            return Err(frame);
        }
        let to = Hit { found, key, entry: *entry }.back();
        if !K::translate(frame.bytes_mut(), packet.facts().protocol(), &to) {
            return Err(frame);
        }
        let meta = self.renewed(found.meta, entry, packet, (&key, true), &frame);
        self.keep::<K>(found, meta);
        self.counters.outbound(found.meta.dest(), packet.facts().ip_len);
        self.go(exit, frame);
        Ok(())
    }
}
