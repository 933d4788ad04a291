//! `rollbackd plan`: what a rollback would do right now, before anything happens.
//!
//! Nothing is changed. The facts to compare with are the open window's, or else the newest backup's; the configuration
//! is the open window's too.

mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use rollbackd_core::baseline::Baseline;
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::Window;
use serde::Deserialize;

use super::client::Unanswered;
use super::output::{Terminal, say};
use super::place::{self, Place, state_of};
use super::{Exit, Stop};
use crate::config::model::Config;
use crate::postgres::session::Session;
use crate::preview::{self, Preview, Question};
use crate::server::view::{Status, unify_times};
use crate::{backup, clock, frozen};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print nothing but the statements, as a file for psql
    #[arg(long, conflicts_with = "json")]
    sql: bool,
    /// Compare with this baseline (a backup's `baseline.json`)
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

/// What is compared with.
struct Chosen {
    baseline: Arc<Baseline>,
    source: String,
    window: Option<(String, Timestamp)>,
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let mut config = place::load(path)?;
    let window = open_window(&Place { name: config.name.clone(), state_dir: config.state_dir.clone() }).await?;
    if let Some(window) = &window {
        config = of_window(config, window, path);
    }
    let chosen = choose(&config, window, arguments.baseline.as_deref())?;
    if let Some(reason) = chosen.baseline.is_too_old() {
        let way_out = "open a window with this version, or name another baseline with --baseline FILE";
        return Err(Stop::new(Exit::Unavailable, format!("{}: {reason}; {way_out}", chosen.source)).into());
    }
    let preview = look(&config, &chosen).await?;
    if arguments.json {
        let mut value = serde_json::to_value(&preview)?;
        unify_times(&mut value);
        terminal.print_json(&value)?;
    } else if arguments.sql {
        terminal.print(&text::sql(&preview))?;
    } else {
        terminal.print(&text::of(&preview, terminal.paint))?;
    }
    Ok(Exit::Done)
}

async fn look(config: &Config, chosen: &Chosen) -> Result<Preview, Stop> {
    let unavailable = |reason: String| Stop::new(Exit::Unavailable, reason);
    let mut session = Session::connect(&config.database).await.map_err(|error| unavailable(error.to_string()))?;
    let question = Question {
        config,
        baseline: &chosen.baseline,
        source: &chosen.source,
        window: chosen.window.as_ref().map(|(id, started)| (id.as_str(), *started)),
        at: clock::now(),
    };
    preview::of(session.client_mut(), question).await.map_err(|failure| {
        let exit = if failure.is_lost() { Exit::Unavailable } else { Exit::Failed };
        Stop::new(exit, failure.to_string())
    })
}

/// The configuration that the open window keeps.
fn of_window(current: Config, window: &Window, path: &Path) -> Config {
    let kept = &window.plan.config_sha256;
    if *kept == current.sha256 {
        return current;
    }
    match frozen::recall(&current.state_dir, kept, path) {
        Ok(config) => {
            say("the configuration was edited after the window opened; this is what the window's own says");
            config
        }
        Err(error) => {
            say(&format!("the configuration that the open window keeps is not to be had, this is today's: {error:#}"));
            current
        }
    }
}

fn choose(config: &Config, window: Option<Window>, named: Option<&Path>) -> Result<Chosen, Stop> {
    let unavailable = |reason: String| Stop::new(Exit::Unavailable, reason);
    let open = window.as_ref().map(|window| (window.id.clone(), window.started_at));
    if let Some(path) = named {
        let baseline = Arc::new(backup::read_baseline(path).map_err(unavailable)?);
        return Ok(Chosen { baseline, source: format!("the baseline in {}", path.display()), window: open });
    }
    if let Some(Window { id, baseline: Some(baseline), .. }) = window {
        return Ok(Chosen { baseline, source: format!("the baseline of window {id}, which is open"), window: open });
    }
    let directory = config.backup.directory.display();
    match backup::newest(config).map_err(unavailable)? {
        Some((place, baseline)) => {
            let why = match &open {
                None => "no window is open".to_owned(),
                Some((id, _)) => format!("window {id} has none yet"),
            };
            let source = format!("the baseline of the newest backup, {} ({why})", place.display());
            Ok(Chosen { baseline: Arc::new(baseline), source, window: open })
        }
        None => Err(unavailable(format!(
            "there is no baseline to compare with: no window is open that has taken one, and {directory} holds no whole \
             backup of `{}`. A window takes both when it opens (`rollbackd guard`, `rollbackd window open`); or name one \
             with --baseline FILE",
            config.name
        ))),
    }
}

#[derive(Debug, Deserialize)]
struct Records {
    records: Vec<Entry>,
}

/// The window that is not settled, from the daemon or else from the journal.
async fn open_window(place: &Place) -> anyhow::Result<Option<Window>> {
    let client = place.client();
    let status: Status = match client.get("/api/v1/status").await {
        Ok(status) => status,
        Err(Unanswered::NoDaemon(_)) if place.state_dir.is_dir() => return Ok(state_of(&place.records()?).window),
        Err(Unanswered::NoDaemon(_)) => return Ok(None),
        Err(error) => return Err(Stop::from(error).into()),
    };
    let Some(open) = status.window.filter(|window| window.ended_at.is_none()) else { return Ok(None) };
    let told: Records = client.get(&format!("/api/v1/windows/{}", open.id)).await.map_err(Stop::from)?;
    Ok(state_of(&told.records).window)
}
