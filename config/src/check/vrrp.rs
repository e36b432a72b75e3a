//! Checks of `[[vrrp]]` and what belongs to it, `[[bfd]]`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::networks::Wire;
use super::{Firsts, names};
use crate::bounds;
use crate::draft::Draft;
use crate::duration;
use crate::fault::Problems;
use crate::path::{Path, toml_path};
use crate::text::show;
use crate::vrrp::{Bfd, Ha, Track, Tracked, Vrrp, VrrpHmac, VrrpNotify, VrrpVersion};

pub(super) fn check(draft: &Draft, wire: &Wire<'_>, problems: &mut Problems) {
    let ha = &draft.ha;
    counts(ha, problems);
    // What could not be read is empty, and its fault is reported.
    names(ha.vrrp.iter().map(|o| known(&o.name)), "vrrp", problems);
    names(ha.groups.iter().map(|o| known(&o.name)), "vrrp_groups", problems);
    names(ha.scripts.iter().map(|o| known(&o.name)), "vrrp_scripts", problems);
    names(ha.processes.iter().map(|o| known(&o.name)), "vrrp_processes", problems);
    names(ha.files.iter().map(|o| known(&o.name)), "vrrp_files", problems);
    names(ha.bfd.iter().map(|o| known(&o.name)), "bfd", problems);
    let objects = Objects::new(ha, wire);
    instances(draft, wire, &objects, problems);
    groups(ha, &objects, problems);
    for (index, script) in ha.scripts.iter().enumerate() {
        let at = |key: &'static str| toml_path!("vrrp_scripts", index, key);
        program(&script.command, true, || at("command"), problems);
        range(script.interval, bounds::CHECK_TIME, || at("interval"), problems);
        range(script.timeout, bounds::CHECK_TIME, || at("timeout"), problems);
    }
    for (index, process) in ha.processes.iter().enumerate() {
        let at = |key: &'static str| toml_path!("vrrp_processes", index, key);
        if process.command.first().is_none_or(String::is_empty) {
            add(problems, at("command"), "is empty: it names the program that must run".to_owned());
        }
        if process.quorum_max != 0 && process.quorum_max < process.quorum {
            let message = format!("{} is below quorum = {}", process.quorum_max, process.quorum);
            add(problems, at("quorum_max"), message);
        }
        range(process.delay, (Duration::ZERO, bounds::CHECK_TIME.1), || at("delay"), problems);
    }
    for (index, file) in ha.files.iter().enumerate() {
        if !file.path.is_empty() && !file.path.starts_with('/') {
            let message = format!("{} does not begin with /", show(&file.path));
            add(problems, toml_path!("vrrp_files", index, "path"), message);
        }
    }
    sessions(ha, wire, problems);
    if let Some(own) = &ha.lease {
        super::lease::check(own, ha, problems);
    }
}

fn known(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// Reports a fault unless the value has one already.
pub(super) fn add(problems: &mut Problems, path: Path, message: String) {
    if !problems.concern(&path) {
        problems.add(path, message);
    }
}

fn counts(ha: &Ha, problems: &mut Problems) {
    let lists = [
        ("vrrp", ha.vrrp.len(), bounds::VRRP_INSTANCES),
        ("vrrp_groups", ha.groups.len(), bounds::VRRP_INSTANCES),
        ("vrrp_scripts", ha.scripts.len(), bounds::TRACKED_OBJECTS),
        ("vrrp_processes", ha.processes.len(), bounds::TRACKED_OBJECTS),
        ("vrrp_files", ha.files.len(), bounds::TRACKED_OBJECTS),
        ("bfd", ha.bfd.len(), bounds::BFD_SESSIONS),
    ];
    for (key, count, limit) in lists {
        if count > limit {
            problems.add(toml_path!(key), format!("{count} are above the limit {limit}"));
        }
    }
}

/// Names that others may name.
struct Objects<'d> {
    names: HashSet<(&'static str, &'d str)>,
    instances: HashSet<&'d str>,
    /// Some port could not be read.
    unknown_ports: bool,
}

impl<'d> Objects<'d> {
    fn new(ha: &'d Ha, wire: &'d Wire<'_>) -> Self {
        let mut names = HashSet::new();
        names.extend(wire.port_names.iter().map(|name| ("port", name.as_ref())));
        names.extend(ha.scripts.iter().map(|o| ("script", o.name.as_str())));
        names.extend(ha.processes.iter().map(|o| ("process", o.name.as_str())));
        names.extend(ha.files.iter().map(|o| ("file", o.name.as_str())));
        names.extend(ha.bfd.iter().map(|o| ("bfd", o.name.as_str())));
        let instances = ha.vrrp.iter().map(|o| o.name.as_str()).collect();
        Self { names, instances, unknown_ports: !wire.complete }
    }

    /// Errors: there is no such object.
    fn find(&self, kind: &'static str, name: &str) -> Result<(), String> {
        if self.names.contains(&(kind, name)) || kind == "port" && self.unknown_ports || name.is_empty() {
            return Ok(());
        }
        let what = if kind == "port" {
            "port of the director".to_owned()
        } else {
            format!("{kind} that is tracked")
        };
        let mut known: Vec<&str> =
            self.names.iter().filter(|(of, _)| *of == kind).map(|(_, name)| *name).collect();
        known.sort_unstable();
        Err(format!("{} is not the name of a {what} (known: {})", show(name), known.join(", ")))
    }

    fn tracks(&self, tracks: &[Track], path: impl Fn(usize, &'static str) -> Path, problems: &mut Problems) {
        let mut firsts = Firsts::default();
        for (at, track) in tracks.iter().enumerate() {
            let kind = track.what.kind();
            if let Err(message) = self.find(kind, track.what.name()) {
                add(problems, path(at, kind), message);
            }
            if let Some(first) = firsts.repeats(&track.what, at) {
                let message = format!("{} is already tracked by track[{first}]", show(track.what.name()));
                add(problems, path(at, kind), message);
            }
            if matches!(track.what, Tracked::File(_)) && track.weight == Some(0) && track.reverse {
                add(problems, path(at, "reverse"), "is of no use with a file of weight 0".to_owned());
            }
        }
    }
}

pub(super) fn range(
    time: Duration,
    (min, max): (Duration, Duration),
    path: impl FnOnce() -> Path,
    problems: &mut Problems,
) {
    let text = duration::format;
    if time < min {
        add(problems, path(), format!("{} is below the limit {}", text(time), text(min)));
    } else if time > max {
        add(problems, path(), format!("{} is above the limit {}", text(time), text(max)));
    }
}

/// A program with its arguments. Its path is absolute: lbd looks through no `PATH` for it.
fn program(command: &[String], needed: bool, path: impl FnOnce() -> Path, problems: &mut Problems) {
    match command.first() {
        None if needed => add(problems, path(), "is empty: it names a program".to_owned()),
        Some(first) if !first.starts_with('/') => {
            add(problems, path(), format!("{} does not begin with /", show(first)));
        }
        _ => {}
    }
}

fn notify(notify: &VrrpNotify, path: impl Fn(&'static str) -> Path, problems: &mut Problems) {
    let programs = [
        ("master", &notify.master),
        ("backup", &notify.backup),
        ("fault", &notify.fault),
        ("stop", &notify.stop),
        ("deleted", &notify.deleted),
        ("any", &notify.any),
        ("master_rx_lower_priority", &notify.master_rx_lower_priority),
    ];
    for (key, command) in programs {
        program(command, false, || path(key), problems);
    }
}

fn instances(draft: &Draft, wire: &Wire<'_>, objects: &Objects<'_>, problems: &mut Problems) {
    let mut routers = Firsts::default();
    let mut owners = Firsts::default();
    for (index, vrrp) in draft.ha.vrrp.iter().enumerate() {
        let at = |key: &'static str| toml_path!("vrrp", index, key);
        if let Err(message) = objects.find("port", &vrrp.port) {
            add(problems, at("port"), message);
        }
        if vrrp.vrid == 0 {
            add(problems, at("vrid"), "0 is below the limit 1".to_owned());
        } else if let Some(first) = routers.repeats((&vrrp.port, vrrp.vrid, vrrp.is_ipv6()), index) {
            let message =
                format!("{} is already the vrid of vrrp[{first}] on port {}", vrrp.vrid, show(&vrrp.port));
            add(problems, at("vrid"), message);
        }
        protocol(index, vrrp, problems);
        addresses(index, vrrp, wire, problems);
        for (place, vip) in vrrp.addresses().enumerate() {
            let own = vrrp.virtual_addresses.len();
            let path = match place.checked_sub(own) {
                None => toml_path!("vrrp", index, "virtual_addresses", place),
                Some(place) => toml_path!("vrrp", index, "excluded_addresses", place),
            };
            if let Some(port) = &vip.port
                && let Err(message) = objects.find("port", port)
            {
                add(problems, path.clone(), message);
            }
            if let Some(first) = owners.repeats(vip.address, index * ADDRESSES + place) {
                let message = format!("{} is already an address of vrrp[{}]", vip.address, first / ADDRESSES);
                add(problems, path, message);
            }
        }
        objects.tracks(&vrrp.track, |place, key| toml_path!("vrrp", index, "track", place, key), problems);
        for (place, name) in vrrp.takeover_bfd.iter().enumerate() {
            if let Err(message) = objects.find("bfd", name) {
                add(problems, toml_path!("vrrp", index, "takeover_bfd", place), message);
            }
        }
        notify(&vrrp.notify, |key| toml_path!("vrrp", index, "notify", key), problems);
    }
}

/// More than an instance may have: tells addresses of different instances apart.
const ADDRESSES: usize = 1 << 20;

/// Rules about versions, timers and what goes with what.
fn protocol(index: usize, vrrp: &Vrrp, problems: &mut Problems) {
    let at = |key: &'static str| toml_path!("vrrp", index, key);
    let v2 = vrrp.version == VrrpVersion::V2;
    if v2 && vrrp.is_ipv6() {
        add(problems, at("version"), "2 has no IPv6: use 3".to_owned());
    }
    let limits = if v2 { bounds::ADVERT_INTERVAL_V2 } else { bounds::ADVERT_INTERVAL_V3 };
    range(vrrp.advert_interval, limits, || at("advert_interval"), problems);
    let unit = if v2 { 1000 } else { 10 };
    if !vrrp.advert_interval.as_millis().is_multiple_of(unit) {
        let text = duration::format(vrrp.advert_interval);
        let version = vrrp.version.number();
        add(
            problems,
            at("advert_interval"),
            format!("{text} is no multiple of {unit}ms, which version {version} counts in"),
        );
    }
    let none = (Duration::ZERO, bounds::CHECK_TIME.1);
    range(vrrp.preempt_delay, none, || at("preempt_delay"), problems);
    range(vrrp.handover_wait, bounds::HANDOVER_WAIT, || at("handover_wait"), problems);
    range(vrrp.garp_master_delay, none, || at("garp_master_delay"), problems);
    range(vrrp.garp_master_refresh, none, || at("garp_master_refresh"), problems);
    range(vrrp.garp_lower_prio_delay, none, || at("garp_lower_prio_delay"), problems);
    if let Some(password) = &vrrp.auth_password {
        if !v2 {
            add(problems, at("auth_password"), "is of version 2 only".to_owned());
        }
        if password.is_empty() || password.len() > bounds::VRRP_PASSWORD_LEN {
            let message =
                format!("has {} bytes, 1 to {} are allowed", password.len(), bounds::VRRP_PASSWORD_LEN);
            add(problems, at("auth_password"), message);
        }
    }
    if v2 && vrrp.v3_checksum_as_v2 {
        add(problems, at("v3_checksum_as_v2"), "is of version 3 only".to_owned());
    }
    if vrrp.vmac_xmit_base && !vrrp.vmac {
        add(problems, at("vmac_xmit_base"), "is of use with vmac only".to_owned());
    }
    if !vrrp.preempt && vrrp.priority == 255 {
        add(
            problems,
            at("preempt"),
            "false is not possible with priority 255: the owner is always master".to_owned(),
        );
    }
    if vrrp.strict {
        let breaches = [
            ("peers", !vrrp.peers.is_empty()),
            ("auth_password", vrrp.auth_password.is_some()),
            ("hmac", vrrp.hmac.is_some()),
            ("virtual_addresses", vrrp.virtual_addresses.is_empty()),
        ];
        for (key, breach) in breaches {
            if breach {
                add(problems, at(key), "is not as the RFC has it, which strict asks for".to_owned());
            }
        }
    }
    if let Some(hmac) = &vrrp.hmac {
        self::hmac(index, hmac, problems);
    }
}

fn hmac(index: usize, hmac: &VrrpHmac, problems: &mut Problems) {
    let at = |key: &'static str| toml_path!("vrrp", index, "hmac", key);
    range(hmac.window, bounds::HMAC_WINDOW, || at("window"), problems);
    let mut firsts = Firsts::default();
    for (place, key) in hmac.keys.iter().enumerate() {
        let path = |of: &'static str| toml_path!("vrrp", index, "hmac", "keys", place, of);
        if let Some(first) = firsts.repeats(key.id, place) {
            add(problems, path("id"), format!("{} is already the id of keys[{first}]", key.id));
        }
        let (min, max) = (*bounds::HMAC_KEY_LEN.start(), *bounds::HMAC_KEY_LEN.end());
        match key.bytes() {
            None => {
                add(problems, path("key"), "hex: is not followed by pairs of hexadecimal digits".to_owned())
            }
            Some(bytes) if !bounds::HMAC_KEY_LEN.contains(&bytes.len()) => {
                add(problems, path("key"), format!("has {} bytes, {min} to {max} are allowed", bytes.len()));
            }
            Some(_) => {}
        }
    }
    if !hmac.keys.iter().any(|key| key.id == hmac.active) {
        add(problems, at("active"), format!("{} is the id of no key", hmac.active));
    }
}

fn addresses(index: usize, vrrp: &Vrrp, wire: &Wire<'_>, problems: &mut Problems) {
    let at = |key: &'static str| toml_path!("vrrp", index, key);
    if vrrp.addresses().next().is_none() {
        add(problems, at("virtual_addresses"), "is empty: there is nothing to be master of".to_owned());
    }
    let ipv6 = vrrp.is_ipv6();
    let limit = if ipv6 { bounds::VRRP_ADDRESSES6 } else { bounds::VRRP_ADDRESSES4 };
    if vrrp.virtual_addresses.len() > limit {
        let message = format!(
            "{} addresses are above the limit {limit} of an advert; excluded_addresses takes more",
            vrrp.virtual_addresses.len()
        );
        add(problems, at("virtual_addresses"), message);
    }
    if vrrp.excluded_addresses.len() > bounds::VRRP_EXCLUDED {
        let message = format!(
            "{} addresses are above the limit {}",
            vrrp.excluded_addresses.len(),
            bounds::VRRP_EXCLUDED
        );
        add(problems, at("excluded_addresses"), message);
    }
    for (place, vip) in vrrp.virtual_addresses.iter().enumerate() {
        if vip.address.is_ipv6() != ipv6 {
            let message =
                format!("{} is of another family than the first: use excluded_addresses", vip.address);
            add(problems, toml_path!("vrrp", index, "virtual_addresses", place), message);
        }
        if wire.own.contains_key(&vip.address) && vrrp.priority != 255 {
            let message = format!("{} is a port's own address: its owner has priority 255", vip.address);
            add(problems, toml_path!("vrrp", index, "virtual_addresses", place), message);
        }
    }
    let family = |key: &'static str, address: IpAddr, problems: &mut Problems| {
        if address.is_ipv6() != ipv6 {
            add(problems, at(key), format!("{address} is of another family than the adverts"));
        }
    };
    if let Some(source) = vrrp.source {
        family("source", source, problems);
        if wire.complete && !wire.own.contains_key(&source) && !is_link_local(source) {
            add(problems, at("source"), format!("{source} is no address of a port"));
        }
    } else if wire.complete && !ipv6 && !has_address(wire, &vrrp.port, false) {
        add(problems, at("source"), format!("is missing: port {} has no IPv4 address", show(&vrrp.port)));
    }
    if let Some(group) = vrrp.multicast_address {
        family("multicast_address", group, problems);
        if !group.is_multicast() {
            add(problems, at("multicast_address"), format!("{group} is no multicast address"));
        }
    }
    let mut firsts = Firsts::default();
    for (place, peer) in vrrp.peers.iter().enumerate() {
        let path = |key: &'static str| toml_path!("vrrp", index, "peers", place, key);
        if let Some(first) = firsts.repeats(peer.address, place) {
            add(problems, path("address"), format!("{} is already peers[{first}]", peer.address));
        }
        if peer.address.is_ipv6() != ipv6 {
            add(problems, path("address"), format!("{} is of another family than the adverts", peer.address));
        }
        if wire.own.contains_key(&peer.address) {
            add(problems, path("address"), format!("{} is the director's own", peer.address));
        }
        if peer.min_ttl > peer.max_ttl {
            add(problems, path("min_ttl"), format!("{} is above max_ttl = {}", peer.min_ttl, peer.max_ttl));
        }
    }
}

/// Whether it is of a link only; the director makes one from its MAC address where none is configured.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn has_address(wire: &Wire<'_>, port: &str, ipv6: bool) -> bool {
    let at = wire.port_names.iter().position(|name| name == port);
    at.is_none() || wire.own.iter().any(|(ip, of)| Some(*of) == at && ip.is_ipv6() == ipv6)
}

fn groups(ha: &Ha, objects: &Objects<'_>, problems: &mut Problems) {
    let mut members = Firsts::default();
    for (index, group) in ha.groups.iter().enumerate() {
        if group.instances.is_empty() {
            add(problems, toml_path!("vrrp_groups", index, "instances"), "is empty".to_owned());
        }
        for (place, name) in group.instances.iter().enumerate() {
            let path = toml_path!("vrrp_groups", index, "instances", place);
            if !objects.instances.contains(name.as_str()) {
                add(problems, path, format!("{} is not the name of a vrrp", show(name)));
            } else if let Some(first) = members.repeats(name, index * ADDRESSES + place) {
                let message = format!("{} is already in vrrp_groups[{}]", show(name), first / ADDRESSES);
                add(problems, path, message);
            }
        }
        objects.tracks(&group.track, |at, key| toml_path!("vrrp_groups", index, "track", at, key), problems);
        notify(&group.notify, |key| toml_path!("vrrp_groups", index, "notify", key), problems);
    }
}

fn sessions(ha: &Ha, wire: &Wire<'_>, problems: &mut Problems) {
    let mut firsts = Firsts::default();
    for (index, bfd) in ha.bfd.iter().enumerate() {
        let at = |key: &'static str| toml_path!("bfd", index, key);
        if wire.complete && !bfd.port.is_empty() && !wire.port_names.iter().any(|name| *name == bfd.port) {
            let known = wire.port_names.join(", ");
            add(
                problems,
                at("port"),
                format!("{} is not a port of the director (known: {known})", show(&bfd.port)),
            );
        }
        for (key, time) in [("min_tx", bfd.min_tx), ("min_rx", bfd.min_rx), ("idle_tx", bfd.idle_tx)] {
            range(time, bounds::BFD_INTERVAL, || at(key), problems);
        }
        if bfd.neighbor.is_unspecified() {
            add(problems, at("neighbor"), format!("{} is no address of a station", bfd.neighbor));
            continue;
        }
        if let Some(first) = firsts.repeats((&bfd.port, bfd.neighbor), index) {
            add(
                problems,
                at("neighbor"),
                format!("{} is already the neighbor of bfd[{first}]", bfd.neighbor),
            );
        }
        source(index, bfd, wire, problems);
    }
}

fn source(index: usize, bfd: &Bfd, wire: &Wire<'_>, problems: &mut Problems) {
    let at = |key: &'static str| toml_path!("bfd", index, key);
    if !wire.complete {
        return;
    }
    if wire.own.contains_key(&bfd.neighbor) {
        add(problems, at("neighbor"), format!("{} is the director's own", bfd.neighbor));
    }
    match bfd.source {
        Some(source) if source.is_ipv6() != bfd.neighbor.is_ipv6() => {
            add(problems, at("source"), format!("{source} is of another family than neighbor"));
        }
        Some(source) if !wire.own.contains_key(&source) => {
            add(problems, at("source"), format!("{source} is no address of a port"));
        }
        Some(_) => {}
        None => {
            let longest = if bfd.neighbor.is_ipv6() { 128 } else { 32 };
            let found = wire.networks.find(bfd.neighbor, longest);
            if found.is_none_or(|(_, port)| wire.port_name(port) != bfd.port) {
                let message = format!("{} is in no network of port {}", bfd.neighbor, show(&bfd.port));
                add(problems, at("neighbor"), message);
            }
        }
    }
}
