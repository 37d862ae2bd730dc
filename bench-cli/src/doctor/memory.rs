//! Memory: pages, swap, limits and cgroups.
#![forbid(unsafe_code)]

use super::{Finding, read};
use crate::pressure;

pub(super) fn huge_pages() -> Finding {
    let why = "with huge pages always on, the kernel decides about speed and resident memory";
    let text = read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    match text.split(['[', ']']).nth(1) {
        Some(mode @ ("madvise" | "never")) => Finding::good("huge pages", mode, why),
        Some(mode) => Finding::limits("huge pages", mode, why)
            .fix_as_root("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        None => Finding::unknown("huge pages", "not visible", why),
    }
}

pub(super) fn swap() -> Finding {
    let why = "memory that is swapped out is neither fast nor resident";
    let devices = read("/proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    match devices {
        0 => Finding::good("swap", "none", why),
        n => Finding::limits("swap", format!("{n} in use"), why).fix_as_root("swapoff -a"),
    }
}

pub(super) fn overcommit() -> Finding {
    let why = "an allocator that reserves address space ahead fails where the kernel counts it";
    match read("/proc/sys/vm/overcommit_memory").as_deref() {
        Some("2") => Finding::limits("overcommit", "strict", why)
            .fix_as_root("sysctl vm.overcommit_memory=0"),
        Some("1") => Finding::good("overcommit", "always", why),
        Some(_) => Finding::good("overcommit", "heuristic", why),
        None => Finding::unknown("overcommit", "not visible", why),
    }
}

pub(super) fn cgroup_memory() -> Finding {
    let why = "--pressure limits memory by cgroup; without it an address-space limit has to do";
    match pressure::probe() {
        Ok(kind) => Finding::good("cgroup memory", format!("{kind} can be limited"), why),
        Err(refusal) => Finding::limits("cgroup memory", refusal.to_string(), why)
            .fix_as_root("run as root, or in a delegated cgroup: `systemd-run --user --scope -p Delegate=yes bench-cli …`"),
    }
}

pub(super) fn cgroup_processor() -> Finding {
    let why = "a processor quota stops all threads until the next period: latencies of 100 ms";
    let quota = read("/sys/fs/cgroup/cpu.max")
        .or_else(|| read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
        .map(|text| text.split(' ').next().unwrap_or("").to_owned());
    match quota.as_deref() {
        None | Some("max" | "-1" | "") => Finding::good("processor quota", "none", why),
        Some(quota) => Finding::limits("processor quota", format!("{quota} µs per period"), why)
            .fix(
                "start the container without a processor limit, or with whole processors (cpuset)",
            ),
    }
}
