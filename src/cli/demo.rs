//! `rollbackd demo`.

use clap::Args;

use super::Exit;
use crate::demo::{self, Options};

/// A small shop gets a migration that breaks it. rollbackd notices, stops traffic, rolls back, proves that the
/// shop has recovered, and tells people. Needs `PostgreSQL`'s server programs (Debian: `postgresql`); touches
/// nothing outside one temporary directory.
#[derive(Debug, Args)]
#[command(after_help = "Exits with 0 only when the original tables are whole and the shop answers.")]
pub(super) struct Arguments {
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Show a migration that passes
    #[arg(long)]
    healthy: bool,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let whole = demo::run(Options { keep: arguments.keep, healthy: arguments.healthy }).await?;
    Ok(if whole { Exit::Done } else { Exit::Failed })
}
