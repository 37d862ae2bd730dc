//! The Hodges–Lehmann estimate of a sample's location, and its exact confidence interval.
//!
//! The estimate is the median of all means of two differences (each with itself too); the interval
//! runs between two of these means, picked by the null distribution of the signed-rank test, so
//! that interval and test agree: a bound lies outside exactly when the test rejects it.
//!
//! With ties the interval keeps the untied distribution's ranks and is then slightly wider than it
//! need be. Cost: n(n+1)/2 numbers (n = 160: 12,880), sorted once.
//!
//! Source: Hollander & Wolfe, Nonparametric Statistical Methods, sections 3.2 and 3.3; figures
//! below by R 4.2.2's `wilcox.test(conf.int = TRUE)`.

#![forbid(unsafe_code)]

use super::signed_rank::NullDistribution;

/// Where a sample lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The confidence actually reached: at least what was asked for.
    pub confidence: f64,
}

/// The means of every two differences, sorted.
#[derive(Debug)]
pub struct WalshAverages {
    sorted: Vec<f64>,
    sample: usize,
}

impl WalshAverages {
    /// Of finite differences.
    #[must_use]
    pub fn of(differences: &[f64]) -> Self {
        let n = differences.len();
        let mut sorted = Vec::with_capacity(n * (n + 1) / 2);
        for (i, a) in differences.iter().enumerate() {
            sorted.extend(differences[i..].iter().map(|b| f64::midpoint(*a, *b)));
        }
        sorted.sort_unstable_by(f64::total_cmp);
        WalshAverages { sorted, sample: n }
    }

    /// The Hodges–Lehmann estimate; `None` of an empty sample.
    #[must_use]
    pub fn estimate(&self) -> Option<f64> {
        let upper = *self.sorted.get(self.sorted.len() / 2)?;
        if self.sorted.len() % 2 == 1 {
            return Some(upper);
        }
        Some(f64::midpoint(self.sorted[self.sorted.len() / 2 - 1], upper))
    }

    /// The narrowest interval that reaches `confidence` (0.999, say); `None` where the sample is
    /// too small for any interval to reach it.
    #[must_use]
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let tail = (1.0 - confidence) / 2.0;
        let null = NullDistribution::untied(self.sample);
        // The largest c with P(W ≤ c) ≤ tail: then c averages are cut off at either end.
        let cut = (0..=null.total()).take_while(|sum| null.at_most(*sum) <= tail).last()?;
        let last = self.sorted.len() - 1;
        Some(Interval {
            low: *self.sorted.get(cut)?,
            high: *self.sorted.get(last.checked_sub(cut)?)?,
            confidence: 1.0 - 2.0 * null.at_most(cut),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::signed_rank::{p_above, p_below};
    use proptest::prelude::*;

    fn check(sample: &[f64], confidence: f64, estimate: f64, low: f64, high: f64) {
        let averages = WalshAverages::of(sample);
        let interval = averages.interval(confidence).unwrap();
        for (actual, expected) in
            [(averages.estimate().unwrap(), estimate), (interval.low, low), (interval.high, high)]
        {
            assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
        }
        assert!(interval.confidence >= confidence);
    }

    /// Hollander & Wolfe, examples 3.3 and 3.4: 0.46, and (0.010, 0.786) at 96.1 %; in thousandths here.
    #[test]
    fn the_depression_scale_example_gives_the_published_estimate_and_interval() {
        let x = [1830.0, 500.0, 1620.0, 2480.0, 1680.0, 1880.0, 1550.0, 3060.0, 1300.0];
        let y = [878.0, 647.0, 598.0, 2050.0, 1060.0, 1290.0, 1060.0, 3140.0, 1290.0];
        let d: Vec<f64> = x.iter().zip(y).map(|(x, y)| x - y).collect();
        check(&d, 0.95, 460.0, 10.0, 786.0);
        let reached = WalshAverages::of(&d).interval(0.95).unwrap().confidence;
        assert!((reached - 0.960_937_5).abs() < 1e-12, "{reached}");
    }

    #[test]
    fn darwins_maize_gives_the_estimate_and_intervals_of_r() {
        let d = [
            49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0,
            -48.0,
        ];
        check(&d, 0.95, 25.0, 4.0, 41.5);
        check(&d, 0.99, 25.0, -13.0, 49.0);
    }

    /// `set.seed(42); z <- round(rnorm(40, .3, 1), 3); wilcox.test(z, conf.int = TRUE,
    /// conf.level = .999, exact = TRUE)`
    #[test]
    fn forty_normal_numbers_give_the_estimate_and_interval_of_r() {
        let d = [
            1.671, -0.265, 0.663, 0.933, 0.704, 0.194, 1.812, 0.205, 2.318, 0.237, 1.605, 2.587,
            -1.089, 0.021, 0.167, 0.936, 0.016, -2.356, -2.14, 1.62, -0.007, -1.481, 0.128, 1.515,
            2.195, -0.13, 0.043, -1.463, 0.76, -0.34, 0.755, 1.005, 1.335, -0.309, 0.805, -1.417,
            -0.484, -0.551, -2.114, 0.336,
        ];
        check(&d, 0.999, 0.270_25, -0.408, 0.943);
    }

    #[test]
    fn a_sample_too_small_for_the_confidence_has_no_interval() {
        let ten: Vec<f64> = (0..10).map(f64::from).collect();
        assert_eq!(WalshAverages::of(&ten).interval(0.999), None);
        assert!(WalshAverages::of(&ten).interval(0.99).is_some());
        assert_eq!(WalshAverages::of(&[]).estimate(), None);
        assert_eq!(WalshAverages::of(&[]).interval(0.5), None);
    }

    proptest! {
        #[test]
        fn interval_and_test_agree(d in prop::collection::vec(-1.0_f64..1.0, 12..40)) {
            let interval = WalshAverages::of(&d).interval(0.99).unwrap();
            let tail = (1.0 - 0.99) / 2.0;
            let hair = 1e-9;
            prop_assert!(p_above(&d, interval.low - hair) <= tail);
            prop_assert!(p_above(&d, interval.low + hair) > tail);
            prop_assert!(p_below(&d, interval.high + hair) <= tail);
            prop_assert!(p_below(&d, interval.high - hair) > tail);
            prop_assert!(interval.confidence >= 0.99);
        }
    }
}
