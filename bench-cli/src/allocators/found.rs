//! Peers on this machine: well-known allocator libraries where the dynamic linker looks.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::exports_malloc;

/// A well-known allocator: its name here, and the file names it is installed under, of those in one
/// folder the best first.
struct Known {
    name: &'static str,
    files: &'static [&'static str],
}

/// Builds for debugging and variants that only profile are left out on purpose.
const KNOWN: [Known; 12] = [
    Known { name: "jemalloc", files: &["libjemalloc.so.2", "libjemalloc.so.1", "libjemalloc.so"] },
    Known {
        name: "mimalloc",
        files: &["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.1", "libmimalloc.so"],
    },
    Known { name: "mimalloc2", files: &["libmimalloc2.so"] },
    Known {
        name: "tcmalloc",
        files: &["libtcmalloc_minimal.so.4", "libtcmalloc_minimal.so", "libtcmalloc.so"],
    },
    Known { name: "snmalloc", files: &["libsnmallocshim.so", "libsnmalloc.so"] },
    Known { name: "rpmalloc", files: &["librpmallocwrap.so", "librpmalloc.so"] },
    Known { name: "smalloc", files: &["libsmalloc.so", "libsmmalloc.so"] },
    Known { name: "hoard", files: &["libhoard.so"] },
    Known { name: "mesh", files: &["libmesh.so"] },
    Known { name: "scudo", files: &["libscudo.so", "libclang_rt.scudo_standalone-x86_64.so"] },
    Known { name: "hardened_malloc", files: &["libhardened_malloc.so"] },
    Known { name: "tbbmalloc", files: &["libtbbmalloc_proxy.so.2", "libtbbmalloc_proxy.so"] },
];

/// Names that are known, found or not.
pub(super) fn known_names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// A peer that lies on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name on the command line.
    pub name: &'static str,
    /// Its library, links resolved.
    pub path: PathBuf,
}

/// Every well-known allocator found on this machine, in a fixed order.
#[must_use]
pub fn peers() -> Vec<Peer> {
    let folders = search_folders();
    KNOWN.iter().filter_map(|known| find(known, &folders)).collect()
}

fn find(known: &Known, folders: &[PathBuf]) -> Option<Peer> {
    let candidates = folders.iter().flat_map(|d| known.files.iter().map(move |f| d.join(f)));
    candidates
        .filter_map(|path| path.canonicalize().ok())
        .find(|path| exports_malloc(path).is_ok())
        .map(|path| Peer { name: known.name, path })
}

/// Where the libraries of `ci/peers` are, seen from the source tree.
const BUILT_FROM_SOURCE: &str = "ci/peers/target/lib";

/// Where the dynamic linker looks, after the folders named by `BENCH_CLI_PEERS` (a list like
/// `PATH`) and those of `ci/peers`, which hold libraries built from source.
fn search_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(own) = env::var_os("BENCH_CLI_PEERS") {
        folders.extend(env::split_paths(&own));
    }
    folders.push(PathBuf::from(BUILT_FROM_SOURCE));
    let mut seen = BTreeSet::new();
    read_linker_config(Path::new("/etc/ld.so.conf"), &mut folders, &mut seen);
    for multiarch in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        for base in ["/usr/local/lib", "/lib", "/usr/lib"] {
            folders.push(Path::new(base).join(multiarch));
        }
    }
    folders.extend(
        ["/usr/local/lib64", "/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
            .map(PathBuf::from),
    );
    let mut known = BTreeSet::new();
    folders.retain(|folder| {
        folder.canonicalize().is_ok_and(|real| real.is_dir() && known.insert(real))
    });
    folders
}

/// Follows `/etc/ld.so.conf` and what it includes.
fn read_linker_config(path: &Path, folders: &mut Vec<PathBuf>, seen: &mut BTreeSet<PathBuf>) {
    if !seen.insert(path.to_path_buf()) {
        return;
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        if let Some(pattern) = line.strip_prefix("include ") {
            for included in expand(Path::new(pattern.trim())) {
                read_linker_config(&included, folders, seen);
            }
        } else if line.starts_with('/') {
            folders.push(PathBuf::from(line));
        }
    }
}

/// The files that `DIR/*SUFFIX` names: the only pattern that distributions use here.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let Some(suffix) = name.strip_prefix('*') else { return vec![pattern.to_path_buf()] };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(suffix)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_one_wins_and_in_a_folder_the_best_name() {
        let home = tempfile::tempdir().unwrap();
        let ours = crate::allocators::names::resolve("ours").unwrap().preload.unwrap();
        let folders = ["built", "installed"].map(|name| home.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        let known = Known { name: "it", files: &["libit.so.2", "libit.so"] };
        let put = |folder: usize, file: &str| {
            fs::copy(&ours, folders[folder].join(file)).unwrap();
            find(&known, &folders).unwrap().path
        };
        assert!(put(1, "libit.so.2").ends_with("installed/libit.so.2"));
        assert!(put(0, "libit.so").ends_with("built/libit.so"));
        assert!(put(0, "libit.so.2").ends_with("built/libit.so.2"));
    }
}
