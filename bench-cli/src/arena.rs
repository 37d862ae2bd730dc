//! The memory of `bench-cli` itself: an allocator over private mappings.
//!
//! The command line re-executes itself with a foreign `malloc` preloaded. Whatever the harness
//! allocates must not pass through that `malloc`, or it would be measured with it; so every Rust
//! allocation of the binary comes from here. What libc allocates for itself (thread descriptors)
//! still goes to the allocator under test, and is small.
//!
//! Blocks come in size classes of four steps per doubling up to 128 KiB; larger ones are mappings
//! of their own. Free blocks wait in lists, one set per shard; a thread uses the shard its id
//! falls on, and takes over the lists of the others before it asks the kernel for more: what one
//! thread allocates and another releases, as chunks of a trace that are decoded in parallel, goes
//! round. Blocks carry no header: the caller's layout gives the class again at the release.
//!
//! Cost: one uncontended atomic exchange per call; at most 25 % of slack per block. Memory of
//! classes is never given back to the kernel.
//!
//! # Invariants
//! 1. A block in the free list of a class has that class's size, and an alignment equal to the
//!    largest power of two that divides this size (at most a page).
//! 2. A shard's lists and its fresh range are touched only while its lock is held.
//! 3. No code in here allocates, unwinds or takes a second lock.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const PAGE: usize = 4096;
const MIN_BLOCK: usize = 16;
/// Requests above this get a mapping of their own.
const MAX_BLOCK: usize = 128 * 1024;
/// What a shard takes from the kernel at a time.
const REFILL: usize = 1 << 20;
const SHARDS: usize = 8;
/// Four up to 64 bytes, then four per doubling.
const CLASSES: usize = 48;

/// The allocator; one `static` with `#[global_allocator]` in the binary.
#[derive(Debug)]
pub struct Arena {
    shards: [Shard; SHARDS],
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    locked: AtomicBool,
    state: UnsafeCell<State>,
}

#[derive(Debug)]
struct State {
    free: [*mut Link; CLASSES],
    fresh: *mut u8,
    fresh_left: usize,
}

/// What a free block holds: the next free block of its class.
#[derive(Debug)]
struct Link {
    next: *mut Link,
}

// SAFETY: `state` is reached only through `Shard::with`, which holds `locked` (invariant 2).
unsafe impl Sync for Shard {}
// SAFETY: the raw pointers in `State` name mappings of the whole process, bound to no thread.
unsafe impl Send for Shard {}

impl Arena {
    /// An arena that owns nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Arena { shards: [const { Shard::new() }; SHARDS] }
    }

    fn shard(&self) -> &Shard {
        &self.shards[thread_number() % SHARDS]
    }

    /// A block of `class`, or null where the kernel refuses memory.
    fn take(&self, class: usize) -> *mut u8 {
        let own = self.shard();
        let block = own.with(|state| state.take(class));
        if !block.is_null() {
            return block;
        }
        for other in self.shards.iter().filter(|other| !ptr::eq(*other, own)) {
            let list = other.with(|state| mem::replace(&mut state.free[class], ptr::null_mut()));
            if !list.is_null() {
                return own.with(|state| state.adopt(list, class));
            }
        }
        own.with(|state| state.take_from_the_kernel(class))
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    const fn new() -> Self {
        Shard {
            locked: AtomicBool::new(false),
            state: UnsafeCell::new(State {
                free: [ptr::null_mut(); CLASSES],
                fresh: ptr::null_mut(),
                fresh_left: 0,
            }),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut spins = 0;
        while self.locked.swap(true, Ordering::Acquire) {
            spins += 1;
            if spins % 64 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        // SAFETY: the swap above made this thread the only holder until the store below.
        let result = work(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

impl State {
    /// A block of `class`, or null where this shard has none.
    fn take(&mut self, class: usize) -> *mut u8 {
        let head = self.free[class];
        if !head.is_null() {
            // SAFETY: a listed block is free and holds a `Link` (invariant 1, `put`).
            self.free[class] = unsafe { (*head).next };
            return head.cast();
        }
        let size = class_size(class);
        let skip = self.fresh.align_offset(natural_alignment(size));
        if self.fresh.is_null() || skip + size > self.fresh_left {
            return ptr::null_mut();
        }
        // SAFETY: `skip + size` bytes from `fresh` lie in the shard's own mapping.
        let block = unsafe { self.fresh.add(skip) };
        // SAFETY: as above; one past the block is at most the end of the mapping.
        self.fresh = unsafe { block.add(size) };
        self.fresh_left -= skip + size;
        block
    }

    /// A block of `class` from a new fresh range, or null where the kernel refuses it.
    fn take_from_the_kernel(&mut self, class: usize) -> *mut u8 {
        let range = map(REFILL);
        if range.is_null() {
            return range;
        }
        self.fresh = range;
        self.fresh_left = REFILL;
        self.take(class)
    }

    /// Takes over another shard's list of `class`, which is not empty, and takes its first block.
    fn adopt(&mut self, list: *mut Link, class: usize) -> *mut u8 {
        let mut last = list;
        // Whoever shares this shard may have listed something meanwhile: it goes behind.
        if !self.free[class].is_null() {
            loop {
                // SAFETY: a listed block is free and holds a `Link` (invariant 1, `put`); the list
                // was cut off its shard under that shard's lock, and is ours alone.
                let next = unsafe { (*last).next };
                if next.is_null() {
                    break;
                }
                last = next;
            }
            // SAFETY: as above.
            unsafe { (*last).next = self.free[class] };
        }
        self.free[class] = list;
        self.take(class)
    }

    /// Lists `block` as free.
    ///
    /// # Safety
    /// `block` came from `take` of the same class, of any shard, and nobody uses it any more.
    unsafe fn put(&mut self, block: *mut u8, class: usize) {
        let link = block.cast::<Link>();
        // SAFETY: the block is exclusively ours (contract) and holds MIN_BLOCK >= 8 bytes at an
        // alignment of at least 16 (invariant 1).
        unsafe { link.write(Link { next: self.free[class] }) };
        self.free[class] = link;
    }
}

/// A small number of this thread's own; threads beyond the number of shards share.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    // A plain cell without destructor: never allocates, and is there until the thread is gone.
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// The class whose blocks hold `size` bytes at `align`, or `None` for a mapping of its own.
fn class_of(layout: Layout) -> Option<usize> {
    let mut size = layout.size().max(MIN_BLOCK);
    if layout.align() > MIN_BLOCK {
        // Only powers of two are sure to be aligned to their own size (invariant 1).
        size = size.max(layout.align()).next_power_of_two();
    }
    if size > MAX_BLOCK || layout.align() > PAGE {
        return None;
    }
    if size <= 64 {
        return Some(size.div_ceil(16) - 1);
    }
    // (2^k, 2^(k+1)] in four equal steps; 64 = 2^6 is class 3.
    let k = (usize::BITS - 1 - (size - 1).leading_zeros()) as usize;
    let step = (size - 1 - (1 << k)) >> (k - 2);
    Some(4 + (k - 6) * 4 + step)
}

/// Bytes of one block of `class`.
const fn class_size(class: usize) -> usize {
    if class < 4 {
        return (class + 1) * 16;
    }
    let k = (class - 4) / 4 + 6;
    (1 << k) + (((class - 4) % 4 + 1) << (k - 2))
}

const _: () = assert!(class_size(CLASSES - 1) == MAX_BLOCK, "the last class is the largest");

const fn natural_alignment(size: usize) -> usize {
    let lowest = 1 << size.trailing_zeros();
    if lowest < PAGE { lowest } else { PAGE }
}

fn map(size: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
    // that exists.
    let range = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if range == libc::MAP_FAILED { ptr::null_mut() } else { range.cast() }
}

const fn pages(size: usize) -> usize {
    size.div_ceil(PAGE) * PAGE
}

/// A mapping for one large object.
fn map_large(layout: Layout) -> *mut u8 {
    if layout.align() <= PAGE {
        return map(pages(layout.size()));
    }
    let Some(padded) = pages(layout.size()).checked_add(layout.align()) else {
        return ptr::null_mut();
    };
    let range = map(padded);
    if range.is_null() {
        return range;
    }
    let head = range.align_offset(layout.align());
    let tail = padded - head - pages(layout.size());
    // SAFETY: head, object and tail partition the mapping just made; only the object is kept.
    unsafe {
        let object = range.add(head);
        if head > 0 {
            libc::munmap(range.cast(), head);
        }
        if tail > 0 {
            libc::munmap(object.add(pages(layout.size())).cast(), tail);
        }
        object
    }
}

// SAFETY: `alloc` returns null or a block that is unused, large enough and aligned (invariant 1,
// or a mapping of its own); nothing in here unwinds.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.take(class),
            None => map_large(layout),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: the same layout gave the same class at the allocation; the caller gives
            // the block up.
            Some(class) => self.shard().with(|state| unsafe { state.put(block, class) }),
            // SAFETY: a large object is one mapping of exactly these pages.
            None => unsafe {
                libc::munmap(block.cast(), pages(layout.size()));
            },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the one of `alloc`.
        let block = unsafe { self.alloc(layout) };
        // A fresh mapping is zero already; a block may have been used before.
        if !block.is_null() && class_of(layout).is_some() {
            // SAFETY: the block holds `size` bytes and is ours alone.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that `size`, rounded up to the alignment, fits an isize.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(new)) {
            (Some(a), Some(b)) if a == b => block,
            (None, None) if layout.align() <= PAGE => {
                // SAFETY: a large object is one mapping of exactly these pages; the kernel may
                // move it, and says where to.
                let moved = unsafe {
                    libc::mremap(
                        block.cast(),
                        pages(layout.size()),
                        pages(size),
                        libc::MREMAP_MAYMOVE,
                    )
                };
                if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
            }
            _ => {
                // SAFETY: `new` is a valid layout of non-zero size (contract of `realloc`).
                let moved = unsafe { self.alloc(new) };
                if !moved.is_null() {
                    // SAFETY: both hold the smaller of the two sizes, and they do not overlap.
                    unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
                    // SAFETY: the contents live on in `moved`; the caller gave `block` up.
                    unsafe { self.dealloc(block, layout) };
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_size_falls_into_the_smallest_class_that_holds_it() {
        for size in 1..=MAX_BLOCK {
            let class = class_of(Layout::from_size_align(size, 1).unwrap()).unwrap();
            assert!(class < CLASSES && class_size(class) >= size, "{size}");
            assert!(class == 0 || class_size(class - 1) < size, "{size}");
        }
        assert_eq!(class_of(Layout::from_size_align(MAX_BLOCK + 1, 1).unwrap()), None);
    }

    #[test]
    fn what_one_thread_allocates_and_another_releases_is_used_again() {
        let arena = Arena::new();
        let layout = Layout::from_size_align(50_000, 1).unwrap();
        let mut places = std::collections::HashSet::new();
        for _ in 0..1000 {
            // SAFETY: the size is not zero.
            let block = unsafe { arena.alloc(layout) };
            places.insert(block.addr());
            let release = |shard: &Shard| {
                let class = class_of(layout).unwrap();
                // SAFETY: every shard takes blocks of every other; nobody uses this one any more.
                shard.with(|state| unsafe { state.put(block, class) });
            };
            release(&arena.shards[(thread_number() + 1) % SHARDS]);
        }
        assert!(places.len() <= 2 * REFILL / 50_000, "{} blocks for one", places.len());
    }

    proptest! {
        #[test]
        fn live_blocks_keep_their_bytes_and_their_alignment(
            requests in prop::collection::vec((1usize..300_000, 0u32..14, any::<bool>()), 1..60)
        ) {
            let arena = Arena::new();
            let mut live: Vec<(*mut u8, Layout, u8)> = Vec::new();
            for (index, (size, align, release)) in requests.into_iter().enumerate() {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                let fill = u8::try_from(index).unwrap();
                // SAFETY: the size is not zero.
                let block = unsafe { arena.alloc(layout) };
                prop_assert!(!block.is_null() && block.addr() % layout.align() == 0);
                // SAFETY: the block holds `size` bytes.
                unsafe { block.write_bytes(fill, size) };
                live.push((block, layout, fill));
                if release {
                    let (block, layout, fill) = live.swap_remove(index % live.len());
                    // SAFETY: live, and as large as its layout says.
                    let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                    prop_assert!(bytes.iter().all(|b| *b == fill));
                    let larger = layout.size() * 2;
                    // SAFETY: live with this layout.
                    let block = unsafe { arena.realloc(block, layout, larger) };
                    // SAFETY: `realloc` keeps the first bytes.
                    let kept = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                    prop_assert!(kept.iter().all(|b| *b == fill));
                    let layout = Layout::from_size_align(larger, layout.align()).unwrap();
                    // SAFETY: live with this layout, and not used again.
                    unsafe { arena.dealloc(block, layout) };
                }
            }
            for (block, layout, fill) in live {
                // SAFETY: live, and as large as its layout says.
                let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                prop_assert!(bytes.iter().all(|b| *b == fill));
                // SAFETY: live with this layout, and not used again.
                unsafe { arena.dealloc(block, layout) };
            }
        }
    }
}
