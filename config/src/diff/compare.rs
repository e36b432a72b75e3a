//! Comparing two Models, section by section.

use std::fmt::Display;

use super::order::matched;
use super::{Change, FieldChange};
use crate::duration;
use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};
use crate::model::{Appliance, Model, Port, Server, Service};

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
    let timeouts = TIMEOUTS.iter().filter_map(|f| {
        field(f.key, duration::format((f.get)(&old.timeouts)), duration::format((f.get)(&new.timeouts)))
    });
    section(timeouts.collect(), Change::TimeoutsChanged);
    ports(&old.ports, &new.ports, &mut changes);
    services(&old.services, &new.services, &mut changes);
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

fn services(old: &[Service], new: &[Service], changes: &mut Vec<Change>) {
    let matched = matched(old.iter().map(|s| s.name.as_str()), new.iter().map(|s| s.name.as_str()));
    changes.extend(matched.removed.iter().map(|at| Change::ServiceRemoved(old[*at].clone())));
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        let fields = service_fields(old, new);
        if !fields.is_empty() {
            changes.push(Change::ServiceChanged { service: new.name.clone(), fields });
        }
        servers(&new.name, &old.servers, &new.servers, changes);
    }
    for service in matched.added.iter().map(|at| &new[*at]) {
        changes.push(Change::ServiceAdded(service.clone()));
        servers(&service.name, &[], &service.servers, changes);
    }
    let moved = |at: usize| Change::ServiceMoved { service: new[at].name.clone(), position: at + 1 };
    changes.extend(matched.moved.into_iter().map(moved));
}

fn service_fields(old: &Service, new: &Service) -> Vec<FieldChange> {
    let fields = [
        field("vip", old.vip, new.vip),
        field("port", old.port, new.port),
        field("protocol", old.protocol, new.protocol),
        field("scheduler", old.scheduler, new.scheduler),
        field("forwarding", old.forwarding, new.forwarding),
    ];
    let timeouts = SERVICE_TIMEOUTS.iter().map(|f| {
        let text = |service: &Service| optional(&(f.get)(&service.timeouts).map(duration::format));
        field(f.key, text(old), text(new))
    });
    fields.into_iter().chain(timeouts).flatten().collect()
}

fn servers(service: &str, old: &[Server], new: &[Server], changes: &mut Vec<Change>) {
    let service = || service.to_owned();
    let matched = matched(old.iter().map(|s| s.address), new.iter().map(|s| s.address));
    for at in matched.removed {
        changes.push(Change::ServerRemoved { service: service(), server: old[at].clone() });
    }
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        if old.weight != new.weight {
            let (address, old, new) = (new.address, old.weight, new.weight);
            changes.push(Change::WeightChanged { service: service(), address, old, new });
        }
    }
    for at in matched.added {
        changes.push(Change::ServerAdded { service: service(), server: new[at].clone() });
    }
    for at in matched.moved {
        let address = new[at].address;
        changes.push(Change::ServerMoved { service: service(), address, position: at + 1 });
    }
}
