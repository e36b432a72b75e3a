//! Listings of services and servers, as ipvsadm 1.31 prints them.
//!
//! Source: ipvs.md section 1.9; the recordings `listing-*.json` and `persistence.json`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use lb_config::{IpvsSync, IpvsSyncState};

use super::names::Names;
use super::parse::Format;
use super::table::{
    Address, Checksum, Forward, SCTP, SchedulerFlags, Server, Service, TCP, Table, Tunnel, UDP,
};
use super::{Counts, ServerCounters, ServiceCounters, order};

/// Columns that an IPv4 service and server may take; the rest of their name is cut off.
const SERVICE_WIDTH: usize = 33;
/// See [`SERVICE_WIDTH`].
const SERVER_WIDTH: usize = 28;
/// Longest `address:port`, bytes.
const NAME_WIDTH: usize = 59;

/// `-L --daemon`.
pub(super) fn daemons(table: &Table) -> String {
    let running = IpvsSyncState::ALL.into_iter().filter_map(|state| table.daemon(state));
    let line = |daemon: &IpvsSync| {
        let IpvsSync { state, interface, sync_id, max_length, group, port, ttl, .. } = daemon;
        format!(
            "{state} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={max_length}, group={group}, \
             port={port}, ttl={ttl})\n"
        )
    };
    running.map(line).collect()
}

/// What a listing is made with.
pub(super) struct Printer<'a> {
    names: &'a Names,
    format: Format,
    counters: HashMap<&'a Address, &'a ServiceCounters>,
    out: String,
}

impl<'a> Printer<'a> {
    pub fn new(names: &'a Names, format: Format, counters: &'a [ServiceCounters]) -> Self {
        let counters = counters.iter().map(|service| (&service.address, service)).collect();
        Self { names, format, counters, out: String::new() }
    }

    /// `-L`.
    pub fn all(mut self, table: &'a Table) -> String {
        self.out.push_str("IP Virtual Server version 1.2.1 (size=4096)\n");
        self.title();
        for service in order::services(&table.services, self.format.nosort) {
            self.service(service);
        }
        self.out
    }

    /// `-L` of one service.
    pub fn one(mut self, service: &'a Service) -> String {
        self.title();
        self.service(service);
        self.out
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A String takes whatever is written to it.
        let _ = self.out.write_fmt(line);
        self.out.push('\n');
    }

    fn title(&mut self) {
        let columns: &[&str] = match self.format {
            Format { stats: true, .. } => &["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"],
            Format { rate: true, .. } => &["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"],
            Format { thresholds: true, .. } => &["Uthreshold", "Lthreshold", "ActiveConn", "InActConn"],
            Format { persistent_conn: true, .. } => &["Weight", "PersistConn", "ActiveConn", "InActConn"],
            _ => &[],
        };
        match *columns {
            [a, b, c, d, e] => {
                self.line(format_args!(
                    "{:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}",
                    "Prot LocalAddress:Port"
                ));
                self.line(format_args!("  -> RemoteAddress:Port"));
            }
            [a, b, c, d] => {
                let (wide, wider) = if self.format.thresholds { (10, 10) } else { (9, 11) };
                let local = "Prot LocalAddress:Port";
                self.line(format_args!("{local:<33} {a:<wide$} {b:<wider$} {c:<10} {d:<10}"));
                self.line(format_args!("  -> RemoteAddress:Port"));
            }
            _ => {
                let tunnel = if self.format.tun_info { "TunnelInfo    " } else { "" };
                self.line(format_args!("Prot LocalAddress:Port Scheduler Flags"));
                self.line(format_args!(
                    "  -> RemoteAddress:Port           Forward {tunnel}Weight ActiveConn InActConn"
                ));
            }
        }
    }

    fn service(&mut self, service: &'a Service) {
        let counters = self.counters.get(&service.address).copied();
        let name = self.service_name(&service.address);
        if self.format.stats || self.format.rate {
            let counts = counters.map_or(Counts::default(), |service| {
                if self.format.stats { service.stats } else { service.rates }
            });
            let numbers = counts.array().map(|n| large(n, self.format.exact)).concat();
            self.line(format_args!("{name:<33}{numbers}"));
        } else {
            let options = options(service);
            self.line(format_args!("{name} {}{options}", service.scheduler));
        }
        let by_server: HashMap<(IpAddr, u16), &ServerCounters> = counters
            .into_iter()
            .flat_map(|service| service.servers.iter().map(|server| ((server.address, server.port), server)))
            .collect();
        let protocol = service.address.protocol();
        for server in order::servers(&service.servers, self.format.nosort) {
            let counters = by_server.get(&(server.address, server.port));
            self.server(server, protocol, counters.map_or_else(ServerCounters::default, |c| (*c).clone()));
        }
    }

    fn service_name(&self, address: &Address) -> String {
        let name = match address {
            // ipvsadm prints marks with a sign.
            Address::Mark { mark, ipv6 } => {
                return format!("FWM  {}{}", mark.cast_signed(), if *ipv6 { " IPv6" } else { "" });
            }
            Address::Vip { protocol, address, port } => {
                endpoint(self.names, self.format.numeric, *address, *port, *protocol)
            }
            Address::Other { text, .. } => text.clone(),
        };
        let line = format!("{:<4} {name}", protocol_name(address.protocol()));
        if address.is_ipv6() { line } else { cut(line, SERVICE_WIDTH) }
    }

    fn server(&mut self, server: &Server, protocol: u8, counters: ServerCounters) {
        let name = endpoint(self.names, self.format.numeric, server.address, server.port, protocol);
        let name = if server.address.is_ipv6() { name } else { cut(name, SERVER_WIDTH) };
        let ServerCounters { active, inactive, persistent, stats, rates, .. } = counters;
        let exact = self.format.exact;
        match self.format {
            Format { stats: true, .. } => {
                let numbers = stats.array().map(|n| large(n, exact)).concat();
                self.line(format_args!("  -> {name:<28}{numbers}"));
            }
            Format { rate: true, .. } => {
                let [cps, pps_in, pps_out, bps_in, bps_out] = rates.array();
                let (bps_in, bps_out) = (large(bps_in, exact), large(bps_out, exact));
                self.line(format_args!("  -> {name:<28} {cps:>8} {pps_in:>8} {pps_out:>8}{bps_in}{bps_out}"));
            }
            Format { thresholds: true, .. } => self.line(format_args!(
                "  -> {name:<28} {:<10} {:<10} {active:<10} {inactive:<10}",
                server.upper, server.lower
            )),
            Format { persistent_conn: true, .. } => self.line(format_args!(
                "  -> {name:<28} {:<9} {persistent:<11} {active:<10} {inactive:<10}",
                server.weight
            )),
            _ => {
                let forward = forward_name(server.forward);
                let weight = server.weight;
                let tunnel = match self.format.tun_info {
                    true => format!("{:<13} ", tunnel_info(server.forward)),
                    false => String::new(),
                };
                self.line(format_args!(
                    "  -> {name:<28} {forward:<7} {tunnel}{weight:<6} {active:<10} {inactive:<10}"
                ));
            }
        }
    }
}

fn cut(mut text: String, width: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(width) {
        text.truncate(at);
    }
    text
}

/// `TCP`, `UDP`, `SCTP`, `IP`.
pub(super) fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "TCP",
        UDP => "UDP",
        SCTP => "SCTP",
        _ => "IP",
    }
}

/// `10.0.0.1:80`, `[fd00::1]:http`
pub(super) fn endpoint(names: &Names, numeric: bool, address: IpAddr, port: u16, protocol: u8) -> String {
    let (host, port) = if numeric {
        (address.to_string(), port.to_string())
    } else {
        (names.show_address(address), names.show_port(port, protocol))
    };
    let text = if address.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    cut(text, NAME_WIDTH)
}

/// What follows a service's scheduler in a listing.
fn options(service: &Service) -> String {
    let mut text = String::new();
    let flags = scheduler_flags(&service.scheduler, service.flags);
    if !flags.is_empty() {
        text = format!(" ({flags})");
    }
    if let Some(seconds) = service.persistent {
        text += &format!(" persistent {seconds}");
        text += &super::save::netmask(service.netmask).map_or(String::new(), |mask| format!(" mask {mask}"));
        if !service.pe.is_empty() {
            text += &format!(" pe {}", service.pe);
        }
    }
    if service.one_packet {
        text += " ops";
    }
    text
}

/// `sh-fallback,sh-port`: the flags by the names that the scheduler gives them.
pub(super) fn scheduler_flags(scheduler: &str, flags: SchedulerFlags) -> String {
    let (fallback, port) = match scheduler {
        "sh" => ("sh-fallback", "sh-port"),
        "mh" => ("mh-fallback", "mh-port"),
        _ => ("flag-1", "flag-2"),
    };
    let named = [(flags.flag_1, fallback), (flags.flag_2, port), (flags.flag_3, "flag-3")];
    named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect::<Vec<_>>().join(",")
}

fn forward_name(forward: Forward) -> &'static str {
    match forward {
        Forward::Route => "Route",
        Forward::Masq => "Masq",
        Forward::Tunnel(_) => "Tunnel",
        Forward::Other(name) => name,
    }
}

fn tunnel_info(forward: Forward) -> String {
    let mark = |checksum| match checksum {
        Checksum::None => "-c",
        Checksum::Full => "+c",
        Checksum::Remote => "r+c",
    };
    match forward {
        Forward::Tunnel(Tunnel::Ipip) => "ipip".to_owned(),
        Forward::Tunnel(Tunnel::Gue { port, checksum }) => format!("gue:{port}:{}", mark(checksum)),
        Forward::Tunnel(Tunnel::Gre { checksum }) => format!("gre:{}", mark(checksum)),
        Forward::Route | Forward::Masq | Forward::Other(_) => "n/a".to_owned(),
    }
}

/// A counter in nine columns: whole with `exact`, else with a unit from 100 million on.
fn large(number: u64, exact: bool) -> String {
    let (number, unit) = match number {
        _ if exact => {
            let text = number.to_string();
            let width = (text.len() + 1).max(9);
            return format!("{text:>width$}");
        }
        0..100_000_000 => return format!("{number:>9}"),
        100_000_000..1_000_000_000 => (number / 1_000, 'K'),
        1_000_000_000..100_000_000_000 => (number / 1_000_000, 'M'),
        100_000_000_000..100_000_000_000_000 => (number / 1_000_000_000, 'G'),
        _ => (number / 1_000_000_000_000, 'T'),
    };
    format!("{number:>8}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_keep_their_column() {
        for (number, want) in [
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(large(number, false), want);
        }
        assert_eq!(large(12_345_678, true), " 12345678");
        assert_eq!(large(123_456_789, true), " 123456789");
    }
}
