//! The two-stage procedure: which block is run next, and when it ends.
//!
//! It owns the coin and the order of work, and asks a [`Measure`] for one block at a time, so that
//! real processes, a cluster's finished cells and simulated machines go through the same code.
//!
//! # Invariants
//! 1. A difference is used in one stage only: stage 2 begins with no data.
//! 2. Cells take turns block by block, so that a bad minute of the machine falls on all of them.
//! 3. Running out of time never fails a cell.
//!
//! Stage 2 goes in legs: a leg brings cells to their next look. Where the time does not suffice for
//! all of them, those go that need the fewest blocks for a decision, and the others wait: blocks
//! that reach no look decide nothing. Which cells wait may depend on the data, because each look
//! has its own share of the error, and a look that is not taken cannot err.

#![forbid(unsafe_code)]

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::block::{Block, Order};
use super::rules::{Rules, Verdict};

/// What became of a block that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// It was measured.
    Measured(Block),
    /// A process crashed or broke a promise; the cell is given up, with this reason.
    Faulted(String),
    /// The budget is spent, or the user wants to stop: nothing more is measured.
    OutOfTime,
}

/// Who measures blocks.
pub trait Measure {
    /// What ends everything at once: a bug, a full disk.
    type Error;

    /// Runs one block of `cell` in this order.
    ///
    /// # Errors
    /// Whatever makes it pointless to go on with any cell.
    fn block(&mut self, cell: usize, stage: Stage, order: Order) -> Result<Asked, Self::Error>;

    /// Whether there is time for all these blocks, given as cell and number.
    fn affords(&self, _blocks: &[(usize, usize)]) -> bool {
        true
    }

    /// Hears that `cell` is decided.
    fn decided(&mut self, _cell: usize, _result: &CellResult) {}
}

/// Which data a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stage 1: every cell, few blocks.
    Screen,
    /// Stage 2: the cells left, fresh data.
    Fresh,
}

impl Stage {
    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Screen => "screen",
            Stage::Fresh => "fresh",
        }
    }
}

/// How one cell ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The conclusion.
    pub verdict: Verdict,
    /// Differences of stage 1.
    pub screen: Vec<f64>,
    /// Differences of stage 2; empty where stage 1 decided.
    pub fresh: Vec<f64>,
    /// How many cells stage 2 began with, this one among them; 0 before it began.
    pub cells_left: usize,
    /// Why there is no timing, with [`Verdict::Fault`].
    pub fault: Option<String>,
}

impl CellResult {
    /// The stage whose data stand for this cell, and those data.
    #[must_use]
    pub fn evidence(&self) -> (Stage, &[f64]) {
        if self.fresh.is_empty() {
            (Stage::Screen, &self.screen)
        } else {
            (Stage::Fresh, &self.fresh)
        }
    }
}

/// Runs the whole procedure over `rules.len()` cells, each with its own rules. `elsewhere` cells of
/// the same gate are judged by others, who cannot tell in time how many they have left: all of them
/// share the false-alarm budget.
///
/// # Errors
/// The first error of `measure`.
pub fn run<M: Measure>(
    rules: &[Rules],
    elsewhere: usize,
    rng: &mut impl Rng,
    measure: &mut M,
) -> Result<Vec<CellResult>, M::Error> {
    let mut trial = Trial {
        rules,
        elsewhere,
        time_left: true,
        open: vec![true; rules.len()],
        results: rules.iter().map(|_| undecided()).collect(),
    };
    trial.screen(rng, measure)?;
    trial.fresh(rng, measure)?;
    Ok(trial.results)
}

fn undecided() -> CellResult {
    CellResult {
        verdict: Verdict::Inconclusive,
        screen: Vec::new(),
        fresh: Vec::new(),
        cells_left: 0,
        fault: None,
    }
}

struct Trial<'a> {
    rules: &'a [Rules],
    elsewhere: usize,
    time_left: bool,
    /// The cells that are not decided yet.
    open: Vec<bool>,
    results: Vec<CellResult>,
}

impl Trial<'_> {
    fn screen<M: Measure>(&mut self, rng: &mut impl Rng, measure: &mut M) -> Result<(), M::Error> {
        let most = self.rules.iter().map(|r| r.screen_blocks).max().unwrap_or(0);
        for turn in 0..most {
            for cell in 0..self.rules.len() {
                if turn < self.rules[cell].screen_blocks {
                    self.turn(cell, Stage::Screen, rng, measure)?;
                }
            }
        }
        for cell in 0..self.rules.len() {
            if self.open[cell] && self.rules[cell].passes_screen(&self.results[cell].screen) {
                self.decide(cell, Verdict::Pass, measure);
            }
        }
        Ok(())
    }

    fn fresh<M: Measure>(&mut self, rng: &mut impl Rng, measure: &mut M) -> Result<(), M::Error> {
        let cells_left = self.elsewhere + self.open.iter().filter(|open| **open).count();
        for cell in 0..self.rules.len() {
            if self.open[cell] {
                self.results[cell].cells_left = cells_left;
            }
        }
        loop {
            let leg = self.leg(measure);
            let longest = leg.iter().map(|(_, lacking)| *lacking).max().unwrap_or(0);
            if longest == 0 || !self.time_left {
                break;
            }
            for turn in 0..longest {
                for (cell, lacking) in &leg {
                    if turn < *lacking {
                        self.turn(*cell, Stage::Fresh, rng, measure)?;
                        self.look(*cell, cells_left, measure);
                    }
                }
            }
        }
        for cell in 0..self.rules.len() {
            if self.open[cell] {
                self.decide(cell, Verdict::Inconclusive, measure);
            }
        }
        Ok(())
    }

    /// The open cells that can be brought to their next look in the time there is, by number, and
    /// the blocks they lack for it.
    fn leg<M: Measure>(&self, measure: &M) -> Vec<(usize, usize)> {
        let mut open: Vec<(u64, usize, usize)> = (0..self.rules.len())
            .filter(|cell| self.open[*cell])
            .filter_map(|cell| {
                let (rules, result) = (&self.rules[cell], &self.results[cell]);
                let have = result.fresh.len();
                let next = rules.looks.into_iter().find(|look| *look > have)?;
                let needed = rules.blocks_needed(result.evidence().1, result.cells_left);
                let lacking = needed.map_or(u64::MAX, |needed| needed.saturating_sub(have as u64));
                Some((lacking, cell, next - have))
            })
            .collect();
        open.sort_unstable();
        let mut leg = Vec::with_capacity(open.len());
        for (_, cell, blocks) in open {
            leg.push((cell, blocks));
            if !measure.affords(&leg) {
                leg.pop();
            }
        }
        leg.sort_unstable();
        leg
    }

    /// One block of `cell`, if it is still open and there is time.
    fn turn<M: Measure>(
        &mut self,
        cell: usize,
        stage: Stage,
        rng: &mut impl Rng,
        measure: &mut M,
    ) -> Result<(), M::Error> {
        if !(self.open[cell] && self.time_left) {
            return Ok(());
        }
        let result = &mut self.results[cell];
        match measure.block(cell, stage, Order::toss(rng))? {
            Asked::Measured(block) => match (block.difference(), stage) {
                (Some(difference), Stage::Screen) => result.screen.push(difference),
                (Some(difference), Stage::Fresh) => result.fresh.push(difference),
                (None, _) => {
                    result.fault = Some("a process reported no usable time".to_owned());
                    self.decide(cell, Verdict::Fault, measure);
                }
            },
            Asked::Faulted(reason) => {
                result.fault = Some(reason);
                self.decide(cell, Verdict::Fault, measure);
            }
            Asked::OutOfTime => self.time_left = false,
        }
        Ok(())
    }

    fn look<M: Measure>(&mut self, cell: usize, cells_left: usize, measure: &mut M) {
        // Without a new block this would be a second look at the same data.
        if !(self.open[cell] && self.time_left) {
            return;
        }
        let (rules, fresh) = (&self.rules[cell], &self.results[cell].fresh);
        if !rules.looks.contains(&fresh.len()) {
            return;
        }
        let last = rules.looks.last() == Some(&fresh.len());
        match rules.look(fresh, cells_left) {
            Some(verdict) => self.decide(cell, verdict, measure),
            None if last => self.decide(cell, Verdict::Inconclusive, measure),
            None => {}
        }
    }

    fn decide<M: Measure>(&mut self, cell: usize, verdict: Verdict, measure: &mut M) {
        self.open[cell] = false;
        self.results[cell].verdict = verdict;
        measure.decided(cell, &self.results[cell]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::block::Side;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A machine whose cells have a fixed slowdown and a noise that the test chooses.
    struct Scripted {
        slowdown: Vec<f64>,
        noise: fn(usize) -> f64,
        asked: Vec<(usize, Stage)>,
        blocks_until_timeout: usize,
        faulty: Option<usize>,
        elsewhere: usize,
        affordable: usize,
    }

    impl Scripted {
        fn new(slowdown: &[f64]) -> Self {
            Scripted {
                slowdown: slowdown.to_vec(),
                noise: |i| 0.01 * ((i * 37 % 19) as f64 / 19.0 - 0.5),
                asked: Vec::new(),
                blocks_until_timeout: usize::MAX,
                faulty: None,
                elsewhere: 0,
                affordable: usize::MAX,
            }
        }

        fn run(&mut self) -> Vec<CellResult> {
            let rules = vec![Rules::default(); self.slowdown.len()];
            run(&rules, self.elsewhere, &mut ChaCha8Rng::seed_from_u64(1), self).unwrap()
        }
    }

    impl Measure for Scripted {
        type Error = std::convert::Infallible;

        fn block(&mut self, cell: usize, stage: Stage, order: Order) -> Result<Asked, Self::Error> {
            if self.asked.len() >= self.blocks_until_timeout {
                return Ok(Asked::OutOfTime);
            }
            self.asked.push((cell, stage));
            if self.faulty == Some(cell) {
                return Ok(Asked::Faulted("killed by signal 11".to_owned()));
            }
            let process = 4 * self.asked.len();
            let mut times = [0.0; 4];
            for (i, side) in order.sides().into_iter().enumerate() {
                let slower = if side == Side::B { 1.0 + self.slowdown[cell] } else { 1.0 };
                times[i] = 0.1 * slower * (1.0 + (self.noise)(process + i));
            }
            Ok(Asked::Measured(Block { order, times }))
        }

        fn affords(&self, blocks: &[(usize, usize)]) -> bool {
            let wanted: usize = blocks.iter().map(|(_, n)| n).sum();
            self.asked.len() + wanted <= self.affordable
        }
    }

    fn verdicts(results: &[CellResult]) -> Vec<Verdict> {
        results.iter().map(|r| r.verdict).collect()
    }

    #[test]
    fn equal_sides_pass_in_stage_one_and_cost_twelve_blocks_each() {
        let mut machine = Scripted::new(&[0.0, 0.0, 0.0]);
        assert_eq!(verdicts(&machine.run()), [Verdict::Pass; 3]);
        assert_eq!(machine.asked.len(), 36);
    }

    #[test]
    fn a_slowed_cell_fails_on_fresh_data_at_the_first_look() {
        let mut machine = Scripted::new(&[0.0, 0.08]);
        let results = machine.run();
        assert_eq!(verdicts(&results), [Verdict::Pass, Verdict::Fail]);
        assert_eq!((results[1].screen.len(), results[1].fresh.len()), (12, 24));
        assert_eq!(results[1].cells_left, 1);
    }

    #[test]
    fn cells_judged_elsewhere_share_the_false_alarm_budget() {
        let mut machine = Scripted::new(&[0.0, 0.08]);
        machine.elsewhere = 18;
        assert_eq!(machine.run()[1].cells_left, 19);
    }

    #[test]
    fn cells_take_turns_block_by_block() {
        let mut machine = Scripted::new(&[0.1, 0.1]);
        machine.run();
        let cells: Vec<usize> = machine.asked.iter().map(|(cell, _)| *cell).collect();
        assert!(cells.chunks(2).all(|pair| pair == [0, 1]));
    }

    #[test]
    fn a_budget_that_ends_never_fails_a_cell_however_slow_it_is() {
        for blocks in [0, 5, 12, 35] {
            let mut machine = Scripted::new(&[0.5]);
            machine.blocks_until_timeout = blocks;
            assert_eq!(verdicts(&machine.run()), [Verdict::Inconclusive], "{blocks} blocks");
        }
        let mut machine = Scripted::new(&[0.5]);
        machine.blocks_until_timeout = 36;
        assert_eq!(verdicts(&machine.run()), [Verdict::Fail]);
    }

    #[test]
    fn time_for_one_of_two_cells_brings_one_to_a_decision_instead_of_neither() {
        // Neither passes stage 1. Time is for 24 blocks of one of them.
        let mut machine = Scripted::new(&[0.05, 0.2]);
        machine.affordable = 2 * 12 + 24;
        let mut fresh: Vec<usize> = machine.run().iter().map(|r| r.fresh.len()).collect();
        fresh.sort_unstable();
        assert_eq!(fresh, [0, 24]);
        let mut machine = Scripted::new(&[0.05, 0.2]);
        machine.affordable = 2 * 12 + 23;
        assert_eq!(verdicts(&machine.run()), [Verdict::Inconclusive; 2]);
        assert_eq!(machine.asked.len(), 24, "blocks that reach no look are not run");
    }

    #[test]
    fn a_crash_gives_up_its_own_cell_and_no_other() {
        let mut machine = Scripted::new(&[0.0, 0.0, 0.0]);
        machine.faulty = Some(1);
        let results = machine.run();
        assert_eq!(verdicts(&results), [Verdict::Pass, Verdict::Fault, Verdict::Pass]);
        assert_eq!(results[1].fault.as_deref(), Some("killed by signal 11"));
        assert_eq!(machine.asked.iter().filter(|(cell, _)| *cell == 1).count(), 1);
    }

    #[test]
    fn what_cannot_be_decided_ends_inconclusive_after_the_last_look() {
        let mut machine = Scripted::new(&[0.0]);
        machine.noise = |i| if (i * 2_654_435_761) >> 7 & 1 == 1 { 9.0 } else { 0.0 };
        let results = machine.run();
        assert_eq!(verdicts(&results), [Verdict::Inconclusive]);
        assert_eq!(results[0].fresh.len(), 160);
    }
}
