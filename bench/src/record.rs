//! What a run leaves: the contents of `SUITE.json`.

use serde::{Deserialize, Serialize};

use crate::calibrate::Drift;
use crate::facts::Facts;

/// One suite's run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// The suite.
    pub suite: String,
    /// Whether it ran for seconds only: its figures then mean nothing.
    pub quick: bool,
    /// How long it took, s.
    pub seconds: f64,
    /// The machine.
    pub facts: Facts,
    /// Whether it came to its end; a run that was stopped leaves what it had measured.
    #[serde(default = "yes")]
    pub complete: bool,
    /// The machine's memory before and after all of it.
    pub calibration: Drift,
    /// The same of each cell.
    #[serde(default)]
    pub cells: Vec<Cell>,
    /// Every sample.
    pub measurements: Vec<Measurement>,
    /// Goals.
    pub reached: Vec<Reached>,
    /// What was not measured.
    pub skipped: Vec<Skip>,
    /// Tables for the report.
    pub tables: Vec<Table>,
    /// Plots for the report.
    pub plots: Vec<Plot>,
    /// Sentences for the report.
    pub notes: Vec<String>,
}

/// Runs from before there was the mark were complete.
fn yes() -> bool {
    true
}

/// One comparison, between two calibrations of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// That of its measurements.
    pub setting: String,
    /// The machine's memory over its first half and its second.
    pub drift: Drift,
    /// How often it was measured, until the two agreed.
    pub tries: u32,
}

/// Which calibration a figure stands or falls with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// That of the whole suite.
    #[default]
    Suite,
    /// Those of the cells with these settings.
    Cells(Vec<String>),
    /// The same, of the sets alone that caches hold: the work needs no memory beyond.
    Caches(Vec<String>),
    /// None: what is counted, not timed, is the same on any machine.
    Counted,
}

/// Repetitions of one way to do the work, in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What was the same for all that it is compared with.
    pub setting: String,
    /// Which way.
    pub variant: String,
    /// Of the figures.
    pub unit: String,
    /// Least.
    pub min: f64,
    /// Middle.
    pub median: f64,
    /// All, in the order taken.
    pub samples: Vec<f64>,
}

/// What was reached of a goal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reached {
    /// Its id in [`crate::goals::GOALS`].
    pub goal: String,
    /// Where a goal is reached in several ways: which; else empty.
    pub case: String,
    /// The figure, in the goal's unit.
    pub value: f64,
    /// Who else does it, and their figures.
    pub peers: Vec<Peer>,
    /// What a reader should know beside the figure; why it falls short, if it does.
    pub note: String,
    /// What makes it void.
    #[serde(default)]
    pub basis: Basis,
    /// Measured in another setting than the goal's: shown beside it, and not judged.
    #[serde(default)]
    pub aside: bool,
}

/// Somebody else's figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub name: String,
    /// The figure, in the goal's unit.
    pub value: f64,
    /// Not measured in this run, but printed by its authors or measured before.
    pub published: bool,
}

impl Reached {
    /// This much of this goal.
    pub fn new(goal: &str, value: f64) -> Self {
        Self {
            goal: goal.to_owned(),
            case: String::new(),
            value,
            peers: Vec::new(),
            note: String::new(),
            basis: Basis::Suite,
            aside: false,
        }
    }

    /// Measured in these cells, if not in the latest one.
    pub fn of(mut self, settings: &[&str]) -> Self {
        self.basis = Basis::Cells(settings.iter().map(|setting| (*setting).to_owned()).collect());
        self
    }

    /// Measured in this cell by work within caches.
    pub fn in_caches(mut self, setting: &str) -> Self {
        self.basis = Basis::Caches(vec![setting.to_owned()]);
        self
    }

    /// Counted, not timed.
    pub fn counted(mut self) -> Self {
        self.basis = Basis::Counted;
        self
    }

    /// In another setting than the goal's.
    pub fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// In this case of several.
    pub fn case(mut self, case: impl Into<String>) -> Self {
        self.case = case.into();
        self
    }

    /// With a peer measured in the same run.
    pub fn peer(mut self, name: &str, value: f64) -> Self {
        self.peers.push(Peer { name: name.to_owned(), value, published: false });
        self
    }

    /// With a figure from elsewhere.
    pub fn published(mut self, name: &str, value: f64) -> Self {
        self.peers.push(Peer { name: name.to_owned(), value, published: true });
        self
    }

    /// With a remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Something that was not measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skip {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// Goals of which nothing was reached for that reason.
    #[serde(default)]
    pub goals: Vec<String>,
}

/// A table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// Its columns' headings.
    pub columns: Vec<String>,
    /// Its rows, a text per column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As Markdown, columns aligned.
    pub fn markdown(&self) -> String {
        let cell =
            |row: &[String], at: usize| row.get(at).map_or(String::new(), |cell| cell.replace('|', "\\|"));
        let width = |at: usize| {
            let widths = self.rows.iter().map(|row| cell(row, at).chars().count());
            widths.chain([self.columns[at].chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = widths.iter().enumerate().map(|(at, width)| format!(" {:<width$} |", cell(row, at)));
            format!("|{}\n", cells.collect::<String>())
        };
        let rule = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect::<String>();
        let rows = self.rows.iter().map(|row| line(row)).collect::<String>();
        let title = if self.title.is_empty() { String::new() } else { format!("{}\n\n", self.title) };
        format!("{title}{}|{rule}\n{rows}", line(&self.columns))
    }
}

/// A plot: figures over connections or another size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plot {
    /// End of its file's name, `SUITE-NAME.svg`.
    pub name: String,
    /// Heading.
    pub title: String,
    /// What is along the x axis, with its unit.
    pub x: String,
    /// What is along the y axis, with its unit.
    pub y: String,
    /// Whether the x axis is logarithmic.
    pub log_x: bool,
    /// Whether the y axis is logarithmic.
    pub log_y: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Whose.
    pub name: String,
    /// Points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Figures from elsewhere: drawn dashed.
    pub published: bool,
}

impl Plot {
    /// A plot without lines; x logarithmic.
    pub fn new(name: &str, title: &str, x: &str, y: &str) -> Self {
        let (name, title, x, y) = (name.to_owned(), title.to_owned(), x.to_owned(), y.to_owned());
        Self { name, title, x, y, log_x: true, log_y: false, lines: Vec::new() }
    }

    /// Adds a line measured in this run.
    pub fn line(&mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        self.lines.push(Line {
            name: name.to_owned(),
            points: points.into_iter().collect(),
            published: false,
        });
    }

    /// Adds a line of figures from elsewhere.
    pub fn published(&mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        self.lines.push(Line {
            name: name.to_owned(),
            points: points.into_iter().collect(),
            published: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new("", &["flows", "ns"]);
        table.row(["1 M".to_owned(), "a|b".to_owned()]);
        assert_eq!(table.markdown(), "| flows | ns   |\n|-------|------|\n| 1 M   | a\\|b |\n");
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let mut document = Document { suite: "path".to_owned(), ..Document::default() };
        document
            .reached
            .push(Reached::new("P1", 14.5).case("IPIP").peer("HashMap", 50.0).published("Katran", 92.0));
        let text = serde_json::to_string(&document).unwrap();
        let read: Document = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(read.reached[0].peers[1].published && !read.reached[0].peers[0].published);
    }
}
