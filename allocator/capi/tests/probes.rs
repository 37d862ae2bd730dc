//! The probes of `docs/probes.md` are in the library, where and as they are described.

#![allow(clippy::print_stdout, reason = "skipping must be seen")]

mod common;

use common::{available, compile, run, shared_library};
use std::collections::BTreeMap;
use std::process::Command;

/// Every probe and the number of its arguments.
const PROBES: &[(&str, usize)] = &[
    ("fault", 3),
    ("heap_obtain", 2),
    ("heap_park", 2),
    ("huge_map", 2),
    ("huge_unmap", 2),
    ("purge", 2),
    ("refill", 2),
    ("segment_new", 2),
    ("span_adopt", 2),
    ("span_free", 2),
    ("span_new", 3),
];

/// One note of the library.
#[derive(Debug)]
struct Note {
    name: String,
    address: u64,
    arguments: String,
}

/// What `readelf -n` finds in the library; it must understand every note.
fn notes() -> Vec<Note> {
    let outcome = run(Command::new("readelf").arg("--notes").arg(shared_library()));
    outcome.expect_success("readelf");
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(|v| v.trim().to_owned());
    let mut notes = Vec::new();
    let mut lines = outcome.stdout.lines();
    while let Some(line) = lines.next() {
        let Some(provider) = value(line, "Provider:") else { continue };
        assert_eq!(provider, "allocator");
        let name = lines.next().and_then(|line| value(line, "Name:")).expect("a name");
        let place = lines.next().and_then(|line| value(line, "Location:")).expect("a place");
        let arguments = lines.next().and_then(|line| value(line, "Arguments:")).expect("arguments");
        let (address, rest) = place.split_once(',').expect("address, base, semaphore");
        assert!(rest.contains("Semaphore: 0x0000000000000000"), "{place}");
        let digits = address.trim_start_matches("0x");
        let address = u64::from_str_radix(digits, 16).expect("an address");
        notes.push(Note { name, address, arguments });
    }
    notes
}

#[test]
fn every_probe_has_its_name_and_arguments_in_the_library() {
    if !available("readelf") {
        return;
    }
    let notes = notes();
    let mut found = BTreeMap::new();
    for note in &notes {
        let arguments: Vec<&str> = note.arguments.split_whitespace().collect();
        for argument in &arguments {
            let register = argument.strip_prefix("8@").expect("an unsigned word of 8 bytes");
            let prefix = if cfg!(target_arch = "x86_64") { "%r" } else { "x" };
            assert!(register.starts_with(prefix), "{note:?}");
        }
        let before = found.insert(note.name.as_str(), arguments.len());
        assert!(before.is_none_or(|count| count == arguments.len()), "{note:?}");
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), PROBES);
}

#[test]
fn every_probe_is_a_nop_among_the_librarys_functions() {
    if !available("readelf") || !available("objdump") {
        return;
    }
    let outcome = run(Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-j", ".text", "-j", ".text.seldom"])
        .arg(shared_library()));
    outcome.expect_success("objdump");
    let code: BTreeMap<u64, &str> = outcome
        .stdout
        .lines()
        .filter_map(|line| {
            let (address, text) = line.trim_start().split_once(":\t")?;
            Some((u64::from_str_radix(address, 16).ok()?, text.trim()))
        })
        .collect();
    let notes = notes();
    assert!(notes.len() >= PROBES.len());
    for note in notes {
        assert_eq!(code.get(&note.address), Some(&"nop"), "{note:?}");
    }
}

#[test]
fn a_debugger_stops_at_a_probe_and_reads_its_arguments() {
    if !available("gdb") {
        return;
    }
    let Some(program) = compile("failing_kernel.c", &[]) else { return };
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-ex", "set startup-with-shell off"]);
    command.args(["-ex", "set breakpoint pending on"]);
    command.arg("-ex").arg(format!("set environment LD_PRELOAD {}", shared_library().display()));
    command.args(["-ex", "break -probe-stap allocator:huge_map", "-ex", "run"]);
    command.args(["-ex", "printf \"bytes %lu\\n\", $_probe_arg1", "-ex", "kill"]).arg(&program);
    let outcome = run(&mut command);
    if outcome.stderr.contains("ptrace") {
        println!("skipped: gdb may not trace here");
        return;
    }
    outcome.expect_success("gdb");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    let bytes = said.lines().find_map(|line| line.strip_prefix("bytes ")?.trim().parse().ok());
    let bytes: usize = bytes.unwrap_or_else(|| panic!("gdb stopped at no huge_map:\n{said}"));
    assert!(bytes > 1 << 20 && bytes.is_multiple_of(4096), "a huge object's mapping: {bytes}");
}
