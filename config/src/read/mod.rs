//! TOML to a [`Draft`]: keys, types and the syntax of values. What the values mean together is `check`'s.

mod address;
mod health;
mod ipvs_sync;
mod keys;
mod policy;
mod scheduler;
mod sections;
mod services;
mod sync;
mod value;
mod vrrp;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::draft::Draft;
use crate::fault::Problems;
use crate::path::{Path, Place, Step};
use crate::text::{nearest, show};

#[cfg(test)]
pub(crate) use keys::sections as known_sections;

/// Reads a document; whatever is wrong goes to `problems`.
pub(crate) fn document(table: &DeTable<'_>, problems: &mut Problems) -> Draft {
    sections::root(&mut Reader { path: Path::default(), problems }, table)
}

/// What a table holds under a key.
enum Field<T> {
    /// No such key.
    Absent,
    /// A value that is no `T`; the fault is reported.
    Bad,
    /// The value.
    Is(T),
}

impl<T> Field<T> {
    /// The value, or `default` where there is none; `None`: its fault is reported.
    fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Is(value) => Some(value),
        }
    }

    /// The value, or `default` where there is none or its fault is reported.
    fn or_default(self, default: T) -> T {
        match self {
            Self::Absent | Self::Bad => default,
            Self::Is(value) => value,
        }
    }

    /// As an optional value; the outer `None`: its fault is reported.
    fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Bad => None,
            Self::Is(value) => Some(Some(value)),
        }
    }
}

/// A place in the document, and where its faults go.
struct Reader<'p> {
    path: Path,
    problems: &'p mut Problems,
}

impl Reader<'_> {
    /// Runs `read` one step further down.
    fn at<T>(&mut self, step: impl Into<Step>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.0.push(step.into());
        let result = read(self);
        self.path.0.pop();
        result
    }

    /// Reports a fault of the present place.
    fn fault(&mut self, message: impl Into<String>) {
        self.problems.add(self.path.clone(), message);
    }

    /// Reads one value at the present place.
    fn value<T>(
        &mut self,
        value: &DeValue<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        match read(value) {
            Ok(value) => Field::Is(value),
            Err(message) => {
                self.fault(message);
                Field::Bad
            }
        }
    }

    /// Reads the value of `key`, if there is one.
    fn field<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        match table.get(key) {
            None => Field::Absent,
            Some(value) => self.at(key, |r| r.value(value.get_ref(), read)),
        }
    }

    /// Reads the value of `key`, which must be there.
    fn required<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        match self.field(table, key, read) {
            Field::Absent => {
                self.at(key, |r| r.fault("is missing"));
                None
            }
            field => field.optional().flatten(),
        }
    }

    /// Reads the elements of the array `key`; an element that is faulty is `None`.
    fn list<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<Vec<Option<T>>> {
        let Some(value) = table.get(key) else { return Field::Absent };
        self.at(key, |r| match value.get_ref() {
            DeValue::Array(items) => {
                Field::Is(r.items(items, |r, item| r.value(item, &read).optional().flatten()))
            }
            other => {
                r.fault(value::wrong_type("an array", other));
                Field::Bad
            }
        })
    }

    /// Calls `read` for each element of an array, at its place.
    fn items<T>(
        &mut self,
        items: &[Spanned<DeValue<'_>>],
        read: impl Fn(&mut Self, &DeValue<'_>) -> T,
    ) -> Vec<T> {
        let each =
            |(index, item): (usize, &Spanned<DeValue<'_>>)| self.at(index, |r| read(r, item.get_ref()));
        items.iter().enumerate().map(each).collect()
    }

    /// Reads the table `key` with `read`, if there is one, and reports its keys that are not among `known`.
    fn table<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        known: &[&str],
        read: impl FnOnce(&mut Self, &DeTable<'_>) -> T,
    ) -> Option<T> {
        let value = table.get(key)?;
        self.at(key, |r| r.as_table(value.get_ref(), known, read))
    }

    /// Reads the array of tables `key`; an element that is no table is `T`'s default.
    fn tables<T: Default>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        known: &[&str],
        read: impl Fn(&mut Self, &DeTable<'_>) -> T,
    ) -> Field<Vec<T>> {
        let Some(value) = table.get(key) else { return Field::Absent };
        let element = |r: &mut Self, item: &DeValue<'_>| r.as_table(item, known, &read).unwrap_or_default();
        self.at(key, |r| match value.get_ref() {
            DeValue::Array(items) => Field::Is(r.items(items, element)),
            other => {
                let header = format!("an array of tables ([[{}]])", r.header());
                r.fault(value::wrong_type(&header, other));
                Field::Bad
            }
        })
    }

    fn as_table<T>(
        &mut self,
        value: &DeValue<'_>,
        known: &[&str],
        read: impl FnOnce(&mut Self, &DeTable<'_>) -> T,
    ) -> Option<T> {
        match value {
            DeValue::Table(table) => {
                self.unknown_keys(table, known);
                Some(read(self, table))
            }
            other => {
                self.fault(value::wrong_type("a table", other));
                None
            }
        }
    }

    /// Reports every key of `table` that is not among `known`.
    fn unknown_keys(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys().map(|key| key.get_ref().as_ref()) {
            if known.contains(&key) {
                continue;
            }
            let mut message = "unknown key".to_owned();
            if let Some(near) = nearest(key, known.iter().copied()) {
                message.push_str(&format!(", did you mean {}?", show(near)));
            }
            message.push_str(&format!(" (known here: {})", known.join(", ")));
            let mut path = self.path.clone();
            path.0.push(Step::Key(key.to_owned().into()));
            self.problems.add_at(path, Place::Key, message);
        }
    }

    /// The present place as a table header names it: without indices.
    fn header(&self) -> String {
        let keys = self.path.0.iter().filter(|step| matches!(step, Step::Key(_)));
        Path(keys.cloned().collect()).to_string()
    }
}

#[cfg(test)]
mod tests;
