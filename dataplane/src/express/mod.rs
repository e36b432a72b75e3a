//! The express path: plain packets of known connections, a burst at a time.
//!
//! Three passes over a burst, so that no packet waits for memory that could have been asked for before:
//! - a `glance` at every frame: its flow, and the connection's line is asked for;
//! - the connection is looked up, and what it leads to is asked for: a destination, a pair, or of a server's reply the
//!   connection itself;
//! - packet after packet is judged (`direct`, `onward`, `back`, and `first` if it has no connection), rewritten in place
//!   (`ends`) and put among those to be sent.
//!
//! Only what is plainly the usual case goes this way: `glance` says which frames, `onward` and `back` which
//! connections. Everything else is parsed and goes the way of [`crate::receive`], in its turn. Invariant: nothing that
//! can be seen from outside depends on which way a packet went, except that its frame comes sooner; the tests send the
//! same frames through workers with and without.

use arrayvec::ArrayVec;

use crate::conn::{Key4, Key6, Pair, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::parse::{Parsed, parse};
use crate::prefetch;
use crate::receive::Origin;
use crate::steer;
use crate::worker::Worker;

mod back;
mod direct;
mod ends;
mod first;
mod glance;
mod onward;
mod reply_ends;
#[cfg(test)]
mod tests;

pub use reply_ends::ReplyEnds;

use ends::Ends;
use glance::{Batch, Facts, Row, Second, place};
use onward::Progress;

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
        let Some((key, noted)) = K::glance(bytes) else { return Kind::Other };
        let (table, _) = K::tables_ref(&self.tables);
        let probe = table.probe(&key, noted.number());
        batch.push(key, noted, probe);
        if burden.replies || burden.foreign {
            return self.note_more(burden, batch, owners, own);
        }
        table.prefetch(probe);
        own
    }

    /// Where a packet may be a reply or another worker's.
    #[inline(never)]
    fn note_more<K: Ends>(
        &self,
        burden: &Burden,
        batch: &mut Batch<K>,
        owners: &mut ArrayVec<WorkerId, BURST>,
        own: Kind,
    ) -> Kind {
        let Some(Row { key, noted, probe, .. }) = batch.last() else { return own };
        let (key, probe) = (*key, *probe);
        let (client, vip) = ((key.client(), key.client_port()), (key.vip(), key.vip_port()));
        let may_be = burden.replies && self.snapshot.may_be_reply(client.0.into(), vip.0.into());
        // whose it is must not depend on a hint
        let exact = burden.foreign;
        if may_be
            && (!exact || self.snapshot.is_reply((client.0.into(), client.1), vip.0.into(), noted.number()))
        {
            noted.set_reply();
        }
        let facts = noted.facts();
        if burden.foreign {
            let end = if facts.reply { vip } else { client };
            let owner = steer::owner(end.0.into(), end.1, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                batch.pop();
                owners.push(owner);
                return Kind::Foreign;
            }
        }
        let second = self.first_of(&key, &facts, probe);
        batch.seconds.push(second);
        own
    }

    /// What a packet is looked up by first, its pair or its connection; it is asked for.
    #[inline(always)]
    fn first_of<K: Ends>(&self, key: &K, facts: &Facts, probe: Probe) -> Second {
        let (table, pairs) = K::tables_ref(&self.tables);
        if !facts.reply {
            table.prefetch(probe);
            return Second::No;
        }
        let probe = pairs.probe(&Pair::wanted(*key), facts.number);
        pairs.prefetch(probe);
        Second::Pair(probe)
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
        for row in batch.rows() {
            table.prefetch_spilled(&row.key, row.noted.number(), row.probe);
        }
        for row in batch.rows_mut().0 {
            table.find_into(&row.key, row.noted.number(), row.probe, &mut row.found);
            prefetch::place(dests, row.found.meta.dest().0 as usize);
        }
    }

    /// The second pass where replies come: their pairs first, of all others the connections.
    #[inline(never)]
    fn look_both_ways<K: Ends>(&self, batch: &mut Batch<K>) {
        let (table, pairs) = K::tables_ref(&self.tables);
        let (rows, seconds) = batch.rows_mut();
        for (row, second) in rows.iter_mut().zip(seconds) {
            let (key, protocol) = (&row.key, row.noted.number());
            if let Second::Pair(probe) = *second
                && let Some(pair) = pairs.find(&Pair::wanted(*key), protocol, probe)
            {
                let key = pairs.key(pair).other;
                let probe = table.probe(&key, protocol);
                table.prefetch(probe);
                *second = Second::Connection(pair, probe);
                continue;
            }
            *second = Second::No;
            let Some(found) = table.find(key, protocol, row.probe) else { continue };
            row.found = found;
            self.counters.prefetch_dest(found.meta.dest());
            if let Some(entry) = self.snapshot.dest(found.meta.dest())
                && entry.way.local_ends().is_some()
            {
                let probe = self.onward_probe(key, protocol);
                pairs.prefetch(probe);
                *second = Second::Pair(probe);
            }
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
        let mut progress = Progress { fresh: true, disturbed: false };
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
                progress = Progress { fresh: false, disturbed: true };
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
    fn act_alike<K: Ends>(&mut self, burst: &mut Burst<I::Packet>, batch: &Batch<K>) {
        let mut progress = Progress { fresh: true, disturbed: false };
        let mut run = self.direct(burst, batch.rows(), progress);
        if run.count == burst.len()
            && let Some(out) = self.out.get_mut(usize::from(run.device.0))
            && out.take(burst, run.bytes)
        {
            return;
        }
        let mut frames = std::mem::take(burst).into_iter();
        let mut at = 0;
        loop {
            for frame in frames.by_ref().take(run.count) {
                self.send(run.device, frame);
            }
            at += run.count;
            if run.goes_on {
                run =
                    self.direct(frames.as_mut_slice(), batch.rows().get(at..).unwrap_or_default(), progress);
                continue;
            }
            let Some(frame) = frames.next() else { break };
            self.indirect(frame, batch, at, &mut progress);
            at += 1;
            run = self.direct(frames.as_mut_slice(), batch.rows().get(at..).unwrap_or_default(), progress);
        }
    }

    /// The third pass of a plain packet.
    #[inline(never)]
    fn express<K: Ends>(
        &mut self,
        mut frame: I::Packet,
        batch: &Batch<K>,
        at: usize,
        progress: &mut Progress,
    ) {
        let rows = batch.rows().get(at..).unwrap_or_default();
        let run = self.direct(std::slice::from_mut(&mut frame), rows, *progress);
        if run.count > 0 {
            self.send(run.device, frame);
        } else {
            self.indirect(frame, batch, at, progress);
        }
    }

    /// The third pass of a packet that does not go by direct routing, or that is unusual.
    #[inline(never)]
    fn indirect<K: Ends>(&mut self, frame: I::Packet, batch: &Batch<K>, at: usize, progress: &mut Progress) {
        let Some(row) = batch.rows().get(at) else { return };
        let second = batch.seconds.get(at).copied().unwrap_or(Second::No);
        let packet = glance::Packet { row, second, key: &row.key, fresh: progress.fresh };
        let taken =
            if row.noted.facts().steady { self.onward_plain(frame, &packet, progress) } else { Err(frame) };
        #[cfg(test)]
        if taken.is_ok() {
            tests::taken(if packet.found().is_some() { 1 } else { 2 });
        }
        if let Err(frame) = taken {
            *progress = Progress { fresh: false, disturbed: true };
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
