//! Builds the library once per test run, compiles C and C++ programs, and runs programs with and without it.
//!
//! The library under test is the one that ships: profile `preload`, feature `preload`, in a target directory of its
//! own below cargo's temporary one, so that it neither waits for nor overwrites the workspace's.
//!
//! A program that this machine lacks makes its test print `skipped: …` and pass; everything else must hold.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::print_stdout, reason = "skipping must be seen")]

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any program here takes on a busy machine: only a hang reaches it.
const HANG: Duration = Duration::from_secs(180);

/// What a program did.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Panics, with everything the program said, unless it ended with 0.
    #[track_caller]
    pub(crate) fn expect_success(&self, what: &str) -> &Self {
        assert!(
            self.status.success(),
            "{what}: {} (signal {:?})\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.status.signal(),
            tail(&self.stdout),
            tail(&self.stderr)
        );
        self
    }
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(4000);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[start..]
}

/// The folder of this package.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh folder below cargo's temporary directory, called after `name`: another one at each call,
/// since tests that use the same name run side by side.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("scratch").join(format!("{name}.{call}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder below the target directory");
    folder
}

/// `liballocator.so` as it ships.
pub(crate) fn shared_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("shared", &["--features", "preload"], "liballocator.so"))
}

/// `liballocator.a` as it ships: without the feature `preload`, whose undefined symbol is for shared links only.
pub(crate) fn static_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("static", &[], "liballocator.a"))
}

/// `liballocator.so` with the feature `hardened`.
pub(crate) fn hardened_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("hardened", &["--features", "preload,hardened"], "liballocator.so"))
}

fn build(variant: &str, arguments: &[&str], file: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("library").join(variant);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "allocator-capi",
            "--profile",
            "preload",
            "--target-dir",
        ])
        .arg(&target)
        .args(arguments)
        .current_dir(package())
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "the {variant} library builds:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    target.join("preload").join(file)
}

/// Whether `program` is on the PATH; says so when it is not.
pub(crate) fn available(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        println!("skipped: no `{program}` on this machine");
    }
    found
}

/// Where `program` is on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Compiles `tests/c/SOURCE` with `arguments`; `None`, said aloud, without a compiler.
pub(crate) fn compile(source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let compiler = if source.ends_with(".cc") { "g++" } else { "cc" };
    if !available(compiler) {
        return None;
    }
    let program = scratch(&format!("program-{source}")).join("program");
    let output = Command::new(compiler)
        .arg(package().join("tests/c").join(source))
        .args([
            "-g",
            "-O1",
            "-fno-builtin",
            "-Wall",
            "-Wextra",
            "-Wno-alloc-size-larger-than",
            "-pthread",
        ])
        .args(["-Wno-deprecated-declarations", "-Wno-unused-result", "-Wno-use-after-free", "-I"])
        .arg(package().join("include"))
        .arg("-o")
        .arg(&program)
        .args(arguments)
        .output()
        .expect("the compiler runs");
    assert!(
        output.status.success(),
        "{source} compiles:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(program)
}

/// `program`, with the library preloaded into it and into what it starts.
pub(crate) fn preloaded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", shared_library()).env_remove("ALLOCATOR_OPTIONS");
    command
}

/// Runs `command` in a process group of its own, so that a hang ends with all its children.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_with_input(command, Vec::new())
}

/// As [`run`], with `input` on standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: Vec<u8>) -> Outcome {
    use std::io::Write;
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = i32::try_from(child.id()).expect("a process id");
    let feeder =
        child.stdin.take().map(|mut pipe| thread::spawn(move || drop(pipe.write_all(&input))));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if started.elapsed() > HANG {
            // SAFETY: `group` is the process group of the child, which is not yet waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = child.wait();
            panic!("{command:?} hangs: killed after {HANG:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    Outcome {
        status,
        stdout: stdout.join().expect("a reader"),
        stderr: stderr.join().expect("a reader"),
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What a program may run on: the ordinary and the hardened library, each with thread heaps and in classic mode. A
/// name, the library, and `ALLOCATOR_OPTIONS`.
pub(crate) fn every_mode() -> [(&'static str, &'static Path, &'static str); 5] {
    let (ordinary, hardened) = (shared_library(), hardened_library());
    [
        ("ordinary", ordinary, ""),
        ("hardened", hardened, ""),
        ("classic", ordinary, "mode=classic"),
        ("classic", ordinary, "mode=classic,lock=arena,cache=on"),
        ("classic", hardened, "mode=classic"),
    ]
}

/// Compiles `tests/c/SOURCE` with compiler `arguments` and expects it to end with 0 in every mode. It is
/// run with what `tell` makes of the mode's name.
#[track_caller]
pub(crate) fn holds_in_every_mode(
    source: &str,
    arguments: &[&str],
    tell: impl Fn(&'static str) -> Option<&'static str>,
) {
    let Some(program) = compile(source, arguments) else { return };
    for (name, library, options) in every_mode() {
        let mut command = Command::new(&program);
        command.args(tell(name)).env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options);
        let what = format!("{source}, {name}, {options}, {}", library.display());
        run(&mut command).expect_success(&what);
    }
}

/// Compiles `tests/c/SOURCE`, runs it preloaded, and expects it to end with 0.
#[track_caller]
pub(crate) fn holds(source: &str) {
    holds_with(source, &[], &[]);
}

/// As [`holds`], with compiler `arguments` and environment `variables`.
#[track_caller]
pub(crate) fn holds_with(source: &str, arguments: &[&str], variables: &[(&str, &str)]) {
    if let Some(program) = compile(source, arguments) {
        run(preloaded(program).envs(variables.iter().copied())).expect_success(source);
    }
}

/// Runs the same command line without and with the library: same status, same standard output.
#[track_caller]
pub(crate) fn same_with_and_without(program: &str, configure: impl Fn(&mut Command)) {
    if !available(program) {
        return;
    }
    let mut plain = Command::new(program);
    configure(plain.env_remove("LD_PRELOAD"));
    let mut ours = preloaded(program);
    configure(&mut ours);
    let expected = run(&mut plain);
    expected.expect_success("without the library");
    let got = run(&mut ours);
    got.expect_success("with the library");
    assert_eq!(expected.stdout, got.stdout, "`{program}` prints the same with the library");
    assert!(!got.stderr.contains("allocator"), "the library is silent:\n{}", got.stderr);
    assert!(!got.stderr.contains("ld.so"), "the library loads:\n{}", got.stderr);
}
