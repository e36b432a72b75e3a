//! A glance at a frame: is it a plain TCP segment or UDP datagram, and of which flow?
//!
//! Plain: untagged, IPv4 without options or IPv6 without extension headers, whole, every length right, IPv4's header
//! checksum right. Invariant: what is plain here is the same to [`parse`](crate::parse::parse()), which judges everything
//! else, but that it may come from an address that may not send: of a known connection that was seen when it began, and
//! only where there is none [`Plain::may_send`] is asked. Calm is what is plain and leaves an established connection as
//! it is. A property test holds the three together.

use super::both_ways::Second;
use super::{Board, Kind, Seen};
use crate::conn::simd::Level;
use crate::conn::{ConnKey, Found, Probe, Prober};
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::io::BURST;
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags};
use crate::rewrite::Address;
use crate::wire::ethernet;

mod calm;
mod families;
mod noted;
mod words;

pub(crate) use calm::Looks;
pub(super) use noted::Bare;
pub(crate) use noted::{Facts, Noted};
pub(super) use words::{HEAD4, HEAD6, raw32, raw64};

/// A plain packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<K> {
    pub key: K,
    pub probe: Probe,
    pub noted: Noted,
    /// Of the second pass.
    pub found: Found,
}

impl<K: ConnKey> Row<K> {
    /// Of no packet.
    fn none() -> Self {
        Self { key: K::default(), probe: Probe::default(), noted: Noted::of(0, 0), found: Found::NOTHING }
    }

    /// Writes down a packet. What is known of it goes to its place before the hash is worked out, which needs the
    /// registers.
    #[inline(always)]
    fn note(&mut self, key: K, what: u32, ip_len: u32, prober: &Prober<'_, K>) {
        (self.key, self.noted) = (key, Noted::of(what, ip_len));
        self.probe = prober.probe(&key, what as u8);
    }
}

/// The plain packets of one family in a burst, each in its place.
pub(crate) struct Batch<K> {
    pub rows: [Row<K>; BURST],
    /// Where [`Batch::two_ways`] is set, after the second pass.
    pub seconds: [Second<K>; BURST],
    /// Replies pass the director.
    pub two_ways: bool,
}

/// A place in a burst, so that the compiler sees that it is one.
#[inline(always)]
pub(super) fn place(at: usize) -> usize {
    at % BURST
}

impl<K: ConnKey> Batch<K> {
    pub fn new() -> Self {
        let (row, second) = (Row::none(), Second::none());
        Self { rows: [row; BURST], seconds: [second; BURST], two_ways: false }
    }

    /// What is known of the packet at `from` is what is known of the one at `to`.
    #[inline(always)]
    pub fn close_up(&mut self, from: usize, to: usize) {
        self.rows[place(to)] = self.rows[place(from)];
        if self.two_ways {
            self.seconds[place(to)] = self.seconds[place(from)];
        }
    }

    /// Packets from the one at `at` on, to the end of what there is room for.
    #[inline(always)]
    pub fn rows_from(&self, at: usize) -> &[Row<K>] {
        self.rows.get(at..).unwrap_or_default()
    }

    /// What the second pass says of them, if anything.
    #[inline(always)]
    pub fn seconds_from(&self, at: usize) -> &[Second<K>] {
        if self.two_ways { self.seconds.get(at..).unwrap_or_default() } else { &[] }
    }
}

/// A plain packet in its last pass.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a, K> {
    pub row: &'a Row<K>,
    pub key: &'a K,
    /// What was looked up still holds.
    pub fresh: bool,
}

/// A family whose plain packets are told at a glance.
pub(crate) trait Plain: Family {
    /// Its packets.
    const KIND: Kind;
    /// Offset of the TCP or UDP header in a plain frame, bytes.
    const L4_AT: usize;
    /// Bytes of the longest plain headers; frames shorter than that are left to the parser.
    const HEAD: usize;
    /// What the parser says of one from an address that may not send.
    const BAD_SOURCE: DropReason;

    /// Calm packets in frames to the MAC address `to`, as [`Gate`](super::see::Gate) has it. `None`: there are none.
    fn looks(to: u64) -> Option<Looks>;

    /// Writes a calm packet down. `false`: it is none, and what is in the row is of no use.
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool;

    /// What a frame of this EtherType is, if it is plain; [`Gate`](super::see::Gate) has seen that its first header is plain
    /// by its first byte.
    fn glance(frame: &[u8]) -> Option<(Self, Noted)>;

    /// Whether the client's address is one that may send.
    fn may_send(&self) -> bool;

    /// Its part of what is known of a burst.
    fn batch(board: &Board) -> &Batch<Self>;

    /// The same with what every frame is.
    fn batch_mut(board: &mut Board) -> (&mut [Kind; BURST], &mut Batch<Self>);

    /// How many of its packets were seen.
    fn count(seen: &mut Seen) -> &mut usize;

    /// TTL or hop limit, and DF, of a plain frame.
    fn ttl_and_df(frame: &[u8]) -> (u8, bool);

    /// A flow as the parser gives it.
    fn net(flow: Flow<Self::Address>) -> Net;
}

impl<K: Plain> Packet<'_, K> {
    #[inline(always)]
    pub fn facts(&self) -> Facts {
        self.row.noted.facts()
    }

    #[inline(always)]
    pub fn probe(&self) -> Probe {
        self.row.probe
    }

    /// What the second pass found.
    #[inline(always)]
    pub fn found(&self) -> Found {
        self.row.found
    }

    /// What the parser says of the same frame.
    #[inline]
    pub fn flow(&self, frame: &[u8]) -> Flow<K::Address>
    where
        K::Address: Address,
    {
        let (ttl, df) = K::ttl_and_df(frame);
        let flags = match self.facts().protocol() {
            L4::Tcp => frame.get(K::L4_AT + 13).copied().unwrap_or_default(),
            L4::Udp | L4::Sctp => 0,
        };
        Flow {
            src: self.key.client(),
            dst: self.key.vip(),
            src_port: self.key.client_port(),
            dst_port: self.key.vip_port(),
            protocol: self.facts().protocol(),
            tcp_flags: TcpFlags(flags),
            event: self.facts().event,
            l4: K::L4_AT as u16,
            ttl,
            ip_len: self.facts().ip_len,
            df,
        }
    }

    /// [`Packet::flow`] as a whole frame.
    #[inline]
    pub fn parsed(&self, flow: Flow<K::Address>) -> Parsed {
        Parsed { vlan: 0, l3: ethernet::HEADER_LEN as u16, net: K::net(flow) }
    }
}

#[cfg(test)]
mod tests;
