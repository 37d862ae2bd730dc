//! The summary as people read it: one aligned table, units in the header.
#![forbid(unsafe_code)]

use comfy_table::{CellAlignment, Table, TableComponent};

use super::summary::{Line, OWN_WORK, Standing};

/// Renders `lines`. Columns that nobody filled are left out.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    let columns: Vec<Column> = COLUMNS
        .iter()
        .copied()
        .filter(|column| column.always || lines.iter().any(|line| !(column.text)(line).is_empty()))
        .collect();
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─');
    let versus = versus(lines);
    table.set_header(
        columns.iter().map(|column| if column.header == VERSUS { &versus } else { column.header }),
    );
    let mut last: Option<(&str, u64, &str)> = None;
    for line in lines {
        let key = (line.workload.as_str(), line.threads, line.pressure.as_str());
        let repeats = last == Some(key);
        if last.is_some() && !repeats {
            // An empty line between workloads.
            table.add_row(columns.iter().map(|_| ""));
        }
        last = Some(key);
        table.add_row(columns.iter().map(|column| {
            if repeats && column.of_group { String::new() } else { (column.text)(line) }
        }));
    }
    for (index, column) in columns.iter().enumerate() {
        if let (Some(target), false) = (table.column_mut(index), column.left) {
            target.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    if lines.iter().any(|line| line.own_work) {
        text += "\n\n";
        text += OWN_WORK;
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Stands for [`versus`] in the list of columns.
const VERSUS: &str = "vs reference (95 %)";

/// Above the ratios: the one allocator that all of them are against, if it is one.
fn versus(lines: &[Line]) -> String {
    let mut references = lines.iter().filter(|line| line.standing == Standing::Reference);
    match references.next().map(|line| line.allocator.as_str()) {
        Some(name) if references.all(|line| line.allocator == name) => {
            VERSUS.replace("reference", &shortened(name))
        }
        _ => VERSUS.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct Column {
    header: &'static str,
    text: fn(&Line) -> String,
    /// Shown even if empty everywhere.
    always: bool,
    /// Belongs to the workload, so it is shown once per group.
    of_group: bool,
    left: bool,
}

const fn column(header: &'static str, text: fn(&Line) -> String) -> Column {
    Column { header, text, always: false, of_group: false, left: false }
}

const COLUMNS: [Column; 20] = [
    Column {
        always: true,
        of_group: true,
        left: true,
        ..column("workload", |l| shortened(&l.workload))
    },
    Column { of_group: true, ..column("threads", |l| nonzero(l.threads)) },
    Column { of_group: true, ..column("pressure", |l| l.pressure.clone()) },
    Column { always: true, left: true, ..column("allocator", |l| l.allocator.clone()) },
    column("time ms", |l| decimal(l.of_run(l.elapsed_ns).map(|t| t / 1e6))),
    column("floor ms", |l| decimal(l.of_run(l.floor_ns).map(|t| t / 1e6))),
    column("ns/call", |l| own(l, l.elapsed_ns)),
    column("floor ns/call", |l| own(l, l.floor_ns)),
    Column { left: true, ..column(VERSUS, ratio) },
    Column { left: true, ..column("", standing) },
    column("Mop/s", |l| decimal(l.operations_per_second.map(|n| n / 1e6))),
    column("p50 ns", |l| whole(l.p50_ns)),
    column("p99 ns", |l| whole(l.p99_ns)),
    column("p99.9 ns", |l| whole(l.p999_ns)),
    column("Minstr", |l| decimal(l.of_run(l.instructions).map(|n| n / 1e6))),
    column("instr/call", |l| own(l, l.instructions)),
    column("syscalls", |l| decimal(l.of_run(l.system_calls))),
    column("syscalls/1000 calls", |l| own(l, l.system_calls.map(|n| n * 1000.0))),
    column("peak RSS MiB", |l| decimal(l.peak_rss_bytes.map(|b| b / 1_048_576.0))),
    Column { left: true, ..column("", remarks) },
];

/// A command can be long; its beginning tells it apart.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn nonzero(value: u64) -> String {
    if value == 0 { String::new() } else { value.to_string() }
}

fn whole(value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Three significant digits or so, never an exponent.
fn decimal(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.2}"),
    }
}

/// Per call, where allocators had amounts of work of their own.
fn own(line: &Line, value: Option<f64>) -> String {
    decimal(line.per_call(value).filter(|_| line.own_work))
}

fn ratio(line: &Line) -> String {
    match (line.ratio, line.ratio_low, line.ratio_high) {
        (Some(ratio), Some(low), Some(high)) => format!("{ratio:.2} ({low:.2}–{high:.2})"),
        (Some(ratio), _, _) => format!("{ratio:.2}"),
        _ if line.standing == Standing::Reference => "1".to_owned(),
        _ => String::new(),
    }
}

fn standing(line: &Line) -> String {
    match line.standing {
        Standing::Faster => "faster",
        Standing::Slower => "slower",
        Standing::Reference | Standing::Undecided => "",
    }
    .to_owned()
}

/// What has to be said beside the numbers: failures, refusals, other output.
#[must_use]
pub fn remarks(line: &Line) -> String {
    let mut remarks = Vec::new();
    if line.failed_runs > 0 {
        let how = line.failure.as_deref().unwrap_or("failed");
        remarks.push(format!("{} of {} runs {how}", line.failed_runs, line.all_runs));
    }
    if line.failed_allocations > 0 {
        remarks.push(format!("{} allocations refused", line.failed_allocations));
    }
    if let Some(status) = line.exit_status.filter(|_| line.failed_runs == 0) {
        remarks.push(format!("exit status {status}"));
    } else if line.other_status {
        remarks.push("other exit status".to_owned());
    }
    match line.same_output {
        Some(false) => remarks.push("output differs".to_owned()),
        Some(true) if line.standing != Standing::Reference => {
            remarks.push("same output".to_owned());
        }
        _ => {}
    }
    remarks.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(workload: &str, allocator: &str, standing: Standing) -> Line {
        Line {
            workload: workload.to_owned(),
            threads: 2,
            pressure: String::new(),
            allocator: allocator.to_owned(),
            allocator_version: String::new(),
            runs: 6,
            all_runs: 9,
            failed_runs: 0,
            failure: None,
            own_work: false,
            operations: Some(1e6),
            elapsed_ns: Some(12_345_678.0),
            floor_ns: None,
            operations_per_second: None,
            ratio: (standing != Standing::Reference).then_some(0.5),
            ratio_low: (standing != Standing::Reference).then_some(0.45),
            ratio_high: (standing != Standing::Reference).then_some(0.55),
            standing,
            p50_ns: None,
            p99_ns: None,
            p999_ns: None,
            instructions: None,
            system_calls: None,
            peak_rss_bytes: Some(1_048_576.0 * 250.0),
            peak_live_bytes: None,
            failed_allocations: 0,
            exit_status: None,
            other_status: false,
            same_output: None,
        }
    }

    #[test]
    fn the_table_is_aligned_and_leaves_out_what_nobody_measured() {
        let lines = [
            line("larson", "ours", Standing::Faster),
            line("larson", "system", Standing::Reference),
            line("xmalloc", "ours", Standing::Undecided),
        ];
        let text = render(&lines);
        println!("{text}");
        assert!(text.contains("time ms") && !text.contains("p99"), "{text}");
        assert!(text.contains("vs system (95 %)"), "{text}");
        assert!(text.contains("0.50 (0.45–0.55)") && text.contains("faster"), "{text}");
        assert_eq!(text.matches("larson").count(), 1, "{text}");
        let at = |needle: &str| {
            let line = text.lines().find(|l| l.contains(needle) && l.contains("12.3")).unwrap();
            line.find("12.3").map(|byte| line[..byte].chars().count())
        };
        assert_eq!(at("ours"), at("system"), "{text}");
    }

    #[test]
    fn what_failed_is_counted_among_the_runs_of_all_passes() {
        let failed = Line {
            failed_runs: 1,
            failure: Some("broke promise (overlap)".to_owned()),
            ..line("larson", "ours", Standing::Undecided)
        };
        let text = render(&[failed]);
        assert!(text.contains("1 of 9 runs broke promise (overlap)"), "{text}");
    }

    #[test]
    fn lines_of_other_work_show_no_time_of_a_run_and_the_note_says_why() {
        let own = |allocator, standing| Line {
            own_work: true,
            instructions: Some(5e7),
            ..line("pair-64", allocator, standing)
        };
        let lines = [own("ours", Standing::Faster), own("system", Standing::Reference)];
        let text = render(&lines);
        let head = text.lines().next().unwrap();
        assert!(head.contains("ns/call") && head.contains("instr/call"), "{text}");
        assert!(!head.contains("time ms") && !head.contains("Minstr"), "{text}");
        // 12.3 ms and 50 million instructions for a million calls.
        assert!(text.contains("12.3") && text.contains("50.0"), "{text}");
        assert!(text.ends_with(OWN_WORK), "{text}");
        let of_two = [lines[1].clone(), line("t.zip", "ours", Standing::Reference)];
        assert!(render(&of_two).contains("vs reference (95 %)"));
        let mixed = [lines[0].clone(), line("t.zip", "ours", Standing::Undecided)];
        let text = render(&mixed);
        assert!(text.contains("time ms") && text.contains("ns/call"), "{text}");
        assert!(!render(&mixed[1..]).contains("per call"));
    }
}
