//! The express path: plain packets of known connections, a burst at a time.
//!
//! Three passes over a burst, so that no packet waits for memory that could have been asked for before:
//! - a [`glance`] at every frame: its flow, and the connection's line is asked for;
//! - the connection is looked up, and what it leads to is asked for: a destination, a pair, or of a server's reply the
//!   connection itself;
//! - packet after packet is judged ([`onward`], [`back`]), rewritten in place ([`ends`]) and put among those to be sent.
//!
//! Only what is plainly the usual case goes this way: [`glance`] says which frames, [`onward`] and [`back`] which
//! connections. Everything else is parsed and goes the way of [`crate::receive`], in its turn. Invariant: nothing that
//! can be seen from outside depends on which way a packet went, except that its frame comes sooner; the tests send the
//! same frames through workers with and without.

use arrayvec::ArrayVec;

use crate::conn::{Key4, Key6, Pair, Probe};
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst, DeviceId, Packet, PacketIo, WorkerId};
use crate::parse::{Parsed, parse};
use crate::receive::Origin;
use crate::steer;
use crate::worker::Worker;

mod back;
mod ends;
mod glance;
mod onward;
mod reply_ends;
#[cfg(test)]
mod tests;

pub use reply_ends::ReplyEnds;

use ends::Ends;
use glance::{Glance, Second, Slot};

/// How many frames ahead headers are asked for.
const AHEAD: usize = 4;

/// What a burst's first pass makes of a frame.
#[derive(Clone, Copy, Default)]
enum Kind {
    /// Not plain: its place among what the parser said.
    #[default]
    Other,
    V4,
    V6,
    /// Another worker's.
    Foreign,
}

/// What is known of a burst's frames, by their place in it.
struct Board {
    kinds: [Kind; BURST],
    slots: [Slot; BURST],
    seconds: [Second; BURST],
    keys4: [Key4; BURST],
    keys6: [Key6; BURST],
    owners: [WorkerId; BURST],
    /// What the parser said of those that are not plain, in their order.
    others: ArrayVec<(Result<Parsed, DropReason>, Probe), BURST>,
}

/// A place in a burst, for the compiler to see.
#[inline(always)]
fn place(at: usize) -> usize {
    at % BURST
}

impl Board {
    fn new() -> Self {
        Self {
            kinds: [Kind::Other; BURST],
            slots: [Slot::default(); BURST],
            seconds: [Second::No; BURST],
            keys4: [Key4::default(); BURST],
            keys6: [Key6::default(); BURST],
            owners: [WorkerId(0); BURST],
            others: ArrayVec::new(),
        }
    }
}

/// What frames of one device must carry to be seen.
struct Gate {
    device: DeviceId,
    /// The director's MAC address as it lies in memory; no frame has it when untagged frames have no port.
    mac: u64,
}

impl Gate {
    const NONE: u64 = u64::MAX;
    const MAC: u64 = (1 << 48) - 1;

    /// EtherType and version of a frame to this device's MAC address.
    #[inline(always)]
    fn kind(&self, frame: &[u8]) -> u32 {
        match frame.first_chunk::<16>() {
            Some([a, b, c, d, e, f, g, h, .., m, n, o, p])
                if u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) & Self::MAC == self.mac =>
            {
                u32::from_le_bytes([*m, *n, *o, *p]) & 0x00f0_ffff
            }
            _ => 0,
        }
    }
}

/// As [`Gate::kind`] gives it: EtherType 0x0800 and version 4.
const IPV4: u32 = 0x0040_0008;
/// EtherType 0x86dd and version 6.
const IPV6: u32 = 0x0060_dd86;

/// What is the same for all packets of a burst.
#[derive(Clone, Copy)]
struct Burden {
    /// Flows in it may be other workers'.
    foreign: bool,
    /// Servers' replies pass the director.
    replies: bool,
    /// Connections have local ends.
    pairs: bool,
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
            foreign: origin == Origin::Device,
            replies: self.snapshot.has_replies(),
            pairs: !self.snapshot.local_ends.is_empty(),
        };
        let mut board = Board::new();
        self.see(burst, &burden, &mut board);
        let mut other = 0;
        for at in 0..frames {
            let at = place(at);
            match board.kinds[at] {
                Kind::V4 => {
                    self.look(&board.keys4[at], &mut board.slots[at], &mut board.seconds[at], &burden);
                }
                Kind::V6 => {
                    self.look(&board.keys6[at], &mut board.slots[at], &mut board.seconds[at], &burden);
                }
                Kind::Other => {
                    if let Some((parsed, probe)) = board.others.get(other) {
                        self.fetch_spilled(parsed, *probe);
                    }
                    other += 1;
                }
                Kind::Foreign => {}
            }
        }
        // what was looked up holds until a packet that went the other way may have changed the tables
        let (mut fresh, mut other) = (true, 0);
        for (at, frame) in burst.drain(..).enumerate() {
            let at = place(at);
            let (slot, second) = (&board.slots[at], board.seconds[at]);
            match board.kinds[at] {
                Kind::V4 => {
                    fresh =
                        self.express(frame, &glance::Packet { key: &board.keys4[at], slot, second, fresh });
                }
                Kind::V6 => {
                    fresh =
                        self.express(frame, &glance::Packet { key: &board.keys6[at], slot, second, fresh });
                }
                Kind::Foreign => self.hand_over(board.owners[at], frame),
                Kind::Other => {
                    fresh = false;
                    match board.others.get(other) {
                        Some((Ok(parsed), probe)) => self.dispatch(frame, parsed, *probe, origin),
                        // with the rest of it in view it may be right
                        Some((Err(_), _)) if !frame.is_whole() => self.in_pieces(frame, origin),
                        Some((Err(reason), _)) => self.counters.drop_packet(*reason),
                        None => {}
                    }
                    other += 1;
                }
            }
        }
        frames
    }

    /// The gate of a device.
    fn gate(&self, device: DeviceId) -> Gate {
        let open = self.express && self.snapshot.link(device, 0).is_some();
        let mac = match self.setup.devices.get(usize::from(device.0)) {
            Some(setup) if open => {
                let [a, b, c, d, e, f] = setup.mac;
                u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
            }
            _ => Gate::NONE,
        };
        Gate { device, mac }
    }

    /// The first pass.
    #[inline(always)]
    fn see(&self, burst: &Burst<I::Packet>, burden: &Burden, board: &mut Board) {
        let Some(first) = burst.first() else { return };
        let mut gate = self.gate(first.device());
        burst.iter().take(AHEAD).for_each(|frame| crate::prefetch::bytes(frame.bytes()));
        for (at, frame) in burst.iter().enumerate() {
            let at = place(at);
            if let Some(later) = burst.get(at + AHEAD) {
                crate::prefetch::bytes(later.bytes());
            }
            if frame.device() != gate.device {
                gate = self.gate(frame.device());
            }
            let bytes = frame.bytes();
            let (slot, second, owner) = (&mut board.slots[at], &mut board.seconds[at], &mut board.owners[at]);
            let kind = match gate.kind(bytes) {
                IPV4 => self.place(bytes, burden, (&mut board.keys4[at], slot, second, owner), Kind::V4),
                IPV6 => self.place(bytes, burden, (&mut board.keys6[at], slot, second, owner), Kind::V6),
                _ => Kind::Other,
            };
            board.kinds[at] = kind;
            if let Kind::Other = kind {
                let parsed = parse(bytes);
                let probe = self.fetch_ahead(&parsed);
                board.others.push((parsed, probe));
            }
        }
    }

    /// A plain frame's flow, whose connection is asked for, or its owner.
    #[inline(always)]
    fn place<K: Ends>(
        &self,
        bytes: &[u8],
        burden: &Burden,
        (key, slot, second, other): (&mut K, &mut Slot, &mut Second, &mut WorkerId),
        own: Kind,
    ) -> Kind {
        let Some(glance) = K::glance(bytes) else { return Kind::Other };
        *key = glance.key;
        let Glance { ip_len, protocol, event, steady, .. } = glance;
        let number = protocol as u8;
        let mut reply = false;
        if burden.replies {
            let src = (key.client().into(), key.client_port());
            reply = self.snapshot.is_reply(src, key.vip().into(), number);
        }
        if burden.foreign {
            let client = if reply { (key.vip(), key.vip_port()) } else { (key.client(), key.client_port()) };
            let owner = steer::owner(client.0.into(), client.1, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                *other = owner;
                return Kind::Foreign;
            }
        }
        let (table, pairs) = K::tables_ref(&self.tables);
        let probe = table.probe(key, number);
        table.prefetch(probe);
        if reply {
            let probe = pairs.probe(&Pair::wanted(*key), number);
            pairs.prefetch(probe);
            *second = Second::Pair(probe);
        }
        *slot = Slot { ip_len, protocol, event, steady, reply, probe, found: None };
        own
    }

    /// The second pass of one packet.
    #[inline(always)]
    fn look<K: Ends>(&self, key: &K, slot: &mut Slot, second: &mut Second, burden: &Burden) {
        let (table, pairs) = K::tables_ref(&self.tables);
        let number = slot.protocol as u8;
        slot.found = table.find(key, number, slot.probe);
        match slot.found {
            Some(found) => {
                self.counters.prefetch_dest(found.meta.dest());
                if burden.pairs
                    && let Some(entry) = self.snapshot.dest(found.meta.dest())
                    && entry.way.local_ends().is_some()
                {
                    let probe = self.onward_probe(key, slot.protocol);
                    pairs.prefetch(probe);
                    *second = Second::Pair(probe);
                }
            }
            None if slot.reply => {
                if let Second::Pair(probe) = *second
                    && let Some(found) = pairs.find(&Pair::wanted(*key), number, probe)
                {
                    let key = pairs.key(found).other;
                    let probe = table.probe(&key, number);
                    table.prefetch(probe);
                    *second = Second::Connection(found, probe);
                }
            }
            None => {}
        }
    }

    /// The third pass of one packet. Returns whether what was looked up before still holds.
    #[inline(always)]
    fn express<K: Ends>(&mut self, frame: I::Packet, packet: &glance::Packet<'_, K>) -> bool {
        let taken = if packet.slot.steady { self.to_server(frame, packet) } else { Err(frame) };
        match taken {
            Ok(()) => packet.fresh,
            Err(frame) => {
                self.at_length(frame, packet);
                false
            }
        }
    }

    /// A plain packet goes the general way.
    #[inline(never)]
    fn at_length<K: Ends>(&mut self, frame: I::Packet, packet: &glance::Packet<'_, K>) {
        let flow = packet.flow(frame.bytes());
        let parsed = packet.parsed(flow);
        self.flow::<K>(frame, &parsed, &flow, packet.slot.probe, true);
    }
}
