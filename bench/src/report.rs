//! `README.md` of a folder of results: goals first, then every suite.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::calibrate::{Drift, TOLERANCE};
use crate::goals::{GOALS, Goal, Verdict};
use crate::record::{Document, Peer, Reached, Table};
use crate::stats::short;
use crate::suite::SUITES;

/// Remarks on goals, kept by hand beside the results: `"P4" = "what is odd about this run"`.
const REMARKS: &str = "notes.toml";

/// What was tried for goals and why they fall short, by row or id; shown where they do.
const TRIED: &str = include_str!("../notes.toml");

/// What people say of goals.
#[derive(Debug, Default)]
pub struct Remarks {
    /// Of this run, by id.
    here: BTreeMap<String, String>,
    /// What was tried, by id or row.
    tried: BTreeMap<String, String>,
}

impl Remarks {
    /// Those of a folder of results, and what was tried.
    ///
    /// Errors: a file does not read, or speaks of no goal.
    pub fn read(out: &Path) -> anyhow::Result<Self> {
        let tried: BTreeMap<String, String> = toml::from_str(TRIED).context("reading bench/notes.toml")?;
        for id in tried.keys() {
            let known = GOALS.iter().any(|goal| goal.id == id || goal.row() == id);
            ensure!(known, "bench/notes.toml: there is no goal and no row '{id}'");
        }
        let here: BTreeMap<String, String> = match std::fs::read_to_string(out.join(REMARKS)) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("reading {REMARKS}"))?,
            Err(_) => BTreeMap::new(),
        };
        for id in here.keys() {
            crate::goals::named(id).with_context(|| REMARKS.to_owned())?;
        }
        Ok(Self { here, tried })
    }

    /// What was tried for a goal.
    pub fn tried(&self, goal: &Goal) -> Option<&str> {
        self.tried.get(goal.id).or_else(|| self.tried.get(goal.row())).map(String::as_str)
    }

    fn here(&self, goal: &Goal) -> Option<&str> {
        self.here.get(goal.id).map(String::as_str)
    }
}

/// Reads one suite's results.
///
/// Errors: they are missing or not what a suite writes.
pub fn read(out: &Path, suite: &str) -> anyhow::Result<Document> {
    let path = out.join(format!("{suite}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Writes `README.md` of what is in `out`; suites that left nothing there are named as such.
pub fn write(out: &Path) -> anyhow::Result<()> {
    let documents: Vec<Document> = SUITES.iter().filter_map(|suite| read(out, suite.name).ok()).collect();
    let remarks = Remarks::read(out)?;
    let path = out.join("README.md");
    std::fs::write(&path, render(&documents, &remarks))
        .with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// One line on two calibrations.
pub fn calibration(drift: &Drift) -> String {
    let void = if drift.is_void() { "VOID: the machine's memory moved. " } else { "" };
    let sets = drift.bytes.iter().zip(drift.before.iter().zip(&drift.after));
    let sets = sets.map(|(bytes, (before, after))| format!("{} KiB {before:.2} / {after:.2}", bytes / 1024));
    format!(
        "{void}ns per random line before / after: {}; drift {:.1} %, allowed {:.0} %.",
        sets.collect::<Vec<_>>().join(", "),
        drift.largest() * 100.0,
        TOLERANCE * 100.0
    )
}

fn render(documents: &[Document], remarks: &Remarks) -> String {
    let mut text = String::from(
        "# Results\n\nMade by `cargo run --release -p lb-bench -- all`; raw samples are in the JSON files. Figures are costs \
         of the pipeline\non one core of a virtual machine, not rates of a line: compare within one run. Where no figure of \
         the floor is named,\nthe cost of making the frames was measured in the same run and subtracted.\n",
    );
    if documents.iter().any(|document| document.quick) {
        text += "\n**Made with `--quick`: shows that it runs, not how fast.**\n";
    }
    if let Some(document) = documents.first() {
        let mut table = Table::new("", &["machine", ""]);
        for (name, value) in document.facts.listed() {
            table.row([name.to_owned(), value]);
        }
        text += &format!("\n{}", table.markdown());
    }
    text += &format!("\n## Goals\n\n{}", goals(documents, remarks).markdown());
    text += "\nA bar has to be beaten; the moon is aimed at. Peers without a mark were measured in the same run; (p) is \
             a published\nfigure or one measured before.\n";
    text += &short_rows(documents, remarks);
    for suite in SUITES {
        match documents.iter().find(|document| document.suite == suite.name) {
            Some(document) => text += &section(document, suite.doc),
            None => text += &format!("\n## {}\n\nNot run.\n", suite.name),
        }
    }
    text
}

/// All that was reached of a goal.
pub fn reached<'a>(documents: &'a [Document], goal: &Goal) -> Vec<(&'a Document, &'a Reached)> {
    let all = documents.iter().flat_map(|document| document.reached.iter().map(move |one| (document, one)));
    all.filter(|(_, one)| one.goal == goal.id).collect()
}

/// Why nothing was reached of a goal, if a suite said so.
pub fn skipped(documents: &[Document], goal: &Goal) -> Option<String> {
    let all = documents.iter().flat_map(|document| &document.skipped);
    let skip = all.into_iter().find(|skip| skip.goals.iter().any(|id| id == goal.id))?;
    Some(format!("{}: {}", skip.what, skip.why))
}

/// Every goal, with all that was reached of it.
fn goals(documents: &[Document], remarks: &Remarks) -> Table {
    let mut table =
        Table::new("", &["row", "metric", "unit", "bar", "moon", "reached", "verdict", "peers", "notes"]);
    for goal in GOALS {
        let reached = reached(documents, goal);
        if reached.is_empty() {
            let why = skipped(documents, goal);
            let notes: Vec<&str> = why.as_deref().into_iter().chain(remarks.here(goal)).collect();
            table.row(cells(goal, "", "", "not measured", String::new(), notes.join("; ")));
        }
        for (at, (document, reached)) in reached.into_iter().enumerate() {
            let remark = if at == 0 { remarks.here(goal) } else { None };
            table.row(row(goal, document, reached, remark));
        }
    }
    table
}

/// What was tried for the rows of which a case falls short.
fn short_rows(documents: &[Document], remarks: &Remarks) -> String {
    let mut text = String::new();
    let mut said = Vec::new();
    for goal in GOALS {
        let is_short = |(_, one): &(&Document, &Reached)| goal.verdict(one.value) == Verdict::Short;
        let cases: Vec<_> = reached(documents, goal).into_iter().filter(is_short).collect();
        let Some(tried) = remarks.tried(goal).filter(|tried| !cases.is_empty() && !said.contains(tried))
        else {
            continue;
        };
        said.push(tried);
        text += &format!("- {}: {}\n", goal.row(), tried.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if text.is_empty() {
        text
    } else {
        format!("\n## Short of the bar\n\nWhat was tried, and what is left.\n\n{text}")
    }
}

fn row(goal: &Goal, document: &Document, reached: &Reached, remark: Option<&str>) -> Vec<String> {
    let verdict = match goal.verdict(reached.value) {
        _ if document.calibration.is_void() && !document.quick => "VOID",
        Verdict::Moon => "**moon**",
        Verdict::Bar => "bar",
        Verdict::Short => "short",
    };
    let peer = |peer: &Peer| {
        format!("{} {}{}", peer.name, figure(peer.value), if peer.published { " (p)" } else { "" })
    };
    let peers = reached.peers.iter().map(peer).collect::<Vec<_>>().join(", ");
    let notes = [Some(reached.note.as_str()), remark].into_iter().flatten().filter(|note| !note.is_empty());
    let notes = notes.collect::<Vec<_>>().join("; ");
    cells(goal, &reached.case, &figure(reached.value), verdict, peers, notes)
}

fn cells(goal: &Goal, case: &str, reached: &str, verdict: &str, peers: String, notes: String) -> Vec<String> {
    let what = if case.is_empty() { goal.what.to_owned() } else { format!("{}: {case}", goal.what) };
    let (bar, moon) = (figure(goal.bar), figure(goal.moon));
    vec![
        goal.id.to_owned(),
        what,
        goal.unit.to_owned(),
        bar,
        moon,
        reached.to_owned(),
        verdict.to_owned(),
        peers,
        notes,
    ]
}

/// A figure with as many digits as mean something.
fn figure(value: f64) -> String {
    let text = match value.abs() {
        10_000.0.. => return short(value),
        // 99.97 is not 100
        90.0..100.0 => format!("{value:.2}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn section(document: &Document, doc: &str) -> String {
    let facts = &document.facts;
    let mut text = format!(
        "\n## {}\n\n{doc}. {:.0} s, begun {} at revision {}, load {} before.\n{}\n",
        document.suite,
        document.seconds,
        facts.date,
        facts.revision,
        facts.load,
        calibration(&document.calibration)
    );
    for note in &document.notes {
        text += &format!("\n{note}\n");
    }
    for skip in &document.skipped {
        text += &format!("\nSkipped: {}: {}\n", skip.what, skip.why);
    }
    for table in &document.tables {
        text += &format!("\n{}", table.markdown());
    }
    for plot in &document.plots {
        text += &format!("\n![{}]({}-{}.svg)\n", plot.title, document.suite, plot.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_long_as_they_mean_something() {
        let cases =
            [(0.35, "0.35"), (25.0, "25"), (100.0, "100"), (99.987, "99.99"), (0.0, "0"), (123.45, "123.5")];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    fn document(goal: &str, value: f64) -> Document {
        let mut document = Document { suite: "path".to_owned(), ..Document::default() };
        document
            .reached
            .push(Reached::new(goal, value).case("a case").peer("HashMap", 50.0).published("Katran", 92.0));
        document
    }

    #[test]
    fn every_goal_has_a_row_and_what_was_reached_stands_in_it() {
        let text = render(&[document("P1", 14.0)], &Remarks::default());
        for goal in GOALS {
            assert!(text.contains(&format!("| {} ", goal.id)), "{}", goal.id);
        }
        let row = text.lines().find(|line| line.starts_with("| P1 ")).unwrap();
        for part in ["a case", "| 14 ", "**moon**", "HashMap 50,", "Katran 92 (p)"] {
            assert!(row.contains(part), "{part}: {row}");
        }
    }

    #[test]
    fn a_disturbed_run_is_void_and_a_remark_stands_beside_its_goal() {
        let mut disturbed = document("P1", 14.0);
        disturbed.calibration = Drift { bytes: vec![1024], before: vec![1.0], after: vec![2.0] };
        let here = BTreeMap::from([("P1".to_owned(), "a slow day".to_owned())]);
        let text = render(&[disturbed], &Remarks { here, tried: BTreeMap::new() });
        let row = text.lines().find(|line| line.starts_with("| P1 ")).unwrap();
        assert!(row.contains("VOID") && row.contains("a slow day"), "{row}");
    }

    #[test]
    fn what_was_tried_is_told_of_rows_that_fall_short_once() {
        let tried = BTreeMap::from([("P5".to_owned(), "tried\nharder".to_owned())]);
        let remarks = Remarks { here: BTreeMap::new(), tried };
        let text = render(&[document("P5/1k", 99.0), document("P5/1M", 99.0)], &remarks);
        assert_eq!(text.matches("- P5: tried harder").count(), 1, "{text}");
        assert!(!render(&[document("P5/1k", 1.0)], &remarks).contains("tried"));
    }

    #[test]
    fn a_goal_that_was_skipped_says_why() {
        let mut document = document("P1", 14.0);
        let (what, why) = ("100 M".to_owned(), "no memory".to_owned());
        document.skipped.push(crate::record::Skip { what, why, goals: vec!["P4".to_owned()] });
        let text = render(&[document], &Remarks::default());
        let row = text.lines().find(|line| line.starts_with("| P4 ")).unwrap();
        assert!(row.contains("not measured") && row.contains("100 M: no memory"), "{row}");
    }

    #[test]
    fn every_row_has_a_word_on_what_was_tried() {
        let remarks = Remarks::read(Path::new("/nonexistent")).unwrap();
        for goal in GOALS {
            assert!(remarks.tried(goal).is_some_and(|text| text.len() > 40), "{}", goal.id);
        }
    }
}
