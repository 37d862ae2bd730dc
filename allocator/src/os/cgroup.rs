//! The memory that the process's control group may have.

use core::ffi::CStr;

use super::syscall::read_file;

/// Longest path that is looked at, in bytes.
const ROOM: usize = 512;

/// From here on a number means that there is no limit: the first version writes the largest multiple of a page.
const UNLIMITED: usize = 1 << 60;

/// Either version of the interface: where it is mounted, and the files with limits.
struct Hierarchy {
    mount: &'static [u8],
    files: &'static [&'static [u8]],
}

const FIRST: Hierarchy =
    Hierarchy { mount: b"/sys/fs/cgroup/memory", files: &[b"/memory.limit_in_bytes"] };
/// Above `memory.high` the process is slowed down, above `memory.max` it ends.
const SECOND: Hierarchy =
    Hierarchy { mount: b"/sys/fs/cgroup", files: &[b"/memory.max", b"/memory.high"] };

/// The smallest limit in bytes of the group and those around it; `None` where there is none, or none that can be
/// read. A container that sees only its own group finds it at the root.
///
/// Cost: a file or two for each group on the way to the root.
pub(crate) fn memory_limit() -> Option<usize> {
    let mut buffer = [0u8; 4096];
    let (hierarchy, group) = memory_group(read_file(c"/proc/self/cgroup", &mut buffer)?)?;
    let limits = ancestors(group).flat_map(|group| {
        hierarchy.files.iter().filter_map(move |file| limit_of(hierarchy.mount, group, file))
    });
    limits.min().filter(|&limit| limit < UNLIMITED)
}

/// The group that counts memory, of the lines `number:controllers:group` of /proc/self/cgroup: that of the
/// controller `memory` in the first version, else the one of the second.
fn memory_group(lines: &[u8]) -> Option<(Hierarchy, &[u8])> {
    let mut second = None;
    for line in lines.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.split(|&byte| byte == b',').any(|name| name == b"memory") {
            return Some((FIRST, group));
        }
        if controllers.is_empty() {
            second = Some((SECOND, group));
        }
    }
    second
}

/// `/a/b`, `/a` and the root, which is empty.
fn ancestors(group: &[u8]) -> impl Iterator<Item = &[u8]> {
    let group = if group == b"/" { b"" } else { group };
    core::iter::successors(Some(group), |inner| {
        let end = inner.iter().rposition(|&byte| byte == b'/')?;
        inner.get(..end)
    })
}

fn limit_of(mount: &[u8], group: &[u8], file: &[u8]) -> Option<usize> {
    let mut path = [0u8; ROOM];
    let mut rest = path.iter_mut();
    for &byte in mount.iter().chain(group).chain(file).chain(b"\0") {
        *rest.next()? = byte;
    }
    let mut buffer = [0u8; 32];
    number(read_file(CStr::from_bytes_until_nul(&path).ok()?, &mut buffer)?)
}

/// A number and the end of the line; nothing else (`max`).
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_group_that_counts_memory_is_found_in_either_version() {
        let both = b"5:cpu,memory:/outer/inner\n1:cpuset:/\n0::/other\n";
        let (hierarchy, group) = memory_group(both).expect("a group");
        assert_eq!((hierarchy.mount, group), (FIRST.mount, &b"/outer/inner"[..]));
        let (hierarchy, group) = memory_group(b"1:cpu:/\n0::/a:b\n").expect("a group");
        assert_eq!((hierarchy.mount, group), (SECOND.mount, &b"/a:b"[..]));
        assert!(memory_group(b"1:cpu:/\n\nnonsense\n").is_none());
    }

    #[test]
    fn the_way_to_the_root_is_walked() {
        let walked = |group| ancestors(group).collect::<Vec<_>>();
        assert_eq!(walked(b"/a/b"), [&b"/a/b"[..], b"/a", b""]);
        assert_eq!(walked(b"/"), [&b""[..]]);
    }

    #[test]
    fn only_numbers_are_limits() {
        assert_eq!(number(b"314572800\n"), Some(314_572_800));
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(b"\n"), None);
        assert_eq!(number(b"99999999999999999999\n"), None);
    }
}
