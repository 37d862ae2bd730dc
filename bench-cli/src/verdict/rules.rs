//! The numbers of the two-stage procedure, and what they decide on given differences.
//!
//! Stage 1 screens every cell on a few blocks and lets pass only what is shown to be less than the
//! margin slower. Stage 2 looks at the cells left on fresh data, a few times, and splits the error
//! over the cells and the looks (Bonferroni), so that a gate as a whole keeps its false-alarm rate.
//! FAIL needs two things: evidence against "slower by at most the layout floor", and an estimate of
//! at least half the margin, because shown is not the same as worth stopping for.
//!
//! Shares here are shares (0.05 is 5 %); differences are differences of logarithms.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::block::log_of;
use super::location::WalshAverages;
use super::signed_rank::{p_above, p_below};

/// What is concluded about a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Shown to be slower by less than the margin.
    Pass,
    /// Neither shown. Never a regression: also when the budget ends.
    Inconclusive,
    /// Shown to be slower by more than the layout floor, by an estimate worth stopping for.
    Fail,
    /// A process crashed or broke a promise: there is no timing to judge.
    Fault,
}

impl Verdict {
    /// The word in files and sentences.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
            Verdict::Fault => "fault",
        }
    }
}

/// The numbers of the procedure.
///
/// # Invariants
/// 1. 0 ≤ `layout_floor` < `least_estimate` ≤ `margin` < 1.
/// 2. `screen_blocks` and every look are large enough that the exact test can reach its level.
/// 3. `looks` grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A slowdown of this share or more must not pass.
    pub margin: f64,
    /// Relinking the same code moves timings by up to this share: no one is blamed for it.
    pub layout_floor: f64,
    /// FAIL needs an estimate above this share.
    pub least_estimate: f64,
    /// Blocks per cell in stage 1.
    pub screen_blocks: usize,
    /// Level at which stage 1 must reject "slower by the margin or more".
    pub screen_level: f64,
    /// Numbers of fresh blocks at which stage 2 looks.
    pub looks: [usize; 4],
    /// False-alarm budget of stage 2, over all its cells and looks.
    pub fail_level: f64,
    /// Level of PASS in stage 2, over all looks of one cell.
    pub pass_level: f64,
}

/// Confidence of the intervals that are shown.
pub const SHOWN_CONFIDENCE: f64 = 0.999;

impl Default for Rules {
    fn default() -> Self {
        Rules {
            margin: 0.05,
            layout_floor: 0.01,
            least_estimate: 0.025,
            screen_blocks: 12,
            screen_level: 0.01,
            looks: [24, 48, 96, 160],
            fail_level: 0.005,
            pass_level: 0.01,
        }
    }
}

/// Why a set of rules makes no sense: a lower-case fragment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(pub String);

impl Rules {
    /// These rules with another margin; FAIL then needs an estimate above half of it.
    #[must_use]
    pub fn with_margin(self, margin: f64) -> Self {
        Rules { margin, least_estimate: margin / 2.0, ..self }
    }

    /// These rules with a layout floor: at least the one they have.
    #[must_use]
    pub fn with_layout_floor(self, floor: f64) -> Self {
        Rules { layout_floor: self.layout_floor.max(floor), ..self }
    }

    /// Tests the invariants.
    ///
    /// # Errors
    /// Which number contradicts which.
    pub fn check(&self) -> Result<(), RulesError> {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        if !(self.margin > 0.0 && self.margin < 1.0) {
            return Err(RulesError(format!(
                "a margin of {} is not between 0 and 100 %",
                percent(self.margin)
            )));
        }
        if !(self.layout_floor >= 0.0 && self.layout_floor < self.least_estimate) {
            return Err(RulesError(format!(
                "a layout floor of {} leaves no room below half the margin of {}",
                percent(self.layout_floor),
                percent(self.margin)
            )));
        }
        debug_assert!(self.least_estimate <= self.margin && self.looks.is_sorted());
        Ok(())
    }

    /// Stage 1: is this cell shown to be less than the margin slower?
    #[must_use]
    pub fn passes_screen(&self, differences: &[f64]) -> bool {
        differences.len() >= self.screen_blocks
            && p_below(differences, log_of(self.margin)) < self.screen_level
    }

    /// Stage 2: what a look at the fresh `differences` of one of `cells_left` cells decides.
    #[must_use]
    pub fn look(&self, differences: &[f64], cells_left: usize) -> Option<Verdict> {
        if self.shows_slowdown(differences, cells_left) {
            return Some(Verdict::Fail);
        }
        let p_pass = p_below(differences, log_of(self.margin));
        (p_pass < self.pass_level / self.looks.len() as f64).then_some(Verdict::Pass)
    }

    fn shows_slowdown(&self, differences: &[f64], cells_left: usize) -> bool {
        let level = self.fail_level / cells_left.max(1) as f64 / self.looks.len() as f64;
        p_above(differences, log_of(self.layout_floor)) < level
            && WalshAverages::of(differences)
                .estimate()
                .is_some_and(|estimate| estimate > log_of(self.least_estimate))
    }

    /// How many blocks, in order of magnitude, an inconclusive cell would have needed for a
    /// decision in nine of ten cases, were its estimate and spread the truth. `None` where no
    /// number of blocks would do: the estimate lies at a limit, or there are too few differences.
    #[must_use]
    pub fn blocks_needed(&self, differences: &[f64], cells_left: usize) -> Option<u64> {
        let estimate = WalshAverages::of(differences).estimate()?;
        let looks = self.looks.len() as f64;
        // The estimate's standard error is spread · sqrt(π/3) / sqrt(n) under a normal law.
        let spread = spread(differences)? * (std::f64::consts::PI / 3.0).sqrt();
        let needed = |distance: f64, level: f64| {
            let blocks =
                ((normal_quantile(level) + normal_quantile(0.1)) * spread / distance).powi(2);
            (distance > 0.0).then_some(blocks)
        };
        let pass = needed(log_of(self.margin) - estimate, self.pass_level / looks);
        let fail = needed(
            estimate - log_of(self.layout_floor),
            self.fail_level / cells_left.max(1) as f64 / looks,
        )
        .filter(|_| estimate > log_of(self.least_estimate));
        let blocks = pass.into_iter().chain(fail).min_by(f64::total_cmp)?;
        // Beyond this a number is no advice.
        (blocks < 100_000.0).then(|| one_digit(blocks.max(self.looks[0] as f64)))
    }
}

/// A robust standard deviation: 1.4826 times the median distance from the median.
fn spread(differences: &[f64]) -> Option<f64> {
    let median = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let centre = median(differences.to_vec())?;
    median(differences.iter().map(|d| (d - centre).abs()).collect()).map(|mad| 1.4826 * mad)
}

/// z with P(Z > z) = `tail`, for 0 < tail ≤ 0.5, within 5e-4 (Abramowitz & Stegun 26.2.23).
fn normal_quantile(tail: f64) -> f64 {
    let t = (-2.0 * tail.ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328))
        / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

/// Rounded up to one leading digit: an order of magnitude pretends no more.
fn one_digit(value: f64) -> u64 {
    let unit = 10.0_f64.powf(value.log10().floor());
    ((value / unit).ceil() * unit) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences evenly spread over `centre` ± `width`, in logarithms.
    fn around(centre: f64, width: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| centre + width * (2.0 * (i as f64 + 0.5) / n as f64 - 1.0)).collect()
    }

    #[test]
    fn the_rules_are_those_of_the_method() {
        let rules = Rules::default();
        rules.check().unwrap();
        assert_eq!((rules.screen_blocks, rules.looks), (12, [24, 48, 96, 160]));
    }

    #[test]
    fn the_screen_lets_pass_only_what_is_shown_below_the_margin() {
        let rules = Rules::default();
        assert!(rules.passes_screen(&around(0.0, 0.03, 12)));
        assert!(!rules.passes_screen(&around(0.0, 0.03, 11)), "too few blocks");
        assert!(!rules.passes_screen(&around(0.0, 0.30, 12)), "too noisy to show anything");
        assert!(!rules.passes_screen(&around(0.05, 0.01, 12)), "at the margin");
    }

    #[test]
    fn a_clear_slowdown_fails_and_a_clear_tie_passes_at_the_first_look() {
        let rules = Rules::default();
        assert_eq!(rules.look(&around(0.06, 0.03, 24), 6), Some(Verdict::Fail));
        assert_eq!(rules.look(&around(0.0, 0.03, 24), 6), Some(Verdict::Pass));
        assert_eq!(rules.look(&around(0.0, 0.50, 24), 6), None);
    }

    #[test]
    fn a_slowdown_shown_but_below_half_the_margin_does_not_fail() {
        let rules = Rules::default();
        assert_eq!(rules.look(&around(0.02, 0.001, 160), 1), Some(Verdict::Pass));
    }

    #[test]
    fn a_difference_that_relinking_explains_does_not_fail() {
        let rules = Rules::default().with_margin(0.05).with_layout_floor(0.02);
        let d = around(0.019, 0.005, 160);
        assert_eq!(rules.look(&d, 1), Some(Verdict::Pass));
    }

    #[test]
    fn more_cells_under_suspicion_ask_for_more_evidence() {
        let rules = Rules::default();
        let d = around(0.06, 0.09, 24);
        assert_eq!(rules.look(&d, 1), Some(Verdict::Fail));
        assert_eq!(rules.look(&d, 1000), None);
    }

    #[test]
    fn rules_that_contradict_themselves_are_refused() {
        assert!(Rules::default().with_margin(0.0).check().is_err());
        assert!(Rules::default().with_margin(1.5).check().is_err());
        let error = Rules::default().with_layout_floor(0.03).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "a layout floor of 3.0 % leaves no room below half the margin of 5.0 %"
        );
    }

    #[test]
    fn an_undecided_cell_says_how_many_blocks_a_decision_would_take() {
        let rules = Rules::default();
        let quiet = rules.blocks_needed(&around(0.03, 0.05, 24), 1).unwrap();
        let noisy = rules.blocks_needed(&around(0.03, 0.50, 24), 1).unwrap();
        assert!((24..200).contains(&quiet), "{quiet}");
        assert!((50 * quiet..200 * quiet).contains(&noisy), "{noisy} against {quiet}");
        assert_eq!(rules.blocks_needed(&[], 1), None);
    }

    #[test]
    fn normal_quantiles_are_right_to_three_digits() {
        for (tail, z) in [(0.1, 1.2816), (0.025, 1.9600), (0.001, 3.0902), (0.000_062_5, 3.8359)] {
            assert!((normal_quantile(tail) - z).abs() < 1e-3, "{tail}: {}", normal_quantile(tail));
        }
    }
}
