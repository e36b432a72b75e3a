//! What a suite measures with and writes its results into.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::goals;
use crate::progress::Progress;
use crate::record::{Document, Measurement, Plot, Reached, Skip, Table};
use crate::stats::Series;

/// One way to do the work that is compared: its name, and a repetition of it that returns its figure.
pub type Variant<'a> = (&'a str, &'a mut dyn FnMut() -> anyhow::Result<f64>);

/// A suite's run.
pub struct Context {
    quick: bool,
    out: PathBuf,
    /// What was recorded so far.
    pub(crate) document: Document,
}

impl Context {
    /// A run of `suite` with results in `out`.
    pub fn new(suite: &str, quick: bool, out: &Path) -> Self {
        let document = Document { suite: suite.to_owned(), quick, ..Document::default() };
        Self { quick, out: out.to_owned(), document }
    }

    /// Whether it is to take seconds instead of minutes: fewer repetitions, smaller tables.
    pub fn quick(&self) -> bool {
        self.quick
    }

    /// Folder of the results, for files beside those that the framework writes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Rounds of a comparison: 10, or 2 when quick.
    pub fn pairs(&self) -> usize {
        if self.quick { 2 } else { 10 }
    }

    /// Memory that the system has free for us now, bytes (`MemAvailable`).
    pub fn memory(&self) -> u64 {
        crate::facts::memory_available()
    }

    /// A progress bar of `total` steps, on standard error.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        Progress::new(&self.document.suite, what, total)
    }

    /// Measures variants in turn, A B A B, [`Context::pairs`] times each, and records every sample under `setting`
    /// (as "DR IPv4, 1 M connections"). `unit` is that of the figures, as "ns/packet".
    ///
    /// Errors: a variant's own; a figure that is no positive, finite number.
    pub fn compare(
        &mut self,
        setting: &str,
        unit: &str,
        variants: &mut [Variant],
    ) -> anyhow::Result<Vec<Series>> {
        self.compare_rounds(self.pairs(), setting, unit, variants)
    }

    /// [`Context::compare`] with another number of rounds.
    pub fn compare_rounds(
        &mut self,
        rounds: usize,
        setting: &str,
        unit: &str,
        variants: &mut [Variant],
    ) -> anyhow::Result<Vec<Series>> {
        let names: Vec<_> = variants.iter().map(|(name, _)| (*name).to_owned()).collect();
        self.rounds(rounds, setting, unit, &names, |variant, _| variants[variant].1())
    }

    /// As [`Context::compare_rounds`], for variants that share what they work on: `work` is given the index of a
    /// variant in `names`, and of the round.
    pub fn rounds(
        &mut self,
        rounds: usize,
        setting: &str,
        unit: &str,
        names: &[String],
        mut work: impl FnMut(usize, usize) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Vec<Series>> {
        let mut all = vec![Series::default(); names.len()];
        let mut progress = self.progress(setting, (rounds * names.len()) as u64);
        for round in 0..rounds {
            for (variant, (name, series)) in names.iter().zip(&mut all).enumerate() {
                let figure = work(variant, round)?;
                ensure!(
                    figure.is_finite() && figure >= 0.0,
                    "{setting}, {name}: {figure} {unit} is no measurement"
                );
                series.push(figure);
                progress.step(1);
            }
        }
        for (name, series) in names.iter().zip(&all) {
            self.record(setting, name, unit, series.clone());
        }
        Ok(all)
    }

    /// Records samples that were taken otherwise.
    pub fn record(&mut self, setting: &str, variant: &str, unit: &str, series: Series) {
        let (min, median) = (series.min(), series.median());
        let (setting, variant, unit) = (setting.to_owned(), variant.to_owned(), unit.to_owned());
        self.document.measurements.push(Measurement {
            setting,
            variant,
            unit,
            min,
            median,
            samples: series.into(),
        });
    }

    /// Says what was reached of a goal of [`goals::GOALS`]. One goal may be reached in several cases.
    ///
    /// Errors: there is no such goal.
    pub fn reached(&mut self, reached: Reached) -> anyhow::Result<()> {
        goals::named(&reached.goal)?;
        self.document.reached.push(reached);
        Ok(())
    }

    /// Adds a table to the report, and prints it.
    pub fn table(&mut self, table: Table) {
        println!("\n{}", table.markdown());
        self.document.tables.push(table);
    }

    /// Adds a plot to the report.
    pub fn plot(&mut self, plot: Plot) {
        self.document.plots.push(plot);
    }

    /// Adds a sentence to the report, and prints it.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("{text}");
        self.document.notes.push(text);
    }

    /// Says that something was not measured, and why.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skip_goals(what, why, &[]);
    }

    /// [`Context::skip`] of something without which these goals have no figure.
    pub fn skip_goals(&mut self, what: impl Into<String>, why: impl Into<String>, goals: &[&str]) {
        let goals = goals.iter().map(|goal| (*goal).to_owned()).collect();
        let skip = Skip { what: what.into(), why: why.into(), goals };
        println!("SKIP {}: {}", skip.what, skip.why);
        self.document.skipped.push(skip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_measured_in_turn_and_recorded() {
        let mut context = Context::new("path", true, Path::new("/nonexistent"));
        let order = std::cell::RefCell::new(Vec::new());
        let mut a = || {
            order.borrow_mut().push('a');
            Ok(2.0)
        };
        let mut b = || {
            order.borrow_mut().push('b');
            Ok(1.0)
        };
        let series = context.compare("here", "ns", &mut [("A", &mut a), ("B", &mut b)]).unwrap();
        assert_eq!(order.borrow().as_slice(), ['a', 'b', 'a', 'b']);
        assert_eq!((series[0].min(), series[1].min()), (2.0, 1.0));
        assert_eq!(context.document.measurements[1].samples, [1.0, 1.0]);
    }

    #[test]
    fn what_is_no_number_is_no_measurement() {
        let mut context = Context::new("path", true, Path::new("/nonexistent"));
        assert!(context.compare("here", "ns", &mut [("A", &mut || Ok(f64::NAN))]).is_err());
    }

    #[test]
    fn only_known_goals_are_reached() {
        let mut context = Context::new("path", true, Path::new("/nonexistent"));
        assert!(context.reached(Reached::new("P1", 10.0)).is_ok());
        assert!(context.reached(Reached::new("P0", 10.0)).is_err());
    }
}
