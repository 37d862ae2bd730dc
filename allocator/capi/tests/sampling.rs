//! Samples of allocations under the library as it ships: the profile says who allocated what, within what chance
//! allows, in every mode; and samples keep all the promises that other objects keep.
//!
//! A count of samples is binomial. It is compared with its mean, and seven standard deviations are allowed: a right
//! library fails one of these comparisons in 10^11, and there are about a hundred.

mod common;

use common::{compile, run, scratch, shared_library};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes between two samples, on average.
const MEAN: f64 = 16384.0;
/// What the program allocates at each site, as in its source.
const SMALL: f64 = 400_000.0;
const FEW: f64 = 20_000.0;

/// A library, and the options that choose a mode.
fn every_mode() -> [(&'static Path, &'static str); 4] {
    let shared = shared_library();
    [
        (shared, ""),
        (shared, "mode=classic,"),
        (shared, "mode=classic,placement=first-fit,lock=arena,cache=on,"),
        (common::hardened_library(), ""),
    ]
}

fn program() -> Option<PathBuf> {
    compile("sampling.c", &[&shared_library().display().to_string()])
}

/// Samples at one site.
#[derive(Debug, Default, PartialEq)]
struct Samples {
    live: f64,
    live_bytes: f64,
    ever: f64,
    bytes: f64,
}

/// A profile, and where the program's sites are.
struct Profile {
    text: String,
    sites: Vec<(String, u64)>,
}

impl Profile {
    /// Runs `sampling.c` and reads what it wrote.
    #[track_caller]
    fn of(program: &Path, library: &Path, options: &str, act: &str) -> Self {
        let file = scratch("sampling").join("profile.heap");
        let mut command = Command::new(program);
        command.arg(act).arg(&file);
        command.env("LD_PRELOAD", library).env("ALLOCATOR_OPTIONS", options);
        let outcome = run(&mut command);
        outcome.expect_success(&format!("{options} {act}"));
        assert_eq!(outcome.stderr, "", "{options} {act}");
        let mut sites: Vec<(String, u64)> = outcome
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix("site ")?.split_once(" 0x"))
            .map(|(name, hex)| (name.to_owned(), u64::from_str_radix(hex, 16).expect("hex")))
            .collect();
        sites.sort_by_key(|site| site.1);
        Profile { text: std::fs::read_to_string(file).expect("the profile"), sites }
    }

    /// The samples whose innermost caller is the function of this name.
    fn at(&self, name: &str) -> Samples {
        let place = self.sites.iter().position(|site| site.0 == name).expect("a site");
        let begin = self.sites[place].1;
        let end = self.sites.get(place + 1).map_or(begin + 64, |next| next.1);
        let mut sum = Samples::default();
        for line in self.text.lines().skip(1).take_while(|line| !line.is_empty()) {
            let (counts, stack) = line.split_once(" @").expect("counts and a stack");
            let first = stack.split_whitespace().next().and_then(|hex| hex.strip_prefix("0x"));
            let first = first.map_or(0, |hex| u64::from_str_radix(hex, 16).expect("hex"));
            // A return address: one byte behind the call.
            if (begin..end).contains(&(first.saturating_sub(1))) {
                let count = numbers(counts);
                sum.live += count[0];
                sum.live_bytes += count[1];
                sum.ever += count[2];
                sum.bytes += count[3];
            }
        }
        sum
    }
}

/// The numbers of `LIVE: BYTES [EVER: BYTES]`.
fn numbers(counts: &str) -> Vec<f64> {
    counts
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().expect("a number"))
        .collect()
}

/// That a site which allocated `objects` of `size` bytes has as many samples as it should.
#[track_caller]
fn assert_share(what: &str, samples: &Samples, objects: f64, size: f64, mean: f64) {
    let counted = samples.bytes / samples.ever;
    assert!(counted >= size && counted <= size * 1.35, "{what}: {counted} bytes for {size}");
    let chance = 1.0 - (-counted / mean).exp();
    let (wanted, deviation) = (objects * chance, (objects * chance * (1.0 - chance)).sqrt());
    let off = (samples.ever - wanted) / deviation;
    assert!(off.abs() < 7.0, "{what}: {} samples, {wanted} wanted, {off} off", samples.ever);
}

#[test]
fn every_site_has_its_share_of_what_is_live_and_nothing_once_all_is_freed() {
    let Some(program) = program() else { return };
    for (library, mode) in every_mode() {
        for act in ["live", "freed", "threads", "threads-freed"] {
            let profile = Profile::of(&program, library, &format!("{mode}sample=16K"), act);
            let head = profile.text.lines().next().expect("a line");
            assert!(head.starts_with("heap profile: "), "{head}");
            assert!(head.ends_with("] @ heap_v2/16384"), "{head}");
            for (site, objects, size) in
                [("small", SMALL, 48.0), ("medium", FEW, 2048.0), ("zeroed", FEW, 960.0)]
            {
                let (what, samples) = (format!("{mode} {act} {site}"), profile.at(site));
                assert_share(&what, &samples, objects, size, MEAN);
                let live = if act.ends_with("freed") { 0.0 } else { samples.ever };
                assert_eq!(samples.live, live, "{what}");
                let live_bytes = if live == 0.0 { 0.0 } else { samples.bytes };
                assert_eq!(samples.live_bytes, live_bytes, "{what}");
            }
            let maps = profile.text.split_once("\nMAPPED_LIBRARIES:\n").expect("a part of its own");
            assert!(maps.1.contains("liballocator.so") && maps.1.contains("[stack]"), "{}", maps.1);
        }
    }
}

#[test]
fn aligned_resized_and_huge_samples_are_what_they_should_be() {
    let Some(program) = program() else { return };
    for (library, mode) in every_mode() {
        let profile = Profile::of(&program, library, &format!("{mode}sample=16K"), "shapes");
        let huge = profile.at("huge");
        assert_eq!((huge.live, huge.ever), (1.0, 1.0), "100 MiB cannot be missed");
        assert!(huge.bytes >= f64::from(100 << 20) && huge.bytes < f64::from(101 << 20));
        let aligned = profile.at("aligned");
        assert!(aligned.ever > 1000.0 && aligned.live == aligned.ever, "{aligned:?}");
        let resized = profile.at("resizing");
        // Of all the sizes it went through an object has one at the end; the huge one is live.
        assert!(resized.live >= 1.0 && resized.live < resized.ever / 4.0, "{resized:?}");
    }
}

#[test]
fn a_program_of_threads_forks_while_samples_are_taken() {
    let Some(program) = program() else { return };
    for (library, mode) in every_mode() {
        let profile = Profile::of(&program, library, &format!("{mode}sample=1K"), "fork");
        assert_eq!(profile.at("small"), Samples::default(), "only children called it");
    }
}

#[test]
fn sampling_begins_and_ends_while_the_program_runs() {
    let Some(program) = program() else { return };
    for (library, mode) in every_mode() {
        let options = mode.trim_end_matches(',');
        let profile = Profile::of(&program, library, options, "off");
        assert!(profile.text.lines().next().expect("a line").ends_with(" @ heap_v2/4096"));
        for (site, objects, size) in [("small", SMALL, 48.0), ("zeroed", FEW, 960.0)] {
            let samples = profile.at(site);
            // A thread with blocks at hand hears of it a few thousand blocks late.
            assert_share(&format!("{mode} {site}"), &samples, objects * 0.99, size, 4096.0);
            assert_eq!(samples.live, 0.0);
        }
    }
}

#[test]
fn profiles_are_written_at_exit_beside_the_report() {
    let Some(program) = program() else { return };
    let folder = scratch("sampling-exit");
    let prefix = folder.join("profile").display().to_string();
    let options = format!("sample=64k,report=exit,sample_prefix={prefix}");
    let mut command = Command::new(&program);
    command.args(["freed", "/dev/null"]);
    command.env("LD_PRELOAD", shared_library()).env("ALLOCATOR_OPTIONS", options);
    let outcome = run(&mut command);
    outcome.expect_success("sampling.c");
    assert!(outcome.stderr.contains("samples of "), "{}", outcome.stderr);
    let files: Vec<_> = std::fs::read_dir(&folder).expect("a folder").flatten().collect();
    assert_eq!(files.len(), 1);
    let name = files[0].file_name().into_string().expect("letters");
    assert!(name.starts_with("profile.") && name.ends_with(".0.heap"), "{name}");
    let text = std::fs::read_to_string(files[0].path()).expect("a profile");
    assert!(text.starts_with("heap profile: "), "{text}");
}

#[test]
fn the_tools_that_profiles_are_for_read_them() {
    for tool in ["jeprof", "google-pprof"] {
        if !common::available(tool) {
            continue;
        }
        let Some(program) = program() else { return };
        let file = scratch("sampling-tool").join("profile.heap");
        let mut command = Command::new(&program);
        command.arg("live").arg(&file).env("LD_PRELOAD", shared_library());
        run(command.env("ALLOCATOR_OPTIONS", "sample=16K")).expect_success("sampling.c");
        let outcome = run(Command::new(tool).arg("--text").arg(&program).arg(&file));
        outcome.expect_success(tool);
        for site in ["small_site", "medium_site", "zeroed_site"] {
            assert!(outcome.stdout.contains(site), "{}", outcome.stdout);
        }
    }
}
