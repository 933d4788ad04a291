//! What a person does when automation has come to its end: the runbook's manual steps, made exact from what
//! was seen last.

use super::state::{GatePosition, Inspection, Window};
use crate::baseline::{Difference, ObjectId, ObjectKind, TableName, quote_identifier};
use crate::plan::{Method, TableChoice};
use crate::window::quarantine_schema;

/// The instructions, a line each: lines that start with `--` explain, the rest are SQL or marked shell
/// commands.
pub fn instructions(window: &Window) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push("-- 1. Traffic is left as it is. Check that nothing writes before you go on.".to_owned());
    lines.extend(gate_lines(window));
    lines.push("-- 2. What is left of the migration:".to_owned());
    lines.extend(removal_lines(window));
    lines.push("-- 3. The original tables and their rows before the migration:".to_owned());
    lines.extend(count_lines(window));
    if let Some(directory) = &window.backup_directory {
        lines.push(format!("--    The backup from before the migration: {directory}"));
    }
    lines.push("-- 4. When it is done, this verifies, resumes traffic and settles the window:".to_owned());
    lines.push(format!("--    rollbackd window resolved --reason '…'   (window {})", window.id));
    lines.into_iter().map(one_line).collect()
}

/// An explanation stays one: names and commands may hold line breaks, and what follows one would be taken as SQL.
fn one_line(line: String) -> String {
    if line.starts_with("--") { line.replace(char::is_control, " ") } else { line }
}

fn gate_lines(window: &Window) -> Vec<String> {
    let Some(rollback) = &window.rollback else { return Vec::new() };
    let gates = rollback.gates.iter().zip(&window.plan.rollback.gates);
    gates
        .map(|(gate, plan)| match gate.position {
            GatePosition::Closed => {
                format!("--    Gate {} is closed; step 4 opens it (by hand: {}).", plan.name, plan.manual_start)
            }
            GatePosition::Untouched | GatePosition::Unreadable => {
                format!("--    Gate {} was not closed (by hand: {}).", plan.name, plan.manual_stop)
            }
            GatePosition::Reopened => format!("--    Gate {} is open (to close it: {}).", plan.name, plan.manual_stop),
            GatePosition::Closing | GatePosition::CloseFailed | GatePosition::Opening | GatePosition::OpenFailed => {
                format!(
                    "--    Gate {} is in doubt: look. (to close it: {}; to open it: {})",
                    plan.name, plan.manual_stop, plan.manual_start
                )
            }
        })
        .collect()
}

/// The newest difference that an inspection saw.
fn last_seen(window: &Window) -> Option<&Difference> {
    let attempts = window.rollback.as_ref()?.attempts.iter().rev();
    attempts.flat_map(|attempt| [&attempt.after, &attempt.before]).find_map(|seen| match seen {
        Some(Inspection::Seen(difference)) => Some(difference),
        Some(Inspection::Unseen(_)) | None => None,
    })
}

fn removal_lines(window: &Window) -> Vec<String> {
    let Some(difference) = last_seen(window) else {
        let mut lines =
            vec!["--    (The catalog could not be read; these are the tables that the plan names.)".to_owned()];
        let named = named_tables(window);
        lines.extend(move_away(
            window,
            &[],
            named.iter().map(|table| format!("ALTER TABLE IF EXISTS {}", table.sql())),
        ));
        return lines;
    };
    if difference.is_empty() {
        return vec!["--    Nothing differs from the baseline any more.".to_owned()];
    }
    let mut lines = Vec::new();
    lines.extend(difference.added.iter().filter(|id| !id.kind.is_table()).map(|id| format!("--    added: {id}")));
    lines.extend(difference.changed.iter().map(|change| format!("--    changed: {}", change.id)));
    for id in &difference.removed {
        lines.push(format!("--    MISSING: {id}"));
    }
    if let (Some(directory), true) = (&window.backup_directory, !difference.removed.is_empty()) {
        lines.push(format!("--    Restore what is missing from {directory} (pg_restore --table=… ) first."));
    }
    lines.extend(move_away(window, way_back(window), difference.added.iter().filter_map(move_one)));
    lines
}

/// Tables that the plan's rungs name.
fn named_tables(window: &Window) -> Vec<TableName> {
    let schema = &window.plan.database.schema;
    let names = window.plan.rollback.rungs.iter().flat_map(|rung| match &rung.method {
        Method::Tables(removal) => match &removal.tables {
            TableChoice::Named(names) => names.as_slice(),
            TableChoice::Added | TableChoice::Implicated => &[],
        },
        Method::Script { .. } | Method::Sql { .. } => &[],
    });
    names.filter_map(|name| TableName::parse(name, schema).ok()).collect()
}

/// The start of the statement that moves a relation to another schema. Views are moved as well, not dropped: then it
/// does not matter which of them stands on which. What belongs to a table goes along with it.
fn move_one(id: &ObjectId) -> Option<String> {
    let keyword = match id.kind {
        ObjectKind::Table | ObjectKind::ForeignTable => "TABLE",
        ObjectKind::View => "VIEW",
        ObjectKind::MaterializedView => "MATERIALIZED VIEW",
        ObjectKind::Sequence
        | ObjectKind::Column
        | ObjectKind::Constraint
        | ObjectKind::Index
        | ObjectKind::Trigger
        | ObjectKind::Policy
        | ObjectKind::Function
        | ObjectKind::Type
        | ObjectKind::Schema
        | ObjectKind::Extension
        | ObjectKind::Default
        | ObjectKind::NotNull
        | ObjectKind::RowSecurity
        | ObjectKind::Rule
        | ObjectKind::Statistics
        | ObjectKind::Grant
        | ObjectKind::DefaultGrant
        | ObjectKind::Owner
        | ObjectKind::Comment
        | ObjectKind::Publication
        | ObjectKind::PublicationTable
        | ObjectKind::EventTrigger => return None,
    };
    Some(format!("ALTER {keyword} {}", TableName::new(&id.schema, &id.name).sql()))
}

/// The statements that put back what was redefined or taken away, as of the newest look.
fn way_back(window: &Window) -> &[String] {
    let attempts = window.rollback.iter().flat_map(|rollback| rollback.attempts.iter().rev());
    let mut seen = attempts.filter(|attempt| matches!(attempt.before, Some(Inspection::Seen(_))));
    seen.next().map_or(&[], |attempt| attempt.way_back.as_slice())
}

/// One transaction that puts back what was redefined, and moves relations out of the way without destroying anything.
fn move_away(window: &Window, back: &[String], moves: impl Iterator<Item = String>) -> Vec<String> {
    let schema = quote_identifier(&quarantine_schema(window.started_at));
    let back = back.iter().map(|one| format!("{};", one.trim_end()));
    let moves: Vec<String> = back.chain(moves.map(|one| format!("{one} SET SCHEMA {schema};"))).collect();
    if moves.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        "BEGIN;".to_owned(),
        "SET LOCAL lock_timeout = '2s';".to_owned(),
        format!("CREATE SCHEMA IF NOT EXISTS {schema};"),
    ];
    lines.extend(moves);
    lines.push("COMMIT;".to_owned());
    lines
}

fn count_lines(window: &Window) -> Vec<String> {
    let Some(baseline) = &window.baseline else { return Vec::new() };
    let counts = baseline.counts.iter();
    counts.map(|count| format!("SELECT count(*) FROM {};  -- was {}", count.table.sql(), count.rows)).collect()
}
