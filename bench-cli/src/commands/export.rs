//! `bench-cli export`: a run directory in the formats of other tools.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use hdrhistogram::Histogram;

use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::output;
use crate::results::{Recorded, atomic, read_log};
use crate::session::{self, Line, OWN_WORK};

/// What to export and how.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Folder of a run
    #[arg(default_value = "bench-out/latest")]
    folder: PathBuf,
    /// The format
    #[arg(long, value_enum, default_value = "markdown")]
    to: To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// The summary as a table, to standard output
    Markdown,
    /// The summary as OpenMetrics text, to standard output
    Openmetrics,
    /// Every histogram as a percentile file for HdrHistogram's plotter, to --out (default: the
    /// run's own folder `hgrm`)
    Hgrm,
}

/// Exports.
///
/// # Errors
/// [`Exit::Usage`] if the folder holds no run, or the output cannot be written.
pub fn run(args: &ExportArgs, global: &Global) -> Result<Exit, CliError> {
    let recorded = Recorded::read(&args.folder)?;
    let names: Vec<String> =
        recorded.manifest.allocators.iter().map(|allocator| allocator.name.clone()).collect();
    let subjects = &recorded.manifest.subjects;
    let lines = session::summarise(&recorded.runs, &recorded.latency, &names, subjects);
    match args.to {
        To::Markdown => output::print(&markdown(&lines))?,
        To::Openmetrics => output::print(&openmetrics(&lines))?,
        To::Hgrm => {
            let out = global.out.clone().unwrap_or_else(|| args.folder.join("hgrm"));
            let written = hgrm(&args.folder, &timed(&recorded), &out)?;
            output::print(&format!("{written} files in {}\n", out.display()))?;
        }
    }
    Ok(Exit::Success)
}

fn markdown(lines: &[Line]) -> String {
    let cell = |value: Option<f64>, unit: f64| {
        value.map_or_else(String::new, |value| format!("{:.2}", value / unit))
    };
    let mut text = String::from(
        "| workload | threads | pressure | allocator | time ms | ns per call | vs reference (95 %) | p50 ns | p99.9 ns | peak RSS MiB | remarks |\n\
         |---|--:|---|---|--:|--:|---|--:|--:|--:|---|\n",
    );
    for line in lines {
        let ratio = match (line.ratio, line.ratio_low, line.ratio_high) {
            (Some(ratio), Some(low), Some(high)) => format!("{ratio:.2} ({low:.2}–{high:.2})"),
            (Some(ratio), ..) => format!("{ratio:.2}"),
            _ => String::new(),
        };
        let whole = |value: Option<u64>| value.map_or_else(String::new, |v| v.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {ratio} | {} | {} | {} | {} |",
            escaped(&line.workload),
            line.threads,
            line.pressure,
            escaped(&line.allocator),
            cell(line.of_run(line.elapsed_ns), 1e6),
            cell(line.per_call(line.elapsed_ns), 1.0),
            whole(line.p50_ns),
            whole(line.p999_ns),
            cell(line.peak_rss_bytes, 1_048_576.0),
            escaped(&session::remarks(line)),
        );
    }
    if lines.iter().any(|line| line.own_work) {
        let _ = writeln!(text, "\n{OWN_WORK}");
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Families of gauges: a line per workload, allocator and pressure.
fn openmetrics(lines: &[Line]) -> String {
    type Family = (&'static str, &'static str, &'static str, fn(&Line) -> Option<f64>);
    let families: [Family; 9] = [
        ("bench_time_seconds", "seconds", "Median time of a run.", |l| {
            l.of_run(l.elapsed_ns).map(|t| t / 1e9)
        }),
        ("bench_time_per_call_seconds", "seconds", "Median time of a run over its calls.", |l| {
            l.per_call(l.elapsed_ns).map(|t| t / 1e9)
        }),
        ("bench_time_ratio", "", "Time relative to the reference allocator.", |l| l.ratio),
        ("bench_operations_per_second", "", "Median speed.", |l| l.operations_per_second),
        ("bench_latency_p50_seconds", "seconds", "Median time of a call.", |l| {
            l.p50_ns.map(|t| t as f64 / 1e9)
        }),
        ("bench_latency_p999_seconds", "seconds", "99.9th percentile of a call's time.", |l| {
            l.p999_ns.map(|t| t as f64 / 1e9)
        }),
        ("bench_peak_rss_bytes", "bytes", "Median peak of resident memory.", |l| l.peak_rss_bytes),
        ("bench_failed_allocations", "", "Requests refused, over all runs.", |l| {
            Some(l.failed_allocations as f64)
        }),
        ("bench_failed_runs", "", "Processes that did not come to their end.", |l| {
            Some(l.failed_runs as f64)
        }),
    ];
    let mut text = String::new();
    for (name, unit, help, value) in families {
        let _ = writeln!(text, "# TYPE {name} gauge");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name} {help}");
        for line in lines {
            if let Some(value) = value(line) {
                let _ = writeln!(
                    text,
                    "{name}{{workload=\"{}\",allocator=\"{}\",threads=\"{}\",pressure=\"{}\"}} {value}",
                    label(&line.workload),
                    label(&line.allocator),
                    line.threads,
                    label(&line.pressure),
                );
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The runs that left a log: those in both tables. Other logs in the folder are those of an earlier
/// run into it.
fn timed(recorded: &Recorded) -> BTreeSet<&str> {
    let timed: BTreeSet<&str> = recorded.latency.iter().map(|row| row.run_id.as_str()).collect();
    recorded.runs.iter().map(|run| run.run_id.as_str()).filter(|id| timed.contains(id)).collect()
}

/// Writes one percentile file per distribution of the logs of `runs`; returns their number.
fn hgrm(folder: &Path, runs: &BTreeSet<&str>, out: &Path) -> Result<usize, CliError> {
    let unwritable = |error: std::io::Error| {
        CliError::new(Exit::Usage, format!("cannot write to `{}`", out.display()))
            .because(error)
            .help("choose a folder that can be written with --out DIR")
    };
    fs::create_dir_all(out).map_err(unwritable)?;
    let mut written = 0;
    for run in runs {
        let path = folder.join("hist").join(format!("{run}.hlog"));
        let Ok(text) = fs::read(&path) else { continue };
        for (tag, histogram) in read_log(&text).map_err(|why| {
            CliError::new(Exit::Usage, format!("`{}` is damaged", path.display())).because(why)
        })? {
            let file = out.join(format!("{run}--{}.hgrm", tag.replace(['/', ':'], "-")));
            atomic::write(&file, percentiles(&histogram).as_bytes()).map_err(unwritable)?;
            written += 1;
        }
    }
    Ok(written)
}

/// The percentile text that HdrHistogram's tools print and plot, values in nanoseconds.
fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut seen = 0;
    for step in histogram.iter_quantiles(5) {
        seen += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{:12.3} {quantile:.12} {seen:>10}", step.value_iterated_to() as f64);
        if quantile < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:>12}]",
        histogram.mean(),
        histogram.stdev(),
        histogram.max() as f64,
        histogram.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::HistogramLog;

    #[test]
    fn percentiles_end_at_the_largest_value_and_hold_every_count() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        for value in 1..=100 {
            histogram.record(value).unwrap();
        }
        let text = percentiles(&histogram);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(words, ["100.000", "1.000000000000", "100"]);
        assert!(text.contains("Total count    =          100"), "{text}");
    }

    #[test]
    fn logs_of_an_earlier_run_into_the_same_folder_are_not_exported() {
        let folder = tempfile::tempdir().unwrap();
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        histogram.record(7).unwrap();
        let mut log = HistogramLog::new(0, 1.0);
        log.add("malloc:all", &histogram).unwrap();
        fs::create_dir(folder.path().join("hist")).unwrap();
        for run in ["new", "stale"] {
            log.write(&folder.path().join("hist").join(format!("{run}.hlog"))).unwrap();
        }
        let out = folder.path().join("hgrm");
        assert_eq!(hgrm(folder.path(), &BTreeSet::from(["new", "gone"]), &out).unwrap(), 1);
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(files.collect::<Vec<_>>(), ["new--malloc-all.hgrm"]);
    }

    #[test]
    fn labels_are_escaped_as_openmetrics_asks() {
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
