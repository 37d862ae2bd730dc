//! What a thread did, in numbers.
#![forbid(unsafe_code)]

/// What a thread did, added up by itself at its end.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Tally {
    pub(crate) malloc: u64,
    pub(crate) calloc: u64,
    pub(crate) realloc: u64,
    pub(crate) realloc_births: u64,
    pub(crate) realloc_deaths: u64,
    pub(crate) aligned: u64,
    pub(crate) free: u64,
    pub(crate) free_null: u64,
    pub(crate) usable_size: u64,
    pub(crate) retried: u64,
    pub(crate) failed: u64,
    pub(crate) unexpected: u64,
    pub(crate) unsupported: u64,
    pub(crate) sized_frees: u64,
    pub(crate) waits: u64,
    pub(crate) stalled: u64,
    pub(crate) stall_ns: u64,
    pub(crate) body_start_ns: u64,
    pub(crate) body_end_ns: u64,
    pub(crate) end_ns: u64,
}

impl Tally {
    /// Adds what another thread did, or what the same thread did when it was born before.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.malloc += other.malloc;
        self.calloc += other.calloc;
        self.realloc += other.realloc;
        self.realloc_births += other.realloc_births;
        self.realloc_deaths += other.realloc_deaths;
        self.aligned += other.aligned;
        self.free += other.free;
        self.free_null += other.free_null;
        self.usable_size += other.usable_size;
        self.retried += other.retried;
        self.failed += other.failed;
        self.unexpected += other.unexpected;
        self.unsupported += other.unsupported;
        self.sized_frees += other.sized_frees;
        self.waits += other.waits;
        self.stalled += other.stalled;
        self.stall_ns += other.stall_ns;
        if self.body_start_ns == 0 || (1..self.body_start_ns).contains(&other.body_start_ns) {
            self.body_start_ns = other.body_start_ns;
        }
        self.body_end_ns = self.body_end_ns.max(other.body_end_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
    }
}
