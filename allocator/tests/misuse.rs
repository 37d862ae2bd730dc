//! One program per misuse, named after it: each must end by the allocator's report, which names the
//! check, and must not reach the line that says it was not caught.
//!
//! Judged is classic mode under every placement strategy; programs that need a header in front of
//! each object are left out for buddy and slab, which have none. To judge another library by the same
//! programs: `ALLOCATOR_MISUSE_LIBRARY=PATH.so cargo test -p allocator --test misuse -- --nocapture`
//! prints which it catches.
#![expect(clippy::print_stdout, reason = "shows what a foreign library catches")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEADERS: [&str; 8] = [
    "placement=first-fit",
    "placement=first-fit-lifo",
    "placement=next-fit",
    "placement=best-fit",
    "placement=worst-fit",
    "placement=quick-fit",
    "placement=segregated",
    "placement=segregated,lock=arena,coalesce=deferred",
];
const NO_HEADERS: [&str; 2] = ["placement=buddy", "placement=slab,lock=none"];

/// The build folder that holds this test: `target/PROFILE`.
fn build() -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test has a path");
    folder.pop();
    folder.pop();
    folder
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse").join(name).with_extension("c")
}

/// What the first line of a program promises: the check, and whether it needs headers.
fn promise(name: &str) -> (String, bool) {
    let text = std::fs::read_to_string(source(name)).expect("each test has its program");
    let line = text.lines().next().unwrap_or_default();
    let check = line.split_whitespace().nth(2).expect("the first line says `expect: CHECK`");
    (check.to_owned(), line.contains("needs: header"))
}

fn compile(name: &str) -> PathBuf {
    let folder = build().join("misuse");
    std::fs::create_dir_all(&folder).expect("the build folder is writable");
    let program = folder.join(name);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(compiler)
        .args(["-O0", "-w", "-fno-builtin", "-o"])
        .arg(&program)
        .arg(source(name))
        .status()
        .expect("a C compiler is installed");
    assert!(status.success(), "{name}.c compiles");
    program
}

fn run(program: &Path, library: &Path, options: &str) -> Output {
    Command::new(program)
        .env("LD_PRELOAD", library)
        .env("ALLOCATOR_OPTIONS", options)
        .output()
        .expect("the program starts")
}

fn judge(name: &str) {
    let program = compile(name);
    let (check, needs_headers) = promise(name);
    if let Some(library) = std::env::var_os("ALLOCATOR_MISUSE_LIBRARY") {
        let output = run(&program, Path::new(&library), "");
        let missed = String::from_utf8_lossy(&output.stdout).contains("not caught");
        println!("{name}: {}", if missed { "not caught" } else { "caught" });
        return;
    }
    let library = build().join("examples/libclassic_preload.so");
    assert!(library.exists(), "cargo test builds the example classic_preload first");
    let headless = if needs_headers { &NO_HEADERS[..0] } else { &NO_HEADERS[..] };
    for options in HEADERS.iter().chain(headless) {
        let output = run(&program, &library, options);
        let report = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("not caught"), "{name} under {options} went on");
        assert_eq!(output.status.signal(), Some(6), "{name} under {options}: {report}");
        assert!(report.contains(&format!("(check {check})")), "{name} under {options}: {report}");
        assert_eq!(report.lines().count(), 1, "one line: {report}");
    }
}

macro_rules! programs {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                judge(stringify!($name));
            }
        )*

        #[test]
        fn every_program_in_the_folder_is_judged() {
            let listed = [$(stringify!($name)),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse");
            for file in std::fs::read_dir(folder).expect("the folder is there") {
                let path = file.expect("the folder can be read").path();
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                assert!(listed.contains(&name.as_str()), "{name} is not in the list");
            }
        }
    };
}

programs! {
    double_free_after_merge
    double_free_large
    double_free_medium
    double_free_of_the_later_neighbour
    double_free_small
    double_free_small_delayed
    free_far
    free_interior_large
    free_interior_medium
    free_interior_small
    free_misaligned_large
    free_misaligned_small
    free_stack
    free_static
    overflow_memset
    overflow_one_byte_medium
    overflow_one_byte_small
    realloc_after_overflow
    realloc_freed
    realloc_interior
    underflow_eight_bytes
    underflow_one_byte
    use_after_free_first_word
    use_after_free_second_word
}
