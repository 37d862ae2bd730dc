//! What the library keeps of free memory, beside what the program and its surroundings need.

#![allow(clippy::print_stdout, reason = "skipping must be seen")]

mod common;

use common::{compile, hardened_library, preloaded, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn phases_of_other_sizes_do_not_add_up() {
    let Some(program) = compile("phases.c", &[]) else { return };
    // 80 MiB live in 90 MiB of spans, 64 MiB to spare, 11 MiB of pointers, and as much as looks may come late.
    run(preloaded(&program).arg("192")).expect_success("ordinary");
    let mut hardened = preloaded(&program);
    // Its blocks are larger and lie in spans with room to spare: up to 173 MiB.
    hardened.env("LD_PRELOAD", hardened_library()).arg("256");
    run(&mut hardened).expect_success("hardened");
    run(preloaded(&program).env("ALLOCATOR_OPTIONS", "memory=low").arg("128"))
        .expect_success("memory=low");
}

#[test]
fn with_low_memory_an_eighth_of_a_burst_stays() {
    let Some(program) = compile("eighth.c", &[]) else { return };
    run(preloaded(&program).env("ALLOCATOR_OPTIONS", "memory=low")).expect_success("memory=low");
}

#[test]
fn a_control_group_that_has_room_for_what_is_live_is_enough() {
    let Some(program) = compile("phases.c", &[]) else { return };
    let Some(group) = Group::new(120 << 20) else {
        println!("skipped: no control group that limits memory can be made here");
        return;
    };
    // A group that is too small ends the program: else the limit would not be one.
    let ended = run(group.command(&program).env("LD_PRELOAD", "").arg("1024"));
    ended.expect_success("the system's allocator in 120 MiB");
    run(group.command(&program).arg("1024")).expect_success("in 120 MiB");
    group.limit(64 << 20);
    assert!(!run(group.command(&program).arg("1024")).status.success(), "64 MiB are too little");
}

#[test]
fn in_a_control_group_what_is_freed_leaves_room_for_what_the_program_maps_itself() {
    let Some(program) = compile("limited.c", &[]) else { return };
    let Some(group) = Group::new(512 << 20) else {
        println!("skipped: no control group that limits memory can be made here");
        return;
    };
    for size in ["64", "20000", "1048576", "3000000"] {
        run(group.command(&program).arg(size)).expect_success(&format!("objects of {size} bytes"));
    }
}

/// A control group with a limit on memory; gone when dropped.
struct Group {
    folder: PathBuf,
    file: &'static str,
}

impl Group {
    fn new(limit: u64) -> Option<Self> {
        let (root, own, file) = own_group()?;
        let name = format!("allocator-footprint-{}-{}", std::process::id(), limit >> 20);
        // In a container the own group may be the root of what can be seen.
        let parents = [root.join(own.trim_start_matches('/')), root];
        let group = parents.iter().find_map(|parent| {
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            let folder = parent.join(&name);
            fs::create_dir(&folder).ok()?;
            let group = Group { folder, file };
            group.folder.join(file).exists().then_some(group)
        })?;
        group.limit(limit);
        Some(group)
    }

    /// Sets the limit; where there is swap, none of it counts beside.
    fn limit(&self, bytes: u64) {
        for (file, value) in
            [("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", u64::MAX >> 1)]
        {
            let _ = fs::write(self.folder.join(file), value.to_string());
        }
        fs::write(self.folder.join(self.file), bytes.to_string()).expect("a limit");
        let _ = fs::write(self.folder.join("memory.memsw.limit_in_bytes"), bytes.to_string());
    }

    /// `program`, with the library, in this group.
    fn command(&self, program: &Path) -> Command {
        let mut command = preloaded("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.folder.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Where the groups that count memory are, which of them is ours, and the file with the limit.
fn own_group() -> Option<(PathBuf, String, &'static str)> {
    let lines = fs::read_to_string("/proc/self/cgroup").ok()?;
    let groups = lines.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let mut second = None;
    for (controllers, group) in groups {
        if controllers.split(',').any(|name| name == "memory") {
            let root = Path::new("/sys/fs/cgroup/memory").to_path_buf();
            return Some((root, group.to_owned(), "memory.limit_in_bytes"));
        }
        if controllers.is_empty() {
            second = Some((PathBuf::from("/sys/fs/cgroup"), group.to_owned(), "memory.max"));
        }
    }
    second
}
