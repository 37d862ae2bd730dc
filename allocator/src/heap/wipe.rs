//! Hardened builds: zeros in freed blocks of slabs, written and looked at.
//!
//! A block's room, all of it in front of the trailer, is 8 bytes more than a multiple of 16. Up to 120 of
//! them are covered by words that overlap, counted from both ends, so that there is no loop to leave.

use crate::units::TRAILER;

/// Sixteen bytes, written at once.
type Pair = [u64; 2];

/// Sets the first `room` bytes to zero.
///
/// # Safety
/// They are the caller's; `room` is 8 more than a multiple of 16.
#[inline(always)]
pub(super) unsafe fn wipe(block: *mut u8, room: usize) {
    // SAFETY: everything lies between the first and the last of the bytes.
    unsafe {
        let put = |at: usize| block.add(at).cast::<Pair>().write_unaligned([0; 2]);
        if room > 120 {
            return block.write_bytes(0, room);
        }
        if room > 24 {
            if room > 56 {
                put(32);
                put(48);
                put(room - 64);
                put(room - 48);
            }
            put(16);
            put(room - 32);
        }
        block.cast::<u64>().write(0);
        if room > TRAILER {
            put(TRAILER);
            put(room - 16);
        }
    }
}

/// Zero if the first `room` bytes are zero.
///
/// # Safety
/// As [`wipe`]; `room` is below [`LINE`].
#[inline(always)]
pub(super) unsafe fn sum_short(block: *mut u8, room: usize) -> u64 {
    // SAFETY: everything lies between the first and the last of the bytes.
    unsafe {
        let word = |at: usize| block.add(at).cast::<u64>().read();
        let mut sum = word(0);
        if room > TRAILER {
            sum |= word(8) | word(16) | word(room - 8);
            if room > 24 {
                sum |= word(24) | word(room - 24) | word(room - 16);
            }
        }
        sum
    }
}

/// Bytes looked at together.
pub(super) const LINE: usize = 64;

/// Zero if the first `bytes` bytes, [`LINE`] at least, are zero.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
pub(super) unsafe fn sum_of_lines(block: *mut u8, bytes: usize) -> u64 {
    // SAFETY: a line ends at the last of the bytes at the latest.
    unsafe {
        let line = |at: usize| {
            let [a, b, c, d] = block.add(at).cast::<[Pair; 4]>().read_unaligned();
            let (x, y) = ([a[0] | b[0], a[1] | b[1]], [c[0] | d[0], c[1] | d[1]]);
            [x[0] | y[0], x[1] | y[1]]
        };
        let mut sum = line(bytes - LINE);
        let mut at = 0;
        while at + LINE < bytes {
            let next = line(at);
            sum = [sum[0] | next[0], sum[1] | next[1]];
            at += LINE;
        }
        sum[0] | sum[1]
    }
}
