//! Whether a folder of results is complete: every suite's file reads, and holds what it should. No figure is judged.

use std::path::Path;

use anyhow::ensure;

use crate::record::Document;
use crate::suite::SUITES;
use crate::{goals, report};

/// Checks a folder that `all` has filled; says what suites skipped.
///
/// Errors: every fault that was found.
pub fn folder(out: &Path) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for suite in SUITES {
        match report::read(out, suite.name) {
            Ok(document) => {
                for skip in &document.skipped {
                    println!("SKIP {}: {}: {}", suite.name, skip.what, skip.why);
                }
                faults.extend(suite_faults(&document, out));
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
    ensure!(faults.is_empty(), "{} is not complete:\n  {}", out.display(), faults.join("\n  "));
    println!("{}: complete, {} suites", out.display(), SUITES.len());
    Ok(())
}

/// What one suite's results lack.
fn suite_faults(document: &Document, out: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{}: {text}", document.suite));
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
    use crate::record::{Reached, Table};

    #[test]
    fn what_is_empty_or_no_number_is_a_fault() {
        let nowhere = Path::new("/nonexistent");
        let mut document = Document { suite: "path".to_owned(), ..Document::default() };
        assert_eq!(suite_faults(&document, nowhere).len(), 1);
        document.skipped.push(crate::record::Skip { what: "all".to_owned(), why: "no valgrind".to_owned() });
        assert!(suite_faults(&document, nowhere).is_empty());
        document.reached.push(Reached::new("P1", f64::NAN));
        document.tables.push(Table::new("t", &["a"]));
        document.plots.push(crate::record::Plot::new("p", "", "", ""));
        assert_eq!(suite_faults(&document, nowhere).len(), 3);
    }
}
