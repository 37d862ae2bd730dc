//! Link arguments of the library that is preloaded.
//!
//! Only with the feature `preload`, because cargo tells build scripts `panic=unwind` even under `panic=abort`, and a
//! plain workspace build (std, unwinding) must link without them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PRELOAD").is_none() {
        return;
    }
    for (file, text, option) in [
        ("layout.ld", include_str!("layout.ld"), "-T,"),
        // Calls among our own exports stay inside, but of the names in this list.
        ("replaceable.ld", include_str!("replaceable.ld"), "--dynamic-list="),
    ] {
        println!("cargo::rerun-if-changed={file}");
        // A copy: cargo follows its own folder when a checkout is moved, and forgets the sources' path.
        let copy = format!("{}/{file}", std::env::var("OUT_DIR").unwrap_or_default());
        std::fs::write(&copy, text).unwrap_or_else(|error| {
            println!("cargo::error=cannot write {copy}: {error}");
        });
        println!("cargo::rustc-cdylib-link-arg=-Wl,{option}{copy}");
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
        // The kernel maps 64 KiB around a touched page: what ordinary processes run begins one such
        // stretch, and fills one (see layout.ld).
        "-Wl,-z,max-page-size=65536",
        "-Wl,-z,separate-code",
        "-Wl,--as-needed",
        "-Wl,--gc-sections",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
