//! What a worker says, as lines of the result files and a histogram log.
#![forbid(unsafe_code)]

use std::path::Path;

use workloads::engine::{Attributed, Fragmentation, Histogram, Latency, Outcome, Sample};

use super::args::DRAINS;
use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::gate::files;
use crate::results::{
    FragmentationRow, HistogramLog, InternalRow, LatencyCsv, Noted, RunRow, SyscallRow, TailRow,
    TimelineRow, utc,
};
use crate::subjects::Prepared;
use crate::worker::{CellOutcome, CellSpec, INJECTED, Pass};

/// The quantiles of every distribution in `latency.csv`.
const QUANTILES: [f64; 7] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// What is known of a run beside what its worker says.
pub(super) struct Context<'a> {
    pub(super) id: &'a str,
    pub(super) subject: &'a Prepared,
    pub(super) allocator: &'a Allocator,
    pub(super) spec: &'a CellSpec,
    pub(super) round: u32,
    pub(super) seed: u64,
    pub(super) started: u64,
    pub(super) histograms: &'a Path,
    pub(super) pressure: String,
    pub(super) floor_ns: Option<u64>,
    /// What a second run saw around the slowest calls of this one.
    pub(super) attributed: Vec<Attributed>,
}

/// The lines of one run; its histograms and its map of the heap are written on the way.
///
/// # Errors
/// If the histogram log cannot be written.
pub(super) fn noted(context: &Context<'_>, cell: &CellOutcome) -> Result<Noted, CliError> {
    let run = run_row(context, cell);
    let Some(report) = &cell.report else { return Ok(Noted { run, ..Noted::default() }) };
    let mut latency = Vec::new();
    if let Some(found) = &report.outcome.latency {
        let seconds = report.elapsed_ns as f64 / 1e9;
        let mut log = HistogramLog::new(context.started, seconds);
        for distribution in distributions(found, &report.outcome) {
            if distribution.thread.is_none() {
                let class = distribution.class.map_or("all".to_owned(), |c| c.to_string());
                log.add(&format!("{}:{class}", distribution.op), &distribution.histogram.to_hdr())
                    .map_err(|why| {
                        CliError::new(Exit::Internal, "a histogram cannot be encoded").because(why)
                    })?;
            }
            latency.extend(distribution.lines(context.id));
        }
        let path = context.histograms.join(format!("{}.hlog", context.id));
        log.write(&path).map_err(|error| {
            CliError::new(Exit::Usage, format!("cannot write `{}`", path.display()))
                .because(error)
                .help("choose a folder that can be written with --out DIR")
        })?;
    }
    if let Some(map) = &report.heap_map {
        let path = context.histograms.with_file_name("heap").join(format!("{}.jsonl", context.id));
        files::write_whole(&path, map.as_bytes())?;
    }
    let id = || context.id.to_owned();
    let figures = report.internals.iter();
    let calls = report.syscalls.iter();
    Ok(Noted {
        run,
        latency,
        timeline: timeline(context.id, &report.outcome),
        tail: tail(context, &report.outcome),
        fragmentation: fragmentation(context.id, &report.outcome),
        internals: figures
            .map(|(name, value)| InternalRow { run_id: id(), name: name.clone(), value: *value })
            .collect(),
        syscalls: calls
            .map(|(call, count)| SyscallRow { run_id: id(), call: call.clone(), count: *count })
            .collect(),
    })
}

/// The slowest calls, with what the second run says of each that it came by.
fn tail(context: &Context<'_>, outcome: &Outcome) -> Vec<TailRow> {
    let slowest = outcome.latency.iter().flat_map(|latency| &latency.slowest);
    slowest
        .zip(1..)
        .map(|(call, rank)| {
            let again = context
                .attributed
                .iter()
                .find(|found| (found.slow.thread, found.slow.place) == (call.thread, call.place));
            TailRow {
                run_id: context.id.to_owned(),
                rank,
                op: call.op.name().to_owned(),
                size_bytes: call.size,
                thread: call.thread,
                place: call.place,
                event: call.event,
                value_ns: call.ns,
                again_ns: again.map(|found| found.ns),
                minor_faults: again.map(|found| found.minor_faults),
                major_faults: again.map(|found| found.major_faults),
                voluntary_switches: again.map(|found| found.voluntary_switches),
                involuntary_switches: again.map(|found| found.involuntary_switches),
            }
        })
        .collect()
}

/// Fragmentation by each formula, for each meaning of `use`.
fn fragmentation(id: &str, outcome: &Outcome) -> Vec<FragmentationRow> {
    let Some(footprint) = &outcome.footprint else { return Vec::new() };
    let rss = |s: &Sample| s.rss_bytes.saturating_sub(footprint.base_rss_bytes);
    let dirty =
        |s: &Sample| s.private_dirty_bytes.saturating_sub(footprint.base_private_dirty_bytes);
    let row = |used: &str, found: &Fragmentation, bytes: &dyn Fn(&Sample) -> u64| {
        let retained = |after_ms| {
            let drain = footprint.drain.iter().find(|drain| drain.after_ms == after_ms)?;
            Some(bytes(&drain.sample))
        };
        FragmentationRow {
            run_id: id.to_owned(),
            used: used.to_owned(),
            mean_over_time: found.mean_over_time,
            at_peak_live: found.at_peak_live,
            at_peak_use: found.at_peak_use,
            peak_to_peak: found.peak_to_peak,
            internal: found.internal,
            external: found.external,
            retained_100ms_bytes: retained(DRAINS[0]),
            retained_1s_bytes: retained(DRAINS[1]),
            retained_5s_bytes: retained(DRAINS[2]),
        }
    };
    vec![
        row("rss", &footprint.by_rss, &rss),
        row("private_dirty", &footprint.by_private_dirty, &dirty),
    ]
}

fn run_row(context: &Context<'_>, cell: &CellOutcome) -> RunRow {
    let mut row = RunRow {
        run_id: context.id.to_owned(),
        workload: context.subject.name.clone(),
        allocator: context.allocator.name.clone(),
        threads: context.subject.threads,
        pass: context.spec.pass.name().to_owned(),
        round: context.round,
        order: context.subject.order.to_string(),
        pace: context.spec.pace.to_string(),
        touch: context.spec.touch.to_string(),
        pressure: context.pressure.clone(),
        limit_bytes: context.spec.limit.as_ref().map(|limit| limit.bytes),
        end: cell.end.name(),
        seed: context.seed,
        started_utc: utc::rfc3339(context.started),
        ..RunRow::default()
    };
    if let Some(library) = &context.allocator.preload {
        row.library = library.display().to_string();
    }
    let Some(report) = &cell.report else { return row };
    let outcome = &report.outcome;
    row.allocator_version = report.version.clone().unwrap_or_default();
    row.library = report.served_by.display().to_string();
    row.operations = Some(report.operations);
    row.elapsed_ns = Some(report.elapsed_ns);
    row.cpu_ns = Some(outcome.cpu_ns);
    row.floor_ns = context.floor_ns;
    row.instructions = report.instructions;
    row.system_calls = (context.spec.pass == Pass::Syscalls).then(|| {
        // A call that was made to fail counts among those of its name.
        let calls = report.syscalls.iter().filter(|(name, _)| name != INJECTED);
        calls.map(|(_, count)| count).sum()
    });
    row.peak_rss_bytes = Some(report.peak_rss_bytes);
    row.base_rss_bytes = Some(report.base_rss_bytes);
    row.peak_live_bytes = Some(report.peak_live_bytes);
    row.failed_allocations = Some(report.failed_allocations);
    row.minor_faults = Some(report.minor_faults);
    row.major_faults = Some(report.major_faults);
    row.involuntary_switches = Some(outcome.involuntary_switches);
    row.waits = Some(outcome.fidelity.waits);
    row.stalled_operations = Some(outcome.stalls.stalled);
    row.stalled_ns = Some(outcome.stalls.total_ns);
    row.trace_peak_live_bytes = Some(outcome.fidelity.trace_peak_live_bytes);
    row.peak_threads = Some(outcome.fidelity.replay_peak_threads);
    row.trace_peak_threads = Some(outcome.fidelity.trace_peak_threads);
    row.largest_skew_events = outcome.fidelity.largest_skew_events;
    row.timer_cost_ns = Some(outcome.timer.cost_ns).filter(|cost| *cost > 0.0);
    row
}

/// A distribution and what it is of.
struct Named {
    op: &'static str,
    class: Option<u64>,
    thread: Option<u32>,
    histogram: Histogram,
}

impl Named {
    fn lines(&self, id: &str) -> impl Iterator<Item = LatencyCsv> {
        let count = self.histogram.total();
        QUANTILES.into_iter().map(move |quantile| LatencyCsv {
            run_id: id.to_owned(),
            op: self.op.to_owned(),
            size_class: self.class,
            thread: self.thread,
            quantile,
            value_ns: self.histogram.quantile(quantile),
            count,
        })
    }
}

/// All distributions of a run: everything together first, then by operation, by operation and
/// size class, by operation and thread; then what is not a call.
fn distributions(latency: &Latency, outcome: &Outcome) -> Vec<Named> {
    let mut all = Named { op: "all", class: None, thread: None, histogram: Histogram::default() };
    let mut by_op: Vec<Named> = Vec::new();
    let mut parts = Vec::new();
    for row in &latency.rows {
        let op = row.op.name();
        if row.thread.is_none() {
            all.histogram.merge(&row.histogram);
            match by_op.iter_mut().find(|named| named.op == op) {
                Some(named) => named.histogram.merge(&row.histogram),
                None => by_op.push(Named {
                    op,
                    class: None,
                    thread: None,
                    histogram: row.histogram.clone(),
                }),
            }
        }
        parts.push(Named {
            op,
            class: row.class.map(|class| class.limit_bytes()),
            thread: row.thread,
            histogram: row.histogram.clone(),
        });
    }
    let touches = latency.first_touch.iter().map(|(class, histogram)| Named {
        op: "first_touch",
        class: Some(class.limit_bytes()),
        thread: None,
        histogram: histogram.clone(),
    });
    let others =
        [("response", latency.response.as_ref()), ("stall", Some(&outcome.stalls.histogram))]
            .into_iter()
            .filter_map(|(op, histogram)| {
                let histogram = histogram.filter(|h| h.total() > 0)?.clone();
                Some(Named { op, class: None, thread: None, histogram })
            });
    let mut named = vec![all];
    named.extend(by_op);
    named.extend(parts);
    named.extend(touches);
    named.extend(others);
    named
}

fn timeline(id: &str, outcome: &Outcome) -> Vec<TimelineRow> {
    let Some(footprint) = &outcome.footprint else { return Vec::new() };
    let during = footprint.samples.iter().map(|sample| (sample, None));
    let after = footprint.drain.iter().map(|drain| (&drain.sample, Some(drain.after_ms)));
    during
        .chain(after)
        .map(|(sample, after_ms)| TimelineRow {
            run_id: id.to_owned(),
            time_ns: sample.time_ns,
            after_ms,
            live_bytes: sample.live_bytes,
            usable_bytes: (sample.usable_bytes > 0).then_some(sample.usable_bytes),
            rss_bytes: sample.rss_bytes.saturating_sub(footprint.base_rss_bytes),
            private_dirty_bytes: sample
                .private_dirty_bytes
                .saturating_sub(footprint.base_private_dirty_bytes),
            lazy_free_bytes: sample.lazy_free_bytes,
            virtual_bytes: sample.virtual_bytes,
            minor_faults: sample.minor_faults,
        })
        .collect()
}
