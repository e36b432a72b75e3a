//! The connection tables of a worker, and how replies find what is in them.

use std::sync::Arc;

use crate::conn::memory::{Lender, Pages};
use crate::conn::table::NoMemory;
use crate::conn::{HashKey, Key4, Key6, Pair, Table, TableKey};

/// The tables of one worker.
#[derive(Debug)]
pub struct Tables {
    pub(crate) v4: Table<Key4>,
    pub(crate) v6: Table<Key6>,
    pub(crate) pairs4: Table<Pair<Key4>>,
    pub(crate) pairs6: Table<Pair<Key6>>,
    pub(crate) max: u32,
}

/// Kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections over IPv4.
    V4,
    /// Connections over IPv6.
    V6,
    /// What replies of NAT, full NAT and source NAT carry, and local ends, IPv4.
    Pairs4,
    /// The same of IPv6.
    Pairs6,
}

impl Kind {
    /// All, those first that deserve huge pages before the others.
    pub const ALL: [Self; 4] = [Self::V4, Self::V6, Self::Pairs4, Self::Pairs6];

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::V4 => "IPv4 connections",
            Kind::V6 => "IPv6 connections",
            Kind::Pairs4 => "IPv4 translations",
            Kind::Pairs6 => "IPv6 translations",
        }
    }
}

/// Tables of one kind that are made one worker after the other.
fn of_kind<K: TableKey>(
    kind: Kind,
    max: u32,
    secrets: &[HashKey],
    used: bool,
    lender: &Arc<dyn Lender>,
) -> Result<Vec<Table<K>>, NoMemory> {
    let name = |worker| format!("worker {worker}, {}", kind.name());
    secrets
        .iter()
        .enumerate()
        .map(|(worker, secret)| Table::in_memory(max, *secret, name(worker), used, lender))
        .collect()
}

/// Translations for so many connections: full NAT needs two for one.
fn pairs(max: u32) -> u32 {
    max.saturating_mul(2)
}

impl Tables {
    /// Tables on the heap for `max` connections.
    ///
    /// Errors: no memory.
    pub fn new(max: u32) -> Result<Self, NoMemory> {
        let secret = HashKey::random();
        Ok(Self {
            v4: Table::new(max, secret)?,
            v6: Table::new(max, secret)?,
            pairs4: Table::new(pairs(max), secret)?,
            pairs6: Table::new(pairs(max), secret)?,
            max,
        })
    }

    /// Tables for `max` connections for each of `workers` workers in memory that `lender` has. It is asked for one
    /// kind after the other, so that no worker's translations take what another one's connections need; `used` says
    /// which kinds the configuration needs.
    ///
    /// Errors: no memory, of the heap either.
    pub fn for_workers(
        workers: u16,
        max: u32,
        used: impl Fn(Kind) -> bool,
        lender: &Arc<dyn Lender>,
    ) -> Result<Vec<Self>, NoMemory> {
        let secrets: Vec<HashKey> = (0..workers).map(|_| HashKey::random()).collect();
        Self::with_secrets(&secrets, max, used, lender)
    }

    /// [`Tables::for_workers`] for one worker per secret of a table's hash. What `lender` has may be what an earlier process
    /// left; then nothing is found in it before it is [taken over](crate::keep).
    ///
    /// Errors: no memory, of the heap either.
    pub fn with_secrets(
        secrets: &[HashKey],
        max: u32,
        used: impl Fn(Kind) -> bool,
        lender: &Arc<dyn Lender>,
    ) -> Result<Vec<Self>, NoMemory> {
        let v4 = of_kind(Kind::V4, max, secrets, used(Kind::V4), lender)?;
        let v6 = of_kind(Kind::V6, max, secrets, used(Kind::V6), lender)?;
        let pairs4 = of_kind(Kind::Pairs4, pairs(max), secrets, used(Kind::Pairs4), lender)?;
        let pairs6 = of_kind(Kind::Pairs6, pairs(max), secrets, used(Kind::Pairs6), lender)?;
        let all = v4.into_iter().zip(v6).zip(pairs4).zip(pairs6);
        Ok(all.map(|(((v4, v6), pairs4), pairs6)| Self { v4, v6, pairs4, pairs6, max }).collect())
    }

    /// Whether the table of a kind is what an earlier process left.
    pub fn is_left(&self, kind: Kind) -> bool {
        match kind {
            Kind::V4 => self.v4.is_left(),
            Kind::V6 => self.v6.is_left(),
            Kind::Pairs4 => self.pairs4.is_left(),
            Kind::Pairs6 => self.pairs6.is_left(),
        }
    }

    /// Whether the table of a kind outlives the process.
    pub fn is_kept(&self, kind: Kind) -> bool {
        match kind {
            Kind::V4 => self.v4.is_kept(),
            Kind::V6 => self.v6.is_kept(),
            Kind::Pairs4 => self.pairs4.is_kept(),
            Kind::Pairs6 => self.pairs6.is_kept(),
        }
    }

    /// Bytes of the table of a kind, and what they consist of.
    pub fn memory(&self, kind: Kind) -> (usize, Pages) {
        match kind {
            Kind::V4 => (self.v4.bytes(), self.v4.pages()),
            Kind::V6 => (self.v6.bytes(), self.v6.pages()),
            Kind::Pairs4 => (self.pairs4.bytes(), self.pairs4.pages()),
            Kind::Pairs6 => (self.pairs6.bytes(), self.pairs6.pages()),
        }
    }

    /// Entries that fit the table of a kind.
    pub fn room(&self, kind: Kind) -> u32 {
        match kind {
            Kind::V4 | Kind::V6 => self.max,
            Kind::Pairs4 | Kind::Pairs6 => pairs(self.max),
        }
    }

    /// Connections in them.
    pub(crate) fn len(&self) -> u32 {
        self.v4.len() + self.v6.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::memory::{Loan, Request};
    use std::sync::Mutex;

    /// Writes down what is asked for, and has nothing.
    #[derive(Debug, Default)]
    struct Poor(Mutex<Vec<(String, bool)>>);

    impl Lender for Poor {
        fn lend(&self, request: &Request) -> Option<Loan> {
            self.0.lock().expect("lock").push((request.name.clone(), request.used));
            None
        }

        fn take_back(&self, _: &'static mut [u8]) {}
    }

    #[test]
    fn memory_is_asked_for_kind_by_kind() {
        let poor = Arc::new(Poor::default());
        let lender: Arc<dyn Lender> = poor.clone();
        let tables = Tables::for_workers(2, 100, |kind| kind == Kind::V4, &lender).expect("the heap has it");
        assert_eq!(tables.len(), 2);
        let asked = poor.0.lock().expect("lock").clone();
        let want: Vec<_> = Kind::ALL
            .iter()
            .flat_map(|kind| [0, 1].map(|n| (format!("worker {n}, {}", kind.name()), *kind == Kind::V4)))
            .collect();
        assert_eq!(asked, want);
        for kind in Kind::ALL {
            let (bytes, pages) = tables[1].memory(kind);
            assert!(bytes > 512 * 64 && pages == Pages::Heap);
            let room = if matches!(kind, Kind::V4 | Kind::V6) { 100 } else { 200 };
            assert_eq!(tables[1].room(kind), room);
        }
    }
}
