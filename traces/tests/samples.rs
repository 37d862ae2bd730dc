//! The samples are what their provenance says.

use std::fs;
use std::path::Path;

use traces::analysis::{Profiler, Summary};
use traces::container::Reader;
use traces::rewrite::{Fitter, Generator};
use traces::{EventSource, Source};

#[test]
fn every_sample_is_whole_clean_and_as_long_as_its_provenance_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let text = fs::read_to_string(folder.join("PROVENANCE.md")).expect("it is there");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let numbers: Vec<u64> = cells.get(2..5)?.iter().filter_map(|n| n.parse().ok()).collect();
        (numbers.len() == 3).then(|| (cells[1].to_owned(), numbers))
    });
    let mut described = 0;
    for (name, numbers) in rows {
        let mut reader = Reader::open(folder.join(&name)).expect("a sound sample");
        let mut events = 0;
        while reader.next_event().expect("a sound sample").is_some() {
            events += 1;
        }
        let totals = reader.footer().expect("a finished file").totals;
        assert_eq!(numbers, [events, totals.objects, totals.threads], "{name}");
        assert_eq!(reader.loss(), None, "{name}");
        assert_eq!(reader.census().anomalies(), [], "{name}");
        described += 1;
    }
    let files = fs::read_dir(&folder).expect("it is there").count();
    assert_eq!(described, files - 1, "every sample has a line");
}

#[test]
fn traces_made_from_profiles_of_real_programs_are_like_them() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut paths: Vec<_> = ["git-log", "sqlite-index", "jq", "dpkg", "redis-threads"]
        .map(|name| samples.join(name).with_extension("atrace"))
        .into();
    match std::env::var_os("ALLOCATOR_TEST_DATA") {
        Some(data) => paths.push(Path::new(&data).join("systemui.zip")),
        None => eprintln!("skipped in part: ALLOCATOR_TEST_DATA is not set"),
    }
    for path in paths {
        let mut source = traces::open(&path).unwrap();
        let (mut fitter, mut profiler) = (Fitter::new(), Profiler::new());
        while let Some(event) = source.next_event().unwrap() {
            fitter.observe(&event);
            profiler.observe(&event);
        }
        let original = profiler.finish(source.census());
        let mut generator = Generator::new(fitter.finish(), 1.0, 1).unwrap();
        let made = traces::analysis::summarise(&mut generator).unwrap();
        let name = path.display();
        let peak = made.peak_live_bytes as f64 / original.peak_live_bytes as f64 - 1.0;
        assert!(peak.abs() <= 0.05, "{name}: the peak is off by {peak:.3}");
        let sizes = original.sizes.distance(&made.sizes);
        assert!(sizes <= 0.01, "{name}: sizes are {sizes:.3} apart");
        let lifetimes = original.lifetime_calls.distance(&made.lifetime_calls);
        assert!(lifetimes <= 0.15, "{name}: lifetimes are {lifetimes:.3} apart");
        let share = |summary: &Summary| {
            let frees = summary.operations.free - summary.operations.free_null;
            summary.cross_thread_frees as f64 / frees as f64
        };
        let apart = share(&made) - share(&original);
        assert!(apart.abs() <= 0.02, "{name}: cross-thread frees are {apart:.3} apart");
        assert_eq!(made.threads, original.threads, "{name}");
    }
}
