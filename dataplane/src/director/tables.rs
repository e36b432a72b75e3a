//! What destinations share in a snapshot: timeouts, tunnels, local ends, persistence, policies.
//!
//! Every distinct value has a place as long as something uses it, so a destination that does not change keeps its entry.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use lb_config::EffectivePolicy;

use crate::local_port::LocalEnds;
use crate::persist::Rule;
use crate::rewrite::{Encap, TunnelPlan};
use crate::snapshot::{DestEntry, Way};
use crate::state::TimeoutTable;

/// Most places of a table: entries name them in 16 bits, of which one value says that there is none.
const MOST: usize = u16::MAX as usize;

/// Values by place.
#[derive(Debug)]
pub struct Table<K, T = K> {
    values: Arc<Vec<T>>,
    places: HashMap<K, u16>,
    /// What is at a place, and how many use it.
    uses: Vec<(K, u32)>,
    free: Vec<u16>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { values: Arc::default(), places: HashMap::new(), uses: Vec::new(), free: Vec::new() }
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Table<K, T> {
    /// What snapshots hold; what is at a place that nothing uses is of no meaning.
    pub fn values(&self) -> Arc<Vec<T>> {
        self.values.clone()
    }

    /// The place of a value, in use once more; `None`: there are too many. The second says that it is new.
    ///
    /// Cost: a new value copies the table.
    fn place(&mut self, key: &K, make: impl FnOnce() -> T) -> Option<(u16, bool)> {
        if let Some(place) = self.places.get(key).copied() {
            self.again(place);
            return Some((place, false));
        }
        let values = Arc::make_mut(&mut self.values);
        let place = match self.free.pop() {
            Some(place) => place,
            None if values.len() < MOST => values.len() as u16,
            None => return None,
        };
        match (values.get_mut(usize::from(place)), self.uses.get_mut(usize::from(place))) {
            (Some(value), Some(uses)) => (*value, *uses) = (make(), (key.clone(), 1)),
            _ => {
                values.push(make());
                self.uses.push((key.clone(), 1));
            }
        }
        self.places.insert(key.clone(), place);
        Some((place, true))
    }

    /// One more uses a place.
    fn again(&mut self, place: u16) {
        if let Some((_, uses)) = self.uses.get_mut(usize::from(place)) {
            *uses += 1;
        }
    }

    /// One less does; what nobody uses any more is returned.
    pub fn release(&mut self, place: u16) -> Option<K> {
        let (key, uses) = self.uses.get_mut(usize::from(place))?;
        *uses -= 1;
        if *uses > 0 {
            return None;
        }
        self.places.remove(key);
        self.free.push(place);
        Some(key.clone())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tables {
    pub timeouts: Table<TimeoutTable>,
    pub tunnels: Table<(TunnelPlan, bool), Encap>,
    pub ends: Table<LocalEnds>,
    pub rules: Table<Rule>,
    pub policies: Table<EffectivePolicy>,
    /// Local ends that came into use (`true`) or went out of it since somebody looked.
    pub ends_news: Vec<(LocalEnds, bool)>,
}

/// The places that a destination uses.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub timeouts: u16,
    pub policy: u16,
    /// [`DestEntry::NO_RULE`]: none.
    pub rule: u16,
    pub tunnel: Option<u16>,
    pub ends: Option<u16>,
}

impl Places {
    pub fn of(entry: &DestEntry) -> Self {
        let tunnel = if let Way::Tunnel(at) = entry.way { Some(at) } else { None };
        let DestEntry { timeouts, policy, rule, way, .. } = *entry;
        Self { timeouts, policy, rule, tunnel, ends: way.local_ends() }
    }
}

impl Tables {
    /// The place of local ends, in use once more.
    pub fn ends(&mut self, ends: &LocalEnds) -> Option<u16> {
        let (place, new) = self.ends.place(ends, || ends.clone())?;
        if new {
            self.ends_news.push((ends.clone(), true));
        }
        Some(place)
    }

    pub fn timeouts(&mut self, table: TimeoutTable) -> Option<u16> {
        Some(self.timeouts.place(&table, || table)?.0)
    }

    pub fn rule(&mut self, rule: Option<&Rule>) -> Option<u16> {
        let Some(rule) = rule else { return Some(DestEntry::NO_RULE) };
        Some(self.rules.place(rule, || rule.clone())?.0)
    }

    pub fn policy(&mut self, policy: &EffectivePolicy) -> Option<u16> {
        Some(self.policies.place(policy, || *policy)?.0)
    }

    /// The place of a tunnel of this plan, which sets DF if `df` says so.
    pub fn tunnel(&mut self, plan: &TunnelPlan, encap: &Encap, df: bool) -> Option<u16> {
        Some(self.tunnels.place(&(*plan, df), || encap.with_df(df))?.0)
    }

    /// What is at a tunnel's place, with another DF: its place.
    pub fn tunnel_with_df(&mut self, place: u16, df: bool) -> u16 {
        let at = usize::from(place);
        let (Some(((plan, _), _)), Some(encap)) = (self.tunnels.uses.get(at), self.tunnels.values.get(at))
        else {
            return place;
        };
        let (plan, encap) = (*plan, *encap);
        match self.tunnel(&plan, &encap, df) {
            Some(new) => {
                self.tunnels.release(place);
                new
            }
            // no room: it stays as it was
            None => place,
        }
    }

    /// Values in use of each kind.
    #[cfg(test)]
    pub fn census(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let Self { timeouts, tunnels, ends, rules, policies, .. } = self;
        let counts = [timeouts.places.len(), tunnels.places.len(), ends.places.len(), rules.places.len()];
        let names = ["timeouts", "tunnels", "ends", "rules", "policies"];
        names.into_iter().zip(counts.into_iter().chain([policies.places.len()]))
    }

    /// One more destination uses these.
    pub fn again(&mut self, places: Places) {
        self.timeouts.again(places.timeouts);
        self.policies.again(places.policy);
        if places.rule != DestEntry::NO_RULE {
            self.rules.again(places.rule);
        }
        places.tunnel.inspect(|at| self.tunnels.again(*at));
        places.ends.inspect(|at| self.ends.again(*at));
    }

    /// One less does.
    pub fn release(&mut self, places: Places) {
        self.timeouts.release(places.timeouts);
        self.policies.release(places.policy);
        if places.rule != DestEntry::NO_RULE {
            self.rules.release(places.rule);
        }
        places.tunnel.inspect(|at| {
            self.tunnels.release(*at);
        });
        if let Some(gone) = places.ends.and_then(|at| self.ends.release(at)) {
            self.ends_news.push((gone, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_place_as_long_as_it_is_used() {
        let mut table: Table<&str> = Table::default();
        let place = |table: &mut Table<&'static str>, key: &'static str| table.place(&key, || key);
        assert_eq!(place(&mut table, "a"), Some((0, true)));
        assert_eq!(place(&mut table, "b"), Some((1, true)));
        assert_eq!(place(&mut table, "a"), Some((0, false)));
        let old = table.values();
        assert_eq!(table.release(0), None);
        assert_eq!(table.release(0), Some("a"));
        assert_eq!(place(&mut table, "c"), Some((0, true)), "a place that was free");
        assert_eq!((old[0], table.values()[0], table.values()[1]), ("a", "c", "b"));
    }

    #[test]
    fn there_are_as_many_places_as_entries_can_name() {
        let mut table: Table<usize> = Table::default();
        // nobody holds a copy, so none is made
        assert!((0..MOST).all(|n| table.place(&n, || n).is_some()));
        assert_eq!(table.place(&MOST, || 0), None);
        table.release(7);
        assert_eq!(table.place(&MOST, || 0), Some((7, true)));
    }
}
