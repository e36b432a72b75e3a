//! Rule files: text to command lines.

use super::save::EXTRA;

/// A command line of a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub number: usize,
    /// Its words.
    pub words: Vec<String>,
    /// It was a comment of `-S`.
    pub extra: bool,
}

/// The command lines of a rule file. Words are separated by blanks; quotes hold them together, a backslash takes what
/// follows it as it is, `#` begins a comment. Comments of `-S` that hold a command are command lines too.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let (mut lines, mut number) = (Vec::new(), 1);
    let mut rest = text;
    while !rest.is_empty() {
        let extra = rest.starts_with(EXTRA);
        rest = rest.strip_prefix(EXTRA).unwrap_or(rest);
        let (words, left) = line(rest);
        let read = rest.get(..rest.len() - left.len()).unwrap_or("");
        if !words.is_empty() {
            lines.push(Line { number, words, extra });
        }
        number += read.matches('\n').count();
        rest = left;
    }
    lines
}

/// The words of the first line, and what is left behind it.
fn line(text: &str) -> (Vec<String>, &str) {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // An escaped end of line goes on with the next one.
            (None, '\\') => match chars.next() {
                Some('\n') | None => words.extend(word.take()),
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            (None, '\n') => break,
            (None, '#') if word.is_none() => {
                let comment = chars.as_str();
                let end = comment.find('\n').map_or("", |at| comment.get(at + 1..).unwrap_or(""));
                chars = end.chars();
                break;
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (words, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        lines(text).into_iter().map(|line| line.words).collect()
    }

    #[test]
    fn words_quotes_comments_and_extras() {
        let text = "-A  -t a:1 -s rr # tail\n\n# comment\n# sluice: --set 1 2 3\n-a 'b c'\"d\" \\\n e\\ f \"\"\nlast";
        let want: [&[&str]; 4] = [
            &["-A", "-t", "a:1", "-s", "rr"],
            &["--set", "1", "2", "3"],
            &["-a", "b cd", "e f", ""],
            &["last"],
        ];
        assert_eq!(words(text), want);
        let numbers: Vec<usize> = lines(text).iter().map(|line| line.number).collect();
        assert_eq!(numbers, [1, 4, 5, 7]);
        assert_eq!(words("a#b 'c"), [["a#b", "c"]]);
        assert!(lines("").is_empty());
    }
}
