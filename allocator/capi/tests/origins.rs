//! Where the library's memory comes from, which of it holds pages, and what is asked of the kernel for it.

#![allow(clippy::print_stdout, reason = "skipping must be seen")]

mod common;

use common::{available, compile, every_mode, hardened_library, run, scratch};
use common::{holds_in_every_mode, shared_library};
use std::ops::Range;
use std::path::Path;
use std::process::Command;

#[test]
fn small_requests_are_served_from_the_break_and_those_of_128_kib_or_more_never() {
    let Some(program) = compile("origin.c", &[]) else { return };
    for (name, library, options) in every_mode() {
        // An object of the hardened library carries eight bytes more.
        let largest = if library == hardened_library() { "131063" } else { "131071" };
        for (sbrk, largest) in [("", largest), ("sbrk=on", largest), ("sbrk=off", "0")] {
            // Of the heaps that `lock=arena` makes the first has the break, and this thread may have another.
            if options.contains("arena") && largest != "0" {
                continue;
            }
            let options = format!("{sbrk},{options}");
            let mut command = Command::new(&program);
            command.arg(largest).env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", &options);
            run(&mut command).expect_success(&format!("origin.c {largest}, {name}, {options}"));
        }
    }
}

#[test]
fn what_holds_objects_is_called_allocator_in_the_maps_of_the_process() {
    let Some(program) = compile("names.c", &[]) else { return };
    for (name, library, options) in every_mode() {
        let options = format!("sbrk=off,{options}");
        let what = format!("names.c, {name}, {options}, {}", library.display());
        let mut command = Command::new(&program);
        let outcome = run(command.env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", &options));
        outcome.expect_success(&what);
        if outcome.stdout == "no names\n" {
            the_kernel_is_asked_for_names(&program, library, &options);
            continue;
        }
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), 7, "{lines:#?}");
        for line in lines {
            assert!(line.ends_with(" [anon:allocator]"), "{what}: {line}");
        }
    }
}

/// Where the kernel names no memory: with strace saying that it does, names are given to whatever holds objects.
fn the_kernel_is_asked_for_names(program: &Path, library: &Path, options: &str) {
    if !available("strace") {
        println!("skipped: a kernel that does not name memory");
        return;
    }
    let log = scratch("names").join("log");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=prctl", "-e", "inject=prctl:retval=0", "-o"]).arg(&log);
    command.arg("-E").arg(format!("LD_PRELOAD={}", library.display()));
    let outcome = run(command.args(["-E", &format!("ALLOCATOR_OPTIONS={options}")]).arg(program));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return;
    }
    outcome.expect_success("names.c under strace");
    let text = std::fs::read_to_string(&log).expect("strace's log");
    let hexadecimal = |digits: &str| u64::from_str_radix(digits.strip_prefix("0x")?, 16).ok();
    let named: Vec<Range<u64>> = text
        .lines()
        .filter(|line| line.contains(", \"allocator\")"))
        .filter_map(|line| {
            let mut arguments = line.split(", ").skip(2);
            let start = hexadecimal(arguments.next()?)?;
            Some(start..start + arguments.next()?.parse::<u64>().ok()?)
        })
        .collect();
    let objects = outcome.stdout.lines().filter_map(|line| hexadecimal(line.split(' ').next()?));
    // Pages that move take their name along: those of the object that grew say nothing here.
    let objects: Vec<u64> = objects.take(5).collect();
    assert_eq!(objects.len(), 5, "{}", outcome.stdout);
    for object in objects {
        let is_named = named.iter().any(|range| range.contains(&object));
        let what = format!("{options}, {}", library.display());
        assert!(is_named, "{what}: {object:#x} has no name:\n{text}");
    }
}

#[test]
fn calloc_touches_nothing_that_is_zero_anyway() {
    holds_in_every_mode("untouched.c", &[], |_| None);
}

#[test]
fn realloc_leaves_what_fits_gives_back_what_is_too_much_and_copies_no_huge_object() {
    holds_in_every_mode("resize.c", &[], Some);
}

#[test]
fn on_a_machine_of_one_node_nothing_is_asked_about_nodes() {
    const NODES: &str = "/sys/devices/system/node/online";
    let online = std::fs::read_to_string(NODES).unwrap_or_default();
    if online.contains(['-', ',']) {
        println!("skipped: a machine with the nodes {}", online.trim());
        return;
    }
    if !available("strace") {
        return;
    }
    let Some(program) = compile("thread_churn.c", &[]) else { return };
    let log = scratch("nodes").join("log");
    let calls = ["mbind", "getcpu", "get_mempolicy", "set_mempolicy"];
    let traced = format!("trace=openat,{}", calls.join(","));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &traced, "-o"]).arg(&log);
    command.arg("-E").arg(format!("LD_PRELOAD={}", shared_library().display()));
    let outcome = run(command.arg(program).arg("16"));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return;
    }
    outcome.expect_success("thread_churn.c under strace");
    let text = std::fs::read_to_string(&log).expect("strace's log");
    let looks = text.lines().filter(|line| line.contains(NODES)).count();
    assert_eq!(looks, 1, "the second thread's heap makes it count the nodes, once:\n{text}");
    let asks = |line: &&str| calls.iter().any(|call| line.contains(&format!(" {call}(")));
    assert_eq!(text.lines().filter(asks).collect::<Vec<_>>(), Vec::<&str>::new());
}
