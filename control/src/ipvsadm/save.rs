//! `-S`: the table as commands.
//!
//! The lines are those of ipvsadm, which leaves thresholds, timeouts and sync daemons out. They follow as commands in comments that
//! begin with [`EXTRA`]: ipvsadm passes these over, `-R` here carries them out, so that nothing is lost.

use std::fmt::Write as _;

use lb_config::IpvsSync;

use super::names::Names;
use super::parse::Format;
use super::table::{
    Address, Checksum, Forward, Netmask, SCTP, Server, Service, Table, Timeouts, Tunnel, UDP,
};
use super::{order, print};

/// What a comment begins with that is a command to us.
pub(super) const EXTRA: &str = "# sluice: ";

pub(super) fn save(table: &Table, format: Format, names: &Names) -> String {
    let (mut rules, mut extras) = (String::new(), String::new());
    // A String takes whatever is written to it.
    let line = |to: &mut String, text: std::fmt::Arguments<'_>| {
        let _ = writeln!(to, "{text}");
    };
    for service in order::services(&table.services, false) {
        let Some(address) = service_rule(&service.address, format, names) else {
            let text = match &service.address {
                Address::Other { text, .. } => text,
                Address::Vip { .. } | Address::Mark { .. } => "",
            };
            line(&mut extras, format_args!("# left out, ipvsadm has no words for it: service {text}"));
            continue;
        };
        line(&mut rules, format_args!("-A {address} -s {}{}", service.scheduler, options(service)));
        for server in order::servers(&service.servers, false) {
            let remote = print::endpoint(
                names,
                format.numeric,
                server.address,
                server.port,
                service.address.protocol(),
            );
            let rule = format!("{address} -r {remote}");
            let Some(forward) = forward(server) else {
                line(
                    &mut extras,
                    format_args!("# left out, ipvsadm has no words for its forwarding: {rule}"),
                );
                continue;
            };
            line(&mut rules, format_args!("-a {rule} {forward}"));
            if (server.upper, server.lower) != (0, 0) {
                let Server { upper, lower, .. } = server;
                line(&mut extras, format_args!("{EXTRA}-e {rule} {forward} -x {upper} -y {lower}"));
            }
        }
    }
    if table.timeouts != Timeouts::default() {
        let Timeouts { tcp, tcp_fin, udp } = table.timeouts;
        line(&mut extras, format_args!("{EXTRA}--set {tcp} {tcp_fin} {udp}"));
    }
    for daemon in &table.daemons {
        let IpvsSync { state, interface, sync_id, max_length, group, port, ttl, .. } = daemon;
        line(
            &mut extras,
            format_args!(
                "{EXTRA}--start-daemon {state} --mcast-interface {interface} --syncid {sync_id} --sync-maxlen \
                 {max_length} --mcast-group {group} --mcast-port {port} --mcast-ttl {ttl}"
            ),
        );
    }
    rules + &extras
}

/// `None`: the command line cannot express it.
fn service_rule(address: &Address, format: Format, names: &Names) -> Option<String> {
    match address {
        Address::Vip { protocol, address, port } => {
            let option = match *protocol {
                UDP => "-u",
                SCTP => "--sctp-service",
                _ => "-t",
            };
            Some(format!("{option} {}", print::endpoint(names, format.numeric, *address, *port, *protocol)))
        }
        Address::Mark { mark, ipv6 } => Some(format!("-f {mark}{}", if *ipv6 { " -6" } else { "" })),
        Address::Other { .. } => None,
    }
}

fn options(service: &Service) -> String {
    let mut text = String::new();
    if let Some(seconds) = service.persistent {
        text += &format!(" -p {seconds}");
        text += &netmask(service.netmask).map_or(String::new(), |mask| format!(" -M {mask}"));
    }
    if !service.pe.is_empty() {
        text += &format!(" --pe {}", service.pe);
    }
    if service.one_packet {
        text += " -o";
    }
    let flags = print::scheduler_flags(&service.scheduler, service.flags);
    if !flags.is_empty() {
        text += &format!(" -b {flags}");
    }
    text
}

/// The mask, if it is not the whole address.
pub(super) fn netmask(netmask: Netmask) -> Option<String> {
    match netmask {
        whole if whole.is_whole() => None,
        Netmask::V4(mask) => Some(mask.to_string()),
        Netmask::V6(length) => Some(length.to_string()),
    }
}

/// Forwarding, weight and tunnel of a server's rule. `None`: the command line cannot express it.
fn forward(server: &Server) -> Option<String> {
    let checksum = |checksum| match checksum {
        Checksum::None => "--tun-nocsum",
        Checksum::Full => "--tun-csum",
        Checksum::Remote => "--tun-remcsum",
    };
    let (method, tunnel) = match server.forward {
        Forward::Route => ("-g", String::new()),
        Forward::Masq => ("-m", String::new()),
        Forward::Tunnel(Tunnel::Ipip) => ("-i", " --tun-type ipip".to_owned()),
        Forward::Tunnel(Tunnel::Gue { port, checksum: sum }) => {
            ("-i", format!(" --tun-type gue --tun-port {port} {}", checksum(sum)))
        }
        Forward::Tunnel(Tunnel::Gre { checksum: sum }) => {
            ("-i", format!(" --tun-type gre {}", checksum(sum)))
        }
        Forward::Other(_) => return None,
    };
    Some(format!("{method} -w {}{tunnel}", server.weight))
}
