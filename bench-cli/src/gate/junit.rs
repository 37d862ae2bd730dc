//! The gate as JUnit XML: one test case per cell and per counted metric.
//!
//! An inconclusive cell is an error, not a failure: it says that the check could not be made. With
//! `--allow-inconclusive` it is skipped, as is what is in quarantine.

#![forbid(unsafe_code)]

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::outcome::Outcome;
use crate::error::{CliError, Exit};
use crate::verdict::rules::Verdict;

/// The document.
///
/// # Errors
/// If the names hold what XML cannot say.
pub fn xml(outcome: &Outcome, allow_inconclusive: bool) -> Result<String, CliError> {
    let mut timing = TestSuite::new("gate.time");
    for (judged, cell) in outcome.judged().iter().zip(&outcome.cells) {
        let line = judged.line();
        let mut status = match judged.result.verdict {
            _ if judged.quarantined => TestCaseStatus::skipped(),
            Verdict::Pass => TestCaseStatus::success(),
            Verdict::Inconclusive if allow_inconclusive => TestCaseStatus::skipped(),
            Verdict::Inconclusive | Verdict::Fault => {
                TestCaseStatus::non_success(NonSuccessKind::Error)
            }
            Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        };
        status.set_message(line.clone()).set_type(judged.result.verdict.name());
        let mut case = TestCase::new(judged.name, status);
        case.set_classname(format!("gate.time.{}", cell.cell.workload));
        let nanoseconds: u64 = outcome
            .rows
            .iter()
            .filter(|row| outcome.cells[row.cell].cell == cell.cell)
            .map(|row| row.process.elapsed_ns)
            .sum();
        case.set_time(Duration::from_nanos(nanoseconds)).set_system_out(line);
        timing.add_test_case(case);
    }
    let mut counted = TestSuite::new("gate.counted");
    for count in &outcome.counted {
        let mut status = match (count.within(), count.quarantined) {
            (true, _) => TestCaseStatus::success(),
            (false, true) => TestCaseStatus::skipped(),
            (false, false) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        };
        status.set_message(count.line());
        let mut case = TestCase::new(format!("{} {}", count.cell, count.name()), status);
        case.set_classname("gate.counted");
        counted.add_test_case(case);
    }
    let mut report = Report::new("bench-cli gate");
    report.set_time(outcome.took);
    report.add_test_suite(timing);
    if !outcome.counted.is_empty() {
        report.add_test_suite(counted);
    }
    report.to_string().map_err(|error| {
        CliError::new(Exit::Internal, "the JUnit document cannot be written").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;
    use crate::verdict::rules::Verdict::{Fail, Fault, Inconclusive, Pass};

    #[test]
    fn each_verdict_has_its_own_kind_of_result() {
        let found = outcome(&[Pass, Inconclusive, Fail, Fault]);
        let strict = xml(&found, false).unwrap();
        assert!(strict.contains(r#"tests="4" failures="1" errors="2""#), "{strict}");
        let lenient = xml(&found, true).unwrap();
        assert!(lenient.contains(r#"failures="1" errors="1""#), "{lenient}");
        assert!(lenient.contains("<skipped"), "{lenient}");
    }

    #[test]
    fn a_name_cannot_break_the_document() {
        let mut found = outcome(&[Fail]);
        found.cells[0].cell.name = "a<b>&\"\u{1}".to_owned();
        let text = xml(&found, false).unwrap();
        assert!(text.contains("a&lt;b&gt;&amp;&quot;"), "{text}");
        assert!(!text.contains('\u{1}'), "{text}");
    }
}
