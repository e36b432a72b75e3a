//! What the other side of a session sends: order, gaps.

use std::collections::BTreeMap;

use super::wire::{MAX_RANGES, Range};

/// Datagrams behind a gap that are kept.
const KEPT: usize = super::outgoing::WINDOW;
/// Time after which an acknowledgement that says nothing new is sent again while something is missing, ns.
const AGAIN_NS: u64 = 5_000_000;

/// The other side's stream.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Number of the datagram whose turn it is.
    next: u64,
    /// Datagrams that came, by number, `next` and behind.
    kept: BTreeMap<u64, Vec<u8>>,
    /// Something came that was not acknowledged.
    news: bool,
    acked_ns: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Those that came once more, or too far ahead.
    pub useless: u64,
    /// Those that can no longer be had.
    pub gone: u64,
}

impl Incoming {
    /// An empty stream; counters are those of a session before.
    pub fn after(before: &Self) -> Self {
        let Self { datagrams, useless, gone, .. } = *before;
        Self { datagrams, useless, gone, ..Self::default() }
    }

    /// A datagram came.
    pub fn hear(&mut self, number: u64, body: Vec<u8>) {
        self.news = true;
        let far = number.checked_sub(self.next).is_none_or(|ahead| ahead >= KEPT as u64);
        if far || self.kept.contains_key(&number) {
            self.useless += 1;
            return;
        }
        self.datagrams += 1;
        self.kept.insert(number, body);
    }

    /// What is before `first` can no longer be had. Returns whether something is missing for good.
    pub fn skip(&mut self, first: u64) -> bool {
        if first <= self.next {
            return false;
        }
        let had = self.kept.range(..first).count() as u64;
        self.gone += (first - self.next).saturating_sub(had);
        // what lies between is newer than what was lost; it will be told again with everything
        self.kept = self.kept.split_off(&first);
        self.next = first;
        self.news = true;
        true
    }

    /// The body whose turn it is.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let body = self.kept.remove(&self.next)?;
        self.next += 1;
        Some(body)
    }

    /// What is to be acknowledged now: the next number, and what behind it is missing.
    pub fn ack(&mut self, now_ns: u64) -> Option<(u64, Vec<Range>)> {
        let waits = self.kept.keys().next().is_some_and(|first| *first != self.next);
        let again = waits && now_ns.saturating_sub(self.acked_ns) >= AGAIN_NS;
        if !self.news && !again {
            return None;
        }
        (self.news, self.acked_ns) = (false, now_ns);
        let (mut missing, mut at) = (Vec::new(), self.next);
        for number in self.kept.keys() {
            if *number > at {
                if missing.len() == MAX_RANGES {
                    break;
                }
                missing.push((at, u32::try_from(number - at).unwrap_or(u32::MAX)));
            }
            at = number + 1;
        }
        Some((self.next, missing))
    }
}
