//! Segregated fits in two levels: the default.
//!
//! Free blocks hang in 352 lists: one per size below 512 bytes, then 16 per doubling. A search
//! rounds the request up to a class boundary, so that any block of the list serves it, and finds
//! the first list that is not empty by two bit scans.
//!
//! Owns list heads and their bitmap (2.9 KiB). Cost: O(1); a block from a rounded-up class is at
//! most 6.25 % larger than asked before it is split. When no such list has a block, at most
//! [`LOOK`] blocks of the request's own class are tried before the heap grows.
//!
//! # Invariants
//! 1. A block of size s hangs in list `class(s)`.
//! 2. Bit c of the bitmap is set exactly if list c is not empty; bit w of the summary exactly if
//!    word w is not zero.
//!
//! Source: Masmano, Ripoll, Crespo, Real: TLSF, a new dynamic memory allocator for real-time
//! systems (2004).

use super::list;
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, Listed, Placement};
use crate::block::{fault_at, fit, padded};

const WORDS: usize = 6;
const CLASSES: usize = WORDS * 64;
/// Blocks of the request's own class that are tried before giving up.
const LOOK: usize = 8;

/// Two-level segregated fits.
#[derive(Debug)]
pub struct Segregated {
    heads: [usize; CLASSES],
    words: [u64; WORDS],
    summary: u32,
    examined: u64,
    hint: usize,
}

/// The list for blocks of `size` bytes.
#[inline(always)]
const fn class(size: usize) -> usize {
    let grains = size / GRAIN;
    if grains < 32 {
        return grains;
    }
    let log = (grains | 1).ilog2() as usize;
    (log - 3) * 16 + ((grains >> (log - 4)) & 15)
}

/// The first list whose every block holds `size` bytes.
#[inline(always)]
const fn class_above(size: usize) -> usize {
    let grains = size / GRAIN;
    if grains < 32 {
        return grains;
    }
    let log = (grains | 1).ilog2() as usize;
    class((grains + (1 << (log - 4)) - 1) * GRAIN)
}

impl Segregated {
    #[inline(always)]
    fn slots(&mut self, class: usize) -> Option<(&mut usize, &mut u64)> {
        Some((self.heads.get_mut(class)?, self.words.get_mut(class / 64)?))
    }

    /// The first list at or after `class` that is not empty.
    #[inline(always)]
    fn find(&self, class: usize) -> Option<usize> {
        let word = class / 64;
        let bits = self.words.get(word)? & (u64::MAX << (class % 64));
        if bits != 0 {
            return Some(word * 64 + bits.trailing_zeros() as usize);
        }
        let above = self.summary & (u32::MAX << (word + 1));
        let word = above.trailing_zeros() as usize;
        let bits = *self.words.get(word)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    #[inline(always)]
    fn unlist(&mut self, ground: &Ground, at: usize, class: usize) -> Result<(), Fault> {
        let Some((head, word)) = self.slots(class) else {
            return Err(fault_at(FaultKind::CorruptIndex, at, 0));
        };
        // SAFETY: by invariant 1 the block hangs in this list.
        unsafe { list::unlink(ground, head, at) }?;
        if *head == 0 {
            *word &= !(1 << (class % 64));
            if *word == 0 {
                self.summary &= !(1 << (class / 64));
            }
        }
        Ok(())
    }

    /// Tries the first blocks of the list in which some blocks fit and some do not.
    #[cold]
    fn look(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        for class in class(need)..class_above(padded(need, align)).min(CLASSES) {
            let mut at = self.heads.get(class).copied().unwrap_or(0);
            for _ in 0..LOOK {
                if at == 0 {
                    break;
                }
                self.examined += 1;
                // SAFETY: `at` is listed.
                let size = unsafe { ground.free_size(at) }?;
                if fit(at, size, need, align).is_some() {
                    return self.hand_out(ground, at, size).map(Some);
                }
                // SAFETY: `at` is listed.
                at = unsafe { list::next(ground, at) }?;
            }
        }
        Ok(None)
    }

    #[inline(always)]
    fn hand_out(&mut self, ground: &Ground, at: usize, size: usize) -> Result<FreeBlock, Fault> {
        self.unlist(ground, at, class(size))?;
        match ground.regions.find(at, self.hint) {
            Some(region) => {
                self.hint = region;
                Ok(FreeBlock { at, size, region })
            }
            None => Err(fault_at(FaultKind::CorruptIndex, at, size)),
        }
    }
}

// SAFETY: a block is linked into exactly one list by `insert` and unlinked by `remove` and
// `hand_out`; only its two link words are written.
unsafe impl Placement for Segregated {
    const NAME: &'static str = "segregated";
    const EMPTY: Self =
        Self { heads: [0; CLASSES], words: [0; WORDS], summary: 0, examined: 0, hint: 0 };

    #[inline(always)]
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let class = class(block.size);
        if let Some((head, word)) = self.slots(class) {
            // SAFETY: the caller's promise: free, and in no list.
            unsafe { list::push(ground, head, block.at) };
            *word |= 1 << (class % 64);
            self.summary |= 1 << (class / 64);
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        self.unlist(ground, block.at, class(block.size))
    }

    #[inline(always)]
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let Some(class) = self.find(class_above(padded(need, align))) else {
            return self.look(ground, need, align);
        };
        let at = self.heads.get(class).copied().unwrap_or(0);
        if at == 0 {
            return Err(fault_at(FaultKind::CorruptIndex, at, 0));
        }
        self.examined += 1;
        // SAFETY: the head of a list is listed.
        let size = unsafe { ground.free_size(at) }?;
        self.hand_out(ground, at, size).map(Some)
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        for (index, &head) in self.heads.iter().enumerate() {
            let bit = self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1);
            if bit != (head != 0) {
                return Err(fault_at(FaultKind::CorruptIndex, head, 0));
            }
            let (blocks, bytes) = list::walk(ground, head, &mut |_, size| class(size) == index)?;
            listed.blocks += blocks;
            listed.bytes += bytes;
        }
        Ok(listed)
    }

    fn examined(&self) -> u64 {
        self.examined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MAX_BLOCK, MIN_BLOCK};

    #[test]
    fn every_block_of_the_rounded_class_holds_the_request_within_a_sixteenth() {
        let mut least = [usize::MAX; CLASSES];
        for grains in (2..40_000).rev() {
            least[class(grains * GRAIN)] = grains;
        }
        for grains in MIN_BLOCK / GRAIN..38_000 {
            let served = least[class_above(grains * GRAIN)];
            assert!(served >= grains, "{grains} may get {served}");
            assert!(served - grains <= grains / 16, "{grains} gets {served}");
        }
        assert!(class_above(MAX_BLOCK) < CLASSES);
    }

    #[test]
    fn classes_grow_with_size() {
        for grains in 2..40_000 {
            assert!(class(grains * 16) <= class((grains + 1) * 16));
            assert!(class(grains * 16) == grains || grains >= 32);
        }
    }
}
