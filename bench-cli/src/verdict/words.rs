//! The sentence that a person reads: what failed, by how much, how sure, and what the rest did.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::block::share_of;
use super::location::WalshAverages;
use super::procedure::{CellResult, Stage};
use super::rules::{Rules, SHOWN_CONFIDENCE, Verdict};

/// A cell with the name and the rules under which it was judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// As in tables: workload and threads.
    pub name: &'a str,
    /// How it ended.
    pub result: &'a CellResult,
    /// The rules that were applied.
    pub rules: &'a Rules,
    /// Its verdict does not count: somebody is looking into its noise.
    pub quarantined: bool,
}

impl Judged<'_> {
    /// The verdict that counts for the gate as a whole; `None` in quarantine.
    #[must_use]
    pub fn counted(&self) -> Option<Verdict> {
        (!self.quarantined).then_some(self.result.verdict)
    }

    /// Estimate and interval with their data: `+6.1 % (99.9 % CI 4.4–7.9, 96 fresh blocks, …)`.
    #[must_use]
    pub fn figures(&self) -> String {
        let (stage, data) = self.result.evidence();
        let averages = WalshAverages::of(data);
        let Some(estimate) = averages.estimate() else { return "no blocks".to_owned() };
        let mut text = format!("{} (", signed_percent(share_of(estimate)));
        if let Some(interval) = averages.interval(SHOWN_CONFIDENCE) {
            let _ = write!(
                text,
                "99.9 % CI {}–{}, ",
                tenths(share_of(interval.low)),
                tenths(share_of(interval.high))
            );
        }
        let fresh = if stage == Stage::Fresh { "fresh " } else { "" };
        let _ = write!(
            text,
            "{} {fresh}blocks, layout floor ±{:.1} %)",
            data.len(),
            self.rules.layout_floor * 100.0
        );
        text
    }

    /// One line about this cell.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = self.result.verdict.name().to_uppercase();
        let tail = if self.quarantined { " [quarantined: does not count]" } else { "" };
        if let Some(fault) = &self.result.fault {
            return format!("{verdict} {}: {fault}{tail}", self.name);
        }
        let needed = match self.result.verdict {
            Verdict::Inconclusive => match self.blocks_needed() {
                Some(blocks) => format!("; a decision needs about {blocks} blocks"),
                None => "; more blocks would not decide it".to_owned(),
            },
            _ => String::new(),
        };
        format!("{verdict} {}: {}{needed}{tail}", self.name, self.figures())
    }

    /// See [`Rules::blocks_needed`]; a screened-out budget counts as one cell left.
    #[must_use]
    pub fn blocks_needed(&self) -> Option<u64> {
        self.rules.blocks_needed(self.result.evidence().1, self.result.cells_left)
    }
}

/// The whole gate in words: each failure with its figures, those of `counts` first, then the rest by
/// number. Only where nothing failed does the rest say the verdict.
#[must_use]
pub fn sentence(counts: impl Iterator<Item = String>, cells: &[Judged<'_>]) -> String {
    let with = |wanted: Verdict| cells.iter().filter(move |c| c.counted() == Some(wanted));
    let times = with(Verdict::Fault).chain(with(Verdict::Fail)).map(Judged::line);
    let mut sentences: Vec<String> = counts.chain(times).map(|line| format!("{line}.")).collect();
    let (passed, undecided) = (with(Verdict::Pass).count(), with(Verdict::Inconclusive).count());
    let quarantined = cells.iter().filter(|c| c.quarantined).count();
    let opening = match (sentences.is_empty(), undecided) {
        (false, _) => "",
        (true, 0) if passed > 0 => "PASS: ",
        (true, _) => "INCONCLUSIVE: ",
    };
    let mut rest = Vec::new();
    if passed > 0 {
        rest.push(format!("{passed} pass (shown < {})", margins(with(Verdict::Pass))));
    }
    if undecided > 0 {
        rest.push(format!("{undecided} inconclusive"));
    }
    if quarantined > 0 {
        rest.push(format!("{quarantined} quarantined"));
    }
    if rest.is_empty() && sentences.is_empty() {
        rest.push("nothing was measured".to_owned());
    }
    if !rest.is_empty() {
        sentences.push(format!("{opening}{}.", rest.join(", ")));
    }
    sentences.join(" ")
}

fn margins<'a>(cells: impl Iterator<Item = &'a Judged<'a>>) -> String {
    let mut shares: Vec<f64> = cells.map(|c| c.rules.margin).collect();
    shares.sort_unstable_by(f64::total_cmp);
    let show = |share: f64| format!("{} %", trimmed(share * 100.0));
    match (shares.first(), shares.last()) {
        (Some(low), Some(high)) if low < high => {
            format!("{}–{}", trimmed(low * 100.0), show(*high))
        }
        (Some(only), _) => show(*only),
        _ => String::new(),
    }
}

/// `5`, `2.5`: no decimals that say nothing.
fn trimmed(percent: f64) -> String {
    let text = format!("{percent:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// `+6.1 %`, `−0.3 %`: a share with its sign, always.
#[must_use]
pub fn signed_percent(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1} %", share.abs() * 100.0)
}

fn tenths(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "" };
    format!("{sign}{:.1}", share.abs() * 100.0)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::verdict::block::log_of;

    fn cell(verdict: Verdict, centre: f64, blocks: usize) -> CellResult {
        let d: Vec<f64> = (0..blocks)
            .map(|i| log_of(centre + 0.05 * ((i as f64 + 0.5) / blocks as f64 - 0.5)))
            .collect();
        let (screen, fresh) = if blocks > 12 { (vec![0.0; 12], d) } else { (d, Vec::new()) };
        CellResult { verdict, screen, fresh, cells_left: 2, fault: None }
    }

    #[test]
    fn a_failed_gate_names_the_cell_its_figures_and_the_rest() {
        let rules = Rules::default();
        let fail = cell(Verdict::Fail, 0.061, 96);
        let pass = cell(Verdict::Pass, 0.0, 12);
        let undecided = cell(Verdict::Inconclusive, 0.03, 160);
        let mut cells =
            vec![Judged { name: "larson-2t", result: &fail, rules: &rules, quarantined: false }];
        for name in ["a", "b", "c"] {
            cells.push(Judged { name, result: &pass, rules: &rules, quarantined: false });
        }
        cells.push(Judged { name: "d", result: &undecided, rules: &rules, quarantined: false });
        assert_eq!(
            sentence(iter::empty(), &cells),
            "FAIL larson-2t: +6.1 % (99.9 % CI 5.6–6.6, 96 fresh blocks, layout floor ±1.0 %). \
             3 pass (shown < 5 %), 1 inconclusive."
        );
    }

    #[test]
    fn a_passed_gate_says_what_was_shown() {
        let rules = Rules::default();
        let pass = cell(Verdict::Pass, 0.0, 12);
        let judged = Judged { name: "a", result: &pass, rules: &rules, quarantined: false };
        assert_eq!(sentence(iter::empty(), &[judged, judged]), "PASS: 2 pass (shown < 5 %).");
        assert_eq!(sentence(iter::empty(), &[]), "INCONCLUSIVE: nothing was measured.");
    }

    #[test]
    fn where_a_count_failed_times_that_pass_do_not_say_that_the_gate_passed() {
        let rules = Rules::default();
        for (verdict, rest) in
            [(Verdict::Pass, "1 pass (shown < 5 %)."), (Verdict::Inconclusive, "1 inconclusive.")]
        {
            let result = cell(verdict, 0.0, 12);
            let judged = Judged { name: "a", result: &result, rules: &rules, quarantined: false };
            let counts = iter::once("FAIL a: minor_faults 1 → 9".to_owned());
            assert_eq!(sentence(counts, &[judged]), format!("FAIL a: minor_faults 1 → 9. {rest}"));
        }
    }

    #[test]
    fn a_quarantined_failure_is_mentioned_and_does_not_count() {
        let rules = Rules::default();
        let (fail, pass) = (cell(Verdict::Fail, 0.1, 24), cell(Verdict::Pass, 0.0, 12));
        let cells = [
            Judged { name: "a", result: &fail, rules: &rules, quarantined: true },
            Judged { name: "b", result: &pass, rules: &rules, quarantined: false },
        ];
        assert_eq!(sentence(iter::empty(), &cells), "PASS: 1 pass (shown < 5 %), 1 quarantined.");
        assert!(cells[0].line().ends_with("[quarantined: does not count]"));
    }

    #[test]
    fn an_inconclusive_cell_says_what_a_decision_would_take() {
        let rules = Rules::default();
        let undecided = cell(Verdict::Inconclusive, 0.03, 24);
        let judged = Judged { name: "a", result: &undecided, rules: &rules, quarantined: false };
        assert!(judged.line().contains("a decision needs about"), "{}", judged.line());
    }

    #[test]
    fn a_crash_is_told_instead_of_figures() {
        let rules = Rules::default();
        let mut crashed = cell(Verdict::Fault, 0.0, 12);
        crashed.fault = Some("head was killed by signal 11".to_owned());
        let judged = Judged { name: "a", result: &crashed, rules: &rules, quarantined: false };
        assert_eq!(sentence(iter::empty(), &[judged]), "FAULT a: head was killed by signal 11.");
    }
}
