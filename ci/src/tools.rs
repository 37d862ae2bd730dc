//! Running the tools that the checks stand on: compilers, valgrind, objdump, our own binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail};

/// The library under test: the one that `--lib` names, or the one that `bench-cli` carries, which
/// is the one that measurements are made with.
///
/// # Errors
/// An option without its value, a library that is not there, a `bench-cli` that does not build.
pub(crate) fn library(root: &Path, options: &[&str]) -> anyhow::Result<PathBuf> {
    let path = match options.iter().position(|option| *option == "--lib") {
        Some(at) => {
            PathBuf::from(options.get(at + 1).context("--lib needs the path of a library")?)
        }
        None => return carried(root, "allocator"),
    };
    found(&path)
}

/// The library that `bench-cli` carries under a name.
///
/// # Errors
/// A `bench-cli` that does not build, or knows no such library.
pub(crate) fn carried(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["run", "--quiet", "--package", "bench-cli", "--"]);
    found(Path::new(output(command.args(["preload", name, "--print"]))?.trim()))
}

fn found(path: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("failed to find library {}", path.display()))
}

/// The program that an example is, optimised.
///
/// # Errors
/// An example that does not build.
pub(crate) fn example(root: &Path, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["build", "--quiet", "--release", "--package", package]);
    let said = output(command.args(["--example", name, "--message-format", "json"]))?;
    let mut built = said.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    built.next_back().with_context(|| format!("cargo does not say where example {name} is"))
}

/// A C compiler, from `CC` or as `cc`.
pub(crate) fn compiler() -> Command {
    Command::new(env::var_os("CC").unwrap_or_else(|| OsString::from("cc")))
}

/// A folder for intermediate files that is gone when this value is.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// A temporary folder that cannot be created.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("ci-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Scratch(path))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The standard output of a command that must succeed.
///
/// # Errors
/// A command that does not start or does not succeed, with what it said first.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command
        .output()
        .with_context(|| format!("failed to start {name}; `.ci/run packages` installs it"))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        let said: Vec<&str> = said.lines().take(12).collect();
        bail!("{name} ended with {}\n{}", result.status, said.join("\n"));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}
