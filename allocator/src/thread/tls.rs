//! This thread's bins and heap, in static thread-local storage of the initial-exec model.
//!
//! `thread_local!` in a shared library goes through `__tls_get_addr`, which may allocate; a symbol
//! defined and read by assembly does not. It costs a library 384 bytes of the static block that
//! libc keeps for libraries loaded late.
//!
//! Zeroed storage is a correct start: every bin is empty and every size maps to bin 0, which is
//! never filled, so the first call of each size takes the slow path. No flag is tested.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | the heap, null before the first slow call |
//! | 8 | the bins: first free block per class |
//! | 264 | class per 16-byte step of size |
//! | 340 | remote frees made without a heap |
//! | 344 | times this thread's heap was taken down |

use core::arch::{asm, global_asm};

use super::ThreadHeap;
use crate::slab::{Block, CLASSES, GRANULES, class_map};

const BINS: usize = 8;
const MAP: usize = BINS + CLASSES * 8;
const FREES: usize = 340;
const ENDS: usize = 344;
const _: () = assert!(MAP == 264 && MAP + GRANULES <= FREES, "the table above is true");

global_asm!(
    ".section .tbss.__allocator_tls,\"awT\",@nobits",
    ".p2align 6",
    ".hidden __allocator_tls",
    ".globl __allocator_tls",
    ".type __allocator_tls,@object",
    ".size __allocator_tls,384",
    "__allocator_tls:",
    ".zero 384",
    ".text",
);

/// Offset of the storage from the thread pointer; the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls(usize);

#[cfg(target_arch = "x86_64")]
impl Tls {
    /// Loads the offset; the linker turns the load into a constant in executables.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let offset;
        // SAFETY: reads the GOT entry of a symbol this module defines.
        unsafe {
            asm!("mov {0}, qword ptr [rip + __allocator_tls@GOTTPOFF]", out(reg) offset,
                 options(nostack, preserves_flags, pure, nomem));
        }
        Tls(offset)
    }

    /// This thread's heap, or null.
    #[inline(always)]
    pub(crate) fn heap(self) -> *mut ThreadHeap {
        let heap;
        // SAFETY: reads this thread's storage.
        unsafe {
            asm!("mov {0}, qword ptr fs:[{1}]", out(reg) heap, in(reg) self.0,
                 options(nostack, preserves_flags, readonly));
        }
        heap
    }

    #[inline(always)]
    fn store_heap(self, heap: *mut ThreadHeap) {
        // SAFETY: writes this thread's storage.
        unsafe {
            asm!("mov qword ptr fs:[{1}], {0}", in(reg) heap, in(reg) self.0,
                 options(nostack, preserves_flags));
        }
    }

    /// The class of a size given in 16-byte steps; 0 before this thread's first slow call.
    #[inline(always)]
    pub(crate) fn class(self, granule: usize) -> usize {
        debug_assert!(granule < GRANULES);
        let class;
        // SAFETY: reads this thread's storage, inside the map.
        unsafe {
            asm!("movzx {0:e}, byte ptr fs:[{1} + {2} + {map}]", out(reg) class, in(reg) self.0,
                 in(reg) granule, map = const MAP,
                 options(nostack, preserves_flags, readonly));
        }
        class
    }

    /// The first block of a bin, or null.
    #[inline(always)]
    pub(crate) fn bin(self, class: usize) -> *mut Block {
        debug_assert!(class < CLASSES);
        let block;
        // SAFETY: reads this thread's storage, inside the bins.
        unsafe {
            asm!("mov {0}, qword ptr fs:[{1} + {2}*8 + {bins}]", out(reg) block, in(reg) self.0,
                 in(reg) class, bins = const BINS,
                 options(nostack, preserves_flags, readonly));
        }
        block
    }

    /// Makes `block` the first of a bin.
    #[inline(always)]
    pub(crate) fn set_bin(self, class: usize, block: *mut Block) {
        debug_assert!(class < CLASSES);
        // SAFETY: writes this thread's storage, inside the bins.
        unsafe {
            asm!("mov qword ptr fs:[{1} + {2}*8 + {bins}], {0}", in(reg) block, in(reg) self.0,
                 in(reg) class, bins = const BINS,
                 options(nostack, preserves_flags));
        }
    }
}

/// One bin of this thread's, by its place: for a class that the compiler knows the place is one
/// addition, where `Tls::bin` and `Tls::set_bin` would each load the class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bin(Tls);

#[cfg(target_arch = "x86_64")]
impl Bin {
    /// As [`Tls::bin`].
    #[inline(always)]
    pub(crate) fn first(self) -> *mut Block {
        let block;
        // SAFETY: reads this thread's storage, inside the bins.
        unsafe {
            asm!("mov {0}, qword ptr fs:[{1} + {bins}]", out(reg) block, in(reg) self.0.0,
                 bins = const BINS, options(nostack, preserves_flags, readonly));
        }
        block
    }

    /// As [`Tls::set_bin`].
    #[inline(always)]
    pub(crate) fn set_first(self, block: *mut Block) {
        // SAFETY: writes this thread's storage, inside the bins.
        unsafe {
            asm!("mov qword ptr fs:[{1} + {bins}], {0}", in(reg) block, in(reg) self.0.0,
                 bins = const BINS, options(nostack, preserves_flags));
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Bin {
    /// As [`Tls::bin`].
    #[inline(always)]
    pub(crate) fn first(self) -> *mut Block {
        self.0.bin(0)
    }

    /// As [`Tls::set_bin`].
    #[inline(always)]
    pub(crate) fn set_first(self, block: *mut Block) {
        self.0.set_bin(0, block);
    }
}

#[cfg(target_arch = "aarch64")]
impl Tls {
    /// Loads the offset; the linker turns the load into a constant in executables.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let offset;
        // SAFETY: reads the GOT entry of a symbol this module defines.
        unsafe {
            asm!("adrp {0}, :gottprel:__allocator_tls",
                 "ldr {0}, [{0}, :gottprel_lo12:__allocator_tls]",
                 out(reg) offset, options(nostack, preserves_flags, pure, readonly));
        }
        Tls(offset)
    }

    /// This thread's heap, or null.
    #[inline(always)]
    pub(crate) fn heap(self) -> *mut ThreadHeap {
        // SAFETY: reads this thread's storage.
        unsafe { self.address().cast::<*mut ThreadHeap>().read_volatile() }
    }

    #[inline(always)]
    fn store_heap(self, heap: *mut ThreadHeap) {
        // SAFETY: writes this thread's storage.
        unsafe { self.address().cast::<*mut ThreadHeap>().write_volatile(heap) }
    }

    /// The class of a size given in 16-byte steps; 0 before this thread's first slow call.
    #[inline(always)]
    pub(crate) fn class(self, granule: usize) -> usize {
        // SAFETY: reads this thread's storage, inside the map.
        unsafe { self.address().add(MAP + granule).read_volatile() as usize }
    }

    /// The first block of a bin, or null.
    #[inline(always)]
    pub(crate) fn bin(self, class: usize) -> *mut Block {
        // SAFETY: reads this thread's storage, inside the bins.
        unsafe { self.address().add(BINS).cast::<*mut Block>().add(class).read_volatile() }
    }

    /// Makes `block` the first of a bin.
    #[inline(always)]
    pub(crate) fn set_bin(self, class: usize, block: *mut Block) {
        // SAFETY: writes this thread's storage, inside the bins.
        unsafe { self.address().add(BINS).cast::<*mut Block>().add(class).write_volatile(block) }
    }
}

impl Tls {
    /// The bin of a class, by its place.
    #[inline(always)]
    pub(crate) fn place(self, class: usize) -> Bin {
        debug_assert!(class < CLASSES);
        Bin(Tls(self.0.wrapping_add(class * size_of::<*mut Block>())))
    }

    /// This thread's storage as an address.
    #[inline(always)]
    fn address(self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(crate::os::thread_pointer().wrapping_add(self.0))
    }

    /// Takes this thread's heap into use, or out of it (null): the bins must be empty.
    pub(super) fn attach(self, heap: *mut ThreadHeap) {
        // SAFETY: writes this thread's storage, inside the map, which has GRANULES bytes.
        unsafe {
            self.address().add(MAP).copy_from_nonoverlapping(class_map().as_ptr(), GRANULES);
        }
        self.store_heap(heap);
    }

    /// Takes the whole bin; null if it is empty.
    pub(super) fn take_bin(self, class: usize) -> *mut Block {
        let list = self.bin(class);
        self.set_bin(class, core::ptr::null_mut());
        list
    }

    /// Counts a remote free made without a heap; returns how many there were before.
    pub(super) fn count_free(self) -> u32 {
        self.count(FREES)
    }

    /// Counts a heap taken down at the end of this thread; returns how many there were before.
    pub(super) fn count_end(self) -> u32 {
        self.count(ENDS)
    }

    fn count(self, at: usize) -> u32 {
        // SAFETY: reads and writes this thread's storage, in one of its two counters.
        unsafe {
            let counter = self.address().add(at).cast::<u32>();
            let before = counter.read_volatile();
            counter.write_volatile(before.wrapping_add(1));
            before
        }
    }
}
