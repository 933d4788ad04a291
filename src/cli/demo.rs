//! `rollbackd demo`.

use std::process::ExitCode;

use crate::demo::{self, Options};

/// The whole story on this machine, in a throwaway PostgreSQL cluster.
///
/// A small shop gets a migration that breaks it. rollbackd notices, stops traffic, rolls back, proves that the shop has
/// recovered, and tells people. Needs PostgreSQL's server programs (Debian: `postgresql`); touches nothing outside one
/// temporary directory. Exits with 0 only when the original tables are whole and the shop answers.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Show a migration that passes.
    #[arg(long)]
    pub healthy: bool,
}

impl Demo {
    /// Plays the demo.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        demo::run(Options { keep: self.keep, healthy: self.healthy }).await
    }
}
