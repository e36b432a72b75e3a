//! A director that can be killed and begun again with the tables that it left, and that tells another its connections.
//!
//! As `lbd` does it: tables lie in memory that outlives the director, a journal says what the indices in them stand for,
//! secrets stay the same, and the one that begins checks and counts every entry. Here that memory is a map by name and the
//! journal a list; there they are files. Two directors have each other's connections by the records of `sync`, which here go
//! from queue to queue without a network between; which of them has the VIP is said by the bit that VRRP sets.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use lb_config::{Model, Server, Service, ServiceAddress};
use lb_dataplane::conn::memory::{Lender, Life, Loan, Request};
use lb_dataplane::director::{DestKey, Director, Journal, Owner};
use lb_dataplane::ids::DestId;
use lb_dataplane::keep::{Estate, Loss, Moment, Secrets, take_over};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::sync::{Feeds, Listener};
use lb_dataplane::tables::{Kind, Tables};
use lb_dataplane::worker::Worker;
use lb_dpdk::TableMemory;

use super::changes::HOSTS;
use super::field::Field;
use crate::frames::{GATEWAY, MAC, SERVERS};
use crate::site::Forwarding;

/// That there is another director, with which VIPs and connections are shared.
pub const SHARED: &str = "[[vrrp]]\nname = \"v\"\nport = \"lan\"\nvrid = 51\n\
                          virtual_addresses = [\"192.168.150.100\", \"192.168.150.101\"]\n\
                          [[sync]]\nname = \"other\"\nlisten = \"127.0.0.1:8849\"\npeer = \"127.0.0.2:8849\"\n\
                          key = \"0123456789abcdef\"\nhandshakes = true\n";
/// Simulated time that a director is away when it is killed, ns.
const AWAY_NS: u64 = 200_000_000;
/// Simulated time of a turn in which neighbours say who they are, ns.
const TURN_NS: u64 = 1_000;

/// Memory by name, which outlives who had it.
#[derive(Debug)]
struct Shelf {
    kept: Mutex<HashMap<String, Loan>>,
    lent: Mutex<HashMap<usize, String>>,
    fresh: Arc<TableMemory>,
}

impl Lender for Shelf {
    fn lend(&self, request: &Request) -> Option<Loan> {
        let there = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&request.name);
        let loan = match there.filter(|loan| loan.memory.len() == request.bytes) {
            Some(loan) => Loan { life: Life::Left, ..loan },
            None => Loan { life: Life::Kept, ..self.fresh.lend(request)? },
        };
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.insert(loan.memory.as_ptr().addr(), request.name.clone());
        Some(loan)
    }

    fn take_back(&self, memory: &'static mut [u8]) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = lent.remove(&memory.as_ptr().addr()) {
            let loan = Loan { memory, pages: lb_dataplane::conn::memory::Pages::Advised, life: Life::Left };
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name, loan);
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let kept = std::mem::take(self.kept.get_mut().unwrap_or_else(PoisonError::into_inner));
        kept.into_values().for_each(|loan| self.fresh.take_back(loan.memory));
    }
}

/// What was written down of services and indices.
#[derive(Debug, Default)]
struct Notes {
    services: HashMap<ServiceAddress, Service>,
    dests: BTreeMap<u32, DestKey>,
}

#[derive(Clone, Debug, Default)]
struct Book(Arc<Mutex<Notes>>);

impl Book {
    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Book {
    fn service(&mut self, service: &Service) {
        self.notes().services.insert(service.address, service.clone());
    }

    fn dest(&mut self, dest: DestId, key: &DestKey, _: bool) {
        let mut notes = self.notes();
        notes.dests.retain(|_, known| known != key);
        notes.dests.insert(dest.0, *key);
    }

    fn close(&mut self) {}

    fn is_long(&self) -> bool {
        false
    }

    fn begin(&mut self) {
        *self.notes() = Notes::default();
    }
}

/// What outlives a director.
struct Remains {
    shelf: Arc<Shelf>,
    book: Book,
    secrets: Secrets,
}

/// A director, its worker, and what would be left of them.
pub struct Node {
    pub director: Director,
    pub worker: Worker<Field>,
    remains: Remains,
    feeds: Option<Arc<Feeds>>,
    forwarding: Forwarding,
}

impl Node {
    /// A director that nobody was before, whose neighbours have introduced themselves.
    pub fn new(model: &Model, forwarding: Forwarding, io: Field, now_ns: u64) -> anyhow::Result<Self> {
        let shelf = Shelf { kept: Mutex::default(), lent: Mutex::default(), fresh: TableMemory::new() };
        let remains = Remains { shelf: Arc::new(shelf), book: Book::default(), secrets: Secrets::random(1) };
        Ok(Self::begin(model, forwarding, io, remains, now_ns)?.0)
    }

    /// One that goes on with what is left, and how many connections it could not take over though their time had not passed.
    fn begin(
        model: &Model,
        forwarding: Forwarding,
        io: Field,
        remains: Remains,
        now_ns: u64,
    ) -> anyhow::Result<(Self, u64)> {
        let Notes { mut services, dests } = std::mem::take(&mut *remains.book.notes());
        services.values_mut().for_each(|service| service.servers.clear());
        for key in dests.values() {
            let Owner::Service(address) = key.owner else { continue };
            let server = Server { weight: 0, ..Server::new(key.address, key.port, key.forwarding) };
            services.get_mut(&address).context("a service that was not written down")?.servers.push(server);
        }
        let services: Vec<Arc<Service>> = services.into_values().map(Arc::new).collect();
        let estate = Estate {
            secrets: remains.secrets.clone(),
            former: dests.iter().map(|(index, key)| (DestId(*index), *key)).collect(),
            services: services.clone(),
            ..Estate::new(1)
        };
        let devices = vec![DeviceSetup { mac: MAC, rss: true }];
        let (mut director, mut seeds) = Director::heir(model, devices, estate)?;
        let seed = seeds.pop().context("a worker")?;
        let lender: Arc<dyn Lender> = remains.shelf.clone();
        let own: Vec<_> = remains.secrets.workers.iter().map(|worker| worker.table).collect();
        let used = |kind| kind == Kind::V4 || kind == Kind::Pairs4 && forwarding.reply().is_some();
        let tables = Tables::with_secrets(&own, seed.setup.connections_per_worker, used, &lender)?;
        let mut tables = tables.into_iter().next().context("a worker's tables")?;
        let moment = Moment { last_ns: now_ns.saturating_sub(AWAY_NS), now_ns };
        let taken = take_over(&mut tables, &seed, &moment);
        let lost = taken.lost.iter().sum::<u64>() - taken.lost[Loss::Expired as usize];
        director.keep_journal(Box::new(remains.book.clone()), &services);
        let worker = Worker::with_tables(seed, io, tables);
        let feeds = director.feeds();
        let mut node = Self { director, worker, remains, feeds, forwarding };
        node.meet(now_ns)?;
        Ok((node, lost))
    }

    /// All neighbours say who they are.
    fn meet(&mut self, now_ns: u64) -> anyhow::Result<()> {
        self.director.poll(now_ns / 1_000_000);
        self.worker.io_mut().introduce((SERVERS..SERVERS + HOSTS).chain([GATEWAY]));
        let mut turns = 0;
        while self.worker.io_mut().is_introducing() {
            turns += 1;
            ensure!(turns < 10_000, "neighbours do not come to an end");
            self.worker.turn(now_ns + turns * TURN_NS);
        }
        self.director.poll(now_ns / 1_000_000 + 1);
        Ok(())
    }

    /// Is killed, and begins again a moment later with the tables and the journal that it left. Returns the time then, and
    /// how many connections were lost.
    pub fn restarted(self, now_ns: u64) -> anyhow::Result<(Self, u64, u64)> {
        let Self { director, mut worker, remains, forwarding, .. } = self;
        ensure!(director.totals().held == 0, "frames wait when the director is killed");
        let silent = worker.io_mut().silent();
        let io = std::mem::replace(worker.io_mut(), silent);
        let model = director.model().clone();
        let is_master = match director.owner_of("v") {
            Some(owner) => director.owner_cells().is_master(owner),
            None => false,
        };
        // its memory goes back to the shelf, as files are there when a process is not
        drop(worker);
        drop(director);
        let now_ns = now_ns + AWAY_NS;
        let (node, lost) = Self::begin(&model, forwarding, io, remains, now_ns)?;
        node.lead(is_master);
        Ok((node, now_ns + 100 * TURN_NS, lost))
    }

    /// Has the VIPs from now on, or no longer.
    pub fn lead(&self, is_master: bool) {
        if let Some(owner) = self.director.owner_of("v") {
            self.director.owner_cells().set(owner, is_master);
        }
    }

    /// Hands what this one has told to another, and lets that one take it in. Errors: something was lost on the way.
    pub fn tell(&self, other: &mut Self, now_ns: u64) -> anyhow::Result<()> {
        let (Some(own), Some(theirs)) = (&self.feeds, other.feeds.clone()) else { return Ok(()) };
        while let Some(record) = own.next(Listener::Peers, 0) {
            let fits = theirs.apply(record).is_ok();
            ensure!(fits, "no room for what another director told");
        }
        ensure!(own.lost(Listener::Peers) == 0, "records were lost");
        other.worker.turn(now_ns);
        while !theirs.is_applied() {
            other.worker.turn(now_ns);
        }
        Ok(())
    }

    /// Records that this one could not take in, by why.
    pub fn refused(&self) -> u64 {
        self.feeds.as_ref().map_or(0, |feeds| feeds.applied().refused.iter().sum())
    }
}
