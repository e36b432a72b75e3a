//! The thread that speaks with other directors: sockets, the workers' queues, time.
//!
//! It does nothing that blocks: sockets do not, and configuration comes by a queue.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lb_config::PeerSync;
use lb_dataplane::director::Director;
use lb_dataplane::sync::{Feeds, Listener, Record, Refusal};
use tracing::{info, warn};

use super::link::{Copying, Link, Out};
use super::seal::Key;
use crate::api::{SyncRow, SyncStatus};
use crate::follower::{Follower, Order};

/// Time between two looks at the queues while records come, and while none do.
const BUSY: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(4);
/// How long after a record more are expected, ns.
const BUSY_NS: u64 = 100_000_000;
/// Without other directors.
const ALONE: Duration = Duration::from_secs(1);
/// How often the status is made anew.
const STATUS_NS: u64 = 100_000_000;
/// How often an address that cannot be listened at is tried again, and how often everything is told again because
/// records were lost.
const RETRY_NS: u64 = 1_000_000_000;
/// Records that are taken from the workers, and datagrams from a socket, between two looks at everything else.
const RECORDS: usize = 32_768;
const DATAGRAMS: usize = 1024;
/// Room for datagrams in the kernel, bytes: what comes while this thread does not run for 20 ms at 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

/// What it goes by.
#[derive(Clone, Debug, Default)]
pub struct SyncPlan {
    /// Other directors.
    pub peers: Vec<PeerSync>,
    /// The workers' queues; `None`: there are no other directors.
    pub feeds: Option<Arc<Feeds>>,
}

impl SyncPlan {
    /// That of what a director runs.
    pub fn of(director: &Director) -> Self {
        Self { peers: director.model().ha.sync.clone(), feeds: director.feeds() }
    }
}

/// The control core's end. Dropped, it ends the thread.
#[derive(Debug)]
pub struct Handle {
    thread: Follower<SyncPlan>,
    status: Arc<Mutex<Arc<SyncStatus>>>,
}

impl Handle {
    /// Has the thread go by another plan.
    pub fn update(&self, plan: SyncPlan) {
        self.thread.update(plan);
    }

    /// What it does, a tenth of a second old.
    pub fn status(&self) -> SyncStatus {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (*status).clone()
    }
}

/// Starts the thread.
///
/// Errors: the system gives no thread.
pub fn start(plan: SyncPlan) -> std::io::Result<Handle> {
    let status = Arc::new(Mutex::new(Arc::default()));
    let begun = status.clone();
    let speaker = move |orders| Speaker {
        plan: SyncPlan::default(),
        peers: Vec::new(),
        sockets: Vec::new(),
        orders,
        status: begun,
        start: Instant::now(),
        chance: RandomState::new(),
        numbers: 0,
        copying: false,
        lost: 0,
        told_again_ns: 0,
        buffer: vec![0; 2048],
    };
    let thread = Follower::start("sync", move |orders| speaker(orders).run(plan))?;
    Ok(Handle { thread, status })
}

/// Another director.
struct Peer {
    config: PeerSync,
    link: Link,
}

/// An address that is listened at.
struct Listening {
    address: SocketAddr,
    socket: Option<UdpSocket>,
    /// When it is tried again, ns.
    again_ns: u64,
}

struct Speaker {
    plan: SyncPlan,
    peers: Vec<Peer>,
    sockets: Vec<Listening>,
    orders: Receiver<Order<SyncPlan>>,
    status: Arc<Mutex<Arc<SyncStatus>>>,
    start: Instant,
    chance: RandomState,
    numbers: u64,
    /// The workers tell everything because somebody has asked.
    copying: bool,
    /// Records that the workers have lost, as far as that was made up for.
    lost: u64,
    told_again_ns: u64,
    buffer: Vec<u8>,
}

impl Speaker {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number by chance, not 0.
    fn random(&mut self) -> u64 {
        self.numbers += 1;
        self.chance.hash_one((self.numbers, Instant::now())).max(1)
    }

    fn run(mut self, plan: SyncPlan) {
        self.update(plan);
        let (mut status_ns, mut busy_ns) = (0, 0);
        loop {
            let mut changed = false;
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Plan(plan) => self.update(*plan),
                    Order::Stop => return,
                }
                changed = true;
            }
            let now = self.now_ns();
            let mut out = Out::default();
            let mut records = self.listen(now);
            self.deliver();
            records += self.tell(now);
            for at in 0..self.peers.len() {
                let random = self.random();
                let Some(peer) = self.peers.get_mut(at) else { break };
                if peer.link.tick(now, random, &mut out) {
                    warn!(peer = %peer.config.name, "sync: nothing is heard of the other director any more");
                }
                self.send(at, &mut out);
            }
            self.follow_copies(now);
            if records > 0 {
                busy_ns = now;
            }
            if changed || now >= status_ns {
                status_ns = now + STATUS_NS;
                self.show(now);
            }
            let pause = match () {
                () if self.peers.is_empty() => ALONE,
                () if now.saturating_sub(busy_ns) < BUSY_NS => BUSY,
                () => IDLE,
            };
            thread::park_timeout(pause);
        }
    }

    fn update(&mut self, plan: SyncPlan) {
        let now = self.now_ns();
        let mut old = std::mem::take(&mut self.peers);
        for wanted in &plan.peers {
            let same = |own: &Peer| {
                (own.config.listen, own.config.peer, &own.config.key, own.config.refresh)
                    == (wanted.listen, wanted.peer, &wanted.key, wanted.refresh)
            };
            if let Some(at) = old.iter().position(same) {
                let peer = old.remove(at);
                self.peers.push(Peer { config: wanted.clone(), ..peer });
                continue;
            }
            // the checks of the configuration make sure that there is one
            let Some(key) = wanted.secret().and_then(|secret| Key::new(&secret)) else { continue };
            let refresh_ms = u32::try_from(wanted.refresh.as_millis()).unwrap_or(u32::MAX);
            let link = Link::new(key, self.random(), refresh_ms);
            self.peers.push(Peer { config: wanted.clone(), link });
        }
        self.sockets.retain(|own| plan.peers.iter().any(|peer| peer.listen == own.address));
        for peer in &plan.peers {
            if !self.sockets.iter().any(|own| own.address == peer.listen) {
                self.sockets.push(Listening { address: peer.listen, socket: None, again_ns: now });
            }
        }
        let same = match (&self.plan.feeds, &plan.feeds) {
            (Some(own), Some(new)) => Arc::ptr_eq(own, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            (self.lost, self.copying) = (0, false);
            // what was on its way in the old queues
            if let Some(feeds) = &plan.feeds {
                feeds.ask_for_all(Listener::Peers);
            }
        }
        self.plan = plan;
    }

    /// Takes datagrams in. Returns how many.
    fn listen(&mut self, now: u64) -> usize {
        let mut count = 0;
        let mut sockets = std::mem::take(&mut self.sockets);
        for own in &mut sockets {
            if own.socket.is_none() && now >= own.again_ns {
                own.again_ns = now + RETRY_NS;
                match open(own.address) {
                    Ok(socket) => own.socket = Some(socket),
                    Err(error) if now < 2 * RETRY_NS || own.again_ns % (60 * RETRY_NS) < RETRY_NS => {
                        warn!(address = %own.address, %error, "sync: cannot listen, tried again every second");
                    }
                    Err(_) => {}
                }
            }
            let Some(socket) = &own.socket else { continue };
            for _ in 0..DATAGRAMS {
                let mut buffer = std::mem::take(&mut self.buffer);
                let result = socket.recv_from(&mut buffer);
                if let Ok((len, from)) = result {
                    count += 1;
                    self.hear(now, (own.address, from), buffer.get(..len).unwrap_or_default());
                }
                self.buffer = buffer;
                match result {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // such as that nobody listens at the other end: an answer to what was sent
                    Err(_) => {}
                }
            }
        }
        self.sockets = sockets;
        count
    }

    fn hear(&mut self, now: u64, (to, from): (SocketAddr, SocketAddr), datagram: &[u8]) {
        let random = self.random();
        let is_from = |own: &Peer| own.config.listen == to && own.config.peer == from;
        let Some(at) = self.peers.iter().position(is_from) else { return };
        let mut out = Out::default();
        if let Some(peer) = self.peers.get_mut(at) {
            let sessions = peer.link.sessions;
            peer.link.hear(now, datagram, random, &mut out);
            let name = &peer.config.name;
            if peer.link.sessions != sessions {
                info!(peer = %name, "sync: a session begins");
            }
        }
        if out.copy
            && let Some(feeds) = &self.plan.feeds
        {
            feeds.ask_for_all(Listener::Peers);
            self.copying = true;
            for peer in &mut self.peers {
                peer.link.begin_copy(now);
            }
        }
        self.send(at, &mut out);
    }

    /// Hands what was heard to the workers.
    fn deliver(&mut self) {
        let Some(feeds) = &self.plan.feeds else { return };
        for peer in &mut self.peers {
            peer.link.deliver(|record| feeds.apply(*record).is_ok());
        }
    }

    /// Tells others what the workers tell. Returns how many records.
    fn tell(&mut self, now: u64) -> usize {
        let Some(feeds) = self.plan.feeds.clone() else { return 0 };
        let all_told = feeds.is_all_told(Listener::Peers);
        let mut count = 0;
        let mut emptied = true;
        for worker in 0..feeds.workers() {
            let worker_now = feeds.now_ns(worker);
            loop {
                if count >= RECORDS || !self.peers.iter().all(|peer| peer.link.has_room()) {
                    emptied = false;
                    break;
                }
                let Some(record) = feeds.next(Listener::Peers, worker) else { break };
                count += 1;
                let age = match &record {
                    Record::Connection(connection) => worker_now.saturating_sub(connection.told_ns),
                    Record::Template(_) | Record::Gone(_) => 0,
                };
                for peer in &mut self.peers {
                    peer.link.tell(record, now.saturating_sub(age));
                }
            }
        }
        if self.copying && all_told && emptied {
            self.copying = false;
            self.peers.iter_mut().for_each(|peer| peer.link.end_copy(now));
        }
        let lost = feeds.lost(Listener::Peers);
        if lost != self.lost && now >= self.told_again_ns {
            warn!(
                records = lost - self.lost,
                "sync: changes came faster than they could be told, all is told again"
            );
            (self.lost, self.told_again_ns) = (lost, now + RETRY_NS);
            feeds.ask_for_all(Listener::Peers);
        }
        count
    }

    /// Says whether all copies are here and in the tables.
    fn follow_copies(&mut self, now: u64) {
        for peer in &mut self.peers {
            if let Some(ns) = peer.link.has_copied(now) {
                info!(peer = %peer.config.name, ms = ns / 1_000_000, "sync: the other director's connections are here");
            }
        }
        if let Some(feeds) = &self.plan.feeds {
            feeds.set_copied(self.peers.iter().all(|peer| peer.link.is_copied()) && feeds.is_applied());
        }
    }

    fn send(&mut self, at: usize, out: &mut Out) {
        let Some(peer) = self.peers.get(at) else { return };
        let socket = self.sockets.iter().find(|own| own.address == peer.config.listen);
        for datagram in out.datagrams.drain(..) {
            if let Some(socket) = socket.and_then(|own| own.socket.as_ref()) {
                // what does not leave is missed by the other side and sent again
                let _ = socket.send_to(&datagram, peer.config.peer);
            }
        }
    }

    fn show(&mut self, now: u64) {
        let mut status = SyncStatus {
            peers: self.peers.iter().map(|peer| row(peer, now)).collect(),
            ..SyncStatus::default()
        };
        if let Some(feeds) = &self.plan.feeds {
            let applied = feeds.applied();
            status.applied = applied.applied;
            status.lost = feeds.lost(Listener::Peers);
            status.refused = (Refusal::ALL.iter().zip(applied.refused))
                .filter(|(_, count)| *count > 0)
                .map(|(refusal, count)| (refusal.name().to_owned(), count))
                .collect::<BTreeMap<_, _>>();
            status.complete = feeds.is_copied();
        }
        // who reads holds it for the time of a copy of one pointer
        if let Ok(mut place) = self.status.try_lock() {
            *place = Arc::new(status);
        }
    }
}

fn open(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // as much as the system allows
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn row(peer: &Peer, now: u64) -> SyncRow {
    let (link, config) = (&peer.link, &peer.config);
    let (outgoing, incoming) = (link.outgoing(), link.incoming());
    let lag = |quantile: f64| outgoing.lag.as_ref().map_or(0, |lag| lag.value_at_quantile(quantile));
    let copy = match link.copying() {
        Copying::No => "none",
        Copying::Asked => "asked",
        Copying::Begun => "under way",
        Copying::Done => "complete",
    };
    SyncRow {
        name: config.name.clone(),
        listen: config.listen,
        peer: config.peer,
        state: if link.is_up() { "up" } else { "down" }.to_owned(),
        since_ms: if link.is_up() { now.saturating_sub(link.since_ns) / 1_000_000 } else { 0 },
        sessions: link.sessions,
        copy: copy.to_owned(),
        copy_ms: link.copied_ns().unwrap_or_default() / 1_000_000,
        told: link.told,
        heard: link.taken,
        datagrams_sent: outgoing.datagrams,
        datagrams_repeated: outgoing.repeated,
        datagrams_waiting: outgoing.waiting() as u64,
        datagrams_heard: incoming.datagrams,
        datagrams_useless: incoming.useless,
        datagrams_gone: outgoing.gone + incoming.gone,
        datagrams_strange: link.strange,
        datagrams_forged: link.forged,
        lag_p50_us: lag(0.5),
        lag_p99_us: lag(0.99),
        lag_max_us: outgoing.lag.as_ref().map_or(0, |lag| lag.max()),
    }
}
