//! What the page says: each section from the tables it needs, empty where they are missing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::frame::{Frame, Row, median};
use super::svg::{self, Axis, IntervalRow, Scale, Series, Unit};

/// A table as the template draws it; the first column is text, the others are numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Column heads.
    pub head: Vec<String>,
    /// Rows of texts.
    pub rows: Vec<Vec<String>>,
}

/// A chart with the names of its lines.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// What it shows.
    pub caption: String,
    /// The drawing.
    pub svg: String,
    /// Names by colour.
    pub legend: Vec<String>,
}

/// The tables of a folder.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// One row per process.
    pub runs: Frame,
    /// Quantiles by run, operation, size class and thread.
    pub latency: Frame,
    /// Footprint over time.
    pub timeline: Frame,
    /// One row per cell and metric of a gate.
    pub verdicts: Frame,
}

/// What is compared: one workload under one number of threads and one pressure.
type Subject = (String, String, String);

fn subject(row: &Row<'_>) -> Subject {
    let of = |column| row.text(column).to_owned();
    (of("workload"), of("threads"), of("pressure"))
}

fn name((workload, threads, pressure): &Subject) -> String {
    let mut name = workload.clone();
    if !threads.is_empty() {
        name += &format!(", {threads} threads");
    }
    if !pressure.is_empty() {
        name += &format!(", pressure {pressure}");
    }
    name
}

impl Tables {
    /// Time and memory by workload and allocator: medians, with the range of the times.
    #[must_use]
    pub fn comparison(&self) -> Vec<Table> {
        let mut groups: BTreeMap<Subject, BTreeMap<String, Vec<Row<'_>>>> = BTreeMap::new();
        for row in self.runs.rows() {
            groups
                .entry(subject(&row))
                .or_default()
                .entry(row.text("allocator").to_owned())
                .or_default()
                .push(row);
        }
        groups.iter().map(|(subject, allocators)| compare(subject, allocators)).collect()
    }

    /// Latency by percentile, one chart per workload and operation.
    #[must_use]
    pub fn latency_charts(&self) -> Vec<Chart> {
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
        let x = Axis { label: "share of operations", scale: Scale::Nines, unit: Unit::Share };
        let y = Axis { label: "time", scale: Scale::Log, unit: Unit::Nanoseconds };
        groups
            .into_iter()
            .filter_map(|((subject, op), allocators)| {
                let series: Vec<Series> = allocators
                    .into_iter()
                    .map(|(name, quantiles)| Series { name, points: quantiles.medians() })
                    .collect();
                let caption = format!("{op}: {}", name(&subject));
                chart(caption, x, y, &series)
            })
            .collect()
    }

    /// Footprint over time, one chart per workload: the first footprint run of each allocator.
    #[must_use]
    pub fn footprint_charts(&self) -> Vec<Chart> {
        let runs = self.runs_by_id();
        let mut groups: BTreeMap<Subject, BTreeMap<String, (String, Vec<Row<'_>>)>> =
            BTreeMap::new();
        for row in self.timeline.rows() {
            let id = row.text("run_id");
            let Some(run) = runs.get(id) else { continue };
            let (first, rows) = groups
                .entry(subject(run))
                .or_default()
                .entry(run.text("allocator").to_owned())
                .or_insert_with(|| (id.to_owned(), Vec::new()));
            if first == id {
                rows.push(row);
            }
        }
        let x = Axis { label: "time", scale: Scale::Linear, unit: Unit::Nanoseconds };
        let y = Axis { label: "resident above base", scale: Scale::Linear, unit: Unit::Bytes };
        groups
            .into_iter()
            .filter_map(|(subject, allocators)| {
                let curve = |rows: &[Row<'_>], column: &str| -> Vec<(f64, f64)> {
                    let point = |r: &Row<'_>| r.number("time_ns").zip(r.number(column));
                    rows.iter().filter_map(point).collect()
                };
                let mut series: Vec<Series> = allocators
                    .iter()
                    .map(|(name, (_, rows))| Series {
                        name: name.clone(),
                        points: curve(rows, "rss_bytes"),
                    })
                    .collect();
                if let Some((_, rows)) = allocators.values().next() {
                    let live = curve(rows, "live_bytes");
                    if !live.is_empty() {
                        series.push(Series { name: "live (requested)".to_owned(), points: live });
                    }
                }
                chart(name(&subject), x, y, &series)
            })
            .collect()
    }

    /// Fragmentation as Johnstone and Wilson measure it, from the footprint runs.
    #[must_use]
    pub fn fragmentation(&self) -> Option<Table> {
        let runs = self.runs_by_id();
        let mut curves: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for row in self.timeline.rows() {
            if let Some(point) = row.number("live_bytes").zip(row.number("rss_bytes")) {
                curves.entry(row.text("run_id")).or_default().push(point);
            }
        }
        let rows: Vec<Vec<String>> = curves
            .into_iter()
            .filter_map(|(id, curve)| {
                let run = runs.get(id)?;
                let figures = johnstone_wilson(&curve)?;
                let mut row = vec![name(&subject(run)), run.text("allocator").to_owned()];
                row.extend(figures.map(|f| format!("{f:.2}")));
                Some(row)
            })
            .collect();
        let head = ["workload", "allocator", "mean", "at peak live", "at peak use", "peak ÷ peak"];
        table("Resident ÷ requested, in four ways", &head, rows)
    }

    /// Latency by operation and size class: the median, the tail and the count.
    #[must_use]
    pub fn by_class(&self) -> Option<Table> {
        let runs = self.runs_by_id();
        type Key = (Subject, String, u64, String);
        let mut groups: BTreeMap<Key, BTreeMap<u64, f64>> = BTreeMap::new();
        let mut counts: BTreeMap<Key, f64> = BTreeMap::new();
        for row in self.latency.rows() {
            let (Some(run), Some(class), Some(q), Some(value)) = (
                runs.get(row.text("run_id")),
                row.number("size_class"),
                row.number("quantile"),
                row.number("value_ns"),
            ) else {
                continue;
            };
            let allocator = run.text("allocator").to_owned();
            let key = (subject(run), row.text("op").to_owned(), class as u64, allocator);
            // Of several runs the slowest is shown: a tail seen once was there.
            let slowest = groups.entry(key.clone()).or_default().entry(nines(q)).or_default();
            *slowest = slowest.max(value);
            counts.insert(key, row.number("count").unwrap_or(0.0));
        }
        let rows = groups
            .into_iter()
            .map(|(key, quantiles)| {
                let count = counts.get(&key).copied().unwrap_or(0.0);
                let (subject, op, class, allocator) = key;
                let at = |q: f64| {
                    let value = quantiles.get(&nines(q));
                    value.map_or(String::new(), |v| svg::show(Unit::Nanoseconds, *v))
                };
                let class = svg::show(Unit::Bytes, class as f64);
                let what = format!("{}: {op} ≤ {class}", name(&subject));
                vec![
                    what,
                    allocator,
                    at(0.5),
                    at(0.99),
                    at(0.999),
                    at(1.0),
                    svg::show(Unit::Plain, count),
                ]
            })
            .collect();
        let head = ["operation and size", "allocator", "p50", "p99", "p99.9", "max", "count"];
        table("Latency by size class", &head, rows)
    }

    /// How faithful replays were to their traces.
    #[must_use]
    pub fn fidelity(&self) -> Option<Table> {
        let rows = self
            .runs
            .rows()
            .filter(|row| row.number("waits").is_some_and(|waits| waits > 0.0))
            .map(|row| {
                let number = |column| row.number(column);
                let stalled = number("stalled_operations").zip(number("operations"));
                let peak = number("peak_live_bytes").zip(number("trace_peak_live_bytes"));
                let share = |pair: Option<(f64, f64)>, minus: f64| match pair {
                    Some((a, b)) if b > 0.0 => svg::show(Unit::Share, a / b - minus),
                    _ => String::new(),
                };
                vec![
                    row.text("run_id").to_owned(),
                    row.text("allocator").to_owned(),
                    row.text("order").to_owned(),
                    share(stalled, 0.0),
                    number("stalled_ns").map_or(String::new(), |v| svg::show(Unit::Nanoseconds, v)),
                    share(peak, 1.0),
                ]
            })
            .collect();
        let head =
            ["run", "allocator", "order", "operations stalled", "time stalled", "peak live off by"];
        table("How faithful the replays were", &head, rows)
    }

    /// Estimates and intervals of a gate or comparison.
    #[must_use]
    pub fn verdict_chart(&self) -> Option<Chart> {
        let rows: Vec<Row<'_>> =
            self.verdicts.rows().filter(|r| r.text("metric") == "elapsed").collect();
        let margin = rows.iter().filter_map(|r| r.number("margin")).fold(0.0, f64::max);
        let intervals: Vec<IntervalRow> = rows
            .iter()
            .filter_map(|row| {
                Some(IntervalRow {
                    name: row.text("cell").to_owned(),
                    class: row.text("verdict").to_owned(),
                    estimate: row.number("slowdown")?,
                    interval: row.number("slowdown_low").zip(row.number("slowdown_high")),
                })
            })
            .collect();
        let svg = svg::intervals("Head against base", margin, &intervals)?;
        let caption =
            "Estimates with 99.9 % intervals; dashed: the slowdown that must be ruled out";
        Some(Chart { caption: caption.to_owned(), svg, legend: Vec::new() })
    }

    /// Verdicts as a table.
    #[must_use]
    pub fn verdict_table(&self) -> Option<Table> {
        let rows = self
            .verdicts
            .rows()
            .map(|row| {
                let share = |column: &str| {
                    row.number(column).map_or(String::new(), |s| format!("{:+.1} %", s * 100.0))
                };
                let change = if row.text("metric") == "elapsed" {
                    share("slowdown")
                } else {
                    format!("{} → {}", row.text("base_value"), row.text("head_value"))
                };
                let interval = match (share("slowdown_low"), share("slowdown_high")) {
                    (low, high) if low.is_empty() || high.is_empty() => String::new(),
                    (low, high) => format!("{low} … {high}"),
                };
                let cell = format!("{} {}", row.text("cell"), row.text("metric"));
                let verdict = row.text("verdict").to_owned();
                vec![cell, verdict, change, interval, row.text("blocks").to_owned()]
            })
            .collect();
        table("Every cell", &["cell", "verdict", "change", "interval", "blocks"], rows)
    }

    fn runs_by_id(&self) -> BTreeMap<&str, Row<'_>> {
        self.runs.rows().map(|row| (row.text("run_id"), row)).collect()
    }
}

fn table(caption: &str, head: &[&str], rows: Vec<Vec<String>>) -> Option<Table> {
    (!rows.is_empty()).then(|| Table {
        caption: caption.to_owned(),
        head: head.iter().map(|h| (*h).to_owned()).collect(),
        rows,
    })
}

fn chart(caption: String, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> Option<Chart> {
    let svg = svg::lines(&caption, x, y, series)?;
    let legend = series.iter().map(|s| s.name.clone()).collect();
    Some(Chart { caption, svg, legend })
}

fn compare(subject: &Subject, allocators: &BTreeMap<String, Vec<Row<'_>>>) -> Table {
    let values = |rows: &[Row<'_>], pass: &str, column: &str| -> Vec<f64> {
        let of_pass = |r: &&Row<'_>| r.text("pass").is_empty() || r.text("pass") == pass;
        rows.iter().filter(of_pass).filter_map(|r| r.number(column)).collect()
    };
    let times = |rows: &[Row<'_>]| values(rows, "throughput", "elapsed_ns");
    let reference = allocators
        .get("system")
        .or(allocators.values().next())
        .and_then(|rows| median(times(rows)));
    let rows = allocators
        .iter()
        .map(|(allocator, rows)| {
            let elapsed = times(rows);
            let range = elapsed
                .iter()
                .copied()
                .fold((f64::INFINITY, 0.0_f64), |(low, high), t| (low.min(t), high.max(t)));
            let middle = median(elapsed);
            let show =
                |unit, value: Option<f64>| value.map_or(String::new(), |v| svg::show(unit, v));
            // Runs that failed have times too, of what they did before: they are told apart.
            let failed = rows
                .iter()
                .filter(|r| !matches!(r.text("end"), "" | "completed"))
                .map(|r| r.text("end"))
                .next();
            vec![
                allocator.clone(),
                failed.map_or_else(|| show(Unit::Nanoseconds, middle), str::to_owned),
                middle.map_or(String::new(), |_| {
                    format!(
                        "{} … {}",
                        svg::show(Unit::Nanoseconds, range.0),
                        svg::show(Unit::Nanoseconds, range.1)
                    )
                }),
                middle.zip(reference).map_or(String::new(), |(t, r)| format!("{:.2}×", r / t)),
                show(Unit::Bytes, median(values(rows, "throughput", "peak_rss_bytes"))),
                show(Unit::Plain, median(values(rows, "throughput", "minor_faults"))),
                show(Unit::Plain, median(values(rows, "throughput", "failed_allocations"))),
            ]
        })
        .collect();
    let head =
        ["allocator", "time (median)", "range", "speed", "peak resident", "minor faults", "failed"];
    Table { caption: name(subject), head: head.iter().map(|h| (*h).to_owned()).collect(), rows }
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

/// Use ÷ live: mean over time, at the peak of live, at the peak of use, and peak by peak.
fn johnstone_wilson(curve: &[(f64, f64)]) -> Option<[f64; 4]> {
    let curve: Vec<(f64, f64)> = curve.iter().copied().filter(|(live, _)| *live > 0.0).collect();
    let ratio = |(live, usage): &(f64, f64)| usage / live;
    let mean = curve.iter().map(ratio).sum::<f64>() / curve.len() as f64;
    let peak_live = curve.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let peak_use = curve.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some([mean, ratio(peak_live), ratio(peak_use), peak_use.1 / peak_live.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let frame = |text| Frame::parse(text).unwrap();
        Tables {
            runs: frame(
                "run_id,workload,allocator,threads,pass,elapsed_ns,peak_rss_bytes,end\n\
                 r1,larson,system,2,throughput,200,1024,completed\n\
                 r2,larson,ours,2,throughput,100,2048,completed\n\
                 r3,larson,ours,2,throughput,120,2048,completed\n\
                 r4,larson,ours,2,footprint,9999,4096,completed\n\
                 r5,larson,bad,2,throughput,5,,crashed (SIGSEGV)\n",
            ),
            latency: frame(
                "run_id,op,size_class,thread,quantile,value_ns,count\n\
                 r2,malloc,,,0.5,10,100\nr2,malloc,,,0.999,1000,100\nr1,malloc,,,0.5,20,100\n\
                 r2,malloc,64,,0.5,10,50\nr2,malloc,64,,0.99,30,50\nr9,malloc,,,0.5,1,1\n",
            ),
            timeline: frame(
                "run_id,time_ns,live_bytes,rss_bytes\nr4,0,0,100\nr4,1,100,200\nr4,2,400,600\n\
                 r4,3,200,800\n",
            ),
            verdicts: frame(
                "cell,metric,verdict,slowdown,slowdown_low,slowdown_high,margin,blocks\n\
                 larson-2t,elapsed,fail,0.061,0.044,0.079,0.05,96\n\
                 churn-1t,minor_faults,pass,,,,,\n",
            ),
        }
    }

    #[test]
    fn only_throughput_runs_are_compared_in_time_and_failures_are_named() {
        let tables = tables().comparison();
        let row = |name: &str| tables[0].rows.iter().find(|row| row[0] == name).unwrap().clone();
        assert_eq!(row("ours")[1..4], ["110 ns", "100 ns … 120 ns", "1.82×"]);
        assert_eq!(row("system")[3], "1.00×");
        assert_eq!(row("bad")[1], "crashed (SIGSEGV)");
    }

    #[test]
    fn latency_of_all_sizes_and_threads_becomes_one_line_per_allocator() {
        let charts = tables().latency_charts();
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].caption, "malloc: larson, 2 threads");
        assert_eq!(charts[0].legend, ["ours", "system"]);
    }

    #[test]
    fn fragmentation_is_that_of_johnstone_and_wilson() {
        let rows = tables().fragmentation().unwrap().rows;
        // Use ÷ live: 2, 1.5, 4; peak live 400 at use 600; peak use 800 at live 200.
        assert_eq!(rows[0][2..], ["2.50", "1.50", "4.00", "2.00"]);
    }

    #[test]
    fn size_classes_and_verdicts_have_their_tables() {
        let tables = tables();
        let classes = tables.by_class().unwrap();
        assert_eq!(classes.rows.len(), 1);
        assert_eq!(classes.rows[0][2..5], ["10 ns", "30 ns", ""]);
        let verdicts = tables.verdict_table().unwrap();
        assert_eq!(verdicts.rows[0][1..4], ["fail", "+6.1 %", "+4.4 % … +7.9 %"]);
        assert!(tables.verdict_chart().is_some());
    }

    #[test]
    fn an_empty_folder_gives_empty_sections_and_no_panic() {
        let none = Tables::default();
        assert!(none.comparison().is_empty() && none.latency_charts().is_empty());
        assert!(none.footprint_charts().is_empty() && none.fragmentation().is_none());
        assert!(none.by_class().is_none() && none.fidelity().is_none());
        assert!(none.verdict_chart().is_none() && none.verdict_table().is_none());
    }
}
