//! Layouts that the compiler knows: what `cargo ci instructions` counts, one allocation or free per call
//! of a function that does nothing else.
//!
//! ```text
//! cargo build --release -p allocator --example constant_layouts
//! objdump -d --disassemble=alloc_64 target/release/examples/constant_layouts
//! ```

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Objects allocated, then freed, and how often: so that slow paths are rare but do occur.
const BATCH: usize = 100;
const ROUNDS: usize = 2000;

/// Sixty-four bytes, allocated.
#[unsafe(no_mangle)]
#[inline(never)]
fn alloc_64() -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { ALLOCATOR.alloc(Layout::new::<[u64; 8]>()) }
}

/// Sixty-four bytes, freed.
///
/// # Safety
/// `block` came from [`alloc_64`] and is not used any more.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn dealloc_64(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { ALLOCATOR.dealloc(block, Layout::new::<[u64; 8]>()) }
}

/// The same by `Box`: through the functions that the compiler puts between `alloc` and an allocator.
#[unsafe(no_mangle)]
#[inline(never)]
fn box_64() -> Box<[u64; 8]> {
    Box::new([7; 8])
}

fn main() {
    let mut slots = [std::ptr::null_mut(); BATCH];
    for _ in 0..ROUNDS {
        slots.fill_with(alloc_64);
        for block in slots {
            assert!(!block.is_null());
            // SAFETY: just allocated, freed once.
            unsafe { dealloc_64(block) };
        }
        black_box(box_64());
    }
}
