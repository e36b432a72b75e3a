//! One session: RFC 5880 section 6.8. Packets and the time in, packets out.

use std::time::Duration;

use super::wire::{Diag, Packet, SessionState};

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Interval at which it would send while up, µs.
    pub min_tx_us: u32,
    /// Interval that it can take, µs.
    pub min_rx_us: u32,
    /// Interval at which it sends while not up, µs.
    pub idle_tx_us: u32,
    /// Packets that may be missed.
    pub multiplier: u8,
    /// It is silent until the neighbour has spoken.
    pub passive: bool,
}

impl SessionSettings {
    /// Those of the configuration.
    pub fn new(bfd: &lb_config::Bfd) -> Self {
        let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            min_tx_us: us(bfd.min_tx),
            min_rx_us: us(bfd.min_rx),
            idle_tx_us: us(bfd.idle_tx),
            multiplier: bfd.multiplier,
            passive: bfd.passive,
        }
    }
}

/// What a packet takes from the wire to here at most, ns: a worker's longest rest is 4 ms.
const ARRIVAL_NS: u64 = 6_000_000;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    settings: SessionSettings,
    state: SessionState,
    diag: Diag,
    mine: u32,
    yours: u32,
    remote_min_rx_us: u32,
    remote_min_tx_us: u32,
    remote_multiplier: u8,
    remote_demand: bool,
    /// An interval changed and the neighbour has not confirmed it.
    polling: bool,
    heard: bool,
    send_ns: u64,
    expire_ns: Option<u64>,
    /// When time last passed here, ns.
    ticked_ns: u64,
    /// See [`Session::is_gone`].
    gone: bool,
    /// When it had its last turn to speak, ns.
    spoke_ns: u64,
    /// See [`Session::was_missed`].
    missed: bool,
    random: u64,
}

impl Session {
    /// One that begins at `now_ns`. `mine`: its number, not 0, unique in this director.
    pub fn new(settings: SessionSettings, mine: u32, now_ns: u64) -> Self {
        Self {
            settings,
            state: SessionState::Down,
            diag: Diag::None,
            mine,
            yours: 0,
            // RFC 5880 section 6.8.1
            remote_min_rx_us: 1,
            remote_min_tx_us: 0,
            remote_multiplier: 0,
            remote_demand: false,
            polling: false,
            heard: false,
            send_ns: now_ns,
            expire_ns: None,
            ticked_ns: now_ns,
            gone: false,
            spoke_ns: now_ns,
            missed: false,
            random: u64::from(mine) | 1 << 40,
        }
    }

    /// Its state.
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Why it went down last.
    pub fn diag(&self) -> Diag {
        self.diag
    }

    /// Whether it went down because nothing is heard of the neighbour any more or because that ends; not because the
    /// neighbour has heard nothing from here.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether the neighbour has come to take this end for gone since this was asked last: it says so, or nothing was
    /// sent for its detection time.
    pub fn was_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// Its number.
    pub fn discriminator(&self) -> u32 {
        self.mine
    }

    /// Time without packets after which it is down, ns.
    pub fn detection_ns(&self) -> u64 {
        let interval = self.settings.min_rx_us.max(self.remote_min_tx_us);
        u64::from(interval) * u64::from(self.remote_multiplier) * 1000
    }

    /// Time without packets after which the neighbour is down, ns. Source: RFC 5880 section 6.8.4.
    fn patience_ns(&self) -> u64 {
        let interval = self.min_tx_us().max(self.remote_min_rx_us);
        u64::from(interval) * u64::from(self.settings.multiplier) * 1000
    }

    /// When [`Session::tick`] has something to do, ns.
    pub fn due_ns(&self) -> u64 {
        self.expire_ns.map_or(self.send_ns, |expire| expire.min(self.send_ns))
    }

    /// Goes by other settings from now on.
    pub fn configure(&mut self, settings: SessionSettings) {
        self.polling |= self.state == SessionState::Up && settings != self.settings;
        self.settings = settings;
    }

    fn min_tx_us(&self) -> u32 {
        match self.state {
            SessionState::Up => self.settings.min_tx_us,
            // RFC 5880 section 6.8.3: at least a second
            _ => self.settings.idle_tx_us.max(self.settings.min_tx_us),
        }
    }

    /// RFC 5880 section 6.8.7: the larger of both wishes, less up to a quarter, so that many sessions do not speak at
    /// once; at least a tenth with a multiplier of 1.
    fn interval_ns(&mut self) -> u64 {
        let interval = u64::from(self.min_tx_us().max(self.remote_min_rx_us)) * 1000;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (least, most) = if self.settings.multiplier == 1 { (10, 25) } else { (0, 25) };
        interval - interval * (least + self.random % (most - least)) / 100
    }

    fn packet(&self, last: bool) -> Packet {
        Packet {
            diag: self.diag as u8,
            state: self.state,
            poll: self.polling && !last,
            last,
            demand: false,
            multiplier: self.settings.multiplier,
            mine: self.mine,
            yours: self.yours,
            min_tx_us: self.min_tx_us(),
            min_rx_us: self.settings.min_rx_us,
        }
    }

    fn enter(&mut self, state: SessionState, now_ns: u64) {
        if state == self.state {
            return;
        }
        self.state = state;
        // the interval is another one, which the neighbour confirms
        self.polling = state == SessionState::Up;
        // and so is the neighbour's patience, which begins now
        self.spoke_ns = now_ns;
        self.send_ns = now_ns;
    }

    fn fall(&mut self, diag: Diag, gone: bool, now_ns: u64) {
        (self.diag, self.gone) = (diag, gone);
        self.enter(SessionState::Down, now_ns);
    }

    /// A packet that came for this session; gives the answer, if it asks for one.
    pub fn receive(&mut self, now_ns: u64, packet: &Packet) -> Option<Packet> {
        if packet.yours != 0 && packet.yours != self.mine {
            return None;
        }
        self.heard = true;
        self.yours = packet.mine;
        self.remote_min_rx_us = packet.min_rx_us;
        self.remote_min_tx_us = packet.min_tx_us;
        self.remote_multiplier = packet.multiplier;
        self.remote_demand = packet.demand && packet.state == SessionState::Up;
        self.polling &= !packet.last;
        self.expire_ns = Some(now_ns + self.detection_ns());
        match (self.state, packet.state) {
            (SessionState::Down, SessionState::AdminDown) => {}
            (_, SessionState::AdminDown) => self.fall(Diag::NeighborDown, true, now_ns),
            (SessionState::Down, SessionState::Down) => self.enter(SessionState::Init, now_ns),
            (SessionState::Down, SessionState::Init) => self.enter(SessionState::Up, now_ns),
            (SessionState::Init, SessionState::Init | SessionState::Up) => {
                self.enter(SessionState::Up, now_ns);
            }
            (SessionState::Up, SessionState::Down) => {
                self.missed |= packet.diag == Diag::Expired as u8;
                self.fall(Diag::NeighborDown, false, now_ns);
            }
            _ => {}
        }
        packet.poll.then(|| self.packet(true))
    }

    /// Time has passed; gives the packet that is due.
    pub fn tick(&mut self, now_ns: u64) -> Option<Packet> {
        let slept_ns = now_ns.saturating_sub(std::mem::replace(&mut self.ticked_ns, now_ns));
        if self.state == SessionState::Up && slept_ns >= self.detection_ns() / 2 {
            // who was not there has missed nothing yet: what came meanwhile may still be on its way to here
            let all = slept_ns >= self.detection_ns();
            let wait = if all { self.detection_ns() } else { ARRIVAL_NS.min(self.detection_ns() / 2) };
            self.expire_ns = self.expire_ns.map(|expire| expire.max(now_ns + wait));
        }
        self.missed |=
            self.state == SessionState::Up && now_ns.saturating_sub(self.spoke_ns) >= self.patience_ns();
        if self.expire_ns.is_some_and(|expire| expire <= now_ns) {
            self.expire_ns = None;
            // RFC 5880 section 6.8.1: nobody is there that the number is of
            self.yours = 0;
            if matches!(self.state, SessionState::Init | SessionState::Up) {
                self.fall(Diag::Expired, true, now_ns);
            }
        }
        if self.send_ns > now_ns {
            return None;
        }
        self.send_ns = now_ns + self.interval_ns();
        self.spoke_ns = now_ns;
        let silent = self.settings.passive && !self.heard
            || self.remote_min_rx_us == 0
            || self.remote_demand && self.state == SessionState::Up && !self.polling;
        (!silent).then(|| self.packet(false))
    }

    /// The last packet of a session that ends: the neighbour need not wait for the detection time.
    pub fn end(&mut self) -> Packet {
        (self.state, self.diag) = (SessionState::AdminDown, Diag::AdminDown);
        self.packet(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn settings() -> SessionSettings {
        SessionSettings {
            min_tx_us: 10_000,
            min_rx_us: 10_000,
            idle_tx_us: 1_000_000,
            multiplier: 3,
            passive: false,
        }
    }

    /// Two sessions on a wire that is whole from `from` to `to`, looked at every ms; the states of both at the end.
    fn run(a: &mut Session, b: &mut Session, from: u64, to: u64, cut: bool) -> [SessionState; 2] {
        for now in (from..to).step_by(MS as usize) {
            for flip in [false, true] {
                let (one, other) = if flip { (&mut *b, &mut *a) } else { (&mut *a, &mut *b) };
                let Some(packet) = one.tick(now) else { continue };
                let packet = Packet::parse(&packet.emit()).unwrap();
                if cut {
                    continue;
                }
                if let Some(answer) = other.receive(now, &packet) {
                    one.receive(now, &answer);
                }
            }
        }
        [a.state(), b.state()]
    }

    #[test]
    fn a_session_comes_up_and_is_down_within_its_detection_time() {
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        assert_eq!(run(&mut a, &mut b, 0, 2_500 * MS, false), [SessionState::Up; 2]);
        assert_eq!(a.detection_ns(), 30 * MS, "3 x 10 ms, confirmed by poll and final");
        assert!(!a.polling && !b.polling);
        assert_eq!(run(&mut a, &mut b, 2_500 * MS, 2_520 * MS, true), [SessionState::Up; 2]);
        assert_eq!(run(&mut a, &mut b, 2_520 * MS, 2_535 * MS, true), [SessionState::Down; 2]);
        assert_eq!(a.diag(), Diag::Expired);
        assert_eq!(run(&mut a, &mut b, 2_535 * MS, 5_000 * MS, false), [SessionState::Up; 2]);
    }

    #[test]
    fn a_neighbour_that_ends_is_believed_at_once() {
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        a.receive(2_500 * MS, &b.end());
        assert_eq!((a.state(), a.diag()), (SessionState::Down, Diag::NeighborDown));
    }

    #[test]
    fn who_slept_does_not_take_the_neighbour_for_gone() {
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        // the first misses the second meanwhile
        assert!((2_500..3_000).filter_map(|ms| a.tick(ms * MS)).count() > 0);
        assert!(a.state() == SessionState::Down && a.is_gone());
        b.tick(3_000 * MS);
        assert_eq!(b.state(), SessionState::Up);
        b.receive(3_001 * MS, &a.packet(false));
        assert_eq!((b.state(), b.diag(), b.is_gone()), (SessionState::Down, Diag::NeighborDown, false));
        // one that is silent after that is gone all the same
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        assert!((3_000..3_031).filter_map(|ms| b.tick(ms * MS)).count() > 0);
        assert!(b.state() == SessionState::Down && b.is_gone());
        a.receive(3_100 * MS, &b.end());
        assert!(a.is_gone(), "it ends");
    }

    #[test]
    fn who_was_silent_for_the_neighbours_detection_time_knows_it() {
        for ms in 1..100 {
            let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
            run(&mut a, &mut b, 0, 2_500 * MS, false);
            assert!(!a.was_missed() && !b.was_missed());
            let woken = (2_499 + ms) * MS;
            for ms in 2_500..=woken / MS {
                b.tick(ms * MS);
            }
            a.tick(woken);
            let (missed, down) = (a.was_missed(), b.state() == SessionState::Down);
            // of what is on the wire in this millisecond nobody knows
            assert!(missed || !down, "{ms} ms");
            assert!(!missed || down || (20..=31).contains(&ms), "{ms} ms");
            a.receive(woken, &b.packet(false));
            assert_eq!(a.was_missed(), down, "it says so");
        }
    }

    #[test]
    fn who_comes_back_was_not_missed_by_a_neighbour_that_was_away() {
        for ms in (0..2_000).step_by(7) {
            let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
            run(&mut a, &mut b, 0, 2_500 * MS, false);
            let back = 2_500 + 100 + ms;
            for now in 2_500..back {
                a.tick(now * MS);
            }
            assert!(a.state() == SessionState::Down && !a.was_missed());
            // killed, and begun again
            let mut b = Session::new(settings(), 3, back * MS);
            assert_eq!(run(&mut a, &mut b, back * MS, (back + 2_500) * MS, false), [SessionState::Up; 2]);
            assert!(!a.was_missed() && !b.was_missed(), "after {back} ms");
        }
    }

    #[test]
    fn who_slept_for_a_part_of_it_hears_first_what_came() {
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        // the last of the neighbour's packets came 9 ms before
        for ms in 2_500..2_509 {
            a.tick(ms * MS);
        }
        a.tick(2_532 * MS);
        assert_eq!(a.state(), SessionState::Up, "slept for 23 ms");
        for ms in 2_533..2_539 {
            a.tick(ms * MS);
        }
        assert_eq!(a.state(), SessionState::Down);
    }

    #[test]
    fn a_passive_session_speaks_when_spoken_to() {
        let passive = SessionSettings { passive: true, ..settings() };
        let mut quiet = Session::new(passive, 1, 0);
        assert!((0..5_000).all(|ms| quiet.tick(ms * MS).is_none()));
        let mut b = Session::new(settings(), 2, 0);
        assert_eq!(run(&mut quiet, &mut b, 5_000 * MS, 9_000 * MS, false), [SessionState::Up; 2]);
    }

    #[test]
    fn packets_of_another_session_change_nothing() {
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(settings(), 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        let stray = Packet { yours: 99, ..b.end() };
        a.receive(2_500 * MS, &stray);
        assert_eq!(a.state(), SessionState::Up);
    }

    #[test]
    fn packets_come_at_the_negotiated_interval_less_a_quarter_at_most() {
        let slow = SessionSettings { min_rx_us: 50_000, ..settings() };
        let (mut a, mut b) = (Session::new(settings(), 1, 0), Session::new(slow, 2, 0));
        run(&mut a, &mut b, 0, 2_500 * MS, false);
        let mut sent = Vec::new();
        for ms in 2_500..4_500 {
            if a.tick(ms * MS).is_some() {
                sent.push(ms);
            }
            if ms % 10 == 0 {
                let alive = b.packet(false);
                a.receive(ms * MS, &alive);
            }
        }
        let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 30 && gaps.iter().all(|gap| (37..=51).contains(gap)), "{gaps:?}");
    }
}
