//! `rollbackd run`: the daemon.

use std::path::Path;
use std::sync::Arc;

use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use super::output::Terminal;
use super::place::{Place, load, open_journal};
use super::{Exit, Stop};
use crate::config::model::Config;
use crate::driver::End;
use crate::journal::Journal;
use crate::journal::redb::RedbJournal;
use crate::runtime::{Runtime, Use, choose, thaw};
use crate::{logging, systemd};

/// Runs until it is told to stop. A configuration that was frozen for an open window is left with that window.
pub(super) async fn run(path: &Path, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    logging::start(Level::INFO);
    let mut signals = Signals::new()?;
    loop {
        let Beginning { config, used, journal, entries } = begin(path)?;
        tracing::info!(event = "daemon.started", plan = config.name, version = env!("CARGO_PKG_VERSION"), "watching");
        let started = Runtime::start(config, journal, entries, used).await;
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
            }
        }
    }
}

/// What a run begins with.
struct Beginning {
    config: Arc<Config>,
    used: Use,
    journal: Arc<dyn Journal>,
    entries: Vec<Entry>,
}

/// Reads configuration and journal. A configuration that has become wrong since a window opened does not keep that
/// window from its end.
fn begin(path: &Path) -> anyhow::Result<Beginning> {
    let current = match load(path) {
        Ok(config) => config,
        Err(wrong) => return begin_frozen(path, wrong),
    };
    let (journal, entries) = open_journal(&current.state_dir)?;
    let Some(open) = State::replay(&entries).window else {
        return Ok(Beginning { config: Arc::new(current), used: Use::Daemon, journal, entries });
    };
    let (config, used) = choose(current, &open)?;
    Ok(Beginning { config, used, journal, entries })
}

/// The same where the configuration is wrong: only an open window is a reason to begin.
fn begin_frozen(path: &Path, wrong: Stop) -> anyhow::Result<Beginning> {
    let Ok(place) = Place::of(path) else { return Err(wrong.into()) };
    let Ok((journal, entries)) = RedbJournal::open_existing(&place.state_dir) else { return Err(wrong.into()) };
    let Some(open) = State::replay(&entries).window else { return Err(wrong.into()) };
    tracing::error!(event = "config.unusable", error = %wrong, "the current configuration cannot be used");
    let config = Arc::new(thaw(&place.state_dir, path, &open)?);
    Ok(Beginning { config, used: Use::UntilSettled, journal: Arc::new(journal), entries })
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
