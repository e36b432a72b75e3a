//! A director with one worker in memory, on two networks whose stations answer, with a clock turned by hand.
//!
//! ```text
//!  clients, gateway .254 -- tc: 10.0.0.1/24 fd00:a::1/64 -- director -- ts: 10.1.0.1/24 fd00:b::1/64 -- servers
//! ```
//! The same networks as those of the recordings; VIPs are on `tc`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Result, anyhow};
use lb_control::api::{ApiError, ErrorKind, Request, Response};
use lb_control::core::{Core, Drivers, Process};
use lb_control::server::{Access, Call, Work};
use lb_dataplane::Worker;
use lb_dataplane::director::{self, Director};
use lb_dataplane::io::{DeviceId, Packet};
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;

use crate::packet;

/// Towards the clients, and towards the servers.
pub const CLIENTS: usize = 0;
pub const SERVERS: usize = 1;

/// The director's own stations.
const DIRECTOR: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 1]];

/// Turns in which an unknown next hop is asked for, answers, and gets the frames that waited.
const ROUNDS: usize = 6;

/// Turns in which the control core must have answered: a listing walks the table a step a turn.
const MAX_TURNS: usize = 20_000;

/// What the lab is made with, beside the networks.
#[derive(Clone, Default)]
pub struct Settings {
    /// MTU of `tc`; 1500 when absent.
    pub client_mtu: Option<u16>,
    /// MTU of `ts`; 1500 when absent.
    pub server_mtu: Option<u16>,
    /// net.ipv4.vs settings.
    pub sysctl: BTreeMap<String, i64>,
    /// Marks of packets from the clients' side, the first that fits.
    pub marks: Vec<Mark>,
}

/// Which packets from the clients' side have a mark; what is absent is any.
#[derive(Clone, Default)]
pub struct Mark {
    /// The mark.
    pub value: u32,
    pub protocol: Option<String>,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub ports: Option<String>,
}

/// A packet that the director sent.
#[derive(Clone, Debug)]
pub struct Out {
    /// [`CLIENTS`] or [`SERVERS`].
    pub side: usize,
    /// To which station.
    pub mac: [u8; 6],
    /// From the IP header on.
    pub packet: Vec<u8>,
}

/// The lab.
pub struct Lab {
    core: Core,
    worker: Worker<MemoryIo>,
    now_ns: u64,
    polled_ms: u64,
}

/// The configuration without services.
fn configuration(settings: &Settings) -> String {
    use std::fmt::Write;
    let [clients, servers] = [settings.client_mtu, settings.server_mtu].map(|mtu| mtu.unwrap_or(1500));
    let mut text = format!(
        r#"
[appliance]
workers = [0]
[limits]
max_connections = 65536
[[ports]]
name = "tc"
device = "af_packet:tc"
mtu = {clients}
addresses = ["10.0.0.1/24", "fd00:a::1/64", "10.0.0.100/32", "fd00:a::100/128"]
gateway = ["10.0.0.254", "fd00:a::fe"]
[[ports]]
name = "ts"
device = "af_packet:ts"
mtu = {servers}
addresses = ["10.1.0.1/24", "fd00:b::1/64"]
"#
    );
    // the recordings are the kernel's: where ours are other defaults, its hold
    text.push_str("[policy]\ncompat = \"ipvs\"\n");
    for (key, value) in &settings.sysctl {
        let _ = writeln!(text, "{key} = {}", policy_value(key, *value));
    }
    for mark in &settings.marks {
        let _ = writeln!(text, "[[marks]]\nvalue = {}\nport = \"tc\"", mark.value);
        let keys = [
            ("protocol", &mark.protocol),
            ("source", &mark.source),
            ("destination", &mark.destination),
            ("ports", &mark.ports),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = \"{value}\"");
            }
        }
    }
    text
}

/// A sysctl's value as TOML: the kernel's switches are numbers, ours are booleans.
fn policy_value(key: &str, value: i64) -> String {
    match key {
        "conn_reuse_mode" | "secure_tcp" | "drop_entry" => value.to_string(),
        _ => (value != 0).to_string(),
    }
}

impl Lab {
    /// A lab without services. Errors: a setting that the configuration does not know.
    pub fn new(settings: &Settings) -> Result<Self> {
        let text = configuration(settings);
        let model = lb_config::parse(&text)
            .map_err(|faults| anyhow!("{}", faults.to_string().replace('\n', "; ")))?;
        let devices = director::devices(&model);
        let setup = (0..devices.len()).map(|at| DeviceSetup { mac: DIRECTOR[at], rss: false }).collect();
        let (director, seeds) = Director::new(&model, setup)?;
        let io = MemoryIo::for_workers(devices.len(), 1);
        let mut workers = seeds.into_iter().zip(io).map(|(seed, io)| Worker::new(seed, io));
        let worker =
            workers.next().ok_or_else(|| anyhow!("no worker"))?.map_err(|error| anyhow!("{error:?}"))?;
        let process = Process { drivers: Box::new(Drivers::default), tables: Vec::new() };
        let core = Core::new(director, process)?;
        let mut lab = Self { core, worker, now_ns: 10_000_000_000, polled_ms: 0 };
        lab.settle();
        Ok(lab)
    }

    /// Asks the control core, as a session of the API does; the workers turn until it has answered.
    pub fn call(&mut self, request: Request) -> Result<Response, ApiError> {
        let changes = request.changes();
        let work = Work::from_request(request)?;
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.core.handle(Call { work, access: Access::Change, reply }, self.now_ms());
        for _ in 0..MAX_TURNS {
            match answer.try_recv() {
                Ok(Response::Error(error)) => return Err(error),
                Ok(response) => {
                    if changes {
                        self.settle();
                    }
                    return Ok(response);
                }
                Err(_) => {
                    self.turn();
                    self.poll();
                }
            }
        }
        Err(ApiError::new(ErrorKind::Failed, "the control core does not answer"))
    }

    /// The configuration that runs.
    pub fn model(&self) -> &lb_config::Model {
        self.core.model()
    }

    /// The clock, ms.
    pub fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// Lets the director find its next hops; takes no time.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.poll();
            let strays = self.turn();
            debug_assert!(strays.is_empty() || self.now_ns > 0);
        }
    }

    /// The control core's turn.
    pub fn poll(&mut self) {
        self.polled_ms = self.now_ms();
        self.core.tick(self.now_ms());
    }

    /// The worker's turn: what it sent, but for ARP and neighbour discovery, which are answered.
    fn turn(&mut self) -> Vec<Out> {
        self.worker.turn(self.now_ns);
        let mut out = Vec::new();
        for side in [CLIENTS, SERVERS] {
            for frame in std::mem::take(&mut self.worker.io_mut().sent[side]) {
                let bytes = frame.bytes();
                match answer(side, bytes) {
                    Answer::Reply(reply) => self.put(side, &reply),
                    Answer::Silence => {}
                    Answer::NotAsked => out.push(Out {
                        side,
                        mac: bytes[..6].try_into().unwrap_or_default(),
                        packet: bytes[14..].to_vec(),
                    }),
                }
            }
        }
        out
    }

    fn put(&mut self, side: usize, frame: &[u8]) {
        self.worker.io_mut().receive[side].push_back(Frame::new(DeviceId(side as u16), frame));
    }

    /// An IP packet arrives from a station of a side; what goes out for it.
    pub fn pass(&mut self, side: usize, from: [u8; 6], packet: &[u8]) -> Vec<Out> {
        let kind: [u8; 2] =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        self.put(side, &[&DIRECTOR[side][..], &from, &kind, packet].concat());
        let mut out = self.turn();
        // what waits for a next hop comes when it has answered: asked by the control core, heard by the worker
        for _ in 0..ROUNDS {
            if !out.is_empty() {
                break;
            }
            self.core.tick(self.now_ms());
            out = self.turn();
        }
        out
    }

    /// Time goes on, in steps short enough for whoever wakes up on time; what goes out meanwhile is lost.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now_ns + ms * 1_000_000;
        while self.now_ns < end {
            self.now_ns = (self.now_ns + 50_000_000).min(end);
            self.turn();
            if self.now_ms() - self.polled_ms >= 100 {
                self.poll();
            }
        }
    }

    /// A moment passes: a recording's packets are some ms apart.
    pub fn moment(&mut self, ms: u64) {
        self.now_ns += ms * 1_000_000;
        if self.now_ms() - self.polled_ms >= 100 {
            self.wait(0);
            self.poll();
        }
    }

    /// Why packets were dropped so far.
    pub fn drops(&mut self) -> String {
        let Ok(Response::Drops(drops)) = self.call(Request::Drops) else { return "unknown".to_owned() };
        let named: Vec<_> = drops
            .drops
            .iter()
            .filter(|row| row.packets > 0)
            .map(|row| format!("{} {}", row.reason, row.packets))
            .collect();
        named.join(", ")
    }
}

/// What a network says to a frame.
enum Answer {
    Reply(Vec<u8>),
    Silence,
    NotAsked,
}

/// The station of an address: on `tc` 02:00:00:00:00:NN, on `ts` 02:00:00:00:01:NN, NN the last number as it is
/// written: of 10.1.0.11 and of fd00:b::11 the decimal 11.
pub fn station(side: usize, address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => {
            let last = format!("{:x}", address.segments()[7]);
            last.parse::<u8>().unwrap_or(address.octets()[15])
        }
    };
    [2, 0, 0, 0, side as u8, last]
}

/// The gateway of the clients' side.
pub fn gateway() -> [u8; 6] {
    [2, 0, 0, 0, 0, 0xfe]
}

fn answer(side: usize, frame: &[u8]) -> Answer {
    let own = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            matches!(address.octets(), [10, 0 | 1, 0, 1]) || address.octets() == [10, 0, 0, 100]
        }
        IpAddr::V6(address) => address.segments()[7] == 1 || address.segments()[7] == 0x100,
    };
    match &frame[12..14] {
        [8, 6] => {
            let target: [u8; 4] = frame[38..42].try_into().unwrap_or_default();
            if frame[21] != 1 || own(target.into()) {
                return Answer::Silence;
            }
            let who = station(side, target.into());
            let head = [0, 1, 8, 0, 6, 4, 0, 2];
            let parts = [&frame[6..12], &who, &[8, 6], &head, &who, &target, &frame[22..28], &frame[28..32]];
            Answer::Reply(parts.concat())
        }
        [0x86, 0xdd] if frame.len() >= 78 && frame[20] == 58 && frame[54] == 135 => {
            let octets: [u8; 16] = frame[62..78].try_into().unwrap_or_default();
            let target = Ipv6Addr::from(octets);
            if own(target.into()) {
                return Answer::Silence;
            }
            let asker: [u8; 16] = frame[22..38].try_into().unwrap_or_default();
            Answer::Reply(advertisement(side, target, asker.into(), &frame[6..12]))
        }
        [0x86, 0xdd] if frame.len() > 54 && frame[20] == 58 && frame[54] == 136 => Answer::Silence,
        _ => Answer::NotAsked,
    }
}

fn advertisement(side: usize, target: Ipv6Addr, asker: Ipv6Addr, mac: &[u8]) -> Vec<u8> {
    let who = station(side, target.into());
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(who);
    let pseudo =
        [&target.octets()[..], &asker.octets(), &[0, 0, 0, message.len() as u8, 0, 0, 0, 58]].concat();
    let check = packet::fold(packet::sum(&pseudo) + packet::sum(&message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut ip = packet::ip(target.into(), asker.into(), 58, &message);
    ip[7] = 255;
    [mac, &who, &[0x86, 0xdd], &ip].concat()
}
