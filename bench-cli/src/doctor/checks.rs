//! Processor, kernel and environment.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Finding, read};

pub(super) fn governor() -> Finding {
    let why = "a governor that changes the frequency makes two runs differ";
    let mut seen = BTreeSet::new();
    for cpu in fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten() {
        let file = cpu.path().join("cpufreq/scaling_governor");
        seen.extend(fs::read_to_string(file).ok().map(|text| text.trim().to_owned()));
    }
    let shown = seen.iter().cloned().collect::<Vec<_>>().join(", ");
    if seen.is_empty() {
        return Finding::unknown("governor", "not visible: the host of this machine decides", why);
    }
    if seen.iter().all(|governor| governor == "performance") {
        return Finding::good("governor", shown, why);
    }
    Finding::limits("governor", shown, why).fix_as_root("cpupower frequency-set -g performance")
}

pub(super) fn boost() -> Finding {
    let why = "boost clocks depend on heat and on what the neighbours do";
    let intel = read("/sys/devices/system/cpu/intel_pstate/no_turbo");
    let generic = read("/sys/devices/system/cpu/cpufreq/boost");
    let (on, fix) = match (intel.as_deref(), generic.as_deref()) {
        (Some(value), _) => {
            (value == "0", "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo")
        }
        (_, Some(value)) => (value == "1", "echo 0 > /sys/devices/system/cpu/cpufreq/boost"),
        _ => return Finding::unknown("boost", "not visible: the host decides", why),
    };
    match on {
        true => Finding::limits("boost", "on", why).fix_as_root(fix),
        false => Finding::good("boost", "off", why),
    }
}

pub(super) fn smt() -> Finding {
    let why = "two threads on one core share its caches and units";
    match read("/sys/devices/system/cpu/smt/active").as_deref() {
        Some("0") => Finding::good("smt", "off", why),
        Some("1") => Finding::limits("smt", "on", why).fix_as_root(
            "echo off > /sys/devices/system/cpu/smt/control, or --cpus with one of each pair",
        ),
        _ => Finding::unknown("smt", "not visible", why),
    }
}

pub(super) fn processors() -> Finding {
    let why = "workloads with more threads than processors measure the scheduler too";
    let usable = thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{usable} usable");
    if usable >= 4 {
        return Finding::good("processors", found, why);
    }
    Finding::limits("processors", found, why)
        .fix("read results of more threads than that as advice, not as verdicts")
}

pub(super) fn load() -> Finding {
    let why = "other work on this machine takes time, caches and memory bandwidth";
    let Some(text) = read("/proc/loadavg") else {
        return Finding::unknown("load", "no /proc/loadavg", why);
    };
    let load: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let found = format!("{load:.1} over the last minute");
    if load < 0.5 {
        return Finding::good("load", found, why);
    }
    Finding::limits("load", found, why).fix("stop what runs beside: `top` shows it")
}

pub(super) fn steal() -> Finding {
    let why = "time that the host gave to other guests is missing in the middle of a run";
    let Some(before) = processor_times() else {
        return Finding::unknown("steal", "no /proc/stat", why);
    };
    thread::sleep(Duration::from_millis(500));
    let Some(after) = processor_times() else {
        return Finding::unknown("steal", "no /proc/stat", why);
    };
    let all = after.0.saturating_sub(before.0).max(1);
    let stolen = after.1.saturating_sub(before.1) as f64 / all as f64 * 100.0;
    let since_boot = after.1 as f64 / after.0.max(1) as f64 * 100.0;
    let found = format!("{stolen:.1} % just now, {since_boot:.2} % since boot");
    if stolen < 1.0 && since_boot < 1.0 {
        return Finding::good("steal", found, why);
    }
    Finding::limits("steal", found, why).fix("use a machine of your own, or more rounds (--runs)")
}

/// All processor time and the stolen part of it, in ticks.
fn processor_times() -> Option<(u64, u64)> {
    let text = read("/proc/stat")?;
    let line = text.lines().next()?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
    Some((ticks.iter().take(8).sum(), *ticks.get(7)?))
}

pub(super) fn clock() -> Finding {
    let why = "single operations take nanoseconds; the timer must cost less and never jump";
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".to_owned());
    let flags = read("/proc/cpuinfo").unwrap_or_default();
    let invariant = flags.contains("constant_tsc") && flags.contains("nonstop_tsc");
    let found = match invariant {
        true => format!("invariant time-stamp counter, clock source {source}"),
        false => format!("no invariant time-stamp counter, clock source {source}"),
    };
    match (invariant, source.as_str()) {
        (true, _) => Finding::good("clock", found, why),
        (false, "tsc" | "kvm-clock" | "arch_sys_counter") => Finding::limits("clock", found, why)
            .fix("none on this machine: latencies below 100 ns hold the timer's own cost"),
        _ => Finding::limits("clock", found, why).fix_as_root(
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
    }
}

pub(super) fn perf_counters() -> Finding {
    let why = "hardware counters say whether time went to instructions, caches or the kernel";
    match open_instruction_counter() {
        Ok(()) => Finding::good("perf counters", "available", why),
        Err(libc::EACCES | libc::EPERM) => {
            let level = read("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
            Finding::limits(
                "perf counters",
                format!("forbidden (perf_event_paranoid {level})"),
                why,
            )
            .fix_as_root("sysctl kernel.perf_event_paranoid=1")
        }
        Err(_) => Finding::limits("perf counters", "this machine has none", why)
            .fix("--pass instructions counts instructions with valgrind instead"),
    }
}

/// Tries to count this process's own instructions.
fn open_instruction_counter() -> Result<(), i32> {
    // `struct perf_event_attr`, first version: type, size, config, then 48 bytes of zero that leave
    // everything else off; `exclude_kernel` and `exclude_hv` are bits 5 and 6 of the flags.
    let mut attributes = [0_u64; 8];
    attributes[0] = 64 << 32; // PERF_TYPE_HARDWARE = 0, size = 64
    attributes[1] = 1; // PERF_COUNT_HW_INSTRUCTIONS
    attributes[5] = 1 << 5 | 1 << 6;
    // SAFETY: the attributes are as large as they state; the call only reads them.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0_u64) };
    let Ok(fd) = libc::c_int::try_from(fd) else { return Err(libc::EINVAL) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
    }
    // SAFETY: a descriptor that was just opened and is used nowhere else.
    unsafe { libc::close(fd) };
    Ok(())
}

pub(super) fn address_randomisation() -> Finding {
    let why = "with fixed addresses every run repeats the same lucky or unlucky layout";
    match read("/proc/sys/kernel/randomize_va_space").as_deref() {
        Some("2") => Finding::good("aslr", "full", why),
        Some(level) => Finding::limits("aslr", format!("level {level}"), why)
            .fix_as_root("sysctl kernel.randomize_va_space=2"),
        None => Finding::unknown("aslr", "not visible", why),
    }
}

pub(super) fn inherited() -> Finding {
    let why = "what tunes allocators in this shell would tune the measured ones; runs clear it";
    let names: Vec<String> = env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| crate::worker::is_scrubbed(name))
        .collect();
    if names.is_empty() {
        return Finding::good("environment", "clean", why);
    }
    Finding::limits("environment", names.join(", "), why)
        .fix(format!("unset {}; give it to one allocator as -a 'NAME?KEY=VALUE'", names.join(" ")))
}

pub(super) fn valgrind() -> Finding {
    let why = "callgrind counts instructions exactly: the one metric without noise";
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|p| p.is_file());
    match found {
        Some(path) => Finding::good("valgrind", path.display().to_string(), why),
        None => Finding::limits("valgrind", "not installed", why).fix_as_root(package("valgrind")),
    }
}

/// The command that installs a package here.
fn package(name: &str) -> String {
    let manager =
        [("/usr/bin/apt-get", "apt-get"), ("/usr/bin/dnf", "dnf"), ("/usr/bin/zypper", "zypper")]
            .into_iter()
            .find(|(path, _)| Path::new(path).exists())
            .map_or("apt-get", |(_, manager)| manager);
    format!("{manager} install {name}")
}
