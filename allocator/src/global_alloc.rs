//! The Rust face.

use core::alloc::{GlobalAlloc, Layout};

use crate::bitmap::{KNOWS_ZERO, MAX_BITMAP};
use crate::classic;
use crate::heap;
use crate::segment::Span;
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
/// Layouts known at compile time fold in optimised builds: [`GlobalAlloc::alloc`] of 64 bytes takes 8 instructions
/// and [`GlobalAlloc::dealloc`] 20, returns included, which is what `cargo ci instructions` counts; `Box` adds
/// the functions that the compiler puts in between.
///
/// What `dealloc` is told helps little: the alignment spares one instruction, the test for 4 MiB and more, and
/// the size none, for a block may be another thread's, or have shrunk where it is, and only its record says so.
/// Hardened builds compare both with the object, and so find a wrong layout.
///
/// An object of any alignment shrinks where it is as long as it fills half of its block, and grows there as
/// far as the block goes; builds that watch every object (`hardened`, `valgrind`) move those aligned to more than
/// 16. Zeroed objects from 32 KiB on are written only where their memory was used before; above an alignment of 4 KiB,
/// or of 64 bytes beyond 1 MiB, they are written whole. It uses `mmap` alone, since the break belongs to
/// libc's own malloc, which stays in use for C code.
///
/// # Shared objects
/// An object that has the allocator in it must stay mapped: threads that used it, forks and signals run its code after
/// `dlclose`. Who builds a `cdylib` that a program may close links it with `-z nodelete`; its `build.rs` says
/// `println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete")`.
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
        if mostly_lies_at(layout) {
            let block = heap::allocate_zeroed(layout.size());
            // Null is a multiple of everything.
            if block.addr() & (layout.align() - 1) == 0 {
                return block;
            }
            // SAFETY: just allocated, and nobody has it.
            unsafe { heap::deallocate(block) };
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
            if heap::stays(block, size) {
                return block;
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

/// Whether objects as large as `layout` nearly all lie at multiples of its alignment whatever they were asked for
/// with, and it is known of their memory whether it is zero. Not those in classic mode, of which neither holds.
fn mostly_lies_at(layout: Layout) -> bool {
    /// Block sizes of the classes from [`KNOWS_ZERO`] on, eight to a doubling, are multiples of it, as blocks are of
    /// their sizes.
    const MEDIUM_ALIGN: usize = KNOWS_ZERO / 8;
    /// What a mapping of its own begins with stands in front of an object.
    const HUGE_ALIGN: usize = Span::BYTES;
    let align = if layout.size() > MAX_BITMAP { HUGE_ALIGN } else { MEDIUM_ALIGN };
    layout.size() >= KNOWS_ZERO && layout.align() <= align && !classic::is_configured()
}
