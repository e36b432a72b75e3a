//! One lease: looked at, taken, renewed, given back.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::etcd::{Etcd, EtcdError};
use super::{SeatState, Told};

/// Pause after a failure, and between looks at a lease that is wanted and somebody else's.
const AGAIN: Duration = Duration::from_millis(100);
/// Looks at a lease in the time that it lasts: some may fail before it is over.
const LOOKS: u32 = 4;

/// What is wanted of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That it is somebody else's.
    None,
    /// To hold it; with the number of the wish.
    Want(u64),
}

/// What all leases share.
#[derive(Debug)]
pub struct Desk {
    /// Where they are.
    pub etcd: Etcd,
    /// Who holds them, as others see it.
    pub name: String,
    /// Where is told how they stand.
    pub reports: Sender<Told>,
    /// Who reads that.
    pub reader: Thread,
}

/// A lease of etcd's.
#[derive(Clone, Copy, Debug)]
struct Grant {
    id: i64,
    /// Until when the director may rely on it.
    until: Instant,
    /// When etcd has surely ended it.
    end: Instant,
    /// The key depends on it.
    held: bool,
}

struct Task<'d> {
    desk: &'d Desk,
    unit: String,
    key: String,
    grant: Option<Grant>,
    /// When etcd answered last.
    heard: Instant,
    /// It was told that it does not.
    away: bool,
}

/// Keeps a lease as is wished until nobody wishes any more; then it is given back.
pub async fn keep(desk: Arc<Desk>, unit: String, mut wishes: watch::Receiver<Wish>) {
    let key = format!("{}{unit}", desk.etcd.settings().prefix);
    let mut task = Task { desk: &desk, unit, key, grant: None, heard: Instant::now(), away: false };
    loop {
        let wish = *wishes.borrow_and_update();
        let pause = match wish {
            Wish::None => task.rest().await,
            Wish::Want(number) => task.want(number).await,
        };
        tokio::select! {
            changed = wishes.changed() => if changed.is_err() { break },
            () = sleep(pause) => {}
        }
    }
    while !task.give_back().await {
        sleep(AGAIN).await;
    }
}

impl Task<'_> {
    fn tell(&mut self, wish: u64, state: SeatState<Instant>) {
        self.away = state == SeatState::Away;
        // Nobody is there at the end.
        let _ = self.desk.reports.send(Told { unit: self.unit.clone(), wish, state });
        self.desk.reader.unpark();
    }

    fn look(&self) -> Duration {
        self.desk.etcd.settings().ttl / LOOKS
    }

    /// How long what etcd said holds.
    fn lasts(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).saturating_sub(self.desk.etcd.settings().margin)
    }

    /// There was no answer: how long to wait.
    fn missed(&mut self, error: &EtcdError) -> Duration {
        debug!(unit = %self.unit, %error, "lease");
        let settings = self.desk.etcd.settings();
        if !self.away && self.heard.elapsed() > settings.ttl.saturating_sub(settings.margin) {
            warn!(unit = %self.unit, %error, "etcd does not answer");
            self.tell(0, SeatState::Away);
        }
        AGAIN
    }

    /// Gives a lease back. False: etcd does not answer, and the lease may still be there.
    async fn give_back(&mut self) -> bool {
        let Some(grant) = self.grant else { return true };
        match self.desk.etcd.revoke(grant.id).await {
            Err(error) if Instant::now() < grant.end => {
                debug!(unit = %self.unit, %error, "lease is not given back yet");
                false
            }
            _ => {
                self.grant = None;
                true
            }
        }
    }

    /// Somebody else may have it.
    async fn rest(&mut self) -> Duration {
        let given = self.give_back().await;
        match self.desk.etcd.get(&self.key).await {
            Err(error) => self.missed(&error),
            Ok(found) => {
                self.heard = Instant::now();
                // what is still to be given back is nobody's who uses it
                let own = self.grant.map(|grant| grant.id);
                let other = found.filter(|found| Some(found.lease) != own);
                self.tell(0, other.map_or(SeatState::Free, |found| SeatState::Other(found.value)));
                if given { self.look() } else { AGAIN }
            }
        }
    }

    async fn want(&mut self, wish: u64) -> Duration {
        let result = match self.grant {
            Some(grant) if grant.held => self.renew(wish, grant).await,
            _ => self.acquire(wish).await,
        };
        match result {
            Ok(pause) => {
                self.heard = Instant::now();
                pause
            }
            Err(error) => self.missed(&error),
        }
    }

    async fn renew(&mut self, wish: u64, grant: Grant) -> Result<Duration, EtcdError> {
        // before the request: etcd counts from when that came
        let sent = Instant::now();
        let seconds = self.desk.etcd.renew(grant.id).await?;
        if let Some(seconds) = seconds {
            let (until, end) = (sent + self.lasts(seconds), Instant::now() + Duration::from_secs(seconds));
            self.grant = Some(Grant { until, end, ..grant });
            // somebody may have taken the key by hand
            let found = self.desk.etcd.get(&self.key).await?;
            if found.is_some_and(|found| found.lease == grant.id) {
                self.tell(wish, SeatState::Held(until));
                return Ok(self.look());
            }
        }
        if seconds.is_some() || Instant::now() < grant.until {
            warn!(unit = %self.unit, "the lease was taken away");
            self.tell(wish, SeatState::Free);
        }
        self.grant = self.grant.map(|grant| Grant { held: false, ..grant });
        self.give_back().await;
        Ok(Duration::ZERO)
    }

    async fn acquire(&mut self, wish: u64) -> Result<Duration, EtcdError> {
        let etcd = &self.desk.etcd;
        match (etcd.get(&self.key).await?, self.grant) {
            // it was taken, and the answer was lost
            (Some(found), Some(grant)) if found.lease == grant.id => return Ok(self.held(wish, grant)),
            (Some(found), _) => {
                self.tell(wish, SeatState::Other(found.value));
                return Ok(AGAIN);
            }
            (None, _) => {}
        }
        let left = etcd.settings().timeout;
        let grant = match self.grant.filter(|grant| grant.until > Instant::now() + left) {
            Some(grant) => grant,
            None => {
                let sent = Instant::now();
                let (id, seconds) = etcd.grant().await?;
                let (until, end) =
                    (sent + self.lasts(seconds), Instant::now() + Duration::from_secs(seconds));
                Grant { id, until, end, held: false }
            }
        };
        self.grant = Some(grant);
        if self.desk.etcd.make(&self.key, &self.desk.name, grant.id).await? {
            return Ok(self.held(wish, grant));
        }
        // somebody else was faster
        self.give_back().await;
        Ok(Duration::ZERO)
    }

    fn held(&mut self, wish: u64, grant: Grant) -> Duration {
        self.grant = Some(Grant { held: true, ..grant });
        self.tell(wish, SeatState::Held(grant.until));
        self.look()
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
