//! Frames of the control core: gratuitous ARP and unsolicited ND for its addresses, probes for next hops.

use std::collections::VecDeque;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::Director;
use crate::mailbox::{Injected, MAX_INJECT, Mail};
use crate::neighbor::{LinkId, Probe};
use crate::respond;
use crate::snapshot::{Link, LocalAddress, Snapshot};

/// How often an address is announced after it became the director's, and the time between, ms. A single frame may
/// be lost while a switch learns (RFC 5227 section 2.3 announces twice; keepalived five times).
const REPEATS: u8 = 3;
const INTERVAL_MS: u64 = 1000;

/// Announcements that a poll sends: half of what a mailbox takes.
const MOST: usize = 512;

/// Addresses that are still to be announced.
#[derive(Debug, Default)]
pub struct Announcer {
    /// Those that were never sent.
    fresh: VecDeque<Announcement>,
    /// Those that are to be repeated, by the time for it.
    again: VecDeque<Announcement>,
}

#[derive(Debug)]
struct Announcement {
    address: IpAddr,
    link: LinkId,
    left: u8,
    due_ms: u64,
}

impl Announcer {
    /// The next repetition whose time has come.
    fn repeated(&mut self, now_ms: u64) -> Option<Announcement> {
        self.again.front().filter(|next| next.due_ms <= now_ms)?;
        self.again.pop_front()
    }

    /// Notes the addresses that `new` has and `old` has not, or has elsewhere.
    ///
    /// `came`: all that may be such.
    pub fn added(&mut self, came: &[IpAddr], old: &Snapshot, new: &Snapshot) {
        for address in came {
            let Some(local) = new.local.get(address) else { continue };
            let was_here = old.local.get(address) == Some(local) && old.shared.get(*address).is_none();
            // who is master of a shared address announces it
            if was_here || new.shared.get(*address).is_some() {
                continue;
            }
            for link in links_of(local, new) {
                self.fresh.push_back(Announcement { address: *address, link, left: REPEATS, due_ms: 0 });
            }
        }
    }
}

fn links_of(local: &LocalAddress, snapshot: &Snapshot) -> Vec<LinkId> {
    match local.link {
        Some(link) => vec![link],
        None => (0..snapshot.links.len() as u16).map(LinkId).collect(),
    }
}

impl Director {
    /// Sends what is due, as far as there is room in the mailbox: half of it is left to others.
    pub(super) fn send_announcements(&mut self, now_ms: u64) {
        let mut announcer = std::mem::take(&mut self.announcer);
        for _ in 0..MOST {
            // new ones first: an address that nobody has heard of yet cannot be reached
            let Some(mut announcement) = announcer.fresh.pop_front().or_else(|| announcer.repeated(now_ms))
            else {
                break;
            };
            let Announcement { address, link, .. } = announcement;
            // it may have gone meanwhile
            if !self.running.answers_for(address, link) {
                continue;
            }
            let Some(on) = self.running.links.get(usize::from(link.0)) else { continue };
            let sent = self.inject(on, |frame| match address {
                IpAddr::V4(v4) => respond::gratuitous_arp(frame, &on.wire(), v4),
                IpAddr::V6(v6) => respond::neighbor_advertisement(frame, &on.wire(), v6),
            });
            if !sent {
                // behind those that nobody has heard of, where it is a repetition
                announcer.fresh.push_back(announcement);
                break;
            }
            announcement.left -= 1;
            announcement.due_ms = now_ms + INTERVAL_MS;
            if announcement.left > 0 {
                announcer.again.push_back(announcement);
            }
        }
        self.announcer = announcer;
    }

    /// Asks for the MAC addresses of next hops.
    pub(super) fn send_probes(&mut self, now_ms: u64) {
        let mut probes = Vec::new();
        self.book.tick(now_ms, &mut probes);
        for probe in &probes {
            if let Some(link) = self.running.links.get(usize::from(probe.link.0)) {
                self.probe(link, probe);
            }
        }
    }

    /// A probe that finds no way out is repeated by its timer.
    fn probe(&self, link: &Link, probe: &Probe) {
        let Some(source) = link.addresses.iter().find(|network| network.contains(probe.ip)) else { return };
        let _repeated_by_timer = self.inject(link, |frame| match (source.addr, probe.ip) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                respond::arp_request(frame, &link.wire(), (source, target), probe.unicast)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                respond::neighbor_solicitation(frame, &link.wire(), (source, target), probe.unicast)
            }
            _ => None,
        });
    }

    /// Sends a frame that `build` writes (it returns the length) through the first worker; `false`: not sent.
    fn inject(&self, link: &Link, build: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let mut frame = ArrayVec::from([0; MAX_INJECT]);
        let Some(len) = build(&mut frame) else { return false };
        frame.truncate(len);
        let Some(mailbox) = self.mailboxes.first() else { return false };
        mailbox.send(Mail::Inject(Injected { device: link.device, frame })).is_ok()
    }
}
