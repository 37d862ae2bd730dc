//! Trace verbs, gates and histories where there is no room, no permission, nobody who reads, or a file that unpacks to
//! more than there is memory: an error with its exit code, nothing half-written, bounded memory.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{bench_cli, run};

/// A text trace of `pairs` pairs of calls, which a container holds in about four bytes a call.
fn trace(home: &Path, pairs: u64) {
    let mut text = String::new();
    let mut size = 1_u64;
    for i in 0..pairs {
        size = size.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!(
            "1: malloc {:#x} {}\n1: free {:#x}\n",
            i * 16 + 16,
            size >> 40,
            i * 16 + 16
        ));
    }
    fs::write(home.join("t.txt"), text).unwrap();
}

/// The binary, started by a shell that does `first` before.
fn after(home: &Path, first: &str, args: &str) -> Output {
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{first}exec {binary} {args}")]).current_dir(home);
    command.env("RUST_BACKTRACE", "1").output().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
}

fn names(home: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let entries =
        fs::read_dir(home).unwrap().map(|entry| name(entry).to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter(|name| name != "cache").collect();
    names.sort();
    names
}

const WRITING: [(&str, &str); 5] = [
    ("trace convert t.txt -o", "out.atrace"),
    ("trace anonymize t.txt -o", "out.atrace"),
    ("trace merge t.txt t.txt -o", "out.atrace"),
    ("trace cut t.txt --births 0.. -o", "out.atrace"),
    ("trace export t.txt -o", "out.csv"),
];

#[test]
fn a_file_that_may_not_grow_is_an_error_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 40_000);
    for (verb, out) in WRITING {
        let output = after(home.path(), "ulimit -f 64; ", &format!("{verb} {out}"));
        refused(&output, 2, &["cannot write", out, "File too large", "help:"]);
        assert_eq!(names(home.path()), ["t.txt"], "{verb}");
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 40_000);
    fs::create_dir(home.path().join("disk")).unwrap();
    let mount = "mount -t tmpfs -o size=64k tmpfs disk";
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    for (verb, out) in WRITING {
        let script =
            format!("{mount} || exit 99; {binary} {verb} disk/{out}; s=$?; ls -A disk; exit $s");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).current_dir(home.path());
        let output = match command.env("RUST_BACKTRACE", "1").output() {
            Ok(output) if output.status.code() != Some(99) && output.status.code() != Some(1) => {
                output
            }
            _ => {
                println!("skipped: no file system can be mounted here");
                return;
            }
        };
        refused(&output, 2, &["cannot write", out, "No space left on device", "help: make room"]);
        assert!(output.stdout.is_empty(), "left: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Runs `script` where `disk` is a file system of four pages, all of them taken.
fn on_a_full_disk(home: &Path, script: &str) -> Option<Output> {
    fs::create_dir(home.join("disk")).unwrap();
    let fill = "mount -t tmpfs -o size=16k tmpfs disk && head -c 16384 /dev/zero > disk/fill";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &format!("{fill} || exit 99; {script}")]).current_dir(home);
    command.env("XDG_CACHE_HOME", home.join("cache")).env("RUST_BACKTRACE", "1");
    match command.output() {
        Ok(output) if !matches!(output.status.code(), Some(99 | 1)) => Some(output),
        _ => {
            eprintln!("skipped: no file system can be mounted here");
            None
        }
    }
}

#[test]
fn a_recording_on_a_full_disk_is_told_from_a_program_without_calls() {
    let home = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    let script = format!("{binary} record -o disk/t.atrace -- ls; s=$?; ls -A disk; exit $s");
    let Some(output) = on_a_full_disk(home.path(), &script) else { return };
    refused(&output, 2, &["no call could be written", "No space left on device", "make room"]);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("\nfill\n"), "nothing else is left");
}

#[test]
fn a_gate_on_a_full_disk_still_tells_its_verdict_and_leaves_no_half_a_file() {
    let home = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");
    let gate = "--base system --head system --budget 1s --out disk/g";
    let script = format!("{binary} gate {tiny} {gate}; s=$?; ls -A disk/g >&2; exit $s");
    let Some(output) = on_a_full_disk(home.path(), &script) else { return };
    refused(&output, 2, &["cannot write `disk/g/", "No space left on device", "make room"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("tiny-churn-1t"), "the verdict is told: {stdout}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains(".csv\n"), "a file is left: {stderr}");
}

#[test]
fn a_cell_on_a_full_disk_leaves_no_record_and_a_history_that_cannot_begin_no_file() {
    let home = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_bench-cli");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");
    let plan = ["plan", tiny, "--base", "system", "--head", "system", "--budget", "1s"];
    assert_eq!(run(home.path(), &[&plan[..], &["--out", "p"]].concat()).0, 0);
    fs::create_dir(home.path().join("p/cells")).unwrap();
    // The record lies on the full disk, the plan does not.
    let script = format!(
        "mount --bind disk p/cells || exit 99; {binary} cell --plan p/plan.json --index 0; s=$?; \
         {binary} history import p --file disk/h.sqlite; t=$?; ls -A disk; exit $((s * 10 + t))"
    );
    let Some(output) = on_a_full_disk(home.path(), &script) else { return };
    let words = ["cannot write `p/cells/0.json`", "make room there", "cannot be written"];
    refused(&output, 22, &words);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "fill", "and nothing else is left");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_is_read() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 10);
    // Not even root may create a file there.
    for (verb, out) in WRITING {
        let output = after(home.path(), "", &format!("{verb} /proc/{out}"));
        refused(&output, 2, &["cannot write", out, "help:"]);
    }
    refused(&after(home.path(), "", "trace info t.txt --html /proc/x.html"), 2, &["/proc/x.html"]);
    refused(&after(home.path(), "", "trace fit t.txt -o /proc/x.json"), 2, &["/proc/x.json"]);
    refused(&after(home.path(), "", "record -o /proc/t.atrace -- true"), 2, &["/proc/t.atrace"]);
    assert_eq!(names(home.path()), ["t.txt"]);
}

#[test]
fn devices_are_written_to_and_stay_what_they_are() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 10);
    for verb in ["trace convert t.txt -o /dev/null", "trace export t.txt -o /dev/null"] {
        assert_eq!(after(home.path(), "", verb).status.code(), Some(0), "{verb}");
    }
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    if Path::new("/dev/full").exists() {
        let full = ["No space left on device", "/dev/full"];
        refused(&after(home.path(), "", "trace convert t.txt -o /dev/full"), 2, &full);
        refused(&after(home.path(), "", "trace export t.txt -o /dev/full"), 2, &full);
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
        let output = after(home.path(), "", "trace export t.txt > /dev/full");
        refused(&output, 2, &["cannot write", "No space left on device"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 20_000);
    let shown = [
        "trace info t.txt",
        "trace info t.txt --format json",
        "trace verify t.txt",
        "trace diff t.txt t.txt",
        "trace export t.txt",
        "trace export t.txt --to glibc-binary",
        "trace fit t.txt -o p.json",
    ];
    for args in shown {
        let mut child = bench_cli(home.path())
            .args(args.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{args}: {stderr}");
    }
    // Nobody listens to standard error either.
    let args = ["record", "-o", "r.atrace", "--", "ls"];
    let mut child = bench_cli(home.path()).args(args).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Address space that reading takes at most, in KiB: far less than what is unpacked.
const ROOM: u64 = 400 << 10;

#[test]
fn bombs_are_read_or_refused_in_bounded_memory() {
    let home = tempfile::tempdir().unwrap();
    let line = [vec![b' '; 8191], vec![b'\n']].concat();
    let blank = line.repeat(2048);
    let file = |name: &str| fs::File::create(home.path().join(name)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file("b.gz"), flate2::Compression::fast());
    let mut zip = zip::ZipWriter::new(file("b.zip"));
    let options = zip::write::SimpleFileOptions::default().large_file(true);
    zip.start_file("a.txt", options).unwrap();
    let mut zstd = zstd::Encoder::new(file("b.zst"), 1).unwrap();
    for out in [&mut gzip as &mut dyn Write, &mut zip, &mut zstd] {
        out.write_all(b"1: malloc 0x10 8\n").unwrap();
        for _ in 0..28 {
            out.write_all(&blank).unwrap();
        }
    }
    gzip.finish().unwrap();
    zip.finish().unwrap();
    zstd.finish().unwrap();
    for name in ["b.zst", "b.gz", "b.zip"] {
        let first = format!("ulimit -v {ROOM}; ");
        let output = after(home.path(), &first, &format!("trace info {name}"));
        // What is packed less than 16,384-fold is believed, and read piece by piece.
        match output.status.code() {
            Some(0) => {}
            _ => refused(&output, 7, &["expands", name, "help:"]),
        }
    }
}

#[test]
fn a_zstd_frame_that_wants_more_memory_than_is_reasonable_is_refused() {
    let home = tempfile::tempdir().unwrap();
    // Magic, a descriptor without a size, a window of 2^(10 + 30) bytes; one block of text.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 30 << 3];
    let text = b"1: malloc 0x10 8\n";
    bytes.extend(((text.len() as u32) << 3 | 1).to_le_bytes()[..3].iter());
    bytes.extend(text);
    fs::write(home.path().join("w.zst"), bytes).unwrap();
    let output = after(home.path(), &format!("ulimit -v {ROOM}; "), "trace info w.zst");
    refused(&output, 7, &["zstd data", "help:"]);
}

#[test]
fn a_container_with_a_footer_of_nothing_but_names_is_read_in_bounded_memory() {
    use trace_format::crc32c::crc32c;
    use trace_format::v1::{ChunkHeader, ChunkKind, Compression, FileHeader, Trailer};
    let home = tempfile::tempdir().unwrap();
    // 60 million empty strings, and as many pairs of them.
    let many = 60_000_000_u64;
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let mut strings = varint(many);
    strings.resize(strings.len() + many as usize, 0);
    let mut plain = 3_u32.to_le_bytes().to_vec();
    plain.extend((strings.len() as u64).to_le_bytes());
    plain.extend(strings);
    let payload = zstd::encode_all(&plain[..], 1).unwrap();
    let header = ChunkHeader {
        kind: ChunkKind::Footer,
        compression: Compression::Zstd,
        thread: u32::MAX,
        count: 0,
        first_sequence: 0,
        first_object: 1,
        base_time: 0,
        stored_len: payload.len() as u32,
        plain_len: plain.len() as u32,
        checksum: crc32c(&payload),
    };
    let mut bytes = FileHeader { features: 0 }.encode().to_vec();
    let footer_offset = bytes.len() as u64;
    bytes.extend(header.encode());
    bytes.extend(payload);
    bytes.extend(Trailer { footer_offset }.encode());
    fs::write(home.path().join("names.atrace"), bytes).unwrap();
    let output = after(home.path(), &format!("ulimit -v {ROOM}; "), "trace info names.atrace");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("names.atrace: it ends inside a chunk"),
        "the footer is no footer: {stderr}"
    );
}

#[test]
fn text_comes_through_a_pipe_and_a_container_only_from_a_file() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 10);
    assert_eq!(run(home.path(), &["trace", "convert", "t.txt", "-o", "t.atrace"]).0, 0);
    let first = format!(
        "cat t.atrace | {} trace info /dev/stdin; exit $?; ",
        env!("CARGO_BIN_EXE_bench-cli")
    );
    refused(&after(home.path(), &first, ""), 7, &["a container is read from a file", "help:"]);
    let first =
        format!("cat t.txt | {} trace info /dev/stdin; exit $?; ", env!("CARGO_BIN_EXE_bench-cli"));
    assert_eq!(after(home.path(), &first, "").status.code(), Some(0), "text comes through a pipe");
}
