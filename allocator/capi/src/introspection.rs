//! What glibc's programs ask an allocator about itself: mallopt, malloc_trim, mallinfo, malloc_stats, malloc_info.
//!
//! Cost: each is a walk over the heap's counters; none is on a fast path, none holds a lock while it writes.
//!
//! # How glibc's words are used
//! | field | here |
//! |---|---|
//! | `arena`, `<system type="current">` | bytes held, in use or free; without objects that have a mapping of their own |
//! | `uordblks` | bytes of live objects, without those either |
//! | `fordblks`, `<total type="rest">` | the rest of `arena` |
//! | `keepcost` | of `fordblks`, what holds pages that `malloc_trim` would give back; 0 in classic mode, which keeps no such count |
//! | `ordblks` | 1: all that is free, as one piece |
//! | `hblks`, `hblkhd`, `<total type="mmap">` | objects with a mapping of their own, and bytes of those mappings |
//! | `<size>` | free blocks of a size; classic mode tells none |
//! | `<system type="max">`, `<aspace>` | address space, without those mappings |
//!
//! # Invariants
//! 1. `uordblks` + `fordblks` = `arena`, and `keepcost` is at most `fordblks`, while no other thread is in a call.
//! 2. `malloc_info` writes what glibc writes for one arena, line by line, but for `<unsorted>`, which glibc writes only
//!    where it has such blocks.

use crate::control::Picture;
use crate::errno;
use crate::text::{Sink, Text};
use allocator::heap;
use core::ffi::c_int;

/// glibc's tuning knobs, by number, in `<malloc.h>`.
const KNOWN_KNOBS: [c_int; 10] = [
    1,  // M_MXFAST
    2,  // M_NLBLKS
    3,  // M_GRAIN
    4,  // M_KEEP
    -1, // M_TRIM_THRESHOLD
    -2, // M_TOP_PAD
    -3, // M_MMAP_THRESHOLD
    -4, // M_MMAP_MAX
    -7, // M_ARENA_TEST
    -8, // M_ARENA_MAX
];

/// Tunes glibc's allocator, hence nothing here: its known knobs are accepted (1) without effect, since programs that
/// turn them give up when refused; any other is refused (0). `ALLOCATOR_OPTIONS` tunes this allocator.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    const M_CHECK_ACTION: c_int = -5;
    const M_PERTURB: c_int = -6;
    let known =
        KNOWN_KNOBS.contains(&parameter) || parameter == M_CHECK_ACTION || parameter == M_PERTURB;
    c_int::from(known)
}

/// Gives every free page back to the kernel; 1 when that was any. `pad`, the bytes glibc would keep, is ignored.
#[unsafe(no_mangle)]
extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(heap::trim())
}

/// `struct mallinfo2` of `<malloc.h>`.
#[repr(C)]
struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// `struct mallinfo` of `<malloc.h>`.
#[repr(C)]
pub(crate) struct Mallinfo {
    arena: c_int,
    ordblks: c_int,
    smblks: c_int,
    hblks: c_int,
    hblkhd: c_int,
    usmblks: c_int,
    fsmblks: c_int,
    uordblks: c_int,
    fordblks: c_int,
    keepcost: c_int,
}

/// Counters of the heap in glibc's form; the header says which is which.
#[unsafe(no_mangle)]
extern "C" fn mallinfo2() -> Mallinfo2 {
    let heap = Picture::take();
    Mallinfo2 {
        arena: heap.arena(),
        ordblks: 1,
        smblks: 0,
        hblks: heap.huge_objects,
        hblkhd: heap.huge_mapped,
        usmblks: 0,
        fsmblks: 0,
        uordblks: heap.arena_live(),
        fordblks: heap.free(),
        keepcost: heap.cached,
    }
}

/// `mallinfo2` for programs older than it. Values that do not fit an `int` are `INT_MAX`; glibc's wrap around.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mallinfo() -> Mallinfo {
    let wide = mallinfo2();
    let narrow = |value: usize| c_int::try_from(value).unwrap_or(c_int::MAX);
    Mallinfo {
        arena: narrow(wide.arena),
        ordblks: narrow(wide.ordblks),
        smblks: 0,
        hblks: narrow(wide.hblks),
        hblkhd: narrow(wide.hblkhd),
        usmblks: 0,
        fsmblks: 0,
        uordblks: narrow(wide.uordblks),
        fordblks: narrow(wide.fordblks),
        keepcost: narrow(wide.keepcost),
    }
}

/// Writes the counters to standard error: glibc's lines first, for those who read them by machine, then ours.
#[unsafe(no_mangle)]
extern "C" fn malloc_stats() {
    let kept = errno::get();
    let heap = Picture::take();
    let mut text = Text::new(Sink::Descriptor(2));
    for (heading, system, used) in [
        ("Arena 0:\n", heap.arena(), heap.arena_live()),
        ("Total (incl. mmap):\n", heap.arena() + heap.huge, heap.live),
    ] {
        text.put(heading).put("system bytes     = ").padded(system, 10);
        text.put("\nin use bytes     = ").padded(used, 10).put("\n");
    }
    // Nobody keeps the highest figures: those of now are the least that they can be.
    text.put("max mmap regions = ").padded(heap.huge_objects, 10);
    text.put("\nmax mmap bytes   = ").padded(heap.huge_mapped, 10).put("\n");
    crate::control::describe(&mut text, &heap);
    text.finish();
    errno::set(kept);
}

/// Writes the counters as XML in glibc's form to `stream`. 0, or `EINVAL` for any `options` but 0, or -1 with `errno`
/// when the stream refuses.
///
/// # Safety
/// `stream` is open for writing.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 || stream.is_null() {
        return libc::EINVAL;
    }
    let picture = Picture::take();
    let mut xml = Text::new(Sink::Stream(stream));
    xml.put("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n");
    // As glibc counts them: free blocks, by size, and one piece for all the rest. The stream may allocate meanwhile.
    let mut pieces = 1;
    heap::for_each_class(|class| {
        let free = class.touched.saturating_sub(class.live);
        if free > 0 {
            let count = free.checked_div(class.size).unwrap_or(0);
            pieces += count;
            xml.put("  <size from=\"").number(class.size).put("\" to=\"").number(class.size);
            xml.put("\" total=\"").number(free).put("\" count=\"").number(count).put("\"/>\n");
        }
    });
    xml.put("</sizes>\n");
    totals(&mut xml, &picture, pieces, false);
    xml.put("</heap>\n");
    totals(&mut xml, &picture, pieces, true);
    xml.put("</malloc>\n");
    if xml.finish() { 0 } else { -1 }
}

/// The elements that glibc writes once per heap and once for all, then with what has a mapping of its own.
fn totals(xml: &mut Text, heap: &Picture, pieces: usize, all: bool) {
    let mapped = heap.mapped.saturating_sub(heap.huge_mapped);
    xml.put("<total type=\"fast\" count=\"0\" size=\"0\"/>\n<total type=\"rest\" count=\"");
    xml.number(pieces).put("\" size=\"").number(heap.free()).put("\"/>\n");
    if all {
        xml.put("<total type=\"mmap\" count=\"").number(heap.huge_objects);
        xml.put("\" size=\"").number(heap.huge_mapped).put("\"/>\n");
    }
    xml.put("<system type=\"current\" size=\"")
        .number(heap.arena())
        .put("\"/>\n<system type=\"max\" size=\"")
        .number(mapped)
        .put("\"/>\n<aspace type=\"total\" size=\"")
        .number(mapped)
        .put("\"/>\n<aspace type=\"mprotect\" size=\"")
        .number(mapped)
        .put("\"/>\n");
}
