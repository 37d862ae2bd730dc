//! Link arguments of the library that is preloaded.
//!
//! Only with the feature `preload`, because cargo tells build scripts `panic=unwind` even under `panic=abort`, and a
//! plain workspace build (std, unwinding) must link without them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PRELOAD").is_none() {
        return;
    }
    for argument in [
        // The name that programs linked with -lallocator ask for, and that valgrind's somalloc matches.
        "-Wl,-soname,liballocator.so",
        // Threads that run our exit hooks may outlive dlclose: never unmap.
        "-Wl,-z,nodelete",
        // Our constructor first: it decides whether the break is ours before anybody allocates.
        "-Wl,-z,initfirst",
        // No lazy binding: the resolver may allocate.
        "-Wl,-z,now",
        // Every symbol is found at link time; a reachable panic names one that is not.
        "-Wl,-z,defs",
        // Calls among our own exports stay inside.
        "-Wl,-Bsymbolic",
        "-Wl,--as-needed",
        "-Wl,--gc-sections",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
