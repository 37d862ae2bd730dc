//! A map of the heap: which slices of which segment hold what, and how full they are.
//!
//! A segment is copied onto the stack while its pool is locked and handed on afterwards, so that
//! whoever writes it out may take as long as it likes. Counts of spans that other threads use are
//! read while those run, so they may be a few calls old.

use crate::segment::{Header, Kind, NOBODY, Span};
use crate::sync::Ordering;
use crate::thread::GLOBAL;
use crate::units::{SLICE, SLICES};
use crate::{bitmap, slab};

/// What a run of slices is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// The records of the segment's slices.
    Records,
    /// Free, and without pages.
    #[default]
    Clean,
    /// Free, and still holding pages.
    Dirty,
    /// Blocks up to 960 bytes.
    Slab,
    /// Blocks from 1 KiB to 1 MiB.
    Bitmap,
    /// Handed to a thread that has not begun a span in it.
    Spare,
}

/// A run of slices in one use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanMap {
    /// Number of the first slice.
    pub first: u32,
    /// Length in slices.
    pub slices: u32,
    /// What for.
    pub used: Use,
    /// Bytes of one block, 0 where there are none.
    pub block: u32,
    /// Blocks there is room for.
    pub capacity: u32,
    /// Blocks handed out, those in bins and stashes included.
    pub live: u32,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentMap {
    /// Where it begins.
    pub address: usize,
    /// Bytes mapped.
    pub bytes: usize,
    spans: [SpanMap; SLICES],
    count: usize,
}

/// Bytes of one slice.
pub const SLICE_BYTES: usize = SLICE;

impl SegmentMap {
    /// Its spans, by address; together they cover it.
    pub fn spans(&self) -> &[SpanMap] {
        self.spans.get(..self.count).unwrap_or(&[])
    }

    fn push(&mut self, span: SpanMap) {
        if let Some(slot) = self.spans.get_mut(self.count) {
            *slot = span;
            self.count += 1;
        }
    }

    /// # Safety
    /// The segment's pool is locked.
    unsafe fn read(segment: *const Header) -> Self {
        // SAFETY: the caller's promise; headers belong to the pool.
        let (free, dirty, slices) =
            unsafe { ((*segment).free, (*segment).dirty, (*segment).slices as usize) };
        let mut map = SegmentMap {
            address: segment.addr(),
            bytes: slices * SLICE,
            spans: [SpanMap::default(); SLICES],
            count: 0,
        };
        map.push(SpanMap { slices: 1, used: Use::Records, ..SpanMap::default() });
        let mut first = 1;
        while first < slices {
            let bit = |slice: usize, bits: u128| (bits >> slice) & 1 == 1;
            let mut span = SpanMap { first: first as u32, slices: 1, ..SpanMap::default() };
            if bit(first, free) {
                let is_dirty = bit(first, dirty);
                span.used = if is_dirty { Use::Dirty } else { Use::Clean };
                let same = |slice| bit(slice, free) && bit(slice, dirty) == is_dirty;
                span.slices = (first..slices).take_while(|&slice| same(slice)).count() as u32;
            } else {
                // SAFETY: records of a mapped segment; fields of running threads' spans are copied
                // as they happen to be.
                unsafe { span.read(segment.cast::<Span>().wrapping_add(first), slices - first) };
            }
            first += (span.slices as usize).max(1);
            map.push(span);
        }
        map
    }
}

impl SpanMap {
    /// # Safety
    /// `record` is that of a used slice in a mapped segment.
    unsafe fn read(&mut self, record: *const Span, left: usize) {
        self.used = Use::Spare;
        // SAFETY: the caller's promise; a class is in range in every record that has one.
        unsafe {
            if (*record).owner.load(Ordering::Relaxed) <= NOBODY {
                return;
            }
            match (*record).kind {
                Kind::Slab => {
                    self.used = Use::Slab;
                    self.block = slab::SizeClass::from_index((*record).class).size() as u32;
                    self.capacity = u32::from((*record).capacity);
                    self.live = (*record).live.min(u32::from((*record).carved));
                }
                Kind::Bitmap => {
                    self.used = Use::Bitmap;
                    self.slices = ((*record).live as usize).clamp(1, left) as u32;
                    self.block = bitmap::SizeClass::from_index((*record).class).size() as u32;
                    let free = (*record).free | (*record).remote.load(Ordering::Relaxed);
                    self.capacity = (*record).full.count_ones();
                    self.live = ((*record).full & !free).count_ones();
                }
                Kind::Free | Kind::Huge => {}
            }
        }
    }
}

/// Calls `visit` with each segment, while no lock is held. Nothing in classic mode, which has none.
pub fn for_each_segment(mut visit: impl FnMut(&SegmentMap)) {
    for pool in GLOBAL.used_pools() {
        let mut index = 0;
        // SAFETY: the pool is locked while the segment is read.
        while let Some(map) = pool.look_at(index, |header| unsafe { SegmentMap::read(header) }) {
            visit(&map);
            index += 1;
        }
    }
}
