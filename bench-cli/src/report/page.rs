//! The sections in the template: one HTML page that needs nothing else.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use minijinja::{Environment, Value, context};

use super::frame::Frame;
use super::sections::Tables;
use crate::error::{CliError, Exit};

const TEMPLATE: &str = include_str!("page.html");

/// Tables that the page links where they are there.
const RAW: [&str; 8] = [
    "manifest.json",
    "runs.csv",
    "latency.csv",
    "timeline.csv",
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
    render(&tables, &manifest, &verdict, &raw)
}

fn read_json(path: &Path) -> Result<serde_json::Value, CliError> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(serde_json::Value::Null) };
    serde_json::from_str(&text).map_err(|error| {
        CliError::new(Exit::Usage, format!("`{}` is damaged", path.display())).because(error)
    })
}

fn render(
    tables: &Tables,
    manifest: &serde_json::Value,
    verdict: &serde_json::Value,
    raw: &[&str],
) -> Result<String, CliError> {
    let broken = |error: minijinja::Error| {
        CliError::new(Exit::Internal, "the report's template is broken").because(error)
    };
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
                comparison => tables.comparison(),
                latency => tables.latency_charts(),
                footprint => tables.footprint_charts(),
                fragmentation => tables.fragmentation(),
                classes => tables.by_class(),
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
