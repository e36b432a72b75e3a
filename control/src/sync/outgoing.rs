//! What this side of a session sends: numbers, acknowledgements, repetitions.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::record::{self, Item};
use super::wire::{MAX_BODY, Range};

/// Datagrams that wait for their acknowledgement at most: with 1.3 KB each 5 MB, what two directors exchange in 40 ms at
/// 1 Gbit/s.
pub const WINDOW: usize = 4096;
/// Time after which what was not acknowledged is sent again, ns, at first and at most.
const AGAIN_NS: u64 = 20_000_000;
const AGAIN_MAX_NS: u64 = 200_000_000;
/// Time within which the same datagram is not sent twice because it was reported missing, ns.
const PATIENCE_NS: u64 = 3_000_000;
/// Most datagrams that are sent again at one go.
const BURST: usize = 64;
/// Highest time that is told apart, us: 60 s.
const LAG_MAX_US: u64 = 60_000_000;

/// A datagram that may have to be sent again.
#[derive(Debug)]
struct Sent {
    body: Vec<u8>,
    /// When its oldest record was made, ns.
    born_ns: u64,
    sent_ns: u64,
}

/// This side's stream.
#[derive(Debug)]
pub struct Outgoing {
    /// Items that go with the next datagram.
    body: Vec<u8>,
    born_ns: u64,
    /// Number of the first of `sent`, and behind the last.
    first: u64,
    next: u64,
    sent: VecDeque<Sent>,
    /// Of `sent`, those that have been sent at all.
    fresh: u64,
    again_ns: u64,
    /// Time from a record's making to the news that it was taken, us.
    pub lag: Option<Histogram<u64>>,
    /// Datagrams.
    pub datagrams: u64,
    /// Those that were sent again.
    pub repeated: u64,
    /// Those that the other side will never get.
    pub gone: u64,
}

impl Outgoing {
    /// An empty stream; histogram and counters are those of a session before.
    pub fn new(before: Option<Self>) -> Self {
        let lag = || Histogram::new_with_bounds(1, LAG_MAX_US, 2).ok();
        let (lag, datagrams, repeated, gone) = match before {
            Some(before) => (before.lag, before.datagrams, before.repeated, before.gone),
            None => (lag(), 0, 0, 0),
        };
        Self {
            body: Vec::with_capacity(MAX_BODY),
            born_ns: 0,
            first: 0,
            next: 0,
            sent: VecDeque::new(),
            fresh: 0,
            again_ns: AGAIN_NS,
            lag,
            datagrams,
            repeated,
            gone,
        }
    }

    /// Whether there is room for more without anything being lost.
    pub fn has_room(&self) -> bool {
        self.sent.len() < WINDOW / 2
    }

    /// Datagrams that were not acknowledged yet.
    pub fn waiting(&self) -> usize {
        self.sent.len()
    }

    /// Adds an item; `born_ns`: when what it tells of happened.
    pub fn push(&mut self, item: &Item, born_ns: u64) {
        let before = self.body.len();
        if self.body.is_empty() {
            self.born_ns = born_ns;
        }
        record::put(item, &mut self.body);
        if self.body.len() > MAX_BODY {
            let last = self.body.split_off(before);
            self.close();
            (self.body, self.born_ns) = (last, born_ns);
        }
        self.born_ns = self.born_ns.min(born_ns);
    }

    /// Makes a datagram of what there is.
    pub fn close(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let body = std::mem::replace(&mut self.body, Vec::with_capacity(MAX_BODY));
        if self.sent.len() >= WINDOW {
            self.sent.pop_front();
            self.first += 1;
            self.gone += 1;
            self.fresh = self.fresh.max(self.first);
        }
        self.sent.push_back(Sent { body, born_ns: self.born_ns, sent_ns: 0 });
        self.next += 1;
    }

    /// Datagrams that were never sent, with their numbers.
    pub fn send_new(&mut self, now_ns: u64, mut send: impl FnMut(u64, &[u8])) {
        while self.fresh < self.next {
            let Some(sent) = self.sent.get_mut((self.fresh - self.first) as usize) else { break };
            sent.sent_ns = now_ns;
            send(self.fresh, &sent.body);
            self.datagrams += 1;
            self.fresh += 1;
        }
    }

    /// The other side has all before `next`, and misses these. Gives the first number that can be had when something of
    /// that cannot.
    pub fn acknowledged(
        &mut self,
        now_ns: u64,
        next: u64,
        missing: &[Range],
        mut send: impl FnMut(u64, &[u8]),
    ) -> Option<u64> {
        if next > self.fresh {
            return None;
        }
        if next > self.first {
            self.again_ns = AGAIN_NS;
        }
        while self.first < next {
            let Some(sent) = self.sent.pop_front() else { break };
            self.first += 1;
            let lag_us = now_ns.saturating_sub(sent.born_ns) / 1000;
            self.lag.iter_mut().for_each(|lag| lag.saturating_record(lag_us.clamp(1, LAG_MAX_US)));
        }
        let mut left = BURST;
        for (first, count) in missing {
            for number in (*first..first.saturating_add((*count).into())).take(left) {
                if number >= self.fresh {
                    break;
                }
                let Some(at) = number.checked_sub(self.first) else { continue };
                let Some(sent) = self.sent.get_mut(at as usize) else { break };
                if now_ns.saturating_sub(sent.sent_ns) >= PATIENCE_NS {
                    sent.sent_ns = now_ns;
                    send(number, &sent.body);
                    self.repeated += 1;
                    left -= 1;
                }
            }
        }
        (next < self.first).then_some(self.first)
    }

    /// Sends the oldest again when nothing was heard of it for long: the last of a stream is missed by nobody.
    pub fn repeat(&mut self, now_ns: u64, mut send: impl FnMut(u64, &[u8])) {
        let Some(oldest) = self.sent.front_mut().filter(|_| self.first < self.fresh) else { return };
        if now_ns.saturating_sub(oldest.sent_ns) < self.again_ns {
            return;
        }
        oldest.sent_ns = now_ns;
        send(self.first, &oldest.body);
        self.repeated += 1;
        self.again_ns = (2 * self.again_ns).min(AGAIN_MAX_NS);
    }
}
