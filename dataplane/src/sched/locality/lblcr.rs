//! Locality-based least connections with replication. Source: IPVS, `ip_vs_lblcr.c`.

use std::sync::Mutex;

use super::cache::{CAPACITY, Cache};
use super::{EXPIRATION_S, Remembered, crowded, lock};
use crate::sched::load::heavier;
use crate::sched::{Candidate, Question, least};

/// Servers that all sets together may hold: two for each address. The kernel has no such limit; a set without room
/// does not grow.
const MEMBERS: usize = 2 * CAPACITY;

/// No member.
const NIL: u32 = u32::MAX;

/// The servers of one address, the one that came last first.
#[derive(Debug)]
struct Set {
    first: u32,
    size: u32,
    changed_s: u32,
}

#[derive(Debug)]
struct Member {
    server: Remembered,
    next: u32,
}

/// Members of all sets.
#[derive(Debug)]
struct Members {
    nodes: Vec<Member>,
    free: u32,
}

/// A service's memory: the servers of every destination address.
#[derive(Debug)]
pub struct Lblcr(Mutex<(Cache<Set>, Members)>);

impl Default for Lblcr {
    fn default() -> Self {
        let members = Members { nodes: Vec::with_capacity(MEMBERS), free: NIL };
        Self(Mutex::new((Cache::new(), members)))
    }
}

impl Members {
    fn of(&self, set: &Set) -> impl Iterator<Item = &Remembered> {
        let mut at = set.first;
        std::iter::from_fn(move || {
            let member = self.nodes.get(at as usize)?;
            at = member.next;
            Some(&member.server)
        })
    }

    /// Puts a server in front, unless it is in the set or there is no room.
    fn add(&mut self, set: &mut Set, server: Remembered, now_s: u32) {
        if self.of(set).any(|member| member.tag == server.tag) {
            return;
        }
        let member = Member { server, next: set.first };
        let at = if self.free != NIL {
            let at = self.free;
            self.free = self.nodes[at as usize].next;
            self.nodes[at as usize] = member;
            at
        } else if self.nodes.len() < MEMBERS {
            self.nodes.push(member);
            self.nodes.len() as u32 - 1
        } else {
            return;
        };
        set.first = at;
        set.size += 1;
        set.changed_s = now_s;
    }

    fn remove(&mut self, set: &mut Set, tag: u64, now_s: u32) {
        let (mut before, mut at) = (NIL, set.first);
        while let Some(member) = self.nodes.get_mut(at as usize) {
            let next = member.next;
            if member.server.tag == tag {
                member.next = self.free;
                self.free = at;
                match before {
                    NIL => set.first = next,
                    before => self.nodes[before as usize].next = next,
                }
                set.size -= 1;
                set.changed_s = now_s;
                return;
            }
            (before, at) = (at, next);
        }
    }

    fn clear(&mut self, set: &mut Set) {
        while let Some(member) = self.nodes.get_mut(set.first as usize) {
            let next = std::mem::replace(&mut member.next, self.free);
            self.free = std::mem::replace(&mut set.first, next);
        }
        set.size = 0;
    }

    /// The able server of a set with the least weighted connections.
    fn least<'a>(&self, set: &Set, question: &Question<'a>) -> Option<&'a Candidate> {
        let mut best: Option<(&Candidate, u64)> = None;
        let servers = self.of(set).filter_map(|server| server.find(question));
        for candidate in servers.filter(|candidate| question.able(candidate)) {
            let own = question.load(candidate).overhead();
            if best.is_none_or(|(least, load)| heavier(load, least.weight, own, candidate.weight)) {
                best = Some((candidate, own));
            }
        }
        best.map(|(candidate, _)| candidate)
    }

    /// The server of a set with the most weighted connections. One that was removed counts as without any; one with
    /// weight 0 is not considered.
    fn most(&self, set: &Set, question: &Question<'_>) -> Option<u64> {
        let mut most: Option<(u64, u64, u32)> = None;
        for server in self.of(set) {
            let candidate = server.find(question);
            let weight = candidate.map_or(1, |candidate| candidate.weight);
            let own = candidate.map_or(0, |candidate| question.load(candidate).overhead());
            if weight > 0 && most.is_none_or(|(_, load, other)| heavier(own, weight, load, other)) {
                most = Some((server.tag, own, weight));
            }
        }
        most.map(|(tag, _, _)| tag)
    }
}

impl Lblcr {
    /// The least loaded server of the address's set, unless it is crowded while another is half empty; then the one
    /// of all with the least weighted connections joins the set. A set that has not changed for a day loses its most
    /// loaded server.
    pub fn pick<'a>(&self, question: &Question<'a>) -> Option<&'a Candidate> {
        question.begin_reading();
        let target = question.new.target;
        let served = {
            let mut guard = lock(&self.0);
            let (cache, members) = &mut *guard;
            let now_s = cache.now_s;
            cache.get(target).and_then(|set| {
                let served = members.least(set, question);
                if set.size > 1
                    && now_s.saturating_sub(set.changed_s) > EXPIRATION_S
                    && let Some(tag) = members.most(set, question)
                {
                    members.remove(set, tag, now_s);
                }
                served
            })
        };
        if let Some(served) = served.filter(|served| !crowded(served, question)) {
            return Some(served);
        }
        let chosen = least::wlc(question)?;
        let remembered = Remembered::new(chosen, question);
        let mut guard = lock(&self.0);
        let (cache, members) = &mut *guard;
        let now_s = cache.now_s;
        if cache.get(target).is_none() {
            // without room the choice is as good, it is only not remembered
            let _full = cache.insert(target, Set { first: NIL, size: 0, changed_s: now_s });
        }
        if let Some(set) = cache.get(target) {
            members.add(set, remembered, now_s);
        }
        Some(chosen)
    }

    /// What [`Lblcr::pick`] would say; nothing is remembered.
    pub fn look<'a>(&self, question: &Question<'a>) -> Option<&'a Candidate> {
        question.begin_reading();
        let served = {
            let guard = lock(&self.0);
            guard.0.peek(question.new.target).and_then(|set| guard.1.least(set, question))
        };
        served.filter(|served| !crowded(served, question)).or_else(|| least::wlc(question))
    }

    /// Control core, once a second: forgets what is old. `now_s`: since any fixed point, s.
    pub fn tick(&self, now_s: u32) {
        let Some(mut sweep) = lock(&self.0).0.look(now_s) else { return };
        loop {
            let mut guard = lock(&self.0);
            let (cache, members) = &mut *guard;
            if !cache.sweep(&mut sweep, |set| members.clear(set)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::lab::Lab;

    fn ask(lblcr: &Lblcr, lab: &Lab) -> Option<u32> {
        let chosen = lblcr.pick(&lab.question())?.dest.0;
        lab.open(0, chosen, true);
        Some(chosen)
    }

    fn members(lblcr: &Lblcr, lab: &Lab) -> Vec<u64> {
        let mut guard = lock(&lblcr.0);
        let (cache, members) = &mut *guard;
        cache.get(lab.new.target).map(|set| members.of(set).map(|m| m.tag).collect()).unwrap_or_default()
    }

    #[test]
    fn a_crowded_set_grows_by_the_least_loaded_of_all() {
        let (lblcr, lab) = (Lblcr::default(), Lab::new(&[2, 4, 2]));
        let picks: Vec<_> = (0..4).filter_map(|_| ask(&lblcr, &lab)).collect();
        assert_eq!(picks, [0, 0, 0, 1], "3 > 2, and 0 * 2 < 4");
        assert_eq!(members(&lblcr, &lab), [1, 0]);
        assert_eq!(ask(&lblcr, &lab), Some(1), "the least loaded of the set");
        lab.fill(1);
        assert_eq!(ask(&lblcr, &lab), Some(2), "1 is full, 0 is crowded");
        assert_eq!(members(&lblcr, &lab), [2, 1, 0]);
    }

    #[test]
    fn a_set_that_did_not_change_for_a_day_loses_its_most_loaded_server() {
        let (lblcr, lab) = (Lblcr::default(), Lab::new(&[1, 1]));
        lblcr.tick(0);
        (0..4).for_each(|_| lab.open(0, 1, true));
        (0..2).for_each(|_| assert_eq!(ask(&lblcr, &lab), Some(0)));
        lab.workers[0].dests[1].active.down();
        (0..3).for_each(|_| lab.workers[0].dests[1].active.down());
        assert_eq!(ask(&lblcr, &lab), Some(1), "0 is crowded, 1 is idle");
        assert_eq!(members(&lblcr, &lab), [1, 0]);
        lock(&lblcr.0).0.now_s = EXPIRATION_S;
        lblcr.pick(&lab.question());
        assert_eq!(members(&lblcr, &lab), [1, 0]);
        lock(&lblcr.0).0.now_s = EXPIRATION_S + 1;
        lblcr.pick(&lab.question());
        assert_eq!(members(&lblcr, &lab), [1], "0 had the higher overhead");
    }

    #[test]
    fn members_come_and_go_without_loss() {
        let lab = Lab::new(&[1]);
        let mut members = Members { nodes: Vec::with_capacity(MEMBERS), free: NIL };
        let mut set = Set { first: NIL, size: 0, changed_s: 0 };
        let server = |tag| Remembered { tag, hint: 0 };
        for tag in [0, 1, 2, 1] {
            members.add(&mut set, server(tag), 5);
        }
        members.remove(&mut set, 1, 6);
        members.remove(&mut set, 9, 7);
        assert_eq!(members.of(&set).map(|m| m.tag).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((set.size, set.changed_s), (2, 6));
        assert_eq!(
            members.most(&set, &lab.question()),
            Some(2),
            "one that is gone counts, without connections"
        );
        members.clear(&mut set);
        members.add(&mut set, server(3), 8);
        assert_eq!(members.nodes.len(), 3, "freed ones are used again");
    }
}
