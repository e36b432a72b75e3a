//! Checks of `[[ipvs_sync]]`.

use std::time::Duration;

use super::Firsts;
use crate::bounds::{self, INTERFACE_LEN};
use crate::draft::Draft;
use crate::duration;
use crate::fault::Problems;
use crate::ipvs_sync::IpvsSync;
use crate::path::{Path, toml_path};
use crate::text::show;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let mut firsts = Firsts::default();
    for (index, daemon) in draft.ha.ipvs_sync.iter().enumerate() {
        let at = |key: &'static str| toml_path!("ipvs_sync", index, key);
        // A state that could not be read stands as the default, and has its fault.
        if !problems.concern(&at("state"))
            && let Some(first) = firsts.repeats(daemon.state, index)
        {
            let message = format!("\"{}\" is already the state of ipvs_sync[{first}]", daemon.state);
            problems.add(at("state"), message);
        }
        let mut add = |path: Path, message: String| {
            if !problems.concern(&path) {
                problems.add(path, message);
            }
        };
        let known = |name: &String| draft.ha.vrrp.iter().any(|vrrp| vrrp.name == *name);
        if let Some(vrrp) = daemon.vrrp.as_ref().filter(|name| !known(name)) {
            add(at("vrrp"), format!("there is no [[vrrp]] named {}", show(vrrp)));
        }
        let interface = &daemon.interface;
        let good = |b: u8| b.is_ascii_graphic() && b != b'/';
        if !(1..=INTERFACE_LEN).contains(&interface.len()) || !interface.bytes().all(good) {
            let message =
                format!("{} is not the name of an interface: 1 to {INTERFACE_LEN} bytes", show(interface));
            add(at("interface"), message);
        }
        if !daemon.group.is_multicast() {
            add(at("group"), format!("{} is not a multicast address", daemon.group));
        }
        let longest = IpvsSync::longest(daemon.group);
        if daemon.max_length > longest {
            let message = format!("{} is above the limit {longest} of IPv6", daemon.max_length);
            add(at("max_length"), message);
        }
        let (text, (min, max)) = (duration::format, bounds::IPVS_SYNC_REFRESH);
        for (key, time, min) in [("refresh", daemon.refresh, min), ("resync", daemon.resync, Duration::ZERO)]
        {
            if time < min {
                add(at(key), format!("{} is below the limit {}", text(time), text(min)));
            } else if time > max {
                add(at(key), format!("{} is above the limit {}", text(time), text(max)));
            }
        }
    }
}
