//! Processes that fork, threads that come and go, libraries that come and go, calls too early and too late.

mod common;

use common::{
    compile, hardened_library, holds, holds_in_every_mode, holds_with, preloaded, run,
    shared_library, static_library,
};
use std::process::Command;

/// A program that asks the library it is linked with holds under the ordinary and the hardened one, with no argument
/// and with each of `variants`.
fn holds_in_both_builds(source: &str, variants: &[&str]) {
    let Some(program) = compile(source, &[&shared_library().display().to_string()]) else { return };
    for library in [shared_library(), hardened_library()] {
        for variant in core::iter::once(None).chain(variants.iter().map(Some)) {
            run(preloaded(&program).args(variant).env("LD_PRELOAD", library))
                .expect_success(&format!("{source} {variant:?} with {}", library.display()));
        }
    }
}

#[test]
fn both_sides_of_a_fork_in_a_threaded_process_keep_allocating() {
    holds("fork_threads.c");
}

#[test]
fn fork_from_a_signal_handler_that_interrupted_malloc_does_not_hang() {
    holds("fork_signal.c");
}

#[test]
fn fork_from_a_signal_handler_that_interrupted_a_wait_for_a_lock_does_not_hang() {
    let Some(program) = compile("fork_waiting.c", &[]) else { return };
    let modes = ["", "mode=classic", "mode=classic,lock=arena", "mode=classic,placement=buddy"];
    let modes = modes.map(|options| (shared_library(), options));
    for (library, options) in modes.into_iter().chain([(hardened_library(), "")]) {
        run(preloaded(&program).env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options))
            .expect_success(&format!("fork_waiting.c with {} {options}", library.display()));
    }
}

#[test]
fn fork_waits_for_no_thread_that_holds_a_lock_of_stdio_and_allocates() {
    holds_in_every_mode("fork_stdio.c", &[], |_| None);
}

#[test]
fn frees_behind_a_threads_last_destructor_leave_nothing_behind() {
    holds_in_every_mode("last_frees.c", &[], |_| None);
}

#[test]
fn fork_handlers_of_the_programs_own_may_allocate() {
    let Some(program) = compile("fork_handlers.c", &[]) else { return };
    for options in ["", "mode=classic", "mode=classic,lock=arena", "mode=classic,cache=on"] {
        run(preloaded(program.clone()).env("ALLOCATOR_OPTIONS", options)).expect_success(options);
    }
}

#[test]
fn a_thread_born_in_the_child_of_a_fork_may_be_the_first_that_allocates_there() {
    holds_in_every_mode("fork_late.c", &[], |_| None);
}

#[test]
fn there_is_one_purging_thread_at_most_and_none_that_is_no_longer_wanted() {
    let library = common::shared_library().display().to_string();
    holds_with("purger.c", &[&library], &[("ALLOCATOR_OPTIONS", "purge=thread")]);
}

#[test]
fn a_heap_that_a_thread_got_by_a_child_of_vfork_is_that_threads() {
    holds_in_both_builds("vfork.c", &["first"]);
}

#[test]
fn the_child_of_a_fork_without_fork_handlers_allocates() {
    holds("fork_raw.c");
}

#[test]
fn the_child_of_a_fork_without_fork_handlers_allocates_in_classic_mode() {
    let Some(program) = compile("fork_raw.c", &[]) else { return };
    for placement in ["segregated", "first-fit", "buddy", "slab"] {
        for lock in ["global", "arena"] {
            for cache in ["off", "on"] {
                let options =
                    format!("mode=classic,placement={placement},lock={lock},cache={cache}");
                run(preloaded(program.clone()).env("ALLOCATOR_OPTIONS", &options))
                    .expect_success(&options);
            }
        }
    }
}

#[test]
fn fork_from_a_signal_handler_does_not_hang_in_classic_mode() {
    holds_with("fork_signal.c", &[], &[("ALLOCATOR_OPTIONS", "mode=classic")]);
}

#[test]
fn forks_and_their_children_are_as_safe_in_the_hardened_library() {
    for source in ["fork_threads.c", "fork_raw.c", "fork_signal.c", "fork_handlers.c"] {
        let Some(program) = compile(source, &[]) else { return };
        for guard in ["guard=on", "guard=4", "guard=off"] {
            let mut command = preloaded(&program);
            command.env("LD_PRELOAD", hardened_library()).env("ALLOCATOR_OPTIONS", guard);
            run(&mut command).expect_success(&format!("{source} with {guard}"));
        }
    }
}

#[test]
fn what_was_freed_for_a_sleeping_thread_serves_another_and_the_sleeper_wakes_to_a_sound_heap() {
    holds_in_both_builds("sleeper.c", &[]);
}

#[test]
fn heaps_are_visited_and_checked_while_their_threads_work_sleep_and_end_and_stay_sound() {
    holds_in_both_builds("trim_race.c", &[]);
}

#[test]
fn the_child_of_a_fork_in_the_middle_of_a_visit_has_a_whole_heap() {
    holds_in_both_builds("visit_fork.c", &[]);
}

#[test]
fn memory_stays_flat_while_100_000_threads_are_born_and_joined() {
    let Some(program) = compile("thread_churn.c", &[]) else { return };
    run(preloaded(program).arg("100000")).expect_success("100,000 threads");
}

#[test]
fn what_a_burst_leaves_goes_back_without_a_call_where_a_thread_purges_and_with_a_few_where_none_does()
 {
    let Some(program) = compile("idle.c", &[]) else { return };
    for largest in ["1000", "20000", "200000", "3000000"] {
        run(preloaded(&program).arg(largest).env("ALLOCATOR_OPTIONS", "purge=thread"))
            .expect_success(&format!("objects of up to {largest} bytes with purge=thread"));
        for call in ["malloc", "calloc", "huge"] {
            run(preloaded(&program).args([largest, call]))
                .expect_success(&format!("objects of up to {largest} bytes, then {call}"));
        }
    }
    run(preloaded(&program).args(["65536", "sparse"])).expect_success("among live objects");
}

#[test]
fn a_few_slow_calls_an_idle_second_after_a_burst_at_most_8_mib_or_an_eighth_of_what_is_live_are_kept()
 {
    // -rdynamic: the program is the library's clock.
    let Some(program) = compile("idle_clock.c", &["-rdynamic"]) else { return };
    for most in ["900", "20000", "200000", "3000000"] {
        for by in ["main", "asleep", "ended", "own"] {
            run(preloaded(&program).args([most, "0", by]))
                .expect_success(&format!("objects of up to {most} bytes, by {by}"));
        }
        run(preloaded(&program).args([most, "134217728", "main"]))
            .expect_success(&format!("objects of up to {most} bytes, 128 MiB live"));
    }
}

#[test]
fn no_two_threads_share_a_cache_line() {
    holds("false_sharing.c");
}

#[test]
fn malloc_works_before_constructors_and_after_thread_destructors() {
    holds("early_late.c");
}

#[test]
fn the_library_can_be_opened_and_closed_beside_another_malloc_while_threads_use_it() {
    let Some(program) = compile("dlopen.c", &["-ldl"]) else { return };
    run(Command::new(program).arg(shared_library())).expect_success("dlopen.c");
}

#[test]
fn plugins_come_and_go_and_what_they_allocated_outlives_them() {
    let plugin = ["-DPLUGIN", "-shared", "-fPIC"];
    let Some(plugin) = compile("plugin.c", &plugin) else { return };
    let Some(program) = compile("plugin.c", &["-ldl"]) else { return };
    run(preloaded(program).arg(plugin)).expect_success("plugin.c");
}

#[test]
fn a_plugin_with_the_archive_in_it_that_stays_mapped_may_be_closed_before_its_threads_end() {
    let archive = static_library().display().to_string();
    let plugin = ["-DPLUGIN", "-shared", "-fPIC", &archive, "-Wl,-Bsymbolic,-z,nodelete"];
    let Some(plugin) = compile("built_in.c", &plugin) else { return };
    let Some(program) = compile("built_in.c", &["-ldl"]) else { return };
    run(Command::new(program).arg(plugin)).expect_success("built_in.c");
}

#[test]
fn a_break_that_others_move_or_block_harms_nobody() {
    holds("break.c");
}

#[test]
fn a_break_that_others_move_harms_nobody_without_address_randomisation() {
    // Without randomisation the heap follows the program directly, and mappings lie elsewhere than usual.
    let Some(program) = compile("break.c", &["-no-pie"]) else { return };
    run(&mut preloaded(program)).expect_success("break.c without PIE");
}

#[test]
fn memory_from_a_break_that_went_down_within_a_page_is_zero_where_it_counts_as_fresh() {
    let options = [("ALLOCATOR_OPTIONS", "mode=classic,mmap_threshold=64m")];
    holds_with("break_zeros.c", &[], &options);
}

#[test]
fn a_break_that_others_move_on_costs_each_region_of_the_classic_heap_one_growth_at_most() {
    holds_with("break_passed.c", &[], &[("ALLOCATOR_OPTIONS", "mode=classic")]);
}

#[test]
fn a_limit_on_data_makes_allocations_fail_and_nothing_else() {
    holds_with("data_limit.c", &[], &[]);
}

#[test]
fn requests_that_are_refused_do_not_end_the_classic_heaps_region_on_the_break() {
    for options in ["mode=classic", "mode=classic,placement=buddy", "mode=classic,placement=slab"] {
        holds_with("break_refused.c", &[], &[("ALLOCATOR_OPTIONS", options)]);
    }
}
