//! Huge objects that grow or shrink: in place, or by moving their pages.

use core::ptr;

use super::record::Place;
use super::{GAP, HARDENED, HEAD, Huge, addresses, whole};
use crate::os::{self, Kernel, Target};
use crate::segment::Span;
use crate::sync::Ordering;
use crate::units::{SEGMENT, round_up};

impl<K: Kernel> Huge<K> {
    /// Resizes an object without copying: in place, or by moving its pages. Null if that cannot
    /// be done; then the object is as it was. Where memory is short `relieve` gives back what is free elsewhere, and
    /// says whether that may help.
    ///
    /// # Safety
    /// `record` is that of a live huge object whose pointer the caller replaces by the result.
    pub(crate) unsafe fn resize(
        &self,
        record: *mut Span,
        size: usize,
        relieve: impl FnOnce() -> bool,
    ) -> *mut u8 {
        // SAFETY: the caller's promise.
        let old = unsafe { Place::read(record) };
        if old.offset != HEAD || size >= addresses() - 4 * SEGMENT {
            return ptr::null_mut();
        }
        let used = round_up(HEAD + size, self.kernel.page_size());
        // Growing objects tend to go on growing.
        let room = if used > old.used { used + size / 8 } else { used };
        let mapped = if HARDENED { used } else { whole(room) };
        // Before the old range can become somebody else's.
        #[cfg(feature = "hardened")]
        crate::segment::forget(old.base);
        let stays = || {
            #[cfg(feature = "hardened")]
            crate::segment::note(old.base, crate::segment::Segment::Huge);
            ptr::null_mut()
        };
        // SAFETY: the mapping is the object's.
        unsafe {
            let (base, mapped) = match self.remap(old, mapped) {
                Ok(base) => (base, mapped),
                Err(libc::ENOMEM) => {
                    // What is cached is a luxury then, and so is room to grow.
                    self.purge_all();
                    let mut again = self.remap(old, used);
                    if again == Err(libc::ENOMEM) && relieve() {
                        again = self.remap(old, used);
                    }
                    let Ok(base) = again else { return stays() };
                    (base, used)
                }
                Err(_) => return stays(),
            };
            let resident = used.max(old.resident.min(mapped));
            let mut state = self.state.lock();
            state.discount(old);
            state.count(used, mapped);
            drop(state);
            self.count_fresh(used.saturating_sub(old.used));
            self.purged.fetch_add(old.mapped.saturating_sub(mapped), Ordering::Relaxed);
            Place { base, offset: HEAD, mapped, used, resident }.write()
        }
    }

    /// Takes note that an object, which has room for that, is to hold `size` bytes from here on.
    ///
    /// # Safety
    /// `record` is that of a live huge object.
    pub(crate) unsafe fn use_more(&self, record: *mut Span, size: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = Place::read(record);
            let used = round_up(place.offset + size, self.kernel.page_size()).min(place.mapped);
            if used > place.used {
                self.state.lock().live += used - place.used;
                self.count_fresh(used.saturating_sub(place.resident));
                Place { used, resident: place.resident.max(used), ..place }.write();
            }
        }
    }

    /// Makes the mapping of an object `mapped` bytes long, here or where there is room; its base, or why
    /// not: then it is as it was.
    ///
    /// # Safety
    /// As [`Huge::resize`].
    unsafe fn remap(&self, old: Place, mapped: usize) -> Result<usize, i32> {
        // SAFETY: the mapping is the object's; a target was mapped for it just before.
        unsafe {
            match self.kernel.remap(old.base, old.mapped, mapped, Target::Here) {
                Ok(base) => return Ok(base),
                // The program divided the mapping or locked it in memory: neither can it move.
                Err(error) if error.errno != libc::ENOMEM => return Err(error.errno),
                Err(_) => {}
            }
            let hint = os::next_place(&self.kernel, round_up(mapped, SEGMENT) + GAP);
            let target = os::map_aligned(&self.kernel, hint, mapped, SEGMENT);
            let target = target.map_err(|error| error.errno)?;
            // Where this fails the kernel may have unmapped the target, and somebody else mapped something
            // there: it is lost. Those are few, for what makes it fail is that there are too many mappings.
            let moved = self.kernel.remap(old.base, old.mapped, mapped, Target::At(target));
            moved.map_err(|error| error.errno)
        }
    }
}
