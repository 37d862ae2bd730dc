//! What holds in classic mode in particular: what goes back to the kernel, and what happens where memory ends.

#![allow(clippy::print_stdout, reason = "skipping must be seen")]

mod common;

use common::{compile, holds_with, preloaded, run, shared_library};

#[test]
fn memory_of_a_break_that_somebody_left_within_a_page_goes_back() {
    holds_with("given_back.c", &["-DMOVED"], &[("ALLOCATOR_OPTIONS", "mode=classic")]);
}

#[test]
fn more_free_memory_than_a_block_can_hold_goes_back_and_the_heap_is_sound_meanwhile() {
    let library = shared_library().display().to_string();
    let options = [("ALLOCATOR_OPTIONS", "mode=classic,mmap_threshold=64m")];
    holds_with("adjoining.c", &[&library], &options);
}

#[test]
fn an_object_that_shrinks_where_there_is_no_memory_stays_whatever_it_is_kept_in() {
    let library = shared_library().display().to_string();
    for options in ["mode=classic", "mode=classic,placement=slab"] {
        for sizes in ["-DSIZES=900,5000,300000", "-DSIZES=300000"] {
            holds_with("shrink.c", &[&library, sizes], &[("ALLOCATOR_OPTIONS", options)]);
        }
    }
}

#[test]
fn where_memory_ends_nothing_waits_in_a_threads_cache() {
    holds_with("last_blocks.c", &[], &[("ALLOCATOR_OPTIONS", "mode=classic,cache=on")]);
}

#[test]
fn the_pages_of_a_mapping_that_the_kernel_does_not_take_back_go_back() {
    let Some(program) = compile("unmap_refused.c", &[]) else { return };
    let outcome = run(preloaded(&program).env("ALLOCATOR_OPTIONS", "mode=classic"));
    outcome.expect_success("unmap_refused.c");
    print!("{}", outcome.stdout);
}
