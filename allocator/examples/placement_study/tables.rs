//! The tables of the study.
//!
//! - malloc, free: nanoseconds per call, the median over the rounds
//! - searched: free blocks looked at per allocation
//! - internal = (usable − requested) / usable; the 8-byte header counts as external
//! - external = (committed − usable in use) / committed; the side index counts as external
//! - holes = free bytes / committed: what the strategy is to blame for; the rest of `external` is
//!   headers (8 bytes per object) and the side index
//! - holes at peak: the same when most is live, for a trace, at whose end much has been freed
//! - peak: highest committed, and that over the highest sum of requested bytes
//! - kept: committed after the last free / highest committed
//! - waits: share of lock acquisitions that had to wait; waited: nanoseconds of that per pair of calls
//!
//! Memory is read at the end of the timed steps, before the rest is freed.

use std::fmt::Write as _;

use crate::heap::Outcome;
use crate::workload::Workload;

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table of one workload at one number of threads, as Markdown.
pub(crate) fn table<'a>(
    work: &Workload,
    threads: usize,
    rows: impl Iterator<Item = (&'static str, &'a mut Outcome)>,
) -> String {
    let live = work.peak(|size| size as usize).0 * threads;
    let who =
        if threads == 1 { "one thread".into() } else { format!("{threads} threads, one lock") };
    let mut text =
        format!("### {}, {who}: {:.1} MB live at most\n\n", work.name, live as f64 / 1e6);
    let mut titles =
        vec!["strategy", "malloc ns", "free ns", "searched", "internal", "external", "holes"];
    if !work.batched && threads == 1 {
        titles.push("holes at peak");
    }
    titles.extend(["peak MB", "peak / live", "kept"]);
    if threads > 1 {
        titles.extend(["waits", "waited ns"]);
    }
    let _ = writeln!(text, "| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len()));
    for (name, out) in rows {
        let memory = out.memory;
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let mut cells = vec![
            name.to_owned(),
            format!("{:.1}", median(&mut out.malloc)),
            format!("{:.1}", median(&mut out.free)),
            format!("{:.2}", memory.searched),
            percent(memory.internal),
            percent(memory.external),
            percent(memory.holes),
            percent(memory.holes_at_peak),
            format!("{:.1}", memory.peak as f64 / 1e6),
            format!("{:.3}", memory.peak_over_live),
            percent(memory.kept),
        ];
        if work.batched || threads > 1 {
            cells.remove(7);
        }
        if threads > 1 {
            cells.extend([percent(out.waits), format!("{:.0}", out.waited)]);
        }
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}
