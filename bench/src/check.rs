//! Whether a folder of results is complete: every suite's file reads, and holds what it should; every goal has what was
//! reached, or the reason why nothing was; of what falls short is said what was tried. No figure is judged.

use std::path::Path;

use anyhow::ensure;

use crate::record::Document;
use crate::suite::SUITES;
use crate::{goals, report};

/// Checks a folder that `all` has filled; says what suites skipped.
///
/// Errors: every fault that was found.
pub fn folder(out: &Path) -> anyhow::Result<()> {
    let (mut faults, mut documents) = (Vec::new(), Vec::new());
    for suite in SUITES {
        match report::read(out, suite.name) {
            Ok(document) => {
                for skip in &document.skipped {
                    println!("SKIP {}: {}: {}", suite.name, skip.what, skip.why);
                }
                faults.extend(suite_faults(&document, out));
                documents.push(document);
            }
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    let text = std::fs::read_to_string(out.join("README.md")).unwrap_or_default();
    for goal in goals::GOALS {
        if !text.contains(&format!("| {} ", goal.id)) {
            faults.push(format!("README.md has no row {}", goal.id));
        }
    }
    faults.extend(goal_faults(&documents, &report::Remarks::read(out)?));
    ensure!(faults.is_empty(), "{} is not complete:\n  {}", out.display(), faults.join("\n  "));
    println!("{}: complete, {} suites", out.display(), SUITES.len());
    Ok(())
}

/// Goals without a figure and without a reason, or short without a word. Quick runs measure too little for goals.
fn goal_faults(documents: &[Document], remarks: &report::Remarks) -> Vec<String> {
    let mut faults = Vec::new();
    if documents.iter().any(|document| document.quick) {
        return faults;
    }
    for goal in goals::GOALS {
        let reached = report::reached(documents, goal);
        if reached.is_empty() && report::skipped(documents, goal).is_none() {
            faults.push(format!("{}: nothing was reached, and no suite says why", goal.id));
        }
        if reached.iter().any(|(_, one)| report::is_short(goal, one)) && remarks.tried(goal).is_none() {
            faults.push(format!(
                "{}: short of the bar, and bench/notes.toml does not say what was tried",
                goal.id
            ));
        }
    }
    faults
}

/// What one suite's results lack.
fn suite_faults(document: &Document, out: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{}: {text}", document.suite));
    if !document.complete {
        fault("it ended early".to_owned());
    }
    if document.measurements.is_empty() && document.tables.is_empty() && document.skipped.is_empty() {
        fault("nothing was measured and nothing skipped".to_owned());
    }
    for measurement in &document.measurements {
        let what = format!("{}, {}", measurement.setting, measurement.variant);
        if measurement.samples.is_empty() {
            fault(format!("{what}: no samples"));
        }
        if !measurement.samples.iter().all(|sample| sample.is_finite()) {
            fault(format!("{what}: a sample is no number"));
        }
    }
    if document.skipped.iter().any(|skip| skip.why.is_empty()) {
        fault("something was skipped without a reason".to_owned());
    }
    for reached in &document.reached {
        if goals::named(&reached.goal).is_err() || !reached.value.is_finite() {
            fault(format!("goal {}: {}", reached.goal, reached.value));
        }
    }
    for table in &document.tables {
        if table.rows.is_empty() || table.rows.iter().any(|row| row.len() != table.columns.len()) {
            fault(format!("table '{}' has no rows, or one with another number of columns", table.title));
        }
    }
    for plot in &document.plots {
        let file = format!("{}-{}.svg", document.suite, plot.name);
        if !std::fs::read_to_string(out.join(&file)).is_ok_and(|text| text.trim_end().ends_with("</svg>")) {
            fault(format!("{file} is missing or cut short"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Reached, Skip, Table};

    fn skip(goals: &[&str]) -> Skip {
        let goals = goals.iter().map(|goal| (*goal).to_owned()).collect();
        Skip { what: "all".to_owned(), why: "no valgrind".to_owned(), goals }
    }

    #[test]
    fn a_row_that_is_missing_or_short_without_a_word_is_a_fault() {
        let mut document = Document { suite: "path".to_owned(), ..Document::default() };
        for goal in goals::GOALS.iter().filter(|goal| !["P4", "P11", "K1"].contains(&goal.id)) {
            document.reached.push(Reached::new(goal.id, goal.moon));
        }
        document.reached.push(Reached::new("K1", 5.0));
        document.skipped.push(skip(&["P11"]));
        let faults = goal_faults(std::slice::from_ref(&document), &report::Remarks::default());
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("P4: nothing") && faults[1].starts_with("K1: short"), "{faults:?}");
        document.quick = true;
        assert!(goal_faults(&[document], &report::Remarks::default()).is_empty());
    }

    #[test]
    fn what_is_empty_or_no_number_is_a_fault() {
        let nowhere = Path::new("/nonexistent");
        let mut document = Document { suite: "path".to_owned(), complete: true, ..Document::default() };
        assert_eq!(suite_faults(&document, nowhere).len(), 1);
        document.skipped.push(skip(&[]));
        assert!(suite_faults(&document, nowhere).is_empty());
        document.reached.push(Reached::new("P1", f64::NAN));
        document.tables.push(Table::new("t", &["a"]));
        document.plots.push(crate::record::Plot::new("p", "", "", ""));
        assert_eq!(suite_faults(&document, nowhere).len(), 3);
    }
}
