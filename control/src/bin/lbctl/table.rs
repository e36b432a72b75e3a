//! Aligned columns.

/// Which side of its column a text keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words and addresses.
    Left,
    /// Numbers.
    Right,
}

/// Columns with a header, each as wide as its widest text.
#[derive(Debug)]
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns: heading and side.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let header = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        Self { sides: columns.iter().map(|(_, side)| *side).collect(), rows: vec![header] }
    }

    /// Adds a row; a text per column.
    pub fn row(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// The table's lines, the header first, columns two spaces apart, nothing behind the last text of a line.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|text| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        self.rows.iter().map(move |row| {
            let texts = row.iter().zip(&self.sides).zip(&widths).map(|((text, side), width)| match side {
                Side::Left => format!("{text:<width$}"),
                Side::Right => format!("{text:>width$}"),
            });
            texts.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_to_their_side() {
        let mut table = Table::new(&[("Name", Side::Left), ("Packets", Side::Right), ("Note", Side::Left)]);
        table.row(["a".into(), "12".into(), "first".into()]);
        table.row(["longer".into(), "123456789".into(), String::new()]);
        let want = "Name      Packets  Note\n\
                    a              12  first\n\
                    longer  123456789\n";
        assert_eq!(table.to_string(), want);
    }
}
