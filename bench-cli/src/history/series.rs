//! One metric over commits: a point per commit, and where its level changed.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::points::Key;
use super::store::Point;
use crate::verdict::changes::{self, Change};

/// Chance of a change where there is none, per search of a segment.
const ALPHA: f64 = 0.01;
/// From so many points on a clear step is found; of nine no order is rarer than `ALPHA`.
pub const FEWEST: usize = 12;

/// A series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What is measured.
    pub key: Key,
    /// Where.
    pub machine: String,
    /// Its points, oldest first.
    pub steps: Vec<Step>,
    /// Its changes of level, oldest first.
    pub changes: Vec<Change>,
}

/// What was measured of one commit, or at one time where the commit is not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The commit's hash; empty: not known.
    pub commit: String,
    /// When it was committed, or measured.
    pub time_utc: String,
    /// Median of the folders' values.
    pub value: f64,
    /// Processes behind it.
    pub processes: usize,
}

/// Sorts points, which come in the order of commits, into series.
#[must_use]
pub fn of_points(points: Vec<Point>) -> Vec<Series> {
    let mut sorted: BTreeMap<(Key, String), Vec<Point>> = BTreeMap::new();
    for point in points {
        sorted.entry((point.key.clone(), point.machine.clone())).or_default().push(point);
    }
    sorted
        .into_iter()
        .map(|((key, machine), points)| {
            let steps = steps(&points);
            let values: Vec<f64> = steps.iter().map(|step| step.value).collect();
            Series { key, machine, steps, changes: changes::changes(&values, ALPHA) }
        })
        .collect()
}

fn steps(points: &[Point]) -> Vec<Step> {
    points
        .chunk_by(|a, b| a.commit.is_some() && a.commit == b.commit)
        .map(|same| {
            let mut values: Vec<f64> = same.iter().map(|point| point.value.median).collect();
            values.sort_unstable_by(f64::total_cmp);
            let middle = values.len() / 2;
            let value = match values.len() % 2 {
                1 => values[middle],
                _ => f64::midpoint(values[middle - 1], values[middle]),
            };
            let first = &same[0];
            let commit = first.commit.as_ref();
            Step {
                commit: commit.map_or(String::new(), super::commit::Commit::short),
                time_utc: commit.map_or(&first.started_utc, |c| &c.committed_utc).clone(),
                value,
                processes: same.iter().map(|point| point.value.processes).sum(),
            }
        })
        .collect()
}

impl Series {
    /// The change that begins at step `at`, if one does.
    #[must_use]
    pub fn change_at(&self, at: usize) -> Option<&Change> {
        self.changes.iter().find(|change| change.at == at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::commit::Commit;
    use super::super::points::Value;
    use super::*;

    fn point(commit: usize, machine: &str, median: f64) -> Point {
        Point {
            key: Key {
                subject: "larson".to_owned(),
                allocator: "ours".to_owned(),
                conditions: String::new(),
                metric: "elapsed_ns".to_owned(),
            },
            value: Value { median, processes: 3 },
            machine: machine.to_owned(),
            started_utc: "2026-01-01T00:00:00Z".to_owned(),
            commit: Some(Commit {
                hash: format!("{commit:040}"),
                committed_utc: format!("2026-01-{commit:02}T00:00:00Z"),
                modified: false,
            }),
        }
    }

    #[test]
    fn folders_of_one_commit_are_one_step_and_machines_stay_apart() {
        let points = vec![
            point(1, "a", 10.0),
            point(1, "a", 30.0),
            point(1, "b", 500.0),
            point(2, "a", 11.0),
        ];
        let series = of_points(points);
        assert_eq!(series.len(), 2);
        let values: Vec<f64> = series[0].steps.iter().map(|step| step.value).collect();
        assert_eq!(values, [20.0, 11.0]);
        assert_eq!(series[0].steps[0].processes, 6);
    }

    #[test]
    fn a_change_stands_at_the_first_commit_of_the_new_level() {
        let points: Vec<Point> = (1..=20)
            .map(|i| point(i, "a", if i < 11 { 100.0 } else { 110.0 } + (i % 3) as f64))
            .collect();
        let series = of_points(points);
        assert_eq!(series[0].changes.len(), 1);
        assert!(series[0].change_at(10).is_some_and(|c| c.after > c.before));
    }

    #[test]
    fn a_clear_step_is_found_from_the_fewest_points_on_and_never_in_nine() {
        let with = |n: usize| {
            let points = (1..=n).map(|i| {
                point(
                    i,
                    "a",
                    if i <= n / 2 { 1.0 + i as f64 * 1e-3 } else { 9.0 + i as f64 * 1e-3 },
                )
            });
            of_points(points.collect())[0].changes.len()
        };
        assert_eq!((with(FEWEST), with(9)), (1, 0));
    }
}
