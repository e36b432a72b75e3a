//! A long array of which copies share what neither changes.
//!
//! Snapshots hold copies of what the control core keeps: a copy costs a pointer, a change of an entry the copy of its page
//! and of the list of pages. Reading costs one load more than a plain array.

use std::sync::Arc;

/// Entries of a page.
const PAGE: usize = 256;

/// Entries by index; those that were never set are as `T::default()`.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    pages: Arc<[Arc<[T; PAGE]>]>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Arc::new([]) }
    }
}

impl<T> Paged<T> {
    /// The entry at an index; `None`: no entry so far behind was ever set.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        Some(&self.pages.get(at / PAGE)?[at % PAGE])
    }

    /// All entries, by index, to the end of the last page.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

impl<T: Clone + Default> Paged<T> {
    /// Sets the entry at an index.
    ///
    /// Cost: of the first change since the last copy that of the list of pages, and of the first in a page that of the
    /// page.
    pub fn set(&mut self, at: usize, entry: T) {
        let page = at / PAGE;
        if page >= self.pages.len() {
            // as a vector grows: one that is filled entry by entry is not copied for every page
            let len = (page + 1).max(self.pages.len() + self.pages.len() / 4);
            let empty = Arc::new(std::array::from_fn(|_| T::default()));
            let more = std::iter::repeat_n(&empty, len - self.pages.len());
            self.pages = self.pages.iter().chain(more).cloned().collect();
        }
        // the page is there
        if let Some(page) = Arc::make_mut(&mut self.pages).get_mut(page) {
            Arc::make_mut(page)[at % PAGE] = entry;
        }
    }
}

impl<T: Clone + Default> FromIterator<T> for Paged<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut new = Self::default();
        entries.into_iter().enumerate().for_each(|(at, entry)| new.set(at, entry));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had_and_shares_the_rest() {
        let mut new: Paged<u32> = (0..1000).collect();
        let old = new.clone();
        new.set(300, 7);
        new.set(1_000_000, 8);
        assert_eq!((old.get(300), new.get(300)), (Some(&300), Some(&7)));
        assert_eq!((old.get(1_000_000), new.get(1_000_000), new.get(999_999)), (None, Some(&8), Some(&0)));
        assert!((0..1000).all(|at| at == 300 || new.get(at) == Some(&(at as u32))));
        assert!(Arc::ptr_eq(&old.pages[0], &new.pages[0]));
        assert!(!Arc::ptr_eq(&old.pages[1], &new.pages[1]));
    }
}
