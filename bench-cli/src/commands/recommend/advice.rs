//! What was found out, in words: the choices worth considering under each pressure, who did not live
//! with it, and what to do.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::{Choice, Difference, Failure, MIB};
use crate::gate::quantity;

/// The advice for all pressures.
pub(super) fn of(choices: &[Choice], failures: &[Failure]) -> String {
    let mut pressures: Vec<&str> = Vec::new();
    let all = choices.iter().map(|c| &c.pressure).chain(failures.iter().map(|f| &f.pressure));
    for pressure in all {
        if !pressures.contains(&pressure.as_str()) {
            pressures.push(pressure);
        }
    }
    let mut text = String::new();
    for pressure in pressures {
        let group: Vec<Choice> =
            choices.iter().filter(|choice| choice.pressure == pressure).cloned().collect();
        let failed: Vec<&Failure> =
            failures.iter().filter(|failure| failure.pressure == pressure).collect();
        under(&mut text, pressure, &group, &failed);
    }
    text.push_str(
        "\nAll of this is one trace, replayed as fast as it goes: confirm with `bench-cli run --exec` on the program itself.",
    );
    text
}

/// One pressure.
fn under(text: &mut String, pressure: &str, group: &[Choice], failed: &[&Failure]) {
    let spoken = match (pressure, pressure.strip_prefix("own:")) {
        ("", _) => "without pressure".to_owned(),
        (_, Some(share)) => format!("with {share} of each allocator's own peak"),
        (share, None) if share.ends_with('%') && !share.contains(':') => {
            format!("with {share} of the system allocator's peak")
        }
        (other, None) => format!("under {other}"),
    };
    if group.is_empty() {
        let _ = writeln!(text, "\nNobody did the work in every run {spoken}.");
        list(text, failed);
        let _ = writeln!(
            text,
            "That is too little for this trace under any of them: look at more, as in `--pressure 200%`."
        );
        return;
    }
    let _ = writeln!(
        text,
        "\nWorth considering {spoken} (nothing else beats them in time, tail and memory at once):"
    );
    for choice in group.iter().filter(|choice| choice.on_front) {
        let _ = writeln!(
            text,
            "  {:<44} {:.1} ms, p99.9 {:.0} ns, {:.1} MiB on average",
            choice.allocator,
            choice.elapsed_ns / 1e6,
            choice.p999_ns,
            choice.mean_rss_bytes / MIB
        );
    }
    list(text, failed);
    if !pressure.is_empty() && failed.iter().any(|failure| failure.allocator == "system") {
        let names: Vec<&str> = group.iter().map(|choice| choice.allocator.as_str()).collect();
        let verb = if names.len() == 1 { "does" } else { "do" };
        let _ = writeln!(
            text,
            "The system's allocator does not live with this; {} {verb}.",
            names.join(", ")
        );
        return;
    }
    let _ = writeln!(text, "{}", paragraph(group));
}

/// Who did not do the work, a line each.
fn list(text: &mut String, failed: &[&Failure]) {
    if !failed.is_empty() {
        let _ = writeln!(text, "No choice, since it did not do the work:");
    }
    for Failure { allocator, failed, limit_bytes, .. } in failed {
        let limit = limit_bytes.map_or_else(String::new, |bytes| {
            format!(" with a limit of {}", quantity::spoken_bytes(bytes))
        });
        let _ = writeln!(text, "  {allocator:<44} {failed}{limit}");
    }
}

/// What to do, in one paragraph.
fn paragraph(group: &[Choice]) -> String {
    let front = || group.iter().filter(|c| c.on_front && c.allocator != "system");
    if !group.iter().any(|c| c.allocator == "system") {
        return "The system's allocator is not among those that did the work: nothing to weigh against."
            .to_owned();
    }
    // The least of time and memory together, each as a ratio.
    let product = |c: &&Choice| c.elapsed_ns.ln() + c.mean_rss_bytes.ln();
    let best = |a: &&Choice, b: &&Choice| product(a).total_cmp(&product(b));
    if let Some(pick) = front().filter(|c| c.is_free()).min_by(best) {
        return format!("Take {}: against system it {}.", pick.allocator, weighed(pick));
    }
    let traded: Vec<String> = front()
        .filter(|c| c.differences().any(|d| d.less_shown()))
        .map(|c| format!("{} {}", c.allocator, weighed(c)))
        .collect();
    match traded.is_empty() {
        true => "Stay with system: no choice was shown to be better in anything (95 %); more --runs may tell."
            .to_owned(),
        false => format!("Nothing is free here. Against system, {}.", traded.join("; ")),
    }
}

/// Time, tail and memory against the system's allocator.
fn weighed(choice: &Choice) -> String {
    let part = |difference: Option<Difference>, unit: f64, name: &str, what: &str| {
        difference.map(|d| amount(d, unit, name, what))
    };
    [
        part(choice.mean_rss_bytes_more, MIB, "MiB", "memory on average"),
        part(choice.elapsed_ns_more, 1e6, "ms", "a replay"),
        part(choice.p999_ns_more, 1e3, "µs", "at p99.9"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

fn amount(difference: Difference, unit: f64, name: &str, what: &str) -> String {
    let estimate = difference.estimate / unit;
    match difference.interval.map(|(low, high)| (low / unit, high / unit)) {
        Some((low, high)) if high < 0.0 => {
            format!("saves {:.2} {name} {what} ({:.2} to {:.2})", -estimate, -high, -low)
        }
        Some((low, high)) if low > 0.0 => {
            format!("costs {estimate:.2} {name} {what} ({low:.2} to {high:.2})")
        }
        Some((low, high)) => {
            format!("shows no difference in {name} {what} ({low:+.2} to {high:+.2})")
        }
        None => format!("has {estimate:+.2} {name} {what} (too few rounds for an interval)"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{choice, shown};
    use super::*;

    fn killed(allocator: &str, pressure: &str) -> Failure {
        Failure {
            allocator: allocator.to_owned(),
            pressure: pressure.to_owned(),
            failed: "killed for memory in 6 of 6 runs".to_owned(),
            limit_bytes: Some(10 << 20),
        }
    }

    #[test]
    fn who_was_killed_is_named_with_the_limit_and_whoever_lives_is_the_advice() {
        let free = [choice("system", 9e6, 9e3, 9.0 * MIB), choice("ours", 5e6, 5e3, 8.0 * MIB)];
        let pressed = Choice { pressure: "125%".to_owned(), ..free[1].clone() };
        let choices = [free.to_vec(), vec![pressed]].concat();
        let text = of(&choices, &[killed("system", "125%"), killed("other", "125%")]);
        assert!(text.contains("Worth considering without pressure"), "{text}");
        assert!(text.contains("with 125% of the system allocator's peak"), "{text}");
        assert!(
            text.contains("killed for memory in 6 of 6 runs with a limit of 10.0 MiB"),
            "{text}"
        );
        assert!(text.contains("does not live with this; ours does."), "{text}");
    }

    #[test]
    fn a_pressure_that_nobody_lives_with_is_said_to_be_too_much() {
        let choices = [choice("system", 9e6, 9e3, 9.0 * MIB)];
        let text = of(&choices, &[killed("system", "own:80%"), killed("ours", "own:80%")]);
        assert!(
            text.contains(
                "Nobody did the work in every run with 80% of each allocator's own peak."
            ),
            "{text}"
        );
        assert!(text.contains("--pressure 200%"), "{text}");
        assert_eq!(text.matches("killed for memory").count(), 2, "{text}");
    }

    #[test]
    fn what_is_shown_to_be_free_is_advised_and_a_trade_is_called_one() {
        let system = choice("system", 9e6, 9e3, 9.0 * MIB);
        let mut ours = choice("ours", 5e6, 5e3, 8.0 * MIB);
        ours.elapsed_ns_more = shown(-4e6, -5e6, -3e6);
        ours.mean_rss_bytes_more = shown(-MIB, -2.0 * MIB, 0.5 * MIB);
        let text = paragraph(&[ours.clone(), system.clone()]);
        assert!(text.starts_with("Take ours"), "{text}");
        assert!(text.contains("saves 4.00 ms a replay (3.00 to 5.00)"), "{text}");
        assert!(text.contains("shows no difference in MiB memory on average"), "{text}");
        ours.mean_rss_bytes_more = shown(MIB, 0.5 * MIB, 2.0 * MIB);
        let text = paragraph(&[ours.clone(), system.clone()]);
        assert!(text.starts_with("Nothing is free") && text.contains("costs 1.00 MiB"), "{text}");
        ours.elapsed_ns_more = shown(-4e6, -5e6, 1e6);
        let text = paragraph(&[ours, system]);
        assert!(text.starts_with("Stay with system"), "{text}");
    }
}
