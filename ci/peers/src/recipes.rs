//! How each peer is built: which of its crate's files, with which flags.
//!
//! The flags are those the project's own build file uses for the library it means to be preloaded
//! (named per recipe); where it leaves the optimisation open, `-O3 -DNDEBUG`.

use std::fs;
use std::path::{Path, PathBuf};

/// One peer.
pub struct Recipe {
    /// Names the library: `lib<name>.so`.
    pub name: &'static str,
    /// The crate that carries the sources.
    pub package: &'static str,
    /// How the library comes to own malloc, for the reader of a table.
    pub exports: &'static str,
    /// What the environment needs for the allocator to work as its authors mean it to.
    pub environment: &'static str,
    /// The allocator's own version, from the sources and the crate's version.
    pub version: fn(&Path, &str) -> Result<String, String>,
    /// How to build it.
    pub how: How,
}

/// The two ways a peer is built.
pub enum How {
    /// Every file compiled with the same flags, then linked.
    Compile {
        /// Flags for C and C++; `{}` stands for the crate's folder.
        flags: &'static [&'static str],
        /// Flags for the link.
        link: &'static [&'static str],
        /// The files, from the crate's folder.
        files: fn(&Path) -> Result<Vec<PathBuf>, String>,
    },
    /// jemalloc's configure and make.
    Configure {
        /// Arguments of configure.
        arguments: &'static [&'static str],
    },
}

impl Recipe {
    /// The flags in one line, for the record.
    pub fn flags(&self) -> String {
        match self.how {
            How::Compile { flags, link, .. } => [flags, link].concat().join(" ").replace("{}/", ""),
            How::Configure { arguments } => format!("./configure {}", arguments.join(" ")),
        }
    }
}

/// All peers.
pub fn all() -> Vec<Recipe> {
    vec![
        Recipe {
            name: "mimalloc",
            package: "libmimalloc-sys",
            exports: "its own override (MI_MALLOC_OVERRIDE), C++ operators included",
            environment: "",
            version: |source, _| mimalloc_version(source, "v3"),
            how: How::Compile {
                flags: MIMALLOC_3,
                link: &["-lpthread"],
                files: |source| Ok(vec![source.join("c_src/mimalloc/v3/src/static.c")]),
            },
        },
        Recipe {
            name: "mimalloc2",
            package: "libmimalloc-sys",
            exports: "its own override (MI_MALLOC_OVERRIDE), C++ operators included",
            environment: "",
            version: |source, _| mimalloc_version(source, "v2"),
            how: How::Compile {
                flags: MIMALLOC_2,
                link: &["-lpthread"],
                files: |source| Ok(vec![source.join("c_src/mimalloc/v2/src/static.c")]),
            },
        },
        Recipe {
            name: "jemalloc",
            package: "tikv-jemalloc-sys",
            exports: "its own symbols without a prefix, C++ operators by its jemalloc_cpp.cpp",
            environment: "",
            version: |_, crate_version| {
                let upstream = crate_version.split_once('+').ok_or("no version after the +")?.1;
                Ok(upstream.split('-').next().unwrap_or(upstream).to_owned())
            },
            how: How::Configure {
                arguments: &[
                    "--enable-doc=no",
                    "--enable-static=no",
                    "--with-private-namespace=_je_",
                ],
            },
        },
        Recipe {
            name: "snmalloc",
            package: "snmalloc-sys",
            exports: "its own shim (override/malloc.cc and override/new.cc)",
            environment: "",
            version: |_, crate_version| Ok(crate_version.to_owned()),
            how: How::Compile {
                flags: SNMALLOC,
                link: &["-static-libstdc++", "-pthread"],
                files: |source| {
                    let folder = source.join("upstream/src/snmalloc/override");
                    Ok(vec![folder.join("malloc.cc"), folder.join("new.cc")])
                },
            },
        },
        Recipe {
            name: "rpmalloc",
            package: "rpmalloc-sys",
            exports: "its own wrapper (ENABLE_PRELOAD, ENABLE_OVERRIDE: malloc.c inside rpmalloc.c)",
            environment: "",
            version: |source, _| {
                let changes = read(&source.join("rpmalloc/CHANGELOG"))?;
                Ok(changes.lines().next().unwrap_or_default().trim().to_owned())
            },
            how: How::Compile {
                flags: RPMALLOC,
                link: &["-lpthread", "-ldl"],
                files: |source| Ok(vec![source.join("rpmalloc/rpmalloc/rpmalloc.c")]),
            },
        },
        Recipe {
            name: "tcmalloc",
            package: "libtcmalloc-sys",
            exports: "its own libc_override.h (tcmalloc.cc without TCMALLOC_INTERNAL_METHODS_ONLY)",
            // Its per-CPU caches need rseq, which glibc registers for itself otherwise.
            environment: "GLIBC_TUNABLES=glibc.pthread.rseq=0",
            version: |_, crate_version| {
                Ok(format!("google/tcmalloc of libtcmalloc-sys {crate_version}"))
            },
            how: How::Compile { flags: TCMALLOC, link: &["-lpthread"], files: tcmalloc_files },
        },
    ]
}

// mimalloc's CMakeLists.txt, target `mimalloc` (shared, MI_OVERRIDE=ON, release).
const MIMALLOC_3: &[&str] = &[
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fno-builtin-malloc",
    "-DMI_SHARED_LIB",
    "-DMI_SHARED_LIB_EXPORT",
    "-DMI_MALLOC_OVERRIDE",
    "-DMI_BUILD_RELEASE",
    "-I{}/c_src/mimalloc/v3/include",
    "-I{}/c_src/mimalloc/v3/src",
];
const MIMALLOC_2: &[&str] = &[
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fno-builtin-malloc",
    "-DMI_SHARED_LIB",
    "-DMI_SHARED_LIB_EXPORT",
    "-DMI_MALLOC_OVERRIDE",
    "-DMI_BUILD_RELEASE",
    "-I{}/c_src/mimalloc/v2/include",
    "-I{}/c_src/mimalloc/v2/src",
];
// snmalloc's CMakeLists.txt, target `snmallocshim` (release).
const SNMALLOC: &[&str] = &[
    "-std=c++20",
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fomit-frame-pointer",
    "-ffunction-sections",
    "-mcx16",
    "-mprfchw",
    "-pthread",
    "-DSNMALLOC_EXPORT=__attribute__((visibility(\"default\")))",
    "-DSNMALLOC_USE_CXX_DESTRUCTORS",
    "-DSNMALLOC_USE_WAIT_ON_ADDRESS=1",
    "-DSNMALLOC_CHECK_LOADS=false",
    "-DSNMALLOC_PAGEID=false",
    "-I{}/upstream/src",
];
// rpmalloc's configure.py, target `rpmallocwrap`, config `release`.
const RPMALLOC: &[&str] = &[
    "-std=gnu11",
    "-O3",
    "-funroll-loops",
    "-DNDEBUG",
    "-DBUILD_RELEASE=1",
    "-D_GNU_SOURCE=1",
    "-fPIC",
    "-fno-builtin-malloc",
    "-ftls-model=initial-exec",
    "-DENABLE_PRELOAD=1",
    "-DENABLE_OVERRIDE=1",
    "-I{}/rpmalloc/rpmalloc",
];
// libtcmalloc-sys's build.rs (tcmalloc itself builds with Bazel only), 8 KiB pages.
const TCMALLOC: &[&str] = &[
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-DNOMINMAX",
    "-DTCMALLOC_INTERNAL_8K_PAGES",
    "-ftls-model=initial-exec",
    "-fno-builtin-malloc",
    "-I{}/c_src/abseil-cpp",
    "-I{}/c_src/tcmalloc",
];

fn mimalloc_version(source: &Path, line: &str) -> Result<String, String> {
    let header = read(&source.join("c_src/mimalloc").join(line).join("include/mimalloc.h"))?;
    let number: u32 = header
        .lines()
        .find_map(|line| line.strip_prefix("#define MI_MALLOC_VERSION"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or("mimalloc.h has no MI_MALLOC_VERSION")?;
    Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

/// The files its crate compiles, with the file that exports malloc in place of the Rust bridge.
fn tcmalloc_files(source: &Path) -> Result<Vec<PathBuf>, String> {
    let script = read(&source.join("build.rs"))?;
    let mut files: Vec<PathBuf> = script
        .split('"')
        .filter(|text| {
            text.starts_with("c_src/") && (text.ends_with(".cc") || text.ends_with(".S"))
        })
        .filter(|text| !text.ends_with("bridge.cc"))
        .map(|file| source.join(file))
        .collect();
    if files.len() < 50 {
        return Err(format!("found only {} files in its build.rs", files.len()));
    }
    files.push(source.join("c_src/tcmalloc/tcmalloc/tcmalloc.cc"));
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("failed to read {}: {e}", path.display()))
}
