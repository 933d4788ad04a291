//! `rollbackd guard`. Stand-in: the arguments stay, the rest is the integrator's.

use std::path::Path;

use clap::Args;
use jiff::SignedDuration;

use super::output::Terminal;
use super::{Exit, Stop};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the application must stay healthy afterwards, instead of window.soak
    #[arg(long, value_name = "DURATION")]
    soak: Option<SignedDuration>,
    /// The migration, instead of window.command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(config: &Path, arguments: Arguments, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let Arguments { soak, command } = arguments;
    let message = format!("guard {} {soak:?} {command:?}: not here yet", config.display());
    std::future::ready(Err(Stop::new(Exit::Failed, message).into())).await
}
