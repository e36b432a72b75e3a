//! When lbd ran last: what the clocks said, and how long floods may have an echo.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use lb_dataplane::director::Director;
use lb_dataplane::flood::{Echo, cookie};
use nix::time::{ClockId, clock_gettime};
use tracing::error;

use super::journal::Health;

/// What a beat says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The workers' clock, ns.
    pub worker_ns: u64,
    /// The system's, since the machine was started, ns.
    pub monotonic_ns: u64,
    /// Of each worker, until when SYN cookies may come back, and packets of connections without an entry, ns of the
    /// workers' clock.
    pub floods: Vec<(u64, u64)>,
}

/// Time since the machine was started, ns.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let (seconds, rest) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
        seconds.saturating_mul(1_000_000_000).saturating_add(rest)
    })
}

/// Which start of the machine this is.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Beat {
    /// The latest beat in a folder. Until an lbd with another number of workers has beaten, it is that of the one before:
    /// then nobody knows whose floods are whose now, and each is taken to last as long as the longest.
    ///
    /// Errors: there is none, or it makes no sense.
    pub fn read(folder: &Path, workers: usize) -> Result<Self, String> {
        let bytes = fs::read(folder.join("beat")).map_err(|error| error.to_string())?;
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (&[worker_ns, monotonic_ns], floods) = words.split_first_chunk().ok_or("it is too short")?;
        let (floods, more) = floods.as_chunks::<2>();
        if floods.is_empty() || !rest.is_empty() || !more.is_empty() {
            return Err(format!("it has {} bytes, 16 and 16 for each worker are right", bytes.len()));
        }
        // Damaged, it would make connections eternal.
        if monotonic_ns > self::monotonic_ns() || worker_ns > 1 << 62 {
            return Err("it is of the future".to_owned());
        }
        let mut floods: Vec<(u64, u64)> = floods.iter().map(|[a, b]| (*a, *b)).collect();
        if floods.len() != workers {
            let longest = floods.iter().fold((0, 0), |(a, b), flood| (flood.0.max(a), flood.1.max(b)));
            floods = vec![longest; workers];
        }
        Ok(Self { worker_ns, monotonic_ns, floods })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let floods = self.floods.iter().flat_map(|(cookies, strays)| [*cookies, *strays]);
        [self.worker_ns, self.monotonic_ns].into_iter().chain(floods).flat_map(u64::to_le_bytes).collect()
    }
}

/// Writes beats.
#[derive(Debug)]
pub struct Heart {
    file: File,
    folder: std::path::PathBuf,
    beat: Beat,
    seen: Vec<Echo>,
    journal: Health,
    /// The file is as long as a beat is.
    fits: bool,
    broken: bool,
}

impl Heart {
    /// Beats into a folder from now on. `floods`: what an earlier lbd's last beat said, see [`Beat::floods`]; `journal`: how
    /// that goes.
    ///
    /// Errors: the file cannot be made.
    pub fn new(folder: &Path, floods: Vec<(u64, u64)>, journal: Health) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(folder.join("beat"))?;
        let beat = Beat { floods, ..Beat::default() };
        Ok(Self {
            file,
            folder: folder.to_owned(),
            beat,
            seen: Vec::new(),
            journal,
            fits: false,
            broken: false,
        })
    }

    /// The beat of a turn of the control core.
    pub fn beat(&mut self, director: &Director) {
        // Before the first turn of a worker nobody knows their clock; what an earlier lbd said holds.
        let Some(worker_ns) = director.clock_ns() else { return };
        if self.broken {
            return;
        }
        (self.beat.worker_ns, self.beat.monotonic_ns) = (worker_ns, monotonic_ns());
        let counters = director.worker_counters();
        self.seen.resize_with(counters.len(), Echo::default);
        self.beat.floods.resize(counters.len(), (0, 0));
        for ((seen, counters), until) in self.seen.iter_mut().zip(counters).zip(&mut self.beat.floods) {
            let now = Echo::of(counters);
            if now.cookies != seen.cookies {
                until.0 = worker_ns + cookie::LIFETIME_NS;
            }
            until.1 = until.1.max(now.strays_until(seen, worker_ns));
            *seen = now;
        }
        let written = self.write();
        if let Some(reason) = written.err().map(|error| error.to_string()).or_else(|| self.journal.fault()) {
            self.broken = true;
            // The next lbd must not believe what is no longer written.
            let _ = fs::remove_file(self.folder.join("head"));
            error!(reason, "connection tables are no longer kept: the next lbd begins anew");
        }
    }

    /// Writes the beat; of an earlier lbd, which may have had more workers, nothing is left behind it.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let bytes = self.beat.to_bytes();
        self.file.write_all_at(&bytes, 0)?;
        if !self.fits {
            self.file.set_len(bytes.len() as u64)?;
            self.fits = true;
        }
        Ok(())
    }
}
