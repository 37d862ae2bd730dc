//! What the allocator holds, counted when asked: nothing on the fast paths keeps books.
//!
//! Numbers of other threads' heaps are read while those run, so they may be a few calls old.

/// What the allocator holds, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks handed out, with what rounding added; blocks waiting in bins and stashes count.
    pub live: usize,
    /// Spans and huge objects in use: what `live` occupies.
    pub committed: usize,
    /// Address space from the kernel.
    pub mapped: usize,
    /// Free and still holding pages; spans of medium blocks that heaps keep without a live one count.
    pub cached: usize,
    /// Given back to the kernel so far, in all.
    pub purged: usize,
    /// Huge objects, in bytes as their pages count.
    pub huge: usize,
    /// Huge objects (a number).
    pub huge_objects: usize,
    /// Address space of huge objects.
    pub huge_mapped: usize,
    /// Heaps ever created (a number).
    pub heaps: usize,
    /// Times a shared lock was taken (a number).
    pub locks_taken: usize,
    /// Times a thread had to wait for a shared lock (a number).
    pub locks_waited: usize,
    /// Nanoseconds that threads waited for locks; measured in classic mode only.
    pub lock_wait_ns: usize,
}

/// What one size class holds, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassUsage {
    /// Bytes of one block.
    pub size: usize,
    /// Spans in use.
    pub spans: usize,
    /// Bytes of those spans.
    pub committed: usize,
    /// Bytes of blocks that were handed out at least once, as far as that is known.
    pub touched: usize,
    /// Bytes of blocks handed out, bins and stashes included.
    pub live: usize,
}

/// What one thread's heap holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// The kernel's id of the thread, 0 where there is none: the thread ended, or did not survive
    /// a fork.
    pub thread: u32,
    /// Spans it owns.
    pub spans: usize,
    /// Bytes of those spans.
    pub committed: usize,
    /// Bytes of their blocks handed out, to whichever thread they went since.
    pub live: usize,
}
