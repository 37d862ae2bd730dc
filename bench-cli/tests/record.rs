//! `bench-cli record` as its user meets it: the trace, the exit status, and what it says when
//! there is nothing to record.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use traces::container::{self, Reader, STILL_RUNNING, Writer, WriterOptions};
use traces::{EventSource, Op, Source};

fn bench_cli(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command.env_remove("LD_PRELOAD").env("RUST_BACKTRACE", "1");
    command
}

fn record(folder: &Path, program: &[&str]) -> Output {
    let mut command = bench_cli(folder);
    command.args(["record", "-o", "t.atrace", "--"]).args(program).output().expect("it runs")
}

/// Events of a trace that must be whole and need no repair.
fn events(path: &Path) -> Vec<traces::Event> {
    let mut reader = Reader::open(path).expect("a sound trace");
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().expect("a sound trace") {
        events.push(event);
    }
    assert_eq!(reader.loss(), None);
    assert_eq!(reader.census().anomalies(), []);
    events
}

/// What lies in the folder besides the cache.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|e| name(e.expect("readable"))).collect();
    names.retain(|name| name != "cache");
    names.sort();
    names
}

fn compile(folder: &Path, source: &str, flags: &[&str]) -> bool {
    fs::write(folder.join("p.c"), source).expect("a writable folder");
    let mut cc = Command::new("cc");
    cc.current_dir(folder).args(["-O0", "-fno-builtin", "-w", "-o", "p", "p.c"]).args(flags);
    let compiled = cc.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    fs::remove_file(folder.join("p.c")).expect("just written");
    compiled
}

#[test]
fn a_trace_appears_beside_nothing_else_and_the_status_is_the_programs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\nint main() { free(malloc(123457)); return 3; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    let output = record(folder.path(), &["./p"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(names(folder.path()), ["p", "t.atrace"]);
    let events = events(&folder.path().join("t.atrace"));
    let found = events.iter().filter(|e| matches!(e.op, Op::Malloc { size: 123_457, .. }));
    assert_eq!(found.count(), 1);
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(summary.contains("dropped: 0 events"), "{summary}");
    assert!(summary.contains("an estimate"), "{summary}");
}

#[test]
fn real_programs_are_recorded_without_a_loss_or_a_repair() {
    let programs: [&[&str]; 4] = [
        &["perl", "-e", "my %h; $h{$_} = [1..5] for 1..500; print scalar(keys %h)"],
        &["sqlite3", ":memory:", "create table t(a); insert into t values(1); select * from t"],
        &["git", "--version"],
        &["python3", "-c", "import json; print(json.dumps({'a': 1}))"],
    ];
    for program in programs {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Ok(plain) = Command::new(program[0]).args(&program[1..]).output() else {
            eprintln!("skipped: {} is not installed", program[0]);
            continue;
        };
        let output = record(folder.path(), program);
        assert_eq!(output.stdout, plain.stdout, "{} says the same", program[0]);
        assert_eq!(output.status.code(), plain.status.code());
        let events = events(&folder.path().join("t.atrace"));
        assert!(events.len() > 10, "{} made {} calls", program[0], events.len());
    }
}

#[test]
fn a_static_program_cannot_be_recorded_and_the_reason_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\nint main() { free(malloc(5)); return 0; }";
    if !compile(folder.path(), source, &["-static"]) {
        eprintln!("skipped: no static libc");
        return;
    }
    let output = record(folder.path(), &["./p"]);
    assert_eq!(output.status.code(), Some(5));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("0 events") && message.contains("statically linked"), "{message}");
    assert_eq!(names(folder.path()), ["p"]);
}

#[test]
fn a_program_that_is_missing_and_a_place_that_cannot_be_written_are_usage_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = record(folder.path(), &["./no-such-program"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(names(folder.path()).is_empty());
    let mut command = bench_cli(folder.path());
    command.args(["record", "-o", "no/such/folder/t.atrace", "--", "true"]);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("help:") && !message.contains("backtrace"), "{message}");
}

#[test]
fn an_interrupted_recording_keeps_what_was_recorded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n\
        int main() { free(malloc(123457)); close(creat(\"ready\", 0600)); for (;;) pause(); }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    let mut command = bench_cli(folder.path());
    let mut child = command
        .args(["record", "-o", "t.atrace", "--", "./p"])
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    while !folder.path().join("ready").exists() {
        assert!(child.try_wait().expect("our child").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    // As `kill -INT` does: the signal is passed on to the program.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    assert_eq!(child.wait().expect("our child").code(), Some(130));
    let events = events(&folder.path().join("t.atrace"));
    assert!(events.iter().any(|e| matches!(e.op, Op::Malloc { size: 123_457, .. })));
}

#[test]
fn a_raw_file_that_was_never_begun_is_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = record(folder.path(), &["sh", "-c", "> \"$ATRACE_DIR/99999999-0.raw\""]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("was never begun"), "{message}");
    assert!(!events(&folder.path().join("t.atrace")).is_empty());
}

#[test]
fn a_child_has_a_trace_of_its_own_and_its_fork_stands_in_the_parents() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
        int main() { void *p = malloc(1); if (fork() == 0) { free(p); free(malloc(123457)); \
        _exit(0); } wait(0); return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let parent = events(&folder.path().join("t.atrace"));
    let fork = parent.iter().find_map(|e| match e.op {
        Op::Fork { child } => Some(child),
        _ => None,
    });
    let name = format!("t.{}.atrace", fork.expect("the fork is recorded"));
    assert_eq!(names(folder.path()), ["p", &name, "t.atrace"]);
    let child = events(&folder.path().join(name));
    assert!(child.iter().any(|e| matches!(e.op, Op::Malloc { size: 123_457, .. })));
}

#[test]
fn a_child_made_without_handlers_has_a_trace_of_its_own_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
        int _Fork(void);\n\
        int main() { free(malloc(111)); if (_Fork() == 0) { free(malloc(222)); _exit(0); } \
        wait(0); free(malloc(333)); return 0; }";
    if !compile(folder.path(), source, &[]) {
        println!("skipped: no _Fork here (glibc before 2.34)");
        return;
    }
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let counts = |events: &[traces::Event]| [111, 222, 333].map(|size| sizes(events, size));
    assert_eq!(counts(&events(&folder.path().join("t.atrace"))), [1, 0, 1]);
    assert_eq!(counts(&events(&childs_trace(folder.path()))), [0, 1, 0]);
}

#[test]
fn a_child_that_forks_before_its_first_call_keeps_its_own_stamp() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
        int main() { void *p = malloc(1); if (fork() == 0) { if (fork() == 0) _exit(0); wait(0); \
        free(p); free(malloc(222)); _exit(0); } wait(0); return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let trace = childs_trace(folder.path());
    let child = events(&trace);
    assert_eq!(sizes(&child, 222), 1);
    let parent = events(&folder.path().join("t.atrace"));
    let fork = parent.iter().find_map(|e| match e.op {
        Op::Fork { child } => Some(child),
        _ => None,
    });
    let name = format!("t.{}.atrace", fork.expect("the fork is recorded"));
    assert_eq!(trace, folder.path().join(name));
}

#[test]
fn a_grandchild_inherits_what_its_parent_inherited() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
        int main() { void *p = malloc(1); if (fork() == 0) { if (fork() == 0) { free(p); \
        free(malloc(222)); _exit(0); } wait(0); _exit(0); } wait(0); return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let traces = names(folder.path()).into_iter().filter(|name| name.ends_with(".atrace"));
    // None of them has a free of what it never had.
    let found: Vec<_> = traces.map(|t| events(&folder.path().join(t))).collect();
    assert_eq!(found.iter().map(|events| sizes(events, 222)).sum::<usize>(), 1);
}

#[test]
fn a_program_that_may_write_no_file_goes_on_unrecorded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = record(folder.path(), &["sh", "-c", "ulimit -f 0; ls; exit 3"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("cache"), "ls ended well");
}

/// A program whose child goes on when it has ended: until there is a file `stop`.
fn daemon(folder: &Path) {
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <fcntl.h>\n\
        int main() { free(malloc(111)); \
        if (fork() == 0) { setsid(); free(malloc(222)); close(creat(\"ready\", 0600)); \
        while (access(\"stop\", F_OK) && !access(\"ready\", F_OK)) { free(malloc(333)); usleep(1000); } \
        free(malloc(444)); close(creat(\"done\", 0600)); _exit(0); } \
        while (access(\"ready\", F_OK)) usleep(1000); return 0; }";
    assert!(compile(folder, source, &[]), "a C compiler is needed");
}

/// Lets the daemon end, and waits for that.
fn stop(folder: &Path) {
    fs::write(folder.join("stop"), "").expect("a writable folder");
    while !folder.join("done").exists() {
        std::thread::yield_now();
    }
}

/// The trace of the one child.
fn childs_trace(folder: &Path) -> std::path::PathBuf {
    let traces: Vec<String> =
        names(folder).into_iter().filter(|n| n.starts_with("t.") && n != "t.atrace").collect();
    assert_eq!(traces.len(), 1, "{traces:?}");
    folder.join(&traces[0])
}

fn sizes(events: &[traces::Event], size: u64) -> usize {
    events.iter().filter(|e| e.op.requested() == Some(size)).count()
}

#[test]
fn a_daemon_is_recorded_until_the_program_ends_and_its_trace_says_that_it_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    daemon(folder.path());
    std::os::unix::fs::symlink(".", folder.path().join("link")).expect("a writable folder");
    // Not to a pipe: the daemon has it too, and would keep it open.
    let log = fs::File::create(folder.path().join("log")).expect("a writable folder");
    let mut command = bench_cli(folder.path());
    command.args(["record", "-o", "link/t.atrace", "--", "./p"]).stderr(log);
    assert_eq!(command.status().expect("it runs").code(), Some(0));
    assert!(!folder.path().join("done").exists(), "the daemon is still there");
    let message = fs::read_to_string(folder.path().join("log")).expect("just written");
    assert!(message.contains("goes on, and is recorded no more; see --wait"), "{message}");
    assert_eq!(sizes(&events(&folder.path().join("t.atrace")), 111), 1);
    let trace = childs_trace(folder.path());
    let events = events(&trace);
    assert_eq!((sizes(&events, 222), sizes(&events, 444)), (1, 0));
    stop(folder.path());
    let mut verify = bench_cli(folder.path());
    let output =
        verify.args(["trace", "verify", "t.atrace"]).arg(&trace).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(message.matches("its process went on").count(), 1, "{message}");
    assert!(
        names(folder.path()).iter().all(|name| !name.ends_with(".raw")),
        "nothing is left over"
    );
}

/// Records the daemon with `--wait`, up to the moment at which it is ready.
fn start_waiting(folder: &Path) -> std::process::Child {
    daemon(folder);
    let log = fs::File::create(folder.join("log")).expect("a writable folder");
    let mut command = bench_cli(folder);
    command.args(["record", "--wait", "-o", "t.atrace", "--", "./p"]).stderr(log);
    let mut child = command.spawn().expect("it runs");
    while !folder.join("ready").exists() {
        assert!(child.try_wait().expect("our child").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    child
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).expect("it is there")
}

#[test]
fn with_wait_a_daemon_is_recorded_to_its_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = start_waiting(folder.path());
    stop(folder.path());
    assert_eq!(child.wait().expect("our child").code(), Some(0));
    let events = events(&childs_trace(folder.path()));
    assert_eq!((sizes(&events, 222), sizes(&events, 444)), (1, 1));
    assert!(!log(folder.path()).contains("goes on"), "{}", log(folder.path()));
}

#[test]
fn waiting_for_a_daemon_ends_at_ctrl_c_with_sound_traces() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = start_waiting(folder.path());
    while !log(folder.path()).contains("waiting for the end of process") {
        assert!(child.try_wait().expect("our child").is_none(), "it did not wait");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    assert_eq!(child.wait().expect("our child").code(), Some(0), "the program ended well");
    let events = events(&childs_trace(folder.path()));
    assert_eq!((sizes(&events, 222), sizes(&events, 444)), (1, 0));
    stop(folder.path());
}

/// A program that waits for `go`, and then starts a forked child and another program, which waits
/// until it is recorded.
const STARTS_LATER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **arguments) {
    if (count > 1) {
        char name[4096];
        int gate = 0;
        snprintf(name, sizeof name, "%s/%d-0.raw", getenv("ATRACE_DIR"), getpid());
        int file = open(name, O_RDONLY);
        for (int i = 0; gate != 1 && i < 10000; i++) {
            usleep(1000);
            pread(file, &gate, sizeof gate, 132);
        }
        free(malloc(333));
        return 0;
    }
    free(malloc(111));
    close(creat("ready", 0600));
    for (int i = 0; access("go", F_OK) && i < 60000; i++) usleep(1000);
    if (fork() == 0) { free(malloc(222)); _exit(0); }
    wait(0);
    if (fork() == 0) { execl("./p", "p", "again", NULL); _exit(1); }
    wait(0);
    return 0;
}"#;

#[test]
fn what_is_started_after_the_switch_is_recorded_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(compile(folder.path(), STARTS_LATER, &[]), "a C compiler is needed");
    let errors = fs::File::create(folder.path().join("log")).expect("a writable folder");
    let mut command = bench_cli(folder.path());
    command.args(["record", "--paused", "-o", "t.atrace", "--", "./p"]).stderr(errors);
    let mut child = command.spawn().expect("it runs");
    while !folder.path().join("ready").exists() {
        assert!(child.try_wait().expect("our child").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("our child");
    while !log(folder.path()).contains("recording is on") {
        assert!(child.try_wait().expect("our child").is_none(), "it was not switched");
        std::thread::yield_now();
    }
    fs::write(folder.path().join("go"), "").expect("a writable folder");
    assert_eq!(child.wait().expect("our child").code(), Some(0));
    let traces = names(folder.path()).into_iter().filter(|name| name.ends_with(".atrace"));
    let found: Vec<traces::Event> = traces.flat_map(|t| events(&folder.path().join(t))).collect();
    assert_eq!([111, 222, 333].map(|size| sizes(&found, size)), [0, 1, 1]);
}

#[test]
fn alignments_that_are_no_powers_of_two_are_sound_and_kept_as_they_were_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\n#include <malloc.h>\n\
        int main() { void *p; memalign(24, 100); memalign(0, 8); posix_memalign(&p, 3, 8); \
        return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let mut verify = bench_cli(folder.path());
    let output = verify.args(["trace", "verify", "t.atrace"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let events = events(&folder.path().join("t.atrace"));
    let aligned = events.iter().filter_map(|event| match event.op {
        Op::Aligned { object, align, .. } => Some((object.is_some(), align)),
        _ => None,
    });
    assert_eq!(aligned.collect::<Vec<_>>(), [(true, 32), (true, 1), (false, 3)]);
}

#[test]
fn what_the_recorder_knew_stays_with_what_is_made_from_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\nint main() { for (int i = 0; i < 99; i++) malloc(16); \
        return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    let mut command = bench_cli(folder.path());
    command.args(["record", "--one-in", "4", "--keep-raw", "-o", "t.atrace", "--", "./p"]);
    assert_eq!(command.output().expect("it runs").status.code(), Some(0));
    let raw = names(folder.path()).into_iter().find(|name| name.ends_with(".raw"));
    let raw = folder.path().join(raw.expect("it is kept"));
    let raw = fs::read_dir(raw).expect("readable").next().expect("one file").expect("readable");
    let trace = |arguments: &[&str]| {
        let mut command = bench_cli(folder.path());
        let output = command.arg("trace").args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let get = |name: &str, key: &str| {
        let reader = Reader::open(folder.path().join(name)).expect("a sound trace");
        reader.footer().and_then(|footer| footer.get(key)).map(str::to_owned)
    };
    trace(&["convert", raw.path().to_str().expect("plain"), "-o", "a.atrace"]);
    assert_eq!(get("a.atrace", "sampled_one_in").as_deref(), Some("4"));
    assert_eq!(get("a.atrace", "command").as_deref(), Some("./p"));
    trace(&["anonymize", "a.atrace", "-o", "b.atrace"]);
    assert_eq!(get("b.atrace", "sampled_one_in").as_deref(), Some("4"));
    assert_eq!(get("b.atrace", "command"), None);

    // As of a process that went on when recording ended.
    let path = folder.path().join("c.atrace");
    let mut writer = Writer::create(path, WriterOptions::default()).expect("a writable folder");
    writer.provenance(STILL_RUNNING, "yes");
    let mut a = Reader::open(folder.path().join("a.atrace")).expect("a sound trace");
    container::save(&mut a, writer).expect("a sound trace");
    trace(&["convert", "c.atrace", "-o", "d.atrace"]);
    trace(&["cut", "d.atrace", "--births", "..9", "-o", "e.atrace"]);
    trace(&["merge", "a.atrace", "e.atrace", "-o", "f.atrace"]);
    trace(&["anonymize", "f.atrace", "-o", "g.atrace"]);
    for name in ["d.atrace", "e.atrace", "f.atrace", "g.atrace"] {
        assert_eq!(get(name, STILL_RUNNING).as_deref(), Some("yes"), "{name}");
    }
}

#[test]
fn a_program_whose_calls_could_not_be_written_is_told_from_one_that_made_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "#include <stdlib.h>\nint main() { free(malloc(123457)); return 0; }";
    assert!(compile(folder.path(), source, &[]), "a C compiler is needed");
    // The recorder itself is put into the cache before files are limited.
    assert_eq!(record(folder.path(), &["./p"]).status.code(), Some(0));
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    // A file of one page has no room for calls; one of half a page or less is not even begun.
    for (limit, why) in [("64", "dropped (size limit)"), ("1", "File too large")] {
        let mut shell = Command::new("sh");
        let limit = format!("ulimit -f {limit}");
        shell.arg("-c").arg(format!("{limit}; exec '{binary}' record -o u.atrace -- ./p"));
        shell.current_dir(folder.path()).env("XDG_CACHE_HOME", folder.path().join("cache"));
        let output = shell.env_remove("LD_PRELOAD").output().expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("no call could be written"), "{message}");
        assert!(message.contains(why), "{message}");
    }
    let kept = names(folder.path()).into_iter().filter(|name| name.ends_with(".raw"));
    assert_eq!(kept.count(), 1, "the raw file is kept");

    let mut paused = bench_cli(folder.path());
    paused.args(["record", "--paused", "-o", "v.atrace", "--", "./p"]);
    let output = paused.output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(message.contains("never switched on") && message.contains("SIGUSR1"), "{message}");
}
