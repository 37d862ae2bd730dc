//! Memory pressure: a limit around one worker, and whether this machine lets us set one.
//!
//! `80%` limits the memory that the run itself may have resident to a share of what the reference
//! allocator had resident at its peak without a limit: the same limit for all, as in a container.
//! `own:90%` is a share of each allocator's own peak instead, to see what one does that is short of a
//! tenth. A cgroup enforces it (version 1 or 2), where this process may make one. `as:80%` and `data:80%`
//! limit address space or data segment instead (`RLIMIT_AS`, `RLIMIT_DATA`): these need no rights,
//! and make allocations fail instead of ending the process.
//!
//! Other kinds disturb instead of limiting, for as long as the run takes: `balloon:512M` holds that
//! much resident beside it, `fail:N` lets the n-th kernel call for memory fail (`fail:N+`: and all
//! after it), `pageout:MS` asks the kernel every so many milliseconds to page everything out,
//! `churn:N` lets N threads come, allocate and go without end, `forks:N` the same with processes.
//!
//! Each is probed before anything is measured, and refused in a sentence where it cannot be had.
//!
//! The harness's own memory is never part of the limit, which is set when the harness has all it
//! needs and lifted before it tells what it saw; of the address space, the stacks of the plan's threads do not
//! count either.
#![forbid(unsafe_code)]

mod cgroup;
mod hierarchy;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use cgroup::{Cgroup, Refusal, probe};
pub use hierarchy::Hierarchy;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// Resident memory and page cache, by cgroup.
    Cgroup,
    /// Address space.
    AddressSpace,
    /// Private writable memory.
    Data,
    /// Nothing, but another process holds so much.
    Balloon,
    /// The n-th kernel call for memory fails.
    FailCall,
    /// The n-th kernel call for memory fails, and every one after it.
    FailFrom,
    /// Everything is paged out again and again.
    PageOut,
    /// Threads come and go.
    ThreadChurn,
    /// Processes are forked without end.
    ForkStorm,
}

impl Means {
    /// What stands before the amount on the command line, colon included.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Means::Cgroup => "",
            Means::AddressSpace => "as:",
            Means::Data => "data:",
            Means::Balloon => "balloon:",
            Means::FailCall | Means::FailFrom => "fail:",
            Means::PageOut => "pageout:",
            Means::ThreadChurn => "churn:",
            Means::ForkStorm => "forks:",
        }
    }

    /// Whether its amount is memory, which can be a share of the reference's peak.
    fn takes_bytes(self) -> bool {
        matches!(self, Means::Cgroup | Means::AddressSpace | Means::Data | Means::Balloon)
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// A share of the reference's unconstrained peak.
    Share(f64),
    /// Of each allocator's own unconstrained peak.
    OwnShare(f64),
    /// So many bytes.
    Bytes(u64),
    /// So many calls, milliseconds, threads or processes.
    Count(u64),
}

/// A pressure as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// What is limited.
    pub means: Means,
    /// How much.
    pub amount: Amount,
}

impl Pressure {
    /// The amount, in bytes where it is memory, of an unconstrained peak: of the reference's, or of the
    /// allocator's own.
    #[must_use]
    pub fn bytes(&self, peak: u64) -> u64 {
        match self.amount {
            Amount::Bytes(bytes) | Amount::Count(bytes) => bytes,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
            Amount::Share(share) | Amount::OwnShare(share) => (peak as f64 * share) as u64,
        }
    }
}

impl FromStr for Pressure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no pressure: write `80%`, `own:90%` or `64M`, with `as:` or `data:` before it for a limit without cgroups, or `balloon:64M`, `fail:10`, `fail:10+`, `pageout:50`, `churn:4`, `forks:2`"
            )
        };
        let (means, amount) = match text.split_once(':') {
            None => (Means::Cgroup, text),
            Some(("own", amount)) => {
                let Ok(Pressure { means: Means::Cgroup, amount: Amount::Share(share) }) =
                    amount.parse()
                else {
                    return Err(wrong());
                };
                return Ok(Pressure { means: Means::Cgroup, amount: Amount::OwnShare(share) });
            }
            Some(("as", amount)) => (Means::AddressSpace, amount),
            Some(("data", amount)) => (Means::Data, amount),
            Some(("balloon", amount)) => (Means::Balloon, amount),
            Some(("fail", amount)) => match amount.strip_suffix('+') {
                Some(amount) => (Means::FailFrom, amount),
                None => (Means::FailCall, amount),
            },
            Some(("pageout", amount)) => (Means::PageOut, amount),
            Some(("churn", amount)) => (Means::ThreadChurn, amount),
            Some(("forks", amount)) => (Means::ForkStorm, amount),
            Some(_) => return Err(wrong()),
        };
        if !means.takes_bytes() {
            let most = if means == Means::ThreadChurn || means == Means::ForkStorm {
                64
            } else {
                u64::MAX
            };
            let count = amount.trim().parse().ok().filter(|n| (1..=most).contains(n));
            return Ok(Pressure { means, amount: Amount::Count(count.ok_or_else(wrong)?) });
        }
        let amount = match amount.strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 10_000.0 => {
                    Amount::Share(percent / 100.0)
                }
                _ => return Err(wrong()),
            },
            None => Amount::Bytes(bytes(amount).ok_or_else(wrong)?),
        };
        Ok(Pressure { means, amount })
    }
}

/// `65536`, `64K`, `64M`, `2G`: powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.to_ascii_uppercase().chars().last()? {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().ok().filter(|n| *n > 0)?;
    number.checked_mul(1 << shift)
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.means.prefix())?;
        match self.amount {
            Amount::Share(share) => write!(f, "{}%", (share * 1e6).round() / 1e4),
            Amount::OwnShare(share) => write!(f, "own:{}%", (share * 1e6).round() / 1e4),
            Amount::Bytes(amount) | Amount::Count(amount) => write!(f, "{amount}"),
        }?;
        f.write_str(if self.means == Means::FailFrom { "+" } else { "" })
    }
}

/// A limit on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What is limited.
    pub means: Means,
    /// Bytes that the run itself may have; for what is no limit, its amount.
    pub bytes: u64,
    /// The cgroup that enforces it, made by [`Cgroup::new`].
    pub cgroup: Option<PathBuf>,
}

/// Whether a pressure by `means` can be had on this machine.
///
/// # Errors
/// Why not, and what to do.
pub fn probe_means(means: Means) -> Result<(), (String, &'static str)> {
    match means {
        Means::Cgroup => probe().map(drop).map_err(|refusal| (refusal.to_string(), refusal.help())),
        Means::FailCall | Means::FailFrom => probe_traps(),
        Means::PageOut => {
            let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
            if swaps.lines().count() > 1 {
                return Ok(());
            }
            let why = "there is no swap, so no anonymous page can be paged out".to_owned();
            Err((why, "add swap (`swapon FILE`), or limit memory instead: `--pressure 80%`"))
        }
        Means::AddressSpace
        | Means::Data
        | Means::Balloon
        | Means::ThreadChurn
        | Means::ForkStorm => Ok(()),
    }
}

/// Whether system calls can be caught in a process of our own.
///
/// # Errors
/// Why not, and what to do.
pub fn probe_traps() -> Result<(), (String, &'static str)> {
    if cfg!(not(target_arch = "x86_64")) {
        let why = "system calls are caught on x86-64 only".to_owned();
        return Err((why, "leave it out, or measure on an x86-64 machine"));
    }
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "trap") {
        return Ok(());
    }
    let why = "the kernel has no seccomp filters that trap".to_owned();
    Err((why, "use a kernel with CONFIG_SECCOMP_FILTER"))
}

/// Whether a balloon of `bytes` leaves this machine enough to go on with.
///
/// # Errors
/// How much there is.
pub fn probe_balloon(bytes: u64, run: u64) -> Result<(), String> {
    /// What other processes keep in any case.
    const SPARE: u64 = 256 << 20;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let available = kib.unwrap_or(0) * 1024;
    match bytes.saturating_add(run).saturating_add(SPARE) <= available {
        true => Ok(()),
        false => Err(format!(
            "a balloon of {bytes} bytes beside a run of {run} leaves nothing of the {available} available"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressures_are_read_back_from_their_names() {
        for text in [
            "80%",
            "12.5%",
            "own:90%",
            "as:70%",
            "data:50%",
            "65536",
            "balloon:50%",
            "balloon:1048576",
            "fail:7",
            "fail:7+",
            "pageout:50",
            "churn:4",
            "forks:2",
        ] {
            assert_eq!(text.parse::<Pressure>().unwrap().to_string(), text);
        }
        let megabytes: Pressure = "as:64M".parse().unwrap();
        assert_eq!(megabytes.bytes(1), 64 << 20);
        assert_eq!("50%".parse::<Pressure>().unwrap().bytes(1000), 500);
    }

    #[test]
    fn what_is_no_pressure_is_refused_with_an_example() {
        for text in [
            "",
            "x",
            "-5%",
            "0%",
            "swap:80%",
            "64T",
            "fail:0",
            "fail:80%",
            "churn:65",
            "own:64M",
            "own:own:9%",
        ] {
            assert!(text.parse::<Pressure>().unwrap_err().contains("80%"), "{text}");
        }
    }
}
