//! The eight bytes before each block, and the sealed words inside free ones.
//!
//! ```text
//! block (multiple of 16 bytes, at least 32; starts 8 below a multiple of 16)
//! +--------+---------------------------------------------+
//! | header | payload: the program's, up to the next header |   in use
//! +--------+--------+--------+-------------+--------------+
//! | header | word 0 | word 1 |     ...     |    footer    |   free
//! +--------+--------+--------+-------------+--------------+
//!
//! header  63        39 38   35   34    33      32  31        0
//!         | size / 16 | arena | zero | prev | in use | checksum |
//! footer  63        25 24        0
//!         |   stamp   | size / 16 |
//! ```
//! The checksum comes first in memory (little-endian), so that a write of one byte past the end of
//! the block before always hits it. It covers the address, the other half of the header and the
//! process secret, and so is magic number and integrity check in one. `zero` means "the payload is
//! zero but for the words of a free block" while free, and "parked: freed, not yet coalesced" while
//! in use.
//!
//! Owns nothing: functions over addresses whose provenance was exposed when their region was added.
//! Cost: one multiplication to seal or to verify.
//!
//! # Invariants
//! 1. Headers are written by the heap's lock holder only, each by one 64-bit store; a thread that
//!    owns an in-use block may read its size without the lock, as neighbours change only flags.

use core::sync::atomic::{AtomicU64, Ordering};

/// Every address handed out is a multiple of this.
pub const GRAIN: usize = 16;
/// Bytes of header before each block's payload: the whole overhead of an object in use.
pub const HEADER: usize = 8;
/// Smallest block: header, two words, footer.
pub const MIN_BLOCK: usize = 32;
/// Largest block: 25 bits of 16-byte grains, kept a multiple of 64 KiB.
pub const MAX_BLOCK: usize = ((1 << 25) - 4096) * GRAIN;

const IN_USE: u64 = 1 << 32;
const PREV_IN_USE: u64 = 1 << 33;
const ZERO: u64 = 1 << 34;
const ARENA_SHIFT: u32 = 35;
const SIZE_SHIFT: u32 = 39;
const LOW: u64 = 0xffff_ffff;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const FOOTER_SIZE: u64 = (1 << 25) - 1;
const LINK_BITS: u32 = 44;
const LINK_MASK: u64 = (1 << LINK_BITS) - 1;

/// Reads the word at `at`.
///
/// # Safety
/// `at` is a multiple of 8 inside a committed region whose provenance is exposed.
#[inline(always)]
pub(crate) unsafe fn load(at: usize) -> u64 {
    let word = core::ptr::with_exposed_provenance::<AtomicU64>(at);
    // SAFETY: 8-aligned and mapped by the caller's promise; any bit pattern is an AtomicU64.
    unsafe { (*word).load(Ordering::Relaxed) }
}

/// Writes the word at `at`.
///
/// # Safety
/// As for [`load`], and the word belongs to the heap (a header, or inside a free block).
#[inline(always)]
pub(crate) unsafe fn store(at: usize, value: u64) {
    let word = core::ptr::with_exposed_provenance::<AtomicU64>(at);
    // SAFETY: as in `load`; the heap owns the word, so no reference of the program aliases it.
    unsafe { (*word).store(value, Ordering::Relaxed) }
}

/// A header as read or to be written. The checksum is valid only if [`Header::sealed_at`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header(u64);

impl Header {
    #[inline(always)]
    pub(crate) const fn new(size: usize, in_use: bool, prev_in_use: bool, arena: u8) -> Self {
        let mut bits = ((size / GRAIN) as u64) << SIZE_SHIFT;
        bits |= (arena as u64 & 15) << ARENA_SHIFT;
        if in_use {
            bits |= IN_USE;
        }
        if prev_in_use {
            bits |= PREV_IN_USE;
        }
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn size(self) -> usize {
        ((self.0 >> SIZE_SHIFT) as usize) * GRAIN
    }

    #[inline(always)]
    pub(crate) const fn in_use(self) -> bool {
        self.0 & IN_USE != 0
    }

    #[inline(always)]
    pub(crate) const fn prev_in_use(self) -> bool {
        self.0 & PREV_IN_USE != 0
    }

    /// Free, and zero except for the words that a free block holds.
    #[inline(always)]
    pub(crate) const fn is_zero(self) -> bool {
        self.0 & (ZERO | IN_USE) == ZERO
    }

    /// Given back, but still counted as in use by its neighbours.
    #[inline(always)]
    pub(crate) const fn is_parked(self) -> bool {
        self.0 & (ZERO | IN_USE) == ZERO | IN_USE
    }

    #[inline(always)]
    pub(crate) const fn arena(self) -> u8 {
        (self.0 >> ARENA_SHIFT) as u8 & 15
    }

    #[inline(always)]
    pub(crate) const fn with_prev_in_use(self, yes: bool) -> Self {
        Self(if yes { self.0 | PREV_IN_USE } else { self.0 & !PREV_IN_USE })
    }

    /// Sets the bit that means `zero` on a free block and `parked` on one in use.
    #[inline(always)]
    pub(crate) const fn with_mark(self, yes: bool) -> Self {
        Self(if yes { self.0 | ZERO } else { self.0 & !ZERO })
    }

    #[inline(always)]
    const fn checksum(self, at: usize, secret: u64) -> u64 {
        let place = (at as u64).rotate_left(28);
        ((place ^ (self.0 >> 32) ^ secret).wrapping_mul(MIX)) >> 32
    }

    /// Whether this header was sealed for address `at` under `secret`.
    #[inline(always)]
    pub(crate) const fn sealed_at(self, at: usize, secret: u64) -> bool {
        self.checksum(at, secret) == self.0 & LOW
    }

    /// # Safety
    /// As for [`load`].
    #[inline(always)]
    pub(crate) unsafe fn read(at: usize) -> Self {
        // SAFETY: the caller's promise is `load`'s.
        Self(unsafe { load(at) })
    }

    /// Seals the header for `at` and writes it.
    ///
    /// # Safety
    /// As for [`store`], and the caller holds the heap's lock.
    #[inline(always)]
    pub(crate) unsafe fn write(self, at: usize, secret: u64) {
        let sealed = (self.0 & !LOW) | self.checksum(at, secret);
        // SAFETY: the caller's promise is `store`'s.
        unsafe { store(at, sealed) };
    }
}

/// The footer of a free block: its size, and a stamp that a placement may use as it likes.
#[inline(always)]
pub(crate) const fn footer(size: usize, stamp: u64) -> u64 {
    ((size / GRAIN) as u64 & FOOTER_SIZE) | (stamp << 25)
}

/// The block size that a footer states.
#[inline(always)]
pub(crate) const fn footer_size(word: u64) -> usize {
    (word & FOOTER_SIZE) as usize * GRAIN
}

/// The stamp that a footer carries (39 bits).
#[inline(always)]
pub(crate) const fn footer_stamp(word: u64) -> u64 {
    word >> 25
}

#[inline(always)]
const fn link_seal(at: usize, grain: u64, secret: u64) -> u64 {
    let mixed = ((at as u64).rotate_left(23) ^ grain ^ secret).wrapping_mul(MIX);
    mixed >> LINK_BITS << LINK_BITS
}

/// Writes a link to the block at `target` (0 for none) into the word at `at`, sealed.
///
/// # Safety
/// As for [`store`].
#[inline(always)]
pub(crate) unsafe fn link(at: usize, target: usize, secret: u64) {
    let grain = (target as u64 >> 4) & LINK_MASK;
    // SAFETY: the caller's promise is `store`'s.
    unsafe { store(at, grain | link_seal(at, grain, secret)) };
}

/// Reads the link at `at`. `None` if its seal is broken: then nothing was followed.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(crate) unsafe fn follow(at: usize, secret: u64) -> Option<usize> {
    // SAFETY: the caller's promise is `load`'s.
    let word = unsafe { load(at) };
    let grain = word & LINK_MASK;
    if word & !LINK_MASK != link_seal(at, grain, secret) {
        return None;
    }
    // Blocks start 8 above a multiple of 16; 0 stays "none".
    Some(if grain == 0 { 0 } else { (grain as usize) << 4 | HEADER })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    const SECRET: u64 = 0x1234_5678_9abc_def1;

    #[test]
    fn a_header_keeps_every_field() {
        for size in [MIN_BLOCK, 48, 4096, MAX_BLOCK] {
            for bits in 0..8u8 {
                let header =
                    Header::new(size, bits & 1 != 0, bits & 2 != 0, bits).with_mark(bits & 4 != 0);
                assert_eq!(header.size(), size);
                assert_eq!(header.in_use(), bits & 1 != 0);
                assert_eq!(header.prev_in_use(), bits & 2 != 0);
                assert_eq!(header.arena(), bits);
                assert_eq!(header.is_zero(), bits & 5 == 4);
                assert_eq!(header.is_parked(), bits & 5 == 5);
            }
        }
    }

    #[test]
    fn a_change_of_any_single_byte_breaks_the_seal() {
        let mut word = [0u64; 1];
        let at = word.as_mut_ptr().expose_provenance();
        for size in [MIN_BLOCK, 4096, 131_072] {
            let header = Header::new(size, true, true, 3);
            // SAFETY: `word` is ours, aligned and exposed.
            unsafe { header.write(at, SECRET) };
            // SAFETY: as above.
            let good = unsafe { load(at) };
            for byte in 0..8 {
                for change in 1..=255u64 {
                    let bad = Header(good ^ change << (byte * 8));
                    assert!(!bad.sealed_at(at, SECRET), "byte {byte} change {change:#x}");
                }
            }
            assert!(!Header(good).sealed_at(at + 16, SECRET), "a header is bound to its address");
        }
    }

    #[test]
    fn a_link_is_followed_only_as_it_was_written() {
        let mut word = [0u64; 1];
        let at = word.as_mut_ptr().expose_provenance();
        for target in [0usize, 0x5555_0000_1238, 0x7fff_ffff_fff8] {
            // SAFETY: `word` is ours, aligned and exposed.
            unsafe { link(at, target, SECRET) };
            // SAFETY: as above.
            assert_eq!(unsafe { follow(at, SECRET) }, Some(target));
            // SAFETY: as above.
            unsafe { store(at, 0x4141_4141_4141_4141) };
            // SAFETY: as above.
            assert_eq!(unsafe { follow(at, SECRET) }, None);
        }
    }

    #[test]
    fn a_footer_keeps_size_and_stamp() {
        let word = footer(MAX_BLOCK, 77);
        assert_eq!((footer_size(word), footer_stamp(word)), (MAX_BLOCK, 77));
    }
}
