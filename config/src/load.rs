//! The two ways in: a text, and a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use crate::bounds::FILE_LEN;
use crate::check::check;
use crate::fault::{Faults, LoadError, Problems};
use crate::model::Model;
use crate::read::document;
use crate::warning::{self, Warning};

/// Reads and checks a configuration.
///
/// Errors: every fault of the text at once. Where the text is no TOML, the faults are those of syntax alone: what
/// the rest means is not known then.
pub fn parse(text: &str) -> Result<Model, Faults> {
    read(text).map(|(model, _)| model)
}

/// As [`parse`], and what is unlikely to be meant, in the order of the text.
///
/// Errors: as [`parse`].
pub fn parse_with_warnings(text: &str) -> Result<(Model, Vec<Warning>), Faults> {
    let (model, toml) = read(text)?;
    let warnings = warning::located(text, &toml, &model);
    Ok((model, warnings))
}

/// The Model and the document that it was read from.
fn read(text: &str) -> Result<(Model, Spanned<DeTable<'_>>), Faults> {
    let toml = DeTable::parse(text).map_err(|first| syntax_faults(text, first))?;
    let mut problems = Problems::default();
    let draft = document(toml.get_ref(), &mut problems);
    check(&draft, &mut problems);
    let model = draft.finish();
    match model {
        Some(model) if problems.list.is_empty() => Ok((model, toml)),
        _ => {
            debug_assert!(!problems.list.is_empty(), "a value that could not be read has a fault");
            Err(Faults::locate(text, &toml, problems))
        }
    }
}

/// Longest text of which all faults of syntax are looked for, bytes; of a longer one the first is told.
///
/// The parser may find a fault per byte, each of some 100 bytes: this bounds them to some 25 MiB.
const RECOVER_LEN: usize = 256 << 10;

fn syntax_faults(text: &str, first: toml::de::Error) -> Faults {
    if text.len() > RECOVER_LEN {
        return Faults::syntax(text, &[first]);
    }
    let (_, errors) = DeTable::parse_recoverable(text);
    Faults::syntax(text, &errors)
}

/// Reads and checks a configuration file.
///
/// Errors: the file cannot be read, is longer than [`FILE_LEN`], is no UTF-8, or is wrong; each names the file.
pub fn load(path: impl AsRef<Path>) -> Result<Model, LoadError> {
    load_with_warnings(path).map(|(model, _)| model)
}

/// As [`load`], and what is unlikely to be meant, in the order of the file.
///
/// Errors: as [`load`].
pub fn load_with_warnings(path: impl AsRef<Path>) -> Result<(Model, Vec<Warning>), LoadError> {
    let path = path.as_ref();
    let read_error = |source| LoadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long, even when it has no length (a pipe).
    let file = File::open(path).map_err(read_error)?;
    let length = file.take(FILE_LEN + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_LEN {
        return Err(LoadError::TooLong { path: path.to_owned(), limit: FILE_LEN });
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| LoadError::NotText { path: path.to_owned(), offset: e.utf8_error().valid_up_to() })?;
    parse_with_warnings(&text).map_err(|faults| LoadError::Faulty { path: path.to_owned(), faults })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{SMALL, small};

    /// A file of the test's own, gone at the end.
    struct Temp(std::path::PathBuf);

    impl Temp {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("lb-config-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
        fn error(&self) -> String {
            load(&self.0).unwrap_err().to_string()
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_good_file_is_its_text() {
        assert_eq!(load(&Temp::new("good", SMALL.as_bytes()).0).unwrap(), small());
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let missing = load("/nonexistent/lb.toml").unwrap_err().to_string();
        assert_eq!(missing, "/nonexistent/lb.toml: No such file or directory (os error 2)");
        let file = Temp::new("binary", b"# \xff");
        assert_eq!(file.error(), format!("{}: not UTF-8 text (byte 2)", file.0.display()));
        let file =
            Temp::new("faulty", b"[[ports]]\nname = 1\nx = 2\ndevice='null'\naddresses=['10.0.0.1/8']\n");
        let want = "line 2: ports[0].name: expected text in quotes, found the number 1\n\
                    line 3: ports[0].x: unknown key (known here: name, device, vlan, mtu, addresses, gateway, \
             exception, exception_interface, exception_rate)";
        assert_eq!(file.error(), format!("{}:\n{want}", file.0.display()));
        let file = Temp::new("long", b"");
        File::options().write(true).open(&file.0).unwrap().set_len(FILE_LEN + 1).unwrap();
        assert_eq!(file.error(), format!("{}: longer than the limit of 268435456 bytes", file.0.display()));
    }
}
