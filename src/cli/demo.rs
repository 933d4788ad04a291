//! `rollbackd demo`. Stand-in: the arguments stay, the rest is the integrator's.

use clap::Args;

use super::output::Terminal;
use super::{Exit, Stop};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Keep everything afterwards, to look around
    #[arg(long)]
    keep: bool,
    /// Tell the story in which nothing breaks
    #[arg(long)]
    healthy: bool,
}

pub(super) async fn run(arguments: Arguments, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let message = format!("demo {} {}: not here yet", arguments.keep, arguments.healthy);
    std::future::ready(Err(Stop::new(Exit::Failed, message).into())).await
}
