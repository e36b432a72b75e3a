//! The services of a Model: a list whose items are shared between Models until one changes them.
//!
//! A copy of the list costs a pointer, its first change after that one per service; two Models that differ in one service
//! say so by their pointers.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use crate::model::Service;

/// Services in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(Arc<Vec<Arc<Service>>>);

impl Services {
    /// The list, to be changed: a copy of its own where it is shared.
    fn all(&mut self) -> &mut Vec<Arc<Service>> {
        Arc::make_mut(&mut self.0)
    }

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
        self.all().iter_mut().map(Arc::make_mut)
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
        self.all().get_mut(at).map(Arc::make_mut)
    }

    /// The first service.
    pub fn first(&self) -> Option<&Service> {
        self.get(0)
    }

    /// Adds a service after the others.
    pub fn push(&mut self, service: impl Into<Arc<Service>>) {
        self.all().push(service.into());
    }

    /// Adds a service before the one at an index, which there must be, or after all.
    pub fn insert(&mut self, at: usize, service: impl Into<Arc<Service>>) {
        self.all().insert(at, service.into());
    }

    /// Takes out the service at an index, which there must be.
    pub fn remove(&mut self, at: usize) -> Service {
        Arc::unwrap_or_clone(self.all().remove(at))
    }

    /// Takes out all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.all().truncate(len);
    }

    /// Takes out all of them.
    pub fn clear(&mut self) {
        self.0 = Arc::default();
    }

    /// Takes out those that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&Service) -> bool) {
        self.all().retain(|service| keep(service));
    }

    /// Changes the order.
    pub fn reverse(&mut self) {
        self.all().reverse();
    }

    /// Exchanges two services.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.all().swap(a, b);
    }

    /// Shares with `other` the services that are equal at the same distance from the start or the end of both lists.
    pub fn share_with(&mut self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let (mine, theirs) = (&*self.0, &*other.0);
        // pointers come first: what is shared already is not looked into
        let equal = |(mine, theirs): &(&Arc<Service>, &Arc<Service>)| mine == theirs;
        let front = mine.iter().zip(theirs).take_while(equal).count();
        let back = mine[front..].iter().rev().zip(theirs[front..].iter().rev()).take_while(equal).count();
        let lengths = (mine.len(), theirs.len());
        let middle = if lengths.0 == lengths.1 { front..mine.len() - back } else { 0..0 };
        let middle = middle.filter(|at| mine[*at] == theirs[*at]);
        let pairs = (0..front).chain(middle).map(|at| (at, at));
        let pairs = pairs.chain((1..=back).map(|at| (lengths.0 - at, lengths.1 - at)));
        let pairs: Vec<_> = pairs.filter(|(at, there)| !Arc::ptr_eq(&mine[*at], &theirs[*there])).collect();
        if pairs.is_empty() {
            return;
        }
        let mine = self.all();
        for (at, there) in pairs {
            mine[at] = theirs[there].clone();
        }
    }

    /// What is not shared with `other`: of both lists the part between what they share at the start and at the end.
    ///
    /// Cost: a compare of two pointers per service.
    pub fn apart<'a>(&'a self, other: &'a Self) -> (&'a [Arc<Service>], &'a [Arc<Service>]) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return (&[], &[]);
        }
        let same = |(mine, theirs): &(&Arc<Service>, &Arc<Service>)| Arc::ptr_eq(mine, theirs);
        let front = self.0.iter().zip(&*other.0).take_while(same).count();
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
        Arc::make_mut(&mut self.all()[at])
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(Arc::new(services.into_iter().map(Arc::new).collect()))
    }
}

impl FromIterator<Arc<Service>> for Services {
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        Self(Arc::new(services.into_iter().collect()))
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
