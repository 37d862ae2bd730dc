//! Wilcoxon's signed-rank test, one-sided and exact.
//!
//! Under the null hypothesis each difference is as likely to be positive as negative, given its
//! absolute value. So the distribution of W⁺, the sum of the ranks of the positive differences, is
//! that of a sum of ranks picked by fair coins, and is computed, not approximated.
//!
//! - **Zeros** say nothing about a direction: they are left out before ranking (Wilcoxon's rule,
//!   also R's).
//! - **Ties** share the mean of their ranks. The distribution is then that of the shared ranks
//!   actually present (the conditional permutation distribution), so that the test stays exact
//!   where others fall back to a normal approximation. Ranks are kept doubled, hence whole numbers.
//!
//! Cost: sorting, and n·n(n+1) additions for the distribution, which for untied samples is computed
//! once per n and kept (n = 160: 13,000 numbers, 2 ms).
//!
//! Source: F. Wilcoxon, Individual comparisons by ranking methods (1945); M. Hollander, D. Wolfe,
//! Nonparametric Statistical Methods, chapter 3. Checked below against R 4.2.2's `wilcox.test` and
//! `psignrank`, and against counting all sign patterns.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The null distribution of a sum of ranks, each taken with probability one half.
#[derive(Debug)]
pub struct NullDistribution {
    /// `cumulative[s]` = P(sum ≤ s). The distribution is symmetric about half of `total`.
    cumulative: Vec<f64>,
}

impl NullDistribution {
    /// The distribution for the ranks 1..=n, in plain (not doubled) units; kept for each `n`.
    #[must_use]
    pub fn untied(n: usize) -> Arc<Self> {
        static KEPT: OnceLock<Mutex<HashMap<usize, Arc<NullDistribution>>>> = OnceLock::new();
        let mut kept =
            KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(n).or_insert_with(|| Arc::new(Self::of_ranks(1..=n))).clone()
    }

    /// The distribution for any ranks, in their own unit.
    fn of_ranks(ranks: impl Iterator<Item = usize>) -> Self {
        // Convolve one coin at a time. Halving at each step keeps every number a probability; all
        // terms are positive, so even the far tail has full relative precision.
        let mut probability = vec![1.0_f64];
        for rank in ranks {
            let old = probability.len();
            probability.resize(old + rank, 0.0);
            for sum in (0..old + rank).rev() {
                let without = if sum < old { probability[sum] } else { 0.0 };
                let with = if sum >= rank { probability[sum - rank] } else { 0.0 };
                probability[sum] = 0.5 * (without + with);
            }
        }
        let mut running = 0.0;
        for p in &mut probability {
            running += *p;
            *p = running;
        }
        NullDistribution { cumulative: probability }
    }

    /// The largest possible sum.
    #[must_use]
    pub fn total(&self) -> usize {
        self.cumulative.len() - 1
    }

    /// P(sum ≤ `sum`).
    #[must_use]
    pub fn at_most(&self, sum: usize) -> f64 {
        self.cumulative[sum.min(self.total())].min(1.0)
    }

    /// P(sum ≥ `sum`), by symmetry, so that small tails are not lost in 1 − p.
    #[must_use]
    pub fn at_least(&self, sum: usize) -> f64 {
        self.total().checked_sub(sum).map_or(0.0, |mirrored| self.at_most(mirrored))
    }
}

/// The statistic of one sample of differences.
#[derive(Debug)]
pub struct SignedRank {
    /// How many differences are not zero.
    pub non_zero: usize,
    /// Twice the sum of the ranks of the positive differences.
    pub doubled_w_plus: usize,
    null: Null,
}

#[derive(Debug)]
enum Null {
    /// Distinct absolute values: ranks 1..=n, sums in plain units.
    Plain(Arc<NullDistribution>),
    /// Shared ranks: sums in doubled units.
    Tied(NullDistribution),
}

impl SignedRank {
    /// Ranks `differences` by absolute value. The numbers must be finite.
    #[must_use]
    pub fn of(differences: &[f64]) -> Self {
        let mut sorted: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
        sorted.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
        let n = sorted.len();
        let mut doubled_ranks = Vec::with_capacity(n);
        let mut doubled_w_plus = 0;
        let mut tied = false;
        let mut start = 0;
        while start < n {
            let size = sorted[start].abs();
            let run = sorted[start..].iter().take_while(|d| d.abs() == size).count();
            tied |= run > 1;
            // The ranks start+1 ..= start+run have the mean start + (run + 1) / 2.
            let doubled = 2 * start + run + 1;
            for difference in &sorted[start..start + run] {
                doubled_ranks.push(doubled);
                if *difference > 0.0 {
                    doubled_w_plus += doubled;
                }
            }
            start += run;
        }
        let null = if tied {
            Null::Tied(NullDistribution::of_ranks(doubled_ranks.into_iter()))
        } else {
            Null::Plain(NullDistribution::untied(n))
        };
        SignedRank { non_zero: n, doubled_w_plus, null }
    }

    /// The probability, were the differences symmetric about zero, of a W⁺ at least this large:
    /// the evidence that the location is greater than zero.
    #[must_use]
    pub fn p_greater(&self) -> f64 {
        match &self.null {
            Null::Plain(null) => null.at_least(self.doubled_w_plus / 2),
            Null::Tied(null) => null.at_least(self.doubled_w_plus),
        }
    }

    /// The probability, were the differences symmetric about zero, of a W⁺ at most this large:
    /// the evidence that the location is less than zero.
    #[must_use]
    pub fn p_less(&self) -> f64 {
        match &self.null {
            Null::Plain(null) => null.at_most(self.doubled_w_plus / 2),
            Null::Tied(null) => null.at_most(self.doubled_w_plus),
        }
    }
}

/// The evidence that the differences lie above `bound`: p of "the location is at most `bound`".
#[must_use]
pub fn p_above(differences: &[f64], bound: f64) -> f64 {
    SignedRank::of(&shifted(differences, bound)).p_greater()
}

/// The evidence that the differences lie below `bound`: p of "the location is at least `bound`".
#[must_use]
pub fn p_below(differences: &[f64], bound: f64) -> f64 {
    SignedRank::of(&shifted(differences, bound)).p_less()
}

fn shifted(differences: &[f64], by: f64) -> Vec<f64> {
    differences.iter().map(|d| d - by).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, spelled out: every pattern of signs is equally likely.
    fn p_greater_by_counting(differences: &[f64]) -> f64 {
        let kept: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
        let doubled_rank = |d: f64| {
            let below = kept.iter().filter(|o| o.abs() < d.abs()).count();
            let equal = kept.iter().filter(|o| o.abs() == d.abs()).count();
            2 * below + equal + 1
        };
        let ranks: Vec<usize> = kept.iter().map(|d| doubled_rank(*d)).collect();
        let observed: usize =
            kept.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, r)| r).sum();
        let patterns = 1_u32 << kept.len();
        let extreme = (0..patterns)
            .filter(|signs| {
                let sum: usize = ranks
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| signs >> i & 1 == 1)
                    .map(|(_, r)| r)
                    .sum();
                sum >= observed
            })
            .count();
        extreme as f64 / f64::from(patterns)
    }

    fn close(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected} ± {tolerance}");
    }

    /// Hamilton depression scale, in thousandths, of nine patients before and after a
    /// tranquilliser (Hollander & Wolfe, example 3.1). R: `wilcox.test(x, y, paired = TRUE,
    /// alternative = "greater")` prints V = 40, p-value = 0.01953.
    #[test]
    fn the_depression_scale_example_gives_the_figures_of_r() {
        let x = [1830.0, 500.0, 1620.0, 2480.0, 1680.0, 1880.0, 1550.0, 3060.0, 1300.0];
        let y = [878.0, 647.0, 598.0, 2050.0, 1060.0, 1290.0, 1060.0, 3140.0, 1290.0];
        let d: Vec<f64> = x.iter().zip(y).map(|(x, y)| x - y).collect();
        let test = SignedRank::of(&d);
        assert_eq!(test.doubled_w_plus, 80);
        assert_eq!(test.p_greater(), 10.0 / 512.0);
    }

    /// Darwin's fifteen pairs of maize plants, crossed minus self-fertilised, in eighths of an
    /// inch. R: V = 96, p-value = 0.04126 two-sided.
    #[test]
    fn darwins_maize_gives_the_figures_of_r() {
        let d = [
            49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0,
            -48.0,
        ];
        let test = SignedRank::of(&d);
        assert_eq!(test.doubled_w_plus, 2 * 96);
        close(2.0 * test.p_greater(), 0.041_260, 5e-7);
    }

    /// Student's sleep data: a zero and a tie. R's `wilcox.test` gives up exactness here; with the
    /// zero left out all nine signs agree, so the exact figure is 1 in 512.
    #[test]
    fn students_sleep_data_stays_exact_in_spite_of_a_zero_and_a_tie() {
        let d = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let test = SignedRank::of(&d);
        assert_eq!((test.non_zero, test.doubled_w_plus), (9, 90));
        assert_eq!(test.p_greater(), 1.0 / 512.0);
    }

    #[test]
    fn tails_are_those_of_psignrank_in_r() {
        // `psignrank(q, n)`, R 4.2.2.
        for (n, q, expected) in [
            (5, 1, 6.25e-2),
            (5, 5, 3.125e-1),
            (10, 5, 9.765_625e-3),
            (10, 19, 2.158_203_125e-1),
            (12, 7, 4.638_671_875e-3),
            (12, 27, 1.901_855_468_75e-1),
            (24, 30, 1.196_265_220_642_092e-4),
            (24, 104, 9.868_919_849_395_769e-2),
            (48, 117, 7.082_874_731_167_996e-8),
            (48, 411, 3.500_227_859_333_913e-2),
            (96, 465, 4.050_020_539_727_103e-14),
            (96, 1629, 5.128_374_135_280_252e-3),
            (160, 1288, 2.363_683_970_729_181e-22),
            (160, 3220, 8.465_097_271_283_17e-9),
            (160, 4508, 4.571_636_449_520_977e-4),
        ] {
            let null = NullDistribution::untied(n);
            close(null.at_most(q) / expected, 1.0, 1e-10);
            close(null.at_least(null.total() - q) / expected, 1.0, 1e-10);
        }
    }

    #[test]
    fn no_difference_at_all_is_no_evidence() {
        let test = SignedRank::of(&[0.0, 0.0]);
        assert_eq!((test.p_greater(), test.p_less()), (1.0, 1.0));
        assert_eq!(SignedRank::of(&[]).p_greater(), 1.0);
    }

    #[test]
    fn evidence_is_measured_from_the_bound() {
        let d: Vec<f64> = (1..=12).map(|i| 0.05 + f64::from(i) * 0.001).collect();
        assert_eq!(p_above(&d, 0.05), 1.0 / 4096.0);
        assert_eq!(p_below(&d, 0.07), 1.0 / 4096.0);
        assert_eq!(p_below(&d, 0.0), 1.0);
    }

    proptest! {
        #[test]
        fn any_small_sample_agrees_with_counting_all_sign_patterns(
            // A narrow range of whole numbers makes zeros and ties common.
            whole in prop::collection::vec(-6_i32..=6, 1..=11)
        ) {
            let d: Vec<f64> = whole.iter().map(|w| f64::from(*w)).collect();
            let negated: Vec<f64> = d.iter().map(|d| -d).collect();
            let expected = p_greater_by_counting(&d);
            prop_assert!((SignedRank::of(&d).p_greater() - expected).abs() < 1e-12);
            prop_assert!((SignedRank::of(&negated).p_less() - expected).abs() < 1e-12);
        }
    }
}
