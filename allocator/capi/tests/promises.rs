//! What `malloc` and its relatives promise, held by C and C++ programs that check themselves.

mod common;

use common::{compile, holds_in_every_mode, preloaded, run};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[test]
fn the_c_functions_keep_the_standard_posix_and_glibc_to_the_letter() {
    // Linked against a library, since the C library may lack `free_sized`.
    let library = common::shared_library().display().to_string();
    holds_in_every_mode("standard.c", &[&library], |_| None);
}

#[test]
fn the_header_declares_sized_frees_in_every_standard_of_c_and_cxx() {
    let library = common::shared_library().display().to_string();
    let strict = "-Werror=implicit-function-declaration";
    let c23 = ["-std=gnu2x", "-D__STDC_VERSION__=202311L", strict, &library];
    for (source, arguments) in [
        ("sized.c", &["-std=gnu11", strict, &library][..]),
        ("sized.c", &c23),
        ("sized.cc", &["-std=c++11", &library]),
        ("sized.cc", &["-std=c++17", &library]),
    ] {
        let Some(program) = compile(source, arguments) else { return };
        run(&mut preloaded(program)).expect_success(&format!("{source} with {arguments:?}"));
    }
}

#[test]
fn they_keep_it_where_small_objects_have_mappings_of_their_own() {
    let library = common::shared_library().display().to_string();
    let options = [("ALLOCATOR_OPTIONS", "mode=classic,mmap_threshold=1k")];
    common::holds_with("standard.c", &[&library], &options);
}

#[test]
fn the_c_functions_keep_their_promises_when_linked_statically() {
    let archive = common::static_library().display().to_string();
    if let Some(program) = common::compile("standard.c", &[&archive]) {
        run(&mut Command::new(program)).expect_success("standard.c with liballocator.a");
    }
}

#[test]
fn operators_new_and_delete_throw_return_null_and_call_the_new_handler_as_the_standard_says() {
    holds_in_every_mode("operators.cc", &[], |_| None);
}

#[test]
fn operators_keep_their_promises_when_linked_statically() {
    let archive = common::static_library().display().to_string();
    if let Some(program) = common::compile("operators.cc", &[&archive]) {
        run(&mut Command::new(program)).expect_success("operators.cc with liballocator.a");
    }
}

#[test]
fn what_operator_new_got_after_the_new_handler_made_room_may_be_deleted_by_its_size() {
    holds_in_every_mode("late_memory.cc", &[], |_| None);
}

/// Which operators `replaced.cc` defines.
const REPLACED: [&[&str]; 5] = [
    &["-DSINGLE"],
    &["-DARRAY"],
    &["-DALIGNED"],
    &["-DALIGNED_ARRAY"],
    &["-DSINGLE", "-DARRAY", "-DALIGNED", "-DALIGNED_ARRAY"],
];

#[test]
fn operators_that_a_program_defines_are_where_those_that_it_does_not_end() {
    for defined in REPLACED {
        let arguments = [defined, &["-Wno-sized-deallocation", "-ldl"]].concat();
        holds_in_every_mode("replaced.cc", &arguments, |_| None);
    }
}

#[test]
fn so_they_are_in_a_program_linked_with_the_archive_whose_own_definitions_the_linker_prefers() {
    let archive = common::static_library().display().to_string();
    for defined in REPLACED {
        let link = [archive.as_str(), "-Wl,-z,muldefs", "-Wno-sized-deallocation", "-ldl"];
        let Some(program) = compile("replaced.cc", &[defined, &link].concat()) else { return };
        run(&mut Command::new(program)).expect_success(&format!("{defined:?} and liballocator.a"));
    }
}

#[test]
fn forms_that_do_not_throw_serve_a_program_that_has_its_operators_and_its_runtime_within() {
    let library = common::shared_library().display().to_string();
    let within = ["-static-libstdc++", "-static-libgcc", "-Wno-sized-deallocation", &library];
    holds_in_every_mode("replaced_alone.cc", &within, |_| None);
}

#[test]
fn reallocarray_goes_through_the_realloc_that_a_program_defines() {
    holds_in_every_mode("own_realloc.c", &[], |_| None);
}

#[test]
fn allocator_init_fails_with_enomem_where_there_is_no_memory_and_works_once_there_is() {
    let library = common::shared_library().display().to_string();
    holds_in_every_mode("no_memory.c", &[&library], |_| None);
}

#[test]
fn an_object_that_shrinks_where_there_is_no_memory_may_be_freed_by_its_size_in_every_mode() {
    let library = common::shared_library().display().to_string();
    let wiped = |mode| (mode == "hardened").then_some("wiped");
    holds_in_every_mode("shrink.c", &[&library], wiped);
}

#[test]
fn malloc_trim_says_whether_anything_went_back_in_every_mode() {
    holds_in_every_mode("given_back.c", &[], |_| None);
}

#[test]
fn the_report_says_what_a_thread_holds_and_the_counters_what_is_cached_and_given_back() {
    let library = common::shared_library().display().to_string();
    let Some(program) = compile("statistics.c", &[&library]) else { return };
    for library in [common::shared_library(), common::hardened_library()] {
        let mut command = Command::new(&program);
        let outcome = run(command.env("LD_PRELOAD", library).env_remove("ALLOCATOR_OPTIONS"));
        outcome.expect_success(&library.display().to_string());
        let said = &outcome.stdout;
        let (classes, threads) = said.split_once("       thread ").expect("two tables");
        let holder = said.lines().find_map(|line| line.strip_prefix("held by "));
        let live = |table: &str, key: &str| -> Option<usize> {
            let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            rows.filter(|row| row.first() == Some(&key)).find_map(|row| row.last()?.parse().ok())
        };
        for live in [live(classes, "5120"), live(threads, holder.expect("a thread"))] {
            let live = live.unwrap_or_else(|| panic!("a row:\n{said}"));
            assert!((1000 * 5120..2000 * 5120).contains(&live), "{live} bytes:\n{said}");
        }
    }
}

#[test]
fn a_check_names_the_free_block_that_an_overflow_ran_into_in_one_line() {
    let library = common::shared_library().display().to_string();
    let Some(program) = compile("damage.c", &[&library]) else { return };
    let outcome = run(&mut preloaded(program));
    outcome.expect_success("damage.c");
    let block = outcome.stdout.trim();
    assert_eq!(
        outcome.stderr,
        format!("allocator: the heap is damaged: a free block's link was overwritten at {block}\n")
    );
}

#[test]
fn a_c_program_answers_faults_itself_and_ends_by_abort_when_it_does_not() {
    let library = common::shared_library().display().to_string();
    for lock in ["global", "arena"] {
        let mode = format!("mode=classic,lock={lock}");
        common::holds_with("on_fault.c", &[&library], &[("ALLOCATOR_OPTIONS", &mode)]);
    }
    let Some(program) = compile("on_fault.c", &[&library]) else { return };
    let mut hardened = Command::new(program);
    run(hardened.env("LD_PRELOAD", common::hardened_library())).expect_success("hardened");
}

#[test]
fn the_report_and_the_heap_map_are_written_on_request_at_exit_and_on_a_signal() {
    let library = common::shared_library().display().to_string();
    let Some(program) = compile("reports.c", &[&library]) else { return };
    let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", "report=usr2"));
    outcome.expect_success("reports.c");
    assert_is_a_heap_map(&outcome.stdout);
    let span = "\"use\":\"bitmap\",\"block\":5120,\"capacity\":6,\"live\":3}";
    assert!(outcome.stdout.contains(span), "three objects:\n{}", outcome.stdout);
    assert!(outcome.stderr.contains("class bytes"), "on a signal:\n{}", outcome.stderr);
    let outcome = run(preloaded("ls").env("ALLOCATOR_OPTIONS", "report=exit"));
    assert!(outcome.stderr.contains("class bytes"), "at exit:\n{}", outcome.stderr);
}

/// What stands behind `"name":` wherever it does in a line of JSON.
fn figures(json: &str, name: &str) -> Vec<u64> {
    let name = format!("\"{name}\":");
    let rests = json.split(&*name).skip(1);
    rests.map(|rest| rest.split([',', '}']).next()?.parse().ok()).map(Option::unwrap).collect()
}

/// Spans cover their segments, and what the first line says of the whole heap is their sum.
fn assert_is_a_heap_map(map: &str) {
    const SLICE: u64 = 32768;
    let (mut segments, mut live, mut committed) = (0, 0, 0);
    for line in map.lines().filter(|line| line.starts_with("{\"address\"")) {
        let slices: u64 = figures(line, "slices").iter().sum();
        assert_eq!(figures(line, "bytes"), [slices * SLICE], "spans cover it: {line}");
        segments += 1;
        for span in line.split("{\"slice\":").skip(1) {
            let used = span.split("\"use\":\"").nth(1).and_then(|rest| rest.split('"').next());
            for block in figures(span, "block") {
                let (held, capacity) = (figures(span, "live")[0], figures(span, "capacity")[0]);
                assert!(held <= capacity, "{span}");
                live += block * held;
            }
            // Spans of medium blocks that a heap keeps without a live one are cached.
            let cached = used == Some("bitmap") && figures(span, "live") == [0];
            if matches!(used, Some("slab" | "bitmap" | "spare")) && !cached {
                committed += figures(span, "slices")[0] * SLICE;
            }
        }
    }
    assert!(segments > 0, "a segment:\n{map}");
    let first = map.lines().next().unwrap_or_default();
    assert_eq!(figures(first, "slice_bytes"), [SLICE], "{map}");
    assert_eq!(figures(first, "live"), [live], "what is live in all spans:\n{map}");
    assert_eq!(figures(first, "committed"), [committed], "what spans hold:\n{map}");
    assert_eq!(figures(first, "huge"), [0], "{map}");
    assert!(map.contains(&format!("{{\"end\":true,\"segments\":{segments}}}")), "{map}");
}

#[test]
fn a_report_at_exit_goes_to_standard_error_and_not_into_a_file_that_took_its_descriptor() {
    let Some(program) = compile("report_exit.c", &[]) else { return };
    let file = common::scratch("report_exit").join("file");
    let outcome =
        run(preloaded(&program).arg(&file).env("ALLOCATOR_OPTIONS", "mode=classic,report=exit"));
    outcome.expect_success("report_exit.c");
    assert_eq!(std::fs::read_to_string(&file).expect("the program's file"), "mine\n");
    assert!(outcome.stderr.contains("mode=classic"), "at exit:\n{}", outcome.stderr);
}

#[test]
fn a_report_on_a_signal_goes_not_into_a_file_that_took_the_descriptor_of_standard_error() {
    let Some(program) = compile("report_exit.c", &[]) else { return };
    let file = common::scratch("report_signal").join("file");
    // That no profile can be written is not said there either.
    let options = "report=usr1,sample=1,sample_prefix=/dev/null/none";
    let outcome =
        run(preloaded(&program).arg(&file).arg("signal").env("ALLOCATOR_OPTIONS", options));
    outcome.expect_success("report_exit.c with a signal");
    assert_eq!(std::fs::read_to_string(&file).expect("the program's file"), "mine\n");
    assert_eq!(outcome.stderr, "", "it is closed by then");
}

#[test]
fn a_report_is_written_also_where_somebody_allocates_before_the_archive_is_set_up() {
    let archive = common::static_library().display().to_string();
    let Some(program) = compile("early_report.c", &[&archive]) else { return };
    for mode in ["mode=production", "mode=classic"] {
        for (report, argument) in [("never", "none"), ("exit", "none"), ("usr1", "signal")] {
            let options = format!("{mode},report={report}");
            let mut command = Command::new(&program);
            let outcome = run(command.arg(argument).env("ALLOCATOR_OPTIONS", &options));
            outcome.expect_success(&options);
            let reports = outcome.stderr.matches("class bytes").count();
            assert_eq!(reports, usize::from(report != "never"), "{options}:\n{}", outcome.stderr);
        }
    }
}

#[test]
fn the_first_allocation_leaves_errno_alone_whatever_has_become_of_standard_error() {
    let Some(program) = compile("first_errno.c", &[]) else { return };
    for library in [common::shared_library(), common::hardened_library()] {
        for options in ["", "report=exit", "report=usr1", "mode=classic,report=exit", "no=such"] {
            // Open, closed, and where no descriptor above those that programs count on may be had.
            for start in ["exec \"$0\"", "exec \"$0\" 2>&-", "ulimit -n 50; exec \"$0\""] {
                let mut command = Command::new("sh");
                command.args(["-c", start]).arg(&program);
                command.env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options);
                let outcome = run(&mut command);
                outcome.expect_success(&format!("first_errno.c, {options}, {start}"));
                let told = options.ends_with("exit") && !start.contains("2>&-");
                assert_eq!(outcome.stderr.contains("class bytes"), told, "{options}, {start}");
            }
        }
    }
}

#[test]
fn a_signal_that_interrupts_malloc_gets_a_report_or_a_line_in_every_mode_and_never_waits_for_itself()
 {
    let Some(program) = compile("report_signal.c", &[]) else { return };
    for (mode, threads) in [
        ("mode=production", "4"),
        ("mode=classic", "4"),
        ("mode=classic,lock=arena,cache=on", "4"),
        ("mode=classic,lock=arena,sample=64k", "4"),
        ("mode=classic,lock=none", "1"),
    ] {
        let options = format!("report=usr1,sample_prefix=/dev/null/none,{mode}");
        let outcome = run(preloaded(&program).arg(threads).env("ALLOCATOR_OPTIONS", &options));
        outcome.expect_success(&options);
        let said = &outcome.stderr;
        let answered = said.contains("class bytes") || said.contains("in the middle of a change");
        assert!(answered, "{options}:\n{said}");
    }
}

#[test]
fn the_quick_start_compiles_and_runs_with_the_shared_and_with_the_static_library() {
    if !common::available("cc") {
        return;
    }
    let package = common::package();
    let folder = common::shared_library().parent().expect("a file in a folder");
    let scratch = common::scratch("quick-start");
    let linked = scratch.join("shared");
    let standalone = scratch.join("static");
    let cc = || {
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
            .arg(package.join("include"));
        cc.arg(package.join("examples/quick_start.c"));
        cc
    };
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    run(cc().arg("-L").arg(folder).args(["-lallocator", &rpath, "-o"]).arg(&linked))
        .expect_success("shared link");
    run(cc().arg(common::static_library()).arg("-o").arg(&standalone))
        .expect_success("static link");
    for program in [linked, standalone] {
        let outcome = run(&mut Command::new(&program));
        outcome.expect_success("the quick start");
        assert!(outcome.stdout.contains("the heap is sound"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("is aligned"), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("live"), "allocator_stats speaks:\n{}", outcome.stderr);
    }
}

#[test]
fn the_header_compiles_alone_in_every_dialect_without_a_warning() {
    let scratch = common::scratch("header");
    for (compiler, file, dialects) in [
        ("cc", "alone.c", &["c99", "c11", "gnu17", "gnu2x"][..]),
        ("g++", "alone.cc", &["c++11", "c++17", "c++20"][..]),
    ] {
        if !common::available(compiler) {
            continue;
        }
        let source = scratch.join(file);
        std::fs::write(&source, "#include <allocator.h>\nint main(void) { return 0; }\n")
            .expect("a file");
        for dialect in dialects {
            let mut command = Command::new(compiler);
            command.arg(format!("-std={dialect}")).args([
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-fsyntax-only",
                "-I",
            ]);
            run(command.arg(common::package().join("include")).arg(&source))
                .expect_success(dialect);
        }
    }
}

#[test]
fn every_function_fails_cleanly_under_a_limit_and_serves_again_afterwards() {
    let Some(program) = compile("limit.c", &[]) else { return };
    run(&mut preloaded(program)).expect_success("limit.c");
}

#[test]
fn memory_that_is_free_somewhere_serves_whoever_needs_it() {
    let Some(program) = compile("relieved.c", &[]) else { return };
    for case in 1..=7 {
        run(preloaded(&program).arg(case.to_string()))
            .expect_success(&format!("relieved.c {case}"));
    }
}

/// An object of each kind: slab, bitmap span below and above the mmap threshold, its own mapping.
const MISUSED: [usize; 4] = [40, 5_000, 300_000, 3_000_000];

/// Runs every misuse of `misuse.cc` on an object of each kind; those that were not caught, with what
/// the process did, and how many there are in all. `None` without a compiler.
///
/// A misuse counts as not caught if it is not caught in any of `tries` processes: one byte written
/// over a canary is what stood there already once in 256 processes.
fn survivors(library: &Path, tries: usize) -> Option<(Vec<String>, usize)> {
    // Linked against a library, since the C library may lack `free_sized`.
    let linked = common::shared_library().display().to_string();
    let program = common::compile("misuse.cc", &["-O0", &linked])?;
    let shapes = run(&mut preloaded(&program)).stdout;
    let cases: Vec<(&str, usize)> =
        shapes.lines().flat_map(|shape| MISUSED.map(|size| (shape, size))).collect();
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let is_caught = |shape: &str, size: usize| {
        let outcome = run(Command::new(&program)
            .args([shape, &size.to_string()])
            .env("LD_PRELOAD", library)
            .env_remove("ALLOCATOR_OPTIONS"));
        if outcome.status.signal() == Some(libc::SIGABRT) {
            let report = &outcome.stderr;
            let sound = report.lines().count() == 1 && report.starts_with("allocator: ");
            assert!(sound, "{shape} of {size} bytes is reported in one line:\n{report}");
        }
        let hangs = outcome.status.signal() == Some(libc::SIGALRM);
        !outcome.stdout.contains("not caught") && !hangs && outcome.status.code() != Some(2)
    };
    let judge = |&(shape, size): &(&str, usize)| {
        if !(0..tries).any(|_| is_caught(shape, size)) {
            survivors.lock().expect("no panics").push(format!("{shape} of {size} bytes"));
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    judge(case);
                }
            });
        }
    });
    Some((survivors.into_inner().expect("no panics"), cases.len()))
}

#[test]
fn huge_pages_are_asked_for_where_the_program_wants_them_and_nowhere_else() {
    let Some(program) = compile("huge_pages.c", &[]) else { return };
    let asked = |options: &str| -> usize {
        let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", options));
        outcome.expect_success(options);
        outcome.stdout.trim().parse().expect("a number")
    };
    assert_eq!(asked(""), 0);
    assert_eq!(asked("huge_pages=off"), 0);
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        println!("skipped: a kernel without transparent huge pages");
        return;
    }
    assert!(asked("huge_pages=on") >= 2, "the heap of small objects, and the large object");
}

#[test]
fn the_hardened_library_guards_every_span_of_large_objects_one_in_four_or_none() {
    let Some(program) = compile("guards.c", &[]) else { return };
    let guards = |option: &str| -> usize {
        let mut command = Command::new(&program);
        command.env("LD_PRELOAD", common::hardened_library()).env("ALLOCATOR_OPTIONS", option);
        let outcome = run(&mut command);
        outcome.expect_success("guards.c");
        outcome.stdout.trim().parse().expect("a number")
    };
    let (all, some) = (guards("guard=on"), guards("guard=4"));
    assert!(all >= 16, "{all} guards");
    assert!(some > 0 && some.abs_diff(all / 4) <= 2, "{some} of {all}");
    assert_eq!(guards("guard=off"), 0);
}

#[test]
fn the_hardened_library_survives_no_misuse_and_the_ordinary_one_at_most_two_thirds() {
    let Some((missed, all)) = survivors(common::hardened_library(), 3) else { return };
    assert!(all >= 116, "{all} cases");
    assert_eq!(missed, Vec::<String>::new(), "caught by the hardened library");
    let (missed, all) =
        survivors(common::shared_library(), 1).expect("the compiler is still there");
    println!("the ordinary library catches {} of {all}", all - missed.len());
    for shape in ["free_misaligned", "free_interior"] {
        for size in [5_000, 300_000] {
            let case = format!("{shape} of {size} bytes");
            assert!(!missed.contains(&case), "the ordinary library catches {case}");
        }
    }
    assert!(missed.len() * 3 <= all * 2, "{} of {all} missed: {missed:#?}", missed.len());
}
