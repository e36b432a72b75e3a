//! The thread that checks run on: a runtime of its own, so that thousands of them never hold the API up.
//!
//! Each probe is a task that sleeps in the runtime's timer wheel; how many ask at a time is bounded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify as Wake, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::drift::Drift;
use super::probe::{ProbeSpec, Report, Shared, Status, run};
use super::tell::{News, Teller};

/// Checks at a time; each has a socket or two open.
const AT_A_TIME: u64 = 4096;

/// Files that are left for everything else.
const OTHER_FILES: u64 = 512;

/// Threads for what may block: users, files, names.
const BLOCKING_THREADS: usize = 4;

/// How long what is still to be told at the end may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the engine is told to do.
#[derive(Debug)]
enum Command {
    Start(Arc<ProbeSpec>, Arc<Status>),
    Stop(Arc<ProbeSpec>),
    Tell(Box<News>),
}

/// The thread's other end. Dropped, it ends the thread and waits for that.
#[derive(Debug)]
pub struct Engine {
    commands: Option<mpsc::UnboundedSender<Command>>,
    reports: mpsc::UnboundedReceiver<Report>,
    thread: Option<JoinHandle<()>>,
    drift: Arc<Drift>,
}

impl Engine {
    /// Starts the thread. `wake` is notified when there is a report.
    ///
    /// Errors: no thread, no memory.
    pub fn start(wake: Arc<Wake>) -> io::Result<Self> {
        let drift = Arc::new(Drift::new().map_err(io::Error::other)?);
        let (commands, orders) = mpsc::unbounded_channel();
        let (sender, mut inner) = mpsc::unbounded_channel::<Report>();
        let (outer, reports) = mpsc::unbounded_channel();
        let permits = Semaphore::new(usize::try_from(raise_files()).unwrap_or(64));
        let shared = Arc::new(Shared { permits, reports: sender, drift: drift.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let thread = std::thread::Builder::new().name("health".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::spawn(async move {
                    while let Some(report) = inner.recv().await {
                        if outer.send(report).is_err() {
                            return;
                        }
                        wake.notify_one();
                    }
                });
                obey(orders, shared).await;
            });
            // Programs that still run are killed as their tasks are dropped.
            runtime.shutdown_background();
        })?;
        Ok(Self { commands: Some(commands), reports, thread: Some(thread), drift })
    }

    fn command(&self, command: Command) {
        // The thread ends only after the sender is gone.
        if self.commands.as_ref().is_some_and(|commands| commands.send(command).is_err()) {
            warn!("the thread of health checks has ended");
        }
    }

    /// Begins a probe.
    pub fn begin(&self, probe: Arc<ProbeSpec>, status: Arc<Status>) {
        self.command(Command::Start(probe, status));
    }

    /// Ends a probe.
    pub fn end(&self, probe: Arc<ProbeSpec>) {
        self.command(Command::Stop(probe));
    }

    /// Has somebody told.
    pub fn tell(&self, news: News) {
        self.command(Command::Tell(Box::new(news)));
    }

    /// A report that has come, if there is one.
    pub fn report(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// How late checks start.
    pub fn drift(&self) -> &Drift {
        &self.drift
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of health checks has panicked");
        }
    }
}

async fn obey(mut orders: mpsc::UnboundedReceiver<Command>, shared: Arc<Shared>) {
    let mut tasks: HashMap<Arc<ProbeSpec>, AbortHandle> = HashMap::new();
    let teller = Teller::start();
    while let Some(command) = orders.recv().await {
        match command {
            Command::Start(probe, status) => {
                let task = tokio::spawn(run(probe.clone(), status, shared.clone()));
                if let Some(former) = tasks.insert(probe, task.abort_handle()) {
                    former.abort();
                }
            }
            Command::Stop(probe) => {
                if let Some(task) = tasks.remove(&probe) {
                    task.abort();
                }
            }
            Command::Tell(news) => teller.tell(*news),
        }
    }
    debug!(probes = tasks.len(), "health checks end");
    tasks.values().for_each(AbortHandle::abort);
    if tokio::time::timeout(LAST_WORDS, teller.finish()).await.is_err() {
        warn!("not everybody was told of the last changes in time");
    }
}

/// Allows as many open files as the system lets us; gives the number of checks that may run at a time.
fn raise_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 64 };
    let wanted = 2 * AT_A_TIME + OTHER_FILES;
    let most = wanted.max(soft);
    // Who may raise the upper limit does; else as far as that goes.
    let files = match setrlimit(Resource::RLIMIT_NOFILE, most, hard.max(most)) {
        Ok(()) => most,
        Err(_) => match setrlimit(Resource::RLIMIT_NOFILE, most.min(hard), hard) {
            Ok(()) => most.min(hard),
            Err(_) => soft,
        },
    };
    (files.saturating_sub(OTHER_FILES) / 2).clamp(16, AT_A_TIME)
}
