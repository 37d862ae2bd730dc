//! What the allocator states of itself, by whichever interface its library exports.
//!
//! Asked once, after the last operation: the figures say what the allocator holds when the program
//! has released what it released. Names are the allocator's own, so that its manual explains them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr;

use super::proof::symbol;

/// Name and value of every figure; empty where the allocator states none.
pub(super) fn read() -> Vec<(String, u64)> {
    for ask in [ours, jemalloc, mimalloc, tcmalloc] {
        if let Some(figures) = ask() {
            return figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        }
    }
    Vec::new()
}

/// What the C library states of its own allocator.
pub(super) fn of_libc() -> Vec<(String, u64)> {
    type Info = unsafe extern "C" fn() -> libc::mallinfo2;
    let Some(address) = symbol(c"mallinfo2") else { return Vec::new() };
    // SAFETY: glibc documents this signature for the name.
    let info = unsafe { mem::transmute::<*mut c_void, Info>(address) };
    // SAFETY: no arguments, no preconditions.
    let info = unsafe { info() };
    [
        ("arena", info.arena),
        ("hblkhd", info.hblkhd),
        ("uordblks", info.uordblks),
        ("fordblks", info.fordblks),
        ("keepcost", info.keepcost),
    ]
    .map(|(name, value)| (name.to_owned(), value as u64))
    .to_vec()
}

type Figures = Vec<(&'static str, u64)>;

fn ours() -> Option<Figures> {
    type Stats = unsafe extern "C" fn(*mut [u64; 8], usize) -> c_int;
    let address = symbol(c"allocator_get_stats")?;
    // SAFETY: our own C interface gives the name this signature; the structure is eight words, and
    // an older library leaves those it does not know zero.
    let stats = unsafe { mem::transmute::<*mut c_void, Stats>(address) };
    let mut words = [0; 8];
    // SAFETY: the words are writable, and their size is passed along.
    if unsafe { stats(&raw mut words, mem::size_of_val(&words)) } != 0 {
        return None;
    }
    let names = [
        "live_bytes",
        "committed_bytes",
        "mapped_bytes",
        "cached_bytes",
        "purged_bytes",
        "lock_acquisitions",
        "lock_waits",
        "lock_wait_ns",
    ];
    Some(names.into_iter().zip(words).collect())
}

fn jemalloc() -> Option<Figures> {
    type Mallctl =
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    let address = symbol(c"mallctl")?;
    // SAFETY: jemalloc documents this signature for the name.
    let mallctl = unsafe { mem::transmute::<*mut c_void, Mallctl>(address) };
    let mut epoch = 1_u64;
    // SAFETY: "epoch" takes eight bytes; writing it makes the figures below those of now.
    unsafe {
        mallctl(c"epoch".as_ptr(), ptr::null_mut(), ptr::null_mut(), (&raw mut epoch).cast(), 8);
    }
    const NAMES: [&CStr; 6] = [
        c"stats.allocated",
        c"stats.active",
        c"stats.metadata",
        c"stats.resident",
        c"stats.mapped",
        c"stats.retained",
    ];
    let figures: Figures = NAMES
        .iter()
        .filter_map(|name| {
            let mut value = 0_usize;
            let mut length = mem::size_of_val(&value);
            // SAFETY: each of these is read into one `size_t`, whose size is passed along.
            let failed = unsafe {
                let out = (&raw mut value).cast();
                mallctl(name.as_ptr(), out, &raw mut length, ptr::null_mut(), 0)
            };
            (failed == 0).then(|| (name.to_str().unwrap_or(""), value as u64))
        })
        .collect();
    (!figures.is_empty()).then_some(figures)
}

fn mimalloc() -> Option<Figures> {
    type Info = unsafe extern "C" fn(
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
    );
    let address = symbol(c"mi_process_info")?;
    // SAFETY: mimalloc documents this signature for the name: eight out parameters.
    let info = unsafe { mem::transmute::<*mut c_void, Info>(address) };
    let mut words = [0_usize; 8];
    let [elapsed, user, system, rss, peak_rss, commit, peak_commit, faults] =
        words.each_mut().map(|word| &raw mut *word);
    // SAFETY: eight words of their own, all writable.
    unsafe { info(elapsed, user, system, rss, peak_rss, commit, peak_commit, faults) };
    Some(vec![("current_commit", words[5] as u64), ("peak_commit", words[6] as u64)])
}

fn tcmalloc() -> Option<Figures> {
    type Property = unsafe extern "C" fn(*const c_char, *mut usize) -> c_int;
    let address = symbol(c"MallocExtension_GetNumericProperty")?;
    // SAFETY: gperftools documents this signature for the name.
    let property = unsafe { mem::transmute::<*mut c_void, Property>(address) };
    const NAMES: [&CStr; 5] = [
        c"generic.current_allocated_bytes",
        c"generic.heap_size",
        c"tcmalloc.pageheap_free_bytes",
        c"tcmalloc.pageheap_unmapped_bytes",
        c"tcmalloc.current_total_thread_cache_bytes",
    ];
    let figures = NAMES.iter().filter_map(|name| {
        let mut value = 0;
        // SAFETY: the name is a C string and `value` one writable `size_t`.
        let known = unsafe { property(name.as_ptr(), &raw mut value) } != 0;
        known.then(|| (name.to_str().unwrap_or(""), value as u64))
    });
    Some(figures.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_states_what_it_holds() {
        let figures = of_libc();
        assert!(figures.iter().any(|(name, value)| name == "arena" && *value > 0), "{figures:?}");
        assert!(read().is_empty(), "no other allocator is loaded here");
    }
}
