//! Takes memory away from this process, just before the engine starts.

use std::fs;
use std::io;

use crate::pressure::{Limit, Means};

/// Resident bytes of this process now.
pub(super) fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// A figure of `/proc/self/status` in bytes; 0 where it is not there.
fn status_bytes(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Puts this process under `limit`. What it has already does not count.
///
/// # Errors
/// What the kernel says.
pub(super) fn apply(limit: &Limit) -> io::Result<()> {
    match (limit.means, &limit.cgroup) {
        (Means::Cgroup, Some(group)) => {
            // Pages stay charged to the group they were touched in: only new ones count here.
            fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        }
        (Means::Cgroup, None) => Err(io::Error::other("no cgroup was made for it")),
        (Means::AddressSpace, _) => set(libc::RLIMIT_AS, status_bytes("VmSize:"), limit),
        (Means::Data, _) => set(libc::RLIMIT_DATA, status_bytes("VmData:"), limit),
    }
}

fn set(resource: libc::__rlimit_resource_t, has: u64, limit: &Limit) -> io::Result<()> {
    let most = has + limit.bytes + limit.allowance;
    let wanted = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: reads one structure.
    match unsafe { libc::setrlimit(resource, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
