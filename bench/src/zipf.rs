//! Ranks by Zipf's law: few flows have most of the packets.

/// Draws ranks 0 to `n - 1`, rank `k` in proportion to `(k + 1)^-s`.
///
/// Source: W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
/// distributions", ACM TOMACS 6(3), 1996; `s` is not 1.
pub struct Zipf {
    s: f64,
    n: f64,
    low: f64,
    high: f64,
    seed: u64,
}

impl Zipf {
    /// A source of ranks below `n`.
    pub fn new(n: u64, s: f64, seed: u64) -> Self {
        let mut zipf = Self { s, n: n as f64, low: 0.0, high: 0.0, seed };
        (zipf.low, zipf.high) = (zipf.integral(1.5) - 1.0, zipf.integral(zipf.n + 0.5));
        zipf
    }

    /// Integral of x^-s.
    fn integral(&self, x: f64) -> f64 {
        x.powf(1.0 - self.s) / (1.0 - self.s)
    }

    /// Its inverse.
    fn inverse(&self, y: f64) -> f64 {
        (y * (1.0 - self.s)).powf(1.0 / (1.0 - self.s))
    }

    /// Uniform in [0, 1): the high bits of Knuth's MMIX generator.
    fn uniform(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next rank.
    pub fn rank(&mut self) -> u64 {
        loop {
            let u = self.high + self.uniform() * (self.low - self.high);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.n);
            if u >= self.integral(k + 0.5) - k.powf(-self.s) {
                return k as u64 - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        let (n, s, draws) = (1000, 1.1, 200_000);
        let mut zipf = Zipf::new(n, s, 1);
        let mut counts = vec![0u32; n as usize];
        for _ in 0..draws {
            counts[zipf.rank() as usize] += 1;
        }
        let whole: f64 = (1..=n).map(|k| (k as f64).powf(-s)).sum();
        for k in [1u64, 2, 10, 100] {
            let expected = f64::from(draws) * (k as f64).powf(-s) / whole;
            let found = f64::from(counts[k as usize - 1]);
            // four standard deviations
            assert!(
                (found - expected).abs() < 4.0 * expected.sqrt(),
                "rank {k}: {found}, expected {expected:.0}"
            );
        }
    }
}
