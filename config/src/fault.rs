//! What is wrong with a configuration: every fault, each with its place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeTable;

use crate::path::{Path, Place, offset};

/// One thing that is wrong in a configuration text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// TOML path such as `services[2].servers[0].weight`; empty for a fault of syntax.
    pub path: String,
    /// What is wrong, with the value and the limit.
    pub message: String,
}

/// `line 12: services[0].servers[1].weight: 70000 is above the limit 65535`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All faults of a text in the order of their places; at least one.
///
/// Limits: beyond 1000 they are counted only, so that a hostile text cannot make us hold a fault per byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    list: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// The faults, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.list.iter()
    }

    /// How many faults there are, those counted only included.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// Faults of syntax: the first of each line, as one slip makes the parser stumble several times.
    pub(crate) fn syntax(text: &str, errors: &[toml::de::Error]) -> Self {
        let found = errors.iter().map(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (at, String::new(), error.message().to_owned())
        });
        let mut faults = Self::placed(text, found.collect(), 0);
        faults.list.dedup_by_key(|fault| fault.line);
        faults.more = faults.list.len().saturating_sub(MAX_FAULTS);
        faults.list.truncate(MAX_FAULTS);
        faults
    }

    /// Gives each problem its line and column in `text`, which `document` was read from.
    pub(crate) fn locate(text: &str, document: &Spanned<DeTable<'_>>, problems: Problems) -> Self {
        let at = |p: Problem| (offset(document, &p.path, p.place), p.path.to_string(), p.message);
        Self::placed(text, problems.list.into_iter().map(at).collect(), problems.more)
    }

    /// Sorts by offset and counts lines and columns in one pass over the text.
    fn placed(text: &str, mut found: Vec<(usize, String, String)>, more: usize) -> Self {
        found.sort_by_key(|(at, _, _)| *at);
        let (mut line, mut column, mut seen) = (1, 1, 0);
        let mut list = Vec::with_capacity(found.len());
        for (at, path, message) in found {
            // A fault at the very end points just past the last character; none splits a character.
            let mut at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            for c in text[seen..at].chars() {
                (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            seen = at;
            list.push(Fault { line, column, path, message });
        }
        Self { list, more }
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One fault per line, without a newline after the last.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Faults {}

/// A file could not be made a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than a configuration may be.
    #[error("{}: longer than the limit of {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Largest length, bytes.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{}: not UTF-8 text (byte {offset})", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not UTF-8.
        offset: usize,
    },
    /// The file was read and is wrong.
    #[error("{}:\n{faults}", path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        faults: Faults,
    },
}

/// Most faults that are kept.
const MAX_FAULTS: usize = 1000;

/// A fault by its path, before it has a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub path: Path,
    pub place: Place,
    pub message: String,
}

/// Faults as the reader and the checks find them.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub list: Vec<Problem>,
    /// Found after the list was full.
    pub more: usize,
}

impl Problems {
    /// Adds a fault of the value at `path`.
    pub fn add(&mut self, path: Path, message: impl Into<String>) {
        self.add_at(path, Place::Value, message.into());
    }

    /// Whether a fault of the value at `path` was found.
    pub fn concern(&self, path: &Path) -> bool {
        self.list.iter().any(|problem| problem.path == *path)
    }

    /// Adds a fault of a key or its value.
    pub fn add_at(&mut self, path: Path, place: Place, message: String) {
        if self.list.len() < MAX_FAULTS {
            self.list.push(Problem { path, place, message });
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let found = [(7, "end"), (0, "start"), (4, "after é"), (3, "inside é"), (99, "past")];
        let found = found.map(|(at, message)| (at, String::new(), message.to_owned()));
        let faults = Faults::placed("a\né=\nx", found.to_vec(), 0);
        let places: Vec<_> = faults.iter().map(|f| (f.line, f.column, f.message.as_str())).collect();
        assert_eq!(
            places,
            [(1, 1, "start"), (2, 1, "inside é"), (2, 2, "after é"), (3, 2, "end"), (3, 2, "past")]
        );
    }

    #[test]
    fn faults_beyond_the_limit_are_counted() {
        let mut problems = Problems::default();
        for index in 0..1005 {
            problems.add(crate::path::toml_path!("workers", index), "wrong");
        }
        let document = DeTable::parse("").unwrap();
        let faults = Faults::locate("", &document, problems);
        assert_eq!(faults.count(), 1005);
        let text = faults.to_string();
        assert_eq!(text.lines().count(), 1001);
        assert!(text.ends_with("line 1: workers[999]: wrong\nand 5 more"));
    }
}
