//! What the slab heap knows of its pages: their records, the sizes of slots, and how many fill a run.
//!
//! Owns nothing: the tables of records lie at the front of the heap's regions. Cost: an address is a
//! record's after a subtraction and a shift.

use crate::block::{GRAIN, Region};

pub(super) const PAGE: usize = 4096;
pub(super) const CLASSES: usize = 48;
pub(super) const LARGEST: usize = 4096;
pub(super) const SLOTS: usize = 256;
pub(super) const NONE: u8 = 0xff;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First page of a free run of `pages` (0: never used, as fresh records are zero).
    Free,
    /// A later page of any run, `pages` behind its first.
    Tail,
    /// First page of a slab.
    Slab,
    /// First page of an object's own run.
    Large,
}

/// The record of one page.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Page {
    pub(super) used_bits: [u64; SLOTS / 64],
    /// Neighbours in the class's list of slabs with free slots, as addresses; 0: none.
    pub(super) next: usize,
    pub(super) prev: usize,
    pub(super) pages: u32,
    pub(super) used: u16,
    pub(super) class: u8,
    pub(super) kind: Kind,
}

const _: () = assert!(size_of::<Page>() == 64, "a page record is one cache line");

/// Slot size of a class: steps of 16 up to 256, then eight steps per doubling.
pub(super) const fn slot_of(class: usize) -> usize {
    if class < 16 {
        return (class + 1) * GRAIN;
    }
    let (row, column) = ((class - 16) / 8, (class - 16) % 8);
    (256 << row) + (column + 1) * (32 << row)
}

pub(super) const SIZES: [usize; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while let Some((size, _)) = split_at(&mut sizes, class) {
        *size = slot_of(class);
        class += 1;
    }
    sizes
};

/// The entry at `index` and those behind it.
const fn split_at(sizes: &mut [usize], index: usize) -> Option<(&mut usize, &mut [usize])> {
    match sizes.split_at_mut_checked(index) {
        Some((_, rest)) => rest.split_first_mut(),
        None => None,
    }
}

const _: () = assert!(slot_of(CLASSES - 1) == LARGEST, "the last class is the largest slot");

/// Pages of a slab of `size`-byte slots: at least eight slots where eight pages hold them.
pub(super) const fn pages_of(size: usize) -> usize {
    let pages = (8 * size).div_ceil(PAGE);
    if pages > 8 { 8 } else { pages }
}

pub(super) const fn slots_of(size: usize) -> usize {
    let Some(slots) = (pages_of(size) * PAGE).checked_div(size) else { return 0 };
    if slots > SLOTS { SLOTS } else { slots }
}

/// The smallest class whose slots hold `size` bytes, all of them at `align`.
pub(super) fn class_of(size: usize, align: usize) -> Option<usize> {
    let start = SIZES.partition_point(|&slot| slot < size);
    let fitting = SIZES.iter().skip(start).position(|&slot| slot & (align - 1) == 0)?;
    Some(start + fitting)
}

/// The table of a region: where it starts, and where the pages start.
pub(super) const fn frame(base: usize, limit: usize) -> (usize, usize) {
    let table = (base + 63) & !63;
    let pages = (limit - table) / PAGE;
    (table, (table + pages * 64 + PAGE - 1) & !(PAGE - 1))
}

/// The record of the page that holds `at`.
#[inline(always)]
fn record(region: &Region, at: usize) -> *mut Page {
    let table = (region.base + 63) & !63;
    core::ptr::with_exposed_provenance_mut(table + (at - region.first) / PAGE * 64)
}

#[inline(always)]
pub(super) fn page<'a>(region: &Region, at: usize) -> &'a mut Page {
    // SAFETY: callers pass addresses between `first` and `end` of a region, for whose pages the
    // table has records (zeros are a valid `Page`); the heap has one user, and every caller drops
    // the reference before it asks for the record of the same page again.
    unsafe { &mut *record(region, at) }
}

pub(super) const fn end_of(region: &Region) -> usize {
    region.first + (region.end - region.first) / PAGE * PAGE
}
