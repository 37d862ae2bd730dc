//! `bench-cli recommend`: which allocator and which tuning suits a trace, and what each costs.
//!
//! Every allocator here runs the trace with its usual settings, and those with known levers for
//! memory also with a lever pulled; each without pressure and under each pressure. A choice is worth
//! considering if no other is at least as good in time, tail and memory and better in one (the
//! Pareto front). Differences to the system's allocator are those of runs of one round, in the units
//! that people pay in, with the exact 95 % interval of the signed-rank test.
#![forbid(unsafe_code)]

mod advice;

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::run::{self, RunArgs};
use crate::allocators;
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::output;
use crate::pressure::{self, Pressure};
use crate::results::{LatencyCsv, RunRow, TimelineRow};
use crate::verdict::location::WalshAverages;

/// The trace or workload, and how long to look.
#[derive(Clone, Debug, Args)]
pub struct RecommendArgs {
    /// A trace by path, or a workload by name
    #[arg(value_name = "TRACE")]
    what: String,
    /// Rounds (default: 6, the fewest that can show a difference at 95 %)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: Option<u32>,
    /// Who is considered, with settings of your own (default: all that are here, each as it is and
    /// with known levers pulled)
    #[arg(short, long = "allocator", value_name = "LIST")]
    allocators: Vec<String>,
    /// Memory pressures to look at beside none, as for `run` (default: 150%,own:112.5%, where this
    /// machine lets us set a cgroup's limit)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "no_pressure")]
    pressure: Vec<Pressure>,
    /// Look without pressure only
    #[arg(long)]
    no_pressure: bool,
    /// Continue an interrupted one: the same arguments, and its folder with --out
    #[arg(long)]
    resume: bool,
}

/// Levers that people pull for memory, by allocator.
const TUNINGS: [(&str, &str); 7] = [
    ("ours", "memory=low"),
    ("ours", "huge_pages=on"),
    ("ours", "purge=thread"),
    ("system", "MALLOC_ARENA_MAX=1"),
    ("jemalloc", "MALLOC_CONF=narenas:2,dirty_decay_ms:1000"),
    ("mimalloc", "MIMALLOC_PURGE_DELAY=0"),
    ("tcmalloc", "TCMALLOC_RELEASE_RATE=10"),
];

/// What is looked at beside no pressure. A limit counts what the kernel keeps for a process too (page
/// tables, stacks), so that none lives within its own resident peak alone. A half above the system
/// allocator's peak is what a container sized for it may have; an eighth above its own makes each
/// allocator meet its limit.
const DEFAULT_PRESSURES: [&str; 2] = ["150%", "own:112.5%"];
const CONFIDENCE: f64 = 0.95;
const MIB: f64 = 1_048_576.0;

/// More (or, below 0, less) than the system's allocator, in the unit of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Difference {
    estimate: f64,
    /// 95 %; there from six rounds on.
    interval: Option<(f64, f64)>,
}

impl Difference {
    fn less_shown(&self) -> bool {
        self.interval.is_some_and(|(_, high)| high < 0.0)
    }

    fn more_shown(&self) -> bool {
        self.interval.is_some_and(|(low, _)| low > 0.0)
    }
}

/// One choice under one pressure, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Choice {
    allocator: String,
    /// Empty: none.
    pressure: String,
    elapsed_ns: f64,
    p999_ns: f64,
    mean_rss_bytes: f64,
    elapsed_ns_more: Option<Difference>,
    p999_ns_more: Option<Difference>,
    mean_rss_bytes_more: Option<Difference>,
    on_front: bool,
}

impl Choice {
    fn differences(&self) -> impl Iterator<Item = Difference> {
        [self.elapsed_ns_more, self.p999_ns_more, self.mean_rss_bytes_more].into_iter().flatten()
    }

    /// Better in something and worse in nothing, as far as can be shown.
    fn is_free(&self) -> bool {
        self.differences().any(|d| d.less_shown()) && !self.differences().any(|d| d.more_shown())
    }
}

/// An allocator that did not do the work under one pressure.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Failure {
    allocator: String,
    /// Empty: none.
    pressure: String,
    /// In words: how often, and how it ended.
    failed: String,
    /// The limit it had, where it had one.
    limit_bytes: Option<u64>,
}

/// Everything that was found out.
#[derive(Debug, Serialize)]
struct Found {
    choices: Vec<Choice>,
    failures: Vec<Failure>,
}

/// Measures and advises.
///
/// # Errors
/// As `bench-cli run`.
pub fn run(args: RecommendArgs, global: &Global) -> Result<Exit, CliError> {
    let names = match args.allocators.is_empty() {
        true => standard_choices()?,
        false => args.allocators.clone(),
    };
    let pressure = pressures(&args, global);
    let run_args = RunArgs {
        what: vec![args.what],
        allocators: names,
        runs: args.runs,
        pressure,
        every_pass_in_every_round: true,
        resume: args.resume,
        ..RunArgs::default()
    };
    let directory = run::session(&run_args, global)?;
    let choices = choices(directory.runs(), directory.latency(), directory.timeline());
    let failures = failures(directory.runs());
    let text = match global.format {
        Format::Human => advice::of(&choices, &failures),
        _ => serde_json::to_string_pretty(&Found { choices, failures }).map_err(|error| {
            CliError::new(Exit::Internal, "cannot write the advice").because(error)
        })?,
    };
    output::print(&format!("{text}\n"))?;
    Ok(Exit::Success)
}

fn standard_choices() -> Result<Vec<String>, CliError> {
    let standard = allocators::standard()?;
    let mut names: Vec<String> = standard.iter().map(|a| a.name.clone()).collect();
    for (name, tuning) in TUNINGS {
        if standard.iter().any(|a| a.name == name) {
            names.push(format!("{name}?{tuning}"));
        }
    }
    Ok(names)
}

fn pressures(args: &RecommendArgs, global: &Global) -> Vec<Pressure> {
    if args.no_pressure || !args.pressure.is_empty() {
        return args.pressure.clone();
    }
    match pressure::probe() {
        Ok(_) => DEFAULT_PRESSURES.iter().filter_map(|pressure| pressure.parse().ok()).collect(),
        Err(why) => {
            if !global.quiet {
                output::note(&format!("without memory pressure: {why}"));
            }
            Vec::new()
        }
    }
}

/// Values of one allocator by round.
type Rounds = BTreeMap<u32, f64>;

fn choices(runs: &[RunRow], latency: &[LatencyCsv], timeline: &[TimelineRow]) -> Vec<Choice> {
    let tails: BTreeMap<&str, f64> = latency
        .iter()
        .filter(|row| {
            let whole = row.size_class.is_none() && row.thread.is_none();
            row.op == "all" && whole && row.quantile == 0.999
        })
        .map(|row| (row.run_id.as_str(), row.value_ns as f64))
        .collect();
    let mut samples: BTreeMap<&str, Vec<&TimelineRow>> = BTreeMap::new();
    // What is kept after the last operation is no part of the mean while the program ran.
    for row in timeline.iter().filter(|row| row.after_ms.is_none()) {
        samples.entry(&row.run_id).or_default().push(row);
    }
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for run in runs {
        let key = (run.pressure.as_str(), run.allocator.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let rounds =
        |key: (&str, &str), pass: &str, value: &dyn Fn(&RunRow) -> Option<f64>| -> Rounds {
            runs.iter()
                .filter(|r| (r.pressure.as_str(), r.allocator.as_str()) == key && r.pass == pass)
                .filter_map(|r| Some((r.round, value(r)?)))
                .collect()
        };
    let figures = |key: (&str, &str)| -> [Rounds; 3] {
        [
            rounds(key, "throughput", &|r| r.elapsed_ns.map(|t| t as f64)),
            rounds(key, "latency", &|r| tails.get(r.run_id.as_str()).copied()),
            rounds(key, "footprint", &|r| mean_over_time(samples.get(r.run_id.as_str())?)),
        ]
    };
    let failed = |key: (&str, &str)| {
        runs.iter().any(|r| (r.pressure.as_str(), r.allocator.as_str()) == key && has_failed(r))
    };
    // A choice that fails, or refuses what was asked for, is none.
    let mut choices: Vec<Choice> = keys
        .into_iter()
        .filter(|key| !failed(*key))
        .filter_map(|key| choice(key, &figures(key), &figures((key.0, "system"))))
        .collect();
    let all = choices.clone();
    for choice in &mut choices {
        choice.on_front = !all.iter().any(|other| dominates(other, choice));
    }
    choices
}

fn has_failed(run: &RunRow) -> bool {
    run.end != "completed" || run.failed_allocations.unwrap_or(0) > 0
}

/// Who did not do the work, and how it ended, in the order of the runs.
fn failures(runs: &[RunRow]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for run in runs.iter().filter(|run| has_failed(run)) {
        let same = |r: &&RunRow| r.pressure == run.pressure && r.allocator == run.allocator;
        let known = |f: &Failure| f.pressure == run.pressure && f.allocator == run.allocator;
        if failures.iter().any(known) {
            continue;
        }
        let all = runs.iter().filter(same).count();
        let failed: Vec<&RunRow> = runs.iter().filter(same).filter(|r| has_failed(r)).collect();
        let how = match run.end.as_str() {
            "completed" => "refused allocations",
            end => end,
        };
        failures.push(Failure {
            allocator: run.allocator.clone(),
            pressure: run.pressure.clone(),
            failed: format!("{how} in {} of {all} runs", failed.len()),
            limit_bytes: failed.iter().filter_map(|r| r.limit_bytes).min(),
        });
    }
    failures
}

fn choice(
    (pressure, allocator): (&str, &str),
    own: &[Rounds; 3],
    system: &[Rounds; 3],
) -> Option<Choice> {
    let middle = |i: usize| median(own[i].values().copied().collect());
    let more = |i: usize| {
        if allocator == "system" {
            return None;
        }
        let pairs = own[i].iter().filter_map(|(round, v)| Some(v - system[i].get(round)?));
        let walsh = WalshAverages::of(&pairs.collect::<Vec<f64>>());
        let interval = walsh.interval(CONFIDENCE).map(|i| (i.low, i.high));
        Some(Difference { estimate: walsh.estimate()?, interval })
    };
    Some(Choice {
        allocator: allocator.to_owned(),
        pressure: pressure.to_owned(),
        elapsed_ns: middle(0)?,
        p999_ns: middle(1)?,
        mean_rss_bytes: middle(2)?,
        elapsed_ns_more: more(0),
        p999_ns_more: more(1),
        mean_rss_bytes_more: more(2),
        on_front: false,
    })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(values[values.len() / 2 - 1], upper)
    })
}

/// Resident memory averaged over time: each sample counts for the time since the one before it.
fn mean_over_time(samples: &Vec<&TimelineRow>) -> Option<f64> {
    let (mut weighted, mut before) = (0.0, 0);
    for sample in samples {
        weighted += sample.rss_bytes as f64 * sample.time_ns.saturating_sub(before) as f64;
        before = sample.time_ns;
    }
    (before > 0).then(|| weighted / before as f64)
}

/// Under one pressure, at least as good in everything and better in something.
fn dominates(one: &Choice, other: &Choice) -> bool {
    let pairs = [
        (one.elapsed_ns, other.elapsed_ns),
        (one.p999_ns, other.p999_ns),
        (one.mean_rss_bytes, other.mean_rss_bytes),
    ];
    one.pressure == other.pressure
        && pairs.iter().all(|(a, b)| a <= b)
        && pairs.iter().any(|(a, b)| a < b)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn choice(
        allocator: &str,
        elapsed_ns: f64,
        p999_ns: f64,
        mean_rss_bytes: f64,
    ) -> Choice {
        Choice {
            allocator: allocator.to_owned(),
            pressure: String::new(),
            elapsed_ns,
            p999_ns,
            mean_rss_bytes,
            elapsed_ns_more: None,
            p999_ns_more: None,
            mean_rss_bytes_more: None,
            on_front: true,
        }
    }

    pub(super) fn shown(estimate: f64, low: f64, high: f64) -> Option<Difference> {
        Some(Difference { estimate, interval: Some((low, high)) })
    }

    #[test]
    fn only_what_is_worse_in_everything_is_dominated_and_only_under_the_same_pressure() {
        let (fast, small, bad) = (
            choice("fast", 1.0, 1.0, 9.0),
            choice("small", 9.0, 9.0, 1.0),
            choice("bad", 9.0, 9.0, 9.0),
        );
        assert!(dominates(&fast, &bad) && dominates(&small, &bad));
        assert!(!dominates(&fast, &small) && !dominates(&small, &fast));
        assert!(!dominates(&bad, &bad.clone()), "equals do not push each other out");
        let elsewhere = Choice { pressure: "80%".to_owned(), ..bad };
        assert!(!dominates(&fast, &elsewhere));
    }

    #[test]
    fn a_failure_says_how_often_and_how_and_below_which_limit() {
        let row = |allocator: &str, end: &str, refused| RunRow {
            allocator: allocator.to_owned(),
            pressure: "80%".to_owned(),
            end: end.to_owned(),
            failed_allocations: Some(refused),
            limit_bytes: Some(1 << 20),
            ..RunRow::default()
        };
        let failures = failures(&[
            row("a", "completed", 0),
            row("a", "killed for memory", 0),
            row("b", "completed", 7),
            row("c", "completed", 0),
        ]);
        let said: Vec<_> = failures.iter().map(|f| (f.allocator.as_str(), &*f.failed)).collect();
        let expected = [
            ("a", "killed for memory in 1 of 2 runs"),
            ("b", "refused allocations in 1 of 1 runs"),
        ];
        assert_eq!(said, expected);
        assert_eq!(failures[0].limit_bytes, Some(1 << 20));
    }

    #[test]
    fn the_mean_counts_each_sample_for_the_time_before_it() {
        let row = |time_ns, rss_bytes| TimelineRow { time_ns, rss_bytes, ..TimelineRow::default() };
        let (a, b) = (row(10, 100), row(40, 500));
        assert_eq!(mean_over_time(&vec![&a, &b]), Some((100.0 * 10.0 + 500.0 * 30.0) / 40.0));
        assert_eq!(mean_over_time(&Vec::new()), None);
    }

    #[test]
    fn differences_are_those_of_runs_of_one_round_and_carry_an_interval_from_six_on() {
        let rounds = |value: f64, n: u32| -> Rounds {
            (0..n).map(|i| (i, value + f64::from(i) * 100.0)).collect()
        };
        let of = |value: f64, n: u32| [rounds(value, n), rounds(value, n), rounds(value, n)];
        let six = super::choice(("", "ours"), &of(50.0, 6), &of(90.0, 6)).unwrap();
        assert_eq!(six.elapsed_ns_more, shown(-40.0, -40.0, -40.0));
        let five = super::choice(("", "ours"), &of(50.0, 5), &of(90.0, 5)).unwrap();
        assert_eq!(five.elapsed_ns_more, Some(Difference { estimate: -40.0, interval: None }));
    }
}
