//! Comparing two Models, section by section.

use std::fmt::Display;
use std::sync::Arc;

use super::order::matched;
use super::{Change, FieldChange};
use crate::duration;
use crate::edit::ServerRef;
use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};
use crate::health::{Entries, inline};
use crate::mark::MarkRule;
use crate::model::{Appliance, Model, Port, Server, Service};
use crate::services::Services;
use crate::snat::SnatRule;

/// All changes that lead from `old` to `new`; none exactly when the two are equal.
pub fn diff(old: &Model, new: &Model) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut section = |fields: Vec<FieldChange>, make: fn(Vec<FieldChange>) -> Change| {
        if !fields.is_empty() {
            changes.push(make(fields));
        }
    };
    section(appliance(&old.appliance, &new.appliance), Change::ApplianceChanged);
    let limits = LIMITS.iter().filter_map(|f| field(f.key, (f.get)(&old.limits), (f.get)(&new.limits)));
    section(limits.collect(), Change::LimitsChanged);
    let (before, after) = (&old.tables, &new.tables);
    let directory =
        field("directory", before.directory.display().to_string(), after.directory.display().to_string());
    let tables = [field("keep", before.keep, after.keep), directory];
    section(tables.into_iter().flatten().collect(), Change::TablesChanged);
    let timeouts = TIMEOUTS.iter().filter_map(|f| {
        field(f.key, duration::format((f.get)(&old.timeouts)), duration::format((f.get)(&new.timeouts)))
    });
    section(timeouts.collect(), Change::TimeoutsChanged);
    let policy = old.policy.entries().into_iter().zip(new.policy.entries());
    let policy = policy.filter_map(|((key, old), (_, new))| field(key, bare(old), bare(new)));
    section(policy.collect(), Change::PolicyChanged);
    section(entries(&old.notify.entries(), &new.notify.entries()), Change::NotifyChanged);
    ports(&old.ports, &new.ports, &mut changes);
    marks(&old.marks, &new.marks, &mut changes);
    services(&old.services, &new.services, &mut changes);
    snat(&old.snat, &new.snat, &mut changes);
    super::objects::ha(&old.ha, &new.ha, &mut changes);
    changes
}

fn field<T: Display + PartialEq>(key: &'static str, old: T, new: T) -> Option<FieldChange> {
    (old != new).then(|| FieldChange { key, old: old.to_string(), new: new.to_string() })
}

fn optional<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "unset".to_owned(), ToString::to_string)
}

fn list<T: Display>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(" "))
}

fn appliance(old: &Appliance, new: &Appliance) -> Vec<FieldChange> {
    // A secret is not shown, only that there is another one.
    let secret = (old.cluster_secret != new.cluster_secret).then(|| FieldChange {
        key: "cluster_secret",
        old: old.cluster_secret.as_ref().map_or("unset", |_| "(old secret)").to_owned(),
        new: new.cluster_secret.as_ref().map_or("unset", |_| "(new secret)").to_owned(),
    });
    let fields = [
        field("name", &old.name, &new.name),
        field("workers", list(&old.workers), list(&new.workers)),
        field("control_cpu", optional(&old.control_cpu), optional(&new.control_cpu)),
        field("huge_pages", old.huge_pages, new.huge_pages),
        field("memory_mib", old.memory_mib, new.memory_mib),
        field("idle", old.idle, new.idle),
        field("socket", old.socket.display().to_string(), new.socket.display().to_string()),
        field("socket_group", optional(&old.socket_group), optional(&new.socket_group)),
        field("socket_public_read", old.socket_public_read, new.socket_public_read),
        secret,
    ];
    fields.into_iter().flatten().collect()
}

/// The kernel's interface of a port.
fn interface(port: &Port) -> String {
    port.exception.as_ref().map_or_else(|| "off".to_owned(), |own| format!("tap {}", own.interface))
}

fn rate(port: &Port) -> String {
    port.exception.as_ref().map_or_else(|| "none".to_owned(), |own| own.rate.to_string())
}

fn ports(old: &[Port], new: &[Port], changes: &mut Vec<Change>) {
    let matched = matched(old.iter().map(|p| p.name.as_str()), new.iter().map(|p| p.name.as_str()));
    changes.extend(matched.removed.iter().map(|at| Change::PortRemoved(old[*at].clone())));
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        let fields = [
            field("device", &old.device, &new.device),
            field("vlan", optional(&old.vlan), optional(&new.vlan)),
            field("mtu", old.mtu, new.mtu),
            field("addresses", list(&old.addresses), list(&new.addresses)),
            field("gateway", list(&old.gateways), list(&new.gateways)),
            field("exception", interface(old), interface(new)),
            field("exception_rate", rate(old), rate(new)),
        ];
        let fields: Vec<_> = fields.into_iter().flatten().collect();
        if !fields.is_empty() {
            changes.push(Change::PortChanged { port: new.name.clone(), fields });
        }
    }
    changes.extend(matched.added.iter().map(|at| Change::PortAdded(new[*at].clone())));
    let moved = |at: usize| Change::PortMoved { port: new[at].name.clone(), position: at + 1 };
    changes.extend(matched.moved.into_iter().map(moved));
}

fn services(old: &Services, new: &Services, changes: &mut Vec<Change>) {
    // What both begin and end with is neither changed nor moved; the rest need not be looked at in a common list.
    let (old_part, new_part) = old.apart(new);
    if old_part.is_empty() && new_part.is_empty() {
        return;
    }
    let front = old.shared().iter().zip(new.shared()).take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
    let (old, new) = (old_part, new_part);
    let matched = matched(old.iter().map(|s| s.name.as_str()), new.iter().map(|s| s.name.as_str()));
    changes.extend(matched.removed.iter().map(|at| Change::ServiceRemoved((*old[*at]).clone())));
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        if Arc::ptr_eq(old, new) {
            continue;
        }
        let fields = service_fields(old, new);
        if !fields.is_empty() {
            changes.push(Change::ServiceChanged { service: new.name.clone(), fields });
        }
        servers(&new.name, &old.servers, &new.servers, changes);
    }
    for service in matched.added.iter().map(|at| &new[*at]) {
        changes.push(Change::ServiceAdded((**service).clone()));
        servers(&service.name, &[], &service.servers, changes);
    }
    let moved = |at: usize| Change::ServiceMoved { service: new[at].name.clone(), position: front + at + 1 };
    changes.extend(matched.moved.into_iter().map(moved));
}

fn snat(old: &[SnatRule], new: &[SnatRule], changes: &mut Vec<Change>) {
    let matched = matched(old.iter().map(|r| r.name.as_str()), new.iter().map(|r| r.name.as_str()));
    changes.extend(matched.removed.iter().map(|at| Change::SnatRemoved(old[*at].clone())));
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        let fields = [
            field("sources", old.sources, new.sources),
            field("address", list(&old.addresses), list(&new.addresses)),
            field("protocols", list(&old.protocols), list(&new.protocols)),
            field("port", optional(&old.port), optional(&new.port)),
        ];
        let fields: Vec<_> = fields.into_iter().flatten().collect();
        if !fields.is_empty() {
            changes.push(Change::SnatChanged { rule: new.name.clone(), fields });
        }
    }
    changes.extend(matched.added.iter().map(|at| Change::SnatAdded(new[*at].clone())));
    let moved = |at: usize| Change::SnatMoved { rule: new[at].name.clone(), position: at + 1 };
    changes.extend(matched.moved.into_iter().map(moved));
}

fn flags(service: &Service) -> String {
    list(&service.scheduler_flags.words(service.scheduler))
}

fn service_fields(old: &Service, new: &Service) -> Vec<FieldChange> {
    let fields = [
        field("address", old.address, new.address),
        field("scheduler", old.scheduler, new.scheduler),
        field("scheduler_flags", flags(old), flags(new)),
        field("forwarding", old.forwarding, new.forwarding),
        field("local_addresses", list(&old.local_addresses), list(&new.local_addresses)),
        field("client_address", old.client_address, new.client_address),
        field("persistence", optional(&old.persistence), optional(&new.persistence)),
        field("one_packet", old.one_packet, new.one_packet),
    ];
    let timeouts = SERVICE_TIMEOUTS.iter().map(|f| {
        let text = |service: &Service| optional(&(f.get)(&service.timeouts).map(duration::format));
        field(f.key, text(old), text(new))
    });
    let policy = old.policy.entries().into_iter().zip(new.policy.entries());
    let policy = policy.map(|((key, old), (_, new))| field(key, bare(optional(&old)), bare(optional(&new))));
    let mut fields: Vec<_> = fields.into_iter().chain(timeouts).chain(policy).flatten().collect();
    fields.extend(health(
        old.health.as_ref().map(|h| h.all_entries()),
        new.health.as_ref().map(|h| h.all_entries()),
    ));
    fields
}

/// Values that changed, by their keys; `unset` where a key is not written.
fn entries(old: &Entries, new: &Entries) -> Vec<FieldChange> {
    let find = |entries: &Entries, key| {
        entries
            .0
            .iter()
            .find(|(other, _)| *other == key)
            .map_or("unset".to_owned(), |(_, value)| value.clone())
    };
    let mut keys: Vec<&'static str> = old.0.iter().map(|(key, _)| *key).collect();
    keys.extend(new.0.iter().map(|(key, _)| *key).filter(|key| old.0.iter().all(|(other, _)| other != key)));
    keys.into_iter().filter_map(|key| field(key, find(old, key), find(new, key))).collect()
}

/// As [`entries`]; where health checks come or go as a whole, under the key `health`.
fn health(old: Option<Entries>, new: Option<Entries>) -> Vec<FieldChange> {
    match (old, new) {
        (Some(old), Some(new)) => entries(&old, &new),
        (old, new) => {
            field("health", optional(&old.as_ref().map(inline)), optional(&new.as_ref().map(inline)))
                .into_iter()
                .collect()
        }
    }
}

/// A value of a policy without its quotes.
fn bare(text: String) -> String {
    text.trim_matches('"').to_owned()
}

fn marks(old: &[MarkRule], new: &[MarkRule], changes: &mut Vec<Change>) {
    let matched = matched(old.iter(), new.iter());
    changes.extend(matched.removed.iter().map(|at| Change::MarkRemoved(old[*at].clone())));
    let added = |at: &usize| Change::MarkAdded { rule: new[*at].clone(), position: at + 1 };
    changes.extend(matched.added.iter().map(added));
    let moved = |at: &usize| Change::MarkMoved { rule: new[*at].clone(), position: at + 1 };
    changes.extend(matched.moved.iter().map(moved));
}

fn deadline(server: &Server) -> String {
    optional(&server.drain_deadline.map(duration::format))
}

fn servers(service: &str, old: &[Server], new: &[Server], changes: &mut Vec<Change>) {
    let service = || service.to_owned();
    let matched = matched(old.iter().map(Server::key), new.iter().map(Server::key));
    for at in matched.removed {
        changes.push(Change::ServerRemoved { service: service(), server: old[at].clone() });
    }
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        let fields = [
            field("weight", old.weight, new.weight),
            field("forwarding", old.forwarding, new.forwarding),
            field("upper_threshold", old.upper_threshold, new.upper_threshold),
            field("lower_threshold", old.lower_threshold, new.lower_threshold),
            field("drain_deadline", deadline(old), deadline(new)),
        ];
        let mut fields: Vec<_> = fields.into_iter().flatten().collect();
        fields.extend(health(
            old.health.as_ref().map(|h| h.all_entries()),
            new.health.as_ref().map(|h| h.all_entries()),
        ));
        if !fields.is_empty() {
            changes.push(Change::ServerChanged { service: service(), server: ServerRef::of(new), fields });
        }
    }
    for at in matched.added {
        changes.push(Change::ServerAdded { service: service(), server: new[at].clone() });
    }
    for at in matched.moved {
        let server = ServerRef::of(&new[at]);
        changes.push(Change::ServerMoved { service: service(), server, position: at + 1 });
    }
}
