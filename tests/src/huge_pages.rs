//! Huge pages of the machine for as long as a test needs them.

use std::fs::{self, File, OpenOptions};

use nix::fcntl::{Flock, FlockArg};

/// Pages of 2 MiB, all and free.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Reserved huge pages; dropped, the machine has as many as before.
#[derive(Debug)]
pub struct Reserved {
    before: u64,
    /// One test at a time counts pages, in whichever process.
    _lock: Flock<File>,
}

impl Reserved {
    /// Sees to it that exactly `pages` pages of 2 MiB are free; `None`: this machine does not do that.
    pub fn exactly(pages: u64) -> Option<Self> {
        let path = std::env::temp_dir().join("sluice-huge-pages.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).ok()?;
        let (before, free) = (read(POOL)?, read(FREE)?);
        let reserved = Self { before, _lock: lock };
        fs::write(POOL, ((before - free.min(before)) + pages).to_string()).ok()?;
        (free_pages()? == pages).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(POOL, self.before.to_string());
    }
}

/// Free pages of 2 MiB.
pub fn free_pages() -> Option<u64> {
    read(FREE)
}

fn read(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
