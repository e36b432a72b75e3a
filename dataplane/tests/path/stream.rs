//! Two ends of a TCP connection, as plain as they can be: what they send, they repeat until it is acknowledged.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::frames::{ACK, FIN, RST, SYN, checksum, ipv4, ipv6};

/// SplitMix64: the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }

    pub fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

pub type End = (IpAddr, u16);

/// A TCP segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub sack: Vec<(u32, u32)>,
    pub data: Vec<u8>,
}

fn sum(src: IpAddr, dst: IpAddr, tcp: &[u8]) -> u16 {
    let len = (tcp.len() as u32).to_be_bytes();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            checksum(&[&src.octets()[..], &dst.octets(), &[0, 6], &len[2..], tcp].concat())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            checksum(&[&src.octets()[..], &dst.octets(), &len, &[0, 0, 0, 6], tcp].concat())
        }
        _ => panic!("mixed families"),
    }
}

impl Segment {
    /// As an IP packet.
    pub fn packet(&self, src: End, dst: End) -> Vec<u8> {
        let mut options = vec![];
        if !self.sack.is_empty() {
            options.extend([1, 1, 5, 2 + 8 * self.sack.len() as u8]);
            for (left, right) in &self.sack {
                options.extend(left.to_be_bytes());
                options.extend(right.to_be_bytes());
            }
        }
        let mut tcp = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(5 + options.len() as u8 / 4) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.data);
        let sum = sum(src.0, dst.0, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        match (src.0, dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, 6, 64, true, &tcp),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, 6, 64, &tcp),
            _ => panic!("mixed families"),
        }
    }

    /// From an IP packet without options, whose checksum must be right; and its ends.
    pub fn of(packet: &[u8]) -> (Self, End, End) {
        let ip = |bytes: &[u8]| match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).expect("four bytes")),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes")),
        };
        let (src, dst, tcp) = match packet[0] >> 4 {
            4 => (ip(&packet[12..16]), ip(&packet[16..20]), &packet[20..]),
            _ => (ip(&packet[8..24]), ip(&packet[24..40]), &packet[40..]),
        };
        assert_eq!(sum(src, dst, tcp), 0, "the checksum of {tcp:02x?}");
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let mut sack = vec![];
        // of options a SYN has others
        if header_len > 20 && tcp[13] & SYN == 0 && tcp[22] == 5 {
            sack = (24..header_len).step_by(8).map(|at| (word(at), word(at + 4))).collect();
        }
        let data = tcp[header_len..].to_vec();
        let segment = Self { seq: word(4), ack: word(8), flags: tcp[13], window: half(14), sack, data };
        (segment, (src, half(0)), (dst, half(2)))
    }
}

/// One end. Positions are counted from its SYN, which is at 0.
#[derive(Debug)]
pub struct Peer {
    iss: u32,
    irs: Option<u32>,
    /// What it sends, and how much of it the application has given already.
    pub data: Vec<u8>,
    pub given: usize,
    /// Acknowledged, sent, and most that was ever sent.
    una: u32,
    /// The other's window is closed.
    closed: bool,
    nxt: u32,
    max: u32,
    /// What came, in order, and pieces that came too early, by position.
    pub got: Vec<u8>,
    early: BTreeMap<u32, Vec<u8>>,
    /// Position of the other's FIN.
    fin_at: Option<u32>,
    pub fin_got: bool,
    mss: usize,
    opens: bool,
    /// What its last piece repeated that it had: told once (RFC 2883).
    repeated: Option<(u32, u32)>,
}

/// Most that is under way unacknowledged, bytes.
const WINDOW: u32 = 5000;

impl Peer {
    pub fn new(opens: bool, iss: u32, data: Vec<u8>, mss: usize) -> Self {
        Self {
            iss,
            irs: None,
            data,
            given: 0,
            una: 0,
            closed: false,
            nxt: 0,
            max: 0,
            got: vec![],
            early: BTreeMap::new(),
            fin_at: None,
            fin_got: false,
            mss,
            opens,
            repeated: None,
        }
    }

    /// All was sent and acknowledged, its FIN too.
    pub fn is_done(&self) -> bool {
        self.given == self.data.len() && self.una == self.data.len() as u32 + 2 && self.fin_got
    }

    /// The other has acknowledged its SYN.
    pub fn is_established(&self) -> bool {
        self.irs.is_some() && self.una > 0
    }

    fn rcv_nxt(&self) -> u32 {
        1 + self.got.len() as u32 + u32::from(self.fin_got)
    }

    /// A segment at this position, with what is to be told of the other direction.
    fn say(&mut self, at: u32, flags: u8, data: Vec<u8>) -> Segment {
        let seq = self.iss.wrapping_add(at);
        let Some(irs) = self.irs else {
            return Segment { seq, flags, window: 60_000, data, ..Segment::default() };
        };
        let number = |at: u32| irs.wrapping_add(at);
        let mut sack = vec![];
        if flags & SYN == 0 {
            sack.extend(self.repeated.take());
            for (at, piece) in self.early.iter().take(2) {
                sack.push((number(*at), number(*at + piece.len() as u32)));
            }
        }
        Segment { seq, ack: number(self.rcv_nxt()), flags: flags | ACK, window: 60_000, sack, data }
    }

    /// The piece from a position on; moves along what was sent.
    fn piece(&mut self, at: u32, random: &mut Random) -> Option<Segment> {
        if at == 0 {
            (self.nxt, self.max) = (self.nxt.max(1), self.max.max(1));
            return Some(self.say(0, SYN, vec![]));
        }
        let from = at as usize - 1;
        let left = self.given.checked_sub(from)?;
        // some leave nothing out, others are of any size
        let len = if random.percent(60) { self.mss } else { 1 + random.below(self.mss) }.min(left);
        let data = self.data[from..from + len].to_vec();
        let last = self.given == self.data.len() && from + len == self.given;
        if len == 0 && !last {
            return None;
        }
        let end = at + len as u32 + u32::from(last);
        (self.nxt, self.max) = (self.nxt.max(end), self.max.max(end));
        Some(self.say(at, if last { FIN } else { 0 }, data))
    }

    /// What it sends of its own accord.
    pub fn poll(&mut self, random: &mut Random) -> Option<Segment> {
        let all = self.data.len() as u32 + 2;
        if self.nxt == 0 && self.opens {
            return self.piece(0, random);
        }
        if self.closed || !self.is_established() || self.nxt >= all || self.nxt - self.una > WINDOW {
            return None;
        }
        self.piece(self.nxt, random)
    }

    /// Its clock has run out: it begins anew from what is not acknowledged.
    pub fn time_out(&mut self, random: &mut Random) -> Option<Segment> {
        if self.una >= self.max || !self.opens && self.irs.is_none() {
            return None;
        }
        self.piece(self.una, random)
    }

    /// Asks whether the other is there (RFC 9293 section 3.8.4), with a byte that means nothing or without.
    pub fn keep_alive(&mut self, random: &mut Random) -> Option<Segment> {
        let quiet = self.is_established() && self.una == self.nxt;
        let garbage = if random.percent(50) { vec![0xee] } else { vec![] };
        quiet.then(|| self.say(self.nxt - 1, 0, garbage))
    }

    /// Takes a segment; gives its answer.
    pub fn take(&mut self, segment: &Segment, random: &mut Random) -> Option<Segment> {
        assert_eq!(segment.flags & RST, 0, "nobody resets");
        if segment.flags & ACK != 0 {
            let acked = segment.ack.wrapping_sub(self.iss);
            self.closed = segment.window == 0;
            assert!(acked <= self.max, "{acked} is acknowledged, {} was sent", self.max);
            if acked > self.una {
                self.una = acked;
                self.nxt = self.nxt.max(acked);
            }
            for (left, right) in &segment.sack {
                let (left, right) = (left.wrapping_sub(self.iss), right.wrapping_sub(self.iss));
                assert!(left >= 1 && left < right && right <= self.max, "{left} to {right} of {}", self.max);
            }
        }
        if segment.flags & SYN != 0 {
            assert!(segment.data.is_empty(), "a SYN has no data");
            assert!(self.irs.is_none_or(|irs| irs == segment.seq));
            self.irs = Some(segment.seq);
            // RFC 5961 section 4.2: whoever is established says where it is
            return if self.opens || self.is_established() {
                Some(self.say(self.nxt, 0, vec![]))
            } else {
                self.piece(0, random)
            };
        }
        let at = segment.seq.wrapping_sub(self.irs?) as i32;
        let end = at + segment.data.len() as i32;
        let next = self.rcv_nxt() as i32;
        if segment.flags & FIN != 0 {
            self.fin_at = Some(end as u32);
        }
        if at < next && at > 0 && !segment.data.is_empty() {
            self.repeated = Some((segment.seq, segment.seq.wrapping_add(end.min(next).abs_diff(at))));
        }
        if end > next && !segment.data.is_empty() {
            let skip = (next - at).max(0);
            let piece = segment.data[skip as usize..].to_vec();
            let held = self.early.entry((at + skip) as u32).or_default();
            if held.len() < piece.len() {
                *held = piece;
            }
        }
        while let Some((&at, _)) = self.early.first_key_value().filter(|(at, _)| **at <= self.rcv_nxt()) {
            let piece = self.early.remove(&at).expect("held");
            let known = (self.rcv_nxt() - at) as usize;
            self.got.extend(piece.get(known..).unwrap_or_default());
        }
        self.fin_got |= self.fin_at == Some(self.rcv_nxt());
        let asks = !segment.data.is_empty() || segment.flags & FIN != 0 || at < next;
        (self.una > 0 && asks).then(|| self.say(self.nxt, 0, vec![]))
    }
}
