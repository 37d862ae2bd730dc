//! What GitHub shows: annotations on the run, a summary on its page, a comment on the request.
//!
//! Annotations are commands on standard output, so everything that comes from outside is escaped;
//! GitHub shows ten of a kind per step, so the worst come first and the rest are counted.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::outcome::{CellVerdict, Outcome};
use super::quantity;
use crate::verdict::block::share_of;
use crate::verdict::location::WalshAverages;
use crate::verdict::rules::{SHOWN_CONFIDENCE, Verdict};
use crate::verdict::words::signed_percent;

/// How many annotations of a kind GitHub shows per step.
const MOST_ANNOTATIONS: usize = 10;

/// Annotation commands, one per line.
#[must_use]
pub fn annotations(outcome: &Outcome) -> String {
    let judged = outcome.judged();
    let lines = |wanted: Verdict| {
        judged.iter().filter(move |c| c.counted() == Some(wanted)).map(|c| c.line())
    };
    let errors: Vec<String> = lines(Verdict::Fault)
        .chain(lines(Verdict::Fail))
        .chain(outcome.exceeded().map(super::outcome::Counted::line))
        .collect();
    let warnings: Vec<String> = lines(Verdict::Inconclusive).collect();
    let mut text = String::new();
    for (kind, title, lines) in
        [("error", "performance gate", errors), ("warning", "undecided", warnings)]
    {
        // The last one allowed tells of the ones that are not.
        let shown = if lines.len() > MOST_ANNOTATIONS { MOST_ANNOTATIONS - 1 } else { lines.len() };
        for line in &lines[..shown] {
            let _ = writeln!(text, "::{kind} title={}::{}", property(title), data(line));
        }
        if shown < lines.len() {
            let more = format!("{} more: see the step summary", lines.len() - shown);
            let _ = writeln!(text, "::{kind} title={}::{}", property(title), data(&more));
        }
    }
    text
}

/// Escapes the message of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The gate as Markdown: for the step summary and for a comment on a pull request.
#[must_use]
pub fn markdown(outcome: &Outcome) -> String {
    let heading = match outcome.verdict() {
        Verdict::Pass => "✅ no regression",
        Verdict::Inconclusive => "⚪ inconclusive",
        Verdict::Fail => "❌ regression",
        Verdict::Fault => "💥 an allocator failed",
    };
    let mut text = format!("## Performance gate: {heading}\n\n{}\n\n", cell(&outcome.sentence()));
    text.push_str("| cell | verdict | head against base | 99.9 % interval | blocks |\n");
    text.push_str("|---|---|--:|--:|--:|\n");
    let mut rows: Vec<&CellVerdict> = outcome.cells.iter().collect();
    rows.sort_by_key(|c| std::cmp::Reverse(c.result.verdict));
    for row in rows {
        let (_, data) = row.result.evidence();
        let averages = WalshAverages::of(data);
        let estimate = averages.estimate().map_or(String::new(), |e| signed_percent(share_of(e)));
        let interval = averages.interval(SHOWN_CONFIDENCE).map_or(String::new(), |i| {
            format!("{} … {}", signed_percent(share_of(i.low)), signed_percent(share_of(i.high)))
        });
        let mut verdict = row.result.verdict.name().to_owned();
        if row.result.verdict == Verdict::Fail {
            verdict = format!("**{verdict}**");
        }
        if let Some(quarantine) = &row.quarantine {
            let _ = write!(verdict, " (quarantined until {})", quarantine.until);
        }
        if let Some(fault) = &row.result.fault {
            let _ = write!(verdict, ": {}", cell(fault));
        }
        let name = cell(&row.cell.name);
        let _ = writeln!(text, "| {name} | {verdict} | {estimate} | {interval} | {} |", data.len());
    }
    if !outcome.counted.is_empty() {
        text.push_str(
            "\n| cell | counted | base | head | allowed | |\n|---|---|--:|--:|--:|---|\n",
        );
        for c in &outcome.counted {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                cell(&c.cell),
                c.name(),
                c.metric.show(c.base),
                c.metric.show(c.head),
                c.metric.show(c.allowed),
                if c.within() { "ok" } else { "**over**" }
            );
        }
    }
    let _ = writeln!(
        text,
        "\n<sub>base `{}`, head `{}`; blocks of four fresh processes in random order; seed {}; {}. \
         Repeat with `bench-cli gate --seed {}`.</sub>",
        outcome.base.replace('`', "'"),
        outcome.head.replace('`', "'"),
        outcome.seed,
        quantity::spoken(outcome.took),
        outcome.seed
    );
    text
}

/// Text that stays in its table cell and starts no markup of its own.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '@' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            '\n' | '\r' => safe.push(' '),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn a_message_cannot_start_a_command_of_its_own() {
        let mut found = outcome(&[Verdict::Fault]);
        found.cells[0].result.fault = Some("100%\n::set-output name=x::y\r".to_owned());
        let text = annotations(&found);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("100%25%0A::set-output name=x::y%0D"), "{text}");
        assert_eq!(property("a:b,c%"), "a%3Ab%2Cc%25");
    }

    #[test]
    fn no_more_annotations_are_written_than_are_shown() {
        let text = annotations(&outcome(&[Verdict::Fail; 30]));
        assert_eq!(text.lines().count(), MOST_ANNOTATIONS);
        assert!(text.lines().last().unwrap().ends_with("21 more: see the step summary"));
        assert_eq!(annotations(&outcome(&[Verdict::Fail; 10])).lines().count(), 10);
        assert_eq!(annotations(&outcome(&[Verdict::Pass])), "");
        assert!(annotations(&outcome(&[Verdict::Inconclusive])).starts_with("::warning "));
    }

    #[test]
    fn a_name_cannot_break_the_table() {
        let mut found = outcome(&[Verdict::Pass, Verdict::Fail]);
        found.cells[0].cell.name = "a|b<script>\n".to_owned();
        let text = markdown(&found);
        assert!(text.contains("| a\\|b\\<script\\>  | pass |"), "{text}");
        assert!(text.starts_with("## Performance gate: ❌ regression"));
        let failed = text.find("**fail**").unwrap();
        assert!(failed < text.find("| pass |").unwrap(), "the worst stands first");
    }
}
