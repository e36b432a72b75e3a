//! What the kernel did under IPVS's sysctls, packet by packet, through whole workers.

use std::net::IpAddr;

use lb_dataplane::director::Director;
use lb_dataplane::persist::ListedPort;
use serde_json::Value;

use crate::frames::{CLIENT, DIRECTOR, arp, ethernet, server_mac};
use crate::lab::Lab;
use crate::nat::TWO_ARMS;

/// Packets in and out, see the recordings' own text.
const WIRE: &str = include_str!("../../../tests/golden/wire.json");

/// The service, with IPVS's list order: who was added last comes first.
struct Service {
    sysctl: String,
    persistent: bool,
    /// Last byte of the address, weight.
    servers: Vec<(u8, u32)>,
}

impl Service {
    fn text(&self) -> String {
        let server = |(n, weight): &(u8, u32)| format!("{{ address = \"10.1.0.{n}\", weight = {weight} }}");
        let servers: Vec<_> = self.servers.iter().map(server).collect();
        let persistence = if self.persistent { "persistence = { timeout = \"300s\" }\n" } else { "" };
        format!(
            "{TWO_ARMS}[policy]\ncompat = \"ipvs\"\n{}\n[[services]]\nname = \"web\"\nvip = \"10.0.0.100\"\nport = 80\n\
             scheduler = \"rr\"\n{persistence}servers = [{}]\n",
            self.sysctl,
            servers.join(", ")
        )
    }

    /// Runs one command of the recording.
    fn ipvsadm(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let after = |name| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        let number = |text: &&str| text.rsplit('.').next().and_then(|n| n.parse::<u8>().ok());
        let server = after("-r").and_then(number);
        let weight = after("-w").map_or(1, |weight| weight.parse().expect("a weight"));
        match (words[1], server) {
            ("-A", None) => self.persistent = words.contains(&"-p"),
            ("-a", Some(n)) => self.servers.insert(0, (n, weight)),
            ("-e", Some(n)) => {
                self.servers.iter_mut().filter(|of| of.0 == n).for_each(|of| of.1 = weight);
            }
            ("-d", Some(n)) => self.servers.retain(|of| of.0 != n),
            _ => panic!("{command}"),
        }
    }
}

/// Port, last byte of the server's address, state; sorted.
type Rows = Vec<(u16, u8, String)>;

fn octet(address: IpAddr) -> u8 {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address.octets()[3]
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The recorded connections (port, server, state) without those that were replaced and wait for the timer, and the
/// templates (VIP's port, server, state).
fn theirs(step: &Value) -> (Rows, Rows) {
    let (mut connections, mut templates) = (Vec::new(), Vec::new());
    for row in step["conns"].as_array().expect("rows") {
        let words: Vec<&str> = row.as_str().expect("a row").split(' ').collect();
        let port: u16 = words[2].parse().expect("a port");
        let vip_port: u16 = words[4].parse().expect("a port");
        let server: u8 = words[5].rsplit('.').next().and_then(|n| n.parse().ok()).expect("a server");
        let state = words[7].to_owned();
        match (port, words[8]) {
            (_, "0") => {}
            (0, _) => templates.push((vip_port, server, state)),
            _ => connections.push((port, server, state)),
        }
    }
    connections.sort();
    templates.sort();
    (connections, templates)
}

fn ours(lab: &mut Lab) -> (Rows, Rows) {
    let server = |director: &Director, dest| octet(director.server_of(dest).expect("known").address);
    let rows = lab.connections();
    let mut connections: Vec<_> = rows
        .iter()
        .map(|row| (row.client.1, server(&lab.director, row.dest), row.state.name().to_owned()))
        .collect();
    let mut templates = Vec::new();
    lab.director.templates().into_iter().for_each(|listed| {
        let port = if listed.port == ListedPort::Replaced { u16::MAX } else { listed.vport() };
        let state = if listed.assured { "ASSURED" } else { "NONE" };
        templates.push((port, server(&lab.director, listed.dest), state.to_owned()));
    });
    connections.sort();
    templates.sort();
    (connections, templates)
}

#[test]
fn under_ipvs_s_sysctls_the_worker_does_what_the_kernel_did() {
    let recording: Value = serde_json::from_str(WIRE).expect("a recording");
    let mut replayed = 0;
    for case in recording["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let Some(sysctl) = case["settings"]["sysctl"].as_object().filter(|_| name != "snat-conntrack") else {
            continue;
        };
        let setting = |(key, value): (&String, &Value)| match key.as_str() {
            "conn_reuse_mode" => format!("{key} = {value}"),
            _ => format!("{key} = {}", value == 1),
        };
        let sysctl = sysctl.iter().map(setting).collect::<Vec<_>>().join("\n");
        let mut service = Service { sysctl, persistent: false, servers: Vec::new() };
        for command in case["setup"].as_array().expect("commands") {
            service.ipvsadm(command.as_str().expect("a command"));
        }
        let mut lab = Lab::of(&service.text(), 1);
        for (device, n, ip, to) in [
            (1, 11, [10, 1, 0, 11], [10, 1, 0, 1]),
            (1, 12, [10, 1, 0, 12], [10, 1, 0, 1]),
            (0, 0xfe, [192, 168, 150, 254], [192, 168, 150, 11]),
        ] {
            lab.put_on(device, &arp(2, DIRECTOR, (server_mac(n), ip), (DIRECTOR, to)));
        }
        lab.settle();
        lab.clear();
        for (at, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
            if let Some(command) = step["ctl"].as_str() {
                service.ipvsadm(command);
                lab.apply_text(&service.text());
                lab.settle();
                // the kernel removes what it expires some milliseconds after it listed it
                continue;
            } else {
                let packet = bytes(step["hex"].as_str().expect("a packet"));
                lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &packet));
                lab.settle();
                let out = step["out"].as_array().expect("packets");
                let to = |who: &str| -> Vec<Vec<u8>> {
                    let packets = out.iter().filter(|packet| packet["to"] == who);
                    packets.map(|packet| bytes(packet["hex"].as_str().expect("hex"))).collect()
                };
                let sent = |lab: &mut Lab, device| -> Vec<Vec<u8>> {
                    lab.sent_on(device).into_iter().map(|frame| frame[14..].to_vec()).collect()
                };
                let mac = |packet: &Value| packet["mac"].as_str().expect("a MAC")[15..].to_owned();
                let stations: Vec<_> =
                    out.iter().filter(|packet| packet["to"] == "servers").map(mac).collect();
                let frames = lab.sent_on(1);
                let got: Vec<_> = frames.iter().map(|frame| format!("{:02x}", frame[5])).collect();
                assert_eq!(got, stations, "{name}, step {at}");
                let got: Vec<_> = frames.iter().map(|frame| frame[14..].to_vec()).collect();
                assert_eq!(got, to("servers"), "{name}, step {at}");
                assert_eq!(sent(&mut lab, 0), to("clients"), "{name}, step {at}");
            }
            assert_eq!(ours(&mut lab), theirs(step), "{name}, step {at}");
        }
        replayed += 1;
    }
    assert_eq!(replayed, 10);
}
