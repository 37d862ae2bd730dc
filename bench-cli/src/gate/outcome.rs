//! What a gate found: one value that every output is written from.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use super::session::Row;
use super::thresholds::Quarantine;
use crate::error::Exit;
use crate::verdict::procedure::CellResult;
use crate::verdict::rules::{Rules, Verdict};
use crate::verdict::words::{self, Judged};

/// A unit of measuring: one workload with one number of threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// `larson-2t`.
    pub name: String,
    /// The workload or trace.
    pub workload: String,
    /// Threads.
    pub threads: u32,
}

/// A cell with its verdict on time.
#[derive(Clone, Debug)]
pub struct CellVerdict {
    /// The cell.
    pub cell: Cell,
    /// The rules that were applied.
    pub rules: Rules,
    /// How it ended.
    pub result: CellResult,
    /// Why it does not count, if it does not.
    pub quarantine: Option<Quarantine>,
}

/// A deterministic metric of one cell on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The cell's name.
    pub cell: String,
    /// What was counted.
    pub metric: Metric,
    /// On the base.
    pub base: u64,
    /// On the head.
    pub head: u64,
    /// The largest value of the head that is allowed.
    pub allowed: u64,
    /// Whether the cell is in quarantine.
    pub quarantined: bool,
    /// Whether `base` comes from a stored baseline, not from the base of this gate.
    #[serde(default)]
    pub stored: bool,
}

impl Counted {
    /// Whether the head is within its limit.
    #[must_use]
    pub fn within(&self) -> bool {
        self.head <= self.allowed
    }

    /// The metric's name, and against what it is held if that is not this gate's base.
    #[must_use]
    pub fn name(&self) -> String {
        let against = if self.stored { "_against_stored" } else { "" };
        format!("{}{against}", self.metric.name())
    }

    /// `FAIL small-churn-1t: instructions 1 200 000 → 1 300 000 (+8.3 %, allowed 1 212 000)`.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = if self.within() { "ok" } else { "FAIL" };
        let growth = if self.base == 0 {
            String::new()
        } else {
            words::signed_percent(self.head as f64 / self.base as f64 - 1.0) + ", "
        };
        format!(
            "{verdict} {}: {} {} → {} ({growth}allowed {})",
            self.cell,
            self.name(),
            self.metric.show(self.base),
            self.metric.show(self.head),
            self.metric.show(self.allowed)
        )
    }
}

/// Everything a gate found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The base's name, as given.
    pub base: String,
    /// The head's name, as given.
    pub head: String,
    /// Verdicts on time.
    pub cells: Vec<CellVerdict>,
    /// Deterministic metrics.
    pub counted: Vec<Counted>,
    /// Every process.
    pub rows: Vec<Row>,
    /// Seed of every random choice.
    pub seed: u64,
    /// How much slower the head was made on purpose.
    pub injected: f64,
    /// How long it took.
    pub took: Duration,
    /// Whether somebody stopped it.
    pub interrupted: bool,
}

impl Outcome {
    /// The cells as the sentence reads them.
    #[must_use]
    pub fn judged(&self) -> Vec<Judged<'_>> {
        self.cells
            .iter()
            .map(|c| Judged {
                name: &c.cell.name,
                result: &c.result,
                rules: &c.rules,
                quarantined: c.quarantine.is_some(),
            })
            .collect()
    }

    /// Deterministic metrics over their limit that count.
    pub fn exceeded(&self) -> impl Iterator<Item = &Counted> {
        self.counted.iter().filter(|c| !c.within() && !c.quarantined)
    }

    /// The gate's one verdict: the worst that counts. Nothing measured is inconclusive.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let timing = self.judged().iter().filter_map(Judged::counted).max();
        let counted = self.exceeded().next().map(|_| Verdict::Fail);
        let worst = timing.unwrap_or(Verdict::Inconclusive);
        counted.map_or(worst, |fail| worst.max(fail))
    }

    /// The documented exit code of the verdict.
    #[must_use]
    pub fn exit(&self, allow_inconclusive: bool) -> Exit {
        if self.interrupted {
            return Exit::Interrupted;
        }
        match self.verdict() {
            Verdict::Pass => Exit::Success,
            Verdict::Inconclusive if allow_inconclusive => Exit::Success,
            Verdict::Inconclusive => Exit::Inconclusive,
            Verdict::Fail => Exit::Regression,
            Verdict::Fault => Exit::AllocatorFault,
        }
    }

    /// The gate in words.
    #[must_use]
    pub fn sentence(&self) -> String {
        words::sentence(self.exceeded().map(Counted::line), &self.judged())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verdict::block::log_of;

    /// An outcome with one cell per verdict given, for the outputs' tests too.
    pub(crate) fn outcome(verdicts: &[Verdict]) -> Outcome {
        let cells = verdicts
            .iter()
            .enumerate()
            .map(|(i, verdict)| {
                let (centre, blocks) = match verdict {
                    Verdict::Pass => (0.0, 12),
                    Verdict::Inconclusive => (0.03, 160),
                    _ => (0.061, 96),
                };
                let d: Vec<f64> = (0..blocks)
                    .map(|b| log_of(centre + 0.05 * ((b as f64 + 0.5) / blocks as f64 - 0.5)))
                    .collect();
                let fresh = if blocks > 12 { d.clone() } else { Vec::new() };
                let fault =
                    (*verdict == Verdict::Fault).then(|| "head crashed (SIGSEGV)".to_owned());
                CellVerdict {
                    cell: Cell {
                        name: format!("cell{i}-2t"),
                        workload: format!("cell{i}"),
                        threads: 2,
                    },
                    rules: Rules::default(),
                    result: CellResult {
                        verdict: *verdict,
                        screen: d[..12].to_vec(),
                        fresh,
                        cells_left: 1,
                        fault,
                    },
                    quarantine: None,
                }
            })
            .collect();
        Outcome {
            base: "base.so".to_owned(),
            head: "head.so".to_owned(),
            cells,
            counted: Vec::new(),
            rows: Vec::new(),
            seed: 1,
            injected: 0.0,
            took: Duration::from_secs(48),
            interrupted: false,
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_cell() {
        use Verdict::{Fail, Fault, Inconclusive, Pass};
        for (verdicts, exit) in [
            (&[Pass, Pass][..], Exit::Success),
            (&[Pass, Inconclusive], Exit::Inconclusive),
            (&[Inconclusive, Fail, Pass], Exit::Regression),
            (&[Fail, Fault], Exit::AllocatorFault),
            (&[], Exit::Inconclusive),
        ] {
            assert_eq!(outcome(verdicts).exit(false), exit, "{verdicts:?}");
        }
        assert_eq!(outcome(&[Inconclusive]).exit(true), Exit::Success);
        assert_eq!(outcome(&[Inconclusive, Fail]).exit(true), Exit::Regression);
    }

    #[test]
    fn a_counted_metric_can_fail_a_gate_whose_timings_pass_and_never_pass_one() {
        let mut found = outcome(&[Verdict::Pass]);
        let counted = |head| Counted {
            cell: "cell0-2t".to_owned(),
            metric: Metric::MinorFaults,
            base: 100,
            head,
            allowed: 116,
            quarantined: false,
            stored: false,
        };
        found.counted = vec![counted(117)];
        assert_eq!(found.exit(false), Exit::Regression);
        assert_eq!(
            found.sentence(),
            "FAIL cell0-2t: minor_faults 100 → 117 (+17.0 %, allowed 116). 1 pass (shown < 5 %)."
        );
        found.counted[0].quarantined = true;
        assert_eq!(found.exit(false), Exit::Success);
        let mut undecided = outcome(&[Verdict::Inconclusive]);
        undecided.counted = vec![counted(100)];
        assert_eq!(undecided.exit(false), Exit::Inconclusive);
    }

    #[test]
    fn an_interrupted_gate_exits_as_interrupted() {
        let mut found = outcome(&[Verdict::Fail]);
        found.interrupted = true;
        assert_eq!(found.exit(false), Exit::Interrupted);
    }
}
