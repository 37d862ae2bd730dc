//! Hardened builds: which block begins at an address, if one can.
//!
//! # Cost
//! A multiplication and a few loads; what `sound` finds in order does not come here.

use crate::bitmap;
use crate::block::FaultKind;
use crate::huge;
use crate::segment::{Kind, Segment, Span, know_slab, record_of, segment_at, slice_of};
use crate::slab;
use crate::units::{MIN_ALIGN, SEGMENT, SKIPPED, SLICE, SLICE_SHIFT};

/// A live block as its record describes it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) record: *mut Span,
    /// Bytes of the block, trailer included.
    pub(super) capacity: usize,
    pub(super) kind: Kind,
}

/// The block at `address`, if one can begin there.
///
/// # Safety
/// Nothing is asked of `block`. Its record is read only if the map of segments knows it.
pub(super) unsafe fn place_of(block: *mut u8) -> Result<Place, FaultKind> {
    if block.addr() & (MIN_ALIGN - 1) != 0 {
        return Err(FaultKind::MisalignedFree);
    }
    match segment_at(block.addr()) {
        Some(Segment::Pool) if block.addr() & (SEGMENT - 1) >= SLICE => {}
        // SAFETY: what is not a pool's may be an object with a mapping of its own.
        other => return unsafe { huge_place(block, other) },
    }
    let record = record_of(block);
    // SAFETY: the records of a pool's segment are always mapped, and those of slices in use do not
    // change while one of their blocks is live; if none is, the misuse is what is looked for.
    unsafe {
        match (*record).kind {
            Kind::Slab => {
                let capacity = slab::block_size(record);
                let offset = block.addr() - slice_of(record).addr();
                let number = slab::number_of(record, offset);
                if number * capacity != offset {
                    return Err(FaultKind::InteriorFree);
                }
                if number < SKIPPED || number >= usize::from((*record).carved) {
                    return Err(FaultKind::InvalidFree);
                }
                know_slab(block.addr(), (*record).class, capacity);
                Ok(Place { record, capacity, kind: Kind::Slab })
            }
            Kind::Bitmap => {
                let capacity = bitmap::SizeClass::from_index((*record).class).size();
                let (span, bit) = bitmap::locate(record, block);
                let back = (*record).back as usize;
                let offset = (block.addr() & (SLICE - 1)) + (back << SLICE_SHIFT);
                if bit.trailing_zeros() as usize * capacity != offset {
                    return Err(FaultKind::InteriorFree);
                }
                if (*span).full & bit == 0 {
                    return Err(FaultKind::InvalidFree);
                }
                Ok(Place { record, capacity, kind: Kind::Bitmap })
            }
            Kind::Free | Kind::Huge => Err(FaultKind::InvalidFree),
        }
    }
}

/// As [`place_of`], for an address that lies in no slice of a pool.
///
/// # Safety
/// As [`place_of`].
#[cold]
#[inline(never)]
unsafe fn huge_place(block: *mut u8, segment: Option<Segment>) -> Result<Place, FaultKind> {
    let base = match segment {
        Some(Segment::Huge) if block.addr() & (SEGMENT - 1) != 0 => record_of(block),
        Some(Segment::Pool) if block.addr() & (SEGMENT - 1) != 0 => {
            return Err(FaultKind::InvalidFree);
        }
        _ if block.addr() & (SEGMENT - 1) != 0 => return Err(FaultKind::ForeignFree),
        _ => {
            if segment_at(block.addr().wrapping_sub(SEGMENT)) != Some(Segment::Huge) {
                return Err(FaultKind::ForeignFree);
            }
            // SAFETY: only an address is computed.
            unsafe { huge::huge_record(block) }
        }
    };
    // SAFETY: the first pages of a huge object's mapping are mapped, and any bytes are a record but
    // for its kind, which is therefore read as a byte.
    unsafe {
        let kind = (&raw const (*base).kind).cast::<u8>().read();
        if !huge::is_object(base, block) {
            // Where the object begins, only its own record can be wrong.
            let first = block.addr() & (SEGMENT - 1) == Span::BYTES;
            return Err(if first { FaultKind::CorruptHeader } else { FaultKind::InteriorFree });
        }
        if kind != Kind::Huge as u8 || !huge::is_intact(base) {
            return Err(FaultKind::CorruptHeader);
        }
        Ok(Place { record: base, capacity: huge::usable(base), kind: Kind::Huge })
    }
}
