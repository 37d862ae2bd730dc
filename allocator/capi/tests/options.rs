//! What the library makes of `ALLOCATOR_OPTIONS`, and what a program may still change while it runs.

#![allow(clippy::print_stdout, reason = "skipping must be seen")]

mod common;

use common::{Outcome, available, compile, preloaded, run, scratch, shared_library};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn what_counts_only_before_the_first_allocation_is_refused_and_changes_nothing_after_it() {
    let library = common::shared_library().display().to_string();
    let Some(program) = compile("configure.c", &[&library]) else { return };
    let modes = ["mode=production", "mode=classic"];
    for mode in modes {
        let outcome = run(preloaded(&program).arg(mode).env("ALLOCATOR_OPTIONS", mode));
        outcome.expect_success(mode);
        assert!(outcome.stderr.contains(mode), "{mode} stays:\n{}", outcome.stderr);
        for early in modes {
            let outcome =
                run(preloaded(&program).args([mode, early]).env("ALLOCATOR_OPTIONS", mode));
            outcome.expect_success(&format!("{mode}, then {early} before the first allocation"));
            let last = outcome.stderr.rfind("  mode=").and_then(|at| outcome.stderr.get(at..));
            assert!(last.is_some_and(|said| said.contains(early)), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("class bytes"), "the signal:\n{}", outcome.stderr);
        }
    }
}

#[test]
fn a_report_that_is_chosen_before_the_first_allocation_takes_the_place_of_what_the_environment_chose()
 {
    let library = shared_library().display().to_string();
    let Some(program) = compile("report_change.c", &[&library]) else { return };
    let choices = ["never", "exit", "usr1", "usr2"];
    for (first, last) in choices.iter().flat_map(|first| choices.map(|last| (*first, last))) {
        let mut command = preloaded(&program);
        command.args([first, last]).env("ALLOCATOR_OPTIONS", format!("report={first}"));
        let outcome = run(&mut command);
        outcome.expect_success(&format!("report={first}, then report={last}"));
        let reports = outcome.stderr.matches("class bytes").count();
        assert_eq!(reports, usize::from(last == "exit"), "{first}, {last}:\n{}", outcome.stderr);
    }
}

#[test]
fn the_first_request_of_a_process_may_be_an_aligned_one_in_every_mode() {
    common::holds_in_every_mode("first_aligned.c", &[], |_| None);
}

/// What the library says of a setting that it does not understand.
fn complaint(shown: &str) -> String {
    format!("allocator: ALLOCATOR_OPTIONS: not understood, ignored: {shown}\n")
}

#[test]
fn an_option_that_is_not_understood_is_named_in_one_line_and_passed_over() {
    let library = shared_library().display().to_string();
    let Some(program) = compile("options.c", &[&library]) else { return };
    let long = "x".repeat(300);
    let classic = "mode=classic,placement=segregated,lock=arena,cache=off,coalesce=immediate\n";
    for (mode, in_force) in
        [("mode=classic,lock=arena", classic), ("lock=arena", "mode=production\n")]
    {
        for (wrong, shown) in [
            ("no=such", "no=such"),
            ("memory=lower", "memory=lower"),
            ("sample=+5", "sample=+5"),
            ("nothing", "nothing"),
            ("two\nlines\x1b=\r1\x7f", "two?lines?=?1?"),
            (&long, &long),
            ("placement=x", "placement=x"),
            ("lock=nonsense", "lock=nonsense"),
            ("cache=yes", "cache=yes"),
            ("coalesce=", "coalesce="),
            ("mmap_threshold=-1", "mmap_threshold=-1"),
            ("trim_threshold=1x", "trim_threshold=1x"),
            ("top_pad", "top_pad"),
        ] {
            // The wrong one first and last: what stands beside it holds.
            for options in [format!("{wrong},{mode}"), format!("{mode},{wrong}")] {
                let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", &options));
                outcome.expect_success(&options);
                let rest = outcome.stderr.strip_prefix(&complaint(shown));
                let rest = rest.unwrap_or_else(|| panic!("one line first:\n{}", outcome.stderr));
                assert!(!rest.contains("not understood"), "once:\n{}", outcome.stderr);
                assert!(rest.contains(in_force), "{options}: {in_force}:\n{rest}");
            }
        }
    }
}

#[test]
fn the_settings_of_classic_mode_are_understood_in_every_mode_and_nothing_is_said() {
    let library = shared_library().display().to_string();
    let Some(program) = compile("options.c", &[&library]) else { return };
    let settings = "placement=buddy,lock=none,cache=on,coalesce=deferred,mmap_threshold=64k,\
                    trim_threshold=1m,top_pad=0";
    for mode in ["mode=production", "mode=classic"] {
        let options = format!("{settings},{mode}");
        let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", &options));
        outcome.expect_success(&options);
        assert!(outcome.stderr.starts_with("allocator 0."), "{options}:\n{}", outcome.stderr);
        assert!(outcome.stderr.contains(mode), "{options}:\n{}", outcome.stderr);
    }
}

#[test]
fn the_line_about_an_option_is_written_at_once_and_cut_where_it_would_be_long() {
    if !available("strace") {
        return;
    }
    let library = shared_library().display().to_string();
    let Some(program) = compile("options.c", &[&library]) else { return };
    let log = scratch("complaints").join("log");
    let long = "y".repeat(5_000);
    let mut command = Command::new("strace");
    command.args(["-qq", "-s", "1000", "-e", "trace=write,writev", "-o"]).arg(&log);
    command.arg("-E").arg(format!("LD_PRELOAD={library}"));
    command.arg("-E").arg(format!("ALLOCATOR_OPTIONS=no=such,lock=nonsense,{long}"));
    let outcome = run(command.arg(program));
    if !outcome.status.success() && outcome.stderr.contains("ptrace") {
        println!("skipped: strace may not trace here");
        return;
    }
    outcome.expect_success("options.c under strace");
    let text = fs::read_to_string(&log).expect("strace's log");
    let cut = complaint(&format!("{}...", "y".repeat(512 - complaint("...").len())));
    let calls: Vec<String> = [complaint("no=such"), complaint("lock=nonsense"), cut]
        .iter()
        .map(|line| {
            let bytes = line.len();
            format!("write(2, \"{}\\n\", {bytes}) = {bytes}", line.trim_end())
        })
        .collect();
    let written: Vec<&str> = text.lines().take(calls.len()).collect();
    assert_eq!(written, calls, "one call a line, before anything else:\n{text}");
    let rest: Vec<&str> = text.lines().skip(calls.len()).collect();
    assert!(!rest.iter().any(|line| line.contains("not understood")), "{text}");
}

/// Both files at a place that every user can read; gone when dropped.
struct Public(PathBuf);

impl Public {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("allocator-options-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("its owner");
        Public(folder)
    }

    /// Copied by a process of its own: were it written here, a test beside this one could fork while
    /// the file is open for writing, and the kernel runs no file that anyone may still write
    /// (ETXTBSY) until that child has become another program.
    fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.0.join(name);
        let outcome = run(Command::new("install").args(["-m", "755"]).args([from, &to]));
        outcome.expect_success("install");
        to
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_program_with_more_rights_than_its_caller_is_given_no_options_and_hears_nothing_of_it() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can make a program another user's");
        return;
    }
    let public = Public::new();
    let library = public.copy(shared_library(), "liballocator.so");
    let rpath = format!("-Wl,-rpath,{}", public.0.display());
    let library = library.display().to_string();
    let Some(program) = compile("options.c", &[&library, &rpath]) else { return };
    let start = |program: &Path| -> Outcome {
        let options = "no=such,mode=classic,report=exit";
        run(Command::new(program).env_remove("LD_PRELOAD").env("ALLOCATOR_OPTIONS", options))
    };
    let ordinary = start(&program);
    ordinary.expect_success("options.c");
    for word in ["not understood, ignored: no=such\n", "mode=classic", "class bytes"] {
        assert!(ordinary.stderr.contains(word), "{word}:\n{}", ordinary.stderr);
    }
    let privileged = public.copy(&program, "privileged");
    chown(&privileged, Some(65_534), None).expect("root may");
    fs::set_permissions(&privileged, Permissions::from_mode(0o4755)).expect("root may");
    let outcome = start(&privileged);
    outcome.expect_success("options.c with its owner's rights");
    if outcome.stdout != "secure\n" {
        println!("skipped: {} passes over set-user-ID bits", public.0.display());
        return;
    }
    let said = &outcome.stderr;
    assert!(said.contains("mode=production\n"), "{said}");
    assert!(!said.contains("not understood") && !said.contains("class bytes"), "{said}");
}
