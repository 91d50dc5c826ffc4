//! What commands print: tables for people, JSON for machines, failures as one sentence.

use std::{
    io::{self, Write},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use serde_json::{Value, json};

use crate::{in_full, rpc::pb};

use super::called;

/// Whether part of a result could not be written.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// Whether all results were written, or nobody wanted to read on.
pub(super) fn all_written() -> bool {
    !UNWRITTEN.load(Ordering::Relaxed)
}

/// Says why a command failed, down to the first cause.
pub(super) fn failure(failure: &(dyn std::error::Error + Send + Sync + 'static)) {
    progress(format_args!("rapport: {}", called::hinted(&in_full(failure))));
}

/// Prints a line of a command's result.
pub(super) fn line(line: impl std::fmt::Display) {
    if let Err(error) = write(&mut io::stdout(), &line) {
        progress(format_args!("rapport: cannot write the result: {error}"));
        UNWRITTEN.store(true, Ordering::Relaxed);
    }
}

/// Prints a line about a command's progress.
pub(super) fn progress(line: impl std::fmt::Display) {
    // There is nowhere left to say that this went wrong.
    let _ = write(&mut io::stderr(), &line);
}

/// A reader that has seen enough, such as `head`, is no failure.
fn write(to: &mut impl Write, line: &impl std::fmt::Display) -> io::Result<()> {
    match writeln!(to, "{line}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints JSON, indented.
pub(super) fn json(value: &Value) {
    line(format_args!("{value:#}"));
}

/// Prints rows below a heading; the columns in `numbers` are aligned to the right. What may be long belongs into the last
/// column: a narrow terminal then breaks nothing else.
pub(super) fn table(heading: &[&str], numbers: Range<usize>, rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction(' ')));
    table.set_header(heading.iter().map(Cell::new)).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(table.trim_fmt());
}

/// A probability with its interval: `0.62 (0.34–0.84)`.
pub(super) fn willingness(willingness: Option<pb::Willingness>) -> String {
    let given = willingness.unwrap_or_default();
    format!("{:.2} ({:.2}–{:.2})", given.probability, given.lower, given.upper)
}

/// The name of a status, such as `REAL`.
pub(super) fn status(connection: &pb::Connection) -> String {
    short(connection.status().as_str_name(), "CONNECTION_STATUS_")
}

/// The date of a time.
pub(super) fn date(time: Option<prost_types::Timestamp>) -> String {
    time.map(|time| time.to_string().chars().take(10).collect()).unwrap_or_default()
}

/// An enum's name without its prefix.
pub(super) fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_owned()
}

/// A connection as the proto's JSON mapping has it.
pub(super) fn connection(connection: &pb::Connection) -> Value {
    let willingness = |given: Option<pb::Willingness>| {
        let given = given.unwrap_or_default();
        json!({ "probability": given.probability, "lower": given.lower, "upper": given.upper })
    };
    let time = |time: Option<prost_types::Timestamp>| time.map(|time| time.to_string());
    let counts = |counts: &[pb::InteractionCount]| -> Vec<Value> {
        counts
            .iter()
            .map(|count| json!({ "kind": count.kind().as_str_name(), "count": count.count.to_string() }))
            .collect()
    };
    json!({
        "peer": connection.peer,
        "theyWouldHelp": willingness(connection.they_would_help),
        "youWouldHelp": willingness(connection.you_would_help),
        "mutual": willingness(connection.mutual),
        "status": connection.status().as_str_name(),
        "firstInteractionTime": time(connection.first_interaction_time),
        "lastInteractionTime": time(connection.last_interaction_time),
        "theirInteractionCounts": counts(&connection.their_interaction_counts),
        "yourInteractionCounts": counts(&connection.your_interaction_counts),
        "reasons": connection.reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}

fn reason(reason: &pb::Reason) -> Value {
    json!({
        "willingness": reason.willingness().as_str_name(),
        "factor": reason.factor().as_str_name(),
        "source": reason.source().as_str_name(),
        "contribution": reason.contribution,
        "interactionIds": reason.interaction_ids,
    })
}
