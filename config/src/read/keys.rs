//! The keys that each table may have. Whatever is listed here is read, and is in the documented example.

use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};

pub(super) const ROOT: [&str; 5] = ["appliance", "limits", "timeouts", "ports", "services"];
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
pub(super) const PORT: [&str; 6] = ["name", "device", "vlan", "mtu", "addresses", "gateway"];
pub(super) const SERVICE: [&str; 9] =
    ["name", "vip", "port", "protocol", "scheduler", "maglev_hash", "forwarding", "timeouts", "servers"];
pub(super) const SERVER: [&str; 2] = ["address", "weight"];

/// Keys of `[limits]`.
pub(super) fn limits() -> Vec<&'static str> {
    LIMITS.iter().map(|field| field.key).collect()
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
    vec![
        ("", ROOT.to_vec()),
        ("appliance", APPLIANCE.to_vec()),
        ("limits", limits()),
        ("timeouts", timeouts()),
        ("ports", PORT.to_vec()),
        ("services", SERVICE.to_vec()),
        ("services.timeouts", service_timeouts()),
        ("services.servers", SERVER.to_vec()),
    ]
}
