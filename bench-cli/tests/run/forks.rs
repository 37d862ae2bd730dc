//! Forks of a trace under allocators that do not survive them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{bump_allocator, fails, library};

const TRACE: &str = "ns,tid,op,ptr,old,size,align\n\
    ,1,malloc,0x1000,,16,\n,1,fork,,,0,\n,1,free,0x1000,,,\n";

/// A trace that forks once, and the library of an allocator that does `hook` in the child.
fn forking(home: &Path, name: &str, hook: &str) -> Option<[String; 2]> {
    let trace = home.join("forks.csv");
    fs::write(&trace, TRACE).unwrap();
    let hook = format!(
        "extern int getpid(void); static int owner; if (!owner) owner = getpid(); \
         if (owner != getpid()) {{ {hook} }}"
    );
    let library = library(home, name, &bump_allocator(&hook), &[])?;
    Some([trace.to_str().unwrap().to_owned(), library.to_str().unwrap().to_owned()])
}

#[test]
fn an_allocator_that_breaks_in_a_forked_child_broke_its_promise() {
    let home = tempfile::tempdir().unwrap();
    for (name, hook, how) in [
        ("crash", "__builtin_trap();", "a forked child was ended by signal"),
        ("none", "__atomic_store_n(&lock, 0, __ATOMIC_RELEASE); return 0;", "could not allocate"),
    ] {
        let Some([trace, library]) = forking(home.path(), name, hook) else { return };
        let args = ["run", &trace, "-a", &library, "--pass", "throughput", "--runs", "1"];
        fails(home.path(), &args, 6, &["broke promise", how]);
    }
}

#[test]
fn a_child_that_hangs_ends_with_its_worker() {
    let home = tempfile::tempdir().unwrap();
    let hook = format!(
        "extern int sprintf(char *, const char *, ...); extern int creat(const char *, int); \
         extern int pause(void); char name[4096]; \
         sprintf(name, \"{}/child-%d\", getpid()); creat(name, 0600); for (;;) pause();",
        home.path().display()
    );
    let Some([trace, library]) = forking(home.path(), "hang", &hook) else { return };
    let args = ["run", &trace, "-a", &library, "--pass", "throughput", "--runs", "1"];
    fails(home.path(), &[&args[..], &["--timeout", "1s"]].concat(), 6, &["hang.so hung"]);
    let names = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name());
    let child = names.filter_map(|n| n.to_str()?.strip_prefix("child-").map(str::to_owned)).next();
    let alive = format!("/proc/{}/exe", child.expect("the child hung"));
    // Whoever inherits it may take a while to bury it; without an end it would hang for ever.
    for _ in 0..6000 {
        if fs::read_link(&alive).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{alive} is still there");
}
