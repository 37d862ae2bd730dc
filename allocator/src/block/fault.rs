//! What a damaged heap or a wrong call looks like, as a value.
//!
//! Owns nothing. A [`Fault`] is found by the floor that holds the evidence and travels up as an
//! `Err`; who reports it, and whether the process survives, is decided above.
//!
//! Source: the classes of misuse that the public security suites distinguish.
#![forbid(unsafe_code)]

/// Which rule was broken. One word per rule, so that tests and reports can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The block was given back before and has not been handed out since.
    DoubleFree,
    /// The address lies inside a region of this heap, and no block ever started there.
    InvalidFree,
    /// The address lies inside a live block instead of at its start.
    InteriorFree,
    /// The address is not a multiple of 16: no allocation ever returned it.
    MisalignedFree,
    /// The address lies in no region of this heap.
    ForeignFree,
    /// Bytes after the block's usable size were overwritten: the next header is damaged.
    Overflow,
    /// The block's own header is damaged: a write before the block, or a stray one.
    CorruptHeader,
    /// A word inside a free block changed: somebody wrote through a stale pointer.
    UseAfterFree,
    /// The index of free blocks and the blocks themselves disagree.
    CorruptIndex,
    /// The size given to a sized free is not the size of the object.
    SizeMismatch,
}

impl FaultKind {
    /// The fault in words, a fragment that fits "heap check failed: …".
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free",
            Self::InvalidFree => "free of an address that no allocation returned",
            Self::InteriorFree => "free of an address inside an object",
            Self::MisalignedFree => "free of a misaligned address",
            Self::ForeignFree => "free of an address outside the heap",
            Self::Overflow => "write past the end of an object",
            Self::CorruptHeader => "damaged block header (write before the object, or a stray one)",
            Self::UseAfterFree => "write into a freed object",
            Self::CorruptIndex => "index of free blocks disagrees with the blocks",
            Self::SizeMismatch => "free with a size that is not the object's",
        }
    }

    /// The fault and the check that found it, as the one line of a report says it.
    #[must_use]
    pub const fn line(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free (check double-free)",
            Self::InvalidFree => {
                "free of an address that no allocation returned (check invalid-free)"
            }
            Self::InteriorFree => "free of an address inside an object (check interior-free)",
            Self::MisalignedFree => "free of a misaligned address (check misaligned-free)",
            Self::ForeignFree => "free of an address outside the heap (check foreign-free)",
            Self::Overflow => "write past the end of an object (check overflow)",
            Self::CorruptHeader => "damaged block header (check corrupt-header)",
            Self::UseAfterFree => "write into a freed object (check use-after-free)",
            Self::CorruptIndex => "free blocks and their index disagree (check corrupt-index)",
            Self::SizeMismatch => "free with a wrong size (check size-mismatch)",
        }
    }

    /// The name of the check that finds it, as options and tests spell it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::DoubleFree => "double-free",
            Self::InvalidFree => "invalid-free",
            Self::InteriorFree => "interior-free",
            Self::MisalignedFree => "misaligned-free",
            Self::ForeignFree => "foreign-free",
            Self::Overflow => "overflow",
            Self::CorruptHeader => "corrupt-header",
            Self::UseAfterFree => "use-after-free",
            Self::CorruptIndex => "corrupt-index",
            Self::SizeMismatch => "size-mismatch",
        }
    }
}

/// One broken rule, with the address where it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a fault that nobody reports is a bug that nobody sees"]
pub struct Fault {
    /// The rule.
    pub kind: FaultKind,
    /// The object's address as the program knows it (not its header's).
    pub address: usize,
    /// Usable size of the object in bytes, 0 where it cannot be trusted.
    pub size: usize,
}

impl Fault {
    /// A fault at the object that starts at `address`.
    pub const fn new(kind: FaultKind, address: usize, size: usize) -> Self {
        Self { kind, address, size }
    }
}
