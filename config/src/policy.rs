//! Decisions that IPVS leaves to its sysctls, and those where its users want another one: for the director, and per
//! service.
//!
//! A service's own value comes first; what it does not say follows from [`Policy::compat`].

use std::fmt;
use std::time::Duration;

use crate::bounds::{self, Bounds};
use crate::duration;
use crate::model::Service;
use crate::text::{ValueError, nearest, show, words};

/// Policies of the whole director. The defaults are those of IPVS's sysctls of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose defaults services follow.
    pub compat: Compat,
    /// A TCP packet other than a SYN may begin a connection.
    pub sloppy_tcp: bool,
    /// An SCTP packet other than an INIT may begin a connection.
    pub sloppy_sctp: bool,
    /// What a new connection's packet on a known one does (services with [`Reuse::Ipvs`]): 0 goes the old way; 1 is
    /// scheduled anew when the old one is in TIME_WAIT or CLOSE; 2 and 3 also in FIN_WAIT when no reply was seen.
    pub conn_reuse_mode: u8,
    /// A packet of a connection whose server is gone is scheduled anew; see [`OnServerDown`].
    pub expire_nodest_conn: bool,
    /// Persistence does not hold to a server of weight 0.
    pub expire_quiescent_template: bool,
    /// TCP's stricter state table: 0 never, 1 and 2 while connections run short (a worker has no more than an eighth
    /// of its share of `max_connections` left), 3 always.
    pub secure_tcp: u8,
    /// An ICMP error may begin a connection.
    pub schedule_icmp: bool,
    /// ICMP tells senders of packets that are too big for a tunnel; else IPv4 packets are cut whatever their DF says.
    pub pmtu_disc: bool,
    /// ICMP tells servers of replies that belong to no connection.
    pub nat_icmp_send: bool,
    /// Share of a worker's connections, percent, that wait for the end of their handshake, from which on SYNs are a
    /// flood; 0: they never are.
    pub syn_flood: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            compat: Compat::None,
            sloppy_tcp: false,
            sloppy_sctp: false,
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            secure_tcp: 0,
            schedule_icmp: false,
            pmtu_disc: true,
            nat_icmp_send: false,
            syn_flood: 10,
        }
    }
}

/// Whose defaults a director follows where ours are not IPVS's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Ours.
    #[default]
    None,
    /// Those of IPVS.
    Ipvs,
}

words!(Compat, "a compatibility", [
    "none" => Self::None => Self::None,
    "ipvs" => Self::Ipvs => Self::Ipvs,
]);

/// What a client hears when a service has no server for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnNoServer {
    /// ICMP port unreachable, as from IPVS.
    #[default]
    Icmp,
    /// A TCP reset or an SCTP abort.
    Reset,
    /// Nothing.
    Drop,
}

words!(OnNoServer, "an answer", [
    "icmp" => Self::Icmp => Self::Icmp,
    "reset" => Self::Reset => Self::Reset,
    "drop" => Self::Drop => Self::Drop,
]);

/// What becomes of connections whose server was taken out of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnServerDown {
    /// They go on until they end.
    #[default]
    Keep,
    /// Client and server get a TCP reset or an SCTP abort, and the connection is forgotten.
    Reset,
    /// Their next packet is scheduled anew.
    Reschedule,
    /// Their packets are dropped silently, as by IPVS.
    Drop,
}

words!(OnServerDown, "a fate of connections", [
    "keep" => Self::Keep => Self::Keep,
    "reset" => Self::Reset => Self::Reset,
    "reschedule" => Self::Reschedule => Self::Reschedule,
    "drop" => Self::Drop => Self::Drop,
]);

/// When a SYN on a known connection begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// When the known one is closing in any way (for TCP FIN_WAIT, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK), or its
    /// server was removed or has weight 0. One that is established goes to its server, whose answer (a challenge ACK,
    /// RFC 5961 section 4) tells a lost connection from a forged SYN.
    #[default]
    Closing,
    /// As IPVS, see [`Policy::conn_reuse_mode`].
    Ipvs,
}

words!(Reuse, "a judgement of port reuse", [
    "closing" => Self::Closing => Self::Closing,
    "ipvs" => Self::Ipvs => Self::Ipvs,
]);

/// When the director makes clients prove that they are there before a server hears of them (SYN cookies).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SynProxy {
    /// Never.
    #[default]
    Off,
    /// While a worker sees a flood of SYNs, see [`Policy::syn_flood`].
    Auto,
    /// Always.
    Always,
}

words!(SynProxy, "a use of the SYN proxy", [
    "off" => Self::Off => Self::Off,
    "auto" => Self::Auto => Self::Auto,
    "always" => Self::Always => Self::Always,
]);

/// What a service decides for itself; `None`: the default, see [`Policy::of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServicePolicy {
    /// What a client hears when there is no server.
    pub on_no_server: Option<OnNoServer>,
    /// What becomes of connections of a server that is gone.
    pub on_server_down: Option<OnServerDown>,
    /// When a SYN on a known connection begins a new one.
    pub reuse: Option<Reuse>,
    /// Largest TCP segment that either side is let announce, bytes, 536 to 65495.
    pub mss: Option<u16>,
    /// How long a connection without replies through the director is kept after its client closed.
    pub dr_close_timeout: Option<Duration>,
    /// Connections at a time, over all configured servers; 0: no limit.
    pub max_connections: Option<u32>,
    /// How long after a packet a UDP connection counts as active.
    pub udp_activity: Option<Duration>,
    /// When clients are asked for a proof before a server hears of them.
    pub syn_proxy: Option<SynProxy>,
}

/// What holds for a service, when all defaults are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EffectivePolicy {
    /// What a client hears when there is no server.
    pub on_no_server: OnNoServer,
    /// What becomes of connections of a server that is gone.
    pub on_server_down: OnServerDown,
    /// When a SYN on a known connection begins a new one.
    pub reuse: Reuse,
    /// Largest TCP segment that either side is let announce, bytes; `None`: as they like.
    pub mss: Option<u16>,
    /// How long a connection without replies through the director is kept after its client closed; `None`: as any
    /// other in its state (`tcp_fin_wait`).
    pub dr_close_timeout: Option<Duration>,
    /// Connections at a time, over all servers; `None`: no limit but the director's.
    pub max_connections: Option<u32>,
    /// How long after a packet a UDP connection counts as active; `None`: it never does, as with IPVS.
    pub udp_activity: Option<Duration>,
    /// When clients are asked for a proof before a server hears of them.
    pub syn_proxy: SynProxy,
}

impl Policy {
    /// What holds for `service`.
    ///
    /// Where IPVS's default is what its users complain of (ports in reuse that go the old way, connections of a removed
    /// server that hang), ours is another one, and `compat` gives IPVS's.
    pub fn of(&self, service: &Service) -> EffectivePolicy {
        let own = &service.policy;
        let reuse = match self.compat {
            Compat::None => Reuse::Closing,
            Compat::Ipvs => Reuse::Ipvs,
        };
        EffectivePolicy {
            on_no_server: own.on_no_server.unwrap_or_default(),
            on_server_down: self.on_server_down(own),
            reuse: own.reuse.unwrap_or(reuse),
            mss: own.mss,
            dr_close_timeout: own.dr_close_timeout,
            max_connections: own.max_connections.filter(|limit| *limit > 0),
            udp_activity: own.udp_activity,
            syn_proxy: own.syn_proxy.unwrap_or_default(),
        }
    }

    /// What becomes of connections of a server that is gone, in a service with these policies.
    pub(crate) fn on_server_down(&self, own: &ServicePolicy) -> OnServerDown {
        let default = match (self.expire_nodest_conn, self.compat) {
            (true, _) => OnServerDown::Reschedule,
            (false, Compat::None) => OnServerDown::Keep,
            (false, Compat::Ipvs) => OnServerDown::Drop,
        };
        own.on_server_down.unwrap_or(default)
    }

    /// Key and value of each policy, for writing and comparing; a text has its quotes.
    pub(crate) fn entries(&self) -> [(&'static str, String); 11] {
        [
            ("compat", quoted(self.compat)),
            ("sloppy_tcp", self.sloppy_tcp.to_string()),
            ("sloppy_sctp", self.sloppy_sctp.to_string()),
            ("conn_reuse_mode", self.conn_reuse_mode.to_string()),
            ("expire_nodest_conn", self.expire_nodest_conn.to_string()),
            ("expire_quiescent_template", self.expire_quiescent_template.to_string()),
            ("secure_tcp", self.secure_tcp.to_string()),
            ("schedule_icmp", self.schedule_icmp.to_string()),
            ("pmtu_disc", self.pmtu_disc.to_string()),
            ("nat_icmp_send", self.nat_icmp_send.to_string()),
            ("syn_flood", self.syn_flood.to_string()),
        ]
    }
}

/// Keys of `[services.policy]`.
pub(crate) const SERVICE_POLICY: [&str; 8] = [
    "on_no_server",
    "on_server_down",
    "reuse",
    "mss",
    "dr_close_timeout",
    "max_connections",
    "udp_activity",
    "syn_proxy",
];

impl ServicePolicy {
    /// Key and value of each policy that is set, for writing and comparing; a text has its quotes.
    pub(crate) fn entries(&self) -> [(&'static str, Option<String>); 8] {
        [
            ("on_no_server", self.on_no_server.map(quoted)),
            ("on_server_down", self.on_server_down.map(quoted)),
            ("reuse", self.reuse.map(quoted)),
            ("mss", self.mss.map(|mss| mss.to_string())),
            ("dr_close_timeout", self.dr_close_timeout.map(|time| quoted(duration::format(time)))),
            ("max_connections", self.max_connections.map(|limit| limit.to_string())),
            ("udp_activity", self.udp_activity.map(|time| quoted(duration::format(time)))),
            ("syn_proxy", self.syn_proxy.map(quoted)),
        ]
    }

    /// Sets the policy with this key of the file to a value written as there, but without quotes; `None`: back to the
    /// default.
    ///
    /// Errors: no policy has this key, or its values are others; the message names those that there are.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), ValueError> {
        match key {
            "on_no_server" => self.on_no_server = value.map(str::parse).transpose()?,
            "on_server_down" => self.on_server_down = value.map(str::parse).transpose()?,
            "reuse" => self.reuse = value.map(str::parse).transpose()?,
            "mss" => self.mss = number(key, value, bounds::MSS)?.and_then(|mss| u16::try_from(mss).ok()),
            "dr_close_timeout" => self.dr_close_timeout = value.map(duration::parse).transpose()?,
            "max_connections" => self.max_connections = number(key, value, bounds::SERVICE_CONNECTIONS)?,
            "udp_activity" => self.udp_activity = value.map(duration::parse).transpose()?,
            "syn_proxy" => self.syn_proxy = value.map(str::parse).transpose()?,
            _ => {
                let near = nearest(key, SERVICE_POLICY);
                let hint = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                let known = SERVICE_POLICY.join(", ");
                return Err(ValueError(format!("{} is not a policy (known: {known}){hint}", show(key))));
            }
        }
        Ok(())
    }
}

fn quoted(word: impl fmt::Display) -> String {
    format!("\"{word}\"")
}

fn number(key: &str, text: Option<&str>, bounds: Bounds) -> Result<Option<u32>, ValueError> {
    let Some(text) = text else { return Ok(None) };
    let number = text.parse::<i128>().map_err(|_| format!("{} is not a whole number", show(text)));
    match number.and_then(|number| bounds.check(number)) {
        Ok(number) => Ok(Some(number)),
        Err(message) => Err(ValueError(format!("{key}: {message}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        crate::tests::small().services.remove(0)
    }

    #[test]
    fn defaults_follow_the_compatibility() {
        let (mut policy, service) = (Policy::default(), service());
        let ours = policy.of(&service);
        assert_eq!(
            (ours.on_no_server, ours.on_server_down, ours.reuse),
            (OnNoServer::Icmp, OnServerDown::Keep, Reuse::Closing)
        );
        policy.compat = Compat::Ipvs;
        let ipvs = policy.of(&service);
        assert_eq!(
            (ipvs.on_no_server, ipvs.on_server_down, ipvs.reuse),
            (OnNoServer::Icmp, OnServerDown::Drop, Reuse::Ipvs)
        );
        policy.expire_nodest_conn = true;
        assert_eq!(policy.of(&service).on_server_down, OnServerDown::Reschedule);
    }

    #[test]
    fn a_service_decides_before_the_director() {
        let mut service = service();
        let values = [
            ("on_no_server", "reset"),
            ("on_server_down", "keep"),
            ("reuse", "closing"),
            ("mss", "1400"),
            ("dr_close_timeout", "5s"),
            ("max_connections", "10"),
            ("udp_activity", "7s"),
            ("syn_proxy", "auto"),
        ];
        for (key, value) in values {
            service.policy.set(key, Some(value)).unwrap();
        }
        let policy = Policy { compat: Compat::Ipvs, expire_nodest_conn: true, ..Policy::default() };
        let want = EffectivePolicy {
            on_no_server: OnNoServer::Reset,
            on_server_down: OnServerDown::Keep,
            reuse: Reuse::Closing,
            mss: Some(1400),
            dr_close_timeout: Some(Duration::from_secs(5)),
            max_connections: Some(10),
            udp_activity: Some(Duration::from_secs(7)),
            syn_proxy: SynProxy::Auto,
        };
        assert_eq!(policy.of(&service), want);
        let texts =
            service.policy.entries().map(|(key, value)| (key, value.unwrap().trim_matches('"').to_owned()));
        assert_eq!(texts, values.map(|(key, value)| (key, value.to_owned())));
        service.policy.set("max_connections", Some("0")).unwrap();
        assert_eq!(policy.of(&service).max_connections, None);
        for key in SERVICE_POLICY {
            service.policy.set(key, None).unwrap();
        }
        assert_eq!(service.policy, ServicePolicy::default());
    }

    #[test]
    fn what_is_no_policy_is_told() {
        let error =
            |key: &str, value| ServicePolicy::default().set(key, Some(value)).unwrap_err().to_string();
        assert_eq!(
            error("on_no_sever", "icmp"),
            "\"on_no_sever\" is not a policy (known: on_no_server, on_server_down, reuse, mss, dr_close_timeout, \
             max_connections, udp_activity, syn_proxy); did you mean \"on_no_server\"?"
        );
        assert_eq!(error("mss", "535"), "mss: 535 is below the limit 536");
        assert_eq!(error("mss", "big"), "mss: \"big\" is not a whole number");
        assert_eq!(error("reuse", "no"), "\"no\" is not a judgement of port reuse (known: closing, ipvs)");
    }
}
