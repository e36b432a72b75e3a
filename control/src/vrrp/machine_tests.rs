use super::*;
use lb_config::Vrrp;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn settings(priority: u8) -> Settings {
    let vrrp = Vrrp { priority, ..Vrrp::default() };
    Settings::new(&vrrp, address(10))
}

fn heard(priority: u8, last: u8) -> Event {
    Event::Advert(Heard { source: address(last), priority, interval_ns: S })
}

/// A machine in a state at the time 0.
fn in_state(settings: Settings, state: State) -> Machine {
    let mut machine = Machine::new(settings);
    let mut actions = Vec::new();
    match state {
        State::Init => {}
        State::Backup => machine.step(0, Event::Startup, &mut actions),
        State::Fault => machine.step(0, Event::Fail, &mut actions),
        State::Master => {
            machine.step(0, Event::Startup, &mut actions);
            machine.step(0, Event::Take, &mut actions);
        }
        State::Taking => {
            machine.step(0, Event::Startup, &mut actions);
            machine.step(0, heard(1, 20), &mut actions);
            machine.step(0, Event::Take, &mut actions);
        }
    }
    assert_eq!(machine.state(), state);
    machine
}

/// State, priority, event; then state, actions, timer, ns from then.
type Row = (State, u8, Event, State, Vec<Action>, Option<u64>);

/// RFC 9568 section 6.4, line by line: state, priority, event, state after, actions, timer after (ns from then).
#[test]
fn the_tables_of_rfc_9568_section_6_4() {
    use Action::{Bye, Enter, Lower, Send};
    use State::{Backup, Fault, Init, Master};
    // priority 100: Skew_Time is 156/256 s, Active_Down_Interval 3 s more
    let skew = 156 * S / 256;
    let down = 3 * S + skew;
    let timer = Event::Timer;
    let cases: Vec<Row> = vec![
        (Init, 255, Event::Startup, Master, vec![Send(255), Enter(Master)], Some(S)),
        (Init, 100, Event::Startup, Backup, vec![Enter(Backup)], Some(down)),
        (Backup, 100, Event::Shutdown, Init, vec![Enter(Init)], None),
        (Backup, 100, timer, Master, vec![Send(100), Enter(Master)], Some(S)),
        (Backup, 100, heard(0, 20), Backup, vec![], Some(skew)),
        (Backup, 100, heard(100, 20), Backup, vec![], Some(down)),
        (Backup, 100, heard(200, 20), Backup, vec![], Some(down)),
        (Master, 100, Event::Shutdown, Init, vec![Send(0), Enter(Init)], None),
        (Master, 100, timer, Master, vec![Send(100)], Some(S)),
        (Master, 100, heard(0, 20), Master, vec![Send(100)], Some(S)),
        (Master, 100, heard(101, 5), Backup, vec![Enter(Backup), Bye], Some(down)),
        (Master, 100, heard(100, 11), Backup, vec![Enter(Backup), Bye], Some(down)),
        (Master, 100, heard(100, 9), Master, vec![Send(100), Lower], Some(S)),
        (Master, 100, heard(99, 20), Master, vec![Send(100), Lower], Some(S)),
        // keepalived's fault state
        (Master, 100, Event::Fail, Fault, vec![Send(0), Enter(Fault)], None),
        (Backup, 100, Event::Fail, Fault, vec![Enter(Fault)], None),
        (Fault, 100, Event::Startup, Backup, vec![Enter(Backup)], Some(down)),
        (Fault, 100, heard(1, 20), Fault, vec![], None),
        (Fault, 100, Event::Take, Fault, vec![], None),
    ];
    for (state, priority, event, after, wanted, due) in cases {
        let mut machine = in_state(settings(priority), state);
        let now = machine.due_ns().filter(|_| event == timer).unwrap_or(500 * MS);
        let mut actions = Vec::new();
        machine.step(now, event, &mut actions);
        assert_eq!((machine.state(), actions), (after, wanted), "{state:?} {event:?}");
        assert_eq!(machine.due_ns(), due.map(|due| now + due), "timer of {state:?} {event:?}");
    }
    // RFC 9568 section 6.4.2: with Preempt_Mode an advert of lower priority is discarded
    let mut machine = in_state(settings(100), Backup);
    machine.step(S, heard(99, 20), &mut Vec::new());
    assert_eq!(machine.due_ns(), Some(down));
    // and without it it counts
    let mut machine = in_state(Settings { preempt: false, ..settings(100) }, Backup);
    machine.step(S, heard(99, 20), &mut Vec::new());
    assert_eq!(machine.due_ns(), Some(S + down));
}

/// Settings, state at the time 0, what then happens when; the state and the reason after it.
type Told = (Settings, State, Vec<(u64, Event)>, State, Why);

#[test]
fn a_machine_knows_why_it_is_in_its_state() {
    use State::{Backup, Fault, Init, Master, Taking};
    let skew = 156 * S / 256;
    let down = 3 * S + skew;
    let of = || settings(100);
    let leased = || Settings { leased: true, ..of() };
    let timer = Event::Timer;
    let cases: Vec<Told> = vec![
        (of(), Init, vec![], Init, Why::New),
        (of(), Init, vec![(0, Event::Startup)], Backup, Why::Begun),
        (settings(255), Init, vec![(0, Event::Startup)], Master, Why::Owner),
        (of(), Fault, vec![(S, Event::Startup)], Backup, Why::Mended),
        (of(), Backup, vec![(S, Event::Fail)], Fault, Why::Fault),
        (of(), Master, vec![(S, Event::Fail)], Fault, Why::Fault),
        (of(), Master, vec![(S, Event::Shutdown)], Init, Why::Ended),
        // nobody was heard at all, and somebody who is heard no more
        (of(), Backup, vec![(down, timer)], Master, Why::Silent(down)),
        (of(), Backup, vec![(S, heard(200, 20)), (S + down, timer)], Master, Why::Silent(down)),
        (
            of(),
            Backup,
            vec![(S, heard(200, 20)), (2 * S, heard(0, 20)), (2 * S + skew, timer)],
            Master,
            Why::Bye(address(20)),
        ),
        // a good-bye, but another one speaks
        (
            of(),
            Backup,
            vec![(S, heard(0, 20)), (S + MS, heard(200, 21)), (S + MS + down, timer)],
            Master,
            Why::Silent(down),
        ),
        (of(), Backup, vec![(3 * S, heard(50, 20)), (down, timer)], Taking, Why::Above(address(20), 50)),
        (
            of(),
            Backup,
            vec![(3 * S, heard(50, 20)), (down, timer), (down + S, timer)],
            Master,
            Why::Above(address(20), 50),
        ),
        (
            of(),
            Backup,
            vec![(S, heard(200, 20)), (S + MS, Event::Lost(address(20)))],
            Master,
            Why::Lost(address(20)),
        ),
        (of(), Backup, vec![(S, Event::Take)], Master, Why::Group),
        (of(), Master, vec![(S, Event::Yield)], Backup, Why::Group),
        (of(), Master, vec![(MS, heard(150, 20))], Backup, Why::Below(address(20), 150)),
        (of(), Master, vec![(MS, heard(100, 20))], Backup, Why::Below(address(20), 100)),
        (of(), Master, vec![(60 * S, timer)], Backup, Why::Late(59 * S)),
        (of(), Master, vec![(60 * S, heard(50, 20))], Backup, Why::Replaced(59 * S, address(20))),
        (of(), Master, vec![(MS, Event::Waver)], Taking, Why::Wavers),
        (leased(), Taking, vec![(0, Event::Granted(0))], Master, Why::Group),
        (leased(), Taking, vec![(0, Event::Granted(0)), (MS, Event::Revoked)], Backup, Why::Revoked),
    ];
    for (settings, state, events, after, why) in cases {
        let mut machine = in_state(settings, state);
        let mut actions = Vec::new();
        for (now, event) in &events {
            machine.step(*now, *event, &mut actions);
        }
        assert_eq!((machine.state(), machine.why()), (after, why), "{state:?} {events:?}");
    }
}

#[test]
fn timers_follow_the_master_in_version_3_and_the_second_in_version_2() {
    let fast = Heard { source: address(20), priority: 200, interval_ns: 10 * MS };
    let mut machine = in_state(settings(50), State::Backup);
    machine.step(0, Event::Advert(fast), &mut Vec::new());
    assert_eq!(machine.due_ns(), Some(30 * MS + 206 * 10 * MS / 256));
    let v2 = Settings { version: VrrpVersion::V2, interval_ns: 2 * S, ..settings(50) };
    let mut machine = in_state(v2, State::Backup);
    machine.step(0, Event::Advert(Heard { interval_ns: 2 * S, ..fast }), &mut Vec::new());
    assert_eq!(machine.due_ns(), Some(6 * S + 206 * S / 256), "RFC 3768: the skew is of a second");
}

#[test]
fn preemption_waits_for_its_delay() {
    let mut machine = in_state(Settings { preempt_delay_ns: 10 * S, ..settings(100) }, State::Backup);
    let mut actions = Vec::new();
    let mut taken = None;
    for ms in 0..20_000 {
        if ms % 1000 == 500 {
            machine.step(ms * MS, heard(50, 20), &mut actions);
        }
        if machine.due_ns().is_some_and(|due| due <= ms * MS) {
            machine.step(ms * MS, Event::Timer, &mut actions);
            taken = taken.or(Some(ms));
        }
    }
    // first heard at 0.5 s, discarded from 10.5 s on, the last that counted at 9.5 s
    assert!((13_000..13_200).contains(&taken.unwrap()), "{taken:?}");
}

#[test]
fn who_was_held_up_listens_first() {
    let mut master = in_state(settings(100), State::Master);
    let mut actions = Vec::new();
    master.step(60 * S, Event::Timer, &mut actions);
    assert_eq!((master.state(), actions), (State::Backup, vec![Action::Enter(State::Backup)]));
    let keeps = Settings { timer_expired_backup: false, ..settings(100) };
    let mut master = in_state(keeps, State::Master);
    master.step(60 * S, Event::Timer, &mut Vec::new());
    assert_eq!(master.state(), State::Master);
    let mut backup = in_state(settings(100), State::Backup);
    backup.step(60 * S, Event::Timer, &mut Vec::new());
    assert_eq!(backup.state(), State::Backup);
    let due = backup.due_ns().unwrap();
    backup.step(due, Event::Timer, &mut Vec::new());
    assert_eq!(backup.state(), State::Master);
}

#[test]
fn a_master_that_slept_yields_to_whoever_has_taken_over() {
    for (slept, after) in [(S, State::Master), (60 * S, State::Backup)] {
        let mut master = in_state(settings(100), State::Master);
        let mut actions = Vec::new();
        master.step(S + slept, heard(50, 20), &mut actions);
        assert_eq!(master.state(), after, "{slept}");
    }
    // with preemption it takes over again, in its time
    let mut master = in_state(settings(100), State::Master);
    master.step(60 * S, heard(50, 20), &mut Vec::new());
    let due = master.due_ns().unwrap();
    assert_eq!(due, 60 * S + master.down_ns());
    master.step(61 * S, heard(50, 20), &mut Vec::new());
    master.step(due, Event::Timer, &mut Vec::new());
    assert_eq!(master.state(), State::Taking, "from one that is alive");
}

#[test]
fn a_lower_master_is_left_alone_until_its_connections_are_here_or_time_is_up() {
    let taken_after = |copied_ms: u64| {
        let mut machine = in_state(settings(100), State::Backup);
        let mut actions = Vec::new();
        for ms in 0..60_000 {
            machine.hold(if ms < copied_ms { 10 * S } else { 0 });
            if ms % 1000 == 500 {
                machine.step(ms * MS, heard(50, 20), &mut actions);
            }
            if machine.due_ns().is_some_and(|due| due <= ms * MS) {
                machine.step(ms * MS, Event::Timer, &mut actions);
            }
            if machine.state() != State::Backup {
                return ms;
            }
        }
        60_000
    };
    // three intervals and the skew after the last advert that counted, which comes at half seconds
    for (copied_ms, wanted) in
        [(0, 3_609), (1_000, 500 + 3_609), (5_000, 4_500 + 3_609), (50_000, 9_500 + 3_609)]
    {
        assert!(taken_after(copied_ms).abs_diff(wanted) < 10, "{copied_ms}: {}", taken_after(copied_ms));
    }
}

#[test]
fn before_the_first_advert_the_end_of_the_bfd_session_is_enough_too() {
    let mut machine = in_state(settings(100), State::Backup);
    machine.step(MS, Event::Lost(address(20)), &mut Vec::new());
    assert_eq!(machine.state(), State::Master);
}

#[test]
fn the_end_of_the_masters_bfd_session_is_enough_and_that_of_others_is_not() {
    let mut machine = in_state(settings(100), State::Backup);
    machine.step(0, heard(200, 20), &mut Vec::new());
    machine.step(MS, Event::Lost(address(21)), &mut Vec::new());
    assert_eq!(machine.state(), State::Backup);
    machine.step(MS, Event::Lost(address(20)), &mut Vec::new());
    assert_eq!(machine.state(), State::Master);
    // a master whose neighbour is gone speaks at once: that may have taken over
    let mut actions = Vec::new();
    machine.step(9 * MS, Event::Lost(address(20)), &mut actions);
    assert_eq!((actions, machine.due_ns()), (vec![Action::Send(100)], Some(S + 9 * MS)));
    // and lets go first when it was held up itself, unless a lease says that it may not have
    let mut actions = Vec::new();
    machine.step(10 * MS, Event::Waver, &mut actions);
    assert_eq!(actions, [Action::Send(100), Action::Enter(State::Taking)]);
    machine.step(110 * MS, Event::Timer, &mut Vec::new());
    assert_eq!(machine.state(), State::Master);
    let leased = Settings { leased: true, ..settings(100) };
    let mut machine = in_state(leased, State::Taking);
    machine.step(0, Event::Granted(0), &mut Vec::new());
    machine.step(MS, Event::Waver, &mut Vec::new());
    assert_eq!(machine.state(), State::Master);
}

#[test]
fn options_of_keepalived() {
    let mut actions = Vec::new();
    let mut quiet = in_state(Settings { lower_prio_no_advert: true, ..settings(100) }, State::Master);
    quiet.step(0, heard(50, 20), &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Action::Lower]);
    let mut polite = in_state(Settings { higher_prio_send_advert: true, ..settings(100) }, State::Master);
    polite.step(0, heard(150, 20), &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Action::Send(100), Action::Enter(State::Backup), Action::Bye]);
    let mut deaf = in_state(Settings { owner_ignore_adverts: true, ..settings(255) }, State::Master);
    deaf.step(0, heard(255, 20), &mut actions);
    assert_eq!((deaf.state(), std::mem::take(&mut actions)), (State::Master, vec![]));
    let mut eager = Machine::new(Settings { start: VrrpStart::Master, ..settings(100) });
    eager.step(0, Event::Startup, &mut actions);
    assert_eq!(eager.due_ns(), Some(S + 156 * S / 256));
}

#[test]
fn a_master_that_is_alive_lets_go_first() {
    use Action::{Enter, Send};
    let backup = || {
        let mut machine = in_state(settings(100), State::Backup);
        machine.step(3 * S, heard(50, 20), &mut Vec::new());
        machine
    };
    // it is preempted: the advert goes out, the addresses are not here before the wait is over
    let mut machine = backup();
    let due = machine.due_ns().unwrap();
    let mut actions = Vec::new();
    machine.step(due, Event::Timer, &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Send(100), Enter(State::Taking)]);
    assert_eq!(machine.due_ns(), Some(due + 100 * MS));
    // it has not heard: answered, and waited for again
    machine.step(due + 50 * MS, heard(50, 20), &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Send(100)]);
    machine.step(due + 100 * MS, Event::Timer, &mut actions);
    assert_eq!((machine.state(), machine.due_ns()), (State::Taking, Some(due + 150 * MS)));
    machine.step(due + 150 * MS, Event::Timer, &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Enter(State::Master)]);
    // it says that it has let go
    let mut machine = backup();
    machine.step(due, Event::Timer, &mut Vec::new());
    machine.step(due + 2 * MS, heard(0, 20), &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Send(100), Enter(State::Master)]);
    // one that never hears is waited for no longer than one that is dead
    let mut machine = backup();
    machine.step(due, Event::Timer, &mut Vec::new());
    let mut ms = 0;
    while machine.state() == State::Taking {
        ms += 10;
        machine.step(due + ms * MS, heard(50, 20), &mut Vec::new());
        machine.step(due + ms * MS, Event::Timer, &mut Vec::new());
    }
    assert!((3_600..3_620).contains(&ms), "{ms}");
    // nobody is alive: no wait
    let mut machine = in_state(settings(100), State::Backup);
    machine.step(0, heard(200, 20), &mut Vec::new());
    let due = machine.due_ns().unwrap();
    machine.step(due, Event::Timer, &mut Vec::new());
    assert_eq!(machine.state(), State::Master);
}

#[test]
fn with_a_lease_the_addresses_come_and_go_with_it() {
    use Action::{Bye, Enter, Send};
    let leased = Settings { leased: true, ..settings(100) };
    let mut machine = in_state(leased.clone(), State::Backup);
    let due = machine.due_ns().unwrap();
    let mut actions = Vec::new();
    machine.step(due, Event::Timer, &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Send(100), Enter(State::Taking)]);
    // neither time nor a good-bye of another opens it
    machine.step(due + S, Event::Timer, &mut actions);
    machine.step(due + S, heard(0, 20), &mut actions);
    assert_eq!((machine.state(), actions.len()), (State::Taking, 2));
    actions.clear();
    machine.step(due + S, Event::Granted(due + S + 60 * MS), &mut actions);
    assert_eq!((machine.state(), machine.due_ns()), (State::Taking, Some(due + S + 60 * MS)));
    machine.step(due + S + 60 * MS, Event::Timer, &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Enter(State::Master)]);
    machine.step(due + 2 * S, Event::Revoked, &mut actions);
    assert_eq!(std::mem::take(&mut actions), [Send(0), Enter(State::Backup)]);
    assert!(!machine.is_granted());
    // while it waits it yields as a master does
    let mut machine = in_state(leased, State::Taking);
    machine.step(MS, heard(200, 20), &mut actions);
    assert_eq!(actions, [Enter(State::Backup), Bye]);
}

/// Directors on a network that may lose adverts and cut directors off.
struct Network {
    machines: Vec<Machine>,
    /// Cut off or dead: neither hears nor is heard.
    away: Vec<bool>,
    now: u64,
}

impl Network {
    fn new(priorities: &[u8], interval_ms: u64) -> Self {
        let machine = |(at, priority): (usize, &u8)| {
            let source = address(10 + at as u8);
            let mut machine =
                Machine::new(Settings { source, interval_ns: interval_ms * MS, ..settings(*priority) });
            machine.step(0, Event::Startup, &mut Vec::new());
            machine
        };
        let machines: Vec<_> = priorities.iter().enumerate().map(machine).collect();
        Self { away: vec![false; machines.len()], machines, now: 0 }
    }

    /// One event at one machine; adverts that come of it reach the others at once, unless `lose` says so.
    fn step(&mut self, at: usize, event: Event, lose: &mut dyn FnMut() -> bool) {
        let mut queue = vec![(at, event)];
        while let Some((at, event)) = queue.pop() {
            let mut actions = Vec::new();
            self.machines[at].step(self.now, event, &mut actions);
            for action in actions {
                let settings = self.machines[at].settings();
                if let (Action::Bye, Event::Advert(from)) = (action, event) {
                    let bye =
                        Heard { source: settings.source, priority: 0, interval_ns: settings.interval_ns };
                    let to = self.machines.iter().position(|own| own.settings().source == from.source);
                    let to = to.filter(|to| !self.away[at] && !self.away[*to] && !lose());
                    queue.extend(to.map(|to| (to, Event::Advert(bye))));
                }
                let Action::Send(priority) = action else { continue };
                let advert = Heard { source: settings.source, priority, interval_ns: settings.interval_ns };
                for other in (0..self.machines.len()).filter(|other| *other != at) {
                    if !self.away[at] && !self.away[other] && !lose() {
                        queue.push((other, Event::Advert(advert)));
                    }
                }
            }
        }
    }

    fn run(&mut self, until_ms: u64, lose: &mut dyn FnMut() -> bool) {
        while self.now < until_ms * MS {
            self.now += MS;
            for at in 0..self.machines.len() {
                if self.machines[at].due_ns().is_some_and(|due| due <= self.now) {
                    self.step(at, Event::Timer, lose);
                }
            }
        }
    }

    fn masters(&self) -> Vec<usize> {
        let here = |at: &usize| !self.away[*at] && self.machines[*at].state() == State::Master;
        (0..self.machines.len()).filter(here).collect()
    }

    /// The one master that there is, if it has the highest priority of those that are there. Addresses decide between
    /// masters only, so of equal priorities any may be.
    fn right_master(&self) -> Option<usize> {
        let here = (0..self.machines.len()).filter(|at| !self.away[*at]);
        let highest = here.map(|at| self.machines[at].priority()).max();
        match self.masters().as_slice() {
            [one] if Some(self.machines[*one].priority()) == highest => Some(*one),
            _ => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A network that loses nothing has one master within the time of RFC 9568, the right one, and keeps it; when it
    /// goes away another takes over within 3 intervals and its skew, and when it is back it is master again.
    #[test]
    fn a_whole_network_has_one_master(
        priorities in proptest::collection::vec(1..=254u8, 2..=3), interval in 10..=200u64,
    ) {
        let mut network = Network::new(&priorities, interval);
        let whole: &mut dyn FnMut() -> bool = &mut || false;
        network.run(4 * interval + 2, whole);
        let first = network.right_master();
        prop_assert!(first.is_some());
        for _ in 0..20 {
            let next = network.now / MS + interval / 2 + 1;
            network.run(next, whole);
            prop_assert_eq!(network.right_master(), first);
        }
        let gone = first.unwrap();
        network.away[gone] = true;
        let best = (0..priorities.len()).filter(|at| *at != gone).max_by_key(|at| priorities[*at]).unwrap();
        let limit = (3 * interval * MS + network.machines[best].skew_ns()) / MS + 2;
        let begun = network.now / MS;
        network.run(begun + limit, whole);
        let heir = network.right_master();
        prop_assert!(heir.is_some());
        network.away[gone] = false;
        let begun = network.now / MS;
        network.run(begun + interval + 2, whole);
        let last = network.right_master();
        prop_assert!(last.is_some(), "two masters end with the next advert");
        if priorities[gone] == priorities[heir.unwrap()] {
            prop_assert_eq!(last, Some(gone.max(heir.unwrap())), "the higher address has it");
        }
    }

    /// One that says good-bye is followed within a skew.
    #[test]
    fn a_master_that_ends_is_followed_within_a_skew(a in 2..=254u8, interval in 10..=200u64) {
        let mut network = Network::new(&[a, a - 1], interval);
        let whole: &mut dyn FnMut() -> bool = &mut || false;
        network.run(5 * interval, whole);
        network.step(0, Event::Shutdown, whole);
        network.away[0] = true;
        let begun = network.now / MS;
        network.run(begun + network.machines[1].skew_ns() / MS + 2, whole);
        prop_assert_eq!(network.masters(), vec![1]);
    }

    /// After any losses a network that is whole again has one master, the right one.
    #[test]
    fn losses_heal(
        priorities in proptest::collection::vec(1..=254u8, 2..=3), losses in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let mut network = Network::new(&priorities, 100);
        let mut losses = losses.into_iter().cycle();
        network.run(8_000, &mut || losses.next().unwrap_or(false));
        network.run(8_000 + 500, &mut || false);
        prop_assert!(network.right_master().is_some());
    }

    /// Any events in any order leave a machine with a timer exactly while it takes part.
    #[test]
    fn timers_run_exactly_while_it_takes_part(leased: bool, events in proptest::collection::vec((0..13u8, 0..=255u8, 1..30u8, 0..3000u64), 0..60)) {
        let mut machine = Machine::new(Settings { leased, ..settings(100) });
        let mut now = 0;
        for (kind, priority, last, ms) in events {
            now += ms * MS;
            let event = match kind {
                0 => Event::Startup,
                1 => Event::Shutdown,
                2 => Event::Fail,
                3 => Event::Timer,
                4 => Event::Take,
                5 => Event::Yield,
                6 => Event::Lost(address(last)),
                7 => Event::Priority(priority.clamp(1, 254)),
                8 => Event::Granted(now + u64::from(priority) * MS),
                9 => Event::Revoked,
                10 => Event::Settled,
                11 => Event::Waver,
                _ => heard(priority, last),
            };
            let mut actions = Vec::new();
            machine.step(now, event, &mut actions);
            let active = matches!(machine.state(), State::Backup | State::Taking | State::Master);
            prop_assert_eq!(machine.due_ns().is_some(), active);
            let sends = actions.iter().any(|action| matches!(action, Action::Send(_)));
            let was_master = actions.contains(&Action::Enter(State::Init)) || actions.contains(&Action::Enter(State::Fault));
            let ends = actions.first() == Some(&Action::Send(0));
            let speaks = matches!(machine.state(), State::Taking | State::Master);
            prop_assert!(!sends || was_master || ends || speaks, "only masters speak");
            prop_assert!(!leased || machine.state() != State::Master || machine.is_granted(), "without its lease");
        }
    }
}
