//! Mail from the control core: frames to be sent, connections to be listed.

use std::net::IpAddr;

use crate::conn::{ConnKey, Meta, Table, Tick};
use crate::drop_reason::DropReason;
use crate::io::{Packet, PacketIo};
use crate::mailbox::{ConnFilter, ConnRow, Event, Injected, Listing, Mail};
use crate::parse::L4;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::worker::Worker;

/// Lines of the table that a listing visits in one turn: some microseconds.
const LINES_A_TURN: u64 = 256;

impl<I: PacketIo> Worker<I> {
    /// Reads the mail up to the next listing; one listing is worked on at a time.
    pub(crate) fn read_mail(&mut self) {
        while self.listing.is_none()
            && let Some(mail) = self.mailbox.next_mail()
        {
            match mail {
                Mail::Inject(injected) => self.inject(&injected),
                Mail::List(listing) => self.listing = Some(listing),
            }
        }
    }

    fn inject(&mut self, injected: &Injected) {
        self.counters.own.originated.add(1);
        let Some(mut frame) = self.io.alloc() else { return self.counters.drop_packet(DropReason::NoBuffer) };
        if !frame.set_len(injected.frame.len()) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        frame.bytes_mut().copy_from_slice(&injected.frame);
        self.send(injected.device, frame);
    }

    /// Visits the next lines of the tables; sends the listing back when they are through.
    pub(crate) fn continue_listing(&mut self) {
        let Some(mut listing) = self.listing.take() else { return };
        let (v4, v6) = (u64::from(self.tables.v4.lines()), u64::from(self.tables.v6.lines()));
        if listing.cursor < v4 {
            list(&self.tables.v4, &mut listing, 0, self.now, &self.snapshot);
        } else {
            list(&self.tables.v6, &mut listing, v4, self.now, &self.snapshot);
        }
        if self.tables.v4.is_empty() {
            listing.cursor = listing.cursor.max(v4);
        }
        if self.tables.v6.is_empty() && listing.cursor >= v4 {
            listing.cursor = v4 + v6;
        }
        if listing.cursor < v4 + v6 {
            self.listing = Some(listing);
        } else {
            if self.mailbox.tell(Event::Listed(listing)).is_err() {
                self.counters.own.events_lost.add(1);
            }
            self.read_mail();
        }
    }
}

/// Lists the next lines of one table, whose first line has the number `start` in the listing.
fn list<K: ConnKey<Address: Into<IpAddr>>>(
    table: &Table<K>,
    listing: &mut Listing,
    start: u64,
    now: Tick,
    snapshot: &Snapshot,
) {
    let Listing { filter, rows, matched, cursor, .. } = listing;
    table.walk((*cursor - start) as u32, LINES_A_TURN as u32, |key, meta| {
        if let Some(row) = row(key, meta, now).filter(|row| takes(filter, row, snapshot)) {
            *matched += 1;
            if rows.len() < rows.capacity() {
                rows.push(row);
            }
        }
    });
    *cursor = (*cursor + LINES_A_TURN).min(start + u64::from(table.lines()));
}

/// `None`: its time is over, the sweep has not come by yet.
fn row<K: ConnKey<Address: Into<IpAddr>>>(key: &K, meta: Meta, now: Tick) -> Option<ConnRow> {
    Some(ConnRow {
        protocol: L4::of(meta.protocol())?.protocol(),
        client: (key.client().into(), key.client_port()),
        vip: (key.vip().into(), key.vip_port()),
        dest: meta.dest(),
        state: meta.state(),
        expires_ticks: meta.deadline().left(now)?,
    })
}

fn takes(filter: &ConnFilter, row: &ConnRow, snapshot: &Snapshot) -> bool {
    fn any<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
        wanted.is_none_or(|wanted| wanted == value)
    }
    any(filter.client, row.client.0)
        && any(filter.client_port, row.client.1)
        && any(filter.vip, row.vip.0)
        && any(filter.vip_port, row.vip.1)
        && filter.server.is_none_or(|server| snapshot.dest(row.dest).is_some_and(|entry| entry.address == server))
        && any(filter.protocol, row.protocol)
        // by name: NONE and ESTABLISHED are of TCP and of SCTP
        && any(filter.state.map(State::name), row.state.name())
}
