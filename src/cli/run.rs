//! `rollbackd run`: the daemon.

use std::path::Path;
use std::sync::Arc;

use rollbackd_core::run::state::State;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use super::output::Terminal;
use super::place::{load, open_journal};
use super::{Exit, Stop};
use crate::driver::End;
use crate::runtime::{Runtime, choose, read_all};
use crate::{logging, systemd};

/// Runs until it is told to stop. A configuration that was frozen for an open window is left with that window.
pub(super) async fn run(path: &Path, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    logging::start(Level::INFO);
    let mut signals = Signals::new()?;
    let mut journal = None;
    loop {
        let config = load(path)?;
        let (opened, entries) = match journal.take() {
            Some(journal) => {
                let entries = read_all(&journal).await?;
                (journal, entries)
            }
            None => open_journal(&config.state_dir)?,
        };
        let state = State::replay(&entries);
        let (config, used) = choose(config, &state)?;
        tracing::info!(event = "daemon.started", plan = config.name, version = env!("CARGO_PKG_VERSION"), "watching");
        let started = Runtime::start(Arc::clone(&config), Arc::clone(&opened), entries, used).await;
        let mut runtime = started.map_err(|error| Stop::new(Exit::Unavailable, format!("{error:#}")))?;
        let end = tokio::select! {
            end = runtime.ended() => end,
            name = signals.next() => {
                systemd::stopping();
                tracing::info!(event = "daemon.stopping", signal = name, "the step in flight is brought to its end");
                Ok(End::Asked)
            }
        };
        runtime.stop().await;
        match end? {
            End::Asked => return Ok(Exit::Done),
            End::Settled => {
                tracing::info!(event = "config.current", "the window is settled; on with the current configuration");
                journal = Some(opened);
            }
        }
    }
}

/// The signals that ask a program to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and names it.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
