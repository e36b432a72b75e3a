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
use glance::{Glance, Second};

/// How many frames ahead headers are asked for.
const AHEAD: usize = 4;

/// What a burst's first pass makes of a frame.
enum Seen {
    V4(Glance<Key4>),
    V6(Glance<Key6>),
    /// Another worker's.
    Foreign(WorkerId),
    /// Not plain: its place among what the parser said.
    Other(u8),
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
    pub(crate) fn process(&mut self, mut burst: Burst<I::Packet>, origin: Origin) -> usize {
        let frames = burst.len();
        let burden = Burden {
            foreign: origin == Origin::Device,
            replies: self.snapshot.has_replies(),
            pairs: !self.snapshot.local_ends.is_empty(),
        };
        let mut seen = ArrayVec::<Seen, BURST>::new();
        let mut others = ArrayVec::<(Result<Parsed, DropReason>, Probe), BURST>::new();
        self.see(&burst, &burden, &mut seen, &mut others);
        for (seen, frame) in seen.iter_mut().zip(&burst) {
            match seen {
                Seen::V4(glance) => self.look::<Key4>(glance, &burden),
                Seen::V6(glance) => self.look::<Key6>(glance, &burden),
                Seen::Other(at) => {
                    let _ = frame;
                    if let Some((parsed, probe)) = others.get(usize::from(*at)) {
                        self.fetch_spilled(parsed, *probe);
                    }
                }
                Seen::Foreign(_) => {}
            }
        }
        // what was looked up holds until a packet that went the other way may have changed the tables
        let mut fresh = true;
        for (frame, seen) in burst.drain(..).zip(&seen) {
            match seen {
                Seen::V4(glance) => fresh = self.express::<Key4>(frame, glance, fresh),
                Seen::V6(glance) => fresh = self.express::<Key6>(frame, glance, fresh),
                Seen::Foreign(owner) => self.hand_over(*owner, frame),
                Seen::Other(at) => {
                    fresh = false;
                    match others.get(usize::from(*at)) {
                        Some((Ok(parsed), probe)) => self.dispatch(frame, parsed, *probe, origin),
                        // with the rest of it in view it may be right
                        Some((Err(_), _)) if !frame.is_whole() => self.in_pieces(frame, origin),
                        Some((Err(reason), _)) => self.counters.drop_packet(*reason),
                        None => {}
                    }
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
    fn see(
        &self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        seen: &mut ArrayVec<Seen, BURST>,
        others: &mut ArrayVec<(Result<Parsed, DropReason>, Probe), BURST>,
    ) {
        let Some(first) = burst.first() else { return };
        let mut gate = self.gate(first.device());
        burst.iter().take(AHEAD).for_each(|frame| crate::prefetch::bytes(frame.bytes()));
        for (at, frame) in burst.iter().enumerate() {
            if let Some(later) = burst.get(at + AHEAD) {
                crate::prefetch::bytes(later.bytes());
            }
            if frame.device() != gate.device {
                gate = self.gate(frame.device());
            }
            let bytes = frame.bytes();
            let known = match gate.kind(bytes) {
                IPV4 => self.meet_flow::<Key4>(bytes, burden, Seen::V4),
                IPV6 => self.meet_flow::<Key6>(bytes, burden, Seen::V6),
                _ => None,
            };
            seen.push(known.unwrap_or_else(|| {
                let parsed = parse(bytes);
                let probe = self.fetch_ahead(&parsed);
                others.push((parsed, probe));
                Seen::Other(others.len() as u8 - 1)
            }));
        }
    }

    /// A plain frame's flow, whose connection is asked for, or its owner; `None`: not plain.
    #[inline(always)]
    fn meet_flow<K: Ends>(
        &self,
        bytes: &[u8],
        burden: &Burden,
        own: impl FnOnce(Glance<K>) -> Seen,
    ) -> Option<Seen> {
        let mut glance = K::glance(bytes)?;
        let protocol = glance.protocol as u8;
        if burden.replies {
            let src = (glance.key.client().into(), glance.key.client_port());
            glance.reply = self.snapshot.reply_ends.is_reply(src, glance.key.vip().into(), protocol);
        }
        if burden.foreign {
            let client = if glance.reply {
                (glance.key.vip(), glance.key.vip_port())
            } else {
                (glance.key.client(), glance.key.client_port())
            };
            let owner = steer::owner(client.0.into(), client.1, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return Some(Seen::Foreign(owner));
            }
        }
        let (table, pairs) = K::tables_ref(&self.tables);
        glance.probe = table.probe(&glance.key, protocol);
        table.prefetch(glance.probe);
        if glance.reply {
            let probe = pairs.probe(&Pair::wanted(glance.key), protocol);
            pairs.prefetch(probe);
            glance.second = Second::Pair(probe);
        }
        Some(own(glance))
    }

    /// The second pass of one packet.
    #[inline(always)]
    fn look<K: Ends>(&self, glance: &mut Glance<K>, burden: &Burden) {
        let (table, pairs) = K::tables_ref(&self.tables);
        let protocol = glance.protocol as u8;
        glance.found = table.find(&glance.key, protocol, glance.probe);
        match glance.found {
            Some(found) => {
                self.counters.prefetch_dest(found.meta.dest());
                if burden.pairs
                    && let Some(entry) = self.snapshot.dest(found.meta.dest())
                    && entry.way.local_ends().is_some()
                {
                    let probe = self.onward_probe(glance);
                    pairs.prefetch(probe);
                    glance.second = Second::Pair(probe);
                }
            }
            None if glance.reply => {
                if let Second::Pair(probe) = glance.second
                    && let Some(found) = pairs.find(&Pair::wanted(glance.key), protocol, probe)
                {
                    let key = pairs.key(found).other;
                    let probe = table.probe(&key, protocol);
                    table.prefetch(probe);
                    glance.second = Second::Connection(key, probe);
                }
            }
            None => {}
        }
    }

    /// The third pass of one packet. Returns whether what was looked up before still holds.
    #[inline(always)]
    fn express<K: Ends>(&mut self, frame: I::Packet, glance: &Glance<K>, fresh: bool) -> bool {
        let taken = if glance.steady { self.to_server(frame, glance, fresh) } else { Err(frame) };
        match taken {
            Ok(()) => fresh,
            Err(frame) => {
                self.at_length(frame, glance);
                false
            }
        }
    }

    /// A plain packet goes the general way.
    #[inline(never)]
    fn at_length<K: Ends>(&mut self, frame: I::Packet, glance: &Glance<K>) {
        let flow = glance.flow(frame.bytes());
        let parsed = glance.parsed(flow);
        self.flow::<K>(frame, &parsed, &flow, glance.probe, true);
    }
}
