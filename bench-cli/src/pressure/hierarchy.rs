//! Where the cgroups of a controller lie, and which is our own.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The tree of groups that has a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The folder of our own group.
    pub own: PathBuf,
    /// Whether it is of version 2.
    pub unified: bool,
}

impl Hierarchy {
    /// The one that has `controller`, as in `memory`; `None` where none is mounted.
    #[must_use]
    pub fn of(controller: &str) -> Option<Hierarchy> {
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Hierarchy::find(controller, &mounts, &own)
    }

    fn find(controller: &str, mounts: &str, own: &str) -> Option<Hierarchy> {
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(mount), Some(kind), Some(options)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let mount = Path::new(mount);
            let unified = match kind {
                "cgroup" if options.split(',').any(|option| option == controller) => false,
                "cgroup2" if has(mount, controller) => true,
                _ => continue,
            };
            let mine = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                let same = match unified {
                    true => controllers.is_empty(),
                    false => controllers.split(',').any(|name| name == controller),
                };
                same.then(|| mount.join(path.trim_start_matches('/')))
            });
            // Inside a container the path may be that of the host, and the mount is our group itself.
            let own = mine.filter(|path| path.is_dir()).unwrap_or_else(|| mount.to_path_buf());
            return Some(Hierarchy { mount: mount.to_path_buf(), own, unified });
        }
        None
    }

    /// Our own group, and those above it up to the mount.
    pub fn groups(&self) -> impl Iterator<Item = &Path> {
        self.own.ancestors().take_while(|above| above.starts_with(&self.mount))
    }
}

fn has(mount: &Path, controller: &str) -> bool {
    fs::read_to_string(mount.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_with_the_controller_is_found_in_either_version_and_our_group_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mount = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("a/b")).unwrap();
            path
        };
        let (first, second) = (mount("first"), mount("second"));
        fs::write(second.join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
        let mounts = format!(
            "proc /proc proc rw 0 0\ncgroup {} cgroup rw,cpu,cpuacct 0 0\ncgroup2 {} cgroup2 rw 0 0\n",
            first.display(),
            second.display()
        );
        let own = "4:cpu,cpuacct:/a\n0::/a/b\n";
        let cpu = Hierarchy::find("cpu", &mounts, own).unwrap();
        assert_eq!((&cpu.own, cpu.unified), (&first.join("a"), false));
        let memory = Hierarchy::find("memory", &mounts, own).unwrap();
        assert_eq!((&memory.own, memory.unified), (&second.join("a/b"), true));
        let groups: Vec<&Path> = memory.groups().collect();
        assert_eq!(groups, [&second.join("a/b"), &second.join("a"), &second].map(PathBuf::as_path));
        assert_eq!(Hierarchy::find("io", &mounts, own), None);
        let of_host = Hierarchy::find("memory", &mounts, "0::/docker/1234\n").unwrap();
        assert_eq!(of_host.own, second, "the mount is our group itself");
    }
}
