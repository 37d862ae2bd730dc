//! Memory cgroups: one made for each worker that is limited, and gone after it.
//!
//! Of version 2, a group that holds processes has no groups with a memory limit below it, but for
//! the one at the top. The group of a worker then lies beside our own, or beside one above it.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::hierarchy::Hierarchy;

/// Why no memory cgroup can be made here.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No hierarchy has the controller.
    #[error("no memory controller is mounted")]
    NoController,
    /// It is there and may not be used.
    #[error("`{}` cannot be used ({error})", path.display())]
    Forbidden {
        /// What was tried to be written.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Refusal::Forbidden { error, .. } if error.kind() == io::ErrorKind::ResourceBusy => {
                "move all processes of that group into one below it (`echo PID > BELOW/cgroup.procs`), \
                 or limit address space instead: `--pressure as:80%`"
            }
            _ => "run as root, or limit address space instead: `--pressure as:80%`",
        }
    }
}

/// Whether a group of version 2 limits processors or memory of what it holds.
fn confines(group: &Path) -> bool {
    let says = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    let limits =
        |file: &str| says(file).split_whitespace().next().is_some_and(|word| word != "max");
    limits("cpu.max")
        || limits("memory.max")
        || limits("memory.high")
        || !says("cpuset.cpus").trim().is_empty()
}

/// Which kind of cgroup can be made here.
///
/// # Errors
/// Why none can.
pub fn probe() -> Result<&'static str, Refusal> {
    let group = Cgroup::new(1 << 30)?;
    Ok(if group.unified { "version 2" } else { "version 1" })
}

/// What a group of version 1 may have in swap. Were it nothing, the limit of both together would be
/// reached first, and version 1 does not count how often.
const SWAP_ROOM: u64 = 1 << 20;

/// A memory cgroup of our own, removed when it goes out of scope.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// A group whose processes may have `bytes` of memory and no swap.
    ///
    /// # Errors
    /// If this machine or its administrator does not let us.
    pub fn new(bytes: u64) -> Result<Self, Refusal> {
        let Hierarchy { mount, own, unified } =
            Hierarchy::of("memory").ok_or(Refusal::NoController)?;
        Cgroup::near(&mount, &own, unified, bytes)
    }

    /// Below the group `own`; of version 2 else below the nearest above it, up to the `mount`, but beyond no group that
    /// limits what it holds: what runs under pressure is to run under the same limits as all else. Gives the refusal of
    /// the first.
    fn near(mount: &Path, own: &Path, unified: bool, bytes: u64) -> Result<Self, Refusal> {
        let tried = if unified { usize::MAX } else { 1 };
        let mut first = None;
        for parent in own.ancestors().take_while(|above| above.starts_with(mount)).take(tried) {
            match Cgroup::below(parent, unified, bytes) {
                Ok(group) => return Ok(group),
                Err(refusal) => first = first.or(Some(refusal)),
            }
            if confines(parent) {
                break;
            }
        }
        Err(first.unwrap_or(Refusal::NoController))
    }

    fn below(parent: &Path, unified: bool, bytes: u64) -> Result<Self, Refusal> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let forbidden = |path: &Path, error| Refusal::Forbidden { path: path.to_path_buf(), error };
        if unified {
            let control = parent.join("cgroup.subtree_control");
            fs::write(&control, "+memory").map_err(|error| forbidden(&control, error))?;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("bench-cli-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| forbidden(&path, error))?;
        let group = Cgroup { path, unified };
        let limit = group.path.join(if unified { "memory.max" } else { "memory.limit_in_bytes" });
        fs::write(&limit, bytes.to_string()).map_err(|error| forbidden(&limit, error))?;
        // Swap may not be there at all, and then needs no limit.
        let _ = match unified {
            true => fs::write(group.path.join("memory.swap.max"), "0"),
            false => {
                let limit = bytes.saturating_add(SWAP_ROOM);
                fs::write(group.path.join("memory.memsw.limit_in_bytes"), limit.to_string())
            }
        };
        Ok(group)
    }

    /// Its folder; a process enters by writing its id to `cgroup.procs` there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often its processes reached the limit.
    #[must_use]
    pub fn limit_hits(&self) -> Option<u64> {
        if !self.unified {
            return fs::read_to_string(self.path.join("memory.failcnt")).ok()?.trim().parse().ok();
        }
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The worker was waited for; its last pages may take the kernel a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_reaches_the_limit_of_its_cgroup_is_counted() {
        let group = match Cgroup::new(8 << 20) {
            Ok(group) => group,
            Err(refusal) => return println!("skipped: {refusal}"),
        };
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec head -c 64m /dev/zero | tail -c 64m > /dev/null",
            group.path().display()
        );
        let _ = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(group.limit_hits() > Some(0), "64 MiB do not fit into 8");
    }

    #[test]
    fn a_cgroup_is_gone_after_use_or_refused_with_a_reason() {
        match Cgroup::new(64 << 20) {
            Ok(group) => {
                let path = group.path().to_path_buf();
                assert!(path.is_dir());
                assert_eq!(group.limit_hits(), Some(0));
                drop(group);
                assert!(!path.exists());
            }
            Err(refusal) => println!("skipped: {refusal}"),
        }
    }

    #[test]
    fn where_the_own_group_cannot_have_one_below_it_the_next_above_has() {
        let mount = tempfile::tempdir().unwrap();
        let above = mount.path().join("slice");
        let own = above.join("scope");
        // A folder of that name is a file that nobody can write.
        let control = own.join("cgroup.subtree_control");
        fs::create_dir_all(&control).unwrap();
        let group = Cgroup::near(mount.path(), &own, true, 1 << 20).unwrap();
        assert_eq!(group.path().parent(), Some(above.as_path()));
        // Those of a group go with it, and these would keep it.
        for file in ["memory.max", "memory.swap.max"] {
            fs::remove_file(group.path().join(file)).unwrap();
        }
        drop(group);
        let second = above.join("cgroup.subtree_control");
        fs::remove_file(&second).unwrap();
        fs::create_dir(&second).unwrap();
        let refusal = Cgroup::near(&above, &own, true, 1 << 20).unwrap_err();
        let first = format!("`{}`", control.display());
        assert!(refusal.to_string().starts_with(&first), "{refusal}");
        fs::remove_dir(&second).unwrap();
        for (file, limit) in [("cpu.max", "50000 100000\n"), ("cpuset.cpus", "0\n")] {
            fs::write(own.join(file), limit).unwrap();
            let refusal = Cgroup::near(mount.path(), &own, true, 1 << 20).unwrap_err();
            assert!(refusal.to_string().starts_with(&first), "{file}: {refusal}");
            fs::write(own.join(file), if file == "cpu.max" { "max 100000\n" } else { "\n" })
                .unwrap();
        }
        assert!(!confines(&own));
    }

    #[test]
    fn a_group_with_processes_in_the_way_is_helped_otherwise_than_a_missing_right() {
        let refusal = |kind: io::ErrorKind| {
            let path = PathBuf::from("cgroup.subtree_control");
            Refusal::Forbidden { path, error: kind.into() }
        };
        assert!(refusal(io::ErrorKind::ResourceBusy).help().starts_with("move all processes"));
        assert!(refusal(io::ErrorKind::PermissionDenied).help().starts_with("run as root"));
    }
}
