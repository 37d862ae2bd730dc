//! The gate as OpenMetrics text, for whoever scrapes files into a time series database.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::outcome::Outcome;
use crate::verdict::block::share_of;
use crate::verdict::location::WalshAverages;
use crate::verdict::rules::{SHOWN_CONFIDENCE, Verdict};

/// The exposition, with its end mark.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    family(&mut text, "gate_slowdown_ratio", "Head's time over base's, minus one.");
    for c in &outcome.cells {
        let averages = WalshAverages::of(c.result.evidence().1);
        let interval = averages.interval(SHOWN_CONFIDENCE);
        let bounds = [
            ("estimate", averages.estimate()),
            ("low", interval.map(|i| i.low)),
            ("high", interval.map(|i| i.high)),
        ];
        let cell = label(&c.cell.name);
        for (bound, value) in bounds {
            let Some(value) = value.map(share_of) else { continue };
            let _ =
                writeln!(text, "gate_slowdown_ratio{{cell=\"{cell}\",bound=\"{bound}\"}} {value}");
        }
    }
    family(&mut text, "gate_verdict", "1 for the verdict that holds, 0 for the others.");
    for c in &outcome.cells {
        for verdict in [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail, Verdict::Fault] {
            let _ = writeln!(
                text,
                "gate_verdict{{cell=\"{}\",verdict=\"{}\"}} {}",
                label(&c.cell.name),
                verdict.name(),
                u8::from(verdict == c.result.verdict)
            );
        }
    }
    family(&mut text, "gate_counted", "Deterministic metrics, in their own units.");
    for c in &outcome.counted {
        for (side, value) in [("base", c.base), ("head", c.head), ("allowed", c.allowed)] {
            let (cell, metric) = (label(&c.cell), c.name());
            let _ = writeln!(
                text,
                "gate_counted{{cell=\"{cell}\",metric=\"{metric}\",side=\"{side}\"}} {value}"
            );
        }
    }
    text.push_str("# EOF\n");
    text
}

fn family(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# TYPE {name} gauge\n# HELP {name} {help}");
}

/// Escapes a label's value.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_the_end_is_marked() {
        let mut found = outcome(&[Verdict::Pass, Verdict::Fail]);
        found.cells[0].cell.name = "a\"b\\c\n".to_owned();
        let text = text(&found);
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(name.starts_with("gate_") && name.ends_with('}'), "{line}");
        }
        assert!(text.contains(r#"cell="a\"b\\c\n""#), "{text}");
    }
}
