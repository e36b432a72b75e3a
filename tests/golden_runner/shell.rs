//! The part of the shell that transcripts are written in, read strictly: what is not known here is an error.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Result, bail};

/// Commands in order.
#[derive(Clone, Debug, PartialEq)]
pub struct List(pub Vec<Item>);

/// A pipeline and what follows from its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Whether it runs.
    pub when: When,
    /// Left to right.
    pub pipeline: Vec<Cmd>,
    /// Ended by `&`.
    pub background: bool,
}

/// When a pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Always,
    /// After `&&`.
    Success,
    /// After `||`.
    Failure,
}

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub enum Cmd {
    /// `for NAME in WORDS; do LIST; done`.
    For(String, Vec<Word>, List),
    /// Words and where its streams go.
    Simple(Vec<Word>, Vec<Redirect>),
}

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Redirect {
    /// `<FILE`.
    In(Word),
    /// `>FILE`, `2>FILE`: the stream's number and the file.
    Out(u8, Word),
    /// `2>&1`.
    ErrToOut,
}

/// Parts that make a word.
pub type Word = Vec<Part>;

/// A part of a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// `$NAME`; whether in quotes.
    Var(String, bool),
    /// `$((EXPRESSION))`.
    Arith(String),
    /// `$(LIST)`; whether in quotes.
    Output(List, bool),
}

/// Reads a command line.
pub fn parse(line: &str) -> Result<List> {
    let mut parser = Parser { chars: line.chars().peekable() };
    let list = parser.list(&[])?;
    match parser.chars.peek() {
        None => Ok(list),
        Some(c) => bail!("{c:?} is not understood in {line:?}"),
    }
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        while self.chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    }

    fn ahead(&self, text: &str) -> bool {
        let mut chars = self.chars.clone();
        text.chars().all(|c| chars.next() == Some(c))
    }

    fn take(&mut self, text: &str) -> bool {
        let is = self.ahead(text);
        if is {
            for _ in text.chars() {
                self.chars.next();
            }
        }
        is
    }

    /// Whether the next word is this one.
    fn keyword(&mut self, word: &str) -> bool {
        let mut chars = self.chars.clone();
        let same = word.chars().all(|c| chars.next() == Some(c));
        same && chars.next().is_none_or(|c| c.is_whitespace() || ";)|&".contains(c))
    }

    /// Commands until one of these words, a closing parenthesis, or the end.
    fn list(&mut self, ends: &[&str]) -> Result<List> {
        let mut items = Vec::new();
        let mut when = When::Always;
        loop {
            while self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\n')).is_some() {}
            let end = self.chars.peek().is_none_or(|c| *c == ')') || ends.iter().any(|end| self.keyword(end));
            if end {
                return if when == When::Always { Ok(List(items)) } else { bail!("nothing after && or ||") };
            }
            let mut pipeline = vec![self.command()?];
            self.blanks();
            while !self.ahead("||") && self.take("|") {
                self.blanks();
                pipeline.push(self.command()?);
                self.blanks();
            }
            let mut item = Item { when, pipeline, background: false };
            when = When::Always;
            if self.take("&&") {
                when = When::Success;
            } else if self.take("||") {
                when = When::Failure;
            } else if self.take("&") {
                item.background = true;
            } else if !(self.take(";") || self.take("\n")) && self.chars.peek().is_some_and(|c| *c != ')') {
                bail!("what follows {:?} is not understood", item.pipeline);
            }
            items.push(item);
        }
    }

    fn command(&mut self) -> Result<Cmd> {
        if self.keyword("for") {
            return self.for_loop();
        }
        for word in ["if", "while", "until", "case", "{", "("] {
            if self.keyword(word) {
                bail!("{word} is not understood");
            }
        }
        let (mut words, mut redirects) = (Vec::new(), Vec::new());
        loop {
            self.blanks();
            if self.take("2>&1") {
                redirects.push(Redirect::ErrToOut);
            } else if self.take("2>") {
                self.blanks();
                redirects.push(Redirect::Out(2, self.word()?));
            } else if self.ahead(">>") || self.ahead("<<") || self.ahead(">&") {
                bail!("a redirection is not understood");
            } else if self.take(">") {
                self.blanks();
                redirects.push(Redirect::Out(1, self.word()?));
            } else if self.take("<") {
                self.blanks();
                redirects.push(Redirect::In(self.word()?));
            } else if self.chars.peek().is_none_or(|c| ";&|)\n".contains(*c)) {
                break;
            } else {
                words.push(self.word()?);
            }
        }
        if words.is_empty() {
            bail!("an empty command");
        }
        Ok(Cmd::Simple(words, redirects))
    }

    fn for_loop(&mut self) -> Result<Cmd> {
        let expect = |parser: &mut Self, word: &str| {
            parser.blanks();
            if parser.keyword(word) && parser.take(word) {
                Ok(())
            } else {
                bail!("{word} is missing in a loop")
            }
        };
        expect(self, "for")?;
        self.blanks();
        let name = self.name();
        expect(self, "in")?;
        let mut words = Vec::new();
        loop {
            self.blanks();
            if self.take(";") || self.take("\n") {
                break;
            }
            if self.chars.peek().is_none() {
                bail!("a loop does not end");
            }
            words.push(self.word()?);
        }
        expect(self, "do")?;
        let body = self.list(&["done"])?;
        expect(self, "done")?;
        Ok(Cmd::For(name, words, body))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn word(&mut self) -> Result<Word> {
        let (mut parts, mut text) = (Word::new(), String::new());
        // an empty word in quotes is a word
        let mut quoted = false;
        while let Some(c) = self.chars.next_if(|c| !" \t\n;&|<>()".contains(*c)) {
            match c {
                '\\' => text.extend(self.chars.next()),
                '\'' => {
                    quoted = true;
                    loop {
                        match self.chars.next() {
                            Some('\'') => break,
                            Some(c) => text.push(c),
                            None => bail!("a quote does not end"),
                        }
                    }
                }
                '"' => {
                    quoted = true;
                    self.in_quotes(&mut parts, &mut text)?;
                }
                '$' => self.dollar(&mut parts, &mut text, false)?,
                '`' => bail!("` is not understood"),
                c => text.push(c),
            }
        }
        if !text.is_empty() || (parts.is_empty() && quoted) {
            parts.push(Part::Text(text));
        }
        if parts.is_empty() {
            bail!("a word is missing");
        }
        Ok(parts)
    }

    fn in_quotes(&mut self, parts: &mut Word, text: &mut String) -> Result<()> {
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('\\') => match self.chars.next() {
                    Some(c) if "\\\"$`".contains(c) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => bail!("a quote does not end"),
                },
                Some('$') => self.dollar(parts, text, true)?,
                Some(c) => text.push(c),
                None => bail!("a quote does not end"),
            }
        }
    }

    /// What a `$` introduces.
    fn dollar(&mut self, parts: &mut Word, text: &mut String, quoted: bool) -> Result<()> {
        let mut push = |part| {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(text)));
            }
            parts.push(part);
        };
        if self.take("((") {
            let (mut depth, mut expression) = (0, String::new());
            loop {
                if depth == 0 && self.take("))") {
                    push(Part::Arith(expression));
                    return Ok(());
                }
                let Some(c) = self.chars.next() else { bail!("an expression does not end") };
                depth += i32::from(c == '(') - i32::from(c == ')');
                expression.push(c);
            }
        }
        if self.take("(") {
            let list = self.list(&[])?;
            if !self.take(")") {
                bail!("$( does not end");
            }
            push(Part::Output(list, quoted));
        } else if self.take("{") {
            let name = self.name();
            if !self.take("}") {
                bail!("${{{name} is not understood");
            }
            push(Part::Var(name, quoted));
        } else if let Some(c) = self.chars.next_if(|c| matches!(c, '?' | '!')) {
            push(Part::Var(c.to_string(), quoted));
        } else {
            match self.name() {
                name if name.is_empty() => text.push('$'),
                name => push(Part::Var(name, quoted)),
            }
        }
        Ok(())
    }
}

/// Reads an arithmetic expression; `get` and `set` are the shell's variables.
pub fn arithmetic(text: &str, vars: &mut std::collections::BTreeMap<String, String>) -> Result<i64> {
    let mut expression =
        Expression { chars: text.chars().filter(|c| !c.is_whitespace()).collect(), at: 0, vars };
    let value = expression.sum()?;
    if expression.at < expression.chars.len() {
        bail!("the expression {text:?} is not understood");
    }
    Ok(value)
}

struct Expression<'a> {
    chars: Vec<char>,
    at: usize,
    vars: &'a mut std::collections::BTreeMap<String, String>,
}

impl Expression<'_> {
    fn next_if(&mut self, wanted: &str) -> bool {
        let is = wanted.chars().enumerate().all(|(n, c)| self.chars.get(self.at + n) == Some(&c));
        self.at += if is { wanted.len() } else { 0 };
        is
    }

    fn sum(&mut self) -> Result<i64> {
        let mut value = self.product()?;
        loop {
            if self.next_if("+") {
                value += self.product()?;
            } else if self.next_if("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<i64> {
        let mut value = self.atom()?;
        while self.next_if("*") {
            value *= self.atom()?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<i64> {
        if self.next_if("(") {
            let value = self.sum()?;
            return if self.next_if(")") { Ok(value) } else { bail!("a parenthesis does not close") };
        }
        let from = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_alphanumeric() || *c == '_' || *c == '$') {
            self.at += 1;
        }
        let word: String = self.chars[from..self.at].iter().filter(|c| **c != '$').collect();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(word.parse()?);
        }
        if word.is_empty() {
            bail!("a number is missing in an expression");
        }
        let held = self.vars.get(&word).map_or(Ok(0), |value| value.parse())?;
        let value = if self.next_if("+=") {
            held + self.sum()?
        } else if self.next_if("-=") {
            held - self.sum()?
        } else if self.next_if("=") {
            self.sum()?
        } else {
            return Ok(held);
        };
        self.vars.insert(word, value.to_string());
        Ok(value)
    }
}

/// Whether a line matches a pattern of grep: characters, `.`, `*` after one, `\`, `^`, `$`, and `|` if `extended`.
pub fn grep(pattern: &str, extended: bool, line: &str) -> Result<bool> {
    if pattern.contains(['[', '{', '+', '?', '(']) && extended || pattern.contains('[') {
        bail!("the pattern {pattern:?} is not understood");
    }
    let alternatives: Vec<&str> = if extended { pattern.split('|').collect() } else { vec![pattern] };
    let line: Vec<char> = line.chars().collect();
    Ok(alternatives.into_iter().any(|pattern| {
        let (anchored, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
        let atoms = atoms(pattern);
        let starts = if anchored { 0..=0 } else { 0..=line.len() };
        starts.into_iter().any(|at| matches_at(&atoms, &line[at..]))
    }))
}

#[derive(Clone, Copy)]
enum Atom {
    Char(char),
    Any,
    End,
}

fn atoms(pattern: &str) -> Vec<(Atom, bool)> {
    let mut chars = pattern.chars().peekable();
    let mut atoms = Vec::new();
    while let Some(c) = chars.next() {
        let atom = match c {
            '.' => Atom::Any,
            '$' if chars.peek().is_none() => Atom::End,
            '\\' => chars.next().map_or(Atom::Char('\\'), Atom::Char),
            c => Atom::Char(c),
        };
        atoms.push((atom, chars.next_if_eq(&'*').is_some()));
    }
    atoms
}

fn matches_at(atoms: &[(Atom, bool)], line: &[char]) -> bool {
    let Some(((atom, many), rest)) = atoms.split_first() else { return true };
    let one = match (atom, line.first()) {
        (Atom::End, first) => return first.is_none(),
        (Atom::Any, Some(_)) => true,
        (Atom::Char(wanted), Some(c)) => wanted == c,
        (_, None) => false,
    };
    if *many {
        matches_at(rest, line) || (one && matches_at(atoms, &line[1..]))
    } else {
        one && matches_at(rest, &line[1..])
    }
}
