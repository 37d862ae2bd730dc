//! The Rust face.

use core::alloc::{GlobalAlloc, Layout};

use crate::heap;
use crate::units::MIN_ALIGN;

/// The allocator, for `#[global_allocator]`.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: allocator::Allocator = allocator::Allocator;
///
/// assert_eq!(vec![1, 2, 3].iter().sum::<i32>(), 6);
/// ```
///
/// Layouts known at compile time fold in optimised builds: `Box::new(0u64)` allocates in 8 instructions and
/// is freed in 20, returns included; `cargo ci instructions` counts them. A free saves one by its
/// layout, the test for alignments from 4 MiB on; hardened builds compare the layout with what was
/// asked for. It uses `mmap` alone, since the break belongs to libc's own malloc, which stays in use
/// for C code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

// SAFETY: the heap hands out blocks that are at least as large and as aligned as asked, that do
// not overlap, and that stay valid until they are given back; it never unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            heap::allocate_known(layout.size())
        } else {
            heap::allocate_aligned(layout.align(), layout.size())
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { heap::deallocate_layout(block, layout.align(), layout.size()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return heap::allocate_zeroed(layout.size());
        }
        let block = heap::allocate_aligned(layout.align(), layout.size());
        if !block.is_null() {
            // SAFETY: the block has that many bytes and nobody else has it.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if layout.align() <= MIN_ALIGN {
                return heap::reallocate(block, size);
            }
            let new = heap::allocate_aligned(layout.align(), size);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                heap::deallocate(block);
            }
            new
        }
    }
}
