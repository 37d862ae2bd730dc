//! The picture of the heap at the peak of live bytes, for allocators that export a map of it
//! (`docs/heap-map.md`): a row per segment, a box per span, filled as far as its blocks are live.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::sections::{Chart, Tables, name, subject};
use super::svg::{self, Unit};

/// Segments that are drawn; more are counted in the caption.
const MOST_SEGMENTS: usize = 48;
const WIDTH: f64 = 640.0;
const ROW: f64 = 14.0;
/// What a span is used for, in the order of the colours; each maps to a line of the legend.
const USES: [(&str, &str); 6] = [
    ("slab", "blocks up to 960 bytes"),
    ("bitmap", "blocks up to 1 MiB"),
    ("spare", "empty, in a thread's hands"),
    ("dirty", "free, still holding pages"),
    ("clean", "free, without pages"),
    ("records", "what the allocator knows of the segment"),
];

#[derive(Debug, Deserialize)]
struct Head {
    heap_map: u32,
    slice_bytes: u64,
    live: u64,
    committed: u64,
    huge: u64,
}

#[derive(Debug, Deserialize)]
struct Segment {
    bytes: u64,
    spans: Vec<Span>,
}

#[derive(Debug, Deserialize)]
struct Span {
    slice: u64,
    slices: u64,
    #[serde(rename = "use")]
    used: String,
    #[serde(default)]
    capacity: u64,
    #[serde(default)]
    live: u64,
}

/// The map that an allocator wrote.
#[derive(Debug)]
struct Map {
    head: Head,
    segments: Vec<Segment>,
}

impl Map {
    /// `None`: no map of the version that is known here, or one that was cut off.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next()?).ok()?;
        let mut lines: Vec<&str> = lines.collect();
        let last: serde_json::Value = serde_json::from_str(lines.pop()?).ok()?;
        let whole = last["end"] == true && last["segments"] == lines.len();
        let segments = lines
            .into_iter()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Segment>, _>>()
            .ok()?;
        (whole && head.heap_map == 1 && head.slice_bytes > 0).then_some(Map { head, segments })
    }

    /// 1 − largest free ÷ all free, over runs of free slices; `None`: nothing is free.
    fn scattered(&self) -> Option<f64> {
        let (mut all, mut largest) = (0, 0);
        for segment in &self.segments {
            let mut run = 0;
            for span in &segment.spans {
                run = match span.used.as_str() {
                    "dirty" | "clean" => run + span.slices,
                    _ => 0,
                };
                all += if run == 0 { 0 } else { span.slices };
                largest = largest.max(run);
            }
        }
        (all > 0).then(|| 1.0 - largest as f64 / all as f64)
    }

    fn draw(&self, title: &str) -> String {
        let rows = self.segments.len().min(MOST_SEGMENTS);
        let height = ROW * rows as f64;
        let longest = self.segments.iter().map(|segment| segment.bytes).max().unwrap_or(1).max(1);
        let across = WIDTH * self.head.slice_bytes as f64 / longest as f64;
        let mut drawing = svg::open(title, height);
        for (row, segment) in self.segments.iter().take(rows).enumerate() {
            let top = ROW * row as f64 + 1.0;
            for span in &segment.spans {
                let colour = USES.iter().position(|(word, _)| *word == span.used).unwrap_or(5);
                let x = (span.slice as f64 * across).clamp(0.0, WIDTH);
                let wide = (span.slices as f64 * across - 0.5).clamp(0.3, (WIDTH - x).max(0.3));
                let full = ROW - 2.0;
                let _ = write!(
                    drawing,
                    "<rect class=\"span c{colour}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" \
                     height=\"{full:.1}\"/>"
                );
                if span.capacity > 0 {
                    let share = (span.live as f64 / span.capacity as f64).min(1.0);
                    let (high, y) = (full * share, top + full * (1.0 - share));
                    let _ = write!(
                        drawing,
                        "<rect class=\"full c{colour}\" x=\"{x:.1}\" y=\"{y:.1}\" \
                         width=\"{wide:.1}\" height=\"{high:.1}\"/>"
                    );
                }
            }
        }
        drawing.push_str("</svg>");
        drawing
    }

    fn caption(&self, of: &str) -> String {
        let bytes = |value: u64| svg::show(Unit::Bytes, value as f64);
        let mut text = format!(
            "{of}: {} live, {} committed",
            bytes(self.head.live),
            bytes(self.head.committed)
        );
        if self.head.huge > 0 {
            let _ = write!(text, ", {} in mappings of their own", bytes(self.head.huge));
        }
        if let Some(share) = self.scattered() {
            let _ = write!(
                text,
                "; of the free slices {} lie outside the longest run",
                svg::show(Unit::Share, share)
            );
        }
        if self.segments.len() > MOST_SEGMENTS {
            let _ = write!(text, "; {MOST_SEGMENTS} of {} segments", self.segments.len());
        }
        text
    }
}

impl Tables {
    /// The heap at the peak of live bytes: the first process of each workload and allocator that
    /// left a map in `heap/` of `folder`.
    #[must_use]
    pub fn heap_pictures(&self, folder: &Path) -> Vec<Chart> {
        let mut seen = std::collections::BTreeSet::new();
        let mut charts = Vec::new();
        for run in self.runs.rows() {
            let path = folder.join("heap").join(format!("{}.jsonl", run.text("run_id")));
            let Ok(text) = fs::read_to_string(path) else { continue };
            let Some(map) = Map::parse(&text) else { continue };
            let of = format!("{} under {}", name(&subject(&run)), run.text("allocator"));
            if map.segments.is_empty() || !seen.insert(of.clone()) {
                continue;
            }
            let legend = USES.iter().map(|(_, words)| (*words).to_owned()).collect();
            charts.push(Chart { svg: map.draw(&of), caption: map.caption(&of), legend });
        }
        charts
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::*;

    const MAP: &str = r#"{"heap_map":1,"version":"v","slice_bytes":65536,"live":900,"committed":131072,"mapped":262144,"cached":0,"huge":0}
{"address":"0x0","bytes":262144,"spans":[{"slice":0,"slices":1,"use":"records"},{"slice":1,"slices":1,"use":"slab","block":64,"capacity":1000,"live":500},{"slice":2,"slices":2,"use":"clean"}]}
{"address":"0x1","bytes":262144,"spans":[{"slice":0,"slices":1,"use":"dirty"},{"slice":1,"slices":3,"use":"bitmap","block":2048,"capacity":96,"live":96}]}
{"end":true,"segments":2}
"#;

    #[test]
    fn a_map_becomes_a_row_per_segment_with_spans_filled_as_far_as_they_are_live() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("heap")).unwrap();
        fs::write(folder.path().join("heap/r1.jsonl"), MAP).unwrap();
        let runs = Frame::parse("run_id,workload,allocator\nr1,<w>,ours\nr2,w,system\n").unwrap();
        let tables = Tables { runs, ..Tables::default() };
        let charts = tables.heap_pictures(folder.path());
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].svg.matches("class=\"span").count(), 5);
        // Half of a slice of 12 units, a quarter of the width.
        let half = r#"class="full c0" x="160.0" y="7.0" width="159.5" height="6.0""#;
        assert!(charts[0].svg.contains(half), "{}", charts[0].svg);
        assert!(!charts[0].svg.contains("<w>"), "names start no markup");
        // Three free slices, two of them in one run.
        assert!(charts[0].caption.contains("33.3 % lie outside"), "{}", charts[0].caption);
    }

    #[test]
    fn a_map_that_was_cut_off_or_is_of_another_version_is_no_picture() {
        for cut in 0..MAP.len() - 1 {
            assert!(Map::parse(&MAP[..cut]).is_none_or(|map| map.segments.len() == 2), "{cut}");
        }
        assert!(Map::parse(&MAP.replace("\"heap_map\":1", "\"heap_map\":2")).is_none());
        let lines: Vec<&str> = MAP.lines().collect();
        assert!(Map::parse(&[lines[0], lines[1], lines[3]].join("\n")).is_none());
    }
}
