//! `rollbackd window …`.

use std::path::Path;

use clap::{Args, Subcommand};

use super::control::{Why, ask, send};
use super::output::Terminal;
use super::place::Place;
use super::{Exit, Stop, follow};
use crate::server::view::Wish;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Open a window now
    Open(Open),
    /// The migration is done: soak now
    Finished(Why),
    /// Hold decisions; signals are still read
    Hold(Why),
    /// End the hold
    Resume(Why),
    /// Give the window up
    Cancel(Cancel),
    /// An operator has ended what automation could not: verify, resume traffic, settle
    Resolved(Resolved),
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes with --wait: 0 passed, 20 rolled back and recovered, 21 needs an operator, \
                        22 refused at preflight, 23 cancelled.")]
pub(super) struct Open {
    /// Follow the window to its end, and exit as it ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// Even in the middle of a rollback, which then needs an operator
    #[arg(long)]
    abandon: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct Resolved {
    /// Settle without verification; the report says so
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    why: Why,
}

pub(super) async fn run(config: &Path, verb: Verb, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    match verb {
        Verb::Open(open) if open.wait => open_and_follow(config, open.why.into(), terminal).await,
        Verb::Open(open) => send(config, "window/open", open.why.into(), "opened", terminal).await,
        Verb::Finished(why) => {
            send(config, "window/finished", why.into(), "the migration is finished; the soak begins", terminal).await
        }
        Verb::Hold(why) => send(config, "window/hold", why.into(), "decisions are held", terminal).await,
        Verb::Resume(why) => send(config, "window/resume", why.into(), "decisions go on", terminal).await,
        Verb::Cancel(cancel) => {
            let wish = Wish { abandon: cancel.abandon.then_some(true), ..cancel.why.into() };
            send(config, "window/cancel", wish, "cancelled", terminal).await
        }
        Verb::Resolved(resolved) => {
            let (wish, done) = if resolved.force {
                (Wish { force: Some(true), ..resolved.why.into() }, "settled without verification")
            } else {
                (resolved.why.into(), "the verification runs; `rollbackd status` shows how it goes")
            };
            send(config, "window/resolved", wish, done, terminal).await
        }
    }
}

async fn open_and_follow(config: &Path, wish: Wish, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = Place::of(config)?;
    let Some(window) = ask(&place, "window/open", &wish).await?.window else {
        return Err(Stop::new(Exit::Failed, "the daemon opened no window").into());
    };
    follow::run(&place.client(), &window, terminal).await
}
