//! One gate from libraries and plans to an [`Outcome`]: rehearse, measure, count.
//!
//! `gate`, `compare`, `calibrate` and `cell` all come through here.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use workloads::engine::Touch;

use super::date::Date;
use super::metric::Metric;
use super::outcome::{Cell, CellVerdict, Counted, Outcome};
use super::session::{Process, Row, Runner, Session};
use super::thresholds::Thresholds;
use crate::error::CliError;
use crate::verdict::block::Side;
use crate::verdict::procedure::{self, CellResult};
use crate::verdict::rules::Rules;

/// A cell with the plan its workers execute.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The cell.
    pub cell: Cell,
    /// Its plan file.
    pub plan: PathBuf,
    /// Which bytes of fresh objects are written.
    pub touch: Touch,
    /// Hash of the event stream: the same hash is the same work.
    pub stream_hash: Option<String>,
}

/// What is to be judged.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The base's name, for reports.
    pub base: String,
    /// The head's name, for reports.
    pub head: String,
    /// The cells.
    pub cells: Vec<Cell>,
    /// Rules, limits and quarantines.
    pub thresholds: Thresholds,
    /// How long it may take.
    pub budget: Duration,
    /// Seed of every random choice.
    pub seed: u64,
    /// How much slower the head is made, for reports.
    pub injected: f64,
    /// Cells of the same gate that are judged elsewhere: they share the false-alarm budget.
    pub elsewhere: usize,
}

impl Trial {
    /// Runs it; `hear` is told of each decided cell.
    ///
    /// # Errors
    /// When a process cannot be run at all. What an allocator does wrong is part of the outcome.
    pub fn run<R: Runner>(
        &self,
        runner: R,
        hear: &mut dyn FnMut(&Cell, &CellResult),
    ) -> Result<Outcome, CliError> {
        let start = Instant::now();
        let rules: Vec<Rules> =
            self.cells.iter().map(|cell| self.thresholds.rules_of(&cell.name)).collect();
        let mut hear = |cell: usize, result: &CellResult| hear(&self.cells[cell], result);
        // The coin and the padding have streams of their own, so that neither disturbs the other.
        let mut coin = ChaCha8Rng::seed_from_u64(self.seed);
        coin.set_stream(1);
        let mut session = Session::new(runner, self.seed, self.budget, &mut hear);
        let results = procedure::run(&rules, self.elsewhere, &mut coin, &mut session)?;
        let (rows, interrupted) = (session.rows, session.interrupted);
        let today = Date::today();
        let cells: Vec<CellVerdict> = self
            .cells
            .iter()
            .zip(rules)
            .zip(results)
            .map(|((cell, rules), result)| CellVerdict {
                cell: cell.clone(),
                rules,
                result,
                quarantine: self.thresholds.quarantine_of(&cell.name, today).cloned(),
            })
            .collect();
        let counted = self.count(&cells, &rows);
        Ok(Outcome {
            base: self.base.clone(),
            head: self.head.clone(),
            cells,
            counted,
            rows,
            seed: self.seed,
            injected: self.injected,
            took: start.elapsed(),
            interrupted,
        })
    }

    /// Metrics that come with every process: medians over all processes of a side.
    ///
    /// Only cells with one thread: where threads race, how many pages are touched is no constant.
    /// Failed allocations count for every cell, and as many as the worst process has: memory that is
    /// refused now and then is refused.
    fn count(&self, cells: &[CellVerdict], rows: &[Row]) -> Vec<Counted> {
        let mut counted = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            let side = |side: Side| -> Vec<Process> {
                let of_side = rows.iter().filter(|r| r.cell == index && r.side == side);
                of_side.map(|r| r.process).collect()
            };
            let (base, head) = (side(Side::A), side(Side::B));
            if base.is_empty() || head.is_empty() {
                continue;
            }
            let metrics: [(Metric, Count); 3] = [
                (Metric::MinorFaults, |p| p.minor_faults),
                (Metric::PeakRssBytes, |p| p.peak_rss_bytes),
                (Metric::FailedAllocations, |p| p.failed_allocations),
            ];
            for (metric, value) in metrics {
                if cell.cell.threads > 1 && metric != Metric::FailedAllocations {
                    continue;
                }
                let of = |side: &[Process]| {
                    let values: Vec<u64> = side.iter().map(value).collect();
                    match metric {
                        Metric::FailedAllocations => values.into_iter().max().unwrap_or(0),
                        _ => median(values),
                    }
                };
                let (base, head) = (of(&base), of(&head));
                if metric == Metric::FailedAllocations && base == 0 && head == 0 {
                    continue;
                }
                counted.push(Counted {
                    cell: cell.cell.name.clone(),
                    metric,
                    base,
                    head,
                    allowed: self.thresholds.limits[&metric].allowed(base),
                    quarantined: cell.quarantine.is_some(),
                    stored: false,
                });
            }
        }
        counted
    }
}

/// Reads one count of a process.
type Count = fn(&Process) -> u64;

/// The upper median: an odd process out does not move it.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::session::Ran;
    use super::*;
    use crate::error::Exit;
    use crate::verdict::rules::Verdict;

    /// A machine with one per cent of noise, drawn from the seed that pads the environment.
    struct Simulated {
        slowdown: f64,
        faults_of_head: u64,
    }

    impl Runner for Simulated {
        fn run(&mut self, _: usize, side: Side, seed: u64) -> Result<Ran, CliError> {
            let noise = 1.0 + 0.01 * ((seed % 1000) as f64 / 1000.0 - 0.5);
            let (slower, minor_faults) = match side {
                Side::A => (1.0, 1000),
                Side::B => (1.0 + self.slowdown, self.faults_of_head),
            };
            Ok(Ran::Completed(Process {
                elapsed_ns: (1e8 * noise * slower) as u64,
                minor_faults,
                ..Process::default()
            }))
        }
    }

    fn trial(threads: u32) -> Trial {
        let cell = |name: &str| Cell { name: name.to_owned(), workload: name.to_owned(), threads };
        Trial {
            base: "a".to_owned(),
            head: "b".to_owned(),
            cells: vec![cell("x"), cell("y")],
            thresholds: Thresholds::default(),
            budget: Duration::from_secs(3600),
            seed: 1,
            injected: 0.0,
            elsewhere: 0,
        }
    }

    fn run(trial: &Trial, machine: Simulated) -> Outcome {
        trial.run(machine, &mut |_, _| {}).unwrap()
    }

    #[test]
    fn alike_passes_and_slowed_fails_with_every_process_kept() {
        let alike = run(&trial(1), Simulated { slowdown: 0.0, faults_of_head: 1000 });
        assert_eq!((alike.exit(false), alike.rows.len()), (Exit::Success, 96));
        let slowed = run(&trial(1), Simulated { slowdown: 0.1, faults_of_head: 1000 });
        assert_eq!(slowed.exit(false), Exit::Regression);
        assert_eq!(slowed.rows.len(), 96 + 2 * 24 * 4);
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome() {
        let once = || run(&trial(1), Simulated { slowdown: 0.03, faults_of_head: 1000 }).rows;
        assert_eq!(once(), once());
    }

    #[test]
    fn more_page_faults_fail_a_cell_of_one_thread_and_are_not_judged_with_more() {
        let more = || Simulated { slowdown: 0.0, faults_of_head: 1100 };
        let one = run(&trial(1), more());
        assert_eq!((one.verdict(), one.exceeded().count()), (Verdict::Fail, 2));
        assert_eq!(run(&trial(2), more()).verdict(), Verdict::Pass);
    }

    /// A machine on which the head is refused memory in one process of four.
    struct Refusing(Simulated, [usize; 2]);

    impl Runner for Refusing {
        fn run(&mut self, cell: usize, side: Side, seed: u64) -> Result<Ran, CliError> {
            let mut ran = self.0.run(cell, side, seed)?;
            if let (Side::B, Ran::Completed(process)) = (side, &mut ran) {
                process.failed_allocations = u64::from(self.1[cell].is_multiple_of(4));
                self.1[cell] += 1;
            }
            Ok(ran)
        }
    }

    #[test]
    fn memory_refused_in_a_process_of_four_fails_a_cell_of_any_number_of_threads() {
        for threads in [1, 2] {
            let machine = Refusing(Simulated { slowdown: 0.0, faults_of_head: 1000 }, [0; 2]);
            let found = trial(threads).run(machine, &mut |_, _| {}).unwrap();
            assert_eq!(found.exit(false), Exit::Regression, "{threads}");
            let failed: Vec<_> = found.exceeded().map(|c| (c.metric, c.base, c.head)).collect();
            assert_eq!(failed, [(Metric::FailedAllocations, 0, 1); 2]);
        }
    }

    #[test]
    fn a_quarantined_cell_does_not_fail_the_gate() {
        let mut trial = trial(1);
        let until = Date::new(9999, 1, 1).unwrap();
        for cell in ["x", "y"] {
            let reason = "noise".to_owned();
            trial.thresholds.quarantine.push(super::super::thresholds::Quarantine {
                cell: cell.to_owned(),
                until,
                reason,
            });
        }
        let found = run(&trial, Simulated { slowdown: 0.1, faults_of_head: 2000 });
        assert_eq!(found.verdict(), Verdict::Inconclusive, "nothing that counts was shown");
        assert_eq!(found.cells[0].result.verdict, Verdict::Fail);
    }
}
