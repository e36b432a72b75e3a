//! Each table of the document, key by key.

use std::net::IpAddr;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::services::service;
use super::{Field, Reader, address::mark, health, keys, policy, value, vrrp};
use crate::bounds;
use crate::draft::{Draft, DraftPort, DraftSnat};
use crate::exception::ExceptionKind;
use crate::fields::{DEFAULT_MTU, LIMITS, TIMEOUTS};
use crate::model::{Appliance, Limits, Tables, Timeouts};
use crate::snat::SnatProtocol;

pub(super) fn root(r: &mut Reader<'_>, document: &DeTable<'_>) -> Draft {
    r.unknown_keys(document, &keys::ROOT);
    let default = Appliance::default();
    let default_workers: Vec<_> = default.workers.iter().copied().map(Some).collect();
    let (appliance, workers) =
        r.table(document, "appliance", &keys::APPLIANCE, appliance).unwrap_or((default, Field::Absent));
    let ports = r.tables(document, "ports", &keys::PORT, port);
    if matches!(ports, Field::Absent) {
        r.at("ports", |r| r.fault("is missing: a director has at least one port ([[ports]])"));
    }
    let timeout_keys = keys::service_timeouts();
    let services = r.tables(document, "services", &keys::SERVICE, |r, t| service(r, t, &timeout_keys));
    Draft {
        appliance,
        workers: workers.or(default_workers),
        limits: r.table(document, "limits", &keys::limits(), limits).unwrap_or_default(),
        tables: r.table(document, "tables", &keys::TABLES, tables).unwrap_or_default(),
        timeouts: r.table(document, "timeouts", &keys::timeouts(), timeouts).unwrap_or_default(),
        policy: r.table(document, "policy", &keys::policy(), policy::director).unwrap_or_default(),
        notify: r.table(document, "notify", &health::NOTIFY, health::notify).unwrap_or_default(),
        ports: ports.optional().flatten(),
        marks: r.tables(document, "marks", &keys::MARK, mark).or(Vec::new()).unwrap_or_default(),
        services: services.or(Vec::new()).unwrap_or_default(),
        snat: r.tables(document, "snat", &keys::SNAT, snat).or(Vec::new()).unwrap_or_default(),
        ha: vrrp::ha(r, document),
    }
}

/// One of `[[snat]]`.
fn snat(r: &mut Reader<'_>, t: &DeTable<'_>) -> DraftSnat {
    if !t.contains_key("address") {
        r.at("address", |r| r.fault("is missing"));
    }
    let all = SnatProtocol::ALL.map(Some).to_vec();
    DraftSnat {
        name: r.required(t, "name", value::text),
        sources: r.required(t, "sources", value::parsed),
        addresses: ips(r, t, "address").optional().flatten(),
        protocols: r.list(t, "protocols", value::parsed).or(all),
        port: r.field(t, "port", value::text).optional(),
    }
}

/// A value that cannot be read is left at its default: no other check depends on one of them.
fn appliance(r: &mut Reader<'_>, t: &DeTable<'_>) -> (Appliance, Field<Vec<Option<u16>>>) {
    let d = Appliance::default();
    let workers = r.list(t, "workers", value::integer(bounds::CPU));
    let read = Appliance {
        name: r.field(t, "name", value::text).or_default(d.name),
        workers: d.workers,
        control_cpu: r.field(t, "control_cpu", value::integer(bounds::CPU)).optional().flatten(),
        huge_pages: r.field(t, "huge_pages", value::parsed).or_default(d.huge_pages),
        memory_mib: r.field(t, "memory_mib", value::integer(bounds::MEMORY_MIB)).or_default(d.memory_mib),
        idle: r.field(t, "idle", value::parsed).or_default(d.idle),
        socket: r.field(t, "socket", |v| value::text(v).map(PathBuf::from)).or_default(d.socket),
        socket_group: r.field(t, "socket_group", value::text).optional().flatten(),
        socket_public_read: r.field(t, "socket_public_read", value::boolean).or_default(d.socket_public_read),
        cluster_secret: r.field(t, "cluster_secret", value::text).optional().flatten(),
    };
    (read, workers)
}

/// A limit that cannot be read is taken as its largest, so that no count seems to be above it.
fn limits(r: &mut Reader<'_>, t: &DeTable<'_>) -> Limits {
    let mut limits = Limits::default();
    for field in &LIMITS {
        match r.field(t, field.key, value::integer(field.bounds)) {
            Field::Absent => {}
            Field::Bad => (field.set)(&mut limits, field.bounds.max),
            Field::Is(number) => (field.set)(&mut limits, number),
        }
    }
    limits
}

fn tables(r: &mut Reader<'_>, t: &DeTable<'_>) -> Tables {
    let d = Tables::default();
    Tables {
        keep: r.field(t, "keep", value::boolean).or_default(d.keep),
        directory: r.field(t, "directory", |v| value::text(v).map(PathBuf::from)).or_default(d.directory),
    }
}

fn timeouts(r: &mut Reader<'_>, t: &DeTable<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for field in &TIMEOUTS {
        if let Field::Is(duration) = r.field(t, field.key, value::duration) {
            (field.set)(&mut timeouts, duration);
        }
    }
    timeouts
}

fn port(r: &mut Reader<'_>, t: &DeTable<'_>) -> DraftPort {
    let name = r.required(t, "name", value::text);
    let device = r.required(t, "device", value::parsed);
    DraftPort {
        name,
        exception: r.field(t, "exception", value::parsed).or(ExceptionKind::default_for(device.as_ref())),
        exception_interface: r.field(t, "exception_interface", value::text).optional(),
        exception_rate: r.field(t, "exception_rate", value::integer(bounds::EXCEPTION_RATE)).optional(),
        device,
        vlan: r.field(t, "vlan", value::integer(bounds::VLAN)).optional(),
        mtu: r.field(t, "mtu", value::integer(bounds::MTU)).or(DEFAULT_MTU),
        addresses: match r.list(t, "addresses", value::parsed) {
            Field::Absent => {
                r.at("addresses", |r| r.fault("is missing"));
                None
            }
            list => list.optional().flatten(),
        },
        gateways: ips(r, t, "gateway").or(Vec::new()),
    }
}

/// One address, or an array of them.
fn ips(r: &mut Reader<'_>, t: &DeTable<'_>, key: &'static str) -> Field<Vec<Option<IpAddr>>> {
    match t.get(key).map(|value| value.get_ref()) {
        Some(DeValue::Array(_)) => r.list(t, key, value::ip),
        Some(DeValue::String(_)) | None => match r.field(t, key, value::ip) {
            Field::Absent => Field::Absent,
            Field::Bad => Field::Bad,
            Field::Is(address) => Field::Is(vec![Some(address)]),
        },
        Some(other) => {
            r.at(key, |r| r.fault(value::wrong_type("an address or an array of addresses", other)));
            Field::Bad
        }
    }
}
