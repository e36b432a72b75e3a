//! Next hops as time goes by: stations that workers meet on connected networks, and who answers.

use std::net::IpAddr;

use super::{Director, Notice};
use crate::neighbor::{LinkId, Resolution};

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
        if let Ok(id) = self.book.intern(link, address) {
            self.strangers.insert((link, address), now_ms);
            self.next_hops.hold(&self.book, id);
        }
    }

    /// Makes known to the workers who was met, and forgets who was met long ago or does not answer.
    pub(super) fn settle_strangers(&mut self, now_ms: u64) {
        let running = &self.running;
        let mut gone = Vec::new();
        self.strangers.retain(|at, since| {
            let id = self.next_hops.published.get(at);
            let silent = id.is_some_and(|id| running.cells.mac(*id) == Resolution::Failed);
            let stays = now_ms.saturating_sub(*since) < if silent { SILENT_MS } else { STRANGER_MS };
            gone.extend(id.copied().filter(|_| !stays));
            stays
        });
        let any_gone = !gone.is_empty();
        gone.into_iter().for_each(|id| self.next_hops.release(&self.book, id, running.generation + 1));
        let is_new = |at: &(LinkId, IpAddr)| !self.running.neighbors.contains_key(at);
        if any_gone || self.strangers.keys().any(is_new) {
            self.republish();
        }
    }

    /// Notes which next hops came and went; of stations that were only met there may be thousands.
    pub(super) fn notice_neighbors(&mut self, now_ms: u64, notices: &mut Vec<Notice>) {
        for row in self
            .book
            .take_changed()
            .into_iter()
            .filter_map(|id| self.book.row(id, now_ms))
            .collect::<Vec<_>>()
        {
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
