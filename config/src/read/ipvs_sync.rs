//! `[[ipvs_sync]]`.

use toml::de::DeTable;

use super::{Reader, value};
use crate::bounds;
use crate::ipvs_sync::{IpvsSync, IpvsSyncState};

pub(super) const IPVS_SYNC: [&str; 10] =
    ["state", "vrrp", "interface", "sync_id", "max_length", "group", "port", "ttl", "refresh", "resync"];

/// All of them. What could not be read holds its default, and its fault is reported.
pub(super) fn daemons(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vec<IpvsSync> {
    // an element that is no table is left out
    let read = r.tables(t, "ipvs_sync", &IPVS_SYNC, |r, t| daemon(r, t).into());
    read.or_default(Vec::<Option<IpvsSync>>::new()).into_iter().flatten().collect()
}

fn daemon(r: &mut Reader<'_>, t: &DeTable<'_>) -> IpvsSync {
    let d = IpvsSync::default();
    let group = r.field(t, "group", value::ip).or_default(d.group);
    let max_length = value::integer(bounds::IPVS_SYNC_LENGTH);
    let state = r.required(t, "state", value::parsed).unwrap_or(d.state);
    for key in ["refresh", "resync"] {
        if state == IpvsSyncState::Backup && t.contains_key(key) {
            r.at(key, |r| r.fault("is of no use to a backup, which tells nothing"));
        }
    }
    IpvsSync {
        state,
        vrrp: r.field(t, "vrrp", value::text).optional().flatten(),
        interface: r.required(t, "interface", value::text).unwrap_or_default(),
        sync_id: r.field(t, "sync_id", value::integer(bounds::IPVS_SYNC_ID)).or_default(d.sync_id),
        max_length: r.field(t, "max_length", max_length).or_default(IpvsSync::default_length(group)),
        group,
        port: r.field(t, "port", value::integer(bounds::L4_PORT)).or_default(d.port),
        ttl: r.field(t, "ttl", value::integer(bounds::TTL_SENT)).or_default(d.ttl),
        refresh: r.time(t, "refresh", d.refresh),
        resync: r.time(t, "resync", d.resync),
    }
}
