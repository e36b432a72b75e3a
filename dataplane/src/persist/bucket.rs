//! Templates whose keys hash alike: what one lock covers.

use arrayvec::ArrayVec;

use super::TemplateKey;
use super::kept::Row;
use crate::ids::DestId;

/// Templates that a bucket can hold.
pub(super) const SLOTS: usize = 16;

/// For how much longer a template lives that still has connections when its time is over.
/// Source: `ip_vs_conn_expire` of Linux 6.1, 60 s; it becomes the template's timeout for good.
pub(super) const REARM_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    pub key: TemplateKey,
    pub dest: DestId,
    /// Connections that were made under it and have not ended.
    pub children: u32,
    pub timeout_ns: u64,
    pub deadline_ns: u64,
    /// One of its connections was established.
    pub assured: bool,
    /// Found by its key. One that is not was replaced; it waits for its end (IPVS renames it to port 65535).
    pub valid: bool,
}

impl Template {
    /// Brings the deadline up to `now` and says whether the template's time is over.
    ///
    /// Called before every change of `children`, so it does not matter how late the sweep comes.
    pub fn is_over(&mut self, now_ns: u64) -> bool {
        if now_ns < self.deadline_ns {
            return false;
        }
        if self.children == 0 {
            return true;
        }
        let missed = (now_ns - self.deadline_ns) / REARM_NS + 1;
        self.timeout_ns = REARM_NS;
        self.deadline_ns = self.deadline_ns.saturating_add(missed.saturating_mul(REARM_NS));
        false
    }

    /// Starts its time anew.
    pub fn rearm(&mut self, now_ns: u64) {
        self.deadline_ns = now_ns.saturating_add(self.timeout_ns);
    }

    /// How much would be lost with it, the least first; `None`: not to be lost.
    ///
    /// One that was replaced does nothing any more. One that was never assured may be a flood's; its client, if
    /// there is one, is scheduled anew.
    fn worth(&self) -> Option<u8> {
        match (self.valid, self.assured, self.children) {
            (false, _, _) => Some(0),
            (true, false, 0) => Some(1),
            (true, false, _) => Some(2),
            (true, true, 0) => Some(3),
            (true, true, _) => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Other halves of the keys' hashes: most templates that are not meant are passed over without a look at them.
    tags: ArrayVec<u32, SLOTS>,
    pub templates: ArrayVec<Template, SLOTS>,
    /// Where they are kept beyond the process, if they are: [`SLOTS`] of them.
    pub rows: Option<&'static mut [Row]>,
}

impl Bucket {
    /// Index of the first template with this tag that `wanted` accepts.
    pub fn find(&self, tag: u32, wanted: impl Fn(&Template) -> bool) -> Option<usize> {
        (self.tags.iter().zip(&self.templates))
            .position(|(&other, template)| other == tag && wanted(template))
    }

    /// Takes a template out; `None` when there is none at `at`.
    pub fn remove(&mut self, at: usize) -> Option<Template> {
        self.tags.swap_pop(at)?;
        let gone = self.templates.swap_pop(at);
        self.keep(at);
        self.keep(self.templates.len());
        gone
    }

    /// Takes out every template that `over` says is over and gives it to `gone`.
    pub fn remove_if(&mut self, mut over: impl FnMut(&mut Template) -> bool, mut gone: impl FnMut(Template)) {
        let mut at = 0;
        while let Some(template) = self.templates.get_mut(at) {
            let before = template.deadline_ns;
            if !over(template) {
                if template.deadline_ns != before {
                    self.keep(at);
                }
                at += 1;
            } else if let Some(template) = self.remove(at) {
                gone(template);
            }
        }
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.templates.is_full()
    }

    /// Takes out the template whose loss costs least, and of equals the one that would end first. `None`: all of
    /// them have established connections.
    pub fn evict(&mut self) -> Option<Template> {
        let ranked = self
            .templates
            .iter()
            .enumerate()
            .filter_map(|(at, template)| template.worth().map(|worth| (worth, template.deadline_ns, at)));
        let (_, _, at) = ranked.min()?;
        self.remove(at)
    }

    /// Puts a template in. Returns whether there was room.
    pub fn insert(&mut self, tag: u32, template: Template) -> bool {
        let room = self.put(tag, template);
        if room {
            self.keep(self.templates.len() - 1);
        }
        room
    }

    /// [`Bucket::insert`] of one that is not kept yet.
    pub fn put(&mut self, tag: u32, template: Template) -> bool {
        self.tags.try_push(tag).is_ok() && self.templates.try_push(template).is_ok()
    }
}
