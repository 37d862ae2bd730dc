//! Hardened builds: freed blocks that wait before they can be handed out again.
//!
//! Two rings per heap: 64 blocks of slabs, and 4 larger ones. A freed block takes the place of the
//! oldest, which is freed in earnest. A double free finds the block's mark, a late write its zeros
//! changed, and an attacker does not get the address back at once.
//!
//! Costs up to 64 KiB and 4 MiB per thread, and one load and store per free.

use core::ptr::null_mut;

const SMALL: usize = 64;
const MEDIUM: usize = 4;
const _: () = assert!(SMALL.is_power_of_two() && MEDIUM.is_power_of_two());

/// The freed blocks of one heap, oldest first. Zeroed memory is an empty one.
#[derive(Debug)]
pub(crate) struct Quarantine {
    small: [*mut u8; SMALL],
    medium: [*mut u8; MEDIUM],
    small_at: usize,
    medium_at: usize,
}

impl Quarantine {
    /// Takes a freed block of a slab in; returns the one that leaves, or null.
    #[inline(always)]
    pub(crate) fn exchange_small(&mut self, block: *mut u8) -> *mut u8 {
        exchange(&mut self.small, &mut self.small_at, block)
    }

    /// As [`Quarantine::exchange_small`], for a larger block.
    #[inline(always)]
    pub(crate) fn exchange_medium(&mut self, block: *mut u8) -> *mut u8 {
        exchange(&mut self.medium, &mut self.medium_at, block)
    }

    /// Hands every block to `release`.
    pub(super) fn empty(&mut self, mut release: impl FnMut(*mut u8)) {
        for slot in self.small.iter_mut().chain(&mut self.medium) {
            let block = core::mem::replace(slot, null_mut());
            if !block.is_null() {
                release(block);
            }
        }
    }
}

/// Puts `block` in the place of the oldest, which is returned.
#[inline(always)]
fn exchange<const N: usize>(ring: &mut [*mut u8; N], at: &mut usize, block: *mut u8) -> *mut u8 {
    let here = *at % N;
    *at = here + 1;
    // Always there: the remainder is below the length.
    ring.get_mut(here).map_or(block, |slot| core::mem::replace(slot, block))
}
