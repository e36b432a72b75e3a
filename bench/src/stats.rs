//! Repetitions of one measurement.

/// The figure of every repetition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a repetition.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The least disturbed repetition, where less is better.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The largest: the least disturbed one, where more is better.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The middle one; of an even number the larger of the two in the middle. NaN without any.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The figure that a `q`-th of all do not exceed, as 0.99. NaN without any.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (q * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// Minimum and median, for a table.
    pub fn shown(&self) -> String {
        format!("{:.1} / {:.1}", self.min(), self.median())
    }

    /// This one's minimum less another's, as work less the floor below it; never below 0.
    pub fn above(&self, floor: &Series) -> f64 {
        (self.min() - floor.min()).max(0.0)
    }

    /// Median of the ratios of this one's repetitions to those of another taken beside them.
    pub fn ratio(&self, other: &Series) -> f64 {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect()).median()
    }

    /// The repetitions, in the order taken.
    pub fn samples(&self) -> &[f64] {
        &self.0
    }
}

impl From<Series> for Vec<f64> {
    fn from(series: Series) -> Self {
        series.0
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// 1234567 as "1.23 M", 1000 as "1 k".
pub fn short(n: f64) -> String {
    let (value, unit) = match n.abs() {
        1e9.. => (n / 1e9, " G"),
        1e6.. => (n / 1e6, " M"),
        1e3.. => (n / 1e3, " k"),
        _ => (n, ""),
    };
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_minimum_the_least() {
        let series: Series = [5.0, 1.0, 9.0].into_iter().collect();
        assert_eq!((series.min(), series.median(), series.max()), (1.0, 5.0, 9.0));
    }

    #[test]
    fn quantiles_are_among_the_samples() {
        let series: Series = (0..100).map(f64::from).collect();
        assert_eq!((series.quantile(0.0), series.quantile(0.99), series.quantile(1.0)), (0.0, 99.0, 99.0));
        assert!(Series::default().median().is_nan());
    }

    #[test]
    fn ratios_are_of_neighbours() {
        // the machine slows down by half: neighbours still tell that one takes twice the other's time
        let (slow, fast): (Series, Series) =
            ([2.0, 4.0, 6.0].into_iter().collect(), [1.0, 2.0, 3.0].into_iter().collect());
        assert_eq!(slow.ratio(&fast), 2.0);
    }

    #[test]
    fn large_numbers_are_shortened() {
        let cases =
            [(1.0, "1"), (999.0, "999"), (1e3, "1 k"), (1.5e6, "1.5 M"), (1e8, "100 M"), (31.25, "31.2")];
        for (n, text) in cases {
            assert_eq!(short(n), text);
        }
    }
}
