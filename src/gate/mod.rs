//! Gates: stopping traffic and resuming it, and the canary's proof of either; gate → [`Outcome`].
//!
//! What a gate is set to is read (and journaled by the driver) before it is changed, and [`open`] puts back what
//! was read. Closing and opening may be repeated: after a crash nobody knows whether it was done. Where there is more
//! than a word to remember, what was read is JSON. [`rehearse`] says beforehand whether a gate could be closed, by doing
//! as much of it as can be taken back.

mod canary;
mod command;
mod file;
mod http;
mod pgbouncer;
mod postgrest;
mod sessions;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rollbackd_core::baseline::quote_identifier;
use rollbackd_core::run::step::{Finding, Outcome};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::config::model::{Gate, GateKind};
use crate::postgres::Failure;
use crate::postgres::pinned::{Lent, Pinned};

/// What a gate says of itself when nothing can be read.
const UNKNOWN: &str = "unknown";

/// Why a gate was not moved.
#[derive(Debug)]
enum Trouble {
    /// It was tried, and failed.
    Failed(String),
    /// Its time was up.
    TimedOut(String),
}

/// Where traffic shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Stopped,
    Resumed,
}

/// Reads what the gate is set to. Changes nothing.
pub async fn read(gate: &Gate, pinned: &Pinned, within: Duration) -> Outcome {
    let reading = async {
        match &gate.kind {
            GateKind::File { path } => file::read(path).await,
            GateKind::Command { .. } | GateKind::Http { .. } => Ok(UNKNOWN.to_owned()),
            GateKind::PostgresSessions { roles } => sessions::read(roles, pinned).await,
            GateKind::Pgbouncer { url, tls_mode, database: name } => {
                pgbouncer::read(pgbouncer::Place { url, tls_mode: *tls_mode, name, database: pinned.database() }).await
            }
            GateKind::Postgrest { role } => postgrest::read(role, pinned).await,
        }
    };
    match bound(gate, within, "was not read", reading).await {
        Ok(prior) => Outcome::succeeded(describe(gate, &prior), Finding::Gate { prior }),
        Err(trouble) => trouble.outcome(),
    }
}

/// Stops traffic, and proves it where there is a canary.
pub async fn close(gate: &Gate, pinned: &Pinned, prior: &str, within: Duration) -> Outcome {
    let deadline = Instant::now() + within;
    let done = async {
        let done = bound(gate, within, "was not moved", stop(gate, pinned, prior, within)).await?;
        let proof = canary::prove(gate, Wanted::Stopped, deadline).await?;
        Ok(format!("{done}; {proof}"))
    };
    outcome(done.await)
}

/// Puts back what was read, and proves that traffic flows where there is a canary.
pub async fn open(gate: &Gate, pinned: &Pinned, prior: &str, within: Duration) -> Outcome {
    let deadline = Instant::now() + within;
    let done = async {
        let done = bound(gate, within, "was not moved", start(gate, pinned, prior, within)).await?;
        if is_left_closed(gate, prior) {
            return Ok(done);
        }
        let proof = canary::prove(gate, Wanted::Resumed, deadline).await?;
        let tidied = tidy(gate, pinned, deadline).await;
        Ok(format!("{done}; {proof}{tidied}"))
    };
    outcome(done.await)
}

/// Whether the gate could be closed, and is open now. Changes nothing that lasts.
///
/// # Errors
/// What keeps it from working, and the way out.
pub async fn rehearse(gate: &Gate, pinned: &Pinned, within: Duration) -> Result<String, String> {
    let rehearsal = async {
        match &gate.kind {
            // Files and programs are looked at by the preflight itself, beside the runtime's threads.
            GateKind::File { .. } | GateKind::Command { .. } => Ok(String::new()),
            GateKind::Http { stop, start } => {
                http::listens(stop, within).await?;
                http::listens(start, within).await?;
                Ok(format!("{} and {} can be reached", stop.url, start.url))
            }
            GateKind::PostgresSessions { roles } => sessions::rehearse(roles, pinned).await,
            GateKind::Pgbouncer { url, tls_mode, database: name } => {
                pgbouncer::rehearse(pgbouncer::Place { url, tls_mode: *tls_mode, name, database: pinned.database() })
                    .await
            }
            GateKind::Postgrest { role } => postgrest::rehearse(role, pinned).await,
        }
    };
    match bound(gate, within, "was not tried", rehearsal).await {
        Ok(said) => Ok(said),
        Err(Trouble::Failed(reason) | Trouble::TimedOut(reason)) => Err(reason),
    }
}

async fn stop(gate: &Gate, pinned: &Pinned, prior: &str, within: Duration) -> Result<String, Trouble> {
    let limit = gate.timeout.min(within);
    let deadline = Instant::now() + limit;
    match &gate.kind {
        GateKind::File { path } => file::close(path, prior, &gate.name).await,
        GateKind::Command { stop, .. } => command::run(stop, limit).await,
        GateKind::Http { stop, .. } => http::send(stop, limit).await,
        GateKind::PostgresSessions { roles } => sessions::close(roles, pinned, prior, deadline).await,
        GateKind::Pgbouncer { url, tls_mode, database: name } => {
            let place = pgbouncer::Place { url, tls_mode: *tls_mode, name, database: pinned.database() };
            pgbouncer::close(place, prior, deadline).await
        }
        GateKind::Postgrest { role } => postgrest::close(role, pinned, prior, deadline).await,
    }
}

async fn start(gate: &Gate, pinned: &Pinned, prior: &str, within: Duration) -> Result<String, Trouble> {
    match &gate.kind {
        GateKind::File { path } => file::open(path, prior).await,
        GateKind::Command { start, .. } => command::run(start, gate.timeout.min(within)).await,
        GateKind::Http { start, .. } => http::send(start, gate.timeout.min(within)).await,
        GateKind::PostgresSessions { .. } => sessions::open(pinned, prior).await,
        GateKind::Pgbouncer { url, tls_mode, database: name } => {
            pgbouncer::open(pgbouncer::Place { url, tls_mode: *tls_mode, name, database: pinned.database() }, prior)
                .await
        }
        GateKind::Postgrest { role } => postgrest::open(role, pinned, prior).await,
    }
}

/// Takes away what a gate needed while it was closed, once traffic flows. What stays behind does no harm, so it is said
/// and is no failure.
async fn tidy(gate: &Gate, pinned: &Pinned, deadline: Instant) -> String {
    let GateKind::Postgrest { .. } = &gate.kind else { return String::new() };
    let within = deadline.saturating_duration_since(Instant::now());
    match bound(gate, within, "was not tidied", postgrest::tidy(gate.canary.is_some(), pinned)).await {
        Ok(said) => format!("; {said}"),
        Err(Trouble::Failed(reason) | Trouble::TimedOut(reason)) => {
            format!("; the function that refused requests is left behind: {reason}")
        }
    }
}

/// Whether putting back what was read leaves traffic stopped, as somebody else had it before us.
fn is_left_closed(gate: &Gate, prior: &str) -> bool {
    match &gate.kind {
        GateKind::File { .. } => prior == file::PRESENT,
        GateKind::Command { .. } | GateKind::Http { .. } => false,
        GateKind::PostgresSessions { .. } => sessions::is_left_closed(prior),
        GateKind::Pgbouncer { .. } => pgbouncer::is_left_closed(prior),
        GateKind::Postgrest { .. } => postgrest::is_left_closed(prior),
    }
}

fn describe(gate: &Gate, prior: &str) -> String {
    match &gate.kind {
        GateKind::File { path } => format!("{} is {prior}", path.display()),
        GateKind::Command { .. } => "a command cannot be asked what it is set to".to_owned(),
        GateKind::Http { .. } => "a request cannot be asked what it would change".to_owned(),
        GateKind::PostgresSessions { .. } => sessions::describe(prior),
        GateKind::Pgbouncer { database, .. } => pgbouncer::describe(database, prior),
        GateKind::Postgrest { role } => postgrest::describe(role, prior),
    }
}

/// One of the sessions that are kept for a rollback, for gates that are set in the database: traffic is stopped at the
/// moment in which a server may have no connection left.
async fn connect(pinned: &Pinned) -> Result<Lent, Trouble> {
    pinned.session().await.map_err(|error| Trouble::Failed(error.to_string()))
}

/// What was read before, from JSON.
fn understood<T: DeserializeOwned>(prior: &str) -> Result<T, Trouble> {
    serde_json::from_str(prior)
        .map_err(|error| Trouble::Failed(format!("what was read before cannot be understood ({error}): `{prior}`")))
}

/// `role "a"`, or `roles "a", "b"`.
fn named(what: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote_identifier(name)).collect();
    format!("{what}{} {}", if names.len() == 1 { "" } else { "s" }, quoted.join(", "))
}

/// Bounds a gate's own work by the gate's time, a command's end included, and by the whole call's.
async fn bound<T>(
    gate: &Gate,
    within: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let limit = within.min(gate.timeout + command::GRACE);
    match timeout_at(Instant::now() + limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Trouble::TimedOut(format!("it {what} within {limit:?}"))),
    }
}

fn outcome(done: Result<String, Trouble>) -> Outcome {
    match done {
        Ok(done) => Outcome::succeeded(done, Finding::Nothing),
        Err(trouble) => trouble.outcome(),
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

impl Trouble {
    fn outcome(self) -> Outcome {
        match self {
            Self::Failed(reason) => Outcome::failed(reason),
            Self::TimedOut(reason) => Outcome::timed_out(reason),
        }
    }
}
