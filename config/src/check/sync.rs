//! Checks of `[[sync]]`.

use super::{Firsts, names};
use crate::bounds;
use crate::draft::Draft;
use crate::duration;
use crate::fault::Problems;
use crate::path::{Path, toml_path};

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let peers = &draft.ha.sync;
    if peers.len() > bounds::SYNC_PEERS {
        let message = format!("{} are above the limit {}", peers.len(), bounds::SYNC_PEERS);
        problems.add(toml_path!("sync"), message);
    }
    names(
        peers.iter().map(|peer| Some(peer.name.as_str()).filter(|name| !name.is_empty())),
        "sync",
        problems,
    );
    // what could not be read has a fault already
    let add = |path: Path, message: String, problems: &mut Problems| {
        if !problems.concern(&path) {
            problems.add(path, message);
        }
    };
    let mut firsts = Firsts::default();
    for (index, peer) in peers.iter().enumerate() {
        let at = |key: &'static str| toml_path!("sync", index, key);
        for (key, address) in [("listen", peer.listen), ("peer", peer.peer)] {
            if address.port() == 0 {
                add(at(key), "port 0 is not a port that others can send to".to_owned(), problems);
            }
            if address.ip().is_multicast() || address.ip().is_unspecified() {
                add(at(key), format!("{} is no address of a station", address.ip()), problems);
            }
        }
        if peer.listen.is_ipv6() != peer.peer.is_ipv6() {
            let message = format!("{} is of another family than listen = {}", peer.peer, peer.listen);
            add(at("peer"), message, problems);
        } else if peer.listen == peer.peer {
            add(at("peer"), format!("{} is listen itself", peer.peer), problems);
        }
        if let Some(first) = firsts.repeats(peer.peer, index) {
            add(at("peer"), format!("{} is already the peer of sync[{first}]", peer.peer), problems);
        }
        let (min, max) = (*bounds::HMAC_KEY_LEN.start(), *bounds::HMAC_KEY_LEN.end());
        match peer.secret() {
            None => {
                let message = "hex: is not followed by pairs of hexadecimal digits".to_owned();
                add(at("key"), message, problems);
            }
            Some(bytes) if !bounds::HMAC_KEY_LEN.contains(&bytes.len()) => {
                let message = format!("has {} bytes, {min} to {max} are allowed", bytes.len());
                add(at("key"), message, problems);
            }
            Some(_) => {}
        }
        for (key, time, (min, max)) in
            [("refresh", peer.refresh, bounds::SYNC_REFRESH), ("hold", peer.hold, bounds::SYNC_HOLD)]
        {
            let text = duration::format;
            if time < min {
                add(at(key), format!("{} is below the limit {}", text(time), text(min)), problems);
            } else if time > max {
                add(at(key), format!("{} is above the limit {}", text(time), text(max)), problems);
            }
        }
    }
}
