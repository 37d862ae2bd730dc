//! One reader per foreign format: bytes in, [`Raw`](super::raw::Raw) records out.
//!
//! A reader knows its grammar and nothing about objects; the resolver does the rest. None trusts a
//! count or an offset it reads.

pub(crate) mod android;
mod bytes;
pub(crate) mod csv;
pub(crate) mod glibc_binary;
pub(crate) mod heaptrack;
pub(crate) mod logalloc;
pub(crate) mod ltrace;
pub(crate) mod mtrace;
pub(crate) mod ops;
pub(crate) mod protobuf;
pub(crate) mod valgrind;
pub(crate) mod workload;

use super::Census;

/// Keeps to one process of a file that holds several: the one asked for, or the first one seen.
pub(crate) struct OneProcess(pub(crate) Option<u64>);

impl OneProcess {
    /// Whether a record of `pid` is read; counts it otherwise.
    fn accepts(&mut self, pid: u64, census: &mut Census) -> bool {
        let accepted = *self.0.get_or_insert(pid) == pid;
        census.other_process += u64::from(!accepted);
        accepted
    }
}
