//! Real programs, unchanged, under the library: the same output as without it.

mod common;

use common::{
    available, find, hardened_library, preloaded, run, run_with_input, same_with_and_without,
    scratch,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn ls_lists_the_same() {
    same_with_and_without("ls", |ls| {
        ls.args(["-laR", "/usr/include"]).env("TZ", "UTC");
    });
}

#[test]
fn programs_run_under_the_hardened_library_and_print_the_same() {
    let commands: [(&str, &[&str]); 6] = [
        (
            "bash",
            &["-c", "for i in 1 2 3; do x=$x$(printf %s $i | tr 1-3 a-c); done; echo $x ${x//b/y}"],
        ),
        ("ls", &["-la", "/usr/lib"]),
        (
            "perl",
            &[
                "-e",
                "my %h; $h{$_ % 97} .= 'x' x ($_ % 300) for 1..20000; print length(join '', values %h)",
            ],
        ),
        (
            "python3",
            &[
                "-c",
                "import json, re; d = {str(i): ['a' * (i % 500)] * 3 for i in range(3000)}; print(len(json.dumps(d)), len(re.findall('a+', json.dumps(d))))",
            ],
        ),
        (
            "sqlite3",
            &[
                ":memory:",
                "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, hex(zeroblob(i % 200)) from n; create index x on t(b, a); select count(*), sum(length(b)) from t where b > '0'",
            ],
        ),
        ("gcc", &["-dM", "-E", "-x", "c", "/dev/null"]),
    ];
    for (program, arguments) in commands {
        if !available(program) {
            continue;
        }
        let plain = run(Command::new(program).args(arguments).env_remove("LD_PRELOAD"));
        let mut command = Command::new(program);
        let hardened = run(command.args(arguments).env("LD_PRELOAD", hardened_library()));
        plain.expect_success(program);
        hardened.expect_success(program);
        assert_eq!(plain.stdout, hardened.stdout, "{program} prints the same");
        assert!(
            !hardened.stderr.contains("allocator"),
            "no fault in {program}:\n{}",
            hardened.stderr
        );
    }
}

#[test]
fn git_commits_logs_packs_and_checks_the_same() {
    if !available("git") {
        return;
    }
    let mut logs = Vec::new();
    for with_library in [false, true] {
        let folder = scratch(if with_library { "git-with" } else { "git-without" });
        let git = |arguments: &[&str]| {
            let mut command = if with_library { preloaded("git") } else { Command::new("git") };
            command
                .current_dir(&folder)
                .args(["-c", "user.name=a", "-c", "user.email=a@b.invalid"])
                .args(arguments);
            command.env("GIT_CONFIG_GLOBAL", "/dev/null");
            command
                .env("GIT_COMMITTER_DATE", "2001-02-03T04:05:06Z")
                .env("GIT_AUTHOR_DATE", "2001-02-03T04:05:06Z");
            let outcome = run(&mut command);
            outcome.expect_success(&format!("git {arguments:?}"));
            outcome.stdout
        };
        git(&["init", "--quiet", "--initial-branch=main"]);
        for round in 0..12 {
            for file in 0..40 {
                let lines: String = (0..300)
                    .map(|line| format!("{file} {} {line}\n", (line * 7 + round) % 13))
                    .collect();
                std::fs::write(folder.join(format!("file{file}")), lines).expect("a file");
            }
            git(&["add", "."]);
            git(&["commit", "--quiet", "-m", &format!("round {round}")]);
        }
        git(&["-c", "pack.threads=4", "gc", "--quiet", "--aggressive", "--prune=now"]);
        git(&["fsck", "--full", "--strict"]);
        logs.push(git(&["log", "--stat", "-p", "--format=%H %s"]));
    }
    assert!(logs[0].contains("round 11") && logs[0] == logs[1], "the same commits, by hash");
}

const PYTHON: &str = r"
import json, threading, hashlib, re, zlib
def work(seed, out):
    value = {str(i): [i, {'name': 'x' * (i % 300), 'list': list(range(i % 50))}] for i in range(seed, seed + 3000)}
    for _ in range(5):
        text = json.dumps(value, sort_keys=True)
        value = json.loads(text)
    out[seed] = hashlib.sha256(zlib.compress(text.encode())).hexdigest()
out = {}
threads = [threading.Thread(target=work, args=(seed, out)) for seed in range(8)]
for t in threads: t.start()
for t in threads: t.join()
for seed in sorted(out): print(seed, out[seed])
print(len(re.findall(r'\d+', ' '.join(map(str, range(100000))))))
";

#[test]
fn python_runs_json_in_threads_the_same() {
    same_with_and_without("python3", |python| {
        python.args(["-c", PYTHON]);
    });
}

#[test]
fn python_runs_the_same_with_every_object_from_malloc() {
    same_with_and_without("python3", |python| {
        python.args(["-c", PYTHON]).env("PYTHONMALLOC", "malloc");
    });
}

#[test]
fn gcc_compiles_a_real_file_to_the_same_machine_code() {
    let source = scratch("gcc").join("source.c");
    let body: String = (0..400)
        .map(|n| {
            format!(
                "int f{n}(int a, double *b) {{ for (int i = 0; i < a; i++) b[i] += i * {n}.5; \
                 switch (a % 7) {{ case {}: return a; default: return printf(\"%d\", a); }} }}\n",
                n % 7
            )
        })
        .collect();
    std::fs::write(
        &source,
        format!("#include <stdio.h>\n#include <stdlib.h>\n#include <math.h>\n{body}"),
    )
    .expect("a file");
    same_with_and_without("gcc", |gcc| {
        gcc.args(["-O2", "-g", "-S", "-o", "-"]).arg(&source);
    });
}

#[test]
fn gxx_compiles_templates_to_the_same_machine_code() {
    let source = scratch("gxx").join("source.cc");
    std::fs::write(
        &source,
        "#include <algorithm>\n#include <map>\n#include <regex>\n#include <string>\n#include <vector>\n\
         int count(const std::string &s) { std::map<std::string, std::vector<int>> m; std::regex r(\"a+\");\n\
         m[s].push_back(std::regex_match(s, r)); std::sort(m[s].begin(), m[s].end()); return m.size(); }\n",
    )
    .expect("a file");
    same_with_and_without("g++", |gxx| {
        gxx.args(["-O1", "-S", "-o", "-"]).arg(&source);
    });
}

#[test]
fn sqlite_keeps_100_000_rows_the_same() {
    same_with_and_without("sqlite3", |sqlite| {
        sqlite.args([
            ":memory:",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
               INSERT INTO t SELECT i, printf('name-%d-%.*c', i, i % 200, 'x'), i * 0.5 FROM n;
             CREATE INDEX by_name ON t(name);
             SELECT count(*), sum(value), min(name), max(length(name)) FROM t;
             SELECT substr(name, 1, 8), count(*), avg(value) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20;
             UPDATE t SET name = upper(name) WHERE id % 3 = 0;
             DELETE FROM t WHERE id % 7 = 0;
             SELECT count(*), total(length(name)) FROM t;
             PRAGMA integrity_check;",
        ]);
    });
}

#[test]
fn a_cxx_program_with_threads_computes_the_same() {
    let Some(program) = common::compile("threads.cc", &[]) else { return };
    let plain = run(&mut Command::new(&program));
    let ours = run(&mut preloaded(&program));
    plain.expect_success("without the library");
    ours.expect_success("with the library");
    assert_eq!(plain.stdout, ours.stdout);
}

#[test]
fn redis_serves_a_benchmark_and_shuts_down_cleanly() {
    if !available("redis-server") || !available("redis-benchmark") {
        return;
    }
    let folder = scratch("redis");
    // The kernel picks a free port; between this line and redis's own bind nobody else asks for it.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let server = find("redis-server").expect("found above");
    let mut child = preloaded(server)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server starts");
    let maps = wait_for_redis(&mut child, port);
    assert!(maps.contains("liballocator.so"), "the library is in the server:\n{maps}");
    assert_eq!(ask(port, "SET name allocator\r\n"), "+OK\r\n");
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args(["-p", &port.to_string(), "-n", "40000", "-P", "16", "-q", "-d", "200"]);
    benchmark.args(["-t", "set,get,incr,lpush,rpush,lpop,sadd,hset,zadd,lrange_100,mset"]);
    let outcome = run(&mut benchmark);
    outcome.expect_success("redis-benchmark");
    assert_eq!(ask(port, "GET name\r\n"), "$9\r\nallocator\r\n");
    let _ = ask(port, "SHUTDOWN NOSAVE\r\n");
    let status = child.wait().expect("a child of ours");
    assert!(status.success(), "redis shuts down cleanly: {status}");
}

/// Waits until the server answers; returns what it has mapped.
fn wait_for_redis(child: &mut std::process::Child, port: u16) -> String {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            let mut said = String::new();
            let _ = child.stdout.take().expect("piped").read_to_string(&mut said);
            panic!("redis ended: {status}\n{said}");
        }
        assert!(started.elapsed() < Duration::from_secs(120), "redis answers on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::read_to_string(format!("/proc/{}/maps", child.id()))
        .expect("the maps of a child of ours")
}

/// One command, one answer.
fn ask(port: u16, command: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("redis listens");
    socket.write_all(command.as_bytes()).expect("redis reads");
    let mut answer = [0; 256];
    let length = socket.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn perl_and_awk_and_sort_transform_text_the_same() {
    let text: String =
        (0..60_000).map(|n: u64| format!("{} word{} {}\n", n * 7919 % 10_007, n % 97, n)).collect();
    for (program, arguments) in [
        ("sort", &["-k1,1n", "-k2,2", "--parallel=4", "-S", "1M"][..]),
        (
            "awk",
            &[
                "{ count[$2] += $1; line[$2] = line[$2] substr($0, 1, 3) } END { for (k in count) n++; print n, length(line[\"word5\"]) }",
            ][..],
        ),
        (
            "perl",
            &[
                "-ne",
                "@f = split; push @{$h{$f[1]}}, $f[0]; END { print \"$_ \", scalar(@{$h{$_}}), \"\\n\" for sort keys %h }",
            ][..],
        ),
        ("xz", &["-9", "-T2", "-c"][..]),
    ] {
        if !available(program) {
            continue;
        }
        let plain =
            run_with_input(Command::new(program).args(arguments), text.clone().into_bytes());
        let ours = run_with_input(preloaded(program).args(arguments), text.clone().into_bytes());
        plain.expect_success(program);
        ours.expect_success(program);
        assert_eq!(plain.stdout, ours.stdout, "{program}");
    }
}
