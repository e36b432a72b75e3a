//! What differed, which of it is meant, and the counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The differences that are meant: `DIFFERENCES.toml` beside the vectors of the repository.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meant {
    difference: Vec<MeantRow>,
}

/// One difference that is meant.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct MeantRow {
    /// Name; the runner's rules refer to it.
    id: String,
    /// Why.
    reason: String,
    /// Where it may occur beside the places that a rule of the runner recognises.
    #[serde(default)]
    at: Vec<Place>,
}

/// A place in the vectors. What is left out matches anything.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Place {
    file: Option<String>,
    case: Option<String>,
    step: Option<String>,
    what: Option<String>,
}

impl Place {
    fn covers(&self, file: &str, difference: &Difference) -> bool {
        let is =
            |wanted: &Option<String>, got: &str| wanted.as_deref().is_none_or(|wanted| matches(wanted, got));
        is(&self.file, file)
            && is(&self.case, &difference.case)
            && is(&self.step, &difference.step)
            && is(&self.what, &difference.what)
    }
}

/// Whether `text` is `pattern`, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl Meant {
    /// Reads the table. Errors: unreadable, an id twice, a reason that says nothing, a place that is everywhere.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("the table of meant differences")?;
        let table: Self = toml::from_str(&text).context("the table of meant differences")?;
        let mut seen = BTreeSet::new();
        for row in &table.difference {
            if !seen.insert(&row.id) {
                bail!("{}: listed twice", row.id);
            }
            if row.reason.len() < 20 {
                bail!("{}: its reason says nothing", row.id);
            }
            if row.at.iter().any(|at| at.file.is_none() && at.case.is_none() && at.what.is_none()) {
                bail!("{}: a place without file, case and what covers everything", row.id);
            }
        }
        Ok(table)
    }

    fn known(&self, id: &str) -> bool {
        self.difference.iter().any(|row| row.id == id)
    }

    /// The row of the table that a difference is explained by.
    fn explains(&self, file: &str, difference: &Difference) -> Option<String> {
        match difference.rule {
            Some(rule) => self.known(rule).then(|| rule.to_owned()),
            None => self.covering(file, difference).map(str::to_owned),
        }
    }

    /// Case and what of every difference that the table does not explain.
    pub fn unexplained(&self, file: &str, findings: &Findings) -> Vec<(String, String)> {
        let all = findings.differences.iter().filter(|difference| self.explains(file, difference).is_none());
        all.map(|difference| (difference.case.clone(), difference.what.clone())).collect()
    }

    fn covering(&self, file: &str, difference: &Difference) -> Option<&str> {
        let row = self.difference.iter().find(|row| row.at.iter().any(|at| at.covers(file, difference)));
        row.map(|row| row.id.as_str())
    }
}

/// Something that is not as recorded.
#[derive(Clone, Debug)]
struct Difference {
    case: String,
    step: String,
    what: String,
    expected: String,
    got: String,
    /// Rule of the runner that recognised it.
    rule: Option<&'static str>,
}

/// What one file gave.
#[derive(Default)]
pub struct Findings {
    case: String,
    cases: BTreeSet<String>,
    checks: usize,
    differences: Vec<Difference>,
}

impl Findings {
    /// From here on, what is found belongs to this case.
    pub fn begin(&mut self, case: impl Into<String>) {
        self.case = case.into();
        self.cases.insert(self.case.clone());
    }

    /// One comparison.
    pub fn check(&mut self, step: &str, what: &str, expected: &str, got: &str) -> bool {
        self.checks += 1;
        if expected != got {
            self.push(step, what, expected, got, None);
        }
        expected == got
    }

    /// One comparison that failed in a way that a rule recognises: meant if the rule is in the table.
    pub fn meant(&mut self, rule: &'static str, step: &str, what: &str, expected: &str, got: &str) {
        self.checks += 1;
        self.push(step, what, expected, got, Some(rule));
    }

    /// Something that could not be replayed.
    pub fn fault(&mut self, step: &str, what: &str, why: &str) {
        self.checks += 1;
        self.push(step, what, "to be replayed", why, None);
    }

    fn push(&mut self, step: &str, what: &str, expected: &str, got: &str, rule: Option<&'static str>) {
        self.differences.push(Difference {
            case: self.case.clone(),
            step: step.to_owned(),
            what: what.to_owned(),
            expected: expected.to_owned(),
            got: got.to_owned(),
            rule,
        });
    }
}

/// Differences of one case that are shown in full; the others are named.
const SHOWN: usize = 8;

/// Sums over all files.
pub struct Report {
    pub meant: Meant,
    used: BTreeMap<String, usize>,
    totals: Counts,
    lines: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    cases: usize,
    failed: usize,
    checks: usize,
    differ: usize,
    meant: usize,
}

impl Report {
    /// Nothing yet.
    pub fn new(meant: Meant) -> Self {
        Self { meant, used: BTreeMap::new(), totals: Counts::default(), lines: Vec::new() }
    }

    /// Takes up what a file gave and prints what differs in it.
    pub fn file(&mut self, name: &str, findings: &Findings) {
        let mut counts = Counts { cases: findings.cases.len(), checks: findings.checks, ..Counts::default() };
        let mut failed: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
        for difference in &findings.differences {
            if let Some(id) = self.meant.explains(name, difference) {
                counts.meant += 1;
                *self.used.entry(id).or_default() += 1;
            } else {
                counts.differ += 1;
                failed.entry(&difference.case).or_default().push(difference);
            }
        }
        counts.failed = failed.len();
        for (case, differences) in failed {
            println!("DIFFERS {name}: {case}");
            for difference in differences.iter().take(SHOWN) {
                show(difference);
            }
            let rest: Vec<_> =
                differences.iter().skip(SHOWN).map(|d| format!("{} {}", d.step, d.what)).collect();
            if !rest.is_empty() {
                println!("    and {} more: {}", rest.len(), rest.join(", "));
            }
        }
        self.line(name, counts);
        if counts.differ > 0 {
            println!("test {name} ... FAILED");
        }
        let all = &mut self.totals;
        *all = Counts {
            cases: all.cases + counts.cases,
            failed: all.failed + counts.failed,
            checks: all.checks + counts.checks,
            differ: all.differ + counts.differ,
            meant: all.meant + counts.meant,
        };
    }

    fn line(&mut self, name: &str, counts: Counts) {
        let Counts { cases, failed, checks, differ, meant } = counts;
        let verdict = if differ == 0 { "ok" } else { "FAIL" };
        self.lines.push(format!(
            "{verdict:<5} {name:<24} {:>5} of {cases:>5} cases as recorded; {checks:>6} checks, {differ:>5} differ, \
             {meant:>5} meant differences",
            cases - failed
        ));
    }

    /// Prints the counts. `complete`: these are the repository's own vectors, in which every meant difference occurs.
    /// Returns whether all is as recorded or meant to differ.
    pub fn finish(mut self, complete: bool) -> bool {
        let mut good = self.totals.differ == 0;
        for row in &self.meant.difference {
            let times = self.used.get(&row.id).copied().unwrap_or_default();
            if times > 0 {
                println!("MEANT {} ({times} times): {}", row.id, row.reason.trim());
            } else if complete {
                println!("STALE {}: is in the table of meant differences and no longer occurs", row.id);
                good = false;
            }
        }
        let totals = self.totals;
        self.line("all", totals);
        self.lines.iter().for_each(|line| println!("{line}"));
        // as the ordinary test harness ends, for whoever counts
        let verdict = if good { "ok" } else { "FAILED" };
        println!(
            "test result: {verdict}. {} passed; {} failed; 0 ignored",
            totals.cases - totals.failed,
            totals.failed
        );
        if totals.cases == 0 {
            println!("no vectors were replayed");
            return false;
        }
        good
    }
}

fn show(difference: &Difference) {
    let Difference { step, what, expected, got, rule, .. } = difference;
    let unlisted = rule.map(|id| format!(" (rule {id:?} is not in the table)")).unwrap_or_default();
    if expected.contains('\n') || got.contains('\n') {
        println!("    {step} {what}{unlisted}:");
        for line in diff(expected, got) {
            println!("      {line}");
        }
    } else {
        println!("    {step} {what}{unlisted}: expected {expected:?}, got {got:?}");
    }
}

/// Lines of both, `-` those expected and missing, `+` those not expected, blank what is common.
fn diff(expected: &str, got: &str) -> Vec<String> {
    let (a, b): (Vec<_>, Vec<_>) = (expected.lines().collect(), got.lines().collect());
    // longest common subsequence; listings are some hundred lines at most
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    if lines.is_empty() {
        lines.push("(they differ in line ends alone)".to_owned());
    }
    lines
}
