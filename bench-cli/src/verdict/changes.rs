//! Where a series changes its level: change points over commits.
//!
//! Binary segmentation on ranks. Of all splits of a segment the one whose two sides differ most in
//! mean rank is taken, if shuffling the segment gives so large a difference in at most one case of
//! a hundred; then both sides are searched. Ranks, because one commit measured on a bad day must
//! not hide a change. The shuffles are seeded: the same series has the same change points.
//!
//! Cost: 999 shuffles of a segment of n points, n steps each.
//!
//! Source: the idea of E-divisive (D. Matteson, N. James, 2014) with a rank statistic in place of
//! its distances.

#![forbid(unsafe_code)]

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// A level has at least so many points: fewer cannot be told from an outlier.
const SHORTEST: usize = 3;
/// Shuffles per segment; with 999 the smallest p is 0.001.
const SHUFFLES: usize = 999;

/// A change of level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Index of the first point of the new level.
    pub at: usize,
    /// Median before, back to the change before it.
    pub before: f64,
    /// Median after, up to the change after it.
    pub after: f64,
}

/// The changes of level in `series`, by position, at level `alpha` (0.01, say).
#[must_use]
pub fn changes(series: &[f64], alpha: f64) -> Vec<Change> {
    let mut cuts = Vec::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    search(series, 0, alpha, &mut rng, &mut cuts);
    cuts.sort_unstable();
    let edges: Vec<usize> =
        std::iter::once(0).chain(cuts.iter().copied()).chain([series.len()]).collect();
    edges
        .windows(3)
        .map(|edge| Change {
            at: edge[1],
            before: median(&series[edge[0]..edge[1]]),
            after: median(&series[edge[1]..edge[2]]),
        })
        .collect()
}

fn search(segment: &[f64], offset: usize, alpha: f64, rng: &mut ChaCha8Rng, cuts: &mut Vec<usize>) {
    if segment.len() < 2 * SHORTEST {
        return;
    }
    let mut ranks = ranks(segment);
    let (cut, observed) = best_split(&ranks);
    let as_large = (0..SHUFFLES)
        .filter(|_| {
            ranks.shuffle(rng);
            best_split(&ranks).1 >= observed - 1e-9
        })
        .count();
    if (as_large + 1) as f64 / (SHUFFLES + 1) as f64 > alpha {
        return;
    }
    cuts.push(offset + cut);
    search(&segment[..cut], offset, alpha, rng, cuts);
    search(&segment[cut..], offset + cut, alpha, rng, cuts);
}

/// The split with the largest standardised difference of mean ranks.
fn best_split(ranks: &[f64]) -> (usize, f64) {
    let n = ranks.len() as f64;
    let mean = (n + 1.0) / 2.0;
    let mut sum = 0.0;
    let mut best = (0, -1.0);
    for (i, rank) in ranks.iter().enumerate() {
        sum += rank - mean;
        let left = (i + 1) as f64;
        if i + 1 < SHORTEST || ranks.len() - (i + 1) < SHORTEST {
            continue;
        }
        let statistic = sum.abs() / (left * (n - left)).sqrt();
        if statistic > best.1 {
            best = (i + 1, statistic);
        }
    }
    best
}

/// Mid-ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    values
        .iter()
        .map(|v| {
            let below = values.iter().filter(|o| *o < v).count();
            let equal = values.iter().filter(|o| *o == v).count();
            below as f64 + (equal as f64 + 1.0) / 2.0
        })
        .collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (1, Some(value)) => *value,
        (0, Some(upper)) => f64::midpoint(sorted[middle - 1], *upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// `n` points about `level` with one per cent of noise.
    fn around(level: f64, n: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| level * rng.random_range(0.99..1.01)).collect()
    }

    #[test]
    fn a_step_is_found_where_it_is_with_its_levels() {
        let series = [around(100.0, 12, 1), around(105.0, 10, 2)].concat();
        let found = changes(&series, 0.01);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].at, 12);
        assert!((found[0].before - 100.0).abs() < 1.0 && (found[0].after - 105.0).abs() < 1.0);
    }

    #[test]
    fn two_steps_are_both_found() {
        let series = [around(100.0, 10, 1), around(110.0, 10, 2), around(95.0, 10, 3)].concat();
        let at: Vec<usize> = changes(&series, 0.01).iter().map(|c| c.at).collect();
        assert_eq!(at, [10, 20]);
    }

    #[test]
    fn one_bad_day_is_no_change() {
        let mut series = around(100.0, 20, 1);
        series[9] = 300.0;
        assert!(changes(&series, 0.01).is_empty());
    }

    #[test]
    fn noise_alone_gives_a_change_in_few_of_many_series() {
        let wrong = (0..200).filter(|s| !changes(&around(100.0, 30, *s), 0.01).is_empty()).count();
        assert!(wrong <= 8, "{wrong} of 200");
    }

    #[test]
    fn a_series_too_short_for_two_levels_has_none() {
        assert!(changes(&[], 0.01).is_empty());
        assert!(changes(&[1.0, 1.0, 1.0, 9.0, 9.0], 0.01).is_empty());
    }
}
