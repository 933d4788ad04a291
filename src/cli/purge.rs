//! `rollbackd purge`: drops quarantines for good, archived before.

use std::path::Path;

use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::Serialize;

use super::output::{Terminal, wrap};
use super::quarantine::{Chosen, Known, confirmed, listed, what};
use super::{Exit, Json};
use crate::clock;
use crate::postgres::removal::archive::directory_of;
use crate::purge::{Purged, purge};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The window, or the name of its quarantine; without it, lists the quarantines
    window: Option<String>,
    /// Every quarantine of a window that began longer ago than this, such as 30d: for a timer
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "window")]
    older_than: Option<SignedDuration>,
    /// Keep no copy: the rows are lost for good
    #[arg(long)]
    no_archive: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    yes: bool,
    /// Give up on a quarantine after so long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    within: SignedDuration,
    #[command(flatten)]
    json: Json,
}

/// One quarantine of `purge --json`.
#[derive(Debug, Serialize)]
struct Answer {
    window: String,
    schema: String,
    #[serde(flatten)]
    purged: Purged,
}

/// `30d`, `12h`, `1d 12h`: a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    if duration.is_positive() { Ok(duration) } else { Err("it must be more than nothing, such as 30d".to_owned()) }
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let known = Known::of(path).await?;
    let chosen = match (&arguments.window, arguments.older_than) {
        (Some(asked), _) => vec![known.choose(asked)?],
        (None, Some(age)) => known.older_than(age),
        (None, None) => {
            if arguments.json.json {
                terminal.print_json(&known.quarantines)?;
            } else {
                terminal.print(&listed(&known.quarantines, clock::now(), terminal.paint))?;
            }
            return Ok(Exit::Done);
        }
    };
    let chosen: Vec<_> = chosen
        .into_iter()
        .filter_map(|Chosen { window, quarantine }| quarantine.map(|quarantine| (window, quarantine)))
        .collect();
    if chosen.is_empty() {
        if arguments.json.json {
            terminal.print_json(&Vec::<Answer>::new())?;
        } else {
            terminal.print("there is nothing to purge\n")?;
        }
        return Ok(Exit::Done);
    }
    known.refuse_in_a_window()?;
    let copy = if arguments.no_archive {
        "without an archive: nothing brings the rows back".to_owned()
    } else {
        format!("after archiving it below {}", known.config.state_dir.join("archives").display())
    };
    let all: Vec<String> = chosen.iter().map(|(_, quarantine)| what(quarantine)).collect();
    if !confirmed(&format!("This drops {}, {copy}.", all.join("; ")), arguments.yes)? {
        terminal.print("nothing was changed\n")?;
        return Ok(Exit::Failed);
    }
    let mut answers = Vec::new();
    for (window, quarantine) in chosen {
        let within = arguments.within.unsigned_abs();
        let purged = purge(&known.config, &quarantine.schema, &window, !arguments.no_archive, within).await;
        if !arguments.json.json {
            let mut text = wrap(&format!("{window}: {}", purged.summary()), 0);
            text.extend(purged.reasons.iter().map(|reason| wrap(reason, 2)));
            if purged.purged && !quarantine.archives.is_empty() {
                let place = directory_of(&known.config.state_dir, &window);
                let note = format!("archives of tables that the rollback had dropped stay in {}", place.display());
                text.push_str(&wrap(&note, 2));
            }
            terminal.print(&text)?;
        }
        answers.push(Answer { window, schema: quarantine.schema, purged });
    }
    if arguments.json.json {
        terminal.print_json(&answers)?;
    }
    Ok(if answers.iter().all(|answer| answer.purged.purged) { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_durations() {
        assert_eq!(duration("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(duration("90m"), Ok(SignedDuration::from_mins(90)));
        assert!(duration("-1d").is_err() && duration("soon").is_err() && duration("1mo").is_err());
    }
}
