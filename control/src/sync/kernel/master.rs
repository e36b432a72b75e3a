//! The master daemon: tells Linux directors of this one's connections.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use lb_config::IpvsSync;
use lb_dataplane::sync::{Feeds, Listener, Record};

use super::convert::{Book, said};
use super::counters::{Counters, add};
use super::daemon::{Common, View};
use super::socket;
use super::wire::Builder;

/// How long an entry waits for others to share its message. Linux: 2 s (`IPVS_SYNC_FLUSH_TIME`), in which a master that
/// dies takes its youngest connections along.
const FLUSH: Duration = Duration::from_millis(20);
/// How often the workers' queues are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Most records taken of a worker before the others' turn.
const TURN: usize = 1024;
/// While everything is told: most records of all workers in a turn, and the pause after it; four messages a millisecond,
/// 144,000 connections a second. A Linux has room for some 90 messages (`net.core.rmem_default`) while it is busy.
const COPY_TURN: usize = 144;
const COPY_PAUSE: Duration = Duration::from_millis(1);
/// When everything is told again after the first time: nobody confirms a message, and one that was lost is missed only
/// when it counts. Linux repeats likewise (`sync_retries`).
const AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// How often everything is told because records were lost on their way here.
const REPAIR: Duration = Duration::from_secs(10);
/// Time between attempts to open the socket.
const RETRY: Duration = Duration::from_secs(1);

/// Records as messages; without I/O.
#[derive(Debug)]
pub struct Speaker {
    builder: Builder,
    /// When the first entry of the message was put in.
    since: Option<Instant>,
}

impl Speaker {
    /// A speaker with this daemon's settings.
    pub fn new(daemon: &IpvsSync) -> Self {
        Self { builder: Builder::new(daemon.sync_id, daemon.max_length.into()), since: None }
    }

    /// Puts a record into words; `send` gets the messages that are full.
    pub fn tell(
        &mut self,
        record: &Record,
        book: &Book,
        now: Instant,
        counters: &Counters,
        mut send: impl FnMut(Vec<u8>),
    ) {
        for entry in said(record, book).into_iter().flatten() {
            match entry {
                Ok(entry) => {
                    add(&counters.entries, 1);
                    if let Some(full) = self.builder.push(&entry) {
                        self.since = None;
                        send(full);
                    }
                    self.since.get_or_insert(now);
                }
                Err(unsaid) => {
                    if let Some(counter) = counters.unsaid.get(unsaid as usize) {
                        add(counter, 1);
                    }
                }
            }
        }
    }

    /// The message that has waited for long enough.
    pub fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.since.filter(|since| now.saturating_duration_since(*since) >= FLUSH)?;
        self.since = None;
        self.builder.take()
    }
}

/// The thread: sends until it is stopped.
pub(super) fn run(daemon: &IpvsSync, common: &Common) {
    let mut speaker = Speaker::new(daemon);
    let mut view = View::default();
    while let Some(socket) = common.open(RETRY, || socket::sender(daemon)) {
        // who listens has heard nothing yet, or not for a while
        let mut copies: Option<Copies> = None;
        while !common.stop.load(Relaxed) {
            common.follow(&mut view);
            let (Some(feeds), Some(book)) = (&view.feeds, view.book()) else {
                thread::park_timeout(RETRY);
                continue;
            };
            let copies = match &mut copies {
                Some(copies) if Arc::ptr_eq(&copies.feeds, feeds) => copies,
                other => other.insert(Copies::begin(feeds)),
            };
            copies.turn(daemon.resync);
            let turn =
                if copies.under_way { COPY_TURN / usize::from(feeds.workers()).max(1) + 1 } else { TURN };
            match speak(&mut speaker, feeds, book, &socket, (&common.counters, turn)) {
                Ok(true) if copies.under_way => thread::park_timeout(COPY_PAUSE),
                Ok(true) => {}
                Ok(false) => {
                    // only now has what was told left the queues
                    copies.under_way &= !feeds.is_all_told(Listener::Ipvs);
                    thread::park_timeout(if copies.under_way { COPY_PAUSE } else { LOOK });
                }
                Err(error) => {
                    common.fault(&error);
                    break;
                }
            }
        }
    }
}

/// When everything is told.
struct Copies {
    feeds: Arc<Feeds>,
    /// The latest began.
    since: Instant,
    /// How many of [`AGAIN`] there were.
    again: usize,
    under_way: bool,
    /// Records lost when it began.
    lost: u64,
}

impl Copies {
    fn begin(feeds: &Arc<Feeds>) -> Self {
        feeds.ask_for_all(Listener::Ipvs);
        let lost = feeds.lost(Listener::Ipvs);
        Self { feeds: feeds.clone(), since: Instant::now(), again: 0, under_way: true, lost }
    }

    /// Begins another when it is time; `resync`: how often, 0: never.
    fn turn(&mut self, resync: Duration) {
        if self.under_way {
            return;
        }
        let elapsed = self.since.elapsed();
        let repeat = AGAIN.get(self.again).is_some_and(|after| elapsed >= *after);
        let due = !resync.is_zero() && elapsed >= resync;
        let repair = elapsed >= REPAIR && self.feeds.lost(Listener::Ipvs) != self.lost;
        if repeat || due || repair {
            let again = self.again + usize::from(repeat);
            *self = Self { again, ..Self::begin(&self.feeds) };
        }
    }
}

/// Sends what the workers have told; whether there is more. Errors: of the socket, which is to be opened anew.
fn speak(
    speaker: &mut Speaker,
    feeds: &Feeds,
    book: &Book,
    socket: &UdpSocket,
    (counters, turn): (&Counters, usize),
) -> io::Result<bool> {
    let (mut result, mut more) = (Ok(()), false);
    let mut send = |message: Vec<u8>| match socket.send(&message) {
        Ok(_) => add(&counters.messages, 1),
        Err(error) => {
            add(&counters.refused, 1);
            result = Err(error);
        }
    };
    let now = Instant::now();
    for worker in 0..feeds.workers() {
        let mut told = 0;
        while told < turn
            && let Some(record) = feeds.next(Listener::Ipvs, worker)
        {
            speaker.tell(&record, book, now, counters, &mut send);
            told += 1;
        }
        more |= told == turn;
    }
    if let Some(message) = speaker.due(now) {
        send(message);
    }
    result.map(|()| more)
}

#[cfg(test)]
mod tests {
    use lb_config::IpvsSyncState;

    use super::super::convert::tests as samples;
    use super::super::wire::Message;
    use super::*;

    #[test]
    fn entries_wait_for_others_and_not_for_long() {
        let book = samples::book();
        let mut daemon = IpvsSync::new(IpvsSyncState::Master, "eth2".to_owned());
        (daemon.sync_id, daemon.max_length) = (7, 8 + 3 * 36);
        let (mut speaker, counters) = (Speaker::new(&daemon), Counters::default());
        let start = Instant::now();
        let mut sent = Vec::new();
        for n in 0..7 {
            let record = samples::record(&book, "web", n);
            speaker.tell(&record, &book, start, &counters, |message| sent.push(message));
        }
        assert_eq!(sent.len(), 2);
        assert_eq!(speaker.due(start), None);
        assert_eq!(speaker.due(start + FLUSH - Duration::from_micros(1)), None);
        sent.extend(speaker.due(start + FLUSH));
        assert_eq!(speaker.due(start + 2 * FLUSH), None);
        let clients: Vec<u16> = sent
            .iter()
            .flat_map(|message| Message::parse(message).unwrap().entries())
            .map(|entry| entry.unwrap().client.1)
            .collect();
        assert_eq!(clients, [0, 1, 2, 3, 4, 5, 6]);
        assert!(sent.iter().all(|message| message[1] == 7));
        // what IPVS has no words for is counted
        speaker.tell(&samples::record(&book, "full", 1), &book, start, &counters, |_| unreachable!());
        assert_eq!(speaker.due(start + 9 * FLUSH), None);
        let full = counters.unsaid[super::super::convert::Unsaid::FullNat as usize].load(Relaxed);
        assert_eq!((counters.entries.load(Relaxed), full), (7, 1));
    }
}
