//! `rollbackd status`.

mod text;

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::client::Unanswered;
use super::output::{Terminal, say};
use super::place::{Place, state_of};
use super::{Exit, Json, Stop};
use crate::clock;
use crate::server::view::{self, Status};

/// The pause between two looks with `--watch`.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show it again and again until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) async fn run(config: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = Place::of(config)?;
    if arguments.watch {
        return watch(&place, arguments.json, terminal).await;
    }
    let status = match ask(&place).await {
        Ok(status) => status,
        Err(Unanswered::NoDaemon(_)) => {
            let state = state_of(&place.records()?);
            view::unwatched(&place.name, &state, clock::now(), "no daemon runs: nobody watches".to_owned())
        }
        Err(error) => return Err(Stop::from(error).into()),
    };
    show(&status, arguments.json, terminal)?;
    Ok(Exit::Done)
}

async fn ask(place: &Place) -> Result<Status, Unanswered> {
    place.client().get("/api/v1/status").await
}

fn show(status: &Status, json: Json, terminal: &mut Terminal) -> anyhow::Result<()> {
    if json.json { terminal.print_json(status) } else { Ok(terminal.print(&text::of(status, terminal.paint))?) }
}

/// Shows it until interrupted; a daemon that is away may come back.
async fn watch(place: &Place, json: Json, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let looking = async {
        loop {
            let seen = ask(place).await;
            if !json.json && terminal.is_screen {
                // Home, and clear what is there.
                terminal.print("\u{1b}[H\u{1b}[2J")?;
            }
            match seen {
                Ok(status) => show(&status, json, terminal)?,
                Err(error) => say(&error.to_string()),
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        ended = looking => ended,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(Exit::Done)
        }
    }
}
