//! Whether address space is scarce: by a limit on the process, or by a kernel that counts what it promises.

use super::syscall::{number, raw, read_file};
use crate::sync::{AtomicU32, Ordering};

/// Limits from here on leave room enough.
const AMPLE: u64 = 4 << 30;

/// Whether this process can have so little memory that address space which is only reserved would
/// be missed: below a limit on it, or where the kernel promises no more than it has.
pub(crate) fn address_space_is_scarce() -> bool {
    /// 0 not asked, 1 the kernel promises freely, 2 it does not.
    static PROMISES: AtomicU32 = AtomicU32::new(0);
    for what in [libc::RLIMIT_AS, libc::RLIMIT_DATA] {
        let mut limit = [u64::MAX; 2];
        let args = [0, what as usize, 0, (&raw mut limit) as usize, 0, 0];
        // SAFETY: the kernel writes two words into the local.
        if unsafe { raw(number::PRLIMIT64, args) } == 0 && is_tight(limit) {
            return true;
        }
    }
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
