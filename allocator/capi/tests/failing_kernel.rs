//! A kernel that refuses: the N-th call, or every call from the N-th on, for every N of a fixed workload.
//!
//! strace makes the calls fail, so it is the library as shipped that is tested, raw system calls included.

#![allow(clippy::print_stdout, reason = "skipping must be seen, and how many runs were made")]

mod common;

use common::{available, compile, run, scratch, shared_library};
use std::path::Path;
use std::process::Command;

/// The calls by which memory comes and goes, and the one that marks the start of the workload.
const CALLS: &[&str] = &["mmap", "brk", "munmap", "madvise", "mremap", "mprotect"];
const MARK: &str = "getpriority";

/// `program` under strace, with `options`; what strace writes goes to `log`.
fn traced(program: &Path, log: &Path, options: &[String]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).args(options);
    command.arg("-E").arg(format!("LD_PRELOAD={}", shared_library().display())).arg(program);
    command
}

/// How often the workload makes each call: before the mark (the loader), and in all.
fn count(program: &Path, log: &Path) -> Option<Vec<(&'static str, usize, usize)>> {
    let all = format!("trace={},{MARK}", CALLS.join(","));
    let outcome = run(&mut traced(program, log, &["-e".into(), all]));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return None;
    }
    outcome.expect_success("the workload under strace");
    let text = std::fs::read_to_string(log).expect("strace's log");
    let lines: Vec<&str> = text.lines().collect();
    let mark =
        lines.iter().position(|line| line.contains(MARK)).expect("the workload marks its start");
    let calls = |lines: &[&str], call: &str| {
        lines.iter().filter(|line| line.contains(&format!(" {call}("))).count()
    };
    Some(
        CALLS
            .iter()
            .map(|&call| (call, calls(&lines[..mark], call), calls(&lines, call)))
            .collect(),
    )
}

#[test]
fn no_refusal_of_any_system_call_at_any_point_crashes_hangs_or_damages_the_heap() {
    if !available("strace") {
        return;
    }
    let Some(program) = compile("failing_kernel.c", &[]) else { return };
    let folder = scratch("failing-kernel");
    let log = folder.join("log");
    let Some(counts) = count(&program, &log) else { return };
    let mut runs = 0;
    for (call, before, all) in counts {
        for nth in before + 1..=all {
            for when in [format!("{nth}"), format!("{nth}+")] {
                // A refused brk returns the old break, never an error. glibc takes 0 for a break not yet
                // known, and asks again.
                let answer = if call == "brk" { "retval=0" } else { "error=ENOMEM" };
                let inject = format!("inject={call}:{answer}:when={when}");
                let options = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
                let outcome = run(&mut traced(&program, &log, &options));
                outcome.expect_success(&format!(
                    "{call} fails from call {when} on (the workload's calls: {before}..{all})"
                ));
                runs += 1;
            }
        }
    }
    println!("{runs} runs, each with another system call refused");
    assert!(runs > 0, "the workload asks the kernel for memory");
}

/// Runs a test program with every `madvise` refused as by a kernel that does not know the advice, and sees
/// to it that the advice was asked for.
fn holds_without_wiped_pages(source: &str, arguments: &[&str]) {
    if !available("strace") {
        return;
    }
    let Some(program) = compile(source, &[]) else { return };
    let log = scratch(&format!("unwiped-{source}")).join("log");
    let inject = "inject=madvise:error=EINVAL".to_owned();
    let options = ["-e".into(), "trace=madvise".into(), "-e".into(), inject];
    let outcome = run(traced(&program, &log, &options).args(arguments));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return;
    }
    outcome.expect_success(&format!("{source} where the kernel wipes no page"));
    let text = std::fs::read_to_string(&log).expect("strace's log");
    let refused = text.lines().any(|line| line.contains("WIPEONFORK") && line.contains("INJECTED"));
    assert!(refused, "the kernel was asked to wipe a page, and refused");
}

#[test]
fn where_the_kernel_wipes_no_page_both_sides_of_a_fork_in_a_threaded_process_keep_allocating() {
    holds_without_wiped_pages("fork_threads.c", &["60"]);
}

#[test]
fn where_the_kernel_wipes_no_page_fork_from_a_signal_handler_does_not_hang() {
    holds_without_wiped_pages("fork_signal.c", &[]);
}

#[test]
fn where_the_kernel_wipes_no_page_fork_handlers_of_the_programs_own_may_allocate() {
    holds_without_wiped_pages("fork_handlers.c", &[]);
}
