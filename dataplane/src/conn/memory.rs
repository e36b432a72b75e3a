//! Where tables lie: memory lent by somebody who has huge pages, or the heap.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Pages that memory consists of; small ones cost a table 1.5 to 4 times as much per random line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Of the heap, whatever that takes.
    Heap,
    /// The system's smallest.
    Small,
    /// Small ones that the kernel was asked to join into huge ones.
    Advised,
    /// Huge ones, reserved.
    Huge,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Pages::Heap => "heap",
            Pages::Small => "small pages",
            Pages::Advised => "transparent huge pages",
            Pages::Huge => "reserved huge pages",
        })
    }
}

/// How long memory lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as the process.
    Process,
    /// The process after this one finds it as this one left it.
    Kept,
    /// Kept, and it holds what an earlier process left in a table of the same name and size.
    Left,
}

/// What a table asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of the process, one of a kind: "worker 0, IPv4".
    pub name: String,
    /// Size, bytes.
    pub bytes: usize,
    /// Whether the configuration uses the table, so that it deserves what is scarce.
    pub used: bool,
}

/// Memory that is lent.
#[derive(Debug)]
pub struct Loan {
    /// As many bytes as were asked for, aligned to at least 64 bytes; zeros unless they are [`Life::Left`].
    pub memory: &'static mut [u8],
    /// What it consists of.
    pub pages: Pages,
    /// How long it lives.
    pub life: Life,
}

/// Who lends memory to tables.
pub trait Lender: Send + Sync + std::fmt::Debug {
    /// Memory for a table; `None`: take the heap.
    fn lend(&self, request: &Request) -> Option<Loan>;

    /// Gets back what it lent. The bytes are what the table left.
    fn take_back(&self, memory: &'static mut [u8]);
}

/// An array in memory that is its own or lent.
pub struct Region<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> {
    held: Held<T>,
    pages: Pages,
    life: Life,
}

// The reference lies in the structure itself, and what clippy takes for a function that makes one is the macro's.
#[allow(clippy::mut_from_ref)]
mod held {
    use super::{FromBytes, Immutable, IntoBytes, KnownLayout, Memory};

    /// Bytes, and the elements that they are. Both kinds of memory are one pointer and one length: no access asks
    /// which.
    #[ouroboros::self_referencing]
    pub(super) struct Held<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> {
        memory: Memory,
        #[borrows(mut memory)]
        pub(super) elements: &'this mut [T],
    }

    impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Held<T> {
        /// The first `len` aligned elements in `memory`; `None`, and the memory goes back: it has not so many.
        pub(super) fn aligned(memory: Memory, len: usize) -> Option<Self> {
            let held = Self::try_new(memory, |memory| {
                let bytes = memory.aligned(len * size_of::<T>(), align_of::<T>()).ok_or(())?;
                <[T]>::mut_from_bytes(bytes).map_err(drop)
            });
            held.ok()
        }
    }
}

use held::Held;

/// Memory that holds elements.
enum Memory {
    /// Of the heap, with room to align the elements in. Bytes, because only what needs no alignment of its own comes
    /// zeroed from the kernel, page by page as it is touched; the allocator would write other zeros itself, and a
    /// table for 100 million connections would take all its memory at once.
    Own(Box<[u8]>),
    /// Somebody's, who gets it back.
    Lent(&'static mut [u8], Arc<dyn Lender>),
}

impl Memory {
    /// The first `bytes` bytes that are aligned to `align`; `None`: there are not so many.
    fn aligned(&mut self, bytes: usize, align: usize) -> Option<&mut [u8]> {
        let memory: &mut [u8] = match self {
            Self::Own(memory) => memory,
            Self::Lent(memory, _) => memory,
        };
        let skip = memory.as_ptr().align_offset(align);
        memory.get_mut(skip..skip.checked_add(bytes)?)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Lent(memory, lender) = self {
            lender.take_back(std::mem::take(memory));
        }
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Region<T> {
    /// `len` zeroed elements of the heap, which takes a page when it is first touched; `None`: no memory.
    pub fn own(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?.checked_add(align_of::<T>())?;
        let memory = <[u8]>::new_box_zeroed_with_elems(bytes).ok()?;
        Self::of(Memory::Own(memory), len, Pages::Heap, Life::Process)
    }

    /// `len` elements lent by `lender`, of the heap when it has none that fits; `None`: no memory. They are zeroed unless
    /// they are [`Life::Left`].
    ///
    /// `name`, `used`: see [`Request`].
    pub fn lent(len: usize, name: String, used: bool, lender: &Arc<dyn Lender>) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let Some(loan) = lender.lend(&Request { name, bytes, used }) else { return Self::own(len) };
        let Loan { memory, pages, life } = loan;
        if memory.len() != bytes {
            lender.take_back(memory);
            return Self::own(len);
        }
        // what is not aligned has too few bytes behind its first aligned one, and goes back
        Self::of(Memory::Lent(memory, lender.clone()), len, pages, life).or_else(|| Self::own(len))
    }

    fn of(memory: Memory, len: usize, pages: Pages, life: Life) -> Option<Self> {
        Some(Self { held: Held::aligned(memory, len)?, pages, life })
    }

    /// How long they live; `Life::Left`: they are what an earlier process left.
    pub fn life(&self) -> Life {
        self.life
    }

    /// What the memory consists of.
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> std::fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).field("pages", &self.pages).finish()
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Deref for Region<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.held.borrow_elements()
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> DerefMut for Region<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.held.with_elements_mut(|elements| &mut **elements)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Lends leaked memory, `off` bytes from where it should be, and counts.
    #[derive(Debug, Default)]
    pub struct Leak {
        pub off: usize,
        pub lent: AtomicUsize,
        pub back: AtomicUsize,
    }

    impl Lender for Leak {
        fn lend(&self, request: &Request) -> Option<Loan> {
            if !request.used {
                return None;
            }
            let bytes = request.bytes + 128;
            let memory = Box::leak(vec![0u8; bytes].into_boxed_slice());
            let start = memory.as_ptr().align_offset(64) + self.off;
            self.lent.fetch_add(request.bytes, Relaxed);
            let memory = &mut memory[start..start + request.bytes];
            Some(Loan { memory, pages: Pages::Advised, life: Life::Process })
        }

        fn take_back(&self, memory: &'static mut [u8]) {
            self.back.fetch_add(memory.len(), Relaxed);
        }
    }

    #[test]
    fn memory_is_lent_and_goes_back() {
        let leak = Arc::new(Leak::default());
        let lender: Arc<dyn Lender> = leak.clone();
        let mut region = Region::<u64>::lent(100, "test".to_owned(), true, &lender).expect("memory");
        region[99] = 7;
        assert_eq!((region.len(), region.iter().sum::<u64>(), region.pages()), (100, 7, Pages::Advised));
        assert_eq!((leak.lent.load(Relaxed), leak.back.load(Relaxed)), (800, 0));
        drop(region);
        assert_eq!(leak.back.load(Relaxed), 800);
    }

    #[test]
    fn the_heap_is_there_when_nobody_lends() {
        let lender: Arc<dyn Lender> = Arc::new(Leak::default());
        let region = Region::<u64>::lent(10, "test".to_owned(), false, &lender).expect("memory");
        assert_eq!((region.len(), region.pages()), (10, Pages::Heap));
        let crooked = Arc::new(Leak { off: 1, ..Leak::default() });
        let lender: Arc<dyn Lender> = crooked.clone();
        let region = Region::<u64>::lent(10, "test".to_owned(), true, &lender).expect("memory");
        assert_eq!((region.len(), region.pages()), (10, Pages::Heap));
        assert_eq!(crooked.back.load(Relaxed), 80, "what does not fit goes back");
    }

    /// What this process has in memory, KiB.
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn a_large_table_of_the_heap_takes_memory_as_it_is_used() {
        use crate::conn::{HashKey, Key4, Key6, Pair, Table};
        let before = resident_kib();
        let secret = HashKey([1, 2, 3, 4]);
        let v4 = Table::<Key4>::new(100_000_000, secret).expect("address space");
        let v6 = Table::<Key6>::new(100_000_000, secret).expect("address space");
        let pairs = Table::<Pair<Key4>>::new(100_000_000, secret).expect("address space");
        let bytes = v4.bytes() + v6.bytes() + pairs.bytes();
        assert!(bytes > 10_000_000_000, "{bytes}");
        // other tests run meanwhile, so the bound is generous: 2 % of it
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 200 << 10, "{grown} KiB of {} were touched", bytes >> 10);
    }

    #[test]
    fn elements_of_the_heap_are_zero_aligned_and_each_their_own() {
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C, align(64))]
        struct Line([u64; 8]);
        for len in [0, 1, 2, 511, 100_000] {
            let mut region = Region::<Line>::own(len).expect("memory");
            assert_eq!((region.len(), region.as_ptr().addr() % 64), (len, 0));
            assert!(region.iter().all(|line| line.0 == [0; 8]));
            region.iter_mut().enumerate().for_each(|(n, line)| line.0.fill(n as u64));
            assert!(region.iter().enumerate().all(|(n, line)| line.0 == [n as u64; 8]));
        }
        assert!(Region::<Line>::own(usize::MAX / 64).is_none(), "more than there is");
    }
}
