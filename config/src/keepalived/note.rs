//! What was not carried over, by line.

use std::collections::HashSet;
use std::fmt;

use super::reasons::REASONS;
use crate::text::show;

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct At {
    /// Place of the file among those read.
    pub file: usize,
    /// Counted from 1.
    pub line: usize,
}

/// Something that the configuration does not say, or says otherwise than the file it is from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Name of the included file; `None`: the file itself.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// The word that it is about.
    pub key: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Note {
    /// `line 7: KEY: WHY`, with the file's name in front if it is an included one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        write!(f, "line {}: {}: {}", self.line, self.key, self.why)
    }
}

/// Notes in the order in which they come up, none twice.
#[derive(Debug, Default)]
pub(super) struct Notes {
    files: Vec<String>,
    list: Vec<(At, Note)>,
    seen: HashSet<Note>,
}

impl Notes {
    /// Makes a file known; the first is the one that is read.
    pub fn file(&mut self, name: &str) -> usize {
        self.files.push(name.to_owned());
        self.files.len() - 1
    }

    /// Notes something about `key`.
    pub fn add(&mut self, at: At, key: &str, why: &str) {
        let file = if at.file == 0 { None } else { self.files.get(at.file).cloned() };
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        let key = if key.len() <= 64 && key.chars().all(plain) { key.to_owned() } else { show(key) };
        let note = Note { file, line: at.line, key, why: why.to_owned() };
        if self.seen.insert(note.clone()) {
            self.list.push((at, note));
        }
    }

    /// Notes that nothing here stands for `key`.
    pub fn skip(&mut self, at: At, key: &str) {
        let known = REASONS.iter().find(|(_, keys)| keys.contains(&key));
        self.add(at, key, known.map_or("unknown key", |(why, _)| why));
    }

    /// All of them by file and line.
    pub fn sorted(mut self) -> Vec<Note> {
        self.list.sort_by_key(|(at, _)| (at.file, at.line));
        self.list.into_iter().map(|(_, note)| note).collect()
    }
}
