//! What services and servers count, as IPVS shows it: see [`rates`](super::rates).

use std::net::SocketAddr;

use lb_config::ServiceRef;
use lb_dataplane::director::{DestRow, Director, ServiceRow};
use lb_dataplane::ids::DestId;

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
    servers: Rates<DestId>,
    next_ms: u64,
}

impl Traffic {
    /// Reads the counters when it is time for that.
    pub fn turn(&mut self, director: &Director, now_ms: u64) {
        if now_ms < self.next_ms {
            return;
        }
        // A turn that comes late does not put off those after it.
        self.next_ms = now_ms - now_ms % TICK_MS + TICK_MS;
        let services = director.services();
        self.services.tick(services.iter().map(|service| (service.name.clone(), of_service(service))));
        let servers = services.iter().flat_map(|service| &service.dests);
        self.servers.tick(servers.map(|dest| (dest.dest, of_server(dest))));
    }

    /// Sets back the counters of all services and servers, or of the service of this name.
    pub fn set_back(&mut self, director: &Director, name: Option<&str>) {
        for service in director.services().iter().filter(|s| name.is_none_or(|name| name == s.name)) {
            self.services.set_back(&service.name);
            for dest in &service.dests {
                self.servers.set_back(&dest.dest);
            }
        }
    }

    /// The API's rows. Servers that are gone from the configuration are not among them.
    pub fn rows(&self, director: &Director) -> Rows {
        let services = director.services().into_iter().map(|service| {
            let estimator = self.services.get(&service.name).of_object(of_service(&service));
            RatedService {
                counted: row(estimator.counters()),
                per_second: row(estimator.rates()),
                servers: service.dests.iter().filter(|d| !d.removed).map(|d| self.server(d)).collect(),
                service: service.name,
            }
        });
        Rows { services: services.collect() }
    }

    fn server(&self, dest: &DestRow) -> RatedServer {
        let estimator = self.servers.get(&dest.dest).of_object(of_server(dest));
        RatedServer {
            address: SocketAddr::new(dest.address, dest.port),
            active: dest.active,
            inactive: dest.inactive,
            persistent: dest.persistent,
            counted: row(estimator.counters()),
            per_second: row(estimator.rates()),
        }
    }
}

fn of_service(row: &ServiceRow) -> Counters {
    [row.conns, row.in_packets, row.out_packets, row.in_bytes, row.out_bytes]
}

fn of_server(row: &DestRow) -> Counters {
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
