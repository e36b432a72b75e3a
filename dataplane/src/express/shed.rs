//! First packets that there is no time for: SYNs dropped before the first pass, others between the second and the third.
//!
//! SYNs beyond those that the turn has credit for are counted and given back as soon as they are seen to be some, without
//! a look into the table: a SYN flood costs a glance at each. One of a known connection is its client's second try, or
//! begins another; its client sends it again.
//!
//! While frames pile up ([`Shedding`](crate::flood::Shedding)) a burst is looked up as a whole, and what has no connection
//! asks for its share there and then. What gets none is counted and given back, the others close up, and what is left
//! goes on as if nothing else had come: as one run, if that is what it is. So a flood costs its lookups, and established
//! packets beside it what they cost alone.
//!
//! Invariant: only SYNs and what has no connection are dropped here, and nothing that the control core or the kernel must
//! get; that is judged in its turn, as is all behind a packet whose connection another one of the burst may have begun.

use std::marker::PhantomData;

use arrayvec::ArrayVec;

use super::ends::Ends;
use super::glance::{Noted, Row, place};
use super::see::{Gate, IPV4, IPV6, TRAFFIC_CLASS};
use super::{Board, Burden, Kind, Seen};
use crate::channel::BFD_PORT;
use crate::conn::simd::Level;
use crate::conn::{Key4, Key6, Pair};
use crate::drop_reason::DropReason;
use crate::exception::is_urgent_port;
use crate::io::{BURST, Burst, Packet, PacketIo};
use crate::parse::TcpFlags;
use crate::prefetch;
use crate::state::tcp;
use crate::steer;
use crate::wide::Work;
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::worker::Worker;

/// What becomes of a packet without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may go on.
    Admitted,
    /// There is no time for it.
    Shed,
    /// Its turn will tell.
    Later,
    /// A packet before it may have begun its connection.
    Unknown,
}

/// Places in a burst, a bit each.
type Places = u32;

const _: () = assert!(BURST == Places::BITS as usize);

/// The places up to before `n`.
fn up_to(n: usize) -> Places {
    if n < BURST { (1 << n) - 1 } else { Places::MAX }
}

/// The first of `places`, which is taken out of them.
#[inline(always)]
fn next(places: &mut Places) -> Option<usize> {
    let at = places.trailing_zeros() as usize;
    *places &= places.wrapping_sub(1);
    (at < BURST).then_some(at)
}

/// Puts those of a burst that are `gone`, one at least, behind the others, which stay in their order; `moved` is told where
/// each was that does not stay where it is, and where it is now. Returns how many are left.
#[inline(always)]
fn close_gaps<P>(burst: &mut Burst<P>, gone: Places, mut moved: impl FnMut(usize, usize)) -> usize {
    // those before the first gap stay where they are
    let mut to = gone.trailing_zeros() as usize;
    let mut stay = up_to(burst.len()) & !gone & !up_to(to);
    while let Some(at) = next(&mut stay) {
        burst.swap(to, at);
        moved(at, to);
        to += 1;
    }
    to
}

/// The first packets that were admitted.
#[derive(Default)]
struct Admitted {
    places: ArrayVec<u8, BURST>,
    /// As [`Probe::bit`](crate::conn::Probe::bit) has it.
    bits: u64,
}

impl Admitted {
    /// Whether one of them is of the same flow.
    #[inline(always)]
    fn has<K: Ends>(&self, board: &Board, row: &Row<K>) -> bool {
        self.bits & row.probe.bit() != 0 && self.is_among(board, row)
    }

    #[cold]
    fn is_among<K: Ends>(&self, board: &Board, row: &Row<K>) -> bool {
        let rows = &K::batch(board).rows;
        self.places.iter().any(|at| {
            let other = &rows[place((*at).into())];
            board.kinds[place((*at).into())] == K::KIND
                && other.key == row.key
                && other.noted.number() == row.noted.number()
        })
    }
}

impl Board {
    /// The packets of a family that have no connection, of the first `frames`.
    #[inline(always)]
    fn strangers<K: Ends>(&self, frames: usize) -> Places {
        let mut places = 0;
        for (at, (row, kind)) in K::batch(self).rows.iter().zip(&self.kinds).enumerate().take(frames) {
            let is = *kind == K::KIND && !row.found.is_some();
            places |= Places::from(is) << at;
        }
        places
    }
}

/// The second pass over the first `frames` packets, all of a family, where no reply passes the director.
struct Look<'a, I: PacketIo, K> {
    worker: &'a mut Worker<I>,
    frames: usize,
    family: PhantomData<K>,
}

impl<I: PacketIo, K: Ends> Work for Look<'_, I, K> {
    /// Those that have no connection.
    type Out = Places;

    #[inline(always)]
    fn run<L: Level>(self, _: L) -> Places {
        let Worker { tables, counters, board, .. } = self.worker;
        let (table, _) = K::tables_ref(tables);
        let dests = &counters.dests[..];
        let (_, batch) = K::batch_mut(board);
        batch.two_ways = false;
        let mut places = 0;
        for (at, row) in batch.rows.iter_mut().enumerate().take(self.frames) {
            table.find_into(&row.key, row.noted.number(), row.probe, &mut row.found);
            prefetch::place(dests, row.found.meta.dest().0 as usize);
            places |= Places::from(!row.found.is_some()) << at;
        }
        places
    }
}

/// Whether a frame may be a SYN of this family, by the bytes where its protocol and flags then stand.
#[inline(always)]
fn may_be_syn<K: Ends>(frame: &[u8], protocol_at: usize) -> bool {
    const DECIDING: u8 = TcpFlags::SYN.0 | TcpFlags::ACK.0 | TcpFlags::RST.0;
    let at = |place: usize| frame.get(place).copied().unwrap_or_default();
    at(protocol_at) == PROTOCOL_TCP && at(K::L4_AT + 13) & DECIDING == TcpFlags::SYN.0
}

impl<I: PacketIo> Worker<I> {
    /// Drops the SYNs of a burst that there is no credit for, unless they are another worker's or director's, or may be a
    /// server's. Returns their bytes.
    #[inline(never)]
    pub(super) fn weed(&mut self, burst: &mut Burst<I::Packet>, burden: &Burden) -> u64 {
        let Some(first) = burst.first() else { return 0 };
        let gate = self.own_gate(first.device());
        if burden.mixed || gate.mac == Gate::NONE {
            return 0;
        }
        burst.iter().for_each(|frame| frame.prefetch());
        let mut credit = self.flood.shedding.credit(true);
        let (mut gone, mut bytes): (Places, u64) = (0, 0);
        for (at, frame) in burst.iter().enumerate() {
            let head = frame.bytes();
            let is_weed = match gate.kind(head) {
                IPV4 => may_be_syn::<Key4>(head, 23) && self.is_weed::<Key4>(head, burden),
                kind if kind & !TRAFFIC_CLASS == IPV6 => {
                    may_be_syn::<Key6>(head, 20) && self.is_weed::<Key6>(head, burden)
                }
                _ => false,
            };
            if is_weed && credit > 0 {
                credit -= 1;
            } else if is_weed {
                gone |= 1 << at;
                bytes += frame.frame_len() as u64;
            }
        }
        if gone == 0 {
            return 0;
        }
        let to = close_gaps(burst, gone, |_, _| {});
        self.counters.drop_packets(DropReason::Overload, gone.count_ones());
        self.io.discard(burst, to);
        bytes
    }

    /// Whether what may be a SYN is one that may be dropped.
    #[inline(always)]
    fn is_weed<K: Ends>(&self, frame: &[u8], burden: &Burden) -> bool {
        let Some((key, noted)) = K::glance(frame) else { return false };
        let (client, vip) = (key.client().into(), key.vip().into());
        let owner = || steer::owner(client, key.client_port(), self.setup.workers, &self.setup.steer_key);
        let is_kept = self.is_exempt(&key, noted, true)
            || burden.replies && self.snapshot.may_be_reply(client, vip)
            || burden.absent && self.snapshot.shared.is_absent(vip)
            || burden.foreign && owner() != self.id;
        noted.facts().event == tcp::SYN && !is_kept
    }

    /// The second pass of a burst, and the end of what there is no time for; `seen` is told. Returns the places of first
    /// packets that go on.
    #[inline(never)]
    pub(super) fn shed(&mut self, burst: &mut Burst<I::Packet>, burden: &Burden, seen: &mut Seen) -> Places {
        let frames = burst.len();
        let v4 = self.strangers::<Key4>(burden, seen.v4, frames);
        let v6 = self.strangers::<Key6>(burden, seen.v6, frames);
        let mut admitted = Admitted::default();
        let (mut gone, mut left): (Places, Places) = (0, v4 | v6);
        while let Some(at) = next(&mut left) {
            let Some(frame) = burst.get(at) else { break };
            let verdict = match self.board.kinds[place(at)] {
                Kind::V6 => self.judge::<Key6>(frame, at, &admitted),
                _ => self.judge::<Key4>(frame, at, &admitted),
            };
            match verdict {
                Verdict::Shed => {
                    gone |= 1 << at;
                    seen.bytes = seen.bytes.wrapping_sub(frame.frame_len() as u64);
                }
                Verdict::Admitted => {
                    let bit = match self.board.kinds[place(at)] {
                        Kind::V6 => self.board.v6.rows[place(at)].probe.bit(),
                        _ => self.board.v4.rows[place(at)].probe.bit(),
                    };
                    admitted.bits |= bit;
                    // as many as there are places
                    let _ = admitted.places.try_push(at as u8);
                }
                Verdict::Later => {}
                Verdict::Unknown => break,
            }
        }
        if gone == 0 {
            return admitted.places.iter().fold(0, |places, at| places | 1 << at);
        }
        let was_admitted = admitted.places.iter().fold(0, |places: Places, at| places | 1 << at);
        let mut now_admitted = was_admitted & up_to(gone.trailing_zeros() as usize);
        let to = close_gaps(burst, gone, |at, to| {
            self.board.close_up(at, to);
            now_admitted |= (was_admitted >> at & 1) << to;
        });
        seen.v4 -= (gone & v4).count_ones() as usize;
        seen.v6 -= (gone & v6).count_ones() as usize;
        self.counters.drop_packets(DropReason::Overload, gone.count_ones());
        self.io.discard(burst, to);
        now_admitted
    }

    /// The second pass over a burst of which `count` packets are of this family: those that have no connection.
    #[inline(always)]
    fn strangers<K: Ends>(&mut self, burden: &Burden, count: usize, frames: usize) -> Places {
        if count == 0 {
            return 0;
        }
        if K::APART && !burden.replies {
            self.suspect::<K>(frames);
        }
        if count == frames && !burden.replies {
            let wide = self.wide;
            return wide.run(Look::<I, K> { worker: self, frames, family: PhantomData });
        }
        self.look::<K>(burden, 0, frames);
        self.board.strangers::<K>(frames)
    }

    /// What becomes of a packet without a connection; takes its share.
    #[inline(always)]
    fn judge<K: Ends>(&mut self, frame: &I::Packet, at: usize, admitted: &Admitted) -> Verdict {
        let row = &K::batch(&self.board).rows[place(at)];
        if admitted.has(&self.board, row) || row.noted.is_reply() && admitted.bits != 0 {
            return Verdict::Unknown;
        }
        let flags = frame.bytes().get(K::L4_AT + 13).copied().unwrap_or_default();
        let is_syn = row.noted.number() == PROTOCOL_TCP
            && row.noted.facts().event == tcp::SYN
            && flags & TcpFlags::ACK.0 == 0;
        if self.is_exempt(&row.key, row.noted, is_syn) || row.noted.is_reply() && self.is_paired(row) {
            return Verdict::Later;
        }
        if self.flood.shedding.admits(is_syn) { Verdict::Admitted } else { Verdict::Shed }
    }

    /// Whether a pair leads from a packet to some connection.
    #[cold]
    fn is_paired<K: Ends>(&self, row: &Row<K>) -> bool {
        let (_, pairs) = K::tables_ref(&self.tables);
        pairs.find(&Pair::wanted(row.key), row.noted.number(), pairs.probe_like(row.probe)).is_some()
    }

    /// Whether no lack of time counts: it is the control core's or the kernel's, see [`Worker::is_bfd`] and
    /// [`Worker::is_control`]; or it has a fault of its own.
    #[inline(always)]
    fn is_exempt<K: Ends>(&self, key: &K, noted: Noted, is_syn: bool) -> bool {
        let number = noted.number();
        if !key.may_send() {
            return true;
        }
        let (from, to) = (key.client_port(), key.vip_port());
        number == PROTOCOL_UDP
            && to == BFD_PORT
            && self.snapshot.shared.hears_bfd(key.client().into(), key.vip().into())
            || (!is_syn || is_urgent_port(noted.facts().protocol(), from, to))
                && self.snapshot.is_host(key.vip().into())
    }
}
