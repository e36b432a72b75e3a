//! The keys that each table may have. Whatever is listed here is read, and is in the documented example.

#[cfg(test)]
use super::health;
use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};
use crate::policy::Policy;
#[cfg(test)]
use crate::policy::SERVICE_POLICY;

pub(super) const ROOT: [&str; 19] = [
    "appliance",
    "limits",
    "tables",
    "timeouts",
    "policy",
    "notify",
    "ports",
    "marks",
    "services",
    "snat",
    "vrrp",
    "vrrp_groups",
    "vrrp_scripts",
    "vrrp_processes",
    "vrrp_files",
    "bfd",
    "sync",
    "lease",
    "ipvs_sync",
];
pub(super) const APPLIANCE: [&str; 10] = [
    "name",
    "workers",
    "control_cpu",
    "huge_pages",
    "memory_mib",
    "idle",
    "socket",
    "socket_group",
    "socket_public_read",
    "cluster_secret",
];
pub(super) const TABLES: [&str; 2] = ["keep", "directory"];
pub(super) const PORT: [&str; 9] = [
    "name",
    "device",
    "vlan",
    "mtu",
    "addresses",
    "gateway",
    "exception",
    "exception_interface",
    "exception_rate",
];
pub(super) const SERVICE: [&str; 21] = [
    "name",
    "vip",
    "port",
    "ports",
    "mark",
    "family",
    "protocol",
    "scheduler",
    "maglev_hash",
    "maglev_size",
    "scheduler_flags",
    "forwarding",
    "tunnel",
    "local_addresses",
    "client_address",
    "persistence",
    "one_packet",
    "policy",
    "timeouts",
    "health",
    "servers",
];
pub(super) const TUNNEL: [&str; 3] = ["type", "port", "checksum"];
pub(super) const PERSISTENCE: [&str; 2] = ["timeout", "prefix"];
pub(super) const SERVER: [&str; 9] = [
    "address",
    "port",
    "weight",
    "forwarding",
    "tunnel",
    "upper_threshold",
    "lower_threshold",
    "drain_deadline",
    "health",
];

/// Keys of `[[marks]]`.
pub(super) const MARK: [&str; 8] =
    ["value", "source", "destination", "protocol", "source_ports", "ports", "port", "vlan"];

/// Keys of `[[snat]]`.
pub(super) const SNAT: [&str; 5] = ["name", "sources", "address", "protocols", "port"];

/// Keys of `[limits]`.
pub(super) fn limits() -> Vec<&'static str> {
    LIMITS.iter().map(|field| field.key).collect()
}

/// Keys of `[policy]`.
pub(super) fn policy() -> Vec<&'static str> {
    Policy::default().entries().iter().map(|(key, _)| *key).collect()
}

/// Keys of `[timeouts]`.
pub(super) fn timeouts() -> Vec<&'static str> {
    TIMEOUTS.iter().map(|field| field.key).collect()
}

/// Keys of `[services.timeouts]`.
pub(super) fn service_timeouts() -> Vec<&'static str> {
    SERVICE_TIMEOUTS.iter().map(|field| field.key).collect()
}

/// Every table with its keys, by the name of its header.
#[cfg(test)]
pub(crate) fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut sections = vec![
        ("", ROOT.to_vec()),
        ("appliance", APPLIANCE.to_vec()),
        ("limits", limits()),
        ("tables", TABLES.to_vec()),
        ("timeouts", timeouts()),
        ("policy", policy()),
        ("ports", PORT.to_vec()),
        ("marks", MARK.to_vec()),
        ("services", SERVICE.to_vec()),
        ("services.timeouts", service_timeouts()),
        ("services.policy", SERVICE_POLICY.to_vec()),
        ("services.tunnel", TUNNEL.to_vec()),
        ("services.persistence", PERSISTENCE.to_vec()),
        ("notify", health::NOTIFY.to_vec()),
        ("notify.mail", health::MAIL.to_vec()),
        ("services.health", health::SERVICE.to_vec()),
        ("services.health.sorry_server", health::SORRY.to_vec()),
        ("services.health.sorry_server.tunnel", TUNNEL.to_vec()),
        ("services.health.notify", health::SERVICE_NOTIFY.to_vec()),
        ("services.health.checks", health::CHECK.to_vec()),
        ("services.health.checks.urls", health::URL.to_vec()),
        ("services.servers", SERVER.to_vec()),
        ("services.servers.health", health::SERVER.to_vec()),
        ("services.servers.health.notify", health::SERVER_NOTIFY.to_vec()),
        ("services.servers.tunnel", TUNNEL.to_vec()),
        ("snat", SNAT.to_vec()),
    ];
    sections.extend(super::vrrp::sections());
    sections
}
