//! All virtual routers of a director, their groups, what they track, and BFD sessions. No I/O, no clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use lb_config::Tracked;
use lb_dataplane::channel::ControlFrame;
use lb_dataplane::io::DeviceId;
use lb_dataplane::neighbor::Resolution;
use lb_dataplane::owner::HELD_UP_NS;
use tracing::{debug, info, warn};

use super::frame;
use super::instance::{Instance, Now, announcements};
use super::machine::{Action, Event, State};
use super::plan::{Plan, Target};
use super::wire;
use crate::lease::Order;

mod leases;
mod reasons;
mod sessions;
mod status;
mod telling;
mod tracking;

pub use leases::Report as LeaseReport;
use telling::tell;
pub use telling::{News, NewsKind};

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// User; `None`: lbd's.
    pub user: Option<String>,
}

/// What is to be done outside.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Adverts and BFD packets, in order.
    pub urgent: VecDeque<(DeviceId, Vec<u8>)>,
    /// Announcements, after them.
    pub announcements: VecDeque<(DeviceId, Vec<u8>)>,
    /// Programs, in order.
    pub programs: Vec<Program>,
    /// What is wanted of leases, in order.
    pub leases: Vec<Order>,
    /// What happened, in order.
    pub news: Vec<News>,
}

/// Most announcements that wait: 4096 addresses, five times each, and as many again.
const MAX_ANNOUNCEMENTS: usize = 65_536;

/// What is known of a thing that is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is up.
    pub up: bool,
    /// The number in a file.
    pub number: i32,
}

/// Everything; see the module.
#[derive(Debug, Default)]
pub struct Engine {
    plan: Plan,
    instances: Vec<Instance>,
    sessions: Vec<sessions::Link>,
    standings: HashMap<Tracked, Standing>,
    /// Stations that adverts came from, for where the neighbour table knows none yet.
    stations: HashMap<IpAddr, [u8; 6]>,
    group_states: HashMap<String, State>,
    next_id: u16,
    next_session: u32,
    tenancies: HashMap<String, leases::Tenancy>,
    /// Wishes for leases so far.
    wishes: u64,
    /// Who sent the advert that is looked at: address and station.
    caller: Option<(IpAddr, [u8; 6])>,
    /// When time passed last, ns.
    ticked_ns: Option<u64>,
    /// How long it had not passed before, ns: of a director that was held up [`HELD_UP_NS`] and more.
    rest_ns: u64,
    stopped: bool,
    out: Outbox,
}

impl Engine {
    /// One without instances.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is to be done outside.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.out
    }

    /// What it goes by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The state of an instance.
    pub fn state(&self, name: &str) -> Option<State> {
        self.instances.iter().find(|i| i.plan.vrrp.name == name).map(|i| i.machine.state())
    }

    /// Goes by another plan; instances and sessions that are in both go on.
    pub fn update(&mut self, now: Now, plan: Plan) {
        let mut old = std::mem::take(&mut self.instances);
        let mut added = Vec::new();
        for wanted in &plan.instances {
            let found =
                old.iter().position(|own| own.plan.vrrp.name == wanted.vrrp.name && own.continues(wanted));
            let Some(at) = found else {
                self.instances.push(Instance::new(wanted.clone(), now.mono_ns));
                continue;
            };
            let mut instance = old.remove(at);
            let before = std::mem::replace(&mut instance.plan, wanted.clone());
            instance.machine.configure(wanted.settings());
            if instance.machine.state() == State::Master {
                added.push((wanted.clone(), before));
            }
            self.instances.push(instance);
        }
        for (wanted, before) in added {
            let new: Vec<_> =
                wanted.addresses.iter().filter(|own| !before.addresses.contains(own)).copied().collect();
            self.announce(&new, wanted.vrrp.garp_master_repeat);
        }
        for mut gone in old {
            self.end(now, &mut gone, true);
        }
        let gone = self.update_sessions(now, &plan.sessions);
        let other_lease = self.plan.lease != plan.lease;
        self.plan = plan;
        self.end_sessions(gone);
        if other_lease {
            self.forget_leases();
        }
        self.update_leases(now);
        let known = |what: &Tracked| match what {
            Tracked::Port(_) | Tracked::Bfd(_) => true,
            Tracked::Script(name) => self.plan.scripts.iter().any(|own| own.name == *name),
            Tracked::Process(name) => self.plan.processes.iter().any(|own| own.name == *name),
            Tracked::File(name) => self.plan.files.iter().any(|own| own.name == *name),
        };
        let gone: Vec<_> = self.standings.keys().filter(|what| !known(what)).cloned().collect();
        self.standings.retain(|what, _| !gone.contains(what));
        self.evaluate(now);
    }

    /// Something that is tracked is so from now on.
    pub fn tracked(&mut self, now: Now, what: Tracked, standing: Standing) {
        if self.standings.insert(what.clone(), standing) != Some(standing) {
            debug!(
                kind = what.kind(),
                name = what.name(),
                up = standing.up,
                number = standing.number,
                "tracked"
            );
            self.evaluate(now);
        }
    }

    /// A frame came from a worker.
    pub fn receive(&mut self, now: Now, frame: &ControlFrame) {
        if self.stopped {
            return;
        }
        let Some(datagram) = frame::open(frame) else { return };
        if datagram.protocol != lb_dataplane::channel::PROTOCOL_VRRP {
            return self.receive_bfd(now, &datagram);
        }
        let vrid = datagram.payload.get(1).copied();
        let ours = |own: &Instance| {
            own.plan.exit.link == frame.link
                && Some(own.plan.vrrp.vrid) == vrid
                && own.plan.source.is_ipv6() == datagram.src.is_ipv6()
        };
        let Some(at) = self.instances.iter().position(ours) else { return };
        let Some(instance) = self.instances.get_mut(at) else { return };
        let result = match wire::parse(datagram.payload, datagram.src, datagram.dst) {
            Ok((advert, rest)) => instance.check(now, &datagram, &advert, rest),
            Err(error) => {
                let reason = match error {
                    wire::WireError::Length => "length",
                    wire::WireError::Version => "version",
                    wire::WireError::Kind => "type",
                    wire::WireError::Checksum => "checksum",
                };
                *instance.refused.entry(reason).or_default() += 1;
                Err(reason)
            }
        };
        match result {
            Ok(heard) => {
                if !self.plan.instances.get(at).is_none_or(|plan| plan.targets.is_empty()) {
                    self.stations.insert(datagram.src, datagram.station);
                }
                self.caller = Some((datagram.src, datagram.station));
                self.run(now, [(at, Event::Advert(heard))]);
                self.caller = None;
            }
            Err("own") => {}
            Err(reason) => {
                let name = &instance.plan.vrrp.name;
                // the first, then ever fewer: a flood of them fills no log
                if instance.refused.get(reason).is_some_and(|count| count.is_power_of_two()) {
                    warn!(instance = %name, source = %datagram.src, check = reason, "an advert is dropped");
                }
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        let before = self.ticked_ns.replace(now.mono_ns);
        self.rest_ns = before.map_or(0, |before| now.mono_ns.saturating_sub(before));
        let due: Vec<_> = self
            .sessions
            .iter_mut()
            .filter_map(|own| Some((own.session.tick(now.mono_ns)?, own.plan.clone(), own.port)))
            .collect();
        for (packet, plan, port) in due {
            self.send_bfd(&plan, port, &packet);
        }
        self.follow_sessions(now);
        self.end_leases(now);
        let is_due = |own: &Instance| own.machine.due_ns().is_some_and(|due| due <= now.mono_ns);
        let due: Vec<_> = (0..self.instances.len())
            .filter(|at| self.instances.get(*at).is_some_and(is_due))
            .map(|at| (at, Event::Timer))
            .collect();
        self.run(now, due);
        let mut announced = Vec::new();
        for instance in &mut self.instances {
            let report = instance.join(now.mono_ns);
            self.out.urgent.extend(report.map(|frame| (instance.plan.exit.device, frame)));
            match instance.announcements(now.mono_ns) {
                0 => {}
                repeat => announced.push((instance.plan.addresses.clone(), repeat)),
            }
        }
        for (addresses, repeat) in announced {
            self.announce(&addresses, repeat);
        }
    }

    /// Whether this director was held up before time passed last.
    fn is_held_up(&self) -> bool {
        self.rest_ns > HELD_UP_NS
    }

    /// When [`Engine::tick`] has something to do, ns.
    pub fn due_ns(&self) -> Option<u64> {
        let instances = self.instances.iter().filter_map(Instance::due_ns);
        let sessions = self.sessions.iter().map(|own| own.session.due_ns());
        instances.chain(sessions).chain(self.lease_due_ns()).min()
    }

    /// The shortest interval of a protocol here, ns: how closely workers' queues are looked at.
    pub fn shortest_ns(&self) -> Option<u64> {
        let of = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let instances = self.plan.instances.iter().map(|own| of(own.vrrp.advert_interval));
        instances.chain(self.plan.sessions.iter().map(|own| of(own.bfd.min_tx.min(own.bfd.min_rx)))).min()
    }

    /// lbd ends: others are told that they need not wait.
    pub fn stop(&mut self, now: Now) {
        let groups = self.begun_groups();
        for mut instance in std::mem::take(&mut self.instances) {
            self.end(now, &mut instance, false);
        }
        for (group, priority) in groups {
            let (name, notify) = (&group.name, &group.notify);
            tell(&mut self.out.programs, notify, &notify.stop, ("GROUP", name, State::Init.word(), priority));
        }
        let sessions = std::mem::take(&mut self.sessions);
        self.end_sessions(sessions);
        // nobody wants any lease any more
        self.follow_leases(now);
        self.stopped = true;
    }

    /// An instance ends, because lbd does or because it is out of the configuration.
    fn end(&mut self, now: Now, instance: &mut Instance, deleted: bool) {
        let mut actions = Vec::new();
        instance.machine.step(now.mono_ns, Event::Shutdown, &mut actions);
        self.plan.cells.set(instance.plan.owner, false);
        self.hush(instance);
        for action in actions {
            if let Action::Send(priority) = action {
                self.send_advert(now, instance, priority);
            }
        }
        let vrrp = &instance.plan.vrrp;
        info!(instance = %vrrp.name, deleted, "vrrp instance ends");
        let priority = instance.machine.priority();
        let own = if deleted { &vrrp.notify.deleted } else { &vrrp.notify.stop };
        let word = if deleted { "DELETED" } else { "STOP" };
        tell(&mut self.out.programs, &vrrp.notify, own, ("INSTANCE", &vrrp.name, word, priority));
    }

    /// Lets events happen, and what follows from them in groups.
    fn run(&mut self, now: Now, events: impl IntoIterator<Item = (usize, Event)>) {
        let mut events: VecDeque<(usize, Event)> = events.into_iter().collect();
        let mut actions = Vec::new();
        let copied = self.plan.feeds.as_ref().is_none_or(|feeds| feeds.is_copied());
        let hold_ns = if copied { 0 } else { u64::try_from(self.plan.hold.as_nanos()).unwrap_or(u64::MAX) };
        loop {
            let Some((at, event)) = events.pop_front() else {
                events.extend(self.follow_leases(now));
                if events.is_empty() {
                    break;
                }
                continue;
            };
            let Some(instance) = self.instances.get_mut(at) else { continue };
            let before = instance.machine.state();
            instance.machine.hold(hold_ns);
            instance.machine.step(now.mono_ns, event, &mut actions);
            // the bit before the advert: whoever hears it may send packets at once
            self.plan.cells.set(instance.plan.owner, instance.machine.state() == State::Master);
            if before == State::Master && instance.machine.state() != State::Master {
                let instance = instance.clone();
                self.hush(&instance);
            }
            for action in std::mem::take(&mut actions) {
                let Some(mut instance) = self.instances.get(at).cloned() else { continue };
                match action {
                    Action::Send(priority) => self.send_advert(now, &mut instance, priority),
                    Action::Bye => self.send_bye(now, &mut instance),
                    Action::Lower => {
                        let repeat = instance.lower(now.mono_ns);
                        self.announce(&instance.plan.addresses, repeat);
                        let notify = &instance.plan.vrrp.notify;
                        let command = notify.master_rx_lower_priority.clone();
                        if !command.is_empty() {
                            self.out.programs.push(Program { command, user: notify.user.clone() });
                        }
                    }
                    Action::Enter(state) => {
                        let repeat = instance.entered(now.mono_ns, state);
                        // of a master it is why it began to take over, as it stood then
                        if (before, state) != (State::Taking, State::Master) {
                            instance.why = self.reason(&instance);
                        }
                        self.announce(&instance.plan.addresses, repeat);
                        self.changed(&instance, before, state);
                        events.extend(self.group_events(at, before, state));
                    }
                }
                if let Some(place) = self.instances.get_mut(at) {
                    *place = instance;
                }
            }
        }
        self.follow_groups();
    }

    /// What the others of a group do when one is in another state.
    fn group_events(&self, at: usize, before: State, state: State) -> Vec<(usize, Event)> {
        let event = match (before, state) {
            (State::Taking, State::Master) => Event::Settled,
            (_, State::Taking | State::Master) => Event::Take,
            (State::Taking | State::Master, State::Backup) => Event::Yield,
            _ => return Vec::new(),
        };
        let name = |at: usize| self.instances.get(at).map(|own| own.plan.vrrp.name.as_str());
        let Some(own) = name(at) else { return Vec::new() };
        let in_it =
            |name: &str, group: &lb_config::VrrpGroup| group.instances.iter().any(|other| other == name);
        let Some(group) = self.plan.groups.iter().find(|group| in_it(own, group)) else { return Vec::new() };
        let others = (0..self.instances.len()).filter(|other| *other != at);
        others
            .filter(|other| name(*other).is_some_and(|name| in_it(name, group)))
            .map(|at| (at, event))
            .collect()
    }

    /// Drops announcements of an instance that wait to be sent: it has the addresses no more.
    fn hush(&mut self, instance: &Instance) {
        if self.out.announcements.is_empty() {
            return;
        }
        let frames: HashSet<_> =
            announcements(&instance.plan.addresses, 1).into_iter().map(|(_, frame)| frame).collect();
        self.out.announcements.retain(|(_, frame)| !frames.contains(frame));
    }

    fn announce(&mut self, addresses: &[(IpAddr, super::plan::Exit)], repeat: u8) {
        for (exit, frame) in announcements(addresses, repeat) {
            if self.out.announcements.len() < MAX_ANNOUNCEMENTS {
                self.out.announcements.push_back((exit.device, frame));
            }
        }
    }

    fn station(&self, target: &Target) -> Option<[u8; 6]> {
        let known = self.plan.neighbors.as_ref().zip(target.neighbor).map(|(cells, id)| cells.mac(id));
        match known {
            Some(Resolution::Resolved(mac)) => Some(mac),
            _ => self.stations.get(&target.address).copied(),
        }
    }

    fn send_advert(&mut self, now: Now, instance: &mut Instance, priority: u8) {
        self.next_id = self.next_id.wrapping_add(1);
        let frames = instance.adverts(now, priority, self.next_id, |target| self.station(target));
        let device = instance.plan.exit.device;
        self.out.urgent.extend(frames.into_iter().map(|frame| (device, frame)));
    }

    /// Tells the one whose advert was heard that the addresses are its own now.
    fn send_bye(&mut self, now: Now, instance: &mut Instance) {
        let Some(caller) = self.caller else { return };
        self.next_id = self.next_id.wrapping_add(1);
        let frame = instance.bye(now, self.next_id, caller);
        let device = instance.plan.exit.device;
        self.out.urgent.extend(frame.map(|frame| (device, frame)));
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
