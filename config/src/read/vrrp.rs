//! `[[vrrp]]` and what belongs to it, `[[bfd]]`.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{Reader, ipvs_sync, sync, value};
use crate::bounds;
use crate::bounds::Bounds;
use crate::vrrp::{
    Bfd, Ha, HmacKey, Lease, Track, Tracked, Vrrp, VrrpFile, VrrpGroup, VrrpHmac, VrrpNotify, VrrpPeer,
    VrrpProcess, VrrpScript, VrrpVersion,
};

pub(super) const VRRP: [&str; 40] = [
    "name",
    "port",
    "vrid",
    "version",
    "priority",
    "state",
    "advert_interval",
    "virtual_addresses",
    "excluded_addresses",
    "source",
    "multicast_address",
    "peers",
    "check_unicast_source",
    "unicast_ttl",
    "vmac",
    "vmac_xmit_base",
    "accept",
    "preempt",
    "preempt_delay",
    "handover_wait",
    "check_addresses",
    "strict",
    "down_timer_adverts",
    "timer_expired_backup",
    "lower_prio_no_advert",
    "higher_prio_send_advert",
    "owner_ignore_adverts",
    "v3_checksum_as_v2",
    "garp_master_delay",
    "garp_master_repeat",
    "garp_master_refresh",
    "garp_master_refresh_repeat",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "auth_password",
    "hmac",
    "track_port",
    "track",
    "takeover_bfd",
    "notify",
];
pub(super) const PEER: [&str; 3] = ["address", "min_ttl", "max_ttl"];
pub(super) const HMAC: [&str; 4] = ["active", "mode", "window", "keys"];
pub(super) const HMAC_KEY: [&str; 2] = ["id", "key"];
pub(super) const TRACK: [&str; 7] = ["port", "script", "process", "file", "bfd", "weight", "reverse"];
pub(super) const NOTIFY: [&str; 10] = [
    "master",
    "backup",
    "fault",
    "stop",
    "deleted",
    "any",
    "master_rx_lower_priority",
    "priority_changes",
    "user",
    "mail",
];
/// Of a group, which has no priority of its own, hears no adverts, and ends with lbd.
pub(super) const GROUP_NOTIFY: [&str; 7] = ["master", "backup", "fault", "stop", "any", "user", "mail"];
pub(super) const GROUP: [&str; 5] = ["name", "instances", "track", "tracking_weight", "notify"];
pub(super) const SCRIPT: [&str; 9] =
    ["name", "command", "interval", "timeout", "rise", "fall", "weight", "user", "init_fail"];
pub(super) const PROCESS: [&str; 6] = ["name", "command", "quorum", "quorum_max", "delay", "weight"];
pub(super) const FILE: [&str; 3] = ["name", "path", "weight"];
pub(super) const BFD: [&str; 11] = [
    "name",
    "port",
    "neighbor",
    "source",
    "min_tx",
    "min_rx",
    "idle_tx",
    "multiplier",
    "passive",
    "min_ttl",
    "weight",
];

pub(super) const LEASE: [&str; 11] = [
    "endpoints",
    "prefix",
    "ttl",
    "margin",
    "timeout",
    "when_away",
    "user",
    "password",
    "ca",
    "certificate",
    "key",
];

/// Every table with its keys, by the name of its header.
#[cfg(test)]
pub(super) fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("vrrp", VRRP.to_vec()),
        ("vrrp.peers", PEER.to_vec()),
        ("vrrp.hmac", HMAC.to_vec()),
        ("vrrp.hmac.keys", HMAC_KEY.to_vec()),
        ("vrrp.track", TRACK.to_vec()),
        ("vrrp.notify", NOTIFY.to_vec()),
        ("vrrp_groups", GROUP.to_vec()),
        ("vrrp_groups.track", TRACK.to_vec()),
        ("vrrp_groups.notify", GROUP_NOTIFY.to_vec()),
        ("vrrp_scripts", SCRIPT.to_vec()),
        ("vrrp_processes", PROCESS.to_vec()),
        ("vrrp_files", FILE.to_vec()),
        ("bfd", BFD.to_vec()),
        ("sync", sync::SYNC.to_vec()),
        ("lease", LEASE.to_vec()),
        ("ipvs_sync", ipvs_sync::IPVS_SYNC.to_vec()),
    ]
}

/// All of it. What could not be read holds its default, and its fault is reported.
pub(super) fn ha(r: &mut Reader<'_>, t: &DeTable<'_>) -> Ha {
    Ha {
        vrrp: r.tables(t, "vrrp", &VRRP, instance).or_default(Vec::new()),
        groups: r.tables(t, "vrrp_groups", &GROUP, group).or_default(Vec::new()),
        scripts: r.tables(t, "vrrp_scripts", &SCRIPT, script).or_default(Vec::new()),
        processes: r.tables(t, "vrrp_processes", &PROCESS, process).or_default(Vec::new()),
        files: r.tables(t, "vrrp_files", &FILE, file).or_default(Vec::new()),
        bfd: r.tables(t, "bfd", &BFD, bfd).or_default(Vec::new()),
        sync: sync::peers(r, t),
        lease: r.table(t, "lease", &LEASE, lease),
        ipvs_sync: ipvs_sync::daemons(r, t),
    }
}

/// A weight; below 0 it is given by `TRACK_WEIGHT` too.
fn weight(value: &DeValue<'_>) -> Result<i16, String> {
    let DeValue::Integer(number) = value else { return Err(value::wrong_type("a whole number", value)) };
    let most = bounds::TRACK_WEIGHT;
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(wide) if wide > i128::from(most) => Err(format!("{wide} is above the limit {most}")),
        Ok(wide) if wide < -i128::from(most) => Err(format!("{wide} is below the limit -{most}")),
        Ok(wide) => i16::try_from(wide).map_err(|_| format!("{wide} is above the limit {most}")),
        Err(_) => Err(format!("a weight is between -{most} and {most}")),
    }
}

fn version(value: &DeValue<'_>) -> Result<VrrpVersion, String> {
    match value::integer::<u8>(bounds::VRRP_VERSION)(value)? {
        2 => Ok(VrrpVersion::V2),
        _ => Ok(VrrpVersion::V3),
    }
}

impl Reader<'_> {
    fn number<T: TryFrom<u32>>(
        &mut self,
        t: &DeTable<'_>,
        key: &'static str,
        bounds: Bounds,
        default: T,
    ) -> T {
        self.field(t, key, value::integer(bounds)).or_default(default)
    }

    fn flag(&mut self, t: &DeTable<'_>, key: &'static str, default: bool) -> bool {
        self.field(t, key, value::boolean).or_default(default)
    }

    pub(super) fn time(&mut self, t: &DeTable<'_>, key: &'static str, default: Duration) -> Duration {
        self.field(t, key, value::duration).or_default(default)
    }

    /// An array whose faulty elements are left out.
    fn array<T>(
        &mut self,
        t: &DeTable<'_>,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Vec<T> {
        self.list(t, key, read).or_default(Vec::new()).into_iter().flatten().collect()
    }
}

fn instance(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vrrp {
    let d = Vrrp::default();
    Vrrp {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        port: r.required(t, "port", value::text).unwrap_or_default(),
        vrid: r.required(t, "vrid", value::integer(bounds::VRID)).unwrap_or_default(),
        version: r.field(t, "version", version).or_default(d.version),
        priority: r.number(t, "priority", bounds::VRRP_PRIORITY, d.priority),
        state: r.field(t, "state", value::parsed).or_default(d.state),
        advert_interval: r.time(t, "advert_interval", d.advert_interval),
        virtual_addresses: r.array(t, "virtual_addresses", value::parsed),
        excluded_addresses: r.array(t, "excluded_addresses", value::parsed),
        source: r.field(t, "source", value::ip).optional().flatten(),
        multicast_address: r.field(t, "multicast_address", value::ip).optional().flatten(),
        peers: {
            let peers = r.tables(t, "peers", &PEER, |r, t| {
                let address = r.required(t, "address", value::ip)?;
                let min_ttl = r.number(t, "min_ttl", bounds::TTL, 0);
                let max_ttl = r.number(t, "max_ttl", bounds::TTL, 255);
                Some(VrrpPeer { address, min_ttl, max_ttl })
            });
            peers.or_default(Vec::new()).into_iter().flatten().collect()
        },
        check_unicast_source: r.flag(t, "check_unicast_source", d.check_unicast_source),
        unicast_ttl: r.number(t, "unicast_ttl", bounds::TTL_SENT, d.unicast_ttl),
        vmac: r.flag(t, "vmac", d.vmac),
        vmac_xmit_base: r.flag(t, "vmac_xmit_base", d.vmac_xmit_base),
        accept: r.flag(t, "accept", d.accept),
        preempt: r.flag(t, "preempt", d.preempt),
        preempt_delay: r.time(t, "preempt_delay", d.preempt_delay),
        handover_wait: r.time(t, "handover_wait", d.handover_wait),
        check_addresses: r.flag(t, "check_addresses", d.check_addresses),
        strict: r.flag(t, "strict", d.strict),
        down_timer_adverts: r.number(
            t,
            "down_timer_adverts",
            bounds::DOWN_TIMER_ADVERTS,
            d.down_timer_adverts,
        ),
        timer_expired_backup: r.flag(t, "timer_expired_backup", d.timer_expired_backup),
        lower_prio_no_advert: r.flag(t, "lower_prio_no_advert", d.lower_prio_no_advert),
        higher_prio_send_advert: r.flag(t, "higher_prio_send_advert", d.higher_prio_send_advert),
        owner_ignore_adverts: r.flag(t, "owner_ignore_adverts", d.owner_ignore_adverts),
        v3_checksum_as_v2: r.flag(t, "v3_checksum_as_v2", d.v3_checksum_as_v2),
        garp_master_delay: r.time(t, "garp_master_delay", d.garp_master_delay),
        garp_master_repeat: r.number(t, "garp_master_repeat", bounds::GARP_REPEAT, d.garp_master_repeat),
        garp_master_refresh: r.time(t, "garp_master_refresh", d.garp_master_refresh),
        garp_master_refresh_repeat: {
            let default = d.garp_master_refresh_repeat;
            r.number(t, "garp_master_refresh_repeat", bounds::GARP_REPEAT, default)
        },
        garp_lower_prio_delay: r.time(t, "garp_lower_prio_delay", d.garp_lower_prio_delay),
        garp_lower_prio_repeat: {
            let default = d.garp_lower_prio_repeat;
            r.number(t, "garp_lower_prio_repeat", bounds::GARP_LOWER_REPEAT, default)
        },
        auth_password: r.field(t, "auth_password", value::text).optional().flatten(),
        hmac: r.table(t, "hmac", &HMAC, hmac),
        track_port: r.flag(t, "track_port", d.track_port),
        track: tracks(r, t),
        takeover_bfd: r.array(t, "takeover_bfd", value::text),
        notify: r.table(t, "notify", &NOTIFY, notify).unwrap_or_default(),
    }
}

fn hmac(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpHmac {
    let keys = r.tables(t, "keys", &HMAC_KEY, |r, t| {
        let id = r.required(t, "id", value::integer(bounds::HMAC_KEY_ID));
        let key = r.required(t, "key", value::text);
        Some(HmacKey { id: id?, key: key? })
    });
    VrrpHmac {
        active: r.required(t, "active", value::integer(bounds::HMAC_KEY_ID)).unwrap_or_default(),
        mode: r.field(t, "mode", value::parsed).or_default(Default::default()),
        window: r.time(t, "window", Duration::from_secs(10)),
        keys: keys.or_default(Vec::new()).into_iter().flatten().collect(),
    }
}

fn notify(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpNotify {
    VrrpNotify {
        master: r.array(t, "master", value::text),
        backup: r.array(t, "backup", value::text),
        fault: r.array(t, "fault", value::text),
        stop: r.array(t, "stop", value::text),
        deleted: r.array(t, "deleted", value::text),
        any: r.array(t, "any", value::text),
        master_rx_lower_priority: r.array(t, "master_rx_lower_priority", value::text),
        priority_changes: r.flag(t, "priority_changes", false),
        user: r.field(t, "user", value::text).optional().flatten(),
        mail: r.flag(t, "mail", false),
    }
}

/// Makes what is tracked of a name.
type Make = fn(String) -> Tracked;

fn tracks(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vec<Track> {
    let tracks = r.tables(t, "track", &TRACK, |r, t| {
        let kinds: [(&'static str, Make); 5] = [
            ("port", Tracked::Port),
            ("script", Tracked::Script),
            ("process", Tracked::Process),
            ("file", Tracked::File),
            ("bfd", Tracked::Bfd),
        ];
        let given = kinds.iter().filter(|(key, _)| t.contains_key(*key)).count();
        let mut what = None;
        for (key, make) in kinds {
            what = r.field(t, key, value::text).optional().flatten().map(make).or(what);
        }
        let weight = r.field(t, "weight", weight).optional().flatten();
        let reverse = r.flag(t, "reverse", false);
        if given != 1 {
            r.fault(format!("names {given} things to track, not one of port, script, process, file, bfd"));
            return None;
        }
        Some(Track { what: what?, weight, reverse })
    });
    tracks.or_default(Vec::new()).into_iter().flatten().collect()
}

fn group(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpGroup {
    if !t.contains_key("instances") {
        r.at("instances", |r| r.fault("is missing"));
    }
    VrrpGroup {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        instances: r.array(t, "instances", value::text),
        track: tracks(r, t),
        tracking_weight: r.flag(t, "tracking_weight", false),
        notify: r.table(t, "notify", &GROUP_NOTIFY, notify).unwrap_or_default(),
    }
}

fn command(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vec<String> {
    if !t.contains_key("command") {
        r.at("command", |r| r.fault("is missing"));
    }
    r.array(t, "command", value::text)
}

fn script(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpScript {
    let d = VrrpScript::default();
    let interval = r.time(t, "interval", d.interval);
    VrrpScript {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        command: command(r, t),
        interval,
        timeout: r.time(t, "timeout", interval),
        rise: r.number(t, "rise", bounds::RISE_FALL, d.rise),
        fall: r.number(t, "fall", bounds::RISE_FALL, d.fall),
        weight: r.field(t, "weight", weight).or_default(d.weight),
        user: r.field(t, "user", value::text).optional().flatten(),
        init_fail: r.flag(t, "init_fail", d.init_fail),
    }
}

fn process(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpProcess {
    let d = VrrpProcess::default();
    VrrpProcess {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        command: command(r, t),
        quorum: r.number(t, "quorum", bounds::PROCESS_QUORUM, d.quorum),
        quorum_max: r.number(t, "quorum_max", bounds::PROCESS_QUORUM_MAX, d.quorum_max),
        delay: r.time(t, "delay", d.delay),
        weight: r.field(t, "weight", weight).or_default(d.weight),
    }
}

fn file(r: &mut Reader<'_>, t: &DeTable<'_>) -> VrrpFile {
    let d = VrrpFile::default();
    VrrpFile {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        path: r.required(t, "path", value::text).unwrap_or_default(),
        weight: r.field(t, "weight", weight).or_default(d.weight),
    }
}

fn bfd(r: &mut Reader<'_>, t: &DeTable<'_>) -> Bfd {
    let d = Bfd::default();
    Bfd {
        name: r.required(t, "name", value::text).unwrap_or_default(),
        port: r.required(t, "port", value::text).unwrap_or_default(),
        neighbor: r.required(t, "neighbor", value::ip).unwrap_or(d.neighbor),
        source: r.field(t, "source", value::ip).optional().flatten(),
        min_tx: r.time(t, "min_tx", d.min_tx),
        min_rx: r.time(t, "min_rx", d.min_rx),
        idle_tx: r.time(t, "idle_tx", d.idle_tx),
        multiplier: r.number(t, "multiplier", bounds::BFD_MULTIPLIER, d.multiplier),
        passive: r.flag(t, "passive", d.passive),
        min_ttl: r.number(t, "min_ttl", bounds::TTL_SENT, d.min_ttl),
        weight: r.field(t, "weight", weight).or_default(d.weight),
    }
}

fn lease(r: &mut Reader<'_>, t: &DeTable<'_>) -> Lease {
    let d = Lease::default();
    if !t.contains_key("endpoints") {
        r.at("endpoints", |r| r.fault("is missing: a lease is in an etcd that is somewhere"));
    }
    let path = |value: &DeValue<'_>| value::text(value).map(PathBuf::from);
    Lease {
        endpoints: r.array(t, "endpoints", value::parsed),
        prefix: r.field(t, "prefix", value::text).or_default(d.prefix),
        ttl: r.time(t, "ttl", d.ttl),
        margin: r.time(t, "margin", d.margin),
        timeout: r.time(t, "timeout", d.timeout),
        when_away: r.field(t, "when_away", value::parsed).or_default(d.when_away),
        user: r.field(t, "user", value::text).optional().flatten(),
        password: r.field(t, "password", value::text).optional().flatten(),
        ca: r.field(t, "ca", path).optional().flatten(),
        certificate: r.field(t, "certificate", path).optional().flatten(),
        key: r.field(t, "key", path).optional().flatten(),
    }
}
