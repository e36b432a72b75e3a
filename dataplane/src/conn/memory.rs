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
    /// Zeros, as many as were asked for, aligned to at least 64 bytes.
    pub memory: &'static mut [u8],
    /// What it consists of.
    pub pages: Pages,
}

/// Who lends memory to tables.
pub trait Lender: Send + Sync + std::fmt::Debug {
    /// Memory for a table; `None`: take the heap.
    fn lend(&self, request: &Request) -> Option<Loan>;

    /// Gets back what it lent. The bytes are what the table left.
    fn take_back(&self, memory: &'static mut [u8]);
}

/// An array in memory that is its own or lent.
#[derive(Debug)]
pub struct Region<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> {
    held: Held<T>,
    pages: Pages,
    lender: Option<Arc<dyn Lender>>,
}

/// Both forms are a pointer and a length in the same place, so telling them apart costs nothing.
#[derive(Debug)]
enum Held<T: 'static> {
    Own(Box<[T]>),
    Lent(&'static mut [T]),
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Region<T> {
    /// `len` zeroed elements of the heap; `None`: no memory.
    pub fn own(len: usize) -> Option<Self> {
        let held = Held::Own(<[T]>::new_box_zeroed_with_elems(len).ok()?);
        Some(Self { held, pages: Pages::Heap, lender: None })
    }

    /// `len` zeroed elements lent by `lender`, of the heap when it has none that fits; `None`: no memory.
    ///
    /// `name`, `used`: see [`Request`].
    pub fn lent(len: usize, name: String, used: bool, lender: &Arc<dyn Lender>) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let Some(loan) = lender.lend(&Request { name, bytes, used }) else { return Self::own(len) };
        let Loan { memory, pages } = loan;
        if memory.len() != bytes || !memory.as_ptr().cast::<T>().is_aligned() {
            lender.take_back(memory);
            return Self::own(len);
        }
        let elements = <[T]>::mut_from_bytes(memory).ok()?;
        Some(Self { held: Held::Lent(elements), pages, lender: Some(lender.clone()) })
    }

    /// What the memory consists of.
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Drop for Region<T> {
    fn drop(&mut self) {
        if let (Held::Lent(elements), Some(lender)) = (&mut self.held, &self.lender) {
            lender.take_back(std::mem::take(elements).as_mut_bytes());
        }
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> Deref for Region<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.held {
            Held::Own(elements) => elements,
            Held::Lent(elements) => elements,
        }
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + 'static> DerefMut for Region<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.held {
            Held::Own(elements) => elements,
            Held::Lent(elements) => elements,
        }
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
            Some(Loan { memory: &mut memory[start..start + request.bytes], pages: Pages::Advised })
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
}
