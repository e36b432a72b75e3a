//! Objects as keys and values in TOML, for the writer and the diff.

use std::fmt::Display;
use std::time::Duration;

use toml::Value;

use super::{
    Bfd, Ha, Lease, Track, Vrrp, VrrpFile, VrrpGroup, VrrpHmac, VrrpNotify, VrrpProcess, VrrpScript,
};
use crate::duration;

/// Header of the one table that is not one of many.
pub(crate) const LEASE: &str = "lease";

/// Keys in the order of the example, each with its value as TOML.
pub(crate) type Entries = Vec<(&'static str, String)>;

fn text(text: impl Display) -> String {
    Value::String(text.to_string()).to_string()
}

fn time(time: Duration) -> String {
    text(duration::format(time))
}

fn list<T: Display>(values: &[T]) -> String {
    format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", "))
}

fn inline(entries: &Entries) -> String {
    let pairs: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// Adds what is there.
fn put(entries: &mut Entries, key: &'static str, value: Option<String>) {
    entries.extend(value.map(|value| (key, value)));
}

fn put_list<T: Display>(entries: &mut Entries, key: &'static str, values: &[T]) {
    put(entries, key, (!values.is_empty()).then(|| list(values)));
}

fn put_inline<T>(entries: &mut Entries, key: &'static str, values: &[T], of: impl Fn(&T) -> Entries) {
    let texts: Vec<String> = values.iter().map(|value| inline(&of(value))).collect();
    put(entries, key, (!values.is_empty()).then(|| format!("[{}]", texts.join(", "))));
}

impl Track {
    fn entries(&self) -> Entries {
        let mut entries = vec![(self.what.kind(), text(self.what.name()))];
        put(&mut entries, "weight", self.weight.map(|weight| weight.to_string()));
        put(&mut entries, "reverse", self.reverse.then(|| true.to_string()));
        entries
    }
}

impl VrrpHmac {
    fn entries(&self) -> Entries {
        let mut entries = vec![
            ("active", self.active.to_string()),
            ("mode", text(self.mode.as_str())),
            ("window", time(self.window)),
        ];
        put_inline(&mut entries, "keys", &self.keys, |key| {
            vec![("id", key.id.to_string()), ("key", text(&key.key))]
        });
        entries
    }
}

impl VrrpNotify {
    fn put(&self, entries: &mut Entries) {
        let mut own = Entries::new();
        let programs = [
            ("master", &self.master),
            ("backup", &self.backup),
            ("fault", &self.fault),
            ("stop", &self.stop),
            ("deleted", &self.deleted),
            ("any", &self.any),
            ("master_rx_lower_priority", &self.master_rx_lower_priority),
        ];
        for (key, command) in programs {
            put_list(&mut own, key, command);
        }
        put(&mut own, "priority_changes", self.priority_changes.then(|| true.to_string()));
        put(&mut own, "user", self.user.as_ref().map(text));
        put(&mut own, "mail", self.mail.then(|| true.to_string()));
        put(entries, "notify", (!own.is_empty()).then(|| inline(&own)));
    }
}

impl Vrrp {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries = vec![
            ("name", text(&self.name)),
            ("port", text(&self.port)),
            ("vrid", self.vrid.to_string()),
            ("version", self.version.number().to_string()),
            ("priority", self.priority.to_string()),
            ("state", text(self.state.as_str())),
            ("advert_interval", time(self.advert_interval)),
        ];
        let e = &mut entries;
        put_list(e, "virtual_addresses", &self.virtual_addresses);
        put_list(e, "excluded_addresses", &self.excluded_addresses);
        put(e, "source", self.source.map(text));
        put(e, "multicast_address", self.multicast_address.map(text));
        put_inline(e, "peers", &self.peers, |peer| {
            vec![
                ("address", text(peer.address)),
                ("min_ttl", peer.min_ttl.to_string()),
                ("max_ttl", peer.max_ttl.to_string()),
            ]
        });
        e.push(("check_unicast_source", self.check_unicast_source.to_string()));
        e.push(("unicast_ttl", self.unicast_ttl.to_string()));
        e.push(("vmac", self.vmac.to_string()));
        e.push(("vmac_xmit_base", self.vmac_xmit_base.to_string()));
        e.push(("accept", self.accept.to_string()));
        e.push(("preempt", self.preempt.to_string()));
        e.push(("preempt_delay", time(self.preempt_delay)));
        e.push(("handover_wait", time(self.handover_wait)));
        e.push(("check_addresses", self.check_addresses.to_string()));
        e.push(("strict", self.strict.to_string()));
        e.push(("down_timer_adverts", self.down_timer_adverts.to_string()));
        e.push(("timer_expired_backup", self.timer_expired_backup.to_string()));
        e.push(("lower_prio_no_advert", self.lower_prio_no_advert.to_string()));
        e.push(("higher_prio_send_advert", self.higher_prio_send_advert.to_string()));
        e.push(("owner_ignore_adverts", self.owner_ignore_adverts.to_string()));
        e.push(("v3_checksum_as_v2", self.v3_checksum_as_v2.to_string()));
        e.push(("garp_master_delay", time(self.garp_master_delay)));
        e.push(("garp_master_repeat", self.garp_master_repeat.to_string()));
        e.push(("garp_master_refresh", time(self.garp_master_refresh)));
        e.push(("garp_master_refresh_repeat", self.garp_master_refresh_repeat.to_string()));
        e.push(("garp_lower_prio_delay", time(self.garp_lower_prio_delay)));
        e.push(("garp_lower_prio_repeat", self.garp_lower_prio_repeat.to_string()));
        put(e, "auth_password", self.auth_password.as_ref().map(text));
        put(e, "hmac", self.hmac.as_ref().map(|hmac| inline(&hmac.entries())));
        e.push(("track_port", self.track_port.to_string()));
        put_inline(e, "track", &self.track, Track::entries);
        put_list(e, "takeover_bfd", &self.takeover_bfd);
        self.notify.put(e);
        entries
    }
}

impl VrrpGroup {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries = vec![("name", text(&self.name)), ("instances", list(&self.instances))];
        put_inline(&mut entries, "track", &self.track, Track::entries);
        entries.push(("tracking_weight", self.tracking_weight.to_string()));
        self.notify.put(&mut entries);
        entries
    }
}

impl VrrpScript {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries = vec![
            ("name", text(&self.name)),
            ("command", list(&self.command)),
            ("interval", time(self.interval)),
            ("timeout", time(self.timeout)),
            ("rise", self.rise.to_string()),
            ("fall", self.fall.to_string()),
            ("weight", self.weight.to_string()),
        ];
        put(&mut entries, "user", self.user.as_ref().map(text));
        entries.push(("init_fail", self.init_fail.to_string()));
        entries
    }
}

impl VrrpProcess {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        vec![
            ("name", text(&self.name)),
            ("command", list(&self.command)),
            ("quorum", self.quorum.to_string()),
            ("quorum_max", self.quorum_max.to_string()),
            ("delay", time(self.delay)),
            ("weight", self.weight.to_string()),
        ]
    }
}

impl VrrpFile {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        vec![("name", text(&self.name)), ("path", text(&self.path)), ("weight", self.weight.to_string())]
    }
}

impl Bfd {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries =
            vec![("name", text(&self.name)), ("port", text(&self.port)), ("neighbor", text(self.neighbor))];
        put(&mut entries, "source", self.source.map(text));
        entries.extend([
            ("min_tx", time(self.min_tx)),
            ("min_rx", time(self.min_rx)),
            ("idle_tx", time(self.idle_tx)),
            ("multiplier", self.multiplier.to_string()),
            ("passive", self.passive.to_string()),
            ("min_ttl", self.min_ttl.to_string()),
            ("weight", self.weight.to_string()),
        ]);
        entries
    }
}

impl Lease {
    /// Its keys and values.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries = vec![
            ("endpoints", list(&self.endpoints)),
            ("prefix", text(&self.prefix)),
            ("ttl", time(self.ttl)),
            ("margin", time(self.margin)),
            ("timeout", time(self.timeout)),
            ("when_away", text(self.when_away.as_str())),
        ];
        let e = &mut entries;
        put(e, "user", self.user.as_ref().map(text));
        put(e, "password", self.password.as_ref().map(text));
        put(e, "ca", self.ca.as_ref().map(|path| text(path.display())));
        put(e, "certificate", self.certificate.as_ref().map(|path| text(path.display())));
        put(e, "key", self.key.as_ref().map(|path| text(path.display())));
        entries
    }
}

impl Ha {
    /// Every object with its header, in the order of the example.
    pub(crate) fn sections(&self) -> Vec<(&'static str, Entries)> {
        let mut sections = Vec::new();
        sections.extend(self.vrrp.iter().map(|o| ("vrrp", o.entries())));
        sections.extend(self.groups.iter().map(|o| ("vrrp_groups", o.entries())));
        sections.extend(self.scripts.iter().map(|o| ("vrrp_scripts", o.entries())));
        sections.extend(self.processes.iter().map(|o| ("vrrp_processes", o.entries())));
        sections.extend(self.files.iter().map(|o| ("vrrp_files", o.entries())));
        sections.extend(self.bfd.iter().map(|o| ("bfd", o.entries())));
        sections.extend(self.sync.iter().map(|o| ("sync", o.entries())));
        sections.extend(self.lease.iter().map(|o| (LEASE, o.entries())));
        sections.extend(self.ipvs_sync.iter().map(|o| ("ipvs_sync", o.entries())));
        sections
    }
}
