//! BFD sessions, and what instances make of their ends.

use super::super::frame::{self, Datagram, Route};
use super::super::instance::{Instance, Now};
use super::super::machine::{Event, State};
use super::super::plan::SessionPlan;
use super::Engine;
use crate::bfd::{Packet, Session, SessionSettings, SessionState};
use tracing::info;

/// A BFD session of the plan.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub plan: SessionPlan,
    pub session: Session,
    pub port: u16,
    pub since_ns: u64,
    pub last: SessionState,
    pub downs: u64,
}

/// First source port of sessions. Source: RFC 5881 section 4, 49152 to 65535.
const FIRST_PORT: u16 = 49_152;

impl Engine {
    /// Takes sessions over that are in `plans`, begins new ones; gives those that are gone.
    pub(super) fn update_sessions(&mut self, now: Now, plans: &[SessionPlan]) -> Vec<Link> {
        let mut sessions = std::mem::take(&mut self.sessions);
        for wanted in plans {
            let settings = SessionSettings::new(&wanted.bfd);
            let same = |own: &Link| {
                own.plan.bfd.name == wanted.bfd.name
                    && (own.plan.exit, own.plan.source, own.plan.target.address)
                        == (wanted.exit, wanted.source, wanted.target.address)
            };
            match sessions.iter().position(same) {
                Some(at) => {
                    let mut link = sessions.remove(at);
                    link.plan = wanted.clone();
                    link.session.configure(settings);
                    self.sessions.push(link);
                }
                None => {
                    // numbers need be unique, not secret; the clock keeps those of a last run apart
                    self.next_session = self.next_session.wrapping_add(1);
                    let mine = (now.wall_ns as u32 ^ self.next_session.rotate_left(16)).max(1);
                    let port = FIRST_PORT + (self.next_session % 16_384) as u16;
                    let session = Session::new(settings, mine, now.mono_ns);
                    let (since_ns, last) = (now.mono_ns, SessionState::Down);
                    self.sessions.push(Link {
                        plan: wanted.clone(),
                        session,
                        port,
                        since_ns,
                        last,
                        downs: 0,
                    });
                }
            }
        }
        sessions
    }

    /// Tells neighbours of sessions that end.
    pub(super) fn end_sessions(&mut self, sessions: Vec<Link>) {
        for mut gone in sessions {
            let packet = gone.session.end();
            self.send_bfd(&gone.plan, gone.port, &packet);
        }
    }

    pub(super) fn receive_bfd(&mut self, now: Now, datagram: &Datagram<'_>) {
        let ends = (datagram.src, datagram.dst);
        let Some(link) =
            self.sessions.iter_mut().find(|own| (own.plan.target.address, own.plan.source) == ends)
        else {
            return;
        };
        // RFC 5881 section 5
        if datagram.ttl < link.plan.bfd.min_ttl {
            return;
        }
        let Some(packet) = frame::bfd_payload(datagram).and_then(Packet::parse) else { return };
        let answer = link.session.receive(now.mono_ns, &packet);
        let (plan, port) = (link.plan.clone(), link.port);
        self.stations.insert(datagram.src, datagram.station);
        if let Some(answer) = answer {
            self.send_bfd(&plan, port, &answer);
        }
        self.follow_sessions(now);
    }

    pub(super) fn follow_sessions(&mut self, now: Now) {
        let (mut lost, mut missed) = (Vec::new(), Vec::new());
        let mut changed = false;
        for link in &mut self.sessions {
            if link.session.was_missed() {
                missed.push(link.plan.bfd.name.clone());
            }
            let state = link.session.state();
            if state == link.last {
                continue;
            }
            let (name, diag) = (&link.plan.bfd.name, link.session.diag().as_str());
            info!(session = %name, from = link.last.as_str(), to = state.as_str(), diag, "bfd state");
            if link.last == SessionState::Up {
                link.downs += 1;
                // one that does not hear this director is there nevertheless
                if link.session.is_gone() {
                    lost.push((name.clone(), link.plan.target.address));
                }
            }
            (link.last, link.since_ns) = (state, now.mono_ns);
            changed = true;
        }
        // the neighbour has taken over by now: it lets go before this one answers again
        for name in missed {
            let hit = |own: &Instance| {
                own.plan.vrrp.takeover_bfd.contains(&name) && own.machine.state() == State::Master
            };
            let hit: Vec<_> = (0..self.instances.len())
                .filter(|at| self.instances.get(*at).is_some_and(hit))
                .map(|at| (at, Event::Waver))
                .collect();
            self.run(now, hit);
        }
        // which of both was silent
        let held_up = self.is_held_up();
        for (name, who) in lost {
            let hit = |own: &Instance| own.plan.vrrp.takeover_bfd.contains(&name);
            let event = |own: &Instance| match own.machine.state() {
                State::Master if held_up => Event::Waver,
                _ => Event::Lost(who),
            };
            let hit: Vec<_> = (0..self.instances.len())
                .filter(|at| self.instances.get(*at).is_some_and(hit))
                .filter_map(|at| Some((at, event(self.instances.get(at)?))))
                .collect();
            self.run(now, hit);
        }
        if changed {
            self.evaluate(now);
        }
    }

    pub(super) fn send_bfd(&mut self, plan: &SessionPlan, port: u16, packet: &Packet) {
        let Some(to) = self.station(&plan.target) else { return };
        let route = Route { to, src: plan.source, dst: plan.target.address, ttl: 255 };
        if let Some(frame) = frame::bfd(&plan.exit.wire, &route, port, &packet.emit()) {
            self.out.urgent.push_back((plan.exit.device, frame));
        }
    }
}
