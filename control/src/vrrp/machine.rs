//! The state machine of one virtual router: RFC 9568 section 6.4 (RFC 3768 section 6.4 for version 2) and keepalived's
//! options. No I/O and no clock: an event and the time in, actions out.

use std::net::IpAddr;

use lb_config::{Vrrp, VrrpStart, VrrpVersion};

/// State of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not begun, or ended.
    Init,
    /// Another director is master, or nobody yet.
    Backup,
    /// This director has the addresses.
    Master,
    /// Something that is tracked is down: it takes no part.
    Fault,
}

impl State {
    /// As in `lbctl vrrp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Backup => "backup",
            Self::Master => "master",
            Self::Fault => "fault",
        }
    }

    /// As programs are told, see keepalived.conf(5).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Init => "STOP",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Version.
    pub version: VrrpVersion,
    /// Configured priority.
    pub priority: u8,
    /// Configured time between adverts, ns.
    pub interval_ns: u64,
    /// Where adverts come from: decides between equal priorities.
    pub source: IpAddr,
    /// Behaviour at the start.
    pub start: VrrpStart,
    /// A higher priority takes over.
    pub preempt: bool,
    /// How long it waits with that, ns.
    pub preempt_delay_ns: u64,
    /// Intervals after which the master is gone.
    pub down_adverts: u64,
    /// See [`Vrrp::timer_expired_backup`].
    pub timer_expired_backup: bool,
    /// See [`Vrrp::lower_prio_no_advert`].
    pub lower_prio_no_advert: bool,
    /// See [`Vrrp::higher_prio_send_advert`].
    pub higher_prio_send_advert: bool,
    /// See [`Vrrp::owner_ignore_adverts`].
    pub owner_ignore_adverts: bool,
}

impl Settings {
    /// Those of an instance whose adverts come from `source`.
    pub fn new(vrrp: &Vrrp, source: IpAddr) -> Self {
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            version: vrrp.version,
            priority: vrrp.priority,
            interval_ns: ns(vrrp.advert_interval),
            source,
            start: vrrp.state,
            preempt: vrrp.preempt,
            preempt_delay_ns: ns(vrrp.preempt_delay),
            down_adverts: vrrp.down_timer_adverts.into(),
            timer_expired_backup: vrrp.timer_expired_backup,
            lower_prio_no_advert: vrrp.lower_prio_no_advert,
            higher_prio_send_advert: vrrp.higher_prio_send_advert,
            owner_ignore_adverts: vrrp.owner_ignore_adverts,
        }
    }
}

/// An advert that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where it came from.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
    /// Its interval, ns.
    pub interval_ns: u64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins, or what was down is up again.
    Startup,
    /// It ends.
    Shutdown,
    /// Something that is tracked is down.
    Fail,
    /// Time has passed.
    Timer,
    /// An advert came.
    Advert(Heard),
    /// The priority is another one now, by what is tracked.
    Priority(u8),
    /// The BFD session with this director ended.
    Lost(IpAddr),
    /// Another instance of its group is master.
    Take,
    /// Another instance of its group is backup.
    Yield,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an advert with this priority.
    Send(u8),
    /// It is in this state from now on.
    Enter(State),
    /// A master heard an advert of lower priority, which it answered or not.
    Lower,
}

/// What a frame takes from the wire to here at most, ns: a worker's longest rest is 4 ms.
const GRACE_NS: u64 = 10_000_000;

/// A virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
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
}

impl Machine {
    /// One that has not begun.
    pub fn new(settings: Settings) -> Self {
        let (priority, master_interval_ns) = (settings.priority, settings.interval_ns);
        Self {
            settings,
            state: State::Init,
            priority,
            master_interval_ns,
            timer_ns: None,
            lower_ns: None,
            hold_ns: 0,
            master: None,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
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
        self.timer_ns
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
            (State::Init, Event::Fail) => self.enter(State::Fault, actions),
            (State::Backup, Event::Fail) => {
                self.timer_ns = None;
                self.enter(State::Fault, actions);
            }
            (State::Master, Event::Fail) => {
                self.timer_ns = None;
                actions.push(Action::Send(0));
                self.enter(State::Fault, actions);
            }
            (State::Backup | State::Fault, Event::Shutdown) => {
                self.timer_ns = None;
                self.enter(State::Init, actions);
            }
            (State::Master, Event::Shutdown) => {
                self.timer_ns = None;
                actions.push(Action::Send(0));
                self.enter(State::Init, actions);
            }
            (State::Backup, Event::Timer) if self.is_due(now_ns) => {
                // adverts that came meanwhile may still be on their way to here
                if self.was_held_up(now_ns) {
                    self.timer_ns = Some(now_ns + self.listen_ns());
                } else {
                    self.take(now_ns, actions);
                }
            }
            (State::Backup, Event::Take) => self.take(now_ns, actions),
            // without having heard any master: the neighbour was there and is gone, nobody else has spoken
            (State::Backup, Event::Lost(who)) if self.master.is_none_or(|(master, _)| master == who) => {
                self.take(now_ns, actions);
            }
            (State::Backup, Event::Advert(heard)) => self.follow(now_ns, &heard),
            (State::Master, Event::Timer) if self.is_due(now_ns) => self.advertise(now_ns, actions),
            // it slept, and somebody else has taken over: whose connections are older is not to be found out by force
            (State::Master, Event::Advert(heard)) if heard.priority > 0 && self.was_held_up(now_ns) => {
                self.enter(State::Backup, actions);
                self.timer_ns = Some(now_ns + self.down_ns());
                self.follow(now_ns, &heard);
            }
            (State::Master, Event::Advert(heard)) => self.contend(now_ns, &heard, actions),
            (State::Master, Event::Yield) => {
                self.timer_ns = Some(now_ns + self.down_ns());
                self.enter(State::Backup, actions);
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
        let late = self.timer_ns.map_or(0, |due| now_ns.saturating_sub(due));
        let limit = self.settings.down_adverts.saturating_sub(1).max(1) * self.master_interval_ns;
        self.settings.timer_expired_backup && late > limit
    }

    /// How long it listens then: a master speaks once in an interval. Not longer, so that nobody is without the
    /// addresses for the time of a whole take-over when there is no other director.
    fn listen_ns(&self) -> u64 {
        self.master_interval_ns + GRACE_NS
    }

    fn enter(&mut self, state: State, actions: &mut Vec<Action>) {
        self.state = state;
        self.lower_ns = None;
        if state != State::Backup {
            self.master = None;
        }
        actions.push(Action::Enter(state));
    }

    /// RFC 9568 section 6.4.1.
    fn begin(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let first = self.state == State::Init;
        self.master_interval_ns = self.settings.interval_ns;
        if self.priority == 255 {
            return self.take(now_ns, actions);
        }
        let wait = match self.settings.start {
            VrrpStart::Master if first => self.settings.interval_ns + self.skew_ns(),
            _ => self.down_ns(),
        };
        self.timer_ns = Some(now_ns + wait);
        self.enter(State::Backup, actions);
    }

    fn take(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        actions.push(Action::Send(self.priority));
        self.timer_ns = Some(now_ns + self.settings.interval_ns);
        self.enter(State::Master, actions);
    }

    fn advertise(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let due = self.timer_ns.unwrap_or(now_ns);
        if self.was_held_up(now_ns) {
            self.timer_ns = Some(now_ns + self.listen_ns());
            return self.enter(State::Backup, actions);
        }
        actions.push(Action::Send(self.priority));
        // from when it was due, so that lateness does not add up
        let next = due + self.settings.interval_ns;
        self.timer_ns = Some(if next > now_ns { next } else { now_ns + self.settings.interval_ns });
    }

    /// RFC 9568 section 6.4.2, an advert comes to a backup.
    fn follow(&mut self, now_ns: u64, heard: &Heard) {
        if heard.priority == 0 {
            self.timer_ns = Some(now_ns + self.skew_ns());
            return;
        }
        if self.priority == 255 && self.settings.owner_ignore_adverts {
            return;
        }
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

    /// RFC 9568 section 6.4.3, an advert comes to a master.
    fn contend(&mut self, now_ns: u64, heard: &Heard, actions: &mut Vec<Action>) {
        if heard.priority == 0 {
            actions.push(Action::Send(self.priority));
            self.timer_ns = Some(now_ns + self.settings.interval_ns);
        } else if self.priority == 255 && self.settings.owner_ignore_adverts {
        } else if self.is_above(heard) {
            if self.settings.higher_prio_send_advert {
                actions.push(Action::Send(self.priority));
            }
            if self.settings.version == VrrpVersion::V3 {
                self.master_interval_ns = heard.interval_ns;
            }
            self.timer_ns = Some(now_ns + self.down_ns());
            self.enter(State::Backup, actions);
            self.master = Some((heard.source, heard.priority));
        } else {
            if !self.settings.lower_prio_no_advert {
                actions.push(Action::Send(self.priority));
                self.timer_ns = Some(now_ns + self.settings.interval_ns);
            }
            actions.push(Action::Lower);
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
