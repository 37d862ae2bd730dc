//! `cargo ci figures`: the comparison of allocators that stands in the documentation, from the folder of
//! one `bench-cli run`.
//!
//! Time is nanoseconds per malloc and free (two of the calls counted in `runs.csv`), memory the peak
//! resident bytes beyond what the process held before; both are medians over the rounds. What an
//! allocator did not finish has no figure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::Report;

/// The allocator the table is about, and the one that memory is compared with.
pub(crate) const OURS: &str = "ours";
pub(crate) const SYSTEM: &str = "system";

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
}

#[derive(Debug, Deserialize)]
struct Machine {
    processor: String,
    processors: u32,
    memory_bytes: u64,
    kernel: String,
}

/// What `ci/peers` says of the allocators it built.
#[derive(Debug, Deserialize)]
pub(crate) struct Peers {
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    name: String,
    version: String,
    flags: String,
    exports_malloc: String,
}

/// One row: a workload at a number of threads, and per allocator what was measured.
type Rows = Vec<(String, BTreeMap<String, (f64, f64)>)>;

/// Writes the tables: of a run's folder, of what `ci/peers` wrote of itself, and by which command.
///
/// # Errors
/// If a file cannot be read, or holds no finished run.
pub(crate) fn write(options: &[&str]) -> anyhow::Result<Report> {
    let [directory, peers, command] = options else {
        anyhow::bail!("usage: cargo ci figures RUN-FOLDER PEERS.json COMMAND");
    };
    let directory = Path::new(directory);
    let file = directory.join("runs.csv");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let rows = rows(&text).with_context(|| format!("in {}", file.display()))?;
    let mut page = head(&json::<Manifest>(&directory.join("manifest.json"))?, command);
    tables(&rows, &mut page);
    append_peers(&json(Path::new(peers))?, &mut page);
    Ok(Report { summary: page.trim_end().to_owned(), findings: Vec::new() })
}

/// Reads what a run or `ci/peers` wrote.
///
/// # Errors
/// A file that is missing or holds something else, with its name.
pub(crate) fn json<T: serde::de::DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    std::fs::read_to_string(file)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .with_context(|| format!("cannot read {}", file.display()))
}

/// The name of an allocator in a table: a library given by its path has its file's name.
pub(crate) fn short_name(allocator: &str) -> &str {
    allocator.trim_start_matches("lib").trim_end_matches(".so")
}

fn rows(text: &str) -> anyhow::Result<Rows> {
    let mut order: Vec<String> = Vec::new();
    let mut samples: BTreeMap<(String, String), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for run in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let run: Run = run?;
        let (Some(operations), Some(elapsed)) = (run.operations, run.elapsed_ns) else { continue };
        if run.pass != "throughput" || run.end != "completed" || operations == 0 {
            continue;
        }
        let row = format!("{}, {}", run.workload, run.threads);
        if !order.contains(&row) {
            order.push(row.clone());
        }
        let name = short_name(&run.allocator).to_owned();
        let (times, bytes) = samples.entry((row, name)).or_default();
        times.push(2.0 * elapsed as f64 / operations as f64);
        bytes.push(run.peak_rss_bytes.unwrap_or_default() as f64 / f64::from(1 << 20));
    }
    anyhow::ensure!(!order.is_empty(), "no finished run of the throughput pass");
    Ok(order
        .into_iter()
        .map(|row| {
            let of_row = samples.iter().filter(|((other, _), _)| *other == row);
            let figures = of_row.map(|((_, allocator), (times, bytes))| {
                (allocator.clone(), (median(times), median(bytes)))
            });
            (row.clone(), figures.collect())
        })
        .collect())
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(low), at(high))
}

fn head(manifest: &Manifest, command: &str) -> String {
    format!(
        "# Ours beside the others\n\nWritten by `{command}` on {}. Every figure is a median over the \
         rounds; those of all allocators are interleaved. With RUNS below 9 or LENGTH below 1s this is \
         a quick look, in which a tenth more or less means nothing.\n\n",
        manifest.day_and_machine()
    )
}

impl Manifest {
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
    let means = sums.iter().map(|&(sum, count)| short((sum / f64::from(count)).exp()));
    let means = means.collect::<Vec<_>>().join(" | ");
    line(format!("| geometric mean, the best of each row being 1 | {means} | |"));
    if !logs.is_empty() {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        line(format!("\nGeometric mean of the last column, {} rows: **{mean:.2}**.\n", logs.len()));
    }
}

/// Three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub(crate) fn append_peers(peers: &Peers, page: &mut String) {
    page.push_str(
        "## The others\n\nBuilt by `ci/peers` from the sources in their Rust crates.\n\n",
    );
    page.push_str("| name | version | how it exports malloc | flags |\n|---|---|---|---|\n");
    for Peer { name, version, flags, exports_malloc } in &peers.peers {
        let _ = writeln!(page, "| {name} | {version} | {exports_malloc} | `{flags}` |");
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
larson,ours,2,throughput,completed,2,10,0
";

    #[test]
    fn medians_ratios_and_the_best_are_those_of_finished_runs() {
        let mut page = String::new();
        tables(&rows(RUNS).expect("sound rows"), &mut page);
        assert!(page.contains("| pair-16, 1 | 10.0 | 20.0 | **5.00** | 2.00 |"), "{page}");
        assert!(page.contains("| pair-16, 1 | **1.00** | 2.00 | 4.00 | 0.50 |"), "{page}");
        assert!(page.contains("| larson, 2 | **10.0** | – | – | – |"), "{page}");
        assert!(page.contains("last column, 1 rows: **2.00**"), "{page}");
        assert!(page.contains("being 1 | 1.41 | 4.00 | 1.00 | |"), "{page}");
        assert!(!page.contains("broken"), "{page}");
    }

    #[test]
    fn a_folder_without_a_finished_run_is_refused() {
        let empty = RUNS.lines().next().expect("a header");
        assert!(rows(empty).is_err());
    }
}
