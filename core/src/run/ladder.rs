//! The ladder: rung after rung, until the application is proved to have recovered or an operator is needed.

use jiff::{SignedDuration, Timestamp};

use super::advance::{Next, STEP_TIME, repeated_page};
use super::apply::later;
use super::manual;
use super::proof::{Proving, prove};
use super::record::{Record, WindowOutcome};
use super::state::{Attempt, Inspection, Rollback, Window};
use super::step::{Moment, Outcome, ReplayPolicy, Step, StepResult};
use super::traffic::gates_closed;
use crate::baseline::Difference;
use crate::plan::{Method, Rung, TableChoice};

/// How often a rung's work may be started again after interruptions.
const ACTS_AT_MOST: u32 = 3;
/// Time for an inspection: a server that fails over or restarts in the middle of a rollback is waited for.
const INSPECTION_TIME: SignedDuration = SignedDuration::from_mins(5);
/// The least time for the look after a rung's work, also when the budget is spent: what it left has to be known.
const LEAST_LOOK: SignedDuration = SignedDuration::from_secs(30);
/// How many steps in a row may be interrupted: a step that ends the program each time must not do so for ever.
const INTERRUPTIONS_AT_MOST: u32 = 5;

/// The ladder, from the breach to *recovered* or *needs operator*.
pub(super) fn ladder(window: &Window, rollback: &Rollback, now: Timestamp) -> Option<Record> {
    let busy = window.in_flight.iter().any(|running| !running.step.is_migration());
    if busy || window.hold.is_some() {
        return None;
    }
    if let Some(reason) = interrupted_too_often(window) {
        return Some(operator(window, reason));
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

pub(super) fn interrupted_too_often(window: &Window) -> Option<String> {
    let often = window.interruptions >= INTERRUPTIONS_AT_MOST;
    often.then(|| format!("rollbackd was interrupted {} times in a row, and came no further", window.interruptions))
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
    let first = last.map_or(0, |attempt| attempt.rung + 1);
    let rungs = window.plan.rollback.rungs.iter().enumerate().skip(first);
    let Some(rung) = rungs.into_iter().find(|(_, rung)| concerns(rung, rollback)).map(|(place, _)| place) else {
        let why = last.and_then(|attempt| attempt.failure.as_deref()).unwrap_or("there is none");
        return operator(window, format!("every rung of the ladder has failed; the last: {why}"));
    };
    if now >= budget_ends_at(window, rollback, now) {
        return operator(window, budget_spent(window));
    }
    Record::RungStarted { rung }
}

/// Whether a rung has to do with why we roll back: `partial` takes only the tables that are to blame.
fn concerns(rung: &Rung, rollback: &Rollback) -> bool {
    match &rung.method {
        Method::Tables(removal) => removal.tables != TableChoice::Implicated || rollback.trigger.implicated().is_some(),
        Method::Script { .. } | Method::Sql { .. } | Method::Restore => true,
    }
}

/// What the first look at the catalog shows of the costs.
fn classified(attempt: &Attempt, seen: &Inspection) -> Record {
    match seen {
        Inspection::Seen(difference) => {
            let (class, reasons) = difference.class(&attempt.rows);
            Record::Classified { class: Some(class), reasons }
        }
        Inspection::Unseen(reason) => Record::Classified { class: None, reasons: vec![reason.clone()] },
    }
}

/// Why a rung waits for somebody's word, if it does.
fn waits_for_approval(window: &Window, rung: &Rung, before: &Difference) -> bool {
    // A restore is what irreversible things are for, and has a setting of its own.
    let irreversible = rung.method != Method::Restore && !before.beyond_statements().is_empty();
    rung.needs_approval || window.plan.rollback.approve_always || irreversible
}

/// One rung: look, approval, look again after it, act, look again, prove.
fn rung_over(window: &Window, rollback: &Rollback, attempt: &Attempt, now: Timestamp) -> Next {
    let Some(rung) = window.plan.rollback.rungs.get(attempt.rung) else {
        return Next::Failed("the plan has no such rung".to_owned());
    };
    let place = attempt.rung;
    let budget_ends_at = budget_ends_at(window, rollback, now);
    let spent = now >= budget_ends_at;
    let before = match &attempt.before {
        None if spent => return Next::Failed(budget_spent(window)),
        None => {
            let step = Step::Inspect { rung: place, moment: Moment::Before };
            return Next::start(window, step, budget_ends_at.min(later(now, INSPECTION_TIME)));
        }
        Some(seen) if rollback.classified.is_none() => return Next::record(classified(attempt, seen)),
        Some(Inspection::Unseen(reason)) => return Next::Failed(format!("the catalog could not be read: {reason}")),
        Some(Inspection::Seen(difference)) => difference,
    };
    if waits_for_approval(window, rung, before) && !rollback.approved {
        return match rollback.waiting_since {
            None => Next::record(Record::ApprovalRequested { rung: place }),
            Some(_) => repeated_page(window, now).map_or(Next::Wait, Next::record),
        };
    }
    let mut seen = before;
    // Of rows that are gone the catalog knows nothing.
    if !before.is_empty() || rung.method == Method::Restore {
        let Some(act) = &attempt.act else {
            if spent {
                return Next::Failed(budget_spent(window));
            }
            return Next::start(window, Step::Act { rung: place }, budget_ends_at.min(later(now, rung.timeout)));
        };
        let after = match &attempt.after {
            None => {
                let step = Step::Inspect { rung: place, moment: Moment::After };
                let end = budget_ends_at.max(later(now, LEAST_LOOK)).min(later(now, INSPECTION_TIME));
                return Next::start(window, step, end);
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
        seen = after;
    }
    match prove(window, rollback, &attempt.proof, now) {
        Proving::Goes(next) => next,
        Proving::Proved => Next::record(Record::WindowSettled {
            outcome: WindowOutcome::Recovered,
            detail: recovered(place, rung.method.kind(), seen),
        }),
    }
}

/// How the ladder ended well. What the verification did not mind is said all the same.
fn recovered(rung: usize, kind: &str, left: &Difference) -> String {
    let left = if left.is_empty() { String::new() } else { format!("; left of the migration: {}", left.summary()) };
    format!("rolled back by rung {} ({kind}) and verified{left}", rung + 1)
}

enum Acted {
    Done,
    Again,
    Failed(String),
}

/// What to do with a rung's work of which nobody knows how it ended.
///
/// A SQL file ran in one transaction, so all of it happened or nothing did, and the catalog says which: a catalog that
/// is as it was has not seen it, and doing it again is right; any other has, and what the file did to rows must not be
/// done twice. Before it does anything the rung compares the catalog with that look once more, behind a lock that it
/// holds until it commits, so that a commit that was still under way at the look is not overtaken.
const fn replay_policy(method: &Method) -> ReplayPolicy {
    match method {
        Method::Script { idempotent: true, .. } => ReplayPolicy::Idempotent,
        Method::Script { idempotent: false, .. } => ReplayPolicy::NeverTwice,
        Method::Tables(_) | Method::Sql { .. } | Method::Restore => ReplayPolicy::Inspect,
    }
}

/// Whether what the rung does happens all at once, or not at all.
const fn in_one_transaction(method: &Method) -> bool {
    match method {
        // Whether it restored, it finds out itself: rows are not seen in the catalog.
        Method::Script { .. } | Method::Tables(_) | Method::Restore => false,
        Method::Sql { .. } => true,
    }
}

/// What a rung claims is its exit; what it did is the difference between the catalog before and after.
fn judge_act(method: &Method, act: &Outcome, before: &Difference, after: &Difference, acts: u32) -> Acted {
    let by_catalog = *method != Method::Restore;
    if after.is_empty() && by_catalog {
        return Acted::Done;
    }
    let redo = match replay_policy(method) {
        // Inspected it was, just now: `after` is what was seen.
        ReplayPolicy::Idempotent | ReplayPolicy::Inspect => true,
        ReplayPolicy::NeverTwice => false,
    };
    let left = after.summary();
    match act.result {
        StepResult::Succeeded if before == after && by_catalog => {
            Acted::Failed(format!("{}, but it changed nothing: still {left}", act.detail))
        }
        StepResult::Succeeded => Acted::Done,
        StepResult::Unknown if in_one_transaction(method) && before != after => Acted::Done,
        StepResult::Unknown if redo && acts < ACTS_AT_MOST => Acted::Again,
        StepResult::Unknown => {
            Acted::Failed(format!("it was interrupted, and nothing shows that it finished: still {left}"))
        }
        StepResult::Failed | StepResult::TimedOut => Acted::Failed(format!("{}; still {left}", act.detail)),
    }
}

fn budget_spent(window: &Window) -> String {
    format!("the rollback's budget of {:#} is spent", window.plan.rollback.budget)
}

/// When the ladder's time is over; time spent waiting for approvals is given back.
fn budget_ends_at(window: &Window, rollback: &Rollback, now: Timestamp) -> Timestamp {
    let waiting = rollback.waiting_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let whole = window.plan.rollback.budget.saturating_add(rollback.waited).saturating_add(waiting);
    later(rollback.started_at, whole)
}

/// Automation has come to its end: why, and what a person does now.
pub(super) fn operator(window: &Window, reason: String) -> Record {
    Record::OperatorNeeded { manual: manual::instructions(window), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{ObjectId, ObjectKind};

    fn added(tables: &[&str]) -> Difference {
        let id = |name: &&str| ObjectId {
            kind: ObjectKind::Table,
            schema: "public".to_owned(),
            of: None,
            name: (*name).to_owned(),
        };
        Difference { added: tables.iter().map(id).collect(), ..Difference::default() }
    }

    fn judged(method: &Method, act: &Outcome, after: &[&str], acts: u32) -> &'static str {
        match judge_act(method, act, &added(&["pages", "files"]), &added(after), acts) {
            Acted::Done => "done",
            Acted::Again => "again",
            Acted::Failed(_) => "failed",
        }
    }

    #[test]
    fn a_sql_file_that_was_interrupted_is_run_again_only_when_nothing_of_it_happened() {
        let sql = Method::Sql { file: "rollback.sql".to_owned() };
        let unknown = Outcome::unknown("interrupted");
        assert_eq!(judged(&sql, &unknown, &["pages", "files"], 1), "again");
        assert_eq!(judged(&sql, &unknown, &["pages", "files"], ACTS_AT_MOST), "failed");
        assert_eq!(judged(&sql, &unknown, &["pages"], 1), "done", "it is all that it does");
        assert_eq!(judged(&sql, &unknown, &[], 1), "done");
        let never_twice = Method::Script { command: Vec::new(), idempotent: false };
        assert_eq!(judged(&never_twice, &unknown, &["pages"], 1), "failed", "it may have stopped half way");
        let failed = Outcome::failed("a table is missing");
        assert_eq!(judged(&sql, &failed, &["pages", "files"], 1), "failed");
    }
}
