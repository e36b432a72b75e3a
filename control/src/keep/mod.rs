//! What outlives lbd, so that a restart is no outage: connection tables in files, and what says what is in them.
//!
//! In the folder `DIRECTORY/sluice-NAME`, and for tables in reserved huge pages in the same of a hugetlbfs:
//!
//! | file | what | written |
//! |---|---|---|
//! | `lock` | locked by the lbd that has the folder | at the start |
//! | `head` | layout, boot, sizes, secrets, and the number of the generation that holds ([`head`]) | at the start |
//! | `beat` | when lbd ran last, by its workers' clock and the system's ([`beat`]) | every turn of the control core |
//! | `journal.N` | services, and which server each index stands for ([`journal`]) | before workers hear of one |
//! | `worker-W-KIND.N`, `templates.N` | the tables and templates of generation N | by the workers |
//!
//! Invariant: `head` names a generation whose files are whole. A start that goes on with it changes nothing that an
//! earlier one would not understand; one that makes others writes `head` last, so that a process that is killed on the way
//! leaves the older ones. Files of other generations are nobody's, and are removed at the next start.
//!
//! Limits: memory is the kernel's, so it does not outlive the machine; what has no room in the folder is not kept.

pub mod beat;
pub mod head;
pub mod journal;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lb_dataplane::keep::Moment;
use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

pub use beat::Beat;
pub use head::Head;

/// How long an lbd that was killed may take to let go.
const ENDING: Duration = Duration::from_secs(2);

/// Longest absence after which times in the tables can still be told, ns: they go round in 18 h 12 min.
const MAX_AWAY_NS: u64 = 18 * 3600 * 1_000_000_000;

/// Why there is nothing to go on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nobody was here.
    #[error("no lbd has kept tables here")]
    Nothing,
    /// The operator said so.
    #[error("lbd was told to begin anew (--fresh)")]
    Fresh,
    /// Written by an lbd that keeps things in another way.
    #[error("their layout is another lbd's: {theirs:016x}, this one's is {ours:016x}")]
    Layout {
        /// Of the files.
        theirs: u64,
        /// Of this lbd.
        ours: u64,
    },
    /// The machine was started anew meanwhile.
    #[error("the machine was started since")]
    Boot,
    /// They are too old.
    #[error("lbd was away for {hours} h; after 18 h nobody can tell how old connections are")]
    Away {
        /// How long.
        hours: u64,
    },
    /// A file cannot be read, or does not say what it should.
    #[error("{file}: {reason}")]
    Damaged {
        /// Its name.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another lbd has it.
    #[error("{} is in use by another lbd: give each its own appliance.name", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder of one director, locked.
#[derive(Debug)]
pub struct Store {
    /// Where small files are, and tables in ordinary memory.
    pub folder: PathBuf,
    /// Where tables in reserved huge pages are.
    pub huge: Option<PathBuf>,
    _lock: Flock<File>,
}

/// What an earlier lbd left, as far as it can be gone on with.
#[derive(Debug)]
pub struct Left {
    /// Sizes and secrets.
    pub head: Head,
    /// What indices stand for.
    pub journal: journal::Content,
    /// Times, on a clock that goes on where the earlier one's was.
    pub moment: Moment,
}

/// Name of a director's folder.
fn folder_name(name: &str) -> String {
    format!("sluice-{name}")
}

/// Makes a folder for root alone, unless it is there.
fn make(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StoreError::Io { path: path.to_owned(), error })
}

impl Store {
    /// Takes the folder of the director `name` in `directory`, and in `hugetlbfs` if there is one.
    ///
    /// Errors: another lbd has it, or it cannot be made.
    pub fn open(directory: &Path, hugetlbfs: Option<&Path>, name: &str) -> Result<Self, StoreError> {
        let folder = directory.join(folder_name(name));
        make(&folder)?;
        let path = folder.join("lock");
        let io = |error| StoreError::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(io)?;
        let lock = Self::lock(lock).ok_or_else(|| StoreError::InUse(folder.clone()))?;
        let huge = hugetlbfs.map(|mount| mount.join(folder_name(name)));
        let huge = huge.filter(|huge| match make(huge) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "tables that are kept cannot lie in reserved huge pages");
                false
            }
        });
        Ok(Self { folder, huge, _lock: lock })
    }

    /// The lock, if nobody has it. Who was just killed has it until the kernel has cleared up: it is waited for.
    fn lock(mut file: File) -> Option<Flock<File>> {
        let given_up = Instant::now() + ENDING;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Some(lock),
                Err(_) if Instant::now() >= given_up => return None,
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What there is. `ours`: the layout of this process; `now_ns`: its workers' clock, which is moved so that it goes on
    /// where the earlier one's was: by the second value, modulo 2^64.
    ///
    /// Errors: why nothing of it can be used.
    pub fn left(&self, ours: u64, now_ns: u64) -> Result<(Left, u64), Unfit> {
        let damaged = |file: &str, reason: String| Unfit::Damaged { file: file.to_owned(), reason };
        let text = match fs::read_to_string(self.folder.join("head")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unfit::Nothing),
            read => read.map_err(|error| damaged("head", error.to_string()))?,
        };
        let head = Head::parse(&text).map_err(|reason| damaged("head", reason))?;
        if head.layout != ours {
            return Err(Unfit::Layout { theirs: head.layout, ours });
        }
        if head.boot != beat::boot() {
            return Err(Unfit::Boot);
        }
        let workers = head.secrets.workers.len();
        let beat = Beat::read(&self.folder, workers).map_err(|reason| damaged("beat", reason))?;
        let away = beat::monotonic_ns().saturating_sub(beat.monotonic_ns);
        if away > MAX_AWAY_NS {
            return Err(Unfit::Away { hours: away / 3_600_000_000_000 });
        }
        let name = format!("journal.{}", head.generation);
        let journal =
            journal::read(&self.folder.join(&name)).map_err(|error| damaged(&name, error.to_string()))?;
        let then = beat.worker_ns.saturating_add(away);
        let mut head = head;
        for (worker, until) in head.secrets.workers.iter_mut().zip(&beat.floods) {
            (worker.flood.cookies_until_ns, worker.flood.strays_until_ns) = *until;
        }
        let moment = Moment { last_ns: beat.worker_ns, now_ns: then };
        Ok((Left { head, journal, moment }, then.wrapping_sub(now_ns)))
    }

    /// Makes `head` what the next lbd goes on with, and removes what belongs to no generation of it.
    ///
    /// Errors: it cannot be written; then the next lbd begins anew.
    pub fn commit(&self, head: &Head) -> io::Result<()> {
        replace(&self.folder, "head", &head.to_text())?;
        self.sweep(Some(head.generation));
        Ok(())
    }

    /// Removes all that was kept.
    pub fn discard(&self) {
        // First: without it the rest is nobody's.
        let _ = fs::remove_file(self.folder.join("head"));
        let _ = fs::remove_file(self.folder.join("beat"));
        self.sweep(None);
    }

    /// Removes the files of all generations but one.
    pub fn sweep(&self, but: Option<u64>) {
        let suffix = but.map(|generation| format!(".{generation}"));
        for folder in [Some(&self.folder), self.huge.as_ref()].into_iter().flatten() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let numbered = name.rsplit_once('.').is_some_and(|(_, end)| end.parse::<u64>().is_ok());
                let stays = suffix.as_ref().is_some_and(|suffix| name.ends_with(suffix.as_str()));
                if (numbered || name.ends_with(".new")) && !stays {
                    // What cannot be removed takes memory and does nothing else.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// Writes a small file so that it is there as it was or as it shall be.
fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(new, folder.join(name))
}

#[cfg(test)]
mod tests;
