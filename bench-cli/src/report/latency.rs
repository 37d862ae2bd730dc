//! Latency: by percentile from the histograms themselves, by size class, by thread, and the
//! slowest calls one by one.
//!
//! Curves come from `hist/*.hlog`, added over the processes of an allocator; where a log is missing
//! or damaged, from the quantiles in `latency.csv`.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hdrhistogram::Histogram;

use super::frame::{Row, median};
use super::sections::{Chart, Subject, Table, Tables, chart, name, subject, table};
use super::svg::{self, Axis, Scale, Series, Unit};
use crate::results::read_log;

/// Threads shown of a workload that has more.
const THREADS: usize = 8;
/// Slow calls shown per allocator of a workload.
const TAILS: usize = 5;

/// Lines of one chart: points by allocator.
type Curves = BTreeMap<String, Vec<(f64, f64)>>;

impl Tables {
    /// Latency by percentile, one chart per workload and operation; `all` comes first.
    #[must_use]
    pub fn latency_charts(&self, folder: &Path) -> Vec<Chart> {
        let mut groups = self.quantile_curves();
        for (key, curves) in self.histogram_curves(folder) {
            groups.entry(key).or_default().extend(curves);
        }
        let x = Axis { label: "share of operations", scale: Scale::Nines, unit: Unit::Share };
        let y = Axis { label: "time", scale: Scale::Log, unit: Unit::Nanoseconds };
        let mut charts: Vec<(bool, Chart)> = groups
            .into_iter()
            .filter_map(|((subject, op), allocators)| {
                let series: Vec<Series> =
                    allocators.into_iter().map(|(name, points)| Series { name, points }).collect();
                let what = if op == "all" { "every operation" } else { &op };
                let drawn = chart(format!("{what}: {}", name(&subject)), x, y, &series)?;
                Some((op != "all", drawn))
            })
            .collect();
        charts.sort_by_key(|(single, _)| *single);
        charts.into_iter().map(|(_, chart)| chart).collect()
    }

    /// Points from `latency.csv`: the median over the processes, by quantile.
    fn quantile_curves(&self) -> BTreeMap<(Subject, String), Curves> {
        let runs = self.runs_by_id();
        let mut groups: BTreeMap<(Subject, String), BTreeMap<String, Quantiles>> = BTreeMap::new();
        for row in self.latency.rows() {
            if !(row.text("size_class").is_empty() && row.text("thread").is_empty()) {
                continue;
            }
            let (Some(run), Some(q), Some(value)) =
                (runs.get(row.text("run_id")), row.number("quantile"), row.number("value_ns"))
            else {
                continue;
            };
            groups
                .entry((subject(run), row.text("op").to_owned()))
                .or_default()
                .entry(run.text("allocator").to_owned())
                .or_default()
                .add(q, value);
        }
        let medians = |allocators: BTreeMap<String, Quantiles>| -> Curves {
            allocators.into_iter().map(|(name, quantiles)| (name, quantiles.medians())).collect()
        };
        groups.into_iter().map(|(key, allocators)| (key, medians(allocators))).collect()
    }

    /// Points from the histogram logs, added over the processes of an allocator.
    fn histogram_curves(&self, folder: &Path) -> BTreeMap<(Subject, String), Curves> {
        let mut sums: BTreeMap<(Subject, String), BTreeMap<String, Histogram<u64>>> =
            BTreeMap::new();
        for run in self.runs.rows().filter(|run| run.text("pass") == "latency") {
            let path = folder.join("hist").join(format!("{}.hlog", run.text("run_id")));
            let Ok(text) = fs::read(&path) else { continue };
            let Ok(log) = read_log(&text) else { continue };
            for (tag, histogram) in log {
                let Some(op) = tag.strip_suffix(":all") else { continue };
                let allocators = sums.entry((subject(&run), op.to_owned())).or_default();
                match allocators.get_mut(run.text("allocator")) {
                    // Logs of one program have one precision and one range.
                    Some(sum) => drop(sum.add(&histogram)),
                    None => drop(allocators.insert(run.text("allocator").to_owned(), histogram)),
                }
            }
        }
        let curves = |allocators: BTreeMap<String, Histogram<u64>>| -> Curves {
            allocators.into_iter().map(|(name, sum)| (name, curve(&sum))).collect()
        };
        sums.into_iter().map(|(key, allocators)| (key, curves(allocators))).collect()
    }

    /// Latency by operation and size class: the median, the tail and the count.
    #[must_use]
    pub fn by_class(&self) -> Option<Table> {
        let rows = self
            .parts("size_class")
            .into_iter()
            .map(|((subject, class, op, allocator), part)| {
                let class = svg::show(Unit::Bytes, class as f64);
                let mut row = vec![format!("{}: {op} ≤ {class}", name(&subject)), allocator];
                row.extend(part.texts());
                row
            })
            .collect();
        let head = ["operation and size", "allocator", "p50", "p99", "p99.9", "max", "count"];
        table("Latency by size class", &head, rows)
    }

    /// Latency by thread and operation, for the busiest threads of each workload.
    #[must_use]
    pub fn by_thread(&self) -> Option<Table> {
        let parts = self.parts("thread");
        let mut calls: BTreeMap<(&Subject, u64), f64> = BTreeMap::new();
        for ((subject, thread, _, _), part) in &parts {
            *calls.entry((subject, *thread)).or_default() += part.count;
        }
        let mut busiest: Vec<(&Subject, u64, f64)> =
            calls.iter().map(|((subject, thread), n)| (*subject, *thread, *n)).collect();
        busiest.sort_by(|a, b| a.0.cmp(b.0).then(b.2.total_cmp(&a.2)));
        let mut shown: BTreeSet<(&Subject, u64)> = BTreeSet::new();
        for chunk in busiest.chunk_by(|a, b| a.0 == b.0) {
            shown
                .extend(chunk.iter().take(THREADS).map(|(subject, thread, _)| (*subject, *thread)));
        }
        let left_out = calls.len() - shown.len();
        let rows = parts
            .iter()
            .filter(|((subject, thread, _, _), _)| shown.contains(&(subject, *thread)))
            .map(|((subject, thread, op, allocator), part)| {
                let mut row = vec![format!("{}: thread {thread}, {op}", name(subject))];
                row.push(allocator.clone());
                row.extend(part.texts());
                row
            })
            .collect();
        let caption = match left_out {
            0 => "Latency by thread".to_owned(),
            n => format!("Latency by thread: the {THREADS} busiest of each workload, {n} left out"),
        };
        let head = ["thread and operation", "allocator", "p50", "p99", "p99.9", "max", "count"];
        table(&caption, &head, rows)
    }

    /// Distributions by the number in `column`. Of several runs the slowest is shown: a tail seen
    /// once was there.
    fn parts(&self, column: &str) -> BTreeMap<(Subject, u64, String, String), Part> {
        let runs = self.runs_by_id();
        let mut parts: BTreeMap<_, Part> = BTreeMap::new();
        for row in self.latency.rows() {
            let (Some(run), Some(number), Some(q), Some(value)) = (
                runs.get(row.text("run_id")),
                row.number(column),
                row.number("quantile"),
                row.number("value_ns"),
            ) else {
                continue;
            };
            let (op, allocator) = (row.text("op").to_owned(), run.text("allocator").to_owned());
            let part = parts.entry((subject(run), number as u64, op, allocator)).or_default();
            let slowest = part.quantiles.entry(nines(q)).or_default();
            *slowest = slowest.max(value);
            part.count = row.number("count").unwrap_or(0.0);
        }
        parts
    }

    /// The slowest calls of each workload, a few per allocator.
    #[must_use]
    pub fn tail_events(&self) -> Vec<Table> {
        let runs = self.runs_by_id();
        let mut groups: BTreeMap<Subject, BTreeMap<String, Vec<Row<'_>>>> = BTreeMap::new();
        for row in self.tails.rows() {
            let Some(run) = runs.get(row.text("run_id")) else { continue };
            let allocators = groups.entry(subject(run)).or_default();
            allocators.entry(run.text("allocator").to_owned()).or_default().push(row);
        }
        let time = |row: &Row<'_>| row.number("value_ns").unwrap_or(0.0);
        let rows_of = |allocators: BTreeMap<String, Vec<Row<'_>>>| -> Vec<Vec<String>> {
            let mut rows = Vec::new();
            for (allocator, mut calls) in allocators {
                calls.sort_by(|a, b| time(b).total_cmp(&time(a)));
                rows.extend(calls.iter().take(TAILS).map(|call| {
                    let size = call.number("size_bytes").map(|size| svg::show(Unit::Bytes, size));
                    vec![
                        allocator.clone(),
                        svg::show(Unit::Nanoseconds, time(call)),
                        call.text("op").to_owned(),
                        size.unwrap_or_default(),
                        call.text("thread").to_owned(),
                        call.text("event").to_owned(),
                    ]
                }));
            }
            rows
        };
        let head = ["allocator", "time", "call", "size", "thread", "event"];
        groups
            .into_iter()
            .filter_map(|(subject, allocators)| table(&name(&subject), &head, rows_of(allocators)))
            .collect()
    }
}

/// One distribution in figures.
#[derive(Debug, Default)]
struct Part {
    quantiles: BTreeMap<u64, f64>,
    count: f64,
}

impl Part {
    fn texts(&self) -> [String; 5] {
        let at = |q: f64| {
            let value = self.quantiles.get(&nines(q));
            value.map_or(String::new(), |v| svg::show(Unit::Nanoseconds, *v))
        };
        [at(0.5), at(0.99), at(0.999), at(1.0), svg::show(Unit::Plain, self.count)]
    }
}

/// A histogram as a line over the share of operations. The slowest call stands where it belongs
/// among so many, not at infinity.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = 1.0 - 0.5 / histogram.len().max(1) as f64;
    let mut points: Vec<(f64, f64)> = histogram
        .iter_quantiles(4)
        .map(|step| (step.quantile_iterated_to().min(most), step.value_iterated_to() as f64))
        .collect();
    points.dedup();
    points
}

/// A quantile as a key that can be compared.
fn nines(quantile: f64) -> u64 {
    (quantile * 1e6).round() as u64
}

/// Quantiles of several runs.
#[derive(Debug, Default)]
struct Quantiles(BTreeMap<u64, Vec<f64>>);

impl Quantiles {
    fn add(&mut self, quantile: f64, value: f64) {
        self.0.entry(nines(quantile)).or_default().push(value);
    }

    /// The median over the runs, by quantile.
    fn medians(self) -> Vec<(f64, f64)> {
        let point = |(q, values): (u64, Vec<f64>)| Some((q as f64 / 1e6, median(values)?));
        self.0.into_iter().filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::super::sections::tests::tables;
    use super::*;
    use crate::results::HistogramLog;

    #[test]
    fn latency_of_all_sizes_and_threads_becomes_one_line_per_allocator() {
        let charts = tables().latency_charts(Path::new(""));
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].caption, "malloc: larson, 2 threads");
        assert_eq!(charts[0].legend, ["ours", "system"]);
    }

    #[test]
    fn histograms_of_several_processes_add_up_to_one_curve() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("hist")).unwrap();
        let runs = "run_id,workload,allocator,threads,pass\na,w,x,1,latency\nb,w,x,1,latency\n";
        for (run, value) in [("a", 10), ("b", 1000)] {
            let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
            histogram.record_n(value, 500).unwrap();
            let mut log = HistogramLog::new(0, 1.0);
            log.add("all:all", &histogram).unwrap();
            log.add("malloc:64", &histogram).unwrap();
            log.write(&folder.path().join(format!("hist/{run}.hlog"))).unwrap();
        }
        let tables = Tables { runs: Frame::parse(runs).unwrap(), ..Tables::default() };
        let curves = tables.histogram_curves(folder.path());
        assert_eq!(curves.len(), 1, "only distributions over all sizes are drawn");
        let points = &curves.values().next().unwrap()["x"];
        assert!(points.iter().all(|(q, v)| if *q <= 0.5 { *v < 11.0 } else { *v > 990.0 }));
        assert_eq!(points.last().unwrap().0, 1.0 - 0.5 / 1000.0);
    }

    #[test]
    fn size_classes_threads_and_slow_calls_have_their_tables() {
        let tables = tables();
        let classes = tables.by_class().unwrap();
        assert_eq!(classes.rows.len(), 1);
        assert_eq!(classes.rows[0][2..5], ["10 ns", "30 ns", ""]);
        let threads = tables.by_thread().unwrap();
        assert_eq!(threads.rows.len(), 2);
        assert_eq!(threads.rows[0][0], "larson, 2 threads: thread 3, malloc");
        assert_eq!(threads.rows[0][5], "90 µs");
        let tails = tables.tail_events();
        assert_eq!(tails[0].rows.len(), 3);
        assert_eq!(tails[0].rows[0], ["ours", "90 µs", "malloc", "64 B", "3", "41"]);
    }
}
