//! `[[services]]` and what is below them, key by key.

use toml::de::{DeTable, DeValue};

use super::{Field, Reader, address, health, keys, policy, scheduler, value};
use crate::bounds::{self, Bounds};
use crate::draft::{DraftServer, DraftService};
use crate::fields::{DEFAULT_PERSISTENCE, DEFAULT_WEIGHT, SERVICE_TIMEOUTS};
use crate::forwarding::{ClientAddress, Forwarding, Tunnel};
use crate::model::{Persistence, ServiceTimeouts};
use crate::policy::SERVICE_POLICY;

pub(super) fn service(r: &mut Reader<'_>, t: &DeTable<'_>, timeout_keys: &[&str]) -> DraftService {
    let name = r.required(t, "name", value::text);
    let address = address::service(r, t);
    let prefix = if address.is_ipv6() == Some(true) { bounds::PREFIX_IPV6 } else { bounds::PREFIX_IPV4 };
    let forwarding = forwarding(r, t, Some(Forwarding::Dr));
    let scheduler = scheduler::scheduler(r, t);
    let inherited = Inherited { port: address.port(), forwarding };
    DraftService {
        name,
        address,
        scheduler,
        scheduler_flags: scheduler::flags(r, t, scheduler),
        forwarding,
        timeouts: r.table(t, "timeouts", timeout_keys, service_timeouts).unwrap_or_default(),
        persistence: persistence(r, t, prefix),
        one_packet: r.field(t, "one_packet", value::boolean).or(false),
        policy: r.table(t, "policy", &SERVICE_POLICY, policy::service).unwrap_or_default(),
        local_addresses: r.list(t, "local_addresses", value::ip).or(Vec::new()),
        client_address: r.field(t, "client_address", value::parsed).or(ClientAddress::None),
        health: health::service(r, t, &inherited),
        servers: r
            .tables(t, "servers", &keys::SERVER, |r, t| server(r, t, &inherited))
            .or(Vec::new())
            .unwrap_or_default(),
    }
}

fn service_timeouts(r: &mut Reader<'_>, t: &DeTable<'_>) -> ServiceTimeouts {
    let mut timeouts = ServiceTimeouts::default();
    for field in &SERVICE_TIMEOUTS {
        let duration = r.field(t, field.key, value::duration).optional().flatten();
        (field.set)(&mut timeouts, duration);
    }
    timeouts
}

/// `persistence`, whose default prefix is the whole address.
fn persistence(r: &mut Reader<'_>, t: &DeTable<'_>, prefix: Bounds) -> Option<Option<Persistence>> {
    if !t.contains_key("persistence") {
        return Some(None);
    }
    let read = |r: &mut Reader<'_>, t: &DeTable<'_>| {
        let timeout = r.field(t, "timeout", value::duration).or(DEFAULT_PERSISTENCE);
        // Whether it fits the VIP's family is for the checks to say, which know whether that could be read.
        let whole = u8::try_from(prefix.max).unwrap_or(u8::MAX);
        let prefix_len = r.field(t, "prefix", value::integer(bounds::PREFIX_IPV6)).or(whole);
        Some(Persistence { timeout: timeout?, prefix_len: prefix_len? })
    };
    r.table(t, "persistence", &keys::PERSISTENCE, read).flatten().map(Some)
}

/// `forwarding` and `tunnel`; what is not given is `default`'s.
pub(super) fn forwarding(
    r: &mut Reader<'_>,
    t: &DeTable<'_>,
    default: Option<Forwarding>,
) -> Option<Forwarding> {
    let by_name = |v: &DeValue<'_>| Forwarding::from_name(&value::text(v)?).map_err(|e| e.to_string());
    let named = r.field(t, "forwarding", by_name);
    let tunnel = tunnel(r, t);
    let forwarding = match (named, default) {
        (Field::Bad, _) | (Field::Absent, None) => return None,
        // A server that says "tunnel" takes the tunnel of its service.
        (Field::Is(Forwarding::Tunnel(_)), Some(Forwarding::Tunnel(tunnel))) => Forwarding::Tunnel(tunnel),
        (Field::Is(named), _) => named,
        (Field::Absent, Some(default)) => default,
    };
    match tunnel {
        Field::Absent => Some(forwarding),
        Field::Bad => None,
        Field::Is(tunnel) => match forwarding.with_tunnel(tunnel) {
            Ok(forwarding) => Some(forwarding),
            Err(error) => {
                r.at("tunnel", |r| r.fault(error.to_string()));
                None
            }
        },
    }
}

fn tunnel(r: &mut Reader<'_>, t: &DeTable<'_>) -> Field<Tunnel> {
    if !t.contains_key("tunnel") {
        return Field::Absent;
    }
    let read = |r: &mut Reader<'_>, t: &DeTable<'_>| {
        let name = r.required(t, "type", value::text);
        let port = r.field(t, "port", value::integer(bounds::L4_PORT)).optional();
        let checksum = r.field(t, "checksum", value::parsed).optional();
        match Tunnel::from_parts(&name?, port?, checksum?) {
            Ok(tunnel) => Some(tunnel),
            Err((key, error)) => {
                r.at(key, |r| r.fault(error.to_string()));
                None
            }
        }
    };
    match r.table(t, "tunnel", &keys::TUNNEL, read).flatten() {
        Some(tunnel) => Field::Is(tunnel),
        None => Field::Bad,
    }
}

/// What a server takes from its service unless it says otherwise.
pub(super) struct Inherited {
    pub port: Option<u16>,
    pub forwarding: Option<Forwarding>,
}

fn server(r: &mut Reader<'_>, t: &DeTable<'_>, service: &Inherited) -> DraftServer {
    let threshold = |r: &mut Reader<'_>, key| r.field(t, key, value::integer(bounds::THRESHOLD)).or(0);
    DraftServer {
        address: r.required(t, "address", value::ip),
        port: match r.field(t, "port", value::integer(bounds::SERVICE_PORT)) {
            Field::Absent => service.port,
            Field::Bad => None,
            Field::Is(port) => Some(port),
        },
        weight: r.field(t, "weight", value::integer(bounds::WEIGHT)).or(DEFAULT_WEIGHT),
        forwarding: forwarding(r, t, service.forwarding),
        upper_threshold: threshold(r, "upper_threshold"),
        lower_threshold: threshold(r, "lower_threshold"),
        drain_deadline: r.field(t, "drain_deadline", value::duration).optional(),
        health: health::server(r, t),
    }
}
