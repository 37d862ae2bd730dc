//! What a heap can do, whatever its block rules are.
//!
//! Owns nothing. The boundary-tag heap implements [`HeapCore`] once for every placement; buddy and
//! slab have block rules, and therefore heaps, of their own. A [`Strategy`] names the heap that
//! belongs to it, so that users choose by one type parameter.
#![forbid(unsafe_code)]

use super::{BlockHeap, BlockInfo, Counters, Fault, Placement, Policy, Source, Totals};

/// A heap for one thread at a time over the regions of `S`.
pub trait HeapCore<S: Source>: Sized {
    /// Whether a sealed header stands before each object.
    const HEADERS: bool;

    /// An empty heap. `secret` seeds its checksums, `arena` (0–15) marks its blocks.
    fn new(source: S, policy: Policy, secret: u64, arena: u8) -> Self;

    /// An object of `size` bytes at `align` (a power of two), zeroed if asked; `None` out of memory.
    ///
    /// # Errors
    /// A fault if the heap turned out to be damaged.
    fn allocate(&mut self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault>;

    /// Gives back the object at `payload`; returns the bytes of its block.
    ///
    /// # Errors
    /// The rule that the call breaks.
    fn free(&mut self, payload: usize) -> Result<usize, Fault>;

    /// Makes the object hold `size` bytes where it stands. `false`: it must move.
    ///
    /// # Errors
    /// As for `free`.
    fn resize(&mut self, payload: usize, size: usize) -> Result<bool, Fault>;

    /// Bytes that the program may use at `payload`.
    ///
    /// # Errors
    /// As for `free`.
    fn usable(&self, payload: usize) -> Result<usize, Fault>;

    /// Whether `payload` lies in a region of this heap.
    fn owns(&self, payload: usize) -> bool;

    /// Walks the whole heap.
    ///
    /// # Errors
    /// The first invariant found broken.
    fn check(&self) -> Result<Totals, Fault>;

    /// Shows every block to `visit`, in address order.
    ///
    /// # Errors
    /// The first broken block.
    fn for_each(&self, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault>;

    /// Merges what was set aside.
    ///
    /// # Errors
    /// A fault if a block set aside was damaged.
    fn flush(&mut self) -> Result<(), Fault>;

    /// Gives memory back but for `keep` bytes per region; returns the bytes given.
    ///
    /// # Errors
    /// A fault if the heap turned out to be damaged.
    fn trim(&mut self, keep: usize) -> Result<usize, Fault>;

    /// The counters as they stand.
    fn counters(&self) -> Counters;

    /// Blocks that all searches examined so far.
    fn examined(&self) -> u64;

    /// Switches deferred coalescing, where the heap has a choice.
    fn set_deferred(&mut self, deferred: bool);

    /// The source, to ask it things.
    fn source(&self) -> &S;
}

/// A placement strategy, as a type parameter names it.
pub trait Strategy {
    /// Name as options spell it.
    const NAME: &'static str;
    /// The heap that places by this strategy.
    type Core<S: Source>: HeapCore<S>;
}

impl<P: Placement> Strategy for P {
    const NAME: &'static str = P::NAME;
    type Core<S: Source> = BlockHeap<P, S>;
}

impl<P: Placement, S: Source> HeapCore<S> for BlockHeap<P, S> {
    const HEADERS: bool = true;

    fn new(source: S, policy: Policy, secret: u64, arena: u8) -> Self {
        Self::new(source, policy, secret, arena)
    }

    #[inline(always)]
    fn allocate(&mut self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault> {
        self.allocate(size, align, zero)
    }

    #[inline(always)]
    fn free(&mut self, payload: usize) -> Result<usize, Fault> {
        self.free(payload)
    }

    fn resize(&mut self, payload: usize, size: usize) -> Result<bool, Fault> {
        self.resize(payload, size)
    }

    fn usable(&self, payload: usize) -> Result<usize, Fault> {
        self.usable(payload)
    }

    fn owns(&self, payload: usize) -> bool {
        self.owns(payload)
    }

    fn check(&self) -> Result<Totals, Fault> {
        self.check()
    }

    fn for_each(&self, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault> {
        self.for_each(visit)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.flush()
    }

    fn trim(&mut self, keep: usize) -> Result<usize, Fault> {
        self.trim(keep)
    }

    fn counters(&self) -> Counters {
        self.counters()
    }

    fn examined(&self) -> u64 {
        self.examined()
    }

    fn set_deferred(&mut self, deferred: bool) {
        if self.flush().is_ok() {
            self.placement.set_deferred(deferred);
        }
    }

    fn source(&self) -> &S {
        &self.source
    }
}
