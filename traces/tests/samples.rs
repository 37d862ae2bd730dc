//! The samples are what their provenance says.

use std::fs;
use std::path::Path;

use traces::container::Reader;
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
