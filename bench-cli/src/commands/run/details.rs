//! What a table has no room for: fragmentation by its formulas, and the slowest calls.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::results::{FragmentationRow, InternalRow, RunDirectory, RunRow, TailRow};

/// The details of everything in `directory`, as paragraphs; empty where there are none.
pub(super) fn render(directory: &RunDirectory) -> String {
    let mut text = String::new();
    let free = || directory.runs().iter().filter(|run| run.pressure.is_empty());
    let mut workloads: Vec<&str> = Vec::new();
    for run in free() {
        if !workloads.contains(&run.workload.as_str()) {
            workloads.push(&run.workload);
        }
    }
    for workload in workloads {
        let mut runs: Vec<&RunRow> = free().filter(|run| run.workload == workload).collect();
        // Allocators in the order in which they were named: the id has their place.
        runs.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        let width = runs.iter().map(|run| run.allocator.chars().count()).max().unwrap_or(0);
        memory(&mut text, (workload, width), &runs, directory.fragmentation());
        locks(&mut text, (workload, width), &runs, directory.internals());
        tail(&mut text, (workload, width), &runs, directory.tail());
    }
    text
}

fn memory(
    text: &mut String,
    (workload, width): (&str, usize),
    runs: &[&RunRow],
    all: &[FragmentationRow],
) {
    let rows = runs.iter().filter_map(|run| {
        let row = all.iter().find(|row| row.run_id == run.run_id && row.used == "rss")?;
        Some((run.allocator.as_str(), row))
    });
    let lines: Vec<_> = rows.collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nMemory of {workload}: resident bytes over live bytes");
    let _ = writeln!(
        text,
        "  {:<width$} {:>10} {:>12} {:>11} {:>12} {:>10} {:>10}  kept after the last free",
        "", "over time", "at peak live", "at peak use", "peak to peak", "internal", "external"
    );
    for (allocator, row) in lines {
        let ratio = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        let share =
            |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{:.1} %", v * 100.0));
        let _ = writeln!(
            text,
            "  {allocator:<width$} {:>10} {:>12} {:>11} {:>12} {:>10} {:>10}  {}",
            ratio(row.mean_over_time),
            ratio(row.at_peak_live),
            ratio(row.at_peak_use),
            ratio(row.peak_to_peak),
            share(row.internal),
            share(row.external),
            retained(row)
        );
    }
}

/// What the allocators say of their locks, in the first throughput run of each; nothing if no thread had
/// to wait for any.
fn locks(
    text: &mut String,
    (workload, width): (&str, usize),
    runs: &[&RunRow],
    all: &[InternalRow],
) {
    let mut lines: Vec<(&str, f64, [u64; 3])> = Vec::new();
    for run in runs.iter().filter(|run| run.pass == "throughput") {
        let figure = |name: &str| {
            let row = all.iter().find(|row| row.run_id == run.run_id && row.name == name);
            row.map(|row| row.value)
        };
        let (Some(taken), Some(waits), Some(waited)) =
            (figure("lock_acquisitions"), figure("lock_waits"), figure("lock_wait_ns"))
        else {
            continue;
        };
        if lines.iter().all(|line| line.0 != run.allocator) {
            let calls = run.operations.unwrap_or(0).max(1) as f64;
            lines.push((&run.allocator, calls, [taken, waits, waited]));
        }
    }
    if lines.iter().all(|line| line.2[1] == 0) {
        return;
    }
    let _ =
        writeln!(text, "\nLocks of {workload}: what a thousand calls came to in the first round");
    let _ = writeln!(text, "  {:<width$} {:>10} {:>10} {:>12}", "", "taken", "waits", "ns waited");
    for (allocator, calls, counts) in lines {
        let [taken, waits, waited] = counts.map(|count| count as f64 * 1000.0 / calls);
        let _ = writeln!(text, "  {allocator:<width$} {taken:>10.2} {waits:>10.2} {waited:>12.0}");
    }
}

fn retained(row: &FragmentationRow) -> String {
    let looks = [
        (row.retained_100ms_bytes, "100 ms"),
        (row.retained_1s_bytes, "1 s"),
        (row.retained_5s_bytes, "5 s"),
    ];
    let looks = looks.iter().filter_map(|(bytes, after)| {
        Some(format!("{:.1} MiB {after}", (*bytes)? as f64 / 1_048_576.0))
    });
    looks.collect::<Vec<_>>().join(", ")
}

fn tail(text: &mut String, (workload, width): (&str, usize), runs: &[&RunRow], all: &[TailRow]) {
    let mut begun = false;
    for run in runs {
        let rows: Vec<&TailRow> = all.iter().filter(|row| row.run_id == run.run_id).collect();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
        if !begun {
            begun = true;
            let _ = writeln!(
                text,
                "\nSlowest calls of {workload}: faults and switches as a second run met them"
            );
        }
        let seen: Vec<_> = rows.iter().filter(|row| row.again_ns.is_some()).collect();
        let share = |happened: &dyn Fn(&TailRow) -> bool| {
            let count = seen.iter().filter(|row| happened(row)).count();
            count as f64 * 100.0 / seen.len().max(1) as f64
        };
        let faults =
            share(&|row| row.minor_faults.unwrap_or(0) + row.major_faults.unwrap_or(0) > 0);
        let switches = share(&|row| {
            row.voluntary_switches.unwrap_or(0) + row.involuntary_switches.unwrap_or(0) > 0
        });
        let at = match first.event {
            Some(event) => format!("event {event}"),
            None => format!("place {}", first.place),
        };
        let _ = writeln!(
            text,
            "  {:<width$} {} calls of {} ns and more: {faults:.0} % faulted, {switches:.0} % switched; slowest {}({}) {} ns, {at} of thread {}",
            run.allocator,
            rows.len(),
            last.value_ns,
            first.op,
            first.size_bytes,
            first.value_ns,
            first.thread
        );
    }
}
