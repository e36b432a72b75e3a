//! A server's packet of a known connection on its way back to the client.

use lb_config::ClientAddress;

use super::ends::Ends;
use super::glance::Packet;
use super::onward::{Going, Progress};
use crate::conn::{Pair, Probe};
use crate::io::{Packet as _, PacketIo};
use crate::rewrite::Translation;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// The key of the connection that a packet is a reply of, and where that is.
    #[inline(always)]
    pub(super) fn answered<K: Ends>(&self, packet: &Packet<'_, K>) -> Option<(K, Probe)> {
        let (table, pairs) = K::tables_ref(&self.tables);
        let (wanted, protocol) = (Pair::wanted(*packet.key), packet.facts().number);
        let pair = pairs.find(&wanted, protocol, pairs.probe_like(packet.probe()))?;
        let key = pairs.key(pair).other;
        Some((key, table.probe(&key, protocol)))
    }

    /// Sends a reply on, or gives it back unchanged, when anything about it is unusual.
    #[inline(never)]
    pub(super) fn back_plain<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        packet: &Packet<'_, K>,
        (key, probe): (K, Probe),
        progress: &mut Progress,
    ) -> Result<(), I::Packet> {
        let facts = packet.facts();
        let (table, _) = K::tables_ref(&self.tables);
        let Some(found) = table.find(&key, facts.protocol() as u8, probe) else { return Err(frame) };
        let Some(entry) = self.snapshot.dest(found.meta.dest()) else { return Err(frame) };
        if found.meta.deadline().is_over(self.now) || entry.removed || found.meta.is_spliced() {
            return Err(frame);
        }
        let Some((exit, mtu)) = self.exit_towards(key.client().into()) else { return Err(frame) };
        if facts.ip_len > mtu {
            return Err(frame);
        }
        let src = Some((key.vip(), key.vip_port()));
        let done = match entry.way.local_ends() {
            None => K::translate(frame.bytes_mut(), facts.protocol(), &Translation { src, dst: None }),
            Some(at) => {
                if found.meta.is_proxied() || self.tells(at, facts.protocol()) != ClientAddress::None {
                    return Err(frame);
                }
                let dst = Some((key.client(), key.client_port()));
                K::translate(frame.bytes_mut(), facts.protocol(), &Translation { src, dst })
            }
        };
        if !done {
            return Err(frame);
        }
        let meta = self.renewed(found.meta, entry, packet, (&key, true));
        self.counters.outbound(found.meta.dest(), facts.ip_len);
        self.leave_plain(frame, Going { exit, found, key: &key, meta }, progress);
        Ok(())
    }
}
