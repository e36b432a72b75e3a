//! The state machine of one virtual router: RFC 9568 section 6.4 (RFC 3768 section 6.4 for version 2) and keepalived's
//! options. No I/O and no clock: an event and the time in, actions out.
//!
//! Between backup and master may be [`State::Taking`], which the RFC does not have: adverts go out already, the
//! addresses are not here yet. It ends when a master that is alive has let go ([`Action::Bye`]) or had the time for
//! it, and, where addresses depend on a lease, when that is granted.

use std::net::IpAddr;

use lb_config::{VrrpStart, VrrpVersion};

mod terms;

pub use terms::{Action, Event, Heard, Settings, State, Why};

/// What a frame takes from the wire to here at most, ns: a worker's longest rest is 4 ms.
const GRACE_NS: u64 = 10_000_000;

/// A virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
    why: Why,
    priority: u8,
    /// Interval of the master, ns.
    master_interval_ns: u64,
    /// When the master counts as gone, or the next advert is due, ns.
    timer_ns: Option<u64>,
    /// Since when a master of lower priority has been heard, ns.
    lower_ns: Option<u64>,
    /// How long it is left alone at least, see [`Machine::hold`].
    hold_ns: u64,
    master: Option<(IpAddr, u8)>,
    /// When a backup heard a master last, ns, its address and its priority, whatever that is.
    heard: Option<(u64, IpAddr, u8)>,
    /// Who said good-bye since.
    bye: Option<IpAddr>,
    /// Since when it is backup, ns.
    backup_ns: u64,
    /// Since when it is taking over, ns.
    taken_ns: u64,
    /// From when on nobody else has the addresses, as far as adverts tell, ns.
    settled_ns: u64,
    /// From when on the lease says so, ns.
    granted_ns: Option<u64>,
}

impl Machine {
    /// One that has not begun.
    pub fn new(settings: Settings) -> Self {
        let (priority, master_interval_ns) = (settings.priority, settings.interval_ns);
        Self {
            settings,
            state: State::Init,
            why: Why::New,
            priority,
            master_interval_ns,
            timer_ns: None,
            lower_ns: None,
            hold_ns: 0,
            master: None,
            heard: None,
            bye: None,
            backup_ns: 0,
            taken_ns: 0,
            settled_ns: 0,
            granted_ns: None,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in this state; of a master, why it began to take over.
    pub fn why(&self) -> Why {
        self.why
    }

    /// Its priority, with what is tracked.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// The master that it knows, and its priority; of a master itself, none.
    pub fn master(&self) -> Option<(IpAddr, u8)> {
        self.master
    }

    /// What it goes by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`Event::Timer`] is wanted, ns.
    pub fn due_ns(&self) -> Option<u64> {
        let opens = self.opens_ns().filter(|_| self.state == State::Taking);
        self.timer_ns.into_iter().chain(opens).min()
    }

    /// Whether it was told that it holds the lease.
    pub fn is_granted(&self) -> bool {
        self.granted_ns.is_some()
    }

    /// When the addresses are its own, if that is known, ns.
    fn opens_ns(&self) -> Option<u64> {
        if self.settings.leased { self.granted_ns } else { Some(self.settled_ns) }
    }

    /// How long a master of lower priority is left alone from its first advert on, whatever the settings say: until its
    /// connections are here. 0: not at all.
    pub fn hold(&mut self, hold_ns: u64) {
        self.hold_ns = hold_ns;
    }

    /// Goes by other settings from now on; timers that run go on.
    pub fn configure(&mut self, settings: Settings) {
        if settings.interval_ns != self.settings.interval_ns {
            self.master_interval_ns = settings.interval_ns;
        }
        self.settings = settings;
    }

    /// RFC 9568 section 6.1, Skew_Time; RFC 3768 has it in parts of a second, whatever the interval.
    pub fn skew_ns(&self) -> u64 {
        let base = match self.settings.version {
            VrrpVersion::V2 => 1_000_000_000,
            VrrpVersion::V3 => self.master_interval_ns,
        };
        (256 - u64::from(self.priority)) * base / 256
    }

    /// RFC 9568 section 6.1, Active_Down_Interval.
    pub fn down_ns(&self) -> u64 {
        self.settings.down_adverts * self.master_interval_ns + self.skew_ns()
    }

    /// Whether an advert is of one who is to be master rather than this director.
    fn is_above(&self, heard: &Heard) -> bool {
        heard.priority > self.priority
            || heard.priority == self.priority && heard.source > self.settings.source
    }

    /// One event at `now_ns`.
    pub fn step(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>) {
        match (self.state, event) {
            (_, Event::Priority(priority)) => self.priority = priority,
            (State::Init | State::Fault, Event::Startup) => self.begin(now_ns, actions),
            (State::Init, Event::Fail) => self.enter(now_ns, (State::Fault, Why::Fault), actions),
            (State::Backup, Event::Fail) => {
                self.timer_ns = None;
                self.enter(now_ns, (State::Fault, Why::Fault), actions);
            }
            (State::Taking | State::Master, Event::Fail) => {
                self.timer_ns = None;
                actions.push(Action::Send(0));
                self.enter(now_ns, (State::Fault, Why::Fault), actions);
            }
            (State::Backup | State::Fault, Event::Shutdown) => {
                self.timer_ns = None;
                self.enter(now_ns, (State::Init, Why::Ended), actions);
            }
            (State::Taking | State::Master, Event::Shutdown) => {
                self.timer_ns = None;
                actions.push(Action::Send(0));
                self.enter(now_ns, (State::Init, Why::Ended), actions);
            }
            (State::Backup, Event::Timer) if self.is_due(now_ns) => {
                // adverts that came meanwhile may still be on their way to here
                if self.was_held_up(now_ns) {
                    self.timer_ns = Some(now_ns + self.listen_ns());
                } else {
                    self.take(now_ns, self.is_rival_alive(now_ns), self.silence(now_ns), actions);
                }
            }
            (State::Backup, Event::Take) => {
                self.take(now_ns, self.is_rival_alive(now_ns), Why::Group, actions);
            }
            (State::Backup, Event::Settled) => self.take(now_ns, false, Why::Group, actions),
            // without having heard any master: the neighbour was there and is gone, nobody else has spoken
            (State::Backup, Event::Lost(who)) if self.master.is_none_or(|(master, _)| master == who) => {
                self.take(now_ns, false, Why::Lost(who), actions);
            }
            (State::Taking, Event::Lost(who)) if self.master.is_some_and(|(master, _)| master == who) => {
                self.settle(now_ns, actions);
            }
            (State::Backup, Event::Advert(heard)) => self.follow(now_ns, &heard),
            (State::Taking | State::Master, Event::Timer) => {
                if self.is_due(now_ns) {
                    self.advertise(now_ns, actions);
                }
                self.open(now_ns, actions);
            }
            // it slept, and somebody else has taken over: whose connections are older is not to be found out by force
            (State::Master, Event::Advert(heard)) if heard.priority > 0 && self.was_held_up(now_ns) => {
                let why = Why::Replaced(self.late_ns(now_ns), heard.source);
                self.enter(now_ns, (State::Backup, why), actions);
                self.timer_ns = Some(now_ns + self.down_ns());
                self.follow(now_ns, &heard);
            }
            (State::Taking | State::Master, Event::Advert(heard)) => self.contend(now_ns, &heard, actions),
            (State::Taking, Event::Granted(from_ns)) => {
                self.granted_ns = Some(from_ns);
                self.open(now_ns, actions);
            }
            // the one that is gone may have taken over: it hears of this one at once, not when an advert is due
            (State::Master, Event::Lost(_)) => {
                actions.push(Action::Send(self.priority));
                self.timer_ns = Some(now_ns + self.settings.interval_ns);
            }
            // away for so long that adverts were missed as well: it listens first, and hears what it has missed
            (State::Master, Event::Waver) if self.was_held_up(now_ns) => self.listen(now_ns, actions),
            // a lease that is still held says that nobody has
            (State::Master, Event::Waver) if !self.settings.leased => {
                self.take(now_ns, true, Why::Wavers, actions);
            }
            (State::Taking, Event::Settled) => self.settle(now_ns, actions),
            (State::Taking, Event::Revoked) => self.granted_ns = None,
            (State::Master, Event::Revoked) => {
                actions.push(Action::Send(0));
                self.timer_ns = Some(now_ns + self.down_ns());
                self.enter(now_ns, (State::Backup, Why::Revoked), actions);
            }
            (State::Taking | State::Master, Event::Yield) => {
                self.timer_ns = Some(now_ns + self.down_ns());
                self.enter(now_ns, (State::Backup, Why::Group), actions);
            }
            _ => {}
        }
    }

    fn is_due(&self, now_ns: u64) -> bool {
        self.timer_ns.is_some_and(|due| due <= now_ns)
    }

    /// Whether its timer is so late (a stopped process, a frozen machine) that others may have taken over: their
    /// timers began with the last advert, one interval before this one was due.
    fn was_held_up(&self, now_ns: u64) -> bool {
        let limit = self.settings.down_adverts.saturating_sub(1).max(1) * self.master_interval_ns;
        self.settings.timer_expired_backup && self.late_ns(now_ns) > limit
    }

    fn late_ns(&self, now_ns: u64) -> u64 {
        self.timer_ns.map_or(0, |due| now_ns.saturating_sub(due))
    }

    /// How long it listens then: a master speaks once in an interval. Not longer, so that nobody is without the
    /// addresses for the time of a whole take-over when there is no other director.
    fn listen_ns(&self) -> u64 {
        self.master_interval_ns + GRACE_NS
    }

    fn enter(&mut self, now_ns: u64, (state, why): (State, Why), actions: &mut Vec<Action>) {
        (self.state, self.why) = (state, why);
        (self.lower_ns, self.bye) = (None, None);
        if state == State::Backup {
            self.backup_ns = now_ns;
        }
        if !matches!(state, State::Backup | State::Taking) {
            self.master = None;
        }
        if !matches!(state, State::Taking | State::Master) {
            self.granted_ns = None;
        }
        actions.push(Action::Enter(state));
    }

    /// RFC 9568 section 6.4.1.
    fn begin(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let first = self.state == State::Init;
        self.master_interval_ns = self.settings.interval_ns;
        self.heard = None;
        if self.priority == 255 {
            return self.take(now_ns, false, Why::Owner, actions);
        }
        let wait = match self.settings.start {
            VrrpStart::Master if first => self.settings.interval_ns + self.skew_ns(),
            _ => self.down_ns(),
        };
        self.timer_ns = Some(now_ns + wait);
        let why = if first { Why::Begun } else { Why::Mended };
        self.enter(now_ns, (State::Backup, why), actions);
    }

    /// Why nobody else counts as master when the timer of a backup has run out.
    fn silence(&self, now_ns: u64) -> Why {
        match (self.bye, self.heard) {
            (Some(who), _) => Why::Bye(who),
            (None, Some((_, who, priority))) if priority < self.priority && self.is_rival_alive(now_ns) => {
                Why::Above(who, priority)
            }
            (None, heard) => {
                let since = heard.map_or(self.backup_ns, |(at, ..)| at.max(self.backup_ns));
                Why::Silent(now_ns.saturating_sub(since))
            }
        }
    }

    /// Whether somebody else may have the addresses: a master was heard so lately that it does not count as gone.
    fn is_rival_alive(&self, now_ns: u64) -> bool {
        let limit = self.settings.down_adverts * self.master_interval_ns;
        self.heard.is_some_and(|(at, ..)| now_ns.saturating_sub(at) < limit)
    }

    /// Takes over; `wait`: from a master that is alive and lets go when it hears of it.
    fn take(&mut self, now_ns: u64, wait: bool, why: Why, actions: &mut Vec<Action>) {
        actions.push(Action::Send(self.priority));
        self.timer_ns = Some(now_ns + self.settings.interval_ns);
        self.taken_ns = now_ns;
        self.settled_ns = now_ns + if wait { self.settings.handover_ns } else { 0 };
        let opens = self.opens_ns().is_some_and(|opens| opens <= now_ns);
        self.enter(now_ns, (if opens { State::Master } else { State::Taking }, why), actions);
    }

    /// Nobody else has the addresses from now on, as far as adverts tell.
    fn settle(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        self.settled_ns = self.settled_ns.min(now_ns);
        self.open(now_ns, actions);
    }

    /// Has the addresses if nothing is in the way any more.
    fn open(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.state == State::Taking && self.opens_ns().is_some_and(|opens| opens <= now_ns) {
            self.enter(now_ns, (State::Master, self.why), actions);
        }
    }

    /// A master that was away steps back until it would have heard another one.
    fn listen(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let why = Why::Late(self.late_ns(now_ns));
        self.timer_ns = Some(now_ns + self.listen_ns());
        self.enter(now_ns, (State::Backup, why), actions);
    }

    fn advertise(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let due = self.timer_ns.unwrap_or(now_ns);
        if self.was_held_up(now_ns) {
            return self.listen(now_ns, actions);
        }
        actions.push(Action::Send(self.priority));
        // from when it was due, so that lateness does not add up
        let next = due + self.settings.interval_ns;
        self.timer_ns = Some(if next > now_ns { next } else { now_ns + self.settings.interval_ns });
    }

    /// RFC 9568 section 6.4.2, an advert comes to a backup.
    fn follow(&mut self, now_ns: u64, heard: &Heard) {
        if heard.priority == 0 {
            (self.heard, self.bye) = (None, Some(heard.source));
            self.timer_ns = Some(now_ns + self.skew_ns());
            return;
        }
        if self.priority == 255 && self.settings.owner_ignore_adverts {
            return;
        }
        (self.heard, self.bye) = (Some((now_ns, heard.source, heard.priority)), None);
        let lower = heard.priority < self.priority;
        if lower && self.settings.preempt {
            let since = *self.lower_ns.get_or_insert(now_ns);
            if now_ns >= since.saturating_add(self.settings.preempt_delay_ns.max(self.hold_ns)) {
                // its timer runs out
                return;
            }
        } else {
            self.lower_ns = None;
        }
        if self.settings.version == VrrpVersion::V3 {
            self.master_interval_ns = heard.interval_ns;
        }
        self.master = Some((heard.source, heard.priority));
        self.timer_ns = Some(now_ns + self.down_ns());
    }

    /// RFC 9568 section 6.4.3, an advert comes to a master, or to one that is about to be it.
    fn contend(&mut self, now_ns: u64, heard: &Heard, actions: &mut Vec<Action>) {
        if heard.priority == 0 {
            actions.push(Action::Send(self.priority));
            self.timer_ns = Some(now_ns + self.settings.interval_ns);
            self.settle(now_ns, actions);
        } else if self.priority == 255 && self.settings.owner_ignore_adverts {
        } else if self.is_above(heard) {
            if self.settings.higher_prio_send_advert {
                actions.push(Action::Send(self.priority));
            }
            if self.settings.version == VrrpVersion::V3 {
                self.master_interval_ns = heard.interval_ns;
            }
            self.timer_ns = Some(now_ns + self.down_ns());
            self.enter(now_ns, (State::Backup, Why::Below(heard.source, heard.priority)), actions);
            self.master = Some((heard.source, heard.priority));
            self.heard = Some((now_ns, heard.source, heard.priority));
            actions.push(Action::Bye);
        } else {
            if !self.settings.lower_prio_no_advert {
                actions.push(Action::Send(self.priority));
                self.timer_ns = Some(now_ns + self.settings.interval_ns);
            }
            if self.state == State::Taking {
                // it has not heard yet; one that never does is not waited for longer than a dead one
                let most = self.taken_ns + self.down_ns();
                self.settled_ns = (now_ns + self.settings.handover_ns).min(most).max(self.settled_ns);
            } else {
                actions.push(Action::Lower);
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
