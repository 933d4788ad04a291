//! `rollbackd check`. Stand-in: the arguments stay, the rest is the integrator's.

use std::path::Path;

use clap::Args;

use super::output::Terminal;
use super::{Exit, Json, Stop};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run all preflight checks too
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) async fn run(config: &Path, arguments: Arguments, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let message = format!("check {} {} {}: not here yet", config.display(), arguments.online, arguments.json.json);
    std::future::ready(Err(Stop::new(Exit::Failed, message).into())).await
}
