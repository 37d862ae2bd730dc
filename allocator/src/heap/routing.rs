//! Routing: which floor serves a request. No policy lives here.
//!
//! # Cost, as compiled into liballocator.so (x86_64)
//! malloc up to 960 bytes: 12 instructions, 2 branches, no atomics. free of an own slab block: 21
//! instructions, 4 branches, no atomics. `cargo ci instructions` counts them; see
//! `objdump -d --disassemble=malloc $(bench-cli preload --print)`.

use core::ptr;

use super::relief::{Relief, relieve, relieve_for};
#[cfg(feature = "hardened")]
pub(super) use super::resize::reallocate;
use super::sampled;
use crate::bitmap::{self, MAX_BITMAP};
use crate::classic;
use crate::huge;
use crate::options::{self, Mode, Options};
use crate::segment::{Kind, Span, record_of};
use crate::slab::{self, Block, MAX_SLAB};
use crate::sync::Ordering;
use crate::thread::{self, GLOBAL, ThreadHeap, Tls};
use crate::units::{MAX_OBJECT, MIN_ALIGN, SEGMENT, set_zero};

/// A block of at least `size` bytes at a multiple of 16; null when memory is exhausted.
#[inline(always)]
pub fn allocate(size: usize) -> *mut u8 {
    if size > MAX_SLAB {
        return allocate_unready(size);
    }
    let tls = Tls::here();
    let class = tls.class((size + MIN_ALIGN - 1) >> MIN_ALIGN.ilog2());
    pop(tls, class).unwrap_or_else(|| allocate_unready(size))
}

/// The fast path of [`allocate`] alone: null when no block lies ready, whatever the reason.
///
/// For faces that have something to do on failure: what follows a slow call would cost the fast
/// path a stack frame, so they go on in a function of their own, which calls [`allocate_slowly`].
#[inline(always)]
pub fn allocate_ready(size: usize) -> *mut u8 {
    if size > MAX_SLAB {
        return ptr::null_mut();
    }
    let tls = Tls::here();
    let class = tls.class((size + MIN_ALIGN - 1) >> MIN_ALIGN.ilog2());
    pop(tls, class).unwrap_or(ptr::null_mut())
}

/// What [`allocate`] does when [`allocate_ready`] gave null, as far as it takes neither a lock nor
/// upkeep: a medium block that is stashed or free in the current span, or what was freed in the
/// current slab since the bin was filled. Null when there is none.
#[inline(always)]
pub fn allocate_at_hand(size: usize) -> *mut u8 {
    let tls = Tls::here();
    let heap = tls.heap();
    if heap.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: this thread's heap. Whoever has one has a class map too, so a bin found empty was the
    // right one.
    unsafe {
        if size <= MAX_SLAB {
            (*heap).slab_at_hand(slab::SizeClass::of(size), tls)
        } else if size <= (*heap).quick_limit() {
            (*heap).bitmap_at_hand(bitmap::SizeClass::of(size))
        } else {
            ptr::null_mut()
        }
    }
}

/// What [`allocate`] does when [`allocate_at_hand`] gave null too.
#[inline]
pub fn allocate_slowly(size: usize) -> *mut u8 {
    if size > MAX_SLAB { allocate_medium(size) } else { refill_slowly(size) }
}

/// What [`allocate`] does when [`allocate_ready`] gave null.
#[inline(never)]
pub fn allocate_unready(size: usize) -> *mut u8 {
    let block = allocate_at_hand(size);
    if block.is_null() { allocate_slowly(size) } else { block }
}

/// As [`allocate`], for sizes the compiler knows: the class is computed at compile time.
#[inline(always)]
pub(crate) fn allocate_known(size: usize) -> *mut u8 {
    if size > MAX_SLAB {
        return allocate_unready(size);
    }
    let bin = Tls::here().place(slab::SizeClass::of(size).index());
    let block = bin.first();
    if block.is_null() {
        return allocate_unready(size);
    }
    // SAFETY: a bin holds free blocks of this thread's, each with a link to the next.
    unsafe { bin.set_first(Block::next(block)) };
    block.cast()
}

#[inline(always)]
fn pop(tls: Tls, class: usize) -> Option<*mut u8> {
    let block = tls.bin(class);
    if block.is_null() {
        return None;
    }
    // SAFETY: a bin holds free blocks of this thread's, each with a link to the next.
    unsafe { tls.set_bin(class, Block::next(block)) };
    Some(block.cast())
}

/// This thread's heap; null when there is no memory for one.
#[inline(always)]
pub(super) fn own_heap(tls: Tls) -> *mut ThreadHeap {
    let heap = tls.heap();
    if heap.is_null() { attach(tls) } else { heap }
}

/// Gives this thread a heap, unless classic mode is to serve the process: then no thread ever has one,
/// every bin stays empty, and every call takes the slow path, which is classic mode's only path.
#[cold]
#[inline(never)]
fn attach(tls: Tls) -> *mut ThreadHeap {
    if classic::is_configured() {
        return ptr::null_mut();
    }
    GLOBAL.ensure_ready();
    let options = GLOBAL.options_to_serve_by();
    if options.mode == Mode::Classic {
        // Without memory for it the request fails, and the next one tries again: two kinds of heap never mix.
        start_classic(&options);
        return ptr::null_mut();
    }
    let heap = thread::attach(tls);
    if !heap.is_null() {
        return heap;
    }
    // The kernel has no memory for its record, but what is free in the pools may have been some.
    GLOBAL.relieve();
    thread::attach(tls)
}

/// Makes the process heap of classic mode, unless there is no memory for it.
#[cold]
#[inline(never)]
fn start_classic(options: &Options) {
    let mut settings = classic::Settings::DEFAULT;
    settings.sbrk = options.sbrk.unwrap_or(GLOBAL.owns_the_break());
    options::for_each_setting(|setting| {
        !options::is_of_classic_mode(setting) || settings.set(setting)
    });
    let _ = classic::configure(&settings, crate::os::processors());
}

/// What is left when a thread has no heap: classic mode, or no memory.
#[cold]
fn allocate_without_heap(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    classic::allocate_aligned(size, align, zeroed)
}

#[cold]
#[inline(never)]
fn refill_slowly(size: usize) -> *mut u8 {
    let tls = Tls::here();
    let heap = own_heap(tls);
    if heap.is_null() {
        return allocate_without_heap(size, MIN_ALIGN, false);
    }
    GLOBAL.start_purger_if_wanted();
    let class = slab::SizeClass::of(size);
    // A thread's first call finds no class map, so the bin it meant may be full by now.
    if let Some(block) = pop(tls, class.index()) {
        return block;
    }
    // SAFETY: this thread's heap; the bin is empty.
    let mut block = unsafe { sampled::refill(heap, class, tls) };
    for from in Relief::STEPS {
        if !block.is_null() {
            break;
        }
        if relieve(from, heap, tls) {
            // SAFETY: as above.
            block = unsafe { sampled::refill(heap, class, tls) };
        }
    }
    block
}

#[cold]
#[inline(never)]
fn allocate_medium(size: usize) -> *mut u8 {
    if size > MAX_BITMAP {
        return allocate_huge(size, MIN_ALIGN, false);
    }
    let heap = own_heap(Tls::here());
    if heap.is_null() {
        return allocate_without_heap(size, MIN_ALIGN, false);
    }
    GLOBAL.start_purger_if_wanted();
    let class = bitmap::SizeClass::of(size);
    // SAFETY: this thread's heap.
    let block = unsafe {
        let sample = sampled::take(heap, class.size(), MIN_ALIGN, false);
        if sample.is_null() { (*heap).allocate_bitmap(class) } else { sample }
    };
    if block.is_null() { allocate_apart(size, MIN_ALIGN, false) } else { block }
}

/// A medium object for which there was no run of slices: a mapping of its own may still fit, and what was given back
/// for that may be slices.
#[cold]
#[inline(never)]
fn allocate_apart(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let block = allocate_huge(size, align, zeroed);
    if !block.is_null() {
        return block;
    }
    let heap = Tls::here().heap();
    if heap.is_null() {
        return block;
    }
    let Some(class) = bitmap::SizeClass::aligned(size, align) else { return block };
    // SAFETY: this thread's heap.
    unsafe {
        if zeroed {
            (*heap).allocate_zeroed_bitmap(class, size)
        } else {
            (*heap).allocate_bitmap(class)
        }
    }
}

#[cold]
#[inline(never)]
fn allocate_huge(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    // The first call of a process may be a huge one.
    let heap = own_heap(Tls::here());
    if heap.is_null() {
        return allocate_without_heap(size, align, zeroed);
    }
    // SAFETY: this thread's heap.
    unsafe { (*heap).make_room() };
    let mut block = GLOBAL.allocate_huge(size, align, zeroed);
    for from in Relief::STEPS {
        if !block.is_null() {
            break;
        }
        if relieve_for(size.saturating_add(align), from, heap, Tls::here()) {
            block = GLOBAL.allocate_huge(size, align, zeroed);
        }
    }
    // SAFETY: this thread's heap.
    unsafe { sampled::count_huge(heap, block, size) };
    // This object may be what makes one worth having.
    GLOBAL.start_purger_if_wanted();
    block
}

/// As [`allocate`], with every byte zero.
#[inline]
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    if size > MAX_BITMAP {
        return allocate_huge(size, MIN_ALIGN, true);
    }
    if size >= bitmap::KNOWS_ZERO {
        let heap = own_heap(Tls::here());
        if !heap.is_null() {
            GLOBAL.start_purger_if_wanted();
            let class = bitmap::SizeClass::of(size);
            // SAFETY: this thread's heap.
            let block = unsafe {
                let sample = sampled::take(heap, class.size(), MIN_ALIGN, true);
                if sample.is_null() { (*heap).allocate_zeroed_bitmap(class, size) } else { sample }
            };
            if !block.is_null() {
                return block;
            }
        }
        return allocate_apart(size, MIN_ALIGN, true);
    }
    let block = allocate(size);
    if !block.is_null() {
        // SAFETY: the block has `size` bytes and nobody else has it.
        unsafe { set_zero(block, size) };
    }
    block
}

/// As [`allocate`], at a multiple of `align`, which must be a power of two.
#[inline(never)]
pub fn allocate_aligned(align: usize, size: usize) -> *mut u8 {
    if align <= MIN_ALIGN {
        return allocate(size);
    }
    if size > MAX_OBJECT || align > MAX_OBJECT {
        return ptr::null_mut();
    }
    // The first call of a process finds out who serves it, and only thread heaps have aligned classes.
    let heap = own_heap(Tls::here());
    if heap.is_null() {
        return allocate_without_heap(size, align, false);
    }
    if let Some(class) = slab::SizeClass::aligned(size, align) {
        return allocate(class.size());
    }
    if let Some(class) = bitmap::SizeClass::aligned(size, align) {
        // SAFETY: this thread's heap.
        let block = unsafe {
            let sample = sampled::take(heap, class.size(), align, false);
            if sample.is_null() { (*heap).allocate_bitmap(class) } else { sample }
        };
        // Without a run of slices: as for every medium object, but the alignment holds.
        return if block.is_null() { allocate_apart(size, align, false) } else { block };
    }
    allocate_huge(size, align, false)
}

/// Frees a block; null is allowed.
///
/// # Safety
/// `block` is null, or came from this module, is live, and is not used any more.
#[inline(always)]
pub unsafe fn deallocate(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { free_block(block, true) }
}

/// As [`deallocate`], for a block that is not null and was asked for with `align`. Below 4 MiB no block
/// lies at a multiple of that, which therefore is not asked. Nothing else can be left out: whatever its
/// size, a block may be of classic mode or of another thread, and one that shrank in place is of
/// the floor it came from.
///
/// # Safety
/// As [`deallocate`].
#[inline(always)]
pub(crate) unsafe fn deallocate_layout(block: *mut u8, align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free_block(block, align >= SEGMENT) }
}

/// # Safety
/// As [`deallocate`]; without `anywhere` the block is no multiple of [`SEGMENT`].
#[inline(always)]
unsafe fn free_block(block: *mut u8, anywhere: bool) {
    // SAFETY: the caller's promise. A live block's record is mapped; if this thread's heap owns
    // the span, its fields and the block are this thread's.
    unsafe {
        let heap = Tls::here().heap();
        if heap.is_null() {
            return deallocate_without_heap(block);
        }
        if anywhere && block.addr() as u32 & (SEGMENT - 1) as u32 == 0 {
            return deallocate_multiple_of_segment(block);
        }
        let record = record_of(block);
        let tag = (*record).owner.load(Ordering::Relaxed) ^ heap.addr();
        if tag != 0 {
            return deallocate_not_own_slab(block, record, heap, tag);
        }
        if slab::put_back(record, block.cast()) {
            (*heap).slab_emptied(record);
        }
    }
}

/// Classic mode, or a thread that has not allocated yet.
///
/// # Safety
/// As [`deallocate`].
#[cold]
#[inline(never)]
unsafe fn deallocate_without_heap(block: *mut u8) {
    // SAFETY: the caller's promise; outside classic mode every live block has a record.
    unsafe {
        if block.is_null() {
            return;
        }
        if classic::is_configured() {
            return classic::deallocate(block);
        }
        let (record, _) = describe(block);
        thread::free_elsewhere(block, record, ptr::null_mut());
    }
}

/// # Safety
/// As [`deallocate`].
#[inline(never)]
unsafe fn deallocate_not_own_slab(
    block: *mut u8,
    record: *mut Span,
    heap: *mut ThreadHeap,
    tag: usize,
) {
    // SAFETY: the caller's promise; the tag says whose the span is.
    unsafe {
        if tag == bitmap::OWNED {
            return (*heap).free_bitmap(record, block);
        }
        thread::free_elsewhere(block, record, heap);
    }
}

/// Null, or an object aligned to 4 MiB or more.
///
/// # Safety
/// As [`deallocate`].
#[cold]
#[inline(never)]
unsafe fn deallocate_multiple_of_segment(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let record = huge::huge_record(block);
        thread::free_elsewhere(block, record, Tls::here().heap());
    }
}

/// The record and kind of a live block.
///
/// # Safety
/// `block` is live.
pub(super) unsafe fn describe(block: *mut u8) -> (*mut Span, Kind) {
    // SAFETY: the caller's promise.
    unsafe {
        let record = if block.addr() & (SEGMENT - 1) == 0 {
            huge::huge_record(block)
        } else {
            record_of(block)
        };
        (record, (*record).kind)
    }
}

/// Whether `block` is one of a size class.
///
/// # Safety
/// `block` is live.
pub(super) unsafe fn has_class(block: *mut u8) -> bool {
    // SAFETY: the caller's promise.
    !classic::is_configured() && matches!(unsafe { describe(block) }.1, Kind::Slab | Kind::Bitmap)
}

/// Bytes that may be used from `block` on.
///
/// # Safety
/// `block` is live.
pub unsafe fn usable_size(block: *mut u8) -> usize {
    if classic::is_configured() {
        return classic::usable_size(block);
    }
    // SAFETY: the caller's promise; the record of a live block holds its class.
    unsafe {
        let (record, kind) = describe(block);
        match kind {
            Kind::Slab => slab::SizeClass::from_index((*record).class).size(),
            Kind::Bitmap => bitmap::SizeClass::from_index((*record).class).size(),
            Kind::Huge => huge::usable(record),
            Kind::Free => 0,
        }
    }
}
