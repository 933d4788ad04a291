//! `rollbackd run`: the daemon.

mod life;

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use self::life::Life;
use super::Exit;
use super::output::Terminal;
use crate::driver::End;
use crate::runtime::Runtime;
use crate::{logging, systemd};

/// Runs until it is told to stop. Another configuration is taken over when no window is open.
pub(super) async fn run(path: &Path, _terminal: &mut Terminal) -> anyhow::Result<Exit> {
    logging::start(Level::INFO);
    let mut signals = Signals::new()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut life = Life::first(path)?;
    loop {
        let mut runtime = life.begin().await?;
        tracing::info!(event = "daemon.started", plan = life.name(), version = env!("CARGO_PKG_VERSION"), "watching");
        let end = attend(&mut runtime, &mut life, &mut signals, &mut hangups, path).await;
        runtime.stop().await;
        match end? {
            End::Asked => return Ok(Exit::Done),
            End::Settled => {
                tracing::info!(event = "config.current", "no window is open; on with the current configuration");
                life = life.next(path)?;
            }
        }
    }
}

/// Waits for the end, and reads the configuration again when it is asked to.
async fn attend(
    runtime: &mut Runtime,
    life: &mut Life,
    signals: &mut Signals,
    hangups: &mut Signal,
    path: &Path,
) -> anyhow::Result<End> {
    loop {
        tokio::select! {
            end = runtime.ended() => return end,
            name = signals.next() => {
                systemd::stopping();
                tracing::info!(event = "daemon.stopping", signal = name, "the step in flight is brought to its end");
                return Ok(End::Asked);
            }
            Some(()) = hangups.recv() => {
                systemd::reloading();
                tracing::info!(event = "config.reload", signal = "SIGHUP", "the configuration is read again");
                life.reload(path).await;
                runtime.renew(life.renewal());
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
