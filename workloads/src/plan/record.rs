//! The words of a stream.
//!
//! ```text
//!  63           36 35            8 7     0
//! |      size     |      slot     |  code |      one word of 8 bytes
//! ```
//! Codes from [`WIDE`] on are followed by one more word. A size of 2^28 bytes or more, a `calloc`
//! count and an alignment need it; everything common is one word.
#![forbid(unsafe_code)]

use traces::AlignedApi;

/// `malloc(size)` → slot
pub(crate) const MALLOC: u8 = 0;
/// `free(slot)`
pub(crate) const FREE: u8 = 1;
/// `realloc(slot, size)` → slot
pub(crate) const REALLOC: u8 = 2;
/// `calloc(1, size)` → slot
pub(crate) const CALLOC: u8 = 3;
/// `realloc(NULL, size)` → slot
pub(crate) const REALLOC_NEW: u8 = 4;
/// `realloc(slot, 0)` that releases
pub(crate) const REALLOC_ZERO: u8 = 5;
/// `free(slot)` with the size stated, where the allocator has such a call
pub(crate) const FREE_SIZED: u8 = 6;
/// `free(NULL)`
pub(crate) const FREE_NULL: u8 = 7;
/// `malloc_usable_size(slot)`
pub(crate) const USABLE: u8 = 8;
/// Tell others that this thread has come here.
pub(crate) const PUBLISH: u8 = 9;
/// Start thread `slot`.
pub(crate) const SPAWN: u8 = 10;
/// Fork; the child makes a few calls and leaves.
pub(crate) const FORK: u8 = 11;
/// Wait until thread (bits 8–31) has published (bits 32–63) times.
pub(crate) const WAIT: u8 = 12;
/// As `WAIT`, counted from the present repetition of the body.
pub(crate) const WAIT_BODY: u8 = 13;
/// The intended time of the next operation: bits 8–63, nanoseconds since the stream began.
pub(crate) const AT: u8 = 14;
/// The object of slot `size` is from now on the object of slot `slot`; the former is empty.
pub(crate) const MOVE: u8 = 15;

/// Nothing: a place for others to wait for.
pub(crate) const NOP: u8 = 16;

/// The first code that is followed by a second word.
pub(crate) const WIDE: u8 = 32;
/// `malloc`, second word = size
pub(crate) const MALLOC_WIDE: u8 = 32;
/// `realloc`, second word = size
pub(crate) const REALLOC_WIDE: u8 = 33;
/// `realloc(NULL, …)`, second word = size
pub(crate) const REALLOC_NEW_WIDE: u8 = 34;
/// `calloc`, size inline, second word = count; a size of 2^28 or more changes place with the count
pub(crate) const CALLOC_N: u8 = 35;
/// Any aligned call: second word = size << 16 | api << 8 | log2(alignment)
pub(crate) const ALIGNED: u8 = 36;
/// A request that failed in the trace, as `malloc`; second word = size
pub(crate) const TRY: u8 = 37;
/// The program writes to slot: size inline = bytes, second word = times
pub(crate) const ACCESS: u8 = 38;
/// A realloc that failed in the trace and left its object alive; second word = size
pub(crate) const REALLOC_TRY: u8 = 39;
/// `malloc_usable_size(NULL)`, which every allocator answers with 0; no second word is needed,
/// it keeps the operation countable.
pub(crate) const USABLE_NULL: u8 = 17;

/// Bits of a slot, and of an inline size.
pub(crate) const FIELD_BITS: u32 = 28;
/// The largest slot and the largest inline size.
pub(crate) const FIELD_MAX: u64 = (1 << FIELD_BITS) - 1;
/// The largest thread number a wait can name.
pub(crate) const THREAD_MAX: u32 = (1 << 24) - 1;

/// One word from its parts.
pub(crate) fn word(code: u8, slot: u32, size: u64) -> u64 {
    debug_assert!(size <= FIELD_MAX && u64::from(slot) <= FIELD_MAX);
    u64::from(code) | u64::from(slot) << 8 | size << 36
}

/// A wait for the `ordinal`-th publication of `thread`.
pub(crate) fn wait(code: u8, thread: u32, ordinal: u32) -> u64 {
    debug_assert!(thread <= THREAD_MAX);
    u64::from(code) | u64::from(thread) << 8 | u64::from(ordinal) << 32
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest byte is wanted")]
pub(crate) fn code(word: u64) -> u8 {
    word as u8
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "masked to 28 bits")]
pub(crate) fn slot(word: u64) -> u32 {
    (word >> 8) as u32 & FIELD_MAX as u32
}

#[inline(always)]
pub(crate) fn size(word: u64) -> u64 {
    word >> 36
}

/// Thread and ordinal of a wait.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "fields of 24 and 32 bits")]
pub(crate) fn wait_parts(word: u64) -> (u32, u32) {
    ((word >> 8) as u32 & THREAD_MAX, (word >> 32) as u32)
}

/// How many words the operation that starts with `word` takes.
#[inline(always)]
pub(crate) fn words(word: u64) -> usize {
    if code(word) >= WIDE { 2 } else { 1 }
}

/// Whether operations with this code name a slot.
pub(crate) fn has_slot(code: u8) -> bool {
    !matches!(
        code,
        PUBLISH | SPAWN | WAIT | WAIT_BODY | AT | NOP | FORK | FREE_NULL | USABLE_NULL | TRY
    )
}

/// Second word of [`ALIGNED`].
pub(crate) fn aligned_payload(align: u64, api: AlignedApi, size: u64) -> u64 {
    let api = match api {
        AlignedApi::Memalign => 0,
        AlignedApi::AlignedAlloc => 1,
        AlignedApi::PosixMemalign => 2,
        AlignedApi::Valloc => 3,
        AlignedApi::Pvalloc => 4,
        AlignedApi::CxxNew => 5,
    };
    size << 16 | api << 8 | u64::from(align.max(1).trailing_zeros())
}

/// Alignment, number of the call and size from the second word of [`ALIGNED`].
#[inline(always)]
pub(crate) fn aligned_parts(payload: u64) -> (u64, u8, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "one byte is wanted")]
    let api = (payload >> 8) as u8;
    (1 << (payload & 63), api, payload >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_word_come_back_whole() {
        for (s, n) in [(0, 0), (1, 16), (FIELD_MAX as u32, FIELD_MAX), (77, 4096)] {
            let w = word(REALLOC, s, n);
            assert_eq!((code(w), slot(w), size(w)), (REALLOC, s, n));
        }
        let w = wait(WAIT, THREAD_MAX, u32::MAX);
        assert_eq!((code(w), wait_parts(w)), (WAIT, (THREAD_MAX, u32::MAX)));
        let payload = aligned_payload(4096, AlignedApi::PosixMemalign, 1 << 40);
        assert_eq!(aligned_parts(payload), (4096, 2, 1 << 40));
    }
}
