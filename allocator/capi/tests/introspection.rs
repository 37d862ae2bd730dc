//! What the library answers to programs that ask glibc about its allocator.

mod common;

use common::{Outcome, compile, every_mode, preloaded, run};
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn the_allocator_answers_what_glibc_programs_ask_about_it() {
    let library = common::shared_library().display().to_string();
    let Some(program) = compile("introspection.c", &[&library]) else { return };
    for (name, library, options) in every_mode() {
        let mut command = Command::new(&program);
        let outcome = run(command.env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options));
        let what = format!("introspection.c, {name}, {options}, {}", library.display());
        outcome.expect_success(&what);
        assert_figures(&outcome, &what);
    }
    let outcome = run(&mut preloaded(&program));
    assert!(
        outcome.stdout.contains("<size from=\"5120\" to=\"5120\" total=\""),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stderr.contains("mode=production\n"), "{}", outcome.stderr);
    let classic = "mode=classic,placement=best-fit,lock=arena,cache=on";
    let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", classic));
    outcome.expect_success(classic);
    let said = &outcome.stderr;
    assert!(said.contains(&format!("{classic},coalesce=immediate\n")), "{said}");
    assert!(said.contains("locks taken "), "{said}");
}

/// `malloc_stats` writes glibc's lines and then those of `allocator_stats`, with the figures that
/// `malloc_info` has, too. The program calls it, `allocator_stats` and then `malloc_info`.
fn assert_figures(outcome: &Outcome, what: &str) {
    let (stats, xml) = (&outcome.stderr, &outcome.stdout);
    let lines: Vec<&str> = stats.lines().collect();
    let number = |line: &str| -> usize {
        let value = line.split(" = ").nth(1).map(str::trim);
        value.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{what}: {line}"))
    };
    let [arena, system, used, total, system_all, used_all, regions, bytes, ours, ..] = lines[..]
    else {
        panic!("{what}: glibc's eight lines and ours:\n{stats}");
    };
    assert_eq!((arena, total), ("Arena 0:", "Total (incl. mmap):"), "{what}:\n{stats}");
    assert!(ours.starts_with("allocator "), "{what}:\n{stats}");
    for (line, name) in [(system, "system bytes     = "), (used, "in use bytes     = ")]
        .into_iter()
        .chain([(system_all, "system bytes     = "), (used_all, "in use bytes     = ")])
        .chain([(regions, "max mmap regions = "), (bytes, "max mmap bytes   = ")])
    {
        assert!(line.starts_with(name), "{what}: {name} {line}");
    }
    assert!(number(used) > 0 && number(used) <= number(system), "{what}:\n{stats}");
    assert!(number(used_all) <= number(system_all), "{what}:\n{stats}");
    let mapped = (5 << 20)..=(16 << 20);
    assert!(mapped.contains(&(number(used_all) - number(used))), "the mapping, {what}:\n{stats}");
    assert!(number(regions) == 1 && mapped.contains(&number(bytes)), "{what}:\n{stats}");
    for figure in [
        format!("<system type=\"current\" size=\"{}\"/>", number(system)),
        format!("<total type=\"mmap\" count=\"1\" size=\"{}\"/>", number(bytes)),
    ] {
        assert!(xml.contains(&figure), "{what}: {figure}:\n{xml}");
    }
}

#[test]
fn malloc_info_writes_the_elements_and_attributes_of_glibc_line_by_line() {
    let Some(program) = compile("malloc_info.c", &[]) else { return };
    let glibc = run(Command::new(&program).env_remove("LD_PRELOAD"));
    glibc.expect_success("glibc");
    let glibc = shape(&glibc.stdout);
    assert!(glibc.iter().any(|line| line.starts_with("  <size ")), "{glibc:#?}");
    for (name, library, options) in every_mode() {
        let mut command = Command::new(&program);
        let outcome = run(command.env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options));
        let what = format!("malloc_info.c, {name}, {options}, {}", library.display());
        outcome.expect_success(&what);
        let expected: Vec<&String> = glibc
            .iter()
            // Classic mode does not count free blocks by size: as glibc where none is free.
            .filter(|line| name != "classic" || !line.starts_with("  <size "))
            .collect();
        let found = shape(&outcome.stdout);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{what}:\n{}", outcome.stdout);
        assert_sums(&outcome.stdout, &what);
    }
}

/// The lines, `N` for each number, without repetitions. glibc writes `<unsorted>` only where it has
/// such blocks, so a reader does without.
fn shape(xml: &str) -> Vec<String> {
    let mut shape: Vec<String> = Vec::new();
    for line in xml.lines().filter(|line| !line.starts_with("  <unsorted ")) {
        // Versions and the number of a heap are words, not figures.
        let keeps = line.starts_with("<malloc ") || line.starts_with("<heap ");
        let line = if keeps { line.to_owned() } else { without_figures(line) };
        if shape.last() != Some(&line) {
            shape.push(line);
        }
    }
    shape
}

fn without_figures(line: &str) -> String {
    let parts = line.split('"').map(|part| {
        let figure = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if figure { "N" } else { part }
    });
    parts.collect::<Vec<_>>().join("\"")
}

/// What is free by size is part of what is free, and that of what there is.
fn assert_sums(xml: &str, what: &str) {
    let figure = |line: &str, name: &str| -> usize {
        let value =
            line.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{what}: {line}"))
    };
    let (mut count, mut bytes) = (1, 0);
    for line in xml.lines().filter(|line| line.starts_with("  <size ")) {
        count += figure(line, "count");
        bytes += figure(line, "total");
        let (from, to) = (figure(line, "from"), figure(line, "to"));
        assert!((from..=to).contains(&(figure(line, "total") / figure(line, "count"))), "{line}");
    }
    let of = |element: &str, name: &str| -> usize {
        let found: BTreeSet<usize> = xml
            .lines()
            .filter(|line| line.starts_with(element))
            .map(|line| figure(line, name))
            .collect();
        assert_eq!(found.len(), 1, "{what}: one heap, so its sums are those of all:\n{xml}");
        found.into_iter().sum()
    };
    let (rest, current) =
        (of("<total type=\"rest\"", "size"), of("<system type=\"current\"", "size"));
    assert_eq!(of("<total type=\"rest\"", "count"), count, "{what}:\n{xml}");
    assert!(bytes <= rest && rest < current, "{what}:\n{xml}");
    assert!(current <= of("<system type=\"max\"", "size"), "{what}:\n{xml}");
}
