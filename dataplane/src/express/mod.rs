//! The express path: plain packets of known connections, a burst at a time.
//!
//! Three passes over a burst, so that no packet waits for memory that could have been asked for before:
//! - a `glance` at every frame: its flow, and the connection's line is asked for;
//! - the connection is looked up, and what it leads to is asked for: a destination, a pair, or of a server's reply the
//!   connection itself (`both_ways`). Of a burst in which nothing but direct routing has been seen so far this is left to
//!   the third;
//! - packet after packet is judged (`direct`, `in_place`, `onward`, `back`, and `opening` or `first` if it has no
//!   connection), rewritten in place (`ends`, `redirect`) and put among those to be sent.
//!
//! The first pass and direct routing are compiled twice ([`crate::wide`]).
//!
//! Only what is plainly the usual case goes this way: `glance` says which frames, `onward` and `back` which
//! connections. Everything else is parsed and goes the way of [`crate::receive`], in its turn. Invariant: nothing that
//! can be seen from outside depends on which way a packet went, except that its frame comes sooner; the tests send the
//! same frames through workers with and without.

use std::marker::PhantomData;

use crate::conn::simd::Level;
use crate::conn::{Key4, Key6, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::parse::{Parsed, parse};
use crate::prefetch;
use crate::receive::Origin;
use crate::steer;
use crate::wide::Work;
use crate::worker::Worker;

mod back;
mod both_ways;
mod direct;
mod ends;
mod first;
mod glance;
mod in_place;
mod onward;
mod opening;
mod redirect;
mod reply_ends;
mod shortcut;
mod step;
mod suspect;
#[cfg(test)]
mod tests;

pub use reply_ends::ReplyEnds;
pub(crate) use shortcut::Shortcuts;
pub use shortcut::{NextStamp, Shortcut};

use direct::Run;
use ends::Ends;
use glance::{Batch, place};
use onward::Progress;
use opening::Openings;
use redirect::Redirect;

/// What a burst's first pass makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not plain.
    Other,
    V4,
    V6,
    /// Another worker's.
    Foreign,
}

/// What is known of a burst's frames, each in its place. Kept from burst to burst because it need not be made anew.
pub(crate) struct Board {
    kinds: [Kind; BURST],
    v4: Batch<Key4>,
    v6: Batch<Key6>,
    /// Whose the foreign ones are.
    owners: [WorkerId; BURST],
    /// What the parser said of those that are not plain.
    others: [(Result<Parsed, DropReason>, Probe); BURST],
}

impl Default for Board {
    fn default() -> Self {
        Self {
            kinds: [Kind::Other; BURST],
            v4: Batch::new(),
            v6: Batch::new(),
            owners: [WorkerId(0); BURST],
            others: [(Err(DropReason::EthernetTruncated), Probe::default()); BURST],
        }
    }
}

/// How many frames of a burst are what, and how long they are together.
#[derive(Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    v4: usize,
    v6: usize,
}

/// What frames of one device must carry to be seen.
struct Gate {
    device: DeviceId,
    /// The director's MAC address as it lies in memory behind two zero bytes; no frame has it when untagged frames have no port.
    mac: u64,
}

impl Gate {
    /// The address stands in the upper 48 bits.
    const NONE: u64 = u64::MAX;

    /// A MAC address as [`Gate::mac`] has it.
    #[inline(always)]
    fn raw([a, b, c, d, e, f]: [u8; 6]) -> u64 {
        u64::from_le_bytes([0, 0, a, b, c, d, e, f])
    }

    /// EtherType and the byte behind it of a frame to this device's MAC address.
    #[inline(always)]
    fn kind(&self, frame: &[u8]) -> u32 {
        let Some(head) = frame.first_chunk::<16>() else { return 0 };
        let to = head.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let kind = head.last_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
        if to << 16 == self.mac { kind & 0x00ff_ffff } else { 0 }
    }
}

/// As [`Gate::kind`] gives it: EtherType 0x0800, version 4, a header of five words.
const IPV4: u32 = 0x0045_0008;
/// EtherType 0x86dd and version 6; beside it four bits of the traffic class.
const IPV6: u32 = 0x0060_dd86;
const TRAFFIC_CLASS: u32 = 0x000f_0000;
/// The first byte of the EtherType alone.
const ETHER_TYPE_V6: u8 = 0x86;

/// What is the same for all packets of a burst.
#[derive(Clone, Copy)]
struct Burden {
    /// Flows in it may be other workers'.
    foreign: bool,
    /// Frames may be of several devices.
    mixed: bool,
    /// Servers' replies pass the director.
    replies: bool,
    /// Some address is another director's.
    absent: bool,
}

impl Burden {
    /// Whether a packet must be looked at for more than its connection.
    #[inline(always)]
    fn is_any(&self) -> bool {
        self.foreign | self.mixed | self.replies | self.absent
    }
}

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
    /// The same worker, whose every packet is parsed and judged alone: for tests and benchmarks that compare.
    pub fn without_express(mut self) -> Self {
        self.express = false;
        self
    }

    /// Takes in a burst. Returns its size.
    pub(crate) fn process(&mut self, burst: &mut Burst<I::Packet>, origin: Origin) -> usize {
        let frames = burst.len();
        let Some(first) = burst.first() else { return 0 };
        let device = first.device();
        let burden = Burden {
            foreign: origin == Origin::Device && self.setup.workers > 1,
            mixed: origin == Origin::Worker,
            replies: self.snapshot.has_replies(),
            absent: self.absent,
        };
        self.shortcuts.refresh(&self.snapshot, &self.counters, self.now);
        let seen = self.see(burst, &burden);
        if origin != Origin::Worker
            && let Some(received) = self.counters.devices.get(usize::from(device.0))
        {
            received.rx_bytes.add(seen.bytes);
        }
        if seen.v4 == frames {
            self.act_alike::<Key4>(burst, &seen, &burden);
        } else if seen.v6 == frames {
            self.act_alike::<Key6>(burst, &seen, &burden);
        } else {
            self.act(burst, &burden, origin);
        }
        frames
    }

    /// The gate of a device.
    fn gate(&self, device: DeviceId) -> Gate {
        let open = self.express && self.snapshot.link(device, 0).is_some();
        let mac = match self.setup.devices.get(usize::from(device.0)) {
            Some(setup) if open => Gate::raw(setup.mac),
            _ => Gate::NONE,
        };
        Gate { device, mac }
    }

    /// The first pass: runs of calm packets of a family, and what is between them.
    #[inline(never)]
    fn see(&mut self, burst: &Burst<I::Packet>, burden: &Burden) -> Seen {
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

    /// Plain frames of a family from `from` on, to the first of them that is calm: their flows, whose connections are
    /// asked for, or their owners. Returns where they end; they are of the gate's device.
    #[inline(never)]
    fn note_run<K: Ends>(
        &mut self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        gate: &Gate,
        seen: &mut Seen,
        from: usize,
    ) -> usize {
        let more = burden.is_any();
        let (table, _) = K::tables_ref(&self.tables);
        let (kinds, batch) = K::batch_mut(&mut self.board);
        let places = batch.rows[place(from)..].iter_mut().zip(&mut kinds[place(from)..]);
        let mut to = from;
        for (frame, (row, kind)) in burst.get(from..).unwrap_or_default().iter().zip(places) {
            if burden.mixed && frame.device() != gate.device {
                break;
            }
            let bytes = frame.bytes();
            let is_kind = match (K::KIND, gate.kind(bytes)) {
                (Kind::V4, found) => found == IPV4,
                (_, found) => found & !TRAFFIC_CLASS == IPV6,
            };
            let Some((key, noted)) = K::glance(bytes).filter(|_| is_kind) else { break };
            seen.bytes += frame.frame_len() as u64;
            let probe = table.probe(&key, noted.number());
            if !more {
                table.prefetch(probe);
            }
            (row.key, row.noted, row.probe) = (key, noted, probe);
            *kind = K::KIND;
            to += 1;
            if noted.is_calm() {
                break;
            }
        }
        self.note_burden::<K>(burst, burden, seen, (from, to));
        to
    }

    /// What there is to be seen of plain packets beside their flows.
    #[inline(always)]
    fn note_burden<K: Ends>(
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
                return;
            }
        }
        self.note_ways::<K>(burden, at, at + 1);
        *K::count(seen) += 1;
    }

    /// The second pass, over a family's packets from place `from` to before `to`.
    #[inline(always)]
    fn look<K: Ends>(&mut self, burden: &Burden, from: usize, to: usize) {
        if burden.replies {
            return self.look_both_ways::<K>(from, to);
        }
        let (table, _) = K::tables_ref(&self.tables);
        let dests = &self.counters.dests[..];
        let (kinds, batch) = K::batch_mut(&mut self.board);
        let range = from.min(BURST)..to.min(BURST);
        batch.two_ways = false;
        for (row, kind) in batch.rows[range.clone()].iter_mut().zip(&kinds[range]) {
            if *kind == K::KIND {
                table.find_into(&row.key, row.noted.number(), row.probe, &mut row.found);
                prefetch::place(dests, row.found.meta.dest().0 as usize);
            }
        }
    }

    /// The second and third pass.
    #[inline(never)]
    fn act(&mut self, burst: &mut Burst<I::Packet>, burden: &Burden, origin: Origin) {
        self.look::<Key4>(burden, 0, burst.len());
        self.look::<Key6>(burden, 0, burst.len());
        let mut progress = Progress::BEGUN;
        for (at, kind) in self.board.kinds.iter().enumerate().take(burst.len()) {
            if let (Kind::Other, (parsed, probe)) = (kind, &self.board.others[place(at)]) {
                self.fetch_spilled(parsed, *probe);
            }
        }
        for (at, frame) in burst.drain(..).enumerate() {
            match self.board.kinds[place(at)] {
                Kind::V4 => self.express::<Key4>(frame, at, &mut progress),
                Kind::V6 => self.express::<Key6>(frame, at, &mut progress),
                Kind::Foreign => self.hand_over(self.board.owners[place(at)], frame),
                Kind::Other => {
                    progress = Progress::UNSURE;
                    let (parsed, probe) = self.board.others[place(at)];
                    match parsed {
                        Ok(parsed) => self.dispatch(frame, &parsed, probe, origin),
                        // with the rest of it in view it may be right
                        Err(_) if !frame.is_whole() => self.in_pieces(frame, origin),
                        Err(reason) => self.unreadable(frame, reason),
                    }
                }
            }
        }
    }

    /// The second and third pass of a burst of this worker's plain packets of one family.
    #[inline(never)]
    fn act_alike<K: Redirect>(&mut self, burst: &mut Burst<I::Packet>, seen: &Seen, burden: &Burden) {
        let mut progress = Progress::BEGUN;
        let frames = burst.len();
        let mut run = Run::NONE;
        if !burden.replies {
            if K::APART {
                self.suspect::<K>(frames);
            }
            run = self.direct_at_once::<K>(burst);
            // what stands behind them is tried again
            run.goes_on = run.count > 0;
        }
        if run.count < frames {
            self.look::<K>(burden, run.count, frames);
        }
        if run.count == 0 {
            run = self.in_place::<K>(burst, 0, &mut progress);
        }
        if run.count == frames && self.send_all(run.device, burst, seen.bytes.wrapping_add(run.grown)) {
            return;
        }
        let mut frames = std::mem::take(burst).into_iter();
        let (mut at, mut opened) = (0, Openings::new());
        loop {
            for frame in frames.by_ref().take(run.count) {
                self.send(run.device, frame);
            }
            at += run.count;
            if !run.goes_on {
                self.admit_run::<K>((at, frames.len()), &mut progress, &mut opened);
                if opened.is_empty() {
                    let Some(frame) = frames.next() else { break };
                    self.indirect::<K>(frame, at, &mut progress);
                    at += 1;
                }
                for (opening, frame) in opened.iter().zip(frames.by_ref()) {
                    let row = K::batch(&self.board).rows[place(at)];
                    self.admitted(frame, &row, opening, &mut progress);
                    at += 1;
                }
            }
            run = self.in_place::<K>(frames.as_mut_slice(), at, &mut progress);
        }
    }

    /// The third pass of a plain packet.
    #[inline(never)]
    fn express<K: Redirect>(&mut self, mut frame: I::Packet, at: usize, progress: &mut Progress) {
        let run = self.in_place::<K>(std::slice::from_mut(&mut frame), at, progress);
        if run.count > 0 {
            return self.send(run.device, frame);
        }
        let mut opened = Openings::new();
        self.admit_run::<K>((at, 1), progress, &mut opened);
        match opened.first() {
            Some(opening) => {
                let row = K::batch(&self.board).rows[place(at)];
                self.admitted(frame, &row, opening, progress);
            }
            None => self.indirect::<K>(frame, at, progress),
        }
    }

    /// The third pass of a packet that does not go by direct routing, or that is unusual.
    #[inline(never)]
    fn indirect<K: Ends>(&mut self, frame: I::Packet, at: usize, progress: &mut Progress) {
        let row = K::batch(&self.board).rows[place(at)];
        let fresh = progress.fresh && (row.found.is_some() || progress.grown & row.probe.bit() == 0);
        let packet = glance::Packet { row: &row, key: &row.key, fresh };
        let taken =
            if row.noted.facts().steady { self.onward_plain(frame, &packet, progress) } else { Err(frame) };
        #[cfg(test)]
        if taken.is_ok() {
            tests::taken(if packet.found().is_some() { 1 } else { 2 });
        }
        if let Err(frame) = taken {
            *progress = Progress::UNSURE;
            // no connection begins with such a packet, so it has none
            if !row.key.may_send() {
                return self.unreadable(frame, K::BAD_SOURCE);
            }
            if let Err(frame) = self.first_plain(frame, &packet) {
                self.at_length(frame, &packet);
            }
        }
    }

    /// A plain packet goes the general way.
    #[inline(never)]
    fn at_length<K: Ends>(&mut self, frame: I::Packet, packet: &glance::Packet<'_, K>) {
        let flow = packet.flow(frame.bytes());
        let parsed = packet.parsed(flow);
        self.flow::<K>(frame, &parsed, &flow, packet.probe(), true);
    }
}
