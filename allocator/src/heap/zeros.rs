//! Hardened builds: bytes looked at whether they are zero, and set to zero where they are not, 32 at a time
//! where the processor can.
//!
//! Of a larger object most is zero when it is freed, or else it is in the cache because the program wrote to it.
//! Reading costs less than writing, in time (8 KiB of 100 objects in turn: 67 ns instead of 130) and
//! in pages that the kernel must find. So what is zero is left alone. Zeros of slabs' blocks are looked at
//! in many of one size at a time, so that branches which depend on it are guessed right.
//!
//! The same loops are compiled twice: for all processors of an architecture, and for those with AVX2.

use super::seal::{Key, trailer};
use crate::slab::FREED;
use crate::sync::Ordering;
use crate::units::set_zero;

/// Bytes of a larger object that are looked at together.
const LINE: usize = 128;

/// As many words as a vector holds at most.
type Vector = [u64; 4];

/// Defines a function by another one, compiled for all processors and for those with AVX2.
macro_rules! compiled_twice {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $same:ident;) => {
        $(#[$doc])*
        pub(super) unsafe fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                unsafe fn wide($($argument: $type),*) $(-> $result)? {
                    // SAFETY: the caller's promise.
                    unsafe { $same($($argument),*) }
                }
                if processor::has_avx2() {
                    // SAFETY: the caller's promise, and the processor can.
                    return unsafe { wide($($argument),*) };
                }
            }
            // SAFETY: the caller's promise.
            unsafe { $same($($argument),*) }
        }
    };
}

compiled_twice! {
    /// Sets the first `bytes` bytes, a multiple of 8, to zero where they are not.
    ///
    /// # Safety
    /// They are the caller's.
    fn clear(block: *mut u8, bytes: usize) = clear_lines;
}

compiled_twice! {
    /// Whether the first and last [`LOOKED_AT`] of `bytes` bytes, a multiple of 8, are zero.
    ///
    /// # Safety
    /// The bytes are the caller's.
    fn ends_are_zero(block: *mut u8, bytes: usize) -> bool = look_at_ends;
}

compiled_twice! {
    /// Whether the first `bytes` bytes of all these blocks are zero and their trailers say that they are free.
    ///
    /// # Safety
    /// The blocks are of a slab of `capacity` bytes, and the caller's; `bytes` is 0 or all but the trailer.
    fn are_untouched(blocks: &[*mut u8], bytes: usize, capacity: usize) -> bool = look_at_blocks;
}

/// # Safety
/// As [`clear`].
#[inline(always)]
unsafe fn clear_lines(block: *mut u8, bytes: usize) {
    // SAFETY: every line is of the caller's bytes.
    unsafe {
        if bytes < LINE {
            return set_zero(block, bytes);
        }
        each_line(bytes, LINE, |at| {
            let line = block.add(at);
            if bits::<LINE>(line) != 0 {
                line.cast::<[Vector; LINE / size_of::<Vector>()]>().write_unaligned([[0; 4]; _]);
            }
        });
    }
}

/// Bytes at either end of a larger freed object whose zeros are looked at.
const LOOKED_AT: usize = 1024;

/// # Safety
/// As [`ends_are_zero`].
#[inline(always)]
pub(super) unsafe fn look_at_ends(block: *mut u8, bytes: usize) -> bool {
    let ends = bytes.min(LOOKED_AT);
    // SAFETY: the caller's promise.
    unsafe { all_bits(block, ends) | all_bits(block.add(bytes - ends), ends) == 0 }
}

/// # Safety
/// As [`are_untouched`].
#[inline(always)]
unsafe fn look_at_blocks(blocks: &[*mut u8], bytes: usize, capacity: usize) -> bool {
    // SAFETY: each block has as many bytes as its size says, and a vector at either end of those above 32.
    unsafe {
        match bytes {
            0 => look(blocks, capacity, |_| 0),
            8 => look(blocks, capacity, |block| word(block)),
            9..=24 => look(blocks, capacity, |block| {
                word(block) | word(block.add(8)) | word(block.add(16))
            }),
            25..=56 => look(blocks, capacity, |block| {
                bits::<32>(block) | bits::<32>(block.add(bytes - 32))
            }),
            57..=120 => look(blocks, capacity, |block| {
                bits::<64>(block) | bits::<64>(block.add(bytes - 64))
            }),
            _ => look(blocks, capacity, |block| all_bits(block, bytes)),
        }
    }
}

/// # Safety
/// As [`are_untouched`], and `filled` may look at each block.
#[inline(always)]
unsafe fn look(blocks: &[*mut u8], capacity: usize, filled: impl Fn(*mut u8) -> u64) -> bool {
    let mut changes = 0;
    for &block in blocks {
        // SAFETY: the caller's promise.
        let stored = unsafe { trailer(block, capacity) }.load(Ordering::Relaxed);
        changes |= filled(block) | (stored ^ Key::of(block).mark(FREED));
    }
    changes == 0
}

/// The bits set in any of the first `bytes` bytes, a multiple of 8.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
unsafe fn all_bits(block: *mut u8, bytes: usize) -> u64 {
    const STEP: usize = 64;
    let mut sum: Vector = [0; 4];
    // SAFETY: every word and every step is of the caller's bytes.
    unsafe {
        if bytes < STEP {
            return (0..bytes / 8).fold(0, |sum, at| sum | word(block.add(8 * at)));
        }
        each_line(bytes, STEP, |at| sum = or(sum, sum_of::<STEP>(block.add(at))));
    }
    any_of(sum)
}

/// # Safety
/// The eight bytes are the caller's.
#[inline(always)]
unsafe fn word(bytes: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { bytes.cast::<u64>().read_unaligned() }
}

/// The bits set in any of `BYTES` bytes.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
unsafe fn bits<const BYTES: usize>(bytes: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    any_of(unsafe { sum_of::<BYTES>(bytes) })
}

/// # Safety
/// As [`bits`].
#[inline(always)]
unsafe fn sum_of<const BYTES: usize>(bytes: *mut u8) -> Vector {
    // SAFETY: the caller's promise.
    let vector = |at| unsafe { bytes.add(at).cast::<Vector>().read_unaligned() };
    (0..BYTES).step_by(size_of::<Vector>()).fold([0; 4], |sum, at| or(sum, vector(at)))
}

#[inline(always)]
fn or(a: Vector, b: Vector) -> Vector {
    [a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]]
}

#[inline(always)]
fn any_of(sum: Vector) -> u64 {
    sum[0] | sum[1] | sum[2] | sum[3]
}

/// Calls `each` with the start of every line of `bytes` bytes, at least one; the last may overlap the one
/// before it.
#[inline(always)]
fn each_line(bytes: usize, line: usize, mut each: impl FnMut(usize)) {
    let last = bytes - line;
    let mut at = 0;
    while at < last {
        each(at);
        at += line;
    }
    each(last);
}

#[cfg(target_arch = "x86_64")]
mod processor {
    use core::arch::asm;
    // Not from `sync`: loom's atomics cannot stand in a static.
    use core::sync::atomic::{AtomicU8, Ordering};

    static KNOWN: AtomicU8 = AtomicU8::new(0);
    const NO: u8 = 1;
    const YES: u8 = 2;

    /// Whether the processor has AVX2 and the kernel keeps its registers.
    #[inline(always)]
    pub(super) fn has_avx2() -> bool {
        let known = KNOWN.load(Ordering::Relaxed);
        if known == 0 { ask() } else { known == YES }
    }

    #[cold]
    #[inline(never)]
    fn ask() -> bool {
        // Bits: AVX and XGETBV; the state of 16- and 32-byte registers; AVX2.
        let (_, _, features) = cpuid(1);
        let has = cpuid(0).0 >= 7
            && features & (3 << 27) == 3 << 27
            && kept_registers() & 6 == 6
            && cpuid(7).1 & (1 << 5) != 0;
        KNOWN.store(if has { YES } else { NO }, Ordering::Relaxed);
        has
    }

    /// `eax`, `ebx` and `ecx` of a leaf.
    fn cpuid(leaf: u32) -> (u32, u32, u32) {
        let (a, b, c);
        // SAFETY: every x86_64 has the instruction; `rbx` is the compiler's and is put back.
        unsafe {
            asm!("mov {0:r}, rbx", "cpuid", "xchg {0:r}, rbx", out(reg) b,
                 inout("eax") leaf => a, inout("ecx") 0 => c, out("edx") _,
                 options(nostack, preserves_flags, nomem));
        }
        (a, b, c)
    }

    /// The lower half of what the kernel saves of a thread; only with the feature bit of XGETBV.
    fn kept_registers() -> u32 {
        let kept;
        // SAFETY: the caller has looked for the instruction.
        unsafe {
            asm!("xgetbv", out("eax") kept, in("ecx") 0, out("edx") _,
                 options(nostack, preserves_flags, nomem));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::TRAILER;
    use std::vec;

    /// Every length, with nothing set, and with one byte set in each place.
    fn each_case(
        lengths: impl Iterator<Item = usize>,
        check: impl Fn(&mut [u64], usize, Option<usize>),
    ) {
        for bytes in lengths {
            let mut words = vec![0u64; bytes / 8 + 2];
            check(&mut words, bytes, None);
            for at in 0..bytes {
                words.fill(0);
                // SAFETY: inside the words.
                unsafe { words.as_mut_ptr().cast::<u8>().add(at).write(0x41) };
                check(&mut words, bytes, Some(at));
            }
        }
    }

    #[test]
    fn every_byte_is_cleared_and_none_behind() {
        each_case((0..700).step_by(8), |words, bytes, _| {
            words[bytes / 8..].fill(7);
            for clear in [clear, clear_lines] {
                // SAFETY: the words are ours.
                unsafe { clear(words.as_mut_ptr().cast(), bytes) };
                assert!(words[..bytes / 8].iter().all(|&word| word == 0), "{bytes} bytes");
                assert!(words[bytes / 8..].iter().all(|&word| word == 7), "{bytes} bytes");
            }
        });
    }

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is_looked_for() {
        each_case((0..700).chain(2000..2300).step_by(8), |words, bytes, changed| {
            let start = words.as_mut_ptr().cast::<u8>();
            let hidden = changed.is_some_and(|at| at >= LOOKED_AT && at + LOOKED_AT < bytes);
            // SAFETY: the words are ours.
            unsafe {
                assert_eq!(all_bits(start, bytes) != 0, changed.is_some(), "{bytes} {changed:?}");
                for seen in [ends_are_zero(start, bytes), look_at_ends(start, bytes)] {
                    assert_eq!(seen, changed.is_none() || hidden, "{bytes} {changed:?}");
                }
            }
        });
    }

    #[test]
    fn a_batch_is_untouched_if_all_of_its_blocks_are() {
        for class in crate::slab::SizeClass::all() {
            let capacity = class.size();
            let mut words = vec![0u128; 3 * capacity / 16];
            let start = words.as_mut_ptr().cast::<u8>();
            let blocks = [0, 1, 2].map(|number| start.wrapping_add(number * capacity));
            let seen = |bytes| {
                // SAFETY: the blocks are ours.
                unsafe {
                    for block in blocks {
                        let mark = Key::of(block).mark(FREED);
                        trailer(block, capacity).store(mark, Ordering::Relaxed);
                    }
                    let seen = are_untouched(&blocks, bytes, capacity);
                    assert_eq!(seen, look_at_blocks(&blocks, bytes, capacity));
                    seen
                }
            };
            let bytes = capacity - TRAILER;
            assert!(seen(bytes));
            for at in 0..bytes {
                // SAFETY: inside the second block.
                unsafe { blocks[1].add(at).write(1) };
                assert!(!seen(bytes) && seen(0), "byte {at} of {capacity}");
                // SAFETY: as above.
                unsafe { blocks[1].add(at).write(0) };
            }
            // SAFETY: the last byte of the last block.
            unsafe { *blocks[2].add(capacity - 1) ^= 1 };
            // SAFETY: the blocks are ours.
            assert!(unsafe { !are_untouched(&blocks, 0, capacity) });
        }
    }
}
