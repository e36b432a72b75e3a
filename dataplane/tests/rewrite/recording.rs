//! Reading `wire.json`: its cases, and as much of ipvsadm's command line as they use.

use std::net::IpAddr;

use lb_dataplane::rewrite::{TunnelChecksum, TunnelKind};
use serde_json::Value;

/// How a server gets its packets.
#[derive(Clone, Copy, Debug)]
pub enum Forwarding {
    Dr,
    Nat,
    Tunnel(TunnelKind),
}

/// One `ipvsadm -a`.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub address: IpAddr,
    /// `None`: the service's, or the packet's for a firewall mark.
    pub port: Option<u16>,
    pub forwarding: Forwarding,
}

/// A packet that the director sent.
pub struct Out {
    pub to_servers: bool,
    /// Last byte of the MAC address that it went to.
    pub mac: u8,
    pub text: String,
    pub packet: Vec<u8>,
}

/// A packet that the director got, and what it sent.
pub struct Step {
    pub from_client: bool,
    pub text: String,
    pub packet: Vec<u8>,
    pub out: Vec<Out>,
}

pub struct Case {
    pub name: String,
    pub servers: Vec<Server>,
    /// MTU towards the servers.
    pub server_mtu: u16,
    /// The client's address is replaced by the director's.
    pub masquerade: bool,
    /// Steps with packets, commands and waits left out.
    pub steps: Vec<Step>,
}

pub fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len() / 2).map(|n| digit(2 * n)).collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The argument behind `option`.
fn after<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1).copied())
}

fn server(command: &str) -> Server {
    let words: Vec<_> = command.split_whitespace().collect();
    let has = |option: &str| words.contains(&option);
    let at = after(&words, "-r").expect("a server");
    let (address, port) = match at.parse::<std::net::SocketAddr>() {
        Ok(both) => (both.ip(), Some(both.port())),
        Err(_) => (at.parse().expect("an address"), None),
    };
    let tunnel = match after(&words, "--tun-type") {
        Some("gue") => TunnelKind::Gue {
            port: after(&words, "--tun-port").expect("a port").parse().expect("a port"),
            checksum: match () {
                () if has("--tun-csum") => TunnelChecksum::Full,
                () if has("--tun-remcsum") => TunnelChecksum::Remote,
                () => TunnelChecksum::None,
            },
        },
        Some("gre") => TunnelKind::Gre { checksum: has("--tun-csum") },
        None | Some("ipip") => TunnelKind::Ipip,
        Some(other) => panic!("{other}: unknown tunnel"),
    };
    let forwarding = match () {
        () if has("-g") => Forwarding::Dr,
        () if has("-m") => Forwarding::Nat,
        () if has("-i") => Forwarding::Tunnel(tunnel),
        () => panic!("{command}: no forwarding"),
    };
    Server { address, port, forwarding }
}

fn out(value: &Value) -> Out {
    let mac = text(value, "mac");
    Out {
        to_servers: text(value, "to") == "servers",
        mac: u8::from_str_radix(&mac[mac.len() - 2..], 16).expect("a MAC address"),
        text: text(value, "packet"),
        packet: hex(&text(value, "hex")),
    }
}

fn step(value: &Value) -> Option<Step> {
    let packet = hex(value["hex"].as_str()?);
    let sent = value["out"].as_array().map(|all| all.iter().map(out).collect()).unwrap_or_default();
    Some(Step {
        from_client: text(value, "from") == "client",
        text: text(value, "packet"),
        packet,
        out: sent,
    })
}

fn case(value: &Value) -> Case {
    let commands: Vec<_> =
        value["setup"].as_array().expect("setup").iter().map(|c| c.as_str().expect("a command")).collect();
    let shell = value["settings"]["sh"].as_array().map(|all| format!("{all:?}")).unwrap_or_default();
    Case {
        name: text(value, "name"),
        servers: commands.iter().filter(|c| c.contains("ipvsadm -a ")).map(|c| server(c)).collect(),
        server_mtu: if shell.contains("ts mtu 1400") { 1400 } else { 1500 },
        masquerade: shell.contains("MASQUERADE"),
        steps: value["steps"].as_array().expect("steps").iter().filter_map(step).collect(),
    }
}

/// Every case of the recording.
pub fn cases() -> Vec<Case> {
    let file: Value = serde_json::from_str(include_str!("../../../tests/golden/wire.json")).expect("JSON");
    file["cases"].as_array().expect("cases").iter().map(case).collect()
}
