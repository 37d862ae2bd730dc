//! `doctor --fix` on settings that are files: mounted over the kernel's own in a namespace of the test's,
//! so that the machine is not touched and no root is needed. Whatever ends the command, they are put
//! back; after SIGKILL by `--restore`.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Where a setting is mounted, what it says at first, and what a measurement wants.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "performance"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n", "madvise"),
    ("/proc/sys/kernel/randomize_va_space", "0\n", "2"),
    ("/proc/sys/kernel/perf_event_paranoid", "3\n", "1"),
];
/// What is put back: of several words the one that was in brackets.
const WERE: [&str; 4] = ["powersave", "always", "0", "3"];

/// A machine whose settings are files in a folder.
struct Machine {
    home: tempfile::TempDir,
}

impl Machine {
    /// `None`, said aloud, where this user may make no namespace or mount nothing in it.
    fn new() -> Option<Self> {
        let machine = Machine { home: tempfile::tempdir().unwrap() };
        for (path, text, _) in SETTINGS {
            let file = machine.file(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let made = machine.inside("true").output();
        if made.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(machine);
        }
        eprintln!("skipped: no mount namespace can be made here ({made:?})");
        None
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    /// A shell's command line with the settings in place of the machine's. The shell's last command
    /// takes its process, and that of `unshare`.
    fn inside(&self, script: &str) -> Command {
        let mounts = "mount --bind sys/devices/system/cpu /sys/devices/system/cpu && \
            for file in sys/kernel/mm/transparent_hugepage/enabled \
              proc/sys/kernel/randomize_va_space proc/sys/kernel/perf_event_paranoid; do \
              mount --bind \"$file\" \"/$file\" || exit 99; done";
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c"]).arg(format!("{mounts} && {script}"));
        command.current_dir(self.path()).env("XDG_CACHE_HOME", self.path().join("cache"));
        command.env("BENCH_CLI", env!("CARGO_BIN_EXE_bench-cli")).env_remove("LD_PRELOAD");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, script: &str) -> (Option<i32>, String, String) {
        told(&self.inside(script).output().unwrap())
    }

    /// Starts a command that does not end by itself under changed settings, in a group of its own, and
    /// waits until it runs.
    fn start(&self) -> Child {
        let script = "exec \"$BENCH_CLI\" doctor --fix --yes -- \
            sh -c 'echo > started; exec sleep 1000'";
        let mut child = self.inside(script).process_group(0).spawn().unwrap();
        while !self.path().join("started").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.say(), SETTINGS.map(|(_, _, wanted)| wanted));
        child
    }

    /// What the settings say now.
    fn say(&self) -> [String; 4] {
        SETTINGS.map(|(path, ..)| fs::read_to_string(self.file(path)).unwrap().trim().to_owned())
    }

    fn note_is_left(&self) -> bool {
        self.path().join("cache/bench-cli/changed-settings.json").exists()
    }

    #[track_caller]
    fn is_as_it_was(&self) {
        assert_eq!(self.say(), WERE);
        assert!(!self.note_is_left());
    }
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_runs_under_better_settings_and_its_status_is_passed_on() {
    let Some(machine) = Machine::new() else { return };
    let files = SETTINGS.map(|(path, ..)| path).join(" ");
    let script = format!("exec \"$BENCH_CLI\" doctor --fix --yes -- sh -c 'cat {files}; exit 7'");
    let (status, stdout, stderr) = machine.run(&script);
    assert_eq!(status, Some(7), "{stderr}");
    assert_eq!(stdout, "performancemadvise21", "what it saw");
    for (path, _, wanted) in SETTINGS {
        assert!(stderr.contains(path) && stderr.contains(&format!("to be `{wanted}`")), "{stderr}");
    }
    assert!(stderr.contains("4 settings are as they were"), "{stderr}");
    machine.is_as_it_was();
}

#[test]
fn without_consent_nothing_is_changed_and_nothing_runs() {
    let Some(machine) = Machine::new() else { return };
    let before = machine.say();
    let script = "exec \"$BENCH_CLI\" doctor --fix -- sh -c 'echo > started'";
    let (status, _, stderr) = machine.run(script);
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("--yes"), "{stderr}");
    assert_eq!(machine.say(), before);
    assert!(!machine.path().join("started").exists());
}

#[test]
fn a_command_that_cannot_be_run_changes_nothing_for_longer() {
    let Some(machine) = Machine::new() else { return };
    let (status, _, stderr) =
        machine.run("exec \"$BENCH_CLI\" doctor --fix --yes -- no-such-program");
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("no-such-program"), "{stderr}");
    machine.is_as_it_was();
}

#[test]
fn ctrl_c_ends_the_command_and_puts_the_settings_back() {
    let Some(machine) = Machine::new() else { return };
    let child = machine.start();
    // As a terminal does: to every process of the group.
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    let (status, _, stderr) = told(&child.wait_with_output().unwrap());
    assert_eq!(status, Some(130), "{stderr}");
    machine.is_as_it_was();
}

#[test]
fn what_ends_bench_cli_alone_ends_the_command_and_puts_the_settings_back() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let Some(machine) = Machine::new() else { return };
        let child = machine.start();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (status, _, stderr) = told(&child.wait_with_output().unwrap());
        assert_eq!(status, Some(143), "{name}: {stderr}");
        machine.is_as_it_was();
    }
}

#[test]
fn what_a_killed_one_left_is_refused_until_it_is_put_back() {
    let Some(machine) = Machine::new() else { return };
    let child = machine.start();
    let group = Pid::from_child(&child);
    kill_process(group, Signal::KILL).unwrap();
    // The command outlives it, and would hold the pipes.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait_with_output().unwrap();
    assert!(machine.note_is_left());
    let again = machine.run("exec \"$BENCH_CLI\" doctor --fix --yes -- true");
    assert_eq!(again.0, Some(2), "{}", again.2);
    assert!(again.2.contains("doctor --restore"), "{}", again.2);
    let (status, stdout, stderr) = machine.run("exec \"$BENCH_CLI\" doctor --restore");
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains("4 settings are as they were"), "{stdout}");
    machine.is_as_it_was();
}
