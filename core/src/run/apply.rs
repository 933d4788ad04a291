//! Records → state: the only way in which the state changes.
//!
//! Nothing is decided here. What a record means for later decisions is decided by
//! [`advance`](super::advance) from the facts that are kept.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::record::{Entry, Record, WindowOutcome};
use super::state::{Attempt, Ending, Gate, GatePosition, Hold, Phase, Proof, Rollback, Settled, State, Window};
use crate::judge::Verdict;
use crate::plan::Consequence;

impl State {
    /// The state that these entries make.
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Takes an entry in.
    pub fn apply(&mut self, entry: &Entry) {
        self.seq = entry.seq;
        self.count(&entry.record);
        match &entry.record {
            Record::Condensed { carried } => self.take_up(carried),
            Record::Started { .. } => {
                self.first_started_at.get_or_insert(entry.at);
                if let Some(window) = &mut self.window {
                    window.watched_anew(entry.at);
                }
            }
            Record::OpeningMissed { opening, .. } => self.last_opening = Some(*opening),
            Record::ClockMoved { by, unseen } => self.clock_moved(*by, *unseen),
            Record::WindowOpened { id, origin, opening, ends_at, plan } => {
                self.last_opening = opening.or(self.last_opening);
                self.window = Some(Window {
                    id: id.clone(),
                    origin: origin.clone(),
                    plan: Arc::clone(plan),
                    started_at: entry.at,
                    ends_at: *ends_at,
                    first_seq: entry.seq,
                    phase: Phase::Preparing,
                    hold: None,
                    last_step: 0,
                    in_flight: Vec::new(),
                    warmed_up: false,
                    levels: Vec::new(),
                    preflight: None,
                    backup: None,
                    baseline: None,
                    backup_directory: None,
                    migration: None,
                    migration_ended: None,
                    orphan: None,
                    unending: None,
                    interruptions: 0,
                    verdict: Verdict::Healthy,
                    paging: Vec::new(),
                    rollback: None,
                    checks: Vec::new(),
                    messages: 0,
                    acknowledged: None,
                    paged_at: None,
                });
            }
            Record::WindowSettled { outcome, detail } => self.settle(*outcome, detail, entry.at),
            Record::NoticeOwed { notice } => self.owe(notice),
            Record::NoticeDelivered { notice, channel } => self.delivery_ended(notice, channel, true, entry.at),
            Record::NoticeDead { notice, channel, .. } => self.delivery_ended(notice, channel, false, entry.at),
            // An incident is acknowledged after its window was settled, too.
            Record::Acknowledged { .. } => {
                let own = |window: &&mut Window| entry.window.as_ref() == Some(&window.id);
                if let Some(window) = self.window.as_mut().filter(own) {
                    window.apply(&entry.record, entry.at);
                }
            }
            Record::NoticeCancelled { notice } => self.owed.retain(|owed| owed.notice.id != *notice),
            Record::StepStarted { .. }
            | Record::ProcessStarted { .. }
            | Record::StepEnded { .. }
            | Record::WarmedUp { .. }
            | Record::MigrationFinished { .. }
            | Record::VerdictChanged { .. }
            | Record::RulePaged { .. }
            | Record::RuleQuieted { .. }
            | Record::HoldStarted { .. }
            | Record::HoldEnded { .. }
            | Record::BreachDetected { .. }
            | Record::Classified { .. }
            | Record::RungStarted { .. }
            | Record::ApprovalRequested { .. }
            | Record::ApprovalGiven { .. }
            | Record::RungFailed { .. }
            | Record::OperatorNeeded { .. }
            | Record::ResolutionStarted { .. }
            | Record::ResolutionFailed { .. }
            | Record::PageRepeated => {
                if let Some(window) = &mut self.window {
                    window.apply(&entry.record, entry.at);
                }
            }
        }
    }

    fn settle(&mut self, outcome: WindowOutcome, detail: &str, at: Timestamp) {
        if let Some(window) = self.window.take() {
            if window.rollback.is_some() {
                self.last_checks = window.checks;
            }
            self.last_ending = Some(Ending {
                plan: window.plan,
                detail: detail.to_owned(),
                rollback: window.rollback.map(|rollback| (rollback.trigger, rollback.started_at)),
            });
            self.history.push(Settled {
                id: window.id,
                outcome,
                started_at: window.started_at,
                ended_at: at,
                first_seq: window.first_seq,
            });
        }
    }

    fn count(&mut self, record: &Record) {
        let counts = &mut self.counts;
        match record {
            Record::BreachDetected { trigger } => {
                *counts.rollbacks.entry(trigger.name().to_owned()).or_default() += 1;
                *counts.decisions.entry("rollback".to_owned()).or_default() += 1;
            }
            Record::RulePaged { evidence } => {
                let decision = if evidence.then == Consequence::Freeze { "freeze" } else { "page" };
                *counts.decisions.entry(decision.to_owned()).or_default() += 1;
            }
            Record::WindowSettled { outcome, .. } => {
                let decision = match outcome {
                    WindowOutcome::Passed => "pass",
                    WindowOutcome::Refused => "refuse",
                    WindowOutcome::Cancelled | WindowOutcome::Recovered | WindowOutcome::Abandoned => return,
                };
                *counts.decisions.entry(decision.to_owned()).or_default() += 1;
            }
            Record::RungFailed { rung, .. } => {
                let kind = self.window.as_ref().and_then(|window| window.plan.rollback.rungs.get(*rung));
                if let Some(rung) = kind {
                    *counts.rung_failures.entry(rung.method.kind().to_owned()).or_default() += 1;
                }
            }
            Record::NoticeOwed { notice } => {
                let key = (notice.contact.clone(), notice.message.event.as_str().to_owned());
                *counts.notices.entry(key).or_default() += 1;
            }
            Record::NoticeDead { .. } => counts.dead_lettered += 1,
            Record::Condensed { .. }
            | Record::Started { .. }
            | Record::OpeningMissed { .. }
            | Record::ClockMoved { .. }
            | Record::WindowOpened { .. }
            | Record::StepStarted { .. }
            | Record::ProcessStarted { .. }
            | Record::StepEnded { .. }
            | Record::WarmedUp { .. }
            | Record::MigrationFinished { .. }
            | Record::VerdictChanged { .. }
            | Record::RuleQuieted { .. }
            | Record::HoldStarted { .. }
            | Record::HoldEnded { .. }
            | Record::Classified { .. }
            | Record::RungStarted { .. }
            | Record::ApprovalRequested { .. }
            | Record::ApprovalGiven { .. }
            | Record::OperatorNeeded { .. }
            | Record::ResolutionStarted { .. }
            | Record::ResolutionFailed { .. }
            | Record::Acknowledged { .. }
            | Record::PageRepeated
            | Record::NoticeDelivered { .. }
            | Record::NoticeCancelled { .. } => {}
        }
    }
}

impl Window {
    fn apply(&mut self, record: &Record, at: Timestamp) {
        match record {
            Record::StepStarted { number, step, deadline } => self.step_started(*number, step, *deadline, at),
            Record::ProcessStarted { step, process } => {
                if let Some(running) = self.in_flight.iter_mut().find(|running| running.number == *step) {
                    running.process = Some(process.clone());
                }
            }
            Record::StepEnded { number, outcome } => self.step_ended(*number, outcome, at),
            Record::WarmedUp { levels, .. } => {
                self.warmed_up = true;
                self.levels.clone_from(levels);
            }
            Record::MigrationFinished { how, .. } => {
                self.migration_ended = Some((*how, at));
                self.phase = Phase::Soaking { until: later(at, self.plan.window.soak) };
            }
            Record::VerdictChanged { to, .. } => self.verdict = *to,
            Record::RulePaged { evidence } => self.paging.push(evidence.rule.clone()),
            Record::RuleQuieted { rule } => self.paging.retain(|paging| paging != rule),
            Record::HoldStarted { who, reason } => {
                self.hold = Some(Hold { who: who.clone(), reason: reason.clone(), since: at });
            }
            Record::HoldEnded { .. } => self.hold = None,
            Record::OperatorNeeded { reason, manual } => {
                self.phase = Phase::NeedsOperator { reason: reason.clone(), manual: manual.clone() };
                self.paged_at = Some(at);
                self.hold = None;
                if let Some(rollback) = &mut self.rollback {
                    rollback.end_waiting(at);
                }
            }
            Record::ResolutionStarted { who, force, .. } => {
                if let Phase::NeedsOperator { reason, manual } = &self.phase {
                    self.phase = Phase::Resolving {
                        reason: reason.clone(),
                        manual: manual.clone(),
                        who: who.clone(),
                        forced: *force,
                        proof: Proof::default(),
                    };
                    self.rollback.iter_mut().for_each(Rollback::retry_openings);
                    self.interruptions = 0;
                }
            }
            Record::ResolutionFailed { .. } => {
                if let Phase::Resolving { reason, manual, .. } = &self.phase {
                    self.phase = Phase::NeedsOperator { reason: reason.clone(), manual: manual.clone() };
                }
                self.paged_at = Some(at);
            }
            Record::Acknowledged { who, .. } => self.acknowledged = Some(who.clone()),
            Record::PageRepeated => self.paged_at = Some(at),
            Record::BreachDetected { trigger } => {
                self.phase = Phase::RollingBack;
                self.hold = None;
                self.rollback = Some(Rollback {
                    trigger: trigger.clone(),
                    started_at: at,
                    waited: SignedDuration::ZERO,
                    waiting_since: None,
                    approved: false,
                    classified: None,
                    gates: vec![Gate::default(); self.plan.rollback.gates.len()],
                    attempts: Vec::new(),
                });
            }
            Record::Classified { class, reasons } => {
                self.rollback.iter_mut().for_each(|rollback| rollback.classified = Some((*class, reasons.clone())));
            }
            Record::RungStarted { rung } => self.rollback.iter_mut().for_each(|rollback| rollback.start_rung(*rung)),
            Record::ApprovalRequested { .. } => {
                self.paged_at = Some(at);
                self.rollback.iter_mut().for_each(|rollback| rollback.waiting_since = Some(at));
            }
            Record::ApprovalGiven { .. } => self.rollback.iter_mut().for_each(|rollback| {
                rollback.end_waiting(at);
                rollback.approved = true;
                // Much may have happened while it waited.
                rollback.attempts.iter_mut().next_back().into_iter().for_each(|attempt| attempt.before = None);
            }),
            Record::RungFailed { reason, .. } => {
                self.rollback.iter_mut().for_each(|rollback| rollback.end_rung(reason, at));
            }
            Record::Condensed { .. }
            | Record::Started { .. }
            | Record::OpeningMissed { .. }
            | Record::ClockMoved { .. }
            | Record::WindowOpened { .. }
            | Record::WindowSettled { .. }
            | Record::NoticeOwed { .. }
            | Record::NoticeDelivered { .. }
            | Record::NoticeDead { .. }
            | Record::NoticeCancelled { .. } => {}
        }
    }

    /// Nobody looked while the program was down, and the judge has forgotten what it saw: the soak begins anew.
    fn watched_anew(&mut self, at: Timestamp) {
        self.nothing_is_to_come_from_later_than(at);
        if let Phase::Soaking { until } = &mut self.phase {
            *until = later(at, self.plan.window.soak);
        }
    }
}

impl Rollback {
    fn start_rung(&mut self, rung: usize) {
        self.approved = false;
        self.attempts.push(Attempt {
            rung,
            before: None,
            rows: Vec::new(),
            way_back: Vec::new(),
            restore: Vec::new(),
            act: None,
            acts: 0,
            groups: 0,
            after: None,
            proof: Proof::default(),
            failure: None,
        });
    }

    fn end_rung(&mut self, reason: &str, at: Timestamp) {
        self.end_waiting(at);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.failure = Some(reason.to_owned());
        }
    }

    fn end_waiting(&mut self, at: Timestamp) {
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(at.duration_since(since));
        }
    }

    /// What could not be put back is tried again.
    fn retry_openings(&mut self) {
        for gate in self.gates.iter_mut().filter(|gate| gate.position == GatePosition::OpenFailed) {
            gate.position = GatePosition::Opening;
        }
    }

    pub(super) fn set_gate(&mut self, gate: usize, position: GatePosition, failure: Option<String>) {
        if let Some(gate) = self.gates.get_mut(gate) {
            gate.position = position;
            gate.failure = failure;
        }
    }
}

/// A moment moved by a duration, at most to the end of time.
pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
