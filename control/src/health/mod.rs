//! Health checks: who of the configured servers gets traffic.
//!
//! ```text
//! Model -> Board -> probes -> Engine (a thread): checks, again and again -> verdicts -> Board -> effective Model
//!                                                                                        '-> events, News
//! ```
//!
//! * [`board`]: verdicts to servers, quorums, and the configuration that follows; pure
//! * [`engine`]: the thread; [`probe`]: one check, again and again; `check`: what is asked
//! * [`event`]: what happened; [`tell`]: commands, webhooks, mails
//! * this file: what ties them together, owned by the control core
//!
//! Invariant: the control core never waits for a check. A server that is new gets no traffic before its checks have
//! passed, whatever the engine does, as the effective configuration is made from the configured one in the same turn.

pub mod board;
pub(crate) mod check;
mod drift;
pub mod engine;
pub mod event;
mod path;
pub mod probe;
mod rows;
pub mod tell;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use lb_config::{Model, ServiceAddress};
use tokio::sync::Notify as Wake;
use tracing::{info, warn};

use board::{Board, Change};
use engine::Engine;
use event::{EventKind, Events, wall_ms};
use probe::{ProbeSpec, Status};
use tell::News;

pub use board::NOT_CHECKED;
pub use drift::Drift;

/// Most events that one change of the configuration makes: a new file does not push everything else out.
const CHANGES: usize = 100;

/// Health as the control core has it.
#[derive(Debug)]
pub struct Health {
    board: Board,
    statuses: HashMap<Arc<ProbeSpec>, Arc<Status>>,
    /// Where in the configuration each service is.
    places: HashMap<String, usize>,
    /// Started with the first check.
    engine: Option<Engine>,
    wake: Arc<Wake>,
    events: Events,
    /// When each server and service changed last, ms since 1970.
    since: HashMap<(String, Option<SocketAddr>), u64>,
    /// The effective configuration may differ from what runs.
    stale: bool,
}

/// A configuration that was prepared and is not gone by yet.
#[derive(Debug)]
pub struct Prepared {
    board: Board,
    changes: Vec<Change>,
    /// What the packet path shall run.
    pub effective: Model,
}

impl Health {
    /// Nothing is checked yet. `wake` is notified when [`Health::turn`] has something to do.
    pub fn new(wake: Arc<Wake>) -> Self {
        Self {
            board: Board::default(),
            statuses: HashMap::new(),
            places: HashMap::new(),
            engine: None,
            wake,
            events: Events::default(),
            since: HashMap::new(),
            stale: false,
        }
    }

    /// Servers that an earlier lbd sent clients to are up until a check says otherwise, in the next
    /// [`Health::prepare`]; none: no longer.
    pub fn set_former(&mut self, former: HashSet<(ServiceAddress, SocketAddr)>) {
        self.board.former = Arc::new(former);
    }

    /// What `model` comes to; nothing is changed before [`Health::commit`].
    pub fn prepare(&self, model: &Model) -> Prepared {
        let mut board = self.board.clone();
        let changes = board.configure(model);
        let effective = board.effective(model);
        Prepared { board, changes, effective }
    }

    /// Goes by a configuration: begins its checks, ends those that it no longer has.
    ///
    /// Errors: the thread cannot be started; then servers keep the state that they are assumed to have.
    pub fn commit(&mut self, prepared: Prepared, model: &Model) -> io::Result<()> {
        let Prepared { board, changes, .. } = prepared;
        self.board = board;
        self.stale = false;
        self.places =
            model.services.iter().enumerate().map(|(at, service)| (service.name.clone(), at)).collect();
        self.since.retain(|(service, server), _| {
            let known = self.board.services.get(service.as_str());
            known.is_some_and(|known| server.is_none_or(|server| known.servers.contains_key(&server)))
        });
        for change in changes {
            self.announce(change, model);
        }
        if self.board.probes.is_empty() && self.engine.is_none() {
            return Ok(());
        }
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => none.insert(Engine::start(self.wake.clone())?),
        };
        let board = &self.board;
        self.statuses.retain(|probe, _| {
            let stays = board.probes.contains_key(probe);
            if !stays {
                engine.end(probe.clone());
            }
            stays
        });
        for probe in board.probes.keys() {
            if !self.statuses.contains_key(probe) {
                let status = Arc::new(Status::default());
                self.statuses.insert(probe.clone(), status.clone());
                engine.begin(probe.clone(), status);
            }
        }
        Ok(())
    }

    /// Takes what checks have reported. `model`: the configured one.
    pub fn turn(&mut self, model: &Model) {
        while let Some(report) = self.engine.as_mut().and_then(Engine::report) {
            for change in self.board.hear(&report.probe, report.verdict) {
                self.stale = true;
                self.announce(change, model);
            }
        }
    }

    /// What the packet path shall run from now on; `None`: what it runs. It is given until [`Health::applied`].
    pub fn effective(&self, model: &Model) -> Option<Model> {
        self.stale.then(|| self.board.effective(model))
    }

    /// What [`Health::effective`] gave last runs.
    pub fn applied(&mut self) {
        self.stale = false;
    }

    /// Adds changes of the configuration to the events; of very many the first ones.
    pub fn configured<'c>(&mut self, changes: impl ExactSizeIterator<Item = &'c str>) {
        let more = changes.len().saturating_sub(CHANGES);
        for what in changes.take(CHANGES) {
            self.events.add(EventKind::Config, "", "", what);
        }
        if more > 0 {
            self.events.add(EventKind::Config, "", "", format!("and {more} changes more"));
        }
    }

    /// Adds something that is no service's to the events, and has those told who want to know.
    pub fn note(&mut self, kind: EventKind, text: String, mail: bool, model: &Model) {
        let event = self.events.add(kind, "", "", text);
        let notify = &model.notify;
        let news = News {
            event,
            director: model.appliance.name.clone(),
            command: Vec::new(),
            user: None,
            webhooks: notify.webhook.iter().cloned().collect(),
            ca: notify.ca.clone(),
            mail: notify.mail.clone().filter(|_| mail),
            timeout: notify.timeout,
        };
        if news.webhooks.is_empty() && news.mail.is_none() {
            return;
        }
        let started = match &mut self.engine {
            Some(engine) => Ok(engine),
            none => Engine::start(self.wake.clone()).map(|engine| none.insert(engine)),
        };
        match started {
            Ok(engine) => engine.tell(news),
            Err(error) => warn!(%error, "nobody can be told of changes"),
        }
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Has told, where configured, that all that is up goes down: lbd stops.
    pub fn farewell(&mut self, model: &Model) {
        for service in &model.services {
            let Some(health) = service.health.as_ref().filter(|health| health.down_at_stop) else { continue };
            let Some(state) = self.board.services.get(service.name.as_str()) else { continue };
            let up: Vec<SocketAddr> =
                state.servers.iter().filter(|(_, server)| server.up).map(|(key, _)| *key).collect();
            let quorum = state.quorum_up && !health.checks.is_empty();
            let change = |kind, server| Change {
                kind,
                service: service.name.clone(),
                server,
                reason: "lbd stops".to_owned(),
                first: false,
            };
            for key in up {
                self.announce(change(EventKind::ServerDown, Some(key)), model);
            }
            if quorum {
                self.announce(change(EventKind::QuorumDown, None), model);
            }
        }
    }

    /// Logs a change, keeps it, and has those told who want to know.
    fn announce(&mut self, change: Change, model: &Model) {
        let Change { kind, service, server, reason, first } = change;
        let text = server.map_or(String::new(), |server| server.to_string());
        match kind {
            EventKind::ServerDown => warn!(%service, server = %text, reason, "server is down"),
            EventKind::ServerUp => info!(%service, server = %text, reason, "server is up"),
            EventKind::QuorumDown => warn!(%service, reason, "service has lost its quorum"),
            EventKind::QuorumUp => info!(%service, reason, "service has its quorum"),
            EventKind::Weight => info!(%service, server = %text, reason, "weight of server has changed"),
            EventKind::Config | EventKind::Vrrp | EventKind::Lease => {}
        }
        let event = self.events.add(kind, &service, text, reason);
        if kind != EventKind::Weight {
            self.since.insert((service.clone(), server), event.time_ms);
        }
        if first {
            return;
        }
        let place = self.places.get(&service).and_then(|at| model.services.get(*at));
        let Some(configured) = place.filter(|other| other.name == service) else { return };
        let wide = configured.health.as_deref().map(|health| &health.notify);
        let own = server
            .and_then(|key| configured.servers.iter().find(|server| server.key() == key))
            .and_then(|server| server.health.as_deref())
            .map(|health| &health.notify);
        let command = match kind {
            EventKind::ServerUp => {
                own.map(|own| &own.up).filter(|argv| !argv.is_empty()).or(wide.map(|wide| &wide.up))
            }
            EventKind::ServerDown => {
                own.map(|own| &own.down).filter(|argv| !argv.is_empty()).or(wide.map(|wide| &wide.down))
            }
            EventKind::QuorumUp => wide.map(|wide| &wide.quorum_up),
            EventKind::QuorumDown => wide.map(|wide| &wide.quorum_down),
            EventKind::Weight | EventKind::Config | EventKind::Vrrp | EventKind::Lease => None,
        };
        let notify = &model.notify;
        let webhooks = notify.webhook.iter().chain(wide.and_then(|wide| wide.webhook.as_ref()));
        let mails = wide.and_then(|wide| wide.mail).unwrap_or(true) && kind != EventKind::Weight;
        let news = News {
            event,
            director: model.appliance.name.clone(),
            command: command.cloned().unwrap_or_default(),
            user: notify.user.clone(),
            webhooks: webhooks.cloned().collect(),
            ca: notify.ca.clone(),
            mail: notify.mail.clone().filter(|_| mails),
            timeout: notify.timeout,
        };
        if news.command.is_empty() && news.webhooks.is_empty() && news.mail.is_none() {
            return;
        }
        if let Some(engine) = &self.engine {
            engine.tell(news);
        }
    }

    /// How late checks start: number of starts, and what half, 99 % and all of them were below, us.
    pub fn drift(&self) -> Option<(u64, [u64; 3])> {
        self.engine.as_ref().map(|engine| engine.drift().read())
    }

    /// Since when a server, or the service as a whole, is as it is, ms since 1970; `None`: since lbd knows it.
    fn since(&self, service: &str, server: Option<SocketAddr>) -> Option<u64> {
        self.since.get(&(service.to_owned(), server)).copied()
    }

    /// Milliseconds since 1970, now.
    fn wall_ms() -> u64 {
        wall_ms(std::time::SystemTime::now())
    }
}

#[cfg(test)]
mod tests;
