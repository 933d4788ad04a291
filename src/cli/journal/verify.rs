//! `rollbackd journal verify`: is every record there, as it was written, and does each follow from those before?

use rollbackd_core::run::sound::unsound;
use rollbackd_core::run::state::State;
use rollbackd_core::words::{counted, grouped};
use serde::Serialize;

use super::source::Seen;
use crate::cli::output::{Terminal, wrap};
use crate::cli::{Exit, Json};

/// `journal verify --json`.
#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    journal: String,
    /// `daemon` or `file`.
    source: &'static str,
    records: usize,
    first: Option<u64>,
    last: Option<u64>,
    /// The oldest and the newest format.
    formats: Option<(u32, u32)>,
    /// Settled windows whose records are there, and how many were let go.
    windows: usize,
    windows_let_go: u64,
    open_window: Option<String>,
    notices_owed: usize,
    /// What is wrong, and the way out.
    problems: Vec<String>,
}

pub(super) fn run(seen: Seen, json: Json, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let answer = examine(seen);
    if json.json {
        terminal.print_json(&answer)?;
    } else {
        terminal.print(&text(&answer))?;
    }
    Ok(if answer.ok { Exit::Done } else { Exit::Failed })
}

fn examine(seen: Seen) -> Answer {
    let (journal, formats, asked) = (seen.path.display().to_string(), seen.versions(), seen.asked);
    let (entries, trouble) = seen.entries();
    let state = State::replay(&entries);
    let mut problems: Vec<String> = trouble.into_iter().map(|trouble| trouble.message).collect();
    problems.extend(unsound(&entries).map(|(seq, why)| {
        format!(
            "record {seq} does not follow from those before it: {why}. Somebody else may have written it, or it is a bug of \
             rollbackd: keep a copy (`rollbackd journal export`), and look at the database before you rely on what the \
             records say"
        )
    }));
    Answer {
        ok: problems.is_empty(),
        journal,
        source: if asked { "daemon" } else { "file" },
        records: entries.len(),
        first: entries.first().map(|entry| entry.seq),
        last: entries.last().map(|entry| entry.seq),
        formats,
        windows: state.history.len(),
        windows_let_go: state.let_go,
        open_window: state.window.map(|window| window.id),
        notices_owed: state.owed.len(),
        problems,
    }
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: String| text.extend(["  ", &format!("{name:<10}{value}"), "\n"]);
    let places = answer.first.zip(answer.last).map(|(first, last)| format!(" ({first} to {last})")).unwrap_or_default();
    put("records", grouped(u64::try_from(answer.records).unwrap_or(u64::MAX)) + &places);
    if let Some((oldest, newest)) = answer.formats {
        put("formats", if oldest == newest { oldest.to_string() } else { format!("{oldest} to {newest}") });
    }
    let let_go = match answer.windows_let_go {
        0 => String::new(),
        windows => format!(", {} before that were let go", grouped(windows)),
    };
    let open = answer.open_window.as_ref().map(|id| format!(", {id} is open")).unwrap_or_default();
    put("windows", format!("{} settled{open}{let_go}", answer.windows));
    put("notices", counted(answer.notices_owed, "notice") + " owed");
    put("checked", checked(answer.source).to_owned());
    let verdict = if answer.ok { "whole" } else { "NOT WHOLE" };
    let mut whole = format!("{}: {verdict}\n{text}", answer.journal);
    for problem in &answer.problems {
        whole.push('\n');
        whole.push_str(&wrap(problem, 0));
    }
    whole
}

fn checked(source: &str) -> &'static str {
    if source == "daemon" {
        "each record, by the running daemon; the file itself when it started"
    } else {
        "each record and the file itself"
    }
}
