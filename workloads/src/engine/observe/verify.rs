//! The verify pass: does the allocator keep its promises?
//!
//! Every object is filled with a pattern of its own and looked at again before it is released;
//! every address range is entered in a table that knows what else is live.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::latency::OpKind;
use super::{Birth, Observer, Shared};

/// Broken promises that are described one by one; the rest is counted.
const DESCRIBED: usize = 16;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokenKind {
    /// The object overlaps another live one.
    Overlap,
    /// The address is not aligned as asked, or as any object of its size must be.
    Alignment,
    /// `calloc` returned bytes that are not zero.
    NotZeroed,
    /// `realloc` lost bytes of the old object.
    PrefixLost,
    /// The object's bytes changed while it was live.
    ContentsChanged,
    /// `malloc_usable_size` is less than what was asked for.
    UsableSize,
}

/// One broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which.
    pub kind: BrokenKind,
    /// Thread of the plan that saw it.
    pub thread: u32,
    /// Place in that thread's stream, repetitions included.
    pub place: u64,
    /// Size asked for.
    pub size: u64,
    /// Alignment asked for, 0 if none.
    pub align: u64,
    /// What it is about: first wrong byte, usable size or misaligned address.
    pub detail: u64,
}

/// Kept and broken promises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Broken promises.
    pub broken: u64,
    /// The first of them.
    pub first: Vec<Broken>,
    /// Whether `malloc_usable_size` was asked.
    pub usable_size_asked: bool,
}

/// What all threads know of live objects.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// First address → one past the last. Empty objects have one byte, for their address is theirs.
    live: BTreeMap<usize, usize>,
    report: Verification,
}

impl Ledger {
    /// Notes what was found.
    fn with(&self, act: impl FnOnce(&mut Inner)) {
        act(&mut self.inner.lock().unwrap_or_else(|e| e.into_inner()));
    }

    pub(crate) fn report(self) -> Verification {
        self.inner.into_inner().unwrap_or_else(|e| e.into_inner()).report
    }
}

impl Inner {
    fn enter(&mut self, start: usize, size: usize) -> Option<usize> {
        let end = start.saturating_add(size.max(1));
        let other = self
            .live
            .range(..end)
            .next_back()
            .filter(|(_, other_end)| **other_end > start)
            .map(|(other, _)| *other);
        self.live.insert(start, end);
        other
    }

    fn broken(&mut self, broken: Broken) {
        self.report.broken += 1;
        if self.report.first.len() < DESCRIBED {
            self.report.first.push(broken);
        }
    }
}

/// Verifies the objects of one thread.
#[derive(Debug)]
pub(crate) struct VerifyObserver {
    ledger: *const Ledger,
    usable_size: Option<unsafe extern "C" fn(*mut c_void) -> usize>,
    thread: u32,
    places: u64,
}

/// The eight bytes that belong at the `index`-th eight bytes of the object in `slot`.
fn pattern(slot: usize, index: usize) -> u64 {
    let mixed = (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Fills an object with its pattern.
///
/// # Safety
/// `p` is the start of `size` bytes that this thread alone may write.
unsafe fn fill(slot: usize, p: *mut u8, size: usize) {
    // SAFETY: by contract.
    let bytes = unsafe { std::slice::from_raw_parts_mut(p, size) };
    for (index, part) in bytes.chunks_mut(8).enumerate() {
        part.copy_from_slice(&pattern(slot, index).to_le_bytes()[..part.len()]);
    }
}

/// The first offset below `size` whose byte is not the one expected, given by eights.
///
/// Reads are volatile, since an overlapping object may change a byte at any time: that is what is
/// looked for.
///
/// # Safety
/// `p` is the start of `size` readable bytes.
unsafe fn first_wrong(p: *const u8, size: usize, expected: impl Fn(usize) -> u64) -> Option<usize> {
    let byte_at = |offset: usize| -> u8 {
        // SAFETY: by contract; `offset` is below `size`.
        unsafe { p.wrapping_add(offset).read_volatile() }
    };
    let mut start = 0;
    while start < size {
        let bytes = expected(start / 8).to_le_bytes();
        let length = (size - start).min(8);
        let whole = length == 8 && p.addr().is_multiple_of(8);
        // SAFETY: eight bytes from `start` on are below `size`, and aligned.
        let equal = whole
            && unsafe { p.wrapping_add(start).cast::<u64>().read_volatile() }
                == u64::from_le_bytes(bytes);
        if !equal && let Some(i) = (0..length).find(|&i| byte_at(start + i) != bytes[i]) {
            return Some(start + i);
        }
        start += 8;
    }
    None
}

impl VerifyObserver {
    fn ledger<'a>(&self) -> &'a Ledger {
        // SAFETY: the ledger lies in `Shared`, which outlives every observer.
        unsafe { &*self.ledger }
    }

    fn broken(&self, kind: BrokenKind, size: usize, align: usize, detail: usize) {
        let broken = Broken {
            kind,
            thread: self.thread,
            place: self.places,
            size: size as u64,
            align: align as u64,
            detail: detail as u64,
        };
        self.ledger().with(|inner| inner.broken(broken));
    }
}

/// What any object of this size must be aligned to: to what fits in it, 16 at most.
fn natural_alignment(size: usize) -> usize {
    match size {
        0 | 1 => 1,
        16.. => 16,
        _ => 1 << size.ilog2(),
    }
}

impl Observer for VerifyObserver {
    const SIZES: bool = true;

    fn new(shared: &Shared<'_>, id: usize) -> Self {
        VerifyObserver {
            ledger: &raw const shared.ledger,
            usable_size: shared.calls.usable_size,
            thread: u32::try_from(id).unwrap_or(u32::MAX),
            places: shared.places(id).start,
        }
    }

    fn call(&mut self, _: OpKind, _: usize, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
        call()
    }

    fn touch(&mut self, _: usize, _: impl FnOnce()) {
        // The pattern is the touch.
    }

    fn born(&mut self, slot: usize, p: *mut u8, birth: Birth) {
        let Birth { size, align, zeroed, kept } = birth;
        let mut overlap = None;
        self.ledger().with(|inner| {
            overlap = inner.enter(p.addr(), size);
            inner.report.objects += 1;
            inner.report.bytes += size as u64;
        });
        if let Some(other) = overlap {
            self.broken(BrokenKind::Overlap, size, align, other);
            // Writing to it would destroy the other object's pattern as well.
            return;
        }
        if !p.addr().is_multiple_of(align.max(natural_alignment(size))) {
            self.broken(BrokenKind::Alignment, size, align, p.addr());
        }
        let looked_at = if zeroed { size } else { kept.min(size) };
        let expected = |i| if zeroed { 0 } else { pattern(slot, i) };
        // SAFETY: the allocator returned `size` bytes at `p`, overlapping no live object.
        let wrong = unsafe { first_wrong(p, looked_at, expected) };
        if let Some(offset) = wrong {
            let kind = if zeroed { BrokenKind::NotZeroed } else { BrokenKind::PrefixLost };
            self.broken(kind, size, align, offset);
        }
        if let Some(usable_size) = self.usable_size {
            // SAFETY: `p` is live and of the allocator that serves this function.
            let usable = unsafe { usable_size(p.cast()) };
            if usable < size {
                self.broken(BrokenKind::UsableSize, size, align, usable);
            }
        }
        // SAFETY: as above.
        unsafe { fill(slot, p, size) };
    }

    fn dying(&mut self, slot: usize, p: *mut u8, size: usize) {
        // SAFETY: the object is live and has `size` bytes.
        let wrong = unsafe { first_wrong(p, size, |i| pattern(slot, i)) };
        if let Some(offset) = wrong {
            self.broken(BrokenKind::ContentsChanged, size, 0, offset);
        }
        self.ledger().with(|inner| {
            inner.live.remove(&p.addr());
        });
    }

    fn survived(&mut self, _: usize, p: *mut u8, size: usize) {
        self.ledger().with(|inner| {
            inner.enter(p.addr(), size);
        });
    }

    fn moved(&mut self, from: usize, to: usize, p: *mut u8, size: usize) {
        // SAFETY: the object is live, has `size` bytes and is this thread's to use now.
        let wrong = unsafe { first_wrong(p, size, |i| pattern(from, i)) };
        if let Some(offset) = wrong {
            self.broken(BrokenKind::ContentsChanged, size, 0, offset);
        }
        // SAFETY: as above.
        unsafe { fill(to, p, size) };
    }

    fn usable(&mut self, _: usize, _: *mut u8, size: usize, usable: usize) {
        if usable < size {
            self.broken(BrokenKind::UsableSize, size, 0, usable);
        }
    }

    fn place(&mut self) {
        self.places += 1;
    }

    fn finish(&mut self, _: &Shared<'_>, _: usize) {
        let asked = self.usable_size.is_some();
        self.ledger().with(|inner| inner.report.usable_size_asked |= asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_do_not_overlap_and_ranges_that_share_a_byte_do() {
        let mut inner = Inner::default();
        assert_eq!(inner.enter(100, 50), None);
        assert_eq!(inner.enter(150, 10), None);
        assert_eq!(inner.enter(90, 10), None);
        assert_eq!(inner.enter(149, 1), Some(100));
        assert_eq!(inner.enter(60, 200), Some(150));
        assert_eq!(inner.enter(1000, 0), None);
        assert_eq!(inner.enter(1000, 0), Some(1000), "two empty objects need two addresses");
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = [0_u8; 64];
        // SAFETY: an array of 64 bytes.
        unsafe { fill(7, bytes.as_mut_ptr(), 64) };
        bytes[33] ^= 1;
        // SAFETY: as above.
        let wrong = unsafe { first_wrong(bytes.as_ptr(), 64, |i| pattern(7, i)) };
        assert_eq!(wrong, Some(33));
    }

    #[test]
    fn two_slots_have_different_patterns() {
        assert!((0..64).all(|i| pattern(1, i) != pattern(2, i)));
    }
}
