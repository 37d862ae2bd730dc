//! What each switch of the hardened library does, and that `=off` in the environment takes it away.

mod common;

use common::{Outcome, compile, hardened_library, run};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const SWITCHES: [&str; 6] = ["canary", "zero", "quarantine", "shuffle", "guard", "copies"];

/// What `switches.c` tries.
struct Try {
    name: &'static str,
    /// Bytes of an object: of a slab, or above.
    size: &'static str,
    /// The switch it is about, and those without which it does nothing.
    needs: &'static [&'static str],
    /// What the switch makes of it.
    expected: &'static str,
}

const fn attempt(
    name: &'static str,
    size: &'static str,
    needs: &'static [&'static str],
    expected: &'static str,
) -> Try {
    Try { name, size, needs, expected }
}

const TRIES: &[Try] = &[
    attempt("canary", "50", &["canary"], "overflow"),
    attempt("canary", "5000", &["canary"], "overflow"),
    attempt("zero-read", "50", &["zero"], "zero"),
    attempt("zero-read", "5000", &["zero"], "zero"),
    attempt("zero-write", "50", &["zero"], "use-after-free"),
    // Without the quarantine, which they leave, larger objects are not looked at.
    attempt("zero-write", "5000", &["zero", "quarantine"], "use-after-free"),
    attempt("quarantine", "50", &["quarantine"], "waits"),
    attempt("quarantine", "5000", &["quarantine"], "waits"),
    // Only the blocks of slabs have an order.
    attempt("shuffle", "50", &["shuffle"], "shuffled"),
    attempt("guard", "50", &["guard"], "a crash"),
    attempt("guard", "5000", &["guard"], "a crash"),
    attempt("copies", "50", &["copies"], "overflow"),
    attempt("copies", "5000", &["copies"], "overflow"),
];

/// The check that ended the process, that it crashed, or what the program said.
fn what_came_of_it(outcome: &Outcome) -> &str {
    match outcome.status.signal() {
        Some(libc::SIGABRT) => {
            let check =
                outcome.stderr.split("(check ").nth(1).and_then(|rest| rest.split(')').next());
            check.unwrap_or_else(|| panic!("a report:\n{}", outcome.stderr))
        }
        Some(libc::SIGSEGV | libc::SIGBUS) => "a crash",
        _ => {
            outcome.expect_success("switches.c");
            &outcome.stdout
        }
    }
}

#[test]
fn what_the_hardened_library_keeps_in_free_memory_is_in_no_new_object() {
    let Some(program) = compile("secrets.c", &[]) else { return };
    run(Command::new(program).env("LD_PRELOAD", hardened_library())).expect_success("secrets.c");
}

#[test]
fn each_switch_of_the_hardened_library_does_its_part_alone_and_nothing_when_it_is_off() {
    let Some(program) = compile("switches.c", &[]) else { return };
    let off = |which: &dyn Fn(&str) -> bool| -> String {
        let names = SWITCHES.into_iter().filter(|name| which(name));
        names.map(|name| format!("{name}=off")).collect::<Vec<_>>().join(",")
    };
    for Try { name, size, needs, expected } in TRIES {
        let on: Vec<String> = needs.iter().map(|name| format!("{name}=on")).collect();
        let mut runs = vec![
            (String::new(), *expected),
            (off(&|other| !needs.contains(&other)), expected),
            (format!("{},{}", off(&|_| true), on.join(",")), expected),
            (off(&|_| true), "as ever"),
        ];
        runs.extend(needs.iter().map(|switch| (format!("{switch}=off"), "as ever")));
        for (options, expected) in runs {
            let mut command = Command::new(&program);
            command.args([name, size]).env("LD_PRELOAD", hardened_library());
            let outcome = run(command.env("ALLOCATOR_OPTIONS", &options));
            let came = what_came_of_it(&outcome);
            assert_eq!(came, expected, "{name} of {size} bytes with {options:?}");
        }
    }
}

#[test]
fn the_ordinary_library_knows_none_of_the_switches_and_says_so() {
    let Some(program) = compile("switches.c", &[]) else { return };
    for switch in SWITCHES {
        let mut command = common::preloaded(&program);
        let setting = format!("{switch}=off");
        let outcome = run(command.args(["canary", "50"]).env("ALLOCATOR_OPTIONS", &setting));
        assert_eq!(what_came_of_it(&outcome), "as ever", "{setting}");
        let said = format!("allocator: ALLOCATOR_OPTIONS: not understood, ignored: {setting}\n");
        assert_eq!(outcome.stderr, said);
    }
}

#[test]
fn no_address_comes_back_at_once_however_many_objects_wait_when_sampling_begins() {
    let library = hardened_library().display().to_string();
    let Some(program) = compile("sampled_ring.c", &[&library]) else { return };
    let outcome = run(Command::new(&program).env("LD_PRELOAD", hardened_library()));
    outcome.expect_success("sampled_ring.c");
}

#[test]
fn zero_cannot_be_switched_on_while_objects_wait_that_were_freed_without_it() {
    let library = hardened_library().display().to_string();
    let Some(program) = compile("zero_later.c", &[&library]) else { return };
    for start in ["zero=on", "zero=off"] {
        let mut command = Command::new(&program);
        command.arg(start).env("LD_PRELOAD", hardened_library());
        run(command.env("ALLOCATOR_OPTIONS", start)).expect_success(start);
    }
}

#[test]
fn a_write_into_a_freed_object_is_found_also_where_the_quarantine_is_emptied() {
    let Some(program) = compile("emptied.c", &[]) else { return };
    let emptied = |how: &str, size: &str, options: &str| {
        let mut command = Command::new(&program);
        command.args([how, size]).env("LD_PRELOAD", hardened_library());
        run(command.env("ALLOCATOR_OPTIONS", options))
    };
    for size in ["40", "900", "5000"] {
        for how in ["trim", "end"] {
            let outcome = emptied(how, size, "");
            assert_eq!(what_came_of_it(&outcome), "use-after-free", "{how}, {size} bytes");
            emptied(how, size, "zero=off").expect_success("nobody looks");
        }
    }
}

#[test]
fn nothing_of_how_objects_came_back_from_another_thread_stands_in_new_ones() {
    let Some(program) = compile("emptied.c", &[]) else { return };
    for size in ["8", "40", "200", "900", "5000"] {
        let mut command = Command::new(&program);
        command.args(["numbers", size]).env("LD_PRELOAD", hardened_library());
        run(&mut command).expect_success(size);
    }
}
