//! A sequence's memory tiers as JSON and as a table.

use herald::MemoryUsage;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;

/// As JSON.
pub(super) fn json(usage: &MemoryUsage) -> Value {
    let tiers = usage.tiers().map(|(kind, stats)| {
        json!({
            "tier": kind.name(),
            "pages": stats.pages,
            "tokens": stats.tokens,
            "bytes": stats.bytes,
            "memory_bytes": stats.memory_bytes,
        })
    });
    json!({
        "tiers": tiers,
        "state_bytes": usage.state_bytes,
        "exact_bytes": usage.exact_bytes,
        "ratio": usage.ratio(),
    })
}

/// As a table.
pub(super) fn print(usage: &MemoryUsage) -> Result<(), Failure> {
    let mut table = output::table(&["TIER", "PAGES", "TOKENS OF LAYERS", "SIZE"]);
    for (kind, stats) in usage.tiers() {
        table.add_row(vec![
            kind.name().into(),
            output::number(stats.pages),
            output::number(stats.tokens),
            output::number(output::bytes(stats.bytes)),
        ]);
    }
    if usage.state_bytes > 0 {
        table.add_row(vec![
            "recurrent states".into(),
            "".into(),
            "".into(),
            output::number(output::bytes(usage.state_bytes)),
        ]);
    }
    output::print_table(&table)?;
    output::line(format_args!("{:.2} times smaller than active pages alone", usage.ratio()))
}
