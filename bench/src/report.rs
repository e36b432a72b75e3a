//! `README.md` of a folder of results: goals first, then every suite.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::calibrate::{Drift, TOLERANCE, WAITING};
use crate::goals::{GOALS, Goal, Verdict};
use crate::record::{Basis, Cell, Document, Peer, Reached, Table};
use crate::stats::short;
use crate::suite::SUITES;

/// What the table of goals means.
const LEGEND: &str = "
A bar has to be beaten; the moon is aimed at. Peers without a mark were measured in the same run; (p) is a published
figure or one measured before.

Drift is the change of ns per random line (working sets in the first cache, the second, and in none) between the first
half of the measurement that a figure comes from and its second, calibrations before and after included. Above 5 % it is
VOID, and so it is if the measuring thread waited for its CPU, which others had (\"others'\"), for more than 5 % of the time. A
measurement that is void is taken again, up to three times. \"caches\": work that needs no memory beyond the second
cache, so the two small sets count. \"counted\": what is counted and not timed does not depend on the machine's memory.

Verdicts in brackets are of packets in other settings than the goals': these are of unique flows in random order, each as
often as any other, in buffers that stay in the second cache. Cold buffers, which add the fetch of each frame from memory that a
port's DMA decides on, and flows by Zipf's law are published beside them and judged by nothing; the bracket says how they
would compare.
";

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

/// Reads one suite's results; of a run that was stopped, what it left.
///
/// Errors: they are missing or not what a suite writes.
pub fn read(out: &Path, suite: &str) -> anyhow::Result<Document> {
    // a suite that comes to its end leaves no such file
    let partial = out.join(format!("{suite}.partial.json"));
    let path = if partial.exists() { partial } else { out.join(format!("{suite}.json")) };
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

/// What a figure stands or falls with.
#[derive(Default)]
struct Steadiness {
    /// Largest drift of its calibrations; `None`: no calibration matters.
    drift: Option<f64>,
    /// Largest share of the time that others had the CPU.
    waited: f64,
    /// The most tries of its cells.
    tries: u32,
    caches: bool,
}

impl Steadiness {
    fn of(document: &Document, basis: &Basis) -> Self {
        let (settings, caches) = match basis {
            Basis::Counted => return Self::default(),
            Basis::Suite => {
                let Drift { waited, .. } = document.calibration;
                let drift = Some(document.calibration.largest());
                return Self { drift, waited, tries: 1, caches: false };
            }
            Basis::Cells(settings) => (settings, false),
            Basis::Caches(settings) => (settings, true),
        };
        let cells: Vec<&Cell> =
            document.cells.iter().filter(|cell| settings.contains(&cell.setting)).collect();
        let most = |of: fn(&Drift) -> f64| cells.iter().map(|cell| of(&cell.drift)).fold(0.0, f64::max);
        Self {
            drift: Some(most(if caches { Drift::of_caches } else { Drift::largest })),
            waited: most(|drift| drift.waited),
            tries: cells.iter().map(|cell| cell.tries).max().unwrap_or(1),
            caches,
        }
    }

    fn is_void(&self) -> bool {
        self.drift.is_some_and(|drift| drift > TOLERANCE || self.waited > WAITING)
    }

    fn shown(&self) -> String {
        let Some(drift) = self.drift else { return "counted".to_owned() };
        let caches = if self.caches { ", caches" } else { "" };
        let waited = match self.waited > WAITING {
            true => format!(", {:.0} % others'", self.waited * 100.0),
            false => String::new(),
        };
        let tries = if self.tries > 1 { format!(", {} tries", self.tries) } else { String::new() };
        format!("{:.1} %{caches}{waited}{tries}", drift * 100.0)
    }
}

/// How steady the machine was during a suite, in some sentences.
pub fn steadiness(document: &Document) -> String {
    let drift = &document.calibration;
    let sets = drift.bytes.iter().zip(drift.before.iter().zip(&drift.after));
    let sets = sets.map(|(bytes, (before, after))| format!("{} KiB {before:.2} / {after:.2}", bytes / 1024));
    let mut text = format!(
        "ns per random line before / after all of it: {}; drift {:.1} %; others had the CPU for {:.1} % of the time.",
        sets.collect::<Vec<_>>().join(", "),
        drift.largest() * 100.0,
        drift.waited * 100.0,
    );
    let cells = &document.cells;
    if cells.is_empty() {
        return text;
    }
    let again = cells.iter().filter(|cell| cell.tries > 1).count();
    let void: Vec<String> = cells
        .iter()
        .filter(|cell| cell.drift.is_void())
        .map(|cell| {
            let (drift, waited) = (cell.drift.largest() * 100.0, cell.drift.waited * 100.0);
            format!("{} ({drift:.1} %, {waited:.0} % others', {} tries)", cell.setting, cell.tries)
        })
        .collect();
    text += &format!(
        " Each of {} cells has calibrations of its own, of which {:.0} % are allowed: {again} were measured again, {} are void{}{}.",
        cells.len(),
        TOLERANCE * 100.0,
        void.len(),
        if void.is_empty() { "" } else { ": " },
        void.join("; ")
    );
    text
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
    text += LEGEND;
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
    let mut table = Table::new(
        "",
        &["row", "metric", "unit", "bar", "moon", "reached", "verdict", "drift", "peers", "notes"],
    );
    for goal in GOALS {
        let reached = reached(documents, goal);
        if reached.is_empty() {
            let why = skipped(documents, goal);
            let notes: Vec<&str> = why.as_deref().into_iter().chain(remarks.here(goal)).collect();
            table.row(cells(goal, "", "", ["not measured", ""], String::new(), notes.join("; ")));
        }
        for (at, (document, reached)) in reached.into_iter().enumerate() {
            let remark = if at == 0 { remarks.here(goal) } else { None };
            table.row(row(goal, document, reached, remark));
        }
    }
    table
}

/// Whether a figure that is judged by its goal does not beat the bar.
pub fn is_short(goal: &Goal, reached: &Reached) -> bool {
    !reached.aside && goal.verdict(reached.value) == Verdict::Short
}

/// What was tried for the rows of which a case falls short.
fn short_rows(documents: &[Document], remarks: &Remarks) -> String {
    let mut text = String::new();
    let mut said = Vec::new();
    for goal in GOALS {
        let is_short = |(_, one): &(&Document, &Reached)| is_short(goal, one);
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
    let steadiness = Steadiness::of(document, &reached.basis);
    let verdict = match (goal.verdict(reached.value), reached.aside) {
        _ if steadiness.is_void() => "VOID",
        (Verdict::Moon, false) => "**moon**",
        (Verdict::Bar, false) => "bar",
        (Verdict::Short, false) => "short",
        (Verdict::Moon, true) => "(moon)",
        (Verdict::Bar, true) => "(bar)",
        (Verdict::Short, true) => "(above)",
    };
    let peer = |peer: &Peer| {
        format!("{} {}{}", peer.name, figure(peer.value), if peer.published { " (p)" } else { "" })
    };
    let peers = reached.peers.iter().map(peer).collect::<Vec<_>>().join(", ");
    let notes = [Some(reached.note.as_str()), remark].into_iter().flatten().filter(|note| !note.is_empty());
    let notes = notes.collect::<Vec<_>>().join("; ");
    cells(goal, &reached.case, &figure(reached.value), [verdict, &steadiness.shown()], peers, notes)
}

fn cells(
    goal: &Goal,
    case: &str,
    reached: &str,
    [verdict, drift]: [&str; 2],
    peers: String,
    notes: String,
) -> Vec<String> {
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
        drift.to_owned(),
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
        steadiness(document)
    );
    if !document.complete {
        text += "\n**Ended early: what had been measured by then.**\n";
    }
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
        let mut document = Document { suite: "path".to_owned(), complete: true, ..Document::default() };
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

    fn drift(after: [f64; 3]) -> Drift {
        Drift { bytes: vec![1024; 3], before: vec![1.0; 3], after: after.to_vec(), waited: 0.0 }
    }

    fn verdict(text: &str, goal: &str) -> String {
        let row = text.lines().find(|line| line.starts_with(&format!("| {goal} "))).unwrap();
        row.split('|').map(str::trim).skip(7).take(2).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_row_is_void_when_its_own_cell_was_disturbed_and_a_remark_stands_beside_its_goal() {
        let mut document = document("P1", 14.0);
        let cell =
            |setting: &str, after, tries| Cell { setting: setting.to_owned(), drift: drift(after), tries };
        document.cells = vec![cell("calm", [1.0, 1.0, 1.04], 2), cell("rough", [1.0, 1.0, 1.06], 3)];
        // the suite's own calibrations are for who reads them
        document.calibration = drift([2.0; 3]);
        document.reached[0].basis = Basis::Cells(vec!["calm".to_owned()]);
        document.reached.push(Reached::new("P2", 14.0).of(&["calm", "rough"]));
        document.reached.push(Reached::new("R1", 0.1).in_caches("rough"));
        document.reached.push(Reached::new("K1", 0.0).counted());
        document.reached.push(Reached::new("P3", 14.0));
        let crowded = Drift { waited: 0.5, ..drift([1.0; 3]) };
        document.cells.push(Cell { setting: "crowded".to_owned(), drift: crowded, tries: 1 });
        document.reached.push(Reached::new("C4", 1.0).of(&["crowded"]));
        let here = BTreeMap::from([("P1".to_owned(), "a slow day".to_owned())]);
        let text = render(&[document], &Remarks { here, tried: BTreeMap::new() });
        let row = text.lines().find(|line| line.starts_with("| P1 ")).unwrap();
        assert!(row.contains("a slow day"), "{row}");
        let want = [
            ("P1", "**moon** 4.0 %, 2 tries"),
            ("P2", "VOID 6.0 %, 3 tries"),
            ("R1", "**moon** 0.0 %, caches, 3 tries"),
            ("K1", "**moon** counted"),
            ("P3", "VOID 100.0 %"),
            ("C4", "VOID 0.0 %, 50 % others'"),
        ];
        for (goal, want) in want {
            assert_eq!(verdict(&text, goal), want, "{goal}");
        }
        assert!(text.contains("2 are void: rough (6.0 %, 0 % others', 3 tries); crowded"), "{text}");
    }

    #[test]
    fn what_was_measured_in_another_setting_is_not_judged() {
        let mut document = document("P1", 99.0);
        document.reached[0].aside = true;
        document.reached[0].basis = Basis::Counted;
        let tried = BTreeMap::from([("P1".to_owned(), "tried".to_owned())]);
        let text = render(&[document], &Remarks { here: BTreeMap::new(), tried });
        assert_eq!(verdict(&text, "P1"), "(above) counted");
        assert!(!text.contains("Short of the bar"), "{text}");
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
