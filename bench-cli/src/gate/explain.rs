//! `gate --explain`: what is checked, how, and why it may be believed.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::date::Date;
use super::metric::Metric;
use super::outcome::Cell;
use super::quantity;
use super::thresholds::Thresholds;

/// The explanation, in plain text.
#[must_use]
pub fn text(thresholds: &Thresholds, cells: &[Cell], today: Date) -> String {
    let rules = &thresholds.rules;
    let percent = |share: f64| format!("{} %", (share * 1000.0).round() / 10.0);
    let looks = rules.looks.map(|look| look.to_string()).join(", ");
    let mut text = String::new();
    let source = match &thresholds.path {
        Some(path) => format!("`{}`", path.display()),
        None => "built-in rules (no --config)".to_owned(),
    };
    let _ = write!(
        text,
        "Thresholds: {source}.\n\n\
         Time. The unit is a process; four fresh ones, base and head in the order ABBA or BAAB by a \
         coin, are a block and give one difference of mean logarithms.\n\
         Stage 1: {} blocks per cell. A cell passes only if an exact signed-rank test rejects \
         \"{} slower or more\" at {}.\n\
         Stage 2: the cells left, on fresh blocks, with looks at {looks}. A cell fails if the test \
         rejects \"slower by at most {}\" (what relinking explains) at {} shared over all cells left \
         and {} looks, and the estimate exceeds {}. It passes if \"{} slower or more\" is rejected \
         at {} over the looks. Otherwise it is inconclusive; running out of budget ({}) never \
         fails a cell.\n\
         So unchanged code fails at most one gate in two hundred by construction; in simulation \
         over quiet, noisy and hostile machines, none of 9000 did. Measure it here: `bench-cli \
         calibrate`.\n\n",
        rules.screen_blocks,
        percent(rules.margin),
        rules.screen_level,
        percent(rules.layout_floor),
        rules.fail_level,
        rules.looks.len(),
        percent(rules.least_estimate),
        percent(rules.margin),
        rules.pass_level,
        quantity::spoken(thresholds.budget),
    );
    text.push_str("Cells:\n");
    for cell in cells {
        let own = thresholds.rules_of(&cell.name);
        let _ = write!(text, "  {}: must be shown < {} slower", cell.name, percent(own.margin));
        if let Some(q) = thresholds.quarantine_of(&cell.name, today) {
            let _ = write!(text, "; in quarantine until {}: {}", q.until, q.reason);
        }
        text.push('\n');
    }
    text.push_str("\nCounted, base against head (cells of one thread; can fail, never pass):\n");
    for (metric, limit) in &thresholds.limits {
        let when = if *metric == Metric::Instructions { " (with --instructions)" } else { "" };
        let _ = match (limit.share > 0.0, limit.absolute > 0) {
            (true, true) => writeln!(
                text,
                "  {}{when}: at most the larger of {} and {} more",
                metric.name(),
                percent(limit.share),
                metric.show(limit.absolute)
            ),
            (true, false) => {
                writeln!(text, "  {}{when}: at most {} more", metric.name(), percent(limit.share))
            }
            (false, true) => {
                writeln!(text, "  {}: at most {} more", metric.name(), metric.show(limit.absolute))
            }
            (false, false) if *metric == Metric::FailedAllocations => {
                writeln!(text, "  {}: none more (cells of any number of threads)", metric.name())
            }
            (false, false) => writeln!(text, "  {}: none more", metric.name()),
        };
    }
    let over: Vec<&str> =
        thresholds.quarantine.iter().filter(|q| q.until < today).map(|q| q.cell.as_str()).collect();
    if !over.is_empty() {
        let _ = writeln!(text, "\nQuarantine is over, these count again: {}", over.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_cell_and_every_metric_is_explained_with_its_own_number() {
        let thresholds = Thresholds::parse(
            "[cell.a-1t]\nmax_slowdown = \"8%\"\n[[quarantine]]\ncell = \"b-1t\"\n\
             until = \"2027-01-31\"\nreason = \"noise\"\n[[quarantine]]\ncell = \"c-1t\"\n\
             until = \"2026-01-31\"\nreason = \"noise\"",
            Path::new("t.toml"),
        )
        .unwrap();
        let cell = |n: &str| Cell { name: n.to_owned(), workload: n.to_owned(), threads: 1 };
        let cells = [cell("a-1t"), cell("b-1t"), cell("c-1t")];
        let text = text(&thresholds, &cells, Date::new(2026, 12, 1).unwrap());
        assert!(text.contains("a-1t: must be shown < 8 % slower"), "{text}");
        assert!(text.contains("b-1t: must be shown < 5 % slower; in quarantine until 2027-01-31"));
        assert!(text.contains("these count again: c-1t"), "{text}");
        for metric in Metric::ALL {
            assert!(text.contains(metric.name()), "{}", metric.name());
        }
    }
}
