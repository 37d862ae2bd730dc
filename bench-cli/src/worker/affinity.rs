//! Binding a process to processors.

use std::io;
use std::path::Path;

use crate::error::{CliError, Exit};

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

/// The processors that the calling thread may run on, ascending.
fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: all-zero bytes are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as stated and writable; 0 names the calling thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits of a set.
    Ok((0..limit).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Refuses processors that this process may not run on: bound to them, a process would be bound to
/// the others of the list alone, or not start.
///
/// # Errors
/// [`Exit::Usage`] with the first of them, [`Exit::Unfit`] where the kernel does not say which it may.
pub(crate) fn check_cpus(cpus: &[usize]) -> Result<(), CliError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let allowed = allowed().map_err(|error| {
        CliError::new(Exit::Unfit, "the kernel does not say which processors may be used")
            .because(error)
            .help("leave --cpus away")
    })?;
    let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) else { return Ok(()) };
    let what = match Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists() {
        true => format!("processor {cpu} may not be used here"),
        false => format!("there is no processor {cpu} here"),
    };
    Err(CliError::new(Exit::Usage, what)
        .because(format!("this process may run on {}", written(&allowed)))
        .help("name some of these with --cpus, or leave it away"))
}

/// A list as [`parse_cpus`] reads it.
fn written(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|cpu, next| cpu + 1 == *next).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        alone => alone.iter().map(usize::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(",")
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
    use super::{parse_cpus, written};

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!(parse_cpus("0,2-3,2").unwrap(), [0, 2, 3]);
        assert!(parse_cpus("3-1").is_err());
        assert!(parse_cpus("").is_err());
        assert_eq!(written(&[0, 2, 3, 4, 7]), "0,2-4,7");
    }
}
