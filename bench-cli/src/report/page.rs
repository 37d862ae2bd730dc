//! The sections in the template: one HTML page that needs nothing else.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use minijinja::{Environment, Value, context};

use super::frame::Frame;
use super::overview;
use super::sections::{Chart, Tables};
use crate::error::{CliError, Exit};
use crate::results::Recorded;
use crate::session::{self, Line};

const TEMPLATE: &str = include_str!("page.html");

/// Tables that the page links where they are there.
const RAW: [&str; 14] = [
    "manifest.json",
    "runs.csv",
    "latency.csv",
    "timeline.csv",
    "tail.csv",
    "fragmentation.csv",
    "internals.csv",
    "syscalls.csv",
    "hist/",
    "heap/",
    "verdicts.csv",
    "blocks.csv",
    "metrics.txt",
    "summary.md",
];

/// The page for a folder of results.
///
/// # Errors
/// [`Exit::Usage`]: the folder holds no results, or a damaged table.
pub fn of_folder(folder: &Path) -> Result<String, CliError> {
    let read = |name: &str| Frame::read(&folder.join(name)).map(Option::unwrap_or_default);
    let tables = Tables {
        runs: read("runs.csv")?,
        latency: read("latency.csv")?,
        timeline: read("timeline.csv")?,
        tails: read("tail.csv")?,
        fragmentation: read("fragmentation.csv")?,
        verdicts: read("verdicts.csv")?,
    };
    if tables.runs.is_empty() && tables.verdicts.is_empty() {
        return Err(CliError::new(Exit::Usage, format!("`{}` holds no results", folder.display()))
            .because("neither runs.csv nor verdicts.csv has a row")
            .help("give the folder that `bench-cli run` or `bench-cli gate` wrote with --out"));
    }
    let manifest = read_json(&folder.join("manifest.json"))?;
    let verdict = read_json(&folder.join("verdict.json"))?;
    let raw: Vec<&str> = RAW.into_iter().filter(|name| folder.join(name).exists()).collect();
    render(folder, &tables, &manifest, &verdict, &raw)
}

fn read_json(path: &Path) -> Result<serde_json::Value, CliError> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(serde_json::Value::Null) };
    serde_json::from_str(&text).map_err(|error| {
        CliError::new(Exit::Usage, format!("`{}` is damaged", path.display())).because(error)
    })
}

/// The summary that `bench-cli run` prints; nothing for the folder of a gate, which has no
/// `latency.csv`.
fn summary(folder: &Path) -> Vec<Line> {
    let Ok(recorded) = Recorded::read(folder) else { return Vec::new() };
    let names: Vec<String> =
        recorded.manifest.allocators.iter().map(|allocator| allocator.name.clone()).collect();
    session::summarise(&recorded.runs, &recorded.latency, &names, &recorded.manifest.subjects)
}

fn render(
    folder: &Path,
    tables: &Tables,
    manifest: &serde_json::Value,
    verdict: &serde_json::Value,
    raw: &[&str],
) -> Result<String, CliError> {
    let broken = |error: minijinja::Error| {
        CliError::new(Exit::Internal, "the report's template is broken").because(error)
    };
    let lines = summary(folder);
    let comparison = if lines.is_empty() { tables.comparison() } else { overview::tables(&lines) };
    // Every operation together is what most come for; the single ones are folded away.
    let (latency_of_all, latency): (Vec<Chart>, Vec<Chart>) = tables
        .latency_charts(folder)
        .into_iter()
        .partition(|chart| chart.caption.starts_with("every operation"));
    let mut environment = Environment::new();
    environment.add_template("page.html", TEMPLATE).map_err(broken)?;
    let command: Vec<&str> = manifest["command"]
        .as_array()
        .map(|words| words.iter().filter_map(serde_json::Value::as_str).collect())
        .unwrap_or_default();
    environment
        .get_template("page.html")
        .and_then(|template| {
            template.render(context! {
                manifest => Value::from_serialize(manifest),
                command => command.join(" "),
                verdict => Value::from_serialize(verdict),
                verdict_chart => tables.verdict_chart(),
                verdict_table => tables.verdict_table(),
                words => overview::words(&lines),
                ratios => overview::charts(&lines),
                comparison => comparison,
                latency_of_all => latency_of_all,
                latency => latency,
                footprint => tables.footprint_charts(),
                fragmentation => tables.fragmentation(),
                heaps => tables.heap_pictures(folder),
                classes => tables.by_class(),
                threads => tables.by_thread(),
                tails => tables.tail_events(),
                fidelity => tables.fidelity(),
                raw => raw,
                version => env!("CARGO_PKG_VERSION"),
            })
        })
        .map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const RUNS: &str = "run_id,workload,allocator,threads,pass,elapsed_ns\n\
                        r1,<script>alert(1)</script>,a&b,2,throughput,200\n";

    #[test]
    fn the_page_loads_nothing_from_anywhere_and_runs_no_script() {
        let folder = folder(&[
            ("runs.csv", RUNS),
            ("verdicts.csv", "cell,metric,verdict,slowdown,margin\nx,elapsed,fail,0.1,0.05\n"),
            ("verdict.json", r#"{"sentence": "FAIL <b>x</b>", "verdict": "fail"}"#),
        ]);
        let page = of_folder(folder.path()).unwrap();
        assert!(!page.contains("<script"), "text from files is escaped");
        assert!(page.contains("FAIL &lt;b&gt;x"), "{page}");
        for outside in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("href=\"verdicts.csv\"") && page.contains("<svg"));
    }

    #[test]
    fn every_section_of_a_run_is_there() {
        let folder = folder(&[
            (
                "runs.csv",
                "run_id,workload,allocator,threads,pass,waits,operations,stalled_operations\n\
                          r1,w,a,2,latency,5,10,1\n",
            ),
            (
                "latency.csv",
                "run_id,op,size_class,thread,quantile,value_ns,count\n\
                             r1,all,,,0.5,9,2\nr1,malloc,,,0.5,9,2\nr1,malloc,64,,0.5,9,2\n\
                             r1,malloc,,7,0.5,9,2\n",
            ),
            ("timeline.csv", "run_id,time_ns,live_bytes,rss_bytes\nr1,0,5,9\nr1,9,5,9\n"),
            ("tail.csv", "run_id,rank,value_ns,op,size_bytes,thread\nr1,1,77,free,5,1\n"),
        ]);
        let page = of_folder(folder.path()).unwrap();
        for title in [
            "Time and memory",
            "Latency by percentile",
            "Footprint over time",
            "thread 7",
            "By size class",
            "Slowest calls",
            "Fidelity",
            "Machine and method",
            "Raw data",
        ] {
            assert!(page.contains(title), "{title}");
        }
        assert!(page.contains("href=\"tail.csv\"") && page.matches("<svg").count() >= 3);
    }

    #[test]
    fn a_folder_without_results_is_refused_with_the_next_command() {
        let error = of_folder(folder(&[]).path()).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("bench-cli run"), "{error}");
        let error = of_folder(folder(&[("runs.csv", "a,b\n1\n")]).path()).unwrap_err();
        assert!(error.to_string().contains("runs.csv"), "{error}");
        let error = of_folder(folder(&[("runs.csv", RUNS), ("manifest.json", "{")]).path());
        assert!(error.unwrap_err().to_string().contains("manifest.json"));
    }
}
