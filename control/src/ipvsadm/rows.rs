//! Rows of the API as ipvsadm's.

use std::collections::HashMap;
use std::net::SocketAddr;

use lb_config::Model;

use super::convert::address_of;
use super::table::{SCTP, TCP, UDP};
use super::{Address, Connection, Counts, ServerCounters, ServiceCounters};
use crate::api::{ConnectionRow, RatedServer, Rates, Traffic};

/// What the services of `model` have counted.
pub fn counters(rates: Rates, model: &Model) -> Vec<ServiceCounters> {
    let addresses: HashMap<&str, Address> =
        model.services.iter().map(|s| (s.name.as_str(), address_of(s))).collect();
    // A service that was made since has no line in the listing either.
    let known = rates.services.into_iter().filter_map(|service| {
        Some(ServiceCounters {
            address: addresses.get(service.service.as_str())?.clone(),
            stats: counts(service.counted),
            rates: counts(service.per_second),
            servers: service.servers.into_iter().map(server).collect(),
        })
    });
    known.collect()
}

fn counts(traffic: Traffic) -> Counts {
    let Traffic { connections, in_packets, out_packets, in_bytes, out_bytes } = traffic;
    Counts { connections, in_packets, out_packets, in_bytes, out_bytes }
}

fn server(row: RatedServer) -> ServerCounters {
    ServerCounters {
        address: row.address.ip(),
        port: row.address.port(),
        active: row.active,
        inactive: row.inactive,
        persistent: row.persistent,
        stats: counts(row.counted),
        rates: counts(row.per_second),
    }
}

/// A line of `-Lc`.
pub fn connection(row: ConnectionRow) -> Connection {
    let parts = |address: SocketAddr| (address.ip(), address.port());
    Connection {
        protocol: match row.protocol.as_str() {
            "tcp" => TCP,
            "udp" => UDP,
            "sctp" => SCTP,
            _ => 0,
        },
        expires_s: row.expires_ms / 1000,
        state: row.state,
        client: parts(row.client),
        virtual_address: parts(row.vip),
        destination: parts(row.server),
        engine: None,
    }
}
