//! What the start and the end of a step mean for its window.
//!
//! A step whose end nobody knows is, with few exceptions, as if it had not started.

use std::sync::Arc;

use jiff::Timestamp;

use super::state::{Attempt, GatePosition, InFlight, Inspection, Orphan, Phase, Window};
use super::step::{Finding, Moment, Outcome, Step, StepResult};
use crate::plan::Stage;

impl Window {
    pub(super) fn step_started(&mut self, number: u64, step: &Step, deadline: Timestamp, at: Timestamp) {
        self.last_step = number;
        self.in_flight.push(InFlight { number, step: step.clone(), started_at: at, deadline, process: None });
        let Some(rollback) = &mut self.rollback else { return };
        match step {
            Step::CloseGate { gate } => rollback.set_gate(*gate, GatePosition::Closing, None),
            Step::OpenGate { gate } => rollback.set_gate(*gate, GatePosition::Opening, None),
            Step::Act { .. } => {
                if let Some(attempt) = rollback.attempts.last_mut() {
                    attempt.acts += 1;
                    attempt.act = None;
                    attempt.after = None;
                }
            }
            Step::Preflight
            | Step::Backup
            | Step::Migrate
            | Step::EndProcess { .. }
            | Step::AwaitProcess { .. }
            | Step::ReadGate { .. }
            | Step::Inspect { .. }
            | Step::Verify { .. } => {}
        }
    }

    pub(super) fn step_ended(&mut self, number: u64, outcome: &Outcome, at: Timestamp) {
        let Some(place) = self.in_flight.iter().position(|running| running.number == number) else { return };
        let running = self.in_flight.remove(place);
        let known = outcome.result != StepResult::Unknown;
        if !running.step.is_migration() {
            self.interruptions = if known { 0 } else { self.interruptions.saturating_add(1) };
        }
        if let (false, Some(process)) = (known, running.process) {
            self.orphan = Some(Orphan { step: number, process });
        }
        match running.step {
            Step::Preflight if known => self.preflight = Some((outcome.clone(), at)),
            Step::Backup if known => self.backup_ended(outcome),
            Step::Migrate => self.migration = Some(outcome.clone()),
            Step::EndProcess { of } if known => self.process_ended(of, outcome),
            Step::AwaitProcess { of } if known => self.process_awaited(of, outcome),
            Step::Verify { stage } if known => self.verified(stage, outcome),
            Step::ReadGate { gate } if known => {
                let Some(rollback) = &mut self.rollback else { return };
                if let (true, Finding::Gate { prior }) = (outcome.is_success(), &outcome.finding) {
                    if let Some(gate) = rollback.gates.get_mut(gate) {
                        gate.prior = Some(prior.clone());
                    }
                } else {
                    rollback.set_gate(gate, GatePosition::Unreadable, Some(outcome.detail.clone()));
                }
            }
            Step::CloseGate { gate } if known => {
                self.gate_moved(gate, outcome, GatePosition::Closed, GatePosition::CloseFailed);
            }
            Step::OpenGate { gate } if known => {
                self.gate_moved(gate, outcome, GatePosition::Reopened, GatePosition::OpenFailed);
            }
            Step::Inspect { moment, .. } if known => {
                let mut seen = Inspection::Unseen(outcome.detail.clone());
                if let Some(attempt) = self.attempt_mut() {
                    if let (Finding::Difference { difference, rows, way_back, restore }, true) =
                        (&outcome.finding, outcome.is_success())
                    {
                        seen = Inspection::Seen(difference.clone());
                        attempt.rows.clone_from(rows);
                        attempt.way_back.clone_from(way_back);
                        attempt.restore.clone_from(restore);
                    }
                    match moment {
                        Moment::Before => attempt.before = Some(seen),
                        Moment::After => attempt.after = Some(seen),
                    }
                }
            }
            Step::Act { .. } => {
                let more =
                    matches!(&outcome.finding, Finding::Removal(removal) if removal.more && outcome.is_success());
                if let Some(attempt) = self.attempt_mut() {
                    if more {
                        attempt.groups += 1;
                        attempt.acts = 0;
                    } else {
                        attempt.act = Some(outcome.clone());
                    }
                }
            }
            // Nobody knows how it ended, and doing it again does no harm: as if it had not started.
            Step::Preflight
            | Step::Backup
            | Step::EndProcess { .. }
            | Step::AwaitProcess { .. }
            | Step::ReadGate { .. }
            | Step::CloseGate { .. }
            | Step::OpenGate { .. }
            | Step::Inspect { .. }
            | Step::Verify { .. } => {}
        }
    }

    fn backup_ended(&mut self, outcome: &Outcome) {
        self.backup = Some(outcome.clone().with(Finding::Nothing));
        if let (true, Finding::Backup { directory, baseline, .. }) = (outcome.is_success(), &outcome.finding) {
            self.baseline = Some(Arc::clone(baseline));
            self.backup_directory = Some(directory.clone());
            self.phase = Phase::Watching;
        }
    }

    fn process_ended(&mut self, of: u64, outcome: &Outcome) {
        if outcome.is_success() {
            self.orphan.take_if(|orphan| orphan.step == of);
            self.unending = None;
        } else {
            self.unending = Some(outcome.detail.clone());
        }
    }

    /// The migration's process is gone, or it still runs at the hard end: then that is how the migration ended.
    fn process_awaited(&mut self, of: u64, outcome: &Outcome) {
        if outcome.is_success() {
            self.orphan.take_if(|orphan| orphan.step == of);
        } else {
            self.migration = Some(Outcome { result: StepResult::TimedOut, ..outcome.clone() });
        }
    }

    fn verified(&mut self, stage: Stage, outcome: &Outcome) {
        if stage == Stage::Closed {
            self.checks.clear();
        }
        let checks = outcome.checks();
        self.checks.retain(|known| checks.iter().all(|check| check.name != known.name));
        self.checks.extend(checks.iter().cloned());
        let result = if outcome.is_success() { Ok(()) } else { Err(outcome.detail.clone()) };
        let proof = match &mut self.phase {
            Phase::Resolving { proof, .. } => Some(proof),
            Phase::RollingBack => {
                self.rollback.as_mut().and_then(|rollback| rollback.attempts.last_mut()).map(|last| &mut last.proof)
            }
            Phase::Preparing | Phase::Watching | Phase::Soaking { .. } | Phase::NeedsOperator { .. } => None,
        };
        if let Some(proof) = proof {
            match stage {
                Stage::Closed => proof.closed = Some(result),
                Stage::Open => proof.open = Some(result),
            }
        }
    }

    fn gate_moved(&mut self, gate: usize, outcome: &Outcome, success: GatePosition, failure: GatePosition) {
        if let Some(rollback) = &mut self.rollback {
            if outcome.is_success() {
                rollback.set_gate(gate, success, None);
            } else {
                rollback.set_gate(gate, failure, Some(outcome.detail.clone()));
            }
        }
    }

    fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        self.rollback.as_mut()?.attempts.last_mut()
    }
}
