//! `[rollback]` with its gates and rungs.

use rollbackd_core::plan::{Dispose, OnBlocked, Reach, TableChoice};

use super::cross::Names;
use super::database::Ground;
use super::model::{Gate, GateKind, Method, Rollback, Rung};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{ANY, BOUND, seconds};
use super::section::Section;
use super::value::Value;

/// Gates of a later version.
const LATER_GATES: [&str; 4] = ["http", "postgres_sessions", "pgbouncer", "postgrest"];
/// Rungs of a later version.
const LATER_RUNGS: [&str; 1] = ["sql"];

/// Reads `[rollback]`. Also says how many rungs are written, usable or not.
pub(super) fn read(mut section: Section<'_>, ground: &Ground) -> (usize, Rollback) {
    let budget = section.or("budget", seconds(15 * 60), |value| value.duration(BOUND));
    let approve_always = section.or("approval", false, |value| value.choice(&[("none", false), ("always", true)], &[]));
    let repeat_page = section.or("repeat_page", seconds(15 * 60), |value| value.duration(BOUND));
    let grace = section.or("grace", seconds(10), |value| value.duration(ANY));
    let mut names = Names::of("gate");
    let gates = section.children("gate").into_iter().filter_map(|gate| read_gate(gate, &mut names)).collect();
    let written = section.children("rung");
    let count = written.len();
    let rungs = written.into_iter().filter_map(|rung| read_rung(rung, ground, budget)).collect();
    section.finish();
    (count, Rollback { budget, approve_always, repeat_page, grace, gates, rungs })
}

fn read_gate(mut section: Section<'_>, names: &mut Names) -> Option<Gate> {
    let name = section.need("name", "name = \"edge\"", |value| names.take(value));
    let required = section.or("required", false, Value::boolean);
    let has_canary = section.has("canary");
    let canary = section.maybe("canary", Value::web_url);
    let timeout = section.or("timeout", seconds(10), |value| value.duration(BOUND));
    let kind = match section.one_of("kind of gate", &["file", "command"], &LATER_GATES) {
        Some("file") => {
            let mut file = section.child("file");
            let path = file.need("path", "path = \"/run/shop/maintenance\"", |value| value.path("a path"));
            file.finish();
            path.map(|path| GateKind::File { path })
        }
        Some("command") => {
            let mut command = section.child("command");
            let stop = command.need("stop", "stop = [\"systemctl\", \"stop\", \"shop\"]", Value::command);
            let start = command.need("start", "start = [\"systemctl\", \"start\", \"shop\"]", Value::command);
            command.finish();
            stop.zip(start).map(|(stop, start)| GateKind::Command { stop, start })
        }
        Some(_) | None => None,
    };
    if !has_canary {
        let problem = Problem::warning(section.span(), "nothing proves that this gate stops traffic");
        section.doc().report(
            problem
                .label("no canary")
                .help("add canary = \"https://…\": a URL that must be refused while traffic is stopped and answer afterwards")
                .by_absence(),
        );
    }
    section.finish();
    Some(Gate { name: name?, required, canary, timeout, kind: kind? })
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
    let approval = section.maybe("approval", |value| value.choice(&[("none", false), ("required", true)], &[]));
    let kind = section.need("kind", "kind = \"tables\"", |value| {
        let kinds = [
            ("partial", RungKind::Removal(Reach::Related)),
            ("script", RungKind::Script),
            ("tables", RungKind::Removal(Reach::Attached)),
            ("reverse", RungKind::Removal(Reach::Everything)),
            ("restore", RungKind::Restore),
        ];
        value.choice(&kinds, &LATER_RUNGS)
    });
    let method = match kind {
        Some(RungKind::Script) => script(&mut section),
        Some(RungKind::Removal(reach)) => removal(&mut section, ground, reach),
        Some(RungKind::Restore) => Some(Method::Restore),
        // What else it holds belongs to a kind that is not known.
        None => return None,
    };
    section.finish();
    let method = method?;
    // Rows that were written since leave the live schema with it.
    let needs_approval = approval.unwrap_or(matches!(method, Method::Restore));
    Some(Rung { timeout, needs_approval, method })
}

#[derive(Clone, Copy)]
enum RungKind {
    Script,
    Removal(Reach),
    Restore,
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
