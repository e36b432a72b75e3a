//! What connects workers with those who speak to other directors.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{IpvsSyncState, Model};
use siphasher::sip::SipHasher13;

use super::Director;
use crate::conn::HashKey;
use crate::sync::{Feeds, TapSettings};

/// What those who speak to other directors want of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// To hear, in the order of [`crate::sync::Listener::ALL`].
    taps: [Option<TapSettings>; 2],
    /// To hand over what others tell.
    hears: bool,
}

/// What they want by this configuration; `None`: there are none.
fn wanted(model: &Model) -> Option<Wanted> {
    let (peers, daemons) = (&model.ha.sync, &model.ha.ipvs_sync);
    if peers.is_empty() && daemons.is_empty() {
        return None;
    }
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let refresh = peers.iter().map(|peer| peer.refresh).min();
    let of_peers = refresh.map(|refresh| TapSettings {
        handshakes: peers.iter().any(|peer| peer.handshakes),
        refresh_ns: nanoseconds(refresh),
    });
    let master = daemons.iter().find(|daemon| daemon.state == IpvsSyncState::Master);
    let of_ipvs =
        master.map(|daemon| TapSettings { handshakes: false, refresh_ns: nanoseconds(daemon.refresh) });
    let hears = !peers.is_empty() || daemons.iter().any(|daemon| daemon.state == IpvsSyncState::Backup);
    Some(Wanted { taps: [of_peers, of_ipvs], hears })
}

/// Key of [`crate::steer::owner`] where directors share connections: they find the same owners where they have as many
/// workers. `None`: nobody has to know it.
pub fn steering(model: &Model) -> Option<HashKey> {
    let shared = model.ha.sync.first().and_then(|peer| peer.secret());
    let secret = model.appliance.cluster_secret.as_ref().map(|secret| secret.clone().into_bytes());
    let secret = shared.map(|own| secret.unwrap_or(own))?;
    Some(HashKey(std::array::from_fn(|word| {
        let mut sip = SipHasher13::new_with_keys(word as u64, 1);
        sip.write(&secret);
        sip.finish()
    })))
}

impl Director {
    /// Makes the queues that `model` wants, which the snapshot of generation `building` has first.
    pub(super) fn follow_sync(&mut self, model: &Model, building: u64) {
        let wanted = wanted(model);
        if wanted == self.feeds_wanted {
            return;
        }
        self.feeds_wanted = wanted;
        let feeds = wanted.map(|Wanted { taps, hears }| {
            let feeds = Feeds::new(self.setup.workers, self.setup.steer_key, taps);
            Arc::new(if hears { feeds } else { feeds.deaf() })
        });
        let old = std::mem::replace(&mut self.feeds, feeds);
        self.old_feeds.extend(old.map(|old| (building, old)));
    }

    /// Lets go of queues that no worker has any more, so that none frees them.
    pub(super) fn release_feeds(&mut self) {
        if !self.old_feeds.is_empty() {
            let seen = self.generation_seen();
            self.old_feeds.retain(|(since, _)| *since > seen);
        }
    }

    /// The queues between workers and those who speak to other directors; `None`: there are no others.
    pub fn feeds(&self) -> Option<Arc<Feeds>> {
        self.feeds.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_and_who_tells_follows_from_the_configuration() {
        const SMALL: &str = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n";
        let of = |more: &str| wanted(&lb_config::parse(&format!("{SMALL}{more}")).unwrap());
        let master = "[[ipvs_sync]]\nstate = \"master\"\ninterface = \"eth2\"\nrefresh = \"3s\"\n";
        let backup = "[[ipvs_sync]]\nstate = \"backup\"\ninterface = \"eth2\"\n";
        let peer = "[[sync]]\nname = \"p\"\nlisten = \"10.9.0.1:1\"\npeer = \"10.9.0.2:1\"\n\
                    key = \"0123456789abcdef\"\nrefresh = \"9s\"\nhandshakes = true\n";
        let ipvs = Some(TapSettings { handshakes: false, refresh_ns: 3_000_000_000 });
        let peers = Some(TapSettings { handshakes: true, refresh_ns: 9_000_000_000 });
        assert_eq!(of(""), None);
        assert_eq!(of(master), Some(Wanted { taps: [None, ipvs], hears: false }));
        assert_eq!(of(backup), Some(Wanted { taps: [None, None], hears: true }));
        assert_eq!(of(&format!("{master}{backup}{peer}")), Some(Wanted { taps: [peers, ipvs], hears: true }));
    }
}
