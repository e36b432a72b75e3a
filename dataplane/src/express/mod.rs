//! The express path: plain packets of known connections, a burst at a time.
//!
//! Three passes over a burst, so that no packet waits for memory that could have been asked for before:
//! - a `glance` at every frame: its flow, and the connection's line is asked for (`see`);
//! - the connection is looked up, and what it leads to is asked for: a destination, a pair, or of a server's reply the
//!   connection itself (`both_ways`). Of a burst in which nothing but direct routing has been seen so far this is left to
//!   the third, but that keys which lie apart are asked for (`suspect`);
//! - packet after packet is judged (`direct`, `in_place`, `onward`, `back`, and `opening` or `first` if it has no
//!   connection), rewritten in place (`ends`, `redirect`) and put among those to be sent.
//!
//! The first pass and direct routing are compiled twice (`crate::wide`).
//!
//! Only what is plainly the usual case goes this way: `glance` says which frames, `onward` and `back` which
//! connections. Everything else is parsed and goes the way of [`crate::receive`], in its turn. Invariant: nothing that
//! can be seen from outside depends on which way a packet went, except that its frame comes sooner; the tests send the
//! same frames through workers with and without.

use crate::conn::{Key4, Key6, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, Packet, PacketIo, WorkerId};
use crate::parse::Parsed;
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
mod mixed;
mod onward;
mod opening;
mod redirect;
mod reply_ends;
mod see;
mod shed;
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
    /// Places of packets without a connection that have got their share of the worker's time, see [`shed`].
    admitted: u32,
}

impl Board {
    /// What is known of the frame at `from` is what is known of the one at `to`.
    #[inline(always)]
    fn close_up(&mut self, from: usize, to: usize) {
        let (from, to) = (place(from), place(to));
        let kind = self.kinds[from];
        self.kinds[to] = kind;
        match kind {
            Kind::V4 => self.v4.close_up(from, to),
            Kind::V6 => self.v6.close_up(from, to),
            Kind::Foreign => self.owners[to] = self.owners[from],
            Kind::Other => self.others[to] = self.others[from],
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            kinds: [Kind::Other; BURST],
            v4: Batch::new(),
            v6: Batch::new(),
            owners: [WorkerId(0); BURST],
            others: [(Err(DropReason::EthernetTruncated), Probe::default()); BURST],
            admitted: 0,
        }
    }
}

/// How many frames of a burst are what, and how long they are together.
#[derive(Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    v4: usize,
    v6: usize,
    /// Other workers'.
    foreign: usize,
}

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
        let looked = self.flood.shedding.is_on();
        let weeds = if looked { self.weed(burst, &burden) } else { 0 };
        let mut seen = self.see(burst, &burden);
        if origin != Origin::Worker
            && let Some(received) = self.counters.devices.get(usize::from(device.0))
        {
            received.rx_bytes.add(seen.bytes + weeds);
        }
        // what is handed over as another way goes must not be overtaken
        if seen.foreign > 0 && seen.v4 + seen.v6 + seen.foreign == burst.len() {
            self.part(burst, &mut seen);
        }
        self.board.admitted = if looked { self.shed(burst, &burden, &mut seen) } else { 0 };
        if burst.is_empty() {
            return frames;
        }
        if seen.v4 == burst.len() {
            self.act_alike::<Key4>(burst, &seen, &burden, looked);
        } else if seen.v6 == burst.len() {
            self.act_alike::<Key6>(burst, &seen, &burden, looked);
        } else {
            self.act(burst, &burden, origin, looked);
        }
        frames
    }

    /// Hands over what is other workers'. The others close up and go on as if nothing else had come: as one run, if that
    /// is what they are. Their order stays, and that of those handed over.
    #[inline(never)]
    fn part(&mut self, burst: &mut Burst<I::Packet>, seen: &mut Seen) {
        // nothing is known yet but the first pass's
        (self.board.v4.two_ways, self.board.v6.two_ways) = (false, false);
        for (at, frame) in std::mem::take(burst).into_iter().enumerate() {
            if self.board.kinds[place(at)] == Kind::Foreign {
                seen.bytes = seen.bytes.wrapping_sub(frame.frame_len() as u64);
                self.hand_over(self.board.owners[place(at)], frame);
                continue;
            }
            let to = burst.len();
            if to != at {
                self.board.close_up(at, to);
            }
            // a burst has room for what it had
            let _ = burst.try_push(frame);
        }
        seen.foreign = 0;
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

    /// The second and third pass, or where packets are `looked` up the third alone.
    #[inline(never)]
    fn act(&mut self, burst: &mut Burst<I::Packet>, burden: &Burden, origin: Origin, looked: bool) {
        if !looked {
            self.look::<Key4>(burden, 0, burst.len());
            self.look::<Key6>(burden, 0, burst.len());
        }
        let mut progress = Progress::BEGUN;
        for (at, kind) in self.board.kinds.iter().enumerate().take(burst.len()) {
            if let (Kind::Other, (parsed, probe)) = (kind, &self.board.others[place(at)]) {
                self.fetch_key(parsed, *probe);
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

    /// The second and third pass of a burst of this worker's plain packets of one family, or where they are `looked` up
    /// the third alone.
    #[inline(never)]
    fn act_alike<K: Redirect>(
        &mut self,
        burst: &mut Burst<I::Packet>,
        seen: &Seen,
        burden: &Burden,
        looked: bool,
    ) {
        let mut progress = Progress::BEGUN;
        let frames = burst.len();
        let mut run = Run::NONE;
        if !burden.replies && !looked {
            if K::APART {
                self.suspect::<K>(frames);
            }
            run = self.direct_at_once::<K>(burst);
            // what stands behind them is tried again
            run.goes_on = run.count > 0;
        }
        if run.count < frames && !looked {
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
            // no connection begins with such a packet, so it has none
            if !row.key.may_send() {
                return self.unreadable(frame, K::BAD_SOURCE);
            }
            let before = self.entered::<K>();
            let admitted = self.board.admitted >> place(at) & 1 != 0;
            let known = self.first_plain(frame, &packet, admitted);
            if known.is_err() || self.entered::<K>() != before {
                *progress = Progress::UNSURE;
            }
            if let Err(frame) = known {
                if admitted {
                    self.flood.shedding.give_back(packet.flow(frame.bytes()).is_syn());
                }
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
