//! Where in a document something is: a TOML path, and the byte that it stands for.

use std::borrow::Cow;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into a table, by key.
    Key(Cow<'static, str>),
    /// Into an array, counted from 0.
    Index(usize),
}

impl From<&'static str> for Step {
    fn from(key: &'static str) -> Self {
        Self::Key(Cow::Borrowed(key))
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Steps from the root of a document; written `services[2].servers[0].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub Vec<Step>);

/// `toml_path!("services", i, "vip")`
macro_rules! toml_path {
    ($($step:expr),+) => { $crate::path::Path(vec![$($crate::path::Step::from($step)),+]) };
}
pub(crate) use toml_path;

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if depth > 0 {
                        f.write_str(".")?;
                    }
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) {
                        f.write_str(key)?;
                    } else {
                        f.write_str(&crate::text::show(key))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What of a path's last step a fault points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The key's own text (it should not be there).
    Key,
    /// Its value.
    Value,
}

/// Byte offset of what `path` names, or of the innermost part of it that the document has.
///
/// Cost: one lookup per step.
pub(crate) fn offset(document: &Spanned<DeTable<'_>>, path: &Path, place: Place) -> usize {
    let mut offset = document.span().start;
    let mut table = Some(document.get_ref());
    let mut value: Option<&DeValue<'_>> = None;
    for (depth, step) in path.0.iter().enumerate() {
        let next = match step {
            Step::Key(key) => {
                let Some((name, next)) = table.and_then(|t| t.get_key_value(key.as_ref())) else { break };
                if place == Place::Key && depth + 1 == path.0.len() {
                    return name.span().start;
                }
                next
            }
            Step::Index(index) => {
                let Some(next) = value.and_then(DeValue::as_array).and_then(|a| a.get(*index)) else { break };
                next
            }
        };
        offset = next.span().start;
        value = Some(next.get_ref());
        table = next.get_ref().as_table();
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_toml_writes_it() {
        assert_eq!(
            toml_path!("services", 2, "servers", 0, "weight").to_string(),
            "services[2].servers[0].weight"
        );
        assert_eq!(toml_path!("appliance", "a b").to_string(), "appliance.\"a b\"");
    }

    #[test]
    fn an_offset_points_at_the_innermost_part_there_is() {
        let text = "[[a]]\nx = 1\n[[a]]\nlist = [\n  1,\n  2,\n]\n[a.sub]\ny = 3\n";
        let document = DeTable::parse(text).unwrap();
        let at = |path: Path, place| {
            let start = offset(&document, &path, place);
            text[start..].lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(at(toml_path!("a", 0, "x"), Place::Value), "1");
        assert_eq!(at(toml_path!("a", 0, "x"), Place::Key), "x = 1");
        assert_eq!(at(toml_path!("a", 1, "list", 1), Place::Value), "2,");
        assert_eq!(at(toml_path!("a", 1, "sub"), Place::Value), "[a.sub]");
        assert_eq!(at(toml_path!("a", 1, "sub", "y"), Place::Value), "3");
        assert_eq!(at(toml_path!("a", 1, "missing", "deeper"), Place::Value), "[[a]]");
        assert_eq!(offset(&document, &toml_path!("a", 1, "missing"), Place::Value), 12);
        assert_eq!(offset(&document, &toml_path!("missing"), Place::Value), 0);
    }
}
