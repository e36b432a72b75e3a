//! What changed between two Models, as an operator reads it.
//!
//! Ports and services are the same when their names are; servers when their service, address and port are.

mod compare;
mod objects;
mod order;

use crate::duration;
use crate::edit::ServerRef;
use crate::forwarding::Forwarding;
use crate::mark::MarkRule;
use crate::model::{Port, Server, Service};
use crate::snat::SnatRule;
pub use compare::diff;
use std::fmt;

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
    /// Values of `[tables]`.
    TablesChanged(Vec<FieldChange>),
    /// Values of `[timeouts]`.
    TimeoutsChanged(Vec<FieldChange>),
    /// Values of `[policy]`.
    PolicyChanged(Vec<FieldChange>),
    /// Values of `[notify]`.
    NotifyChanged(Vec<FieldChange>),
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
    /// A mark rule that was not there.
    MarkAdded {
        /// The rule.
        rule: MarkRule,
        /// Its place, from 1.
        position: usize,
    },
    /// A mark rule that is gone.
    MarkRemoved(MarkRule),
    /// A mark rule has another place among the others, which are tried in their order.
    MarkMoved {
        /// The rule.
        rule: MarkRule,
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
    /// Values of a server.
    ServerChanged {
        /// Name of its service.
        service: String,
        /// Which server.
        server: ServerRef,
        /// What changed.
        fields: Vec<FieldChange>,
    },
    /// A server has another place among the others of its service, which round robin goes by.
    ServerMoved {
        /// Name of its service.
        service: String,
        /// Which server.
        server: ServerRef,
        /// Its new place, from 1.
        position: usize,
    },
    /// A rule of source NAT that was not there.
    SnatAdded(SnatRule),
    /// A rule of source NAT that is gone.
    SnatRemoved(SnatRule),
    /// Values of a rule of source NAT.
    SnatChanged {
        /// Its name.
        rule: String,
        /// What changed.
        fields: Vec<FieldChange>,
    },
    /// An object of `[[vrrp]]`, `[[vrrp_groups]]`, ... `[[bfd]]` or `[[ipvs_sync]]` that was not there.
    ObjectAdded {
        /// Header of its table.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Such an object that is gone.
    ObjectRemoved {
        /// Header of its table.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Values of such an object.
    ObjectChanged {
        /// Header of its table.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What changed.
        fields: Vec<FieldChange>,
    },
    /// Such an object has another place among its kind.
    ObjectMoved {
        /// Header of its table.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its new place, from 1.
        position: usize,
    },
    /// A rule of source NAT has another place among the others, which are tried in their order.
    SnatMoved {
        /// Its name.
        rule: String,
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
            | Self::TablesChanged(_)
            | Self::PortAdded(_)
            | Self::PortRemoved(_)
            | Self::PortMoved { .. } => true,
            Self::PortChanged { fields, .. } => {
                fields.iter().any(|field| !matches!(field.key, "addresses" | "gateway" | "exception_rate"))
            }
            Self::TimeoutsChanged(_)
            | Self::PolicyChanged(_)
            | Self::NotifyChanged(_)
            | Self::MarkAdded { .. }
            | Self::MarkRemoved(_)
            | Self::MarkMoved { .. }
            | Self::ServiceAdded(_)
            | Self::ServiceRemoved(_)
            | Self::ServiceChanged { .. }
            | Self::ServiceMoved { .. }
            | Self::ServerAdded { .. }
            | Self::ServerRemoved { .. }
            | Self::ServerChanged { .. }
            | Self::ServerMoved { .. }
            | Self::SnatAdded(_)
            | Self::SnatRemoved(_)
            | Self::SnatChanged { .. }
            | Self::SnatMoved { .. }
            | Self::ObjectAdded { .. }
            | Self::ObjectRemoved { .. }
            | Self::ObjectChanged { .. }
            | Self::ObjectMoved { .. } => false,
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
        write!(f, "{} {} {}", self.0.name, self.0.address, self.0.scheduler)
    }
}

/// One line: `+` added, `-` gone, `~` changed.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplianceChanged(fields) => write!(f, "~ appliance: {}", Fields(fields)),
            Self::LimitsChanged(fields) => write!(f, "~ limits: {}", Fields(fields)),
            Self::TablesChanged(fields) => write!(f, "~ tables: {}", Fields(fields)),
            Self::TimeoutsChanged(fields) => write!(f, "~ timeouts: {}", Fields(fields)),
            Self::PolicyChanged(fields) => write!(f, "~ policy: {}", Fields(fields)),
            Self::NotifyChanged(fields) => write!(f, "~ notify: {}", Fields(fields)),
            Self::MarkAdded { rule, position } => write!(f, "+ mark {rule}: in place {position}"),
            Self::MarkRemoved(rule) => write!(f, "- mark {rule}"),
            Self::MarkMoved { rule, position } => write!(f, "~ mark {rule}: now in place {position}"),
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
                write!(f, "+ server {} of {service}: weight {}", server.key(), server.weight)?;
                if server.forwarding != Forwarding::Dr {
                    write!(f, ", forwarding {}", server.forwarding)?;
                }
                match (server.upper_threshold, server.lower_threshold) {
                    (0, 0) => {}
                    (upper, lower) => write!(f, ", thresholds {upper} {lower}")?,
                }
                match server.drain_deadline {
                    None => Ok(()),
                    Some(deadline) => write!(f, ", drain_deadline {}", duration::format(deadline)),
                }
            }
            Self::ServerRemoved { service, server } => write!(f, "- server {} of {service}", server.key()),
            Self::ServerChanged { service, server, fields } => {
                write!(f, "~ server {server} of {service}: {}", Fields(fields))
            }
            Self::ServerMoved { service, server, position } => {
                write!(f, "~ server {server} of {service}: now in place {position}")
            }
            Self::SnatAdded(rule) => write!(f, "+ snat {rule}"),
            Self::SnatRemoved(rule) => write!(f, "- snat {rule}"),
            Self::SnatChanged { rule, fields } => write!(f, "~ snat {rule}: {}", Fields(fields)),
            Self::SnatMoved { rule, position } => write!(f, "~ snat {rule}: now in place {position}"),
            Self::ObjectAdded { kind, name } => write!(f, "+ {kind} {name}"),
            Self::ObjectRemoved { kind, name } => write!(f, "- {kind} {name}"),
            Self::ObjectChanged { kind, name, fields } => write!(f, "~ {kind} {name}: {}", Fields(fields)),
            Self::ObjectMoved { kind, name, position } => {
                write!(f, "~ {kind} {name}: now in place {position}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
