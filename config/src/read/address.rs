//! What a service is addressed by, and the rules that give packets their marks.

use toml::de::{DeTable, DeValue};

use super::{Field, Reader, value};
use crate::address::{IpPrefix, PortRange};
use crate::bounds;
use crate::draft::{DraftAddress, DraftMark};
use crate::model::Protocol;
use crate::text::from_word;

/// `vip` and `port` or `ports`, with `protocol`; or `mark` with `family`.
pub(super) fn service(r: &mut Reader<'_>, t: &DeTable<'_>) -> DraftAddress {
    let mark = r.field(t, "mark", value::integer(bounds::MARK));
    let family = r.field(t, "family", family);
    if matches!(mark, Field::Absent) {
        if !matches!(family, Field::Absent) {
            r.at("family", |r| r.fault("is of use with mark only: the VIP tells the family"));
        }
        return packet(r, t);
    }
    for key in ["vip", "port", "ports", "protocol"] {
        if t.contains_key(key) {
            r.at(key, |r| r.fault("is of no use with mark: the rules in [[marks]] choose the packets"));
        }
    }
    DraftAddress::Mark { mark: mark.optional().flatten(), ipv6: family.or(false) }
}

fn packet(r: &mut Reader<'_>, t: &DeTable<'_>) -> DraftAddress {
    let vips = r.required(t, "vip", value::parsed::<IpPrefix>);
    let several = r.field(t, "ports", ports);
    let ports = match (t.contains_key("port"), several) {
        (false, Field::Is(ports)) => Some(ports),
        (_, Field::Bad) => None,
        (_, Field::Absent) => r.required(t, "port", value::integer(bounds::SERVICE_PORT)).map(PortRange::one),
        (true, Field::Is(_)) => {
            r.at("ports", |r| r.fault("is of no use beside port: a service has one of the two"));
            None
        }
    };
    let protocol = r.field(t, "protocol", value::parsed).or(Protocol::Tcp);
    DraftAddress::Packet { vips, ports, protocol }
}

fn family(value: &DeValue<'_>) -> Result<bool, String> {
    let known = [("ipv4", false), ("ipv6", true)];
    from_word(&value::text(value)?, "a family", &known).map_err(|error| error.to_string())
}

/// Ports from 1 on; 0 has a meaning of its own.
fn ports(value: &DeValue<'_>) -> Result<PortRange, String> {
    let range: PortRange = value::parsed(value)?;
    bounds::L4_PORT.check(range.first().into()).map(|_| range)
}

/// One of `[[marks]]`.
pub(super) fn mark(r: &mut Reader<'_>, t: &DeTable<'_>) -> DraftMark {
    DraftMark {
        value: r.required(t, "value", value::integer(bounds::MARK)),
        source: r.field(t, "source", value::parsed).optional(),
        destination: r.field(t, "destination", value::parsed).optional(),
        protocol: r.field(t, "protocol", value::parsed).optional(),
        source_ports: r.field(t, "source_ports", value::parsed).optional(),
        ports: r.field(t, "ports", value::parsed).optional(),
        port: r.field(t, "port", value::text).optional(),
        vlan: r.field(t, "vlan", value::integer(bounds::VLAN)).optional(),
    }
}
