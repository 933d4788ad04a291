//! `rollbackd undo`: brings back what a window's removal took.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use rollbackd_core::words::counted;
use serde::Serialize;

use super::output::{NAMES, Paint, Terminal, table, wrap};
use super::quarantine::{Chosen, Known, confirmed, listed};
use super::{Exit, Json, Stop};
use crate::clock;
use crate::postgres::removal::archive::directory_of;
use crate::undo::{Ended, Undone, undo};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The window, or the name of its quarantine; without it, lists what can come back
    window: Option<String>,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    yes: bool,
    /// Give up after so long; what is back by then stays back
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = super::purge::duration)]
    within: jiff::SignedDuration,
    #[command(flatten)]
    json: Json,
}

/// `undo --json`.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    window: &'a str,
    schema: &'a str,
    #[serde(flatten)]
    undone: &'a Undone,
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let known = Known::of(path).await?;
    let Some(asked) = &arguments.window else {
        if arguments.json.json {
            terminal.print_json(&known.quarantines)?;
        } else {
            terminal.print(&listed(&known.quarantines, clock::now(), terminal.paint))?;
        }
        return Ok(Exit::Done);
    };
    let Chosen { window, quarantine } = known.choose(asked)?;
    let Some(quarantine) = quarantine else {
        if let Some(archive) = newest_purged(&known.config.state_dir, &window) {
            return Err(Stop::new(Exit::Failed, after_a_purge(&window, &archive)).into());
        }
        terminal.print(&format!("{window}: there is nothing to bring back\n"))?;
        return Ok(Exit::Done);
    };
    known.refuse_in_a_window()?;
    let Some(tables) = quarantine.undoable else {
        let message = format!(
            "nothing in {0} can be undone. Tables that a restore replaced are kept in it, and `rollbackd report` has the \
             statements that put their newer rows into the live tables; other tables are moved back by hand, with \
             `alter table {0}.… set schema`",
            quarantine.schema
        );
        return Err(Stop::new(Exit::Failed, message).into());
    };
    let archives = match quarantine.archives.as_slice() {
        [] => String::new(),
        archives => format!(" and {}", counted(archives.len(), "archive")),
    };
    let question = format!("This brings back {} from {}{archives}.", counted(tables, "table"), quarantine.schema);
    if !confirmed(&question, arguments.yes)? {
        terminal.print("nothing was changed\n")?;
        return Ok(Exit::Failed);
    }
    let undone = undo(&known.config, &quarantine.schema, arguments.within.unsigned_abs()).await;
    if arguments.json.json {
        terminal.print_json(&Answer { window: &window, schema: &quarantine.schema, undone: &undone })?;
    } else {
        terminal.print(&text(&window, &quarantine.schema, &undone, terminal.paint))?;
    }
    Ok(match undone.ended {
        Ended::Undone | Ended::Nothing => Exit::Done,
        Ended::Stopped | Ended::Failed => Exit::Failed,
    })
}

/// The last archive of a purge.
fn newest_purged(state_dir: &Path, window: &str) -> Option<String> {
    let entries = std::fs::read_dir(directory_of(state_dir, window)).ok()?;
    let mut found: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_prefix("purged-")?.parse().ok()?;
            Some((number, path.join("tables.dump").display().to_string()))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, file)| file)
}

fn after_a_purge(window: &str, archive: &str) -> String {
    format!(
        "the quarantine of {window} was purged. Restore it first, and then undo:\n  pg_restore --exit-on-error \
         --single-transaction --dbname=\"$DATABASE_URL\" \\\n    '{archive}'\n  rollbackd undo {window}"
    )
}

fn text(window: &str, schema: &str, undone: &Undone, paint: Paint) -> String {
    let mut text = wrap(&format!("{window}: {}", undone.summary()), 0);
    text.extend(undone.reasons.iter().map(|reason| wrap(reason, 2)));
    if !undone.blockers.is_empty() && !undone.reasons.is_empty() {
        text.push_str(&wrap(&format!("locks were held by {}", undone.blockers.join(", ")), 2));
    }
    if !undone.tables.is_empty() {
        let rows: Vec<Vec<String>> = undone
            .tables
            .iter()
            .map(|one| {
                let rows = one.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
                let place = if one.archive.is_some() { "archive" } else { "quarantine" };
                vec![one.table.to_string(), rows, place.to_owned()]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(paint, NAMES, &["TABLE", "ROWS", "FROM"], &rows));
    }
    let archives: BTreeSet<&String> = undone.tables.iter().filter_map(|one| one.archive.as_ref()).collect();
    for (title, items) in [
        ("Also back", &undone.objects),
        ("Columns", &undone.columns),
        ("Not back", &undone.left),
        ("Taken away by the migration, and kept since the rollback made it again", &undone.stays),
        ("Archives that were read, and stay", &archives.into_iter().cloned().collect()),
    ] {
        if !items.is_empty() {
            text.extend(["\n", &paint.bold(title), "\n"]);
            text.extend(items.iter().map(|item| wrap(item, 2)));
        }
    }
    if undone.quarantine_dropped {
        text.push('\n');
        text.push_str(&wrap(&format!("The quarantine {schema} was empty, and is gone."), 0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::undo::Returned;
    use rollbackd_core::baseline::TableName;

    #[test]
    fn what_came_back_is_told() {
        let undone = Undone {
            ended: Ended::Undone,
            reasons: Vec::new(),
            tables: vec![
                Returned { table: TableName::new("public", "pages"), rows: Some(7), archive: None },
                Returned { table: TableName::new("public", "a\"b"), rows: None, archive: Some("/var/x".to_owned()) },
            ],
            objects: vec!["view public.titles".to_owned()],
            columns: vec!["page of public.posts: values of 2 rows filled".to_owned()],
            left: vec!["public.far is in no archive".to_owned()],
            stays: vec!["view public.old".to_owned()],
            blockers: Vec::new(),
            quarantine_dropped: true,
        };
        assert_eq!(
            text("shop-1", "rollbackd_x", &undone, Paint::none()),
            "shop-1: brought back 2 tables (7 rows) and 1 other object

  TABLE         ROWS  FROM
  public.pages  7     quarantine
  public.a\"b    ?     archive

Also back
  view public.titles

Columns
  page of public.posts: values of 2 rows filled

Not back
  public.far is in no archive

Taken away by the migration, and kept since the rollback made it again
  view public.old

Archives that were read, and stay
  /var/x

The quarantine rollbackd_x was empty, and is gone.
"
        );
    }
}
