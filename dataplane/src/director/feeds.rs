//! What connects workers with those who speak to other directors.

use std::hash::Hasher;
use std::sync::Arc;

use lb_config::Model;
use siphasher::sip::SipHasher13;

use super::Director;
use crate::conn::HashKey;
use crate::sync::{Feeds, TapSettings};

/// What the listeners that `model` has want to hear, in the order of [`crate::sync::Listener::ALL`].
fn settings(model: &Model) -> [Option<TapSettings>; 2] {
    let peers = &model.ha.sync;
    let refresh = peers.iter().map(|peer| peer.refresh).min();
    let of_peers = refresh.map(|refresh| TapSettings {
        handshakes: peers.iter().any(|peer| peer.handshakes),
        refresh_ns: u64::try_from(refresh.as_nanos()).unwrap_or(u64::MAX),
    });
    [of_peers, None]
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
        let feeds = wanted
            .iter()
            .any(Option::is_some)
            .then(|| Arc::new(Feeds::new(self.setup.workers, self.setup.steer_key, wanted)));
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
