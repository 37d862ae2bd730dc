//! A summary as a person reads it: aligned tables, units beside the numbers.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use traces::Format;
use traces::analysis::{Distribution, Summary};

const HOT_SIZES: usize = 10;
const PAIRS: usize = 5;

/// The whole report.
pub(super) fn tell(file: &str, format: Format, summary: &Summary) -> String {
    let mut text = format!("{file}: {format} trace\n\n");
    section(&mut text, "calls", operations(summary));
    section(&mut text, "memory and threads", totals(summary));
    section(&mut text, "distributions", distributions(summary));
    section(&mut text, "hot sizes", hot_sizes(summary));
    if summary.operations.realloc > 0 {
        section(&mut text, "realloc", reallocs(summary));
    }
    if !summary.cross_thread_pairs.is_empty() {
        section(&mut text, "cross-thread frees, busiest pairs", pairs(summary));
    }
    section(&mut text, "live memory over the trace", growth(summary));
    section(&mut text, "size classes at the peak (predicted, a lower bound)", classes(summary));
    section(&mut text, "census of the import", census(summary));
    text
}

fn section(text: &mut String, title: &str, table: Table) {
    let _ = writeln!(text, "{title}");
    for line in table.to_string().lines() {
        let _ = writeln!(text, " {}", line.trim_end());
    }
    text.push('\n');
}

fn rows<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn named(values: &[(&str, u64)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(values.iter().map(|&(name, value)| [name.to_owned(), number(value)]));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn operations(summary: &Summary) -> Table {
    let calls = &summary.operations;
    let all = [
        ("malloc", calls.malloc),
        ("calloc", calls.calloc),
        ("realloc", calls.realloc),
        ("memalign and kin", calls.memalign),
        ("free", calls.free),
        ("  of these free(NULL)", calls.free_null),
        ("malloc_usable_size", calls.usable_size),
        ("all calls", calls.calls()),
        ("thread ends", calls.thread_done),
        ("forks", calls.fork),
        ("markers", calls.marker),
    ];
    let seen: Vec<_> = all.into_iter().filter(|&(_, count)| count > 0).collect();
    named(&seen)
}

fn totals(summary: &Summary) -> Table {
    let mut table = named(&[
        ("threads", summary.threads),
        ("threads alive at once", summary.peak_threads),
        ("cross-thread frees", summary.cross_thread_frees),
        ("objects allocated", summary.allocated_objects),
        ("bytes allocated", summary.allocated_bytes),
        ("peak live bytes", summary.peak_live_bytes),
        ("peak live objects", summary.peak_live_objects),
        ("final live bytes", summary.final_live_bytes),
        ("final live objects", summary.final_live_objects),
    ]);
    if let Some(duration) = summary.duration_ns {
        table.add_row(["duration, s".to_owned(), format!("{:.3}", duration as f64 / 1e9)]);
    }
    table
}

fn distributions(summary: &Summary) -> Table {
    let mut all = vec![
        ("size, bytes", &summary.sizes),
        ("lifetime, calls", &summary.lifetime_calls),
        ("realloc chain", &summary.reallocs.chain_length),
    ];
    if let Some(lifetime) = &summary.lifetime_ns {
        all.insert(2, ("lifetime, ns", lifetime));
    }
    let row = |(name, d): (&str, &Distribution)| {
        let [p50, p90, p99, p999] = [d.p50, d.p90, d.p99, d.p999].map(number);
        let mean = format!("{:.1}", d.mean);
        [name.to_owned(), number(d.count), number(d.min), p50, p90, p99, p999, number(d.max), mean]
    };
    rows(
        ["", "count", "least", "p50", "p90", "p99", "p99.9", "greatest", "mean"],
        all.into_iter().filter(|(_, d)| d.count > 0).map(row),
    )
}

fn hot_sizes(summary: &Summary) -> Table {
    let all = summary.allocated_objects.max(1) as f64;
    let row = |hot: &traces::analysis::HotSize| {
        let share = format!("{:.1}", hot.count as f64 * 100.0 / all);
        [number(hot.size), number(hot.count), share]
    };
    rows(["bytes", "requests", "share, %"], summary.hot_sizes.iter().take(HOT_SIZES).map(row))
}

fn reallocs(summary: &Summary) -> Table {
    let r = &summary.reallocs;
    named(&[
        ("grown", r.grown),
        ("shrunk", r.shrunk),
        ("same size", r.same),
        ("of NULL", r.of_null),
        ("to nothing", r.to_nothing),
        ("failed", r.failed),
        ("by another thread", r.cross_thread),
    ])
}

fn pairs(summary: &Summary) -> Table {
    let row = |pair: &traces::analysis::CrossThreadPair| {
        [pair.allocated_by.to_string(), pair.freed_by.to_string(), number(pair.count)]
    };
    let listed = summary.cross_thread_pairs.iter().take(PAIRS).map(row);
    rows(["allocated by", "freed by", "objects"], listed)
}

/// Nine points of the curve, evenly spread.
fn growth(summary: &Summary) -> Table {
    let points = &summary.growth;
    let last = points.len().saturating_sub(1);
    let most = points.iter().map(|point| point.live_bytes).max().unwrap_or(0).max(1);
    let row = |eighth: usize| {
        let point = &points[last * eighth / 8];
        let bar = "#".repeat((point.live_bytes as f64 / most as f64 * 30.0).round() as usize);
        [
            number(point.event),
            number(point.live_bytes),
            number(point.live_objects),
            number(point.threads),
            format!("{bar:<30}"),
        ]
    };
    let shown = if points.is_empty() { 0..0 } else { 0..9 };
    rows(["event", "live bytes", "live objects", "threads", ""], shown.map(row))
}

fn classes(summary: &Summary) -> Table {
    let row = |f: &traces::analysis::Fragmentation| {
        let share = format!("{:.1}", f.internal_fragmentation * 100.0);
        [f.allocator.clone(), number(f.peak_block_bytes), share]
    };
    let all = summary.predicted_fragmentation.iter().map(row);
    rows(["allocator", "block bytes", "internal fragmentation, %"], all)
}

fn census(summary: &Summary) -> Table {
    let c = &summary.census;
    let mut all = vec![
        ("records", c.records),
        ("free(NULL)", c.free_null),
        ("failed allocations", c.failed_allocations),
        ("alive at the end", c.leaked),
        ("thread ids used again", c.reused_thread_ids),
        ("foreign lines skipped", c.foreign_lines),
    ];
    all.extend(c.anomalies());
    let seen: Vec<_> = all.into_iter().filter(|&(_, count)| count > 0).collect();
    let mut table = named(&seen);
    if c.anomalies().is_empty() {
        table.add_row(["repairs and losses", "none"]);
    }
    table
}

/// A number with its thousands set apart.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table as lines without trailing blanks.
pub(super) fn columns<const N: usize>(
    header: [&str; N],
    content: impl IntoIterator<Item = [String; N]>,
) -> String {
    let lines = rows(header, content).to_string();
    lines.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}

/// The totals as CSV: one line per figure.
pub(super) fn csv(summary: &Summary) -> String {
    let o = &summary.operations;
    let rows = [
        ("malloc", o.malloc),
        ("calloc", o.calloc),
        ("realloc", o.realloc),
        ("memalign", o.memalign),
        ("free", o.free),
        ("free_null", o.free_null),
        ("usable_size", o.usable_size),
        ("thread_done", o.thread_done),
        ("threads", summary.threads),
        ("peak_threads", summary.peak_threads),
        ("cross_thread_frees", summary.cross_thread_frees),
        ("allocated_objects", summary.allocated_objects),
        ("allocated_bytes", summary.allocated_bytes),
        ("peak_live_bytes", summary.peak_live_bytes),
        ("peak_live_objects", summary.peak_live_objects),
        ("final_live_bytes", summary.final_live_bytes),
        ("final_live_objects", summary.final_live_objects),
    ];
    let mut text = String::from("figure,value\n");
    for (name, value) in rows {
        let _ = writeln!(text, "{name},{value}");
    }
    text
}
