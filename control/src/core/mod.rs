//! The control core: one thread that owns the [`Director`] and answers what sessions pass on.
//!
//! * this file: which request goes where, and the turn
//! * `change`: configurations; `edits`: single changes of them
//! * `listing`: connections, which the workers list in their own time
//! * `show`: counters as the API's rows
//! * `latency`: histograms
//! * [`rates`]: rates per second, counters set back
//! * `traffic`: what services and servers count, by these
//! * `health`: what checks of servers found
//! * `run`: the loop
//!
//! Invariant: nothing here waits. What takes other threads' time is remembered in `waiting` and answered in a later
//! turn, after a bounded time at the latest.

mod change;
mod edits;
mod explain;
mod health;
mod latency;
mod listing;
pub mod rates;
mod run;
mod show;
mod traffic;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use hdrhistogram::CreationError;
use lb_config::{Model, ServiceAddress};
use lb_dataplane::channel::Channel;
use lb_dataplane::director::{Director, Notice};
use lb_dataplane::exception::Kernel;
use lb_dataplane::sync::Listener;
use tokio::sync::{Notify as Wake, oneshot};
use tracing::{info, warn};

pub use run::{reload, run};
pub use show::{DriverRow, Drivers};

use crate::api::{
    ApiError, ConfigText, Drops, ErrorKind, Latency, PROTOCOL, Request, Response, RestartRow, SyncStatus,
    TableRow, Version,
};
use crate::exception;
use crate::health::Health;
use crate::keep::beat::Heart;
use crate::server::{Access, Call, Work};
use crate::sync;
use crate::sync::kernel::{self, Daemons};
use crate::vrrp::{Handle, Plan};
use change::Waiting as WaitingChange;
use health::Waiting as WaitingEvent;
use latency::Histograms;
use listing::Waiting as WaitingListing;
pub use traffic::Traffic;

/// What the control core is told about the process that it is in.
pub struct Process {
    /// What the drivers count; only called when a client asks.
    pub drivers: Box<dyn Fn() -> Drivers>,
    /// Memory of the workers' connection tables.
    pub tables: Vec<TableRow>,
}

/// The control core.
pub struct Core {
    director: Director,
    /// As configured; the director's is what health checks have left of it.
    model: Model,
    /// Number of the configuration: grows with each change.
    revision: u64,
    health: Health,
    /// Notified when health or VRRP has news.
    wake: Arc<Wake>,
    /// No earlier are servers that came up or went down put in force.
    health_again_ms: u64,
    event_waits: Vec<WaitingEvent>,
    process: Process,
    histograms: Histograms,
    traffic: Traffic,
    listings: Vec<WaitingListing>,
    changes: Vec<WaitingChange>,
    /// Until then next hops are being found and frames wait for each answer.
    lively_until_ms: u64,
    /// The thread that speaks VRRP; none in tests.
    vrrp: Option<Handle>,
    /// The thread that speaks with other directors; none in tests.
    sync: Option<sync::Handle>,
    /// What became of an earlier lbd's connections, and what keeps these for the next one.
    keep: (RestartRow, Option<Heart>),
    /// The thread that moves the kernel's frames; none where no port has an exception path.
    exception: Option<exception::Handle>,
    /// Connection sync with Linux directors; none in tests.
    ipvs_sync: Option<Daemons>,
}

/// How long after the start, a change or news of VRRP turns come close together, ms: three probes to a next hop, and some
/// more.
const LIVELY_MS: u64 = 5_000;

impl Core {
    /// A control core for a director whose workers have started or are about to.
    ///
    /// Errors: no memory for the histograms.
    pub fn new(director: Director, process: Process) -> Result<Self, CreationError> {
        Self::heir(director, process, HashSet::new())
    }

    /// [`Core::new`] after an lbd that sent clients to the servers in `former`: these are up until a check says otherwise.
    pub fn heir(
        director: Director,
        process: Process,
        former: HashSet<(ServiceAddress, SocketAddr)>,
    ) -> Result<Self, CreationError> {
        let histograms = Histograms::new(director.model().appliance.workers.len())?;
        let (listings, changes) = (Vec::new(), Vec::new());
        let traffic = Traffic::default();
        let wake = Arc::new(Wake::new());
        let mut core = Self {
            model: director.model().clone(),
            revision: director.generation(),
            health: Health::new(wake.clone()),
            wake,
            health_again_ms: 0,
            event_waits: Vec::new(),
            director,
            process,
            histograms,
            traffic,
            listings,
            changes,
            lively_until_ms: LIVELY_MS,
            vrrp: None,
            sync: None,
            keep: Default::default(),
            exception: None,
            ipvs_sync: None,
        };
        core.health.set_former(former);
        core.begin_health();
        core.health.set_former(HashSet::new());
        Ok(core)
    }

    /// What VRRP goes by, its queues, and what it wakes the core with.
    pub fn vrrp_plan(&self) -> (Plan, Channel, Arc<Wake>) {
        (Plan::of(&self.director), self.director.channel(), self.wake.clone())
    }

    /// Passes changes on to VRRP's thread from now on; it ends with [`Core::end_vrrp`].
    pub fn set_vrrp(&mut self, handle: Handle) {
        self.vrrp = Some(handle);
    }

    /// What became of an earlier lbd's connections, and what writes down from now on that this one runs.
    pub fn set_keep(&mut self, restart: RestartRow, heart: Option<Heart>) {
        self.keep = (restart, heart);
    }

    /// What the kernel's interfaces are to be, and the queues to them.
    pub fn exception_plan(&self) -> (exception::Plan, Kernel) {
        (exception::Plan::of(&self.model, self.director.links()), self.director.kernel())
    }

    /// Passes changes on to the thread that moves the kernel's frames from now on; it ends with the core.
    pub fn set_exception(&mut self, handle: exception::Handle) {
        self.exception = Some(handle);
    }

    /// Has VRRP's thread tell other directors that this one ends. Workers must still run.
    pub fn end_vrrp(&mut self) {
        self.vrrp = None;
        self.ipvs_sync = None;
    }

    /// Starts the daemons of IPVS's connection sync that the configuration has, and goes by its changes from now on.
    pub fn start_ipvs_sync(&mut self) {
        self.ipvs_sync = Some(Daemons::default());
        self.follow_ipvs_sync();
    }

    /// What both kinds of connection sync do.
    fn sync_status(&self) -> SyncStatus {
        let mut status = self.sync.as_ref().map(sync::Handle::status).unwrap_or_default();
        status.ipvs = self.ipvs_sync.as_ref().map(Daemons::rows).unwrap_or_default();
        status.lost += self.director.feeds().map_or(0, |feeds| feeds.lost(Listener::Ipvs));
        status
    }

    fn follow_ipvs_sync(&mut self) {
        let master = |name: &str| self.vrrp.as_ref().is_some_and(|vrrp| vrrp.is_master(name));
        if let Some(daemons) = &mut self.ipvs_sync {
            daemons.update(&self.model, self.director.feeds().as_ref(), master);
        }
    }

    /// What is in force: what checks and virtual routers have left of the configuration.
    fn in_force(&self) -> Model {
        let master = |name: &str| self.vrrp.as_ref().is_some_and(|vrrp| vrrp.is_master(name));
        let mut model = self.director.model().clone();
        model.ha.ipvs_sync.retain(|daemon| daemon.runs(master));
        model
    }

    /// Has IPVS's daemons that follow instances of `[[vrrp]]` run by the states that these have now.
    fn turn_ipvs_sync(&mut self) {
        let master = |name: &str| self.vrrp.as_ref().is_some_and(|vrrp| vrrp.is_master(name));
        if self.ipvs_sync.as_ref().is_some_and(|daemons| daemons.outdated(&self.model, master)) {
            self.follow_ipvs_sync();
        }
    }

    /// What connection sync goes by.
    pub fn sync_plan(&self) -> sync::SyncPlan {
        sync::SyncPlan::of(&self.director)
    }

    /// Passes changes on to the thread of connection sync from now on.
    pub fn set_sync(&mut self, handle: sync::Handle) {
        self.sync = Some(handle);
    }

    /// The configuration that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes a call; its response is sent now or in one of the next turns. `now_ms`: since the start.
    pub fn handle(&mut self, call: Call, now_ms: u64) {
        let Call { work, access, reply } = call;
        let response = match work {
            Work::Replace(model) => return self.change(&model, reply, now_ms),
            Work::Exchange(model, generation) if generation == self.revision => {
                if let Err(error) = kernel::check_interfaces(&self.model, &model) {
                    return respond(reply, Err(ApiError::new(ErrorKind::Invalid, error.desc())));
                }
                return self.change(&model, reply, now_ms);
            }
            Work::Exchange(..) => {
                let message = "the configuration was changed by somebody else meanwhile, nothing was changed";
                Err(ApiError::new(ErrorKind::Conflict, message))
            }
            Work::Rehearse(model) => self.rehearse(&model).map(Response::Changes),
            Work::Compare(model) => Ok(Response::Changes(change::changes(self.model(), &model))),
            Work::Plain(request) => match *request {
                Request::Zero { service } => self.zero(service.as_deref()),
                Request::Connections(filter) => return self.list(&filter, reply, now_ms),
                Request::Events { after, wait } => return self.events(after, wait, reply, now_ms),
                Request::Explain(spec) => return self.explain(&spec, reply, now_ms),
                Request::FlushConnections(filter) => return self.flush(&filter, reply, now_ms),
                request if request.changes() => match edits::edited(self.model(), request) {
                    Ok(model) => return self.change(&model, reply, now_ms),
                    Err(error) => Err(error),
                },
                request => self.read(request, access, now_ms),
            },
        };
        respond(reply, response);
    }

    /// The response to a request that changes nothing and needs no worker's answer.
    fn read(&mut self, request: Request, access: Access, now_ms: u64) -> Result<Response, ApiError> {
        Ok(match request {
            Request::Show => Response::Config(ConfigText {
                toml: show::config(self.model(), access),
                generation: self.revision,
            }),
            Request::ShowEffective => Response::Config(ConfigText {
                toml: show::config(&self.in_force(), access),
                generation: self.revision,
            }),
            Request::Health { service } => Response::Health(self.health(service.as_deref())?),
            Request::Rates => Response::Rates(self.traffic.rows(&self.director)),
            Request::ServiceList => Response::Services(show::services(&self.director, self.model())),
            Request::ServerList { service } => Response::Servers(show::servers(
                &self.director,
                self.model(),
                &self.health,
                service.as_deref(),
            )?),
            Request::Stats => Response::Stats(show::stats(&self.director, &(self.process.drivers)())),
            Request::Drops => Response::Drops(Drops { drops: show::drops(&self.director) }),
            Request::Neighbors => Response::Neighbors(show::neighbors(&self.director, now_ms)),
            Request::Snat => Response::Snat(show::snat(&self.director)),
            Request::Vrrp => Response::Vrrp(self.vrrp.as_ref().map(Handle::status).unwrap_or_default()),
            Request::Sync => Response::Sync(self.sync_status()),
            Request::Workers => {
                let (tables, (restart, _)) = (&self.process.tables, &self.keep);
                Response::Workers(show::workers(&self.director, tables, restart))
            }
            Request::Latency => {
                self.histograms.collect(&mut self.director);
                Response::Latency(Latency { latency: self.histograms.rows() })
            }
            Request::Version => Response::Version(Version {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: PROTOCOL,
                name: self.model().appliance.name.clone(),
                pid: std::process::id(),
                uptime_ms: now_ms,
            }),
            other => {
                let message = format!("lbd has no answer to {other:?} here");
                return Err(ApiError::new(ErrorKind::Failed, message));
            }
        })
    }

    /// One turn: what time and the workers bring. Call it as often as [`Core::pause_ms`] asks.
    pub fn tick(&mut self, now_ms: u64) {
        for notice in self.director.poll(now_ms) {
            log(&notice);
        }
        self.follow_health(now_ms);
        self.follow_vrrp(now_ms);
        self.turn_ipvs_sync();
        self.histograms.collect(&mut self.director);
        self.traffic.turn(&self.director, now_ms);
        self.answer_changes(now_ms);
        self.answer_listings(now_ms);
        self.answer_events(now_ms);
        if let Some(heart) = &mut self.keep.1 {
            heart.beat(&self.director);
        }
    }

    /// Returns when a turn has something to do that no clock says.
    pub(crate) fn woken(&self) -> impl Future<Output = ()> + 'static {
        let wake = self.wake.clone();
        async move { wake.notified().await }
    }

    /// Time until the next turn, ms: short while somebody waits or next hops are being found.
    pub fn pause_ms(&self, now_ms: u64) -> u64 {
        match (self.listings.is_empty() && self.changes.is_empty(), now_ms < self.lively_until_ms) {
            (false, _) => 1,
            (true, true) => 5,
            (true, false) => 50,
        }
    }
}

/// Sends a response to where it is waited for.
fn respond(reply: oneshot::Sender<Response>, response: Result<Response, ApiError>) {
    // A client that has gone meanwhile misses nothing.
    let _ = reply.send(response.unwrap_or_else(Response::Error));
}

fn log(notice: &Notice) {
    match notice {
        Notice::DrainOver { service, server, connections, fate } => {
            info!(%service, %server, connections, on_server_down = %fate, "drain deadline has passed");
        }
        Notice::AddressConflict { address, mac } => {
            warn!(%address, mac = %show::mac(*mac), "another station uses an address of the director");
        }
        Notice::Neighbor { link, address, mac: Some(mac) } => {
            info!(port = %link, %address, mac = %show::mac(*mac), "next hop is reachable");
        }
        Notice::Neighbor { link, address, mac: None } => {
            warn!(port = %link, %address, "next hop does not answer");
        }
    }
}

#[cfg(test)]
mod tests;
