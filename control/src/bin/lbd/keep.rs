//! Going on with an earlier lbd's connections, and keeping these for the next one.
//!
//! [`Keep::open`] before anything else, [`Keep::estate`] for the director, [`Keep::tables`] for the workers, [`Keep::finish`]
//! before they start.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{Model, Service, ServiceAddress};
use lb_control::api::{RestartRow, TableRow};
use lb_control::keep::beat::{Heart, boot};
use lb_control::keep::journal::Writer;
use lb_control::keep::{Head, Left, Store, StoreError, Unfit};
use lb_dataplane::Director;
use lb_dataplane::conn::memory::{Lender, Request};
use lb_dataplane::conn::table::NoMemory;
use lb_dataplane::ids::DestId;
use lb_dataplane::keep::{self, Estate, Loss, Moment, Secrets, Taken};
use lb_dataplane::persist::{self, Templates};
use lb_dataplane::setup::WorkerSeed;
use lb_dataplane::tables::Tables;
use lb_dpdk::{Clock, Folder, Shelf, TableMemory, hugetlbfs};
use tracing::{info, warn};

use crate::memory;

/// What is kept, and what was.
pub struct Keep {
    store: Option<Store>,
    /// What there is to go on with.
    left: Option<Left>,
    /// Tables stay where they are.
    stays: bool,
    /// Generation of the files that this lbd keeps.
    generation: u64,
    secrets: Secrets,
    connections_per_worker: u32,
    services: Vec<Arc<Service>>,
    /// Servers that an earlier lbd sent clients to.
    pub standing: HashSet<(ServiceAddress, SocketAddr)>,
    row: RestartRow,
    /// What is added to the clock, ns.
    pub offset_ns: u64,
    began: Instant,
}

/// Name of the templates' file.
const TEMPLATES: &str = "templates";

impl Keep {
    /// Looks for what an earlier lbd has left. `fresh`: it is not wanted. What cannot be kept is told of; lbd runs without.
    pub fn open(model: &Model, fresh: bool, clock: &Clock) -> Self {
        let workers = model.appliance.workers.len();
        let mut this = Self {
            store: None,
            left: None,
            stays: false,
            generation: 1,
            secrets: Secrets::random(workers),
            connections_per_worker: memory::per_worker(model),
            services: Vec::new(),
            standing: HashSet::new(),
            row: RestartRow { began: "fresh".to_owned(), ..RestartRow::default() },
            offset_ns: 0,
            began: Instant::now(),
        };
        let (name, directory) = (&model.appliance.name, &model.tables.directory);
        let mount = hugetlbfs();
        if !model.tables.keep {
            this.row.reason = Some("tables.keep is false".to_owned());
            discard(directory, mount.as_deref(), name);
            return this;
        }
        let store = match Store::open(directory, mount.as_deref(), name) {
            Ok(store) => store,
            Err(error) => {
                warn!(%error, "connections will not survive a restart");
                this.row.reason = Some(error.to_string());
                return this;
            }
        };
        this.row.folder = Some(store.folder.display().to_string());
        let found = if fresh { Err(Unfit::Fresh) } else { store.left(keep::fingerprint(), clock.now_ns()) };
        match found {
            Ok((left, offset_ns)) => {
                // One that began other tables may have been killed before they held.
                store.sweep(Some(left.head.generation));
                this.go_on(left, offset_ns, model, workers);
            }
            Err(reason) => {
                match reason {
                    Unfit::Nothing => {}
                    Unfit::Fresh => info!("connections of an earlier lbd are discarded: {reason}"),
                    _ => warn!("connections of an earlier lbd are discarded: {reason}"),
                }
                this.row.reason = Some(reason.to_string());
                store.discard();
            }
        }
        this.store = Some(store);
        this
    }

    /// Whether there is something to go on with.
    pub fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// Discards what an earlier lbd has left.
    pub fn begin_anew(&mut self, model: &Model, reason: &str) {
        warn!("connections of an earlier lbd are discarded: {reason}");
        if let Some(store) = &self.store {
            store.discard();
        }
        (self.left, self.stays, self.generation, self.offset_ns) = (None, false, 1, 0);
        self.secrets = Secrets::random(model.appliance.workers.len());
        self.services.clear();
        self.standing.clear();
        (self.row.began, self.row.reason) = ("fresh".to_owned(), Some(reason.to_owned()));
    }

    fn go_on(&mut self, left: Left, offset_ns: u64, model: &Model, workers: usize) {
        let former = left.head.secrets.workers.len();
        self.stays = former == workers
            && left.head.connections_per_worker == self.connections_per_worker
            && left.head.templates == keep::templates(model) as u64
            && keep::steering(model).is_none_or(|key| key.0 == left.head.secrets.steering.0);
        self.generation = if self.stays { left.head.generation } else { left.head.generation + 1 };
        let own = std::mem::replace(&mut self.secrets, left.head.secrets.clone());
        self.secrets.workers.truncate(workers);
        self.secrets.workers.extend(own.workers.into_iter().skip(former));
        if left.journal.damaged > 0 {
            warn!(lines = left.journal.damaged, "the journal of an earlier lbd is damaged");
        }
        self.services = left.journal.services(model);
        self.standing = left.journal.standing.clone();
        self.offset_ns = offset_ns;
        self.row.began = if self.stays { "attached" } else { "moved" }.to_owned();
        self.left = Some(left);
    }

    /// What the director begins with.
    pub fn estate(&self, model: &Model) -> Estate {
        let dests = self.left.iter().flat_map(|left| &left.journal.dests);
        let former = dests.map(|(index, key)| (DestId(*index), *key)).collect();
        let capacity = keep::templates(model);
        let request = |capacity: usize, used| Request {
            name: TEMPLATES.to_owned(),
            bytes: Templates::kept_bytes(capacity),
            used,
        };
        let (mut memory, mut templates) = (None, Vec::new());
        if let Some(left) = &self.left {
            // Elsewhere than where they are going to be, if the generation is another.
            let capacity = usize::try_from(left.head.templates).unwrap_or(capacity);
            let there = self.shelf(left.head.generation, false).and_then(|shelf| {
                let loan = shelf.there(&request(capacity, true))?;
                templates = persist::left(loan.memory);
                if self.stays {
                    // The file stays locked as long as it is written.
                    std::mem::forget(shelf);
                    return Some(loan.memory);
                }
                shelf.take_back(loan.memory);
                None
            });
            memory = there;
        }
        let used =
            !templates.is_empty() || model.services.iter().any(|service| service.persistence.is_some());
        if memory.is_none() && used {
            let shelf = self.shelf(self.generation, true);
            memory = shelf.and_then(|shelf| {
                let loan = shelf.make(&request(capacity, true))?;
                std::mem::forget(shelf);
                Some(loan.memory)
            });
        }
        let (secrets, services) = (self.secrets.clone(), self.services.clone());
        Estate { secrets, former, services, templates: memory, left: templates }
    }

    /// A lender of the files of a generation.
    fn shelf(&self, generation: u64, makes: bool) -> Option<Arc<Shelf>> {
        let store = self.store.as_ref()?;
        let huge = store.huge.iter().map(|path| Folder { path: path.clone(), huge: true });
        let folder = Folder { path: store.folder.clone(), huge: false };
        Some(Shelf::new(huge.chain([folder]).collect(), generation.to_string(), makes))
    }

    /// Tables for every worker with the connections that were left, and what is told of them.
    ///
    /// Errors: no memory.
    pub fn tables(
        &mut self,
        model: &Model,
        seeds: &[WorkerSeed],
    ) -> Result<(Vec<Tables>, Vec<TableRow>), NoMemory> {
        let secrets: Vec<_> = self.secrets.workers.iter().map(|worker| worker.table).collect();
        let max = self.connections_per_worker;
        let lender: Arc<dyn Lender> = match self.shelf(self.generation, true) {
            Some(shelf) => shelf,
            None => TableMemory::new(),
        };
        let used = |kind| memory::is_used(model, kind);
        let Some(left) = self.left.take() else {
            let tables = Tables::with_secrets(&secrets, max, used, &lender)?;
            let rows = memory::rows(model, &tables);
            return Ok((tables, rows));
        };
        let (moment, began) = (left.moment, Instant::now());
        let (tables, taken) = if self.stays {
            let mut tables = Tables::with_secrets(&secrets, max, used, &lender)?;
            let taken = tables.iter_mut().zip(seeds).map(|(own, seed)| keep::take_over(own, seed, &moment));
            let taken = taken.collect();
            (tables, taken)
        } else {
            self.moved(&left.head, &secrets, seeds, &moment, model, &lender)?
        };
        self.row.took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tell(&taken);
        let rows = memory::rows(model, &tables);
        Ok((tables, rows))
    }

    /// New tables, and in them what was in others.
    fn moved(
        &self,
        head: &Head,
        secrets: &[lb_dataplane::conn::HashKey],
        seeds: &[WorkerSeed],
        moment: &Moment,
        model: &Model,
        lender: &Arc<dyn Lender>,
    ) -> Result<(Vec<Tables>, Vec<Taken>), NoMemory> {
        let theirs: Vec<_> = head.secrets.workers.iter().map(|worker| worker.table).collect();
        let shelf = self.shelf(head.generation, false);
        let lent: Arc<dyn Lender> = match shelf {
            Some(shelf) => shelf,
            None => lender.clone(),
        };
        let old = Tables::with_secrets(&theirs, head.connections_per_worker, |_| false, &lent)?;
        let was = |kind| old.iter().any(|tables| tables.is_left(kind));
        let used = |kind| memory::is_used(model, kind) || was(kind);
        let mut tables = Tables::with_secrets(secrets, self.connections_per_worker, used, lender)?;
        let taken = keep::move_in(old, &mut tables, seeds, moment);
        Ok((tables, taken))
    }

    /// Has the log and the row say what became of connections.
    fn tell(&mut self, taken: &[Taken]) {
        let mut all = Taken::default();
        for (worker, taken) in taken.iter().enumerate() {
            info!("connection table of worker {worker}: {}", text(taken));
            all = all.plus(*taken);
        }
        let (workers, milliseconds) = (taken.len(), self.row.took_us / 1000);
        info!(workers, milliseconds, how = self.row.began, "connections of an earlier lbd go on");
        self.row.taken_over = all.kept;
        self.row.dropped = losses(&all).map(|(loss, count)| (loss.name().to_owned(), count)).collect();
    }

    /// Keeps what there is now for the next lbd. To be called before the workers start. Returns what was done, and what
    /// the control core has to go on with.
    pub fn finish(mut self, director: &mut Director, model: &Model) -> (RestartRow, Option<Heart>) {
        let Some(store) = &self.store else { return (self.row, None) };
        let writer = Writer::new(store.folder.join(format!("journal.{}", self.generation)));
        let journal = writer.health();
        director.keep_journal(Box::new(writer), &self.services);
        let head = Head {
            layout: keep::fingerprint(),
            boot: boot(),
            generation: self.generation,
            connections_per_worker: self.connections_per_worker,
            templates: keep::templates(model) as u64,
            secrets: self.secrets.clone(),
        };
        let floods = self.secrets.workers.iter();
        let floods = floods.map(|w| (w.flood.cookies_until_ns, w.flood.strays_until_ns)).collect();
        let fault = journal.fault().map_or(Ok(()), |fault| Err(std::io::Error::other(fault)));
        let heart = fault
            .and_then(|()| store.commit(&head))
            .and_then(|()| Heart::new(&store.folder, floods, journal));
        // For as long as the process: the folder is this lbd's.
        let store = self.store.take();
        match heart {
            Ok(heart) => {
                if let Some(store) = store {
                    Box::leak(Box::new(store));
                }
                let took = self.began.elapsed();
                tracing::debug!(?took, "connections are kept");
                (self.row, Some(heart))
            }
            Err(error) => {
                warn!(%error, "connections will not survive a restart");
                if let Some(store) = store {
                    store.discard();
                }
                self.row.folder = None;
                self.row.reason = Some(error.to_string());
                (self.row, None)
            }
        }
    }
}

/// Removes what an earlier lbd has kept, unless another one has it.
fn discard(directory: &Path, mount: Option<&Path>, name: &str) {
    if !directory.join(format!("sluice-{name}")).join("head").exists() {
        return;
    }
    match Store::open(directory, mount, name) {
        Ok(store) => {
            store.discard();
            info!("connections of an earlier lbd are discarded: tables.keep is false");
        }
        Err(StoreError::InUse(_)) => {}
        Err(error) => warn!(%error, "what an earlier lbd has kept cannot be removed"),
    }
}

/// Those losses that there were.
fn losses(taken: &Taken) -> impl Iterator<Item = (Loss, u64)> + '_ {
    Loss::ALL.into_iter().map(|loss| (loss, taken.lost[loss as usize])).filter(|(_, count)| *count > 0)
}

/// `12,345 connections taken over, 3 dropped: server removed`
fn text(taken: &Taken) -> String {
    let mut text = format!("{} connections taken over", grouped(taken.kept));
    for (loss, count) in losses(taken) {
        text += &format!(", {} dropped: {}", grouped(count), loss.name());
    }
    text
}

/// `12,345`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_by_reason() {
        assert_eq!(text(&Taken::default()), "0 connections taken over");
        let taken = Taken { kept: 1_012_345, lost: [0, 3, 1_000, 0, 0] };
        let want = "1,012,345 connections taken over, 3 dropped: server removed, 1,000 dropped: half written or damaged";
        assert_eq!(text(&taken), want);
        assert_eq!([0, 12, 999, 1000, 12_345].map(grouped), ["0", "12", "999", "1,000", "12,345"]);
    }
}
