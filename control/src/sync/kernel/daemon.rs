//! The daemons' threads, and the control core's end of them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use lb_config::{IpvsSync, IpvsSyncState, Model};
use lb_dataplane::sync::Feeds;
use tracing::{info, warn};

use super::convert::{Book, Unheard, Unsaid};
use super::counters::Counters;
use super::{backup, master};
use crate::api::IpvsSyncRow;

/// What daemons go by beside their own settings: the workers' queues, and the configuration.
type Shared = (Option<Arc<Feeds>>, Arc<Model>);

/// The same as a daemon's thread has it.
#[derive(Default)]
pub(super) struct View {
    pub feeds: Option<Arc<Feeds>>,
    known: Option<(Arc<Model>, Book)>,
}

impl View {
    /// The services; `None`: there is no configuration yet.
    pub fn book(&self) -> Option<&Book> {
        self.known.as_ref().map(|(_, book)| book)
    }
}

/// What a daemon's thread shares with the control core.
#[derive(Debug)]
pub(super) struct Common {
    pub stop: AtomicBool,
    pub counters: Counters,
    shared: Mutex<Shared>,
    name: &'static str,
    interface: String,
}

impl Common {
    /// Has a view follow the configuration.
    pub fn follow(&self, view: &mut View) {
        let (feeds, model) = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        view.feeds = feeds;
        if view.known.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, &model)) {
            // on this thread, not on the control core: it looks at every service
            let book = Book::new((*model).clone());
            view.known = Some((model, book));
        }
    }

    /// Opens a socket, again and again; `None`: it is to stop.
    pub fn open<S>(&self, pause: Duration, open: impl Fn() -> io::Result<S>) -> Option<S> {
        while !self.stop.load(Relaxed) {
            match open() {
                Ok(socket) => {
                    info!(daemon = self.name, interface = %self.interface, "IPVS sync daemon runs");
                    self.told().clear();
                    return Some(socket);
                }
                Err(error) => self.fault(&error),
            }
            thread::park_timeout(pause);
        }
        None
    }

    /// Remembers why it does not work, and logs it once.
    pub fn fault(&self, error: &io::Error) {
        let text = error.to_string();
        let mut told = self.told();
        if *told != text {
            warn!(daemon = self.name, interface = %self.interface, %error, "IPVS sync daemon is held up");
            *told = text;
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, String> {
        self.counters.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A daemon that runs.
#[derive(Debug)]
struct Running {
    daemon: IpvsSync,
    common: Arc<Common>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl Running {
    fn start(daemon: &IpvsSync, shared: Shared) -> io::Result<Self> {
        let (name, run): (_, fn(&IpvsSync, &Common)) = match daemon.state {
            IpvsSyncState::Master => ("master", master::run),
            IpvsSyncState::Backup => ("backup", backup::run),
        };
        let common = Arc::new(Common {
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            shared: Mutex::new(shared),
            name,
            interface: daemon.interface.clone(),
        });
        let (own, settings) = (common.clone(), daemon.clone());
        let thread = thread::Builder::new().name(format!("ipvs-{name}"));
        let join = thread.spawn(move || run(&settings, &own))?;
        Ok(Self { daemon: daemon.clone(), common, thread: join.thread().clone(), join: Some(join) })
    }

    fn row(&self) -> IpvsSyncRow {
        let Counters { messages, entries, refused, malformed, unsaid, unheard, late, .. } =
            &self.common.counters;
        let unsaid = Unsaid::ALL.iter().zip(unsaid).map(|(why, count)| (why.name(), count));
        let unheard = Unheard::ALL.iter().zip(unheard).map(|(why, count)| (why.name(), count));
        let left_out = unsaid.chain(unheard).map(|(name, count)| (name.to_owned(), count.load(Relaxed)));
        IpvsSyncRow {
            state: self.daemon.state.to_string(),
            interface: self.daemon.interface.clone(),
            sync_id: self.daemon.sync_id,
            group: self.daemon.group,
            port: self.daemon.port,
            fault: Some(self.common.told().clone()).filter(|fault| !fault.is_empty()),
            messages: messages.load(Relaxed),
            entries: entries.load(Relaxed),
            refused: refused.load(Relaxed),
            malformed: malformed.load(Relaxed),
            late: late.load(Relaxed),
            left_out: left_out.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.common.stop.store(true, Relaxed);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // A thread that panicked has nothing more to say.
            let _ = join.join();
        }
    }
}

/// The daemons of the configuration. Dropped, they end.
#[derive(Debug, Default)]
pub struct Daemons {
    running: Vec<Running>,
    /// Those that are to run.
    wanted: Vec<IpvsSync>,
}

/// The daemons that run while instances are in their states.
fn wanted(model: &Model, master: impl Fn(&str) -> bool) -> Vec<IpvsSync> {
    model.ha.ipvs_sync.iter().filter(|daemon| daemon.runs(&master)).cloned().collect()
}

impl Daemons {
    /// Goes by a configuration and the workers' queues that belong to it: daemons that are gone or changed end, new
    /// ones start. `master`: whether an instance of `[[vrrp]]` is master.
    pub fn update(&mut self, model: &Model, feeds: Option<&Arc<Feeds>>, master: impl Fn(&str) -> bool) {
        self.wanted = wanted(model, master);
        let wanted = &self.wanted;
        self.running.retain(|running| wanted.contains(&running.daemon));
        if wanted.is_empty() {
            return;
        }
        let shared = (feeds.cloned(), Arc::new(model.clone()));
        for running in &self.running {
            *running.common.shared.lock().unwrap_or_else(PoisonError::into_inner) = shared.clone();
        }
        for daemon in wanted {
            if self.running.iter().any(|running| running.daemon == *daemon) {
                continue;
            }
            match Running::start(daemon, shared.clone()) {
                Ok(running) => self.running.push(running),
                Err(error) => warn!(daemon = %daemon.state, %error, "IPVS sync daemon cannot start"),
            }
        }
    }

    /// Whether instances of `[[vrrp]]` have other states than those that the daemons go by.
    pub fn outdated(&self, model: &Model, master: impl Fn(&str) -> bool) -> bool {
        model.ha.ipvs_sync.iter().any(|daemon| daemon.vrrp.is_some()) && self.wanted != wanted(model, master)
    }

    /// What they did.
    pub fn rows(&self) -> Vec<IpvsSyncRow> {
        self.running.iter().map(Running::row).collect()
    }
}
