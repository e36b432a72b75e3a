//! The express path: plain packets of known connections, a burst at a time.
//!
//! Three passes over a burst, so that no packet waits for memory that could have been asked for before:
//! - a `glance` at every frame: its flow, and the connection's line is asked for;
//! - the connection is looked up, and what it leads to is asked for: a destination, a pair, or of a server's reply the
//!   connection itself;
//! - packet after packet is judged (`direct`, `in_place`, `onward`, `back`, and `opening` or `first` if it has no connection), rewritten in place
//!   (`ends`) and put among those to be sent.
//!
//! Only what is plainly the usual case goes this way: `glance` says which frames, `onward` and `back` which
//! connections. Everything else is parsed and goes the way of [`crate::receive`], in its turn. Invariant: nothing that
//! can be seen from outside depends on which way a packet went, except that its frame comes sooner; the tests send the
//! same frames through workers with and without.

use arrayvec::ArrayVec;

use crate::conn::{Key4, Key6, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::parse::{Parsed, parse};
use crate::prefetch;
use crate::receive::Origin;
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
mod step;
#[cfg(test)]
mod tests;

pub use reply_ends::ReplyEnds;

use ends::Ends;
use glance::{Batch, place};
use onward::Progress;
use opening::Openings;
use redirect::Redirect;

/// What a burst's first pass makes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Not plain.
    Other,
    V4,
    V6,
    /// Another worker's.
    Foreign,
}

/// What is known of a burst's frames.
struct Board {
    kinds: [Kind; BURST],
    v4: Batch<Key4>,
    v6: Batch<Key6>,
    /// Whose the foreign ones are, in their order.
    owners: ArrayVec<WorkerId, BURST>,
    /// What the parser said of those that are not plain, in their order.
    others: ArrayVec<(Result<Parsed, DropReason>, Probe), BURST>,
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

/// What is the same for all packets of a burst.
#[derive(Clone, Copy)]
struct Burden {
    /// Flows in it may be other workers'.
    foreign: bool,
    /// Frames may be of several devices.
    mixed: bool,
    /// Servers' replies pass the director.
    replies: bool,
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
        let burden = Burden {
            foreign: origin == Origin::Device && self.setup.workers > 1,
            mixed: origin == Origin::Worker,
            replies: self.snapshot.has_replies(),
        };
        let mut board = Board {
            kinds: [Kind::Other; BURST],
            v4: Batch::new(),
            v6: Batch::new(),
            owners: ArrayVec::new(),
            others: ArrayVec::new(),
        };
        let bytes = self.see(burst, &burden, &mut board);
        if origin != Origin::Worker
            && let Some(frame) = burst.first()
            && let Some(received) = self.counters.devices.get(usize::from(frame.device().0))
        {
            received.rx_bytes.add(bytes as u64);
        }
        self.look(&mut board.v4, &burden);
        self.look(&mut board.v6, &burden);
        for (parsed, probe) in &board.others {
            self.fetch_spilled(parsed, *probe);
        }
        self.act(burst, &board, origin);
        frames
    }

    /// The gate of a device.
    fn gate(&self, device: DeviceId) -> Gate {
        // while some address is another director's, every packet is looked at for that
        let open = self.express && !self.absent && self.snapshot.link(device, 0).is_some();
        let mac = match self.setup.devices.get(usize::from(device.0)) {
            Some(setup) if open => {
                let [a, b, c, d, e, f] = setup.mac;
                u64::from_le_bytes([0, 0, a, b, c, d, e, f])
            }
            _ => Gate::NONE,
        };
        Gate { device, mac }
    }

    /// The first pass. Returns the bytes of all frames.
    #[inline(never)]
    fn see(&self, burst: &Burst<I::Packet>, burden: &Burden, board: &mut Board) -> usize {
        let Some(first) = burst.first() else { return 0 };
        let mut gate = self.gate(first.device());
        burst.iter().for_each(|frame| frame.prefetch());
        let mut total = 0;
        for (at, frame) in burst.iter().enumerate() {
            if burden.mixed && frame.device() != gate.device {
                gate = self.gate(frame.device());
            }
            let bytes = frame.bytes();
            total += frame.frame_len();
            let kind = match gate.kind(bytes) {
                IPV4 => self.note(bytes, burden, &mut board.v4, &mut board.owners, Kind::V4),
                kind if kind & !TRAFFIC_CLASS == IPV6 => self.note6(bytes, burden, board),
                _ => Kind::Other,
            };
            board.kinds[place(at)] = kind;
            if kind == Kind::Other {
                self.read(bytes, board);
            }
        }
        total
    }

    /// A frame that is not plain.
    #[inline(never)]
    fn read(&self, bytes: &[u8], board: &mut Board) {
        let parsed = parse(bytes);
        let probe = self.fetch_ahead(&parsed);
        board.others.push((parsed, probe));
    }

    /// [`Worker::note`] of IPv6, a function of its own so that IPv4 need not save the registers that it takes.
    #[inline(never)]
    fn note6(&self, bytes: &[u8], burden: &Burden, board: &mut Board) -> Kind {
        self.note(bytes, burden, &mut board.v6, &mut board.owners, Kind::V6)
    }

    /// A plain frame's flow, whose connection is asked for, or its owner.
    #[inline(always)]
    fn note<K: Ends>(
        &self,
        bytes: &[u8],
        burden: &Burden,
        batch: &mut Batch<K>,
        owners: &mut ArrayVec<WorkerId, BURST>,
        own: Kind,
    ) -> Kind {
        let Some((key, mut noted)) = K::glance(bytes) else { return Kind::Other };
        let (table, pairs) = K::tables_ref(&self.tables);
        let probe = table.probe(&key, noted.number());
        if burden.foreign {
            batch.push(key, noted, probe);
            return self.note_foreign(burden, batch, owners, own);
        }
        if burden.replies && self.snapshot.may_be_reply(key.client().into(), key.vip().into()) {
            noted.set_reply();
            pairs.prefetch(pairs.probe_like(probe));
        } else {
            table.prefetch(probe);
        }
        batch.push(key, noted, probe);
        own
    }

    /// The second pass.
    #[inline(always)]
    fn look<K: Ends>(&self, batch: &mut Batch<K>, burden: &Burden) {
        if batch.len() == 0 {
            return;
        }
        if burden.replies {
            return self.look_both_ways(batch);
        }
        let (table, _) = K::tables_ref(&self.tables);
        let dests = &self.counters.dests[..];
        for row in &batch.rows {
            table.prefetch_spilled(&row.key, row.noted.number(), row.probe);
        }
        for row in &mut batch.rows {
            table.find_into(&row.key, row.noted.number(), row.probe, &mut row.found);
            prefetch::place(dests, row.found.meta.dest().0 as usize);
        }
    }

    /// The third pass.
    #[inline(never)]
    fn act(&mut self, burst: &mut Burst<I::Packet>, board: &Board, origin: Origin) {
        if board.v4.len() == burst.len() {
            return self.act_alike(burst, &board.v4);
        }
        if board.v6.len() == burst.len() {
            return self.act_alike(burst, &board.v6);
        }
        let mut progress = Progress::BEGUN;
        let (mut at4, mut at6, mut other, mut foreign) = (0, 0, 0, 0);
        for (frame, kind) in burst.drain(..).zip(&board.kinds) {
            if *kind == Kind::V4 {
                self.express(frame, &board.v4, at4, &mut progress);
                at4 += 1;
            } else if *kind == Kind::V6 {
                self.express(frame, &board.v6, at6, &mut progress);
                at6 += 1;
            } else if *kind == Kind::Foreign {
                if let Some(owner) = board.owners.get(foreign) {
                    self.hand_over(*owner, frame);
                }
                foreign += 1;
            } else {
                progress = Progress::UNSURE;
                match board.others.get(other) {
                    Some((Ok(parsed), probe)) => self.dispatch(frame, parsed, *probe, origin),
                    // with the rest of it in view it may be right
                    Some((Err(_), _)) if !frame.is_whole() => self.in_pieces(frame, origin),
                    Some((Err(reason), _)) => self.unreadable(frame, *reason),
                    None => {}
                }
                other += 1;
            }
        }
    }

    /// The third pass of a burst of this worker's plain packets of one family.
    #[inline(never)]
    fn act_alike<K: Redirect>(&mut self, burst: &mut Burst<I::Packet>, batch: &Batch<K>) {
        let mut progress = Progress::BEGUN;
        let mut run = self.in_place(burst, batch, 0, &mut progress);
        if run.count == burst.len()
            && let Some(out) = self.out.get_mut(usize::from(run.device.0))
            && out.take(burst, run.bytes)
        {
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
                self.admit_run(batch, (at, BURST), &mut progress, &mut opened);
                if opened.is_empty() {
                    let Some(frame) = frames.next() else { break };
                    self.indirect(frame, batch, at, &mut progress);
                    at += 1;
                }
                for (opening, frame) in opened.iter().zip(frames.by_ref()) {
                    if let Some(row) = batch.rows().get(at) {
                        self.admitted(frame, row, opening, &mut progress);
                    }
                    at += 1;
                }
            }
            run = self.in_place(frames.as_mut_slice(), batch, at, &mut progress);
        }
    }

    /// The third pass of a plain packet.
    #[inline(never)]
    fn express<K: Redirect>(
        &mut self,
        mut frame: I::Packet,
        batch: &Batch<K>,
        at: usize,
        progress: &mut Progress,
    ) {
        let run = self.in_place(std::slice::from_mut(&mut frame), batch, at, progress);
        if run.count > 0 {
            return self.send(run.device, frame);
        }
        let mut opened = Openings::new();
        self.admit_run(batch, (at, 1), progress, &mut opened);
        match (opened.first(), batch.rows().get(at)) {
            (Some(opening), Some(row)) => self.admitted(frame, row, opening, progress),
            _ => self.indirect(frame, batch, at, progress),
        }
    }

    /// The third pass of a packet that does not go by direct routing, or that is unusual.
    #[inline(never)]
    fn indirect<K: Ends>(&mut self, frame: I::Packet, batch: &Batch<K>, at: usize, progress: &mut Progress) {
        let Some(row) = batch.rows().get(at) else { return };
        let fresh = progress.fresh && (row.found.is_some() || progress.grown & row.probe.bit() == 0);
        let packet = glance::Packet { row, key: &row.key, fresh };
        let taken =
            if row.noted.facts().steady { self.onward_plain(frame, &packet, progress) } else { Err(frame) };
        #[cfg(test)]
        if taken.is_ok() {
            tests::taken(if packet.found().is_some() { 1 } else { 2 });
        }
        if let Err(frame) = taken {
            *progress = Progress::UNSURE;
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
