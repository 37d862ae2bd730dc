//! `bench-cli tune`: size classes of our allocator for a trace, and what they would save.
//!
//! What is derived: the classes of slabs (requests up to 960 bytes), which are a table in
//! `allocator/src/slab/classes.rs`; larger classes are computed and stay as they are. A dynamic
//! programme finds the table of as many classes that rounds up the least, each request weighted by
//! how long its object lived. No class may round a request it serves up by more than a third, so
//! that a program whose sizes change tomorrow is not punished.
//!
//! What is predicted and what is measured are told apart: rounding is arithmetic, and what a run
//! measures with today's table is printed beside the prediction for it. The proposed table is not
//! measured here; the next commands are named.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use traces::analysis::SizeClasses;
use traces::{EventSource, ObjectId};

use crate::allocators;
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::output;
use crate::subjects::{self, Settings};
use crate::worker::{self, CellSpec, Pass};

/// The trace, and whether to measure.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// A trace
    #[arg(value_name = "TRACE")]
    trace: std::path::PathBuf,
    /// Only predict: do not replay the trace with the classes of today
    #[arg(long)]
    no_measure: bool,
}

/// Requests are rounded up to multiples of this before anything else.
const STEP: usize = 16;
/// The largest request that a slab serves.
const LARGEST: usize = 960;
const STEPS: usize = LARGEST / STEP;
/// Classes of slabs.
const CLASSES: usize = 31;
/// A new peak of live bytes is looked at when it is so much above the last one looked at.
const NOTABLE: f64 = 1.01;

/// What rounding up costs, in shares of the bytes handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Rounding {
    /// Averaged over the trace, in events.
    mean: f64,
    /// At the peak of live bytes, within one per cent of it.
    at_peak: f64,
}

/// What comes out.
#[derive(Clone, Debug, Serialize)]
struct Tuning {
    classes_now: Vec<usize>,
    classes_proposed: Vec<usize>,
    /// Share of live bytes in requests that slabs serve, averaged over the trace.
    slab_share: f64,
    predicted_now: Rounding,
    predicted_proposed: Rounding,
    /// Bytes fewer in blocks, averaged over the trace.
    predicted_saved_mean_bytes: f64,
    /// Bytes fewer in blocks at the peak of live bytes.
    predicted_saved_peak_bytes: f64,
    peak_live_bytes: u64,
    /// (usable − requested) ÷ usable at the peak, as a replay with today's classes measured it.
    measured_now_at_peak: Option<f64>,
}

/// Derives and prints.
///
/// # Errors
/// [`Exit::Trace`] for a trace that is missing or damaged.
pub fn run(args: &TuneArgs, global: &Global) -> Result<Exit, CliError> {
    crate::interrupt::listen();
    let seen = look(&args.trace)?;
    let measured = match args.no_measure {
        true => None,
        false => measure(&args.trace)?,
    };
    let tuning = tuning(&seen, measured);
    output::print(&match global.format {
        Format::Human => described(&tuning, &args.trace),
        _ => {
            serde_json::to_string_pretty(&tuning).map_err(|error| {
                CliError::new(Exit::Internal, "cannot write what was found").because(error)
            })? + "\n"
        }
    })?;
    Ok(Exit::Success)
}

/// How much of which size was alive how long.
#[derive(Clone, Debug)]
struct Seen {
    /// By size up to [`LARGEST`]: objects, added over all events. Kept apart from larger ones.
    small: Vec<f64>,
    /// Requested and handed out bytes of larger objects, added over all events.
    large: (f64, f64),
    events: f64,
    peak: Moment,
    peak_live_bytes: u64,
}

/// What is alive at one moment.
#[derive(Clone, Debug)]
struct Moment {
    small: Vec<u64>,
    large: (u64, u64),
}

fn block(size: u64) -> u64 {
    SizeClasses::Ours.block(size)
}

/// Reads the whole trace.
fn look(trace: &Path) -> Result<Seen, CliError> {
    let mut source = traces::open(trace)?;
    let mut live: HashMap<ObjectId, (u64, u64)> = HashMap::new();
    let none = || Moment { small: vec![0; LARGEST + 1], large: (0, 0) };
    let (mut now, mut at_peak) = (none(), none());
    let mut small = vec![0.0; LARGEST + 1];
    let mut large = (0.0, 0.0);
    let (mut clock, mut bytes, mut peak, mut looked) = (0_u64, 0_u64, 0_u64, 0_u64);
    while let Some(event) = source.next_event()? {
        clock += 1;
        if clock.is_multiple_of(1 << 16) && crate::interrupt::requested() {
            return Err(CliError::new(Exit::Interrupted, "interrupted"));
        }
        let mut count = |size: u64, born: u64| weigh(&mut small, &mut large, size, clock - born);
        if let Some((size, born)) = event.op.released().and_then(|object| live.remove(&object)) {
            count(size, born);
            bytes -= size;
            shift(&mut now, size, false);
        }
        if let (Some(object), Some(size)) = (event.op.born(), event.op.requested()) {
            live.insert(object, (size, clock));
            bytes = bytes.saturating_add(size);
            shift(&mut now, size, true);
            peak = peak.max(bytes);
            if bytes as f64 > looked as f64 * NOTABLE {
                looked = bytes;
                at_peak.clone_from(&now);
            }
        }
    }
    for (size, born) in live.into_values() {
        weigh(&mut small, &mut large, size, clock - born);
    }
    Ok(Seen { small, large, events: clock.max(1) as f64, peak: at_peak, peak_live_bytes: peak })
}

fn weigh(small: &mut [f64], large: &mut (f64, f64), size: u64, lived: u64) {
    let lived = lived as f64;
    match usize::try_from(size).ok().and_then(|size| small.get_mut(size)) {
        Some(weight) => *weight += lived,
        None => {
            large.0 += size as f64 * lived;
            large.1 += block(size) as f64 * lived;
        }
    }
}

fn shift(now: &mut Moment, size: u64, born: bool) {
    let step = |value: &mut u64, by: u64| {
        *value = if born { value.saturating_add(by) } else { value.saturating_sub(by) };
    };
    match usize::try_from(size).ok().and_then(|size| now.small.get_mut(size)) {
        Some(count) => step(count, 1),
        None => {
            step(&mut now.large.0, size);
            step(&mut now.large.1, block(size));
        }
    }
}

/// Internal fragmentation at the peak of a replay with the allocator as it is.
fn measure(trace: &Path) -> Result<Option<f64>, CliError> {
    let folder = tempfile::tempdir()
        .map_err(|e| CliError::new(Exit::Internal, "cannot make a temporary folder").because(e))?;
    let subject = subjects::resolve(&trace.to_string_lossy())?;
    let prepared = subject.prepare(&Settings::default(), folder.path())?;
    let spec = CellSpec::new(prepared.plan, allocators::resolve("ours")?, Pass::Footprint);
    let report = worker::run_once(&spec)?.report;
    Ok(report.and_then(|report| report.outcome.footprint?.by_rss.internal))
}

/// The table of `allocator/src/slab/classes.rs`: multiples of 16 to 256 bytes, then eight to a
/// doubling, without the last.
fn classes_now() -> Vec<usize> {
    let fine = (1..=16).map(|n| n * STEP);
    let coarse = [(256, 32, 8), (512, 64, 7)]
        .into_iter()
        .flat_map(|(from, step, count)| (1..=count).map(move |n| from + n * step));
    fine.chain(coarse).collect()
}

/// The class of a size in a table that ends at [`LARGEST`].
fn class_of(classes: &[usize], size: usize) -> usize {
    classes[classes.partition_point(|class| *class < size.max(1))]
}

/// The [`CLASSES`] classes that round up the least under `weights` (objects by size).
fn best_classes(weights: &[f64]) -> Vec<usize> {
    let mut by_step = [0.0; STEPS + 1];
    for (size, weight) in weights.iter().enumerate().take(LARGEST + 1) {
        by_step[size.div_ceil(STEP).max(1)] += weight;
    }
    // What class `to` costs where the class below it is `from`.
    let cost = |from: usize, to: usize| -> f64 {
        let lowest = from + 1;
        if (to - lowest) * 3 > to.max(3) {
            return f64::INFINITY;
        }
        (lowest..=to).map(|step| by_step[step] * ((to - step) * STEP) as f64).sum()
    };
    // best[k][to]: the least cost of everything up to `to` with k classes, the last one `to`.
    let mut best = vec![[f64::INFINITY; STEPS + 1]; CLASSES + 1];
    let mut before = vec![[0_usize; STEPS + 1]; CLASSES + 1];
    best[0][0] = 0.0;
    for k in 1..=CLASSES {
        for to in k..=STEPS {
            for from in k - 1..to {
                let total = best[k - 1][from] + cost(from, to);
                if total < best[k][to] {
                    best[k][to] = total;
                    before[k][to] = from;
                }
            }
        }
    }
    let mut classes = Vec::with_capacity(CLASSES);
    let mut to = STEPS;
    for k in (1..=CLASSES).rev() {
        classes.push(to * STEP);
        to = before[k][to];
    }
    classes.reverse();
    classes
}

/// Requested bytes and bytes handed out, with these classes.
fn sums(classes: &[usize], counts: impl Iterator<Item = f64>, large: (f64, f64)) -> (f64, f64) {
    counts.enumerate().fold(large, |(asked, given), (size, count)| {
        (asked + size as f64 * count, given + class_of(classes, size) as f64 * count)
    })
}

fn tuning(seen: &Seen, measured_now_at_peak: Option<f64>) -> Tuning {
    let (now, proposed) = (classes_now(), best_classes(&seen.small));
    let at_peak = |classes: &[usize]| {
        let large = (seen.peak.large.0 as f64, seen.peak.large.1 as f64);
        sums(classes, seen.peak.small.iter().map(|n| *n as f64), large)
    };
    let mean = |classes: &[usize]| sums(classes, seen.small.iter().copied(), seen.large);
    let share =
        |(asked, given): (f64, f64)| if given > 0.0 { (given - asked) / given } else { 0.0 };
    let rounding = |classes: &[usize]| Rounding {
        mean: share(mean(classes)),
        at_peak: share(at_peak(classes)),
    };
    let (asked, _) = mean(&now);
    Tuning {
        slab_share: if asked > 0.0 { 1.0 - seen.large.0 / asked } else { 0.0 },
        predicted_now: rounding(&now),
        predicted_proposed: rounding(&proposed),
        predicted_saved_mean_bytes: (mean(&now).1 - mean(&proposed).1) / seen.events,
        predicted_saved_peak_bytes: at_peak(&now).1 - at_peak(&proposed).1,
        peak_live_bytes: seen.peak_live_bytes,
        measured_now_at_peak,
        classes_now: now,
        classes_proposed: proposed,
    }
}

fn described(tuning: &Tuning, trace: &Path) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let list =
        |classes: &[usize]| classes.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "Size classes of slabs (requests up to {LARGEST} bytes; {} of the live bytes of {})\n",
        percent(tuning.slab_share),
        trace.display()
    );
    let _ = writeln!(text, "  now       {}", list(&tuning.classes_now));
    let _ = writeln!(text, "  proposed  {}", list(&tuning.classes_proposed));
    let _ = writeln!(
        text,
        "\nLost by rounding up, of all bytes handed out   over the trace   at the peak"
    );
    let rows = [
        ("now, predicted", tuning.predicted_now),
        ("proposed, predicted", tuning.predicted_proposed),
    ];
    for (name, rounding) in rows {
        let (mean, peak) = (percent(rounding.mean), percent(rounding.at_peak));
        let _ = writeln!(text, "  {name:<44} {mean:>14}   {peak:>11}");
    }
    if let Some(measured) = tuning.measured_now_at_peak {
        let name = "now, measured in a replay with ours";
        let _ = writeln!(text, "  {name:<44} {:>14}   {:>11}", "", percent(measured));
    }
    let (mean, peak) = (tuning.predicted_saved_mean_bytes, tuning.predicted_saved_peak_bytes);
    let _ = writeln!(
        text,
        "\nPredicted gain: {:.1} KiB on average, {:.1} KiB at the peak of {:.1} KiB live.",
        mean / 1024.0,
        peak / 1024.0,
        tuning.peak_live_bytes as f64 / 1024.0
    );
    text.push_str(match peak.max(mean) > 0.01 * tuning.peak_live_bytes as f64 {
        true => {
            "The proposal is a prediction from sizes and lifetimes: spans that are partly filled and caches are\n\
             not in it. To measure it, put the classes into SIZES of allocator/src/slab/classes.rs, behind its\n\
             unused first entry, build the library, and run `bench-cli compare OLD.so NEW.so TRACE` and\n\
             `bench-cli run -a OLD.so,NEW.so TRACE`.\n"
        }
        false => "That is less than 1 % of the peak: the classes of today suit this trace.\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(objects: &[(usize, u64)]) -> Seen {
        let mut small = vec![0.0; LARGEST + 1];
        let mut counts = vec![0; LARGEST + 1];
        for (size, count) in objects {
            small[*size] = *count as f64;
            counts[*size] = *count;
        }
        let peak = Moment { small: counts, large: (0, 0) };
        Seen { small, large: (0.0, 0.0), events: 1.0, peak, peak_live_bytes: 1 }
    }

    #[test]
    fn the_table_of_today_is_the_allocators_own() {
        let classes = classes_now();
        assert_eq!((classes.len(), classes[15], classes[16], classes[30]), (31, 256, 288, 960));
        for size in 1..=LARGEST {
            assert_eq!(class_of(&classes, size) as u64, block(size as u64), "{size}");
        }
    }

    #[test]
    fn as_many_classes_are_proposed_as_the_allocator_has_and_they_end_where_its_slabs_do() {
        let source = include_str!("../../../allocator/src/slab/classes.rs");
        // The allocator counts its unused class 0 too.
        let (largest, count) = (LARGEST, CLASSES + 1);
        for line in [format!("MAX_SLAB: usize = {largest};"), format!("CLASSES: usize = {count};")]
        {
            assert!(source.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_size_between_two_classes_gets_a_class_of_its_own() {
        let tuning = tuning(&seen(&[(528, 1000), (24, 10)]), None);
        assert!(tuning.classes_proposed.contains(&528), "{:?}", tuning.classes_proposed);
        assert_eq!(tuning.predicted_saved_peak_bytes, 1000.0 * (576.0 - 528.0));
        assert!(tuning.predicted_proposed.at_peak < tuning.predicted_now.at_peak);
    }

    #[test]
    fn every_proposal_is_a_table_that_serves_every_size_and_wastes_at_most_a_third() {
        for objects in [vec![], vec![(1, 9)], vec![(LARGEST, 1), (16, 5), (700, 3)]] {
            let classes = best_classes(&seen(&objects).small);
            assert_eq!((classes.len(), classes[CLASSES - 1]), (CLASSES, LARGEST));
            assert!(classes.is_sorted_by(|a, b| a < b));
            for size in (STEP..=LARGEST).step_by(STEP) {
                let class = class_of(&classes, size);
                assert!(class >= size && (class - size) * 3 <= class.max(48), "{size} in {class}");
            }
        }
    }

    #[test]
    fn a_proposal_never_rounds_up_more_than_the_table_of_today() {
        let objects: Vec<(usize, u64)> =
            (1..=LARGEST).map(|s| (s, (s * 7919 % 101) as u64)).collect();
        let tuning = tuning(&seen(&objects), None);
        assert!(tuning.predicted_saved_mean_bytes >= 0.0);
    }

    #[test]
    fn what_lives_longer_weighs_more_and_what_never_dies_lives_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        // Android's memory_replay text: a short life of 100 bytes, a long one of 200 KiB.
        std::fs::write(
            &path,
            "1: malloc 0x10 204800\n1: malloc 0x20 100\n1: free 0x20\n1: malloc 0x20 8\n",
        )
        .unwrap();
        let seen = look(&path).unwrap();
        assert_eq!((seen.small[100], seen.small[8]), (1.0, 0.0));
        assert_eq!(seen.peak_live_bytes, 204_900);
        assert!(seen.large.0 >= 3.0 * 204_800.0);
    }
}
