//! State and time → the next record, if one is due.
//!
//! [`decide`](super::decide) calls [`advance`] until nothing more is due, so each arm here looks only at where
//! the window stands and says what comes next. The life of a window reads from top to bottom.

use jiff::{SignedDuration, Timestamp};

use super::apply::later;
use super::manual;
use super::record::{MigrationEnd, Record, Trigger, WindowOutcome};
use super::state::{Attempt, GatePosition, InFlight, Inspection, Phase, Proof, Rollback, Window};
use super::step::{Moment, Outcome, Step, StepResult};
use crate::judge::Verdict;
use crate::plan::{Method, OnCommandFailure, Stage};

/// How often a rung's work may be started again after interruptions.
const ACTS_AT_MOST: u32 = 3;
/// Time for steps that have no limit of their own in the plan.
const STEP_TIME: SignedDuration = SignedDuration::from_secs(60);
/// Time for the preflight's checks.
const PREFLIGHT_TIME: SignedDuration = SignedDuration::from_secs(60);
/// Why a window is refused that was not ready in time.
const TOO_LATE: &str = "the window's hard end came before the migration could start";

/// The record that is due in this window now.
pub fn advance(window: &Window, now: Timestamp) -> Option<Record> {
    if let Some(ended) = hold_at_its_end(window, now) {
        return Some(ended);
    }
    match &window.phase {
        Phase::Preparing => preparing(window, now),
        Phase::Watching => watching(window, now),
        Phase::Soaking { until } => soaking(window, *until, now),
        Phase::RollingBack => {
            let rollback = window.rollback.as_ref()?;
            ladder(window, rollback, now)
        }
        Phase::NeedsOperator { .. } => repeated_page(window, now),
        Phase::Resolving { forced, proof, who, .. } => resolving(window, *forced, who, proof, now),
    }
}

/// When the hold ends by itself: at the window's hard end or, begun after that, one window's length later.
pub(crate) fn hold_ends_at(window: &Window) -> Option<Timestamp> {
    let hold = window.hold.as_ref()?;
    if hold.since < window.ends_at {
        Some(window.ends_at)
    } else {
        Some(later(hold.since, window.plan.window.duration))
    }
}

fn hold_at_its_end(window: &Window, now: Timestamp) -> Option<Record> {
    (now >= hold_ends_at(window)?).then(|| Record::HoldEnded {
        who: "the clock".to_owned(),
        reason: "a hold ends at the window's hard end".to_owned(),
    })
}

/// Preflight, warm-up, backup: in this order, and the window is refused at the first that fails, or when there is
/// no time left for the migration.
fn preparing(window: &Window, now: Timestamp) -> Option<Record> {
    if now >= window.ends_at {
        return Some(refused(TOO_LATE.to_owned()));
    }
    if !window.in_flight.is_empty() {
        return None;
    }
    let Some((preflight, since)) = &window.preflight else {
        return start(window, Step::Preflight, later(now, PREFLIGHT_TIME));
    };
    if !preflight.is_success() {
        return Some(refused(preflight.detail.clone()));
    }
    if !window.warmed_up {
        // The samples are the judge's; `decide` looks at them. Here only the way around them.
        let skipped = window.plan.preflight_skipped.iter().any(|name| name == "signals");
        return skipped.then_some(Record::WarmedUp { healthy_since: *since });
    }
    match &window.backup {
        None => start(window, Step::Backup, window.ends_at),
        Some(backup) => Some(refused(backup.detail.clone())),
    }
}

/// When the warm-up has failed if it has not passed: `healthy_for` after the preflight, and time for one more
/// reading of the slowest signal.
pub(crate) fn warm_up_ends_at(window: &Window) -> Option<Timestamp> {
    let (_, since) = window.preflight.as_ref()?;
    let slack = window.plan.signals.iter().map(|signal| signal.every.saturating_add(signal.timeout)).max();
    let slack = slack.unwrap_or_default().saturating_add(SignedDuration::from_secs(1));
    Some(later(*since, window.plan.healthy_for.saturating_add(slack)))
}

fn refused(detail: String) -> Record {
    Record::WindowSettled { outcome: WindowOutcome::Refused, detail }
}

/// The migration runs: ours, one that outlived a crash, or somebody else's.
fn watching(window: &Window, now: Timestamp) -> Option<Record> {
    if !window.in_flight.is_empty() {
        return None;
    }
    let held = window.hold.is_some();
    match (&window.plan.window.command, &window.migration) {
        (None, _) => (now >= window.ends_at).then(|| {
            finished(MigrationEnd::HardEnd, "the hard end has come; the migration counts as finished".to_owned())
        }),
        (Some(_), None) if now >= window.ends_at => Some(refused(TOO_LATE.to_owned())),
        (Some(_), None) if held => None,
        (Some(_), None) => start(window, Step::Migrate, window.ends_at),
        (Some(_), Some(outcome)) => migration_ended(window, outcome, held),
    }
}

fn migration_ended(window: &Window, outcome: &Outcome, held: bool) -> Option<Record> {
    let leave = window.plan.window.on_command_failure == OnCommandFailure::Leave;
    match outcome.result {
        StepResult::Succeeded => Some(finished(MigrationEnd::Succeeded, outcome.detail.clone())),
        StepResult::Unknown => match &window.orphan {
            Some(orphan) => start(window, Step::AwaitProcess { of: orphan.step }, window.ends_at),
            None => Some(finished(
                MigrationEnd::ExitUnknown,
                "the migration's process is gone, and its exit code was lost while rollbackd was down; the signals \
                 decide"
                    .to_owned(),
            )),
        },
        StepResult::Failed if leave => Some(finished(MigrationEnd::FailedAndLeft, outcome.detail.clone())),
        StepResult::Failed | StepResult::TimedOut if held => None,
        StepResult::Failed => {
            Some(Record::BreachDetected { trigger: Trigger::Migration { detail: outcome.detail.clone() } })
        }
        StepResult::TimedOut => Some(Record::BreachDetected { trigger: Trigger::HardEnd }),
    }
}

fn finished(how: MigrationEnd, detail: String) -> Record {
    Record::MigrationFinished { how, detail }
}

/// The application must stay healthy. Only a healthy verdict passes: while we are blind or in doubt, the soak
/// goes on.
fn soaking(window: &Window, until: Timestamp, now: Timestamp) -> Option<Record> {
    if window.hold.is_some() || now < until || window.verdict != Verdict::Healthy {
        return None;
    }
    Some(Record::WindowSettled {
        outcome: WindowOutcome::Passed,
        detail: format!("the application stayed healthy for {:#} after the migration", window.plan.window.soak),
    })
}

/// The ladder, from the breach to *recovered* or *needs operator*.
fn ladder(window: &Window, rollback: &Rollback, now: Timestamp) -> Option<Record> {
    let busy = window.in_flight.iter().any(|running| !running.step.is_migration());
    if busy || window.hold.is_some() {
        return None;
    }
    match nothing_runs_on(window, now) {
        Next::Do(record) => return Some(*record),
        // Whoever waited for the process is about to see that it is gone.
        Next::Wait if !window.in_flight.is_empty() => return None,
        Next::Wait => {}
        Next::Failed(reason) => return Some(stopped_for_good(window, rollback, reason, now)),
    }
    match rollback.attempts.last() {
        Some(attempt) if attempt.failure.is_none() => match rung_over(window, rollback, attempt, now) {
            Next::Do(record) => Some(*record),
            Next::Wait => None,
            Next::Failed(reason) => Some(Record::RungFailed { rung: attempt.rung, reason }),
        },
        last => Some(between_rungs(window, rollback, last, now)),
    }
}

/// Before anything is rolled back, no migration and no interrupted script may go on.
fn nothing_runs_on(window: &Window, now: Timestamp) -> Next {
    if let Some(reason) = &window.unending {
        return Next::Failed(format!("a process that must not run any longer could not be ended: {reason}"));
    }
    let running = window.in_flight.iter().find(|running| running.step == Step::Migrate).map(|running| running.number);
    let Some(of) = running.or_else(|| window.orphan.as_ref().map(|orphan| orphan.step)) else { return Next::Wait };
    let within = window.plan.rollback.grace.saturating_add(STEP_TIME);
    Next::start(window, Step::EndProcess { of }, later(now, within))
}

/// The ladder cannot go on: traffic is stopped as far as it can be, and an operator is needed.
fn stopped_for_good(window: &Window, rollback: &Rollback, reason: String, now: Timestamp) -> Record {
    match gates_closed(window, rollback, now) {
        Next::Do(record) => *record,
        Next::Wait => operator(window, reason),
        Next::Failed(gate) => operator(window, format!("{reason}; {gate}")),
    }
}

/// Traffic is stopped, then the next rung is taken; without one, or without time, an operator is needed.
fn between_rungs(window: &Window, rollback: &Rollback, last: Option<&Attempt>, now: Timestamp) -> Record {
    match gates_closed(window, rollback, now) {
        Next::Do(record) => return *record,
        Next::Wait => {}
        Next::Failed(reason) => return operator(window, reason),
    }
    let rung = last.map_or(0, |attempt| attempt.rung + 1);
    if rung >= window.plan.rollback.rungs.len() {
        let why = last.and_then(|attempt| attempt.failure.as_deref()).unwrap_or("there is none");
        return operator(window, format!("every rung of the ladder has failed; the last: {why}"));
    }
    if now >= budget_ends_at(window, rollback, now) {
        return operator(window, budget_spent(window));
    }
    Record::RungStarted { rung }
}

fn budget_spent(window: &Window) -> String {
    format!("the rollback's budget of {:#} is spent", window.plan.rollback.budget)
}

/// What comes next for a rung, a proof or a gate.
enum Next {
    /// Write this.
    Do(Box<Record>),
    /// Nothing to do.
    Wait,
    /// It cannot succeed any more.
    Failed(String),
}

impl Next {
    fn start(window: &Window, step: Step, deadline: Timestamp) -> Self {
        start(window, step, deadline).map_or(Self::Wait, Self::record)
    }

    fn record(record: Record) -> Self {
        Self::Do(Box::new(record))
    }
}

/// One rung: approval, look, act, look again, prove.
fn rung_over(window: &Window, rollback: &Rollback, attempt: &Attempt, now: Timestamp) -> Next {
    let Some(rung) = window.plan.rollback.rungs.get(attempt.rung) else {
        return Next::Failed("the plan has no such rung".to_owned());
    };
    let place = attempt.rung;
    let budget_ends_at = budget_ends_at(window, rollback, now);
    if (rung.needs_approval || window.plan.rollback.approve_always) && !rollback.approved {
        return match rollback.waiting_since {
            None => Next::record(Record::ApprovalRequested { rung: place }),
            Some(_) => repeated_page(window, now).map_or(Next::Wait, Next::record),
        };
    }
    let spent = now >= budget_ends_at;
    let before = match &attempt.before {
        None if spent => return Next::Failed(budget_spent(window)),
        None => {
            let step = Step::Inspect { rung: place, moment: Moment::Before };
            return Next::start(window, step, budget_ends_at.min(later(now, STEP_TIME)));
        }
        Some(Inspection::Unseen(reason)) => return Next::Failed(format!("the catalog could not be read: {reason}")),
        Some(Inspection::Seen(difference)) => difference,
    };
    if !before.is_empty() {
        let Some(act) = &attempt.act else {
            if spent {
                return Next::Failed(budget_spent(window));
            }
            return Next::start(window, Step::Act { rung: place }, budget_ends_at.min(later(now, rung.timeout)));
        };
        let after = match &attempt.after {
            None => {
                let step = Step::Inspect { rung: place, moment: Moment::After };
                return Next::start(window, step, later(now, STEP_TIME));
            }
            Some(Inspection::Unseen(reason)) => {
                return Next::Failed(format!("{}; then the catalog could not be read: {reason}", act.detail));
            }
            Some(Inspection::Seen(difference)) => difference,
        };
        match judge_act(&rung.method, act, before, after, attempt.acts) {
            Acted::Done => {}
            Acted::Again if spent => return Next::Failed(budget_spent(window)),
            Acted::Again => {
                return Next::start(window, Step::Act { rung: place }, budget_ends_at.min(later(now, rung.timeout)));
            }
            Acted::Failed(reason) => return Next::Failed(reason),
        }
    }
    match prove(window, rollback, &attempt.proof, now) {
        Proving::Goes(next) => next,
        Proving::Proved => Next::record(Record::WindowSettled {
            outcome: WindowOutcome::Recovered,
            detail: format!("rolled back by rung {} ({}) and verified", place + 1, rung.method.kind()),
        }),
    }
}

enum Acted {
    Done,
    Again,
    Failed(String),
}

/// What a rung claims is its exit; what it did is the difference between the catalog before and after.
fn judge_act(
    method: &Method,
    act: &Outcome,
    before: &crate::baseline::Difference,
    after: &crate::baseline::Difference,
    acts: u32,
) -> Acted {
    if after.is_empty() {
        return Acted::Done;
    }
    let redo = match method {
        Method::Script { idempotent, .. } => *idempotent,
        Method::Tables(_) => true,
    };
    let left = after.summary();
    match act.result {
        StepResult::Succeeded if before == after => {
            Acted::Failed(format!("{}, but it changed nothing: still {left}", act.detail))
        }
        StepResult::Succeeded => Acted::Done,
        StepResult::Unknown if redo && acts < ACTS_AT_MOST => Acted::Again,
        StepResult::Unknown => {
            Acted::Failed(format!("it was interrupted, and nothing shows that it finished: still {left}"))
        }
        StepResult::Failed | StepResult::TimedOut => Acted::Failed(format!("{}; still {left}", act.detail)),
    }
}

enum Proving {
    Goes(Next),
    Proved,
}

/// Verification: with traffic closed, then with traffic resumed.
fn prove(window: &Window, rollback: &Rollback, proof: &Proof, now: Timestamp) -> Proving {
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

/// Closes the gates in order: each is read before it is changed. A gate that fails is left behind; when the plan
/// requires it, it fails the whole once the others are closed.
fn gates_closed(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
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
fn gates_open(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
    match stuck(window, rollback) {
        Some(reason) => Next::Failed(reason),
        None => open_last(window, rollback, now),
    }
}

/// Puts back the last gate that is not as it was found.
fn open_last(window: &Window, rollback: &Rollback, now: Timestamp) -> Next {
    let place = rollback.gates.iter().rposition(|gate| match gate.position {
        GatePosition::Closing | GatePosition::Closed | GatePosition::CloseFailed | GatePosition::Opening => true,
        GatePosition::Untouched | GatePosition::Unreadable | GatePosition::Reopened | GatePosition::OpenFailed => false,
    });
    place.map_or(Next::Wait, |gate| Next::start(window, Step::OpenGate { gate }, later(now, STEP_TIME)))
}

/// Why traffic is not resumed, when a gate could not be put back.
fn stuck(window: &Window, rollback: &Rollback) -> Option<String> {
    let mut gates = rollback.gates.iter().zip(&window.plan.rollback.gates);
    let (gate, plan) = gates.find(|(gate, _)| gate.position == GatePosition::OpenFailed)?;
    let why = gate.failure.as_deref().unwrap_or("nobody knows why");
    Some(format!("traffic could not be resumed: gate {}: {why}", plan.name))
}

/// An operator says that it is dealt with: verify, resume traffic, settle. By force: without verification.
fn resolving(window: &Window, forced: bool, who: &str, proof: &Proof, now: Timestamp) -> Option<Record> {
    if !window.in_flight.is_empty() {
        return None;
    }
    let rollback = window.rollback.as_ref()?;
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

fn abandoned(who: &str, traffic: &str) -> Record {
    Record::WindowSettled {
        outcome: WindowOutcome::Abandoned,
        detail: format!("settled by {who} by force: nothing was verified; {traffic}"),
    }
}

/// People are paged again about what waits for them, until somebody takes charge.
pub(crate) fn page_due_at(window: &Window) -> Option<Timestamp> {
    let waits = match &window.phase {
        Phase::NeedsOperator { .. } => true,
        Phase::RollingBack => window.rollback.as_ref().is_some_and(|rollback| rollback.waiting_since.is_some()),
        Phase::Preparing | Phase::Watching | Phase::Soaking { .. } | Phase::Resolving { .. } => false,
    };
    let paged_at = window.paged_at.filter(|_| waits && window.acknowledged.is_none())?;
    Some(later(paged_at, window.plan.rollback.repeat_page))
}

fn repeated_page(window: &Window, now: Timestamp) -> Option<Record> {
    (now >= page_due_at(window)?).then_some(Record::PageRepeated)
}

/// When the ladder's time is over; time spent waiting for approvals is given back.
pub(crate) fn budget_ends_at(window: &Window, rollback: &Rollback, now: Timestamp) -> Timestamp {
    let waiting = rollback.waiting_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let whole = window.plan.rollback.budget.saturating_add(rollback.waited).saturating_add(waiting);
    later(rollback.started_at, whole)
}

/// Automation has come to its end: why, and what a person does now.
pub(crate) fn operator(window: &Window, reason: String) -> Record {
    Record::OperatorNeeded { manual: manual::instructions(window), reason }
}

fn start(window: &Window, step: Step, deadline: Timestamp) -> Option<Record> {
    let busy_with_it = |running: &InFlight| running.step == step;
    let started = !window.in_flight.iter().any(busy_with_it);
    started.then(|| Record::StepStarted { number: window.last_step + 1, step, deadline })
}
