//! State and time → the next record, if one is due.
//!
//! [`decide`](super::decide) calls [`advance`] until nothing more is due, so each function looks only at where the
//! window stands and says what comes next. Here is a window's life up to a breach; what follows is in
//! `ladder`, `proof` and `traffic`.

use jiff::{SignedDuration, Timestamp};

use super::apply::later;
use super::record::{MigrationEnd, Record, Trigger, WindowOutcome};
use super::state::{InFlight, Phase, Window};
use super::step::{Outcome, Step, StepResult};
use super::{ladder, proof};
use crate::plan::OnCommandFailure;

/// Time for steps that have no limit of their own in the plan.
pub(super) const STEP_TIME: SignedDuration = SignedDuration::from_secs(60);
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
        // Whether the soak is passed is seen from the samples, which `decide` has.
        Phase::Soaking { .. } => None,
        Phase::RollingBack => {
            let rollback = window.rollback.as_ref()?;
            ladder::ladder(window, rollback, now)
        }
        Phase::NeedsOperator { .. } => repeated_page(window, now),
        Phase::Resolving { forced, proof, who, .. } => proof::resolving(window, *forced, who, proof, now),
    }
}

/// When the hold ends by itself: at the window's hard end or, begun after that, one window's length later.
pub(super) fn hold_ends_at(window: &Window) -> Option<Timestamp> {
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
        return skipped.then_some(Record::WarmedUp { healthy_since: *since, levels: Vec::new() });
    }
    match &window.backup {
        None => start(window, Step::Backup, window.ends_at),
        Some(backup) => Some(refused(backup.detail.clone())),
    }
}

/// When the warm-up has failed if it has not passed: `healthy_for` after the preflight, and time for one more
/// reading of the slowest signal.
pub(super) fn warm_up_ends_at(window: &Window) -> Option<Timestamp> {
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

/// What somebody who reads of a window that passed must know of the migration's end. Nothing, when it went well.
pub(super) fn how_the_migration_ended(window: &Window) -> String {
    match window.migration_ended.map(|(how, _)| how) {
        None | Some(MigrationEnd::Succeeded | MigrationEnd::Reported) => String::new(),
        Some(MigrationEnd::FailedAndLeft) => {
            let why = window.migration.as_ref().map_or("", |outcome| &outcome.detail);
            format!(", which failed and was left: {why}")
        }
        Some(MigrationEnd::HardEnd) => ", whose end nobody had reported by the hard end".to_owned(),
        Some(MigrationEnd::ExitUnknown) => {
            "; how the migration ended is not known: look whether it has done all of its work".to_owned()
        }
    }
}

fn finished(how: MigrationEnd, detail: String) -> Record {
    Record::MigrationFinished { how, detail }
}

/// What comes next for a rung, a proof or a gate.
pub(super) enum Next {
    /// Write this.
    Do(Box<Record>),
    /// Nothing to do.
    Wait,
    /// It cannot succeed any more.
    Failed(String),
}

impl Next {
    pub(super) fn start(window: &Window, step: Step, deadline: Timestamp) -> Self {
        start(window, step, deadline).map_or(Self::Wait, Self::record)
    }

    pub(super) fn record(record: Record) -> Self {
        Self::Do(Box::new(record))
    }
}

/// People are paged again about what waits for them, until somebody takes charge.
pub(super) fn page_due_at(window: &Window) -> Option<Timestamp> {
    let waits = match &window.phase {
        Phase::NeedsOperator { .. } => true,
        Phase::RollingBack => window.rollback.as_ref().is_some_and(|rollback| rollback.waiting_since.is_some()),
        Phase::Preparing | Phase::Watching | Phase::Soaking { .. } | Phase::Resolving { .. } => false,
    };
    let paged_at = window.paged_at.filter(|_| waits && window.acknowledged.is_none())?;
    Some(later(paged_at, window.plan.rollback.repeat_page))
}

pub(super) fn repeated_page(window: &Window, now: Timestamp) -> Option<Record> {
    (now >= page_due_at(window)?).then_some(Record::PageRepeated)
}

pub(super) fn start(window: &Window, step: Step, deadline: Timestamp) -> Option<Record> {
    let busy_with_it = |running: &InFlight| running.step == step;
    let started = !window.in_flight.iter().any(busy_with_it);
    started.then(|| Record::StepStarted { number: window.last_step + 1, step, deadline })
}
