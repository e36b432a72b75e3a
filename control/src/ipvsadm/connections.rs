//! `-Lc`: the tracked connections.
//!
//! Rows come in the order in which the director has them. The kernel's is that of its hash table, keyed anew at every
//! start: neither means anything.

use std::fmt::Write as _;

use super::names::Names;
use super::parse::Format;
use super::table::{SCTP, TCP, UDP};
use super::{Connection, print};

pub(super) fn list(connections: &[Connection], format: Format, names: &Names) -> String {
    let mut out = String::from("IPVS connection entries\n");
    // A String takes whatever is written to it.
    let _ = write!(out, "pro expire {:<11} {:<18} {:<18} ", "state", "source", "virtual");
    let _ = match format.persistent_conn {
        true => writeln!(out, "{:<18} {:<16} pe_data", "destination", "pe name"),
        false => writeln!(out, "destination"),
    };
    for row in connections {
        let proto = match row.protocol {
            known @ (TCP | UDP | SCTP) => known,
            _ => 0,
        };
        let [client, vip, server] = [row.client, row.virtual_address, row.destination]
            .map(|(address, port)| print::endpoint(names, format.numeric, address, port, proto));
        let expire = format!("{:02}:{:02}", row.expires_s / 60, row.expires_s % 60);
        let name = print::protocol_name(row.protocol);
        let _ = write!(out, "{name:<3} {expire:<6} {:<11} {client:<18} {vip:<18} ", row.state);
        let _ = match &row.engine {
            Some((engine, data)) if format.persistent_conn => {
                writeln!(out, "{server:<16} {engine:<18} {data}")
            }
            _ => writeln!(out, "{server}"),
        };
    }
    out
}
