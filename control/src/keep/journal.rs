//! Which server each index in the tables stands for: lines that are added before workers hear of it.
//!
//! A line is the first eight hexadecimal digits of its SHA-256, a space, and JSON. A line that is not whole was never
//! heard of by a worker; one whose sum is wrong is passed over, and connections to that server are not taken over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lb_config::{Forwarding, Model, Server, Service, ServiceAddress, services_to_toml, to_toml};
use lb_dataplane::director::{DestKey, Journal, Owner};
use lb_dataplane::ids::DestId;
use lb_dataplane::neighbor::LinkId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

/// Size from which on it is written anew, bytes; the more, the larger what there is.
const LONG: u64 = 16 << 20;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// A service, as a configuration file has it, with one server of each forwarding.
    Service { address: String, toml: String },
    /// An index of a service's server.
    Server {
        index: u32,
        service: String,
        address: IpAddr,
        port: u16,
        forwarding: String,
        /// It gets connections.
        stands: bool,
    },
    /// An index of a rule of source NAT.
    Snat { index: u32, sources: String, protocols: u8, link: Option<u16>, address: IpAddr },
}

fn sum(json: &str) -> String {
    Sha256::digest(json).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Line {
    fn of_dest(dest: DestId, key: &DestKey, stands: bool) -> Self {
        let DestKey { owner, address, port, forwarding } = *key;
        let index = dest.0;
        match owner {
            Owner::Service(service) => Self::Server {
                index,
                service: service.to_string(),
                address,
                port,
                forwarding: forwarding.to_string(),
                stands,
            },
            Owner::Snat { sources, protocols, link } => {
                let link = link.map(|link| link.0);
                Self::Snat { index, sources: sources.to_string(), protocols, link, address }
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Strings and numbers are always JSON.
        let json = serde_json::to_string(self).unwrap_or_default();
        out.extend_from_slice(format!("{} {json}\n", sum(&json)).as_bytes());
    }

    fn read(text: &str) -> Option<Self> {
        let (first, json) = text.split_once(' ')?;
        if first != sum(json) {
            return None;
        }
        serde_json::from_str(json).ok()
    }
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct Content {
    /// Services as TOML, by what clients address.
    services: BTreeMap<String, String>,
    /// What each index stands for.
    pub dests: BTreeMap<u32, DestKey>,
    /// The same the other way round: a server that was gone for good and came back has a new index.
    indices: HashMap<DestKey, u32>,
    /// Those servers of them that got connections.
    pub standing: HashSet<(ServiceAddress, SocketAddr)>,
    /// Lines that were not whole.
    pub damaged: usize,
}

/// Reads a journal.
///
/// Errors: it cannot be read.
pub fn read(path: &Path) -> io::Result<Content> {
    let bytes = fs::read(path)?;
    let mut content = Content::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = std::str::from_utf8(line).ok().and_then(Line::read);
        if line.and_then(|line| content.take(line)).is_none() {
            content.damaged += 1;
        }
    }
    Ok(content)
}

impl Content {
    fn take(&mut self, line: Line) -> Option<()> {
        let (index, key) = match line {
            Line::Service { address, toml } => {
                self.services.insert(address, toml);
                return Some(());
            }
            Line::Server { index, service, address, port, forwarding, stands } => {
                let service = service.parse().ok()?;
                let owner = Owner::Service(service);
                let server = (service, SocketAddr::new(address, port));
                if stands {
                    self.standing.insert(server);
                } else {
                    self.standing.remove(&server);
                }
                (index, DestKey { owner, address, port, forwarding: forwarding.parse().ok()? })
            }
            Line::Snat { index, sources, protocols, link, address } => {
                let owner = Owner::Snat { sources: sources.parse().ok()?, protocols, link: link.map(LinkId) };
                (index, DestKey { owner, address, port: 0, forwarding: Forwarding::FullNat })
            }
        };
        if let Some(former) = self.indices.insert(key, index).filter(|former| *former != index) {
            self.dests.remove(&former);
        }
        if let Some(other) = self.dests.insert(index, key).filter(|other| *other != key) {
            self.indices.remove(&other);
        }
        Some(())
    }

    /// The services as they were, with every server that has an index, as far as they are possible with the ports of
    /// `model`.
    pub fn services(&self, model: &Model) -> Vec<Arc<Service>> {
        let mut base = model.without_services();
        // Other tables name services or their addresses.
        base.ha = lb_config::Ha::default();
        base.snat.clear();
        let base = to_toml(&base);
        let all: String = self.services.values().map(String::as_str).collect();
        let parsed = |text: &str| lb_config::parse(&format!("{base}\n{text}"));
        let services: Vec<Arc<Service>> = match parsed(&all) {
            Ok(model) => model.services.shared().to_vec(),
            // One that is not possible any more is no reason to lose the others.
            Err(_) => {
                let one = |(address, text): (&String, &String)| match parsed(text) {
                    Ok(model) => model.services.shared().first().cloned(),
                    Err(faults) => {
                        warn!(service = %address, "connections of a former service are lost: {faults}");
                        None
                    }
                };
                self.services.iter().filter_map(one).collect()
            }
        };
        let mut servers: BTreeMap<_, Vec<Server>> = BTreeMap::new();
        for key in self.dests.values() {
            if let Owner::Service(service) = key.owner {
                let server = Server { weight: 0, ..Server::new(key.address, key.port, key.forwarding) };
                servers.entry(service.to_string()).or_default().push(server);
            }
        }
        let with_servers = |service: Arc<Service>| {
            let servers = servers.remove(&service.address.to_string())?;
            Some(Arc::new(Service { servers, ..Arc::unwrap_or_clone(service) }))
        };
        services.into_iter().filter_map(with_servers).collect()
    }
}

/// Whether a journal is still written.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    /// Why it is not.
    pub fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

/// Writes a journal.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    file: Option<File>,
    /// A new file takes the place of the one that there is.
    anew: bool,
    written: u64,
    /// Size of what was there when it was written anew.
    begun: u64,
    health: Health,
}

impl Writer {
    /// Writes to `path`; nothing before the first [`Journal::begin`].
    pub fn new(path: PathBuf) -> Self {
        let health = Health::default();
        Self { path, lines: Vec::new(), file: None, anew: true, written: 0, begun: 0, health }
    }

    /// How it goes, to be asked while the director has the journal.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    fn write(&mut self) -> io::Result<()> {
        if self.anew {
            let mut new = self.path.clone().into_os_string();
            new.push(".new");
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&self.lines)?;
            fs::rename(&new, &self.path)?;
            (self.file, self.anew, self.begun, self.written) =
                (Some(file), false, self.lines.len() as u64, 0);
        } else if let Some(file) = &mut self.file {
            // One call: a process that is killed in it has written a line or has not.
            file.write_all(&self.lines)?;
            self.written += self.lines.len() as u64;
        }
        self.lines.clear();
        Ok(())
    }
}

impl Journal for Writer {
    fn service(&mut self, service: &Service) {
        let mut kinds = Vec::new();
        let mut one = without_servers(service);
        for server in &service.servers {
            if !kinds.contains(&server.forwarding) {
                kinds.push(server.forwarding);
                one.servers.push(Server { health: None, ..server.clone() });
            }
        }
        let toml = services_to_toml([&one]);
        Line::Service { address: service.address.to_string(), toml }.write(&mut self.lines);
    }

    fn dest(&mut self, dest: DestId, key: &DestKey, stands: bool) {
        Line::of_dest(dest, key, stands).write(&mut self.lines);
    }

    fn close(&mut self) {
        if let Err(error) = self.write() {
            self.health.set(format!("{}: {error}", self.path.display()));
            self.lines.clear();
        }
    }

    fn is_long(&self) -> bool {
        self.written > LONG.max(2 * self.begun)
    }

    fn begin(&mut self) {
        self.lines.clear();
        self.anew = true;
    }
}

/// A copy of a service without its servers, of which there may be many.
fn without_servers(service: &Service) -> Service {
    Service {
        name: service.name.clone(),
        address: service.address,
        scheduler: service.scheduler,
        scheduler_flags: service.scheduler_flags,
        forwarding: service.forwarding,
        timeouts: service.timeouts,
        persistence: service.persistence,
        one_packet: service.one_packet,
        policy: service.policy,
        local_addresses: service.local_addresses.clone(),
        client_address: service.client_address,
        health: None,
        servers: Vec::new(),
    }
}
