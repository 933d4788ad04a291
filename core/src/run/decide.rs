//! Event → records: the only place in which something is decided.
//!
//! A decision is taken on a copy of the state: each record is applied to the copy before the next is chosen, so
//! one event can carry the window as far as it goes. The caller makes the records durable and only then applies
//! them to the real state. Notices are written right behind the record that causes them.

use std::sync::Arc;

use jiff::Timestamp;

use super::advance::{advance, how_the_migration_ended, warm_up_ends_at};
use super::apply::later;
use super::event::{Ask, DueOpening, Event, Refusal, Request};
use super::ladder::operator;
use super::outbox;
use super::record::{Entry, MigrationEnd, Origin, Record, Trigger, WindowOutcome};
use super::state::{Phase, State, Window};
use super::step::{Outcome, Step};
use crate::judge::{Assessment, Verdict};
use crate::notice;
use crate::plan::{Consequence, Missed, Plan};
use crate::window::window_id;

/// A bound on the records that one event may lead to; reaching it means that [`advance`] goes round in circles.
const RECORDS_AT_MOST: usize = 10_000;
/// Why a request about a window is refused when there is none.
const NO_WINDOW: &str = "no window is open; `rollbackd window open` opens one";

/// The entries that follow from an event, in order; `plan` is the one that a window opened now would freeze.
///
/// # Errors
/// A [`Refusal`] when a request cannot be carried out; nothing follows from it then.
pub fn decide(state: &State, plan: &Arc<Plan>, now: Timestamp, event: Event) -> Result<Vec<Entry>, Refusal> {
    let mut draft = Draft { state: state.clone(), plan, now, entries: Vec::new() };
    draft.take(event)?;
    draft.advance();
    Ok(draft.entries)
}

/// Whether an assessment can lead to anything in this state. It spares the many samples that change nothing.
pub fn concerns(state: &State, assessment: &Assessment) -> bool {
    state.window.as_ref().is_some_and(|window| {
        let changed = window.verdict != assessment.verdict;
        changed
            || !assessment.breached.is_empty()
            || !window.paging.is_empty()
            || match window.phase {
                Phase::Preparing => true,
                Phase::Soaking { until } => assessment.at >= until,
                Phase::Watching | Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => false,
            }
    })
}

/// Like [`decide`], but nothing new is begun: for the end of a step that comes in while the program is ending.
pub fn conclude(state: &State, plan: &Arc<Plan>, now: Timestamp, event: Event) -> Vec<Entry> {
    let mut draft = Draft { state: state.clone(), plan, now, entries: Vec::new() };
    match draft.take(event) {
        Ok(()) => draft.entries,
        Err(_refused) => Vec::new(),
    }
}

/// The records so far, and the state that they make.
struct Draft<'a> {
    state: State,
    plan: &'a Arc<Plan>,
    now: Timestamp,
    entries: Vec<Entry>,
}

impl Draft<'_> {
    /// Writes a record, and behind it the notices that it causes.
    fn push(&mut self, record: Record) {
        let settles = matches!(record, Record::WindowSettled { .. });
        let settled = if settles { self.state.window.clone() } else { None };
        let written = self.write(record);
        let window = if settles { settled.as_ref() } else { self.state.window.as_ref() };
        for notice in notice::compose::owed(&written, window, self.plan, self.now) {
            self.write(Record::NoticeOwed { notice });
        }
    }

    /// Writes a record. What becomes of a notice belongs to the notice's window, even when that one is settled.
    fn write(&mut self, record: Record) -> Record {
        let about = if let Record::NoticeOwed { notice } = &record {
            Some(notice)
        } else if let Record::NoticeDelivered { notice, .. }
        | Record::NoticeDead { notice, .. }
        | Record::NoticeCancelled { notice } = &record
        {
            self.state.owed.iter().map(|owed| &owed.notice).find(|owed| owed.id == *notice)
        } else {
            None
        };
        let window = match (&record, about) {
            (Record::WindowOpened { id, .. }, _) => Some(id.clone()),
            (_, Some(notice)) => notice.message.window.clone(),
            (_, None) => self.state.window.as_ref().map(|window| window.id.clone()),
        };
        self.write_about(window, record)
    }

    fn write_about(&mut self, window: Option<String>, record: Record) -> Record {
        let entry = Entry { seq: self.state.seq + 1, at: self.now, window, record };
        self.state.apply(&entry);
        self.entries.push(entry.clone());
        entry.record
    }

    fn advance(&mut self) {
        while let Some(record) = self.state.window.as_ref().and_then(|window| advance(window, self.now)) {
            debug_assert!(self.entries.len() < RECORDS_AT_MOST, "advance goes round in circles: {record:?}");
            if self.entries.len() >= RECORDS_AT_MOST {
                return;
            }
            self.push(record);
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::Restarted { version } => self.restarted(version),
            Event::Pulse { due } => self.openings(&due),
            Event::ClockMoved { by, unseen } => {
                if self.state.window.is_some() || !self.state.owed.is_empty() {
                    self.push(Record::ClockMoved { by, unseen });
                }
            }
            Event::Assessed(assessment) => self.assessed(&assessment),
            Event::ProcessStarted { step, process } => {
                if self.in_flight(step) {
                    self.push(Record::ProcessStarted { step, process });
                }
            }
            Event::StepEnded { step, outcome } => {
                if self.in_flight(step) {
                    self.push(Record::StepEnded { number: step, outcome: *outcome });
                }
            }
            Event::NoticeSettled { notice, channel, result } => self.notice_settled(notice, channel, result),
            Event::Requested(request) => self.requested(request)?,
        }
        Ok(())
    }

    fn in_flight(&self, step: u64) -> bool {
        self.state.window.as_ref().is_some_and(|window| window.in_flight.iter().any(|running| running.number == step))
    }

    /// What was under way is not any more, and nobody knows how it ended.
    fn restarted(&mut self, version: String) {
        self.push(Record::Started { version });
        let lost: Vec<u64> = match &self.state.window {
            Some(window) => window.in_flight.iter().map(|running| running.number).collect(),
            None => Vec::new(),
        };
        for number in lost {
            let outcome = Outcome::unknown("rollbackd was restarted while it was under way");
            self.push(Record::StepEnded { number, outcome });
        }
        if self.state.window.as_ref().is_some_and(guard_left_before_its_migration) {
            self.refuse("`rollbackd guard` ended before its migration was started".to_owned());
        }
    }

    fn openings(&mut self, due: &[DueOpening]) {
        let Some((last, earlier)) = due.split_last() else { return };
        let fresh = |opening: &Timestamp| self.state.last_opening.is_none_or(|known| *opening > known);
        let earlier: Vec<Timestamp> = earlier.iter().map(|opening| opening.at).filter(fresh).collect();
        if !fresh(&last.at) {
            return;
        }
        for opening in earlier {
            self.missed(opening, "a later opening is due as well".to_owned());
        }
        if let Some(open) = &self.state.window {
            let reason = format!("window {} was still {}", open.id, open.state_name().as_str());
            self.missed(last.at, reason);
        } else if last.missed && self.plan.window.missed == Missed::Skip {
            self.missed(last.at, "nobody was looking when it was due, and `missed = \"skip\"`".to_owned());
        } else {
            self.open(Origin::Schedule, Some(last.at));
        }
    }

    fn missed(&mut self, opening: Timestamp, reason: String) {
        self.push(Record::OpeningMissed { opening, reason });
    }

    fn open(&mut self, origin: Origin, opening: Option<Timestamp>) {
        // A scheduled window is named after its opening, so that a doubled pulse cannot open it twice.
        let base = window_id(&self.plan.name, opening.unwrap_or(self.now));
        let taken = |id: &str| self.state.history.iter().any(|settled| settled.id == id);
        let mut id = base.clone();
        let mut copy = 2;
        while taken(&id) {
            id = format!("{base}-{copy}");
            copy += 1;
        }
        let ends_at = later(self.now, self.plan.window.duration);
        self.push(Record::WindowOpened { id, origin, opening, ends_at, plan: Arc::clone(self.plan) });
    }

    /// What the judge says, while a window is open.
    fn assessed(&mut self, assessment: &Assessment) {
        let Some(window) = &self.state.window else { return };
        let phase = window.phase.clone();
        if window.verdict != assessment.verdict {
            let (from, to) = (window.verdict, assessment.verdict);
            self.push(Record::VerdictChanged { from, to, detail: verdict_detail(assessment) });
        }
        match phase {
            Phase::Preparing => self.warm_up(assessment),
            Phase::Watching | Phase::Soaking { .. } => self.watched(assessment),
            Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {}
        }
    }

    fn warm_up(&mut self, assessment: &Assessment) {
        let Some(window) = &self.state.window else { return };
        if window.warmed_up {
            if assessment.verdict == Verdict::Breached {
                let why = assessment.breached.iter().map(|one| one.sentence.as_str()).collect::<Vec<_>>().join("; ");
                self.refuse(format!("the application broke before the migration started: {why}"));
            }
            return;
        }
        let preflight_passed = window.preflight.as_ref().is_some_and(|(outcome, _)| outcome.is_success());
        if !preflight_passed || !window.in_flight.is_empty() {
            return;
        }
        let healthy_for = window.plan.healthy_for;
        let long_enough = |since: &Timestamp| self.now.duration_since(*since) >= healthy_for;
        if let Some(healthy_since) = assessment.healthy_since.filter(long_enough) {
            self.push(Record::WarmedUp { healthy_since, levels: assessment.levels.clone() });
        } else if warm_up_ends_at(window).is_some_and(|end| self.now >= end) {
            let why = if assessment.unhealthy.is_empty() {
                "a signal was not good on the way".to_owned()
            } else {
                assessment.unhealthy.join("; ")
            };
            self.refuse(format!("the signals were not healthy for {healthy_for:#}: {why}"));
        }
    }

    fn refuse(&mut self, detail: String) {
        self.push(Record::WindowSettled { outcome: WindowOutcome::Refused, detail });
    }

    fn watched(&mut self, assessment: &Assessment) {
        let Some(window) = &self.state.window else { return };
        let known = window.paging.clone();
        let paging = || assessment.breached.iter().filter(|one| one.then != Consequence::Rollback);
        for rule in known.iter().filter(|rule| paging().all(|one| one.rule != **rule)) {
            self.push(Record::RuleQuieted { rule: rule.clone() });
        }
        for evidence in paging().filter(|one| !known.contains(&one.rule)) {
            self.push(Record::RulePaged { evidence: evidence.clone() });
            let held = self.state.window.as_ref().is_none_or(|window| window.hold.is_some());
            if evidence.then == Consequence::Freeze && !held {
                let who = format!("rule {}", evidence.rule);
                self.push(Record::HoldStarted { who, reason: evidence.sentence.clone() });
            }
        }
        let held = self.state.window.as_ref().is_none_or(|window| window.hold.is_some());
        if assessment.verdict == Verdict::Breached && !held {
            let because = assessment.breached.iter().filter(|one| one.then == Consequence::Rollback);
            self.push(Record::BreachDetected { trigger: Trigger::Rules { evidence: because.cloned().collect() } });
        } else if !held {
            self.soaked(assessment);
        }
    }

    /// The application must stay healthy, and be seen to be so at the end: while we are blind, in doubt or out of sight,
    /// the soak goes on.
    fn soaked(&mut self, assessment: &Assessment) {
        let Some(window) = &self.state.window else { return };
        let Phase::Soaking { until } = window.phase else { return };
        if assessment.at >= until && assessment.verdict == Verdict::Healthy && assessment.in_sight {
            let soak = window.plan.window.soak;
            let how = how_the_migration_ended(window);
            let detail = format!("the application stayed healthy for {soak:#} after the migration{how}");
            self.push(Record::WindowSettled { outcome: WindowOutcome::Passed, detail });
        }
    }

    fn notice_settled(&mut self, notice: String, channel: String, result: Result<(), String>) {
        for record in outbox::settled(&self.state, self.plan, self.now, notice, channel, result) {
            self.write(record);
        }
    }

    fn requested(&mut self, request: Request) -> Result<(), Refusal> {
        let Request { who, reason, ask } = request;
        if matches!(ask, Ask::Acknowledge) {
            return self.acknowledged(who, reason);
        }
        let Some(window) = &self.state.window else {
            return match ask {
                Ask::Open { guard: true } => {
                    self.open(Origin::Guard { who }, None);
                    Ok(())
                }
                Ask::Open { guard: false } => {
                    self.open(Origin::Operator { who, reason }, None);
                    Ok(())
                }
                Ask::Finished
                | Ask::Hold
                | Ask::Resume
                | Ask::Cancel { .. }
                | Ask::Resolved { .. }
                | Ask::Rollback
                | Ask::Approve
                | Ask::Decline
                | Ask::Acknowledge => refuse(NO_WINDOW),
            };
        };
        for record in answer(window, who, reason, &ask)? {
            self.push(record);
        }
        Ok(())
    }

    /// Somebody has taken charge, of the open window's incident or of one that is settled and still being escalated.
    fn acknowledged(&mut self, who: String, reason: String) -> Result<(), Refusal> {
        let open = self.state.window.as_ref();
        let incident = match open.filter(|window| window.rollback.is_some()) {
            Some(window) => window.id.clone(),
            None => match (outbox::escalating(&self.state, self.now), open) {
                (Some(incident), _) => incident,
                (None, Some(window)) => return refuse(format!("window {} has no incident", window.id)),
                (None, None) => return refuse(NO_WINDOW),
            },
        };
        self.write_about(Some(incident.clone()), Record::Acknowledged { who, reason });
        for record in outbox::end_escalations(&self.state, &incident, self.now) {
            self.write(record);
        }
        Ok(())
    }
}

/// The command of a guard's window is known to that guard alone, and whoever started it there is gone: nobody may run
/// it, nor another in its place.
fn guard_left_before_its_migration(window: &Window) -> bool {
    let not_begun = match window.phase {
        Phase::Preparing | Phase::Watching => window.migration.is_none(),
        Phase::Soaking { .. } | Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => false,
    };
    not_begun && window.plan.window.command.is_some() && matches!(window.origin, Origin::Guard { .. })
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into() })
}

fn verdict_detail(assessment: &Assessment) -> String {
    match assessment.verdict {
        Verdict::Blind => assessment.blind.join("; "),
        Verdict::Breached | Verdict::Suspect => {
            let sentences: Vec<&str> = assessment.breached.iter().map(|one| one.sentence.as_str()).collect();
            if sentences.is_empty() { assessment.unhealthy.join("; ") } else { sentences.join("; ") }
        }
        Verdict::Healthy => "no rule holds".to_owned(),
    }
}

/// What a request leads to in an open window, or why it cannot be carried out.
fn answer(window: &Window, who: String, reason: String, ask: &Ask) -> Result<Vec<Record>, Refusal> {
    let state = window.state_name().as_str();
    let id = &window.id;
    match ask {
        Ask::Open { .. } => refuse(format!("window {id} is open ({state}); one at a time")),
        Ask::Finished => finished(window, &who, &reason),
        Ask::Hold if window.hold.is_some() => refuse(format!("decisions of window {id} are held already")),
        Ask::Hold => match window.phase {
            Phase::Watching | Phase::Soaking { .. } | Phase::RollingBack => {
                Ok(vec![Record::HoldStarted { who, reason }])
            }
            Phase::Preparing | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {
                refuse(format!("window {id} is {state}; there is nothing to hold"))
            }
        },
        Ask::Resume if window.hold.is_none() => refuse(format!("decisions of window {id} are not held")),
        Ask::Resume => Ok(vec![Record::HoldEnded { who, reason }]),
        Ask::Cancel { abandon } => cancelled(window, &who, &reason, *abandon),
        Ask::Resolved { force } => match window.phase {
            Phase::NeedsOperator { .. } if window.in_flight.is_empty() => {
                Ok(vec![Record::ResolutionStarted { who, reason, force: *force }])
            }
            Phase::NeedsOperator { .. } => refuse("a step is still under way; ask again when it has ended"),
            Phase::Preparing
            | Phase::Watching
            | Phase::Soaking { .. }
            | Phase::RollingBack
            | Phase::Resolving { .. } => refuse(format!("window {id} is {state}; it does not need an operator")),
        },
        Ask::Rollback => match window.phase {
            Phase::Watching | Phase::Soaking { .. } => {
                Ok(vec![Record::BreachDetected { trigger: Trigger::Operator { who, reason } }])
            }
            Phase::Preparing => {
                refuse(format!("window {id} is preparing: nothing was changed yet; `rollbackd window cancel` ends it"))
            }
            Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {
                refuse(format!("window {id} is {state} already; there is one rollback a window"))
            }
        },
        Ask::Approve | Ask::Decline => approval(window, who, reason, matches!(ask, Ask::Approve)),
        Ask::Acknowledge => refuse(format!("window {id} has no incident")),
    }
}

fn finished(window: &Window, who: &str, reason: &str) -> Result<Vec<Record>, Refusal> {
    let id = &window.id;
    match window.phase {
        Phase::Watching if window.plan.window.command.is_none() => Ok(vec![Record::MigrationFinished {
            how: MigrationEnd::Reported,
            detail: format!("{who} reported that the migration is finished: {reason}"),
        }]),
        Phase::Watching => refuse(format!("window {id} runs the migration itself and sees when it ends")),
        Phase::Preparing => refuse(format!("window {id} is preparing: the migration must not have started yet")),
        Phase::Soaking { .. } => refuse(format!("window {id} knows that the migration is finished")),
        Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {
            refuse(format!("window {id} is {}", window.state_name().as_str()))
        }
    }
}

fn cancelled(window: &Window, who: &str, reason: &str, abandon: bool) -> Result<Vec<Record>, Refusal> {
    let id = &window.id;
    let migrating = window.orphan.is_some() || window.in_flight.iter().any(|running| running.step == Step::Migrate);
    match window.phase {
        Phase::Watching if migrating => refuse(format!(
            "window {id} runs the migration; cancelling now would leave it half done and unguarded. `rollbackd \
             rollback` takes it back"
        )),
        Phase::Preparing | Phase::Watching | Phase::Soaking { .. } => Ok(vec![Record::WindowSettled {
            outcome: WindowOutcome::Cancelled,
            detail: format!("cancelled by {who}: {reason}"),
        }]),
        Phase::RollingBack if abandon => Ok(vec![operator(window, format!("{who} abandoned the rollback: {reason}"))]),
        Phase::RollingBack => refuse(format!(
            "window {id} is rolling back; `--abandon` stops the ladder and leaves the rest to an operator"
        )),
        Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {
            refuse(format!("window {id} needs an operator; `rollbackd window resolved` ends it"))
        }
    }
}

fn approval(window: &Window, who: String, reason: String, yes: bool) -> Result<Vec<Record>, Refusal> {
    let waiting = window.rollback.as_ref().filter(|rollback| rollback.waiting_since.is_some());
    let rung = waiting.and_then(|rollback| rollback.attempts.last()).map(|attempt| attempt.rung);
    match rung {
        Some(rung) if yes => Ok(vec![Record::ApprovalGiven { rung, who, reason }]),
        Some(rung) => Ok(vec![Record::RungFailed { rung, reason: format!("declined by {who}: {reason}") }]),
        None => refuse(format!("window {} does not wait for an approval", window.id)),
    }
}
