//! Verification, with traffic stopped and with traffic resumed: for a rung, and for an operator's word.

use jiff::{SignedDuration, Timestamp};

use super::advance::Next;
use super::apply::later;
use super::ladder::interrupted_too_often;
use super::record::{Record, WindowOutcome};
use super::state::{Proof, Rollback, Window};
use super::step::Step;
use super::traffic::{gates_closed, gates_open, open_last, stuck};
use crate::plan::Stage;

/// An operator says that it is dealt with: verify, resume traffic, settle. By force: without verification.
pub(super) fn resolving(window: &Window, forced: bool, who: &str, proof: &Proof, now: Timestamp) -> Option<Record> {
    if !window.in_flight.is_empty() {
        return None;
    }
    let rollback = window.rollback.as_ref()?;
    if let Some(reason) = interrupted_too_often(window) {
        return Some(Record::ResolutionFailed { reason });
    }
    if forced {
        return match open_last(window, rollback, now) {
            Next::Do(record) => Some(*record),
            Next::Wait | Next::Failed(_) => {
                let traffic = stuck(window, rollback).unwrap_or_else(|| "traffic is resumed".to_owned());
                Some(abandoned(who, &traffic))
            }
        };
    }
    match prove(window, rollback, proof, now) {
        Proving::Goes(Next::Do(record)) => Some(*record),
        Proving::Goes(Next::Wait) => None,
        Proving::Goes(Next::Failed(reason)) => match gates_closed(window, rollback, now) {
            Next::Do(record) => Some(*record),
            Next::Wait => Some(Record::ResolutionFailed { reason }),
            Next::Failed(gate) => Some(Record::ResolutionFailed { reason: format!("{reason}; {gate}") }),
        },
        Proving::Proved => Some(Record::WindowSettled {
            outcome: WindowOutcome::Recovered,
            detail: format!("dealt with by {who}, and verified"),
        }),
    }
}

pub(super) enum Proving {
    Goes(Next),
    Proved,
}

/// Verification: with traffic closed, then with traffic resumed.
pub(super) fn prove(window: &Window, rollback: &Rollback, proof: &Proof, now: Timestamp) -> Proving {
    match &proof.closed {
        None => return Proving::Goes(verify(window, Stage::Closed, now)),
        Some(Err(reason)) => {
            return Proving::Goes(Next::Failed(format!("verification with traffic stopped failed: {reason}")));
        }
        Some(Ok(())) => {}
    }
    match &proof.open {
        None => match gates_open(window, rollback, now) {
            Next::Wait => Proving::Goes(verify(window, Stage::Open, now)),
            next @ (Next::Do(_) | Next::Failed(_)) => Proving::Goes(next),
        },
        Some(Err(reason)) => Proving::Goes(Next::Failed(format!("verification with traffic resumed failed: {reason}"))),
        Some(Ok(())) => Proving::Proved,
    }
}

fn verify(window: &Window, stage: Stage, now: Timestamp) -> Next {
    let checks = window.plan.checks.iter().filter(|check| check.stage == stage);
    let longest = checks.map(|check| check.within).max().unwrap_or_default();
    Next::start(window, Step::Verify { stage }, later(now, longest.saturating_add(SignedDuration::from_secs(5))))
}

fn abandoned(who: &str, traffic: &str) -> Record {
    Record::WindowSettled {
        outcome: WindowOutcome::Abandoned,
        detail: format!("settled by {who} by force: nothing was verified; {traffic}"),
    }
}
