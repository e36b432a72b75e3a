//! Next hops as time goes by: stations that workers meet on connected networks, and who answers.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Director, Notice};
use crate::neighbor::{LinkId, NeighborId, Resolution};

/// Stations beside servers and gateways that are known at a time, and for how long, ms; who is still needed after
/// that is asked for again.
pub(super) const MAX_STRANGERS: usize = 16_384;
const STRANGER_MS: u64 = 300_000;
/// How long one that does not answer keeps its place, ms: longer than the questions take (three, a second apart).
const SILENT_MS: u64 = 6_000;

impl Director {
    /// A worker has frames for a station that nobody has asked for yet.
    pub(super) fn meet(&mut self, link: LinkId, address: IpAddr, now_ms: u64) {
        if self.strangers.len() >= MAX_STRANGERS || self.strangers.contains_key(&(link, address)) {
            return;
        }
        if self.book.intern(link, address).is_ok() {
            self.strangers.insert((link, address), now_ms);
        }
    }

    /// Makes known to the workers who was met, and forgets who was met long ago or does not answer.
    pub(super) fn settle_strangers(&mut self, now_ms: u64) {
        let before = self.strangers.len();
        let running = &self.running;
        self.strangers.retain(|at, since| {
            let silent =
                running.neighbors.get(at).is_some_and(|id| running.cells.mac(*id) == Resolution::Failed);
            now_ms.saturating_sub(*since) < if silent { SILENT_MS } else { STRANGER_MS }
        });
        let is_new = |at: &(LinkId, IpAddr)| !self.running.neighbors.contains_key(at);
        if before != self.strangers.len() || self.strangers.keys().any(is_new) {
            self.republish();
        }
    }

    /// The next hops that workers may use from now on: those of destinations, gateways and whoever was met. An index
    /// leaves the book only after every worker has left the snapshots that name it.
    pub(super) fn wanted_neighbors(
        &self,
        gateways: &[Option<(LinkId, NeighborId)>; 2],
    ) -> HashMap<(LinkId, IpAddr), NeighborId> {
        let used = self.registry.neighbors();
        let is_gateway = |id| gateways.iter().flatten().any(|(_, gateway)| *gateway == id);
        let rows = self.book.rows(0).into_iter();
        rows.filter(|row| {
            used.contains(&row.id)
                || is_gateway(row.id)
                || self.friends.contains(&row.id)
                || self.strangers.contains_key(&(row.link, row.ip))
        })
        .map(|row| ((row.link, row.ip), row.id))
        .collect()
    }

    /// Notes which next hops came and went; of stations that were only met there may be thousands.
    pub(super) fn notice_neighbors(&mut self, now_ms: u64, notices: &mut Vec<Notice>) {
        let version = self.running.cells.version();
        if std::mem::replace(&mut self.noticed, version) == version {
            return;
        }
        for row in self.book.rows(now_ms) {
            if self.strangers.contains_key(&(row.link, row.ip)) {
                continue;
            }
            let known = self.reachable.entry((row.link, row.ip));
            let resolution = self.running.cells.mac(row.id);
            let now = match resolution {
                Resolution::Resolved(_) => true,
                Resolution::Failed => false,
                Resolution::Pending => continue,
            };
            let before = match known {
                std::collections::hash_map::Entry::Occupied(mut held) => Some(held.insert(now)),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(now);
                    None
                }
            };
            if before != Some(now) {
                let link = self
                    .running
                    .links
                    .get(usize::from(row.link.0))
                    .map(|link| link.name.clone())
                    .unwrap_or_default();
                notices.push(Notice::Neighbor { link, address: row.ip, mac: row.mac.filter(|_| now) });
            }
        }
    }
}
