//! Floods: what keeps established connections going while more new ones come than there is room or time for.
//!
//! - [`evict`]: at the limit of the table the dispensable make room, by class; established connections never do.
//! - [`stateless`]: past that, and for SYNs while there is a flood of them, connections by direct routing and tunnels
//!   go where a hash of their client says, without an entry; the client's ACK is what begins one.
//! - [`cookie`], [`handshake`]: behind NAT and full NAT the director answers SYNs in the server's place, without
//!   state, and calls the server when the client has proved that it is there, again if need be ([`calls`]);
//!   [`segment`] builds what is said.
//! - `Shedding`: when frames pile up in the receive queue, first packets wait their turn: what is beyond their share
//!   is dropped before it costs more than its lookup.
//!
//! When there is a flood: the worker's embryonic connections (TCP and SCTP handshakes under way) are `syn_flood`
//! percent of its `max_connections`, [`FLOOR`] at least; until they are half as many. Each worker judges for itself.

pub mod calls;
pub mod cookie;
pub mod evict;
pub mod handshake;
pub mod segment;
pub mod stateless;

use crate::conn::HashKey;
use crate::counters::WorkerCounters;
use crate::io::BURST;
use crate::setup::FloodSeed;
use calls::Calls;
use cookie::Cookies;

/// Fewer embryonic connections are no flood, however small the table.
pub const FLOOR: u32 = 1024;
/// How long the ACK of a SYN that went on without an entry is waited for, ns: IPVS's `tcp_syn_recv`.
const UNCONFIRMED_NS: u64 = 60_000_000_000;
/// How long a packet is waited for of a connection that has no entry because the table is full, ns: IPVS's
/// `tcp_established`.
const STATELESS_NS: u64 = 900_000_000_000;

/// What a worker knows of floods.
#[derive(Debug)]
pub(crate) struct Flood {
    /// SYNs are a flood.
    pub active: bool,
    /// The table had no room for a connection in this turn: the next ones need not try.
    pub full: bool,
    /// Until then packets without a connection may be of one that has no entry, ns.
    strays_until: u64,
    /// Until then an ACK may bring a cookie back, ns.
    cookies_until: u64,
    pub cookies: Cookies,
    /// Servers that were called for clients that proved themselves.
    pub calls: Calls,
    pub shedding: Shedding,
}

impl Flood {
    /// As it was when an earlier process was killed, if there was one.
    pub fn of(seed: &FloodSeed) -> Self {
        Self {
            strays_until: seed.strays_until_ns,
            cookies_until: seed.cookies_until_ns,
            ..Self::new(seed.cookies)
        }
    }

    pub fn new(secret: HashKey) -> Self {
        Self {
            active: false,
            full: false,
            strays_until: 0,
            cookies_until: 0,
            cookies: Cookies::new(secret),
            calls: Calls::new(),
            shedding: Shedding::default(),
        }
    }

    /// A new turn: judges whether there is a flood. `embryonic` of at most `max` connections; `percent`: `syn_flood`.
    #[inline]
    pub fn turn(&mut self, embryonic: u32, max: u32, percent: u8) {
        self.full = false;
        let from = (u64::from(max) * u64::from(percent) / 100).max(u64::from(FLOOR));
        let until = if self.active { from / 2 } else { from };
        self.active = percent > 0 && u64::from(embryonic) >= until;
        self.shedding.turn();
    }

    /// A SYN went on without an entry.
    pub fn unconfirmed(&mut self, now_ns: u64) {
        self.strays_until = self.strays_until.max(now_ns + UNCONFIRMED_NS);
    }

    /// A packet went on without an entry because the table is full.
    pub fn stateless(&mut self, now_ns: u64) {
        self.strays_until = self.strays_until.max(now_ns + STATELESS_NS);
    }

    /// Whether a packet without a connection may be of one that has no entry.
    pub fn has_strays(&self, now_ns: u64) -> bool {
        now_ns < self.strays_until
    }

    /// Whether nothing is asked of new connections because of others: there is no flood, none has just been, and none is
    /// shed.
    #[inline]
    pub fn is_quiet(&self, now_ns: u64) -> bool {
        !self.active && !self.shedding.is_on() && !self.has_strays(now_ns)
    }

    /// A cookie was sent.
    pub fn offered(&mut self, now_ns: u64) {
        self.cookies_until = now_ns + cookie::LIFETIME_NS;
    }

    /// Whether a cookie may come back.
    pub fn has_cookies(&self, now_ns: u64) -> bool {
        now_ns < self.cookies_until
    }
}

/// What a worker has counted that may have an echo: packets without a connection that are not strangers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// SYNs that were answered with a cookie.
    pub cookies: u64,
    unconfirmed: u64,
    stateless: u64,
}

impl Echo {
    /// As it is now.
    pub fn of(counters: &WorkerCounters) -> Self {
        Self {
            cookies: counters.own.cookies_sent.get(),
            unconfirmed: counters.own.unconfirmed.get(),
            stateless: counters.own.stateless.get(),
        }
    }

    /// Until when packets may come of connections that went without an entry since `before`, ns; 0: there was none.
    pub fn strays_until(&self, before: &Self, now_ns: u64) -> u64 {
        match (self.stateless != before.stateless, self.unconfirmed != before.unconfirmed) {
            (true, _) => now_ns + STATELESS_NS,
            (false, true) => now_ns + UNCONFIRMED_NS,
            (false, false) => 0,
        }
    }
}

/// Frames that wait in a receive queue, from which on first packets get less of the worker's time.
pub const BACKLOG: usize = 512;

/// How many packets without a connection a worker takes on in a turn.
///
/// All of them until [`BACKLOG`] frames wait in a queue; then a share that shrinks by a quarter each turn until
/// fewer wait, and grows by a sixteenth of a packet each turn from then on. SYNs have their own share, so that what
/// else comes without a connection (a cookie's return, a UDP reply's first packet) does not starve beside them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shedding {
    /// Sixteenths of a packet that a turn earns; `None`: no limit.
    rate: Option<u32>,
    /// What is left, sixteenths of a packet: SYNs, others.
    left: [u32; 2],
}

impl Shedding {
    /// One packet.
    const ONE: u32 = 16;
    /// At the least, one in eight turns.
    const LEAST: u32 = Self::ONE / 8;
    /// So much is no limit.
    const MOST: u32 = BURST as u32 * Self::ONE;

    /// A queue was looked at: so many frames still wait.
    pub fn saw(&mut self, backlog: usize) {
        if backlog >= BACKLOG {
            self.rate = Some((self.rate.unwrap_or(Self::MOST) * 3 / 4).max(Self::LEAST));
        }
    }

    /// Whether first packets have to ask.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.rate.is_some()
    }

    /// A turn has begun: credit is earned.
    #[inline]
    fn turn(&mut self) {
        let Some(rate) = self.rate else { return };
        let rate = rate + 1;
        self.rate = (rate < Self::MOST).then_some(rate);
        self.left = self.left.map(|left| (left + rate).min(Self::MOST));
    }

    /// Whether a packet without a connection may go on; takes its credit.
    #[inline]
    pub fn admits(&mut self, syn: bool) -> bool {
        if self.rate.is_none() {
            return true;
        }
        let left = &mut self.left[usize::from(!syn)];
        let able = *left >= Self::ONE;
        *left -= if able { Self::ONE } else { 0 };
        able
    }

    /// How many packets could be admitted now.
    #[inline]
    pub fn credit(&self, syn: bool) -> u32 {
        if self.rate.is_some() { self.left[usize::from(!syn)] / Self::ONE } else { u32::MAX }
    }

    /// A packet that was admitted will ask again.
    #[cold]
    pub fn give_back(&mut self, syn: bool) {
        let left = &mut self.left[usize::from(!syn)];
        *left = (*left + Self::ONE).min(Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_begins_at_a_share_and_ends_at_half_of_it() {
        let mut flood = Flood::new(HashKey([1, 2, 3, 4]));
        let mut at = |embryonic, percent| {
            flood.turn(embryonic, 100_000, percent);
            flood.active
        };
        assert_eq!(
            [9_999, 10_000, 5_000, 4_999, 9_999].map(|n| at(n, 10)),
            [false, true, true, false, false]
        );
        assert!(!at(100_000, 0), "switched off");
        assert!(!at(FLOOR - 1, 1) && at(FLOOR, 1), "a few are never a flood");
    }

    #[test]
    fn strays_and_cookies_are_waited_for_so_long() {
        let mut flood = Flood::new(HashKey([1, 2, 3, 4]));
        assert!(!flood.has_strays(0) && !flood.has_cookies(0));
        flood.stateless(5);
        flood.unconfirmed(6);
        assert!(flood.has_strays(STATELESS_NS + 4) && !flood.has_strays(STATELESS_NS + 5));
        flood.offered(7);
        assert!(flood.has_cookies(cookie::LIFETIME_NS) && !flood.has_cookies(cookie::LIFETIME_NS + 7));
    }

    #[test]
    fn first_packets_get_less_while_frames_wait_and_more_when_none_do() {
        let mut shedding = Shedding::default();
        let mut turn = |backlog| {
            shedding.saw(backlog);
            shedding.turn();
            (0..64).filter(|_| shedding.admits(true)).count()
        };
        assert_eq!(turn(BACKLOG - 1), 64, "no limit");
        let busy: Vec<usize> = (0..100).map(|_| turn(BACKLOG)).collect();
        assert!(busy[0] >= 20 && busy[10] <= 2, "{busy:?}");
        assert!((5..=20).contains(&busy[60..].iter().sum::<usize>()), "never none: {busy:?}");
        let calm: Vec<usize> = (0..600).map(|_| turn(0)).collect();
        assert!(calm[100] < calm[400] && calm[599] == 64, "{calm:?}");
    }

    #[test]
    fn syns_and_others_have_a_share_each() {
        let mut shedding = Shedding::default();
        (0..20).for_each(|_| shedding.saw(BACKLOG));
        (0..8).for_each(|_| shedding.turn());
        assert!(shedding.admits(true));
        while shedding.admits(true) {}
        assert!(shedding.admits(false));
    }
}
