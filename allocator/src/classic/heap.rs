//! A heap that a Rust program embeds, over a region it owns, behind the lock of its choice.
//!
//! Owns the region for as long as it lives, and every object in it. Cost: that of the placement and
//! of one lock; eight bytes per object (none for buddy and slab, which round up instead).

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::lock::{Contention, FutexLock, Lock};
use crate::block::{
    Counters, Fault, FaultKind, FixedRegion, HeapCore, Policy, Source, Strategy, Totals,
};
use crate::placement::Segregated;

/// A heap with the placement strategy `P` behind the lock `L`, on memory from `S`.
///
/// # Examples
/// ```
/// use allocator::classic::{ClassicHeap, NoLock};
/// use allocator::placement::BestFit;
/// use core::alloc::Layout;
///
/// let mut region = vec![0u8; 1 << 20];
/// // SAFETY: `region` is ours alone and outlives the heap.
/// let heap = unsafe { ClassicHeap::<BestFit, NoLock>::over(region.as_mut_ptr(), region.len()) };
/// let layout = Layout::from_size_align(1000, 64)?;
/// let object = heap.allocate(layout)?.expect("a fresh mebibyte holds a kilobyte");
/// assert_eq!(object.addr().get() % 64, 0);
/// assert!(heap.usable_size(object)? >= 1000);
///
/// // SAFETY: the object is live, and this is its last use.
/// unsafe { heap.deallocate(object)? };
/// // A second free is found, not believed.
/// // SAFETY: the heap reports the misuse and changes nothing.
/// let fault = unsafe { heap.deallocate(object) }.unwrap_err();
/// assert_eq!(fault.kind.check(), "double-free");
/// assert_eq!(heap.check()?.live_blocks, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ClassicHeap<P: Strategy = Segregated, L: Lock = FutexLock, S: Source = FixedRegion> {
    lock: L,
    core: UnsafeCell<P::Core<S>>,
}

// SAFETY: the core is reached only between `acquire` and `release` of a lock that is `Sync`, hence
// by one thread at a time; the memory that it manages moves between threads with its objects.
unsafe impl<P: Strategy, L: Lock + Sync, S: Source> Sync for ClassicHeap<P, L, S> {}
// SAFETY: a heap holds addresses, no reference to anything of the thread that made it.
unsafe impl<P: Strategy, L: Lock + Send, S: Source + Send> Send for ClassicHeap<P, L, S> {}

impl<P: Strategy, L: Lock, S: Source> fmt::Debug for ClassicHeap<P, L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassicHeap")
            .field("placement", &P::NAME)
            .field("lock", &self.lock)
            .finish()
    }
}

impl<P: Strategy, L: Lock> ClassicHeap<P, L, FixedRegion> {
    /// A heap over the `bytes` bytes from `region`.
    ///
    /// # Safety
    /// The range is readable and writable, used by nobody else, and outlives the heap and every
    /// object in it.
    #[must_use]
    pub unsafe fn over(region: *mut u8, bytes: usize) -> Self {
        // SAFETY: the caller's promise is the source's.
        let source = unsafe { FixedRegion::new(region, bytes) };
        Self::new(source, Policy { grow: bytes, trim: usize::MAX, keep: 0 })
    }

    /// A heap over `range`, which it owns for good.
    #[must_use]
    pub fn over_static(range: &'static mut [MaybeUninit<u8>]) -> Self {
        let grow = range.len();
        Self::new(FixedRegion::of(range), Policy { grow, trim: usize::MAX, keep: 0 })
    }
}

impl<P: Strategy, L: Lock, S: Source> ClassicHeap<P, L, S> {
    /// A heap that takes its regions from `source`, as `policy` says.
    #[must_use]
    pub fn new(source: S, policy: Policy) -> Self {
        let secret = crate::os::random_word() | 1;
        Self::with_secret(source, policy, secret, 0)
    }

    pub(super) fn with_secret(source: S, policy: Policy, secret: u64, arena: u8) -> Self {
        crate::lock::ALONE.learn();
        Self { lock: L::FREE, core: UnsafeCell::new(P::Core::new(source, policy, secret, arena)) }
    }

    /// Runs `act` on the core under the lock.
    #[inline(always)]
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut P::Core<S>) -> T) -> T {
        self.lock.acquire();
        // SAFETY: the lock is ours until `release`, and `act` cannot reach this heap again.
        let result = act(unsafe { &mut *self.core.get() });
        self.lock.release();
        result
    }

    /// As `with`, if nobody holds the lock.
    #[inline(always)]
    pub(super) fn try_with<T>(&self, act: impl FnOnce(&mut P::Core<S>) -> T) -> Option<T> {
        if !self.lock.try_acquire() {
            return None;
        }
        // SAFETY: as in `with`.
        let result = act(unsafe { &mut *self.core.get() });
        self.lock.release();
        Some(result)
    }

    /// Runs `act` on the core without the lock.
    ///
    /// # Safety
    /// Nobody changes the heap any more.
    pub(super) unsafe fn with_still<T>(&self, act: impl FnOnce(&P::Core<S>) -> T) -> T {
        // SAFETY: the caller's promise.
        act(unsafe { &*self.core.get() })
    }

    pub(super) fn lock(&self) -> &L {
        &self.lock
    }

    /// An object for `layout`; `None` out of memory.
    ///
    /// # Errors
    /// A fault if a free block that was to serve it turned out to be damaged.
    #[inline]
    pub fn allocate(&self, layout: Layout) -> Result<Option<NonNull<u8>>, Fault> {
        self.place(layout.size(), layout.align(), false)
    }

    /// As [`allocate`](Self::allocate), with every byte of the layout zero.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    #[inline]
    pub fn allocate_zeroed(&self, layout: Layout) -> Result<Option<NonNull<u8>>, Fault> {
        self.place(layout.size(), layout.align(), true)
    }

    #[inline(always)]
    fn place(&self, size: usize, align: usize, zero: bool) -> Result<Option<NonNull<u8>>, Fault> {
        let at = self.with(|core| core.allocate(size, align, zero))?;
        Ok(at.and_then(|at| NonNull::new(core::ptr::with_exposed_provenance_mut(at))))
    }

    /// Gives an object back.
    ///
    /// # Errors
    /// The rule that the call breaks, or the damage it found; then the object stays.
    ///
    /// # Safety
    /// Nobody uses the object after this call. A call that is wrong is reported, but the report is
    /// certain only as far as the checks of [`FaultKind`] go.
    #[inline]
    pub unsafe fn deallocate(&self, object: NonNull<u8>) -> Result<(), Fault> {
        self.with(|core| core.free(object.as_ptr().expose_provenance())).map(drop)
    }

    /// Gives an object back whose size the caller states.
    ///
    /// # Errors
    /// As for [`deallocate`](Self::deallocate), and [`FaultKind::SizeMismatch`] if the object is
    /// smaller than `layout`.
    ///
    /// # Safety
    /// As for [`deallocate`](Self::deallocate).
    pub unsafe fn deallocate_sized(
        &self,
        object: NonNull<u8>,
        layout: Layout,
    ) -> Result<(), Fault> {
        let address = object.as_ptr().expose_provenance();
        self.with(|core| {
            let usable = core.usable(address)?;
            if layout.size() > usable {
                return Err(Fault::new(FaultKind::SizeMismatch, address, usable));
            }
            core.free(address).map(drop)
        })
    }

    /// Makes the object hold `layout.size()` bytes: where it stands if it can, else elsewhere.
    /// `None` out of memory, which it takes to grow; then the object is as it was.
    ///
    /// # Errors
    /// As for [`deallocate`](Self::deallocate).
    ///
    /// # Safety
    /// `layout.align()` is what the object was allocated with; its old address is not used again.
    pub unsafe fn reallocate(
        &self,
        object: NonNull<u8>,
        layout: Layout,
    ) -> Result<Option<NonNull<u8>>, Fault> {
        let old = object.as_ptr().expose_provenance();
        let usable = self.with(|core| {
            let stays = core.resize(old, layout.size())?;
            if stays { Ok(None) } else { core.usable(old).map(Some) }
        })?;
        let Some(usable) = usable else { return Ok(Some(object)) };
        let Some(fresh) = self.allocate(layout)? else {
            // To shrink needs no memory: what cannot be smaller where it is stays as large as it is.
            return Ok((layout.size() <= usable).then_some(object));
        };
        let bytes = usable.min(layout.size());
        // SAFETY: both objects are live and hold `bytes` bytes; a fresh object overlaps no other.
        unsafe { fresh.copy_from_nonoverlapping(object, bytes) };
        // SAFETY: the caller gives the old address up.
        unsafe { self.deallocate(object) }?;
        Ok(Some(fresh))
    }

    /// Bytes that the program may use of the object.
    ///
    /// # Errors
    /// As for [`deallocate`](Self::deallocate).
    pub fn usable_size(&self, object: NonNull<u8>) -> Result<usize, Fault> {
        self.with(|core| core.usable(object.as_ptr().expose_provenance()))
    }

    /// Whether the address lies in this heap's memory.
    #[must_use]
    pub fn owns(&self, object: NonNull<u8>) -> bool {
        self.with(|core| core.owns(object.as_ptr().expose_provenance()))
    }

    /// Walks the whole heap.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn check(&self) -> Result<Totals, Fault> {
        self.with(|core| core.check())
    }

    /// Merges blocks that were set aside and gives memory back; returns the bytes given.
    ///
    /// # Errors
    /// A fault if the heap turned out to be damaged.
    pub fn trim(&self, keep: usize) -> Result<usize, Fault> {
        self.with(|core| core.trim(keep))
    }

    /// Switches deferred coalescing, where the strategy has a choice.
    pub fn set_deferred(&self, deferred: bool) {
        self.with(|core| core.set_deferred(deferred));
    }

    /// The counters as they stand.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.with(|core| core.counters())
    }

    /// Blocks that all searches examined so far.
    #[must_use]
    pub fn examined(&self) -> u64 {
        self.with(|core| core.examined())
    }

    /// How often the lock was taken and waited for.
    #[must_use]
    pub fn contention(&self) -> Contention {
        self.lock.contention()
    }
}

impl core::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: address {:#x}, {} bytes", self.kind.what(), self.address, self.size)
    }
}
