//! What the tests of the command line share: the binary, a tiny trace, libraries made on the spot.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary, in an environment of its own: nothing it unpacks or writes meets another test.
pub(crate) fn bench_cli(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).env("RUST_BACKTRACE", "1");
    command.env_remove("LD_PRELOAD");
    command
}

/// Runs the binary and returns its status, standard output and standard error.
pub(crate) fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = bench_cli(home).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Checks that `args` end with `code` and a message that holds every one of `words`, without a
/// backtrace.
#[track_caller]
pub(crate) fn fails(home: &Path, args: &[&str], code: i32, words: &[&str]) -> String {
    let (status, stdout, stderr) = run(home, args);
    assert_eq!(status, code, "{args:?}\nstdout: {stdout}\nstderr: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
    for trace in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!stderr.contains(trace), "{stderr}");
    }
    stderr
}

/// A trace of two threads and `pairs` pairs of calls each, in the text form of Android's
/// memory_replay.
pub(crate) fn trace(home: &Path, pairs: u64) -> PathBuf {
    let mut text = String::new();
    for i in 0..pairs {
        let thread = 1 + i % 2;
        let address = 0x1000 + (i % 64) * 0x100;
        if i >= 64 {
            text.push_str(&format!("{thread}: free {address:#x}\n"));
        }
        text.push_str(&format!("{thread}: malloc {address:#x} {}\n", 16 + i % 200));
    }
    let path = home.join("tiny.txt");
    fs::write(&path, text).unwrap();
    path
}

/// Compiles C `source` to a shared library; `None` (said aloud) where there is no compiler.
pub(crate) fn library(home: &Path, name: &str, source: &str, args: &[&str]) -> Option<PathBuf> {
    let (c, so) = (home.join(format!("{name}.c")), home.join(format!("{name}.so")));
    fs::write(&c, source).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-o"])
        .arg(&so)
        .arg(&c)
        .args(args)
        .status();
    match compiled {
        Ok(status) => {
            assert!(status.success(), "{name} does not compile");
            Some(so)
        }
        Err(error) => {
            eprintln!("skipped: no C compiler ({error})");
            None
        }
    }
}

/// A whole allocator in C: bump allocation with a size in front, nothing ever given back. `hook`
/// is executed at each malloc, where `n` is their number so far.
pub(crate) fn bump_allocator(hook: &str) -> String {
    format!(
        r#"
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
static char *next, *end; static int lock; static unsigned long n;
void *malloc(size_t size) {{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {{}}
    n++;
    size_t need = (size + 31) & ~(size_t)15;
    if ((size_t)(end - next) < need) {{
        size_t chunk = need > 1 << 22 ? need : 1 << 22;
        next = mmap(0, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        end = next + chunk;
    }}
    char *p = next + 16; next += need; *(size_t *)(p - 16) = size;
    {hook}
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    return p;
}}
void free(void *p) {{ (void)p; }}
void *calloc(size_t a, size_t b) {{ return malloc(a * b); }}
void *realloc(void *p, size_t size) {{
    void *q = malloc(size);
    if (p) {{ size_t old = ((size_t *)p)[-2]; memcpy(q, p, old < size ? old : size); }}
    return q;
}}
void *aligned_alloc(size_t a, size_t size) {{
    char *p = malloc(size + a);
    char *q = (char *)(((uintptr_t)p + a - 1) & ~(uintptr_t)(a - 1));
    if (q != p) ((size_t *)q)[-2] = size;
    return q;
}}
void *memalign(size_t a, size_t size) {{ return aligned_alloc(a, size); }}
int posix_memalign(void **p, size_t a, size_t size) {{ *p = aligned_alloc(a, size); return 0; }}
size_t malloc_usable_size(void *p) {{ return p ? ((size_t *)p)[-2] : 0; }}
"#
    )
}

/// Lines of a CSV file as maps from column to field.
pub(crate) fn rows(path: &Path) -> Vec<std::collections::BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}
