//! Hardened builds: objects of no bytes, in a stretch of addresses that nobody may touch.
//!
//! An object is a bit and the address it stands for. They are handed out in turn, so that none comes
//! again soon. When there is no stretch, or too many of its objects are live, the caller serves an object
//! of no bytes as it serves one of a few.
//!
//! Owns 8 KiB of bits and 1 MiB of address space, mapped by the first call.
//!
//! # Cost
//! Two atomic operations to allocate, one to free.

use core::ptr;

use crate::block::FaultKind;
use crate::os::{self, Kernel, Linux};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::units::MIN_ALIGN;

/// Objects in the stretch.
const OBJECTS: usize = 1 << 16;
const BYTES: usize = OBJECTS * MIN_ALIGN;
/// How often a bit that is taken is passed over before somebody else serves the call.
const TRIES: usize = 64;

/// Where the stretch begins; 0 before the first call, [`NONE`] if the kernel refused.
static STRETCH: AtomicUsize = AtomicUsize::new(0);
const NONE: usize = usize::MAX;
static LIVE: [AtomicU64; OBJECTS / 64] = [const { AtomicU64::new(0) }; OBJECTS / 64];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// An object of no bytes; null if there is none.
#[cold]
pub(super) fn allocate() -> *mut u8 {
    let Some(base) = stretch() else { return ptr::null_mut() };
    for _ in 0..TRIES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % OBJECTS;
        let Some(word) = LIVE.get(number / 64) else { break };
        let bit = 1 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            return ptr::with_exposed_provenance_mut(base + number * MIN_ALIGN);
        }
    }
    ptr::null_mut()
}

/// The start of the stretch, which the first call maps.
fn stretch() -> Option<usize> {
    match STRETCH.load(Ordering::Relaxed) {
        0 => {}
        NONE => return None,
        base => return Some(base),
    }
    let mut base = NONE;
    if let Ok(address) = Linux.map(0, BYTES) {
        // SAFETY: the mapping is this call's. Without a guard it is of no use.
        unsafe {
            if os::guard(address, BYTES, true) {
                base = address;
            } else {
                let _ = Linux.unmap(address, BYTES);
            }
        }
    }
    match STRETCH.compare_exchange(0, base, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => (base != NONE).then_some(base),
        Err(first) => {
            if base != NONE {
                // SAFETY: nobody was told of this one. A failure costs address space.
                let _ = unsafe { Linux.unmap(base, BYTES) };
            }
            (first != NONE).then_some(first)
        }
    }
}

/// Whether an address lies in the stretch.
pub(super) fn holds(address: usize) -> bool {
    let base = STRETCH.load(Ordering::Relaxed);
    base != 0 && address.wrapping_sub(base) < BYTES
}

/// The bit of an address in the stretch, and the word that has it.
fn place(address: usize) -> Result<(&'static AtomicU64, u64), FaultKind> {
    if address & (MIN_ALIGN - 1) != 0 {
        return Err(FaultKind::MisalignedFree);
    }
    let number = address.wrapping_sub(STRETCH.load(Ordering::Relaxed)) / MIN_ALIGN;
    let word = LIVE.get(number / 64).ok_or(FaultKind::ForeignFree)?;
    Ok((word, 1 << (number % 64)))
}

/// Whether an object of the stretch is live.
///
/// # Errors
/// It is not.
pub(super) fn look(address: usize) -> Result<(), FaultKind> {
    let (word, bit) = place(address)?;
    if word.load(Ordering::Relaxed) & bit == 0 { Err(FaultKind::DoubleFree) } else { Ok(()) }
}

/// Frees an object of the stretch.
///
/// # Errors
/// There is no live one at this address.
pub(super) fn free(address: usize) -> Result<(), FaultKind> {
    let (word, bit) = place(address)?;
    if word.fetch_and(!bit, Ordering::Relaxed) & bit == 0 {
        return Err(FaultKind::DoubleFree);
    }
    Ok(())
}
