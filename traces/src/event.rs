//! The event model: what a program asked of its allocator, one call at a time.
//!
//! # Invariants of a resolved stream
//! 1. Events come in one total order in which every object is born before it is used and used
//!    before it is released. Within a thread this is the program's own order.
//! 2. An [`ObjectId`] is given once and never reused; ids are dense and ascend with birth.
//! 3. A [`ThreadId`] is given once and never reused; ids are dense and ascend with birth. The first
//!    event of a thread, and no other, is its start; its parent, where known, began before it.
//! 4. `time_ns` never decreases within one thread, and is there for all events or for none.

use std::num::NonZeroU64;

/// One object's whole life, from the call that returned it to the call that released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub NonZeroU64);

impl ObjectId {
    /// The `index`-th object of a stream, counted from 0.
    ///
    /// # Panics
    /// If `index` is `u64::MAX`, which no stream reaches.
    #[must_use]
    pub fn from_index(index: u64) -> Self {
        ObjectId(NonZeroU64::MIN.checked_add(index).expect("fewer than 2^64 objects"))
    }

    /// Position in order of birth, counted from 0.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0.get() - 1
    }
}

/// A thread of the traced program, numbered from 0 in order of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// One call, or one thing that happened to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The thread that made the call.
    pub thread: ThreadId,
    /// Nanoseconds since the stream began, where the source has times.
    pub time_ns: Option<u64>,
    /// What was asked.
    pub op: Op,
}

/// What was asked. Where an `object` is `None`, an allocation failed or a NULL was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `malloc(size)`
    Malloc {
        /// The object returned; `None` if the call failed.
        object: Option<ObjectId>,
        /// Bytes requested.
        size: u64,
    },
    /// `calloc(count, size)`
    Calloc {
        /// The object returned; `None` if the call failed.
        object: Option<ObjectId>,
        /// Number of elements.
        count: u64,
        /// Bytes of one element.
        size: u64,
    },
    /// `realloc(old, size)`. Whatever it returns is a new object, even at the same address.
    ///
    /// `object == None`: with `size > 0` the call failed and `old` lives on; with `size == 0` the
    /// call released `old`.
    Realloc {
        /// The object passed in; `None` for NULL.
        old: Option<ObjectId>,
        /// The object returned.
        object: Option<ObjectId>,
        /// Bytes requested.
        size: u64,
    },
    /// Any call that states an alignment.
    Aligned {
        /// The object returned; `None` if the call failed.
        object: Option<ObjectId>,
        /// Bytes; a power of two where an object was returned, else as the program stated it.
        align: u64,
        /// Bytes requested.
        size: u64,
        /// Which of the aligned calls it was.
        api: AlignedApi,
    },
    /// `free`, `operator delete` and the sized forms.
    Free {
        /// The object released; `None` for `free(NULL)`.
        object: Option<ObjectId>,
        /// The size the caller stated, for the sized forms.
        stated_size: Option<u64>,
    },
    /// `malloc_usable_size(object)`
    UsableSize {
        /// The object asked about; `None` for NULL.
        object: Option<ObjectId>,
    },
    /// The program wrote the first `bytes` bytes of the object, `times` times over.
    ///
    /// No recording holds it; generators state with it what is done with memory between calls,
    /// so that cache effects of placement can be measured. A consumer that only judges calls
    /// skips it.
    Access {
        /// The object written to.
        object: ObjectId,
        /// Bytes written, from the first one on.
        bytes: u64,
        /// How many times over.
        times: u32,
    },
    /// The thread begins. Precedes every other event of its thread.
    ThreadStart {
        /// Who created it, where known.
        parent: Option<ThreadId>,
    },
    /// The thread ends. No event of its thread follows.
    ThreadEnd,
    /// The process forked; the child's events are another trace.
    Fork {
        /// The child's process id; 0 where unknown.
        child: u32,
    },
    /// A point the recorded program, or an importer, marked.
    Marker {
        /// Free to choose.
        value: u64,
    },
}

/// The alignment at which an allocator served a call that stated `align` and returned an object:
/// glibc takes the next power of two, and no call promises more than it states.
pub(crate) fn served_alignment(align: u64) -> u64 {
    align.clamp(1, 1 << 48).next_power_of_two()
}

/// The aligned members of the malloc family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlignedApi {
    /// `memalign`, and whatever a format does not tell apart.
    Memalign,
    /// `aligned_alloc`
    AlignedAlloc,
    /// `posix_memalign`
    PosixMemalign,
    /// `valloc`
    Valloc,
    /// `pvalloc`
    Pvalloc,
    /// `operator new(size_t, align_val_t)`
    CxxNew,
}

impl AlignedApi {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Memalign,
        Self::AlignedAlloc,
        Self::PosixMemalign,
        Self::Valloc,
        Self::Pvalloc,
        Self::CxxNew,
    ];
}

impl Op {
    /// The object this call gave birth to, if any.
    #[must_use]
    pub fn born(&self) -> Option<ObjectId> {
        match *self {
            Op::Malloc { object, .. }
            | Op::Calloc { object, .. }
            | Op::Realloc { object, .. }
            | Op::Aligned { object, .. } => object,
            _ => None,
        }
    }

    /// The object this call released, if any.
    #[must_use]
    pub fn released(&self) -> Option<ObjectId> {
        match *self {
            Op::Free { object, .. } => object,
            // A failed realloc (no result, size above zero) leaves the old object alive.
            Op::Realloc { old, object, size } if object.is_some() || size == 0 => old,
            _ => None,
        }
    }

    /// Bytes requested by an allocating call; `calloc` saturates instead of overflowing.
    #[must_use]
    pub fn requested(&self) -> Option<u64> {
        match *self {
            Op::Malloc { size, .. } | Op::Realloc { size, .. } | Op::Aligned { size, .. } => {
                Some(size)
            }
            Op::Calloc { count, size, .. } => Some(count.saturating_mul(size)),
            _ => None,
        }
    }
}

/// A stream of events in their total order.
///
/// Importers, container readers and workload generators implement it; analysis, rewriting and
/// replay consume it.
pub trait EventSource {
    /// Why the stream could not go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The next event, or `None` at the end.
    ///
    /// # Errors
    /// Whatever keeps the source from going on; events already yielded remain true.
    fn next_event(&mut self) -> Result<Option<Event>, Self::Error>;

    /// How many events the whole stream holds, where that is known before reading it.
    fn len_hint(&self) -> Option<u64> {
        None
    }
}

impl<S: EventSource + ?Sized> EventSource for &mut S {
    type Error = S::Error;

    fn next_event(&mut self) -> Result<Option<Event>, Self::Error> {
        (**self).next_event()
    }

    fn len_hint(&self) -> Option<u64> {
        (**self).len_hint()
    }
}

impl<S: EventSource + ?Sized> EventSource for Box<S> {
    type Error = S::Error;

    fn next_event(&mut self) -> Result<Option<Event>, Self::Error> {
        (**self).next_event()
    }

    fn len_hint(&self) -> Option<u64> {
        (**self).len_hint()
    }
}
