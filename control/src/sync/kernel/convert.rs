//! Connections in this director's words and in the kernel's.
//!
//! The kernel's messages do not name the service: both sides find the server by mark, else by protocol, virtual address
//! and port, and by the server's address and port, as `ip_vs_find_dest` does; how packets get to it is what the
//! receiver's configuration says. What they have no words for is named in [`Unsaid`], what this director cannot take
//! over in [`Unheard`].

use std::collections::HashMap;
use std::net::IpAddr;

use lb_config::{Forwarding, Model, Protocol, Server, Service, ServiceAddress};
use lb_dataplane::conn::Tick;
use lb_dataplane::director::{DestKey, Owner, persistence_rule};
use lb_dataplane::parse::L4;
use lb_dataplane::persist::{Child, TemplateKey};
use lb_dataplane::state::{State, TimeoutTable};
use lb_dataplane::sync::{Connection, Flags as Known, Record, Streams, Template};
use lb_dataplane::wire::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};

use super::wire::{Engine, Entry, Flags, Seq};

/// State of a template one of whose connections was established. Source: Linux, `IP_VS_CTPL_S_ASSURED`.
const ASSURED: u16 = 1;

/// Why the kernel's protocol cannot tell of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// Full NAT: IPVS has none.
    FullNat = 0,
    /// Source NAT: it is no connection of a service.
    Snat = 1,
    /// The director changes sequence numbers (SYN proxy, PROXY header), which IPVS does for FTP alone.
    Stream = 2,
    /// Client and server have addresses of different families.
    Families = 3,
    /// The template of a range, which IPVS does not have.
    Range = 4,
}

impl Unsaid {
    /// All, by number.
    pub const ALL: [Self; 5] = [Self::FullNat, Self::Snat, Self::Stream, Self::Families, Self::Range];

    /// Name in `lbctl sync`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullNat => "full_nat",
            Self::Snat => "source_nat",
            Self::Stream => "stream_changed",
            Self::Families => "two_families",
            Self::Range => "range_template",
        }
    }
}

/// Why this director does not take an entry over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// No such server.
    NoServer = 0,
    /// A template of a service that is not persistent.
    NotPersistent = 1,
    /// Its sequence numbers are changed (FTP through NAT).
    Sequence = 2,
    /// A persistence engine knows its client (`--pe`).
    Engine = 3,
    /// Its client's port is not known (FTP).
    NoClientPort = 4,
    /// Neither TCP, UDP nor SCTP.
    Protocol = 5,
}

impl Unheard {
    /// All, by number.
    pub const ALL: [Self; 6] = [
        Self::NoServer,
        Self::NotPersistent,
        Self::Sequence,
        Self::Engine,
        Self::NoClientPort,
        Self::Protocol,
    ];

    /// Name in `lbctl sync`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::NotPersistent => "not_persistent",
            Self::Sequence => "sequence_changed",
            Self::Engine => "persistence_engine",
            Self::NoClientPort => "no_client_port",
            Self::Protocol => "protocol",
        }
    }
}

/// The services of a configuration, to be found by what messages say.
#[derive(Debug)]
pub struct Book {
    model: Model,
    /// Services by what clients address, but for ranges.
    places: HashMap<ServiceAddress, usize>,
    ranges: Vec<usize>,
}

impl Book {
    /// The services of a configuration as it is in force.
    ///
    /// Cost: an entry per service.
    pub fn new(model: Model) -> Self {
        let mut places = HashMap::with_capacity(model.services.len());
        let mut ranges = Vec::new();
        for (at, service) in model.services.iter().enumerate() {
            match service.address {
                ServiceAddress::Range { .. } => ranges.push(at),
                address => drop(places.insert(address, at)),
            }
        }
        Self { model, places, ranges }
    }

    fn service(&self, address: ServiceAddress) -> Option<&Service> {
        match address {
            ServiceAddress::Range { .. } => {
                let ranges = self.ranges.iter().filter_map(|at| self.model.services.get(*at));
                ranges.into_iter().find(|service| service.address == address)
            }
            address => self.model.services.get(*self.places.get(&address)?),
        }
    }

    /// Services that a connection may be of, in the order in which they are tried.
    fn services(&self, mark: u32, protocol: Option<Protocol>, vip: (IpAddr, u16)) -> Vec<&Service> {
        let (address, port) = vip;
        let mut found = Vec::new();
        if mark != 0 {
            found.extend(self.service(ServiceAddress::Mark { mark, ipv6: address.is_ipv6() }));
        }
        let Some(protocol) = protocol else { return found };
        let by = |port| ServiceAddress::Vip { vip: address, port, protocol };
        found.extend(self.service(by(port)));
        if port != 0 {
            found.extend(self.service(by(0)));
        }
        let within = |service: &&Service| match service.address {
            ServiceAddress::Range { vips, ports, protocol: own } => {
                own == protocol && vips.contains(address) && ports.contains(port)
            }
            _ => false,
        };
        let ranges = self.ranges.iter().filter_map(|at| self.model.services.get(*at));
        found.extend(ranges.filter(within));
        found
    }

    /// The service and server of an entry.
    fn find(&self, entry: &Entry) -> Option<(&Service, &Server)> {
        let (address, port) = entry.server;
        let serves = |server: &&Server| {
            let any = server.port == 0 && (port == 0 || port == entry.vip.1);
            // a template for many ports has port 0, whatever its server's is
            server.address == address && (server.port == port || any || entry.is_template() && port == 0)
        };
        let services = self.services(entry.mark, protocol(entry.protocol), entry.vip);
        services.into_iter().find_map(|service| Some((service, service.servers.iter().find(serves)?)))
    }

    /// How long a template of this service lives, s; 0: the receiver's default.
    fn persistence(&self, dest: &DestKey) -> u32 {
        let service = dest.owner.service().and_then(|address| self.service(address));
        let timeout = service.and_then(|service| service.persistence).map(|own| own.timeout.as_secs());
        timeout.map_or(0, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        PROTOCOL_TCP => Some(Protocol::Tcp),
        PROTOCOL_UDP => Some(Protocol::Udp),
        PROTOCOL_SCTP => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Whole seconds of a time that is not over.
fn seconds(left_ns: u64) -> u32 {
    u32::try_from(left_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

/// A destination's forwarding as flags, its mark, and the port of its server for a client that asked for `port`.
fn place(dest: &DestKey, client: IpAddr, port: u16) -> Result<(Flags, u32, (IpAddr, u16)), Unsaid> {
    let Owner::Service(service) = dest.owner else { return Err(Unsaid::Snat) };
    let flags = match dest.forwarding {
        Forwarding::Nat => Flags::MASQ,
        Forwarding::Tunnel(_) => Flags::TUNNEL,
        Forwarding::Dr => Flags::DIRECT,
        Forwarding::FullNat => return Err(Unsaid::FullNat),
    };
    if dest.address.is_ipv6() != client.is_ipv6() {
        return Err(Unsaid::Families);
    }
    let mark = match service {
        ServiceAddress::Mark { mark, .. } => mark,
        ServiceAddress::Vip { .. } | ServiceAddress::Range { .. } => 0,
    };
    let port = if dest.port == 0 { port } else { dest.port };
    Ok((Flags(flags), mark, (dest.address, port)))
}

fn said_connection(told: &Connection) -> Result<Entry, Unsaid> {
    let (Flags(mut flags), mark, server) = place(&told.dest, told.client.0, told.vip.1)?;
    if told.streams != Streams::Alike || told.flags.proxied {
        return Err(Unsaid::Stream);
    }
    if told.flags.no_output {
        flags |= Flags::NO_OUTPUT;
    }
    if !told.state.is_active() {
        flags |= Flags::INACTIVE;
    }
    Ok(Entry {
        protocol: told.protocol,
        flags: Flags(flags),
        state: told.state.bits().into(),
        client: told.client,
        vip: told.vip,
        server,
        mark,
        timeout: seconds(u64::from(told.left) * (1_000_000_000 / Tick::PER_SECOND)),
        seq: None,
        engine: Engine::default(),
    })
}

fn said_template(key: &TemplateKey, dest: &DestKey, assured: bool, timeout: u32) -> Result<Entry, Unsaid> {
    let (Flags(mut flags), mark, (address, port)) = place(dest, key.client(), key.vport())?;
    if matches!(dest.owner, Owner::Service(ServiceAddress::Range { .. })) {
        return Err(Unsaid::Range);
    }
    flags |= Flags::TEMPLATE | Flags::INACTIVE;
    if dest.forwarding != Forwarding::Nat {
        flags |= Flags::NO_OUTPUT;
    }
    Ok(Entry {
        protocol: key.protocol(),
        flags: Flags(flags),
        state: if assured { ASSURED } else { 0 },
        client: (key.client(), 0),
        vip: (key.vip(), key.vport()),
        // one that stands for many ports
        server: (address, if key.vport() == 0 { 0 } else { port }),
        mark,
        timeout,
        seq: None,
        engine: Engine::default(),
    })
}

/// A record in the kernel's words: the connection, and the template that chose its server, which the kernel sends along
/// too.
pub fn said(record: &Record, book: &Book) -> [Option<Result<Entry, Unsaid>>; 2] {
    match record {
        Record::Connection(told) => {
            let template = told.template.filter(|_| told.dest.forwarding != Forwarding::FullNat);
            let template = template
                .map(|key| said_template(&key, &told.dest, told.flags.assured, book.persistence(&told.dest)));
            [Some(said_connection(told)), template]
        }
        Record::Template(Template { key, dest, left_ns, assured, .. }) => {
            [Some(said_template(key, dest, *assured, seconds(*left_ns))), None]
        }
        // IPVS has no words for it
        Record::Gone(_) => [None, None],
    }
}

/// An entry in this director's words.
pub fn heard(entry: &Entry, book: &Book) -> Result<Record, Unheard> {
    if !entry.engine.data.is_empty() {
        return Err(Unheard::Engine);
    }
    let unchanged = |seq: &Seq| seq.delta == 0 && seq.previous == 0;
    if !entry.seq.iter().flatten().all(unchanged) {
        return Err(Unheard::Sequence);
    }
    if entry.flags.has(Flags::NO_CPORT) {
        return Err(Unheard::NoClientPort);
    }
    let (service, server) = book.find(entry).ok_or(Unheard::NoServer)?;
    let dest = DestKey {
        owner: Owner::Service(service.address),
        address: server.address,
        port: server.port,
        forwarding: server.forwarding,
    };
    if entry.is_template() {
        return heard_template(entry, service, dest).map(Record::Template);
    }
    L4::of(entry.protocol).ok_or(Unheard::Protocol)?;
    let state = State::of(entry.protocol, entry.state as u8);
    // a message of version 0 knows no time
    let left = match entry.timeout {
        0 => TimeoutTable::new(&book.model.timeouts, &service.timeouts).of(state),
        timeout => timeout.saturating_mul(Tick::PER_SECOND as u32).min(Tick::MAX_TIMEOUT),
    };
    let flags = Known { no_output: entry.flags.has(Flags::NO_OUTPUT), ..Known::default() };
    Ok(Record::Connection(Connection {
        protocol: entry.protocol,
        client: entry.client,
        vip: entry.vip,
        dest,
        local: None,
        state,
        flags,
        left,
        streams: Streams::Alike,
        template: None,
        told_ns: 0,
    }))
}

fn heard_template(entry: &Entry, service: &Service, dest: DestKey) -> Result<Template, Unheard> {
    let rule = persistence_rule(service.address, service.persistence.ok_or(Unheard::NotPersistent)?);
    let protocol = match service.address {
        // one for all protocols and ports: the number of no port stands for any
        ServiceAddress::Mark { .. } => L4::Tcp,
        _ => L4::of(entry.protocol).ok_or(Unheard::Protocol)?,
    };
    let vport = match service.address {
        ServiceAddress::Mark { .. } => 1,
        _ => entry.vip.1,
    };
    let child = Child { client: entry.client.0, vip: entry.vip.0, vport, protocol };
    // version 0 knows no time
    let left_ns = match entry.timeout {
        0 => rule.timeout_ns,
        seconds => u64::from(seconds) * 1_000_000_000,
    };
    let (key, timeout_ns) = (rule.key(&child), rule.timeout_ns);
    Ok(Template { key, dest, timeout_ns, left_ns: left_ns.min(timeout_ns), assured: entry.state == ASSURED })
}

#[cfg(test)]
pub(super) mod tests;
