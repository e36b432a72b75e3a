//! `global_defs`, `SSL`, and whatever else at the root concerns the whole director.

use std::net::IpAddr;
use std::time::Duration;

use super::Import;
use super::lex::Entry;
use super::values::name_of;
use crate::bounds;
use crate::health::{Mail, TlsCheck};
use crate::vrrp::{Vrrp, VrrpVersion};

/// Blocks at the root that other parts read.
const ELSEWHERE: [&str; 11] = [
    "vrrp_instance",
    "vrrp_sync_group",
    "vrrp_script",
    "vrrp_track_process",
    "track_file",
    "vrrp_track_file",
    "bfd_instance",
    "virtual_server",
    "virtual_server_group",
    "global_defs",
    "SSL",
];

/// Defaults that the whole file shares.
#[derive(Debug, Default)]
pub(super) struct Global {
    /// What instances begin with.
    pub vrrp: Vrrp,
    /// `default_interface`.
    pub interface: Option<String>,
    /// `vrrp_mcast_group4`, `vrrp_mcast_group6`.
    pub groups: Vec<IpAddr>,
    /// Notify commands of instances tell of priorities.
    pub priority_changes: bool,
    /// `script_user`.
    pub user: Option<String>,
    /// Whether checks send mails; `None`: if there is somebody to send them to.
    pub mail: Option<bool>,
    /// Whether instances and groups send mails that do not say so themselves.
    pub vrrp_mail: bool,
    /// `lvs_sync_daemon`.
    pub lvs_sync: Option<Entry>,
    /// `SSL`.
    pub tls: TlsCheck,
}

impl Import {
    /// Reads what concerns the whole director, and notes what at the root is known to nobody.
    pub(super) fn globals(&mut self, tree: &[Entry]) {
        self.global.vrrp = Vrrp {
            // keepalived's defaults that are not the director's.
            version: VrrpVersion::V2,
            check_unicast_source: false,
            timer_expired_backup: false,
            ..Vrrp::default()
        };
        let mut mail = Mail {
            server: "127.0.0.1".to_owned(),
            port: 25,
            helo: None,
            from: "keepalived@localhost".to_owned(),
            to: Vec::new(),
            timeout: Duration::from_secs(30),
        };
        for entry in tree {
            match entry.key() {
                "global_defs" => {
                    self.place("notify", entry.at);
                    entry.inner().iter().for_each(|entry| self.global(entry, &mut mail));
                }
                "SSL" => entry.inner().iter().for_each(|entry| self.ssl(entry)),
                key if ELSEWHERE.contains(&key) => {}
                _ => self.skip(entry),
            }
        }
        if !mail.to.is_empty() {
            self.notify.mail = Some(mail);
        }
        self.notify.user = self.global.user.clone();
    }

    fn global(&mut self, entry: &Entry, mail: &mut Mail) {
        let check = (bounds::MIN_CHECK_TIME, bounds::MAX_CHECK_TIME);
        let whole = (Duration::ZERO, bounds::CHECK_TIME.1);
        match entry.key() {
            "router_id" => {
                let name =
                    self.word(entry).map(|id| name_of(id).chars().take(bounds::APPLIANCE_NAME_LEN).collect());
                self.name = name;
            }
            "notification_email" => {
                let all = entry.inner().iter().flat_map(|line| &line.words);
                mail.to.extend(all.map(|to| bare(to)));
            }
            "notification_email_from" => mail.from = self.word(entry).map_or(mail.from.clone(), bare),
            "smtp_server" => {
                mail.server = self.word(entry).map_or(mail.server.clone(), str::to_owned);
                if entry.arg(2).is_some() {
                    mail.port = self.number_at(entry, 2, 1, 65_535).unwrap_or(mail.port);
                }
            }
            "smtp_helo_name" => mail.helo = self.word(entry).map(str::to_owned),
            "smtp_connect_timeout" => {
                mail.timeout = self.timer(entry, check.0, check.1).unwrap_or(mail.timeout);
            }
            "smtp_alert" => {
                self.global.vrrp_mail = self.flag(entry);
                self.global.mail = Some(self.global.vrrp_mail);
            }
            "smtp_alert_vrrp" => self.global.vrrp_mail = self.flag(entry),
            "smtp_alert_checker" => self.global.mail = Some(self.flag(entry)),
            "no_checker_emails" => self.global.mail = Some(false),
            "script_user" => self.global.user = self.word(entry).map(str::to_owned),
            "lvs_sync_daemon" => match self.global.lvs_sync {
                None => self.global.lvs_sync = Some(entry.clone()),
                Some(_) => self.note(entry, "is there already, and there is one only"),
            },
            "lvs_timeouts" => self.timeouts(entry),
            "default_interface" => self.global.interface = self.word(entry).map(str::to_owned),
            "vrrp_mcast_group4" | "vrrp_mcast_group6" => {
                let group = self.ip_at(entry, 1);
                self.global.groups.extend(group);
            }
            "vrrp_version" => {
                if let Some(version) = self.version(entry) {
                    self.global.vrrp.version = version;
                }
            }
            "vrrp_garp_master_delay" => {
                if let Some(time) = self.timer(entry, whole.0, whole.1) {
                    self.global.vrrp.garp_master_delay = time;
                    self.global.vrrp.garp_lower_prio_delay = time;
                }
            }
            "vrrp_garp_master_repeat" => {
                if let Some(count) = self.number::<u8>(entry, 1, 100) {
                    self.global.vrrp.garp_master_repeat = count;
                    self.global.vrrp.garp_lower_prio_repeat = count;
                }
            }
            "vrrp_notify_priority_changes" => self.global.priority_changes = self.flag(entry),
            "vrrp_skip_check_adv_addr" => self.global.vrrp.check_addresses = !self.flag(entry),
            "vrrp_check_unicast_src" => self.global.vrrp.check_unicast_source = self.flag(entry),
            key => {
                // The same keys as an instance has, as its default.
                let inner = match key.strip_prefix("vrrp_").unwrap_or(key) {
                    "strict" => "strict_mode",
                    same => same,
                };
                let mut vrrp = self.global.vrrp.clone();
                let same = matches!(
                    inner,
                    "garp_master_refresh"
                        | "garp_master_refresh_repeat"
                        | "garp_lower_prio_delay"
                        | "garp_lower_prio_repeat"
                        | "down_timer_adverts"
                        | "lower_prio_no_advert"
                        | "higher_prio_send_advert"
                        | "owner_ignore_adverts"
                        | "strict_mode"
                        | "v3_checksum_as_v2"
                );
                if same && self.timing(&mut vrrp, inner, entry) {
                    self.global.vrrp = vrrp;
                } else {
                    self.skip(entry);
                }
            }
        }
    }

    /// `lvs_timeouts tcp N tcpfin N udp N`
    fn timeouts(&mut self, entry: &Entry) {
        for (at, word) in entry.words.iter().enumerate().skip(1).step_by(2) {
            let key = match word.as_str() {
                "tcp" => "tcp_established",
                "tcpfin" => "tcp_fin_wait",
                "udp" => "udp",
                _ => {
                    self.note(entry, format!("{} is none of tcp, tcpfin, udp", crate::text::show(word)));
                    continue;
                }
            };
            let seconds = self.number_at::<u32>(entry, at + 1, 1, bounds::MAX_TIMEOUT.as_secs() as i64);
            self.timeouts.extend(seconds.map(|seconds| (key, seconds)));
        }
    }

    /// keepalived shows its certificate and checks nobody's.
    fn ssl(&mut self, entry: &Entry) {
        match entry.key() {
            "certificate" => self.global.tls.certificate = self.word(entry).map(Into::into),
            "key" => self.global.tls.key = self.word(entry).map(Into::into),
            "ca" => self.note(
                entry,
                "is not carried over: keepalived refuses no certificate; set verify and ca of a check",
            ),
            "password" => self.note(entry, "is not offered: the key must be readable without a password"),
            _ => self.skip(entry),
        }
    }
}

/// The address in `Name <address>`.
fn bare(text: &str) -> String {
    let inner = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(text, |(address, _)| address).to_owned()
}
