//! `rollbackd journal`: a look into the journal, by people and programs. Nothing is ever written.
//!
//! The records come from the daemon where one runs, which has the file to itself; or else from a copy of the file. Of a
//! journal that is damaged what can be read is given first, and then what is wrong and what to do, with exit code 1.

mod source;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rollbackd_core::report::{Level, Narrator};
use rollbackd_core::run::record::{Entry, Record};
use serde::Serialize;

use self::source::Seen;
use super::output::{Terminal, WIDTH, clean, cut};
use super::place::Place;
use super::{Exit, Json, Stop};
use crate::server::view::unify_times;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the records, a line each
    Show(Show),
    /// Check the whole journal: nothing missing, nothing changed, nothing that does not follow
    #[command(after_help = "Exit codes: 0 it is whole, 1 it is not, 69 there is none or it cannot be read now.")]
    Verify(Json),
    /// Write every record as it is stored to standard output: JSON lines, nothing left out
    Export,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only the records of this window
    #[arg(long, value_name = "WINDOW")]
    window: Option<String>,
    #[command(flatten)]
    json: Json,
}

/// A line of `journal show --json`.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at: Timestamp,
    window: Option<&'a str>,
    level: Level,
    sentence: String,
    record: &'a Record,
}

pub(super) async fn run(config: &Path, verb: Verb, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = Place::of(config)?;
    let seen = source::read(&place).await?;
    match verb {
        Verb::Show(show) => shown(seen, &show, terminal),
        Verb::Verify(json) => verify::run(seen, json, terminal),
        Verb::Export => exported(seen, terminal),
    }
}

fn shown(seen: Seen, show: &Show, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let (entries, trouble) = seen.entries();
    let mut narrator = Narrator::default();
    let mut found = false;
    for entry in &entries {
        let line = narrator.tell(entry);
        if show.window.is_some() && show.window != entry.window {
            continue;
        }
        found = true;
        if show.json.json {
            let Entry { seq, at, window, record } = entry;
            let (window, level, sentence) = (window.as_deref(), line.level, line.sentence);
            let mut value = serde_json::to_value(Line { seq: *seq, at: *at, window, level, sentence, record })?;
            unify_times(&mut value);
            terminal.print(&format!("{value}\n"))?;
        } else {
            terminal.print(&told(entry, &line.sentence))?;
        }
    }
    if let Some(trouble) = trouble {
        return Err(trouble.into());
    }
    match &show.window {
        Some(window) if !found => {
            let message = format!("there is no record of a window `{window}`; `rollbackd history` lists the windows");
            Err(Stop::new(Exit::Failed, message).into())
        }
        Some(_) | None => Ok(Exit::Done),
    }
}

/// A record in a line of the terminal's width.
fn told(entry: &Entry, sentence: &str) -> String {
    let head = format!("{:>6}  {}  ", entry.seq, entry.at.strftime("%Y-%m-%d %H:%M:%S"));
    let room = WIDTH.saturating_sub(head.chars().count());
    format!("{head}{}\n", cut(&clean(sentence), room))
}

fn exported(seen: Seen, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    for (_, line) in &seen.lines {
        terminal.print(&format!("{line}\n"))?;
    }
    // What this program cannot understand is exported all the same: only damage ends it early.
    match seen.trouble {
        Some(trouble) => Err(trouble.into()),
        None => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_that_fits() {
        let entry = Entry {
            seq: 7,
            at: "2026-11-22T02:00:00.123Z".parse().expect("a time"),
            window: None,
            record: Record::Started { version: "0.1.0".to_owned() },
        };
        let sentence = Narrator::default().tell(&entry).sentence;
        assert_eq!(
            told(&entry, &sentence),
            "     7  2026-11-22 02:00:00  rollbackd 0.1.0 started and read the journal\n"
        );
        let long = told(&entry, &"wörd\u{1b} ".repeat(50));
        assert!(long.chars().count() == WIDTH + 1 && !long.contains('\u{1b}'), "{long}");
    }
}
