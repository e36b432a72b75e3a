//! Memory for connection tables in huge pages. Needs no EAL.
//!
//! Three kinds, the best first: pages reserved for hugetlb, while they last and for tables that are used; ordinary
//! memory that the kernel is asked to join into huge pages as it is first touched; ordinary memory.

use std::fs;
use std::num::NonZeroUsize;
use std::os::raw::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use lb_dataplane::conn::memory::{Lender, Life, Loan, Pages, Request};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size of a huge page, bytes: that of x86-64 and of most ARM kernels; another one costs an attempt that fails.
const HUGE: usize = 2 << 20;

/// Where the kernel says whether it joins pages. Source: Linux, `Documentation/admin-guide/mm/transhuge.rst`.
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// A lender of memory in huge pages. What is lent is unmapped when it comes back.
#[derive(Debug, Default)]
pub struct TableMemory {
    maps: Mutex<Vec<Map>>,
}

/// One mapping of ours.
#[derive(Debug)]
struct Map {
    address: usize,
    /// What was mapped, bytes; at least what was lent.
    mapped: usize,
    lent: usize,
}

impl TableMemory {
    /// A lender for the tables of a process.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Memory in small pages that stay small, to measure with.
    pub fn lend_small(&self, request: &Request) -> Option<Loan> {
        let mapped = NonZeroUsize::new(request.bytes.checked_next_multiple_of(HUGE)?)?;
        let start = map_aligned(mapped)?;
        // SAFETY: the range is a whole mapping of ours that nobody uses yet, and the advice changes no byte of it. No
        // safe form: a system call.
        let _ = unsafe { madvise(start, mapped.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        Some(self.lend_mapped(start, mapped.get(), request, Pages::Small))
    }

    fn lend_mapped(&self, start: NonNull<c_void>, mapped: usize, request: &Request, pages: Pages) -> Loan {
        let map = Map { address: start.as_ptr().addr(), mapped, lent: request.bytes };
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).push(map);
        // SAFETY: the mapping is new, private, zeroed, writable, at least as long, and ours until it comes back to
        // `take_back` as the very reference made here. No safe form: memory from the kernel.
        let memory = unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), request.bytes) };
        Loan { memory, pages, life: Life::Process }
    }
}

impl Lender for TableMemory {
    fn lend(&self, request: &Request) -> Option<Loan> {
        let mapped = NonZeroUsize::new(request.bytes.checked_next_multiple_of(HUGE)?)?;
        // for less than half a huge page one would be a waste of what is scarce
        if request.used
            && request.bytes >= HUGE / 2
            && let Some(start) = map_reserved(mapped)
        {
            return Some(self.lend_mapped(start, mapped.get(), request, Pages::Huge));
        }
        let start = map_aligned(mapped)?;
        // SAFETY: the range is a whole mapping of ours that nobody uses yet, and the advice changes no byte of it. No
        // safe form: a system call.
        let advised = unsafe { madvise(start, mapped.get(), MmapAdvise::MADV_HUGEPAGE) }.is_ok();
        let pages = if advised && is_transparent() { Pages::Advised } else { Pages::Small };
        Some(self.lend_mapped(start, mapped.get(), request, pages))
    }

    fn take_back(&self, memory: &'static mut [u8]) {
        let len = memory.len();
        let start = NonNull::from(memory).cast::<c_void>();
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = maps.iter().position(|map| map.address == start.as_ptr().addr() && map.lent == len)
        else {
            return;
        };
        let map = maps.swap_remove(at);
        // SAFETY: a mapping made by `lend`; the only reference to it was given back with this call. No safe form: a
        // system call.
        if let Err(error) = unsafe { munmap(start, map.mapped) } {
            tracing::warn!("memory of a table was not given back: {error}");
        }
    }
}

/// Reserved huge pages, all there; `None`: there are not enough.
fn map_reserved(bytes: NonZeroUsize) -> Option<NonNull<c_void>> {
    let start = map(bytes, MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB)?;
    // Reserved pages may still be refused at the first touch, by a control group: that would be a SIGBUS in a worker.
    // SAFETY: the range is a whole mapping of ours that nobody uses yet. No safe form: a system call.
    match unsafe { madvise(start, bytes.get(), MmapAdvise::MADV_POPULATE_WRITE) } {
        Ok(()) => Some(start),
        Err(_) => {
            unmap(start.as_ptr().addr(), bytes.get());
            None
        }
    }
}

/// Ordinary memory on a boundary of huge pages.
fn map_aligned(bytes: NonZeroUsize) -> Option<NonNull<c_void>> {
    let with_room = bytes.checked_add(HUGE)?;
    // no reserve of swap: a table's memory is used as connections come
    let start = map(with_room, MapFlags::MAP_NORESERVE)?;
    let before = start.as_ptr().addr().next_multiple_of(HUGE) - start.as_ptr().addr();
    // SAFETY: `before` is less than HUGE, which was mapped beyond `bytes`. No safe form: pointer arithmetic.
    let aligned = unsafe { start.byte_add(before) };
    unmap(start.as_ptr().addr(), before);
    unmap(aligned.as_ptr().addr() + bytes.get(), HUGE - before);
    Some(aligned)
}

fn map(bytes: NonZeroUsize, flags: MapFlags) -> Option<NonNull<c_void>> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses touches nothing that there is. No safe form: a
    // system call.
    unsafe { mmap_anonymous(None, bytes, access, flags | MapFlags::MAP_PRIVATE) }.ok()
}

/// Gives a part of a mapping back that was never lent.
fn unmap(address: usize, bytes: usize) {
    if bytes > 0
        && let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(address))
        // SAFETY: the caller has mapped it and lent it to nobody. No safe form: a system call.
        && let Err(error) = unsafe { munmap(start, bytes) }
    {
        tracing::warn!("memory beside a table was not given back: {error}");
    }
}

/// Whether the kernel joins pages of those who ask.
fn is_transparent() -> bool {
    fs::read_to_string(TRANSPARENT).is_ok_and(|modes| !modes.contains("[never]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_dataplane::conn::{HashKey, Key4, Table};

    #[test]
    fn memory_is_zeroed_aligned_and_goes_back() {
        let memory = TableMemory::new();
        for bytes in [64, HUGE - 64, HUGE, 5 * HUGE + 192] {
            for used in [false, true] {
                let request = Request { name: "test".to_owned(), bytes, used };
                let loan = memory.lend(&request).unwrap();
                assert_eq!((loan.memory.len(), loan.memory.as_ptr().addr() % HUGE), (bytes, 0));
                assert!(loan.memory.iter().all(|byte| *byte == 0) && loan.pages != Pages::Heap);
                loan.memory.fill(0xff);
                memory.take_back(loan.memory);
            }
        }
        assert!(memory.maps.lock().unwrap().is_empty());
    }

    #[test]
    fn what_was_never_lent_is_left_alone() {
        let memory = TableMemory::new();
        let request = Request { name: "test".to_owned(), bytes: 4096, used: false };
        let loan = memory.lend(&request).unwrap();
        let (ours, tail) = loan.memory.split_at_mut(64);
        memory.take_back(tail);
        memory.take_back(Box::leak(vec![0; 64].into_boxed_slice()));
        ours[0] = 1;
        assert_eq!(memory.maps.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_table_lives_in_it() {
        let memory = TableMemory::new();
        let lender: Arc<dyn Lender> = memory.clone();
        let table =
            Table::<Key4>::in_memory(100_000, HashKey([1, 2, 3, 4]), "test".to_owned(), true, &lender)
                .unwrap();
        assert!(table.pages() != Pages::Heap && table.is_empty());
        drop(table);
        assert!(memory.maps.lock().unwrap().is_empty());
    }
}
