//! keepalived.conf as a configuration.
//!
//! ```text
//! files -> lex: tree of entries -> Import: objects of the Model, and notes -> settle: checked as files are -> TOML
//! ```
//!
//! What keepalived's file says and the configuration cannot is a [`Note`] with its line; nothing is left out silently.
//! keepalived's defaults are written out where this director's are others. What keepalived does not know, the ports
//! above all, is in a text of its own, see [`Options::base`].

mod checkers;
mod global;
mod group;
mod lex;
mod lvs_sync;
mod note;
mod reasons;
mod service;
mod settle;
mod track;
mod values;
mod vrrp;

use std::collections::HashMap;
use std::net::IpAddr;

use toml::de::DeTable;

pub use lex::Files;
pub use note::Note;

use crate::health::Notify;
use crate::model::{Server, Service};
use crate::vrrp::Ha;
use crate::{Device, IfAddr};
use note::{At, Notes};

/// How a file is imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// Configuration (TOML) of what keepalived does not know: `[[ports]]` with the interfaces' devices, `[appliance]`,
    /// `[[marks]]`. The import stands behind it.
    pub base: Option<&'o str>,
    /// Configuration id: lines that begin with `@ID` are for it (keepalived's `-i`).
    pub id: Option<&'o str>,
}

/// What came of a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The configuration: the base, when there is one, and what the file says.
    pub toml: String,
    /// What was not carried over, by file and line.
    pub notes: Vec<Note>,
}

/// Turns a keepalived.conf into a configuration. Whatever its text, this gives one; what it makes of ports is checked
/// when the whole configuration is ([`crate::parse`]).
pub fn import(text: &str, options: &Options<'_>, files: Files<'_>) -> Imported {
    let mut notes = Notes::default();
    let tree = lex::tree("", text, options.id, files, &mut notes);
    let mut import = Import::new(Base::of(options.base), notes);
    import.globals(&tree);
    import.tracked(&tree);
    import.instances(&tree);
    import.services(&tree);
    import.lvs_sync();
    import.finish()
}

/// What the configuration besides the file says.
#[derive(Debug, Default)]
struct Base {
    /// All of it.
    text: String,
    /// Tables at its root, which are not written twice.
    tables: Vec<String>,
    /// Names of ports, by their interfaces and by themselves.
    ports: HashMap<String, String>,
    /// Interfaces of the kernel's on the networks of ports, by the ports' names: a TAP, or one that both use.
    kernel: HashMap<String, String>,
    /// Ports with a TAP.
    taps: Vec<String>,
    /// Networks of ports.
    networks: Vec<(IfAddr, String)>,
    /// Marks that are set.
    marks: Vec<u32>,
    /// Whether there is one.
    given: bool,
}

impl Base {
    /// What can be read of it; its faults are told when the whole is checked.
    fn of(text: Option<&str>) -> Self {
        let mut base = Self { given: text.is_some(), ..Self::default() };
        let Some(text) = text else { return base };
        base.text = text.to_owned();
        let (table, _) = DeTable::parse_recoverable(text);
        base.tables = table.get_ref().keys().map(|key| key.get_ref().to_string()).collect();
        let mut problems = crate::fault::Problems::default();
        let draft = crate::read::document(table.get_ref(), &mut problems);
        for port in draft.ports.unwrap_or_default() {
            let Some(name) = port.name.clone() else { continue };
            match (&port.device, port.interface()) {
                (_, Some(tap)) if port.has_tap() => {
                    base.taps.push(name.clone());
                    base.kernel.insert(name.clone(), tap);
                }
                // The kernel hears and sends there as before.
                (Some(Device::AfPacket(interface)), _) => {
                    let vlan = port.vlan.flatten().map_or_else(String::new, |vlan| format!(".{vlan}"));
                    base.kernel.insert(name.clone(), format!("{interface}{vlan}"));
                }
                _ => {}
            }
            let interface = match port.device {
                Some(Device::AfPacket(interface) | Device::AfXdp(interface) | Device::Tap(interface)) => {
                    match port.vlan.flatten() {
                        Some(vlan) => Some(format!("{interface}.{vlan}")),
                        None => Some(interface),
                    }
                }
                _ => None,
            };
            base.networks
                .extend(port.addresses.into_iter().flatten().flatten().map(|net| (net, name.clone())));
            for known in interface.into_iter().chain([name.clone()]) {
                base.ports.entry(known).or_insert_with(|| name.clone());
            }
        }
        base.marks = draft.marks.iter().filter_map(|mark| mark.value).collect();
        base
    }

    /// Address of the director's by which the kernel serves what comes to a VIP: of a port with a TAP, on the VIP's
    /// network if there is one. `None`: no such port.
    fn own_address(&self, vip: Option<IpAddr>, ipv6: bool) -> Option<IpAddr> {
        let mine = |(net, port): &&(IfAddr, String)| {
            net.addr.is_ipv6() == ipv6
                && self.taps.contains(port)
                && crate::ifaddr::special(net.addr).is_none()
        };
        let near = |(net, _): &&(IfAddr, String)| vip.is_some_and(|vip| net.contains(vip));
        let own = || self.networks.iter().filter(mine);
        own().find(near).or_else(|| own().next()).map(|(net, _)| net.addr)
    }

    /// Port whose network an address is in.
    fn port_to(&self, address: IpAddr) -> Option<&str> {
        let near = self.networks.iter().filter(|(net, _)| net.contains(address));
        near.max_by_key(|(net, _)| net.prefix_len).map(|(_, name)| name.as_str())
    }
}

/// A service and where its servers come from.
#[derive(Clone, Debug)]
struct FromService {
    at: At,
    service: Service,
    servers: Vec<At>,
}

/// The configuration as it is put together.
struct Import {
    base: Base,
    notes: Notes,
    global: global::Global,
    name: Option<String>,
    notify: Notify,
    timeouts: Vec<(&'static str, u32)>,
    services: Vec<FromService>,
    ha: Ha,
    /// Where the objects of `ha` come from, by their keys.
    places: HashMap<&'static str, Vec<At>>,
    /// Names here of keepalived's instances and tracked objects, by kind and name there.
    names: HashMap<(&'static str, String), String>,
    /// Interfaces that the file names.
    interfaces: Vec<String>,
}

impl Import {
    fn new(base: Base, notes: Notes) -> Self {
        Self {
            base,
            notes,
            global: global::Global::default(),
            name: None,
            notify: Notify::default(),
            timeouts: Vec::new(),
            services: Vec::new(),
            ha: Ha::default(),
            places: HashMap::new(),
            names: HashMap::new(),
            interfaces: Vec::new(),
        }
    }
}

/// Whether a service has a server already.
fn has_server(servers: &[Server], server: &Server) -> bool {
    servers.iter().any(|other| other.key() == server.key())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
