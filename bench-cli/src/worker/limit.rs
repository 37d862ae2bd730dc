//! Takes memory away from this process, just before the engine starts.

use std::fs;
use std::io;

use workloads::engine::STACK;

use crate::pressure::{Limit, Means};

/// A figure of `/proc/self/status` in bytes; 0 where it is not there.
fn status_bytes(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A limit in force; gone with it, as far as it can be lifted.
#[derive(Debug)]
pub(super) struct Limited(Option<(libc::__rlimit_resource_t, libc::rlimit)>);

/// Puts this process under `limit`. What it has already does not count, nor do the stacks of the
/// `threads` that the plan has alive at once and of the harness's own two.
///
/// # Errors
/// What the kernel says.
pub(super) fn apply(limit: &Limit, threads: u64) -> io::Result<Limited> {
    // A stack comes with a guard page, and with what the C library maps along for a thread.
    let stacks = (threads + 2) * (STACK as u64 + (64 << 10));
    match (limit.means, &limit.cgroup) {
        (Means::Cgroup, Some(group)) => {
            // Pages stay charged to the group they were touched in: only new ones count here.
            fs::write(group.join("cgroup.procs"), std::process::id().to_string())?;
            Ok(Limited(None))
        }
        (Means::Cgroup, None) => Err(io::Error::other("no cgroup was made for it")),
        (Means::AddressSpace, _) => {
            set(libc::RLIMIT_AS, status_bytes("VmSize:") + limit.bytes + stacks)
        }
        (Means::Data, _) => set(libc::RLIMIT_DATA, status_bytes("VmData:") + limit.bytes + stacks),
        _ => Ok(Limited(None)),
    }
}

fn set(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<Limited> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `before` is writable.
    if unsafe { libc::getrlimit(resource, &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = libc::rlimit { rlim_cur: most.min(before.rlim_max), ..before };
    // SAFETY: reads one structure.
    match unsafe { libc::setrlimit(resource, &raw const wanted) } {
        0 => Ok(Limited(Some((resource, before)))),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some((resource, before)) = &self.0 {
            // SAFETY: reads one structure; raising the soft limit to the hard one is allowed.
            unsafe { libc::setrlimit(*resource, before) };
        }
    }
}
