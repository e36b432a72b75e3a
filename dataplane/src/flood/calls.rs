//! Calls to servers in the name of clients that have proved themselves ([`handshake`](super::handshake)), until they are
//! answered.
//!
//! A SYN that has no answer is said again after 1, 3, 7 and 15 s (RFC 6298 section 2 (2.1) and 5 (5.5): a first timeout
//! of 1 s that doubles); after [`PATIENCE_S`] its client is given a reset and the connection goes, unless it timed out
//! before.
//!
//! Nothing is looked up before its time: calls wait in one queue per attempt, and as all in a queue wait equally long,
//! the first is the one that is due. Whether it was answered meanwhile is what its connection says then. Limits:
//! [`BEGUN`] calls wait for the first attempt, [`SILENT`] for each other one, in memory that the system gives when it is
//! first used; a call that finds its queue full is said again by its client alone, whose next segment does the same. A
//! turn works on `A_TURN`.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::cookie::Offer;
use super::handshake::opening_window;
use super::segment::{self, Segment};
use crate::conn::{ConnKey as _, Key4, Key6, Splice};
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit};
use crate::io::{DeviceId, Packet, PacketIo};
use crate::parse::{L4, TcpFlags};
use crate::wire::{Mac, ethernet, vlan};
use crate::worker::Worker;

/// How long each attempt waits for an answer, ns.
const WAITS_NS: [u64; 5] = [1_000_000_000, 2_000_000_000, 4_000_000_000, 8_000_000_000, 16_000_000_000];
/// Their sum, s: how long a server may be silent.
pub const PATIENCE_S: u64 = 31;
/// Calls that wait for the first attempt: all that were begun in the last second, answered or not.
pub const BEGUN: usize = 65_536;
/// Calls that wait for one of the others: those whose server was silent.
pub const SILENT: usize = 8_192;
/// Calls that a turn looks at.
const A_TURN: usize = 8;

/// A server was called and has not answered yet, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Its client's end.
    pub client: (IpAddr, u16),
    /// The service's.
    pub vip: (IpAddr, u16),
    /// The client's number in its SYN.
    pub syn: u32,
    /// The number that the client knows the server by.
    pub cookie: u32,
    /// Where the client's segments come from.
    pub device: DeviceId,
    /// Their 802.1Q tag, 0: none.
    pub vlan: u16,
    /// The station that they come from.
    pub station: Mac,
}

/// The calls of a worker.
#[derive(Debug)]
pub(crate) struct Calls {
    /// By attempt: when it is over, and which.
    queues: [VecDeque<(u64, Call)>; WAITS_NS.len()],
    /// When the first of all is due, ns; `u64::MAX`: none waits.
    next_ns: u64,
}

impl Calls {
    /// With room for as many as may wait, so that none is made later.
    pub fn new() -> Self {
        let queues = std::array::from_fn(|attempt| VecDeque::with_capacity(Self::room(attempt)));
        Self { queues, next_ns: u64::MAX }
    }

    /// How many may wait for an attempt.
    fn room(attempt: usize) -> usize {
        if attempt == 0 { BEGUN } else { SILENT }
    }

    /// A server was called for the time `attempt`, from 0 on, at `now_ns`.
    pub fn wait(&mut self, attempt: usize, call: Call, now_ns: u64) {
        let (Some(queue), Some(wait)) = (self.queues.get_mut(attempt), WAITS_NS.get(attempt)) else { return };
        if queue.len() < Self::room(attempt) {
            let due = now_ns + wait;
            queue.push_back((due, call));
            self.next_ns = self.next_ns.min(due);
        }
    }

    /// Whether a call's time is over.
    #[inline(always)]
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns
    }

    /// A call whose time is over, and which attempt it was.
    fn take(&mut self, now_ns: u64) -> Option<(usize, Call)> {
        let is_due = |queue: &VecDeque<(u64, Call)>| queue.front().is_some_and(|(due, _)| *due <= now_ns);
        let attempt = self.queues.iter().position(is_due);
        let taken = attempt.and_then(|at| Some((at, self.queues.get_mut(at)?.pop_front()?.1)));
        let first = self.queues.iter().filter_map(|queue| queue.front().map(|(due, _)| *due)).min();
        self.next_ns = first.unwrap_or(u64::MAX);
        taken
    }
}

impl<I: PacketIo> Worker<I> {
    /// Says again what was not answered, up to a turn's share of it.
    #[cold]
    pub(crate) fn call_again(&mut self) {
        for _ in 0..A_TURN {
            let Some((attempt, call)) = self.flood.calls.take(self.now_ns) else { return };
            match (call.client.0, call.vip.0) {
                (IpAddr::V4(client), IpAddr::V4(vip)) => {
                    self.follow_up(Key4::new(client, call.client.1, vip, call.vip.1), attempt, &call);
                }
                (IpAddr::V6(client), IpAddr::V6(vip)) => {
                    self.follow_up(Key6::new(client, call.client.1, vip, call.vip.1), attempt, &call);
                }
                // no packet has both
                _ => {}
            }
        }
    }

    fn follow_up<K: Family>(&mut self, key: K, attempt: usize, call: &Call) {
        let Some(hit) = self.find(key, L4::Tcp as u8).filter(|hit| hit.found.meta.is_spliced()) else {
            return;
        };
        let Some((_, Splice::Opening { cookie, window })) = self.splice_of(key) else { return };
        // the same ends may have begun anew meanwhile
        if cookie != call.cookie {
            return;
        }
        if attempt + 1 < WAITS_NS.len() {
            self.flood.calls.wait(attempt + 1, *call, self.now_ns);
            self.counters.own.calls_repeated.add(1);
            self.call_anew::<K>(&hit, call, window);
        } else {
            self.counters.own.calls_given_up.add(1);
            self.forget(hit.found, key);
            self.give_up(call);
        }
    }

    /// The client's SYN once more.
    fn call_anew<K: Family>(&mut self, hit: &Hit<K>, call: &Call, raw: u16) {
        let offer = Offer::of_cookie(call.cookie);
        let window = opening_window(raw, &offer);
        let said = Segment { seq: call.syn, ack: 0, flags: TcpFlags::SYN.0, window, offer: Some(offer) };
        match self.frame_of(call, segment::packet(call.client, call.vip, &said).as_ref()) {
            Some(frame) => self.pass_to_server::<K>(frame, hit),
            None => self.counters.drop_packet(DropReason::NoBuffer),
        }
    }

    /// The client hears that there is no server.
    fn give_up(&mut self, call: &Call) {
        let said = Segment {
            // where it expects the next byte, else it would ask again (RFC 5961 section 3.2)
            seq: call.cookie.wrapping_add(1),
            ack: call.syn.wrapping_add(1),
            flags: TcpFlags::RST.0 | TcpFlags::ACK.0,
            window: 0,
            offer: None,
        };
        let frame = self.frame_of(call, segment::packet(call.vip, call.client, &said).as_ref());
        let (Some(mut frame), Some(link)) = (frame, self.snapshot.link(call.device, call.vlan)) else {
            return self.counters.drop_packet(DropReason::NoBuffer);
        };
        if !vlan::set_vlan(&mut frame, call.vlan) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.reply(frame, link, call.client.0, call.station);
    }

    /// A packet in a frame of the director's own, as if the client's station had sent it, without a tag. `None`: there
    /// is no buffer.
    fn frame_of(&mut self, call: &Call, spoken: Option<&segment::Spoken>) -> Option<I::Packet> {
        self.counters.own.originated.add(1);
        let own = self.snapshot.links.get(usize::from(self.snapshot.link(call.device, call.vlan)?.0))?.mac;
        let mut frame = self.io.alloc()?;
        let kind = if call.vip.0.is_ipv4() { ethernet::ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 };
        frame.set_len(ethernet::HEADER_LEN).then_some(())?;
        let (macs, rest) = frame.bytes_mut().split_at_mut_checked(12)?;
        macs[..6].copy_from_slice(&own);
        macs[6..].copy_from_slice(&call.station);
        rest.copy_from_slice(&kind.to_be_bytes());
        segment::put(&mut frame, ethernet::HEADER_LEN as u16, spoken?).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(n: u16) -> Call {
        Call {
            client: ([192, 0, 2, 1].into(), n),
            vip: ([192, 0, 2, 9].into(), 80),
            syn: 1,
            cookie: 2,
            device: DeviceId(0),
            vlan: 0,
            station: [2; 6],
        }
    }

    #[test]
    fn waits_double_and_add_up() {
        assert!(WAITS_NS.windows(2).all(|pair| pair[1] == 2 * pair[0]));
        assert_eq!(WAITS_NS.iter().sum::<u64>(), PATIENCE_S * 1_000_000_000);
    }

    #[test]
    fn calls_come_when_they_are_due_and_the_longest_overdue_of_an_attempt_first() {
        let mut calls = Calls::new();
        assert!(!calls.is_due(u64::MAX - 1) && calls.take(5).is_none());
        for n in 0..3 {
            calls.wait(0, call(n), u64::from(n) * 1000);
        }
        calls.wait(1, call(9), 0);
        calls.wait(7, call(8), 0);
        let due = 1_000_000_000;
        assert!(!calls.is_due(due - 1) && calls.is_due(due));
        let mut taken = |now| calls.take(now).map(|(attempt, call)| (attempt, call.client.1));
        assert_eq!([taken(due), taken(due)], [Some((0, 0)), None]);
        assert_eq!([taken(due + 2000), taken(due + 2000)], [Some((0, 1)), Some((0, 2))]);
        assert_eq!([taken(2 * due), taken(2 * due)], [Some((1, 9)), None]);
        assert!(!calls.is_due(u64::MAX - 1));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut calls = Calls::new();
        for (attempt, most) in [(0, BEGUN), (3, SILENT)] {
            let room = calls.queues[attempt].capacity();
            (0..most + 5).for_each(|_| calls.wait(attempt, call(1), 0));
            assert_eq!((calls.queues[attempt].len(), calls.queues[attempt].capacity()), (most, room));
        }
    }
}
