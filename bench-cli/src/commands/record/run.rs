//! Running the program: the raw folder, the environment, signals.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use traces::container::RawTrace;

use super::{RecordArgs, program};
use crate::error::{CliError, Exit};
use crate::output::note;
use crate::preload::{self, Library};

/// One recording: its folder of raw files, and the process that was started.
#[derive(Debug)]
pub(super) struct Session {
    /// Where the recorder puts its files.
    pub(super) raw: PathBuf,
    library: PathBuf,
    /// The process id of the program, once it runs.
    pid: AtomicI32,
    /// Whether recording was ever on.
    was_on: AtomicBool,
    /// Raw files of processes that were still running when recording ended.
    open: Mutex<HashSet<PathBuf>>,
}

impl Session {
    /// Finds the recorder and makes the raw folder.
    pub(super) fn prepare(args: &RecordArgs) -> Result<Session, CliError> {
        let library = preload::path(Library::Recorder)?;
        let unwritable = |why: &dyn std::fmt::Display| {
            let what = format!("cannot write a trace to `{}`", args.output.display());
            CliError::new(Exit::Usage, what)
                .because(why)
                .help("name a file in a folder that exists and is writable with `-o FILE`")
        };
        if args.output.is_dir() {
            return Err(unwritable(&"it is a folder"));
        }
        let Some(name) = args.output.file_name() else {
            return Err(unwritable(&"it names no file"));
        };
        let mut raw_name = OsString::from(".");
        raw_name.push(name);
        raw_name.push(format!(".{}.raw", std::process::id()));
        let raw = args.output.with_file_name(raw_name);
        if library.as_os_str().as_bytes().iter().any(|&b| b == b':' || b.is_ascii_whitespace()) {
            let what = format!("cannot preload `{}`", library.display());
            return Err(CliError::new(Exit::Usage, what)
                .because("LD_PRELOAD cannot name a path with a space or a colon")
                .help("set XDG_CACHE_HOME to a folder without them"));
        }
        fs::create_dir(&raw).map_err(|error| unwritable(&error))?;
        // As /proc/PID/maps names it: without symbolic links.
        let raw = fs::canonicalize(&raw).map_err(|error| unwritable(&error))?;
        let was_on = AtomicBool::new(!args.paused);
        Ok(Session { raw, library, pid: AtomicI32::new(0), was_on, open: Mutex::default() })
    }

    /// Runs the program to its end.
    pub(super) fn run(&self, args: &RecordArgs) -> Result<ExitStatus, CliError> {
        let (name, arguments) = args.command.split_first().expect("clap requires one");
        let mut preload = OsString::from(&self.library);
        if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|v| !v.is_empty()) {
            // Ours first: then another preloaded allocator is the real malloc that is recorded.
            preload.push(":");
            preload.push(others);
        }
        let mut command = Command::new(name);
        command.args(arguments).env("LD_PRELOAD", preload).env("ATRACE_DIR", &self.raw);
        let options = [
            ("ATRACE_LIMIT", args.limit.or(args.ring)),
            ("ATRACE_RING", args.ring.map(|_| 1)),
            ("ATRACE_ONE_IN", args.one_in.map(u64::from)),
            ("ATRACE_PAUSED", args.paused.then_some(1)),
        ];
        for (name, value) in options {
            match value {
                Some(value) => command.env(name, value.to_string()),
                None => command.env_remove(name),
            };
        }
        signals::listen();
        let mut child = command.spawn().map_err(|error| self.not_started(name, &error))?;
        self.pid.store(child.id().cast_signed(), Ordering::Relaxed);
        signals::pass_on_to(child.id().cast_signed());
        let ended = AtomicBool::new(false);
        let status = std::thread::scope(|scope| {
            scope.spawn(|| self.obey_switch(!args.paused, &ended));
            let status = child.wait();
            signals::pass_on_to(0);
            if args.wait {
                self.wait_for_the_others();
            }
            ended.store(true, Ordering::Release);
            status
        });
        self.end_recording();
        status.map_err(|error| {
            CliError::new(Exit::Internal, "cannot wait for the program").because(error)
        })
    }

    /// Waits until no process writes to a raw file any more, or a signal says that it is enough.
    fn wait_for_the_others(&self) {
        signals::wait();
        let mut told = false;
        while !signals::enough() {
            let running = self.running();
            if running.is_empty() {
                break;
            }
            if !std::mem::replace(&mut told, true) {
                let pids: Vec<String> = running.iter().map(|(_, pid)| pid.to_string()).collect();
                let pids = pids.join(", ");
                note(&format!("waiting for the end of process {pids}; Ctrl-C ends the waiting"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells every process that goes on to record no more.
    fn end_recording(&self) {
        for (path, pid) in self.running() {
            // A process that ended meanwhile needs no gate.
            let _ = RawTrace::set_recording(&path, false);
            note(&format!("process {pid} goes on, and is recorded no more; see --wait"));
            if let Ok(mut open) = self.open.lock() {
                open.insert(path);
            }
        }
    }

    /// Whether the process of this raw file was still running when recording ended.
    pub(super) fn is_open(&self, path: &Path) -> bool {
        self.open.lock().is_ok_and(|open| open.contains(path))
    }

    /// The raw files that processes have mapped now, with the process. One that went on as another
    /// program (exec) no longer has the file of its former self.
    fn running(&self) -> Vec<(PathBuf, u32)> {
        let mapped = |path: &Path, pid: u32| {
            let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
            let path = path.as_os_str().as_bytes();
            maps.split(|&byte| byte == b'\n').any(|line| line.ends_with(path))
        };
        let files = self.raw_files().into_iter().map(|(path, pid, _)| (path, pid));
        files.filter(|(path, pid)| mapped(path, *pid)).collect()
    }

    /// Opens and closes the gate of all processes at each SIGUSR1, until the program has ended; also
    /// of those that begin later.
    fn obey_switch(&self, recording: bool, ended: &AtomicBool) {
        let mut recording = recording;
        // Files that stand as `recording` says. Before the first switch all begin so.
        let mut done: Option<HashSet<PathBuf>> = None;
        while !ended.load(Ordering::Acquire) {
            let switched = signals::take_switch();
            if switched {
                recording = !recording;
                self.was_on.fetch_or(recording, Ordering::Relaxed);
                done = Some(HashSet::new());
            }
            if let Some(done) = &mut done {
                for (path, ..) in self.raw_files() {
                    // A file that is gone needs no gate.
                    if !done.contains(&path)
                        && RawTrace::set_recording(&path, recording).unwrap_or(true)
                    {
                        done.insert(path);
                    }
                }
            }
            if switched {
                note(&format!("recording is {}", if recording { "on" } else { "off" }));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn not_started(&self, name: &OsStr, error: &std::io::Error) -> CliError {
        let _ = fs::remove_dir(&self.raw);
        let what = format!("cannot run `{}`", name.display());
        let error = CliError::new(Exit::Usage, what).because(error);
        match program::find(name) {
            Some(_) => error.help("check the file's permissions and its interpreter"),
            None => error.help("give the program's path, or a name that is on PATH"),
        }
    }

    /// Whether recording was on from the beginning, or switched on.
    pub(super) fn was_switched_on(&self) -> bool {
        self.was_on.load(Ordering::Relaxed)
    }

    /// The process id of the program.
    pub(super) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed).cast_unsigned()
    }

    /// All raw files: path, process id, image of the process.
    pub(super) fn raw_files(&self) -> Vec<(PathBuf, u32, u32)> {
        let entries = fs::read_dir(&self.raw).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let (pid, image) = parse(&path)?;
                Some((path, pid, image))
            })
            .collect();
        files.sort_by_key(|&(_, pid, image)| (pid, image));
        files
    }
}

/// Process id and image from `PID-IMAGE.raw`.
fn parse(path: &Path) -> Option<(u32, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".raw")?;
    let (pid, image) = stem.split_once('-')?;
    Some((pid.parse().ok()?, image.parse().ok()?))
}

mod signals {
    //! While the program runs, it decides what a signal means: a Ctrl-C of the terminal reaches it
    //! directly, other signals are passed on. This process waits for it and keeps what was recorded.

    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

    static PROGRAM: AtomicI32 = AtomicI32::new(0);
    static SWITCH: AtomicBool = AtomicBool::new(false);
    /// Whether the program has ended, and others are waited for; whether that is enough.
    static WAITING: AtomicBool = AtomicBool::new(false);
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    /// A signal that came before the program's number was known; 0 for none.
    static EARLY: AtomicI32 = AtomicI32::new(0);

    extern "C" fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        if signal == libc::SIGUSR1 {
            SWITCH.store(true, Ordering::Relaxed);
            return;
        }
        if WAITING.load(Ordering::Relaxed) {
            ENOUGH.store(true, Ordering::Relaxed);
            return;
        }
        let program = PROGRAM.load(Ordering::Relaxed);
        // SAFETY: the kernel passes a valid siginfo.
        let by_terminal = unsafe { (*info).si_code } > 0;
        if by_terminal {
            return;
        }
        if program > 0 {
            // SAFETY: kill may be called in a signal handler; the process is our child, not yet
            // waited for, so the number still means it.
            unsafe { libc::kill(program, signal) };
        } else {
            EARLY.store(signal, Ordering::Relaxed);
        }
    }

    /// From now on the program has ended, and a signal means that nothing else is to be waited for.
    pub(super) fn wait() {
        WAITING.store(true, Ordering::Relaxed);
    }

    /// Whether such a signal came.
    pub(super) fn enough() -> bool {
        ENOUGH.load(Ordering::Relaxed)
    }

    /// Whether SIGUSR1 came since the last call.
    pub(super) fn take_switch() -> bool {
        SWITCH.swap(false, Ordering::Relaxed)
    }

    /// From now on signals go to `program`, the last one that came before too; 0 for none. The
    /// calling thread is the only one, so the handler runs before the store or after it.
    pub(super) fn pass_on_to(program: i32) {
        PROGRAM.store(program, Ordering::Relaxed);
        let early = EARLY.swap(0, Ordering::Relaxed);
        if program > 0 && early != 0 {
            // SAFETY: the process is our child, not yet waited for.
            unsafe { libc::kill(program, early) };
        }
    }

    /// Installs the handler. The program starts with the default actions, as handlers do not
    /// survive exec.
    pub(super) fn listen() {
        let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1];
        for signal in signals {
            // SAFETY: all zero is a valid sigaction, with an empty mask.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = pass_on as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: the handler calls only async-signal-safe functions.
            unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        }
    }
}
