//! `[[rollback.rung]]`: the methods of rolling back.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rollbackd_core::plan::{Dispose, OnBlocked, Reach, TableChoice};

use super::database::Ground;
use super::model::{Method, Rung};
use super::problem::Problem;
use super::redact::quoted;
use super::reference::reason;
use super::scalar::{BOUND, seconds};
use super::section::Section;
use super::sql::Script;
use super::value::{Text, Value};

/// Rungs of a later version.
const LATER_RUNGS: [&str; 1] = ["restore"];
/// The longest SQL file that is read.
const LONGEST_SQL: u64 = 4 * 1024 * 1024;
/// At most this many places of one SQL file are reported.
const REPORTED: usize = 20;

/// The SQL files of a configuration by the names they have in it: what a window that is open keeps of them.
pub(crate) fn files(rungs: &[Rung]) -> BTreeMap<String, String> {
    let file = |rung: &Rung| match &rung.method {
        Method::Sql { file, script } => Some((file.clone(), script.text().to_owned())),
        Method::Script { .. } | Method::Tables { .. } => None,
    };
    rungs.iter().filter_map(file).collect()
}

/// Reads a rung; one that cannot be used is reported.
pub(super) fn read(mut section: Section<'_>, ground: &Ground, budget: Duration) -> Option<Rung> {
    let doc = section.doc();
    let timeout = section.or("timeout", seconds(5 * 60), |value| {
        let span = value.span();
        let timeout = value.duration(BOUND)?;
        if timeout > budget {
            let problem = Problem::warning(span, "this rung may take longer than the whole rollback");
            doc.report(
                problem
                    .label("longer than `rollback.budget`")
                    .help("it is cut short when the budget is spent")
                    .by_absence(),
            );
        }
        Some(timeout)
    });
    let needs_approval =
        section.or("approval", false, |value| value.choice(&[("none", false), ("required", true)], &[]));
    let kind = section.need("kind", "kind = \"tables\"", |value| {
        let kinds = [
            ("partial", RungKind::Removal(Reach::Related)),
            ("script", RungKind::Script),
            ("tables", RungKind::Removal(Reach::Attached)),
            ("sql", RungKind::Sql),
            ("reverse", RungKind::Removal(Reach::Everything)),
        ];
        value.choice(&kinds, &LATER_RUNGS)
    });
    let method = match kind {
        Some(RungKind::Script) => script(&mut section),
        Some(RungKind::Removal(reach)) => removal(&mut section, ground, reach),
        Some(RungKind::Sql) => sql(&mut section),
        // What else it holds belongs to a kind that is not known.
        None => return None,
    };
    section.finish();
    Some(Rung { timeout, needs_approval, method: method? })
}

#[derive(Clone, Copy)]
enum RungKind {
    Script,
    Removal(Reach),
    Sql,
}

fn script(section: &mut Section<'_>) -> Option<Method> {
    let command = section.need("command", "command = [\"node\", \"scripts/rollback-emergency.js\"]", Value::command);
    let idempotent = section.or("idempotent", false, Value::boolean);
    Some(Method::Script { command: command?, idempotent })
}

fn sql(section: &mut Section<'_>) -> Option<Method> {
    section.need("file", "file = \"rollback.sql\"", |value| {
        let (path, file) = value.path_with_text("the path of a SQL file")?;
        let kept = &file.doc.surroundings.kept;
        let text = match kept {
            Some(kept) => match kept.get(&file.value) {
                Some(text) => text.clone(),
                None => return refused(&file, "its copy is missing"),
            },
            None => match sql_text(&path) {
                Ok(text) => text,
                Err(why) => return refused(&file, &why),
            },
        };
        match Script::read(&text) {
            Ok(script) => Some(Method::Sql { file: file.value, script }),
            Err(refusals) => {
                for refusal in refusals.iter().take(REPORTED) {
                    let place = format!("{}:{}", file.value, refusal.line);
                    let text = if refusal.text.is_empty() { String::new() } else { format!(": `{}`", refusal.text) };
                    let problem = Problem::error(file.span.clone(), format!("{place}{text}: {}", refusal.why));
                    let help = "this rung runs the file in one transaction; take this out, or use kind = \"script\"";
                    file.doc.report(problem.label("cannot be run").help(help));
                }
                if let Some(more) = refusals.len().checked_sub(REPORTED).filter(|more| *more > 0) {
                    let message = format!("{}: {more} more places like these", file.value);
                    file.doc.report(Problem::error(file.span.clone(), message).label("cannot be run"));
                }
                None
            }
        }
    })
}

/// What a SQL file holds, or why it cannot be used.
fn sql_text(path: &std::path::Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| reason(&error))?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    if about.len() > LONGEST_SQL {
        return Err("it is longer than 4 MiB".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| reason(&error))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        format!("it is not UTF-8: line {line} holds a byte that is not text")
    })
}

fn refused<T>(file: &Text<'_>, why: &str) -> Option<T> {
    let message = format!("the SQL file {} cannot be used: {why}", file.shown());
    let help = "accepted: a file of SQL in UTF-8 that rollbackd may read, at most 4 MiB; relative paths start at the \
                configuration file";
    file.refuse(message, "cannot be read", help)
}

/// The rungs that remove tables: `tables` says which, the others know.
fn removal(section: &mut Section<'_>, ground: &Ground, reach: Reach) -> Option<Method> {
    let tables = match reach {
        Reach::Related => Some(TableChoice::Implicated),
        Reach::Attached => section.need("tables", "tables = \"added\"", |value| choice(value, ground)),
        Reach::Everything => Some(TableChoice::Added),
    };
    let quarantine = section.or("dispose", true, |value| value.choice(&[("quarantine", true), ("drop", false)], &[]));
    let archive = section.or("archive", true, Value::boolean);
    if !quarantine && !archive {
        let problem = Problem::warning(section.key_span("archive"), "rows of the dropped tables are lost");
        let help = "leave `archive` out to keep a copy of them, or use dispose = \"quarantine\"";
        section.doc().report(problem.label("no copy is kept").help(help));
    }
    let on_blocked = section.or("on_blocked", OnBlocked::Wait, |value| {
        value.choice(&[("wait", OnBlocked::Wait), ("terminate", OnBlocked::Terminate)], &[])
    });
    let dispose = if quarantine { Dispose::Quarantine } else { Dispose::Drop { archive } };
    Some(Method::Tables { tables: tables?, dispose, on_blocked, reach })
}

/// `"added"`, or names, none of which may be one that has to survive.
fn choice(value: Value<'_>, ground: &Ground) -> Option<TableChoice> {
    if !value.is_list() {
        return value.choice(&[("added", ())], &[]).map(|()| TableChoice::Added);
    }
    let (doc, span) = (value.doc, value.span());
    let list = value.list("\"added\" or a list of table names")?;
    if list.is_empty() {
        let problem = Problem::error(span, "this rung removes no table").label("empty");
        doc.report(problem.help("accepted: \"added\", or a list of table names"));
    }
    let mut seen = Vec::new();
    let mut names = Vec::new();
    for (table, text) in list.into_iter().filter_map(|value| value.table_name(&ground.schema)) {
        let shown = quoted(&table.to_string());
        if ground.original_tables.contains(&table) {
            let message = format!("{shown} is an original table and must not be removed");
            text.refuse::<()>(
                message,
                "stood before the migration",
                "take it out here, or out of `database.original_tables`",
            );
        } else if ground.protected_schemas.contains(&table.schema) {
            let message = format!("{shown} is in a protected schema and must not be removed");
            let help = format!("take it out here, or {} out of `database.protected_schemas`", quoted(&table.schema));
            text.refuse::<()>(message, "protected", help);
        } else if seen.contains(&table) {
            text.refuse::<()>(format!("{shown} is named twice in this rung"), "named before", "name each table once");
        }
        seen.push(table);
        names.push(text.value);
    }
    Some(TableChoice::Named(names))
}
