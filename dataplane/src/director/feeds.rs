//! What connects workers with those who speak to other directors.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{IpvsSyncState, Model};
use siphasher::sip::SipHasher13;

use super::Director;
use crate::conn::HashKey;
use crate::sync::{Feeds, TapSettings};

/// What the listeners that `model` has want to hear, in the order of [`crate::sync::Listener::ALL`]; `None`: it has none
/// that speak to other directors, not even such that tell nothing.
fn settings(model: &Model) -> Option<[Option<TapSettings>; 2]> {
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
    Some([of_peers, of_ipvs])
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
        let wanted = settings(model);
        if wanted == self.feed_settings {
            return;
        }
        self.feed_settings = wanted;
        let feeds =
            wanted.map(|wanted| Arc::new(Feeds::new(self.setup.workers, self.setup.steer_key, wanted)));
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
