//! The words of the configuration: text forms of the Model's enums.

use std::fmt;
use std::str::FromStr;

use crate::model::{Forwarding, HugePages, Idle, MaglevHash, Protocol, Scheduler};

/// A text is not a value of its type; the message names the text and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) String);

/// Most characters of a foreign text that a message repeats.
const SHOWN: usize = 64;

/// Quotes a foreign text for a message: control characters escaped, cut after 64 characters.
pub(crate) fn show(text: &str) -> String {
    let mut end = text.char_indices().map(|(at, _)| at).skip(SHOWN);
    match end.next() {
        Some(cut) => format!("\"{}…\"", text[..cut].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}

/// The candidate that `text` was most likely meant to be, if one is near.
///
/// Near: at most 2 edits (a transposition counts one), and no more than a third of the longer word.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > SHOWN {
        return None;
    }
    let distance = |word: &&str| strsim::osa_distance(text, word);
    let best = candidates.into_iter().min_by_key(distance)?;
    let edits = distance(&best);
    (edits <= 2 && edits * 3 <= best.len().max(text.len())).then_some(best)
}

/// Finds the value of a word; `what` names the kind of value for the message.
fn from_word<T: Copy>(text: &str, what: &str, words: &[(&'static str, T)]) -> Result<T, ValueError> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(text, names.iter().copied()) {
        Some(word) => format!("; did you mean \"{word}\"?"),
        None => String::new(),
    };
    Err(ValueError(format!("{} is not {what} (known: {}){hint}", show(text), names.join(", "))))
}

/// Implements `Display` and `FromStr` of an enum from one table of its words.
macro_rules! words {
    ($type:ty, $what:literal, [$($word:literal => $value:pat => $make:expr),+ $(,)?]) => {
        impl $type {
            /// The word of this value in configuration files and commands.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($value => $word,)+
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                from_word(text, $what, &[$(($word, $make)),+])
            }
        }
    };
}

words!(Protocol, "a protocol", [
    "tcp" => Self::Tcp => Self::Tcp,
    "udp" => Self::Udp => Self::Udp,
]);
words!(Forwarding, "a forwarding", ["dr" => Self::Dr => Self::Dr]);
words!(MaglevHash, "a Maglev hash", [
    "flow" => Self::Flow => Self::Flow,
    "source" => Self::Source => Self::Source,
]);
words!(Idle, "an idle policy", [
    "adaptive" => Self::Adaptive => Self::Adaptive,
    "spin" => Self::Spin => Self::Spin,
]);
words!(HugePages, "a huge page size", [
    "none" => Self::None => Self::None,
    "2M" => Self::Size2M => Self::Size2M,
    "1G" => Self::Size1G => Self::Size1G,
]);

impl Scheduler {
    /// The scheduler's name alone, without its parameters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Lc => "lc",
            Self::Maglev(_) => "maglev",
        }
    }

    /// What Maglev hashes; `None` for the other schedulers.
    pub const fn maglev_hash(self) -> Option<MaglevHash> {
        match self {
            Self::Maglev(hash) => Some(hash),
            Self::Rr | Self::Lc => None,
        }
    }

    /// Finds a scheduler by its bare name; Maglev hashes the flow unless told otherwise.
    ///
    /// Errors: no scheduler has this name.
    pub fn from_name(name: &str) -> Result<Self, ValueError> {
        let known = [("rr", Self::Rr), ("lc", Self::Lc), ("maglev", Self::Maglev(MaglevHash::Flow))];
        from_word(name, "a scheduler", &known)
    }

    /// The same scheduler hashing `hash`.
    ///
    /// Errors: the scheduler is not Maglev.
    pub fn with_maglev_hash(self, hash: MaglevHash) -> Result<Self, ValueError> {
        match self {
            Self::Maglev(_) => Ok(Self::Maglev(hash)),
            Self::Rr | Self::Lc => Err(ValueError(format!(
                "{} is of use with the scheduler maglev only, not with {}",
                show(hash.as_str()),
                self.name()
            ))),
        }
    }
}

/// `rr`, `lc`, `maglev` (by flow) or `maglev:source`.
impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maglev(MaglevHash::Source) => f.pad("maglev:source"),
            Self::Rr | Self::Lc | Self::Maglev(MaglevHash::Flow) => f.pad(self.name()),
        }
    }
}

/// Reads what `Display` writes, and `maglev:flow`.
impl FromStr for Scheduler {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some((name, hash)) => Self::from_name(name)?.with_maglev_hash(hash.parse()?),
            None => Self::from_name(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for text in ["tcp", "udp"] {
            assert_eq!(text.parse::<Protocol>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["adaptive", "spin"] {
            assert_eq!(text.parse::<Idle>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["none", "2M", "1G"] {
            assert_eq!(text.parse::<HugePages>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["rr", "lc", "maglev", "maglev:source"] {
            assert_eq!(text.parse::<Scheduler>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("maglev:flow".parse(), Ok(Scheduler::Maglev(MaglevHash::Flow)));
        assert_eq!("dr".parse(), Ok(Forwarding::Dr));
    }

    #[test]
    fn a_wrong_word_names_the_known_ones() {
        let err = |text: &str| text.parse::<Scheduler>().map_err(|e| e.to_string());
        assert_eq!(
            err("magelv"),
            Err("\"magelv\" is not a scheduler (known: rr, lc, maglev); did you mean \"maglev\"?".to_owned())
        );
        assert_eq!(
            err("wlc"),
            Err("\"wlc\" is not a scheduler (known: rr, lc, maglev); did you mean \"lc\"?".to_owned())
        );
        assert_eq!(err("fo"), Err("\"fo\" is not a scheduler (known: rr, lc, maglev)".to_owned()));
        assert_eq!(
            err("rr:flow"),
            Err("\"flow\" is of use with the scheduler maglev only, not with rr".to_owned())
        );
    }

    #[test]
    fn a_foreign_text_is_escaped_and_cut() {
        assert_eq!(show("a\n\u{1b}[2J"), r#""a\n\u{1b}[2J""#);
        assert_eq!(show(&"é".repeat(70)), format!("\"{}…\"", "é".repeat(64)));
        assert_eq!(show(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
    }
}
