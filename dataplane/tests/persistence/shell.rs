//! The recordings' commands and outputs, as far as they are about persistence.

use std::net::IpAddr;

use lb_dataplane::parse::L4;

use crate::director::{row, socket};

/// Sorted, to compare listings whose order is a hash table's.
pub fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

/// `for X in A B; do COMMAND; done` as its commands; anything else as it is.
pub fn unroll(command: &str) -> Vec<String> {
    let Some(rest) = command.strip_prefix("for ") else { return vec![command.to_owned()] };
    let (name, rest) = rest.split_once(" in ").expect("a list");
    let (words, body) = rest.split_once("; do ").expect("a body");
    let body = body.strip_suffix("; done").expect("an end");
    words.split(' ').map(|word| body.replace(&format!("${name}"), word)).collect()
}

/// Where a command of a client sends to.
pub fn traffic(command: &str) -> Option<(IpAddr, u16, L4)> {
    if let Some((_, url)) = command.split_once("http://") {
        let (vip, port) = socket(url.strip_suffix('/').expect("a path"));
        return Some((vip, port.unwrap_or(80), L4::Tcp));
    }
    let (_, arguments) = command.split_once(" nc -u ")?;
    let [.., vip, port] = arguments.split(' ').collect::<Vec<_>>()[..] else { panic!("{command}") };
    Some((vip.parse().expect("an address"), port.parse().expect("a port"), L4::Udp))
}

/// What a server said.
pub struct Answer {
    /// `rs3` is 3.
    pub server: u8,
    pub client: (IpAddr, u16),
}

/// `rs3 peer=10.0.0.10:46001 local=10.1.0.13:8080`; IPv6 comes without brackets.
pub fn answer(line: &str) -> Answer {
    let mut words = line.split(' ');
    let server = words.next().and_then(|word| word.strip_prefix("rs")).expect("a server");
    let peer = words.next().and_then(|word| word.strip_prefix("peer=")).expect("a peer");
    let (address, port) = peer.rsplit_once(':').expect("a port");
    let client = (address.parse().expect("an address"), port.parse().expect("a port"));
    Answer { server: server.parse().expect("a number"), client }
}

/// Whether `grep` with these arguments keeps a line.
pub fn grep(arguments: &str, line: &str) -> bool {
    let line = listed(line);
    if let Some(pattern) = arguments.strip_prefix("-v ") {
        return !line.contains(&pattern.replace('\\', ""));
    }
    let pattern = arguments.strip_prefix("-E ").or(arguments.strip_prefix("-c ")).unwrap_or(arguments);
    pattern.trim_matches('\'').split('|').any(|part| line.contains(part))
}

/// A row as `ipvsadm` prints it, for the filters: the spaces between columns.
fn listed(row: &str) -> String {
    row.replace(' ', "   ")
}

/// A row of `ipvsadm -Lnc`, if it is a template's: the client's port is 0.
pub fn template_row(line: &str) -> Option<String> {
    let [protocol, left, state, client, vip, server] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    client.ends_with(":0").then_some(())?;
    let (minutes, seconds) = left.split_once(':')?;
    let left = minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?;
    Some(row(protocol, left, state, client, vip, server))
}

/// A row of `/proc/net/ip_vs_conn`, IPv4.
pub fn template_row_of_proc(line: &str) -> Option<String> {
    let [protocol, client, "0000", vip, vport, server, port, state, left] =
        line.split_whitespace().collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let address = |hex: &str| IpAddr::from(u32::from_str_radix(hex, 16).expect("hex").to_be_bytes());
    let with_port = |hex, port| format!("{}:{}", address(hex), u16::from_str_radix(port, 16).expect("hex"));
    let left = left.parse().expect("seconds");
    Some(row(
        protocol,
        left,
        state,
        &with_port(client, "0"),
        &with_port(vip, vport),
        &with_port(server, port),
    ))
}

/// A row of the recorded packets' `conns`.
pub fn template_row_of_wire(line: &str) -> Option<String> {
    let [protocol, client, "0", vip, vport, server, port, state, left] =
        line.split(' ').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let left = left.parse().expect("seconds");
    Some(row(
        protocol,
        left,
        state,
        &format!("{client}:0"),
        &format!("{vip}:{vport}"),
        &format!("{server}:{port}"),
    ))
}

/// A TCP packet of the recording.
pub struct Packet {
    pub client: IpAddr,
    pub cport: u16,
    pub vip: IpAddr,
    pub vport: u16,
    pub syn: bool,
}

/// `ip4 192.168.1.2>10.0.0.100 ttl 64 ... | tcp 40000>80 S seq 1000 ack 0`.
pub fn packet(text: &str) -> Packet {
    let (ip, tcp) = text.split_once(" | tcp ").expect("TCP");
    let (client, vip) = ip.split(' ').nth(1).and_then(|pair| pair.split_once('>')).expect("addresses");
    let mut words = tcp.split(' ');
    let (cport, vport) = words.next().and_then(|pair| pair.split_once('>')).expect("ports");
    Packet {
        client: client.parse().expect("an address"),
        cport: cport.parse().expect("a port"),
        vip: vip.parse().expect("an address"),
        vport: vport.parse().expect("a port"),
        syn: words.next() == Some("S"),
    }
}
