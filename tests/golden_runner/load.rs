//! The formats of the vectors: what was recorded, read strictly.
//!
//! A key that is not known here fails the file: a recording that is not wholly understood is not replayed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One file of vectors.
pub enum Vectors {
    /// Commands and what they printed.
    Transcript(Transcript),
    /// Connections and which server each one went to.
    Sched(Sched),
    /// State tables.
    States(States),
    /// Packets in and out, byte for byte.
    Wire(Wire),
    /// The estimator behind `--stats` and `--rate`.
    Rate(Rate),
}

/// Reads a file.
pub fn load(path: &Path) -> Result<Vectors> {
    let text = std::fs::read_to_string(path).context("cannot be read")?;
    of(serde_json::from_str(&text).context("is not JSON")?)
}

/// Reads a file's value, recognising its format by its keys.
pub fn of(value: Value) -> Result<Vectors> {
    let Some(keys) = value.as_object() else { bail!("is not an object") };
    let has = |key| keys.contains_key(key);
    Ok(match () {
        () if has("steps") => Vectors::Transcript(parse(value)?),
        () if has("scenarios") => Vectors::Sched(parse(value)?),
        () if has("tables") => Vectors::States(parse(value)?),
        () if has("cases") => Vectors::Wire(parse(value)?),
        () if has("samples") => Vectors::Rate(parse(value)?),
        () => bail!("is of no known format (keys: {:?})", keys.keys().collect::<Vec<_>>()),
    })
}

fn parse<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("is not understood")
}

/// A transcript of a shell.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    #[serde(rename = "kernel")]
    _kernel: String,
    #[serde(rename = "ipvsadm")]
    _ipvsadm: String,
    #[serde(rename = "scenario")]
    _scenario: String,
    /// In order.
    pub steps: Vec<Step>,
}

/// A note, or a command with what it did.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// What comes next, in words.
    Note(Note),
    /// A command.
    Command(Command),
}

/// What comes next, in words; some name what was done without being recorded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The words.
    pub note: String,
}

/// A command and what came of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// As typed.
    pub cmd: String,
    /// Exit status.
    pub rc: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Lines that the kernel logged.
    #[serde(default)]
    pub kmsg: Vec<String>,
}

/// The recordings of one scheduler.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sched {
    #[serde(rename = "kernel")]
    _kernel: String,
    #[serde(rename = "ipvs")]
    _ipvs: String,
    /// Its name.
    pub scheduler: String,
    /// Whether the same events always give the same servers.
    pub deterministic: bool,
    /// The recordings.
    pub scenarios: Vec<Scenario>,
}

/// Events on one service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Unique in its file.
    pub name: String,
    #[serde(rename = "about")]
    _about: String,
    /// The scheduler's name again.
    pub scheduler: String,
    /// In the order of addition.
    pub servers: Vec<Server>,
    /// Commands that made the service.
    pub setup: Vec<String>,
    /// What happened.
    pub events: Vec<Event>,
    /// Protocol; TCP when absent.
    #[serde(default)]
    pub proto: Proto,
    #[serde(rename = "options", default)]
    _options: String,
    /// Mark that every packet has.
    pub fwmark: Option<u32>,
    #[serde(rename = "ipv6", default)]
    _ipv6: bool,
    #[serde(rename = "timeouts")]
    _timeouts: Option<String>,
}

/// Transport protocol of a scenario or table.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A server of a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What the events call it.
    pub name: String,
    #[serde(rename = "weight")]
    _weight: u32,
    /// Its address.
    pub addr: std::net::IpAddr,
    #[serde(rename = "upper")]
    _upper: Option<u32>,
    #[serde(rename = "lower")]
    _lower: Option<u32>,
}

/// Active and inactive connections by server.
pub type Conns = BTreeMap<String, [u64; 2]>;

/// One event.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Event {
    /// A TCP connection: SYN and ACK.
    Open(Traffic),
    /// A SYN alone.
    Syn(Traffic),
    /// A datagram.
    Data(Traffic),
    /// The client's FIN.
    Close(Traffic),
    /// The client's RST.
    Reset(Traffic),
    /// A command.
    Ctl {
        /// As typed.
        cmd: String,
        /// Afterwards.
        conns: Conns,
    },
    /// Time passes.
    Wait {
        /// How long.
        seconds: f64,
        /// Afterwards.
        conns: Conns,
    },
}

/// A packet of a client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// `ADDRESS PORT`.
    pub client: String,
    /// `ADDRESS PORT`, when not the service's.
    pub dst: Option<String>,
    /// Where it went: present for what may open a connection, null when nowhere.
    #[serde(default, deserialize_with = "present")]
    pub server: Option<Option<String>>,
    /// What came back to the client.
    pub back: Option<String>,
    /// Afterwards.
    pub conns: Option<Conns>,
}

/// A key that is there, with null as a value of its own.
fn present<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

/// State tables of one protocol.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct States {
    #[serde(rename = "kernel")]
    _kernel: String,
    /// One per forwarding and setting.
    pub tables: Vec<Table>,
}

/// How packets reach the servers.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// `-m`.
    Nat,
    /// `-g`.
    Dr,
    /// `-i`.
    Tun,
}

/// What every packet does in every state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Protocol.
    pub proto: Proto,
    /// Forwarding.
    pub forward: Forward,
    /// Settings under net.ipv4.vs that were not the default.
    pub sysctl: BTreeMap<String, i64>,
    /// Packets that lead to a state.
    pub paths: BTreeMap<String, Vec<String>>,
    /// The table.
    pub transitions: Vec<Transition>,
}

/// One cell of a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// State before; null: no connection.
    pub state: Option<String>,
    /// `in` or `out`, and what.
    pub packet: String,
    /// State after; null: no connection.
    pub next: Option<String>,
    /// Seconds that the connection has left after.
    pub timer: Option<u64>,
    /// Change of the active count.
    pub d_active: i64,
    /// Change of the inactive count.
    pub d_inactive: i64,
    /// Packets that went to servers.
    pub to_servers: usize,
    /// Packets that went to clients.
    pub to_clients: usize,
}

/// Packets in and out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    #[serde(rename = "kernel")]
    _kernel: String,
    /// One per behaviour.
    pub cases: Vec<Case>,
}

/// One behaviour.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique in its file.
    pub name: String,
    #[serde(rename = "about")]
    _about: String,
    /// Commands before.
    pub setup: Vec<String>,
    /// Settings before.
    #[serde(default)]
    pub settings: Settings,
    /// What happened.
    pub steps: Vec<WireStep>,
}

/// Settings of the kernel before a case.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Under net.ipv4.vs.
    #[serde(default)]
    pub sysctl: BTreeMap<String, i64>,
    /// Commands.
    #[serde(default)]
    pub sh: Vec<String>,
}

/// A packet in, a command, or time.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum WireStep {
    /// A packet.
    Packet(PacketStep),
    /// A command.
    Control(ControlStep),
    /// Time.
    Wait(WaitStep),
}

/// A packet and what came of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketStep {
    /// Who sent it.
    pub from: String,
    /// In words.
    pub packet: String,
    /// From the IP header on.
    pub hex: String,
    /// What went out, in order.
    pub out: Vec<OutPacket>,
    /// Connections afterwards.
    pub conns: Vec<String>,
}

/// A packet that went out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutPacket {
    /// On which side.
    pub to: String,
    /// To which station.
    pub mac: String,
    /// In words.
    pub packet: String,
    /// From the IP header on.
    pub hex: String,
}

/// A command in a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlStep {
    /// As typed.
    pub ctl: String,
    /// Exit status.
    pub rc: i32,
    /// Connections afterwards.
    pub conns: Vec<String>,
}

/// Time in a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitStep {
    /// Seconds.
    pub wait: f64,
    /// Connections afterwards.
    pub conns: Vec<String>,
}

/// Samples of the estimator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    #[serde(rename = "kernel")]
    _kernel: String,
    /// The load, in words.
    pub about: String,
    /// In order.
    pub samples: Vec<Sample>,
}

/// What `--stats` and `--rate` showed at one time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    #[serde(rename = "t")]
    _t: f64,
    #[serde(rename = "sent")]
    _sent: u64,
    /// Conns, InPkts, OutPkts, InBytes, OutBytes by service or server.
    pub stats: BTreeMap<String, [u64; 5]>,
    /// CPS, InPPS, OutPPS, InBPS, OutBPS.
    pub rate: BTreeMap<String, [u64; 5]>,
}
