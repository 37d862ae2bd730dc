//! Sizes and lifetimes by distribution: uniform, log-uniform, Pareto, Zipf, exponential, empirical.
//!
//! Every distribution becomes a table of at most [`STEPS`] ranges with cumulative weights in 64
//! bits; a draw is one random number, one binary search, and a second number within the range.
//! What is written reads `"uniform 16..1024"`, `"log-uniform 16..1024"`, `"pareto 1.2 16..65536"`,
//! `"zipf 1.1 16..1024"`, `"exponential 200 1..100000"` (mean 200), `"fixed 64"`,
//! `"one-of 16 32 64"` or `"weights 16:5 64:3 1024:1"`; ranges include both ends.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::math::{exp, pow};
use super::random::Random;

/// Ranges of a table.
const STEPS: u64 = 2048;

/// A distribution of whole numbers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Distribution {
    text: String,
    /// First number and how many there are, ascending.
    ranges: Vec<(u64, u64)>,
    /// The share of draws that fall into this range or an earlier one, in 2^-64.
    cumulative: Vec<u64>,
}

/// A distribution that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a distribution: {why}")]
pub struct DistributionError {
    /// What was given.
    pub given: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Distribution {
    /// From ranges (first number, how many) and weights.
    ///
    /// # Errors
    /// If there is no range, or no positive weight.
    pub fn from_weights(
        text: &str,
        weights: impl IntoIterator<Item = ((u64, u64), f64)>,
    ) -> Result<Self, DistributionError> {
        let fail = |why| DistributionError { given: text.to_owned(), why };
        let (ranges, weights): (Vec<_>, Vec<f64>) =
            weights.into_iter().filter(|(range, w)| *w > 0.0 && range.1 > 0).unzip();
        let total: f64 = weights.iter().sum();
        if ranges.is_empty() || !total.is_finite() {
            return Err(fail("nothing has a weight"));
        }
        let mut sum = 0.0;
        let mut cumulative: Vec<u64> = weights
            .iter()
            .map(|weight| {
                sum += weight;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "2^64")]
                let share = (sum / total * 18_446_744_073_709_551_616.0) as u64;
                share
            })
            .collect();
        if let Some(last) = cumulative.last_mut() {
            *last = u64::MAX;
        }
        Ok(Distribution { text: text.to_owned(), ranges, cumulative })
    }

    /// One and the same number.
    #[must_use]
    pub fn fixed(number: u64) -> Self {
        Distribution {
            text: format!("fixed {number}"),
            ranges: vec![(number, 1)],
            cumulative: vec![u64::MAX],
        }
    }

    /// A number.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let (first, count) = match self.ranges.len() {
            1 => self.ranges[0],
            _ => {
                let share = random.bits();
                self.ranges[self.cumulative.partition_point(|&c| c < share)]
            }
        };
        if count == 1 { first } else { first + random.below(count) }
    }

    /// The largest number it yields.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.ranges.iter().map(|(first, count)| first + count - 1).max().unwrap_or(0)
    }

    /// The mean of what it yields, about.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let mut before = 0;
        let mut sum = 0.0;
        for (&(first, count), &upto) in self.ranges.iter().zip(&self.cumulative) {
            let share = (upto - before) as f64 / u64::MAX as f64;
            before = upto;
            sum += share * (first as f64 + (count - 1) as f64 / 2.0);
        }
        sum
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Ranges from `low` to `high` whose lengths grow with the number, STEPS of them at most.
fn geometric(low: u64, high: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut first = low;
    while first <= high {
        // STEPS / 32 ranges to an octave, and no range empty.
        let count = (first / (STEPS / 32)).max(1).min(high - first + 1);
        ranges.push((first, count));
        first += count;
    }
    ranges
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (low, high) = text.split_once("..")?;
    let (low, high) = (number(low)?, number(high)?);
    (low <= high && high < 1 << 48).then_some((low, high))
}

/// A number, with K, M or G for binary thousands if wanted.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl FromStr for Distribution {
    type Err = DistributionError;

    fn from_str(text: &str) -> Result<Self, DistributionError> {
        let fail = |why| DistributionError { given: text.to_owned(), why };
        let words: Vec<&str> = text.split_whitespace().collect();
        let middle = |&(first, count): &(u64, u64)| first as f64 + (count - 1) as f64 / 2.0;
        let parameter = |word: &str| {
            word.parse::<f64>()
                .ok()
                .filter(|p| p.is_finite() && *p > 0.0 && *p < 1e12)
                .ok_or(fail("its parameter must be a positive number"))
        };
        let bounds = |word: &str| range(word).ok_or(fail("its range must read LOW..HIGH"));
        let by_density = |low, high, density: &dyn Fn(f64) -> f64| {
            let ranges = geometric(low, high);
            let weights = ranges.into_iter().map(|r| (r, r.1 as f64 * density(middle(&r))));
            Distribution::from_weights(text, weights)
        };
        match words[..] {
            ["fixed", n] => number(n).map(Distribution::fixed).ok_or(fail("it needs a number")),
            ["uniform", r] => {
                let (low, high) = bounds(r)?;
                Distribution::from_weights(text, [((low, high - low + 1), 1.0)])
            }
            ["log-uniform", r] => {
                let (low, high) = bounds(r)?;
                by_density(low.max(1), high, &|x| 1.0 / x)
            }
            ["pareto", alpha, r] => {
                let (alpha, (low, high)) = (parameter(alpha)?, bounds(r)?);
                by_density(low.max(1), high, &|x| pow(x, -(alpha + 1.0)))
            }
            ["zipf", s, r] => {
                // The rank of a number is its place in the range: the smallest is most frequent.
                let (s, (low, high)) = (parameter(s)?, bounds(r)?);
                let ranks = geometric(1, high - low + 1);
                let weights = ranks
                    .into_iter()
                    .map(|r| ((low + r.0 - 1, r.1), r.1 as f64 * pow(middle(&r), -s)));
                Distribution::from_weights(text, weights)
            }
            ["exponential", mean, r] => {
                let (mean, (low, high)) = (parameter(mean)?, bounds(r)?);
                by_density(low, high, &|x| exp((-x / mean).max(-600.0)))
            }
            ["one-of", ref numbers @ ..] => {
                let numbers: Option<Vec<u64>> = numbers.iter().map(|n| number(n)).collect();
                let numbers = numbers.ok_or(fail("it needs numbers"))?;
                Distribution::from_weights(text, numbers.into_iter().map(|n| ((n, 1), 1.0)))
            }
            ["weights", ref pairs @ ..] => {
                let pairs: Option<Vec<_>> = pairs
                    .iter()
                    .map(|pair| {
                        let (n, weight) = pair.split_once(':')?;
                        Some(((number(n)?, 1), weight.parse::<f64>().ok()?))
                    })
                    .collect();
                Distribution::from_weights(text, pairs.ok_or(fail("it needs NUMBER:WEIGHT pairs"))?)
            }
            _ => Err(fail(
                "it must begin with fixed, uniform, log-uniform, pareto, zipf, exponential, one-of or weights",
            )),
        }
    }
}

impl TryFrom<String> for Distribution {
    type Error = DistributionError;

    fn try_from(text: String) -> Result<Self, DistributionError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(text: &str) -> Vec<u64> {
        let distribution: Distribution = text.parse().unwrap();
        let mut random = Random::new(3, 0);
        let mut draws: Vec<u64> = (0..20_001).map(|_| distribution.draw(&mut random)).collect();
        draws.sort_unstable();
        draws
    }

    #[test]
    fn draws_stay_within_the_range_and_reach_its_ends() {
        for text in ["uniform 16..64", "log-uniform 16..64", "zipf 1.1 16..64"] {
            let draws = draws(text);
            assert_eq!((draws[0], draws[20_000]), (16, 64), "{text}");
        }
    }

    #[test]
    fn half_of_the_draws_lie_below_the_median_of_the_distribution() {
        // Medians: log-uniform sqrt(16·65536) = 1024; Pareto 16·2^(1/1.5) = 25.4;
        // exponential 1000·ln 2 = 693.
        for (text, median) in [
            ("log-uniform 16..65536", 1024.0),
            ("pareto 1.5 16..10000000", 25.4),
            ("exponential 1000 0..100000", 693.0),
            ("uniform 0..2000", 1000.0),
        ] {
            let found = draws(text)[10_000] as f64;
            assert!((found / median - 1.0).abs() < 0.06, "{text}: {found}");
        }
    }

    #[test]
    fn weights_decide_how_often_a_number_is_drawn() {
        let draws = draws("weights 10:1 20:3");
        let tens = draws.iter().filter(|&&n| n == 10).count();
        assert!((4600..5400).contains(&tens), "{tens}");
    }

    #[test]
    fn what_is_not_a_distribution_is_refused_with_a_reason() {
        for wrong in
            ["", "uniform", "uniform 9..3", "pareto 0 1..2", "gauss 3", "one-of", "weights 3:x"]
        {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_mean_is_that_of_the_draws() {
        for text in ["uniform 8..1000", "log-uniform 16..1024", "fixed 64"] {
            let draws = draws(text);
            let mean = draws.iter().sum::<u64>() as f64 / draws.len() as f64;
            let stated = text.parse::<Distribution>().unwrap().mean();
            assert!((mean / stated - 1.0).abs() < 0.02, "{text}: {mean} {stated}");
        }
    }
}
