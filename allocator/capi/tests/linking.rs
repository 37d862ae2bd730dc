//! What the shared library exports, how it is linked, and what its machine code looks like.

mod common;

use common::{available, hardened_library, run, shared_library};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Every name that a program may look for.
const EXPORTS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "cfree",
    "reallocarray",
    "free_sized",
    "free_aligned_sized",
    "malloc_trim",
    "mallopt",
    "mallinfo",
    "mallinfo2",
    "malloc_stats",
    "malloc_info",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_reallocarray",
    "__libc_mallinfo",
    "__libc_mallopt",
    "__libc_free",
    "__libc_cfree",
    "__libc_memalign",
    "__libc_valloc",
    "__libc_pvalloc",
    "__posix_memalign",
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "allocator_init",
    "allocator_stats",
    "allocator_cleanup",
    "allocator_check",
    "allocator_get_stats",
    "allocator_version",
    "allocator_configure",
    "allocator_report",
    "allocator_sample_dump",
    "allocator_heap_map",
    "allocator_on_fault",
];

/// What the hardened library has beside them: see `copies`.
const HARDENED_EXPORTS: &[&str] = &["memcpy", "memmove", "memset"];

/// Both libraries that are preloaded, and what each exports.
fn libraries() -> [(&'static Path, Vec<&'static str>); 2] {
    [
        (shared_library(), EXPORTS.to_vec()),
        (hardened_library(), [EXPORTS, HARDENED_EXPORTS].concat()),
    ]
}

/// The names of a shared library's dynamic symbols that `which` selects, sorted, without versions.
fn symbols(library: &Path, which: &str) -> Vec<String> {
    let outcome = run(Command::new("nm").args(["-D", which, "--format=posix"]).arg(library));
    outcome.expect_success("nm");
    let name = |line: &str| line.split([' ', '@']).next().map(str::to_owned);
    let mut names: Vec<String> = outcome.stdout.lines().filter_map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_library_exports_the_whole_c_and_cxx_face_and_nothing_else() {
    if !available("nm") {
        return;
    }
    for (library, mut expected) in libraries() {
        expected.sort_unstable();
        assert_eq!(symbols(library, "--defined-only"), expected, "{}", library.display());
    }
}

#[test]
fn every_further_name_that_libc_has_for_a_function_of_ours_is_ours_too() {
    // SAFETY: asks the loader by a terminated name, which libc has.
    let libc = unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        let address = libc::dlsym(libc::RTLD_DEFAULT, c"gnu_get_libc_version".as_ptr());
        assert!(libc::dladdr(address, &raw mut found) != 0, "libc is a library");
        std::ffi::CStr::from_ptr(found.dli_fname).to_str().expect("a path")
    };
    if !available("nm") {
        return;
    }
    let outcome =
        run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(libc));
    outcome.expect_success("nm");
    let defined: Vec<(&str, &str)> = outcome
        .stdout
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            Some((name.split('@').next()?, rest.split(' ').nth(1)?))
        })
        .collect();
    let is_ours = |name: &str| EXPORTS.contains(&name);
    let places: BTreeSet<&str> =
        defined.iter().filter(|(name, _)| is_ours(name)).map(|(_, place)| *place).collect();
    assert!(places.len() > 10, "{libc}: {places:?}");
    for (name, place) in &defined {
        assert!(is_ours(name) || !places.contains(place), "{libc} exports {name}");
    }
}

#[test]
fn the_library_imports_no_allocator_no_stdio_no_mutex_and_asks_the_kernel_for_memory_itself() {
    /// libc's wrappers set errno, and a tool that replaces them may allocate. (`sbrk` shares libc's
    /// idea of where the break is.)
    const KERNEL: &[&str] =
        &["mmap", "mmap64", "munmap", "madvise", "mremap", "brk", "mbind", "mprotect"];
    /// It allocates, and takes locks that the interrupted thread may hold. `fwrite` alone is there, for the
    /// stream that a caller passes to `malloc_info`.
    const STDIO: &[&str] = &[
        "printf",
        "fprintf",
        "dprintf",
        "vprintf",
        "vfprintf",
        "vdprintf",
        "sprintf",
        "snprintf",
        "vsnprintf",
        "vsprintf",
        "asprintf",
        "vasprintf",
        "puts",
        "fputs",
        "fputc",
        "putc",
        "putchar",
        "fflush",
        "fopen",
        "fopen64",
        "fdopen",
        "fclose",
        "fread",
        "fgets",
        "fgetc",
        "getline",
        "perror",
        "strerror",
        "setvbuf",
        "stdin",
        "stdout",
        "stderr",
    ];
    if !available("nm") {
        return;
    }
    for (library, exported) in libraries() {
        let imported = symbols(library, "--undefined-only");
        assert!(imported.iter().any(|name| name == "sbrk"), "the list is read: {imported:?}");
        let denied = |name: &&String| {
            // `_FORTIFY_SOURCE` has names of its own for the same functions.
            let bare = name.strip_prefix("__").and_then(|name| name.strip_suffix("_chk"));
            let listed = |name: &str| KERNEL.contains(&name) || STDIO.contains(&name);
            listed(name)
                || bare.is_some_and(listed)
                || exported.contains(&name.as_str())
                || name.starts_with("pthread_mutex_")
                || name.starts_with("_Unwind_")
                || name.starts_with("_Z")
        };
        let found: Vec<&String> = imported.iter().filter(denied).collect();
        assert!(found.is_empty(), "{} imports {found:?}", library.display());
    }
}

#[test]
fn the_library_binds_at_once_is_never_unmapped_and_needs_libc_alone() {
    if !available("readelf") {
        return;
    }
    let outcome = run(Command::new("readelf").args(["--wide", "--dynamic"]).arg(shared_library()));
    let lines =
        |word: &str| outcome.stdout.lines().filter(|line| line.contains(word)).collect::<Vec<_>>();
    assert!(
        lines("FLAGS_1").iter().any(|line| line.contains("NOW") && line.contains("NODELETE")),
        "{}",
        outcome.stdout
    );
    let needed = lines("NEEDED");
    assert!(
        needed.iter().all(|line| line.contains("libc.so") || line.contains("ld-linux")),
        "{needed:?}"
    );
}

#[test]
fn what_an_ordinary_process_runs_fits_in_the_64_kib_that_the_kernel_maps_at_once() {
    const STRETCH: u64 = 64 << 10;
    if !cfg!(target_arch = "x86_64") || !available("readelf") {
        return;
    }
    let outcome =
        run(Command::new("readelf").args(["--wide", "--section-headers"]).arg(shared_library()));
    outcome.expect_success("readelf");
    let address_of = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.contains(&format!(" {name} ")));
        let fields: Vec<&str> = line.expect("a section").split_whitespace().collect();
        let name_at = fields.iter().position(|field| *field == name).expect("its name");
        u64::from_str_radix(fields[name_at + 2], 16).expect("its address")
    };
    let (first, end) = (address_of(".init"), address_of(".text.seldom"));
    assert_eq!(first % STRETCH, 0);
    assert!(end - first <= STRETCH, "{} bytes: move what is seldom run (layout.ld)", end - first);
}

#[test]
fn malloc_takes_at_most_12_and_free_at_most_21_instructions() {
    if !cfg!(target_arch = "x86_64") || !available("objdump") {
        return;
    }
    let code = disassembly(shared_library());
    for (name, budget) in [("malloc", 12), ("_Znwm", 12), ("free", 21), ("_ZdlPv", 21)] {
        let (path, calls) = fast_path(&code, name);
        assert!(calls.is_empty(), "the fast path of {name} calls nothing: {calls:?}\n{path:#?}");
        assert!(
            path.len() <= budget,
            "{name} takes {} instructions, not {budget}:\n{path:#?}",
            path.len()
        );
        assert!(
            !path.iter().any(|line| line.contains("lock ") || line.contains("xchg")),
            "no atomics:\n{path:#?}"
        );
    }
}

#[test]
fn a_failing_operator_new_leaves_no_frame_behind_when_the_runtime_throws() {
    if !cfg!(target_arch = "x86_64") || !available("objdump") {
        return;
    }
    let code = disassembly(shared_library());
    let mut jumps = 0;
    for (name, body) in &code {
        for line in body.iter().filter(|line| line.text.contains("cxx_throw")) {
            // Inside cxx_throw itself the address is asked for by a call.
            if !name.contains("cxx_throw") {
                assert!(
                    line.text.starts_with('j'),
                    "{name} jumps, it does not call: {}",
                    line.text
                );
                jumps += 1;
            }
        }
    }
    assert!(
        jumps >= 6,
        "each of the 6 operators new that allocate reaches the runtime, not {jumps}"
    );
}

#[test]
fn what_a_program_may_define_for_itself_is_called_through_the_global_offset_table_by_few() {
    /// The forms that a program may define, as `replaceable.ld` has them, and who goes on in each with nothing before
    /// the jump but an argument's move.
    const FORMS: [(&str, &[&str]); 8] = [
        ("_Znwm", &["_Znam"]),
        ("_Znam", &[]),
        ("_ZdlPv", &["_ZdaPv", "_ZdlPvRKSt9nothrow_t", "_ZdlPvm"]),
        ("_ZdaPv", &["_ZdaPvRKSt9nothrow_t", "_ZdaPvm"]),
        ("_ZnwmSt11align_val_t", &["_ZnamSt11align_val_t"]),
        ("_ZnamSt11align_val_t", &[]),
        (
            "_ZdlPvSt11align_val_t",
            &[
                "_ZdaPvSt11align_val_t",
                "_ZdlPvmSt11align_val_t",
                "_ZdlPvSt11align_val_tRKSt9nothrow_t",
            ],
        ),
        (
            "_ZdaPvSt11align_val_t",
            &["_ZdaPvmSt11align_val_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t"],
        ),
    ];
    if !cfg!(target_arch = "x86_64") || !available("objdump") || !available("readelf") {
        return;
    }
    for (library, exported) in libraries() {
        let outcome = run(Command::new("readelf").args(["--wide", "--relocs"]).arg(library));
        outcome.expect_success("readelf");
        let entries: BTreeMap<&str, u64> = outcome
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.len() > 4 && exported.contains(&fields[4]))
            .map(|fields| (fields[4], u64::from_str_radix(fields[0], 16).expect("an address")))
            .collect();
        let expected: BTreeSet<&str> =
            FORMS.iter().map(|(name, _)| *name).chain(["realloc"]).collect();
        assert_eq!(entries.keys().copied().collect::<BTreeSet<_>>(), expected, "replaceable.ld");
        let code = disassembly(library);
        for (name, address) in &entries {
            let entry = format!("# {address:x} <");
            for (caller, body) in &code {
                let asks = body.iter().any(|line| line.text.contains(&entry));
                let may = match *name {
                    "realloc" => caller.contains("reallocarray"),
                    // Where no runtime catches what the program's form throws, `next` names that form.
                    _ => {
                        ["_Zn", "_Zd"].iter().any(|kind| caller.starts_with(kind))
                            || caller.contains("cxx_throw4next")
                    }
                };
                assert!(!asks || may, "{caller} asks for {name} in {}", library.display());
                let direct = format!(" <{name}>");
                let jumps = |line: &Line<'_>| line.text.starts_with(['j', 'c']);
                let called = body.iter().find(|line| jumps(line) && line.text.contains(&direct));
                assert!(called.is_none(), "{caller} goes past a definition of {name}: {called:?}");
            }
        }
        let is_hardened = library == hardened_library();
        for (name, callers) in FORMS {
            let entry = format!("# {:x} <", entries[name]);
            // In the hardened library sized forms look at the size first.
            for caller in callers.iter().filter(|caller| !is_hardened || !caller.contains("Pvm")) {
                let (path, _) = fast_path(&code, caller);
                let last = path.last().expect("an instruction");
                assert!(path.len() <= 2 && last.contains(&entry), "{caller} to {name}: {path:#?}");
            }
        }
    }
}

/// One instruction: its address and text.
#[derive(Debug)]
struct Line<'a> {
    address: u64,
    text: &'a str,
}

/// The machine code of each function, by name.
fn disassembly(library: &Path) -> BTreeMap<&'static str, Vec<Line<'static>>> {
    let mut objdump = Command::new("objdump");
    let outcome = run(objdump.args(["-d", "--no-show-raw-insn", "-M", "intel"]).arg(library));
    let text: &'static str = outcome.stdout.clone().leak();
    let mut functions = BTreeMap::new();
    let mut current = Vec::new();
    let mut aliases: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        if let Some(name) =
            line.strip_suffix(">:").and_then(|line| line.split_once(" <")).map(|(_, name)| name)
        {
            aliases = vec![name];
        } else if let Some((address, instruction)) = line.split_once(":\t") {
            if let Ok(address) = u64::from_str_radix(address.trim(), 16) {
                current.push(Line { address, text: instruction.trim() });
            }
        } else if let Some(&name) = aliases.first() {
            functions.insert(name, std::mem::take(&mut current));
            aliases.clear();
        }
    }
    functions
}

/// The instructions from the entry of `name` to its first `ret`, forward jumps to elsewhere not taken, and the calls
/// among them. A compiler puts the likely path first, so this is what an ordinary call executes.
fn fast_path(code: &BTreeMap<&str, Vec<Line<'_>>>, name: &str) -> (Vec<String>, Vec<String>) {
    // objdump prints one name per address; malloc may appear under an alias of the same code.
    let body = code.get(name).or_else(|| alias(name).iter().find_map(|other| code.get(other)));
    let body = body.unwrap_or_else(|| panic!("{name} is in the disassembly"));
    let mut path = Vec::new();
    for line in body {
        path.push(format!("{:x} {}", line.address, line.text));
        if line.text.starts_with("ret") || line.text.starts_with("jmp") {
            break;
        }
    }
    let calls = path.iter().filter(|line| line.contains(" call ")).cloned().collect();
    (path, calls)
}

/// Names that share the code of `name` when the linker or the optimiser merges equal functions.
fn alias(name: &str) -> &'static [&'static str] {
    match name {
        "malloc" => &["__libc_malloc"],
        "free" => &["cfree", "__libc_free"],
        _ => &[],
    }
}
