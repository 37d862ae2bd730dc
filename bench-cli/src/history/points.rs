//! What one folder of results is worth: a value per subject, allocator, conditions and metric.
//!
//! A value is the median over the processes of the folder, so that one bad process is no point.
//! Folders of `run` give the columns of `runs.csv` and the quantiles of `latency.csv`; folders of
//! `gate` and `compare` give both libraries' own figures, as `base` and `head`, and the slowdown
//! between them, as `head/base`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{CliError, Exit};
use crate::results::{Manifest, Recorded, RunRow, Subject};

/// What a value belongs to; the machine comes from the manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The workload, trace, command or cell.
    pub subject: String,
    /// Who served `malloc`.
    pub allocator: String,
    /// How it was measured: threads, pass, scale, order, pace, touch, pressure, which libraries a gate had,
    /// which work a trace or cell is, copies, processors.
    pub conditions: String,
    /// A column's name; quantiles are `malloc_p99.9_ns`.
    pub metric: String,
}

/// A value and how many processes are behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Their median.
    pub median: f64,
    /// Their number.
    pub processes: usize,
}

/// A folder of results, read.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its manifest.
    pub manifest: Manifest,
    /// What stays as it is when a run is continued or cells are merged again: equal ones are the same
    /// folder.
    pub identity: String,
    /// The manifest's text, which was the identity in files of earlier versions.
    pub text: String,
    /// What it is worth.
    pub points: BTreeMap<Key, Value>,
}

type Samples = BTreeMap<Key, Vec<f64>>;

/// Reads `folder`.
///
/// # Errors
/// [`Exit::Usage`] where there are no finished results, a file of them is damaged, how much work was
/// done followed from how long it took, or the head was slowed on purpose.
pub fn read(folder: &Path) -> Result<Folder, CliError> {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).map_err(|e| fault(folder, "manifest.json", &e))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|e| fault(folder, "manifest.json", &e))?;
    if !matches!(manifest.state.as_str(), "completed" | "interrupted") {
        let why = format!("its measurement is {}, not completed", manifest.state);
        return Err(fault(folder, "manifest.json", &why));
    }
    // The next commit does another amount of work in the same time.
    if manifest.subjects.iter().any(|s| s.length_ns.is_some() || !s.own_work.is_empty()) {
        return Err(not_followed(folder)
            .because("it did as much work as took a given time (--duration)")
            .help("measure a given amount: `bench-cli run` with --scale, or with neither"));
    }
    let mut identity =
        format!("{} {} {}", manifest.started_utc, manifest.fingerprint, manifest.seed);
    let bound = bound(manifest.copies, &manifest.cpus);
    let mut samples = Samples::new();
    if manifest.subjects.iter().any(|subject| subject.kind == "cell") {
        of_gate(folder, &manifest, &bound, &mut samples)?;
        // One plan may be measured on several machines.
        identity += &format!(" {:?}", manifest.machine);
    } else {
        let recorded = Recorded::read(folder)?;
        // Many machines may begin the same in one second; what runs first stays the first line.
        if let Some(first) = recorded.runs.first() {
            identity += &format!(" {} {:?}", first.run_id, first.elapsed_ns);
        }
        of_run(&recorded, &bound, &mut samples);
    }
    let points = samples.into_iter().filter_map(|(key, values)| Some((key, value(values)?)));
    let points: BTreeMap<Key, Value> = points.collect();
    if points.is_empty() {
        return Err(fault(folder, "no value", &"no process came to its end"));
    }
    Ok(Folder { manifest, identity, text, points })
}

fn not_followed(folder: &Path) -> CliError {
    let what = format!("`{}` is nothing to be followed over commits", folder.display());
    CliError::new(Exit::Usage, what)
}

fn fault(folder: &Path, file: &str, why: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Usage, format!("`{}` holds no finished results", folder.display()))
        .because(format!("{file}: {why}"))
        .help("name folders that `bench-cli run`, `gate` or `compare` wrote, as bench-out/latest")
}

fn value(mut values: Vec<f64>) -> Option<Value> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    let (n, middle) = (values.len(), values.len() / 2);
    let upper = *values.get(middle)?;
    let median = if n % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) };
    Some(Value { median, processes: n })
}

fn of_run(recorded: &Recorded, bound: &str, samples: &mut Samples) {
    let key = |run: &RunRow, metric: &str| {
        let subjects = &recorded.manifest.subjects;
        let of = subjects.iter().find(|subject| subject.name == run.workload);
        let work = of.filter(|of| of.kind == "trace").map_or_else(String::new, work);
        key(run, of.and_then(|subject| subject.scale), &(work + bound), metric)
    };
    let mut of_id: BTreeMap<&str, &RunRow> = BTreeMap::new();
    for run in recorded.runs.iter().filter(|run| run.end == "completed") {
        of_id.insert(&run.run_id, run);
        for (metric, value) in columns(run) {
            if let Some(value) = value {
                samples.entry(key(run, metric)).or_default().push(value as f64);
            }
        }
    }
    for row in recorded.latency.iter().filter(|r| r.size_class.is_none() && r.thread.is_none()) {
        let Some(run) = of_id.get(row.run_id.as_str()) else { continue };
        // Of 0.999 the tenth digit is noise of the conversion.
        let percent = (row.quantile * 1e6).round() / 1e4;
        let metric = format!("{}_p{percent}_ns", row.op);
        samples.entry(key(run, &metric)).or_default().push(row.value_ns as f64);
    }
}

/// What is worth following over commits.
fn columns(run: &RunRow) -> [(&'static str, Option<u64>); 9] {
    [
        ("elapsed_ns", run.elapsed_ns),
        ("cpu_ns", run.cpu_ns),
        ("instructions", run.instructions),
        ("peak_rss_bytes", run.peak_rss_bytes),
        ("peak_live_bytes", run.peak_live_bytes),
        ("failed_allocations", run.failed_allocations),
        ("minor_faults", run.minor_faults),
        ("major_faults", run.major_faults),
        ("stalled_ns", run.stalled_ns),
    ]
}

/// Which work it is: a trace that is recorded anew keeps its name.
fn work(subject: &Subject) -> String {
    let hash = subject.stream_hash.as_deref().and_then(|hash| hash.get(..8));
    hash.map_or_else(String::new, |hash| format!(" work={hash}"))
}

/// The conditions of a whole folder: copies that ran at the same time, and processors.
fn bound(copies: Option<u32>, cpus: &[usize]) -> String {
    let mut conditions = copies.map_or(String::new(), |copies| format!(" copies={copies}"));
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    if !cpus.is_empty() {
        let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
        conditions += &format!(" cpus={}", list.join(","));
    }
    conditions
}

/// The key of a metric of a run that does `scale` times the work of its specification.
fn key(run: &RunRow, scale: Option<f64>, bound: &str, metric: &str) -> Key {
    let mut conditions = format!("{}t {}", run.threads, run.pass);
    if let Some(scale) = scale.filter(|scale| *scale != 1.0) {
        conditions += &format!(" scale={scale}");
    }
    for (name, text) in [("order", &run.order), ("pace", &run.pace), ("touch", &run.touch)] {
        if !text.is_empty() {
            conditions += &format!(" {name}={text}");
        }
    }
    if !run.pressure.is_empty() {
        conditions += &format!(" pressure={}", run.pressure);
    }
    conditions += bound;
    Key {
        subject: run.workload.clone(),
        allocator: run.allocator.clone(),
        conditions,
        metric: metric.to_owned(),
    }
}

/// The columns of `blocks.csv` that matter here.
#[derive(Debug, Deserialize)]
struct BlockRow {
    cell: String,
    side: String,
    elapsed_ns: f64,
    minor_faults: f64,
    peak_rss_bytes: f64,
    failed_allocations: f64,
}

/// The columns of `verdicts.csv` that matter here.
#[derive(Debug, Deserialize)]
struct VerdictRow {
    cell: String,
    metric: String,
    slowdown: Option<f64>,
    base_value: Option<f64>,
    head_value: Option<f64>,
}

/// What of `verdict.json` matters here.
#[derive(Debug, Deserialize)]
struct Verdict {
    injected_slowdown: f64,
}

/// What stands for the library of `role` in a gate: without folders, which differ between machines.
fn library_of(manifest: &Manifest, role: &str) -> Option<String> {
    let given = manifest.allocators.iter().find(|a| a.name == role)?.given.as_ref()?;
    let (path, options) = given.split_at(given.find('?').unwrap_or(given.len()));
    let file = path.rsplit('/').next().unwrap_or(path);
    Some(format!(" {role}={file}{options}"))
}

fn of_gate(
    folder: &Path,
    manifest: &Manifest,
    bound: &str,
    samples: &mut Samples,
) -> Result<(), CliError> {
    let broken = |why: &dyn std::fmt::Display| fault(folder, "verdict.json", why);
    let text = fs::read(folder.join("verdict.json")).map_err(|e| broken(&e))?;
    let verdict: Verdict = serde_json::from_slice(&text).map_err(|e| broken(&e))?;
    if verdict.injected_slowdown > 0.0 {
        return Err(not_followed(folder)
            .because("its head was slowed on purpose (--inject-slowdown)")
            .help("measure the libraries as they are: `bench-cli gate` without that option"));
    }
    let mut note = |cell: &str, allocator: &str, metric: &str, value: f64| {
        // `head/base` is of both.
        let of: String =
            allocator.split('/').filter_map(|role| library_of(manifest, role)).collect();
        let subject = manifest.subjects.iter().find(|subject| subject.name == cell);
        let key = Key {
            subject: cell.to_owned(),
            allocator: allocator.to_owned(),
            conditions: format!("gate{of}{}{bound}", subject.map_or_else(String::new, work)),
            metric: metric.to_owned(),
        };
        samples.entry(key).or_default().push(value);
    };
    for row in rows::<BlockRow>(folder, "blocks.csv")? {
        note(&row.cell, &row.side, "elapsed_ns", row.elapsed_ns);
        note(&row.cell, &row.side, "minor_faults", row.minor_faults);
        note(&row.cell, &row.side, "peak_rss_bytes", row.peak_rss_bytes);
        note(&row.cell, &row.side, "failed_allocations", row.failed_allocations);
    }
    for row in rows::<VerdictRow>(folder, "verdicts.csv")? {
        if let Some(slowdown) = row.slowdown {
            note(&row.cell, "head/base", "slowdown", slowdown);
        }
        // The other counts are in every row of `blocks.csv`.
        if ["instructions", "mapping_calls", "committed_bytes"].contains(&row.metric.as_str()) {
            for (side, value) in [("base", row.base_value), ("head", row.head_value)] {
                if let Some(value) = value {
                    note(&row.cell, side, &row.metric, value);
                }
            }
        }
    }
    Ok(())
}

fn rows<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Vec<T>, CliError> {
    csv::Reader::from_path(folder.join(file))
        .and_then(|mut reader| reader.deserialize().collect())
        .map_err(|error| fault(folder, file, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_median_of_what_is_a_number() {
        assert_eq!(value(vec![3.0, 1.0, 900.0]), Some(Value { median: 3.0, processes: 3 }));
        assert_eq!(value(vec![1.0, f64::NAN, 2.0]), Some(Value { median: 1.5, processes: 2 }));
        assert_eq!(value(vec![]), None);
    }

    #[test]
    fn runs_under_other_conditions_are_other_series() {
        let run = RunRow { threads: 2, pass: "latency".to_owned(), ..RunRow::default() };
        let pressed = RunRow { pressure: "80%".to_owned(), ..run.clone() };
        let conditions = |run: &RunRow, scale: Option<f64>| key(run, scale, "", "x").conditions;
        assert_eq!(conditions(&run, None), "2t latency");
        assert_eq!(conditions(&run, Some(1.0)), "2t latency");
        assert_eq!(conditions(&run, Some(0.5)), "2t latency scale=0.5");
        assert_eq!(conditions(&pressed, None), "2t latency pressure=80%");
        let together = key(&run, None, &bound(Some(4), &[2, 0]), "x").conditions;
        assert_eq!(together, "2t latency copies=4 cpus=0,2");
        assert_eq!(bound(None, &[]), "");
    }

    #[test]
    fn a_library_of_a_gate_is_known_by_its_name_and_options_and_not_by_its_folder() {
        let manifest = |given: Option<&str>| {
            let note = serde_json::json!({
                "name": "head", "given": given, "library": null, "library_hash": null, "env": []
            });
            let manifest = serde_json::json!({
                "schema": 1, "bench_cli": "0", "command": [], "state": "completed",
                "started_utc": "", "seed": 1, "generator": "", "fingerprint": "",
                "machine": crate::results::Machine::here(), "allocators": [note], "subjects": [],
            });
            serde_json::from_value::<Manifest>(manifest).unwrap()
        };
        let of = |given| library_of(&manifest(given), "head");
        assert_eq!(of(None), None);
        assert_eq!(library_of(&manifest(Some("ours")), "base"), None);
        for (given, shown) in [
            ("ours", " head=ours"),
            ("ours?memory=low", " head=ours?memory=low"),
            ("/a/libmine.so?path=/b/c", " head=libmine.so?path=/b/c"),
        ] {
            assert_eq!(of(Some(given)).as_deref(), Some(shown));
        }
    }
}
