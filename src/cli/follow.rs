//! A window followed to its end, a line for each thing that happens.

use std::time::Duration;

use rollbackd_core::report::{Level, Narrator};
use rollbackd_core::run::record::Entry;
use serde::Deserialize;
use tokio::time::Instant;

use super::client::{Client, Unanswered};
use super::output::{self, Terminal};
use super::{Exit, Stop};

/// The pause between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A daemon that is restarted is back within this.
const AWAY_FOR: Duration = Duration::from_secs(120);

/// A window with its records, as the API shows it.
#[derive(Debug, Deserialize)]
struct Progress {
    outcome: Option<String>,
    records: Vec<Entry>,
}

/// Follows a window until automation is through with it.
pub(super) async fn run(client: &Client, window: &str, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = to_the_end(client, window, terminal) => ended,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            output::say(&format!("{window} goes on; `rollbackd status` shows it"));
            Ok(Exit::Failed)
        }
    }
}

async fn to_the_end(client: &Client, window: &str, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let mut seen = 0;
    let mut narrator = Narrator::default();
    let mut answered_at = Instant::now();
    loop {
        match client.get::<Progress>(&format!("/api/v1/windows/{window}?after={seen}")).await {
            Ok(progress) => {
                answered_at = Instant::now();
                for entry in &progress.records {
                    seen = seen.max(entry.seq);
                    if let Some(line) = told(&mut narrator, entry) {
                        terminal.print(&line)?;
                    }
                }
                if let Some(exit) = progress.outcome.as_deref().and_then(exit) {
                    return Ok(exit);
                }
            }
            Err(error) if is_passing(&error) && answered_at.elapsed() < AWAY_FOR => {}
            Err(error) => return Err(Stop::from(error).into()),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether the same question may be answered a little later.
const fn is_passing(error: &Unanswered) -> bool {
    match error {
        Unanswered::NoDaemon(_) | Unanswered::CutOff { .. } | Unanswered::Broken { .. } => true,
        Unanswered::Refused { status, .. } => *status == 503,
    }
}

/// The code for how a window ended.
pub(super) fn exit(outcome: &str) -> Option<Exit> {
    match outcome {
        "passed" => Some(Exit::Done),
        "recovered" => Some(Exit::Recovered),
        "needs_operator" => Some(Exit::NeedsOperator),
        "refused" => Some(Exit::Refused),
        "cancelled" => Some(Exit::Cancelled),
        _ => None,
    }
}

/// What is shown of a record: what only matters when looking closely is left to the report.
pub(super) fn told(narrator: &mut Narrator, entry: &Entry) -> Option<String> {
    let line = narrator.tell(entry);
    let shown = line.level > Level::Detail;
    shown.then(|| format!("{}  {}\n", line.at.strftime("%H:%M:%S"), output::clean(&line.sentence)))
}
