//! `bench-cli trace diff`: what changed between two traces.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use traces::analysis::{self, Summary};

use super::human::{self, number};
use super::{InputArgs, json, show};
use crate::cli::Format;
use crate::error::{CliError, Exit};

/// Which two.
#[derive(Clone, Debug, Args)]
pub(super) struct DiffArgs {
    /// The trace before
    before: PathBuf,
    /// The trace after
    after: PathBuf,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Serialize)]
struct Report {
    before: String,
    after: String,
    figures: Vec<Figure>,
    /// Greatest distance between the distributions, 0 to 1.
    size_distance: f64,
    lifetime_distance: f64,
    /// Sizes whose share of all requests changed most.
    sizes: Vec<SizeChange>,
}

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    before: u64,
    after: u64,
}

#[derive(Serialize)]
struct SizeChange {
    size: u64,
    before: u64,
    after: u64,
    share_change: f64,
}

pub(super) fn run(args: &DiffArgs, output: Format, quiet: bool) -> Result<Exit, CliError> {
    let sum_up = |path: &PathBuf| -> Result<Summary, CliError> {
        Ok(analysis::summarise(&mut *args.input.open(path, quiet)?)?)
    };
    let (before, after) = (sum_up(&args.before)?, sum_up(&args.after)?);
    let report = Report {
        before: args.before.display().to_string(),
        after: args.after.display().to_string(),
        figures: figures(&before, &after),
        size_distance: before.sizes.distance(&after.sizes),
        lifetime_distance: before.lifetime_calls.distance(&after.lifetime_calls),
        sizes: sizes(&before, &after),
    };
    show(&match output {
        Format::Json => json(&report)?,
        _ => tell(&report),
    })?;
    Ok(Exit::Success)
}

type Getter = fn(&Summary) -> u64;

fn figures(before: &Summary, after: &Summary) -> Vec<Figure> {
    let all: [(&'static str, Getter); 16] = [
        ("malloc", |s| s.operations.malloc),
        ("calloc", |s| s.operations.calloc),
        ("realloc", |s| s.operations.realloc),
        ("memalign", |s| s.operations.memalign),
        ("free", |s| s.operations.free),
        ("free(NULL)", |s| s.operations.free_null),
        ("threads", |s| s.threads),
        ("threads alive at once", |s| s.peak_threads),
        ("cross-thread frees", |s| s.cross_thread_frees),
        ("bytes allocated", |s| s.allocated_bytes),
        ("peak live bytes", |s| s.peak_live_bytes),
        ("peak live objects", |s| s.peak_live_objects),
        ("final live bytes", |s| s.final_live_bytes),
        ("final live objects", |s| s.final_live_objects),
        ("median size, bytes", |s| s.sizes.p50),
        ("median lifetime, calls", |s| s.lifetime_calls.p50),
    ];
    let figure = |(name, get): (&'static str, Getter)| Figure {
        name,
        before: get(before),
        after: get(after),
    };
    all.into_iter().map(figure).collect()
}

/// Of the sizes whose counts are known in both, those whose share changed most.
fn sizes(before: &Summary, after: &Summary) -> Vec<SizeChange> {
    let mut all: Vec<u64> = before.size_counts.keys().chain(after.size_counts.keys()).collect();
    all.sort_unstable();
    all.dedup();
    let share = |n: u64, summary: &Summary| n as f64 / summary.allocated_objects.max(1) as f64;
    let mut changes: Vec<SizeChange> = all
        .into_iter()
        .filter_map(|size| {
            let (b, a) = (before.size_counts.of(size)?, after.size_counts.of(size)?);
            let share_change = share(a, after) - share(b, before);
            Some(SizeChange { size, before: b, after: a, share_change })
        })
        .filter(|change| change.share_change != 0.0)
        .collect();
    changes.sort_by(|a, b| b.share_change.abs().total_cmp(&a.share_change.abs()));
    changes.truncate(16);
    changes
}

fn tell(report: &Report) -> String {
    let change = |before: u64, after: u64| match (before, after) {
        (before, after) if before == after => String::new(),
        (0, _) => "new".to_owned(),
        (before, after) => {
            format!("{:+.1} %", (after as f64 / before as f64 - 1.0) * 100.0)
        }
    };
    let row = |f: &Figure| {
        [f.name.to_owned(), number(f.before), number(f.after), change(f.before, f.after)]
    };
    let figures = human::columns(["", "before", "after", "change"], report.figures.iter().map(row));
    let row = |c: &SizeChange| {
        let points = format!("{:+.2}", c.share_change * 100.0);
        [number(c.size), number(c.before), number(c.after), points]
    };
    let header = ["bytes", "before", "after", "share, points"];
    let sizes = human::columns(header, report.sizes.iter().take(10).map(row));
    format!(
        "{} → {}\n\n{figures}\ndistance of distributions (0 equal, 1 disjoint): sizes {:.3}, \
         lifetimes {:.3}\n\nsizes whose share changed most\n{sizes}",
        report.before, report.after, report.size_distance, report.lifetime_distance
    )
}
