//! Builds the preload libraries that travel inside the binary.
//!
//! Stable cargo has no artifact dependencies, and an ordinary dependency would link our `malloc`
//! into the command line itself. So this script runs cargo once per library, each with a target
//! folder of its own below `OUT_DIR` (a shared one would wait for the lock that the outer cargo
//! holds, and the variants would overwrite one another), and `src/preload.rs` includes the bytes.
//!
//! Cost: one small crate with fat link-time optimisation per library, again only when a source of
//! it changed. A library that does not build does not stop the command line from building: it is
//! left out with a warning, and asking for it says so.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One library: the constant stem it gets in the generated source, and how it is built.
struct Variant {
    /// Prefix of the generated constants.
    constant: &'static str,
    /// Folder below `OUT_DIR`.
    folder: &'static str,
    /// Package to build.
    package: &'static str,
    /// Cargo features.
    features: &'static str,
    /// File that the build leaves behind.
    artifact: &'static str,
}

const VARIANTS: [Variant; 3] = [
    Variant {
        constant: "ALLOCATOR",
        folder: "preload-default",
        package: "allocator-capi",
        features: "preload",
        artifact: "liballocator.so",
    },
    Variant {
        constant: "HARDENED",
        folder: "preload-hardened",
        package: "allocator-capi",
        features: "preload,hardened",
        artifact: "liballocator.so",
    },
    Variant {
        constant: "RECORDER",
        folder: "preload-recorder",
        package: "trace-recorder",
        features: "preload",
        artifact: "libtrace_recorder.so",
    },
];

/// Everything the libraries are made of, relative to the workspace.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "allocator/Cargo.toml",
    "allocator/src",
    "allocator/capi",
    "traces/format",
    "traces/recorder",
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest.parent().expect("bench-cli stands in the workspace").to_path_buf();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let mut generated = String::new();
    for variant in &VARIANTS {
        let embedded = out.join(format!("{}.so", variant.folder));
        let failure = match build(variant, &workspace, &out) {
            Ok(library) => fs::copy(&library, &embedded).err().map(|e| e.to_string()),
            Err(why) => Some(why),
        };
        if let Some(why) = &failure {
            fs::write(&embedded, []).expect("OUT_DIR can be written");
            println!("cargo::warning={} is not embedded: {why}", variant.folder);
        }
        let bytes = fs::read(&embedded).expect("written above");
        generated.push_str(&format!(
            "/// The library as built from this source tree; empty if it did not build.\n\
             pub(super) static {0}: &[u8] = include_bytes!({1:?});\n\
             /// Hash of its content, the name of its folder in the cache.\n\
             pub(super) const {0}_HASH: &str = \"{2:016x}\";\n\
             /// Why it is empty.\n\
             pub(super) const {0}_FAILURE: &str = {3:?};\n",
            variant.constant,
            embedded.display().to_string(),
            fnv1a(&bytes),
            failure.unwrap_or_default(),
        ));
    }
    fs::write(out.join("preload_libraries.rs"), generated).expect("OUT_DIR can be written");
}

/// Builds one library and returns where it lies, or one line that says why there is none.
fn build(variant: &Variant, workspace: &Path, out: &Path) -> Result<PathBuf, String> {
    let target_dir = out.join(variant.folder);
    let target = env::var("TARGET").expect("cargo sets it");
    let result = Command::new(env::var_os("CARGO").expect("cargo sets it"))
        .current_dir(workspace)
        .args(["build", "--package", variant.package, "--lib", "--profile", "preload"])
        .args(["--features", variant.features, "--target", &target, "--target-dir"])
        .arg(&target_dir)
        // clippy's wrapper would check instead of compiling; the rest would change what is built.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .map_err(|e| format!("cargo does not start: {e}"))?;
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        let line = stderr.lines().find(|l| l.starts_with("error")).unwrap_or("cargo build failed");
        return Err(line.to_owned());
    }
    Ok(target_dir.join(target).join("preload").join(variant.artifact))
}

/// 64-bit FNV-1a: names a content, defends against nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
