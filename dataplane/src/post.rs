//! Mail from the control core: frames to be sent, connections to be listed or removed.

use std::net::IpAddr;

use crate::conn::{ConnKey, Meta, Pair, Table, Tick};
use crate::drop_reason::DropReason;
use crate::ending::Ending;
use crate::flow::Family;
use crate::io::{Packet, PacketIo};
use crate::local_port;
use crate::mailbox::{ConnFilter, ConnProtocol, ConnRow, Event, Injected, Listing, Mail, Purpose};
use crate::parse::L4;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::sync::Parting;
use crate::tables::Tables;
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
        let Tables { v4, v6, pairs4, pairs6, .. } = &mut self.tables;
        let (lines4, lines6) = (u64::from(v4.lines()), u64::from(v6.lines()));
        let moved = v4.moved() + v6.moved();
        if listing.cursor == 0 {
            listing.moved = moved;
        }
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        let parting = Parting::of(self.teller.feeds.as_deref(), self.id, &self.snapshot);
        let out = (&ending, &parting);
        if listing.cursor < lines4 {
            visit(v4, pairs4, &mut listing, 0, self.now, out);
        } else {
            visit(v6, pairs6, &mut listing, lines4, self.now, out);
        }
        if v4.is_empty() {
            listing.cursor = listing.cursor.max(lines4);
        }
        if v6.is_empty() && listing.cursor >= lines4 {
            listing.cursor = lines4 + lines6;
        }
        if listing.cursor < lines4 + lines6 {
            self.listing = Some(listing);
        } else if listing.purpose != Purpose::List && listing.moved != moved && !listing.again {
            (listing.cursor, listing.again) = (0, true);
            self.listing = Some(listing);
        } else {
            if self.mailbox.tell(Event::Listed(listing)).is_err() {
                self.counters.own.events_lost.add(1);
            }
            self.read_mail();
        }
    }
}

/// Lists or removes the next lines of one table, whose first line has the number `start` in the listing.
fn visit<K: Family<Address: Into<IpAddr>>>(
    table: &mut Table<K>,
    pairs: &mut Table<Pair<K>>,
    listing: &mut Listing,
    start: u64,
    now: Tick,
    (ending, parting): (&Ending<'_>, &Parting<'_>),
) {
    let Listing { purpose, filter, rows, matched, cursor, .. } = listing;
    let (from, snapshot) = ((*cursor - start) as u32, ending.snapshot);
    let matching = |key: &K, meta| row(key, meta, now).filter(|row| takes(filter, row, snapshot));
    let expires = |meta: Meta| snapshot.dest(meta.dest()).is_some_and(|entry| snapshot.reschedules(entry));
    let lines = if *purpose == Purpose::List { LINES_A_TURN } else { parting.lines(LINES_A_TURN) };
    match *purpose {
        Purpose::List => table.walk(from, lines as u32, |key, meta| {
            if let Some(mut row) = matching(key, meta) {
                let has_local = snapshot.dest(row.dest).is_some_and(|entry| entry.way.local_ends().is_some());
                if has_local && let Some((_, reply)) = local_port::reply_of(pairs, *key, meta.protocol()) {
                    row.local = Some((reply.vip().into(), reply.vip_port()));
                }
                *matched += 1;
                if rows.len() < rows.capacity() {
                    rows.push(row);
                }
            }
        }),
        Purpose::Flush | Purpose::Expire => {
            let is_flush = *purpose == Purpose::Flush;
            let which = |key: &K, meta| if is_flush { matching(key, meta).is_some() } else { expires(meta) };
            table.remove_where(from, lines as u32, which, |key, meta| {
                parting.tell(key, meta);
                ending.of(key, meta, pairs, true);
                *matched += 1;
            });
        }
    }
    *cursor = (*cursor + lines).min(start + u64::from(table.lines()));
}

/// `None`: its time is over, the sweep has not come by yet.
fn row<K: ConnKey<Address: Into<IpAddr>>>(key: &K, meta: Meta, now: Tick) -> Option<ConnRow> {
    Some(ConnRow {
        protocol: L4::of(meta.protocol()).map_or(ConnProtocol::Echo, |l4| ConnProtocol::Flow(l4.protocol())),
        client: (key.client().into(), key.client_port()),
        vip: (key.vip().into(), key.vip_port()),
        dest: meta.dest(),
        local: None,
        state: meta.state(),
        no_output: meta.no_output(),
        controlled: meta.controlled(),
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
        && any(filter.protocol.map(ConnProtocol::Flow), row.protocol)
        // by name: NONE and ESTABLISHED are of TCP and of SCTP
        && any(filter.state.map(State::name), row.state.name())
}
