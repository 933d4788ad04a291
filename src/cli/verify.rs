//! `rollbackd verify`. Stand-in: the arguments stay, the rest is the integrator's.

use std::path::Path;

use clap::Args;

use super::output::Terminal;
use super::{Exit, Json, Stop};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    json: Json,
}

pub(super) async fn run(config: &Path, arguments: Arguments, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let message = format!("verify {} {}: not here yet", config.display(), arguments.json.json);
    std::future::ready(Err(Stop::new(Exit::Failed, message).into())).await
}
