//! The malloc family by address, and the null allocator.
//!
//! The addresses come from the dynamic linker, so they are those of the preloaded library, if one
//! is preloaded. A library that exports `malloc` but leaves out, say, `memalign` must not have its
//! gap filled by libc: memory of one would be freed by the other. Such calls are *missing*.

use std::ffi::{CStr, c_int, c_void};

use serde::{Deserialize, Serialize};

/// Whose functions are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallSet {
    /// The process's own: what a preloaded library offers, else libc's.
    #[default]
    Process,
    /// Functions that do nothing and return one and the same address: the floor of the harness.
    /// Nothing is written to memory with them.
    Null,
}

type MallocFn = unsafe extern "C" fn(usize) -> *mut c_void;
type CallocFn = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type ReallocFn = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type FreeFn = unsafe extern "C" fn(*mut c_void);
type AlignedFn = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type PosixMemalignFn = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
type UsableFn = unsafe extern "C" fn(*mut c_void) -> usize;
type FreeSizedFn = unsafe extern "C" fn(*mut c_void, usize);
type SdallocxFn = unsafe extern "C" fn(*mut c_void, usize, c_int);

/// How a sized release is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SizedFree {
    FreeSized(FreeSizedFn),
    Sdallocx(SdallocxFn),
    Plain,
}

/// The malloc family by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) malloc: MallocFn,
    pub(crate) free: FreeFn,
    pub(crate) calloc: CallocFn,
    pub(crate) realloc: ReallocFn,
    pub(crate) memalign: Option<AlignedFn>,
    pub(crate) aligned_alloc: Option<AlignedFn>,
    pub(crate) posix_memalign: Option<PosixMemalignFn>,
    pub(crate) usable_size: Option<UsableFn>,
    pub(crate) sized_free: SizedFree,
    pub(crate) null: bool,
}

/// Which file serves a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The function's name.
    pub symbol: String,
    /// The file the dynamic linker took it from; empty where it is not known.
    pub file: String,
    /// Whether that is the file that serves `malloc`; the engine calls no other.
    pub same_as_malloc: bool,
}

/// Looks every function up that the engine may call, and says which file serves it.
#[must_use]
pub fn origins() -> Vec<Origin> {
    const NAMES: [&CStr; 11] = [
        c"malloc",
        c"free",
        c"calloc",
        c"realloc",
        c"memalign",
        c"aligned_alloc",
        c"posix_memalign",
        c"malloc_usable_size",
        c"free_sized",
        c"sdallocx",
        c"fork",
    ];
    let base = base_of(lookup(c"malloc"));
    NAMES
        .iter()
        .filter_map(|name| {
            let address = lookup(name);
            (!address.is_null()).then(|| Origin {
                symbol: name.to_string_lossy().into_owned(),
                file: file_of(address),
                same_as_malloc: base_of(address) == base,
            })
        })
        .collect()
}

fn lookup(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string; RTLD_DEFAULT asks the global scope.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

fn dl_info(address: *mut c_void) -> Option<libc::Dl_info> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is writable; any address may be asked about.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: zeroed is a valid `Dl_info` (null pointers), and dladdr only fills it in.
    (found != 0).then(|| unsafe { info.assume_init() })
}

fn base_of(address: *mut c_void) -> *mut c_void {
    dl_info(address).map_or(std::ptr::null_mut(), |info| info.dli_fbase)
}

fn file_of(address: *mut c_void) -> String {
    dl_info(address)
        .filter(|info| !info.dli_fname.is_null())
        // SAFETY: dladdr gives a C string that lives as long as the library is loaded.
        .map(|info| unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The address of a function if it comes from the file that serves `malloc`.
fn of_same_file(name: &CStr) -> Option<*mut c_void> {
    let address = lookup(name);
    let same = !address.is_null() && base_of(address) == base_of(lookup(c"malloc"));
    same.then_some(address)
}

impl Calls {
    /// The chosen functions, or the name of one that every allocator must have and this one has not.
    pub(crate) fn of(set: CallSet) -> Result<Calls, &'static str> {
        match set {
            CallSet::Process => Calls::process(),
            CallSet::Null => Ok(Calls::null()),
        }
    }

    fn process() -> Result<Calls, &'static str> {
        let malloc = of_same_file(c"malloc").ok_or("malloc")?;
        let free = of_same_file(c"free").ok_or("free")?;
        let calloc = of_same_file(c"calloc").ok_or("calloc")?;
        let realloc = of_same_file(c"realloc").ok_or("realloc")?;
        // SAFETY: the dynamic linker found these names, and the C standard, POSIX and the
        // manuals of glibc and jemalloc give them these signatures.
        unsafe {
            Ok(Calls {
                malloc: std::mem::transmute::<*mut c_void, MallocFn>(malloc),
                free: std::mem::transmute::<*mut c_void, FreeFn>(free),
                calloc: std::mem::transmute::<*mut c_void, CallocFn>(calloc),
                realloc: std::mem::transmute::<*mut c_void, ReallocFn>(realloc),
                memalign: of_same_file(c"memalign")
                    .map(|f| std::mem::transmute::<*mut c_void, AlignedFn>(f)),
                aligned_alloc: of_same_file(c"aligned_alloc")
                    .map(|f| std::mem::transmute::<*mut c_void, AlignedFn>(f)),
                posix_memalign: of_same_file(c"posix_memalign")
                    .map(|f| std::mem::transmute::<*mut c_void, PosixMemalignFn>(f)),
                usable_size: of_same_file(c"malloc_usable_size")
                    .map(|f| std::mem::transmute::<*mut c_void, UsableFn>(f)),
                sized_free: match (of_same_file(c"free_sized"), of_same_file(c"sdallocx")) {
                    (Some(f), _) => {
                        SizedFree::FreeSized(std::mem::transmute::<*mut c_void, FreeSizedFn>(f))
                    }
                    (None, Some(f)) => {
                        SizedFree::Sdallocx(std::mem::transmute::<*mut c_void, SdallocxFn>(f))
                    }
                    (None, None) => SizedFree::Plain,
                },
                null: false,
            })
        }
    }

    fn null() -> Calls {
        Calls {
            malloc: null::malloc,
            free: null::free,
            calloc: null::calloc,
            realloc: null::realloc,
            memalign: Some(null::aligned),
            aligned_alloc: Some(null::aligned),
            posix_memalign: None,
            usable_size: Some(null::usable),
            sized_free: SizedFree::Plain,
            null: true,
        }
    }

    /// Any aligned call; falls back among those the library has. NULL if it has none.
    ///
    /// # Safety
    /// `align` is a power of two.
    pub(crate) unsafe fn aligned(&self, align: usize, api: u8, size: usize) -> *mut c_void {
        // aligned_alloc asks for a multiple of the alignment; what is recorded may not be one.
        let strict = api == 1 && size.is_multiple_of(align);
        if strict && let Some(call) = self.aligned_alloc {
            // SAFETY: alignment by contract; the size is a multiple of it.
            return unsafe { call(align, size) };
        }
        if api == 2
            && let Some(call) = self.posix_memalign
        {
            let mut p = std::ptr::null_mut();
            let align = align.max(size_of::<usize>());
            // SAFETY: alignment by contract and at least a pointer's size; `p` is writable.
            let status = unsafe { call(&raw mut p, align, size) };
            return if status == 0 { p } else { std::ptr::null_mut() };
        }
        match (self.memalign, self.aligned_alloc, self.posix_memalign) {
            // SAFETY: alignment by contract.
            (Some(call), _, _) => unsafe { call(align, size) },
            (None, Some(call), _) => {
                let size = size.checked_next_multiple_of(align).unwrap_or(usize::MAX);
                // SAFETY: alignment by contract; the size is a multiple of it or cannot succeed.
                unsafe { call(align, size) }
            }
            (None, None, Some(call)) => {
                let mut p = std::ptr::null_mut();
                let align = align.max(size_of::<usize>());
                // SAFETY: as above.
                let status = unsafe { call(&raw mut p, align, size) };
                if status == 0 { p } else { std::ptr::null_mut() }
            }
            (None, None, None) => std::ptr::null_mut(),
        }
    }
}

/// The null allocator. Its functions are not inlined, since they are called by address.
mod null {
    use super::{c_void, ptr};

    /// One address for all: nobody reads or writes there.
    static PLACE: [u128; 4] = [0; 4];

    pub(super) unsafe extern "C" fn malloc(_: usize) -> *mut c_void {
        ptr()
    }
    pub(super) unsafe extern "C" fn free(_: *mut c_void) {}
    pub(super) unsafe extern "C" fn calloc(_: usize, _: usize) -> *mut c_void {
        ptr()
    }
    pub(super) unsafe extern "C" fn realloc(_: *mut c_void, _: usize) -> *mut c_void {
        ptr()
    }
    pub(super) unsafe extern "C" fn aligned(_: usize, _: usize) -> *mut c_void {
        ptr()
    }
    pub(super) unsafe extern "C" fn usable(_: *mut c_void) -> usize {
        0
    }
    pub(super) fn place() -> *mut c_void {
        (&raw const PLACE).cast_mut().cast()
    }
}

#[inline(always)]
fn ptr() -> *mut c_void {
    null::place()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_the_process_comes_from_the_file_that_serves_malloc() {
        let origins = origins();
        let malloc = &origins[0];
        assert_eq!(malloc.symbol, "malloc");
        assert!(malloc.file.contains("libc"), "{malloc:?}");
        let calls = Calls::of(CallSet::Process).unwrap();
        assert!(calls.memalign.is_some() && calls.usable_size.is_some());
    }

    #[test]
    fn aligned_calls_are_served_at_their_alignment_whatever_the_call() {
        let calls = Calls::of(CallSet::Process).unwrap();
        for api in 0..6 {
            // SAFETY: 256 is a power of two; the result is freed once.
            let address = unsafe {
                let p = calls.aligned(256, api, 100);
                (calls.free)(p);
                p.addr()
            };
            assert!(address != 0 && address.is_multiple_of(256), "api {api}");
        }
    }
}
