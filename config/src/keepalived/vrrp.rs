//! `vrrp_instance` and `vrrp_sync_group`.

use std::net::IpAddr;
use std::time::Duration;

use super::Import;
use super::lex::Entry;
use crate::bounds;
use crate::vrrp::{VirtualAddress, Vrrp, VrrpGroup, VrrpNotify, VrrpPeer, VrrpStart, VrrpVersion};

impl Import {
    /// Reads all instances, then the groups that name them.
    pub(super) fn instances(&mut self, tree: &[Entry]) {
        tree.iter().filter(|entry| entry.key() == "vrrp_instance").for_each(|entry| self.instance(entry));
        tree.iter().filter(|entry| entry.key() == "vrrp_sync_group").for_each(|entry| self.sync_group(entry));
    }

    pub(super) fn version(&mut self, entry: &Entry) -> Option<VrrpVersion> {
        let number: u8 = self.number(entry, 2, 3)?;
        Some(if number == 2 { VrrpVersion::V2 } else { VrrpVersion::V3 })
    }

    fn instance(&mut self, entry: &Entry) {
        let Some(there) = self.word(entry) else { return };
        if self.names.contains_key(&("vrrp", there.to_owned())) {
            return self.note(entry, format!("{} is there already", crate::text::show(there)));
        }
        let mut vrrp = self.global.vrrp.clone();
        let mut interface = self.global.interface.clone().map(|name| (entry, name));
        let mut accept = None;
        let mut advert = None;
        vrrp.notify.priority_changes = self.global.priority_changes;
        vrrp.notify.mail = self.global.vrrp_mail;
        for line in entry.inner() {
            match line.key() {
                "interface" => interface = self.word(line).map(|name| (line, name.to_owned())),
                "virtual_router_id" => vrrp.vrid = self.number(line, 1, 255).unwrap_or(0),
                "accept" => accept = Some(true),
                "no_accept" => accept = Some(false),
                "advert_int" => advert = self.timer_at(line, 1).map(|time| (line, time)),
                key if self.identity(&mut vrrp, key, line)
                    || self.timing(&mut vrrp, key, line)
                    || self.told(&mut vrrp.notify, key, line) => {}
                _ => self.skip(line),
            }
        }
        let Some((line, interface)) = interface else {
            return self.notes.add(entry.at, "vrrp_instance", "has no interface");
        };
        vrrp.port = self.port_of(line, &interface);
        if vrrp.vrid == 0 {
            return self.notes.add(entry.at, "vrrp_instance", "has no virtual_router_id");
        }
        if let Some((line, time)) = advert {
            vrrp.advert_interval = self.advert(line, vrrp.version, time);
        }
        vrrp.accept = accept.unwrap_or(!vrrp.strict || vrrp.priority == 255);
        if vrrp.version == VrrpVersion::V3 && vrrp.auth_password.take().is_some() {
            self.notes.add(
                entry.at,
                "authentication",
                "is of version 2 only; keepalived has none in version 3 either",
            );
        }
        self.strictly(entry, &mut vrrp);
        self.families(entry, &mut vrrp);
        self.default_group(&mut vrrp);
        let owned = vrrp.port.clone();
        for vip in vrrp.virtual_addresses.iter_mut().chain(&mut vrrp.excluded_addresses) {
            // Whose network it is in decides; the file says so of the interface too.
            vip.port = vip.port.take().filter(|port| *port != owned);
        }
        vrrp.name = self.named("vrrp", there);
        self.ha.vrrp.push(vrrp);
        self.place("vrrp", entry.at);
    }

    /// What strict mode and its instance cannot have both, as keepalived decides it.
    fn strictly(&mut self, entry: &Entry, vrrp: &mut Vrrp) {
        if vrrp.strict && vrrp.auth_password.take().is_some() {
            let why = "is not carried over: the RFC has none, so keepalived sends none in strict mode either";
            self.notes.add(entry.at, "authentication", why);
        }
        if vrrp.strict && !vrrp.peers.is_empty() {
            vrrp.strict = false;
            let why =
                "is not carried over: the RFC has no peers; keepalived speaks to them in strict mode too";
            self.notes.add(entry.at, "strict_mode", why);
        }
    }

    /// The interval, as its version can say it.
    fn advert(&mut self, line: &Entry, version: VrrpVersion, time: Duration) -> Duration {
        let (unit, (least, most)) = match version {
            VrrpVersion::V2 => (1000, bounds::ADVERT_INTERVAL_V2),
            VrrpVersion::V3 => (10, bounds::ADVERT_INTERVAL_V3),
        };
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).div_ceil(unit).saturating_mul(unit);
        let rounded = Duration::from_millis(ms).clamp(least, most);
        if rounded != time {
            let text = crate::duration::format;
            self.note(line, format!("{} cannot be; {} is taken", text(time), text(rounded)));
        }
        rounded
    }

    /// Adverts hold one family; keepalived has it so too.
    fn families(&mut self, entry: &Entry, vrrp: &mut Vrrp) {
        let ipv6 = vrrp.is_ipv6();
        if ipv6 && vrrp.version == VrrpVersion::V2 {
            self.note(entry, "version 2 has no IPv6; version 3 is taken, as by keepalived");
            vrrp.version = VrrpVersion::V3;
        }
        let (own, other) = vrrp.virtual_addresses.drain(..).partition(|vip| vip.address.is_ipv6() == ipv6);
        vrrp.virtual_addresses = own;
        let other: Vec<VirtualAddress> = other;
        if !other.is_empty() {
            self.note(entry, "addresses of the other family are in excluded_addresses now, not in adverts");
        }
        vrrp.excluded_addresses.extend(other);
        let most = if ipv6 { bounds::VRRP_ADDRESSES6 } else { bounds::VRRP_ADDRESSES4 };
        if vrrp.virtual_addresses.len() > most {
            self.note(
                entry,
                format!("addresses beyond {most} are in excluded_addresses now, not in adverts"),
            );
            let more = vrrp.virtual_addresses.split_off(most);
            vrrp.excluded_addresses.extend(more);
        }
    }

    fn default_group(&mut self, vrrp: &mut Vrrp) {
        let ipv6 = vrrp.is_ipv6();
        if vrrp.multicast_address.is_none() && vrrp.peers.is_empty() {
            vrrp.multicast_address = self.global.groups.iter().rev().find(|ip| ip.is_ipv6() == ipv6).copied();
        }
    }

    /// Who an instance is and speaks to. False: the key is none of these.
    fn identity(&mut self, vrrp: &mut Vrrp, key: &str, line: &Entry) -> bool {
        match key {
            "state" => match self.word(line).map(str::to_ascii_uppercase).as_deref() {
                Some("MASTER") => vrrp.state = VrrpStart::Master,
                Some("BACKUP") => vrrp.state = VrrpStart::Backup,
                _ => self.note(line, "is neither MASTER nor BACKUP"),
            },
            "priority" => vrrp.priority = self.number(line, 1, 255).unwrap_or(vrrp.priority),
            "version" => vrrp.version = self.version(line).unwrap_or(vrrp.version),
            "virtual_ipaddress" => vrrp.virtual_addresses.extend(self.addresses(line)),
            "virtual_ipaddress_excluded" => vrrp.excluded_addresses.extend(self.addresses(line)),
            // Whether there are any is seen.
            "no_virtual_ipaddress" | "native_ipv6" => {}
            "mcast_src_ip" | "unicast_src_ip" => vrrp.source = self.ip_at(line, 1),
            "mcast_dst_ip" => vrrp.multicast_address = self.ip_at(line, 1),
            "unicast_peer" => vrrp.peers = line.inner().iter().filter_map(|line| self.peer(line)).collect(),
            "unicast_ttl" => vrrp.unicast_ttl = self.number(line, 1, 255).unwrap_or(vrrp.unicast_ttl),
            "check_unicast_src" => vrrp.check_unicast_source = self.flag(line),
            "use_vmac" => {
                vrrp.vmac = true;
                if line.args().iter().any(|word| word.contains(':')) {
                    self.note(line, "is at the virtual router's own MAC address, not at the one given");
                }
            }
            "use_vmac_addr" => {
                vrrp.vmac = true;
                self.note(line, "is taken for use_vmac: all addresses of an instance have one MAC address");
            }
            "vmac_xmit_base" => vrrp.vmac_xmit_base = true,
            "authentication" => line.inner().iter().for_each(|line| self.authentication(vrrp, line)),
            "dont_track_primary" => vrrp.track_port = false,
            "track_interface" | "track_script" | "track_process" | "track_file" | "track_bfd" => {
                let tracks = self.tracks(line);
                vrrp.track.extend(tracks);
            }
            _ => return false,
        }
        true
    }

    fn authentication(&mut self, vrrp: &mut Vrrp, line: &Entry) {
        match line.key() {
            "auth_type" if line.arg(1).is_some_and(|word| word.eq_ignore_ascii_case("pass")) => {}
            "auth_type" => {
                self.note(line, "is not offered: of authentication there is PASS only; others send none here")
            }
            "auth_pass" => {
                // Of longer ones keepalived takes the first eight bytes too.
                let all = self.word(line).unwrap_or_default();
                let end = (0..=bounds::VRRP_PASSWORD_LEN).rev().find(|end| all.is_char_boundary(*end));
                let password = all.get(..end.unwrap_or(0).min(all.len())).unwrap_or(all);
                vrrp.auth_password = (!password.is_empty()).then(|| password.to_owned());
            }
            _ => self.skip(line),
        }
    }

    /// When an instance does what. False: the key is none of these.
    pub(super) fn timing(&mut self, vrrp: &mut Vrrp, key: &str, line: &Entry) -> bool {
        let (none, most) = (Duration::ZERO, bounds::CHECK_TIME.1);
        match key {
            "preempt" => vrrp.preempt = true,
            "nopreempt" => vrrp.preempt = false,
            "preempt_delay" => {
                vrrp.preempt_delay = self.timer(line, none, most).unwrap_or(vrrp.preempt_delay)
            }
            "skip_check_adv_addr" => vrrp.check_addresses = !self.flag(line),
            "strict_mode" => vrrp.strict = self.flag(line),
            "down_timer_adverts" => {
                vrrp.down_timer_adverts = self.number(line, 1, 100).unwrap_or(vrrp.down_timer_adverts);
            }
            "timer_expired_backup" => vrrp.timer_expired_backup = self.flag(line),
            "lower_prio_no_advert" => vrrp.lower_prio_no_advert = self.flag(line),
            "higher_prio_send_advert" => vrrp.higher_prio_send_advert = self.flag(line),
            "owner_ignore_adverts" => vrrp.owner_ignore_adverts = self.flag(line),
            "v3_checksum_as_v2" => vrrp.v3_checksum_as_v2 = self.flag(line),
            "garp_master_delay" => {
                vrrp.garp_master_delay = self.timer(line, none, most).unwrap_or(vrrp.garp_master_delay);
            }
            "garp_master_refresh" => {
                vrrp.garp_master_refresh = self.timer(line, none, most).unwrap_or(vrrp.garp_master_refresh);
            }
            "garp_lower_prio_delay" => {
                vrrp.garp_lower_prio_delay =
                    self.timer(line, none, most).unwrap_or(vrrp.garp_lower_prio_delay);
            }
            "garp_master_repeat" => {
                vrrp.garp_master_repeat = self.number(line, 1, 100).unwrap_or(vrrp.garp_master_repeat);
            }
            "garp_master_refresh_repeat" => {
                let count = self.number(line, 1, 100);
                vrrp.garp_master_refresh_repeat = count.unwrap_or(vrrp.garp_master_refresh_repeat);
            }
            "garp_lower_prio_repeat" => {
                vrrp.garp_lower_prio_repeat =
                    self.number(line, 0, 100).unwrap_or(vrrp.garp_lower_prio_repeat);
            }
            _ => return false,
        }
        true
    }

    /// Whom an instance or a group tells. False: the key is none of these.
    fn told(&mut self, notify: &mut VrrpNotify, key: &str, line: &Entry) -> bool {
        let program = match key {
            "notify_master" => &mut notify.master,
            "notify_backup" => &mut notify.backup,
            "notify_fault" => &mut notify.fault,
            "notify_stop" => &mut notify.stop,
            "notify_deleted" => &mut notify.deleted,
            "notify" => &mut notify.any,
            "notify_master_rx_lower_pri" => &mut notify.master_rx_lower_priority,
            "notify_priority_changes" => {
                notify.priority_changes = self.flag(line);
                return true;
            }
            "smtp_alert" => {
                notify.mail = self.flag(line);
                return true;
            }
            _ => return false,
        };
        let (command, user) = self.program(line);
        *program = command;
        let user = user.or(self.global.user.clone());
        if let (Some(first), Some(own)) = (&notify.user, &user)
            && first != own
        {
            let show = crate::text::show;
            let why = format!(
                "runs as {}, not as {}: all commands of an instance have one user",
                show(first),
                show(own)
            );
            self.note(line, why);
        }
        notify.user = notify.user.take().or(user);
        true
    }

    /// A line each: `ADDRESS[/LEN] [dev INTERFACE] [what the kernel's interface has]`.
    fn addresses(&mut self, block: &Entry) -> Vec<VirtualAddress> {
        let mut list = Vec::new();
        for line in block.inner() {
            let Ok(address) = line.key().split('/').next().unwrap_or_default().parse::<IpAddr>() else {
                self.note(line, "is no address");
                continue;
            };
            let mut port = None;
            let mut dropped = Vec::new();
            let mut words = line.words.iter().skip(1);
            while let Some(word) = words.next() {
                match word.as_str() {
                    "dev" => port = words.next().map(|interface| self.port_of(line, interface)),
                    "brd" | "broadcast" | "label" | "scope" | "peer" | "preferred_lft" | "track_group" => {
                        words.next();
                        dropped.push(word.as_str());
                    }
                    // What is not there need not be removed.
                    "no_track" => {}
                    other => dropped.push(other),
                }
            }
            if !dropped.is_empty() {
                self.note(line, format!("{}: no kernel interface has the address", dropped.join(", ")));
            }
            list.push(VirtualAddress { address, port });
        }
        list
    }

    fn peer(&mut self, line: &Entry) -> Option<VrrpPeer> {
        let address = self.ip_at(line, 0)?;
        let mut peer = VrrpPeer { address, min_ttl: 0, max_ttl: 255 };
        for (at, word) in line.words.iter().enumerate().skip(1).step_by(2) {
            match word.as_str() {
                "min_ttl" => peer.min_ttl = self.number_at(line, at + 1, 0, 255).unwrap_or(0),
                "max_ttl" => peer.max_ttl = self.number_at(line, at + 1, 0, 255).unwrap_or(255),
                _ => self.note(line, format!("{} is neither min_ttl nor max_ttl", crate::text::show(word))),
            }
        }
        Some(peer)
    }

    fn sync_group(&mut self, entry: &Entry) {
        let Some(there) = self.word(entry) else { return };
        let mut group = VrrpGroup::default();
        group.notify.mail = self.global.vrrp_mail;
        for line in entry.inner() {
            match line.key() {
                "group" => {
                    for (line, name) in
                        line.inner().iter().flat_map(|line| line.words.iter().map(move |w| (line, w)))
                    {
                        match self.names.get(&("vrrp", name.clone())) {
                            Some(here) => group.instances.push(here.clone()),
                            None => {
                                self.note(line, "is not the name of a vrrp_instance that was carried over")
                            }
                        }
                    }
                }
                "track_interface" | "track_script" | "track_process" | "track_file" | "track_bfd" => {
                    let tracks = self.tracks(line);
                    group.track.extend(tracks);
                }
                "global_tracking" | "sync_group_tracking_weight" => group.tracking_weight = true,
                // keepalived.conf(5): only instances are told as deleted, and of priorities only the FIFO hears here
                "notify_deleted" | "notify_priority_changes" | "notify_master_rx_lower_pri" => {
                    self.note(line, "is of instances alone: a group is not told of it");
                }
                key if self.told(&mut group.notify, key, line) => {}
                _ => self.skip(line),
            }
        }
        if group.instances.is_empty() {
            return self.notes.add(entry.at, "vrrp_sync_group", "has no instance");
        }
        group.name = self.named("vrrp_groups", there);
        self.ha.groups.push(group);
        self.place("vrrp_groups", entry.at);
    }
}
