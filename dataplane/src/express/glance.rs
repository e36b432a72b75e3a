//! A glance at a frame: is it a plain TCP segment or UDP datagram, and of which flow?
//!
//! Plain: untagged, IPv4 without options or IPv6 without extension headers, whole, every length right, IPv4's header
//! checksum right. Invariant: what is plain here is the same to [`parse`](crate::parse::parse()), which judges everything
//! else, but that it may come from an address that may not send: of a known connection that was seen when it began, and
//! only where there is none [`Plain::may_send`] is asked. Calm is what is plain and leaves an established connection as
//! it is. A property test holds the three together.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::both_ways::Second;
use super::{Board, Kind, Seen};
use crate::conn::simd::{Level, Pattern};
use crate::conn::{ConnKey, Found, Key4, Key6, Probe, Prober};
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::io::BURST;
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags};
use crate::rewrite::Address;
use crate::state::{Event, tcp};
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP, checksum, ethernet, ipv4, ipv6, udp};

/// What a glance says of a plain packet beside its key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Whole IP packet, bytes.
    pub ip_len: u16,
    /// TCP's or UDP's.
    pub number: u8,
    pub event: Event,
    /// Nothing but its connection decides about it: its TTL suffices, it begins no connection.
    pub steady: bool,
    /// Its tuple may be that of a server's reply.
    pub reply: bool,
}

impl Facts {
    #[inline(always)]
    pub fn protocol(&self) -> L4 {
        if self.number == PROTOCOL_UDP { L4::Udp } else { L4::Tcp }
    }
}

/// [`Facts`] as they are kept.
///
/// The lower half is the length, at most 65,535. Of the upper one, `what`, bits 0-7 are the protocol, 8-15 the event, then
/// steady, calm, reply: all of it can be compared at once. Calm is what is steady and leaves an established connection as
/// it is: UDP, or TCP of which the ACK alone counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub(crate) struct Noted {
    ip_len: u32,
    what: u32,
}

impl Noted {
    const EVENT: u32 = 8;
    const STEADY: u32 = 1 << 16;
    const CALM: u32 = 1 << 17;
    const REPLY: u32 = 1 << 18;
    /// What calm packets of TCP and UDP are.
    const CALM_TCP: u32 =
        PROTOCOL_TCP as u32 | (tcp::ACK.number() as u32) << Self::EVENT | Self::STEADY | Self::CALM;
    const CALM_UDP: u32 = PROTOCOL_UDP as u32 | Self::STEADY | Self::CALM;

    /// `flags`: of those above.
    #[inline(always)]
    fn new(ip_len: u16, number: u8, event: Event, flags: u32) -> Self {
        Self::of(u32::from(number) | u32::from(event.number()) << Self::EVENT | flags, ip_len.into())
    }

    /// `ip_len`: at most 65,535.
    #[inline(always)]
    const fn of(what: u32, ip_len: u32) -> Self {
        Self { ip_len, what }
    }

    #[inline(always)]
    pub fn number(self) -> u8 {
        self.what() as u8
    }

    #[inline(always)]
    pub fn ip_len(self) -> u32 {
        self.ip_len
    }

    /// All but the length.
    #[inline(always)]
    pub fn what(self) -> u32 {
        self.what
    }

    /// The length, where all else is as `other` says; more than any length where it is not.
    #[inline(always)]
    pub fn ip_len_like(self, other: Bare) -> u64 {
        (u64::from(self.what) << 32 | u64::from(self.ip_len)).wrapping_sub(other.0)
    }

    /// All but the length.
    #[inline(always)]
    pub fn bare(self) -> Bare {
        Bare(u64::from(self.what) << 32)
    }

    /// Whether it is a calm TCP segment that is not taken for a reply.
    #[inline(always)]
    pub fn is_calm_tcp(self) -> bool {
        self.what() == Self::CALM_TCP
    }

    /// The same of a UDP datagram.
    #[inline(always)]
    pub fn is_calm_udp(self) -> bool {
        self.what() == Self::CALM_UDP
    }

    /// Whether it is steady and leaves an established connection as it is.
    #[inline(always)]
    pub fn is_calm(self) -> bool {
        self.what() & Self::CALM != 0
    }

    #[inline(always)]
    pub fn is_reply(self) -> bool {
        self.what() & Self::REPLY != 0
    }

    #[inline(always)]
    pub fn set_reply(&mut self) {
        self.what |= Self::REPLY;
    }

    #[inline(always)]
    pub fn facts(self) -> Facts {
        let has = |flag| self.what() & flag != 0;
        Facts {
            ip_len: self.ip_len() as u16,
            number: self.number(),
            event: Event::of_number((self.what() >> Self::EVENT) as u8),
            steady: has(Self::STEADY),
            reply: has(Self::REPLY),
        }
    }
}

/// A [`Noted`] without its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare(u64);

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

/// What calm frames of a family to one MAC address look like in their first 32 bytes.
pub(crate) struct Looks {
    tcp: Pattern,
    udp: Pattern,
}

impl Looks {
    /// `to`: as [`Gate`](super::Gate) has it. `None`: there are none.
    #[inline(always)]
    fn new(to: u64, tcp: &Pattern, udp: &Pattern) -> Option<Self> {
        let with = |pattern: &Pattern| {
            let mut pattern = *pattern;
            if let Some(bytes) = pattern.value.first_chunk_mut::<8>() {
                *bytes = (to >> 16).to_le_bytes();
            }
            pattern
        };
        (to & 0xffff == 0).then(|| Self { tcp: with(tcp), udp: with(udp) })
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

    /// Calm packets in frames to the MAC address `to`, as [`Gate`](super::Gate) has it. `None`: there are none.
    fn looks(to: u64) -> Option<Looks>;

    /// Writes a calm packet down. `false`: it is none, and what is in the row is of no use.
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool;

    /// What a frame of this EtherType is, if it is plain; [`Gate`](super::Gate) has seen that its first header is plain
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

/// Bytes of Ethernet, IPv4 and TCP headers without options.
pub(super) const HEAD4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + 20;
/// Bytes of Ethernet, IPv6 and TCP headers without options.
pub(super) const HEAD6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 20;

/// Four bytes as they lie in memory: sums over them are right in either byte order (RFC 1071 section 2 (B)).
#[inline(always)]
pub(super) fn raw32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

/// Eight bytes as they lie in memory.
#[inline(always)]
pub(super) fn raw64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |word| u16::from_be_bytes(*word))
}

/// What a packet is, by its transport header at `at`; `rest`: bytes of the packet from there on.
#[inline(always)]
fn transport<const N: usize>(
    head: &[u8; N],
    at: usize,
    (number, ttl): (u8, u8),
    ip_len: u16,
    rest: i32,
) -> Option<Noted> {
    const CALM: u32 = Noted::STEADY | Noted::CALM;
    let lives = ttl > 1;
    if number == PROTOCOL_TCP {
        let header_len = i32::from(head[at + 12] >> 2 & 0x3c);
        if header_len < 20 || header_len > rest {
            return None;
        }
        let flags = head[at + 13];
        if flags & DECIDING == TcpFlags::ACK.0 {
            return Some(Noted::new(ip_len, PROTOCOL_TCP, tcp::ACK, if lives { CALM } else { 0 }));
        }
        let event = tcp::event(flags);
        let steady = lives && !event.is_new();
        Some(Noted::new(ip_len, PROTOCOL_TCP, event, if steady { Noted::STEADY } else { 0 }))
    } else if number == PROTOCOL_UDP {
        let len = i32::from(be16(head, at + 4));
        if len < udp::HEADER_LEN as i32 || len > rest {
            return None;
        }
        Some(Noted::new(ip_len, PROTOCOL_UDP, Event::default(), if lives { CALM } else { 0 }))
    } else {
        None
    }
}

/// Flags that make a segment another event than [`tcp::ACK`], and ACK.
const DECIDING: u8 = TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::FIN.0 | TcpFlags::ACK.0;

/// Bytes 0 to 31 of a frame, in which what decides about its kind stands: whom it is for, EtherType, version, flags and
/// offset of IPv4, protocol.
#[inline(always)]
fn window<const N: usize>(head: &[u8; N]) -> &[u8; 32] {
    head.first_chunk().unwrap_or(&[0; 32])
}

/// What counts of these for every family: destination and EtherType.
const fn pattern(ether_type: [u8; 2]) -> Pattern {
    let (mut value, mut mask) = ([0; 32], [0; 32]);
    let mut at = 0;
    while at < 6 {
        mask[at] = 0xff;
        at += 1;
    }
    [value[12], value[13]] = ether_type;
    [mask[12], mask[13]] = [0xff; 2];
    Pattern { value, mask }
}

/// Untagged IPv4 of a header of five words, not a fragment, with this protocol, in a [`window`].
const fn pattern4(protocol: u8) -> Pattern {
    let Pattern { mut value, mut mask } = pattern([0x08, 0x00]);
    [value[14], value[23]] = [0x45, protocol];
    [mask[14], mask[20], mask[21], mask[23]] = [0xff, 0x3f, 0xff, 0xff];
    Pattern { value, mask }
}

/// Untagged IPv6 with this protocol right behind its header, in a [`window`].
const fn pattern6(protocol: u8) -> Pattern {
    let Pattern { mut value, mut mask } = pattern([0x86, 0xdd]);
    [value[14], value[20]] = [0x60, protocol];
    [mask[14], mask[20]] = [0xf0, 0xff];
    Pattern { value, mask }
}

static TCP4: Pattern = pattern4(PROTOCOL_TCP);
static UDP4: Pattern = pattern4(PROTOCOL_UDP);
static TCP6: Pattern = pattern6(PROTOCOL_TCP);
static UDP6: Pattern = pattern6(PROTOCOL_UDP);

/// Whether a TCP header at `at` is whole and changes no established connection, in a packet of which `len` bytes begin
/// with it; of these, and what is behind it in the frame, `room` were received.
///
/// What would be less than nothing is more than anything here, so each pair of limits is one comparison.
#[inline(always)]
fn is_calm_tcp<const N: usize>(head: &[u8; N], at: usize, len: u32, room: u32) -> bool {
    let options = (u32::from(head[at + 12] >> 4) * 4).wrapping_sub(TCP_HEADER);
    let rest = len.wrapping_sub(TCP_HEADER);
    rest <= room.wrapping_sub(TCP_HEADER) && head[at + 13] & DECIDING == TcpFlags::ACK.0 && options <= rest
}

/// Whether a UDP header is whole, likewise.
#[inline(always)]
fn is_right_udp<const N: usize>(head: &[u8; N], at: usize, len: u32, room: u32) -> bool {
    const HEADER: u32 = udp::HEADER_LEN as u32;
    let rest = len.wrapping_sub(HEADER);
    rest <= room.wrapping_sub(HEADER) && u32::from(be16(head, at + 4)).wrapping_sub(HEADER) <= rest
}

/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// The sum of the words of an IPv4 header without options that is no fragment's, in one's complement arithmetic: the
/// same modulo 0xffff whatever the words' width. Of another header it is of no use.
///
/// The first eight bytes end in the fragment's offset, which is 0, so four more may be added without a carry.
#[inline(always)]
fn sum(first: u64, middle: u32, last: u64) -> u64 {
    let (sum, over) = first.wrapping_add(middle.into()).overflowing_add(last);
    sum.wrapping_add(over.into())
}

/// Whether the checksum of such a header is right; its version is not 0.
#[inline(always)]
fn is_sum_right(head: &[u8; HEAD4]) -> bool {
    checksum::is_multiple(sum(raw64(head, 14), raw32(head, 22), raw64(head, 26)))
}

/// Client, VIP and ports stand in a row in packets without options, as they do in a key.
#[inline(always)]
fn key4(head: &[u8; HEAD4]) -> Key4 {
    Key4::of_packet(raw64(head, 26), raw32(head, 34))
}

#[inline(always)]
fn key6(head: &[u8; HEAD6]) -> Key6 {
    Key6::read(head[22..].first_chunk().unwrap_or(&[0; 36]))
}

impl Plain for Key4 {
    const KIND: Kind = Kind::V4;
    const L4_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    const HEAD: usize = HEAD4;
    const BAD_SOURCE: DropReason = DropReason::Ipv4Source;

    #[inline(always)]
    fn looks(to: u64) -> Option<Looks> {
        Looks::new(to, &TCP4, &UDP4)
    }

    #[inline(always)]
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool {
        const BEFORE: u32 = ipv4::HEADER_LEN as u32;
        let Some(head) = frame.first_chunk::<HEAD4>() else { return false };
        let (ip_len, room) = (u32::from(be16(head, 16)), (frame.len() - Self::L4_AT) as u32);
        let len = ip_len.wrapping_sub(BEFORE);
        // read before the window, else the compiler takes these words out of that, in four steps
        let (first, middle) = (raw64(head, 14), raw32(head, 22));
        let lives = middle as u8 > 1;
        let is_right = || lives && checksum::is_multiple(sum(first, middle, raw64(head, 26)));
        // twice the same, but for what is constant in it
        if level.matches(window(head), &looks.tcp) {
            let calm = is_right() && is_calm_tcp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key4(head), Noted::CALM_TCP, ip_len, prober);
            }
            calm
        } else if level.matches(window(head), &looks.udp) {
            let calm = is_right() && is_right_udp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key4(head), Noted::CALM_UDP, ip_len, prober);
            }
            calm
        } else {
            false
        }
    }

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        let head = frame.first_chunk::<HEAD4>()?;
        let ip_len = be16(head, 16);
        if be16(head, 20) & 0x3fff != 0
            || !is_sum_right(head)
            || usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
        {
            return None;
        }
        let rest = i32::from(ip_len) - ipv4::HEADER_LEN as i32;
        let noted = transport(head, Self::L4_AT, (head[23], head[22]), ip_len, rest)?;
        Some((key4(head), noted))
    }

    #[inline]
    fn may_send(&self) -> bool {
        ipv4::is_source(self.client())
    }

    #[inline(always)]
    fn batch(board: &Board) -> &Batch<Self> {
        &board.v4
    }

    #[inline(always)]
    fn batch_mut(board: &mut Board) -> (&mut [Kind; BURST], &mut Batch<Self>) {
        (&mut board.kinds, &mut board.v4)
    }

    #[inline(always)]
    fn count(seen: &mut Seen) -> &mut usize {
        &mut seen.v4
    }

    #[inline]
    fn ttl_and_df(frame: &[u8]) -> (u8, bool) {
        frame.first_chunk::<HEAD4>().map_or((0, false), |head| (head[22], head[20] & 0x40 != 0))
    }

    #[inline]
    fn net(flow: Flow<Ipv4Addr>) -> Net {
        Net::Flow4(flow)
    }
}

impl Plain for Key6 {
    const KIND: Kind = Kind::V6;
    const L4_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    const HEAD: usize = HEAD6;
    const BAD_SOURCE: DropReason = DropReason::Ipv6Source;

    #[inline(always)]
    fn looks(to: u64) -> Option<Looks> {
        Looks::new(to, &TCP6, &UDP6)
    }

    #[inline(always)]
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool {
        const BEFORE: u32 = ipv6::HEADER_LEN as u32;
        let Some(head) = frame.first_chunk::<HEAD6>() else { return false };
        let (len, room) = (u32::from(be16(head, 18)), (frame.len() - Self::L4_AT) as u32);
        // read before the window, as above
        let lives = head[21] > 1;
        if len > u32::from(u16::MAX) - BEFORE {
            return false;
        }
        if level.matches(window(head), &looks.tcp) {
            let calm = lives && is_calm_tcp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key6(head), Noted::CALM_TCP, len + BEFORE, prober);
            }
            calm
        } else if level.matches(window(head), &looks.udp) {
            let calm = lives && is_right_udp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key6(head), Noted::CALM_UDP, len + BEFORE, prober);
            }
            calm
        } else {
            false
        }
    }

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        let head = frame.first_chunk::<HEAD6>()?;
        let room = be16(head, 18);
        let ip_len = room.checked_add(ipv6::HEADER_LEN as u16)?;
        if usize::from(ip_len) + ethernet::HEADER_LEN > frame.len() {
            return None;
        }
        let noted = transport(head, Self::L4_AT, (head[20], head[21]), ip_len, room.into())?;
        Some((key6(head), noted))
    }

    #[inline]
    fn may_send(&self) -> bool {
        let client = self.client();
        !client.is_unspecified() && ipv6::is_source(client)
    }

    #[inline(always)]
    fn batch(board: &Board) -> &Batch<Self> {
        &board.v6
    }

    #[inline(always)]
    fn batch_mut(board: &mut Board) -> (&mut [Kind; BURST], &mut Batch<Self>) {
        (&mut board.kinds, &mut board.v6)
    }

    #[inline(always)]
    fn count(seen: &mut Seen) -> &mut usize {
        &mut seen.v6
    }

    #[inline]
    fn ttl_and_df(frame: &[u8]) -> (u8, bool) {
        (frame.first_chunk::<HEAD6>().map_or(0, |head| head[21]), true)
    }

    #[inline]
    fn net(flow: Flow<Ipv6Addr>) -> Net {
        Net::Flow6(flow)
    }
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
