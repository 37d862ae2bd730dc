//! Binding a process to processors.

use std::io;

/// The set of `cpus` as the kernel takes it; `None` for an empty list: no binding.
pub(crate) fn cpu_set(cpus: &[usize]) -> Option<libc::cpu_set_t> {
    if cpus.is_empty() {
        return None;
    }
    // SAFETY: all-zero bytes are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    for &cpu in cpus.iter().filter(|cpu| **cpu < limit) {
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits of a set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    Some(set)
}

/// Binds the calling thread, and whatever it starts from now on, to `set`.
pub(crate) fn bind(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set is as large as stated; 0 names the calling thread.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a list like `0,2-3`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("`{text}` is not a processor's number"))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cpus.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last - first > 4096 {
                    return Err(format!("`{part}` is not a range of processors"));
                }
                cpus.extend(first..=last);
            }
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::parse_cpus;

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!(parse_cpus("0,2-3,2").unwrap(), [0, 2, 3]);
        assert!(parse_cpus("3-1").is_err());
        assert!(parse_cpus("").is_err());
    }
}
