//! One gate at work: it runs processes block by block, watches the budget, and keeps every row.
//!
//! Who runs a process is a [`Runner`]: a real worker, or a scripted one in tests.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::verdict::block::{Block, Order, Side};
use crate::verdict::procedure::{Asked, CellResult, Measure, Stage};

/// What one process measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Time of the run.
    pub elapsed_ns: u64,
    /// Page faults without disk access.
    pub minor_faults: u64,
    /// Peak of resident memory above the harness's own.
    pub peak_rss_bytes: u64,
    /// Allocations that returned NULL.
    pub failed_allocations: u64,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It did its work.
    Completed(Process),
    /// The allocator crashed, hung or broke its promise: a lower-case fragment.
    Faulted(String),
    /// Somebody wants to stop.
    Interrupted,
}

/// Who runs processes.
pub trait Runner {
    /// Runs `cell` once on this side, in a fresh process; `seed` pads its environment.
    ///
    /// # Errors
    /// When there is nothing to be said about the allocator.
    fn run(&mut self, cell: usize, side: Side, seed: u64) -> Result<Ran, CliError>;
}

/// One process in the order in which it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Index of the cell.
    pub cell: usize,
    /// Which data it belongs to.
    pub stage: Stage,
    /// Number of the block within its cell and stage, from 0.
    pub block: usize,
    /// Position in the block, 0 to 3.
    pub position: usize,
    /// Order of the block.
    pub order: Order,
    /// Which library.
    pub side: Side,
    /// What padded its environment.
    pub seed: u64,
    /// What it measured.
    pub process: Process,
}

/// A gate that is running.
pub struct Session<'a, R> {
    runner: R,
    rng: ChaCha8Rng,
    deadline: Instant,
    /// What the blocks of each cell took so far, and their number.
    spent: BTreeMap<usize, (Duration, u32)>,
    hear: &'a mut dyn FnMut(usize, &CellResult),
    /// Every process of a complete block.
    pub rows: Vec<Row>,
    /// Whether somebody stopped it.
    pub interrupted: bool,
}

impl<R> std::fmt::Debug for Session<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// No budget is longer: a century.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl<'a, R: Runner> Session<'a, R> {
    /// A session that may run for `budget` from now; `hear` is told of each decided cell.
    pub fn new(
        runner: R,
        seed: u64,
        budget: Duration,
        hear: &'a mut dyn FnMut(usize, &CellResult),
    ) -> Self {
        Session {
            runner,
            rng: ChaCha8Rng::seed_from_u64(seed),
            deadline: Instant::now() + budget.min(LONGEST),
            spent: BTreeMap::new(),
            hear,
            rows: Vec::new(),
            interrupted: false,
        }
    }
}

impl<R: Runner> Measure for Session<'_, R> {
    type Error = CliError;

    fn block(&mut self, cell: usize, stage: Stage, order: Order) -> Result<Asked, CliError> {
        let start = Instant::now();
        if self.interrupted || start >= self.deadline {
            return Ok(Asked::OutOfTime);
        }
        let block = self.rows.iter().filter(|r| (r.cell, r.stage) == (cell, stage)).count() / 4;
        let mut rows = Vec::with_capacity(4);
        let mut times = [0.0; 4];
        for (position, side) in order.sides().into_iter().enumerate() {
            let seed = self.rng.random();
            match self.runner.run(cell, side, seed)? {
                Ran::Completed(process) => {
                    times[position] = process.elapsed_ns as f64;
                    rows.push(Row { cell, stage, block, position, order, side, seed, process });
                }
                Ran::Faulted(reason) => {
                    return Ok(Asked::Faulted(format!("{} {reason}", side.name())));
                }
                Ran::Interrupted => {
                    self.interrupted = true;
                    return Ok(Asked::OutOfTime);
                }
            }
        }
        self.rows.append(&mut rows);
        let (time, blocks) = self.spent.entry(cell).or_default();
        *time += start.elapsed();
        *blocks += 1;
        Ok(Asked::Measured(Block { order, times }))
    }

    fn affords(&self, blocks: &[(usize, usize)]) -> bool {
        let time = |(cell, n): &(usize, usize)| {
            let (time, measured) = self.spent.get(cell).copied().unwrap_or_default();
            time.as_secs_f64() / f64::from(measured.max(1)) * *n as f64
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        blocks.iter().map(time).sum::<f64>() <= left.as_secs_f64()
    }

    fn decided(&mut self, cell: usize, result: &CellResult) {
        (self.hear)(cell, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::procedure;
    use crate::verdict::rules::{Rules, Verdict};

    struct Scripted(fn(usize, Side, u64) -> Ran);

    impl Runner for Scripted {
        fn run(&mut self, cell: usize, side: Side, seed: u64) -> Result<Ran, CliError> {
            Ok((self.0)(cell, side, seed))
        }
    }

    fn took(elapsed_ns: u64) -> Ran {
        Ran::Completed(Process { elapsed_ns, ..Process::default() })
    }

    fn gate(
        run: fn(usize, Side, u64) -> Ran,
        budget: Duration,
    ) -> (Vec<CellResult>, Vec<Row>, bool) {
        let mut hear = |_: usize, _: &CellResult| {};
        let mut session = Session::new(Scripted(run), 1, budget, &mut hear);
        let mut coin = ChaCha8Rng::seed_from_u64(1);
        let rules = [Rules::default(); 2];
        let results = procedure::run(&rules, 0, &mut coin, &mut session).unwrap();
        (results, session.rows, session.interrupted)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn every_process_of_a_complete_block_has_a_row_with_its_own_seed() {
        let (_, rows, _) = gate(|_, _, seed| took(1_000_000 + seed % 1000), LONG);
        assert_eq!(rows.len(), 2 * 12 * 4);
        let mut seeds: Vec<u64> = rows.iter().map(|r| r.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), rows.len());
        let last = rows.last().unwrap();
        assert_eq!((last.cell, last.block, last.position), (1, 11, 3));
    }

    #[test]
    fn an_interrupted_gate_keeps_its_complete_blocks_and_decides_nothing_by_half() {
        fn run(cell: usize, _: Side, seed: u64) -> Ran {
            if cell == 1 { Ran::Interrupted } else { took(1_000_000 + seed % 1000) }
        }
        let (results, rows, interrupted) = gate(run, LONG);
        assert!(interrupted);
        assert_eq!(rows.len(), 4);
        assert!(results.iter().all(|r| r.verdict == Verdict::Inconclusive));
    }

    #[test]
    fn a_crash_says_which_side_crashed() {
        fn run(cell: usize, side: Side, seed: u64) -> Ran {
            match (cell, side) {
                (0, Side::B) => Ran::Faulted("crashed (SIGSEGV)".to_owned()),
                _ => took(1_000_000 + seed % 1000),
            }
        }
        let (results, _, _) = gate(run, LONG);
        assert_eq!(results[0].fault.as_deref(), Some("head crashed (SIGSEGV)"));
        assert_eq!(results[1].verdict, Verdict::Pass);
    }

    #[test]
    fn a_budget_beyond_all_clocks_is_only_a_long_one() {
        let (results, ..) = gate(|_, _, seed| took(1_000_000 + seed % 1000), Duration::MAX);
        assert!(results.iter().all(|r| r.verdict == Verdict::Pass));
    }

    #[test]
    fn no_budget_means_no_process_at_all() {
        let (results, rows, _) = gate(|_, _, _| took(1), Duration::ZERO);
        assert!(rows.is_empty());
        assert!(results.iter().all(|r| r.verdict == Verdict::Inconclusive));
    }
}
