//! The thread that speaks VRRP and BFD.
//!
//! It does nothing that blocks and waits for nobody: configuration, results of what is tracked, and frames come by
//! queues; programs are run by other threads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lb_config::Tracked;
use lb_dataplane::channel::Channel;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::engine::{Engine, LeaseReport, News, Standing};
use super::instance::Now;
use super::machine::State;
use super::notify::Notifier;
use super::plan::Plan;
use super::track::{Report, Tracker};
use crate::api::Vrrp;
use crate::follower::{Follower, Order};
use crate::lease::{Client, Told};

/// Tells of every port, in the order of the configuration, whether its link is up.
pub type Links = Box<dyn FnMut() -> Vec<bool> + Send>;

/// How often links are looked at.
const LINKS_NS: u64 = 20_000_000;
/// How often the status is made anew without a reason.
const STATUS_NS: u64 = 500_000_000;
/// Most frames taken before timers are looked at.
const FRAMES: usize = 256;
/// How long lbd waits at its end for the last adverts to leave.
const FAREWELL: Duration = Duration::from_millis(200);

/// The control core's end. Dropped, it ends the thread, which says good-bye to other directors first: do that while
/// workers still run.
#[derive(Debug)]
pub struct Handle {
    thread: Follower<Plan>,
    status: Arc<Mutex<Arc<Vrrp>>>,
    news: Receiver<News>,
}

impl Handle {
    /// Has the thread go by another plan.
    pub fn update(&self, plan: Plan) {
        self.thread.update(plan);
    }

    /// Something that happened since this was asked last.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Whether an instance is master, a moment ago.
    pub fn is_master(&self, name: &str) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.instances.iter().any(|row| row.name == name && row.state == State::Master.as_str())
    }

    /// What it does, at most half a second old.
    pub fn status(&self) -> Vrrp {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (*status).clone()
    }
}

/// Starts the thread. `wake` is notified when there are [`Handle::news`].
///
/// Errors: the system gives no thread.
pub fn start(plan: Plan, channel: Channel, links: Links, wake: Arc<Notify>) -> std::io::Result<Handle> {
    let status = Arc::new(Mutex::new(Arc::default()));
    let notifier = Notifier::start()?;
    let (news, told) = self::channel();
    let begun = status.clone();
    let speaker = move |orders| Speaker {
        engine: Engine::new(),
        channel,
        links,
        ups: Vec::new(),
        orders,
        status: begun,
        notifier,
        tracker: None,
        reports: self::channel(),
        leases: self::channel(),
        lease: None,
        news,
        wake,
        start: Instant::now(),
    };
    let thread = Follower::start("vrrp", move |orders| speaker(orders).run(plan))?;
    Ok(Handle { thread, status, news: told })
}

struct Speaker {
    engine: Engine,
    channel: Channel,
    links: Links,
    ups: Vec<bool>,
    orders: Receiver<Order<Plan>>,
    status: Arc<Mutex<Arc<Vrrp>>>,
    notifier: Notifier,
    tracker: Option<Tracker>,
    reports: (Sender<Report>, Receiver<Report>),
    leases: (Sender<Told>, Receiver<Told>),
    /// Where leases are.
    lease: Option<Client>,
    news: Sender<News>,
    wake: Arc<Notify>,
    start: Instant,
}

impl Speaker {
    fn ns(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Now {
        let ns = |time| self.ns(time);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ns: ns(self.start.elapsed()), wall_ns: ns(wall) }
    }

    fn run(mut self, plan: Plan) {
        self.update(plan);
        let (mut links_ns, mut status_ns) = (0, 0);
        loop {
            let mut changed = false;
            // before the first look at the clock
            let doubts = self.engine.plan().cells.doubts();
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Plan(plan) => self.update(*plan),
                    Order::Stop => return self.stop(),
                }
                changed = true;
            }
            // frames before timers: one that came in time counts, however late this turn is
            for _ in 0..FRAMES {
                let Some(frame) = self.channel.receive() else { break };
                let now = self.now();
                self.engine.receive(now, &frame);
            }
            while let Ok(report) = self.reports.1.try_recv() {
                let now = self.now();
                self.engine.tracked(now, report.what, report.standing);
            }
            while let Ok(told) = self.leases.1.try_recv() {
                let now = self.now();
                let state = told.state.map(|until| self.ns(until.saturating_duration_since(self.start)));
                self.engine.leased(now, LeaseReport { unit: told.unit, wish: told.wish, state });
                changed = true;
            }
            let now = self.now();
            if now.mono_ns >= links_ns && !self.engine.plan().is_empty() {
                links_ns = now.mono_ns + LINKS_NS;
                self.look_at_links(now);
            }
            let now = self.now();
            self.engine.tick(now);
            self.engine.plan().cells.settle(doubts);
            self.send();
            changed |= self.tell();
            if changed || now.mono_ns >= status_ns {
                status_ns = now.mono_ns + STATUS_NS;
                self.show(now);
            }
            thread::park_timeout(self.pause(now));
        }
    }

    /// Until the next timer, or the next look at the queues.
    fn pause(&mut self, now: Now) -> Duration {
        if self.engine.plan().is_empty() {
            return Duration::from_secs(1);
        }
        let poll = match self.engine.shortest_ns() {
            Some(..=100_000_000) => 500_000,
            // how long two may be masters when a higher priority takes over
            _ => 1_000_000,
        };
        let outbox = self.engine.outbox();
        let busy = !outbox.announcements.is_empty() || !outbox.urgent.is_empty();
        let due = self.engine.due_ns().map_or(poll, |due| due.saturating_sub(now.mono_ns));
        Duration::from_nanos(due.min(poll).min(if busy { 500_000 } else { u64::MAX }))
    }

    fn update(&mut self, plan: Plan) {
        let (had, has) = (!self.engine.plan().is_empty(), !plan.is_empty());
        if had != has {
            info!(instances = plan.instances.len(), bfd = plan.sessions.len(), "vrrp");
        }
        let tracked = (plan.scripts.clone(), plan.processes.clone(), plan.files.clone());
        let mut unseen = Vec::new();
        if self.tracker.as_ref().is_none_or(|tracker| !tracker.is_of(&tracked)) {
            // dropped first: it ends its programs
            self.tracker = None;
            match Tracker::start(tracked, self.reports.0.clone(), thread::current()) {
                Ok(tracker) => self.tracker = Some(tracker),
                Err(error) => {
                    warn!(%error, "nothing is tracked");
                    unseen.extend(plan.processes.iter().map(|own| Tracked::Process(own.name.clone())));
                    unseen.extend(plan.files.iter().map(|own| Tracked::File(own.name.clone())));
                }
            }
        }
        let now = self.now();
        // nobody waits for a first look that does not come
        for what in unseen {
            self.engine.tracked(now, what, Standing { up: true, number: 0 });
        }
        // before the first event of a new instance
        self.ups.clear();
        for (name, up) in plan.ports.iter().zip((self.links)()) {
            self.ups.push(up);
            self.engine.tracked(now, Tracked::Port(name.clone()), Standing { up, number: 0 });
        }
        let (lease, name) = (plan.lease.clone(), plan.name.clone());
        let other = self.lease.as_ref().is_some_and(|own| lease.as_ref().is_none_or(|new| !own.is_of(new)));
        self.engine.update(now, plan);
        if other {
            // who depended on them has let go
            self.end_lease();
        }
        if let (Some(lease), None) = (lease, &self.lease) {
            match Client::start(lease, &name, self.leases.0.clone(), thread::current()) {
                Ok(client) => self.lease = Some(client),
                Err(error) => warn!(%error, "leases are not asked for: nobody gets one"),
            }
        }
        self.tell();
    }

    /// Leaves the leases of settings that go: who depends on them begins anew.
    fn end_lease(&mut self) {
        let Some(client) = self.lease.take() else { return };
        // its reports are not for the next one
        self.leases = self::channel();
        // gives everything back on its own
        drop(client);
    }

    /// Passes on what is for others. Whether there was anything.
    fn tell(&mut self) -> bool {
        let outbox = self.engine.outbox();
        let (programs, orders) = (std::mem::take(&mut outbox.programs), std::mem::take(&mut outbox.leases));
        let news = std::mem::take(&mut outbox.news);
        let any = !(programs.is_empty() && orders.is_empty() && news.is_empty());
        programs.into_iter().for_each(|program| self.notifier.run(program));
        if let Some(client) = &self.lease {
            orders.into_iter().for_each(|order| client.order(order));
        }
        if !news.is_empty() {
            for news in news {
                // Nobody is there at the end.
                let _ = self.news.send(news);
            }
            self.wake.notify_one();
        }
        any
    }

    fn look_at_links(&mut self, now: Now) {
        let ups = (self.links)();
        if ups == self.ups {
            return;
        }
        let names = self.engine.plan().ports.clone();
        for (name, up) in names.into_iter().zip(&ups) {
            self.engine.tracked(now, Tracked::Port(name), Standing { up: *up, number: 0 });
        }
        self.ups = ups;
    }

    /// Sends what is to be sent, adverts first, as much as the queue takes.
    fn send(&mut self) {
        let outbox = self.engine.outbox();
        for queue in [&mut outbox.urgent, &mut outbox.announcements] {
            while let Some((device, frame)) = queue.front() {
                if self.channel.send(*device, frame).is_err() {
                    return;
                }
                queue.pop_front();
            }
        }
    }

    fn show(&mut self, now: Now) {
        // who reads holds it for the time of a copy of one pointer; this thread waits for nobody
        if let Ok(mut status) = self.status.try_lock() {
            *status = Arc::new(self.engine.status(now));
        }
    }

    fn stop(mut self) {
        let now = self.now();
        self.engine.stop(now);
        self.engine.plan().cells.leave();
        self.engine.outbox().announcements.clear();
        let begun = Instant::now();
        loop {
            self.send();
            let left = !self.engine.outbox().urgent.is_empty() || !self.channel.is_drained();
            if !left || begun.elapsed() > FAREWELL {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        // after the adverts: who hears them may want a lease
        self.tell();
        if let Some(client) = self.lease.take() {
            client.finish();
        }
        self.tracker = None;
        self.notifier.finish();
    }
}
