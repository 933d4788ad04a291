//! `rollbackd rollback`, `approve`, `decline`, `ack`, and what they share with `rollbackd window`.

use std::path::Path;

use clap::Args;

use super::output::Terminal;
use super::place::Place;
use super::{Exit, Stop};
use crate::server::view::{Done, Wish};

/// Who asks, and why; both go into the journal, the report and the notices.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Why {
    /// Why, for the journal, the report and the contacts
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Who asks; without it, the user who runs this
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
}

/// The same where nobody may leave out why.
#[derive(Debug, Clone, Args)]
pub(super) struct Reasoned {
    /// Why, for the journal, the report and the contacts
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who asks; without it, the user who runs this
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
}

impl From<Why> for Wish {
    fn from(why: Why) -> Self {
        Self { reason: why.reason, who: why.who, ..Self::default() }
    }
}

pub(super) async fn rollback(config: &Path, reasoned: Reasoned, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let wish = Wish { reason: reasoned.reason, who: reasoned.who, ..Wish::default() };
    send(config, "rollback", wish, "the rollback starts", terminal).await
}

pub(super) async fn approve(config: &Path, why: Why, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    send(config, "approve", why.into(), "approved", terminal).await
}

pub(super) async fn decline(config: &Path, why: Why, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    send(config, "decline", why.into(), "declined", terminal).await
}

pub(super) async fn acknowledge(config: &Path, why: Why, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    send(config, "ack", why.into(), "acknowledged; nobody is paged again about this", terminal).await
}

/// Asks the daemon for something and says what has come of it.
pub(super) async fn send(
    config: &Path,
    path: &str,
    wish: Wish,
    done: &str,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let answer = ask(&Place::of(config)?, path, &wish).await?;
    let line = match answer.window {
        Some(window) => format!("{window}: {done}\n"),
        None => format!("{done}\n"),
    };
    terminal.print(&line)?;
    Ok(Exit::Done)
}

/// Asks the daemon for something.
pub(super) async fn ask(place: &Place, path: &str, wish: &Wish) -> Result<Done, Stop> {
    Ok(place.client().post(&format!("/api/v1/{path}"), wish).await?)
}
