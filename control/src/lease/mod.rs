//! Leases in etcd: of several directors only the one that holds a lease may have the addresses that depend on it.
//!
//! ```text
//! vrrp::thread -> Client -> Order -> a task per lease (unit) -> etcd's JSON gateway over HTTP
//!              <- Report <----------------'
//! ```
//! * [`etcd`]: requests and answers; [`unit`](mod@unit): one lease, taken, renewed, given back
//! * this file: the words of both sides, and the thread
//!
//! Invariant: a lease is reported as held until a moment that is `margin` before etcd may give it to somebody else,
//! counted from before the request that took or renewed it was sent. No clock but this machine's own, which never goes
//! back, is asked.
//!
//! Why no faster take-over after a crash than by the lease's own end: a director that BFD does not hear is dead or cut
//! off, and nobody but etcd can tell which. One that ends in order gives its lease back at once.

pub mod etcd;
pub mod unit;

#[cfg(test)]
mod fake;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use lb_config::Lease;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use etcd::Etcd;
use unit::{Desk, Wish};

/// How long leases that are given back at the end may take.
const AT_END: Duration = Duration::from_secs(1);

/// What the engine orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Tell of a lease.
    Watch(String),
    /// Take it when it is free, and renew it. The number comes back in reports.
    Want(String, u64),
    /// Give it back, or do not take it.
    Yield(String),
    /// Give it back and tell of it no more.
    Forget(String),
}

/// How a lease stands; `T`: a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatState<T> {
    /// etcd has not answered yet.
    Unknown,
    /// etcd does not answer.
    Away,
    /// Nobody holds it, or nobody is asked.
    Free,
    /// Another director holds it.
    Other(String),
    /// It is held here until then, unless it is renewed.
    Held(T),
}

impl<T> SeatState<T> {
    /// As in `lbctl vrrp`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Away => "away",
            Self::Free => "free",
            Self::Other(_) => "other",
            Self::Held(_) => "held",
        }
    }

    /// The same with another moment.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> SeatState<U> {
        match self {
            Self::Unknown => SeatState::Unknown,
            Self::Away => SeatState::Away,
            Self::Free => SeatState::Free,
            Self::Other(holder) => SeatState::Other(holder),
            Self::Held(until) => SeatState::Held(with(until)),
        }
    }
}

/// In words: for the log and events.
impl<T> fmt::Display for SeatState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Away => f.write_str("etcd does not answer"),
            Self::Free => f.write_str("free"),
            Self::Other(holder) => write!(f, "held by {holder}"),
            Self::Held(_) => f.write_str("held"),
        }
    }
}

/// A state and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat<T> {
    /// The state.
    pub state: SeatState<T>,
    /// Since when, ns.
    pub since_ns: u64,
}

impl<T> Seat<T> {
    /// It is in this state from now on. Gives the one before unless that differs in its moment at most.
    pub fn set(&mut self, now_ns: u64, state: SeatState<T>) -> Option<SeatState<T>> {
        let same = match (&self.state, &state) {
            (SeatState::Other(old), SeatState::Other(new)) => old == new,
            (old, new) => old.as_str() == new.as_str(),
        };
        let before = std::mem::replace(&mut self.state, state);
        if same {
            return None;
        }
        self.since_ns = now_ns;
        Some(before)
    }
}

/// What a task tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose lease.
    pub unit: String,
    /// Number of the wish that this is about; 0: of none.
    pub wish: u64,
    /// How it stands.
    pub state: SeatState<Instant>,
}

/// The thread's other end. Dropped, it ends the thread, which gives every lease back first.
#[derive(Debug)]
pub struct Client {
    lease: Arc<Lease>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts the thread. `name`: the director's, as others see it; reports wake `reader`.
    ///
    /// Errors: no thread, no memory.
    pub fn start(lease: Arc<Lease>, name: &str, reports: Sender<Told>, reader: Thread) -> io::Result<Self> {
        let (orders, taken) = mpsc::unbounded_channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        let (own, name) = (lease.clone(), name.to_owned());
        let thread = std::thread::Builder::new().name("lease".into()).spawn(move || {
            runtime.block_on(obey(own, name, taken, reports, reader));
            runtime.shutdown_background();
        })?;
        Ok(Self { lease, orders: Some(orders), thread: Some(thread) })
    }

    /// Whether it goes by just these settings.
    pub fn is_of(&self, lease: &Arc<Lease>) -> bool {
        self.lease == *lease
    }

    /// Has an order carried out.
    pub fn order(&self, order: Order) {
        // The thread ends only after the sender is gone.
        if self.orders.as_ref().is_some_and(|orders| orders.send(order).is_err()) {
            warn!("the thread of leases has ended");
        }
    }

    /// Has everything given back, and waits for that, for a bounded time.
    pub fn finish(mut self) {
        self.orders = None;
        let until = Instant::now() + AT_END;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Carries orders out until there are no more to come.
async fn obey(
    lease: Arc<Lease>,
    name: String,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: Sender<Told>,
    reader: Thread,
) {
    let desk = Arc::new(Desk { etcd: Etcd::new(lease), name, reports, reader });
    let mut units: HashMap<String, watch::Sender<Wish>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Watch(unit) => {
                let (wish, wishes) = watch::channel(Wish::None);
                tasks.spawn(unit::keep(desk.clone(), unit.clone(), wishes));
                units.insert(unit, wish);
            }
            Order::Want(unit, number) => {
                units.get(&unit).map(|wish| wish.send_replace(Wish::Want(number)));
            }
            Order::Yield(unit) => {
                units.get(&unit).map(|wish| wish.send_replace(Wish::None));
            }
            // the task ends with the sender
            Order::Forget(unit) => drop(units.remove(&unit)),
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(units);
    // each ends when its lease is given back, or after the time that it would last anyway
    let _ = tokio::time::timeout(AT_END, tasks.join_all()).await;
}
