//! Stopping and resuming traffic, gate by gate.

use jiff::Timestamp;

use super::advance::{Next, STEP_TIME};
use super::apply::later;
use super::state::{GatePosition, Phase, Rollback, Window};
use super::step::Step;

/// Closes the gates in order: each is read before it is changed. A gate that fails is left behind; when the plan
/// requires it, it fails the whole once the others are closed.
pub(super) fn gates_closed(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
    let mut failed = None;
    for (place, (gate, plan)) in rollback.gates.iter().zip(&window.plan.rollback.gates).enumerate() {
        match gate.position {
            GatePosition::Closed => {}
            // Who says that it is dealt with has traffic as it should be: only what that opened is closed again.
            GatePosition::Untouched if matches!(window.phase, Phase::Resolving { .. }) => {}
            GatePosition::Unreadable | GatePosition::CloseFailed => {
                let why = gate.failure.as_deref().unwrap_or("nobody knows why");
                let reason = || format!("the required gate {} could not be closed: {why}", plan.name);
                failed = failed.or_else(|| plan.required.then(reason));
            }
            GatePosition::Untouched if gate.prior.is_none() => {
                return Next::start(window, Step::ReadGate { gate: place }, later(now, STEP_TIME));
            }
            GatePosition::Untouched
            | GatePosition::Closing
            | GatePosition::Opening
            | GatePosition::Reopened
            | GatePosition::OpenFailed => {
                return Next::start(window, Step::CloseGate { gate: place }, later(now, STEP_TIME));
            }
        }
    }
    failed.map_or(Next::Wait, Next::Failed)
}

/// Puts the gates back in reverse order, each to what was read, up to the first that fails.
pub(super) fn gates_open(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
    match stuck(window, rollback) {
        Some(reason) => Next::Failed(reason),
        None => open_last(window, rollback, now),
    }
}

/// Puts back the last gate that is not as it was found.
pub(super) fn open_last(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
    let place = rollback.gates.iter().rposition(|gate| match gate.position {
        GatePosition::Closing | GatePosition::Closed | GatePosition::CloseFailed | GatePosition::Opening => true,
        GatePosition::Untouched | GatePosition::Unreadable | GatePosition::Reopened | GatePosition::OpenFailed => false,
    });
    place.map_or(Next::Wait, |gate| Next::start(window, Step::OpenGate { gate }, later(now, STEP_TIME)))
}

/// Why traffic is not resumed, when a gate could not be put back.
pub(super) fn stuck(window: &Window, rollback: &Rollback) -> Option<String> {
    let mut gates = rollback.gates.iter().zip(&window.plan.rollback.gates);
    let (gate, plan) = gates.find(|(gate, _)| gate.position == GatePosition::OpenFailed)?;
    let why = gate.failure.as_deref().unwrap_or("nobody knows why");
    Some(format!("traffic could not be resumed: gate {}: {why}", plan.name))
}
