//! Memory: pages, swap, limits and cgroups.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use super::{Finding, read};
use crate::pressure::{self, Hierarchy};

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
    let tree = Hierarchy::of("cpu");
    let quotas = tree
        .iter()
        .flat_map(|tree| tree.groups().filter_map(move |group| quota(group, tree.unified)));
    match quotas.reduce(f64::min) {
        None => Finding::good("processor quota", "none", why),
        Some(least) => Finding::limits("processor quota", format!("{least:.2} processors"), why)
            .fix(
                "start the container without a processor limit, or with whole processors (cpuset)",
            ),
    }
}

/// Processors that a group may use on average; `None` where it may use all.
fn quota(group: &Path, unified: bool) -> Option<f64> {
    let says = |file: &str| fs::read_to_string(group.join(file)).ok();
    let text = match unified {
        true => says("cpu.max")?,
        false => format!("{} {}", says("cpu.cfs_quota_us")?, says("cpu.cfs_period_us")?),
    };
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(quota), Ok(period)) if quota > 0.0 && period > 0.0 => Some(quota / period),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_in_either_version_and_none_is_no_number() {
        let group = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(group.path().join(file), text).unwrap();
        assert_eq!(quota(group.path(), true), None, "the group at the top has no file");
        for (text, processors) in [("max 100000\n", None), ("50000 100000\n", Some(0.5))] {
            write("cpu.max", text);
            assert_eq!(quota(group.path(), true), processors, "{text}");
        }
        write("cpu.cfs_period_us", "100000\n");
        for (text, processors) in [("-1\n", None), ("150000\n", Some(1.5))] {
            write("cpu.cfs_quota_us", text);
            assert_eq!(quota(group.path(), false), processors, "{text}");
        }
    }
}
