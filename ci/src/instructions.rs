//! What one malloc and one free execute on their fast path, counted instruction by instruction.
//!
//! A fast path grows by one harmless line at a time, and no timing on a shared machine would show
//! it. So a small C program allocates and frees 64-byte objects under callgrind with the library
//! preloaded; the instructions of the library that ran in (nearly) every call are its fast path.
//! Their number must not exceed [`PATHS`], and none of them may lock the bus or call.
//!
//! The same for the Rust face: `allocator/examples/constant_layouts.rs` allocates and frees by layouts that
//! the compiler knows, and what it inlined of the allocator is counted against [`LAYOUTS`].
//!
//! And for the hardened library, whose fast paths are longer and whose slow ones are part of the bargain (blocks
//! are looked at sixteen at a time): what one malloc and one free execute on average, by size ([`HARDENED`]),
//! in the library; libc's `memset` is not counted. The same of the ordinary library for medium blocks ([`MEDIUM`]).
//!
//! Exact and repeatable: callgrind counts executions, the disassembly names them. The same by
//! hand: `objdump -d --disassemble=malloc $(bench-cli preload --print)`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::tools::{self, Scratch};
use crate::{Finding, Report};

/// What is counted: the function of the probe that makes the calls, and how many instructions of
/// the library one call may take.
const PATHS: [(&str, &str, usize); 2] =
    [("malloc", "probe_malloc", 12), ("free", "probe_free", 21)];

/// The functions of the Rust example, and how many instructions one call may take, with its return.
const LAYOUTS: [(&str, usize); 2] = [("alloc_64", 8), ("dealloc_64", 20)];

/// Sizes in bytes of blocks of bitmap spans, and how many instructions of the ordinary library a malloc and a free
/// may take, on average.
const MEDIUM: [(usize, u64); 3] = [(1024, 130), (8192, 174), (512 << 10, 365)];

/// The same of the hardened library, for blocks of any span.
const HARDENED: [(usize, u64); 4] = [(16, 132), (64, 140), (256, 164), (8192, 1361)];

/// Objects allocated, then freed, and how often (in the example, too): so that slow paths are rare but do occur.
const BATCH: u64 = 100;
const ROUNDS: u64 = 2000;

const PROBE: &str = "\
#include <stdlib.h>
static void *slots[BATCH];
__attribute__((noinline)) void probe_malloc(void) {
  for (int i = 0; i < BATCH; i++) slots[i] = malloc(SIZE);
}
__attribute__((noinline)) void probe_free(void) {
  for (int i = 0; i < BATCH; i++) free(slots[i]);
}
int main(void) {
  for (int i = 0; i < ROUNDS; i++) { probe_malloc(); probe_free(); }
  return 0;
}
";

/// Counts for the library that `bench-cli` carries, or for the one that `--lib` names.
///
/// # Errors
/// A missing tool (cc, valgrind, objdump), or a library that cannot be preloaded.
pub(crate) fn check(root: &Path, options: &[&str]) -> anyhow::Result<Report> {
    if !cfg!(target_arch = "x86_64") {
        let summary = "instructions: counted on x86_64 only".to_owned();
        return Ok(Report { summary, findings: Vec::new() });
    }
    let show = options.contains(&"--show");
    let library = tools::library(root, options)?;
    let scratch = Scratch::new("instructions")?;
    let (mut summary, mut findings) = count_all(&library, &scratch, show)?;
    let (layouts, wrong) = count_layouts(root, &scratch, show)?;
    summary.push_str(&layouts);
    findings.extend(wrong);
    let mut pairs = vec![(library, "ordinary", &MEDIUM[..], "allocator/src/bitmap/mod.rs")];
    if !options.contains(&"--lib") {
        let library = tools::carried(root, "hardened")?;
        pairs.push((library, "hardened", &HARDENED, "allocator/src/heap/hardened.rs"));
    }
    for (library, build, limits, source) in pairs {
        let (counted, wrong) = count_pairs(&library, build, limits, source, &scratch)?;
        summary.push_str(&counted);
        findings.extend(wrong);
    }
    Ok(Report { summary: format!("instructions: {summary}"), findings })
}

fn count_all(
    library: &Path,
    folder: &Scratch,
    show: bool,
) -> anyhow::Result<(String, Vec<Finding>)> {
    let probe = build_probe(folder, 64)?;
    let names = disassemble(library)?;
    let (mut summary, mut findings) = (Vec::new(), Vec::new());
    for (name, function, limit) in PATHS {
        let mut command = Command::new("valgrind");
        command.env("LD_PRELOAD", library);
        let out = folder.join(&format!("{name}.out"));
        let executed = run(command, &probe, function, library, &out)?;
        let path = fast_path(&executed, BATCH * ROUNDS, &names);
        ensure!(!path.is_empty(), "no call of {name} was served by {}", library.display());
        print(name, &path, show);
        summary.push(format!("{name} {} (at most {limit})", path.len()));
        findings.extend(judge(name, &path, limit).into_iter().map(|what| {
            Finding::new(library.file_name().map(PathBuf::from).unwrap_or_default(), 0, what)
        }));
    }
    Ok((summary.join(", "), findings))
}

/// Counts what a malloc and a free of the library of a `build` execute on average; `source` is where to look.
fn count_pairs(
    library: &Path,
    build: &str,
    limits: &[(usize, u64)],
    source: &str,
    folder: &Scratch,
) -> anyhow::Result<(String, Vec<Finding>)> {
    let (mut summary, mut findings) = (String::new(), Vec::new());
    for &(size, limit) in limits {
        let probe = build_probe(folder, size)?;
        let mut command = Command::new("valgrind");
        command.env("LD_PRELOAD", library);
        let out = folder.join("pairs.out");
        let executed = run(command, &probe, "probe_*", library, &out)?;
        let pair = executed.values().sum::<u64>() / (BATCH * ROUNDS);
        ensure!(pair > 0, "no call was served by {}", library.display());
        summary.push_str(&format!(", {build} {size} B {pair} (at most {limit})"));
        // Without 32-byte registers it is more, and the same everywhere else.
        if pair > limit && has_wide_registers() {
            let what = format!("{build}: a pair of {size} bytes takes {pair}, more than {limit}");
            findings.push(Finding::new(source, 0, what));
        }
    }
    Ok((summary, findings))
}

/// Whether the hardened library finds AVX2 here.
fn has_wide_registers() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Counts what an optimised Rust program executes whose layouts are constants.
fn count_layouts(
    root: &Path,
    folder: &Scratch,
    show: bool,
) -> anyhow::Result<(String, Vec<Finding>)> {
    let source = Path::new("allocator/examples/constant_layouts.rs");
    let program = tools::example(root, "allocator", "constant_layouts")?;
    let names = disassemble(&program)?;
    let (mut summary, mut findings) = (String::new(), Vec::new());
    for (name, limit) in LAYOUTS {
        let out = folder.join(&format!("{name}.out"));
        let executed = run(Command::new("valgrind"), &program, name, &program, &out)?;
        let path = fast_path(&executed, BATCH * ROUNDS, &names);
        ensure!(!path.is_empty(), "{} did not call {name}", source.display());
        print(name, &path, show);
        summary.push_str(&format!(", {name} {} (at most {limit})", path.len()));
        let wrong = judge(name, &path, limit);
        findings.extend(wrong.into_iter().map(|what| Finding::new(source, 0, what)));
    }
    Ok((summary, findings))
}

fn print(name: &str, path: &[(u64, String)], show: bool) {
    for (address, text) in path.iter().filter(|_| show) {
        eprintln!("  {name} {address:#8x}  {text}");
    }
}

/// What is wrong with a fast path.
fn judge(name: &str, path: &[(u64, String)], limit: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if path.len() > limit {
        wrong.push(format!(
            "{name} takes {} instructions, more than {limit}: see `cargo ci instructions --show`",
            path.len()
        ));
    }
    for (address, text) in path {
        let locks = text.starts_with("lock ") || (text.starts_with("xchg") && text.contains('('));
        if locks {
            wrong.push(format!("{name} locks the bus on its fast path: {address:#x} {text}"));
        }
        if text.starts_with("call") {
            wrong.push(format!("{name} calls on its fast path: {address:#x} {text}"));
        }
    }
    wrong
}

/// The probe that allocates and frees objects of `size` bytes.
fn build_probe(folder: &Scratch, size: usize) -> anyhow::Result<PathBuf> {
    let (source, program) = (folder.join("probe.c"), folder.join("probe"));
    let text = PROBE
        .replace("BATCH", &BATCH.to_string())
        .replace("ROUNDS", &ROUNDS.to_string())
        .replace("SIZE", &size.to_string());
    fs::write(&source, text)?;
    let mut command = tools::compiler();
    tools::output(command.args(["-O1", "-fno-builtin", "-o"]).arg(&program).arg(&source))?;
    Ok(program)
}

/// Runs `probe` under callgrind, by the `command` that starts valgrind; address in `object` ->
/// executions while in `function`.
fn run(
    mut command: Command,
    probe: &Path,
    function: &str,
    object: &Path,
    out: &Path,
) -> anyhow::Result<BTreeMap<u64, u64>> {
    command
        .env_remove("ALLOCATOR_OPTIONS")
        .args(["--tool=callgrind", "--dump-instr=yes", "--compress-strings=no"])
        .args(["--compress-pos=no", &format!("--toggle-collect={function}")])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(probe);
    tools::output(&mut command)?;
    let profile = fs::read_to_string(out).context("failed to read what callgrind wrote")?;
    Ok(executions(&profile, &object.display().to_string()))
}

/// Reads callgrind's format: which addresses of the object `library` ran how often.
fn executions(profile: &str, library: &str) -> BTreeMap<u64, u64> {
    let mut executed = BTreeMap::new();
    let (mut inside, mut inclusive) = (false, false);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            inside = object == library;
        } else if line.starts_with("calls=") {
            // The next line is what the callee cost, which its own lines say again.
            inclusive = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            let mut fields = rest.split_whitespace();
            let address = fields.next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let count = fields.nth(1).and_then(|count| count.parse::<u64>().ok());
            if let (Some(address), Some(count), true, false) = (address, count, inside, inclusive) {
                *executed.entry(address).or_insert(0) += count;
            }
            inclusive = false;
        }
    }
    executed
}

/// What ran in at least nine of ten calls, in the order of addresses.
fn fast_path(
    executed: &BTreeMap<u64, u64>,
    calls: u64,
    names: &BTreeMap<u64, String>,
) -> Vec<(u64, String)> {
    executed
        .iter()
        .filter(|(_, count)| **count * 10 >= calls * 9)
        .map(|(address, _)| {
            let text = names.get(address).cloned().unwrap_or_else(|| "?".to_owned());
            (*address, text)
        })
        .collect()
}

/// Address -> instruction.
fn disassemble(library: &Path) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut command = Command::new("objdump");
    let text = tools::output(command.args(["-d", "--no-show-raw-insn"]).arg(library))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (address, instruction) = line.trim_start().split_once(":\t")?;
            let address = u64::from_str_radix(address, 16).ok()?;
            Some((address, instruction.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "positions: instr line\nevents: Ir\n\n\
        ob=/l/liba.so\nfl=???\nfn=malloc\n0x10 0 100\n0x14 0 100\ncfn=slow\ncalls=3 0x90\n\
        0x18 0 999\n0x18 0 3\n\nfn=slow\n0x90 0 3\n\nob=/l/other.so\nfn=main\n0x10 0 7\n";

    #[test]
    fn executions_are_summed_for_one_object_without_what_callees_cost() {
        let executed = executions(PROFILE, "/l/liba.so");
        assert_eq!(executed, BTreeMap::from([(0x10, 100), (0x14, 100), (0x18, 3), (0x90, 3)]));
    }

    #[test]
    fn what_runs_in_nearly_every_call_is_the_fast_path() {
        let executed = BTreeMap::from([(1, 100), (2, 90), (3, 89), (4, 1)]);
        let names = BTreeMap::from([(1, "push".to_owned()), (2, "ret".to_owned())]);
        let path = fast_path(&executed, 100, &names);
        assert_eq!(path, [(1, "push".to_owned()), (2, "ret".to_owned())]);
    }

    #[test]
    fn a_path_that_grew_locks_or_calls_is_found() {
        let path = |texts: &[&str]| -> Vec<(u64, String)> {
            (0..).zip(texts.iter().map(|text| (*text).to_owned())).collect()
        };
        assert_eq!(judge("malloc", &path(&["mov", "ret"]), 2), [""; 0]);
        assert_eq!(judge("malloc", &path(&["mov", "mov", "ret"]), 2).len(), 1);
        assert_eq!(judge("malloc", &path(&["lock cmpxchg %rax,(%rdi)"]), 2).len(), 1);
        assert_eq!(judge("malloc", &path(&["xchg %rax,(%rdi)"]), 2).len(), 1);
        assert_eq!(judge("malloc", &path(&["xchg %ax,%ax"]), 2), [""; 0], "that is a nop");
        assert_eq!(judge("malloc", &path(&["call 1234 <slow>"]), 2).len(), 1);
    }
}
