//! The file: one SQLite database, opened by its own mark, written in transactions.
//!
//! Its schema is part of what users may rely on (`sqlite3 bench-history.sqlite` works): tables
//! `runs`, one row per folder, and `points`, one row per value.
//!
//! # Invariants
//! 1. A file that is not ours, or is damaged, is never written.
//! 2. What fails leaves the file as it was.
//! 3. Whoever writes has the lock before reading what the write depends on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior, params};

use super::commit::Commit;
use super::points::{Folder, Key, Value};
use crate::error::{CliError, Exit};
use crate::gate::calibration::fingerprint;

/// `BNCH`: whose file this is, in the header of the database.
const APPLICATION_ID: i32 = 0x424e_4348;
/// Version of the schema.
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL UNIQUE,
        started_utc TEXT NOT NULL,
        commit_hash TEXT,
        committed_utc TEXT,
        modified INTEGER NOT NULL,
        machine TEXT NOT NULL,
        bench_cli TEXT NOT NULL,
        command TEXT NOT NULL
    ) STRICT;
    CREATE TABLE points (
        run INTEGER NOT NULL REFERENCES runs (id),
        subject TEXT NOT NULL,
        allocator TEXT NOT NULL,
        conditions TEXT NOT NULL,
        metric TEXT NOT NULL,
        value REAL NOT NULL,
        processes INTEGER NOT NULL,
        PRIMARY KEY (run, subject, allocator, conditions, metric)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX points_of_metric ON points (metric, subject, allocator);
";

/// A history file that is open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

/// One value with its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What it belongs to.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// Where it was measured.
    pub machine: String,
    /// When.
    pub started_utc: String,
    /// Of which commit.
    pub commit: Option<Commit>,
}

/// Which points are wanted; what is `None` is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The metric's name.
    pub metric: Option<String>,
    /// The subject's name.
    pub subject: Option<String>,
    /// The allocator's name.
    pub allocator: Option<String>,
}

impl Store {
    /// Opens the history at `path` for reading.
    ///
    /// # Errors
    /// [`Exit::Usage`]: there is none, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        if !path.exists() {
            return Err(CliError::new(
                Exit::Usage,
                format!("there is no history at `{}`", path.display()),
            )
            .help("begin one: `bench-cli history import bench-out/*`, or name it with --file"));
        }
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens the history at `path` for writing; makes it where there is none.
    ///
    /// # Errors
    /// [`Exit::Usage`]: it is damaged, somebody else's, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, CliError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let is_new = !path.exists();
        Self::connect(path, flags).inspect_err(|_| {
            // One that could not be begun leaves no empty file; what others began is theirs.
            if is_new && fs::metadata(path).is_ok_and(|file| file.len() == 0) {
                let _ = fs::remove_file(path);
            }
        })
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, CliError> {
        let broken = |error: rusqlite::Error| explain(path, &error);
        let mut connection = Connection::open_with_flags(path, flags).map_err(broken)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(broken)?;
        begin(&mut connection, path, flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
        let sound: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(broken)?;
        if sound != "ok" {
            return Err(damaged(path).because(sound.trim()));
        }
        Ok(Store { connection, path: path.to_owned() })
    }

    /// Takes in a folder as results of `commit`, in place of what it was worth when it was taken in
    /// before; false: it is there already, with the same values.
    ///
    /// # Errors
    /// [`Exit::Usage`]: the file cannot be written; nothing of the folder is in it then.
    pub fn import(&mut self, folder: &Folder, commit: Option<&Commit>) -> Result<bool, CliError> {
        let imported = insert(&mut self.connection, folder, commit);
        imported.map_err(|error| explain(&self.path, &error))
    }

    /// The points that `filter` asks for, in the order of commits, then of time.
    ///
    /// # Errors
    /// [`Exit::Usage`]: the file is damaged.
    pub fn points(&self, filter: &Filter) -> Result<Vec<Point>, CliError> {
        select(&self.connection, filter).map_err(|error| explain(&self.path, &error))
    }
}

/// Looks whose file it is, and makes the tables where there are none and `writes` is true.
fn begin(connection: &mut Connection, path: &Path, writes: bool) -> Result<(), CliError> {
    let broken = |error: rusqlite::Error| explain(path, &error);
    let behavior = match writes {
        true => TransactionBehavior::Immediate,
        false => TransactionBehavior::Deferred,
    };
    let all_or_nothing = connection.transaction_with_behavior(behavior).map_err(broken)?;
    let number = |name: &str| all_or_nothing.pragma_query_value(None, name, |row| row.get(0));
    let tables: i32 = all_or_nothing
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(broken)?;
    let owner: i32 = number("application_id").map_err(broken)?;
    let version: i32 = number("user_version").map_err(broken)?;
    match (tables, owner, version) {
        (0, 0, 0) if writes => {
            let set = |name: &str, value: i32| all_or_nothing.pragma_update(None, name, value);
            all_or_nothing.execute_batch(SCHEMA).map_err(broken)?;
            set("application_id", APPLICATION_ID).map_err(broken)?;
            set("user_version", SCHEMA_VERSION).map_err(broken)?;
            all_or_nothing.commit().map_err(broken)
        }
        (_, APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
        (_, APPLICATION_ID, newer) => Err(refused(path).because(format!(
            "its layout has version {newer}; this bench-cli knows {SCHEMA_VERSION}"
        ))),
        _ => Err(refused(path).because("it is a database of another program")),
    }
}

fn insert(
    connection: &mut Connection,
    folder: &Folder,
    commit: Option<&Commit>,
) -> rusqlite::Result<bool> {
    let all_or_nothing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let manifest = &folder.manifest;
    let machine = &manifest.machine;
    let identity = fingerprint(&folder.identity);
    let known = known(&all_or_nothing, &identity, &fingerprint(&folder.text))?;
    if let [run] = known[..]
        && points(&all_or_nothing, run)? == folder.points
    {
        all_or_nothing
            .execute("UPDATE runs SET identity = ? WHERE id = ?", params![identity, run])?;
        all_or_nothing.commit()?;
        return Ok(false);
    }
    for run in known {
        all_or_nothing.execute("DELETE FROM points WHERE run = ?", [run])?;
        all_or_nothing.execute("DELETE FROM runs WHERE id = ?", [run])?;
    }
    all_or_nothing.execute(
        "INSERT INTO runs (identity, started_utc, commit_hash, committed_utc, modified,
             machine, bench_cli, command) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            identity,
            manifest.started_utc,
            commit.map(|c| &c.hash),
            commit.map(|c| &c.committed_utc),
            commit.is_some_and(|c| c.modified),
            format!("{} × {}, {}", machine.processors, machine.processor, machine.kernel),
            manifest.bench_cli,
            manifest.command.join(" "),
        ],
    )?;
    let run = all_or_nothing.last_insert_rowid();
    {
        let mut insert =
            all_or_nothing.prepare("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)")?;
        for (key, value) in &folder.points {
            insert.execute(params![
                run,
                key.subject,
                key.allocator,
                key.conditions,
                key.metric,
                value.median,
                value.processes as i64,
            ])?;
        }
    }
    all_or_nothing.commit()?;
    Ok(true)
}

/// The runs of a folder: of its identity, or of that by which earlier versions knew it.
fn known(connection: &Connection, identity: &str, earlier: &str) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare("SELECT id FROM runs WHERE identity IN (?, ?)")?;
    let rows = select.query_map([identity, earlier], |row| row.get(0))?;
    rows.collect()
}

/// What a run is worth.
fn points(connection: &Connection, run: i64) -> rusqlite::Result<BTreeMap<Key, Value>> {
    let mut select = connection.prepare(
        "SELECT subject, allocator, conditions, metric, value, processes
         FROM points WHERE run = ?",
    )?;
    let rows = select.query_map([run], key_and_value)?;
    rows.collect()
}

/// The first six columns of a point.
fn key_and_value(row: &Row<'_>) -> rusqlite::Result<(Key, Value)> {
    let key = Key {
        subject: row.get(0)?,
        allocator: row.get(1)?,
        conditions: row.get(2)?,
        metric: row.get(3)?,
    };
    let processes = row.get::<_, i64>(5)?.try_into().unwrap_or(0);
    Ok((key, Value { median: row.get(4)?, processes }))
}

fn select(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Point>> {
    let mut select = connection.prepare(
        "SELECT subject, allocator, conditions, metric, value, processes, machine, started_utc,
             commit_hash, committed_utc, modified
         FROM points JOIN runs ON runs.id = points.run
         WHERE (?1 IS NULL OR metric = ?1) AND (?2 IS NULL OR subject = ?2)
             AND (?3 IS NULL OR allocator = ?3)
         ORDER BY coalesce(committed_utc, started_utc), started_utc, runs.id",
    )?;
    let rows =
        select.query_map(params![filter.metric, filter.subject, filter.allocator], |row| {
            let (key, value) = key_and_value(row)?;
            let hash: Option<String> = row.get(8)?;
            let committed_utc: Option<String> = row.get(9)?;
            let modified = row.get(10)?;
            Ok(Point {
                key,
                value,
                machine: row.get(6)?,
                started_utc: row.get(7)?,
                commit: hash.zip(committed_utc).map(|(hash, committed_utc)| Commit {
                    hash,
                    committed_utc,
                    modified,
                }),
            })
        })?;
    rows.collect()
}

fn refused(path: &Path) -> CliError {
    CliError::new(Exit::Usage, format!("`{}` cannot be used as a history", path.display()))
        .help("name another file with --file")
}

fn damaged(path: &Path) -> CliError {
    let shown = path.display();
    CliError::new(Exit::Usage, format!("the history `{shown}` is damaged")).help(format!(
        "it was left as it is. What can still be read: `sqlite3 {shown} .recover | sqlite3 NEW`; \
         or move it away and import the folders of results again"
    ))
}

fn explain(path: &Path, error: &rusqlite::Error) -> CliError {
    let failed = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damaged(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CliError::new(
            Exit::Usage,
            format!("the history `{}` is in use by another program", path.display()),
        )
        .help("try again when it is done"),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => CliError::new(
            Exit::Usage,
            format!("the history `{}` cannot be written; it is as it was", path.display()),
        )
        .help("make room, and import again: what is there already is passed over"),
        _ => refused(path),
    };
    failed.because(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::results::{Machine, Manifest, SCHEMA as MANIFEST_SCHEMA};

    fn folder(identity: &str, metric: &str, median: f64) -> Folder {
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA,
            bench_cli: "0".to_owned(),
            command: vec!["bench-cli".to_owned(), "run".to_owned()],
            started_utc: format!("2026-01-01T00:00:{identity}Z"),
            state: "completed".to_owned(),
            seed: 1,
            generator: "ChaCha8".to_owned(),
            fingerprint: String::new(),
            commit: None,
            copies: None,
            cpus: Vec::new(),
            machine: Machine::default(),
            subjects: Vec::new(),
            allocators: Vec::new(),
        };
        let key = Key {
            subject: "larson".to_owned(),
            allocator: "ours".to_owned(),
            conditions: "2t throughput".to_owned(),
            metric: metric.to_owned(),
        };
        let points = BTreeMap::from([(key, Value { median, processes: 3 })]);
        Folder { manifest, identity: identity.to_owned(), text: format!("{{{identity}}}"), points }
    }

    fn commit(hash: &str, committed_utc: &str) -> Commit {
        Commit { hash: hash.to_owned(), committed_utc: committed_utc.to_owned(), modified: false }
    }

    #[test]
    fn a_folder_counts_once_and_commits_come_in_their_order() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("h.sqlite");
        let mut store = Store::create(&path).unwrap();
        let (old, new) = (commit("a", "2025-01-01T00:00:00Z"), commit("b", "2025-02-01T00:00:00Z"));
        assert!(store.import(&folder("01", "elapsed_ns", 2.0), Some(&new)).unwrap());
        assert!(store.import(&folder("02", "elapsed_ns", 1.0), Some(&old)).unwrap());
        assert!(!store.import(&folder("01", "elapsed_ns", 2.0), Some(&new)).unwrap());
        drop(store);
        let all = Store::open(&path).unwrap().points(&Filter::default()).unwrap();
        assert_eq!(all.iter().map(|p| p.value.median).collect::<Vec<_>>(), [1.0, 2.0]);
        let none = Filter { metric: Some("instructions".to_owned()), ..Filter::default() };
        assert!(Store::open(&path).unwrap().points(&none).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_has_other_values_by_now_takes_its_own_place() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::create(&home.path().join("h.sqlite")).unwrap();
        let begun = folder("01", "elapsed_ns", 2.0);
        assert!(store.import(&begun, None).unwrap());
        // As earlier versions wrote it.
        let earlier = fingerprint(&begun.text);
        store.connection.execute("UPDATE runs SET identity = ?", [earlier]).unwrap();
        assert!(!store.import(&begun, None).unwrap());
        let continued = Folder { text: "other".to_owned(), ..folder("01", "peak_rss_bytes", 9.0) };
        assert!(store.import(&continued, None).unwrap());
        let all = store.points(&Filter::default()).unwrap();
        let values: Vec<_> = all.iter().map(|p| (p.key.metric.as_str(), p.value.median)).collect();
        assert_eq!(values, [("peak_rss_bytes", 9.0)]);
        assert_eq!(runs(&store), 1);
    }

    fn runs(store: &Store) -> i64 {
        store.connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn those_who_begin_a_history_at_the_same_time_have_one() {
        let home = tempfile::tempdir().unwrap();
        let together = Barrier::new(4);
        let import = |path: &Path, i: usize| {
            let folder = folder(&format!("{i:02}"), "elapsed_ns", 1.0);
            together.wait();
            assert!(Store::create(path).unwrap().import(&folder, None).unwrap());
        };
        // What goes wrong here goes wrong seldom.
        for round in 0..10 {
            let path = home.path().join(format!("{round}.sqlite"));
            thread::scope(|threads| {
                for i in 0..4 {
                    let (import, path) = (&import, &path);
                    threads.spawn(move || import(path, i));
                }
            });
            assert_eq!(runs(&Store::open(&path).unwrap()), 4);
        }
    }

    #[test]
    fn what_is_no_history_is_refused_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let text = home.path().join("text");
        fs::write(&text, "a text that is long enough to be taken for a header, but is none")
            .unwrap();
        let foreign = home.path().join("foreign");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let newer = home.path().join("newer");
        drop(Store::create(&newer).unwrap());
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        for (path, words) in
            [(&text, "is damaged"), (&foreign, "of another program"), (&newer, "version 99")]
        {
            let before = fs::read(path).unwrap();
            let error = Store::create(path).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(fs::read(path).unwrap(), before);
        }
        let error = Store::open(&home.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("there is no history"), "{error}");
    }

    #[test]
    fn damage_anywhere_in_the_file_is_an_error_and_never_a_wrong_value() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("h.sqlite");
        let mut store = Store::create(&path).unwrap();
        for i in 10..40 {
            store.import(&folder(&i.to_string(), "elapsed_ns", f64::from(i)), None).unwrap();
        }
        drop(store);
        let sound = fs::read(&path).unwrap();
        for cut in (0..sound.len()).step_by(1536) {
            fs::write(&path, &sound[..cut]).unwrap();
            // An empty file is an empty database, and a reader finds no history in it.
            let error = Store::open(&path).and_then(|s| s.points(&Filter::default())).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "cut at {cut}");
        }
        let mut torn = sound.clone();
        torn[4096..8192].fill(0xff);
        fs::write(&path, &torn).unwrap();
        let error = Store::open(&path).and_then(|s| s.points(&Filter::default())).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
