//! Objects with a mapping of their own: requests of the mmap threshold and more.
//!
//! Owns the mappings and a hash table of them, so that an address is known to be one of ours without
//! reading what it points to. Cost: one system call to map or unmap, and one probe of the table;
//! resizing moves pages, not bytes.
//!
//! # Invariants
//! 1. Every live mapped object is in the table once, between its home slot and the next empty one.
//! 2. The table is at most half full.

use core::cell::UnsafeCell;
use core::sync::atomic::{Ordering, compiler_fence};

use super::kernel;
use super::lock::{Contention, FutexLock, Lock};
use crate::block::{Fault, FaultKind, GRAIN};

/// Bytes between the start of a mapping and its object, unless alignment asks for more.
const LEAD: usize = 64;
/// Addresses freed last, so that a second free can be called by its name.
const GRAVES: usize = 32;

#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    object: usize,
    base: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Table {
    /// Address of a power of two of mappings, and in its low bits that power; 0: none. One word, so
    /// that a fork finds a whole table at any moment.
    place: usize,
    used: usize,
    bytes: usize,
    peak: usize,
    graves: [usize; GRAVES],
    buried: usize,
}

/// All mapped objects of the process.
#[derive(Debug)]
pub(super) struct Mapped {
    lock: FutexLock,
    table: UnsafeCell<Table>,
}

// SAFETY: the table is reached only under the lock.
unsafe impl Sync for Mapped {}

impl Table {
    const EMPTY: Self =
        Self { place: 0, used: 0, bytes: 0, peak: 0, graves: [0; GRAVES], buried: 0 };

    /// Number of slots.
    const fn slots(&self) -> usize {
        if self.place == 0 { 0 } else { 1 << (self.place & 63) }
    }

    const fn entries(&self) -> usize {
        self.place & !63
    }

    /// Callers pass `index < slots()`, so there is a table.
    fn slot(&self, index: usize) -> *mut Mapping {
        core::ptr::with_exposed_provenance_mut::<Mapping>(self.entries()).wrapping_add(index)
    }

    fn get(&self, index: usize) -> Mapping {
        // SAFETY: `index < slots`, and the table is mapped and initialised (zeros).
        unsafe { *self.slot(index) }
    }

    fn set(&self, index: usize, mapping: Mapping) {
        let slot = self.slot(index);
        // The object last, so that a fork finds no address without its mapping.
        // SAFETY: as in `get`; the lock makes us the only writer.
        unsafe {
            (*slot).base = mapping.base;
            (*slot).bytes = mapping.bytes;
            compiler_fence(Ordering::Release);
            (&raw mut (*slot).object).write_volatile(mapping.object);
        }
    }

    fn home(&self, object: usize) -> usize {
        (object >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (self.slots() - 1)
    }

    fn find(&self, object: usize) -> Option<usize> {
        if self.place == 0 || object == 0 {
            return None;
        }
        let mut index = self.home(object);
        loop {
            match self.get(index).object {
                0 => return None,
                found if found == object => return Some(index),
                _ => index = (index + 1) & (self.slots() - 1),
            }
        }
    }

    /// Makes room for one more; `false` out of memory.
    fn reserve(&mut self) -> bool {
        self.used * 2 < self.slots() || self.rebuild((self.slots() * 2).max(256))
    }

    /// Copies what a probe finds into a table of `slots`; `false` out of memory.
    fn rebuild(&mut self, slots: usize) -> bool {
        let entries = kernel::map(slots * size_of::<Mapping>());
        if entries == 0 {
            return false;
        }
        let mut fresh = Table { place: entries | slots.ilog2() as usize, ..Table::EMPTY };
        for index in 0..self.slots() {
            let mapping = self.get(index);
            // An entry that stands twice was being moved: the later one is left.
            if mapping.object != 0 && self.find(mapping.object) == Some(index) {
                fresh.insert(mapping);
            }
        }
        let (old, bytes) = (self.entries(), self.slots() * size_of::<Mapping>());
        (self.place, self.used) = (fresh.place, fresh.used);
        if bytes != 0 {
            // SAFETY: the old table was mapped here and is no longer referred to.
            unsafe { kernel::unmap(old, bytes) };
        }
        true
    }

    fn insert(&mut self, mapping: Mapping) {
        let mut index = self.home(mapping.object);
        while self.get(index).object != 0 {
            index = (index + 1) & (self.slots() - 1);
        }
        self.set(index, mapping);
        self.used += 1;
    }

    /// Empties a slot and closes the gap behind it.
    fn remove(&mut self, index: usize) {
        let mask = self.slots() - 1;
        let (mut hole, mut next) = (index, (index + 1) & mask);
        while self.get(next).object != 0 {
            let home = self.home(self.get(next).object);
            // An entry may move into the hole if that is not before its home.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.set(hole, self.get(next));
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.set(hole, Mapping::default());
        self.used -= 1;
    }

    fn grown(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.peak = self.peak.max(self.bytes);
    }

    fn unknown(&self, object: usize) -> Fault {
        let kind = if object & (GRAIN - 1) != 0 {
            FaultKind::MisalignedFree
        } else if self.graves.contains(&object) {
            FaultKind::DoubleFree
        } else {
            let inside = |m: Mapping| m.object != 0 && object.wrapping_sub(m.base) < m.bytes;
            let interior = (0..self.slots()).any(|index| inside(self.get(index)));
            if interior { FaultKind::InteriorFree } else { FaultKind::ForeignFree }
        };
        Fault::new(kind, object, 0)
    }
}

fn whole_pages(bytes: usize) -> Option<usize> {
    let page = kernel::page();
    Some(bytes.checked_add(page - 1)? & !(page - 1))
}

impl Mapped {
    pub(super) const fn empty() -> Self {
        Self { lock: FutexLock::FREE, table: UnsafeCell::new(Table::EMPTY) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        self.lock.acquire();
        // SAFETY: the lock is ours until `release`.
        let result = act(unsafe { &mut *self.table.get() });
        self.lock.release();
        result
    }

    pub(super) fn lock(&self) -> &FutexLock {
        &self.lock
    }

    /// In a child that was not told of its fork: makes the table whole that a thread of the parent
    /// was changing. What that thread was freeing or allocating may stay known.
    pub(super) fn mend(&self) {
        if self.lock.mend() {
            // SAFETY: the holder does not exist here, and nobody in the child has taken a lock yet.
            let table = unsafe { &mut *self.table.get() };
            // Without memory the table stays, in which a probe finds what it found before.
            let slots = table.slots();
            if slots != 0 {
                table.rebuild(slots);
            }
        }
    }

    /// An object of `size` zero bytes at `align`; `None` out of memory.
    pub(super) fn allocate(&self, size: usize, align: usize) -> Option<usize> {
        let lead = LEAD.max(align);
        // An object of no bytes has one all the same, or it would stand where the mapping ends.
        let bytes = whole_pages(size.max(1).checked_add(lead)?)?;
        if bytes > isize::MAX as usize {
            return None;
        }
        // Beyond a page the kernel does not align for us: map more, and use the part that is.
        let slack = if align > kernel::page() { align } else { 0 };
        let base = kernel::map(bytes.checked_add(slack)?);
        if base == 0 {
            return None;
        }
        let object = (base + LEAD + align - 1) & !(align - 1);
        let mapping = Mapping { object, base, bytes: bytes + slack };
        let known = self.with(|table| {
            table.reserve() && {
                table.insert(mapping);
                table.grown(mapping.bytes);
                true
            }
        });
        if known {
            return Some(object);
        }
        // SAFETY: just mapped, and nobody else knows of it.
        unsafe { kernel::unmap(base, mapping.bytes) };
        None
    }

    /// Gives an object back.
    pub(super) fn free(&self, object: usize) -> Result<(), Fault> {
        let mapping = self.with(|table| {
            let Some(index) = table.find(object) else { return Err(table.unknown(object)) };
            let mapping = table.get(index);
            table.remove(index);
            table.bytes -= mapping.bytes;
            if let Some(grave) = table.graves.get_mut(table.buried % GRAVES) {
                *grave = object;
            }
            table.buried += 1;
            Ok(mapping)
        })?;
        // SAFETY: the mapping is out of the table, so this is its only user.
        if !unsafe { kernel::unmap(mapping.base, mapping.bytes) } {
            // The process has as many mappings as it may, and one would become two: its pages go back at least.
            // SAFETY: as above.
            unsafe { kernel::purge(mapping.base, mapping.bytes) };
        }
        Ok(())
    }

    pub(super) fn usable(&self, object: usize) -> Result<usize, Fault> {
        self.with(|table| match table.find(object) {
            Some(index) => {
                let mapping = table.get(index);
                Ok(mapping.base + mapping.bytes - object)
            }
            None => Err(table.unknown(object)),
        })
    }

    pub(super) fn owns(&self, object: usize) -> bool {
        self.with(|table| table.find(object).is_some())
    }

    /// Resizes an object; `None` if the kernel has no room, and the object stays as it was.
    pub(super) fn resize(&self, object: usize, size: usize) -> Result<Option<usize>, Fault> {
        self.with(|table| {
            let Some(index) = table.find(object) else { return Err(table.unknown(object)) };
            let old = table.get(index);
            let lead = object - old.base;
            let least = size.max(1).checked_add(lead);
            let Some(bytes) = least.and_then(whole_pages) else { return Ok(None) };
            if bytes == old.bytes {
                return Ok(Some(object));
            }
            // SAFETY: the mapping is ours, and its object is being resized by its owner.
            let base = unsafe { kernel::remap(old.base, old.bytes, bytes) };
            if base == 0 {
                return Ok(None);
            }
            let moved = Mapping { object: base + lead, base, bytes };
            table.remove(index);
            table.insert(moved);
            table.bytes -= old.bytes;
            table.grown(bytes);
            Ok(Some(moved.object))
        })
    }

    /// Objects, their bytes, the highest bytes so far.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        self.with(|table| (table.used, table.bytes, table.peak))
    }

    pub(super) fn contention(&self) -> Contention {
        self.lock.contention()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_mapped_object_is_zero_aligned_and_known_until_it_is_freed() {
        let mapped = Mapped::empty();
        let objects: Vec<_> = (0..600usize)
            .map(|n| {
                let align = 16 << (n % 12);
                let object = mapped.allocate(100_000 + n, align).unwrap();
                assert_eq!(object % align, 0);
                assert!(mapped.usable(object).unwrap() >= 100_000 + n);
                object
            })
            .collect();
        for (n, &object) in objects.iter().enumerate() {
            assert!(mapped.owns(object));
            if n % 3 != 0 {
                mapped.free(object).unwrap();
                assert_eq!(mapped.free(object).unwrap_err().kind, FaultKind::DoubleFree);
            }
        }
        assert_eq!(mapped.counts().0, 200);
        let kept = objects[0];
        assert_eq!(mapped.free(kept + 64).unwrap_err().kind, FaultKind::InteriorFree);
        assert_eq!(mapped.free(kept + 4).unwrap_err().kind, FaultKind::MisalignedFree);
        assert_eq!(mapped.free(64).unwrap_err().kind, FaultKind::ForeignFree);
        for &object in objects.iter().step_by(3) {
            mapped.free(object).unwrap();
        }
        assert_eq!((mapped.counts().0, mapped.counts().1), (0, 0));
        assert_eq!(mapped.allocate(usize::MAX - 100, 16), None);
    }

    #[test]
    fn a_table_left_half_way_by_a_fork_is_made_whole() {
        let mapped = Mapped::empty();
        let objects: Vec<_> = (0..100).map(|_| mapped.allocate(100_000, 16).unwrap()).collect();
        // One entry stands twice, as while a gap is closed.
        mapped.with(|table| {
            let index = table.find(objects[7]).unwrap();
            let (moved, mut hole) = (table.get(index), index);
            while table.get(hole).object != 0 {
                hole = (hole + 1) & (table.slots() - 1);
            }
            table.set(hole, moved);
            table.used = 3;
        });
        std::thread::scope(|scope| scope.spawn(|| mapped.lock.acquire()).join().unwrap());
        mapped.mend();
        assert_eq!(mapped.counts().0, 100);
        for &object in &objects {
            mapped.free(object).unwrap();
            assert_eq!(mapped.free(object).unwrap_err().kind, FaultKind::DoubleFree);
        }
    }

    #[test]
    fn an_object_of_no_bytes_lies_within_its_mapping() {
        let mapped = Mapped::empty();
        let object = mapped.allocate(0, 4096).unwrap();
        assert!(mapped.usable(object).unwrap() > 0);
        let moved = mapped.resize(object, 0).unwrap().unwrap();
        assert!(mapped.usable(moved).unwrap() > 0);
        mapped.free(moved).unwrap();
    }

    #[test]
    fn resizing_keeps_the_contents() {
        let mapped = Mapped::empty();
        let object = mapped.allocate(200_000, 16).unwrap();
        let byte = |at: usize| core::ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: inside the object.
        unsafe { byte(object + 150_000).write(77) };
        let moved = mapped.resize(object, 5_000_000).unwrap().unwrap();
        // SAFETY: inside the object.
        assert_eq!(unsafe { byte(moved + 150_000).read() }, 77);
        assert!(mapped.usable(moved).unwrap() >= 5_000_000);
        mapped.free(moved).unwrap();
    }
}
