//! Regions of the process heap: the program break for the first arena, mappings for the others and
//! as a fallback.
//!
//! Owns nothing but the promise that each region is entered in the registry before it is used, and
//! leaves it before it is given back. Cost: one system call per growth, trim or release.
//!
//! A trimmed tail keeps its address: its pages go back to the kernel, and growing into it again costs
//! no system call. The break is never moved down, as somebody else may have moved it up meanwhile.
//!
//! Every region begins and ends at a page, wherever somebody else left the break: so what it gets is
//! zero, since the kernel takes and gives whole pages, and what it no longer needs can go back.

use super::kernel;
use super::registry::Registry;
use crate::block::{Added, Extent, Source};

/// How far a region on the break may grow in place, at least.
const REACH: usize = 16 << 20;
/// Least size of a mapped region.
const MAPPED: usize = 1 << 20;

/// Times the break may be taken over by somebody else before we stop using it.
const ENDED: usize = 16;

/// Where one arena of the process heap gets its regions.
#[derive(Debug)]
pub(super) struct PoolSource {
    registry: &'static Registry,
    arena: u8,
    sbrk: bool,
    /// The region on the break: its start, the break as we left it, how far it may grow: to where it is, once
    /// somebody else moved the break on.
    base: usize,
    top: usize,
    limit: usize,
    /// Earlier regions on the break, which somebody else's growth ended: start and last top.
    ended: [(usize, usize); ENDED],
    ends: usize,
}

impl PoolSource {
    pub(super) const fn new(registry: &'static Registry, arena: u8, sbrk: bool) -> Self {
        Self { registry, arena, sbrk, base: 0, top: 0, limit: 0, ended: [(0, 0); ENDED], ends: 0 }
    }

    fn enter(&self, extent: Extent) -> Option<Extent> {
        let end = (extent.base + extent.bytes) & !15;
        self.registry.insert(extent.base, end, self.arena).then_some(extent)
    }

    fn break_region(&mut self, bytes: usize) -> Option<Extent> {
        let reach = self.reach(bytes);
        let bytes = round(bytes)?;
        let place = self.ended.get_mut(self.ends)?;
        let base = kernel::extend_break(bytes, kernel::page());
        if base == 0 {
            return None;
        }
        if self.base != 0 {
            *place = (self.base, self.top);
            self.ends += 1;
        }
        (self.base, self.top, self.limit) = (base, base + bytes, base + reach);
        self.enter(Extent { base, bytes, limit: reach, zeroed: true })
    }

    fn mapped(&self, bytes: usize) -> Option<Extent> {
        let wish = round(bytes.max(MAPPED))?;
        for bytes in [wish, round(bytes)?] {
            let base = kernel::map(bytes);
            if base != 0 {
                let extent = self.enter(Extent { base, bytes, limit: bytes, zeroed: true });
                if extent.is_none() {
                    // SAFETY: just mapped, and nobody else knows of it.
                    unsafe { kernel::unmap(base, bytes) };
                }
                return extent;
            }
        }
        None
    }
}

fn round(bytes: usize) -> Option<usize> {
    let page = kernel::page();
    Some(bytes.checked_add(page - 1)? & !(page - 1))
}

// SAFETY: the break and fresh mappings belong to nobody else; the registry keeps regions apart, and
// a tail that was purged stays inside its region's limit.
unsafe impl Source for PoolSource {
    fn acquire(&mut self, bytes: usize) -> Option<Extent> {
        let extent = if self.sbrk { self.break_region(bytes) } else { None };
        extent.or_else(|| self.mapped(bytes))
    }

    fn reach(&self, bytes: usize) -> usize {
        // Doubles the last reach, so that the number of regions stays logarithmic.
        let last = if self.base == 0 { 0 } else { self.limit - self.base };
        let page = kernel::page();
        let wish = bytes.max(MAPPED).saturating_add(page) & !(page - 1);
        if self.sbrk { wish.max(REACH).max(last.saturating_mul(2)) } else { wish }
    }

    fn extend(&mut self, base: usize, end: usize, bytes: usize) -> Added {
        let none = Added { bytes: 0, zeroed: false };
        let Some(bytes) = round(bytes) else { return none };
        if base != self.base {
            // It grows only into its own purged tail, which reads as zeros.
            let ended = self.ended.iter().find(|ended| ended.0 == base);
            if ended.is_some_and(|ended| end + bytes > ended.1) {
                return none;
            }
            self.registry.set_end(base, end + bytes);
            return Added { bytes, zeroed: true };
        }
        if end + bytes > self.limit {
            return none;
        }
        let ready = self.top - end;
        if bytes > ready {
            let more = bytes - ready;
            let at = kernel::extend_break(more, 16);
            if at != self.top {
                // Blocked, or moved by somebody else: then what came is lost, this once, and was never touched.
                if at != 0 {
                    self.limit = self.top;
                }
                return none;
            }
            self.top += more;
        }
        self.registry.set_end(base, end + bytes);
        Added { bytes, zeroed: true }
    }

    fn shrink(&mut self, base: usize, end: usize, bytes: usize) -> usize {
        let page = kernel::page();
        let start = (end - bytes).next_multiple_of(page);
        let whole = (end & !(page - 1)).saturating_sub(start);
        // SAFETY: the heap gives these bytes up, and they lie between whole pages of its region.
        if !end.is_multiple_of(page) || whole == 0 || !unsafe { kernel::purge(start, whole) } {
            return 0;
        }
        self.registry.set_end(base, start);
        end - start
    }

    fn release(&mut self, base: usize, bytes: usize, limit: usize) -> bool {
        let on_break = base == self.base || self.ended.iter().any(|ended| ended.0 == base);
        if on_break || bytes == 0 {
            return false;
        }
        self.registry.remove(base);
        // SAFETY: the heap gives the whole region up; it is a mapping of `limit` bytes.
        if unsafe { kernel::unmap(base, limit) } {
            return true;
        }
        // The heap keeps what the kernel would not take back.
        !self.registry.insert(base, (base + bytes) & !15, self.arena)
    }

    fn page(&self) -> usize {
        kernel::page()
    }
}
