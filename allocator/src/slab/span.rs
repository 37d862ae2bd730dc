//! One slab span: how its blocks are made, a page at a time, and what must hold of it.

use core::ptr::null_mut;
#[cfg(not(target_arch = "x86_64"))]
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
#[cfg(target_arch = "x86_64")]
use core::sync::atomic::compiler_fence;

use super::{Block, SizeClass};
use crate::segment::{Depth, Kind, Reading, Span, slice_of};
#[cfg(feature = "hardened")]
use crate::units::set_zero;
use crate::units::{PAGE, SKIPPED, round_up};

/// Whether the record of a slab may say that at any moment. A current one counts a live block more than it has.
pub(crate) fn may_say(says: &Reading) -> bool {
    let class = SizeClass::from_number(says.class);
    let counts = class.is_some_and(|class| says.live as usize <= class.capacity() + 1);
    says.back == 0 && says.listed <= 1 && counts
}

/// Whether that is what the record of the slab at `start` says, whose owner is on none of its slow paths. The
/// fast ones change how many blocks are live, and which is the first free one.
pub(crate) fn is_whole(says: &Reading, start: usize) -> bool {
    let Some(class) = SizeClass::from_number(says.class) else { return false };
    let described = !cfg!(feature = "hardened") || says.full == class.size() as u64;
    let free = says.free as usize;
    may_say(says)
        && described
        && says.capacity as usize == class.capacity()
        && (SKIPPED..=class.capacity()).contains(&(says.carved as usize))
        && (free == 0 || is_block(free, start, class, says.carved))
}

/// Whether a block begins at `address`, in the slab at `start`.
fn is_block(address: usize, start: usize, class: SizeClass, carved: u16) -> bool {
    let offset = address.wrapping_sub(start);
    let handed_out = SKIPPED * class.size()..carved as usize * class.size();
    offset.is_multiple_of(class.size()) && handed_out.contains(&offset)
}

/// Tests a span of `class` that `owner` holds; `bias` is what its live blocks count too many.
///
/// # Safety
/// As [`Slabs::check`](super::Slabs::check).
pub(super) unsafe fn check_span(
    span: *mut Span,
    class: SizeClass,
    bias: u32,
    owner: usize,
    depth: Depth,
) -> Result<(), (&'static str, usize)> {
    let start = slice_of(span).addr();
    // SAFETY: the caller's promise; links are followed only inside the slice.
    unsafe {
        let says = Reading::of(span);
        let ours = says.is(Kind::Slab) && says.class as usize == class.index();
        if !ours || says.owner != owner || !is_whole(&says, start) {
            return Err(("a span record was overwritten", start));
        }
        if depth == Depth::Records {
            return Ok(());
        }
        let mut block = (*span).free as usize as *mut Block;
        let mut free = 0;
        while !block.is_null() {
            free += 1;
            if free > u32::from((*span).carved) {
                return Err(("a block is free twice", block.addr()));
            }
            let next = Block::next_unjudged(block);
            if !next.is_null() && !is_block(next.addr(), start, class, (*span).carved) {
                return Err(("a free block's link was overwritten", block.addr()));
            }
            block = next;
        }
        if (*span).live + free != u32::from((*span).carved) - SKIPPED as u32 + bias {
            return Err(("a span's count of live blocks is wrong", start));
        }
    }
    Ok(())
}

/// Puts a block back on its span's list. True if the span now holds no live block and is not current:
/// then [`Slabs::emptied`](super::Slabs::emptied) is due.
///
/// # Safety
/// The caller's thread owns the span, and the block, which is one of the span's and free.
#[inline(always)]
pub(crate) unsafe fn put_back(span: *mut Span, block: *mut Block) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        Block::set_next(block, (*span).free as usize as *mut Block);
        (*span).free = block as usize as u64;
        // Last: a visitor that sees no live block takes the span away (`thread::reap`).
        count_down(&raw mut (*span).live) == 0
    }
}

/// Takes one off `count` after all that was written before; what is left. Stores of x86 processors stay in
/// order, and so the compiler may make one instruction of it.
///
/// # Safety
/// The caller alone writes it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn count_down(count: *mut u32) -> u32 {
    compiler_fence(Ordering::Release);
    // SAFETY: the caller's promise.
    unsafe {
        *count = (*count).wrapping_sub(1);
        *count
    }
}

/// As on x86_64.
///
/// # Safety
/// As there.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn count_down(count: *mut u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let left = (*count).wrapping_sub(1);
        AtomicU32::from_ptr(count).store(left, Ordering::Release);
        left
    }
}

/// Writes into a span's record what [`block_size`] and [`number_of`] read, and lets frees know the class
/// of its slice; nothing here.
///
/// # Safety
/// The span is the caller's.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(super) unsafe fn describe_blocks(_span: *mut Span, _class: SizeClass) {}

/// Writes into a span's record what [`block_size`] and [`number_of`] read, and lets frees know the class
/// of its slice.
///
/// # Safety
/// The span is the caller's.
#[cfg(feature = "hardened")]
pub(super) unsafe fn describe_blocks(span: *mut Span, class: SizeClass) {
    let size = class.size() as u32;
    // SAFETY: the caller's promise.
    unsafe {
        (*span).full = u64::from(size);
        (*span).inverse = (u32::MAX / size.max(1)) + 1;
    }
    crate::segment::know_slab(slice_of(span).addr(), class.index() as u8, class.size());
}

/// Undoes [`describe_blocks`] as far as frees are concerned; nothing here.
///
/// # Safety
/// The span is the caller's and holds no live block.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(super) unsafe fn forget_blocks(_span: *mut Span) {}

/// Undoes [`describe_blocks`] as far as frees are concerned, and clears the links and trailers of its blocks: whoever
/// gets the memory next could tell the secret from them.
///
/// # Safety
/// The span is the caller's and holds no live block.
#[cfg(feature = "hardened")]
pub(super) unsafe fn forget_blocks(span: *mut Span) {
    // SAFETY: the caller's promise: blocks that were carved are free, and lie inside the slice.
    unsafe {
        crate::segment::forget_slab(slice_of(span).addr());
        set_zero(slice_of(span), (*span).carved as usize * block_size(span));
    }
}

/// Bytes of a block.
///
/// # Safety
/// The record is of a slab in use.
#[cfg(feature = "hardened")]
#[inline(always)]
pub(crate) unsafe fn block_size(span: *mut Span) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*span).full as usize }
}

/// Which block an offset in the slice lies in.
///
/// # Safety
/// The record is of a slab in use.
#[cfg(feature = "hardened")]
#[inline(always)]
pub(crate) unsafe fn number_of(span: *mut Span, offset: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (offset * (*span).inverse as usize) >> 32 }
}

/// Makes blocks of the next page of `span` and returns them as a list.
///
/// # Safety
/// The caller owns the span, which is not wholly carved.
pub(super) unsafe fn carve(span: *mut Span, class: SizeClass) -> *mut Block {
    let size = class.size();
    let base = slice_of(span);
    // SAFETY: blocks below `capacity` lie inside the slice; none of these was handed out before.
    unsafe {
        let carved = (*span).carved as usize;
        let page_end = round_up((carved + 1) * size, PAGE);
        let upto = (page_end / size).min((*span).capacity as usize);
        let mut next: *mut Block = null_mut();
        for i in super::order_of_blocks(carved, upto) {
            let block = base.add(i * size).cast::<Block>();
            Block::set_next(block, next);
            super::mark_fresh(block, size);
            next = block;
        }
        if SKIPPED != 0 && carved == SKIPPED {
            super::mark_fresh(base.cast(), size);
        }
        (*span).carved = upto as u16;
        (*span).live += (upto - carved) as u32;
        next
    }
}
