//! What lbd answers.
//!
//! Counters run from the start of lbd and never go back. Rows come in the order of the configuration.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{ApiError, EventList, HealthTable, Hello};

/// A response, told apart by its key `response`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// First frame of lbd.
    Hello(Hello),
    /// The request was refused; nothing was changed.
    Error(ApiError),
    /// To a change: what was changed. To a diff: what would be.
    Changes(Changes),
    /// To `Show`.
    Config(ConfigText),
    /// To `ServiceList`.
    Services(Services),
    /// To `ServerList`.
    Servers(Servers),
    /// To `Rates`.
    Rates(Rates),
    /// To `Connections`.
    Connections(Connections),
    /// To `FlushConnections`.
    Flushed(Flushed),
    /// To `Explain`.
    Explanation(Explanation),
    /// To `Stats`.
    Stats(Stats),
    /// To `Drops`.
    Drops(Drops),
    /// To `Neighbors`.
    Neighbors(Neighbors),
    /// To `Snat`.
    Snat(Snat),
    /// To `Vrrp`.
    Vrrp(super::Vrrp),
    /// To `Sync`.
    Sync(super::SyncStatus),
    /// To `Workers`.
    Workers(Workers),
    /// To `Latency`.
    Latency(Latency),
    /// To `Health`.
    Health(HealthTable),
    /// To `Events`.
    Events(EventList),
    /// To `Version`.
    Version(Version),
}

/// Changes of the configuration, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Empty: both configurations mean the same.
    pub changes: Vec<ChangeRow>,
    /// What of the new configuration is unlikely to be meant; to a change only what was not so before.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// As in `~ server 192.168.150.12 of web: weight 1 -> 2`.
    pub text: String,
    /// Whether lbd must be restarted for it.
    pub needs_restart: bool,
}

/// The running configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// A file that gives this configuration again.
    pub toml: String,
    /// Number of this configuration; it grows with each change.
    #[serde(default)]
    pub generation: u64,
}

/// What a service or a server has taken, from clients only: DR does not see the replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections now in ESTABLISHED, SYN_RECV or SYN_SENT; UDP flows with packets of late, where the service has
    /// `udp_activity` (without it they never are, as in IPVS).
    pub active: u64,
    /// All other tracked connections now.
    pub inactive: u64,
    /// Connections scheduled since the start.
    pub connections: u64,
    /// Packets sent on since the start.
    pub in_packets: u64,
    /// Bytes of these packets from the IP header on.
    pub in_bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.active += other.active;
        self.inactive += other.inactive;
        self.connections += other.connections;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
    }
}

/// Every service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// One row per service.
    pub services: Vec<ServiceRow>,
}

/// A service, the sum of its servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Name.
    pub name: String,
    /// `tcp` or `udp`; `fwm`: a firewall mark.
    pub protocol: String,
    /// Virtual address and port, as in `192.168.150.100:80`, `10.0.0.0/28:8000-8999`; or `mark:7`.
    pub vip: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: String,
    /// What Maglev hashes.
    pub maglev_hash: Option<String>,
    /// Default of its servers: `dr`, `nat` or `tunnel`.
    pub forwarding: String,
    /// Its tunnel, as in `gue:6080:full`.
    #[serde(default)]
    pub tunnel: Option<String>,
    /// Time and prefix length, as in `300s/24`.
    #[serde(default)]
    pub persistence: Option<String>,
    /// Whether every packet is scheduled anew.
    #[serde(default)]
    pub one_packet: bool,
    /// Configured servers, those that are down among them.
    pub servers: u64,
    /// Those of them that get new connections: weight above 0.
    pub servers_in_use: u64,
    /// Sum over the servers.
    pub counters: Counters,
}

/// Servers by service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Servers {
    /// One entry per service.
    pub services: Vec<ServiceServers>,
}

/// The servers of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceServers {
    /// Name of the service.
    pub service: String,
    /// As in [`ServiceRow::protocol`].
    pub protocol: String,
    /// As in [`ServiceRow::vip`].
    pub vip: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: String,
    /// Time and prefix length, as in `300s/24`.
    #[serde(default)]
    pub persistence: Option<String>,
    /// Whether every packet is scheduled anew.
    #[serde(default)]
    pub one_packet: bool,
    /// In scheduling order.
    pub servers: Vec<ServerRow>,
}

/// One server of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    /// Real server's address and port.
    pub address: SocketAddr,
    /// `dr`, `nat` or `tunnel`.
    pub forwarding: String,
    /// Its tunnel, as in `gue:6080:full`.
    #[serde(default)]
    pub tunnel: Option<String>,
    /// Connections from which on it gets no new ones; 0: no such limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; 0: three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
    /// Configured weight; 0: draining.
    pub weight: u32,
    /// `up`, `draining` (weight 0), `drained` (weight 0, and its deadline has passed), `deleted` (gone from the configuration, connections left), with
    /// `unresolved` or `unreachable` instead of `up` when its MAC address is not yet known or it does not answer.
    pub state: String,
    /// With weight 0 and a deadline: how long its connections may still go on, ms.
    #[serde(default)]
    pub drain_left_ms: Option<u64>,
    /// What it has taken.
    pub counters: Counters,
}

/// What services and servers have counted, as IPVS shows it: read every two seconds, and set back on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// One entry per service.
    pub services: Vec<RatedService>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatedService {
    /// Name of the service.
    pub service: String,
    /// Since the counters were set back.
    pub counted: Traffic,
    /// Mean of the last seconds.
    pub per_second: Traffic,
    /// In scheduling order.
    pub servers: Vec<RatedServer>,
}

/// One server of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatedServer {
    /// Real server's address and port.
    pub address: SocketAddr,
    /// Connections now in an active state.
    pub active: u64,
    /// All other tracked connections now.
    pub inactive: u64,
    /// Clients that are kept on this server.
    pub persistent: u64,
    /// Since the counters were set back.
    pub counted: Traffic,
    /// Mean of the last seconds.
    pub per_second: Traffic,
}

/// What has passed, or passes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients, where replies pass the director.
    pub out_packets: u64,
    /// Bytes from clients, from the IP header on.
    pub in_bytes: u64,
    /// Bytes to clients, likewise.
    pub out_bytes: u64,
}

/// Tracked connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Whether the limit cut the list.
    pub truncated: bool,
    /// At most as many as asked for, in no order.
    pub connections: Vec<ConnectionRow>,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Connections that matched.
    pub connections: u64,
}

/// One tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// `tcp`, `udp` or `sctp`; `icmp` for a ping by source NAT; `ip` for the template of a firewall mark.
    pub protocol: String,
    /// State in IPVS's words: `ESTABLISHED`, `SYN_RECV`, `UDP` ...; of a template `NONE` or `ASSURED`.
    pub state: String,
    /// Time left before it is forgotten unless a packet comes, ms.
    pub expires_ms: u64,
    /// Client (CIP).
    pub client: SocketAddr,
    /// Virtual address and port.
    pub vip: SocketAddr,
    /// Real server (RIP).
    pub server: SocketAddr,
    /// With full NAT and source NAT: address and port that the director's packets to the server come from.
    #[serde(default)]
    pub local: Option<SocketAddr>,
    /// By source NAT: the client is a private host, virtual address and server are whom it asked for.
    #[serde(default)]
    pub snat: bool,
    /// Name of the service, or of the rule of source NAT; absent when it was deleted.
    pub service: Option<String>,
    /// A persistence template: all connections of this client network (with port 0) go to this server.
    #[serde(default)]
    pub template: bool,
}

/// What would become of the first packet of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What happens to it: `sent to 192.168.150.12:80`, or `dropped (no_server): the client gets ...`.
    pub verdict: String,
    /// The server that it goes to.
    pub server: Option<SocketAddr>,
    /// Reason as in [`DropRow::reason`], when it goes nowhere.
    pub dropped: Option<String>,
    /// How it came to that, in the order of the packet path.
    pub steps: Vec<ExplainedStep>,
    /// What the scheduler chose from; empty when it was not asked.
    #[serde(default)]
    pub candidates: Vec<CandidateRow>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// `arrival`, `mark`, `service`, `connection`, `template`, `scheduler`, `rewrite`, `next hop`.
    pub step: String,
    /// What was found.
    pub text: String,
}

/// A server as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// Address and port.
    pub server: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Active connections.
    pub active: u64,
    /// Other tracked connections.
    pub inactive: u64,
    /// `chosen`, `able`, or why it may not take a connection: `weight 0`, `upper threshold reached`.
    pub standing: String,
}

/// Packets of the whole director.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// What came in and where it went.
    pub conservation: Conservation,
    /// Tracked connections now.
    pub connections: u64,
    /// Most connections that are tracked at once.
    pub max_connections: u64,
    /// Packet buffers that are free now.
    pub buffers_free: u64,
    /// All packet buffers.
    pub buffers: u64,
    /// One row per device.
    pub devices: Vec<DeviceRow>,
}

/// Packets are conserved: `received + originated = sent + delivered + dropped + waiting`.
///
/// The workers count on while these are read, so a busy director may be off by the packets of a burst or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conservation {
    /// Packets that workers took from devices.
    pub received: u64,
    /// Packets that the director made itself: ARP, ND, ICMP errors.
    pub originated: u64,
    /// Packets that devices took from workers.
    pub sent: u64,
    /// Packets for the director itself that ended there: ARP replies, say.
    pub delivered: u64,
    /// Packets that the kernel got.
    pub to_kernel: u64,
    /// Packets that the kernel sent.
    pub from_kernel: u64,
    /// Packets dropped, for any reason.
    pub dropped: u64,
    /// Packets that now wait for a next hop's MAC address, a transmit queue or in a ring between workers.
    pub waiting: u64,
}

/// A device: what workers took from it and gave to it, and what its driver could not take or give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// As in the configuration.
    pub device: String,
    /// MAC address.
    pub mac: String,
    /// `up` or `down`.
    pub link: String,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes of these from the Ethernet header on, without FCS.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Packets lost because no worker took them in time.
    pub rx_missed: u64,
    /// Packets received damaged or longer than a buffer.
    pub rx_errors: u64,
    /// Packets lost because no buffer was free.
    pub rx_no_buffer: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// Dropped packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Every reason, in the order of the packet path; zeros too.
    pub drops: Vec<DropRow>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means, with its source.
    pub description: String,
}

/// Rules of source NAT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snat {
    /// In the order in which they are tried.
    pub rules: Vec<SnatRow>,
}

/// One rule of source NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnatRow {
    /// Name.
    pub name: String,
    /// Private network, as in `10.1.0.0/24`.
    pub sources: String,
    /// What its hosts' packets come from.
    pub addresses: Vec<IpAddr>,
    /// `tcp`, `udp`, `sctp`, `icmp`.
    pub protocols: Vec<String>,
    /// Name of the port that packets leave by; absent: any.
    pub port: Option<String>,
    /// Its connections; `in` is out into the world.
    pub counters: Counters,
    /// Packets that came back.
    pub out_packets: u64,
    /// Bytes of these.
    pub out_bytes: u64,
}

/// Next hops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbors {
    /// One row per port and address.
    pub neighbors: Vec<NeighborRow>,
}

/// One next hop: a server or a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborRow {
    /// Name of the port.
    pub port: String,
    /// Its address.
    pub address: IpAddr,
    /// MAC address; absent while it is not known.
    pub mac: Option<String>,
    /// `incomplete`, `reachable`, `probe` or `failed` (RFC 4861 section 7.3.2).
    pub state: String,
    /// Time in this state, ms.
    pub since_ms: u64,
    /// Probes sent in this state.
    pub probes: u32,
}

/// The workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// One row per worker.
    pub workers: Vec<WorkerRow>,
    /// Memory of their connection tables, one row per kind.
    #[serde(default)]
    pub tables: Vec<TableRow>,
    /// What became of an earlier lbd's connections at the start.
    #[serde(default)]
    pub restart: RestartRow,
}

/// What became of an earlier lbd's connections at the start. It does not change while lbd runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRow {
    /// Folder in which connections are kept for the lbd after this one; none: they are not kept.
    pub folder: Option<String>,
    /// How it began: `attached` (tables where they were), `moved` (connections moved to other tables) or `fresh`.
    pub began: String,
    /// Why it began `fresh`, or why connections are not kept.
    pub reason: Option<String>,
    /// Connections taken over.
    pub taken_over: u64,
    /// Connections that were not, by reason.
    pub dropped: Vec<(String, u64)>,
    /// Time that this took, us.
    pub took_us: u64,
}

/// The connection tables of one kind, of all workers together. It does not change while lbd runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// `IPv4 connections`, `IPv6 connections`, `IPv4 translations` or `IPv6 translations`.
    pub kind: String,
    /// Entries that fit. A connection by NAT takes a connection and a translation, one by full NAT two of those.
    pub fits: u64,
    /// Address space, bytes. What does not lie in reserved huge pages becomes memory as it is first used.
    pub bytes: u64,
    /// Bytes of it in reserved huge pages.
    pub reserved_bytes: u64,
    /// What it lies in: `reserved huge pages`, `transparent huge pages`, `small pages` or `heap`; several where
    /// workers differ.
    pub pages: Vec<String>,
    /// Bytes of it that outlive lbd.
    #[serde(default)]
    pub kept_bytes: u64,
    /// Whether the configuration at the start needed it, so that it was given reserved huge pages while there were any.
    pub used: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Index, in the order of `appliance.workers`.
    pub worker: u16,
    /// CPU that it is pinned to.
    pub cpu: u16,
    /// Tracked connections that it owns now.
    pub connections: u64,
    /// Most connections that it may own.
    pub max_connections: u64,
    /// Connections that it has begun to track.
    pub inserted: u64,
    /// Connections that it forgot because their time was up.
    pub expired: u64,
    /// Packets taken from devices.
    pub received: u64,
    /// Packets that devices took.
    pub sent: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets given to the workers that own their connections.
    pub handed_over: u64,
    /// Packets taken from other workers.
    pub taken_over: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Turns that found a packet.
    pub busy_turns: u64,
    /// Number of the configuration that it works by; it grows by one with each change.
    pub generation: u64,
    /// Messages to the control core that were lost because its queue was full.
    pub events_lost: u64,
    /// What it does about floods.
    pub flood: FloodRow,
}

/// What one worker does about floods of first packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodRow {
    /// SYNs are a flood now (`syn_flood`).
    pub active: bool,
    /// Connections whose handshake is under way now.
    pub embryonic: u64,
    /// Connections that made room for others: over.
    pub evicted_closed: u64,
    /// The same: not yet established.
    pub evicted_embryonic: u64,
    /// The same: UDP of one packet.
    pub evicted_one_way: u64,
    /// The same: closed by one side.
    pub evicted_closing: u64,
    /// SYNs that were sent on without a connection because they are a flood.
    pub unconfirmed: u64,
    /// Packets that were sent on without a connection because the table is full, or theirs has none.
    pub stateless: u64,
    /// SYNs that were answered with a cookie.
    pub cookies_sent: u64,
    /// Connections begun by a cookie that came back.
    pub cookies_accepted: u64,
    /// ACKs whose number is no cookie, or too old.
    pub cookies_refused: u64,
    /// SYNs to servers that were said again for clients that had proved themselves.
    pub calls_repeated: u64,
    /// Clients that were given a reset because their server did not answer.
    pub calls_given_up: u64,
}

/// Time that packets spend in the director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Each worker, then all together (without a number).
    pub latency: Vec<LatencyRow>,
}

/// Percentiles of the time from a packet's receipt to its hand-over to the driver, ns, of a sample of the turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// Worker; absent: all.
    pub worker: Option<u16>,
    /// Turns measured since the start; with none all values are 0.
    pub samples: u64,
    /// Half of the turns took at most this.
    pub p50_ns: u64,
    /// 90 of 100 turns took at most this.
    pub p90_ns: u64,
    /// 99 of 100 turns took at most this.
    pub p99_ns: u64,
    /// 999 of 1000 turns took at most this.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of lbd.
    pub version: String,
    /// Version of the protocol.
    pub protocol: u32,
    /// Name of the director.
    pub name: String,
    /// Process id of lbd.
    pub pid: u32,
    /// Time since its start, ms.
    pub uptime_ms: u64,
}
