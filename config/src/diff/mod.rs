//! What changed between two Models, as an operator reads it.
//!
//! Ports and services are the same when their names are; servers when their service and address are.

mod compare;
mod order;

use std::fmt;
use std::net::IpAddr;

use crate::model::{Port, Server, Service};
pub use compare::diff;

/// One value that changed, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// TOML key.
    pub key: &'static str,
    /// Value before; `unset` where there was none.
    pub old: String,
    /// Value after.
    pub new: String,
}

/// One change from an old Model to a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Values of `[appliance]`.
    ApplianceChanged(Vec<FieldChange>),
    /// Values of `[limits]`.
    LimitsChanged(Vec<FieldChange>),
    /// Values of `[timeouts]`.
    TimeoutsChanged(Vec<FieldChange>),
    /// A port that was not there.
    PortAdded(Port),
    /// A port that is gone.
    PortRemoved(Port),
    /// Values of a port.
    PortChanged {
        /// Its name.
        port: String,
        /// What changed.
        fields: Vec<FieldChange>,
    },
    /// A port has another place among the others.
    PortMoved {
        /// Its name.
        port: String,
        /// Its new place, from 1.
        position: usize,
    },
    /// A service that was not there; a `ServerAdded` follows for each of its servers.
    ServiceAdded(Service),
    /// A service that is gone, with its servers.
    ServiceRemoved(Service),
    /// Values of a service other than its servers.
    ServiceChanged {
        /// Its name.
        service: String,
        /// What changed.
        fields: Vec<FieldChange>,
    },
    /// A service has another place among the others.
    ServiceMoved {
        /// Its name.
        service: String,
        /// Its new place, from 1.
        position: usize,
    },
    /// A server that was not there.
    ServerAdded {
        /// Name of its service.
        service: String,
        /// The server.
        server: Server,
    },
    /// A server that is gone.
    ServerRemoved {
        /// Name of its service.
        service: String,
        /// The server.
        server: Server,
    },
    /// A server's weight.
    WeightChanged {
        /// Name of its service.
        service: String,
        /// Its address.
        address: IpAddr,
        /// Weight before.
        old: u32,
        /// Weight after.
        new: u32,
    },
    /// A server has another place among the others of its service, which round robin goes by.
    ServerMoved {
        /// Name of its service.
        service: String,
        /// Its address.
        address: IpAddr,
        /// Its new place, from 1.
        position: usize,
    },
}

impl Change {
    /// Whether a running director cannot make this change: it concerns threads, memory or devices.
    pub fn needs_restart(&self) -> bool {
        match self {
            Self::ApplianceChanged(_)
            | Self::LimitsChanged(_)
            | Self::PortAdded(_)
            | Self::PortRemoved(_)
            | Self::PortMoved { .. } => true,
            Self::PortChanged { fields, .. } => {
                fields.iter().any(|field| !matches!(field.key, "addresses" | "gateway"))
            }
            Self::TimeoutsChanged(_)
            | Self::ServiceAdded(_)
            | Self::ServiceRemoved(_)
            | Self::ServiceChanged { .. }
            | Self::ServiceMoved { .. }
            | Self::ServerAdded { .. }
            | Self::ServerRemoved { .. }
            | Self::WeightChanged { .. }
            | Self::ServerMoved { .. } => false,
        }
    }
}

/// `key old -> new, key old -> new`
struct Fields<'c>(&'c [FieldChange]);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} {} -> {}", field.key, field.old, field.new)?;
        }
        Ok(())
    }
}

/// `web 192.168.150.100:80/tcp rr`
struct Line<'c>(&'c Service);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.name, crate::ServiceRef::key_of(self.0), self.0.scheduler)
    }
}

/// One line: `+` added, `-` gone, `~` changed.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplianceChanged(fields) => write!(f, "~ appliance: {}", Fields(fields)),
            Self::LimitsChanged(fields) => write!(f, "~ limits: {}", Fields(fields)),
            Self::TimeoutsChanged(fields) => write!(f, "~ timeouts: {}", Fields(fields)),
            Self::PortAdded(port) => write!(f, "+ port {} {}", port.name, port.device),
            Self::PortRemoved(port) => write!(f, "- port {} {}", port.name, port.device),
            Self::PortChanged { port, fields } => write!(f, "~ port {port}: {}", Fields(fields)),
            Self::PortMoved { port, position } => write!(f, "~ port {port}: now in place {position}"),
            Self::ServiceAdded(service) => write!(f, "+ service {}", Line(service)),
            Self::ServiceRemoved(service) => write!(f, "- service {}", Line(service)),
            Self::ServiceChanged { service, fields } => write!(f, "~ service {service}: {}", Fields(fields)),
            Self::ServiceMoved { service, position } => {
                write!(f, "~ service {service}: now in place {position}")
            }
            Self::ServerAdded { service, server } => {
                write!(f, "+ server {} of {service}: weight {}", server.address, server.weight)
            }
            Self::ServerRemoved { service, server } => write!(f, "- server {} of {service}", server.address),
            Self::WeightChanged { service, address, old, new } => {
                write!(f, "~ server {address} of {service}: weight {old} -> {new}")
            }
            Self::ServerMoved { service, address, position } => {
                write!(f, "~ server {address} of {service}: now in place {position}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
