//! `rollbackd verify`: the recovery verification alone, now.
//!
//! It looks and changes nothing. The facts to compare with are those of the newest window that took a baseline.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rollbackd_core::baseline::Baseline;
use rollbackd_core::plan::Stage;
use rollbackd_core::run::record::{Entry, Record};
use rollbackd_core::run::step::Finding;
use rollbackd_core::words::counted;
use serde::{Deserialize, Serialize};

use super::checks::{CheckLine, table};
use super::client::Unanswered;
use super::output::Terminal;
use super::place::{self, Place};
use super::{Exit, Json, Stop};
use crate::postgres::pinned::Pinned;
use crate::server::view::unify_times;
use crate::verify::{self, Context};

/// Time for one stage, whatever its checks say.
const STAGE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    json: Json,
}

/// `verify --json`.
#[derive(Debug, Serialize)]
struct Answer {
    passed: bool,
    baseline_at: Option<jiff::Timestamp>,
    checks: Vec<CheckLine>,
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let config = place::load(path)?;
    let baseline = newest_baseline(&Place::of(path)?).await?;
    let pinned = Pinned::new(&config.database);
    let context = Context {
        config: &config,
        pinned: &pinned,
        baseline: baseline.as_ref().map(|(baseline, _)| &**baseline),
        backup: baseline.as_ref().map(|(_, backup)| Path::new(backup)),
    };
    let mut results = verify::run(context, Stage::Closed, STAGE).await;
    results.extend(verify::run(context, Stage::Open, STAGE).await);
    let checks: Vec<CheckLine> = results.iter().map(CheckLine::from).collect();
    let passed = !checks.is_empty() && checks.iter().all(|check| check.passed);
    let exit = if passed { Exit::Done } else { Exit::Failed };
    let baseline_at = baseline.as_ref().map(|(baseline, _)| baseline.at);
    if arguments.json.json {
        let mut answer = serde_json::to_value(Answer { passed, baseline_at, checks })?;
        unify_times(&mut answer);
        terminal.print_json(&answer)?;
        return Ok(exit);
    }
    let compared = match baseline_at {
        Some(at) => format!("Compared with the baseline of {}.\n\n", super::output::clock_time(at)),
        None => "No window has taken a baseline yet.\n\n".to_owned(),
    };
    let failed = checks.iter().filter(|check| !check.passed).count();
    let verdict = if passed {
        format!("\n{} passed.\n", counted(checks.len(), "check"))
    } else {
        format!("\n{failed} of {} failed.\n", counted(checks.len(), "check"))
    };
    terminal.print(&format!("{compared}{}{verdict}", table(terminal.paint, &checks)))?;
    Ok(exit)
}

#[derive(Debug, Deserialize)]
struct Row {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Records {
    records: Vec<Entry>,
}

/// The baseline of the newest window that took one, and the backup's directory, from the daemon or from the journal.
async fn newest_baseline(place: &Place) -> anyhow::Result<Option<(Arc<Baseline>, String)>> {
    let client = place.client();
    let windows: Vec<Row> = match client.get("/api/v1/windows").await {
        Ok(windows) => windows,
        Err(Unanswered::NoDaemon(_)) => return Ok(baseline_in(&place.records()?)),
        Err(error) => return Err(Stop::from(error).into()),
    };
    for window in windows {
        let path = format!("/api/v1/windows/{}", window.id);
        let told: Records = client.get(&path).await.map_err(Stop::from)?;
        if let Some(baseline) = baseline_in(&told.records) {
            return Ok(Some(baseline));
        }
    }
    Ok(None)
}

/// The last baseline in these records, and the backup's directory.
fn baseline_in(records: &[Entry]) -> Option<(Arc<Baseline>, String)> {
    records.iter().rev().find_map(|entry| {
        let Record::StepEnded { outcome, .. } = &entry.record else { return None };
        let Finding::Backup { directory, baseline, .. } = &outcome.finding else { return None };
        Some((Arc::clone(baseline), directory.clone()))
    })
}
