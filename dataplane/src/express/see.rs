//! The first pass over a burst: what its frames are, and whose connections are asked for.

use std::marker::PhantomData;

use super::ends::Ends;
use super::glance::place;
use super::{Burden, Kind, Seen};
use crate::conn::simd::Level;
use crate::conn::{Key4, Key6};
use crate::io::{Burst, DeviceId, Packet, PacketIo};
use crate::parse::parse;
use crate::steer;
use crate::wide::Work;
use crate::worker::Worker;

/// What frames of one device must carry to be seen.
pub(crate) struct Gate {
    pub device: DeviceId,
    /// The director's MAC address as it lies in memory behind two zero bytes; no frame has it when untagged frames have no port.
    pub mac: u64,
}

impl Gate {
    /// The address stands in the upper 48 bits.
    pub const NONE: u64 = u64::MAX;

    /// A MAC address as [`Gate::mac`] has it.
    #[inline(always)]
    pub fn raw([a, b, c, d, e, f]: [u8; 6]) -> u64 {
        u64::from_le_bytes([0, 0, a, b, c, d, e, f])
    }

    /// EtherType and the byte behind it of a frame to this device's MAC address.
    #[inline(always)]
    pub fn kind(&self, frame: &[u8]) -> u32 {
        let Some(head) = frame.first_chunk::<16>() else { return 0 };
        let to = head.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let kind = head.last_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
        if to << 16 == self.mac { kind & 0x00ff_ffff } else { 0 }
    }
}

/// As [`Gate::kind`] gives it: EtherType 0x0800, version 4, a header of five words.
pub(super) const IPV4: u32 = 0x0045_0008;
/// EtherType 0x86dd and version 6; beside it four bits of the traffic class.
pub(super) const IPV6: u32 = 0x0060_dd86;
pub(super) const TRAFFIC_CLASS: u32 = 0x000f_0000;
/// The first byte of the EtherType alone.
const ETHER_TYPE_V6: u8 = 0x86;

/// The first pass over the rest of a burst from place `from` on, as far as its packets are calm ones of a family. `MORE`:
/// the burst has a burden.
struct See<'a, I: PacketIo, K, const MORE: bool> {
    worker: &'a mut Worker<I>,
    burst: &'a Burst<I::Packet>,
    burden: &'a Burden,
    gate: &'a Gate,
    from: usize,
    family: PhantomData<K>,
}

impl<I: PacketIo, K: Ends, const MORE: bool> Work for See<'_, I, K, MORE> {
    /// Where they end, and their bytes.
    type Out = (usize, u64);

    #[inline(always)]
    fn run<L: Level>(self, level: L) -> (usize, u64) {
        let Self { worker, burst, burden, gate, from, .. } = self;
        let Some(looks) = K::looks(gate.mac) else { return (from, 0) };
        let (table, _) = K::tables_ref(&worker.tables);
        let prober = table.prober();
        let (_, batch) = K::batch_mut(&mut worker.board);
        let frames = burst.get(from..).unwrap_or_default();
        let (mut count, mut bytes) = (0, 0);
        for (frame, row) in frames.iter().zip(&mut batch.rows[place(from)..]) {
            if MORE && burden.mixed && frame.device() != gate.device {
                break;
            }
            // at once, so that it need not be kept in a register
            bytes += frame.frame_len() as u64;
            if !K::note_calm(level, frame.bytes(), &looks, row, &prober) {
                bytes -= frame.frame_len() as u64;
                break;
            }
            if !MORE {
                prober.prefetch(row.probe);
            }
            count += 1;
        }
        (from + count, bytes)
    }
}

impl<I: PacketIo> Worker<I> {
    /// The gate of a device, which lets nothing through where there is no express path.
    fn gate(&self, device: DeviceId) -> Gate {
        if self.express { self.own_gate(device) } else { Gate { device, mac: Gate::NONE } }
    }

    /// The gate of a device's own MAC address.
    pub(super) fn own_gate(&self, device: DeviceId) -> Gate {
        let open = self.snapshot.link(device, 0).is_some();
        let mac = match self.setup.devices.get(usize::from(device.0)) {
            Some(setup) if open => Gate::raw(setup.mac),
            _ => Gate::NONE,
        };
        Gate { device, mac }
    }

    /// The first pass: runs of calm packets of a family, and what is between them.
    #[inline(never)]
    pub(super) fn see(&mut self, burst: &Burst<I::Packet>, burden: &Burden) -> Seen {
        if burden.mixed {
            // another core had them
            burst.iter().for_each(|frame| frame.prefetch_head());
        }
        burst.iter().for_each(|frame| frame.prefetch());
        let mut seen = Seen::default();
        let Some(first) = burst.first() else { return seen };
        let mut gate = self.gate(first.device());
        let mut at = 0;
        while at < burst.len() {
            let before = at;
            let is_v6 = burst.get(at).is_some_and(|frame| frame.bytes().get(12) == Some(&ETHER_TYPE_V6));
            at = if is_v6 {
                self.see_run::<Key6>(burst, burden, &gate, &mut seen, at)
            } else {
                self.see_run::<Key4>(burst, burden, &gate, &mut seen, at)
            };
            if at == before {
                at = self.see_others(burst, burden, &mut gate, &mut seen, at);
            }
        }
        seen
    }

    /// Calm packets of a family from `from` on; their connections are asked for. Returns where they end.
    #[inline(always)]
    fn see_run<K: Ends>(
        &mut self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        gate: &Gate,
        seen: &mut Seen,
        from: usize,
    ) -> usize {
        let (wide, more) = (self.wide, burden.is_any());
        let (worker, family) = (self, PhantomData);
        let (to, bytes) = if more {
            wide.run(See::<I, K, true> { worker: &mut *worker, burst, burden, gate, from, family })
        } else {
            wide.run(See::<I, K, false> { worker: &mut *worker, burst, burden, gate, from, family })
        };
        seen.bytes += bytes;
        let (kinds, _) = K::batch_mut(&mut worker.board);
        kinds.get_mut(from..to).unwrap_or_default().fill(K::KIND);
        worker.note_burden::<K>(burst, burden, seen, (from, to));
        to
    }

    /// Frames from `from` on of which the first is not calm, or of another device than the one before. Returns where
    /// they end, which is behind it.
    #[inline(never)]
    fn see_others(
        &mut self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        gate: &mut Gate,
        seen: &mut Seen,
        from: usize,
    ) -> usize {
        let Some(frame) = burst.get(from) else { return from + 1 };
        if burden.mixed && frame.device() != gate.device {
            *gate = self.gate(frame.device());
        }
        let bytes = frame.bytes();
        let mut kind = gate.kind(bytes);
        if kind == 0
            && gate.mac != Gate::NONE
            && let Some(mac) = bytes.first_chunk::<6>()
            && (self.snapshot.shared.takes(gate.device, bytes) || self.is_own_mac(gate.device, mac))
        {
            // where one comes more do: a virtual router's, or the port's own again
            gate.mac = Gate::raw(*mac);
            kind = gate.kind(bytes);
        }
        let to = match kind {
            IPV4 => self.note_run::<Key4>(burst, burden, gate, seen, from),
            kind if kind & !TRAFFIC_CLASS == IPV6 => self.note_run::<Key6>(burst, burden, gate, seen, from),
            _ => from,
        };
        if to == from {
            seen.bytes += frame.frame_len() as u64;
            self.read(bytes, from);
            return from + 1;
        }
        to
    }

    fn is_own_mac(&self, device: DeviceId, mac: &[u8; 6]) -> bool {
        self.setup.devices.get(usize::from(device.0)).is_some_and(|setup| setup.mac == *mac)
    }

    /// A frame that is not plain.
    #[inline(never)]
    fn read(&mut self, bytes: &[u8], at: usize) {
        let parsed = parse(bytes);
        let probe = self.fetch_ahead(&parsed);
        self.board.kinds[place(at)] = Kind::Other;
        self.board.others[place(at)] = (parsed, probe);
    }

    /// What there is to be seen of plain packets beside their flows.
    #[inline(always)]
    pub(super) fn note_burden<K: Ends>(
        &mut self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        seen: &mut Seen,
        (from, to): (usize, usize),
    ) {
        if burden.foreign | burden.absent {
            return (from..to).for_each(|at| self.see_more::<K>(burst, burden, seen, at));
        }
        if burden.is_any() {
            self.note_ways::<K>(burden, from, to);
        }
        *K::count(seen) += to - from;
    }

    /// [`Worker::note_more`] of a frame of the burst.
    #[inline(always)]
    fn see_more<K: Ends>(&mut self, burst: &Burst<I::Packet>, burden: &Burden, seen: &mut Seen, at: usize) {
        if let Some(frame) = burst.get(at) {
            self.note_more::<K>(frame.bytes(), burden, seen, at);
        }
    }

    /// Where packets may be replies, and nothing else: what each is looked up by first is asked for, its pair or its
    /// connection.
    #[inline(never)]
    fn note_ways<K: Ends>(&mut self, burden: &Burden, from: usize, to: usize) {
        let Self { snapshot, tables, board, .. } = self;
        let (table, pairs) = K::tables_ref(tables);
        let (_, batch) = K::batch_mut(board);
        for row in batch.rows.get_mut(from..to).unwrap_or_default() {
            if burden.replies && snapshot.may_be_reply(row.key.client().into(), row.key.vip().into()) {
                row.noted.set_reply();
                pairs.prefetch(pairs.probe_like(row.probe));
            } else {
                table.prefetch(row.probe);
            }
        }
    }

    /// Where a packet may be another worker's, or for an address that another director has.
    #[inline(never)]
    fn note_more<K: Ends>(&mut self, bytes: &[u8], burden: &Burden, seen: &mut Seen, at: usize) {
        let row = K::batch(&self.board).rows[place(at)];
        let (key, number) = (row.key, row.noted.number());
        let (client, vip) = ((key.client().into(), key.client_port()), (key.vip().into(), key.vip_port()));
        if burden.absent && self.snapshot.shared.is_absent(vip.0) || burden.foreign && !key.may_send() {
            return self.read(bytes, at);
        }
        if burden.foreign {
            // whose it is must not depend on a hint
            let is_reply = burden.replies
                && self.snapshot.may_be_reply(client.0, vip.0)
                && self.snapshot.is_reply(client, vip.0, number);
            let end = if is_reply { vip } else { client };
            let owner = steer::owner(end.0, end.1, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                self.board.kinds[place(at)] = Kind::Foreign;
                self.board.owners[place(at)] = owner;
                seen.foreign += 1;
                return;
            }
        }
        self.note_ways::<K>(burden, at, at + 1);
        *K::count(seen) += 1;
    }
}
