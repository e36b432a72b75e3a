//! What a suite measures with and writes its results into.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::calibrate::{Drift, Gauge, Watch};
use crate::goals;
use crate::plot;
use crate::progress::Progress;
use crate::record::{Basis, Cell, Document, Measurement, Plot, Reached, Skip, Table};
use crate::stats::Series;

/// One way to do the work that is compared: its name, and a repetition of it that returns its figure.
pub type Variant<'a> = (&'a str, &'a mut dyn FnMut() -> anyhow::Result<f64>);

/// How often a cell is measured at most until its calibrations agree.
const TRIES: u32 = 3;
/// What measuring again may take of a suite: so many seconds, and this share of what it has taken so far.
const PATIENCE_S: f64 = 10.0;
const PATIENCE_SHARE: f64 = 0.2;

/// A suite's run.
pub struct Context {
    quick: bool,
    out: PathBuf,
    begun: Instant,
    /// Made when it is first needed.
    gauge: Option<Gauge>,
    /// The cell that goes on.
    watch: Option<Watch>,
    /// Seconds that measuring again took.
    again_s: f64,
    /// Whether results are written as they come.
    saves: bool,
    /// What was recorded so far.
    pub(crate) document: Document,
}

impl Context {
    /// A run of `suite` with results in `out`.
    pub fn new(suite: &str, quick: bool, out: &Path) -> Self {
        let document = Document { suite: suite.to_owned(), quick, ..Document::default() };
        Self {
            quick,
            out: out.to_owned(),
            begun: Instant::now(),
            gauge: None,
            watch: None,
            again_s: 0.0,
            saves: false,
            document,
        }
    }

    /// Writes results into the folder as they come, from now on.
    pub fn save_as_it_goes(&mut self) {
        self.saves = true;
    }

    /// Writes what there is: `SUITE.partial.json` until the suite is complete, then `SUITE.json`, and its plots.
    pub fn save(&mut self) -> anyhow::Result<()> {
        self.document.seconds = self.begun.elapsed().as_secs_f64();
        let (suite, complete) = (&self.document.suite, self.document.complete);
        for plot in &self.document.plots {
            let path = self.out.join(format!("{suite}-{}.svg", plot.name));
            std::fs::write(&path, plot::svg(plot)).with_context(|| format!("writing {}", path.display()))?;
        }
        let partial = self.out.join(format!("{suite}.partial.json"));
        let text = serde_json::to_string_pretty(&self.document)?;
        std::fs::write(&partial, text + "\n").with_context(|| format!("writing {}", partial.display()))?;
        if complete {
            let path = self.out.join(format!("{suite}.json"));
            std::fs::rename(&partial, &path).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// The gauge, made if it is not there.
    fn gauge(&mut self) -> anyhow::Result<&mut Gauge> {
        if self.gauge.is_none() {
            self.gauge = Some(Gauge::new()?);
        }
        self.gauge.as_mut().context("no gauge")
    }

    /// Begins to watch the machine's memory; [`Drift`] is of all that happens until [`Context::watched`].
    pub fn watching(&mut self) -> anyhow::Result<Watch> {
        Ok(Watch::begin(self.gauge()?))
    }

    /// Ends what [`Context::watching`] began.
    pub fn watched(&mut self, watch: Watch) -> anyhow::Result<Drift> {
        Ok(watch.end(self.gauge()?))
    }

    /// Does the work of a cell between two calibrations, and again if they do not agree, up to three times. Kept are the
    /// result of the try that they differed least around, and its [`Cell`] with the number of tries. Within a cell there is
    /// no other: what would be one belongs to it.
    ///
    /// Errors: the work's; no memory to calibrate with.
    pub fn cell<T>(
        &mut self,
        setting: &str,
        mut work: impl FnMut(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if self.watch.is_some() {
            return work(self);
        }
        let mut best: Option<(T, Drift)> = None;
        let mut tries = 0;
        loop {
            let start = Instant::now();
            self.watch = Some(Watch::begin(self.gauge()?));
            let done = work(self);
            let watch = self.watch.take().context("no watch")?;
            let (done, drift) = (done?, watch.end(self.gauge()?));
            tries += 1;
            let took = start.elapsed().as_secs_f64();
            if tries > 1 {
                self.again_s += took;
            }
            if best.as_ref().is_none_or(|(_, least)| drift.disturbance() < least.disturbance()) {
                best = Some((done, drift));
            }
            let is_void = best.as_ref().is_none_or(|(_, drift)| drift.is_void());
            if !is_void || tries == TRIES || self.quick || !self.has_patience(took) {
                break;
            }
        }
        let (done, drift) = best.context("no try")?;
        self.document.cells.push(Cell { setting: setting.to_owned(), drift, tries });
        if self.saves {
            self.save()?;
        }
        Ok(done)
    }

    /// Whether there is time to measure again what took so many seconds.
    fn has_patience(&self, took: f64) -> bool {
        let elapsed = self.begun.elapsed().as_secs_f64() - self.again_s;
        self.again_s + took < PATIENCE_S + PATIENCE_SHARE * elapsed
    }

    /// Looks at the machine's memory between two pieces of a cell's work, of which a `part` is done, 0 to 1. To be called
    /// where it does not disturb what is timed.
    pub fn glance(&mut self, part: f64) {
        if let (Some(watch), Some(gauge)) = (&mut self.watch, &mut self.gauge) {
            watch.glance(gauge, part);
        }
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
        let mut before = 0;
        let all = self.cell(setting, |context| {
            let mut all = vec![Series::default(); names.len()];
            let works = rounds * names.len();
            let mut progress = context.progress(setting, works as u64);
            for round in 0..rounds {
                for (variant, (name, series)) in names.iter().zip(&mut all).enumerate() {
                    let figure = work(variant, before + round)?;
                    ensure!(
                        figure.is_finite() && figure >= 0.0,
                        "{setting}, {name}: {figure} {unit} is no measurement"
                    );
                    series.push(figure);
                    progress.step(1);
                    context.look(round * names.len() + variant, works);
                }
            }
            before += rounds;
            Ok(all)
        })?;
        for (name, series) in names.iter().zip(&all) {
            self.record(setting, name, unit, series.clone());
        }
        Ok(all)
    }

    /// A glance after work number `at` of `works`, if it is time for one: a hundred are enough.
    fn look(&mut self, at: usize, works: usize) {
        if at.is_multiple_of(works.div_ceil(100)) {
            self.glance(at as f64 / works as f64);
        }
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

    /// Says what was reached of a goal of [`goals::GOALS`]. One goal may be reached in several cases. Unless it says
    /// otherwise, the figure is of the latest cell.
    ///
    /// Errors: there is no such goal, or no such cell.
    pub fn reached(&mut self, mut reached: Reached) -> anyhow::Result<()> {
        goals::named(&reached.goal)?;
        if reached.basis == Basis::Suite {
            let latest = self.document.cells.last().map(|cell| cell.setting.clone());
            reached.basis = Basis::Cells(vec![latest.context("a figure of no cell")?]);
        }
        if let Basis::Cells(settings) | Basis::Caches(settings) = &reached.basis {
            for setting in settings {
                let is_there = self.document.cells.iter().any(|cell| cell.setting == *setting);
                ensure!(is_there, "{}: there is no cell '{setting}'", reached.goal);
            }
        }
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
        assert!(context.reached(Reached::new("P1", 10.0).counted()).is_ok());
        assert!(context.reached(Reached::new("P0", 10.0).counted()).is_err());
        assert!(context.reached(Reached::new("P1", 10.0)).is_err(), "of no cell");
        assert!(context.reached(Reached::new("P1", 10.0).of(&["nowhere"])).is_err());
    }

    #[test]
    fn a_figure_is_of_the_latest_cell_and_what_is_in_a_cell_is_none_of_its_own() {
        let mut context = Context::new("path", true, Path::new("/nonexistent"));
        let figure = |context: &mut Context| {
            context.compare("within", "ns", &mut [("A", &mut || Ok(1.0))])?;
            Ok(7)
        };
        assert_eq!(context.cell("around", figure).unwrap(), 7);
        let settings: Vec<_> = context.document.cells.iter().map(|cell| cell.setting.as_str()).collect();
        assert_eq!(settings, ["around"]);
        assert_eq!(context.document.cells[0].tries, 1);
        context.reached(Reached::new("P1", 10.0)).unwrap();
        assert_eq!(context.document.reached[0].basis, Basis::Cells(vec!["around".to_owned()]));
    }

    #[test]
    fn what_was_measured_is_there_when_a_run_is_stopped() {
        let out = std::env::temp_dir().join(format!("sluice-bench-context-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let mut context = Context::new("path", true, &out);
        context.save_as_it_goes();
        context.cell("first", |_| Ok(())).unwrap();
        let partial = crate::report::read(&out, "path").unwrap();
        assert!(!partial.complete && partial.cells.len() == 1);
        context.document.complete = true;
        context.save().unwrap();
        assert!(crate::report::read(&out, "path").unwrap().complete);
        assert!(!out.join("path.partial.json").exists());
        std::fs::remove_dir_all(&out).unwrap();
    }
}
