//! Checks of `[lease]`.

use super::vrrp::{add, range};
use crate::bounds;
use crate::duration;
use crate::fault::Problems;
use crate::path::toml_path;
use crate::text::show;
use crate::vrrp::{Ha, Lease, WhenAway};

/// Checks it, and what instances need for it.
pub(super) fn check(lease: &Lease, ha: &Ha, problems: &mut Problems) {
    let at = |key: &'static str| toml_path!("lease", key);
    if lease.endpoints.is_empty() && !problems.concern(&toml_path!("lease", "endpoints", 0)) {
        add(problems, at("endpoints"), "is empty: it names the members of an etcd cluster".to_owned());
    } else if lease.endpoints.len() > bounds::LEASE_ENDPOINTS {
        let message = format!("{} are above the limit {}", lease.endpoints.len(), bounds::LEASE_ENDPOINTS);
        add(problems, at("endpoints"), message);
    }
    let (min, max) = (*bounds::LEASE_PREFIX_LEN.start(), *bounds::LEASE_PREFIX_LEN.end());
    if !bounds::LEASE_PREFIX_LEN.contains(&lease.prefix.len()) {
        let message = format!("has {} bytes, {min} to {max} are allowed", lease.prefix.len());
        add(problems, at("prefix"), message);
    }
    range(lease.ttl, bounds::LEASE_TTL, || at("ttl"), problems);
    if lease.ttl.subsec_nanos() != 0 {
        let text = duration::format(lease.ttl);
        add(problems, at("ttl"), format!("{text} is no multiple of 1s, which etcd counts in"));
    }
    // Half of a lease's time is left to renew it in.
    range(lease.margin, (bounds::LEASE_MARGIN, lease.ttl / 2), || at("margin"), problems);
    range(lease.timeout, (bounds::CHECK_TIME.0, lease.ttl / 2), || at("timeout"), problems);
    for (one, other) in [("user", "password"), ("certificate", "key")] {
        let given = |key: &str| match key {
            "user" => lease.user.is_some(),
            "password" => lease.password.is_some(),
            "certificate" => lease.certificate.is_some(),
            _ => lease.key.is_some(),
        };
        for (one, other) in [(one, other), (other, one)] {
            if given(one) && !given(other) {
                add(problems, at(one), format!("is of use with {other} only"));
            }
        }
    }
    if lease.when_away == WhenAway::Keep
        && let Some(lonely) = ha.vrrp.iter().find(|vrrp| vrrp.takeover_bfd.is_empty())
    {
        let name = show(&lonely.name);
        let message = format!("keep wants takeover_bfd in every [[vrrp]], {name} has none");
        add(problems, at("when_away"), message);
    }
}
