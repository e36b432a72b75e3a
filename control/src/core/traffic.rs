//! What services and servers count, as IPVS shows it: see [`rates`](super::rates).

use std::net::SocketAddr;

use lb_config::ServiceRef;
use lb_dataplane::director::{DestRow, Director, ServiceRow};

use super::Core;
use super::rates::{Counters, Rates, TICK_MS};
use crate::api::{
    ApiError, Changes, ErrorKind, RatedServer, RatedService, Rates as Rows, Response, Traffic as Row,
};

/// The estimators of all services and servers.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By name.
    services: Rates<String>,
    /// By the service's name.
    servers: Rates<(String, SocketAddr)>,
    next_ms: u64,
    /// Of a round under way: the service that is next, and when it began, ms.
    round: Option<(usize, u64)>,
}

/// Services that are read in one turn, however early it comes.
const AT_ONCE: usize = 256;

impl Traffic {
    /// Reads the counters when it is time for that.
    pub fn turn(&mut self, director: &Director, now_ms: u64) {
        let count = director.model().services.len();
        let (at, since_ms) = match self.round {
            Some(round) => round,
            None if now_ms < self.next_ms => return,
            None => {
                // A turn that comes late does not put off those after it.
                self.next_ms = now_ms - now_ms % TICK_MS + TICK_MS;
                (0, now_ms)
            }
        };
        // Few are read at once, many bit by bit: the control core has other things to do.
        let due = count as u64 * (now_ms - since_ms) / (TICK_MS * 3 / 4);
        let until = (at + AT_ONCE).max(usize::try_from(due).unwrap_or(usize::MAX)).min(count);
        for service in director.services_in(at..until) {
            self.services.read(service.name.clone(), of_service(&service));
            for server in servers(&service) {
                self.servers.read((service.name.clone(), server.address), server.counted);
            }
        }
        self.round = (until < count).then_some((until, since_ms));
        if self.round.is_none() {
            self.services.end_round();
            self.servers.end_round();
        }
    }

    /// Sets back the counters of all services and servers, or of the service of this name.
    pub fn set_back(&mut self, director: &Director, name: Option<&str>) {
        for service in director.services().iter().filter(|s| name.is_none_or(|name| name == s.name)) {
            self.services.set_back(&service.name);
            for server in servers(service) {
                self.servers.set_back(&(service.name.clone(), server.address));
            }
        }
    }

    /// The API's rows. Servers that are gone from the configuration are not among them.
    pub fn rows(&self, director: &Director) -> Rows {
        let services = director.services().into_iter().map(|service| {
            let estimator = self.services.get(&service.name).of_object(of_service(&service));
            let servers = servers(&service).into_iter().filter(|server| !server.removed);
            RatedService {
                counted: row(estimator.counters()),
                per_second: row(estimator.rates()),
                servers: servers.map(|server| self.server(&service.name, &server)).collect(),
                service: service.name,
            }
        });
        Rows { services: services.collect() }
    }

    fn server(&self, service: &str, server: &Server) -> RatedServer {
        let estimator = self.servers.get(&(service.to_owned(), server.address)).of_object(server.counted);
        RatedServer {
            address: server.address,
            active: server.active,
            inactive: server.inactive,
            persistent: server.persistent,
            counted: row(estimator.counters()),
            per_second: row(estimator.rates()),
        }
    }
}

/// A server as IPVS has it: one object, where the director has another destination for each forwarding that the
/// server had while connections were made.
struct Server {
    address: SocketAddr,
    removed: bool,
    active: u64,
    inactive: u64,
    persistent: u64,
    counted: Counters,
}

/// In scheduling order; then those that are gone, with connections left.
fn servers(service: &ServiceRow) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::with_capacity(service.dests.len());
    for dest in service.dests.iter().filter(|dest| !dest.removed) {
        servers.push(Server::of(dest));
    }
    for dest in service.dests.iter().filter(|dest| dest.removed) {
        let gone = Server::of(dest);
        match servers.iter_mut().find(|server| server.address == gone.address) {
            Some(server) => server.add(&gone),
            None => servers.push(gone),
        }
    }
    servers
}

impl Server {
    fn of(dest: &DestRow) -> Self {
        Self {
            address: SocketAddr::new(dest.address, dest.port),
            removed: dest.removed,
            active: dest.active,
            inactive: dest.inactive,
            persistent: dest.persistent,
            counted: [dest.conns, dest.in_packets, dest.out_packets, dest.in_bytes, dest.out_bytes],
        }
    }

    fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.inactive += other.inactive;
        self.persistent += other.persistent;
        self.counted = std::array::from_fn(|at| self.counted[at] + other.counted[at]);
    }
}

fn of_service(row: &ServiceRow) -> Counters {
    [row.conns, row.in_packets, row.out_packets, row.in_bytes, row.out_bytes]
}

fn row([connections, in_packets, out_packets, in_bytes, out_bytes]: Counters) -> Row {
    Row { connections, in_packets, out_packets, in_bytes, out_bytes }
}

impl Core {
    /// Sets counters back. Errors: there is no service of that name.
    pub(super) fn zero(&mut self, service: Option<&str>) -> Result<Response, ApiError> {
        let name = match service {
            None => None,
            Some(text) => {
                let reference: ServiceRef = text.parse()?;
                let missing =
                    || ApiError::new(ErrorKind::NotFound, format!("there is no service {reference}"));
                let at = reference.find(self.model()).ok_or_else(missing)?;
                self.model().services.get(at).map(|service| service.name.clone())
            }
        };
        self.traffic.set_back(&self.director, name.as_deref());
        Ok(Response::Changes(Changes::default()))
    }
}
