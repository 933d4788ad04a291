//! `rollbackd guard`: one window in the foreground.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use rollbackd_core::report::Narrator;
use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::WindowOutcome;
use rollbackd_core::run::state::State;

use super::output::{Terminal, say};
use super::place::{load, open_journal};
use super::run::Signals;
use super::{Exit, Stop, follow};
use crate::config::model::{Command, Config};
use crate::config::redact;
use crate::logging;
use crate::runtime::{Runtime, Use};
use crate::user;

/// How long to stay for messages that are still owed.
const DELIVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the application must stay healthy afterwards, instead of window.soak
    #[arg(long, value_name = "DURATION", value_parser = soak)]
    soak: Option<Duration>,
    /// The migration, instead of window.command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    logging::start_beside_story();
    let config = Arc::new(with_arguments(load(path)?, &arguments)?);
    let (journal, entries) = open_journal(&config.state_dir)?;
    if let Some(open) = State::replay(&entries).window {
        let message = format!("window {} of an earlier run is not settled; `rollbackd run` goes on with it", open.id);
        return Err(Stop::new(Exit::Unavailable, message).into());
    }
    let mut signals = Signals::new()?;
    let runtime = Runtime::start(config, journal, entries, Use::Foreground).await;
    let runtime = runtime.map_err(|error| Stop::new(Exit::Unavailable, format!("{error:#}")))?;
    let ended = guarded(&runtime, &mut signals, terminal).await;
    runtime.stop().await;
    ended
}

/// A soak as it is typed.
fn soak(text: &str) -> Result<Duration, &'static str> {
    let duration: Option<SignedDuration> = text.parse().ok();
    duration.and_then(|soak| soak.try_into().ok()).ok_or("accepted: a duration, such as 30s or 1h 30m")
}

/// The configuration with what the command line says instead.
fn with_arguments(mut config: Config, arguments: &Arguments) -> Result<Config, Stop> {
    if let Some(soak) = arguments.soak {
        config.window.soak = soak;
    }
    if let Some((program, rest)) = arguments.command.split_first() {
        let directory = std::env::current_dir()
            .map_err(|error| Stop::new(Exit::Failed, format!("the current directory cannot be used: {error}")))?;
        config.window.command = Some(Command {
            program: program.clone(),
            arguments: rest.to_vec(),
            shown: arguments.command.iter().map(|word| redact::argument(word)).collect(),
            directory,
        });
    }
    if config.window.command.is_none() {
        say("no migration command: run the migration yourself, then say `rollbackd window finished`");
    }
    Ok(config)
}

async fn guarded(runtime: &Runtime, signals: &mut Signals, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let who = user::own_name().await;
    let opened = runtime.ask(&who, "rollbackd guard", Ask::Open { guard: true }).await;
    let window = opened.map_err(|refusal| Stop::new(Exit::Failed, refusal.message))?;
    let Some(window) = window else {
        return Err(Stop::new(Exit::Failed, "no window was opened").into());
    };
    let mut snapshots = runtime.snapshots.clone();
    let mut told = Told::default();
    let mut interrupts = 0;
    loop {
        let state = Arc::clone(&snapshots.borrow_and_update().state);
        if state.seq > told.seq {
            told.tell(runtime, &window, terminal).await?;
        }
        if let Some(exit) = exit(&state, &window) {
            deliver(&mut snapshots).await;
            if exit == Exit::NeedsOperator {
                say(
                    "traffic stays stopped; start `rollbackd run`: it pages people and takes `rollbackd window resolved`",
                );
            }
            return Ok(exit);
        }
        tokio::select! {
            changed = snapshots.changed() => changed?,
            name = signals.next() => {
                interrupts += 1;
                if name == "SIGTERM" || interrupts > 1 {
                    say(&format!("{window} is left as it is; `rollbackd run` goes on with it"));
                    return Ok(Exit::Failed);
                }
                interrupted(runtime, &who).await;
            }
        }
    }
}

/// Ctrl-C gives up what was not begun, and takes back what was.
async fn interrupted(runtime: &Runtime, who: &str) {
    let reason = "interrupted at the terminal";
    if runtime.ask(who, reason, Ask::Cancel { abandon: false }).await.is_ok() {
        return;
    }
    match runtime.ask(who, reason, Ask::Rollback).await {
        Ok(_) => say("the migration is taken back; once more Ctrl-C leaves the rest to `rollbackd run`"),
        Err(refusal) => say(&format!("{}; once more Ctrl-C leaves it to `rollbackd run`", refusal.message)),
    }
}

/// What has been told so far.
#[derive(Default)]
struct Told {
    seq: u64,
    narrator: Narrator,
}

impl Told {
    async fn tell(&mut self, runtime: &Runtime, window: &str, terminal: &mut Terminal) -> anyhow::Result<()> {
        for entry in runtime.records(window).await? {
            if entry.seq > self.seq {
                self.seq = entry.seq;
                if let Some(line) = follow::told(&mut self.narrator, &entry) {
                    terminal.print(&line)?;
                }
            }
        }
        Ok(())
    }
}

/// The code for how the window ended, once automation is through with it.
fn exit(state: &State, window: &str) -> Option<Exit> {
    if let Some(open) = &state.window {
        return open.phase.needs_operator().map(|_| Exit::NeedsOperator);
    }
    let settled = state.history.iter().rfind(|settled| settled.id == window)?;
    Some(match settled.outcome {
        WindowOutcome::Passed => Exit::Done,
        WindowOutcome::Refused => Exit::Refused,
        WindowOutcome::Cancelled => Exit::Cancelled,
        WindowOutcome::Recovered => Exit::Recovered,
        WindowOutcome::Abandoned => Exit::NeedsOperator,
    })
}

/// Stays a little for messages that are still owed, and says what stays owed.
async fn deliver(snapshots: &mut tokio::sync::watch::Receiver<Arc<crate::driver::snapshot::Snapshot>>) {
    let delivered = snapshots.wait_for(|snapshot| {
        let now = snapshot.at;
        snapshot.state.owed.iter().all(|owed| owed.notice.not_before > now)
    });
    let all = tokio::time::timeout(DELIVERY, delivered).await.is_ok();
    let left = snapshots.borrow().state.owed.len();
    if !all && left > 0 {
        let owed = rollbackd_core::words::counted(left, "notice");
        say(&format!("{owed} could not be delivered yet; `rollbackd run` goes on trying"));
    }
}
