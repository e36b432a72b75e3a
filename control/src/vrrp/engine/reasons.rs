//! Why instances and groups are in their states, in words.

use lb_config::{Track, Tracked, VrrpGroup};

use super::super::instance::Instance;
use super::super::machine::{State, Why};
use super::Engine;

impl Engine {
    /// Why an instance is in the state that it has just come into.
    pub(super) fn reason(&self, own: &Instance) -> String {
        let priority = own.machine.priority();
        match own.machine.why() {
            Why::New => "not begun yet".to_owned(),
            Why::Begun => "configured".to_owned(),
            Why::Mended => format!("the fault is over ({})", own.why),
            Why::Ended => "ended".to_owned(),
            Why::Fault => self.fault(own),
            Why::Owner => "priority 255: the addresses are its own".to_owned(),
            Why::Silent(ns) => format!("no advert for {}", time(ns)),
            Why::Bye(who) => format!("{who}, the master, said good-bye"),
            Why::Above(who, other) => format!("higher priority than {who}'s {other}"),
            Why::Below(who, other) if other > priority => format!("preempted by {who} with priority {other}"),
            Why::Below(who, other) => format!("{who} has priority {other} too and the higher address"),
            Why::Lost(who) => {
                let sessions = self.sessions.iter().filter(|link| link.plan.target.address == who);
                let mut ended =
                    sessions.filter(|link| own.plan.vrrp.takeover_bfd.contains(&link.plan.bfd.name));
                ended.next().map_or_else(
                    || format!("the bfd session with {who} ended"),
                    |link| format!("bfd session {}: {}", link.plan.bfd.name, link.session.diag().as_str()),
                )
            }
            Why::Late(ns) => format!("held up for {}: listens first", time(ns)),
            Why::Replaced(ns, who) => format!("held up for {}: {who} has taken over", time(ns)),
            Why::Wavers if self.is_held_up() => {
                format!("held up for {}: asks the others first", time(self.rest_ns))
            }
            Why::Wavers => "its neighbour has missed it: asks the others first".to_owned(),
            Why::Group => self.shared(own),
            Why::Revoked => {
                let unit = own.plan.tenure.as_ref().map(|tenure| tenure.unit.as_str());
                let seat = unit.and_then(|unit| self.tenancies.get(unit)).map(|own| &own.seat.state);
                seat.map_or_else(|| "lease lost".to_owned(), |seat| format!("lease lost: {seat}"))
            }
        }
    }

    /// Why an instance is in its state, for `lbctl vrrp`.
    pub(super) fn shown_reason(&self, own: &Instance) -> String {
        if own.machine.state() == State::Init {
            if self.is_unknown(&own.plan) {
                return "the lease is not known yet".to_owned();
            }
            if let Some(what) = self.unseen(own) {
                return format!("{} {} has not been looked at yet", what.kind(), what.name());
            }
        }
        if own.why.is_empty() { self.reason(own) } else { own.why.clone() }
    }

    /// Why a group is in its state: what its first member that knows says.
    pub(super) fn group_reason(&self, group: &VrrpGroup) -> Option<String> {
        let members = || self.instances.iter().filter(|own| group.instances.contains(&own.plan.vrrp.name));
        let is_fault = |own: &&Instance| own.machine.why() == Why::Fault && self.faults(own).is_empty();
        let knows = |own: &&Instance| own.machine.why() != Why::Group && !is_fault(own);
        members().find(knows).map(|own| format!("{}: {}", own.plan.vrrp.name, own.why))
    }

    pub(super) fn group_of(&self, own: &Instance) -> Option<&VrrpGroup> {
        self.plan.groups.iter().find(|group| group.instances.contains(&own.plan.vrrp.name))
    }

    /// What an instance tracks beside its port, with its group's, and whether a weight counts.
    pub(super) fn tracks<'e>(&'e self, own: &'e Instance) -> impl Iterator<Item = (&'e Track, bool)> {
        let group = self.group_of(own);
        let own_weights = group.is_none_or(|group| group.tracking_weight);
        let shared = group.into_iter().flat_map(|group| group.track.iter().map(|track| (track, true)));
        own.plan.vrrp.track.iter().map(move |track| (track, own_weights)).chain(shared)
    }

    /// What keeps an instance itself in fault.
    pub(super) fn faults(&self, own: &Instance) -> Vec<String> {
        let vrrp = &own.plan.vrrp;
        let mut faults = Vec::new();
        if vrrp.track_port && !self.standing(&Tracked::Port(vrrp.port.clone())).up {
            faults.push(format!("port {} is down", vrrp.port));
        }
        if self.is_barred(own) {
            faults.push("no lease: etcd does not answer".to_owned());
        }
        for (track, _) in self.tracks(own).filter(|(track, _)| self.effect(track).0) {
            let text = self.fault_of(track);
            // a group may track what its instances do
            if !faults.contains(&text) {
                faults.push(text);
            }
        }
        faults
    }

    fn fault_of(&self, track: &Track) -> String {
        let (kind, name) = (track.what.kind(), track.what.name());
        match (&track.what, track.reverse) {
            (Tracked::File(_), _) => format!("file {name} holds {}", self.standing(&track.what).number),
            (Tracked::Script(_), false) => format!("script {name} failed"),
            (Tracked::Script(_), true) => format!("script {name} succeeded"),
            (Tracked::Bfd(_), false) => format!("bfd session {name} is down"),
            (Tracked::Bfd(_), true) => format!("bfd session {name} is up"),
            (_, false) => format!("{kind} {name} is down"),
            (_, true) => format!("{kind} {name} is up"),
        }
    }

    /// Its own faults, else those of its group.
    fn fault(&self, own: &Instance) -> String {
        let faults = self.faults(own);
        if !faults.is_empty() {
            return faults.join(", ");
        }
        let Some(group) = self.group_of(own) else { return "something that it tracks is down".to_owned() };
        let members = self.instances.iter().filter(|own| group.instances.contains(&own.plan.vrrp.name));
        let told = members.map(|own| (own, self.faults(own))).find(|(_, faults)| !faults.is_empty());
        told.map_or_else(
            || format!("sync group {}", group.name),
            |(own, faults)| {
                format!("sync group {}: {}: {}", group.name, own.plan.vrrp.name, faults.join(", "))
            },
        )
    }

    /// What moved the instance of its group that the others follow.
    fn shared(&self, own: &Instance) -> String {
        let Some(group) = self.group_of(own) else { return "sync group".to_owned() };
        let takes = |own: &Instance| matches!(own.machine.state(), State::Taking | State::Master);
        let leads = |other: &&Instance| {
            group.instances.contains(&other.plan.vrrp.name)
                && other.machine.why() != Why::Group
                && takes(other) == takes(own)
        };
        self.instances.iter().find(leads).map_or_else(
            || format!("sync group {}", group.name),
            |other| format!("sync group {}: {}: {}", group.name, other.plan.vrrp.name, other.why),
        )
    }
}

/// A time as in `3.4 s` or `35 ms`.
fn time(ns: u64) -> String {
    match ns / 1_000_000 {
        ms @ 0..1000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}
