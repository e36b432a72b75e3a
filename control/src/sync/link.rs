//! A session with another director: what it tells, what it hears, and the copy of everything. No I/O, no clock.

use std::collections::VecDeque;

use lb_dataplane::conn::Tick;
use lb_dataplane::state::State;
use lb_dataplane::sync::Record;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::record::{self, Item};
use super::seal::Key;
use super::session::{Session, Standing};
use super::wire::{self, Ends, Message};

/// Items that were heard and wait for the workers: then datagrams wait unread, and the other side holds back.
const HEARD: usize = 4096;

/// Where the copy of what the other side knows stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// There is no session.
    No,
    /// It was asked for.
    Asked,
    /// It comes.
    Begun,
    /// It is here.
    Done,
}

/// What is to be done outside.
#[derive(Debug, Default)]
pub struct Out {
    /// Datagrams to be sent.
    pub datagrams: Vec<Vec<u8>>,
    /// The other side asks for a copy of everything that this side knows.
    pub copy: bool,
}

/// A session with another director.
#[derive(Debug)]
pub struct Link {
    key: Key,
    session: Session,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Records for the workers.
    heard: VecDeque<Record>,
    /// How often this side and the other tell of connections again, ms.
    refresh_ms: u32,
    their_refresh_ms: u32,
    copying: Copying,
    /// Number of the copy that is asked for, of the one that the other side asked for, and of the one that it gets.
    wanted: u32,
    asked: u32,
    given: u32,
    /// When the session began, ns.
    pub since_ns: u64,
    /// When the copy was asked for, and how long it took once it is here and with the workers, ns.
    asked_ns: u64,
    copied_ns: Option<u64>,
    /// Sessions so far.
    pub sessions: u64,
    /// Records that were told, and that were heard.
    pub told: u64,
    pub taken: u64,
    /// Datagrams that were of no session, or not made with the key.
    pub strange: u64,
    pub forged: u64,
}

impl Link {
    /// One without a session. `number`: by chance, not 0; `refresh_ms`: how often records are told again.
    pub fn new(key: Key, number: u64, refresh_ms: u32) -> Self {
        Self {
            key,
            session: Session::new(number),
            outgoing: Outgoing::new(None),
            incoming: Incoming::default(),
            heard: VecDeque::new(),
            refresh_ms,
            their_refresh_ms: 0,
            copying: Copying::No,
            wanted: 0,
            asked: 0,
            given: 0,
            since_ns: 0,
            asked_ns: 0,
            copied_ns: None,
            sessions: 0,
            told: 0,
            taken: 0,
            strange: 0,
            forged: 0,
        }
    }

    /// Whether there is a session.
    pub fn is_up(&self) -> bool {
        self.session.is_up()
    }

    /// Where the copy stands.
    pub fn copying(&self) -> Copying {
        self.copying
    }

    /// This side's stream.
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// The other side's stream.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Whether records may be told without any being lost; without a session they are told to nobody.
    pub fn has_room(&self) -> bool {
        !self.is_up() || self.outgoing.has_room()
    }

    /// Tells the other side a record; `born_ns`: when what it says happened.
    pub fn tell(&mut self, record: Record, born_ns: u64) {
        if self.is_up() {
            self.told += 1;
            self.outgoing.push(&Item::Record(record), born_ns);
        }
    }

    /// A copy of everything begins, for whoever has asked.
    pub fn begin_copy(&mut self, now_ns: u64) {
        if self.is_up() && self.asked != self.given {
            self.given = self.asked;
            self.outgoing.push(&Item::Begin(self.given), now_ns);
        }
    }

    /// It is complete.
    pub fn end_copy(&mut self, now_ns: u64) {
        if self.is_up() && self.given != 0 {
            self.outgoing.push(&Item::End(self.given), now_ns);
        }
    }

    /// A datagram came. `random`: a number by chance, not 0.
    pub fn hear(&mut self, now_ns: u64, datagram: &[u8], random: u64, out: &mut Out) {
        let Some((ends, message)) = wire::parse(datagram, &self.key) else {
            self.forged += 1;
            return;
        };
        let is_hello = matches!(message, Message::Hello { .. });
        match self.session.hear(now_ns, ends, is_hello, random) {
            Standing::Good => {}
            Standing::Begins => self.begin(now_ns),
            Standing::Strange => {
                self.strange += u64::from(!is_hello);
                return;
            }
        }
        match message {
            Message::Hello { refresh_ms, wanted } => {
                self.their_refresh_ms = refresh_ms;
                if wanted != 0 && wanted != self.asked {
                    self.asked = wanted;
                    out.copy = true;
                }
            }
            Message::Records { number, body } => {
                self.incoming.hear(number, body);
                self.read();
            }
            Message::Ack { next, missing } => {
                let (ends, key) = (self.session.ends(), &self.key);
                let send = |number, body: &[u8]| out.datagrams.push(records(ends, number, body, key));
                if let Some(first) = self.outgoing.acknowledged(now_ns, next, &missing, send) {
                    out.datagrams.push(wire::emit(ends, &Message::Gone { first }, &self.key));
                }
            }
            Message::Gone { first } => {
                if self.incoming.skip(first) {
                    self.ask(now_ns);
                }
                self.read();
            }
        }
    }

    /// A session begins: both sides ask for everything.
    fn begin(&mut self, now_ns: u64) {
        self.outgoing = Outgoing::new(Some(std::mem::replace(&mut self.outgoing, Outgoing::new(None))));
        self.incoming = Incoming::after(&self.incoming);
        (self.asked, self.given) = (0, 0);
        self.since_ns = now_ns;
        self.sessions += 1;
        self.ask(now_ns);
    }

    fn ask(&mut self, now_ns: u64) {
        self.wanted = self.wanted.wrapping_add(1).max(1);
        (self.copying, self.asked_ns, self.copied_ns) = (Copying::Asked, now_ns, None);
        self.session.hurry();
    }

    /// Reads bodies whose turn it is, as far as there is room.
    fn read(&mut self) {
        while self.heard.len() < HEARD {
            let Some(body) = self.incoming.take() else { return };
            let mut rest = body.as_slice();
            while let Some(item) = record::take(&mut rest) {
                match item {
                    Item::Record(record) => {
                        self.taken += 1;
                        self.heard.push_back(self.prolonged(record));
                    }
                    Item::Begin(number) if number == self.wanted => self.copying = Copying::Begun,
                    Item::End(number) if number == self.wanted && self.copying == Copying::Begun => {
                        self.copying = Copying::Done;
                    }
                    Item::Begin(_) | Item::End(_) => {}
                }
            }
        }
    }

    /// One that lives on is told again only now and then: its time here must last until the next time.
    fn prolonged(&self, record: Record) -> Record {
        match record {
            Record::Connection(mut connection)
                if matches!(connection.state, State::Established | State::SctpEstablished | State::Udp) =>
            {
                let more = u64::from(self.their_refresh_ms) * Tick::PER_SECOND / 1000;
                let more = u32::try_from(more).unwrap_or(u32::MAX);
                connection.left = connection.left.saturating_add(more).min(Tick::MAX_TIMEOUT);
                Record::Connection(connection)
            }
            other => other,
        }
    }

    /// Hands records to the workers, until `take` says that there is no room for one.
    pub fn deliver(&mut self, mut take: impl FnMut(&Record) -> bool) {
        loop {
            while let Some(record) = self.heard.front() {
                if !take(record) {
                    return;
                }
                self.heard.pop_front();
            }
            self.read();
            if self.heard.is_empty() {
                return;
            }
        }
    }

    /// Whether the copy is here and with the workers.
    pub fn is_copied(&self) -> bool {
        self.copying == Copying::Done && self.heard.is_empty()
    }

    /// How long the copy took, ns.
    pub fn copied_ns(&self) -> Option<u64> {
        self.copied_ns
    }

    /// How long the copy took, ns, when it has come since the last time.
    pub fn has_copied(&mut self, now_ns: u64) -> Option<u64> {
        if self.copied_ns.is_some() || !self.is_copied() {
            return None;
        }
        self.copied_ns = Some(now_ns.saturating_sub(self.asked_ns));
        self.copied_ns
    }

    /// Time has passed, and there is no more to be told now: what is due is sent. `random`: a number by chance, not 0.
    /// Returns whether the session was lost.
    pub fn tick(&mut self, now_ns: u64, random: u64, out: &mut Out) -> bool {
        let lost = self.session.is_lost(now_ns, random);
        if lost {
            self.copying = Copying::No;
        }
        let wanted = match self.copying {
            Copying::Asked | Copying::Begun => self.wanted,
            Copying::No | Copying::Done => 0,
        };
        while let Some(ends) = self.session.hello(now_ns) {
            let hello = Message::Hello { refresh_ms: self.refresh_ms, wanted };
            out.datagrams.push(wire::emit(ends, &hello, &self.key));
        }
        if !self.is_up() {
            return lost;
        }
        self.outgoing.close();
        let (ends, key) = (self.session.ends(), &self.key);
        let mut send = |number, body: &[u8]| out.datagrams.push(records(ends, number, body, key));
        self.outgoing.send_new(now_ns, &mut send);
        self.outgoing.repeat(now_ns, &mut send);
        if let Some((next, missing)) = self.incoming.ack(now_ns) {
            out.datagrams.push(wire::emit(ends, &Message::Ack { next, missing }, key));
        }
        lost
    }
}

fn records(ends: Ends, number: u64, body: &[u8], key: &Key) -> Vec<u8> {
    wire::emit(ends, &Message::Records { number, body: body.to_vec() }, key)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
