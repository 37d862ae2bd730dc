//! The formats a trace can be read from or written to.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $title:literal;)*) => {
        /// A trace format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Format {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Format {
            /// All of them.
            pub const ALL: &[Format] = &[$(Format::$variant,)*];

            /// The name used on command lines and in files.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Format::$variant => $name,)* }
            }

            /// The name used in sentences.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Format::$variant => $title,)* }
            }
        }
    };
}

formats! {
    /// Our own container.
    Container = "container", "container";
    /// Android `memory_replay` text.
    Android = "android", "Android memory_replay";
    /// Mozilla `logalloc`, raw or munged.
    Logalloc = "logalloc", "Mozilla logalloc";
    /// glibc `mtrace(3)`.
    Mtrace = "mtrace", "glibc mtrace";
    /// glibc-malloc-trace-utils binary records.
    GlibcBinary = "glibc-binary", "glibc-malloc-trace-utils";
    /// glibc trace workload (`.wl`).
    Workload = "wl", "glibc workload";
    /// Protobuf `Tracefile`.
    Protobuf = "protobuf", "protobuf";
    /// `valgrind --trace-malloc=yes` output.
    Valgrind = "valgrind", "valgrind --trace-malloc";
    /// heaptrack, raw.
    HeaptrackRaw = "heaptrack-raw", "heaptrack (raw)";
    /// heaptrack, interpreted.
    Heaptrack = "heaptrack", "heaptrack";
    /// WebKit MallocBench `.ops`.
    Ops = "ops", "WebKit MallocBench";
    /// `ltrace -f -ttt` text.
    Ltrace = "ltrace", "ltrace";
    /// CSV with the columns `ns,tid,op,ptr,old,size,align`.
    Csv = "csv", "CSV";
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// A name that is no [`Format`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown trace format `{0}`")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Format::ALL
            .iter()
            .copied()
            .find(|format| format.name() == name)
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}
