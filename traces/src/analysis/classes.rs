//! How far known allocators round a request up: the part of their fragmentation that a trace
//! alone predicts.
//!
//! What cannot be predicted from sizes, such as half-filled spans and holes between blocks, is
//! not here: these figures are lower bounds of what a run measures. The rules follow each
//! project's documented class spacing with its default settings on 64-bit Linux.
#![forbid(unsafe_code)]

/// An allocator's rule for the block that serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeClasses {
    /// 16-byte steps up to 256 bytes, then eight classes per doubling up to 1 MiB, then pages.
    Ours,
    /// 8 bytes of header, 16-byte steps, 32 at least; from 128 KiB pages of their own.
    Glibc,
    /// 8, then 16-byte steps up to 128 bytes, then four classes per doubling.
    Jemalloc,
    /// 8-byte steps up to 64 bytes, then four classes per doubling up to 16 MiB, then pages.
    Mimalloc,
    /// 8 and 16-byte steps up to 128 bytes, then eighths of the power of two below, up to
    /// 256 KiB; then 8 KiB pages.
    Tcmalloc,
    /// Powers of two, as a buddy system uses.
    PowersOfTwo,
}

const PAGE: u64 = 4096;

impl SizeClasses {
    /// All of them.
    pub const ALL: [SizeClasses; 6] = [
        SizeClasses::Ours,
        SizeClasses::Glibc,
        SizeClasses::Jemalloc,
        SizeClasses::Mimalloc,
        SizeClasses::Tcmalloc,
        SizeClasses::PowersOfTwo,
    ];

    /// The name used in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SizeClasses::Ours => "ours",
            SizeClasses::Glibc => "system (glibc)",
            SizeClasses::Jemalloc => "jemalloc",
            SizeClasses::Mimalloc => "mimalloc",
            SizeClasses::Tcmalloc => "tcmalloc",
            SizeClasses::PowersOfTwo => "buddy (powers of two)",
        }
    }

    /// Bytes of the block that serves a request of `size` bytes, headers included.
    #[must_use]
    pub fn block(self, size: u64) -> u64 {
        // Beyond any address space no rule means anything, and sums must not overflow.
        if size >= 1 << 56 {
            return size;
        }
        match self {
            SizeClasses::Ours if size <= 256 => round_up(size.max(1), 16),
            SizeClasses::Ours if size <= 1 << 20 => per_doubling(size, 3),
            SizeClasses::Glibc if size >= 128 << 10 => round_up(size + 16, PAGE),
            SizeClasses::Glibc => round_up(size + 8, 16).max(32),
            SizeClasses::Jemalloc if size <= 8 => 8,
            SizeClasses::Jemalloc if size <= 128 => round_up(size, 16),
            SizeClasses::Jemalloc => per_doubling(size, 2),
            SizeClasses::Mimalloc if size <= 64 => round_up(size.max(1), 8),
            SizeClasses::Mimalloc if size <= 16 << 20 => per_doubling(size, 2),
            SizeClasses::Tcmalloc if size <= 16 => round_up(size.max(1), 8),
            SizeClasses::Tcmalloc if size <= 128 => round_up(size, 16),
            SizeClasses::Tcmalloc if size <= 256 << 10 => per_doubling(size, 3),
            SizeClasses::Tcmalloc => round_up(size, 8192),
            SizeClasses::Ours | SizeClasses::Mimalloc => round_up(size, PAGE),
            SizeClasses::PowersOfTwo => size.max(16).next_power_of_two(),
        }
    }
}

/// `size` rounded up to a multiple of `step`, a power of two.
#[must_use]
pub fn round_up(size: u64, step: u64) -> u64 {
    size.checked_add(step - 1).map_or(size, |sum| sum & !(step - 1))
}

/// `size` rounded up to the next of `2^bits` classes between two powers of two.
fn per_doubling(size: u64, bits: u32) -> u64 {
    let octave = (size - 1).ilog2();
    round_up(size, 1 << octave.saturating_sub(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_request_and_classes_never_descend() {
        for classes in SizeClasses::ALL {
            let mut last = 0;
            for size in (0..5_000).chain((5_000..3_000_000).step_by(997)) {
                let block = classes.block(size);
                assert!(block >= size && block >= last, "{} of {size}: {block}", classes.name());
                last = block;
            }
        }
    }

    #[test]
    fn known_requests_get_the_blocks_their_allocators_document() {
        let blocks = |size| SizeClasses::ALL.map(|classes| classes.block(size));
        assert_eq!(blocks(1), [16, 32, 8, 8, 8, 16]);
        assert_eq!(blocks(24), [32, 32, 32, 24, 32, 32]);
        assert_eq!(blocks(100), [112, 112, 112, 112, 112, 128]);
        assert_eq!(blocks(300)[0], 320);
        assert_eq!(blocks(1025), [1152, 1040, 1280, 1280, 1152, 2048]);
        assert_eq!(blocks(200_000)[1], 200_704);
    }
}
