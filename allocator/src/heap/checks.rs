//! What hardened builds test when a block is freed, before anything is changed.
//!
//! | misuse | slab | bitmap span | huge |
//! |---|---|---|---|
//! | double free | mark in the block | bit in the span | record |
//! | interior or misaligned address | block number | block number | exact address |
//! | an address that was never handed out | kind of the slice | kind of the slice | exact address |
//!
//! An address outside every segment has no record: reading it ends the process by itself.

use crate::fatal;
use crate::segment::{Kind, Span, slice_of};
use crate::slab::{self, Block};
use crate::sync::Ordering;
use crate::{bitmap, huge};

/// Ends the process with a line that says why, unless `block` can be freed.
///
/// # Safety
/// `record` is the record of `block`'s slice.
pub(super) unsafe fn before_free(block: *mut u8, record: *mut Span) {
    // SAFETY: the caller's promise; fields that only the owner writes do not change while one of
    // its blocks is live, and if none is, the misuse is what is being looked for.
    unsafe {
        match (*record).kind {
            Kind::Slab => {
                let size = slab::SizeClass::from_index((*record).class).size();
                let offset = block.addr() - slice_of(record).addr();
                let carved = (*record).carved as usize * size;
                if !offset.is_multiple_of(size) || offset >= carved {
                    fatal::report("free of an address inside an object", block.addr(), size);
                }
                if Block::is_marked(block.cast()) {
                    fatal::report("double free", block.addr(), size);
                }
                // Marked from here on, also while it waits in a batch for its owner.
                Block::set_next(block.cast(), core::ptr::null_mut());
            }
            Kind::Bitmap => {
                let size = bitmap::SizeClass::from_index((*record).class).size();
                let (span, bit) = bitmap::locate(record, block);
                let offset = block.addr() - slice_of(span).addr();
                if !offset.is_multiple_of(size) || (*span).full & bit == 0 {
                    fatal::report("free of an address inside an object", block.addr(), size);
                }
                if ((*span).free | (*span).remote.load(Ordering::Relaxed)) & bit != 0 {
                    fatal::report("double free", block.addr(), size);
                }
            }
            Kind::Huge if !huge::is_object(record, block) => {
                fatal::report("free of an address inside an object", block.addr(), 0);
            }
            Kind::Huge => {}
            Kind::Free => fatal::report("invalid or double free", block.addr(), 0),
        }
    }
}
