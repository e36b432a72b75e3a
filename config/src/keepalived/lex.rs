//! keepalived.conf as a tree of entries: definitions, conditions, includes, comments, quotes, blocks.

use std::collections::HashMap;

use super::note::{At, Notes};

/// Included files; deeper is a circle.
const MAX_DEPTH: usize = 16;
/// Blocks inside blocks; keepalived knows five.
const MAX_BLOCKS: usize = 16;
/// Bytes of a definition once those in it are put in.
const MAX_DEFINITION: usize = 64 << 10;
/// Bytes of all files once definitions are put in.
const MAX_TEXT: usize = 64 << 20;

/// Finds included files: the file that includes, and what it names (wildcards and all). Gives names and texts.
///
/// Errors: why they cannot be read.
pub type Files<'f> = &'f dyn Fn(&str, &str) -> Result<Vec<(String, String)>, String>;

/// A line with what its block holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub at: At,
    pub words: Vec<String>,
    /// `None`: it opens no block.
    pub block: Option<Vec<Entry>>,
}

impl Entry {
    /// Its first word.
    pub fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word behind the key, counted from 1.
    pub fn arg(&self, at: usize) -> Option<&str> {
        self.words.get(at).map(String::as_str)
    }

    /// The words behind the key.
    pub fn args(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// What its block holds; nothing where it has none.
    pub fn inner(&self) -> &[Entry] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads a file and all that it includes.
pub(super) fn tree(
    name: &str,
    text: &str,
    id: Option<&str>,
    files: Files<'_>,
    notes: &mut Notes,
) -> Vec<Entry> {
    let mut lines = Lines { id, files, notes, definitions: HashMap::new(), out: Vec::new(), left: MAX_TEXT };
    lines.file(name, text, 0);
    let lines = lines.out;
    let mut tree = Tree { open: vec![Vec::new()], too_deep: 0, notes };
    for (at, line) in &lines {
        tree.line(*at, line);
    }
    tree.finish()
}

/// Lines once includes, conditions and definitions are gone.
struct Lines<'a> {
    id: Option<&'a str>,
    files: Files<'a>,
    notes: &'a mut Notes,
    definitions: HashMap<String, String>,
    out: Vec<(At, String)>,
    left: usize,
}

impl Lines<'_> {
    fn file(&mut self, name: &str, text: &str, depth: usize) {
        let file = self.notes.file(name);
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let at = At { file, line: index + 1 };
            let mut line = line.trim().to_owned();
            let defines = definition(self.chosen(&line).unwrap_or_default()).is_some();
            // A comment goes on to the end of its line, whatever that is.
            while line.ends_with('\\') && !line.starts_with(['#', '!']) {
                line.pop();
                let Some((_, more)) = lines.next() else { break };
                line.push(if defines { '\n' } else { ' ' });
                line.push_str(more.trim());
            }
            self.whole(at, &line, name, depth);
        }
    }

    /// What is left of a line once its condition is looked at; `None`: the condition is not met.
    fn chosen<'l>(&self, line: &'l str) -> Option<&'l str> {
        let Some(rest) = line.strip_prefix('@') else { return Some(line) };
        let (condition, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let met = match condition.strip_prefix('^') {
            Some(other) => self.id != Some(other),
            None => self.id == Some(condition),
        };
        met.then_some(rest.trim())
    }

    fn whole(&mut self, at: At, line: &str, name: &str, depth: usize) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            return;
        }
        let Some(line) = self.chosen(line) else {
            if self.id.is_none() {
                let condition = line.split_whitespace().next().unwrap_or_default();
                self.notes.add(at, condition, "is left out: no configuration id was given (--id)");
            }
            return;
        };
        let mut words = line.split_whitespace();
        if let (
            Some("include" | "includer" | "includem" | "includew" | "includeb" | "includea"),
            Some(what),
        ) = (words.next(), words.next())
        {
            return self.include(at, what.trim_matches('"'), name, depth);
        }
        if let Some((defined, value)) = definition(line) {
            let value = self.expanded(at, value);
            if value.len() > MAX_DEFINITION {
                self.notes.add(at, defined, "is a definition of more than 64 KiB");
            } else {
                self.definitions.insert(defined.to_owned(), value);
            }
            return;
        }
        if line.starts_with("~SEQ") || line.starts_with("~LST") {
            let key = line.split('(').next().unwrap_or_default();
            return self.notes.add(
                at,
                key,
                "repeats a block, which is not offered here: write the blocks out",
            );
        }
        let line = self.expanded(at, line);
        match self.left.checked_sub(line.len() + 1) {
            Some(left) => self.left = left,
            None => return self.notes.add(at, "$", "is left out: the definitions grow to more than 64 MiB"),
        }
        self.out.extend(line.lines().map(|line| (at, line.to_owned())));
    }

    fn include(&mut self, at: At, what: &str, name: &str, depth: usize) {
        if depth >= MAX_DEPTH {
            return self.notes.add(at, "include", "is one of more than 16 files that include each other");
        }
        match (self.files)(name, what) {
            Ok(found) => found.iter().for_each(|(name, text)| self.file(name, text, depth + 1)),
            Err(why) => self.notes.add(at, "include", &why),
        }
    }

    /// The text with definitions in place of their names.
    fn expanded(&mut self, at: At, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, tail) = match braced {
                Some(found) => found,
                None => after.split_at(after.find(|c: char| !is_name(c)).unwrap_or(after.len())),
            };
            match self.definitions.get(name) {
                Some(value) => out.push_str(value),
                None if braced.is_some() => {
                    self.notes.add(at, &format!("${{{name}}}"), "is no definition that is known here");
                }
                // A dollar sign is at home in regular expressions and passwords too.
                None => {
                    out.push('$');
                    out.push_str(name);
                }
            }
            rest = tail;
            if out.len() > MAX_DEFINITION {
                break;
            }
        }
        out + rest
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Name and value of `$NAME=VALUE`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    (!name.is_empty() && name.chars().all(is_name)).then(|| (name, value.trim()))
}

/// What a line consists of.
enum Token {
    Word(String),
    Open,
    Close,
}

/// Words of a line; a comment ends it.
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' | '!' => break,
            '{' | '}' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(if c == '{' { Token::Open } else { Token::Close });
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            '"' | '\'' => {
                let word = word.get_or_insert_default();
                quoted(c, &mut chars, word);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

fn quoted(end: char, chars: &mut std::str::Chars<'_>, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            c if c == end => return,
            '\\' => match chars.next() {
                Some(c @ ('\\' | '"' | '\'')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => word.push('\\'),
            },
            c => word.push(c),
        }
    }
}

/// Splits the text of a command as keepalived does: at blanks, with quotes.
pub(super) fn arguments(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '"' | '\'' => quoted(c, &mut chars, word.get_or_insert_default()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Entries as they are built.
struct Tree<'n> {
    /// Blocks that are open, the file itself first.
    open: Vec<Vec<Entry>>,
    /// Blocks inside the last of them that are passed by.
    too_deep: usize,
    notes: &'n mut Notes,
}

impl Tree<'_> {
    fn line(&mut self, at: At, line: &str) {
        let mut fresh = true;
        for token in tokens(line) {
            match token {
                Token::Word(_) if self.too_deep > 0 => {}
                Token::Word(word) => {
                    let Some(block) = self.open.last_mut() else { return };
                    match block.last_mut() {
                        Some(entry) if !fresh && entry.block.is_none() => entry.words.push(word),
                        _ => block.push(Entry { at, words: vec![word], block: None }),
                    }
                    fresh = false;
                }
                Token::Open => {
                    self.begin(at);
                    fresh = true;
                }
                Token::Close => {
                    self.end(at);
                    fresh = true;
                }
            }
        }
    }

    fn begin(&mut self, at: At) {
        if self.too_deep > 0 || self.open.len() > MAX_BLOCKS {
            if self.too_deep == 0 {
                self.notes.add(at, "{", "is a block in more than 16 others");
            }
            self.too_deep += 1;
            return;
        }
        let Some(block) = self.open.last_mut() else { return };
        if block.last().is_none_or(|entry| entry.block.is_some()) {
            self.notes.add(at, "{", "is a block without a keyword");
            block.push(Entry { at, words: Vec::new(), block: None });
        }
        self.open.push(Vec::new());
    }

    fn end(&mut self, at: At) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
        } else if self.open.len() < 2 {
            self.notes.add(at, "}", "ends no block");
        } else if let Some(inner) = self.open.pop()
            && let Some(entry) = self.open.last_mut().and_then(|block| block.last_mut())
        {
            entry.block = Some(inner);
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        self.too_deep = 0;
        while self.open.len() > 1 {
            let at = self
                .open
                .iter()
                .rev()
                .skip(1)
                .find_map(|block| block.last())
                .map(|e| (e.at, e.words.join(" ")));
            if let Some((at, key)) = at {
                self.notes.add(at, &key, "opens a block that nothing ends");
            }
            self.end(At::default());
        }
        self.open.pop().unwrap_or_default()
    }
}
