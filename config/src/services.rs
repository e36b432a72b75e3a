//! The services of a Model: a list whose items are shared between Models until one changes them.
//!
//! A copy of the list costs a pointer per service, and two Models that differ in one service say so by their pointers.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use crate::model::Service;

/// Services in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(Vec<Arc<Service>>);

impl Services {
    /// Number of services.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Service> + ExactSizeIterator + Clone {
        self.0.iter().map(|service| &**service)
    }

    /// All of them, to be changed: each gets a copy of its own where it is shared.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Service> + ExactSizeIterator {
        self.0.iter_mut().map(Arc::make_mut)
    }

    /// All of them, as they are shared.
    pub fn shared(&self) -> &[Arc<Service>] {
        &self.0
    }

    /// The service at an index.
    pub fn get(&self, at: usize) -> Option<&Service> {
        self.0.get(at).map(|service| &**service)
    }

    /// The service at an index, to be changed: a copy of its own where it is shared.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Service> {
        self.0.get_mut(at).map(Arc::make_mut)
    }

    /// The first service.
    pub fn first(&self) -> Option<&Service> {
        self.get(0)
    }

    /// Adds a service after the others.
    pub fn push(&mut self, service: impl Into<Arc<Service>>) {
        self.0.push(service.into());
    }

    /// Adds a service before the one at an index, which there must be, or after all.
    pub fn insert(&mut self, at: usize, service: impl Into<Arc<Service>>) {
        self.0.insert(at, service.into());
    }

    /// Takes out the service at an index, which there must be.
    pub fn remove(&mut self, at: usize) -> Service {
        Arc::unwrap_or_clone(self.0.remove(at))
    }

    /// Takes out all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Takes out all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes out those that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&Service) -> bool) {
        self.0.retain(|service| keep(service));
    }

    /// Changes the order.
    pub fn reverse(&mut self) {
        self.0.reverse();
    }

    /// Exchanges two services.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.0.swap(a, b);
    }

    /// Shares with `other` the services that are equal at the same distance from the start or the end of both lists.
    pub fn share_with(&mut self, other: &Self) {
        let share = |(mine, theirs): (&mut Arc<Service>, &Arc<Service>)| {
            let equal = mine == theirs;
            if equal {
                *mine = theirs.clone();
            }
            equal
        };
        let front = self.0.iter_mut().zip(&other.0).map(share).take_while(|same| *same).count();
        let (mine, theirs) = (&mut self.0[front..], &other.0[front..]);
        let back = mine.iter_mut().rev().zip(theirs.iter().rev()).map(share).take_while(|same| *same).count();
        if mine.len() == theirs.len() {
            let middle = mine.len() - back;
            mine[..middle].iter_mut().zip(theirs).map(share).for_each(drop);
        }
    }

    /// What is not shared with `other`: of both lists the part between what they share at the start and at the end.
    ///
    /// Cost: a compare of two pointers per service.
    pub fn apart<'a>(&'a self, other: &'a Self) -> (&'a [Arc<Service>], &'a [Arc<Service>]) {
        let same = |(mine, theirs): &(&Arc<Service>, &Arc<Service>)| Arc::ptr_eq(mine, theirs);
        let front = self.0.iter().zip(&other.0).take_while(same).count();
        let (mine, theirs) = (&self.0[front..], &other.0[front..]);
        let back = mine.iter().rev().zip(theirs.iter().rev()).take_while(same).count();
        (&mine[..mine.len() - back], &theirs[..theirs.len() - back])
    }
}

impl Index<usize> for Services {
    type Output = Service;
    fn index(&self, at: usize) -> &Service {
        &self.0[at]
    }
}

impl IndexMut<usize> for Services {
    fn index_mut(&mut self, at: usize) -> &mut Service {
        Arc::make_mut(&mut self.0[at])
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().map(Arc::new).collect())
    }
}

impl FromIterator<Arc<Service>> for Services {
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl From<Vec<Service>> for Services {
    fn from(services: Vec<Service>) -> Self {
        services.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = &'a Service;
    type IntoIter = std::iter::Map<std::slice::Iter<'a, Arc<Service>>, fn(&'a Arc<Service>) -> &'a Service>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|service| &**service)
    }
}

impl<const N: usize> PartialEq<[Service; N]> for Services {
    fn eq(&self, other: &[Service; N]) -> bool {
        self.iter().eq(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &str) -> Services {
        let service = |name: char| Service::new(name.to_string(), "10.0.0.1:80/tcp".parse().unwrap());
        names.chars().map(service).collect()
    }

    fn names(of: &[Arc<Service>]) -> String {
        of.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn a_copy_shares_what_nobody_changes() {
        let old = services("abcd");
        let mut new = old.clone();
        new[1].name = "x".to_owned();
        assert_eq!(old[1].name, "b", "the other list keeps its own");
        let (mine, theirs) = new.apart(&old);
        assert_eq!((names(mine), names(theirs)), ("x".to_owned(), "b".to_owned()));
        new.remove(3);
        let (mine, theirs) = new.apart(&old);
        assert_eq!((names(mine), names(theirs)), ("xc".to_owned(), "bcd".to_owned()));
        assert_eq!(old.apart(&old).0.len(), 0);
    }

    #[test]
    fn equal_services_are_shared() {
        let old = services("abcde");
        for (text, mine, theirs) in [
            ("abcde", "", ""),
            ("abxde", "x", "c"),
            ("xbcdy", "xbcdy", "abcde"),
            ("abde", "", "c"),
            ("abcxde", "x", ""),
        ] {
            let mut new = services(text);
            new.share_with(&old);
            assert_eq!(new, services(text));
            let apart = new.apart(&old);
            assert_eq!((names(apart.0).as_str(), names(apart.1).as_str()), (mine, theirs), "{text}");
        }
        let mut new = services("xbcdy");
        new.share_with(&old);
        assert!(Arc::ptr_eq(&new.shared()[2], &old.shared()[2]));
    }
}
