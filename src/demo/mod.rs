//! `rollbackd demo`: the whole story on this machine, in a throwaway PostgreSQL cluster.
//!
//! A [shop] with [customers] runs on a [database] of its own. The real daemon is
//! [started](program) from this very executable, guards a migration that breaks the shop, and rolls it back, while a
//! [mail server](mail) and a [webhook receiver](webhooks) take what it sends. At the end the demo [looks for
//! itself](proof) whether all is well, and [tells](story) what happened. Nothing is faked, and nothing outside one
//! temporary directory is touched.
//!
//! What the daemon does is not here. The demo knows it as a user does: by its commands, its API and its notices.

pub mod cluster;
pub mod customers;
pub mod database;
pub mod mail;
pub mod program;
pub mod proof;
mod setting;
pub mod shop;
pub mod stage;
pub mod story;
pub mod webhooks;

use std::io::{self, IsTerminal, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};

use stage::{Ending, Stage};
use story::Narrator;

/// What kind of story.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave everything running at the end, until Ctrl-C.
    pub keep: bool,
    /// A migration that passes.
    pub healthy: bool,
}

/// Plays the story and cleans up, whatever happens. `true` only when everything that the demo looked at is as it
/// should be, first of all that the originals are whole and the application answers.
///
/// # Errors
/// When the output cannot be written, or there is no place for temporary files.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut narrator = Narrator::new(stdout, colour);
    let mut stops = Stops::new()?;
    // Everything is plain HTTP on this machine, but no client can be made without a TLS provider. Somebody may have
    // installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut stage = Stage::new(std::env::current_exe()?)?;
    let played = tokio::select! {
        played = stage.play(options, &mut narrator) => Some(played),
        () = stops.asked() => None,
    };
    let whole = match played {
        Some(Ok(ending)) => {
            let stayed = if options.keep { stage.stay(&mut narrator) } else { Ok(()) };
            if options.keep && stayed.is_ok() {
                stops.asked().await;
            }
            stage.strike().await;
            stayed?;
            stage.farewell(&mut narrator, ending)?;
            ending == Ending::Good
        }
        Some(Err(reason)) => {
            stage.strike().await;
            let kept = stage.keep_results();
            writeln!(io::stderr(), "\nThe demo cannot go on: {reason}")?;
            if let Some(kept) = kept {
                writeln!(io::stderr(), "What there is so far is in {}", kept.display())?;
            }
            false
        }
        None => {
            let said = narrator.say("").and_then(|()| narrator.say("Stopping, and cleaning up."));
            stage.strike().await;
            said?;
            false
        }
    };
    Ok(whole)
}

/// Ctrl-C, and a service manager's or a shell's wish that the demo ends.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
