//! A summary as one HTML page with plots, which loads nothing from anywhere.
//!
//! Text that comes from a file is escaped; all else is numbers. Colours are the page's, so that it
//! follows the reader's light or dark theme.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use traces::Format;
use traces::analysis::{Distribution, Summary};

use super::human::number;
use crate::error::CliError;
use crate::report::svg::{Axis, Scale, Series, Unit, lines};

const STYLE: &str = "
:root{--ink:#1c2024;--soft:#5b6570;--page:#fff;--card:#f6f7f9;--edge:#dde1e6;--hot:#0072b2;
--c0:#0072b2;--c1:#d55e00}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5b0;--page:#14171a;--card:#1d2125;
--edge:#343a41;--hot:#58b4e8;--c0:#58b4e8;--c1:#ff9146}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.25rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.4rem}.grid2{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr))}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--edge);border-radius:8px;
overflow-x:auto}
figcaption{font-weight:600;margin-bottom:.4rem}svg{display:block;width:100%;height:auto}
.grid{stroke:var(--edge)}.tick,.label{fill:var(--soft);font-size:12px}.label{fill:var(--ink)}
.end{text-anchor:end}.middle{text-anchor:middle}.line{fill:none;stroke-width:2}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.cell{fill:var(--hot)}
.legend{margin:0;font-size:.9rem;color:var(--soft)}.k0{color:var(--c0)}.k1{color:var(--c1)}
@media (max-width:40rem){.tick,.label{font-size:16px}}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;text-align:right;border-top:1px solid var(--edge)}
td{white-space:nowrap}th{overflow-wrap:normal}
th:first-child,td:first-child{text-align:left}td:first-child{white-space:normal}th{color:var(--soft)}";

/// The whole page.
pub(super) fn page(file: &str, format: Format, summary: &Summary) -> Result<String, CliError> {
    let name = escape(file);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">\
         <title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>\
         <p>{} trace, {} calls by {} threads</p><div class=\"grid2\">",
        escape(format.title()),
        number(summary.operations.calls()),
        number(summary.threads)
    );
    figure(&mut page, "Live bytes over the trace", live_bytes(summary));
    figure(&mut page, "Live objects and threads", live_objects(summary));
    figure(&mut page, "Size against lifetime (darker: more objects)", size_by_lifetime(summary));
    figure(&mut page, "Sizes, share of objects no larger", shares("bytes", &summary.sizes));
    let lifetimes = shares("calls from birth to release", &summary.lifetime_calls);
    figure(&mut page, "Lifetimes, share of objects no older", lifetimes);
    let chains = &summary.reallocs.chain_length;
    figure(&mut page, "Realloc chains, share no longer", shares("reallocs", chains));
    figure(&mut page, "Cross-thread frees (row allocates, column frees)", cross_matrix(summary));
    figure(&mut page, "Busiest threads: first to last call", thread_spans(summary));
    figure(&mut page, "Hot sizes", Some(hot_sizes(summary)));
    let title = "Size classes at the peak (predicted, a lower bound)";
    figure(&mut page, title, Some(fragmentation(summary)));
    figure(&mut page, "Totals", Some(totals(summary)));
    page.push_str("</div></body></html>\n");
    Ok(page)
}

fn figure(page: &mut String, title: &str, content: Option<String>) {
    if let Some(content) = content {
        let _ = write!(page, "<figure><figcaption>{title}</figcaption>{content}</figure>");
    }
}

const PLAIN: Axis<'_> = Axis { label: "event", scale: Scale::Linear, unit: Unit::Plain };

fn series(name: &str, points: impl Iterator<Item = (f64, f64)>) -> Series {
    Series { name: name.to_owned(), points: points.collect() }
}

fn live_bytes(summary: &Summary) -> Option<String> {
    let points = summary.growth.iter().map(|p| (p.event as f64, p.live_bytes as f64));
    let y = Axis { label: "live bytes", scale: Scale::Linear, unit: Unit::Bytes };
    lines("Live bytes", PLAIN, y, &[series("live bytes", points)])
}

fn live_objects(summary: &Summary) -> Option<String> {
    let objects = summary.growth.iter().map(|p| (p.event as f64, p.live_objects as f64));
    let threads = summary.growth.iter().map(|p| (p.event as f64, p.threads as f64));
    let y = Axis { label: "objects, threads", scale: Scale::Log, unit: Unit::Plain };
    let both = [series("live objects", objects), series("threads", threads)];
    let plot = lines("Live objects and threads", PLAIN, y, &both)?;
    Some(format!(
        "<p class=\"legend\"><span class=\"k0\">▬</span> live objects &nbsp; \
         <span class=\"k1\">▬</span> threads</p>{plot}"
    ))
}

/// The cumulative distribution.
fn shares(label: &str, distribution: &Distribution) -> Option<String> {
    if distribution.count == 0 {
        return None;
    }
    let mut seen = 0;
    let points = distribution.buckets.iter().map(|bucket| {
        seen += bucket.count;
        (bucket.to.max(1) as f64, seen as f64 / distribution.count as f64)
    });
    let x = Axis { label, scale: Scale::Log, unit: Unit::Plain };
    let y = Axis { label: "share", scale: Scale::Linear, unit: Unit::Share };
    lines(label, x, y, &[series(label, points)])
}

/// A heat map: `cells` of column, row, weight and title; `tick` says what stands at a column or row.
fn heat(
    columns: usize,
    rows: usize,
    labels: [&str; 2],
    tick: impl Fn(usize) -> Option<String>,
    cells: impl Iterator<Item = (usize, usize, f64, String)>,
) -> String {
    // Few cells are large ones, so that letters beside them have their usual size.
    let side = (340 / columns.max(rows).max(1)).clamp(20, 60);
    let (left, top) = (46, 6);
    let width = (left + columns * side + 6).max(400);
    let height = top + rows * side + 44;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for (column, row, weight, title) in cells {
        let (x, y) = (left + column * side, top + (rows - 1 - row) * side);
        let _ = write!(
            svg,
            "<rect class=\"cell\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
             fill-opacity=\"{weight:.3}\"><title>{title}</title></rect>"
        );
    }
    for (column, text) in (0..columns).filter_map(|column| Some((column, tick(column)?))) {
        let (x, y) = (left + column * side + side / 2, top + rows * side + 16);
        let _ = write!(svg, "<text class=\"tick middle\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }
    for (row, text) in (0..rows).filter_map(|row| Some((row, tick(row)?))) {
        let (x, y) = (left - 4, top + (rows - 1 - row) * side + side / 2 + 5);
        let _ = write!(svg, "<text class=\"tick end\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }
    let _ = write!(
        svg,
        "<text class=\"label\" x=\"{left}\" y=\"{}\">{}</text>\
         <text class=\"label\" transform=\"translate(14 {}) rotate(-90)\">{}</text></svg>",
        height - 8,
        labels[0],
        top + rows * side,
        labels[1]
    );
    svg
}

fn size_by_lifetime(summary: &Summary) -> Option<String> {
    let grid = &summary.size_by_lifetime.rows;
    let most = grid.iter().flatten().copied().max()?.max(1) as f64;
    let columns = grid.iter().map(Vec::len).max()?;
    let cells = grid.iter().enumerate().flat_map(move |(row, counts)| {
        let filled = counts.iter().copied().enumerate().filter(|&(_, count)| count > 0);
        filled.map(move |(column, count)| {
            let (size, calls) = (power(row), power(column));
            let title =
                format!("below {size} bytes, below {calls} calls: {} objects", number(count));
            (column, row, (count as f64).ln_1p() / most.ln_1p(), title)
        })
    });
    // A row or column reaches up to the power of two of its number.
    let tick = |bits: usize| bits.is_multiple_of(4).then(|| short_power(bits));
    Some(heat(columns, grid.len(), ["lifetime below, calls →", "size below, bytes →"], tick, cells))
}

fn power(bits: usize) -> String {
    1_u64.checked_shl(bits as u32).map_or_else(|| "2^64".to_owned(), number)
}

/// `16`, `256`, `4 Ki`, `64 Ki`, `1 Mi` …
fn short_power(bits: usize) -> String {
    let unit = ["", " Ki", " Mi", " Gi", " Ti"].get(bits / 10);
    unit.map_or_else(|| format!("2^{bits}"), |unit| format!("{}{unit}", 1_u64 << (bits % 10)))
}

/// The threads of the busiest pairs against one another.
fn cross_matrix(summary: &Summary) -> Option<String> {
    let pairs = &summary.cross_thread_pairs;
    let mut threads: Vec<u32> =
        pairs.iter().flat_map(|pair| [pair.allocated_by, pair.freed_by]).collect();
    threads.sort_unstable();
    threads.dedup();
    let most = pairs.iter().map(|pair| pair.count).max()? as f64;
    let place = |thread: u32| threads.binary_search(&thread).unwrap_or(0);
    let cells = pairs.iter().map(|pair| {
        let title = format!(
            "{} objects allocated by thread {} and freed by thread {}",
            number(pair.count),
            pair.allocated_by,
            pair.freed_by
        );
        let weight = 0.1 + 0.9 * (pair.count as f64).ln_1p() / most.ln_1p();
        (place(pair.freed_by), place(pair.allocated_by), weight, title)
    });
    let labels = ["freeing thread, by birth →", "allocating thread →"];
    // Where there are many, every fourth is named.
    let step = if threads.len() > 16 { 4 } else { 1 };
    let tick = |place: usize| place.is_multiple_of(step).then(|| threads[place].to_string());
    Some(heat(threads.len(), threads.len(), labels, tick, cells))
}

fn thread_spans(summary: &Summary) -> Option<String> {
    let mut threads = summary.busiest_threads.clone();
    threads.truncate(32);
    threads.sort_by_key(|thread| thread.thread);
    let most = threads.iter().map(|t| t.allocations + t.frees).max()?.max(1) as f64;
    let all = summary.events.max(1) as f64;
    let (left, width) = (46.0, 588.0);
    let height = threads.len() * 14 + 8;
    let mut svg = format!("<svg viewBox=\"0 0 640 {height}\" role=\"img\">");
    for (row, thread) in threads.iter().enumerate() {
        let y = row * 14 + 4;
        let at = |event: u64| left + event as f64 / all * width;
        let (from, to) = (at(thread.first_event), at(thread.last_event));
        let calls = thread.allocations + thread.frees;
        let _ = write!(
            svg,
            "<text class=\"tick end\" x=\"40\" y=\"{}\">{}</text><rect class=\"cell\" x=\"{from:.1}\" \
             y=\"{y}\" width=\"{:.1}\" height=\"10\" fill-opacity=\"{:.2}\"><title>thread {}: {} \
             calls, {} cross-thread frees</title></rect>",
            y + 10,
            thread.thread,
            (to - from).max(1.0),
            0.15 + 0.85 * calls as f64 / most,
            thread.thread,
            number(calls),
            number(thread.cross_thread_frees)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut text = String::from("<table><tr>");
    for name in header {
        let _ = write!(text, "<th>{name}</th>");
    }
    for row in rows {
        text.push_str("</tr><tr>");
        for cell in row {
            let _ = write!(text, "<td>{}</td>", escape(&cell));
        }
    }
    text.push_str("</tr></table>");
    text
}

fn hot_sizes(summary: &Summary) -> String {
    let all = summary.allocated_objects.max(1) as f64;
    let rows = summary.hot_sizes.iter().take(20).map(|hot| {
        let share = format!("{:.1}", hot.count as f64 * 100.0 / all);
        [number(hot.size), number(hot.count), share]
    });
    table(["bytes", "requests", "share, %"], rows)
}

fn fragmentation(summary: &Summary) -> String {
    let rows = summary.predicted_fragmentation.iter().map(|f| {
        let share = format!("{:.1}", f.internal_fragmentation * 100.0);
        [f.allocator.clone(), number(f.peak_block_bytes), share]
    });
    table(["allocator", "block bytes", "internal fragmentation, %"], rows)
}

fn totals(summary: &Summary) -> String {
    let o = &summary.operations;
    let rows = [
        ("malloc", o.malloc),
        ("calloc", o.calloc),
        ("realloc", o.realloc),
        ("memalign and kin", o.memalign),
        ("free", o.free),
        ("of these free(NULL)", o.free_null),
        ("threads alive at once", summary.peak_threads),
        ("cross-thread frees", summary.cross_thread_frees),
        ("peak live bytes", summary.peak_live_bytes),
        ("peak live objects", summary.peak_live_objects),
        ("final live bytes", summary.final_live_bytes),
        ("final live objects", summary.final_live_objects),
    ];
    let anomalies = summary.census.anomalies();
    let all = rows.into_iter().chain(anomalies);
    table(["figure", "value"], all.map(|(name, value)| [name.to_owned(), number(value)]))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_short() {
        let told: Vec<String> = [0, 4, 8, 12, 16, 20, 36, 60].map(short_power).into();
        assert_eq!(told, ["1", "16", "256", "4 Ki", "64 Ki", "1 Mi", "64 Gi", "2^60"]);
    }

    #[test]
    fn a_file_name_cannot_put_markup_into_the_page() {
        let summary = traces::analysis::Profiler::new().finish(traces::Census::default());
        let page = page("<script>x</script>", Format::Csv, &summary).unwrap();
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;"));
    }
}
