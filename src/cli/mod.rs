//! The command line: one file a command.
//!
//! Text goes to standard output, diagnostics to standard error. Commands that look or control ask the running
//! daemon through its control socket; what only reads the past reads the journal itself when no daemon answers.

mod check;
mod checks;
mod client;
mod completions;
mod control;
mod demo;
pub mod exit;
mod follow;
mod guard;
mod history;
mod journal;
mod notify;
mod output;
mod place;
mod plan;
mod purge;
mod quarantine;
mod replay;
mod report;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod undo;
mod verify;
mod window;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use output::Terminal;

pub use exit::{Exit, Stop};

/// Guards live PostgreSQL migrations: backup, watch, automatic rollback, verified recovery.
#[derive(Debug, Parser)]
#[command(name = "rollbackd", version, max_term_width = 80)]
#[command(after_help = "Begin with `rollbackd demo`. For your own database: `check`, `check --online`, then `guard`.

Exit codes: 0 done, 1 failed, 64 wrong usage, 69 something that is needed is not available, 78 the configuration is \
wrong. `rollbackd guard --help` has those of a window.")]
pub struct Cli {
    /// The configuration.
    #[arg(
        short,
        long,
        global = true,
        env = "ROLLBACKD_CONFIG",
        value_name = "FILE",
        default_value = "rollbackd.toml",
        hide_env_values = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: guard scheduled windows, and those opened by hand
    Run,
    /// Guard one window in the foreground, now: prepare, run the migration, watch, roll back if needed
    #[command(after_help = "Exit codes: 0 passed, 20 rolled back and recovered, 21 needs an operator, \
                            22 refused at preflight, 23 cancelled.")]
    Guard(guard::Arguments),
    /// Validate the configuration; --online: would a rollback work?
    Check(check::Arguments),
    /// Show what a rollback would do right now; changes nothing
    Plan(plan::Arguments),
    /// Show state, verdict, signals and the next window
    Status(status::Arguments),
    /// Open a window, and control it
    #[command(subcommand)]
    Window(window::Verb),
    /// Start the rollback now
    Rollback(control::Reasoned),
    /// Say yes to the rung that waits for approval
    Approve(control::Why),
    /// Say no to the rung that waits for approval
    Decline(control::Why),
    /// Acknowledge the incident: stops repeated pages and escalation
    Ack(control::Why),
    /// Run the recovery verification alone; changes nothing
    Verify(verify::Arguments),
    /// List the windows and their outcomes
    History(Json),
    /// Look into the journal; changes nothing, also when it is damaged
    #[command(subcommand)]
    Journal(journal::Verb),
    /// Tell what happened in a window, with evidence
    Report(report::Arguments),
    /// Run today's rules over recorded samples: when would they have fired?
    Replay(replay::Arguments),
    /// Bring back what a window's rollback took away: tables, columns, and what hung on them
    Undo(undo::Arguments),
    /// Drop what a window's rollback put into quarantine, after archiving it
    Purge(purge::Arguments),
    /// Try the contact list
    #[command(subcommand)]
    Notify(notify::Verb),
    /// Show the whole story on this machine, in a throwaway PostgreSQL cluster
    Demo(demo::Arguments),
    /// Print shell completions
    Completions(completions::Arguments),
}

/// For commands that print data.
#[derive(Debug, Clone, Copy, Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The program, from arguments to exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    // A second installation in one process is the only way to fail, and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(dispatch(cli, &mut Terminal::stdout())));
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => explain(&error).into(),
    }
}

async fn dispatch(cli: Cli, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let config = cli.config.as_path();
    match cli.command {
        Command::Run => run::run(config, terminal).await,
        Command::Guard(arguments) => guard::run(config, arguments, terminal).await,
        Command::Check(arguments) => check::run(config, arguments, terminal).await,
        Command::Plan(arguments) => plan::run(config, arguments, terminal).await,
        Command::Status(arguments) => status::run(config, arguments, terminal).await,
        Command::Window(verb) => window::run(config, verb, terminal).await,
        Command::Rollback(reasoned) => control::rollback(config, reasoned, terminal).await,
        Command::Approve(why) => control::approve(config, why, terminal).await,
        Command::Decline(why) => control::decline(config, why, terminal).await,
        Command::Ack(why) => control::acknowledge(config, why, terminal).await,
        Command::Verify(arguments) => verify::run(config, arguments, terminal).await,
        Command::History(json) => history::run(config, json, terminal).await,
        Command::Journal(verb) => journal::run(config, verb, terminal).await,
        Command::Report(arguments) => report::run(config, arguments, terminal).await,
        Command::Replay(arguments) => replay::run(config, arguments, terminal).await,
        Command::Undo(arguments) => undo::run(config, arguments, terminal).await,
        Command::Purge(arguments) => purge::run(config, arguments, terminal).await,
        Command::Notify(verb) => notify::run(config, verb, terminal).await,
        Command::Demo(arguments) => demo::run(&arguments).await,
        Command::Completions(arguments) => completions::run(&arguments, terminal),
    }
}

/// Help and version go to standard output and are no mistake; everything else is wrong usage.
fn usage(error: &clap::Error) -> Exit {
    let printed = error.print();
    match (error.use_stderr(), printed) {
        (true, _) => Exit::Usage,
        (false, Ok(())) => Exit::Done,
        (false, Err(failure)) => explain(&failure.into()),
    }
}

/// Says why it failed, and with which code to leave.
fn explain(error: &anyhow::Error) -> Exit {
    if error.chain().any(is_broken_pipe) {
        // The reader has read enough, as `head` does.
        return Exit::Done;
    }
    output::say(&format!("{error:#}"));
    error.downcast_ref::<Stop>().map_or(Exit::Failed, |stop| stop.exit)
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
