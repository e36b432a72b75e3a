//! The backup daemon: takes over what Linux directors tell.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use lb_config::IpvsSync;
use lb_dataplane::sync::{Feeds, Record};

use super::convert::{Book, heard};
use super::counters::{Counters, add};
use super::daemon::{Common, View};
use super::socket;
use super::wire::Message;

/// Time between attempts to open the socket.
const RETRY: Duration = Duration::from_secs(1);
/// How long a worker may take to make room for a record.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longest message of UDP.
const LONGEST: usize = 65_535;

/// Reads a datagram; `take` gets what is in it.
pub fn listen(datagram: &[u8], sync_id: u8, book: &Book, counters: &Counters, mut take: impl FnMut(Record)) {
    let message = match Message::parse(datagram) {
        Ok(message) if sync_id == 0 || message.sync_id == sync_id => message,
        _ => return add(&counters.refused, 1),
    };
    add(&counters.messages, 1);
    for entry in message.entries() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(_) => {
                add(&counters.malformed, 1);
                continue;
            }
        };
        add(&counters.entries, 1);
        match heard(&entry, book) {
            Ok(record) => take(record),
            Err(unheard) => {
                if let Some(counter) = counters.unheard.get(unheard as usize) {
                    add(counter, 1);
                }
            }
        }
    }
}

/// The thread: listens until it is stopped.
pub(super) fn run(daemon: &IpvsSync, common: &Common) {
    let mut buffer = vec![0; LONGEST];
    let mut view = View::default();
    while let Some(socket) = common.open(RETRY, || socket::receiver(daemon)) {
        while !common.stop.load(Relaxed) {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => {
                    common.fault(&error);
                    break;
                }
            };
            common.follow(&mut view);
            let (Some(book), feeds) = (view.book(), &view.feeds) else { continue };
            let datagram = buffer.get(..length).unwrap_or_default();
            listen(datagram, daemon.sync_id, book, &common.counters, |record| {
                if !feeds.as_ref().is_some_and(|feeds| hand_over(feeds, record)) {
                    add(&common.counters.late, 1);
                }
            });
        }
    }
}

/// Gives a record to its worker, which may have to make room first.
fn hand_over(feeds: &Feeds, mut record: Record) -> bool {
    const STEP: Duration = Duration::from_micros(200);
    for _ in 0..PATIENCE.as_micros() / STEP.as_micros() {
        match feeds.apply(record) {
            Ok(()) => return true,
            Err(back) => record = back,
        }
        thread::sleep(STEP);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::convert::tests as samples;
    use super::super::convert::{Unheard, said};
    use super::super::wire::Builder;
    use super::*;

    #[test]
    fn messages_of_the_own_group_are_taken_and_the_rest_is_counted() {
        let book = samples::book();
        let mut builder = Builder::new(7, 1472);
        let records = [samples::record(&book, "web", 1), samples::record(&book, "nat", 2)];
        for record in &records {
            let entry = said(record, &book)[0].clone().unwrap().unwrap();
            assert_eq!(builder.push(&entry), None);
        }
        let entry = said(&records[0], &book)[0].clone().unwrap().unwrap();
        let unknown = super::super::wire::Entry { vip: ([10, 0, 0, 99].into(), 80), ..entry };
        builder.push(&unknown);
        builder.push(&unknown);
        let mut datagram = builder.take().unwrap();
        // the last one's protocol
        let last = datagram.len() - 36;
        datagram[last + 1] = 51;
        let counters = Counters::default();
        let taken = |datagram: &[u8], sync_id| {
            let mut taken = Vec::new();
            listen(datagram, sync_id, &book, &counters, |record| taken.push(record));
            taken
        };
        assert_eq!(taken(&datagram, 7), records);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        assert_eq!(
            (count(&counters.messages), count(&counters.entries), count(&counters.malformed)),
            (1, 3, 1)
        );
        assert_eq!(count(&counters.unheard[Unheard::NoServer as usize]), 1);
        assert_eq!(taken(&datagram, 0), records);
        assert_eq!(taken(&datagram, 8), []);
        assert_eq!(taken(&datagram[..9], 7), []);
        assert_eq!(count(&counters.refused), 2);
    }
}
