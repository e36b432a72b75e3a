//! What the director counts, as the API's rows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use lb_config::{Model, Server, Service, ServiceRef, to_toml};
use lb_dataplane::director::{DestRow, Director, ServiceRow as ServiceCounts};
use lb_dataplane::flood::evict::Class;

use crate::api::{
    ApiError, Conservation, Counters, DeviceRow, DropRow, ErrorKind, FloodRow, NeighborRow, Neighbors,
    RestartRow, ServerRow, Servers, ServiceRow, ServiceServers, Services, Snat, SnatRow, Stats, TableRow,
    WorkerRow, Workers,
};
use crate::health::{Health, NOT_CHECKED};
use crate::server::Access;

/// What the drivers know and workers do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// In the order of the devices.
    pub devices: Vec<DriverRow>,
    /// Packet buffers that are free now.
    pub buffers_free: u32,
    /// All packet buffers.
    pub buffers: u32,
}

/// What a driver knows of its device that workers do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverRow {
    /// MAC address.
    pub mac: [u8; 6],
    /// Whether the link is up.
    pub up: bool,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Packets lost because no worker took them in time.
    pub rx_missed: u64,
    /// Packets received damaged or longer than a buffer.
    pub rx_errors: u64,
    /// Packets lost because no buffer was free.
    pub rx_no_buffer: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// The running configuration as a file; without its secret for those who may only read.
pub(super) fn config(model: &Model, access: Access) -> String {
    let mut model = model.clone();
    let mut hidden = String::new();
    if access != Access::Change && model.appliance.cluster_secret.take().is_some() {
        hidden += "# appliance.cluster_secret is set, but only shown to those who may change it\n";
    }
    if access != Access::Change && model.ha.has_secrets() {
        hidden += "# passwords and keys of vrrp are set, but only shown to those who may change them\n";
        model.ha = model.ha.without_secrets();
    }
    hidden + &to_toml(&model)
}

pub(super) fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// `model`: the configured one, with servers that are down and without sorry servers.
pub(super) fn services(director: &Director, model: &Model) -> Services {
    let configured: HashMap<&str, &Service> = model.services.iter().map(|s| (s.name.as_str(), s)).collect();
    let row = |service: ServiceCounts| {
        let sum = |of: fn(&DestRow) -> u64| service.dests.iter().map(of).sum();
        let servers = configured.get(service.name.as_str()).map_or(&[][..], |service| &service.servers);
        let keys: HashSet<SocketAddr> = servers.iter().map(Server::key).collect();
        let in_use = |dest: &&DestRow| {
            !dest.removed && dest.weight > 0 && keys.contains(&SocketAddr::new(dest.address, dest.port))
        };
        ServiceRow {
            protocol: protocol(&service),
            vip: service.address.local(),
            scheduler: service.scheduler.name().to_owned(),
            maglev_hash: service.scheduler.maglev_hash().map(|hash| hash.to_string()),
            forwarding: service.forwarding.name().to_owned(),
            tunnel: service.forwarding.tunnel().map(|tunnel| tunnel.to_string()),
            persistence: service.persistence.map(|persistence| persistence.to_string()),
            one_packet: service.one_packet,
            servers: servers.len() as u64,
            servers_in_use: service.dests.iter().filter(in_use).count() as u64,
            counters: Counters {
                active: sum(|dest| dest.active),
                inactive: sum(|dest| dest.inactive),
                connections: service.conns,
                in_packets: service.in_packets,
                in_bytes: service.in_bytes,
            },
            name: service.name,
        }
    };
    Services { services: director.services().into_iter().map(row).collect() }
}

/// The protocol's word; `fwm` for a firewall mark, as ipvsadm has it.
fn protocol(service: &ServiceCounts) -> String {
    service.address.protocol().map_or_else(|| "fwm".to_owned(), |protocol| protocol.to_string())
}

/// Errors: there is no service of that name.
pub(super) fn servers(
    director: &Director,
    model: &Model,
    health: &Health,
    only: Option<&str>,
) -> Result<Servers, ApiError> {
    let name = match only {
        None => None,
        Some(text) => {
            let reference: ServiceRef = text.parse()?;
            let at = reference.find(model);
            let missing = || ApiError::new(ErrorKind::NotFound, format!("there is no service {reference}"));
            Some(model.services[at.ok_or_else(missing)?].name.as_str())
        }
    };
    let wanted =
        director.services().into_iter().filter(|service| name.is_none_or(|name| name == service.name));
    let configured: HashMap<&str, &Service> = model.services.iter().map(|s| (s.name.as_str(), s)).collect();
    let row = |service: ServiceCounts| ServiceServers {
        protocol: protocol(&service),
        vip: service.address.local(),
        scheduler: service.scheduler.name().to_owned(),
        persistence: service.persistence.map(|persistence| persistence.to_string()),
        one_packet: service.one_packet,
        servers: with_down(configured.get(service.name.as_str()).copied(), health, &service),
        service: service.name,
    };
    Ok(Servers { services: wanted.map(row).collect() })
}

/// The servers that the director has, and in their places those of the configuration that checks keep out.
fn with_down(configured: Option<&Service>, health: &Health, service: &ServiceCounts) -> Vec<ServerRow> {
    let mut rows: Vec<ServerRow> = service.dests.iter().map(server).collect();
    let servers = configured.map_or(&[][..], |configured| &configured.servers);
    let down = servers.iter().enumerate().filter_map(|(at, server)| {
        let why = health.why_down(&service.name, server.key())?;
        Some((at, server, if why == NOT_CHECKED { "unknown" } else { "down" }))
    });
    let down: Vec<_> = down.collect();
    if down.is_empty() {
        return rows;
    }
    let places: HashMap<SocketAddr, usize> =
        rows.iter().enumerate().rev().map(|(at, row)| (row.address, at)).collect();
    let mut missing = Vec::new();
    for (at, server, state) in down {
        match places.get(&server.key()).and_then(|place| rows.get_mut(*place)) {
            Some(row) => row.state = state.to_owned(),
            None => missing.push((at, kept_out(server, state))),
        }
    }
    let (mut merged, mut missing) =
        (Vec::with_capacity(rows.len() + missing.len()), missing.into_iter().peekable());
    for row in rows {
        while let Some((_, kept_out)) = missing.next_if(|(at, _)| *at <= merged.len()) {
            merged.push(kept_out);
        }
        merged.push(row);
    }
    merged.extend(missing.map(|(_, row)| row));
    merged
}

/// A server that the director does not have for now.
fn kept_out(server: &Server, state: &str) -> ServerRow {
    ServerRow {
        address: server.key(),
        forwarding: server.forwarding.name().to_owned(),
        tunnel: server.forwarding.tunnel().map(|tunnel| tunnel.to_string()),
        weight: 0,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
        state: state.to_owned(),
        drain_left_ms: None,
        counters: Counters::default(),
    }
}

fn server(dest: &DestRow) -> ServerRow {
    let state = match dest {
        DestRow { removed: true, .. } => "deleted",
        DestRow { drain_left_ms: Some(0), .. } => "drained",
        DestRow { weight: 0, .. } => "draining",
        DestRow { reachable: None, .. } => "unresolved",
        DestRow { reachable: Some(false), .. } => "unreachable",
        DestRow { reachable: Some(true), .. } => "up",
    };
    ServerRow {
        address: SocketAddr::new(dest.address, dest.port),
        forwarding: dest.forwarding.name().to_owned(),
        tunnel: dest.forwarding.tunnel().map(|tunnel| tunnel.to_string()),
        upper_threshold: dest.upper_threshold,
        lower_threshold: dest.lower_threshold,
        weight: dest.weight,
        state: state.to_owned(),
        drain_left_ms: dest.drain_left_ms,
        counters: counters(dest),
    }
}

fn counters(dest: &DestRow) -> Counters {
    Counters {
        active: dest.active,
        inactive: dest.inactive,
        connections: dest.conns,
        in_packets: dest.in_packets,
        in_bytes: dest.in_bytes,
    }
}

pub(super) fn stats(director: &Director, drivers: &Drivers) -> Stats {
    let workers = director.workers();
    let sum = |of: fn(&lb_dataplane::director::WorkerRow) -> u64| workers.iter().map(of).sum::<u64>();
    let totals = director.totals();
    // What one worker has given and the other not yet taken. The counters are read one after the other, so a busy
    // ring may look emptier than it can be.
    let in_rings = sum(|worker| worker.handed_over).saturating_sub(sum(|worker| worker.taken_over));
    let driver = |at: usize| drivers.devices.get(at).cloned().unwrap_or_default();
    let devices = director.devices().into_iter().enumerate().map(|(at, row)| {
        let driver = driver(at);
        DeviceRow {
            device: row.device,
            mac: mac(driver.mac),
            link: if driver.up { "up" } else { "down" }.to_owned(),
            mtu: u32::from(driver.mtu),
            rx_packets: row.rx[0],
            rx_bytes: row.rx[1],
            tx_packets: row.tx[0],
            tx_bytes: row.tx[1],
            rx_missed: driver.rx_missed,
            rx_errors: driver.rx_errors,
            rx_no_buffer: driver.rx_no_buffer,
            tx_errors: driver.tx_errors,
        }
    });
    Stats {
        conservation: Conservation {
            received: totals.rx,
            originated: totals.originated,
            sent: totals.tx,
            delivered: totals.delivered,
            to_kernel: totals.to_kernel,
            from_kernel: totals.from_kernel,
            dropped: totals.dropped,
            waiting: totals.held + in_rings,
        },
        connections: sum(|worker| worker.connections),
        max_connections: u64::from(director.model().limits.max_connections),
        buffers_free: u64::from(drivers.buffers_free),
        buffers: u64::from(drivers.buffers),
        devices: devices.collect(),
    }
}

pub(super) fn drops(director: &Director) -> Vec<DropRow> {
    let row = |(reason, packets): (lb_dataplane::DropReason, u64)| DropRow {
        reason: reason.name().to_owned(),
        packets,
        description: reason.describe().to_owned(),
    };
    director.drops().into_iter().map(row).collect()
}

pub(super) fn neighbors(director: &Director, now_ms: u64) -> Neighbors {
    let row = |(port, row): (String, lb_dataplane::neighbor::NeighborRow)| NeighborRow {
        port,
        address: row.ip,
        mac: row.mac.map(mac),
        state: row.state.name().to_owned(),
        since_ms: row.since_ms,
        probes: row.probes,
    };
    Neighbors { neighbors: director.neighbors(now_ms).into_iter().map(row).collect() }
}

/// Rules of source NAT.
pub(super) fn snat(director: &Director) -> Snat {
    let row = |(rule, (name, dest)): (&lb_config::SnatRule, (String, DestRow))| SnatRow {
        name,
        sources: rule.sources.to_string(),
        addresses: rule.addresses.clone(),
        protocols: rule.protocols.iter().map(ToString::to_string).collect(),
        port: rule.port.clone(),
        counters: counters(&dest),
        out_packets: dest.out_packets,
        out_bytes: dest.out_bytes,
    };
    Snat { rules: director.model().snat.iter().zip(director.snat()).map(row).collect() }
}

pub(super) fn workers(director: &Director, tables: &[TableRow], restart: &RestartRow) -> Workers {
    let row = |row: lb_dataplane::director::WorkerRow| WorkerRow {
        worker: row.worker,
        cpu: row.cpu,
        connections: row.connections,
        max_connections: row.max_connections,
        inserted: row.inserted,
        expired: row.expired,
        received: row.rx,
        sent: row.tx,
        dropped: row.dropped,
        handed_over: row.handed_over,
        taken_over: row.taken_over,
        turns: row.turns,
        busy_turns: row.busy_turns,
        generation: row.generation,
        events_lost: row.events_lost,
        flood: FloodRow {
            active: row.flood,
            embryonic: row.embryonic,
            evicted_closed: row.evicted[Class::Closed as usize],
            evicted_embryonic: row.evicted[Class::Embryonic as usize],
            evicted_one_way: row.evicted[Class::OneWay as usize],
            evicted_closing: row.evicted[Class::Closing as usize],
            unconfirmed: row.unconfirmed,
            stateless: row.stateless,
            cookies_sent: row.cookies_sent,
            cookies_accepted: row.cookies_accepted,
            cookies_refused: row.cookies_refused,
            calls_repeated: row.calls_repeated,
            calls_given_up: row.calls_given_up,
        },
    };
    let workers = director.workers().into_iter().map(row).collect();
    Workers { workers, tables: tables.to_vec(), restart: restart.clone() }
}
