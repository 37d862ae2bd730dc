//! The record of a huge object: where its mapping lies, and how much of it the object uses.
//!
//! Owns nothing: the record is part of the mapping.

use core::ptr;

use crate::segment::{Kind, NOBODY, Span, header_of, record_of};
use crate::sync::Ordering;
use crate::units::{SEGMENT, SLICE_SHIFT, SLICES};

/// Where an object lies in its mapping; kept in the record its address leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base: usize,
    /// From the base to the object.
    pub(super) offset: usize,
    /// Bytes of the whole mapping.
    pub(super) mapped: usize,
    /// Bytes from the base to the end of the object, in whole pages.
    pub(super) used: usize,
    /// Bytes that may hold pages: more than are used where a larger object lay before.
    pub(super) resident: usize,
}

impl Place {
    /// Writes the record; returns the object.
    ///
    /// # Safety
    /// The mapping is the caller's.
    pub(super) unsafe fn write(self) -> *mut u8 {
        let base: *mut u8 = ptr::with_exposed_provenance_mut(self.base);
        // SAFETY: the record lies before the object.
        unsafe {
            let slice = (self.offset >> SLICE_SHIFT) & (SLICES - 1);
            let record = base.cast::<Span>().add(slice);
            (*record).owner.store(NOBODY, Ordering::Relaxed);
            (*record).kind = Kind::Huge;
            (*record).free = self.base as u64;
            (*record).full = self.offset as u64;
            (*record).live = 0;
            (*record).next = ptr::without_provenance_mut(self.mapped);
            (*record).remote.store(self.used as u64, Ordering::Relaxed);
            (*record).prev = ptr::without_provenance_mut(self.resident);
            #[cfg(feature = "hardened")]
            {
                (*record).inverse = self.checksum();
                crate::segment::note(self.base, crate::segment::Segment::Huge);
            }
            base.add(self.offset)
        }
    }

    #[cfg(feature = "hardened")]
    fn checksum(self) -> u32 {
        let mixed = [self.base, self.offset, self.mapped, self.used]
            .into_iter()
            .fold(crate::slab::key(0) as usize, |sum, word| {
                (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
        (mixed >> 32) as u32
    }

    /// # Safety
    /// `record` is that of a live huge object.
    pub(super) unsafe fn read(record: *mut Span) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Place {
                base: (*record).free as usize,
                offset: (*record).full as usize,
                mapped: (*record).next.addr(),
                used: (*record).remote.load(Ordering::Relaxed) as usize,
                resident: (*record).prev.addr(),
            }
        }
    }
}

/// The record of a huge object, also of one aligned to a segment or more.
///
/// # Safety
/// `object` is live, and huge if it is a multiple of [`SEGMENT`].
pub(crate) unsafe fn huge_record(object: *mut u8) -> *mut Span {
    if object.addr() & (SEGMENT - 1) == 0 {
        header_of(object.wrapping_sub(SEGMENT)).cast()
    } else {
        record_of(object)
    }
}

/// Whether a huge object's record is as it was written.
///
/// # Safety
/// `record` is that of a live huge object.
#[cfg(feature = "hardened")]
pub(crate) unsafe fn is_intact(record: *mut Span) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let unused = (*record).carved == 0 && (*record).capacity == 0;
        unused && (*record).inverse == Place::read(record).checksum()
    }
}

/// Whether `object` is where the record says that its object is.
///
/// # Safety
/// `record` is that of a live huge object.
#[cfg(feature = "hardened")]
pub(crate) unsafe fn is_object(record: *mut Span, object: *mut u8) -> bool {
    // SAFETY: the caller's promise.
    let place = unsafe { Place::read(record) };
    place.base.wrapping_add(place.offset) == object.addr()
}

/// Bytes usable from the object on.
///
/// # Safety
/// `record` is that of a live huge object.
pub(crate) unsafe fn usable(record: *mut Span) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let place = Place::read(record);
        match (*record).live {
            0 => place.mapped - place.offset,
            limit => limit as usize,
        }
    }
}

/// Lets an object that is here although it is small be no larger to its user than `bytes`.
///
/// # Safety
/// `record` is that of a live huge object of at least so many bytes, which nobody uses yet.
pub(crate) unsafe fn limit_usable(record: *mut Span, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { (*record).live = u32::try_from(bytes).unwrap_or(0) };
}
