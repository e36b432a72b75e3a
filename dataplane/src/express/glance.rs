//! A glance at a frame: is it a plain TCP segment or UDP datagram, and of which flow?
//!
//! Plain: untagged, IPv4 without options or IPv6 without extension headers, whole, every length right, IPv4's header
//! checksum right, from an address that may send. Invariant: what is plain here is the same to
//! [`parse`](crate::parse::parse()), which judges everything else; a property test holds the two together.

use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

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
    /// UDP, else TCP.
    pub udp: bool,
    pub event: Event,
    /// Nothing but its connection decides about it: its TTL suffices, it begins no connection.
    pub steady: bool,
    /// Its tuple may be that of a server's reply.
    pub reply: bool,
}

impl Facts {
    #[inline(always)]
    pub fn protocol(&self) -> L4 {
        if self.udp { L4::Udp } else { L4::Tcp }
    }
}

/// What a packet's second lookup is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Second {
    /// None is needed.
    No,
    /// The pair that says what its ends become may be here.
    Pair(Probe),
    /// It is a server's reply; its pair, and where that pair's connection may be.
    Connection(Found, Probe),
}

/// The plain packets of one family in a burst, in their order.
pub(crate) struct Batch<K> {
    pub keys: ArrayVec<K, BURST>,
    pub protocols: [u8; BURST],
    pub probes: [Probe; BURST],
    pub facts: [Facts; BURST],
    /// Of the second pass.
    pub founds: [Found; BURST],
    /// As many as keys where there are second lookups at all, else none.
    pub seconds: ArrayVec<Second, BURST>,
}

/// A place in a burst, so that the compiler sees that it is one.
#[inline(always)]
pub(super) fn place(at: usize) -> usize {
    at % BURST
}

impl<K: Plain> Batch<K> {
    pub fn new() -> Self {
        Self {
            keys: ArrayVec::new(),
            protocols: [0; BURST],
            probes: [Probe::default(); BURST],
            facts: [Facts::default(); BURST],
            founds: [Found::NOTHING; BURST],
            seconds: ArrayVec::new(),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, key: K, facts: Facts, probe: Probe) {
        let at = place(self.keys.len());
        self.protocols[at] = facts.protocol() as u8;
        self.facts[at] = facts;
        self.probes[at] = probe;
        self.keys.push(key);
    }
}

/// A plain packet in its last pass.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a, K> {
    pub batch: &'a Batch<K>,
    /// Its place there.
    pub at: usize,
    pub key: &'a K,
    /// What was looked up still holds.
    pub fresh: bool,
}

/// A family whose plain packets are told at a glance.
pub(crate) trait Plain: Family {
    /// Offset of the TCP or UDP header in a plain frame, bytes.
    const L4_AT: usize;

    /// What a frame is, if it is plain. Frames shorter than the longest plain headers are left to the parser.
    fn glance(frame: &[u8]) -> Option<(Self, Facts)>;

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

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |word| u16::from_be_bytes(*word))
}

#[inline(always)]
fn be128<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    bytes[at..].first_chunk().map_or(0, |word| u128::from_be_bytes(*word))
}

/// What the transport header at `at` means; `room`: what the packet has behind its IP header, bytes.
#[inline(always)]
fn transport<const N: usize>(head: &[u8; N], at: usize, protocol: u8, room: u16) -> Option<(bool, Event)> {
    if protocol == PROTOCOL_TCP {
        let header_len = u16::from(head[at + 12] >> 4) * 4;
        (header_len >= 20 && header_len <= room).then(|| (false, tcp::event(head[at + 13])))
    } else if protocol == PROTOCOL_UDP {
        let len = be16(head, at + 4);
        (len >= udp::HEADER_LEN as u16 && len <= room).then(|| (true, Event::default()))
    } else {
        None
    }
}

/// Whether an IPv4 address as it lies in memory is one that may send, other than of 240.0.0.0/4.
#[inline(always)]
fn is_usual_source(raw: u32) -> bool {
    let bits = raw.swap_bytes();
    bits.wrapping_sub(1) < 0xe000_0000 - 1 && bits >> 24 != 127
}

impl Plain for Key4 {
    const L4_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Facts)> {
        /// Version 4, a header of five words.
        const USUAL: u32 = 0x45;
        /// More fragments, or a fragment offset, as they lie in the second word.
        const FRAGMENT: u32 = 0xff3f_0000;
        let head = frame.first_chunk::<HEAD4>()?;
        let words: [u32; 5] = std::array::from_fn(|n| raw32(head, 14 + 4 * n));
        let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
        let ip_len = (words[0] >> 16) as u16;
        let ip_len = ip_len.swap_bytes();
        let src = Ipv4Addr::from_bits(words[3].swap_bytes());
        let ttl = words[2] as u8;
        if words[0] & 0xff != USUAL
            || words[1] & FRAGMENT != 0
            || !checksum::is_valid(sum)
            || usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
            || !is_usual_source(words[3])
        {
            return None;
        }
        let room = ip_len.checked_sub(ipv4::HEADER_LEN as u16)?;
        let (udp, event) = transport(head, Self::L4_AT, (words[2] >> 8) as u8, room)?;
        let dst = Ipv4Addr::from_bits(words[4].swap_bytes());
        let key = Key4::new(src, be16(head, 34), dst, be16(head, 36));
        Some((key, Facts { ip_len, udp, event, steady: ttl > 1 && !event.is_new(), reply: false }))
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

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Facts)> {
        let head = frame.first_chunk::<HEAD6>()?;
        let room = be16(head, 18);
        let ip_len = room.checked_add(ipv6::HEADER_LEN as u16)?;
        let src = Ipv6Addr::from_bits(be128(head, 22));
        if head[14] >> 4 != 6
            || usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
            || src.is_unspecified()
            || !ipv6::is_source(src)
        {
            return None;
        }
        let (udp, event) = transport(head, Self::L4_AT, head[20], room)?;
        let dst = Ipv6Addr::from_bits(be128(head, 38));
        let key = Key6::new(src, be16(head, 54), dst, be16(head, 56));
        Some((key, Facts { ip_len, udp, event, steady: head[21] > 1 && !event.is_new(), reply: false }))
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
    pub fn facts(&self) -> &Facts {
        &self.batch.facts[place(self.at)]
    }

    #[inline(always)]
    pub fn probe(&self) -> Probe {
        self.batch.probes[place(self.at)]
    }

    /// What the second pass found.
    #[inline(always)]
    pub fn found(&self) -> Found {
        self.batch.founds[place(self.at)]
    }

    #[inline(always)]
    pub fn second(&self) -> Second {
        self.batch.seconds.get(self.at).copied().unwrap_or(Second::No)
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
