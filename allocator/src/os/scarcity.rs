//! Whether address space is scarce: by a limit on the process, or by a kernel that counts what it promises.

use super::syscall::{number, raw, read_file};
use crate::sync::{AtomicU32, Ordering};

/// Limits from here on leave room enough.
const AMPLE: u64 = 4 << 30;

/// The limits on this process's memory, each as the one in force and the one up to which it may be raised, in bytes.
fn limits() -> impl Iterator<Item = [u64; 2]> {
    [libc::RLIMIT_AS, libc::RLIMIT_DATA].into_iter().filter_map(|what| {
        let mut limit = [u64::MAX; 2];
        let args = [0, what as usize, 0, (&raw mut limit) as usize, 0, 0];
        // SAFETY: the kernel writes two words into the local.
        (unsafe { raw(number::PRLIMIT64, args) } == 0).then_some(limit)
    })
}

/// Whether the kernel promises no more than it has.
fn promises_are_counted() -> bool {
    /// 0 not asked, 1 the kernel promises freely, 2 it does not.
    static PROMISES: AtomicU32 = AtomicU32::new(0);
    let mut promises = PROMISES.load(Ordering::Relaxed);
    if promises == 0 {
        let mut buffer = [0u8; 4];
        let strict =
            read_file(c"/proc/sys/vm/overcommit_memory", &mut buffer).is_some_and(is_strict);
        promises = if strict { 2 } else { 1 };
        PROMISES.store(promises, Ordering::Relaxed);
    }
    promises == 2
}

/// Whether this process can have so little memory that address space which is only reserved would
/// be missed: below a limit on it, or where the kernel promises no more than it has.
pub(crate) fn address_space_is_scarce() -> bool {
    limits().any(is_tight) || promises_are_counted()
}

/// Whether `bytes` that were refused may be had once others are given back: where something counts address space, and
/// has room for so many in all.
pub(crate) fn limit_may_allow(bytes: usize) -> bool {
    limits().any(|limit| leaves_room(limit, bytes)) || promises_are_counted()
}

/// Whether a limit is one, and `bytes` do not exceed it.
fn leaves_room(limit: [u64; 2], bytes: usize) -> bool {
    let [in_force, _] = limit;
    in_force != libc::RLIM_INFINITY && bytes as u64 <= in_force
}

/// Whether a limit, the one in force and the one up to which it may be raised, leaves little room.
fn is_tight(limit: [u64; 2]) -> bool {
    limit.iter().any(|&limit| limit < AMPLE)
}

/// Whether a kernel whose `overcommit_memory` reads so promises no more than it has.
fn is_strict(text: &[u8]) -> bool {
    matches!(text, [b'2'] | [b'2', b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overcommit_2_is_strict() {
        for text in ["2\n", "2"] {
            assert!(is_strict(text.as_bytes()), "{text:?}");
        }
        for text in ["0\n", "1\n", "", "\n", "20\n", "12\n", "two\n"] {
            assert!(!is_strict(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn a_limit_leaves_room_for_as_much_as_it_says_and_none_says_nothing() {
        const NONE: u64 = libc::RLIM_INFINITY;
        assert!(leaves_room([256 << 20, NONE], 256 << 20));
        assert!(!leaves_room([256 << 20, NONE], (256 << 20) + 1));
        assert!(!leaves_room([NONE; 2], 1));
    }

    #[test]
    fn a_limit_below_4_gib_is_tight_whether_it_may_be_raised_or_not() {
        const NONE: u64 = libc::RLIM_INFINITY;
        for limit in [[0, 0], [256 << 20, NONE], [256 << 20; 2], [AMPLE - 1, AMPLE - 1]] {
            assert!(is_tight(limit), "{limit:?}");
        }
        for limit in [[NONE, NONE], [AMPLE, NONE], [AMPLE, AMPLE]] {
            assert!(!is_tight(limit), "{limit:?}");
        }
    }
}
