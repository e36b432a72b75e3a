//! Connections: every worker lists its own between bursts, the rows meet here.

use std::collections::HashMap;
use std::net::SocketAddr;

use lb_config::{Protocol, ServiceAddress, ServiceRef};
use lb_dataplane::classify::Lookup;
use lb_dataplane::ids::DestId;
use lb_dataplane::mailbox::{ConnFilter, ConnRow};
use lb_dataplane::persist::{Listed, ListedPort};
use lb_dataplane::state::State;
use tokio::sync::oneshot;

use super::{Core, explain, respond};
use crate::api::{
    ApiError, ConnectionFilter, ConnectionRow, Connections, DEFAULT_CONNECTION_ROWS, ErrorKind, Flushed,
    MAX_CONNECTION_ROWS, Response,
};

/// Longest wait for the workers: a table of 200 million lines is walked in steps between bursts.
const LISTED_WITHIN_MS: u64 = 30_000;

/// A listing that workers are at.
pub(super) struct Waiting {
    ticket: u64,
    then: Then,
    until_ms: u64,
    /// The rows and how many matched, when the workers are done.
    listed: Option<(Vec<ConnRow>, u64)>,
    reply: oneshot::Sender<Response>,
}

/// What becomes of what the workers found.
pub(super) enum Then {
    /// So many rows at most are shown, templates that the filter admits among them.
    List(usize, ConnFilter),
    /// Nothing: the connections are gone, their number is told.
    Flushed,
    /// The packet of this connection is explained.
    Explain(Lookup),
}

impl Core {
    /// Asks the workers; the reply comes when all have answered.
    pub(super) fn list(&mut self, filter: &ConnectionFilter, reply: oneshot::Sender<Response>, now_ms: u64) {
        match self.ask_workers(filter) {
            Ok((ticket, limit, filter)) => {
                let until_ms = now_ms + LISTED_WITHIN_MS;
                self.listings.push(Waiting {
                    ticket,
                    then: Then::List(limit, filter),
                    until_ms,
                    listed: None,
                    reply,
                });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    /// Has the workers forget connections; the reply comes when all have.
    pub(super) fn flush(&mut self, filter: &ConnectionFilter, reply: oneshot::Sender<Response>, now_ms: u64) {
        let until_ms = now_ms + LISTED_WITHIN_MS;
        match self.tell_workers(filter) {
            Ok(ticket) => {
                self.listings.push(Waiting { ticket, then: Then::Flushed, until_ms, listed: None, reply });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    /// Has the workers look for a packet's connection; the reply explains what would become of the packet.
    pub(super) fn look_for(&mut self, packet: Lookup, reply: oneshot::Sender<Response>, now_ms: u64) {
        let filter = ConnFilter {
            client: Some(packet.src),
            client_port: Some(packet.src_port),
            vip: Some(packet.dst),
            vip_port: Some(packet.dst_port),
            protocol: Some(packet.protocol.protocol()),
            ..ConnFilter::default()
        };
        match self.director.list_connections(filter, 1) {
            Some(ticket) => {
                let (then, until_ms) = (Then::Explain(packet), now_ms + LISTED_WITHIN_MS);
                self.listings.push(Waiting { ticket, then, until_ms, listed: None, reply });
            }
            None => respond(reply, Err(busy())),
        }
    }

    fn tell_workers(&mut self, filter: &ConnectionFilter) -> Result<u64, ApiError> {
        if let Some(limit) = filter.limit {
            let message = format!("limit {limit}: connections are flushed without a limit");
            return Err(ApiError::new(ErrorKind::Invalid, message));
        }
        let filter = self.translate(filter)?;
        self.director.flush_connections(filter).ok_or_else(busy)
    }

    fn ask_workers(&mut self, filter: &ConnectionFilter) -> Result<(u64, usize, ConnFilter), ApiError> {
        let invalid = |message| ApiError::new(ErrorKind::Invalid, message);
        let limit = filter.limit.unwrap_or(DEFAULT_CONNECTION_ROWS);
        if !(1..=MAX_CONNECTION_ROWS).contains(&limit) {
            return Err(invalid(format!("limit {limit} is not in 1 to {MAX_CONNECTION_ROWS}")));
        }
        let limit = limit as usize;
        let filter = self.translate(filter)?;
        let ticket = self.director.list_connections(filter, limit);
        Ok((ticket.ok_or_else(busy)?, limit, filter))
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
            let invalid = |message| ApiError::new(ErrorKind::Invalid, message);
            let ServiceAddress::Vip { vip, port, protocol } = service.address else {
                let message =
                    format!("service {reference} is not one VIP and port: filter by --vip or --server");
                return Err(invalid(message));
            };
            if filter.vip.is_some_and(|other| vip != other)
                || wanted.protocol.is_some_and(|other| protocol != other)
            {
                let message = format!("service {reference} has another VIP or protocol than the filter");
                return Err(invalid(message));
            }
            wanted.vip = Some(vip);
            wanted.vip_port = (port != 0).then_some(port);
            wanted.protocol = Some(protocol);
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
            let response = match (waiting.listed, waiting.then) {
                (Some((mut rows, matched)), Then::List(limit, filter)) => {
                    rows.truncate(limit);
                    let cut = matched > rows.len() as u64;
                    let mut connections: Vec<ConnectionRow> =
                        rows.iter().filter_map(|row| self.connection(row, &names)).collect();
                    let templates = self.templates(&filter, &names);
                    let room = limit - connections.len();
                    let truncated = cut || templates.len() > room;
                    connections.extend(templates.into_iter().take(room));
                    Ok(Response::Connections(Connections { truncated, connections }))
                }
                (Some((_, connections)), Then::Flushed) => Ok(Response::Flushed(Flushed { connections })),
                (Some((rows, _)), Then::Explain(packet)) => {
                    Ok(Response::Explanation(explain::told(&self.director, &packet, rows.first())))
                }
                (None, _) => {
                    let message = format!(
                        "the workers did not go through their connections within {LISTED_WITHIN_MS} ms"
                    );
                    Err(ApiError::new(ErrorKind::Failed, message))
                }
            };
            respond(waiting.reply, response);
        }
    }

    /// Name of the service of each destination.
    fn names(&self) -> HashMap<DestId, String> {
        let services = self.director.services();
        let pairs = services.iter().flat_map(|s| s.dests.iter().map(|dest| (dest.dest, s.name.clone())));
        let rules = self.director.snat().into_iter().map(|(name, row)| (row.dest, name));
        pairs.chain(rules).collect()
    }

    /// `None`: the connection's server was let go since, and with it the connection.
    fn connection(&self, row: &ConnRow, names: &HashMap<DestId, String>) -> Option<ConnectionRow> {
        let server = self.director.server_of(row.dest)?;
        let snat = self.director.is_snat(row.dest);
        // Port 0 of a server is the one that the client used; with source NAT there is none but whom the host asked.
        let port = if server.port == 0 { row.vip.1 } else { server.port };
        Some(ConnectionRow {
            protocol: row.protocol.as_str().to_owned(),
            state: row.state.name().to_owned(),
            expires_ms: row.expires_ms(),
            client: row.client.into(),
            vip: row.vip.into(),
            server: if snat { row.vip.into() } else { SocketAddr::new(server.address, port) },
            local: row.local.map(Into::into),
            snat,
            service: names.get(&row.dest).cloned(),
            template: false,
        })
    }

    /// The persistence templates that a filter admits. They have no state of a protocol, so a filter by state admits
    /// none.
    fn templates(&self, filter: &ConnFilter, names: &HashMap<DestId, String>) -> Vec<ConnectionRow> {
        let row = |template: Listed| {
            let server = self.director.server_of(template.dest)?;
            let key = template.key;
            let protocol = match key.protocol() {
                6 => Some(Protocol::Tcp),
                17 => Some(Protocol::Udp),
                132 => Some(Protocol::Sctp),
                _ => None,
            };
            let admitted = filter.client.is_none_or(|client| client == key.client())
                && filter.vip.is_none_or(|vip| vip == key.vip())
                && filter.vip_port.is_none_or(|port| port == key.vport())
                && filter.server.is_none_or(|address| address == server.address)
                && filter.protocol.is_none_or(|wanted| protocol == Some(wanted))
                && filter.state.is_none();
            let port = match template.port {
                ListedPort::Server => server.port,
                ListedPort::Any => 0,
                ListedPort::Replaced => u16::MAX,
            };
            admitted.then(|| ConnectionRow {
                protocol: protocol.map_or_else(|| "ip".to_owned(), |protocol| protocol.to_string()),
                state: if template.assured { "ASSURED" } else { "NONE" }.to_owned(),
                expires_ms: template.left_ns / 1_000_000,
                client: SocketAddr::new(key.client(), 0),
                vip: SocketAddr::new(key.vip(), template.vport()),
                server: SocketAddr::new(server.address, port),
                local: None,
                snat: false,
                service: names.get(&template.dest).cloned(),
                template: true,
            })
        };
        self.director.templates().into_iter().filter_map(row).collect()
    }
}

fn busy() -> ApiError {
    ApiError::new(ErrorKind::Busy, "the workers have more listings to do than they can take")
}

/// Reads a state's name, in any case.
fn state(text: &str) -> Result<State, ApiError> {
    let all = State::ALL.into_iter();
    let upper = text.to_uppercase();
    let found = all.clone().find(|state| state.name() == upper);
    found.ok_or_else(|| {
        // SCTP's NONE and ESTABLISHED have the names of TCP's.
        let mut names: Vec<&str> = Vec::new();
        all.map(State::name).for_each(|name| {
            if !names.contains(&name) {
                names.push(name)
            }
        });
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
                 close_wait, last_ack, listen, synack, udp, init1, init, c-sent, c-replied, c-wait, cookie, c-echoed, \
                 s-sent, s-received, s-ack-sent, rejected, closed)"
                .into())
        );
    }
}
