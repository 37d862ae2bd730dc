//! Takes memory away from this process, just before the engine starts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use workloads::engine::STACK;

use crate::pressure::{Limit, Means};

/// A figure of `/proc/self/status` in bytes; 0 where it is not there.
fn status_bytes(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A limit in force; gone with it, as far as it can be lifted: what the harness has to tell after the
/// run is not the allocator's, and would end its process in a group that is full.
#[derive(Debug)]
pub(super) enum Limited {
    /// None of the kernel's.
    Nothing,
    /// What a resource was limited to before.
    Resource(libc::__rlimit_resource_t, libc::rlimit),
    /// Files of a group that hold its limits, in the order in which they can be lifted, and the word
    /// for no limit.
    Group([PathBuf; 2], &'static str),
}

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
            Ok(of_group(group))
        }
        (Means::Cgroup, None) => Err(io::Error::other("no cgroup was made for it")),
        (Means::AddressSpace, _) => {
            set(libc::RLIMIT_AS, status_bytes("VmSize:") + limit.bytes + stacks)
        }
        (Means::Data, _) => set(libc::RLIMIT_DATA, status_bytes("VmData:") + limit.bytes + stacks),
        _ => Ok(Limited::Nothing),
    }
}

/// The limits of a group, of version 2 or 1: memory together with swap is never less than memory.
fn of_group(group: &Path) -> Limited {
    match group.join("memory.max") {
        max if max.exists() => Limited::Group([group.join("memory.swap.max"), max], "max"),
        _ => {
            let files = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"];
            Limited::Group(files.map(|file| group.join(file)), "-1")
        }
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
        0 => Ok(Limited::Resource(resource, before)),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        match self {
            Limited::Nothing => {}
            Limited::Resource(resource, before) => {
                // SAFETY: reads one structure; raising the soft limit to the hard one is allowed.
                unsafe { libc::setrlimit(*resource, before) };
            }
            Limited::Group(files, none) => {
                for file in files {
                    // Where swap is not accounted for, its file is not there.
                    let _ = fs::OpenOptions::new()
                        .write(true)
                        .open(file)
                        .and_then(|mut file| file.write_all(none.as_bytes()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Cgroup;

    #[test]
    fn a_limit_of_a_group_is_lifted_when_the_run_is_over() {
        let group = match Cgroup::new(64 << 20) {
            Ok(group) => group,
            Err(refusal) => return eprintln!("skipped: {refusal}"),
        };
        let limited = of_group(group.path());
        let Limited::Group([_, file], _) = &limited else { panic!("{limited:?}") };
        let file = file.clone();
        let limit = || fs::read_to_string(&file).unwrap().trim().to_owned();
        assert_eq!(limit(), (64 << 20).to_string());
        drop(limited);
        assert!(limit().parse::<u64>().map_or(limit() == "max", |most| most > 1 << 60));
    }
}
