//! Runs a program and reads its peak memory at its last moment.
//!
//! `wait4` cannot tell a child's peak: what a process has resident before `execve` counts as well,
//! so a small program would seem as large as the harness that started it. Polling `/proc` misses
//! the end. So the program is traced, but stops only at forks, execs and exits: at the exit event
//! its memory is still there, and `VmHWM` in `/proc/PID/status` is final. Threads are traced too, since any of
//! them may fork; each stops as it begins and as it ends. Where ptrace is refused, `VmHWM` is polled, and the
//! last value seen stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{ExecOutcome, ExecSpec, Output, Status};
use crate::interrupt;
use crate::worker;

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The program cannot be started.
    #[error("cannot start `{program}`: {error}")]
    Start {
        /// The program.
        program: String,
        /// The refusal.
        error: io::Error,
    },
    /// The operating system refused something the harness needs.
    #[error("{action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The refusal.
        error: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> ExecError {
    move |error| ExecError::System { action, error }
}

/// Runs the program once and waits for it. What it leaves running is ended.
///
/// # Errors
/// See [`ExecError`]; a program that crashes is an outcome.
pub fn run_once(spec: &ExecSpec) -> Result<ExecOutcome, ExecError> {
    let mut stdout = tempfile::tempfile().map_err(system("cannot make a temporary file"))?;
    let mut stderr = tempfile::tempfile().map_err(system("cannot make a temporary file"))?;
    let mut watch = match start(spec, &stdout, &stderr, true) {
        // Some sandboxes forbid ptrace; polling is worse and better than nothing.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            start(spec, &stdout, &stderr, false)
        }
        other => other,
    }
    .map_err(|error| ExecError::Start { program: spec.command.program().to_owned(), error })?;
    let status = watch.follow()?;
    let elapsed = watch.start.elapsed();
    watch.end_the_rest();
    let usage = watch.usage;
    let cpu =
        |t: libc::timeval| u64::try_from(t.tv_sec * 1_000_000_000 + t.tv_usec * 1_000).unwrap_or(0);
    let count = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
    Ok(ExecOutcome {
        status,
        elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        user_ns: cpu(usage.ru_utime),
        system_ns: cpu(usage.ru_stime),
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        involuntary_switches: count(usage.ru_nivcsw),
        peak_rss_bytes: watch.peak_rss,
        processes: watch.processes,
        preloaded: watch.preloaded,
        output: fingerprint(&mut stdout).map_err(system("cannot read the program's output"))?,
        stderr: last_lines(&mut stderr),
        library: spec.allocator.preload.clone(),
    })
}

/// A program that runs, and what is known of it so far.
struct Watch {
    /// The library that is to get in, by the path that the kernel shows: one without links.
    library: Option<PathBuf>,
    start: Instant,
    main: libc::pid_t,
    traced: bool,
    /// Threads that have not ended, each with its process. A process's first thread has its number.
    alive: BTreeMap<libc::pid_t, libc::pid_t>,
    /// Processes whose first thread has ended.
    first_ended: BTreeSet<libc::pid_t>,
    processes: u64,
    peak_rss: u64,
    preloaded: Option<bool>,
    usage: libc::rusage,
}

fn start(spec: &ExecSpec, stdout: &File, stderr: &File, traced: bool) -> io::Result<Watch> {
    let mut command = Command::new(spec.command.program());
    command.args(&spec.command.words[1..]);
    worker::apply_allocator(&mut command, &spec.allocator);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let cpus = worker::cpu_set(&spec.cpus);
    // SAFETY: between fork and exec only system calls are made; `cpus` is copied memory.
    unsafe {
        command.pre_exec(move || {
            if let Some(cpus) = &cpus {
                worker::bind(cpus)?;
            }
            if traced && libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let library = spec.allocator.preload.as_ref();
    let library = library.map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    let begin = Instant::now();
    let child = command.spawn()?;
    let main = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: all-zero bytes are a valid `rusage`.
    let usage = unsafe { std::mem::zeroed() };
    let alive = BTreeMap::from([(main, main)]);
    let preloaded = None;
    let mut watch = Watch {
        library,
        start: begin,
        main,
        traced,
        alive,
        first_ended: BTreeSet::new(),
        processes: 1,
        peak_rss: 0,
        preloaded,
        usage,
    };
    if traced {
        watch.set_options()?;
    }
    Ok(watch)
}

impl Watch {
    /// Waits for the stop at the first exec and asks for the events of interest.
    fn set_options(&mut self) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: `status` is writable; the child is ours and stops at its exec.
        if unsafe { libc::waitpid(self.main, &raw mut status, libc::__WALL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let options = libc::PTRACE_O_TRACEEXIT
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        // SAFETY: the child is stopped and traced by this thread.
        let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.main, 0, options) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        resume(self.main, 0);
        Ok(())
    }

    /// Follows the program to its end.
    fn follow(&mut self) -> Result<Status, ExecError> {
        loop {
            if interrupt::requested() {
                self.end_the_rest();
                return Err(ExecError::Interrupted);
            }
            let mut status = 0;
            // SAFETY: all-zero bytes are a valid `rusage`.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            let flags = libc::__WALL | libc::__WNOTHREAD;
            let flags = if self.traced { flags } else { flags | libc::WNOHANG };
            // SAFETY: both out parameters are writable.
            let pid = unsafe { libc::wait4(self.whom(), &raw mut status, flags, &raw mut usage) };
            if pid == 0 {
                self.look(self.main);
                thread::sleep(Duration::from_micros(500));
                continue;
            }
            if pid < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(system("cannot wait for the program")(error));
            }
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status);
                continue;
            }
            self.alive.remove(&pid);
            self.first_ended.remove(&pid);
            if pid == self.main {
                self.usage = usage;
                return Ok(if libc::WIFSIGNALED(status) {
                    Status::Signalled(libc::WTERMSIG(status))
                } else {
                    Status::Exited(libc::WEXITSTATUS(status))
                });
            }
        }
    }

    /// Deals with one stop of one thread and lets it go on.
    fn stopped(&mut self, thread: libc::pid_t, status: libc::c_int) {
        let known = self.alive.get(&thread).copied();
        let process = known.or_else(|| process_of(thread)).unwrap_or(thread);
        if known.is_none() {
            self.alive.insert(thread, process);
            self.processes += u64::from(process == thread);
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            libc::PTRACE_EVENT_EXIT => {
                // A process may outlive its first thread, which is reaped last all the same.
                if thread == process || self.first_ended.contains(&process) {
                    self.look(thread);
                }
                if thread == process {
                    self.first_ended.insert(process);
                }
                resume(thread, 0);
            }
            libc::PTRACE_EVENT_EXEC => {
                // Of a process only the thread that called it is left, under the process's number.
                self.alive.retain(|other, of| *of != process || *other == process);
                self.first_ended.remove(&process);
                resume(thread, 0);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                resume(thread, 0);
            }
            // A new thread begins with a stop that is no signal of the program's own.
            _ if known.is_none() && signal == libc::SIGSTOP => resume(thread, 0),
            _ => resume(thread, signal),
        }
    }

    /// Reads the peak of `pid`, and whether the library got in, while its memory is still there.
    fn look(&mut self, pid: libc::pid_t) {
        if let Some(peak) = peak_rss_of(pid) {
            self.peak_rss = self.peak_rss.max(peak);
        }
        let Some(library) = &self.library else { return };
        if let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) {
            let library = library.to_string_lossy();
            let mapped = maps.lines().any(|line| line.ends_with(library.as_ref()));
            // One process of the tree that lacks it is enough to spoil the comparison; a shell
            // that hands over by exec is replaced before it is asked.
            self.preloaded = Some(self.preloaded.unwrap_or(true) && mapped);
        }
    }

    /// Ends whatever the program left running, and reaps it. A process ends when the last of its threads was
    /// reaped, whatever their order.
    fn end_the_rest(&mut self) {
        for &thread in self.alive.keys() {
            end(thread);
        }
        while !self.alive.is_empty() {
            let mut status = 0;
            let flags = libc::__WALL | libc::__WNOTHREAD;
            // SAFETY: `status` is writable.
            let thread = unsafe { libc::waitpid(self.whom(), &raw mut status, flags) };
            if thread < 0 {
                if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                break;
            }
            if libc::WIFSTOPPED(status) {
                // It may have begun just now.
                end(thread);
                self.alive.entry(thread).or_insert(thread);
                resume(thread, 0);
            } else {
                self.alive.remove(&thread);
            }
        }
    }

    /// Whom to wait for: anything that is traced, else the program itself.
    fn whom(&self) -> libc::pid_t {
        if self.traced { -1 } else { self.main }
    }
}

/// Ends a process, named by any of its threads.
fn end(thread: libc::pid_t) {
    // SAFETY: a thread of this tree that was not reaped yet, so its number is not reused.
    unsafe { libc::kill(thread, libc::SIGKILL) };
}

/// The process of a thread.
fn process_of(thread: libc::pid_t) -> Option<libc::pid_t> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Lets a stopped process go on, with a signal or with none (0).
fn resume(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: a request about a process that this thread traces; if it is gone the call fails
    // and there is nothing to resume.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) };
}

/// `VmHWM` of a process, in bytes.
fn peak_rss_of(pid: libc::pid_t) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn fingerprint(file: &mut File) -> io::Result<Output> {
    use std::io::Seek;
    file.rewind()?;
    let mut output = Output { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(output);
        }
        output.bytes += read as u64;
        for byte in &buffer[..read] {
            output.hash = (output.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn last_lines(file: &mut File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    if file.rewind().and_then(|()| file.read_to_end(&mut bytes)).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocators::Allocator;
    use crate::exec::CommandLine;

    fn run(text: &str) -> ExecOutcome {
        let command = CommandLine::parse(text).unwrap();
        run_once(&ExecSpec { command, allocator: Allocator::system(), cpus: Vec::new() }).unwrap()
    }

    #[test]
    fn status_and_output_are_the_programs_own() {
        let outcome = run("sh -c 'echo hello; echo oops >&2; exit 7'");
        assert_eq!(outcome.status, Status::Exited(7));
        assert_eq!(outcome.output.bytes, 6);
        assert_eq!(outcome.stderr, "oops");
        assert_eq!(run("echo hello").output, outcome.output);
        assert_ne!(run("echo hallo").output, outcome.output);
    }

    #[test]
    fn a_signal_is_told_apart_from_a_status() {
        assert_eq!(run("sh -c 'kill -SEGV $$'").status, Status::Signalled(libc::SIGSEGV));
    }

    #[test]
    fn the_peak_is_the_programs_and_not_the_harnesses() {
        // This test process is made larger than the program; the program must not inherit that.
        let ballast = vec![1_u8; 256 << 20];
        let small = run("true").peak_rss_bytes;
        assert!(small > 0 && small < 64 << 20, "{small}");
        assert_eq!(ballast[ballast.len() - 1], 1);
    }

    #[test]
    fn the_peak_of_a_child_counts() {
        let script = "head -c 64000000 /dev/zero | tail -c 64000000 | wc -c";
        let peak = run(script).peak_rss_bytes;
        assert!(peak > 60_000_000, "tail keeps 64 MB, seen {peak}");
    }

    /// Compiles and runs a program in C; none where there is no compiler.
    fn run_source(text: &str) -> Option<ExecOutcome> {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("p.c"), folder.path().join("p"));
        fs::write(&source, format!("{HEADERS}{text}")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-pthread", "-o"]).arg(&program).arg(&source);
        match cc.status() {
            Ok(status) => assert!(status.success(), "{text}"),
            Err(_) => {
                println!("skipped: no C compiler");
                return None;
            }
        }
        Some(run(&program.display().to_string()))
    }

    const HEADERS: &str = "#include <pthread.h>\n#include <stdlib.h>\n#include <unistd.h>\n";

    /// A program of which another thread than the first does the work.
    fn run_in_a_thread(work: &str) -> Option<ExecOutcome> {
        run_source(&format!(
            "static void *body(void *none) {{ {work}; return none; }}\n\
             int main(void) {{ pthread_t t; pthread_create(&t, 0, body, 0); \
             pthread_join(t, 0); return 0; }}"
        ))
    }

    #[test]
    fn the_peak_of_a_child_that_a_thread_forked_counts() {
        let work = "if (system(\"head -c 64000000 /dev/zero | tail -c 64000000 | wc -c\")) exit(1)";
        let Some(outcome) = run_in_a_thread(work) else { return };
        assert_eq!(outcome.status, Status::Exited(0));
        assert!(outcome.peak_rss_bytes > 60_000_000, "{}", outcome.peak_rss_bytes);
        // The program, its shell and the shell's three, of which it may become the last; threads are none.
        assert!((4..=5).contains(&outcome.processes), "{}", outcome.processes);
    }

    #[test]
    fn what_a_thread_leaves_running_is_ended() {
        let work = "if (system(\"sleep 1000 & sleep 1000 &\")) exit(1)";
        let Some(outcome) = run_in_a_thread(work) else { return };
        assert_eq!(outcome.status, Status::Exited(0));
    }

    #[test]
    fn a_process_goes_on_after_a_thread_of_it_executes_another_program() {
        let work = "execl(\"/bin/sh\", \"sh\", \"-c\", \"exit 7\", (char *)0)";
        let Some(outcome) = run_in_a_thread(work) else { return };
        assert_eq!((outcome.status, outcome.processes), (Status::Exited(7), 1));
    }

    #[test]
    fn the_peak_of_a_process_that_outlives_its_first_thread_counts() {
        let Some(outcome) = run_source(
            "static void *body(void *first) { pthread_join(*(pthread_t *)first, 0);\n\
             char *p = malloc(64000000); for (int i = 0; i < 64000000; i += 4096) p[i] = 1;\n\
             exit(7); }\n\
             static pthread_t first;\n\
             int main(void) { pthread_t t; first = pthread_self();\n\
             pthread_create(&t, 0, body, &first); pthread_exit(0); }",
        ) else {
            return;
        };
        assert_eq!((outcome.status, outcome.processes), (Status::Exited(7), 1));
        assert!(outcome.peak_rss_bytes > 60_000_000, "{}", outcome.peak_rss_bytes);
    }

    #[test]
    fn what_a_program_leaves_running_is_ended() {
        let start = Instant::now();
        let outcome = run("sh -c 'sleep 1000 & echo started'");
        assert_eq!(outcome.status, Status::Exited(0));
        assert!(start.elapsed() < Duration::from_secs(100));
    }
}
