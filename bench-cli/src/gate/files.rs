//! The gate's tables: `verdicts.csv`, one row per cell and metric, and `blocks.csv`, one row per
//! process. And how a file comes to be: whole or not at all.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use super::outcome::{CellVerdict, Outcome};
use crate::error::{CliError, Exit};
use crate::results::atomic;
use crate::verdict::block::{log_of, share_of};
use crate::verdict::location::WalshAverages;
use crate::verdict::rules::{SHOWN_CONFIDENCE, Verdict};
use crate::verdict::signed_rank::{p_above, p_below};

/// Writes a file whole or not at all, and its folder where that is missing.
///
/// # Errors
/// [`Exit::Usage`]: the folder cannot be written, or the disk is full.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| atomic::write(path, bytes))
        .map_err(|error| unwritable(path, &error))
}

/// Proves that a file can be written there, before hours are spent on what it is to hold.
///
/// # Errors
/// [`Exit::Usage`]: its folder cannot be written, or a folder has its name.
pub fn prove_writable(path: &Path) -> Result<(), CliError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(unwritable(path, &io::Error::from(io::ErrorKind::IsADirectory)));
    }
    fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .map(drop)
        .map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    let help = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, and try again"
        }
        _ => "choose another place, or make this one writable",
    };
    CliError::new(Exit::Usage, format!("cannot write `{}`", path.display()))
        .because(error)
        .help(help)
}

/// The header of `verdicts.csv`.
const VERDICT_COLUMNS: [&str; 22] = [
    "cell",
    "workload",
    "threads",
    "metric",
    "verdict",
    "counted",
    "stage",
    "blocks",
    "slowdown",
    "slowdown_low",
    "slowdown_high",
    "confidence",
    "margin",
    "layout_floor",
    "p_slower",
    "p_below_margin",
    "blocks_needed",
    "base_value",
    "head_value",
    "allowed_value",
    "quarantined_until",
    "fault",
];

/// `verdicts.csv`. Slowdowns and margins are shares: 0.05 is 5 %.
///
/// # Errors
/// Never in practice: rows are written to memory.
pub fn verdicts(outcome: &Outcome) -> Result<Vec<u8>, CliError> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let broken = |error: csv::Error| CliError::new(Exit::Internal, "a table").because(error);
    table.write_record(VERDICT_COLUMNS).map_err(broken)?;
    for cell in &outcome.cells {
        table.write_record(verdict_row(cell)).map_err(broken)?;
    }
    for c in &outcome.counted {
        let verdict = if c.within() { Verdict::Pass } else { Verdict::Fail };
        let mut row = vec![String::new(); VERDICT_COLUMNS.len()];
        row[0].clone_from(&c.cell);
        if let Some(cell) = outcome.cells.iter().find(|v| v.cell.name == c.cell) {
            row[1].clone_from(&cell.cell.workload);
            row[2] = cell.cell.threads.to_string();
            row[20] = cell.quarantine.as_ref().map_or(String::new(), |q| q.until.to_string());
        }
        row[3] = c.name();
        row[4] = verdict.name().to_owned();
        row[5] = (!c.quarantined).to_string();
        row[17] = c.base.to_string();
        row[18] = c.head.to_string();
        row[19] = c.allowed.to_string();
        table.write_record(row).map_err(broken)?;
    }
    finish(table)
}

fn verdict_row(v: &CellVerdict) -> Vec<String> {
    let (stage, data) = v.result.evidence();
    let averages = WalshAverages::of(data);
    let interval = averages.interval(SHOWN_CONFIDENCE);
    let number = |value: f64| format!("{value:.6}");
    let share = |value: Option<f64>| value.map_or(String::new(), |d| number(share_of(d)));
    let p = |value: f64| {
        if data.is_empty() { String::new() } else { format!("{value:.3e}") }
    };
    let needed = match v.result.verdict {
        Verdict::Inconclusive => v.rules.blocks_needed(data, v.result.cells_left),
        _ => None,
    };
    vec![
        v.cell.name.clone(),
        v.cell.workload.clone(),
        v.cell.threads.to_string(),
        "elapsed".to_owned(),
        v.result.verdict.name().to_owned(),
        v.quarantine.is_none().to_string(),
        stage.name().to_owned(),
        data.len().to_string(),
        share(averages.estimate()),
        share(interval.map(|i| i.low)),
        share(interval.map(|i| i.high)),
        interval.map_or(String::new(), |i| number(i.confidence)),
        number(v.rules.margin),
        number(v.rules.layout_floor),
        p(p_above(data, log_of(v.rules.layout_floor))),
        p(p_below(data, log_of(v.rules.margin))),
        needed.map_or(String::new(), |blocks| blocks.to_string()),
        String::new(),
        String::new(),
        String::new(),
        v.quarantine.as_ref().map_or(String::new(), |q| q.until.to_string()),
        v.result.fault.clone().unwrap_or_default(),
    ]
}

/// `blocks.csv`: every process in the order in which it ran.
///
/// # Errors
/// Never in practice: rows are written to memory.
pub fn blocks(outcome: &Outcome) -> Result<Vec<u8>, CliError> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let broken = |error: csv::Error| CliError::new(Exit::Internal, "a table").because(error);
    table
        .write_record([
            "cell",
            "stage",
            "block",
            "position",
            "order",
            "side",
            "seed",
            "elapsed_ns",
            "minor_faults",
            "peak_rss_bytes",
            "failed_allocations",
        ])
        .map_err(broken)?;
    for row in &outcome.rows {
        table
            .write_record([
                outcome.cells[row.cell].cell.name.clone(),
                row.stage.name().to_owned(),
                row.block.to_string(),
                row.position.to_string(),
                row.order.name().to_owned(),
                row.side.name().to_owned(),
                row.seed.to_string(),
                row.process.elapsed_ns.to_string(),
                row.process.minor_faults.to_string(),
                row.process.peak_rss_bytes.to_string(),
                row.process.failed_allocations.to_string(),
            ])
            .map_err(broken)?;
    }
    finish(table)
}

/// The outcome as one JSON document: the verdict, its sentence, and the rows of `verdicts.csv` with
/// `null` for what is not available.
///
/// # Errors
/// Never in practice: see [`verdicts`].
pub fn json(outcome: &Outcome) -> Result<String, CliError> {
    let broken = |error: csv::Error| CliError::new(Exit::Internal, "a table").because(error);
    let bytes = verdicts(outcome)?;
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let row: serde_json::Map<String, serde_json::Value> = VERDICT_COLUMNS
            .iter()
            .zip(&record)
            .map(|(column, text)| ((*column).to_owned(), json_value(text)))
            .collect();
        rows.push(row);
    }
    let document = serde_json::json!({
        "verdict": outcome.verdict().name(),
        "sentence": outcome.sentence(),
        "base": outcome.base,
        "head": outcome.head,
        "seed": outcome.seed,
        "injected_slowdown": outcome.injected,
        "took_s": outcome.took.as_secs_f64(),
        "interrupted": outcome.interrupted,
        "verdicts": rows,
    });
    serde_json::to_string_pretty(&document)
        .map_err(|error| CliError::new(Exit::Internal, "a document").because(error))
}

/// Numbers and truth values as such, nothing as null.
fn json_value(text: &str) -> serde_json::Value {
    if text.is_empty() {
        return serde_json::Value::Null;
    }
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}

fn finish(table: csv::Writer<Vec<u8>>) -> Result<Vec<u8>, CliError> {
    table.into_inner().map_err(|error| CliError::new(Exit::Internal, "a table").because(error))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn verdicts_hold_one_full_row_per_cell_with_empty_for_what_is_not_known() {
        let found = outcome(&[Verdict::Pass, Verdict::Fail, Verdict::Inconclusive]);
        let bytes = verdicts(&found).unwrap();
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        assert_eq!(reader.headers().unwrap().len(), VERDICT_COLUMNS.len());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!((&rows[1][4], &rows[1][6], &rows[1][7]), ("fail", "fresh", "96"));
        let slowdown: f64 = rows[1][8].parse().unwrap();
        assert!((slowdown - 0.061).abs() < 0.001);
        assert_eq!(&rows[0][17], "");
    }

    #[test]
    fn whether_a_file_can_be_written_is_known_before_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.xml");
        prove_writable(&path).unwrap();
        assert!(!path.exists(), "a proof writes nothing");
        assert_eq!(prove_writable(folder.path()).unwrap_err().exit, Exit::Usage);
        assert_eq!(prove_writable(Path::new("/proc/x.xml")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert_eq!(write_whole(&path, b"x").unwrap_err().exit, Exit::Usage);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_whole(&folder.path().join("a/b.csv"), b"x").unwrap();
        assert_eq!(fs::read(folder.path().join("a/b.csv")).unwrap(), b"x");
    }
}
