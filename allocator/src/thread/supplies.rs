//! What the floors below get from a heap and from what all heaps share: runs of slices and their way back, the
//! spans of other heaps.

use super::global::GLOBAL;
use super::local::Upkeep;
use crate::bitmap::{self, BitmapSupply, Bitmaps};
use crate::probe::fire;
use crate::segment::{NOBODY, Run, Span, Supply, slice_of};
use crate::slab::{self, LimboQueue, SlabSupply};
use crate::sync::Ordering;
use crate::units::SLICE;

/// The node that a heap's slices come from: a number and 1, or 0 while nodes are not known. Zeroed memory is a right
/// one.
#[derive(Debug)]
pub(super) struct Node(u32);

impl Node {
    /// Asks for the node of the calling thread.
    pub(super) fn ask(&mut self) {
        self.0 = GLOBAL.current_node().map_or(0, |node| node + 1);
    }

    /// Its number; a heap that was there before nodes were known asks again.
    fn number(&mut self) -> u32 {
        if self.0 == 0 {
            self.ask();
        }
        self.0.saturating_sub(1)
    }
}

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

    /// Gives all back that is kept for the next requests.
    pub(super) fn clear(&mut self) {
        self.give_up_empties();
        self.upkeep.spares.clear();
    }

    /// Gives the empty spans back that are kept for requests of their classes.
    #[inline]
    pub(super) fn give_up_empties(&mut self) {
        if !self.upkeep.empties.is_empty() {
            self.dismantle_empties();
        }
    }

    #[inline(never)]
    fn dismantle_empties(&mut self) {
        let idle = GLOBAL.was_idle(GLOBAL.now());
        while let Some(span) = self.upkeep.empties.take_any() {
            // SAFETY: empty spans are this heap's and hold no live block.
            unsafe { Bitmaps::dismantle(span, self) };
        }
        if idle {
            // On its way the pools began an epoch, in which what came after counts as used just now.
            GLOBAL.purge_all();
        }
    }
}

impl Supply for Supplies<'_> {
    fn slices(&mut self, len: usize, least: usize, large: bool) -> Option<Run> {
        let node = self.upkeep.node.number();
        if len == 1 {
            let head = self.upkeep.spares.take(node);
            if !head.is_null() {
                return Some(Run { head, len: 1, zeroed: false });
            }
        }
        self.give_up_empties();
        GLOBAL.tick_unless_idle();
        let run = GLOBAL.slices(node, len, least, large)?;
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

    unsafe fn keep(&mut self, span: *mut Span) -> bool {
        let kept = !cfg!(feature = "hardened") && GLOBAL.lets_keep();
        if kept {
            // SAFETY: the caller's promise.
            unsafe { self.upkeep.empties.keep(span) };
        }
        kept
    }

    unsafe fn purge(&self, from: *mut u8, len: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { GLOBAL.purge_within(from.addr(), len) }
    }

    fn note_purged(&self, bytes: usize) {
        GLOBAL.note_purged(bytes);
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

    fn kept_bitmap(&mut self, class: bitmap::SizeClass) -> *mut Span {
        self.upkeep.empties.take(class)
    }
}
