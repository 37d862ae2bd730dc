//! Plans, records, and what a merge makes of them.

use super::*;
use crate::gate::session::Process;
use crate::verdict::block::Order;
use crate::verdict::procedure::Stage;

fn plan() -> Plan {
    let library =
        |spec: &str| Library { spec: spec.to_owned(), name: spec.to_owned(), hash: "h".to_owned() };
    let cell = |name: &str| PlannedCell {
        cell: Cell { name: format!("{name}-1t"), workload: name.to_owned(), threads: 1 },
        what: name.to_owned(),
        stream_hash: None,
    };
    Plan {
        schema: SCHEMA,
        base: library("a"),
        head: library("b"),
        thresholds: String::new(),
        thresholds_path: PathBuf::new(),
        max_slowdown: None,
        layout_floor: None,
        budget_s: 60,
        seed: 1,
        injected: 0.0,
        threads: None,
        cpus: Vec::new(),
        timeout_s: None,
        planned_utc: String::new(),
        commit: None,
        cells: vec![cell("x"), cell("y")],
    }
}

fn record(plan: &Plan, index: usize, verdict: Verdict) -> Record {
    let process = Process { elapsed_ns: 7, ..Process::default() };
    let row = Row {
        cell: index,
        stage: Stage::Screen,
        block: 0,
        position: 0,
        order: Order::Abba,
        side: Side::A,
        seed: 1,
        process,
    };
    Record {
        schema: SCHEMA,
        plan: plan.fingerprint(),
        index,
        machine: Machine::default(),
        result: CellResult {
            verdict,
            screen: vec![0.0; 12],
            fresh: Vec::new(),
            cells_left: 2,
            fault: None,
        },
        counted: Vec::new(),
        rows: vec![row],
        took_s: 1.5,
        latency: Vec::new(),
    }
}

#[test]
fn records_come_back_as_they_were_and_count_once_however_often_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    plan.write(folder.path()).unwrap();
    assert_eq!(Plan::read(&folder.path().join("plan.json")).unwrap(), plan);
    for _ in 0..3 {
        record(&plan, 0, Verdict::Pass).write(folder.path()).unwrap();
    }
    record(&plan, 1, Verdict::Fail).write(folder.path()).unwrap();
    let merged = merge(&plan, folder.path()).unwrap().outcome;
    assert_eq!((merged.rows.len(), merged.exit(false)), (2, Exit::Regression));
}

#[test]
fn a_plan_from_before_it_named_processors_or_a_timeout_is_read_and_has_neither() {
    let mut old = serde_json::to_value(plan()).unwrap();
    for later in ["cpus", "timeout_s"] {
        old.as_object_mut().unwrap().remove(later).unwrap();
    }
    assert_eq!(serde_json::from_value::<Plan>(old).unwrap(), plan());
}

#[test]
fn a_record_that_contradicts_itself_is_damaged_and_one_of_another_cell_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    record(&plan, 1, Verdict::Pass).write(folder.path()).unwrap();
    let mut foreign_row = record(&plan, 0, Verdict::Pass);
    foreign_row.rows[0].cell = 7;
    let mut histogram = record(&plan, 0, Verdict::Pass);
    let (side, op) = (Side::A, "malloc".to_owned());
    histogram.latency = vec![Distribution { side, op, histogram: "AAAA".to_owned() }];
    for (damaged, words) in [(foreign_row, "of cell 7"), (histogram, "histogram of `malloc`")] {
        damaged.write(folder.path()).unwrap();
        let merged = merge(&plan, folder.path()).unwrap();
        assert_eq!(merged.outcome.rows.len(), 1, "what is whole is kept");
        assert!(merged.damaged[0].1.contains(words), "{:?}", merged.damaged);
    }
    fs::copy(record_path(folder.path(), 1), record_path(folder.path(), 0)).unwrap();
    let error = merge(&plan, folder.path()).unwrap_err().to_string();
    assert!(error.contains("it is the record of cell 1"), "{error}");
    assert!(error.contains("plan.json --index 0"), "{error}");
}

#[test]
fn a_cell_that_was_never_run_makes_the_gate_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    record(&plan, 0, Verdict::Pass).write(folder.path()).unwrap();
    let merged = merge(&plan, folder.path()).unwrap();
    assert_eq!((merged.outcome.exit(false), merged.missing), (Exit::Inconclusive, vec![1]));
}

#[test]
fn a_record_of_another_plan_is_refused_and_half_a_record_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, mut other) = (plan(), plan());
    other.seed = 2;
    record(&other, 0, Verdict::Pass).write(folder.path()).unwrap();
    let error = merge(&mine, folder.path()).unwrap_err();
    assert_eq!(error.exit, Exit::Usage);
    assert!(error.to_string().contains("is not cell 0 of this plan"), "{error}");
    record(&mine, 1, Verdict::Pass).write(folder.path()).unwrap();
    let path = record_path(folder.path(), 0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let merged = merge(&mine, folder.path()).unwrap();
    assert_eq!(merged.outcome.rows.len(), 1, "what is whole is kept");
    assert_eq!(merged.outcome.exit(false), Exit::Inconclusive);
    assert!(merged.damaged[0].1.contains("cells/0.json"), "{:?}", merged.damaged);
}
