//! `[rollback]` with its gates.

use super::cross::Names;
use super::database::Ground;
use super::model::{Gate, GateKind, Rollback};
use super::problem::Problem;
use super::rung;
use super::scalar::{ANY, BOUND, seconds};
use super::section::Section;
use super::value::Value;

/// Gates of a later version.
const LATER_GATES: [&str; 4] = ["http", "postgres_sessions", "pgbouncer", "postgrest"];

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
    let rungs = written.into_iter().filter_map(|one| rung::read(one, ground, budget)).collect();
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
