//! A kernel that refuses: the N-th call, or every call from the N-th on, for every N of a fixed workload, or as
//! many as there is time for; with the ordinary library, the hardened one, and in classic mode.
//!
//! And a kernel, or a filter such as a container's, that never allows one of the calls by which the library asks
//! for other things than memory: limits, files that describe the machine, random bytes, barriers, names.
//!
//! strace makes the calls fail, so it is the library as shipped that is tested, raw system calls included.

#![allow(clippy::print_stdout, reason = "skipping must be seen, and how many runs were made")]

mod common;

use common::{available, compile, hardened_library, run, scratch, shared_library};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The calls by which memory comes and goes, and the one that marks the start of the workload.
const CALLS: &[&str] = &["mmap", "brk", "munmap", "madvise", "mremap", "mprotect"];
/// The calls for other things than memory. Before the workload the loader makes some of them too.
const QUESTIONS: &[&str] = &["openat", "read", "prctl", "membarrier", "getrandom", "prlimit64"];
/// What the library reads to begin with, by any thread; of these calls the loader makes none.
const FILES: &[&str] =
    &["/proc/sys/vm/overcommit_memory", "/proc/self/cgroup", "/sys/devices/system/node/online"];
const MARK: &str = "getpriority";
/// Of the workload's calls of a kind, the first ones, by which the library starts. Each of them is refused.
const START: usize = 4;
/// A library as a program may find it.
struct Variant {
    name: &'static str,
    library: &'static Path,
    options: &'static str,
    /// The calls that are refused.
    calls: &'static [&'static str],
    /// Of how many calls of a kind behind the first ones each is refused; of more, as many are, spread evenly.
    points: usize,
    /// The kernel marks no pages (before 6.13), so that the library asks it to protect them.
    unmarked: bool,
}

impl Variant {
    fn new(name: &'static str, library: &'static Path) -> Self {
        Variant { name, library, options: "", calls: CALLS, points: 24, unmarked: false }
    }
}

/// `program` under strace, with `library` and the arguments `options`; what strace writes goes to `log`.
fn traced(program: &Path, library: &Path, log: &Path, options: &[String]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).args(options);
    command.arg("-E").arg(format!("LD_PRELOAD={}", library.display())).arg(program);
    command
}

/// As [`traced`], with the calls of `names` in the log and those that `refused` says refused.
fn variant_traced(
    variant: &Variant,
    program: &Path,
    log: &Path,
    names: &str,
    refused: Option<String>,
) -> Command {
    let unmarked = variant.unmarked.then(|| "inject=madvise:error=EINVAL".to_owned());
    let trace = format!("trace={names}{}", if variant.unmarked { ",madvise" } else { "" });
    let options = [Some(trace), unmarked, refused].into_iter().flatten();
    let mut options: Vec<String> = options.flat_map(|option| ["-e".to_owned(), option]).collect();
    options.extend(["-E".to_owned(), format!("ALLOCATOR_OPTIONS={}", variant.options)]);
    traced(program, variant.library, log, &options)
}

/// Whether strace's line is of a call that takes marks off pages. No kernel refuses it: it needs no memory,
/// and what was marked can be unmarked.
fn takes_marks_off(line: &str) -> bool {
    line.contains("MADV_GUARD_REMOVE") || line.contains("0x67 /* MADV_")
}

/// The program that is refused what it asks for.
struct Workload {
    program: PathBuf,
    /// What strace wrote of its last run.
    log: PathBuf,
    /// See [`numbered`].
    calls: Vec<(&'static str, Vec<usize>)>,
}

impl Workload {
    /// None where there is no compiler or no strace, which is said.
    fn of(variant: &Variant) -> Option<Workload> {
        if !available("strace") {
            return None;
        }
        let program = compile("failing_kernel.c", &[])?;
        let log = scratch("failing-kernel").join("log");
        let calls = numbered(variant, &program, &log)?;
        Some(Workload { program, log, calls })
    }
}

/// Which calls of each kind the workload makes, by their numbers in the whole process: before them come
/// the loader's. None where strace may not trace.
fn numbered(
    variant: &Variant,
    program: &Path,
    log: &Path,
) -> Option<Vec<(&'static str, Vec<usize>)>> {
    let all = format!("{},{MARK}", variant.calls.join(","));
    let outcome = run(&mut variant_traced(variant, program, log, &all, None));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return None;
    }
    outcome.expect_success("the workload under strace");
    let text = std::fs::read_to_string(log).expect("strace's log");
    let lines: Vec<&str> = text.lines().collect();
    let mark =
        lines.iter().position(|line| line.contains(MARK)).expect("the workload marks its start");
    let of_kind = |call: &str| {
        let made = lines.iter().enumerate().filter(|(_, l)| l.contains(&format!(" {call}(")));
        let numbers = made.enumerate().filter(|(_, (at, l))| *at > mark && !takes_marks_off(l));
        numbers.map(|(before, _)| before + 1).collect()
    };
    Some(variant.calls.iter().map(|&call| (call, of_kind(call))).collect())
}

/// Refuses each of the workload's calls alone, and each with all that follow.
fn survives_every_refusal(variant: &Variant) {
    let Some(Workload { program, log, calls }) = Workload::of(variant) else { return };
    let (name, mut runs) = (variant.name, 0);
    for (call, numbers) in calls {
        assert!(!numbers.is_empty(), "{name}: the workload calls {call}");
        // What was marked before could not be unmarked any more.
        let marks = call == "madvise" && variant.library == hardened_library();
        let (start, rest) = numbers.split_at(numbers.len().min(START));
        let step = rest.len().div_ceil(variant.points).max(1);
        for nth in start.iter().chain(rest.iter().step_by(step)) {
            let from_on = (!marks).then(|| format!("{nth}+"));
            for when in [Some(nth.to_string()), from_on].into_iter().flatten() {
                // A refused brk returns the old break, never an error. glibc takes 0 for a break not yet
                // known, and asks again.
                let answer = if call == "brk" { "retval=0" } else { "error=ENOMEM" };
                let inject = format!("inject={call}:{answer}:when={when}");
                let outcome = run(&mut variant_traced(variant, &program, &log, call, Some(inject)));
                let text = std::fs::read_to_string(&log).expect("strace's log");
                // Where the order of calls differs from run to run.
                let unheard_of = |l: &str| l.contains("INJECTED") && takes_marks_off(l);
                if !variant.unmarked && text.lines().any(unheard_of) {
                    continue;
                }
                outcome.expect_success(&format!(
                    "{name}: {call} fails from call {when} on (the workload's calls: {numbers:?})"
                ));
                runs += 1;
            }
        }
    }
    println!("{name}: {runs} runs, each with another system call refused");
    assert!(runs > 0, "{name}: the workload asks the kernel for memory");
}

// In ordinary builds, in classic mode, and in hardened builds where the kernel marks pages the one `mprotect`
// is the C library's, for a thread's stack.

#[test]
fn no_refusal_of_any_system_call_at_any_point_crashes_hangs_or_damages_the_heap() {
    let ordinary = Variant::new("ordinary", shared_library());
    survives_every_refusal(&Variant { points: usize::MAX, ..ordinary });
}

#[test]
fn no_refusal_of_any_system_call_harms_the_classic_heap() {
    let classic = Variant::new("classic", shared_library());
    survives_every_refusal(&Variant { options: "mode=classic", ..classic });
}

#[test]
fn no_refusal_of_any_system_call_harms_the_hardened_heap() {
    survives_every_refusal(&Variant::new("hardened", hardened_library()));
}

#[test]
fn no_refusal_of_a_protection_harms_the_hardened_heap_where_the_kernel_marks_no_pages() {
    let hardened = Variant::new("hardened without marks", hardened_library());
    survives_every_refusal(&Variant { calls: &["mprotect"], unmarked: true, ..hardened });
}

/// Refuses each question for as long as the workload lasts: as an unknown call, and as a forbidden one. strace
/// counts the calls of each thread by itself, so that what the second thread reads is refused by its name.
fn needs_no_answer(variant: &Variant) {
    let Some(Workload { program, log, calls }) = Workload::of(variant) else { return };
    let mut asked = Vec::new();
    for (call, numbers) in calls {
        let Some(first) = numbers.first() else { continue };
        let mut which = vec![format!(":when={first}+")];
        if matches!(call, "openat" | "read") {
            which.push(FILES.iter().map(|file| format!(" -P {file}")).collect());
        }
        for (error, which) in which.iter().flat_map(|w| [("ENOSYS", w), ("EPERM", w)]) {
            let (when, files) = which.split_at(which.find(' ').unwrap_or(which.len()));
            let inject = format!("inject={call}:error={error}{when}");
            let mut options = vec!["-e".to_owned(), format!("trace={call}"), "-e".into(), inject];
            options.extend(files.split_whitespace().map(str::to_owned));
            options.extend(["-E".into(), format!("ALLOCATOR_OPTIONS={}", variant.options)]);
            let outcome = run(&mut traced(&program, variant.library, &log, &options));
            let what = format!("{}: {call} fails with {error}{which}", variant.name);
            outcome.expect_success(&what);
            assert_eq!(outcome.stdout, "0 refused\n", "{what}: there is memory all the same");
            let text = std::fs::read_to_string(&log).expect("strace's log");
            assert!(text.contains("INJECTED"), "{what}: it was asked");
        }
        asked.push(call);
    }
    println!("{}: sound without an answer to {}", variant.name, asked.join(", "));
    // Classic mode reads nothing, and starts no thread of its own.
    let least = if variant.options.is_empty() { QUESTIONS } else { &["prctl", "getrandom"] };
    assert!(least.iter().all(|call| asked.contains(call)), "{}: {asked:?}", variant.name);
}

#[test]
fn a_call_that_the_kernel_never_allows_is_done_without() {
    needs_no_answer(&Variant { calls: QUESTIONS, ..Variant::new("ordinary", shared_library()) });
}

#[test]
fn a_call_that_the_kernel_never_allows_is_done_without_in_classic_mode() {
    let classic = Variant::new("classic", shared_library());
    needs_no_answer(&Variant { calls: QUESTIONS, options: "mode=classic", ..classic });
}

#[test]
fn a_call_that_the_kernel_never_allows_is_done_without_in_the_hardened_library() {
    needs_no_answer(&Variant { calls: QUESTIONS, ..Variant::new("hardened", hardened_library()) });
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
    let outcome = run(traced(&program, shared_library(), &log, &options).args(arguments));
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
