//! `[rollback]` with its rungs; its gates are in [`gate`].

use rollbackd_core::plan::{Dispose, OnBlocked, Reach, TableChoice};

use super::cross::Names;
use super::database::Ground;
use super::gate;
use super::model::{Method, Rollback, Rung};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{ANY, BOUND, seconds};
use super::section::Section;
use super::value::Value;

/// Rungs of a later version.
const LATER_RUNGS: [&str; 2] = ["sql", "restore"];

/// Reads `[rollback]`. Also says how many rungs are written, usable or not.
pub(super) fn read(mut section: Section<'_>, ground: &Ground) -> (usize, Rollback) {
    let budget = section.or("budget", seconds(15 * 60), |value| value.duration(BOUND));
    let approve_always = section.or("approval", false, |value| value.choice(&[("none", false), ("always", true)], &[]));
    let repeat_page = section.or("repeat_page", seconds(15 * 60), |value| value.duration(BOUND));
    let grace = section.or("grace", seconds(10), |value| value.duration(ANY));
    let mut names = Names::of("gate");
    let gates = section.children("gate").into_iter().filter_map(|section| gate::read(section, &mut names)).collect();
    let written = section.children("rung");
    let count = written.len();
    let rungs = written.into_iter().filter_map(|rung| read_rung(rung, ground, budget)).collect();
    section.finish();
    (count, Rollback { budget, approve_always, repeat_page, grace, gates, rungs })
}

fn read_rung(mut section: Section<'_>, ground: &Ground, budget: std::time::Duration) -> Option<Rung> {
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
            ("reverse", RungKind::Removal(Reach::Everything)),
        ];
        value.choice(&kinds, &LATER_RUNGS)
    });
    let method = match kind {
        Some(RungKind::Script) => script(&mut section),
        Some(RungKind::Removal(reach)) => removal(&mut section, ground, reach),
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
}

fn script(section: &mut Section<'_>) -> Option<Method> {
    let command = section.need("command", "command = [\"node\", \"scripts/rollback-emergency.js\"]", Value::command);
    let idempotent = section.or("idempotent", false, Value::boolean);
    Some(Method::Script { command: command?, idempotent })
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
