//! What the sections share: tables and charts as the template draws them, the tables of a folder, and
//! the sections that are read from `runs.csv` and `verdicts.csv` alone. Empty where those are missing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::frame::{Frame, Row, median};
use super::svg::{self, Axis, IntervalRow, Series, Unit};

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
    /// The slowest calls.
    pub tails: Frame,
    /// `fragmentation.csv`.
    pub fragmentation: Frame,
    /// One row per cell and metric of a gate.
    pub verdicts: Frame,
}

/// What is compared: one workload under one number of threads and one pressure.
pub(super) type Subject = (String, String, String);

pub(super) fn subject(row: &Row<'_>) -> Subject {
    let of = |column| row.text(column).to_owned();
    (of("workload"), of("threads"), of("pressure"))
}

pub(super) fn name((workload, threads, pressure): &Subject) -> String {
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
        let label = "head against base (right: slower)";
        let svg = svg::intervals("Head against base", label, Some(margin), &intervals)?;
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

    pub(super) fn runs_by_id(&self) -> BTreeMap<&str, Row<'_>> {
        self.runs.rows().map(|row| (row.text("run_id"), row)).collect()
    }
}

pub(super) fn table(caption: &str, head: &[&str], rows: Vec<Vec<String>>) -> Option<Table> {
    (!rows.is_empty()).then(|| Table {
        caption: caption.to_owned(),
        head: head.iter().map(|h| (*h).to_owned()).collect(),
        rows,
    })
}

pub(super) fn chart(caption: String, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> Option<Chart> {
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

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;

    pub(in crate::report) fn tables() -> Tables {
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
            tails: frame(
                "run_id,rank,value_ns,op,size_bytes,thread,place,event\n\
                 r2,1,90000,malloc,64,3,7,41\nr2,2,800,free,64,3,9,\nr1,1,100,malloc,8,1,1,5\n",
            ),
            fragmentation: Frame::default(),
            latency: frame(
                "run_id,op,size_class,thread,quantile,value_ns,count\n\
                 r2,malloc,,,0.5,10,100\nr2,malloc,,,0.999,1000,100\nr1,malloc,,,0.5,20,100\n\
                 r2,malloc,64,,0.5,10,50\nr2,malloc,64,,0.99,30,50\n\
                 r2,malloc,,3,0.5,12,70\nr2,malloc,,3,1,90000,70\nr2,malloc,,4,0.5,9,30\nr9,malloc,,,0.5,1,1\n",
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
    fn verdicts_have_their_table_and_chart() {
        let tables = tables();
        let verdicts = tables.verdict_table().unwrap();
        assert_eq!(verdicts.rows[0][1..4], ["fail", "+6.1 %", "+4.4 % … +7.9 %"]);
        assert!(tables.verdict_chart().is_some());
    }

    #[test]
    fn an_empty_folder_gives_empty_sections_and_no_panic() {
        let none = Tables::default();
        assert!(none.comparison().is_empty() && none.latency_charts(Path::new("")).is_empty());
        assert!(none.footprint_charts().is_empty() && none.fragmentation().is_none());
        assert!(none.by_class().is_none() && none.fidelity().is_none());
        assert!(none.by_thread().is_none() && none.tail_events().is_empty());
        assert!(none.verdict_chart().is_none() && none.verdict_table().is_none());
    }
}
