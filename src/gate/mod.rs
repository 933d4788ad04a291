//! Gates: stopping traffic and resuming it, and the canary's proof of either; gate → [`Outcome`].
//!
//! What a gate is set to is read (and journaled by the driver) before it is changed, and [`open`] puts back what
//! was read. Closing and opening may be repeated: after a crash nobody knows whether it was done.

mod canary;
mod command;
mod file;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rollbackd_core::run::step::{Finding, Outcome};
use tokio::time::{Instant, timeout_at};

use crate::config::model::{Gate, GateKind};

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
pub async fn read(gate: &Gate, within: Duration) -> Outcome {
    let reading = async {
        match &gate.kind {
            GateKind::File { path } => file::read(path).await,
            GateKind::Command { .. } => Ok(UNKNOWN.to_owned()),
        }
    };
    match bound(gate, within, "was not read", reading).await {
        Ok(prior) => Outcome::succeeded(describe(gate, &prior), Finding::Gate { prior }),
        Err(trouble) => trouble.outcome(),
    }
}

/// Stops traffic, and proves it where there is a canary.
pub async fn close(gate: &Gate, prior: &str, within: Duration) -> Outcome {
    turn(gate, prior, Wanted::Stopped, within).await
}

/// Puts back what was read, and proves that traffic flows where there is a canary.
pub async fn open(gate: &Gate, prior: &str, within: Duration) -> Outcome {
    turn(gate, prior, Wanted::Resumed, within).await
}

async fn turn(gate: &Gate, prior: &str, wanted: Wanted, within: Duration) -> Outcome {
    let deadline = Instant::now() + within;
    let done: Result<String, Trouble> = async {
        let done = bound(gate, within, "was not moved", apply(gate, prior, wanted, within)).await?;
        if wanted == Wanted::Resumed && is_left_closed(gate, prior) {
            return Ok(done);
        }
        let proof = canary::prove(gate, wanted, deadline).await?;
        Ok(format!("{done}; {proof}"))
    }
    .await;
    match done {
        Ok(done) => Outcome::succeeded(done, Finding::Nothing),
        Err(trouble) => trouble.outcome(),
    }
}

async fn apply(gate: &Gate, prior: &str, wanted: Wanted, within: Duration) -> Result<String, Trouble> {
    match (&gate.kind, wanted) {
        (GateKind::File { path }, Wanted::Stopped) => file::close(path, prior, &gate.name).await,
        (GateKind::File { path }, Wanted::Resumed) => file::open(path, prior).await,
        (GateKind::Command { stop, .. }, Wanted::Stopped) => command::run(stop, gate.timeout.min(within)).await,
        (GateKind::Command { start, .. }, Wanted::Resumed) => command::run(start, gate.timeout.min(within)).await,
    }
}

/// Whether putting back what was read leaves traffic stopped, as somebody else had it before us.
fn is_left_closed(gate: &Gate, prior: &str) -> bool {
    match &gate.kind {
        GateKind::File { .. } => prior == file::PRESENT,
        GateKind::Command { .. } => false,
    }
}

fn describe(gate: &Gate, prior: &str) -> String {
    match &gate.kind {
        GateKind::File { path } => format!("{} is {prior}", path.display()),
        GateKind::Command { .. } => "a command cannot be asked what it is set to".to_owned(),
    }
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

impl Trouble {
    fn outcome(self) -> Outcome {
        match self {
            Self::Failed(reason) => Outcome::failed(reason),
            Self::TimedOut(reason) => Outcome::timed_out(reason),
        }
    }
}
