//! The gate as a table for people.

#![forbid(unsafe_code)]

use comfy_table::{CellAlignment, Table, presets};

use super::outcome::Outcome;
use crate::verdict::block::share_of;
use crate::verdict::location::WalshAverages;
use crate::verdict::procedure::Stage;
use crate::verdict::rules::SHOWN_CONFIDENCE;
use crate::verdict::words::signed_percent;

/// One row per cell, one per counted metric that is over its limit.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["cell", "head vs base", "99.9 % interval", "blocks", "verdict"]);
    for cell in &outcome.cells {
        let (stage, data) = cell.result.evidence();
        let averages = WalshAverages::of(data);
        let estimate =
            averages.estimate().map_or("–".to_owned(), |e| signed_percent(share_of(e)));
        let interval = averages.interval(SHOWN_CONFIDENCE).map_or("–".to_owned(), |i| {
            format!("{} … {}", signed_percent(share_of(i.low)), signed_percent(share_of(i.high)))
        });
        let fresh = if stage == Stage::Fresh { " fresh" } else { "" };
        let mut verdict = cell.result.verdict.name().to_uppercase();
        if let Some(quarantine) = &cell.quarantine {
            verdict += &format!(" (quarantined until {})", quarantine.until);
        }
        table.add_row([
            cell.cell.name.clone(),
            estimate,
            interval,
            format!("{}{fresh}", data.len()),
            verdict,
        ]);
    }
    for count in outcome.counted.iter().filter(|c| !c.within()) {
        table.add_row([
            format!("{} {}", count.cell, count.metric.name()),
            format!("{} → {}", count.metric.show(count.base), count.metric.show(count.head)),
            format!("allowed {}", count.metric.show(count.allowed)),
            String::new(),
            "FAIL".to_owned(),
        ]);
    }
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
