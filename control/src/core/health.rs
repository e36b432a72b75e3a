//! Health in the control core's turns: checks' news in, the effective configuration out.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{Core, LIVELY_MS, respond};
use crate::api::{ApiError, ErrorKind, EventList, EventRow, HealthTable, Response};
use crate::health::event::{EventKind, Events};
use crate::vrrp::engine::NewsKind;

/// Longest wait for an event, ms: shorter than a session may be silent.
const EVENT_WITHIN_MS: u64 = 20_000;

/// Pause after the packet path refused what health makes of the configuration, ms.
const AGAIN_MS: u64 = 1_000;

/// Most news of virtual routers in a turn.
const NEWS: usize = 256;

/// How many times as long as it took to put servers in force the core does other things then.
const REST: u64 = 4;

/// Somebody who waits for an event.
pub(super) struct Waiting {
    after: u64,
    until_ms: u64,
    reply: oneshot::Sender<Response>,
}

impl Core {
    /// Goes by what the checks have found.
    pub(super) fn follow_health(&mut self, now_ms: u64) {
        self.health.turn(&self.model);
        if now_ms < self.health_again_ms {
            return;
        }
        let began = Instant::now();
        let Some(effective) = self.health.effective(&self.model) else { return };
        match self.director.apply(&effective) {
            Ok(()) => {
                self.health.applied();
                // Thousands that come up one by one do not keep this core from everything else.
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(AGAIN_MS);
                self.health_again_ms = now_ms + (REST * took).min(AGAIN_MS);
            }
            Err(reason) => {
                // What drains still has its place; it is tried again.
                self.health_again_ms = now_ms + AGAIN_MS;
                warn!(%reason, "servers that came up or went down could not be put in force yet");
            }
        }
    }

    /// Runs the running configuration as it is with what is known of its servers. Call it before the workers start.
    pub(super) fn begin_health(&mut self) {
        let prepared = self.health.prepare(&self.model);
        if prepared.effective != *self.director.model()
            && let Err(reason) = self.director.apply(&prepared.effective)
        {
            error!(%reason, "servers serve although they are not checked yet");
        }
        self.commit_health(prepared);
    }

    /// Begins and ends checks as the configuration says.
    pub(super) fn commit_health(&mut self, prepared: crate::health::Prepared) {
        if let Err(error) = self.health.commit(prepared, &self.model) {
            error!(%error, "health checks cannot be started");
        }
        self.director.set_pins(self.health.pins(&self.model));
    }

    /// Errors: there is no service of that name.
    pub(super) fn health(&self, service: Option<&str>) -> Result<HealthTable, ApiError> {
        let name = match service {
            None => None,
            Some(text) => {
                let reference: lb_config::ServiceRef = text.parse()?;
                let found = reference.find(&self.model).and_then(|at| self.model.services.get(at));
                let missing =
                    || ApiError::new(ErrorKind::NotFound, format!("there is no service {reference}"));
                Some(found.ok_or_else(missing)?.name.as_str())
            }
        };
        Ok(self.health.table(&self.model, name))
    }

    /// Adds what happened to virtual routers to the events.
    pub(super) fn follow_vrrp(&mut self, now_ms: u64) {
        let news: Vec<_> =
            self.vrrp.iter().flat_map(|vrrp| std::iter::from_fn(|| vrrp.news())).take(NEWS).collect();
        if !news.is_empty() {
            // a new master has stations to ask for that nobody here has sent anything to yet
            self.lively_until_ms = now_ms + LIVELY_MS;
        }
        for news in news {
            let kind = match news.kind {
                NewsKind::Vrrp => EventKind::Vrrp,
                NewsKind::Lease => EventKind::Lease,
            };
            self.health.note(kind, news.text, news.mail, &self.model);
        }
    }

    /// Answers with the events after one, at once or when there is one.
    pub(super) fn events(
        &mut self,
        after: Option<u64>,
        wait: bool,
        reply: oneshot::Sender<Response>,
        now_ms: u64,
    ) {
        let events = self.health.events();
        // A number of another lbd, which has ended since: everything is new.
        let after = after.filter(|after| *after <= events.last()).unwrap_or(0);
        if wait && events.last() <= after {
            let until_ms = now_ms + EVENT_WITHIN_MS;
            self.event_waits.push(Waiting { after, until_ms, reply });
        } else {
            respond(reply, Ok(Response::Events(list(events, after))));
        }
    }

    /// Answers those who wait for events that have come, and those who have waited long enough.
    pub(super) fn answer_events(&mut self, now_ms: u64) {
        let events = self.health.events();
        let last = events.last();
        let done = |waiting: &mut Waiting| {
            waiting.after < last || waiting.until_ms <= now_ms || waiting.reply.is_closed()
        };
        for waiting in self.event_waits.extract_if(.., done) {
            respond(waiting.reply, Ok(Response::Events(list(events, waiting.after))));
        }
    }

    /// Tells whoever wants to know that lbd stops. Checks end when the core is dropped.
    pub fn farewell(&mut self) {
        self.health.farewell(&self.model);
    }
}

fn list(events: &Events, after: u64) -> EventList {
    EventList { events: events.after(after).map(EventRow::from).collect(), last: events.last() }
}
