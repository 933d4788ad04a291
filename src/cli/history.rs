//! `rollbackd history`.

use std::path::Path;

use super::client::Unanswered;
use super::output::{IDS, Paint, Terminal, clock_time, table, words};
use super::place::{Place, state_of};
use super::{Exit, Json, Stop};
use crate::server::view::{self, WindowRow};

pub(super) async fn run(config: &Path, json: Json, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let rows = read(&Place::of(config)?).await?;
    if json.json {
        terminal.print_json(&rows)?;
    } else {
        terminal.print(&text(&rows, terminal.paint))?;
    }
    Ok(Exit::Done)
}

/// The windows, newest first: from the daemon, or else from the journal.
pub(super) async fn read(place: &Place) -> anyhow::Result<Vec<WindowRow>> {
    match place.client().get("/api/v1/windows").await {
        Ok(rows) => Ok(rows),
        Err(Unanswered::NoDaemon(_)) => Ok(view::history(&state_of(&place.records()?))),
        Err(error) => Err(Stop::from(error).into()),
    }
}

fn text(rows: &[WindowRow], paint: Paint) -> String {
    if rows.is_empty() {
        return "no window was opened yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let took = row.ended_at.map_or_else(|| "open".to_owned(), |end| words(end.duration_since(row.started_at)));
            let state = row.outcome.as_deref().unwrap_or(&row.state).replace('_', " ");
            vec![row.id.clone(), state, took, clock_time(row.started_at)]
        })
        .collect();
    table(paint, IDS, &["WINDOW", "OUTCOME", "TOOK", "OPENED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::{at, settled};
    use rollbackd_core::run::record::WindowOutcome;

    #[test]
    fn windows_are_listed_newest_first() {
        let rows = view::history(&settled(at("02:16:00"), WindowOutcome::Abandoned).state);
        assert_eq!(
            text(&rows, Paint::none()),
            "  WINDOW                 OUTCOME         TOOK    OPENED
  shop-20261122T020000Z  needs operator  15m 5s  2026-11-22 02:00:00 UTC
  shop-20261115T020000Z  passed          20m     2026-11-15 02:00:00 UTC
"
        );
        assert_eq!(text(&[], Paint::none()), "no window was opened yet\n");
    }
}
