//! From rows of single processes to one line per workload and allocator.
//!
//! Times are compared within a round, because runs of one round stand next to each other in time
//! and share its noise. The ratio to the reference is the Hodges–Lehmann estimate of the rounds'
//! differences of logarithms, with the exact 95 % interval of the signed-rank test; where that
//! interval excludes 1, the difference is called significant. Who was refused memory, or ended with another
//! exit status than the reference, did not do the work and is compared with nobody. Where each allocator had an amount of
//! work of its own, what is compared is the time per call.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use crate::results::{LatencyCsv, RunRow, Subject};
use crate::verdict::location::WalshAverages;

/// Confidence of the intervals in tables.
const CONFIDENCE: f64 = 0.95;

/// What has to be said where lines are shown of which allocators did amounts of work of their own.
pub const OWN_WORK: &str = "\
Each allocator did as much as takes it a given time: what is per call compares between allocators,
memory only where a workload needs no more of it the longer it runs.";

/// How an allocator stands against the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is the reference.
    Reference,
    /// Faster, and the interval says so.
    Faster,
    /// Slower, and the interval says so.
    Slower,
    /// The interval holds 1, or there are too few rounds for one.
    Undecided,
}

/// One line of the table: a workload under an allocator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The workload, trace or command.
    pub workload: String,
    /// Its threads.
    pub threads: u64,
    /// The pressure it ran under; empty: none.
    pub pressure: String,
    /// Who served malloc.
    pub allocator: String,
    /// As the library states it.
    pub allocator_version: String,
    /// Processes that were timed.
    pub runs: usize,
    /// Processes, whatever the pass and their end.
    pub all_runs: usize,
    /// Processes that failed, whatever the pass.
    pub failed_runs: usize,
    /// How the first of them ended.
    pub failure: Option<String>,
    /// Whether each allocator had an amount of work of its own: what is of a whole run then compares
    /// with no other line, and the ratios are of times per call.
    pub own_work: bool,
    /// Median operations of a run.
    pub operations: Option<f64>,
    /// Median time of a run.
    pub elapsed_ns: Option<f64>,
    /// What of it is the harness: the same work with an allocator that does nothing.
    pub floor_ns: Option<f64>,
    /// Median operations per second.
    pub operations_per_second: Option<f64>,
    /// Time relative to the reference; with `own_work` time per call.
    pub ratio: Option<f64>,
    /// Lower end of its interval.
    pub ratio_low: Option<f64>,
    /// Upper end of its interval.
    pub ratio_high: Option<f64>,
    /// What the interval says.
    pub standing: Standing,
    /// Median time of a call, all operations together.
    pub p50_ns: Option<u64>,
    /// Its 99th percentile.
    pub p99_ns: Option<u64>,
    /// Its 99.9th percentile.
    pub p999_ns: Option<u64>,
    /// Median instructions.
    pub instructions: Option<f64>,
    /// System calls for memory.
    pub system_calls: Option<f64>,
    /// Median peak of resident memory.
    pub peak_rss_bytes: Option<f64>,
    /// Peak of live bytes.
    pub peak_live_bytes: Option<u64>,
    /// Requests refused, over all runs.
    pub failed_allocations: u64,
    /// For commands: the first exit status that is not 0.
    pub exit_status: Option<i32>,
    /// For commands: whether a run ended with another exit status than all of the reference.
    pub other_status: bool,
    /// For commands: whether the output equals the reference's; `None`: not to be told.
    pub same_output: Option<bool>,
}

impl Line {
    /// What is of a whole run, where it compares with the other lines of its workload.
    #[must_use]
    pub fn of_run(&self, value: Option<f64>) -> Option<f64> {
        value.filter(|_| !self.own_work)
    }

    /// What of a run comes to one of its calls.
    #[must_use]
    pub fn per_call(&self, value: Option<f64>) -> Option<f64> {
        value.zip(self.operations.filter(|n| *n > 0.0)).map(|(value, n)| value / n)
    }
}

type Key<'a> = (&'a str, u64, &'a str);

/// Whom all others are held against: `system` where it is among `allocators`, else the first.
#[must_use]
pub fn reference(allocators: &[String]) -> &str {
    let system = allocators.iter().find(|name| *name == "system");
    system.or(allocators.first()).map_or("", String::as_str)
}

/// Summarises `runs`, in the order in which workloads and allocators first appear in `order`.
///
/// `allocators` gives the columns' order and decides the [`reference()`]. `subjects` say which
/// workloads had other work under each allocator.
#[must_use]
pub fn summarise(
    runs: &[RunRow],
    latency: &[LatencyCsv],
    allocators: &[String],
    subjects: &[Subject],
) -> Vec<Line> {
    let reference = reference(allocators);
    let mut keys: Vec<Key<'_>> = Vec::new();
    for run in runs {
        let key = (run.workload.as_str(), run.threads, run.pressure.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut lines = Vec::new();
    for key in keys {
        let own_work = subjects.iter().any(|s| s.name == key.0 && !s.own_work.is_empty());
        let rows: Vec<&RunRow> = runs.iter().filter(|run| key_of(run) == key).collect();
        let group = Group { key, rows, own_work, reference };
        for allocator in allocators {
            if group.rows.iter().any(|run| run.allocator == *allocator) {
                lines.push(line(&group, latency, allocator));
            }
        }
    }
    lines
}

fn key_of(run: &RunRow) -> Key<'_> {
    (&run.workload, run.threads, &run.pressure)
}

fn completed(run: &RunRow) -> bool {
    run.end == "completed"
}

/// Whether a run did all of its work, and ended with `status`, where there is one that it should end with.
fn did_the_work(run: &RunRow, status: Option<i32>) -> bool {
    let refused = run.failed_allocations.unwrap_or(0) > 0;
    completed(run) && !refused && status.is_none_or(|status| run.exit_status == Some(status))
}

/// The exit status of every run of a command under the reference; `None` where it has several, or none.
fn status(group: &Group<'_>) -> Option<i32> {
    let mut own = group.rows.iter().filter(|r| r.allocator == group.reference && completed(r));
    let first = own.next()?.exit_status?;
    own.all(|run| run.exit_status == Some(first)).then_some(first)
}

/// The runs of one case under all allocators.
struct Group<'a> {
    key: Key<'a>,
    rows: Vec<&'a RunRow>,
    own_work: bool,
    reference: &'a str,
}

fn line(group: &Group<'_>, latency: &[LatencyCsv], allocator: &str) -> Line {
    let (key, rows, reference) = (group.key, &group.rows, group.reference);
    let own: Vec<&RunRow> = rows.iter().copied().filter(|r| r.allocator == allocator).collect();
    let timed: Vec<&&RunRow> =
        own.iter().filter(|r| completed(r) && r.pass == "throughput").collect();
    let failed: Vec<&&RunRow> = own.iter().filter(|r| !completed(r)).collect();
    let medium = |values: &mut dyn Iterator<Item = Option<u64>>| median(values.flatten());
    let elapsed = medium(&mut timed.iter().map(|r| r.elapsed_ns));
    let speed = median_f64(timed.iter().filter_map(|r| {
        let seconds = r.elapsed_ns? as f64 / 1e9;
        (seconds > 0.0).then(|| r.operations.map(|n| n as f64 / seconds)).flatten()
    }));
    let ratio = compare(group, allocator);
    let (p50_ns, p99_ns, p999_ns) = tail(&own, latency);
    // Beside a time stands the peak of the runs it was taken from. A footprint pass has to do where
    // nothing was timed.
    let resident = |pass: &str| {
        medium(&mut own.iter().filter(|r| completed(r) && r.pass == pass).map(|r| r.peak_rss_bytes))
    };
    Line {
        workload: key.0.to_owned(),
        threads: key.1,
        pressure: key.2.to_owned(),
        allocator: allocator.to_owned(),
        allocator_version: own.first().map_or_else(String::new, |r| r.allocator_version.clone()),
        runs: timed.len(),
        all_runs: own.len(),
        failed_runs: failed.len(),
        failure: failed.first().map(|r| r.end.clone()),
        own_work: group.own_work,
        operations: medium(&mut own.iter().filter(|r| completed(r)).map(|r| r.operations)),
        elapsed_ns: elapsed,
        floor_ns: medium(&mut timed.iter().map(|r| r.floor_ns)),
        operations_per_second: speed,
        ratio: ratio.map(|r| r.0),
        ratio_low: ratio.and_then(|r| r.1).map(|i| i.0),
        ratio_high: ratio.and_then(|r| r.1).map(|i| i.1),
        standing: standing(allocator == reference, ratio.and_then(|r| r.1)),
        p50_ns,
        p99_ns,
        p999_ns,
        instructions: medium(&mut own.iter().filter(|r| completed(r)).map(|r| r.instructions)),
        system_calls: medium(&mut own.iter().filter(|r| completed(r)).map(|r| r.system_calls)),
        peak_rss_bytes: resident("throughput").or_else(|| resident("footprint")),
        peak_live_bytes: own.iter().filter_map(|r| r.peak_live_bytes).max(),
        failed_allocations: own.iter().filter_map(|r| r.failed_allocations).sum(),
        exit_status: own.iter().filter_map(|r| r.exit_status).find(|status| *status != 0),
        other_status: status(group).is_some_and(|status| {
            own.iter().any(|run| completed(run) && run.exit_status != Some(status))
        }),
        same_output: same_output(rows, allocator, reference),
    }
}

fn standing(is_reference: bool, interval: Option<(f64, f64)>) -> Standing {
    match interval {
        _ if is_reference => Standing::Reference,
        Some((_, high)) if high < 1.0 => Standing::Faster,
        Some((low, _)) if low > 1.0 => Standing::Slower,
        _ => Standing::Undecided,
    }
}

type Ratio = (f64, Option<(f64, f64)>);

/// Time of `allocator` over time of the reference, round by round.
fn compare(group: &Group<'_>, allocator: &str) -> Option<Ratio> {
    if allocator == group.reference {
        return None;
    }
    let time = |run: &RunRow| -> Option<f64> {
        let work = if group.own_work { run.operations? } else { 1 };
        Some(run.elapsed_ns? as f64 / work as f64).filter(|time| *time > 0.0 && time.is_finite())
    };
    let status = status(group);
    let times = |name: &str| -> BTreeMap<u32, f64> {
        let rows = group.rows.iter().filter(|r| r.allocator == name && r.pass == "throughput");
        rows.filter(|run| did_the_work(run, status))
            .filter_map(|r| Some((r.round, time(r)?.ln())))
            .collect()
    };
    let (own, other) = (times(allocator), times(group.reference));
    let differences: Vec<f64> =
        own.iter().filter_map(|(round, t)| Some(t - other.get(round)?)).collect();
    let walsh = WalshAverages::of(&differences);
    let interval = walsh.interval(CONFIDENCE).map(|i| (i.low.exp(), i.high.exp()));
    Some((walsh.estimate()?.exp(), interval))
}

/// Quantiles of all operations together, the median over the latency runs.
fn tail(own: &[&RunRow], latency: &[LatencyCsv]) -> (Option<u64>, Option<u64>, Option<u64>) {
    let quantile = |wanted: f64| {
        let values = own.iter().filter(|r| completed(r)).filter_map(|run| {
            latency
                .iter()
                .find(|row| {
                    row.run_id == run.run_id
                        && row.op == "all"
                        && row.size_class.is_none()
                        && row.thread.is_none()
                        && row.quantile == wanted
                })
                .map(|row| row.value_ns)
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds")]
        median(values).map(|value| value as u64)
    };
    (quantile(0.5), quantile(0.99), quantile(0.999))
}

/// Whether every run of `allocator` wrote what every run of the reference wrote; `None` where the
/// reference does not agree with itself, or nothing was written down.
fn same_output(group: &[&RunRow], allocator: &str, reference: &str) -> Option<bool> {
    let outputs = |name: &str| -> Vec<&str> {
        let rows = group.iter().filter(|r| r.allocator == name && !r.output_hash.is_empty());
        rows.map(|r| r.output_hash.as_str()).collect()
    };
    let (own, other) = (outputs(allocator), outputs(reference));
    let first = *other.first()?;
    if own.is_empty() || other.iter().any(|output| *output != first) {
        return None;
    }
    Some(own.iter().all(|output| *output == first))
}

fn median(values: impl Iterator<Item = u64>) -> Option<f64> {
    median_f64(values.map(|value| value as f64))
}

fn median_f64(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[values.len() / 2 - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::OwnWork;

    fn run(allocator: &str, round: u32, elapsed_ns: u64) -> RunRow {
        RunRow {
            run_id: format!("{allocator}-{round}"),
            workload: "w".to_owned(),
            allocator: allocator.to_owned(),
            pass: "throughput".to_owned(),
            end: "completed".to_owned(),
            round,
            elapsed_ns: Some(elapsed_ns),
            operations: Some(1000),
            ..RunRow::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn half_the_time_in_every_round_is_faster_whatever_the_rounds_do() {
        // Rounds differ by a factor of eight; within a round the ratio is one half.
        let runs: Vec<RunRow> = (0..6)
            .flat_map(|r| [run("system", r, 1000 << (r % 4)), run("ours", r, 500 << (r % 4))])
            .collect();
        let lines = summarise(&runs, &[], &names(&["ours", "system"]), &[]);
        assert_eq!(lines.len(), 2);
        assert!((lines[0].ratio.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(lines[0].standing, Standing::Faster);
        assert_eq!(lines[1].standing, Standing::Reference);
    }

    #[test]
    fn what_did_work_of_its_own_is_compared_by_the_call() {
        // As long as the reference for twice the work.
        let twice = |r| RunRow { operations: Some(2000), ..run("ours", r, 1000) };
        let runs: Vec<RunRow> = (0..6).flat_map(|r| [run("system", r, 1000), twice(r)]).collect();
        let own = |allocator: &str| OwnWork {
            allocator: allocator.to_owned(),
            scale: Some(1.0),
            stream_hash: None,
            events: None,
        };
        let of = |name: &str| Subject {
            name: name.to_owned(),
            own_work: vec![own("ours"), own("system")],
            ..Subject::default()
        };
        let order = names(&["ours", "system"]);
        let lines = summarise(&runs, &[], &order, &[of("other"), of("w")]);
        assert!(lines.iter().all(|line| line.own_work && line.of_run(line.elapsed_ns).is_none()));
        assert!((lines[0].ratio.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(lines[0].standing, Standing::Faster);
        let per_call = lines.iter().map(|line| line.per_call(line.elapsed_ns));
        assert_eq!(per_call.collect::<Vec<_>>(), [Some(0.5), Some(1.0)]);
        let same = &summarise(&runs, &[], &order, &[of("other")])[0];
        assert_eq!((same.ratio, same.of_run(same.elapsed_ns)), (Some(1.0), Some(1000.0)));
    }

    #[test]
    fn five_rounds_cannot_reach_95_percent_and_claim_nothing() {
        let runs: Vec<RunRow> =
            (0..5).flat_map(|r| [run("system", r, 1000), run("ours", r, 500)]).collect();
        let lines = summarise(&runs, &[], &names(&["ours", "system"]), &[]);
        assert_eq!(lines[0].standing, Standing::Undecided);
        assert!(lines[0].ratio.is_some() && lines[0].ratio_low.is_none());
    }

    #[test]
    fn a_failed_run_is_counted_and_not_timed() {
        let mut crash = run("ours", 0, 1);
        crash.end = "crashed (SIGSEGV)".to_owned();
        let verify = RunRow { pass: "verify".to_owned(), ..run("ours", 0, 90) };
        let runs = [crash, run("ours", 1, 70), verify];
        let lines = summarise(&runs, &[], &names(&["ours"]), &[]);
        assert_eq!((lines[0].runs, lines[0].failed_runs, lines[0].all_runs), (1, 1, 3));
        assert_eq!(lines[0].elapsed_ns, Some(70.0));
        assert_eq!(lines[0].failure.as_deref(), Some("crashed (SIGSEGV)"));
    }

    #[test]
    fn who_did_not_do_the_work_is_not_faster() {
        let compared = |own: &dyn Fn(u32) -> RunRow, status: &dyn Fn(u32) -> i32| {
            let system = |r| RunRow { exit_status: Some(status(r)), ..run("system", r, 1000) };
            let runs: Vec<RunRow> = (0..6).flat_map(|r| [system(r), own(r)]).collect();
            let line = summarise(&runs, &[], &names(&["ours", "system"]), &[]).swap_remove(0);
            (line.standing, line.ratio.is_some())
        };
        let ended = |status| move |r| RunRow { exit_status: Some(status), ..run("ours", r, 10) };
        let faster = (Standing::Faster, true);
        assert_eq!(compared(&ended(0), &|_| 0), faster);
        assert_eq!(compared(&ended(1), &|_| 0), (Standing::Undecided, false));
        assert_eq!(compared(&ended(1), &|_| 1), faster, "it is how the program ends");
        assert_eq!(
            compared(&ended(1), &|round| i32::from(round % 2 == 1)),
            faster,
            "nobody knows how"
        );
        let refused = |r| RunRow { failed_allocations: Some(u64::from(r == 0)), ..ended(0)(r) };
        assert_eq!(compared(&refused, &|_| 0), (Standing::Undecided, true), "five rounds are left");
    }

    #[test]
    fn outputs_are_compared_only_where_the_reference_agrees_with_itself() {
        let with = |name: &str, round, hash: &str| RunRow {
            output_hash: hash.to_owned(),
            ..run(name, round, 1)
        };
        let stable = [with("system", 0, "a"), with("system", 1, "a"), with("ours", 0, "b")];
        let lines = summarise(&stable, &[], &names(&["ours", "system"]), &[]);
        assert_eq!(lines[0].same_output, Some(false));
        let moody = [with("system", 0, "a"), with("system", 1, "c"), with("ours", 0, "b")];
        let lines = summarise(&moody, &[], &names(&["ours", "system"]), &[]);
        assert_eq!(lines[0].same_output, None);
    }
}
