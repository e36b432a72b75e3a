//! Repetitions of one measurement.

/// ns per packet of every repetition.
#[derive(Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a repetition.
    pub fn push(&mut self, ns: f64) {
        self.0.push(ns);
    }

    /// The least disturbed repetition.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_minimum_the_least() {
        let mut series = Series::default();
        [5.0, 1.0, 9.0].into_iter().for_each(|ns| series.push(ns));
        assert_eq!((series.min(), series.median()), (1.0, 5.0));
    }
}
