//! `cargo ci figures`: the comparison of allocators that stands in the documentation, from the folders of
//! one `bench-cli run` or several on one machine.
//!
//! Time is nanoseconds per malloc and free (two of the calls counted in `runs.csv`), memory the peak
//! resident bytes beyond what the process held before; both are medians over the rounds. What an
//! allocator did not finish in every round has no figure. The head says of every row whether all allocators did the same
//! work or each an amount of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::Report;
use crate::pages::{
    OURS, SYSTEM, append_peers, c_library, json, median, of_rows, short, short_name,
};

const USAGE: &str = "usage: cargo ci figures RUN-FOLDER... PEERS.json COMMAND";
/// Fewer rounds, or shorter ones, are a quick look.
const ROUNDS: usize = 9;
const LENGTH_NS: u64 = 1_000_000_000;
#[derive(Debug, Deserialize)]
struct Run {
    workload: String,
    allocator: String,
    threads: u32,
    pass: String,
    end: String,
    operations: Option<u64>,
    elapsed_ns: Option<u64>,
    peak_rss_bytes: Option<u64>,
}

/// What is read of a run's manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    started_utc: String,
    machine: Machine,
    subjects: Vec<Subject>,
    allocators: Vec<Allocator>,
    /// What `ours` was built from, where that is known.
    commit: Option<Commit>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    hash: String,
    modified: bool,
}

/// A workload, and how much of it was done.
#[derive(Debug, Deserialize)]
struct Subject {
    name: String,
    /// How long a run was to take, where that decided how much was done.
    length_ns: Option<u64>,
    /// One for each allocator, where each had an amount of work of its own.
    #[serde(default)]
    own_work: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Allocator {
    name: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Machine {
    processor: String,
    processors: u32,
    memory_bytes: u64,
    kernel: String,
}

/// One row: a workload at a number of threads, and per allocator what was measured.
type Rows = Vec<(String, BTreeMap<String, (f64, f64)>)>;

/// The folder of a run, read.
#[derive(Debug)]
struct Part {
    manifest: Manifest,
    rows: Rows,
    /// The fewest that are behind a figure.
    rounds: usize,
}

/// Writes the tables: of the folders of runs, of what `ci/peers` wrote of itself, and by which command.
///
/// # Errors
/// If a file cannot be read, holds no finished run, or is of another machine than the first.
pub(crate) fn write(options: &[&str]) -> anyhow::Result<Report> {
    let [folders @ .., peers, command] = options else {
        anyhow::bail!("{USAGE}");
    };
    let parts: Vec<Part> =
        folders.iter().map(|folder| part(Path::new(folder))).collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else { anyhow::bail!("{USAGE}") };
    for (part, folder) in parts.iter().zip(folders) {
        anyhow::ensure!(
            part.manifest.machine == first.manifest.machine,
            "{folder} was measured on another machine than {}",
            folders[0]
        );
    }
    let mut page = head(&parts, command);
    let rows = parts.into_iter().flat_map(|part| part.rows).collect();
    tables(&rows, &mut page);
    append_peers(&json(Path::new(peers))?, &c_library(), &mut page);
    Ok(Report { summary: page.trim_end().to_owned(), findings: Vec::new() })
}

fn part(folder: &Path) -> anyhow::Result<Part> {
    let file = folder.join("runs.csv");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let (rows, rounds) = rows(&text).with_context(|| format!("in {}", file.display()))?;
    Ok(Part { manifest: json(&folder.join("manifest.json"))?, rows, rounds })
}

/// The rows of a table of runs, and the fewest rounds behind a figure.
fn rows(text: &str) -> anyhow::Result<(Rows, usize)> {
    let mut order: Vec<String> = Vec::new();
    let mut samples: BTreeMap<(String, String), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    for run in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let run: Run = run?;
        if run.pass != "throughput" {
            continue;
        }
        let row = format!("{}, {}", run.workload, run.threads);
        let name = short_name(&run.allocator).to_owned();
        let (Some(operations @ 1..), Some(elapsed), "completed") =
            (run.operations, run.elapsed_ns, run.end.as_str())
        else {
            failed.insert((row, name));
            continue;
        };
        if !order.contains(&row) {
            order.push(row.clone());
        }
        let (times, bytes) = samples.entry((row, name)).or_default();
        times.push(2.0 * elapsed as f64 / operations as f64);
        bytes.push(run.peak_rss_bytes.unwrap_or_default() as f64 / f64::from(1 << 20));
    }
    anyhow::ensure!(!order.is_empty(), "no finished run of the throughput pass");
    samples.retain(|of, _| !failed.contains(of));
    let rounds = samples.values().map(|(times, _)| times.len()).min().unwrap_or(0);
    let rows = order
        .into_iter()
        .map(|row| {
            let of_row = samples.iter().filter(|((other, _), _)| *other == row);
            let figures = of_row.map(|((_, allocator), (times, bytes))| {
                (allocator.clone(), (median(times), median(bytes)))
            });
            (row.clone(), figures.collect())
        })
        .collect();
    Ok((rows, rounds))
}

fn head(parts: &[Part], command: &str) -> String {
    let machine = parts.first().map_or(String::new(), |part| part.manifest.day_and_machine());
    let mut page = format!(
        "# Ours beside the others\n\nWritten by `{command}` on {machine}. Every figure is a median over \
         the rounds; those of all allocators are interleaved.\n\n"
    );
    for part in parts {
        let same = part.manifest.subjects.iter().partition(|subject| subject.own_work.is_empty());
        let (same, own): (Vec<&Subject>, Vec<&Subject>) = same;
        for (subjects, own) in [(own, true), (same, false)] {
            if let Some(first) = subjects.first() {
                let (rounds, work) = (part.rounds, work(&part.manifest, first.length_ns, own));
                let _ = writeln!(
                    page,
                    "- {}: {rounds} rounds{}. {work}",
                    families(&subjects),
                    part.manifest.build()
                );
            }
        }
    }
    let short = |part: &Part| {
        let lengths = part.manifest.subjects.iter().filter_map(|subject| subject.length_ns);
        part.rounds < ROUNDS || lengths.min().is_some_and(|length| length < LENGTH_NS)
    };
    if parts.iter().any(short) {
        page.push_str("\nA quick look, in which a tenth more or less means nothing.\n");
    }
    page + "\n"
}

/// How much the allocators did in a round, as a sentence.
fn work(manifest: &Manifest, length_ns: Option<u64>, own: bool) -> String {
    let about = length_ns.map(|ns| match ns % 1_000_000_000 {
        0 => format!("{} s", ns / 1_000_000_000),
        _ => format!("{} ms", ns as f64 / 1e6),
    });
    let first = manifest.allocators.first().map_or("the first", |a| short_name(&a.name));
    match (own, about) {
        (true, Some(about)) => format!(
            "Each allocator does an amount of work of its own in each, as much as takes it about {about}; \
             whole repetitions, so that a slow one may take longer."
        ),
        (true, None) => "Each allocator does an amount of work of its own in each.".to_owned(),
        (false, Some(about)) => format!(
            "All allocators do the same work in each, as much as takes {first} about {about}."
        ),
        (false, None) => "All allocators do the same work in each.".to_owned(),
    }
}

/// Names of workloads, those of a family under one name: `pair` for `pair-16` and `pair-64`.
fn families(subjects: &[&Subject]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for subject in subjects {
        let name = match subject.name.rsplit_once('-') {
            Some((family, value)) if value.parse::<u64>().is_ok() => family,
            _ => &subject.name,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

impl Manifest {
    /// As in ` of the build of 1234567 on 2026-11-26`.
    fn build(&self) -> String {
        let Some(commit) = &self.commit else { return String::new() };
        let changed = if commit.modified { ", changed," } else { "" };
        let hash = commit.hash.get(..7).unwrap_or(&commit.hash);
        let day = self.started_utc.get(..10).unwrap_or(&self.started_utc);
        format!(" of the build of {hash}{changed} on {day}")
    }

    /// As in `2026-11-26: 2 processors (name), 23 GiB, Linux 6.18.44`.
    pub(crate) fn day_and_machine(&self) -> String {
        let Machine { processor, processors, memory_bytes, kernel } = &self.machine;
        let day = self.started_utc.get(..10).unwrap_or(&self.started_utc);
        // The release of a kernel may carry its builder's name.
        let release: String =
            kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        format!(
            "{day}: {processors} processors ({processor}), {} GiB, Linux {}",
            memory_bytes >> 30,
            release.trim_end_matches('.'),
        )
    }
}

fn tables(rows: &Rows, page: &mut String) {
    let mut names: Vec<&String> = rows.iter().flat_map(|(_, row)| row.keys()).collect();
    names.sort_by_key(|name| (*name != OURS, *name != SYSTEM, (*name).clone()));
    names.dedup();
    let time = |figures: (f64, f64)| figures.0;
    let memory = |figures: (f64, f64)| figures.1;
    table(
        page,
        rows,
        &names,
        "Nanoseconds per malloc and free",
        "ours / best of the others",
        &time,
        &|row| least(row, |name| name != OURS, &time),
    );
    table(page, rows, &names, "Peak resident MiB", "ours / system", &memory, &|row| {
        row.get(SYSTEM).map(|figures| figures.1)
    });
}

fn least(
    row: &BTreeMap<String, (f64, f64)>,
    counts: impl Fn(&str) -> bool,
    what: &impl Fn((f64, f64)) -> f64,
) -> Option<f64> {
    row.iter().filter(|(name, _)| counts(name)).map(|(_, figures)| what(*figures)).reduce(f64::min)
}

fn table(
    page: &mut String,
    rows: &Rows,
    names: &[&String],
    title: &str,
    ratio_title: &str,
    what: &impl Fn((f64, f64)) -> f64,
    against: &impl Fn(&BTreeMap<String, (f64, f64)>) -> Option<f64>,
) {
    let mut line = |text: String| {
        let _ = writeln!(page, "{text}");
    };
    line(format!("## {title}\n"));
    let heads: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    line(format!("| workload, threads | {} | {ratio_title} |", heads.join(" | ")));
    line(format!("|---|{}---|", "---|".repeat(names.len())));
    let (mut logs, mut sums) = (Vec::new(), vec![(0.0, 0_u32); names.len()]);
    for (label, row) in rows {
        let best = least(row, |_| true, what);
        let cells = names.iter().map(|name| match row.get(*name).copied().map(what) {
            None => "–".to_owned(),
            Some(value) if Some(value) == best => format!("**{}**", short(value)),
            Some(value) => short(value),
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        for (name, (sum, count)) in names.iter().zip(&mut sums) {
            if let Some((value, best)) = row.get(*name).copied().map(what).zip(best)
                && value > 0.0
                && best > 0.0
            {
                *sum += (value / best).ln();
                *count += 1;
            }
        }
        let ours = row.get(OURS).copied().map(what);
        let ratio = ours.zip(against(row)).map(|(ours, other)| ours / other);
        logs.extend(ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0).map(f64::ln));
        let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        line(format!("| {label} | {cells} | {ratio} |"));
    }
    let means = sums.iter().map(|&(sum, count)| match count {
        0 => "–".to_owned(),
        _ => short((sum / f64::from(count)).exp()) + &of_rows(count as usize, rows.len()),
    });
    let means = means.collect::<Vec<_>>().join(" | ");
    line(format!("| geometric mean, the best of each row being 1 | {means} | |"));
    if !logs.is_empty() {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        line(format!("\nGeometric mean of the last column, {} rows: **{mean:.2}**.\n", logs.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: &str = "\
workload,allocator,threads,pass,end,operations,elapsed_ns,peak_rss_bytes
pair-16,ours,1,throughput,completed,200,800,1048576
pair-16,ours,1,throughput,completed,200,1000,1048576
pair-16,ours,1,throughput,completed,200,9000,3145728
pair-16,system,1,throughput,completed,200,2000,2097152
pair-16,libother.so,1,throughput,completed,200,500,4194304
pair-16,other,1,latency,completed,200,1,1
pair-16,broken,1,throughput,crashed,,,
pair-16,broken,1,throughput,completed,200,500,4194304
larson,ours,2,throughput,completed,2,10,0
";

    #[test]
    fn medians_ratios_and_the_best_are_those_of_finished_runs() {
        let mut page = String::new();
        let (rows, rounds) = rows(RUNS).expect("sound rows");
        assert_eq!(rounds, 1, "larson has a single one");
        tables(&rows, &mut page);
        assert!(page.contains("| pair-16, 1 | 10.0 | 20.0 | **5.00** | 2.00 |"), "{page}");
        assert!(page.contains("| pair-16, 1 | **1.00** | 2.00 | 4.00 | 0.50 |"), "{page}");
        assert!(page.contains("| larson, 2 | **10.0** | – | – | – |"), "{page}");
        assert!(page.contains("last column, 1 rows: **2.00**"), "{page}");
        assert!(
            page.contains("being 1 | 1.41 | 4.00 (1 of 2 rows) | 1.00 (1 of 2 rows) | |"),
            "{page}"
        );
        assert!(!page.contains("broken"), "{page}");
    }

    #[test]
    fn a_folder_without_a_finished_run_is_refused() {
        let empty = RUNS.lines().next().expect("a header");
        assert!(rows(empty).is_err());
    }

    const MANIFEST: &str = r#"{"started_utc": "2026-11-26T09:00:00Z", "subjects": SUBJECTS,
        "machine": {"processor": "p", "processors": 2, "memory_bytes": 8589934592, "kernel": "6.1"},
        "commit": {"hash": "0123456789abcdef", "modified": false},
        "allocators": [{"name": "ours"}, {"name": "system"}]}"#;

    fn measured(subjects: &str, rounds: usize) -> Part {
        let manifest = MANIFEST.replace("SUBJECTS", subjects);
        let manifest = serde_json::from_str(&manifest).expect("a sound manifest");
        Part { manifest, rows: Vec::new(), rounds }
    }

    #[test]
    fn the_head_says_of_every_row_how_often_and_how_much_was_done() {
        let own = r#""length_ns": 1000000000, "own_work": [{"allocator": "ours", "scale": 1.0}]"#;
        let own = format!(r#"[{{"name": "pair-16", {own}}}, {{"name": "pair-64", {own}}}]"#);
        let same = r#"[{"name": "larson-sized", "length_ns": 1000000000}, {"name": "server"}]"#;
        let page = head(&[measured(&own, 9), measured(same, 10)], "ci/figures.sh");
        assert!(
            page.contains("- pair: 9 rounds of the build of 0123456 on 2026-11-26. Each allocator"),
            "{page}"
        );
        assert!(page.contains("as much as takes it about 1 s;"), "{page}");
        assert!(
            page.contains("- larson-sized, server: 10 rounds of the build of 0123456 on"),
            "{page}"
        );
        assert!(page.contains("same work in each, as much as takes ours about 1 s."), "{page}");
        assert!(!page.contains("quick look"), "{page}");
        let page = head(&[measured(&own, 9), measured(same, 8)], "ci/figures.sh");
        assert!(page.contains("A quick look"), "{page}");
        let brief = same.replace("1000000000", "50000000");
        let page = head(&[measured(&brief, 9)], "ci/figures.sh");
        assert!(
            page.contains("takes ours about 50 ms.") && page.contains("A quick look"),
            "{page}"
        );
    }

    #[test]
    fn folders_are_given_before_the_rest() {
        for options in [&["peers.json", "command"][..], &["command"]] {
            let error = write(options).expect_err("no folder").to_string();
            assert!(error.contains("RUN-FOLDER..."), "{error}");
        }
    }
}
