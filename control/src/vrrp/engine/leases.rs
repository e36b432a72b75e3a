//! Leases that instances depend on: who wants one, who holds it, and what follows.
//!
//! Invariant: an instance with a lease is master only while its lease is known to be held, or, with
//! `when_away = "keep"`, while etcd does not answer and a BFD session says that the neighbour hears it.

use std::time::Duration;

use lb_config::WhenAway;
use tracing::{info, warn};

use super::super::instance::{Instance, Now};
use super::super::machine::{Event, State};
use super::super::plan::InstancePlan;
use super::{Engine, News, NewsKind};
use crate::bfd::SessionState;
use crate::lease::{Order, Seat, SeatState};

/// What a lease's client reports, in the engine's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose lease.
    pub unit: String,
    /// Number of the wish that this is about.
    pub wish: u64,
    /// How it stands.
    pub state: SeatState<u64>,
}

/// A lease as the engine knows it.
#[derive(Clone, Debug)]
pub(super) struct Tenancy {
    pub seat: Seat<u64>,
    /// Some instance wants it.
    wanted: bool,
    /// Number of the last wish: what is said of an earlier one does not count.
    wish: u64,
}

impl Engine {
    /// A lease stands so from now on.
    pub fn leased(&mut self, now: Now, report: Report) {
        let Some(own) = self.tenancies.get_mut(&report.unit) else { return };
        let held = matches!(report.state, SeatState::Held(_));
        if held && !(own.wanted && own.wish == report.wish) {
            return;
        }
        self.seat(now, &report.unit, report.state);
    }

    fn seat(&mut self, now: Now, unit: &str, state: SeatState<u64>) {
        let Some(own) = self.tenancies.get_mut(unit) else { return };
        let before = own.seat.set(now.mono_ns, state.clone());
        let changed = before.is_some();
        if let Some(before) = before {
            let text = format!("lease of {unit}: {before} -> {state}");
            match state {
                SeatState::Away => warn!(unit, from = %before, to = %state, "lease"),
                _ => info!(unit, from = %before, to = %state, "lease"),
            }
            let mail = self.instances.iter().any(|own| is_of(&own.plan, unit) && own.plan.vrrp.notify.mail);
            self.out.news.push(News { kind: NewsKind::Lease, text, mail });
        }
        if changed && matches!(state, SeatState::Free | SeatState::Other(_)) {
            let lost = |own: &Instance| is_of(&own.plan, unit) && own.machine.state() == State::Master;
            let lost = (0..self.instances.len()).filter(|at| self.instances.get(*at).is_some_and(lost));
            let lost: Vec<_> = lost.map(|at| (at, Event::Revoked)).collect();
            self.run(now, lost);
        }
        if changed {
            self.evaluate(now);
            // who waits for it may have it now
            self.run(now, []);
        }
    }

    /// Leases whose time is over, by this director's clock.
    pub(super) fn end_leases(&mut self, now: Now) {
        let over = |own: &Tenancy| matches!(own.seat.state, SeatState::Held(until) if until <= now.mono_ns);
        let over: Vec<_> =
            self.tenancies.iter().filter(|(_, own)| over(own)).map(|(unit, _)| unit.clone()).collect();
        for unit in over {
            self.seat(now, &unit, SeatState::Away);
        }
    }

    /// When the next one is over, ns.
    pub(super) fn lease_due_ns(&self) -> Option<u64> {
        let until = |own: &Tenancy| match own.seat.state {
            SeatState::Held(until) => Some(until),
            _ => None,
        };
        self.tenancies.values().filter_map(until).min()
    }

    /// Watches the leases of the plan, and no others.
    pub(super) fn update_leases(&mut self, now: Now) {
        let plan = &self.plan;
        let units: Vec<&str> =
            plan.instances.iter().filter_map(|own| Some(own.tenure.as_ref()?.unit.as_str())).collect();
        self.tenancies.retain(|unit, _| {
            let stays = units.contains(&unit.as_str());
            if !stays {
                self.out.leases.push(Order::Forget(unit.clone()));
            }
            stays
        });
        for unit in units {
            if !self.tenancies.contains_key(unit) {
                let seat = Seat { state: SeatState::Unknown, since_ns: now.mono_ns };
                self.tenancies.insert(unit.to_owned(), Tenancy { seat, wanted: false, wish: self.wishes });
                self.out.leases.push(Order::Watch(unit.to_owned()));
            }
        }
    }

    /// Forgets what was known: the client that knew it is another from now on.
    pub(super) fn forget_leases(&mut self) {
        self.tenancies.clear();
    }

    /// Tells what is wanted; gives who may go on now.
    pub(super) fn follow_leases(&mut self, now: Now) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        for (unit, own) in &mut self.tenancies {
            let wants = |other: &Instance| {
                is_of(&other.plan, unit) && matches!(other.machine.state(), State::Taking | State::Master)
            };
            let wanted = self.instances.iter().any(wants);
            if wanted != own.wanted {
                own.wanted = wanted;
                if wanted {
                    self.wishes += 1;
                    own.wish = self.wishes;
                    self.out.leases.push(Order::Want(unit.clone(), own.wish));
                } else {
                    if matches!(own.seat.state, SeatState::Held(_)) {
                        own.seat.set(now.mono_ns, SeatState::Free);
                    }
                    self.out.leases.push(Order::Yield(unit.clone()));
                }
            }
            if !matches!(own.seat.state, SeatState::Held(_)) {
                continue;
            }
            for (at, other) in self.instances.iter().enumerate() {
                let waits = other.machine.state() == State::Taking && !other.machine.is_granted();
                if is_of(&other.plan, unit) && waits {
                    events.push((at, other.plan.clone()));
                }
            }
        }
        events.into_iter().map(|(at, plan)| (at, Event::Granted(self.opens_ns(now, &plan)))).collect()
    }

    /// From when on an instance may have its addresses whose lease was granted now.
    ///
    /// With `keep` a neighbour may have them yet although its lease has ended: until its BFD session ends as well,
    /// which it does about when the one here does.
    fn opens_ns(&self, now: Now, plan: &InstancePlan) -> u64 {
        let keeps = plan.tenure.as_ref().is_some_and(|own| own.lease.when_away == WhenAway::Keep);
        let sessions = self.sessions.iter().filter(|own| plan.vrrp.takeover_bfd.contains(&own.plan.bfd.name));
        let longest = sessions.map(|own| own.session.detection_ns()).max().unwrap_or(0);
        now.mono_ns + if keeps { 2 * longest } else { 0 }
    }

    /// Whether a lease keeps an instance from beginning, as nobody knows of it yet.
    pub(super) fn is_unknown(&self, plan: &InstancePlan) -> bool {
        let seat = plan.tenure.as_ref().and_then(|own| self.tenancies.get(&own.unit));
        seat.is_some_and(|own| own.seat.state == SeatState::Unknown)
    }

    /// Whether a lease is a fault of an instance: etcd does not answer, and it may not go on without.
    pub(super) fn is_barred(&self, own: &Instance) -> bool {
        let Some(tenure) = &own.plan.tenure else { return false };
        let seat = self.tenancies.get(&tenure.unit).map(|own| &own.seat.state);
        if seat != Some(&SeatState::Away) {
            return false;
        }
        let is_up = |name: &String| {
            self.sessions
                .iter()
                .any(|own| own.plan.bfd.name == *name && own.session.state() == SessionState::Up)
        };
        let goes_on = tenure.lease.when_away == WhenAway::Keep
            && own.machine.state() == State::Master
            && own.plan.vrrp.takeover_bfd.iter().any(is_up);
        !goes_on
    }

    /// What `lbctl vrrp` shows of an instance's lease.
    pub(super) fn lease_row(&self, plan: &InstancePlan, now: Now) -> Option<crate::api::LeaseRow> {
        let tenure = plan.tenure.as_ref()?;
        let own = self.tenancies.get(&tenure.unit)?;
        let ms = |ns: u64| u64::try_from(Duration::from_nanos(ns).as_millis()).unwrap_or(u64::MAX);
        let (holder, left_ms) = match &own.seat.state {
            SeatState::Other(holder) => (Some(holder.clone()), None),
            SeatState::Held(until) => (None, Some(ms(until.saturating_sub(now.mono_ns)))),
            _ => (None, None),
        };
        Some(crate::api::LeaseRow {
            key: format!("{}{}", tenure.lease.prefix, tenure.unit),
            state: own.seat.state.as_str().to_owned(),
            since_ms: ms(now.mono_ns.saturating_sub(own.seat.since_ns)),
            wanted: own.wanted,
            holder,
            left_ms,
        })
    }
}

/// Whether an instance depends on the lease of `unit`.
fn is_of(plan: &InstancePlan, unit: &str) -> bool {
    plan.tenure.as_ref().is_some_and(|own| own.unit == unit)
}
