//! What the floors below get from a heap and from what all heaps share: runs of slices and their way back, the
//! spans of other heaps.

use super::global::GLOBAL;
use super::local::Upkeep;
use crate::bitmap::{self, BitmapSupply};
use crate::probe::fire;
use crate::segment::{NOBODY, Run, Span, Supply, slice_of};
use crate::slab::{self, LimboQueue, SlabSupply};
use crate::sync::Ordering;
use crate::units::SLICE;

/// The floors' view of a heap and of what is shared.
pub(super) struct Supplies<'a> {
    identity: usize,
    upkeep: &'a mut Upkeep,
}

impl<'a> Supplies<'a> {
    /// Of the heap at `identity`.
    pub(super) fn new(identity: usize, upkeep: &'a mut Upkeep) -> Self {
        Supplies { identity, upkeep }
    }
}

impl Supply for Supplies<'_> {
    fn slices(&mut self, len: usize, least: usize, large: bool) -> Option<Run> {
        if len == 1 {
            let head = self.upkeep.spares.take(self.upkeep.node);
            if !head.is_null() {
                return Some(Run { head, len: 1, zeroed: false });
            }
        }
        GLOBAL.tick_unless_idle();
        let run = GLOBAL.slices(self.upkeep.node, len, least, large)?;
        if run.zeroed && !GLOBAL.alone() {
            self.upkeep.reaping.count(run.len as usize);
        }
        Some(run)
    }

    unsafe fn give_back(&mut self, span: *mut Span, len: usize) {
        fire!("span_free", slice_of(span).addr(), len * SLICE);
        // SAFETY: the caller's promise; a spare's record says that nobody owns it, so that a stray
        // free cannot match this heap.
        unsafe {
            (*span).owner.store(NOBODY, Ordering::Relaxed);
            Span::end_use(span);
            if len == 1 {
                self.upkeep.spares.keep(span);
            } else {
                GLOBAL.give_back(span, len);
            }
        }
    }

    unsafe fn purge(&self, from: *mut u8, len: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { GLOBAL.purge_within(from.addr(), len) }
    }

    fn identity(&self) -> usize {
        self.identity
    }

    fn alone(&self) -> bool {
        GLOBAL.alone()
    }
}

impl SlabSupply for Supplies<'_> {
    fn foreign_slab(&mut self, class: slab::SizeClass) -> *mut Span {
        GLOBAL.registry.take_slab(class, self.identity)
    }

    fn idle_queue(&mut self) -> Option<&'static LimboQueue> {
        GLOBAL.registry.idle_queue(&mut self.upkeep.cursor, self.identity)
    }
}

impl BitmapSupply for Supplies<'_> {
    fn foreign_bitmap(&mut self, class: bitmap::SizeClass) -> *mut Span {
        GLOBAL.registry.take_bitmap(class, self.identity)
    }
}
