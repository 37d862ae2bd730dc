//! Times of single calls for the cells of a plan: measured after the verdict, added at the merge.
//!
//! Histograms add exactly: the count of a sum is the sum of the counts, whatever the order, so that
//! a distribution over all nodes is as good as one from a single machine. They explain a verdict and
//! never decide one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hdrhistogram::Histogram;

use super::judge::Job;
use crate::error::{CliError, Exit};
use crate::gate::files;
use crate::gate::scale::Distribution;
use crate::results::{HistogramLog, LatencyCsv, decode, encode, utc};
use crate::verdict::block::Side;
use crate::worker::{CellSpec, Pass, run_once};

/// Two processes of each side, in an order that spreads a drift evenly.
const ORDER: [Side; 4] = [Side::A, Side::B, Side::B, Side::A];
/// The quantiles of `latency.csv`.
const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
/// What stands for all cells together.
const ALL_CELLS: &str = "all-cells";

/// By side, then by call.
type Sums = BTreeMap<(&'static str, String), Histogram<u64>>;

/// Measures the first cell of `job`. A process that fails leaves its side without its counts: what
/// an allocator does wrong has been judged already.
///
/// # Errors
/// When a process cannot be run at all, or somebody stops it.
pub(super) fn measure(job: &Job, seed: u64) -> Result<Vec<Distribution>, CliError> {
    let Some((plan, touch)) = job.workers.plans.first() else { return Ok(Vec::new()) };
    let mut sums: BTreeMap<(&'static str, String), (Side, workloads::engine::Histogram)> =
        BTreeMap::new();
    for (side, place) in ORDER.into_iter().zip(0..) {
        let allocator = match side {
            Side::A => &job.workers.base,
            Side::B => &job.workers.head,
        };
        let mut spec = CellSpec::new(plan.clone(), allocator.clone(), Pass::Latency);
        spec.touch = *touch;
        spec.cpus.clone_from(&job.workers.cpus);
        spec.timeout_s = job.workers.timeout_s;
        spec.seed = seed.wrapping_add(place);
        let report = run_once(&spec)?.report;
        let Some(latency) = report.and_then(|report| report.outcome.latency) else { continue };
        for row in latency.rows.iter().filter(|row| row.thread.is_none()) {
            for op in ["all", row.op.name()] {
                let key = (side.name(), op.to_owned());
                sums.entry(key)
                    .or_insert_with(|| (side, Default::default()))
                    .1
                    .merge(&row.histogram);
            }
        }
    }
    let distribution =
        |((_, op), (side, histogram)): ((&str, String), (Side, workloads::engine::Histogram))| {
            encode(&histogram.to_hdr())
                .map(|histogram| Distribution { side, op, histogram })
                .map_err(|why| CliError::new(Exit::Internal, "a histogram").because(why))
        };
    sums.into_iter().map(distribution).collect()
}

/// Adds the distributions of all cells and writes `hist/CELL--SIDE.hlog`, one per cell and one for
/// all of them, and their quantiles to `latency.csv`.
///
/// # Errors
/// A damaged histogram, or a folder that cannot be written.
pub(super) fn write(cells: &[(String, Vec<Distribution>)], folder: &Path) -> Result<(), CliError> {
    let mut lines = Vec::new();
    let mut whole = Sums::new();
    for (cell, distributions) in cells {
        let sums = decoded(distributions).map_err(|why| {
            CliError::new(Exit::Usage, format!("the record of {cell} holds a damaged histogram"))
                .because(why)
                .help("remove it from cells/ and run `bench-cli cell` for it again")
        })?;
        for (key, histogram) in &sums {
            add(&mut whole, key, histogram)
                .map_err(|why| CliError::new(Exit::Internal, "a sum").because(why))?;
        }
        lines.extend(write_sums(cell, &sums, folder)?);
    }
    lines.extend(write_sums(ALL_CELLS, &whole, folder)?);
    if lines.is_empty() {
        return Ok(());
    }
    let broken =
        |error: &dyn std::fmt::Display| CliError::new(Exit::Internal, "a table").because(error);
    let mut table = csv::Writer::from_writer(Vec::new());
    for line in &lines {
        table.serialize(line).map_err(|e| broken(&e))?;
    }
    let bytes = table.into_inner().map_err(|e| broken(&e))?;
    files::write_whole(&folder.join("latency.csv"), &bytes)
}

fn decoded(distributions: &[Distribution]) -> Result<Sums, String> {
    let mut sums = Sums::new();
    for d in distributions {
        add(&mut sums, &(d.side.name(), d.op.clone()), &decode(&d.histogram)?)?;
    }
    Ok(sums)
}

fn add(
    sums: &mut Sums,
    key: &(&'static str, String),
    histogram: &Histogram<u64>,
) -> Result<(), String> {
    match sums.get_mut(key) {
        Some(sum) => sum.add(histogram).map_err(|error| error.to_string()),
        None => {
            sums.insert(key.clone(), histogram.clone());
            Ok(())
        }
    }
}

fn write_sums(cell: &str, sums: &Sums, folder: &Path) -> Result<Vec<LatencyCsv>, CliError> {
    let mut lines = Vec::new();
    let mut logs: BTreeMap<&str, HistogramLog> = BTreeMap::new();
    for ((side, op), histogram) in sums {
        let log = logs.entry(side).or_insert_with(|| HistogramLog::new(utc::now(), 0.0));
        log.add(&format!("{op}:all"), histogram)
            .map_err(|why| CliError::new(Exit::Internal, "a histogram").because(why))?;
        lines.extend(QUANTILES.map(|quantile| LatencyCsv {
            run_id: format!("{cell}--{side}"),
            op: op.clone(),
            size_class: None,
            thread: None,
            quantile,
            value_ns: histogram.value_at_quantile(quantile),
            count: histogram.len(),
        }));
    }
    for (side, log) in logs {
        let path = folder.join("hist").join(format!("{cell}--{side}.hlog"));
        let written = fs::create_dir_all(folder.join("hist")).and_then(|()| log.write(&path));
        written.map_err(|error| {
            CliError::new(Exit::Usage, format!("cannot write `{}`", path.display())).because(error)
        })?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::read_log;

    fn distribution(side: Side, value: u64, count: u64) -> Distribution {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        histogram.record_n(value, count).unwrap();
        Distribution { side, op: "all".to_owned(), histogram: encode(&histogram).unwrap() }
    }

    #[test]
    fn the_counts_of_all_cells_are_the_sums_of_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let cells = [
            ("x-1t".to_owned(), vec![distribution(Side::A, 10, 7), distribution(Side::B, 20, 5)]),
            ("y-1t".to_owned(), vec![distribution(Side::A, 90, 3)]),
        ];
        write(&cells, folder.path()).unwrap();
        let read = |name: &str| read_log(&fs::read(folder.path().join(name)).unwrap()).unwrap();
        let base = read("hist/all-cells--base.hlog");
        assert_eq!((base[0].0.as_str(), base[0].1.len()), ("all:all", 10));
        assert_eq!(base[0].1.value_at_quantile(0.7), 10);
        assert_eq!(read("hist/all-cells--head.hlog")[0].1.len(), 5);
        assert_eq!(read("hist/y-1t--base.hlog")[0].1.len(), 3);
        let table = fs::read_to_string(folder.path().join("latency.csv")).unwrap();
        assert_eq!(table.lines().count(), 1 + 5 * QUANTILES.len(), "{table}");
    }

    #[test]
    fn a_damaged_histogram_names_its_cell() {
        let folder = tempfile::tempdir().unwrap();
        let mut damaged = distribution(Side::A, 1, 1);
        damaged.histogram.truncate(9);
        let error = write(&[("x-1t".to_owned(), vec![damaged])], folder.path()).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("x-1t"), "{error}");
    }
}
