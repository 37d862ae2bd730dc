//! Exact bounds for a rate of which some trials are known (Clopper–Pearson).
//!
//! `calibrate` uses them: "0 alarms in 299 gates" proves a false-alarm rate below 1 % at 95 %.
//! Cost: some hundred evaluations of a binomial tail.

#![forbid(unsafe_code)]

/// The largest rate that `successes` of `trials` leave possible at `confidence`, one-sided.
#[must_use]
pub fn upper_bound(successes: u64, trials: u64, confidence: f64) -> f64 {
    if successes >= trials {
        return 1.0;
    }
    // P(X ≤ successes) falls as the rate grows: find the rate where it reaches 1 − confidence.
    bisect(|rate| at_most(successes, trials, rate) > 1.0 - confidence)
}

/// The smallest rate that `successes` of `trials` leave possible at `confidence`, one-sided.
#[must_use]
pub fn lower_bound(successes: u64, trials: u64, confidence: f64) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    1.0 - upper_bound(trials - successes.min(trials), trials, confidence)
}

/// The rate below which `below` holds and above which it does not.
fn bisect(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// P(X ≤ k) for n trials, in logarithms so that no term underflows on the way.
fn at_most(k: u64, n: u64, rate: f64) -> f64 {
    if rate <= 0.0 {
        return 1.0;
    }
    if rate >= 1.0 {
        return 0.0;
    }
    let odds = rate.ln() - (-rate).ln_1p();
    let mut term = n as f64 * (-rate).ln_1p();
    let mut sum = term.exp();
    for i in 0..k {
        term += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
        sum += term.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `binom.test(…)$conf.int`, R 4.2.2; two-sided 95 % is one-sided 97.5 % at either end.
    #[test]
    fn bounds_are_those_of_binom_test_in_r() {
        let check = |actual: f64, expected: f64| {
            assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
        };
        check(upper_bound(0, 299, 0.95), 0.009_969_146_792_899_286);
        check(upper_bound(3, 300, 0.95), 0.025_641_393_082_609_6);
        check(upper_bound(3, 300, 0.975), 0.028_944_511_256_692_64);
        check(lower_bound(3, 300, 0.975), 0.002_067_007_235_092_32);
        check(lower_bound(19, 20, 0.95), 0.783_893_835_793_153);
    }

    #[test]
    fn extremes_bound_nothing_on_their_side() {
        assert_eq!(upper_bound(20, 20, 0.95), 1.0);
        assert_eq!(lower_bound(0, 20, 0.95), 0.0);
        assert_eq!(upper_bound(0, 0, 0.95), 1.0);
    }
}
