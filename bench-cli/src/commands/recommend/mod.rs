//! `bench-cli recommend`: which allocator and which tuning suits a trace, and what each costs.
//!
//! Every allocator here runs the trace with its usual settings, and those with known levers for
//! memory also with a lever pulled; each without pressure and under each pressure. A choice is worth
//! considering if no other is at least as good in time, tail and memory and better in one (the
//! Pareto front). Differences to the system's allocator are those of runs of one round, in the units
//! that people pay in, with the exact 95 % interval of the signed-rank test.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;

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
    /// Memory pressures to look at beside none, as for `run` (default: 80%, where this machine lets
    /// us set a cgroup's limit)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "no_pressure")]
    pressure: Vec<Pressure>,
    /// Look without pressure only
    #[arg(long)]
    no_pressure: bool,
}

/// Levers that people pull for memory, by allocator.
const TUNINGS: [(&str, &str); 6] = [
    ("ours", "memory=low"),
    ("ours", "purge=thread"),
    ("system", "MALLOC_ARENA_MAX=1"),
    ("jemalloc", "MALLOC_CONF=narenas:2,dirty_decay_ms:1000"),
    ("mimalloc", "MIMALLOC_PURGE_DELAY=0"),
    ("tcmalloc", "TCMALLOC_RELEASE_RATE=10"),
];

/// The share of the system allocator's peak that is left under the default pressure.
const DEFAULT_PRESSURE: &str = "80%";
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
        ..RunArgs::default()
    };
    let directory = run::session(&run_args, global)?;
    let choices = choices(directory.runs(), directory.latency(), directory.timeline());
    let text = match global.format {
        Format::Human => advice(&choices),
        _ => serde_json::to_string_pretty(&choices).map_err(|error| {
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
        Ok(_) => DEFAULT_PRESSURE.parse().into_iter().collect(),
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
    for row in timeline {
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
        runs.iter().any(|r| {
            (r.pressure.as_str(), r.allocator.as_str()) == key
                && (r.end != "completed" || r.failed_allocations.unwrap_or(0) > 0)
        })
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

fn advice(choices: &[Choice]) -> String {
    let mut text = String::new();
    for group in choices.chunk_by(|a, b| a.pressure == b.pressure) {
        let Some(first) = group.first() else { continue };
        let under = match first.pressure.as_str() {
            "" => "without pressure".to_owned(),
            pressure => format!("with {pressure} of the system allocator's peak"),
        };
        let _ = writeln!(
            text,
            "\nWorth considering {under} (nothing else beats them in time, tail and memory at once):"
        );
        for choice in group.iter().filter(|choice| choice.on_front) {
            let _ = writeln!(
                text,
                "  {:<44} {:.1} ms, p99.9 {:.0} ns, {:.1} MiB on average",
                choice.allocator,
                choice.elapsed_ns / 1e6,
                choice.p999_ns,
                choice.mean_rss_bytes / MIB
            );
        }
        let _ = writeln!(text, "{}", paragraph(group));
    }
    text.push_str(
        "\nAll of this is one trace, replayed as fast as it goes: confirm with `bench-cli run --exec` on the program itself.",
    );
    text
}

/// What to do, in one paragraph.
fn paragraph(group: &[Choice]) -> String {
    let front = || group.iter().filter(|c| c.on_front && c.allocator != "system");
    if !group.iter().any(|c| c.allocator == "system") {
        return "The system's allocator is not among the choices, or failed: nothing to weigh against."
            .to_owned();
    }
    // The least of time and memory together, each as a ratio.
    let product = |c: &&Choice| c.elapsed_ns.ln() + c.mean_rss_bytes.ln();
    let best = |a: &&Choice, b: &&Choice| product(a).total_cmp(&product(b));
    if let Some(pick) = front().filter(|c| c.is_free()).min_by(best) {
        return format!("Take {}: against system it {}.", pick.allocator, weighed(pick));
    }
    let traded: Vec<String> = front()
        .filter(|c| c.differences().any(|d| d.less_shown()))
        .map(|c| format!("{} {}", c.allocator, weighed(c)))
        .collect();
    match traded.is_empty() {
        true => "Stay with system: no choice was shown to be better in anything (95 %); more --runs may tell."
            .to_owned(),
        false => format!("Nothing is free here. Against system, {}.", traded.join("; ")),
    }
}

/// Time, tail and memory against the system's allocator.
fn weighed(choice: &Choice) -> String {
    let part = |difference: Option<Difference>, unit: f64, name: &str, what: &str| {
        difference.map(|d| amount(d, unit, name, what))
    };
    [
        part(choice.mean_rss_bytes_more, MIB, "MiB", "memory on average"),
        part(choice.elapsed_ns_more, 1e6, "ms", "a replay"),
        part(choice.p999_ns_more, 1e3, "µs", "at p99.9"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

fn amount(difference: Difference, unit: f64, name: &str, what: &str) -> String {
    let estimate = difference.estimate / unit;
    match difference.interval.map(|(low, high)| (low / unit, high / unit)) {
        Some((low, high)) if high < 0.0 => {
            format!("saves {:.2} {name} {what} ({:.2} to {:.2})", -estimate, -high, -low)
        }
        Some((low, high)) if low > 0.0 => {
            format!("costs {estimate:.2} {name} {what} ({low:.2} to {high:.2})")
        }
        Some((low, high)) => {
            format!("shows no difference in {name} {what} ({low:+.2} to {high:+.2})")
        }
        None => format!("has {estimate:+.2} {name} {what} (too few rounds for an interval)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(allocator: &str, elapsed_ns: f64, p999_ns: f64, mean_rss_bytes: f64) -> Choice {
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

    fn shown(estimate: f64, low: f64, high: f64) -> Option<Difference> {
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

    #[test]
    fn what_is_shown_to_be_free_is_advised_and_a_trade_is_called_one() {
        let system = choice("system", 9e6, 9e3, 9.0 * MIB);
        let mut ours = choice("ours", 5e6, 5e3, 8.0 * MIB);
        ours.elapsed_ns_more = shown(-4e6, -5e6, -3e6);
        ours.mean_rss_bytes_more = shown(-MIB, -2.0 * MIB, 0.5 * MIB);
        let text = paragraph(&[ours.clone(), system.clone()]);
        assert!(text.starts_with("Take ours"), "{text}");
        assert!(text.contains("saves 4.00 ms a replay (3.00 to 5.00)"), "{text}");
        assert!(text.contains("shows no difference in MiB memory on average"), "{text}");
        ours.mean_rss_bytes_more = shown(MIB, 0.5 * MIB, 2.0 * MIB);
        let text = paragraph(&[ours.clone(), system.clone()]);
        assert!(text.starts_with("Nothing is free") && text.contains("costs 1.00 MiB"), "{text}");
        ours.elapsed_ns_more = shown(-4e6, -5e6, 1e6);
        let text = paragraph(&[ours, system]);
        assert!(text.starts_with("Stay with system"), "{text}");
    }
}
