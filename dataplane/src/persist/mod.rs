//! Persistence: a client comes back to the server that it had.
//!
//! A template says which destination the connections of a client (or of a network of clients) to a service, a VIP or
//! a firewall mark go to. It is made with the first connection, started anew by each further one, and lives on for
//! its timeout; while it has connections it does not end: at the end of its time it gets another 60 s. Rules and
//! timings are those of IPVS in Linux 6.1 (`ip_vs_sched_persist`, `ip_vs_check_template`, `ip_vs_conn_expire`).
//!
//! # Why this is shared, and behind locks
//! A worker owns a connection by the client's address *and port*, so several workers make connections of one client,
//! and they must agree. Nothing here is touched by a packet of a known connection, only when a connection of a
//! persistent service begins, is established, or ends. A lock covers one bucket of at most 16 templates; a table for
//! n templates has n/8 of them or more, so two cores meet with a probability of about 8 workers/n. An uncontended
//! lock is one compare-and-swap, without a system call; who meets another spins first. Nothing is allocated under
//! it. The scheduler runs under it, because two first connections of one client at the same time must not get two
//! servers (in IPVS they can). The control core takes the same locks, a bucket at a time, to sweep and to list.
//!
//! Invariants: the table never grows; a template's count of children goes up in [`Templates::choose`] and down in
//! [`Templates::child_ended`], and one that lost its count (see [`Templates::sweep`]) still ends. When a bucket is
//! full, the template that is worth least goes: replaced ones, then those that were never established, which a flood
//! consists of, then those without connections. Only a bucket full of established clients refuses a new one.
//!
//! # Who calls what
//! - A packet without a connection whose service has a [`Rule`]: [`Templates::choose`] in place of the scheduler,
//!   with `valid` = the destination exists, is not removed and, under `expire_quiescent_template`, has a weight
//!   above 0. Its connection is marked as controlled. If it cannot be inserted, or is one-packet, then
//!   [`Templates::child_ended`] at once.
//! - A controlled connection becomes ESTABLISHED (TCP, SCTP), or an outbound packet of a UDP one is seen, for the
//!   first time: [`Templates::assure`].
//! - A controlled connection goes, by its time or otherwise: [`Templates::child_ended`].
//! - The control core, now and then: [`Templates::sweep`]. A destination's index must not be given to another server
//!   while [`Templates::count`] is not 0.

mod bucket;
mod kept;
mod key;
mod listed;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher13;

pub use kept::{Left, left};
pub use key::{Child, PROTOCOL_IP, Rule, Scope, TemplateKey};
pub use listed::{Handover, Listed, ListedPort};

use crate::conn::HashKey;
use crate::ids::DestId;
use bucket::{Bucket, SLOTS, Template};

/// How often a lock is tried before the system is asked to wait: some microseconds, longer than it is ever held by
/// a thread that runs.
const SPINS: u32 = 1000;

/// The destination of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Destination.
    pub dest: DestId,
    /// A template was made; else the connection goes where the client's others went.
    pub fresh: bool,
}

/// Why a new connection got no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The scheduler found none.
    #[error("the service has no server for a new client")]
    NoServer,
    /// The templates that could be dropped for it all have established connections.
    #[error("no room for the persistence of another client")]
    Full,
}

/// All templates. Workers and control core: rw, under the bucket's lock.
#[derive(Debug)]
pub struct Templates {
    buckets: Box<[Mutex<Bucket>]>,
    /// Templates by destination, IPVS's `persistconns`. Changed under a bucket's lock, read by anyone.
    counts: Box<[AtomicU32]>,
    evicted: AtomicU64,
    /// Where the sweep goes on.
    hand: AtomicUsize,
    secret: HashKey,
}

impl Templates {
    /// An empty table for about `capacity` templates and destinations below `max_dests`.
    ///
    /// At `capacity` templates half of its room is used, and 0.08 % of them found their bucket full (Poisson, mean 8).
    pub fn new(capacity: usize, max_dests: u32, secret: HashKey) -> Self {
        Self {
            buckets: (0..Self::buckets_for(capacity)).map(|_| Mutex::default()).collect(),
            counts: crate::counters::zeroed(max_dests as usize),
            evicted: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
            secret,
        }
    }

    fn buckets_for(capacity: usize) -> usize {
        capacity.div_ceil(SLOTS / 2).next_power_of_two()
    }

    /// The destination of a new connection: its template's if that is `valid`, else what `schedule` says, for which
    /// a template is made. The connection counts as the template's child from then on.
    ///
    /// A template whose destination is not valid is replaced for good, even if the destination comes back.
    /// Neither closure may call these templates: they run under the lock.
    ///
    /// Errors: see [`Refused`]; then nothing counts as a child.
    pub fn choose(
        &self,
        rule: &Rule,
        child: &Child,
        now_ns: u64,
        valid: impl FnOnce(DestId) -> bool,
        schedule: impl FnOnce() -> Option<DestId>,
    ) -> Result<Chosen, Refused> {
        let key = rule.key(child);
        let (at, tag) = self.place(&key);
        let mut bucket = self.lock(at);
        if let Some(slot) = bucket.find(tag, |template| template.valid && template.key == key)
            && let Some(template) = bucket.templates.get_mut(slot)
        {
            if template.is_over(now_ns) {
                bucket.remove(slot).inspect(|gone| self.count_down(gone.dest));
            } else if valid(template.dest) {
                template.children = template.children.saturating_add(1);
                template.rearm(now_ns);
                let dest = template.dest;
                bucket.keep(slot);
                return Ok(Chosen { dest, fresh: false });
            } else {
                template.valid = false;
                bucket.keep(slot);
            }
        }
        let dest = schedule().ok_or(Refused::NoServer)?;
        if bucket.is_full() {
            bucket.remove_if(|template| template.is_over(now_ns), |gone| self.count_down(gone.dest));
        }
        if bucket.is_full() {
            let gone = bucket.evict().ok_or(Refused::Full)?;
            self.count_down(gone.dest);
            self.evicted.fetch_add(1, Relaxed);
        }
        let mut template = Template {
            key,
            dest,
            children: 1,
            timeout_ns: rule.timeout_ns,
            deadline_ns: 0,
            assured: false,
            valid: true,
        };
        template.rearm(now_ns);
        if !bucket.insert(tag, template) {
            return Err(Refused::Full);
        }
        self.count_up(dest);
        Ok(Chosen { dest, fresh: true })
    }

    /// The destination of `child`'s template, whether that was established, and its time left, ns; nothing changes.
    pub fn find(&self, rule: &Rule, child: &Child, now_ns: u64) -> Option<(DestId, bool, u64)> {
        let key = rule.key(child);
        let (at, tag) = self.place(&key);
        let bucket = self.lock(at);
        let slot = bucket.find(tag, |template| template.valid && template.key == key)?;
        let template = bucket.templates.get(slot)?;
        let is_over = now_ns >= template.deadline_ns && template.children == 0;
        let left_ns = template.deadline_ns.saturating_sub(now_ns);
        (!is_over).then_some((template.dest, template.assured, left_ns))
    }

    /// A connection to `dest` was established: from now on its template is listed as `ASSURED`, and no forced end of
    /// connections takes it along.
    ///
    /// Source: `ip_vs_control_assure_ct`.
    pub fn assure(&self, rule: &Rule, child: &Child, dest: DestId) {
        self.with_template(rule, child, dest, |bucket, at| {
            if let Some(template) = bucket.templates.get_mut(at) {
                template.assured = true;
            }
            bucket.keep(at);
        });
    }

    /// A connection to `dest` ended. `forced`: it was thrown out (flushed, dropped for memory, its server removed
    /// under `expire_nodest_conn`) rather than timed out or replaced; then the last one takes a template with it that
    /// was never assured.
    ///
    /// Nothing happens when its template is gone already.
    pub fn child_ended(&self, rule: &Rule, child: &Child, dest: DestId, now_ns: u64, forced: bool) {
        self.with_template(rule, child, dest, |bucket, at| {
            let Some(template) = bucket.templates.get_mut(at) else { return };
            // a deadline that passed while the child still lived has been put off
            let before = template.deadline_ns;
            let _ = template.is_over(now_ns);
            template.children -= 1;
            if forced && template.children == 0 && !template.assured {
                bucket.remove(at).inspect(|gone| self.count_down(gone.dest));
            } else if template.deadline_ns != before {
                bucket.keep(at);
            }
        });
    }

    /// Removes templates whose time is over, in the next `buckets` buckets; all of them when there are no more.
    ///
    /// `has_connections` of a destination, over all workers: a template that still counts children of one that has
    /// none lost their ends (rules changed too often, or it took the place of one that was evicted), and counts none
    /// from then on.
    pub fn sweep(&self, now_ns: u64, buckets: usize, has_connections: impl Fn(DestId) -> bool) {
        for _ in 0..buckets.min(self.buckets.len()) {
            let mut bucket = self.lock(self.hand.fetch_add(1, Relaxed));
            bucket.remove_if(
                |template| {
                    if now_ns >= template.deadline_ns && !has_connections(template.dest) {
                        template.children = 0;
                    }
                    template.is_over(now_ns)
                },
                |gone| self.count_down(gone.dest),
            );
        }
    }

    /// Drops the templates without connections that `which` names, at once. Returns how many.
    ///
    /// For `expire_nodest_conn`, after the connections of a removed destination were dropped, and for operators.
    pub fn drop_unused(&self, now_ns: u64, which: impl Fn(&Listed) -> bool) -> usize {
        let mut dropped = 0;
        for at in 0..self.buckets.len() {
            self.lock(at).remove_if(
                |template| template.children == 0 && which(&Listed::of(template, now_ns)),
                |gone| {
                    self.count_down(gone.dest);
                    dropped += 1;
                },
            );
        }
        dropped
    }

    /// Shows every template to `each`, in no order; a bucket is locked while it is copied.
    pub fn list(&self, now_ns: u64, mut each: impl FnMut(Listed)) {
        for at in 0..self.buckets.len() {
            let listed: ArrayVec<Listed, SLOTS> = (self.lock(at).templates.iter().copied())
                .filter_map(
                    |mut copy| if copy.is_over(now_ns) { None } else { Some(Listed::of(&copy, now_ns)) },
                )
                .collect();
            listed.into_iter().for_each(&mut each);
        }
    }

    /// Shows the templates of a bucket that can be found, as [`Templates::put`] takes them; the bucket is locked while
    /// they are copied.
    pub fn copy(&self, at: usize, now_ns: u64, each: impl FnMut(Handover)) {
        let copies: ArrayVec<Handover, SLOTS> = (self.lock(at).templates.iter_mut())
            .filter_map(|template| {
                (!template.is_over(now_ns) && template.valid).then(|| Handover::of(template, now_ns))
            })
            .collect();
        copies.into_iter().for_each(each);
    }

    /// Takes a template of another director in: a new one, or the time of one that is known. One for another
    /// destination that has connections here stays. Returns whether it is in, or was.
    pub fn put(&self, copy: &Handover, now_ns: u64) -> bool {
        let (at, tag) = self.place(&copy.key);
        let mut bucket = self.lock(at);
        let deadline_ns = now_ns.saturating_add(copy.left_ns);
        if let Some(slot) = bucket.find(tag, |template| template.valid && template.key == copy.key)
            && let Some(template) = bucket.templates.get_mut(slot)
        {
            if template.is_over(now_ns) || template.dest != copy.dest && template.children == 0 {
                bucket.remove(slot).inspect(|gone| self.count_down(gone.dest));
            } else {
                if template.dest == copy.dest {
                    template.deadline_ns = template.deadline_ns.max(deadline_ns);
                    template.assured |= copy.assured;
                }
                return true;
            }
        }
        let Handover { key, dest, timeout_ns, assured, .. } = *copy;
        let template = Template { key, dest, children: 0, timeout_ns, deadline_ns, assured, valid: true };
        // nobody makes room for what may never be needed here
        if !bucket.insert(tag, template) {
            return false;
        }
        if let Some(count) = self.counts.get(dest.0 as usize) {
            count.fetch_add(1, Relaxed);
        }
        true
    }

    /// Templates that name `dest`, replaced ones included: `PersistConn` of `ipvsadm -Ln --persistent-conn`.
    pub fn count(&self, dest: DestId) -> u32 {
        self.counts.get(dest.0 as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Templates that were dropped before their time to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Number of buckets: a sweep of this many visits all templates.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Calls `act` with the template that a connection to `dest` was made under, if it is still there.
    ///
    /// Of two for the same destination (it was replaced, and its destination came back), the older one is taken:
    /// its connections end first.
    fn with_template(&self, rule: &Rule, child: &Child, dest: DestId, act: impl FnOnce(&mut Bucket, usize)) {
        for key in rule.keys(child) {
            let (at, tag) = self.place(&key);
            let mut bucket = self.lock(at);
            let find = |valid| {
                bucket.find(tag, |template| {
                    template.valid == valid
                        && template.key == key
                        && template.dest == dest
                        && template.children > 0
                })
            };
            if let Some(slot) = find(false).or_else(|| find(true)) {
                return act(&mut bucket, slot);
            }
        }
    }

    /// Bucket and tag of a key.
    fn place(&self, key: &TemplateKey) -> (usize, u32) {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0[0], self.secret.0[1]);
        key.hash(&mut hasher);
        let hash = hasher.finish();
        (hash as usize, (hash >> 32) as u32)
    }

    /// Locks the bucket whose number is `at` modulo their number.
    fn lock(&self, at: usize) -> MutexGuard<'_, Bucket> {
        // a power of two
        let bucket = &self.buckets[at & (self.buckets.len() - 1)];
        for _ in 0..SPINS {
            match bucket.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_up(&self, dest: DestId) {
        if let Some(count) = self.counts.get(dest.0 as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn count_down(&self, dest: DestId) {
        if let Some(count) = self.counts.get(dest.0 as usize) {
            count.fetch_sub(1, Relaxed);
        }
    }
}
