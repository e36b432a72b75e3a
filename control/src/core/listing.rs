//! Connections: every worker lists its own between bursts, the rows meet here.

use std::collections::HashMap;
use std::net::SocketAddr;

use lb_config::{Protocol, ServiceRef};
use lb_dataplane::ids::DestId;
use lb_dataplane::mailbox::{ConnFilter, ConnRow};
use lb_dataplane::state::State;
use tokio::sync::oneshot;

use super::{Core, respond};
use crate::api::{
    ApiError, ConnectionFilter, ConnectionRow, Connections, DEFAULT_CONNECTION_ROWS, ErrorKind,
    MAX_CONNECTION_ROWS, Response,
};

/// Longest wait for the workers: a table of 200 million lines is walked in steps between bursts.
const LISTED_WITHIN_MS: u64 = 30_000;

/// A listing that workers are at.
pub(super) struct Waiting {
    ticket: u64,
    limit: usize,
    until_ms: u64,
    /// The rows and how many matched, when the workers are done.
    listed: Option<(Vec<ConnRow>, u64)>,
    reply: oneshot::Sender<Response>,
}

impl Core {
    /// Asks the workers; the reply comes when all have answered.
    pub(super) fn list(&mut self, filter: &ConnectionFilter, reply: oneshot::Sender<Response>, now_ms: u64) {
        match self.ask_workers(filter) {
            Ok((ticket, limit)) => {
                let until_ms = now_ms + LISTED_WITHIN_MS;
                self.listings.push(Waiting { ticket, limit, until_ms, listed: None, reply });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    fn ask_workers(&mut self, filter: &ConnectionFilter) -> Result<(u64, usize), ApiError> {
        let invalid = |message| ApiError::new(ErrorKind::Invalid, message);
        let limit = filter.limit.unwrap_or(DEFAULT_CONNECTION_ROWS);
        if !(1..=MAX_CONNECTION_ROWS).contains(&limit) {
            return Err(invalid(format!("limit {limit} is not in 1 to {MAX_CONNECTION_ROWS}")));
        }
        let limit = limit as usize;
        let ticket = self.director.list_connections(self.translate(filter)?, limit);
        let busy =
            || ApiError::new(ErrorKind::Busy, "the workers have more listings to do than they can take");
        Ok((ticket.ok_or_else(busy)?, limit))
    }

    /// The filter in the workers' terms.
    fn translate(&self, filter: &ConnectionFilter) -> Result<ConnFilter, ApiError> {
        let mut wanted = ConnFilter {
            client: filter.client,
            vip: filter.vip,
            server: filter.server,
            ..ConnFilter::default()
        };
        wanted.protocol = filter.protocol.as_deref().map(str::parse::<Protocol>).transpose()?;
        wanted.state = filter.state.as_deref().map(state).transpose()?;
        if let Some(text) = &filter.service {
            let reference: ServiceRef = text.parse()?;
            let at = reference.find(self.model());
            let missing = || ApiError::new(ErrorKind::NotFound, format!("there is no service {reference}"));
            let service = &self.model().services[at.ok_or_else(missing)?];
            // a service is its VIP, port and protocol: a filter that says otherwise contradicts itself
            if filter.vip.is_some_and(|vip| vip != service.vip)
                || wanted.protocol.is_some_and(|protocol| protocol != service.protocol)
            {
                let message = format!("service {reference} has another VIP or protocol than the filter");
                return Err(ApiError::new(ErrorKind::Invalid, message));
            }
            wanted.vip = Some(service.vip);
            wanted.vip_port = Some(service.port);
            wanted.protocol = Some(service.protocol);
        }
        Ok(wanted)
    }

    /// Answers the listings that are complete.
    pub(super) fn answer_listings(&mut self, now_ms: u64) {
        if self.listings.is_empty() {
            return;
        }
        for waiting in &mut self.listings {
            if waiting.listed.is_none() {
                waiting.listed = self.director.connections(waiting.ticket);
            }
        }
        let done = |waiting: &mut Waiting| waiting.listed.is_some() || waiting.until_ms <= now_ms;
        let done: Vec<Waiting> = self.listings.extract_if(.., done).collect();
        if done.is_empty() {
            return;
        }
        let names = self.names();
        for waiting in done {
            let response = if let Some((mut rows, matched)) = waiting.listed {
                rows.truncate(waiting.limit);
                Ok(Response::Connections(Connections {
                    truncated: matched > rows.len() as u64,
                    connections: rows.iter().filter_map(|row| self.connection(row, &names)).collect(),
                }))
            } else {
                let message =
                    format!("the workers did not list their connections within {LISTED_WITHIN_MS} ms");
                Err(ApiError::new(ErrorKind::Failed, message))
            };
            respond(waiting.reply, response);
        }
    }

    /// Name of the service of each destination.
    fn names(&self) -> HashMap<DestId, String> {
        let services = self.director.services();
        let pairs = services.iter().flat_map(|s| s.dests.iter().map(|dest| (dest.dest, s.name.clone())));
        pairs.collect()
    }

    /// `None`: the connection's server was let go since, and with it the connection.
    fn connection(&self, row: &ConnRow, names: &HashMap<DestId, String>) -> Option<ConnectionRow> {
        Some(ConnectionRow {
            protocol: row.protocol.to_string(),
            state: row.state.name().to_owned(),
            expires_ms: row.expires_ms(),
            client: row.client.into(),
            vip: row.vip.into(),
            // Direct routing keeps the port.
            server: SocketAddr::new(self.director.server_of(row.dest)?, row.vip.1),
            service: names.get(&row.dest).cloned(),
        })
    }
}

/// Reads a state's name, in any case.
fn state(text: &str) -> Result<State, ApiError> {
    let all = (0..State::SLOTS as u8).map(State::from_bits);
    let upper = text.to_uppercase();
    let found = all.clone().find(|state| state.name() == upper);
    found.ok_or_else(|| {
        // Numbers without a state of their own repeat the first one.
        let mut names: Vec<&str> = all.map(State::name).collect();
        names.truncate(names.iter().rposition(|name| *name != State::None.name()).map_or(0, |last| last + 1));
        ApiError::new(
            ErrorKind::Invalid,
            format!("{text:?} is not a state (known: {})", names.join(", ").to_lowercase()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_in_any_case() {
        assert_eq!(state("established"), Ok(State::Established));
        assert_eq!(state("SYN_RECV"), Ok(State::SynRecv));
        assert_eq!(
            state("open").map_err(|e| e.message),
            Err("\"open\" is not a state (known: none, established, syn_sent, syn_recv, fin_wait, time_wait, close, \
                 close_wait, last_ack, listen, synack, udp)"
                .into())
        );
    }
}
