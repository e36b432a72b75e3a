//! What tracked things do to instances: faults, which groups share, and priorities.

use lb_config::{Track, Tracked};
use tracing::info;

use super::super::instance::{Instance, Now};
use super::super::machine::{Event, State};
use super::{Engine, Standing, tell};
use crate::bfd::SessionState;

impl Engine {
    pub(super) fn standing(&self, what: &Tracked) -> Standing {
        let up = match what {
            Tracked::Bfd(name) => {
                let link = self.sessions.iter().find(|own| own.plan.bfd.name == *name);
                link.is_some_and(|link| link.session.state() == SessionState::Up)
            }
            Tracked::Script(name) if !self.standings.contains_key(what) => {
                !self.plan.scripts.iter().any(|script| script.name == *name && script.init_fail)
            }
            _ => return self.standings.get(what).copied().unwrap_or(Standing { up: true, number: 0 }),
        };
        self.standings.get(what).copied().unwrap_or(Standing { up, number: 0 })
    }

    /// Whether a process or a file of the plan has not been looked at yet: it says nothing before.
    fn is_unseen(&self, what: &Tracked) -> bool {
        let wanted = match what {
            Tracked::Process(name) => self.plan.processes.iter().any(|own| own.name == *name),
            Tracked::File(name) => self.plan.files.iter().any(|own| own.name == *name),
            Tracked::Port(_) | Tracked::Script(_) | Tracked::Bfd(_) => false,
        };
        wanted && !self.standings.contains_key(what)
    }

    /// What an instance that has not begun waits for: a first look, which takes some milliseconds.
    pub(super) fn unseen<'e>(&'e self, own: &'e Instance) -> Option<&'e Tracked> {
        self.tracks(own).map(|(track, _)| &track.what).find(|what| self.is_unseen(what))
    }

    fn weight(&self, track: &Track) -> i16 {
        let own = match &track.what {
            Tracked::Port(_) => Some(0),
            Tracked::Script(name) => {
                self.plan.scripts.iter().find(|own| own.name == *name).map(|own| own.weight)
            }
            Tracked::Process(name) => {
                self.plan.processes.iter().find(|own| own.name == *name).map(|own| own.weight)
            }
            Tracked::File(name) => self.plan.files.iter().find(|own| own.name == *name).map(|own| own.weight),
            Tracked::Bfd(name) => {
                self.plan.sessions.iter().find(|own| own.bfd.name == *name).map(|own| own.bfd.weight)
            }
        };
        track.weight.or(own).unwrap_or(0)
    }

    /// What a tracked thing does: whether it is a fault, and what it adds to the priority.
    pub(super) fn effect(&self, track: &Track) -> (bool, i32) {
        if self.is_unseen(&track.what) {
            return (false, 0);
        }
        let (standing, weight) = (self.standing(&track.what), i32::from(self.weight(track)));
        if let Tracked::File(_) = track.what {
            let sign = if track.reverse { -1 } else { 1 };
            return (weight == 0 && standing.number != 0, sign * weight.saturating_mul(standing.number));
        }
        let up = standing.up != track.reverse;
        (weight == 0 && !up, if (weight > 0) == up { weight } else { 0 })
    }

    /// Whether an instance itself is in fault, and its priority.
    fn judged(&self, instance: &Instance) -> (bool, u8) {
        let base = instance.plan.vrrp.priority;
        let weights = self.tracks(instance).filter(|(_, weighs)| *weighs);
        let sum = weights.fold(i32::from(base), |sum, (track, _)| sum.saturating_add(self.effect(track).1));
        let priority = if base == 255 { 255 } else { sum.clamp(1, 254) as u8 };
        (!self.faults(instance).is_empty(), priority)
    }

    /// What is tracked, or the plan, is another: faults and priorities follow.
    pub(super) fn evaluate(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        let judged: Vec<_> = self.instances.iter().map(|own| self.judged(own)).collect();
        let mut events = Vec::new();
        for (at, instance) in self.instances.iter().enumerate() {
            let name = &instance.plan.vrrp.name;
            let group = self.plan.groups.iter().find(|group| group.instances.contains(name));
            let in_group =
                |other: &Instance| group.is_some_and(|group| group.instances.contains(&other.plan.vrrp.name));
            let fault = self.instances.iter().zip(&judged).enumerate();
            let fault = fault.map(|(other, (own, (fault, _)))| *fault && (other == at || in_group(own)));
            let fault = fault.fold(false, |any, one| any | one);
            let priority = judged.get(at).map_or(instance.machine.priority(), |(_, priority)| *priority);
            if priority != instance.machine.priority() {
                info!(instance = %name, from = instance.machine.priority(), to = priority, "vrrp priority");
                let notify = &instance.plan.vrrp.notify;
                // before the first state there is nobody whose priority it is
                if notify.priority_changes && instance.machine.state() != State::Init {
                    let word = instance.machine.state().word();
                    tell(&mut self.out.programs, notify, &[], ("INSTANCE", name, word, priority));
                }
                events.push((at, Event::Priority(priority)));
            }
            match (instance.machine.state(), fault) {
                (State::Init | State::Fault, false)
                    if self.is_unknown(&instance.plan) || self.unseen(instance).is_some() => {}
                (State::Init | State::Fault, false) => events.push((at, Event::Startup)),
                (State::Init | State::Backup | State::Taking | State::Master, true) => {
                    events.push((at, Event::Fail))
                }
                _ => {}
            }
        }
        self.run(now, events);
    }
}
