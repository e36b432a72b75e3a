//! What `lbctl vrrp` shows of an engine.

use lb_config::{Track, Tracked};

use super::super::instance::{Instance, Now};
use super::super::machine::State;
use super::Engine;
use crate::api::{BfdRow, TrackRow, Vrrp, VrrpGroupRow, VrrpRow};

impl Engine {
    /// The state of everything.
    pub fn status(&self, now: Now) -> Vrrp {
        Vrrp {
            instances: self.instances.iter().map(|own| self.row(own, now)).collect(),
            groups: self.plan.groups.iter().map(|group| self.group_row(group)).collect(),
            bfd: self
                .sessions
                .iter()
                .map(|link| BfdRow {
                    name: link.plan.bfd.name.clone(),
                    neighbor: link.plan.target.address,
                    state: link.last.as_str().to_owned(),
                    since_ms: now.mono_ns.saturating_sub(link.since_ns) / 1_000_000,
                    diagnostic: link.session.diag().as_str().to_owned(),
                    detection_us: link.session.detection_ns() / 1000,
                    downs: link.downs,
                })
                .collect(),
        }
    }

    fn row(&self, own: &Instance, now: Now) -> VrrpRow {
        let (vrrp, machine) = (&own.plan.vrrp, &own.machine);
        let master = match machine.state() {
            State::Taking | State::Master => Some((own.plan.source, machine.priority())),
            _ => machine.master(),
        };
        let port = Track { what: Tracked::Port(vrrp.port.clone()), weight: None, reverse: false };
        let tracks = vrrp.track_port.then_some(&port).into_iter();
        let tracks = tracks.chain(self.tracks(own).map(|(track, _)| track));
        VrrpRow {
            name: vrrp.name.clone(),
            port: vrrp.port.clone(),
            vrid: vrrp.vrid,
            version: vrrp.version.number(),
            state: machine.state().as_str().to_owned(),
            since_ms: now.mono_ns.saturating_sub(own.since_ns) / 1_000_000,
            why: self.shown_reason(own),
            priority: machine.priority(),
            base_priority: vrrp.priority,
            master: master.map(|(address, _)| address),
            master_priority: master.map(|(_, priority)| priority),
            advert_interval_ms: u64::try_from(vrrp.advert_interval.as_millis()).unwrap_or(u64::MAX),
            addresses: own.plan.addresses.iter().map(|(address, _)| *address).collect(),
            became_master: own.became_master,
            adverts_sent: own.sent,
            adverts_heard: own.heard,
            refused: own.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            tracked: tracks.map(|track| self.track_row(track)).collect(),
            lease: self.lease_row(&own.plan, now),
        }
    }

    fn track_row(&self, track: &Track) -> TrackRow {
        let (fault, weight) = self.effect(track);
        TrackRow {
            kind: track.what.kind().to_owned(),
            name: track.what.name().to_owned(),
            up: self.standing(&track.what).up,
            fault,
            weight,
        }
    }

    fn group_row(&self, group: &lb_config::VrrpGroup) -> VrrpGroupRow {
        let members = self.instances.iter().filter(|own| group.instances.contains(&own.plan.vrrp.name));
        let mut states: Vec<_> = members.map(|own| own.machine.state()).collect();
        states.dedup();
        let state = match states.as_slice() {
            [state] => state.as_str(),
            _ => "changing",
        };
        VrrpGroupRow { name: group.name.clone(), state: state.to_owned(), instances: group.instances.clone() }
    }
}
