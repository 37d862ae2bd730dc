//! `bench-cli recommend`: which allocator and which tuning suits a trace, and what each costs.
//!
//! Every allocator here runs the trace with its usual settings, and those with a known lever for
//! memory also with that lever pulled. A choice is worth considering if no other is at least as good
//! in time, tail and memory and better in one (the Pareto front).
#![forbid(unsafe_code)]

use std::fmt::Write;

use clap::Args;
use serde::Serialize;

use super::run::{self, RunArgs};
use crate::allocators;
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::output;
use crate::results::{RunDirectory, TimelineRow};
use crate::session::{self, Standing};

/// The trace or workload, and how long to look.
#[derive(Clone, Debug, Args)]
pub struct RecommendArgs {
    /// A trace by path, or a workload by name
    #[arg(value_name = "TRACE")]
    what: String,
    /// Rounds (default: 6)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: Option<u32>,
}

/// Levers that people pull for memory, by allocator.
const TUNINGS: [(&str, &str); 4] = [
    ("ours", "memory=low"),
    ("system", "MALLOC_ARENA_MAX=2"),
    ("jemalloc", "MALLOC_CONF=narenas:2,dirty_decay_ms:1000"),
    ("mimalloc", "MIMALLOC_PURGE_DELAY=0"),
];

/// One choice and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Choice {
    allocator: String,
    elapsed_ns: f64,
    p999_ns: f64,
    mean_rss_bytes: f64,
    faster_shown: bool,
    on_front: bool,
}

/// Measures and advises.
///
/// # Errors
/// As `bench-cli run`.
pub fn run(args: RecommendArgs, global: &Global) -> Result<Exit, CliError> {
    let standard = allocators::standard()?;
    let mut names: Vec<String> = standard.iter().map(|a| a.name.clone()).collect();
    for (name, tuning) in TUNINGS {
        if standard.iter().any(|a| a.name == name) {
            names.push(format!("{name}?{tuning}"));
        }
    }
    let run_args = RunArgs {
        what: vec![args.what],
        allocators: names.clone(),
        runs: args.runs,
        ..RunArgs::default()
    };
    let directory = run::session(&run_args, global)?;
    let choices = choices(&directory, &names);
    let text = match global.format {
        Format::Human => advice(&choices),
        _ => serde_json::to_string_pretty(&choices).map_err(|error| {
            CliError::new(Exit::Internal, "cannot write the advice").because(error)
        })?,
    };
    output::print(&format!("{text}\n"))?;
    Ok(Exit::Success)
}

fn choices(directory: &RunDirectory, names: &[String]) -> Vec<Choice> {
    let lines = session::summarise(directory.runs(), directory.latency(), names);
    let mut choices: Vec<Choice> = lines
        .iter()
        .filter(|line| line.failed_runs == 0 && line.failed_allocations == 0)
        .filter_map(|line| {
            let footprint = directory
                .runs()
                .iter()
                .find(|run| run.allocator == line.allocator && run.pass == "footprint")?;
            let samples: Vec<&TimelineRow> =
                directory.timeline().iter().filter(|row| row.run_id == footprint.run_id).collect();
            Some(Choice {
                allocator: line.allocator.clone(),
                elapsed_ns: line.elapsed_ns?,
                p999_ns: line.p999_ns? as f64,
                mean_rss_bytes: mean_over_time(&samples)?,
                faster_shown: line.standing == Standing::Faster,
                on_front: false,
            })
        })
        .collect();
    let all = choices.clone();
    for choice in &mut choices {
        choice.on_front = !all.iter().any(|other| dominates(other, choice));
    }
    choices
}

/// Resident memory averaged over time: each sample counts for the time since the one before it.
fn mean_over_time(samples: &[&TimelineRow]) -> Option<f64> {
    let (mut weighted, mut before) = (0.0, 0);
    for sample in samples {
        weighted += sample.rss_bytes as f64 * sample.time_ns.saturating_sub(before) as f64;
        before = sample.time_ns;
    }
    (before > 0).then(|| weighted / before as f64)
}

/// At least as good in everything and better in something.
fn dominates(one: &Choice, other: &Choice) -> bool {
    let pairs = [
        (one.elapsed_ns, other.elapsed_ns),
        (one.p999_ns, other.p999_ns),
        (one.mean_rss_bytes, other.mean_rss_bytes),
    ];
    pairs.iter().all(|(a, b)| a <= b) && pairs.iter().any(|(a, b)| a < b)
}

fn advice(choices: &[Choice]) -> String {
    let system = choices.iter().find(|choice| choice.allocator == "system");
    let front: Vec<&Choice> = choices.iter().filter(|choice| choice.on_front).collect();
    let mut text = String::from(
        "\nWorth considering (nothing here beats them in time, tail and memory at once):\n",
    );
    for choice in &front {
        let _ = writeln!(text, "  {:<44} {}", choice.allocator, costs(choice, system));
    }
    let least =
        |key: fn(&Choice) -> f64| front.iter().copied().min_by(|a, b| key(a).total_cmp(&key(b)));
    let picks = [
        ("least time", least(|c| c.elapsed_ns)),
        ("shortest tail", least(|c| c.p999_ns)),
        ("least memory", least(|c| c.mean_rss_bytes)),
    ];
    for (what, pick) in picks {
        if let Some(pick) = pick {
            let _ = writeln!(text, "For {what}: {}.", pick.allocator);
        }
    }
    if !front.iter().any(|choice| choice.faster_shown) {
        text.push_str("No choice was shown to be faster than the system's allocator at 95 %: more --runs may tell.\n");
    }
    text.push_str("Memory and tail come from few runs of one trace; confirm with `bench-cli run --exec` on the program itself.");
    text
}

fn costs(choice: &Choice, system: Option<&Choice>) -> String {
    let mib = choice.mean_rss_bytes / 1_048_576.0;
    let mut text = format!(
        "{:.1} ms, p99.9 {:.0} ns, {mib:.1} MiB on average",
        choice.elapsed_ns / 1e6,
        choice.p999_ns
    );
    if let Some(system) = system.filter(|system| system.allocator != choice.allocator) {
        let _ = write!(
            text,
            " ({:+.1} ms, {:+.1} MiB against system)",
            (choice.elapsed_ns - system.elapsed_ns) / 1e6,
            (choice.mean_rss_bytes - system.mean_rss_bytes) / 1_048_576.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(allocator: &str, elapsed_ns: f64, p999_ns: f64, mean_rss_bytes: f64) -> Choice {
        let allocator = allocator.to_owned();
        Choice {
            allocator,
            elapsed_ns,
            p999_ns,
            mean_rss_bytes,
            faster_shown: false,
            on_front: false,
        }
    }

    #[test]
    fn only_what_is_worse_in_everything_is_dominated() {
        let (fast, small, bad) = (
            choice("fast", 1.0, 1.0, 9.0),
            choice("small", 9.0, 9.0, 1.0),
            choice("bad", 9.0, 9.0, 9.0),
        );
        assert!(dominates(&fast, &bad) && dominates(&small, &bad));
        assert!(!dominates(&fast, &small) && !dominates(&small, &fast));
        assert!(!dominates(&bad, &bad.clone()), "equals do not push each other out");
    }

    #[test]
    fn the_mean_counts_each_sample_for_the_time_before_it() {
        let row = |time_ns, rss_bytes| TimelineRow { time_ns, rss_bytes, ..TimelineRow::default() };
        let (a, b) = (row(10, 100), row(40, 500));
        assert_eq!(mean_over_time(&[&a, &b]), Some((100.0 * 10.0 + 500.0 * 30.0) / 40.0));
        assert_eq!(mean_over_time(&[]), None);
    }
}
