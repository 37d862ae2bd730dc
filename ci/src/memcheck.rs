//! Programs on our library under valgrind's memcheck: no read of memory that is not there, no
//! decision on bytes that nobody wrote, neither by the programs nor inside the library.
//!
//! Memcheck would put an allocator of its own in place of ours; it is told not to, so that our
//! code runs. Then it knows nothing of objects, and what it can see is what the library itself
//! does with memory it got from the kernel.

use std::path::Path;
use std::process::Command;

use crate::tools::{self, Scratch};
use crate::{Finding, Report};

/// Programs that valgrind runs, and what they print last. The first is the library's own example.
const PROGRAMS: [(&str, &str); 2] =
    [("allocator/capi/examples/quick_start.c", ""), ("ci/probes/threads.c", "done")];

/// The status by which valgrind says that it found something.
const FOUND: i32 = 99;

/// Runs every program under memcheck, on the library that `bench-cli` carries or that `--lib` names.
///
/// # Errors
/// A missing tool, a program that does not compile.
pub(crate) fn check(root: &Path, options: &[&str]) -> anyhow::Result<Report> {
    let library = tools::library(root, options)?;
    let scratch = Scratch::new("memcheck")?;
    let mut findings = Vec::new();
    for (source, last) in PROGRAMS {
        let program = scratch.join("program");
        let mut compile = tools::compiler();
        compile.args(["-g", "-O1", "-fno-builtin", "-pthread", "-I"]);
        compile.arg(root.join("allocator/capi/include")).arg("-o").arg(&program);
        // Linked as well as preloaded: the example calls functions that only our library has.
        tools::output(compile.arg(root.join(source)).arg(&library))?;
        let mut run = Command::new("valgrind");
        run.env("LD_PRELOAD", &library);
        // Memcheck takes memory from the break for undefined, though the kernel zeroes it as it
        // zeroes a mapping, and we rely on that. So: mappings only.
        run.env("ALLOCATOR_OPTIONS", "sbrk=off");
        run.args(["--quiet", "--soname-synonyms=somalloc=nouserintercepts", "--leak-check=no"]);
        run.arg(format!("--error-exitcode={FOUND}")).arg(&program);
        let result = run.output()?;
        let printed = String::from_utf8_lossy(&result.stdout);
        if !result.status.success() || !printed.trim_end().ends_with(last) {
            let said = String::from_utf8_lossy(&result.stderr);
            let said: Vec<&str> = said.lines().take(30).collect();
            let what = format!("under memcheck: {}\n{}", result.status, said.join("\n"));
            findings.push(Finding::new(source, 0, what));
        }
    }
    let summary =
        format!("valgrind: {} programs, {} of them wrong", PROGRAMS.len(), findings.len());
    Ok(Report { summary, findings })
}
