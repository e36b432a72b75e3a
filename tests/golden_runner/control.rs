//! The recorded commands, run by the tool of lb-control against the control core in memory.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow, bail};
use lb_config::Model;
use lb_control::api::{ApiError, ConnectionFilter, ErrorKind, MAX_CONNECTION_ROWS, Request, Response};
use lb_control::ipvsadm::{self, Address, Connection, Host, HostError, Names, ServiceCounters, Table};

use crate::lab::{Lab, Settings};

/// What a command did.
#[derive(Debug, Default)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A tracked connection or template as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn {
    pub protocol: String,
    pub client: SocketAddr,
    pub virtual_: SocketAddr,
    pub server: SocketAddr,
    pub state: String,
    /// Whole seconds left.
    pub left: u64,
}

/// A destination of a service.
#[derive(Clone, Debug)]
pub struct Dest {
    pub address: IpAddr,
    pub weight: u32,
    pub active: u64,
    pub inactive: u64,
}

/// The lab with the tool.
pub struct Control {
    pub lab: Lab,
    /// The configuration that the tool was shown last, and its number.
    base: Option<(Model, u64)>,
    names: Names,
}

/// Names that were known where the transcripts were recorded.
const HOSTS: &str = "127.0.0.1 localhost\n";
/// See [`HOSTS`].
const SERVICES: &str = "http 80/tcp\nhttps 443/tcp\nhttp-alt 8080/tcp\ndomain 53/tcp\ndomain 53/udp\nsip 5060/udp\n\
    mdns 5353/udp\ntcpmux 1/tcp\necho 7/tcp\ndiscard 9/tcp\nsystat 11/tcp\ndaytime 13/tcp\n";

impl Control {
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { lab: Lab::new(settings)?, base: None, names: Names::new(HOSTS, SERVICES) })
    }

    /// Runs `ipvsadm ARGS`.
    pub fn ipvsadm(&mut self, args: &[String], mut stdin: &[u8]) -> Output {
        let names = self.names.clone();
        let output = ipvsadm::run_with(args, &mut stdin, self, &names);
        Output { code: output.code.into(), stdout: output.stdout, stderr: output.stderr }
    }

    /// Runs a recorded command line that is nothing but ipvsadm.
    pub fn command(&mut self, line: &str) -> Result<Output> {
        let mut words = line.split_whitespace().map(str::to_owned);
        if words.next().as_deref() != Some("ipvsadm") {
            bail!("not a command of ipvsadm: {line}");
        }
        let args: Vec<_> = words.collect();
        Ok(self.ipvsadm(&args, &[]))
    }

    /// The destinations of all services.
    pub fn dests(&mut self) -> Result<Vec<Dest>> {
        let Response::Rates(rates) = self.lab.call(Request::Rates)? else { bail!("an unexpected answer") };
        let model = self.lab.model();
        let weight = |service: &str, at: SocketAddr| {
            let service = model.services.iter().find(|known| known.name == service)?;
            service.servers.iter().find(|server| server.key() == at).map(|server| server.weight)
        };
        let mut dests = Vec::new();
        for service in &rates.services {
            dests.extend(service.servers.iter().map(|server| Dest {
                address: server.address.ip(),
                weight: weight(&service.service, server.address).unwrap_or_default(),
                active: server.active,
                inactive: server.inactive,
            }));
        }
        Ok(dests)
    }

    /// All connections and templates, sorted.
    pub fn connections(&mut self) -> Result<Vec<Conn>> {
        let rows = Host::connections(self).map_err(|error| anyhow!("{error}"))?;
        let end = |(address, port): (IpAddr, u16)| SocketAddr::new(address, port);
        let protocol = |number: u8| match number {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            132 => "SCTP".to_owned(),
            0 => "IP".to_owned(),
            other => other.to_string(),
        };
        let mut conns: Vec<_> = rows
            .into_iter()
            .map(|row| Conn {
                protocol: protocol(row.protocol),
                client: end(row.client),
                virtual_: end(row.virtual_address),
                server: end(row.destination),
                state: row.state,
                left: row.expires_s,
            })
            .collect();
        conns.sort();
        Ok(conns)
    }

    fn base(&mut self) -> Result<&Model, HostError> {
        if self.base.is_none() {
            self.table()?;
        }
        self.base.as_ref().map(|(model, _)| model).ok_or_else(unexpected)
    }
}

fn failed(error: ApiError) -> HostError {
    match error.kind {
        ErrorKind::Conflict => HostError::Conflict,
        _ => HostError::Refused(error.to_string()),
    }
}

fn unexpected() -> HostError {
    HostError::Refused("an unexpected answer".to_owned())
}

/// As lbctl talks to lbd, without the socket between.
impl Host for Control {
    fn table(&mut self) -> Result<Table, HostError> {
        let Response::Config(config) = self.lab.call(Request::Show).map_err(failed)? else {
            return Err(unexpected());
        };
        let model =
            lb_config::parse(&config.toml).map_err(|faults| HostError::Refused(faults.to_string()))?;
        let table = Table::of(&model);
        self.base = Some((model, config.generation));
        Ok(table)
    }

    fn store(&mut self, table: &Table) -> Result<(), HostError> {
        self.base()?;
        let Some((base, generation)) = self.base.take() else { return Err(unexpected()) };
        let toml = lb_config::to_toml(&table.model(&base)?);
        self.lab.call(Request::Exchange { toml, generation }).map(drop).map_err(failed)
    }

    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
        let Response::Rates(rates) = self.lab.call(Request::Rates).map_err(failed)? else {
            return Err(unexpected());
        };
        Ok(ipvsadm::counters(rates, self.base()?))
    }

    fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
        let limit = Some(MAX_CONNECTION_ROWS);
        let filter = ConnectionFilter { limit, ..ConnectionFilter::default() };
        let Response::Connections(listed) = self.lab.call(Request::Connections(filter)).map_err(failed)?
        else {
            return Err(unexpected());
        };
        Ok(listed.connections.into_iter().map(ipvsadm::connection).collect())
    }

    fn zero(&mut self, service: Option<&Address>) -> Result<(), HostError> {
        let service = match service {
            None => None,
            Some(address) => {
                let services = &self.base()?.services;
                let found = services.iter().find(|service| ipvsadm::address_of(service) == *address);
                Some(found.ok_or_else(unexpected)?.name.clone())
            }
        };
        self.lab.call(Request::Zero { service }).map(drop).map_err(failed)
    }
}
