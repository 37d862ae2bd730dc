//! `bench-cli calibrate`: how often does the gate cry wolf on this machine, and what can it see?
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::judge::{self, Common, Job, KERNEL_COUNTS, note};
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::gate::calibration::{self, Calibration, Tally};
use crate::gate::outcome::{CellVerdict, Outcome};
use crate::gate::{files, quantity};
use crate::output;
use crate::results::{Machine, utc};
use crate::verdict::block::share_of;
use crate::verdict::location::WalshAverages;
use crate::verdict::rules::{Rules, Verdict};

/// Of a gate it is the budget of one; here it is that of all.
const BUDGET_HELP: &str =
    "How long the whole calibration may take, as in 90s, 4m, 1h [default: 25m]";
/// Gates against each relinked twin.
const TWIN_GATES: u64 = 4;

/// What to calibrate with.
#[derive(Clone, Debug, Args)]
#[command(mut_arg("budget", |budget| budget.help(BUDGET_HELP)))]
pub struct CalibrateArgs {
    /// Workloads by name, or traces by path (default: the first cell of the gate suite)
    #[arg(value_name = "WORKLOAD|TRACE")]
    what: Vec<String>,
    /// The library that is compared with itself
    #[arg(long, value_name = "LIBRARY", default_value = "system")]
    library: String,
    /// The same code linked anew, for the layout floor; may be repeated
    #[arg(long, value_name = "LIBRARY")]
    relinked: Vec<String>,
    /// Gates to run; 299 without an alarm prove a rate below 1 %
    #[arg(long, value_name = "N", default_value_t = 299)]
    gates: u64,
    #[command(flatten)]
    common: Common,
}

/// One gate of a calibration, as a row of `gates.csv`.
#[derive(Clone, Debug, Serialize)]
struct GateRow {
    gate: u64,
    kind: &'static str,
    seed: u64,
    verdict: &'static str,
    counts_exceeded: usize,
    blocks: usize,
    slowdown: Option<f64>,
    took_s: f64,
}

/// Everything measured so far.
#[derive(Debug, Default)]
struct Record {
    rows: Vec<GateRow>,
    alike: Tally,
    injected: Tally,
    differences: Vec<f64>,
    /// By how much relinking moved a cell, for each cell of each gate against a twin.
    twins: Vec<f64>,
    processes: usize,
    took: Duration,
    interrupted: bool,
}

/// Runs `bench-cli calibrate`.
///
/// # Errors
/// See [`Exit`].
pub fn run(args: &CalibrateArgs, global: &Global) -> Result<Exit, CliError> {
    crate::worker::check_cpus(&args.common.cpus)?;
    let out = judge::out_folder(global, "calibrate")?;
    let budget = args.common.budget.unwrap_or(Duration::from_secs(25 * 60));
    let end = Instant::now() + budget;
    // The budget is that of all gates; each one may take what it needs.
    let one = Common { budget: Some(Duration::from_secs(600)), ..args.common.clone() };
    let what = if args.what.is_empty() { vec![first_cell(&one)?] } else { args.what.clone() };
    let mut record = Record::default();
    record.twins(args, &what, &one, (end, global, &out))?;
    if record.interrupted {
        return Ok(Exit::Interrupted);
    }
    let job = Job::prepare((&args.library, &args.library), &what, &one, global)?;
    let kind = if args.common.inject_slowdown.is_some() { "injected" } else { "alike" };
    for gate in 0..args.gates {
        if !record.gate(&job, kind, global.seed + 1000 + gate, (end, global, &out))? {
            break;
        }
    }
    let mut calibration = record.calibration(names(&job));
    calibration.layout_floor = calibration.layout_floor.or_else(calibration::stored_floor);
    if kind == "alike" && calibration.alike.gates > 0 {
        let kept = calibration::store(&calibration)?;
        note(global, &format!("kept in {}", kept.display()));
    }
    let text = serde_json::to_string_pretty(&calibration)
        .map_err(|error| CliError::new(Exit::Internal, "a calibration").because(error))?;
    files::write_whole(&out.join("calibration.json"), text.as_bytes())?;
    output::print(&match global.format {
        Format::Human => {
            record.words(&calibration, args.common.inject_slowdown, &job.trial.thresholds.rules)
        }
        Format::Json => text + "\n",
        Format::Csv => String::from_utf8_lossy(&record.csv()?).into_owned(),
    })?;
    Ok(if record.interrupted { Exit::Interrupted } else { Exit::Success })
}

fn names(job: &Job) -> Vec<String> {
    job.trial.cells.iter().map(|cell| cell.name.clone()).collect()
}

/// The first name of the suite: a calibration needs many gates, so each must be short.
fn first_cell(common: &Common) -> Result<String, CliError> {
    let thresholds = judge::thresholds(common)?;
    Ok(thresholds.suite.first().map_or(crate::gate::suite::DEFAULT[0], String::as_str).to_owned())
}

/// When to stop, how to speak, and the output folder.
type Frame<'a> = (Instant, &'a Global, &'a Path);

impl Record {
    /// Measures the relinked twins, and keeps the layout floor once all of them were: whatever
    /// ends the calibration afterwards does not take it back.
    fn twins(
        &mut self,
        args: &CalibrateArgs,
        what: &[String],
        common: &Common,
        frame: Frame<'_>,
    ) -> Result<(), CliError> {
        // Code that is linked anew is not slowed, and an earlier floor does not judge a new one.
        let common = Common { inject_slowdown: None, ..common.clone() };
        let mut cells = Vec::new();
        for twin in &args.relinked {
            let libraries = (args.library.as_str(), twin.as_str());
            let thresholds = judge::thresholds(&common)?;
            let job = Job::under(thresholds, libraries, what, &common, frame.1)?;
            for gate in 0..TWIN_GATES {
                if !self.gate(&job, "relinked", frame.1.seed + gate, frame)? {
                    // Fewer gates would show a smaller floor than there is.
                    self.twins.clear();
                    note(frame.1, "the twins were not measured to the end: they show no floor");
                    return Ok(());
                }
            }
            cells = names(&job);
        }
        if !self.twins.is_empty() {
            let kept = calibration::store_floor(&self.calibration(cells))?;
            note(frame.1, &format!("the layout floor is kept in {}", kept.display()));
        }
        Ok(())
    }

    /// Runs one gate and notes it; false: no more of them.
    fn gate(
        &mut self,
        job: &Job,
        kind: &'static str,
        seed: u64,
        (end, global, out): Frame<'_>,
    ) -> Result<bool, CliError> {
        if Instant::now() >= end {
            return Ok(false);
        }
        crate::interrupt::listen();
        let mut trial = job.trial.clone();
        trial.seed = seed;
        let mut outcome = trial.run(job.workers.clone(), &mut |_, _| {})?;
        // A gate fails on these counts too, so that their false alarms are part of its rate.
        job.count(&mut outcome, &KERNEL_COUNTS)?;
        if outcome.interrupted {
            self.interrupted = true;
            return Ok(false);
        }
        if let Some(fault) = outcome.cells.iter().find_map(|c| c.result.fault.as_ref()) {
            return Err(CliError::new(
                Exit::AllocatorFault,
                "an allocator failed in a calibration",
            )
            .because(fault));
        }
        self.note(kind, &outcome);
        files::write_whole(&out.join("gates.csv"), &self.csv()?)?;
        let done = self.rows.len();
        note(
            global,
            &format!(
                "gate {done} ({kind}): {} in {:.1} s",
                outcome.sentence(),
                outcome.took.as_secs_f64()
            ),
        );
        Ok(true)
    }

    fn note(&mut self, kind: &'static str, outcome: &Outcome) {
        let timing: Verdict =
            outcome.cells.iter().map(|c| c.result.verdict).max().unwrap_or(Verdict::Inconclusive);
        let of_cell = |c: &CellVerdict| -> Vec<f64> {
            c.result.screen.iter().chain(&c.result.fresh).copied().collect()
        };
        let differences: Vec<f64> = outcome.cells.iter().flat_map(of_cell).collect();
        let exceeded = outcome.exceeded().count();
        let estimate = WalshAverages::of(&differences).estimate();
        self.rows.push(GateRow {
            gate: self.rows.len() as u64,
            kind,
            seed: outcome.seed,
            verdict: timing.name(),
            counts_exceeded: exceeded,
            blocks: outcome.rows.len() / 4,
            slowdown: estimate.map(share_of),
            took_s: outcome.took.as_secs_f64(),
        });
        self.processes += outcome.rows.len();
        self.took += outcome.took;
        let tally = match kind {
            "relinked" => {
                // Relinking may speed one cell up and slow another down; the floor holds for each.
                let moved = |c: &CellVerdict| WalshAverages::of(&of_cell(c)).estimate();
                let moved = outcome.cells.iter().filter_map(moved);
                self.twins.extend(moved.map(|estimate| share_of(estimate).abs()));
                return;
            }
            "injected" => &mut self.injected,
            _ => &mut self.alike,
        };
        tally.gates += 1;
        tally.failed += u64::from(timing == Verdict::Fail);
        tally.failed_on_counts += u64::from(exceeded > 0);
        tally.alarms += u64::from(timing == Verdict::Fail || exceeded > 0);
        let passed = timing == Verdict::Pass && exceeded == 0;
        tally.passed += u64::from(passed);
        tally.passed_in_stage_one +=
            u64::from(passed && outcome.cells.iter().all(|c| c.result.fresh.is_empty()));
        tally.inconclusive += u64::from(timing == Verdict::Inconclusive);
        self.differences.extend(differences);
    }

    fn csv(&self) -> Result<Vec<u8>, CliError> {
        let broken = |error: csv::Error| CliError::new(Exit::Internal, "a table").because(error);
        let mut table = csv::Writer::from_writer(Vec::new());
        for row in &self.rows {
            table.serialize(row).map_err(broken)?;
        }
        table.into_inner().map_err(|error| CliError::new(Exit::Internal, "a table").because(error))
    }

    fn calibration(&self, cells: Vec<String>) -> Calibration {
        let n = self.differences.len().max(1) as f64;
        let mean = self.differences.iter().sum::<f64>() / n;
        let variance = self.differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
        let mut twins = self.twins.clone();
        twins.sort_unstable_by(f64::total_cmp);
        let floor = twins.get((twins.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        Calibration {
            machine: Machine::here(),
            measured_utc: utc::rfc3339(utc::now()),
            cells,
            alike: self.alike,
            layout_floor: floor,
            block_deviation: variance.sqrt(),
            block_seconds: self.took.as_secs_f64() / (self.processes.max(4) as f64 / 4.0),
        }
    }

    fn words(&self, calibration: &Calibration, injected: Option<f64>, rules: &Rules) -> String {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let mut text = format!("Cells: {}.\n", calibration.cells.join(", "));
        let a = &self.alike;
        if a.gates > 0 {
            let _ = writeln!(
                text,
                "Alike: {} false alarms in {} gates, so the rate is below {} at 95 % confidence; \
                 {} failed on time, {} on counted metrics; {} passed ({} of them in stage 1), \
                 {} inconclusive on time.",
                a.alarms,
                a.gates,
                percent(a.at_most()),
                a.failed,
                a.failed_on_counts,
                a.passed,
                a.passed_in_stage_one,
                a.inconclusive
            );
        }
        let i = &self.injected;
        if i.gates > 0 {
            let _ = writeln!(
                text,
                "Slowed by {}: {} of {} gates failed, so the power is above {} at 95 % confidence; \
                 {} passed, {} inconclusive.",
                percent(injected.unwrap_or(0.0)),
                i.failed,
                i.gates,
                percent(i.at_least()),
                i.passed,
                i.inconclusive
            );
        }
        match calibration.layout_floor {
            Some(floor) => {
                let from = match self.twins.len() {
                    0 => "as measured earlier".to_owned(),
                    cells => format!("95th percentile of {cells} cells of gates"),
                };
                let _ = writeln!(
                    text,
                    "Relinking moves timings by up to {} ({from}); gates here use a layout floor of {}.",
                    percent(floor),
                    percent(floor.max(rules.layout_floor))
                );
            }
            None => text.push_str(
                "No relinked twin was measured: gates use the layout floor of their thresholds.\n",
            ),
        }
        let _ = writeln!(
            text,
            "A block takes {:.2} s and varies by {} (standard deviation).",
            calibration.block_seconds,
            percent(calibration.block_deviation)
        );
        for minutes in [1_u32, 10, 60] {
            let blocks = f64::from(minutes) * 60.0 / calibration.block_seconds;
            // 99.9 % two-sided, nine times of ten: (3.29 + 1.28) standard errors.
            let seen = 4.57 * calibration.block_deviation * 1.023 / blocks.sqrt();
            let time = quantity::spoken(Duration::from_secs(u64::from(minutes) * 60));
            let _ = writeln!(text, "In {time} one cell resolves {}.", percent(share_of(seen)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::metric::Metric;
    use crate::gate::outcome::Counted;
    use crate::gate::outcome::tests::outcome;

    #[test]
    fn the_layout_floor_is_the_95th_percentile_of_the_twins() {
        let mut record = Record { twins: (1..=20).map(f64::from).collect(), ..Record::default() };
        assert_eq!(record.calibration(Vec::new()).layout_floor, Some(19.0));
        record.twins = vec![0.003];
        assert_eq!(record.calibration(Vec::new()).layout_floor, Some(0.003));
        record.twins.clear();
        assert_eq!(record.calibration(Vec::new()).layout_floor, None);
    }

    #[test]
    fn cells_that_relinking_moves_either_way_do_not_cancel_in_the_floor() {
        let mut found = outcome(&[Verdict::Pass, Verdict::Pass]);
        for (cell, moved) in found.cells.iter_mut().zip([1.04_f64, 0.96]) {
            cell.result.screen = vec![moved.ln(); 12];
        }
        let mut record = Record::default();
        record.note("relinked", &found);
        let floor = record.calibration(Vec::new()).layout_floor.unwrap();
        assert!((0.039..0.041).contains(&floor), "{floor}");
    }

    #[test]
    fn a_floor_that_was_measured_earlier_is_said_to_be_one() {
        let record = Record::default();
        let mut calibration = record.calibration(Vec::new());
        assert!(record.words(&calibration, None, &Rules::default()).contains("No relinked twin"));
        calibration.layout_floor = Some(0.015);
        let text = record.words(&calibration, None, &Rules::default());
        assert!(text.contains("by up to 1.50 % (as measured earlier)"), "{text}");
    }

    #[test]
    fn the_words_state_the_count_and_its_bound() {
        let record = Record {
            alike: Tally { gates: 299, passed: 299, ..Tally::default() },
            ..Record::default()
        };
        let text =
            record.words(&record.calibration(vec!["x-1t".to_owned()]), None, &Rules::default());
        assert!(
            text.contains("0 false alarms in 299 gates, so the rate is below 1.00 %"),
            "{text}"
        );
    }

    #[test]
    fn an_alarm_on_a_count_is_a_false_alarm() {
        let mut found = outcome(&[Verdict::Pass]);
        let mut record = Record::default();
        record.note("alike", &found);
        assert_eq!((record.alike.alarms, record.alike.passed), (0, 1));
        let (cell, metric) = (found.cells[0].cell.name.clone(), Metric::MinorFaults);
        let (quarantined, stored) = (false, false);
        found.counted.push(Counted {
            cell,
            metric,
            base: 1,
            head: 9,
            allowed: 2,
            quarantined,
            stored,
        });
        let before = record.alike.at_most();
        record.note("alike", &found);
        let tally = record.alike;
        assert_eq!((tally.gates, tally.failed, tally.failed_on_counts), (2, 0, 1));
        assert_eq!((tally.alarms, tally.passed), (1, 1));
        let at_most = Tally { alarms: 0, ..tally }.at_most();
        assert!(tally.at_most() > at_most && before > at_most, "{tally:?}");
    }
}
