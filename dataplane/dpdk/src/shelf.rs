//! Memory for connection tables that outlives the process: files of tmpfs or hugetlbfs, mapped. Needs no EAL.
//!
//! A file is the kernel's memory under a name; that of a process that was killed is found again under it, as the process
//! left it. Only tables that are in use get one: all its pages are there before the first packet, as a page that the
//! file system has no room for is a SIGBUS when it is touched. Others are lent by [`TableMemory`].
//!
//! A mapped file is locked (flock(2)) as long as it is mapped, by this process or another: memory is never lent twice.
//! Whoever may write to the folder and does not ask for the lock can do anything to lbd; the folder is root's alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::raw::c_void;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use lb_dataplane::conn::memory::{Lender, Life, Loan, Pages, Request};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::statvfs::statvfs;

use crate::table_memory::TableMemory;

/// Size of a huge page, bytes.
const HUGE: usize = 2 << 20;

/// Size of the smallest page that a file consists of, bytes.
const PAGE: usize = 4096;

/// A lender of memory in files.
#[derive(Debug)]
pub struct Shelf {
    folders: Vec<Folder>,
    /// End of every file's name.
    suffix: String,
    /// What has no file gets one, if it is used.
    makes: bool,
    others: Arc<TableMemory>,
    maps: Mutex<Vec<Map>>,
}

/// Where files are.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its path. It is there.
    pub path: PathBuf,
    /// It is one of hugetlbfs, with pages of 2 MiB; else of tmpfs.
    pub huge: bool,
}

#[derive(Debug)]
struct Map {
    address: usize,
    mapped: usize,
    lent: usize,
    /// Locked as long as it is mapped.
    _file: Flock<File>,
}

impl Shelf {
    /// A lender of the files in `folders` whose names end in `suffix`. `makes`: it makes files for what has none and is
    /// used, in the first folder that has room; else only what is there is lent, and the heap stands for the rest.
    pub fn new(folders: Vec<Folder>, suffix: String, makes: bool) -> Arc<Self> {
        Arc::new(Self { folders, suffix, makes, others: TableMemory::new(), maps: Mutex::default() })
    }

    /// The file of a table in a folder.
    fn file(&self, folder: &Folder, name: &str) -> PathBuf {
        let harmless = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = name.chars().map(harmless).collect();
        folder.path.join(format!("{name}.{}", self.suffix))
    }

    /// Memory of a file that is there, or, where `makes`, of a new one.
    ///
    /// Errors: it is mapped already, has another size, or there is no room for it.
    fn map(&self, folder: &Folder, request: &Request, makes: bool) -> io::Result<Loan> {
        let path = self.file(folder, &request.name);
        let unit = if folder.huge || request.bytes >= HUGE { HUGE } else { PAGE };
        let mapped = request.bytes.checked_next_multiple_of(unit).and_then(NonZeroUsize::new);
        let mapped = mapped.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(makes).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&path)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        if makes {
            if !folder.huge {
                has_room(&folder.path, mapped.get() as u64)?;
            }
            file.set_len(mapped.get() as u64)?;
        } else if file.metadata()?.len() != mapped.get() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its size is another"));
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that there is. No safe form: a
        // system call.
        let start = unsafe { mmap(None, mapped, access, MapFlags::MAP_SHARED, &*file, 0) }?;
        let ready = if folder.huge { Ok(()) } else { advise(start, mapped.get()) };
        // SAFETY: the range is a whole mapping of ours that nobody uses yet, and its bytes stay. No safe form: a system
        // call.
        let there = unsafe { madvise(start, mapped.get(), MmapAdvise::MADV_POPULATE_WRITE) };
        if let Err(error) = there {
            unmap(start, mapped.get());
            return Err(error.into());
        }
        let pages = match (folder.huge, ready) {
            (true, _) => Pages::Huge,
            (false, Ok(())) if is_joined(&folder.path) => Pages::Advised,
            (false, _) => Pages::Small,
        };
        let map =
            Map { address: start.as_ptr().addr(), mapped: mapped.get(), lent: request.bytes, _file: file };
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).push(map);
        // SAFETY: the mapping is new, writable, at least as long, of a file that we have locked, so nobody else has it
        // mapped, and ours until it comes back to `take_back` as the very reference made here. No safe form: memory from
        // the kernel.
        let memory = unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), request.bytes) };
        let life = if makes { Life::Kept } else { Life::Left };
        Ok(Loan { memory, pages, life })
    }

    /// The memory of a file that is there.
    pub fn there(&self, request: &Request) -> Option<Loan> {
        self.folders.iter().find_map(|folder| match self.map(folder, request, false) {
            Ok(loan) => Some(loan),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = self.file(folder, &request.name);
                tracing::warn!(file = %file.display(), "what an earlier lbd left is not used: {error}");
                if self.makes {
                    let _ = fs::remove_file(file);
                }
                None
            }
        })
    }

    /// The memory of a new file.
    pub fn make(&self, request: &Request) -> Option<Loan> {
        self.folders.iter().find_map(|folder| {
            // for less than half a huge page one would be a waste of what is scarce
            if folder.huge && request.bytes < HUGE / 2 {
                return None;
            }
            match self.map(folder, request, true) {
                Ok(loan) => Some(loan),
                Err(error) => {
                    let file = self.file(folder, &request.name);
                    // There may be no reserved pages, which is not worth a word: the next folder is.
                    if !folder.huge {
                        let mib = request.bytes >> 20;
                        tracing::warn!(
                            file = %file.display(),
                            mib,
                            "{} will not survive a restart: {error}",
                            request.name
                        );
                    }
                    // It may not have come about.
                    let _ = fs::remove_file(file);
                    None
                }
            }
        })
    }
}

impl Lender for Shelf {
    fn lend(&self, request: &Request) -> Option<Loan> {
        if let Some(loan) = self.there(request) {
            return Some(loan);
        }
        if !self.makes {
            return None;
        }
        let made = if request.used { self.make(request) } else { None };
        made.or_else(|| self.others.lend(request))
    }

    fn take_back(&self, memory: &'static mut [u8]) {
        let address = memory.as_ptr().addr();
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = maps.iter().position(|map| map.address == address && map.lent == memory.len()) else {
            drop(maps);
            return self.others.take_back(memory);
        };
        let map = maps.swap_remove(at);
        // Unmapped first, unlocked then.
        unmap(NonNull::from(memory).cast::<c_void>(), map.mapped);
    }
}

/// Whether a file system of memory and the memory itself have room: to try it out would take all that there is.
///
/// Errors: they have not.
fn has_room(folder: &Path, bytes: u64) -> io::Result<()> {
    let system = statvfs(folder)?;
    let free = system.blocks_available().saturating_mul(system.fragment_size());
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let free = free.min(kib.map_or(u64::MAX, |kib| kib << 10));
    if bytes <= free {
        return Ok(());
    }
    let (wanted, free) = (bytes >> 20, free >> 20);
    Err(io::Error::new(io::ErrorKind::StorageFull, format!("{wanted} MiB are wanted, {free} MiB are free")))
}

/// Asks the kernel to join the pages of a mapping of ours.
fn advise(start: NonNull<c_void>, bytes: usize) -> nix::Result<()> {
    // SAFETY: the range is a whole mapping of ours, and the advice changes no byte of it. No safe form: a system call.
    unsafe { madvise(start, bytes, MmapAdvise::MADV_HUGEPAGE) }
}

fn unmap(start: NonNull<c_void>, bytes: usize) {
    // SAFETY: a mapping of ours as a whole; the only reference to it, if one was made, has been given back. No safe form:
    // a system call.
    if let Err(error) = unsafe { munmap(start, bytes) } {
        tracing::warn!("memory of a table was not given back: {error}");
    }
}

/// Whether the kernel joins pages of files in a folder: by its mount's `huge=`, else as the system says.
/// Source: Linux, `Documentation/admin-guide/mm/transhuge.rst`.
fn is_joined(folder: &Path) -> bool {
    const SYSTEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let system = fs::read_to_string(SYSTEM).unwrap_or_default();
    if system.contains("[deny]") || system.contains("[force]") {
        return system.contains("[force]");
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holds = |line: &&str| line.split(' ').nth(1).is_some_and(|at| folder.starts_with(at));
    let at = |line: &&str| line.split(' ').nth(1).map_or(0, str::len);
    let mount = mounts.lines().filter(holds).max_by_key(at).unwrap_or_default();
    let own = mount.split([' ', ',']).find_map(|option| option.strip_prefix("huge="));
    own.is_some_and(|own| own != "never")
}

/// Where hugetlbfs with pages of 2 MiB is mounted, if it is.
pub fn hugetlbfs() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        let fits = kind == "hugetlbfs" && options.split(',').any(|option| option == "pagesize=2M");
        fits.then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder that goes.
    struct Temp(PathBuf);

    impl Temp {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("/dev/shm/sluice-shelf-{}-{next}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn shelf(&self, suffix: &str, makes: bool) -> Arc<Shelf> {
            Shelf::new(vec![Folder { path: self.0.clone(), huge: false }], suffix.to_owned(), makes)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn request(bytes: usize, used: bool) -> Request {
        Request { name: "worker 0, IPv4 connections".to_owned(), bytes, used }
    }

    #[test]
    fn what_was_left_is_there_again() {
        let temp = Temp::new();
        for (n, bytes) in [64, PAGE, HUGE - 64, HUGE, 2 * HUGE + 192].into_iter().enumerate() {
            let shelf = temp.shelf(&n.to_string(), true);
            let loan = shelf.lend(&request(bytes, true)).unwrap();
            assert_eq!(
                (loan.memory.len(), loan.life, loan.memory.as_ptr().addr() % 64),
                (bytes, Life::Kept, 0)
            );
            assert!(loan.memory.iter().all(|byte| *byte == 0) && loan.pages != Pages::Heap);
            loan.memory.fill(n as u8 + 1);
            // while it is lent nobody else gets it
            assert!(temp.shelf(&n.to_string(), false).lend(&request(bytes, true)).is_none());
            shelf.take_back(loan.memory);
            let again = temp.shelf(&n.to_string(), true);
            let loan = again.lend(&request(bytes, false)).unwrap();
            assert!(loan.life == Life::Left && loan.memory.iter().all(|byte| *byte == n as u8 + 1));
            again.take_back(loan.memory);
        }
        assert_eq!(temp.files(), 5);
    }

    #[test]
    fn what_is_not_used_gets_no_file_and_what_does_not_fit_goes() {
        let temp = Temp::new();
        let shelf = temp.shelf("1", true);
        let loan = shelf.lend(&request(8 * HUGE, false)).unwrap();
        assert!(loan.life == Life::Process && temp.files() == 0);
        shelf.take_back(loan.memory);
        let loan = shelf.lend(&request(8192, true)).unwrap();
        shelf.take_back(loan.memory);
        assert_eq!(temp.files(), 1);
        assert!(temp.shelf("1", false).lend(&request(4096, true)).is_none(), "of another size");
        assert_eq!(temp.files(), 1);
        let loan = shelf.lend(&request(4096, true)).unwrap();
        assert!(loan.life == Life::Kept && temp.files() == 1, "made anew");
        shelf.take_back(loan.memory);
    }

    #[test]
    fn without_room_memory_is_not_kept() {
        let temp = Temp::new();
        // more than there is: no SIGBUS, and no file that is of no use
        let bytes = 1 << 45;
        assert!(temp.shelf("1", true).make(&request(bytes, true)).is_none());
        assert_eq!(temp.files(), 0);
    }
}
