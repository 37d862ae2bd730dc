//! A source over one range that the user owns: nothing is ever asked of the kernel.
//!
//! Owns the range for as long as the heap lives. It is handed out from the front in steps, like a
//! small break of its own, so that "committed" and "trimmed" mean something to whoever measures.
//! Cost: constant time per call.

use core::mem::MaybeUninit;

use super::region::{Added, Extent, Source};

/// The source of a heap over a region that the caller owns.
#[derive(Debug)]
pub struct FixedRegion {
    base: usize,
    bytes: usize,
    step: usize,
    zeroed: bool,
    taken: bool,
}

impl FixedRegion {
    /// A source over the `bytes` bytes from `base`, all of them handed out at once.
    ///
    /// # Safety
    /// The range is readable and writable, used by nobody else, and outlives the heap and every
    /// object of it.
    #[must_use]
    pub unsafe fn new(base: *mut u8, bytes: usize) -> Self {
        let base = base.expose_provenance();
        Self { base, bytes, step: bytes, zeroed: false, taken: false }
    }

    /// A source over `range`, which it owns for good.
    #[must_use]
    pub fn of(range: &'static mut [MaybeUninit<u8>]) -> Self {
        let bytes = range.len();
        // SAFETY: the range is borrowed for good, exclusively.
        unsafe { Self::new(range.as_mut_ptr().cast(), bytes) }
    }

    /// Hands the range out in steps of `step` bytes (rounded up to 4 KiB) instead of at once.
    #[must_use]
    pub const fn in_steps(mut self, step: usize) -> Self {
        let step = if step < 4096 { 4096 } else { step & !4095 };
        self.step = if step > self.bytes { self.bytes } else { step };
        self
    }

    /// States that the range holds only zeros, which saves `calloc` from writing them again.
    #[must_use]
    pub const fn assume_zeroed(mut self) -> Self {
        self.zeroed = true;
        self
    }

    const fn round(&self, bytes: usize) -> usize {
        bytes.saturating_add(self.step - 1) / self.step * self.step
    }
}

// SAFETY: the constructor's promise gives the whole range to this source; `taken` makes `acquire`
// succeed once, and `extend` never passes `bytes`.
unsafe impl Source for FixedRegion {
    fn acquire(&mut self, bytes: usize) -> Option<Extent> {
        if self.taken || bytes > self.bytes || self.step == 0 {
            return None;
        }
        self.taken = true;
        let bytes = self.round(bytes).min(self.bytes);
        Some(Extent { base: self.base, bytes, limit: self.bytes, zeroed: self.zeroed })
    }

    fn reach(&self, _bytes: usize) -> usize {
        self.bytes
    }

    fn extend(&mut self, _base: usize, end: usize, bytes: usize) -> Added {
        let left = self.base + self.bytes - end;
        let bytes = if bytes > left { 0 } else { self.round(bytes).min(left) };
        Added { bytes, zeroed: self.zeroed }
    }

    fn shrink(&mut self, _base: usize, _end: usize, bytes: usize) -> usize {
        // Memory that was used once is no longer zero when it comes back.
        self.zeroed = false;
        bytes
    }
}
