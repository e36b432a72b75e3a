//! The words of the configuration: text forms of the Model's enums.

use crate::model::{HugePages, Idle, MaglevHash, Protocol};

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
pub(crate) fn from_word<T: Copy>(
    text: &str,
    what: &str,
    words: &[(&'static str, T)],
) -> Result<T, ValueError> {
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
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl std::str::FromStr for $type {
            type Err = $crate::text::ValueError;
            fn from_str(text: &str) -> Result<Self, $crate::text::ValueError> {
                $crate::text::from_word(text, $what, &[$(($word, $make)),+])
            }
        }
    };
}

pub(crate) use words;

words!(Protocol, "a protocol", [
    "tcp" => Self::Tcp => Self::Tcp,
    "udp" => Self::Udp => Self::Udp,
    "sctp" => Self::Sctp => Self::Sctp,
]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for text in ["tcp", "udp", "sctp"] {
            assert_eq!(text.parse::<Protocol>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["adaptive", "spin"] {
            assert_eq!(text.parse::<Idle>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["none", "2M", "1G"] {
            assert_eq!(text.parse::<HugePages>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_foreign_text_is_escaped_and_cut() {
        assert_eq!(show("a\n\u{1b}[2J"), r#""a\n\u{1b}[2J""#);
        assert_eq!(show(&"é".repeat(70)), format!("\"{}…\"", "é".repeat(64)));
        assert_eq!(show(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
    }
}
