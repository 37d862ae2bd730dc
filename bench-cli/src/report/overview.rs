//! What came out, in words and in figures with intervals: from the same summary that `bench-cli run`
//! prints.

#![forbid(unsafe_code)]

use super::sections::{Chart, Table};
use super::svg::{self, IntervalRow, Unit};
use crate::session::{Line, OWN_WORK, Standing};

/// One case under all allocators: a workload, its threads, a pressure.
fn cases(lines: &[Line]) -> impl Iterator<Item = &[Line]> {
    lines.chunk_by(|a, b| case(a) == case(b))
}

fn case(line: &Line) -> (&str, u64, &str) {
    (&line.workload, line.threads, &line.pressure)
}

fn case_name(line: &Line) -> String {
    let mut name = line.workload.clone();
    match line.threads {
        0 => {}
        1 => name += ", 1 thread",
        n => name += &format!(", {n} threads"),
    }
    if !line.pressure.is_empty() {
        name += &format!(", pressure {}", line.pressure);
    }
    name
}

/// The reference among the allocators of a case.
fn reference(case: &[Line]) -> Option<&Line> {
    case.iter().find(|line| line.standing == Standing::Reference)
}

/// One sentence per allocator that is not the reference, and one for those that failed.
#[must_use]
pub fn words(lines: &[Line]) -> Vec<String> {
    let Some(against) = reference(lines).map(|line| line.allocator.as_str()) else {
        return Vec::new();
    };
    let mut names: Vec<&str> = Vec::new();
    for line in lines.iter().filter(|line| line.allocator != against) {
        if !names.contains(&line.allocator.as_str()) {
            names.push(&line.allocator);
        }
    }
    let mut words: Vec<String> =
        names.iter().filter_map(|name| sentence(lines, name, against)).collect();
    for line in lines.iter().filter(|line| line.failed_runs > 0) {
        words.push(format!(
            "{} did not survive {}: {} of its processes {}.",
            line.allocator,
            case_name(line),
            line.failed_runs,
            line.failure.as_deref().unwrap_or("failed"),
        ));
    }
    for line in lines.iter().filter(|line| line.failed_allocations > 0) {
        words.push(format!(
            "{} was refused memory in {}: {} requests. Runs with refusals are compared with nobody.",
            line.allocator,
            case_name(line),
            line.failed_allocations,
        ));
    }
    for line in lines.iter().filter(|line| line.other_status) {
        words.push(format!(
            "{} is not compared in {} where the program ended with exit status {}: under {against} it does not.",
            line.allocator,
            case_name(line),
            line.exit_status.unwrap_or(0),
        ));
    }
    if lines.iter().any(|line| line.own_work) {
        words.push(OWN_WORK.to_owned());
    }
    words
}

fn sentence(lines: &[Line], name: &str, against: &str) -> Option<String> {
    let own: Vec<&Line> =
        lines.iter().filter(|l| l.allocator == name && l.ratio.is_some()).collect();
    let count = |standing| own.iter().filter(|l| l.standing == standing).count();
    let (faster, slower) = (count(Standing::Faster), count(Standing::Slower));
    let time = geometric_mean(own.iter().filter_map(|l| l.ratio))?;
    // More work may need more memory, which would be no fault of who did it.
    let memory = geometric_mean(cases(lines).filter_map(|case| {
        let own = case.iter().find(|l| l.allocator == name && !l.own_work && l.ratio.is_some());
        let own = own?.peak_rss_bytes?;
        Some(own / reference(case)?.peak_rss_bytes.filter(|b| *b > 0.0)?)
    }));
    let verdict = match (own.len(), faster, slower) {
        (1, 1, 0) => "is faster, as its 95 % interval shows".to_owned(),
        (1, 0, 1) => "is slower, as its 95 % interval shows".to_owned(),
        (1, ..) => "is not shown to be faster or slower at 95 %".to_owned(),
        (n, ..) => format!(
            "is faster in {faster} of {n} cases and slower in {slower}, each shown at 95 %; {} are undecided",
            n - faster - slower
        ),
    };
    let per_call = if own.iter().any(|l| l.own_work) { " per call" } else { "" };
    let mut text =
        format!("{name} against {against}: {verdict}. It takes {time:.2} times as long{per_call}");
    if let Some(memory) = memory {
        text += &format!(" and {memory:.2} times as much memory at its peak");
    }
    if own.len() > 1 {
        text += " (geometric means)";
    }
    Some(text + ".")
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = values.filter(|v| *v > 0.0).map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// One table per case: times with intervals, the tail, memory.
#[must_use]
pub fn tables(lines: &[Line]) -> Vec<Table> {
    cases(lines)
        .filter_map(|case| {
            let against = reference(case).map_or("reference", |line| line.allocator.as_str());
            let per_call = case.iter().any(|line| line.own_work);
            let time = if per_call { "time per call" } else { "time" };
            let mut head = vec!["allocator".to_owned(), time.to_owned()];
            head.push(format!("against {against} (95 %)"));
            head.extend(["p50", "p99", "p99.9", "peak resident", "remarks"].map(str::to_owned));
            let rows = case.iter().map(row).collect();
            Some(Table { caption: case_name(case.first()?), head, rows })
        })
        .collect()
}

fn row(line: &Line) -> Vec<String> {
    let show = |unit, value: Option<f64>| value.map_or(String::new(), |v| svg::show(unit, v));
    let time = |value: Option<u64>| show(Unit::Nanoseconds, value.map(|v| v as f64));
    let elapsed = match line.own_work {
        true => line.per_call(line.elapsed_ns),
        false => line.elapsed_ns,
    };
    let ratio = match (line.ratio, line.ratio_low, line.ratio_high) {
        (Some(ratio), Some(low), Some(high)) => format!("{ratio:.2} ({low:.2}–{high:.2})"),
        (Some(ratio), ..) => format!("{ratio:.2}"),
        _ if line.standing == Standing::Reference => "1".to_owned(),
        _ => String::new(),
    };
    vec![
        line.allocator.clone(),
        show(Unit::Nanoseconds, elapsed),
        ratio,
        time(line.p50_ns),
        time(line.p99_ns),
        time(line.p999_ns),
        show(Unit::Bytes, line.peak_rss_bytes),
        remarks(line),
    ]
}

fn remarks(line: &Line) -> String {
    let mut remarks: Vec<String> = Vec::new();
    match line.standing {
        Standing::Faster => remarks.push("faster".to_owned()),
        Standing::Slower => remarks.push("slower".to_owned()),
        Standing::Undecided | Standing::Reference => {}
    }
    if line.failed_runs > 0 {
        let how = line.failure.as_deref().unwrap_or("failed");
        remarks.push(format!("{} × {how}", line.failed_runs));
    }
    if line.failed_allocations > 0 {
        remarks.push(format!("{} requests refused", line.failed_allocations));
    }
    if let Some(status) = line.exit_status {
        remarks.push(format!("exit status {status}"));
    }
    if line.same_output == Some(false) {
        remarks.push("other output".to_owned());
    }
    remarks.join(", ")
}

/// Times against the reference with their intervals: one chart per allocator, one row per case.
#[must_use]
pub fn charts(lines: &[Line]) -> Vec<Chart> {
    let against = reference(lines).map_or("", |line| line.allocator.as_str());
    let mut charts: Vec<(String, Vec<IntervalRow>)> = Vec::new();
    for line in lines {
        let Some(ratio) = line.ratio else { continue };
        let class = match line.standing {
            Standing::Faster => "pass",
            Standing::Slower => "fail",
            Standing::Undecided | Standing::Reference => "inconclusive",
        };
        let row = IntervalRow {
            name: case_name(line),
            class: class.to_owned(),
            estimate: ratio - 1.0,
            interval: line.ratio_low.zip(line.ratio_high).map(|(a, b)| (a - 1.0, b - 1.0)),
        };
        match charts.iter_mut().find(|(name, _)| *name == line.allocator) {
            Some((_, rows)) => rows.push(row),
            None => charts.push((line.allocator.clone(), vec![row])),
        }
    }
    let label = format!("time against {against} (right: slower)");
    charts
        .into_iter()
        .filter_map(|(name, rows)| {
            let caption = format!("{name}: estimates with 95 % intervals");
            let svg = svg::intervals(&caption, &label, None, &rows)?;
            Some(Chart { caption, svg, legend: Vec::new() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::RunRow;
    use crate::session;

    fn lines() -> Vec<Line> {
        let mut runs = Vec::new();
        for (workload, ours) in [("fast", 80), ("slow", 120)] {
            for round in 0..8 {
                for (allocator, elapsed) in [("ours", ours + round), ("system", 100 + round)] {
                    runs.push(RunRow {
                        workload: workload.to_owned(),
                        allocator: allocator.to_owned(),
                        pass: "throughput".to_owned(),
                        end: "completed".to_owned(),
                        round: u32::try_from(round).unwrap(),
                        elapsed_ns: Some(elapsed),
                        peak_rss_bytes: Some(if allocator == "ours" { 50 } else { 100 }),
                        threads: 1,
                        ..RunRow::default()
                    });
                }
            }
        }
        runs[1].end = "crashed (SIGSEGV)".to_owned();
        session::summarise(&runs, &[], &["ours".to_owned(), "system".to_owned()], &[])
    }

    #[test]
    fn the_words_say_what_was_shown_in_how_many_cases_and_who_failed() {
        let words = words(&lines());
        assert!(words[0].contains("faster in 1 of 2 cases and slower in 1"), "{words:?}");
        assert!(words[0].contains("0.50 times as much memory"), "{words:?}");
        assert!(words[1].contains("system did not survive fast"), "{words:?}");
    }

    #[test]
    fn amounts_of_work_of_ones_own_are_compared_by_the_call_and_never_in_memory() {
        let own = |line: Line| Line { own_work: true, operations: Some(4.0), ..line };
        let lines: Vec<Line> = lines().into_iter().map(own).collect();
        let words = words(&lines);
        assert!(words[0].contains("times as long per call"), "{words:?}");
        assert!(!words[0].contains("as much memory"), "{words:?}");
        assert_eq!(words.last().map(String::as_str), Some(OWN_WORK));
        let table = &tables(&lines)[1];
        assert_eq!(
            (table.head[1].as_str(), table.rows[1][1].as_str()),
            ("time per call", "25.9 ns")
        );
    }

    #[test]
    fn each_case_has_a_table_with_intervals_and_each_allocator_a_chart() {
        let lines = lines();
        let tables = tables(&lines);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].head[2], "against system (95 %)");
        let ours = &tables[0].rows[0];
        assert!(ours[2].contains('–') && ours[7] == "faster", "{ours:?}");
        let charts = charts(&lines);
        assert_eq!(charts.len(), 1);
        assert!(charts[0].svg.contains("bar pass") && charts[0].svg.contains("bar fail"));
        assert!(words(&[]).is_empty() && super::charts(&[]).is_empty());
    }
}
