//! `cargo ci programs`: the tables of docs/programs.md, from the folders that `ci/programs.sh` leaves.
//!
//! `FOLDER/index.tsv` has a line per program, `folder TAB name TAB version`; `missing` as version
//! is a program that is not installed. `FOLDER/<folder>` is what `bench-cli run --exec` wrote: one
//! row of `runs.csv` per run of the program, with its time from start to end and the peak of its
//! largest process. Figures are medians over the rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::Report;
use crate::figures::Manifest;
use crate::pages::{self, OURS, SYSTEM, json, median, of_rows, short, short_name};

#[derive(Debug, Deserialize)]
struct Run {
    allocator: String,
    end: String,
    exit_status: Option<i32>,
    output_hash: String,
    elapsed_ns: Option<u64>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Subjects {
    subjects: Vec<Subject>,
}

#[derive(Debug, Deserialize)]
struct Subject {
    name: String,
}

/// By allocator: seconds and MiB, or none where the program failed.
type Figures = BTreeMap<String, Option<(f64, f64)>>;

/// A program, and what it took under each allocator.
#[derive(Debug)]
struct Program {
    name: String,
    version: String,
    command: String,
    figures: Figures,
    rounds: usize,
}

/// Writes the page: of the programs below a folder, of what `ci/peers` wrote of itself, and by which
/// command.
///
/// # Errors
/// If a file cannot be read, or no program was run.
pub(crate) fn write(options: &[&str]) -> anyhow::Result<Report> {
    let [directory, peers, command] = options else {
        anyhow::bail!("usage: cargo ci programs FOLDER PEERS.json COMMAND");
    };
    let directory = Path::new(directory);
    let index = directory.join("index.tsv");
    let index = std::fs::read_to_string(&index)
        .with_context(|| format!("cannot read {}: run ci/programs.sh", index.display()))?;
    let (mut programs, mut missing, mut machine) = (Vec::new(), Vec::new(), None);
    for line in index.lines() {
        let [folder, name, version] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("index.tsv: `{line}` is not FOLDER, NAME and VERSION");
        };
        if version == "missing" {
            missing.push(name);
            continue;
        }
        let folder = directory.join(folder);
        let file = folder.join("runs.csv");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let manifest = folder.join("manifest.json");
        let subjects: Subjects = json(&manifest)?;
        machine = Some(json::<Manifest>(&manifest)?.day_and_machine());
        let (figures, rounds) =
            measured(&text).with_context(|| format!("in {}", file.display()))?;
        programs.push(Program {
            name: name.to_owned(),
            version: version.to_owned(),
            command: subjects.subjects.into_iter().map(|subject| subject.name).collect(),
            figures,
            rounds,
        });
    }
    let machine = machine.context("none of the programs is installed")?;
    let mut page = head(command, &machine, &programs);
    table(&mut page, "Seconds", "time", &programs, &missing, |figures| figures.0);
    table(&mut page, "Peak resident MiB", "peak", &programs, &missing, |figures| figures.1);
    commands(&mut page, &programs);
    pages::append_peers(&json(Path::new(peers))?, &pages::c_library(), &mut page);
    Ok(Report { summary: page.trim_end().to_owned(), findings: Vec::new() })
}

/// Medians by allocator, and the least number of rounds behind one. An allocator under which the
/// program did not end, or wrote something else than under the system's, has none.
fn measured(text: &str) -> anyhow::Result<(Figures, usize)> {
    let mut runs: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let run: Run = run?;
        let name = match short_name(&run.allocator) {
            "c.so.6" => SYSTEM,
            other => other,
        };
        runs.entry(name.to_owned()).or_default().push(run);
    }
    let system = runs.get(SYSTEM).context("no run under the system's allocator")?;
    let (output, status) = (system[0].output_hash.clone(), system[0].exit_status);
    let sound = |run: &Run| {
        run.end == "completed" && run.exit_status == status && run.output_hash == output
    };
    anyhow::ensure!(
        status == Some(0) && system.iter().all(sound),
        "the program fails, or differs between runs, under the system's allocator"
    );
    let rounds = runs.values().map(Vec::len).min().unwrap_or(0);
    let figures = runs.iter().map(|(name, runs)| {
        let of = |what: &dyn Fn(&Run) -> Option<u64>| {
            median(&runs.iter().filter_map(what).map(|v| v as f64).collect::<Vec<_>>())
        };
        let figures = runs.iter().all(sound).then(|| {
            let bytes = of(&|run| run.peak_rss_bytes);
            (of(&|run| run.elapsed_ns) / 1e9, bytes / f64::from(1 << 20))
        });
        (name.clone(), figures)
    });
    Ok((figures.collect(), rounds))
}

fn head(command: &str, machine: &str, programs: &[Program]) -> String {
    let rounds = programs.iter().map(|program| program.rounds).min().unwrap_or(0);
    format!(
        "# Real programs\n\nWritten by `{command}` on {machine}. Programs as distributions ship them, \
         with the allocator preloaded; the system's is glibc's, preloaded as well, since redis-server \
         brings one of its own. Figures are medians of {rounds} rounds; those of all allocators are \
         interleaved. Time is from start to end; the peak is that of the program's largest process \
         (VmHWM, read as it exits). The system's column is absolute, every other a ratio to it; an \
         allocator under which the program failed, or wrote something else, has `failed`.\n\n"
    )
}

fn table(
    page: &mut String,
    title: &str,
    what: &str,
    programs: &[Program],
    missing: &[&str],
    value: impl Fn((f64, f64)) -> f64,
) {
    let mut names: Vec<&String> = programs.iter().flat_map(|p| p.figures.keys()).collect();
    names.sort_by_key(|name| (*name != SYSTEM, *name != OURS, (*name).clone()));
    names.dedup();
    let heads: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let _ = writeln!(page, "## {title}\n\n| program | {} |", heads.join(" | "));
    let _ = writeln!(page, "|---|{}", "---|".repeat(names.len()));
    let mut logs = vec![Vec::new(); names.len()];
    for program in programs {
        let of = |name: &str| program.figures.get(name).copied().flatten().map(&value);
        let system = of(SYSTEM).unwrap_or(f64::NAN);
        let ratio = |name: &str| of(name).map(|value| value / system);
        let others = names.iter().filter(|name| **name != SYSTEM);
        let best = others.filter_map(|name| ratio(name)).reduce(f64::min);
        let mut cells = Vec::new();
        for (name, logs) in names.iter().zip(&mut logs) {
            let ratio = ratio(name);
            logs.extend(ratio.map(f64::ln));
            cells.push(match ratio {
                None => "failed".to_owned(),
                Some(_) if *name == SYSTEM => short(system),
                Some(value) if Some(value) == best => format!("**{value:.2}**"),
                Some(value) => format!("{value:.2}"),
            });
        }
        let _ = writeln!(page, "| {} | {} |", program.name, cells.join(" | "));
    }
    for name in missing {
        let cells = vec!["not installed"; names.len()].join(" | ");
        let _ = writeln!(page, "| {name} | {cells} |");
    }
    let means = names.iter().zip(&logs).map(|(name, logs)| match logs.len() {
        _ if *name == SYSTEM => String::new(),
        0 => "–".to_owned(),
        count => {
            let mean = (logs.iter().sum::<f64>() / count as f64).exp();
            format!("{mean:.2}{}", of_rows(count, programs.len()))
        }
    });
    let means = means.collect::<Vec<_>>().join(" | ");
    let _ = writeln!(page, "| geometric mean, {what} | {means} |\n");
    let behind = programs.iter().filter_map(|program| {
        let of = |name: &str| program.figures.get(name).copied().flatten().map(&value);
        let others = names.iter().filter(|name| **name != OURS).filter_map(|name| of(name));
        Some((of(OURS)? / others.reduce(f64::min)?, &program.name))
    });
    let failed = programs.iter().filter(|program| matches!(program.figures.get(OURS), Some(None)));
    for program in failed {
        let _ = writeln!(page, "Ours failed in {}.\n", program.name);
    }
    if let Some((ratio, name)) = behind.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let _ = writeln!(
            page,
            "Ours against the best of all others, the system's included, at worst: {ratio:.2} ({name}).\n"
        );
    }
}

fn commands(page: &mut String, programs: &[Program]) {
    page.push_str(
        "## The programs\n\n| program | version | `bench-cli run --exec` |\n|---|---|---|\n",
    );
    for Program { name, version, command, .. } in programs {
        let _ = writeln!(page, "| {name} | {version} | `{command}` |");
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: &str = "\
allocator,end,exit_status,output_hash,elapsed_ns,peak_rss_bytes
libc.so.6,completed,0,aa,2000000000,2097152
libc.so.6,completed,0,aa,2000000000,2097152
ours,completed,0,aa,1000000000,1048576
ours,completed,0,aa,3000000000,3145728
ours,completed,0,aa,1000000000,1048576
libother.so,completed,0,bb,1,1
libcrash.so,crashed by signal 11,139,aa,1,1
";

    #[test]
    fn ratios_are_of_medians_and_only_what_ended_alike_has_one() {
        let (figures, rounds) = measured(RUNS).expect("sound rows");
        assert_eq!(rounds, 1);
        assert_eq!(figures[OURS], Some((1.0, 1.0)));
        assert_eq!(figures[SYSTEM], Some((2.0, 2.0)));
        assert_eq!((figures["other"], figures["crash"]), (None, None));
        let program = Program {
            name: "p".to_owned(),
            version: "1".to_owned(),
            command: "p -x".to_owned(),
            figures,
            rounds,
        };
        let mut page = String::new();
        table(&mut page, "Seconds", "time", &[program], &["q"], |figures| figures.0);
        assert!(page.contains("| program | system | ours | crash | other |"), "{page}");
        assert!(page.contains("| p | 2.00 | **0.50** | failed | failed |"), "{page}");
        assert!(page.contains("| q | not installed | not installed |"), "{page}");
        assert!(page.contains("at worst: 0.50 (p)."), "{page}");
        assert!(page.contains("| geometric mean, time |  | 0.50 | – | – |"), "{page}");
        assert!(!page.contains("Ours failed"), "{page}");
    }

    #[test]
    fn the_page_says_where_ours_failed() {
        let (figures, rounds) = measured(&RUNS.replace("ours,completed,0", "ours,completed,1"))
            .expect("sound rows of the system");
        let (name, version, command) = ("p".to_owned(), "1".to_owned(), "p".to_owned());
        let program = Program { name, version, command, figures, rounds };
        let mut page = String::new();
        table(&mut page, "Seconds", "time", &[program], &[], |figures| figures.0);
        assert!(page.contains("Ours failed in p."), "{page}");
    }

    #[test]
    fn a_program_that_fails_by_itself_is_refused() {
        assert!(measured(&RUNS.replace("6,completed,0", "6,completed,1")).is_err());
        assert!(measured(&RUNS.replacen("6,completed,0,aa", "6,completed,0,cc", 1)).is_err());
        assert!(measured(&RUNS.replace("libc.so.6", "libd.so")).is_err());
    }
}
