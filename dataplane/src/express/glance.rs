//! A glance at a frame: is it a plain TCP segment or UDP datagram, and of which flow?
//!
//! Plain: untagged, IPv4 without options or IPv6 without extension headers, whole, every length right, IPv4's header
//! checksum right, from an address that may send. Invariant: what is plain here is the same to
//! [`parse`](crate::parse::parse()), which judges everything else; a property test holds the two together.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use arrayvec::ArrayVec;

use super::both_ways::Second;
use crate::conn::{ConnKey, Found, Key4, Key6, Probe};
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

/// [`Facts`] in a word, as they are kept: of a plain packet it is not 0.
///
/// Bits 0-15 length, 16-23 protocol, 24-31 event, then steady, calm, reply. Calm is what is steady and leaves an
/// established connection as it is: UDP, or TCP of which the ACK alone counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted(NonZeroU64);

impl Noted {
    const NUMBER: u32 = 16;
    const EVENT: u32 = 24;
    const STEADY: u64 = 1 << 32;
    const CALM: u64 = 1 << 33;
    const REPLY: u64 = 1 << 34;

    /// `number` is not 0; `flags`: of those above.
    #[inline(always)]
    fn new(ip_len: u16, number: u8, event: Event, flags: u64) -> Option<Self> {
        let what = u64::from(number) << Self::NUMBER | u64::from(event.number()) << Self::EVENT;
        NonZeroU64::new(u64::from(ip_len) | what | flags).map(Self)
    }

    #[inline(always)]
    pub fn number(self) -> u8 {
        (self.0.get() >> Self::NUMBER) as u8
    }

    #[inline(always)]
    pub fn ip_len(self) -> u16 {
        self.0.get() as u16
    }

    #[inline(always)]
    pub fn is_calm(self) -> bool {
        self.0.get() & Self::CALM != 0
    }

    #[inline(always)]
    pub fn is_reply(self) -> bool {
        self.0.get() & Self::REPLY != 0
    }

    #[inline(always)]
    pub fn set_reply(&mut self) {
        self.0 |= Self::REPLY;
    }

    #[inline(always)]
    pub fn facts(self) -> Facts {
        let has = |flag| self.0.get() & flag != 0;
        Facts {
            ip_len: self.ip_len(),
            number: self.number(),
            event: Event::of_number((self.0.get() >> Self::EVENT) as u8),
            steady: has(Self::STEADY),
            reply: has(Self::REPLY),
        }
    }
}

/// A plain packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<K> {
    pub key: K,
    pub probe: Probe,
    pub noted: Noted,
    /// Of the second pass.
    pub found: Found,
}

/// The plain packets of one family in a burst, in their order.
pub(crate) struct Batch<K> {
    pub rows: ArrayVec<Row<K>, BURST>,
    /// As many as rows where replies pass the director, after the second pass; else none.
    pub seconds: ArrayVec<Second<K>, BURST>,
}

/// A place in a burst, so that the compiler sees that it is one.
#[inline(always)]
pub(super) fn place(at: usize) -> usize {
    at % BURST
}

impl<K: Plain> Batch<K> {
    #[inline(always)]
    pub fn new() -> Self {
        Self { rows: ArrayVec::new(), seconds: ArrayVec::new() }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a packet; to be called at most [`BURST`] times.
    #[inline(always)]
    pub fn push(&mut self, key: K, noted: Noted, probe: Probe) {
        self.rows.push(Row { key, noted, probe, found: Found::NOTHING });
    }

    /// The packet that was added last.
    #[inline(always)]
    pub fn last(&mut self) -> Option<&mut Row<K>> {
        self.rows.last_mut()
    }

    /// Takes the packet back that was added last.
    pub fn pop(&mut self) {
        self.rows.pop();
    }

    #[inline(always)]
    pub fn rows(&self) -> &[Row<K>] {
        &self.rows
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
    /// Offset of the TCP or UDP header in a plain frame, bytes.
    const L4_AT: usize;
    /// Bytes of the longest plain headers; frames shorter than that are left to the parser.
    const HEAD: usize;

    /// What a frame of this EtherType is, if it is plain; [`Gate`](super::Gate) has seen that its first header is plain
    /// by its first byte.
    fn glance(frame: &[u8]) -> Option<(Self, Noted)>;

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

#[inline(always)]
fn be128<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    bytes[at..].first_chunk().map_or(0, |word| u128::from_be_bytes(*word))
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
    const CALM: u64 = Noted::STEADY | Noted::CALM;
    let lives = ttl > 1;
    if number == PROTOCOL_TCP {
        let header_len = i32::from(head[at + 12] >> 2 & 0x3c);
        if header_len < 20 || header_len > rest {
            return None;
        }
        let flags = head[at + 13];
        if flags & DECIDING == TcpFlags::ACK.0 {
            return Noted::new(ip_len, PROTOCOL_TCP, tcp::ACK, if lives { CALM } else { 0 });
        }
        let event = tcp::event(flags);
        let steady = lives && !event.is_new();
        Noted::new(ip_len, PROTOCOL_TCP, event, if steady { Noted::STEADY } else { 0 })
    } else if number == PROTOCOL_UDP {
        let len = i32::from(be16(head, at + 4));
        if len < udp::HEADER_LEN as i32 || len > rest {
            return None;
        }
        Noted::new(ip_len, PROTOCOL_UDP, Event::default(), if lives { CALM } else { 0 })
    } else {
        None
    }
}

/// Flags that make a segment another event than [`tcp::ACK`], and ACK.
const DECIDING: u8 = TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::FIN.0 | TcpFlags::ACK.0;

/// The first bytes of IPv4 addresses that may send; of 0.0.0.0/8 and 240.0.0.0/4, where some may, none.
static USUAL_SOURCES: [bool; 256] = {
    let mut usual = [false; 256];
    let mut first = 1;
    while first < 224 {
        usual[first] = first != 127;
        first += 1;
    }
    usual
};

/// The sum of an IPv4 header's words in one's complement arithmetic: the same modulo 0xffff whatever their width.
#[inline(always)]
fn sum(a: u64, b: u64, c: u32) -> u64 {
    let (ab, over) = a.overflowing_add(b);
    let (abc, more) = ab.overflowing_add(u64::from(c) + u64::from(over));
    abc.wrapping_add(u64::from(more))
}

impl Plain for Key4 {
    const L4_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    const HEAD: usize = HEAD4;

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        /// More fragments, or a fragment offset, as they lie in the first eight bytes.
        const FRAGMENT: u64 = 0xff3f << 48;
        let head = frame.first_chunk::<HEAD4>()?;
        let (a, b, dst) = (raw64(head, 14), raw64(head, 22), raw32(head, 30));
        let src = (b >> 32) as u32;
        let ip_len = ((a >> 16) as u16).swap_bytes();
        if a & FRAGMENT != 0
            || !checksum::is_valid(sum(a, b, dst))
            || usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
            || !USUAL_SOURCES[usize::from(src as u8)]
        {
            return None;
        }
        let rest = i32::from(ip_len) - ipv4::HEADER_LEN as i32;
        let noted = transport(head, Self::L4_AT, ((b >> 8) as u8, b as u8), ip_len, rest)?;
        Some((Key4::of_packet(raw64(head, 26), raw32(head, 34)), noted))
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
    const L4_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    const HEAD: usize = HEAD6;

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        let head = frame.first_chunk::<HEAD6>()?;
        let room = be16(head, 18);
        let ip_len = room.checked_add(ipv6::HEADER_LEN as u16)?;
        let src = Ipv6Addr::from_bits(be128(head, 22));
        if usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
            || src.is_unspecified()
            || !ipv6::is_source(src)
        {
            return None;
        }
        let noted = transport(head, Self::L4_AT, (head[20], head[21]), ip_len, room.into())?;
        let dst = Ipv6Addr::from_bits(be128(head, 38));
        Some((Key6::new(src, be16(head, 54), dst, be16(head, 56)), noted))
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
