//! Programs on our library under valgrind: nothing wrong where nothing is wrong, and every fault found
//! where there is one.
//!
//! Valgrind would put an allocator of its own in place of ours; it is told not to, so that our code
//! runs. The library then comes in two builds. Of the ordinary one valgrind sees what it does with
//! memory it got from the kernel, and helgrind what it shares between threads: it does not know our
//! lock, so `ci/helgrind.supp` says by function what is no race and why. The build with the feature
//! `valgrind` tells it what is an object, so that memcheck and helgrind find in a program what they
//! find on glibc's allocator.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

use crate::tools::{self, Scratch};
use crate::{Finding, Report};

/// A program under one of valgrind's tools.
struct Case {
    source: &'static str,
    /// On the build that tells valgrind of every object.
    told: bool,
    tool: &'static [&'static str],
    /// What valgrind must say; nothing at all if this is empty.
    faults: &'static [&'static str],
}

const MEMCHECK: &[&str] = &["--tool=memcheck", "--leak-check=no"];
const MEMCHECK_AND_LEAKS: &[&str] = &["--tool=memcheck", "--leak-check=full"];
const HELGRIND: &[&str] = &["--tool=helgrind"];

/// What helgrind takes for races in the ordinary library.
const NO_RACES: &str = "ci/helgrind.supp";

const EXAMPLE: &str = "allocator/capi/examples/quick_start.c";
const THREADS: &str = "ci/probes/threads.c";
const RACE: &str = "ci/probes/race.c";
/// Which of both accesses comes second, and whether helgrind knows the object as one of four bytes, is chance.
const RACE_FAULTS: &[&str] = &["Possible data race during", "count (race.c:7)"];

const CASES: [Case; 9] = [
    Case { source: EXAMPLE, told: false, tool: MEMCHECK, faults: &[] },
    Case { source: THREADS, told: false, tool: MEMCHECK, faults: &[] },
    Case { source: "ci/probes/handoff.c", told: false, tool: HELGRIND, faults: &[] },
    Case { source: RACE, told: false, tool: HELGRIND, faults: RACE_FAULTS },
    Case { source: EXAMPLE, told: true, tool: MEMCHECK_AND_LEAKS, faults: &[] },
    Case { source: THREADS, told: true, tool: MEMCHECK_AND_LEAKS, faults: &[] },
    Case { source: THREADS, told: true, tool: HELGRIND, faults: &[] },
    Case {
        source: "ci/probes/faults.c",
        told: true,
        tool: MEMCHECK_AND_LEAKS,
        faults: &[
            "0 bytes after a block of size 21 alloc'd",
            "7 bytes inside a block of size 21 free'd",
            "Conditional jump or move depends on uninitialised value(s)",
            "Invalid free()",
            "definitely lost: 5,000 bytes in 1 blocks",
            "ERROR SUMMARY: 5 errors",
        ],
    },
    Case { source: RACE, told: true, tool: HELGRIND, faults: RACE_FAULTS },
];

/// The status by which valgrind says that it found something.
const FOUND: i32 = 99;

/// Runs every case, on the library that `bench-cli` carries or that `--lib` names, and on the build
/// that is made for valgrind.
///
/// # Errors
/// A missing tool, a program or a library that does not compile.
pub(crate) fn check(root: &Path, options: &[&str]) -> anyhow::Result<Report> {
    let ordinary = tools::library(root, options)?;
    let target = root.join("target/valgrind");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(root).args(["build", "--quiet", "--package", "allocator-capi"]);
    tools::output(build.args(["--features", "valgrind", "--target-dir"]).arg(&target))?;
    let telling = target.join("debug/liballocator.so");

    let scratch = Scratch::new("valgrind")?;
    let mut findings = Vec::new();
    for case in &CASES {
        let library = if case.told { &telling } else { &ordinary };
        let result = run(root, case, library, &scratch)?;
        let said = String::from_utf8_lossy(&result.stderr);
        let missing: Vec<_> = case.faults.iter().filter(|fault| !said.contains(**fault)).collect();
        let status = if case.faults.is_empty() { 0 } else { FOUND };
        if result.status.code() != Some(status) || !missing.is_empty() {
            let said: Vec<&str> = said.lines().take(30).collect();
            let tool = case.tool.first().copied().unwrap_or_default();
            let what = format!(
                "under {tool}: {}; not said: {missing:?}\n{}",
                result.status,
                said.join("\n")
            );
            findings.push(Finding::new(case.source, 0, what));
        }
    }
    let summary =
        format!("valgrind: {} runs of programs, {} of them wrong", CASES.len(), findings.len());
    Ok(Report { summary, findings })
}

fn run(root: &Path, case: &Case, library: &Path, scratch: &Scratch) -> anyhow::Result<Output> {
    let program = scratch.join("program");
    let mut compile = tools::compiler();
    compile.args(["-g", "-O1", "-fno-builtin", "-pthread", "-I"]);
    compile.arg(root.join("allocator/capi/include")).arg("-o").arg(&program);
    // Linked as well as preloaded: the example calls functions that only our library has.
    tools::output(compile.arg(root.join(case.source)).arg(library))?;
    let mut run = Command::new("valgrind");
    run.env("LD_PRELOAD", library);
    // Memcheck takes memory from the break for undefined, though the kernel zeroes it as it
    // zeroes a mapping, and we rely on that. So: mappings only.
    run.env("ALLOCATOR_OPTIONS", "sbrk=off");
    run.args(case.tool).arg("--soname-synonyms=somalloc=nouserintercepts");
    if !case.told && case.tool == HELGRIND {
        // By the functions that the library has, whatever the compiler inlined into them.
        run.arg("--read-inline-info=no");
        run.arg(format!("--suppressions={}", root.join(NO_RACES).display()));
    }
    run.arg(format!("--error-exitcode={FOUND}")).arg(&program);
    Ok(run.output()?)
}
