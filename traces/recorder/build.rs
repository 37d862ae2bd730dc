//! Link arguments of the preload library; by a feature, because cargo reports `panic=unwind` to
//! build scripts even under `panic=abort`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PRELOAD").is_some() {
        // Undefined symbols are errors, so that a reachable panic does not link.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
        // Wrapped functions are called until the very end of the process.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,now");
    }
}
