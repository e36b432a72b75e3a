//! The running director over its socket, as a host.

use std::path::PathBuf;

use lb_config::Model;

use super::convert::address_of;
use super::{Address, Connection, Host, HostError, ServiceCounters, Table, rows};
use crate::api::{Client, ClientError, ConnectionFilter, ErrorKind, MAX_CONNECTION_ROWS, Request, Response};

/// A director that is asked over its Unix socket; it is connected to at the first question.
#[derive(Debug)]
pub struct ClientHost {
    socket: PathBuf,
    client: Option<Client>,
    /// The configuration that was shown last, and its number.
    base: Option<(Model, u64)>,
    notes: Vec<String>,
}

impl ClientHost {
    /// The director that listens on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), client: None, base: None, notes: Vec::new() }
    }

    fn call(&mut self, request: &Request) -> Result<Response, HostError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.socket).map_err(failed)?),
        };
        client.call(request).map_err(failed)
    }

    /// The configuration that runs now.
    fn show(&mut self) -> Result<&Model, HostError> {
        let Response::Config(config) = self.call(&Request::Show)? else { return Err(unexpected()) };
        let model =
            lb_config::parse(&config.toml).map_err(|faults| HostError::Refused(faults.to_string()))?;
        Ok(&self.base.insert((model, config.generation)).0)
    }

    /// The configuration that was shown last, or the one that runs now.
    fn base(&mut self) -> Result<&Model, HostError> {
        if self.base.is_none() {
            self.show()?;
        }
        self.base.as_ref().map(|(model, _)| model).ok_or_else(unexpected)
    }
}

fn failed(error: ClientError) -> HostError {
    match error {
        ClientError::Refused(refused) if refused.kind == ErrorKind::Conflict => HostError::Conflict,
        error if error.is_unreachable() => HostError::Unreachable(error.to_string()),
        error => HostError::Refused(error.to_string()),
    }
}

fn unexpected() -> HostError {
    HostError::Refused(ClientError::Unexpected.to_string())
}

impl Host for ClientHost {
    fn table(&mut self) -> Result<Table, HostError> {
        self.show().map(Table::of)
    }

    fn in_force(&mut self) -> Result<Table, HostError> {
        let Response::Config(config) = self.call(&Request::ShowEffective)? else { return Err(unexpected()) };
        let model =
            lb_config::parse(&config.toml).map_err(|faults| HostError::Refused(faults.to_string()))?;
        Ok(Table::of(&model))
    }

    fn store(&mut self, table: &Table) -> Result<(), HostError> {
        self.base()?;
        let Some((base, generation)) = self.base.take() else { return Err(unexpected()) };
        let toml = lb_config::to_toml(&table.model(&base)?);
        match self.call(&Request::Exchange { toml, generation })? {
            // What is doubtful is in lbd's log: scripts know what ipvsadm prints.
            Response::Changes(_) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
        let Response::Rates(rates) = self.call(&Request::Rates)? else { return Err(unexpected()) };
        Ok(rows::counters(rates, self.base()?))
    }

    fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
        let limit = Some(MAX_CONNECTION_ROWS);
        let filter = ConnectionFilter { limit, ..ConnectionFilter::default() };
        let Response::Connections(listed) = self.call(&Request::Connections(filter))? else {
            return Err(unexpected());
        };
        if listed.truncated {
            self.notes.push(format!("only {MAX_CONNECTION_ROWS} connections are listed, there are more"));
        }
        Ok(listed.connections.into_iter().filter(|row| !row.snat).map(rows::connection).collect())
    }

    fn zero(&mut self, service: Option<&Address>) -> Result<(), HostError> {
        let name = match service {
            None => None,
            Some(address) => {
                let found = self.base()?.services.iter().find(|service| address_of(service) == *address);
                let gone = || HostError::Refused(super::IpvsError::NoSuchService.to_string());
                Some(found.ok_or_else(gone)?.name.clone())
            }
        };
        self.call(&Request::Zero { service: name }).map(drop)
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}
