//! The base of a gate, built from a git revision: in a work tree of its own, once per commit.
//!
//! Owns a folder of built libraries, one file per commit, build command and, for our own, compiler; a file
//! appears there only when its build is complete. The user's own work tree and index are never touched.
//!
//! Cost: one build per commit; compiled dependencies are kept between builds. Builds of one folder
//! follow one another: what lies in `$CACHE` belongs to one of them at a time.
#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::calibration::fingerprint;
use crate::error::{CliError, Exit};
use crate::history::commit::Commit;
use crate::interrupt;

/// What builds the library of this repository.
const OURS: &str = "cargo build --package allocator-capi --profile preload --features preload \
                    --target-dir \"$CACHE\" && cp \"$CACHE/preload/liballocator.so\" \"$LIBRARY\"";
/// The file in the folder of built libraries that whoever builds there holds a lock on.
const LOCK: &str = ".lock";

/// A revision, and how its library is built.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// Folder of the repository.
    pub repository: &'a Path,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// Shell command that leaves the library at `$LIBRARY`; `None`: that of this repository.
    pub build: Option<&'a str>,
    /// Folder of built libraries; `None`: in the user's cache.
    pub cache: Option<&'a Path>,
}

/// Where the library of the revision lies, built if it was not yet. `tell` hears of a build, and of
/// waiting for that of another process.
///
/// # Errors
/// [`Exit::Usage`]: there is no such revision, it is not known how to build it, or it does not
/// build. [`Exit::Interrupted`]: by Ctrl-C.
pub fn library(recipe: &Recipe<'_>, tell: &dyn Fn(&str)) -> Result<PathBuf, CliError> {
    let revision = recipe.revision;
    let commit = Commit::of_revision(recipe.repository, revision).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("there is no revision `{revision}` here")).help(
            "run this inside the repository, and fetch the revision first: `git fetch origin main`",
        )
    })?;
    let cache = match recipe.cache {
        Some(cache) => cache.to_owned(),
        None => default_cache()?,
    };
    let build = recipe.build.unwrap_or(OURS);
    let compiler = if recipe.build.is_none() { compiler(recipe.repository) } else { String::new() };
    let name = format!("{}-{}.so", commit.hash, &fingerprint(&format!("{build}{compiler}"))[..8]);
    let written = |error: std::io::Error| {
        CliError::new(Exit::Usage, format!("cannot write to the folder `{}`", cache.display()))
            .because(error)
            .help("choose another folder with --base-cache")
    };
    fs::create_dir_all(&cache).map_err(written)?;
    let cache = fs::canonicalize(&cache).map_err(written)?;
    let library = cache.join(name);
    if library.is_file() {
        return Ok(library);
    }
    let lock = lock(&cache, tell)?;
    // Whoever held the lock may have built it.
    if library.is_file() {
        return Ok(library);
    }
    tell(&format!("building the base: {revision}, commit {}", commit.short()));
    let tree = WorkTree::add(recipe.repository, &commit)?;
    if recipe.build.is_none() && !tree.path().join("allocator/capi/Cargo.toml").is_file() {
        return Err(CliError::new(
            Exit::Usage,
            format!("it is not known how to build `{revision}`"),
        )
        .because("it is no revision of this program's own repository")
        .help("say how: --base-build 'make && cp build/libmine.so \"$LIBRARY\"'"));
    }
    let built =
        tempfile::Builder::new().prefix(".building-").tempdir_in(&cache).map_err(written)?;
    let part = built.path().join("library.so");
    run_build(build, &tree.path(), &cache.join("build"), &part, &commit, &lock)?;
    fs::rename(&part, &library).map_err(written)?;
    Ok(library)
}

/// What else decides what [`OURS`] builds: a head by today's compiler is not to be held against a base by
/// that of last year.
fn compiler(repository: &Path) -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").current_dir(repository).output();
    let mut text = version.map_or_else(|_| Vec::new(), |output| output.stdout);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        text.push(b'\n');
        text.extend(env::var_os(name).unwrap_or_default().as_encoded_bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until nobody builds in the folder `cache`; everybody else waits while the file is open.
fn lock(cache: &Path, tell: &dyn Fn(&str)) -> Result<File, CliError> {
    let shown = cache.display();
    let refused = |error: std::io::Error| {
        CliError::new(Exit::Usage, format!("cannot lock the folder `{shown}`"))
            .because(error)
            .help("choose another folder with --base-cache")
    };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(cache.join(LOCK)).map_err(refused)?;
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(refused(error.into())),
        }
        if interrupt::requested() {
            return Err(CliError::new(Exit::Interrupted, "interrupted"));
        }
        if !told {
            tell(&format!("waiting for another process that builds a base in `{shown}`"));
            told = true;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The build holds `lock`, an empty file, as its input: whatever becomes of us, the next one waits for it.
fn run_build(
    build: &str,
    tree: &Path,
    objects: &Path,
    library: &Path,
    commit: &Commit,
    lock: &File,
) -> Result<(), CliError> {
    let does_not = || {
        CliError::new(Exit::Usage, format!("the base, commit {}, does not build", commit.short()))
    };
    let cannot = |error: std::io::Error| does_not().because(format!("sh: {error}"));
    // A file and no pipe: nobody has to read it meanwhile.
    let mut said = tempfile::tempfile().map_err(cannot)?;
    // Whoever asks on the terminal, as for a password, has to be in the group that it belongs to; there Ctrl-C
    // reaches all of them. Elsewhere what the build starts ends with it.
    let terminal = std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
    let mut command = Command::new("sh");
    if !terminal {
        command.process_group(0);
    }
    let mut child = command
        .args(["-c", build])
        .current_dir(tree)
        .env("LIBRARY", library)
        .env("CACHE", objects)
        // What is being measured here is no part of how the base is built.
        .env_remove("LD_PRELOAD")
        .stdin(lock.try_clone().map_err(cannot)?)
        .stdout(Stdio::null())
        .stderr(said.try_clone().map_err(cannot)?)
        .spawn()
        .map_err(cannot)?;
    let status = wait(&mut child, !terminal).map_err(cannot)?;
    let Some(status) = status else {
        return Err(CliError::new(Exit::Interrupted, "interrupted"));
    };
    if !status.success() {
        let mut bytes = Vec::new();
        said.rewind().and_then(|()| said.read_to_end(&mut bytes)).map_err(cannot)?;
        let stderr = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
        return Err(does_not()
            .because(format!("`{build}` ended with {status}:\n    {last}"))
            .help("try it in a work tree of that commit, or say how it is built: --base-build"));
    }
    if !library.is_file() {
        return Err(does_not()
            .because(format!("`{build}` left no file at $LIBRARY"))
            .help("end the command with `cp PATH/TO/LIBRARY.so \"$LIBRARY\"`"));
    }
    Ok(())
}

/// How `child` ended, which may lead a `group`; `None` where somebody asked us to end, and it was made to.
fn wait(child: &mut Child, group: bool) -> std::io::Result<Option<ExitStatus>> {
    const EVERY: Duration = Duration::from_millis(20);
    const GRACE: Duration = Duration::from_secs(2);
    let end = |child: &Child, signal| {
        let leader = Pid::from_child(child);
        // Nobody is there any more, at worst.
        let _ =
            if group { kill_process_group(leader, signal) } else { kill_process(leader, signal) };
    };
    let mut asked: Option<Instant> = None;
    loop {
        let ended = child.try_wait()?;
        match (ended, asked) {
            (Some(status), None) => return Ok(Some(status)),
            (None, None) if interrupt::requested() => {
                end(child, Signal::TERM);
                asked = Some(Instant::now());
            }
            (Some(_), Some(_)) => {
                if group {
                    // Whoever of them is left did not heed the first.
                    end(child, Signal::KILL);
                }
                return Ok(None);
            }
            (None, Some(since)) if since.elapsed() > GRACE => {
                end(child, Signal::KILL);
            }
            _ => {}
        }
        thread::sleep(EVERY);
    }
}

fn default_cache() -> Result<PathBuf, CliError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("bench-cli/bases"))
        .ok_or_else(|| {
            CliError::new(Exit::Usage, "there is no folder to keep built bases in")
                .help("name one with --base-cache, or set HOME")
        })
}

/// A work tree that goes away with its value.
struct WorkTree<'a> {
    repository: &'a Path,
    folder: tempfile::TempDir,
}

impl<'a> WorkTree<'a> {
    fn add(repository: &'a Path, commit: &Commit) -> Result<Self, CliError> {
        let cannot = |why: &dyn std::fmt::Display| {
            CliError::new(Exit::Usage, "cannot make a work tree for the base").because(why)
        };
        let folder = tempfile::Builder::new()
            .prefix("bench-cli-base-")
            .tempdir()
            .map_err(|error| cannot(&error))?;
        let tree = WorkTree { repository, folder };
        let output = git(repository)
            .args(["worktree", "add", "--quiet", "--detach"])
            .arg(tree.path())
            .arg(&commit.hash)
            .output()
            .map_err(|error| cannot(&format!("git: {error}")))?;
        if !output.status.success() {
            return Err(cannot(&String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(tree)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tree")
    }
}

impl Drop for WorkTree<'_> {
    fn drop(&mut self) {
        // Its folder goes away in any case; this takes it off git's list.
        let _ =
            git(self.repository).args(["worktree", "remove", "--force"]).arg(self.path()).output();
    }
}

fn git(repository: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).stdin(Stdio::null());
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository whose first commit holds the file `content`.
    fn repository(home: &Path, content: &str) {
        assert!(git(home).args(["init", "-q"]).status().unwrap().success());
        commit(home, content);
    }

    /// Commits the file `content`.
    fn commit(home: &Path, content: &str) {
        fs::write(home.join("content"), content).unwrap();
        for args in [&["add", "content"][..], &["commit", "-q", "-m", content]] {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
            assert!(git(home).args(identity).args(args).status().unwrap().success());
        }
    }

    #[test]
    fn a_revision_is_built_once_in_a_tree_that_goes_away() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        repository(home.path(), "one");
        // What is not committed is no part of the revision.
        fs::write(home.path().join("content"), "two").unwrap();
        let count = cache.path().join("count");
        let build = format!("cp content \"$LIBRARY\" && echo >> '{}'", count.display());
        let recipe = Recipe {
            repository: home.path(),
            revision: "HEAD",
            build: Some(&build),
            cache: Some(cache.path()),
        };
        let first = library(&recipe, &|_| {}).unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(library(&recipe, &|_| panic!("it is there already")).unwrap(), first);
        assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 1);
        let trees = git(home.path()).args(["worktree", "list"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&trees.stdout).lines().count(), 1);
        assert_eq!(fs::read_to_string(home.path().join("content")).unwrap(), "two");
    }

    #[test]
    fn builds_that_begin_at_the_same_time_follow_one_another() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        repository(home.path(), "one");
        commit(home.path(), "two");
        let build = "test ! -e \"$CACHE.busy\" && touch \"$CACHE.busy\" && sleep 0.3 \
                     && cp content \"$LIBRARY\" && rm \"$CACHE.busy\"";
        let built = |revision: &str| {
            let (build, cache) = (Some(build), Some(cache.path()));
            let recipe = Recipe { repository: home.path(), revision, build, cache };
            fs::read_to_string(library(&recipe, &|_| {}).unwrap()).unwrap()
        };
        let (first, second) = thread::scope(|threads| {
            let both = (threads.spawn(|| built("HEAD~1")), threads.spawn(|| built("HEAD")));
            (both.0.join().unwrap(), both.1.join().unwrap())
        });
        assert_eq!((first.as_str(), second.as_str()), ("one", "two"));
    }

    #[test]
    fn a_base_that_cannot_be_built_says_why_and_leaves_nothing() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        repository(home.path(), "one");
        let refuse = |revision: &str, build: Option<&str>| {
            let cache = Some(cache.path());
            let recipe = Recipe { repository: home.path(), revision, build, cache };
            let error = library(&recipe, &|_| {}).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            error.to_string()
        };
        assert!(refuse("nowhere", None).contains("no revision `nowhere`"));
        assert!(refuse("--help", None).contains("no revision `--help`"));
        assert!(refuse("HEAD", None).contains("--base-build"));
        assert!(refuse("HEAD", Some("echo broken >&2; exit 3")).contains("broken"));
        assert!(refuse("HEAD", Some("true")).contains("left no file at $LIBRARY"));
        let left = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), [LOCK]);
    }
}
