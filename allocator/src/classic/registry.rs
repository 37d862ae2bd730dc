//! Which arena a region belongs to, answered without a lock.
//!
//! Two sorted tables of regions, of which the last bit of a sequence number names the valid one.
//! Writers, rare and behind a lock, write the other table and then raise the number by one; readers
//! search by bisection and start over if the number moved. A writer that a fork left behind has
//! changed nothing that counts.
//!
//! Owns the tables (32 KiB each, touched as they fill). Cost: a look-up is about log2 n loads, n the
//! number of regions; no store, so readers do not disturb each other. A change copies n entries.
//!
//! # Invariants
//! 1. The first `len` entries of the valid table are sorted by start and do not overlap.
//! 2. An entry's `end` holds the arena's number in its low four bits; regions end at multiples of 16.
//!
//! Source: Lameter: Effective synchronization on Linux/NUMA systems (2005), sequence locks.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use super::lock::{FutexLock, Lock};

/// Regions of all arenas together.
const ENTRIES: usize = 2048;

#[derive(Debug)]
struct Entry {
    start: AtomicUsize,
    end: AtomicUsize,
}

#[derive(Debug)]
struct Table {
    len: AtomicUsize,
    entries: [Entry; ENTRIES],
}

impl Table {
    #[cfg(test)]
    const fn empty() -> Self {
        let entries =
            [const { Entry { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; ENTRIES];
        Self { len: AtomicUsize::new(0), entries }
    }

    /// May see a table that is being changed: then its answer is thrown away.
    fn search(&self, address: usize) -> Option<u8> {
        let (mut low, mut high) = (0, self.len.load(Ordering::Relaxed).min(ENTRIES));
        while low < high {
            let middle = (low + high) / 2;
            let entry = self.entries.get(middle)?;
            if entry.start.load(Ordering::Relaxed) <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let entry = self.entries.get(low.checked_sub(1)?)?;
        let end = entry.end.load(Ordering::Relaxed);
        (address < end & !15).then_some((end & 15) as u8)
    }
}

/// The regions of all arenas.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) lock: FutexLock,
    sequence: AtomicU32,
    tables: [Table; 2],
}

impl Registry {
    /// No regions. All its bytes are zero, so fresh memory is an empty registry too.
    #[cfg(test)]
    pub(super) const fn empty() -> Self {
        Self {
            lock: FutexLock::FREE,
            sequence: AtomicU32::new(0),
            tables: [const { Table::empty() }; 2],
        }
    }

    /// The arena that owns `address`.
    #[inline]
    pub(super) fn arena(&self, address: usize) -> Option<u8> {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let found = self.table(before).search(address);
            // The loads of `search` come before this one, as the fence demands.
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) == before {
                return found;
            }
            core::hint::spin_loop();
        }
    }

    #[inline(always)]
    fn table(&self, sequence: u32) -> &Table {
        let [even, odd] = &self.tables;
        if sequence & 1 == 0 { even } else { odd }
    }

    /// Lets `act` change a copy of the valid entries, whose new number it returns, and makes that valid.
    fn change<T>(&self, act: impl FnOnce(&[Entry], usize) -> (usize, T)) -> T {
        self.lock.acquire();
        let sequence = self.sequence.load(Ordering::Relaxed);
        let (from, to) = (self.table(sequence), self.table(sequence.wrapping_add(1)));
        // Readers of the number before see that it moved before they see what is written now.
        fence(Ordering::Release);
        let len = from.len.load(Ordering::Relaxed);
        for (from, to) in from.entries.iter().zip(&to.entries).take(len) {
            copy(from, Some(to));
        }
        let (len, result) = act(&to.entries, len);
        to.len.store(len, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        self.lock.release();
        result
    }

    /// Adds a region. `false` if the table is full.
    pub(super) fn insert(&self, start: usize, end: usize, arena: u8) -> bool {
        self.change(|entries, len| {
            if len == ENTRIES {
                return (len, false);
            }
            // The hole moves down from the end to where the region belongs.
            let mut hole = len;
            while let Some(before) = hole.checked_sub(1).and_then(|index| entries.get(index)) {
                if before.start.load(Ordering::Relaxed) < start {
                    break;
                }
                copy(before, entries.get(hole));
                hole -= 1;
            }
            if let Some(entry) = entries.get(hole) {
                entry.start.store(start, Ordering::Relaxed);
                entry.end.store(end | usize::from(arena), Ordering::Relaxed);
            }
            (len + 1, true)
        })
    }

    /// Changes the end of the region at `start`.
    pub(super) fn set_end(&self, start: usize, end: usize) {
        self.change(|entries, len| {
            let mut live = entries.iter().take(len);
            if let Some(entry) = live.find(|entry| entry.start.load(Ordering::Relaxed) == start) {
                let arena = entry.end.load(Ordering::Relaxed) & 15;
                entry.end.store(end | arena, Ordering::Relaxed);
            }
            (len, ())
        });
    }

    /// Takes the region at `start` out.
    pub(super) fn remove(&self, start: usize) {
        self.change(|entries, len| {
            let mut live = entries.iter().take(len);
            let Some(index) = live.position(|e| e.start.load(Ordering::Relaxed) == start) else {
                return (len, ());
            };
            for (to, from) in
                entries.iter().take(len).skip(index).zip(entries.iter().skip(index + 1))
            {
                copy(from, Some(to));
            }
            (len - 1, ())
        });
    }
}

fn copy(from: &Entry, to: Option<&Entry>) {
    if let Some(to) = to {
        to.start.store(from.start.load(Ordering::Relaxed), Ordering::Relaxed);
        to.end.store(from.end.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn an_address_finds_its_arena_whatever_the_order_of_arrival() {
        let registry = Box::new(Registry::empty());
        for (start, arena) in [(0x3000, 3), (0x1000, 1), (0x5000, 5), (0x2000, 2)] {
            assert!(registry.insert(start, start + 0x800, arena));
        }
        assert_eq!(registry.arena(0x1000), Some(1));
        assert_eq!(registry.arena(0x37ff), Some(3));
        assert_eq!(registry.arena(0x3800), None);
        assert_eq!(registry.arena(0xfff), None);
        registry.set_end(0x3000, 0x4000);
        assert_eq!(registry.arena(0x3fff), Some(3));
        registry.remove(0x2000);
        assert_eq!(registry.arena(0x2000), None);
        assert_eq!(registry.arena(0x5000), Some(5));
    }

    #[test]
    fn fresh_memory_is_an_empty_registry() {
        // SAFETY: atomic integers, for which zero is a value.
        let registry = Box::new(unsafe { core::mem::zeroed::<Registry>() });
        assert_eq!(registry.arena(0), None);
        assert_eq!(registry.arena(usize::MAX), None);
        assert!(registry.lock.try_acquire());
        registry.lock.release();
        assert!(registry.insert(0x1000, 0x2000, 4));
        assert_eq!(registry.arena(0x1000), Some(4));
    }

    #[test]
    fn readers_find_what_stays_while_writers_come_and_go() {
        let registry = Box::new(Registry::empty());
        registry.insert(0x100_0000, 0x100_1000, 7);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..2_000usize {
                    let start = 0x10_0000 + round % 7 * 0x1_0000;
                    registry.insert(start, start + 0x1000, 1);
                    registry.remove(start);
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                assert_eq!(registry.arena(0x100_0800), Some(7));
                assert_eq!(registry.arena(0x200_0000), None);
            }
        });
    }

    #[test]
    fn a_writer_left_half_way_by_a_fork_has_changed_nothing_that_counts() {
        let registry = Box::new(Registry::empty());
        registry.insert(0x2000, 0x2800, 2);
        registry.insert(0x3000, 0x3800, 3);
        // What a writer does before it publishes, to entries that a reader must not see.
        let sequence = registry.sequence.load(Ordering::Relaxed);
        let other = registry.table(sequence.wrapping_add(1));
        other.len.store(ENTRIES, Ordering::Relaxed);
        for entry in &other.entries {
            entry.start.store(0x1000, Ordering::Relaxed);
            entry.end.store(0x9009, Ordering::Relaxed);
        }
        assert_eq!(registry.arena(0x2000), Some(2));
        assert_eq!(registry.arena(0x1000), None);
        assert!(registry.insert(0x1000, 0x1800, 1));
        assert_eq!(registry.arena(0x1000), Some(1));
        assert_eq!(registry.arena(0x3000), Some(3));
        assert_eq!(registry.arena(0x4000), None);
    }
}
