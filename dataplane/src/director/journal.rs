//! Who writes down which index stands for whom, so that a process after this one gives them the same.

use std::fmt;
use std::sync::Arc;

use lb_config::{Model, Service};

use super::Director;
use super::registry::DestKey;
use crate::counters::WorkerCounters;
use crate::ids::DestId;

/// Keeps services and indices beyond the process. What is told later holds.
///
/// Invariant: the director calls [`Journal::close`] before any worker hears of an index that was told since.
pub trait Journal: Send + fmt::Debug {
    /// A service as it is now; its servers do not matter.
    fn service(&mut self, service: &Service);

    /// What an index stands for from now on, and whether it gets connections.
    fn dest(&mut self, dest: DestId, key: &DestKey, stands: bool);

    /// All that was told holds.
    fn close(&mut self);

    /// Whether so much was told that it had better be told all anew.
    fn is_long(&self) -> bool;

    /// All is told anew until [`Journal::close`]: what was told before no longer holds then.
    fn begin(&mut self);
}

impl Director {
    /// Has all that there is written down, and every change from now on. `former`: services that are gone and may still
    /// have connections.
    pub fn keep_journal(&mut self, mut journal: Box<dyn Journal>, former: &[Arc<Service>]) {
        journal.begin();
        former.iter().for_each(|service| journal.service(service));
        self.tell_all(&mut *journal);
        journal.close();
        self.registry.unwritten.clear();
        self.journal = Some(journal);
    }

    fn tell_all(&self, journal: &mut dyn Journal) {
        self.model.services.iter().for_each(|service| journal.service(service));
        self.registry.all().for_each(|(dest, record)| journal.dest(dest, &record.key, record.stands()));
    }

    /// Writes down what a change has brought. To be called before it is published.
    pub(super) fn write_down(&mut self, services: &[Arc<Service>]) {
        let fresh = std::mem::take(&mut self.registry.unwritten);
        let Some(mut journal) = self.journal.take() else { return };
        if journal.is_long() {
            journal.begin();
            self.tell_all(&mut *journal);
        } else {
            services.iter().for_each(|service| journal.service(service));
            for dest in fresh {
                if let Some(record) = self.registry.record(dest) {
                    journal.dest(dest, &record.key, record.stands());
                }
            }
        }
        journal.close();
        self.journal = Some(journal);
    }

    /// Runs the services of an earlier process, as far as the ports of `model` allow, so that `model` is a change of them.
    pub(super) fn apply_former(&mut self, model: &Model, services: Vec<Arc<Service>>) {
        if services.is_empty() {
            return;
        }
        let mut former = model.without_services();
        services.iter().for_each(|service| former.services.push(service.clone()));
        if self.apply(&former).is_ok() {
            return;
        }
        // those that can be: a server that is on no network any more has no way to it
        let mut former = model.without_services();
        for service in services {
            former.services.push(service);
            if self.apply(&former).is_err() {
                former.services.truncate(former.services.len() - 1);
            }
        }
    }

    /// The workers' clock, ns; `None`: none of them has turned yet.
    pub fn clock_ns(&self) -> Option<u64> {
        Some(self.workers_now_ns()).filter(|now| *now > 0)
    }

    /// Every worker's counters.
    pub fn worker_counters(&self) -> &[Arc<WorkerCounters>] {
        &self.counters
    }
}
