//! What `rollbackd undo` and `rollbackd purge` share: which quarantine is meant, whether it may be touched now, and whether
//! somebody said yes.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::window::quarantine_schema;
use rollbackd_core::words::counted;

use super::history;
use super::output::{IDS, Paint, relative, table, wrap};
use super::place::{self, Place};
use super::{Exit, Stop};
use crate::clock;
use crate::config::model::Config;
use crate::postgres::session::{ConnectError, Session};
use crate::server::view::WindowRow;
use crate::undo::places::{self, Quarantine};

/// The configuration, the windows, and the quarantines in the database.
pub(super) struct Known {
    /// The configuration.
    pub(super) config: Config,
    /// Every quarantine, the newest first.
    pub(super) quarantines: Vec<Quarantine>,
    windows: Vec<WindowRow>,
}

/// A quarantine that was asked for.
pub(super) struct Chosen {
    /// The window's id.
    pub(super) window: String,
    /// What there is; absent: nothing (any more).
    pub(super) quarantine: Option<Quarantine>,
}

impl Known {
    /// Looks.
    pub(super) async fn of(path: &Path) -> anyhow::Result<Self> {
        let config = place::load(path)?;
        let mut windows = history::read(&Place::of(path)?).await?;
        windows.sort_by_key(|window| std::cmp::Reverse(window.started_at));
        let session = Session::connect(&config.database).await.map_err(|error| {
            let exit = match &error {
                ConnectError::Down { .. } | ConnectError::Full { .. } => Exit::Unavailable,
                ConnectError::Mistake { .. } => Exit::Configuration,
            };
            Stop::new(exit, error.to_string())
        })?;
        let mut quarantines = places::list(session.client()).await?;
        for quarantine in quarantines.iter_mut().filter(|quarantine| quarantine.window.is_none()) {
            let known = windows.iter().find(|window| quarantine_schema(window.started_at) == quarantine.schema);
            quarantine.window = known.map(|window| window.id.clone());
        }
        Ok(Self { config, quarantines, windows })
    }

    /// Nothing is brought back or dropped under a window's feet.
    pub(super) fn refuse_in_a_window(&self) -> Result<(), Stop> {
        match self.windows.iter().find(|window| window.ended_at.is_none()) {
            None => Ok(()),
            Some(open) => Err(Stop::new(
                Exit::Failed,
                format!("window {} is open ({}); wait until it is settled", open.id, open.state.replace('_', " ")),
            )),
        }
    }

    /// The window that was asked for, by its id or by its quarantine's name.
    pub(super) fn choose(&self, asked: &str) -> Result<Chosen, Stop> {
        let window = self.windows.iter().find(|window| window.id == asked);
        let schema = window.map(|window| quarantine_schema(window.started_at));
        let meant = |quarantine: &&Quarantine| {
            quarantine.window.as_deref() == Some(asked)
                || quarantine.schema == asked
                || schema.as_ref() == Some(&quarantine.schema)
        };
        let quarantine = self.quarantines.iter().find(meant).cloned();
        if quarantine.is_none() && window.is_none() {
            let message =
                format!("there is no window `{asked}` and no quarantine of it; without a name this lists them");
            return Err(Stop::new(Exit::Failed, message));
        }
        let id = quarantine.as_ref().and_then(|quarantine| quarantine.window.clone());
        Ok(Chosen { window: id.unwrap_or_else(|| asked.to_owned()), quarantine })
    }

    /// The quarantines of windows that began longer ago than this.
    pub(super) fn older_than(&self, age: SignedDuration) -> Vec<Chosen> {
        let now = clock::now();
        let old = self.quarantines.iter().filter(|quarantine| now.duration_since(quarantine.started_at) > age);
        old.map(|quarantine| Chosen {
            window: quarantine.window.clone().unwrap_or_else(|| quarantine.schema.clone()),
            quarantine: Some(quarantine.clone()),
        })
        .collect()
    }
}

/// The quarantines as a table.
pub(super) fn listed(quarantines: &[Quarantine], now: Timestamp, paint: Paint) -> String {
    if quarantines.is_empty() {
        return "there is no quarantine\n".to_owned();
    }
    let rows: Vec<Vec<String>> = quarantines
        .iter()
        .map(|quarantine| {
            let undo = quarantine.undoable.map_or_else(|| "by hand".to_owned(), |tables| tables.to_string());
            let window = quarantine.window.clone().unwrap_or_else(|| quarantine.schema.clone());
            vec![
                window,
                quarantine.tables.to_string(),
                size(quarantine.bytes),
                undo,
                relative(quarantine.started_at, now),
            ]
        })
        .collect();
    table(paint, IDS, &["WINDOW", "TABLES", "SIZE", "UNDO", "BEGAN"], &rows)
}

/// `1.5 MB`.
fn size(bytes: i64) -> String {
    let mut whole = bytes.unsigned_abs();
    let mut rest = 0;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if whole < 1024 || unit == "TB" {
            return if unit == "B" { format!("{whole} B") } else { format!("{whole}.{} {unit}", rest * 10 / 1024) };
        }
        rest = whole % 1024;
        whole /= 1024;
    }
    String::new()
}

/// Asks on the terminal, unless it was answered with `--yes`; without a terminal nobody can be asked.
pub(super) fn confirmed(question: &str, yes: bool) -> Result<bool, Stop> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Stop::new(Exit::Usage, format!("{question} There is no terminal to ask on; say it with --yes")));
    }
    let mut err = io::stderr().lock();
    let question = wrap(&format!("{question} Go on? [y/N]"), 0);
    drop(write!(err, "{} ", question.trim_end()).and_then(|()| err.flush()));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What a quarantine holds, for the question.
pub(super) fn what(quarantine: &Quarantine) -> String {
    format!(
        "{} in {} ({})",
        counted(usize::try_from(quarantine.tables).unwrap_or(0), "table"),
        quarantine.schema,
        size(quarantine.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarantines_are_listed_with_what_can_come_back() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let quarantine = Quarantine {
            window: Some("shop-20261122T020000Z".to_owned()),
            schema: "rollbackd_20261122t020000z".to_owned(),
            started_at: at("2026-11-22T02:00:00Z"),
            tables: 14,
            bytes: 1_600_000,
            undoable: Some(14),
            archives: Vec::new(),
        };
        let old = Quarantine { window: None, undoable: None, bytes: 8192, ..quarantine.clone() };
        assert_eq!(
            listed(&[quarantine, old], at("2026-11-25T02:00:00Z"), Paint::none()),
            "  WINDOW                      TABLES  SIZE    UNDO     BEGAN
  shop-20261122T020000Z       14      1.5 MB  14       3d ago
  rollbackd_20261122t020000z  14      8.0 kB  by hand  3d ago
"
        );
        assert_eq!(listed(&[], at("2026-11-25T02:00:00Z"), Paint::none()), "there is no quarantine\n");
        assert_eq!(size(17), "17 B");
    }
}
