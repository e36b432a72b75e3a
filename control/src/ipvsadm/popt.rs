//! Option syntax of the popt library, as far as ipvsadm's command line shows it.
//!
//! * short options in clusters (`-Ln`), an argument in the same word (`-t10.0.0.1:80`, `-t=10.0.0.1:80`) or the next
//! * long options by their whole name, an argument after `=` or in the next word
//! * an optional argument is the next word unless that begins with `-`; a needed one is the next word whatever it is
//! * words that are no options may stand anywhere; after `--` none is an option

/// Whether an option takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Argument,
    /// In the same word, or the next one if that is no option.
    OptionalArgument,
}

/// One option: its name after `--`, its letter after `-`, its argument, what it is to the program.
pub(super) struct Spec<T: 'static> {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    pub tag: T,
}

/// Why a word is no option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PoptError {
    #[error("unknown option")]
    Unknown,
    #[error("missing argument")]
    NoArgument,
    #[error("option does not take an argument")]
    Unwanted,
}

/// Reads a command line option by option.
pub(super) struct Popt<'a, T: 'static> {
    specs: &'static [Spec<T>],
    words: &'a [String],
    next: usize,
    /// Rest of a cluster.
    cluster: Option<&'a str>,
    only_words: bool,
    words_left: Vec<&'a str>,
}

impl<'a, T: Copy> Popt<'a, T> {
    pub fn new(specs: &'static [Spec<T>], words: &'a [String]) -> Self {
        Self { specs, words, next: 0, cluster: None, only_words: false, words_left: Vec::new() }
    }

    /// The next option and its argument; `None` at the end.
    pub fn next(&mut self) -> Option<Result<(T, Option<&'a str>), PoptError>> {
        loop {
            if let Some(rest) = self.cluster.take_if(|rest| !rest.is_empty()) {
                return Some(self.short(rest));
            }
            self.cluster = None;
            let word = self.take()?;
            let no_option = self.only_words || word == "-" || !word.starts_with('-');
            if no_option {
                self.words_left.push(word);
            } else if word == "--" {
                self.only_words = true;
            } else if let Some(name) = word.strip_prefix("--") {
                return Some(self.long(name));
            } else {
                self.cluster = word.get(1..);
            }
        }
    }

    /// The word that was read last: what is at fault.
    pub fn word(&self) -> &'a str {
        self.next.checked_sub(1).and_then(|at| self.words.get(at)).map_or("", String::as_str)
    }

    /// Words that are no options, after the last option.
    pub fn into_words(self) -> Vec<&'a str> {
        self.words_left
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn long(&mut self, name: &'a str) -> Result<(T, Option<&'a str>), PoptError> {
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let spec = self.specs.iter().find(|spec| spec.long == name).ok_or(PoptError::Unknown)?;
        match (spec.takes, value) {
            (Takes::Nothing, Some(_)) => Err(PoptError::Unwanted),
            (_, Some(value)) => Ok((spec.tag, Some(value))),
            (_, None) => self.argument(spec),
        }
    }

    fn short(&mut self, cluster: &'a str) -> Result<(T, Option<&'a str>), PoptError> {
        let mut letters = cluster.chars();
        let letter = letters.next();
        let rest = letters.as_str();
        let spec = self.specs.iter().find(|spec| spec.short == letter).ok_or(PoptError::Unknown)?;
        if spec.takes == Takes::Nothing {
            if rest.starts_with('=') {
                return Err(PoptError::Unwanted);
            }
            self.cluster = Some(rest);
            return Ok((spec.tag, None));
        }
        match rest {
            "" => self.argument(spec),
            rest => Ok((spec.tag, Some(rest.strip_prefix('=').unwrap_or(rest)))),
        }
    }

    /// An argument from the next word.
    fn argument(&mut self, spec: &Spec<T>) -> Result<(T, Option<&'a str>), PoptError> {
        let next = self.words.get(self.next);
        let taken = match (spec.takes, next) {
            (Takes::Nothing, _) | (Takes::OptionalArgument, None) => None,
            (Takes::OptionalArgument, Some(next)) if next.starts_with('-') => None,
            (Takes::Argument, None) => return Err(PoptError::NoArgument),
            (_, Some(_)) => self.take(),
        };
        Ok((spec.tag, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec<char>] = &[
        Spec { long: "list", short: Some('L'), takes: Takes::Nothing, tag: 'L' },
        Spec { long: "numeric", short: Some('n'), takes: Takes::Nothing, tag: 'n' },
        Spec { long: "tcp", short: Some('t'), takes: Takes::Argument, tag: 't' },
        Spec { long: "persistent", short: Some('p'), takes: Takes::OptionalArgument, tag: 'p' },
        Spec { long: "stats", short: None, takes: Takes::Nothing, tag: 's' },
    ];

    type Read = (Vec<Result<(char, Option<String>), PoptError>>, Vec<String>);

    fn read(line: &str) -> Read {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut popt = Popt::new(SPECS, &words);
        let mut options = Vec::new();
        while let Some(option) = popt.next() {
            let failed = option.is_err();
            options.push(option.map(|(tag, argument)| (tag, argument.map(str::to_owned))));
            if failed {
                break;
            }
        }
        (options, popt.into_words().into_iter().map(str::to_owned).collect())
    }

    fn options(line: &str) -> Vec<Result<(char, Option<String>), PoptError>> {
        read(line).0
    }

    #[test]
    fn clusters_arguments_and_words_are_told_apart() {
        let some = |tag, text: &str| Ok((tag, Some(text.to_owned())));
        assert_eq!(options("-Ln"), [Ok(('L', None)), Ok(('n', None))]);
        assert_eq!(options("-nta:1"), [Ok(('n', None)), some('t', "a:1")]);
        assert_eq!(options("-t=a"), [some('t', "a")]);
        assert_eq!(options("--tcp=a --tcp b"), [some('t', "a"), some('t', "b")]);
        assert_eq!(options("-t -1"), [some('t', "-1")]);
        assert_eq!(options("-p 5 -p -n"), [some('p', "5"), Ok(('p', None)), Ok(('n', None))]);
        assert_eq!(options("-p7"), [some('p', "7")]);
        assert_eq!(read("a -n - b -- -L").1, ["a", "-", "b", "-L"]);
    }

    #[test]
    fn faults_are_those_of_popt() {
        assert_eq!(options("-p -1").last(), Some(&Err(PoptError::Unknown)));
        assert_eq!(options("-t"), [Err(PoptError::NoArgument)]);
        assert_eq!(options("--sta"), [Err(PoptError::Unknown)]);
        assert_eq!(options("--stats=1"), [Err(PoptError::Unwanted)]);
    }
}
