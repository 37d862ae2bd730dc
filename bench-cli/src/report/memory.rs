//! Memory: footprint over time, and fragmentation by name.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::frame::Row;
use super::sections::{Chart, Subject, Table, Tables, chart, name, subject, table};
use super::svg::{self, Axis, Scale, Series, Unit};

impl Tables {
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
                if let Some((of, (_, rows))) = allocators.iter().next() {
                    let live = curve(rows, "live_bytes");
                    if !live.is_empty() {
                        series.push(Series { name: format!("live, {of}"), points: live });
                    }
                }
                chart(name(&subject), x, y, &series)
            })
            .collect()
    }

    /// Fragmentation by name, from the footprint runs.
    #[must_use]
    pub fn fragmentation(&self) -> Option<Table> {
        let runs = self.runs_by_id();
        let mut curves: BTreeMap<&str, Vec<Moment>> = BTreeMap::new();
        for row in self.timeline.rows().filter(|row| row.text("after_ms").is_empty()) {
            if let Some((live, used)) = row.number("live_bytes").zip(row.number("rss_bytes")) {
                let (time, usable) = (row.number("time_ns"), row.number("usable_bytes"));
                let moment = Moment { time: time.unwrap_or(0.0), live, used, usable };
                curves.entry(row.text("run_id")).or_default().push(moment);
            }
        }
        let kept = self.fragmentation.rows().filter(|row| row.text("used") == "rss");
        let kept: BTreeMap<&str, Option<f64>> =
            kept.map(|row| (row.text("run_id"), row.number("retained_100ms_bytes"))).collect();
        let rows: Vec<Vec<String>> = curves
            .into_iter()
            .filter_map(|(id, curve)| {
                let run = runs.get(id)?;
                let figures = johnstone_wilson(&curve)?;
                let mut row = vec![name(&subject(run)), run.text("allocator").to_owned()];
                let shown = |f: f64| if f.is_finite() { format!("{f:.2}") } else { String::new() };
                row.extend(figures.map(shown));
                let share = |v: Option<f64>| v.map_or(String::new(), |v| svg::show(Unit::Share, v));
                let (internal, external) = shares_at_the_peak(&curve).unzip();
                row.extend([share(internal), share(external)]);
                let retained = kept.get(id).copied().flatten();
                row.push(retained.map_or(String::new(), |v| svg::show(Unit::Bytes, v)));
                Some(row)
            })
            .collect();
        let head = [
            "workload",
            "allocator",
            "mean",
            "at peak live",
            "at peak use",
            "peak ÷ peak",
            "internal",
            "external",
            "kept after 100 ms",
        ];
        table("Resident ÷ requested in four ways; where the rest went", &head, rows)
    }
}

/// A sample of the footprint.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Nanoseconds since the first operation.
    time: f64,
    live: f64,
    used: f64,
    usable: Option<f64>,
}

/// Use ÷ live: mean over time, at the peak of live, at the peak of use, and peak by peak.
fn johnstone_wilson(curve: &[Moment]) -> Option<[f64; 4]> {
    let ratio = |m: &Moment| m.used / m.live;
    // Each moment counts for the time since the one before, as in `fragmentation.csv`.
    let (mut weighted, mut time, mut before) = (0.0, 0.0, 0.0);
    for moment in curve {
        if moment.live > 0.0 {
            weighted += ratio(moment) * (moment.time - before);
            time += moment.time - before;
        }
        before = moment.time;
    }
    let mean = if time > 0.0 { weighted / time } else { f64::NAN };
    let curve: Vec<&Moment> = curve.iter().filter(|m| m.live > 0.0).collect();
    let peak_live = curve.iter().max_by(|a, b| a.live.total_cmp(&b.live))?;
    let peak_use = curve.iter().max_by(|a, b| a.used.total_cmp(&b.used))?;
    Some([mean, ratio(peak_live), ratio(peak_use), peak_use.used / peak_live.live])
}

/// At the peak of live: (usable − requested) ÷ usable, and (use − usable) ÷ use. Objects that were
/// never written to are usable and not resident: the second is then no less than nothing.
fn shares_at_the_peak(curve: &[Moment]) -> Option<(f64, f64)> {
    let peak = curve.iter().max_by(|a, b| a.live.total_cmp(&b.live))?;
    let usable = peak.usable.filter(|usable| *usable > 0.0)?;
    let external = (peak.used > 0.0).then(|| ((peak.used - usable) / peak.used).max(0.0))?;
    Some(((usable - peak.live) / usable, external))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::super::sections::tests::tables;
    use super::*;

    #[test]
    fn fragmentation_is_that_of_johnstone_and_wilson() {
        let rows = tables().fragmentation().unwrap().rows;
        // Use ÷ live: 2, 1.5, 4; peak live 400 at use 600; peak use 800 at live 200.
        assert_eq!(rows[0][2..6], ["2.50", "1.50", "4.00", "2.00"]);
        assert_eq!(rows[0][6..], ["", "", ""], "what is not known stays empty");
    }

    #[test]
    fn internal_and_external_shares_are_those_at_the_peak_of_live() {
        let frame = |text| Frame::parse(text).unwrap();
        let tables = Tables {
            runs: frame("run_id,workload,allocator\nr,w,a\n"),
            fragmentation: frame("run_id,used,retained_100ms_bytes\nr,rss,2048\n"),
            timeline: frame(
                "run_id,time_ns,live_bytes,usable_bytes,rss_bytes\nr,0,10,20,900\nr,1,90,100,200\n",
            ),
            ..Tables::default()
        };
        let rows = tables.fragmentation().unwrap().rows;
        assert_eq!(rows[0][6..], ["10.0 %", "50.0 %", "2 KiB"]);
    }
}
