//! The records of a window, taken in one by one, become the parts of its report.

use jiff::Timestamp;

use super::narrate::{Narrator, method, opener};
use super::outcome::{self, Ending};
use super::{
    Attempt, AttemptResult, Backup, Check, Costs, Delivery, DeliveryState, Gate, GatePosition, NoticeLine, ProcessEnd,
    Remains, Report, StepLine, Why,
};
use crate::baseline::Difference;
use crate::plan::{Plan, Stage};
use crate::run::record::{Entry, Origin, Record, Trigger, WindowOutcome};
use crate::run::state::StateName;
use crate::run::step::{CheckResult, Finding, Moment, Outcome, Step};

/// Reads the records of the first window among them.
pub(super) fn assemble(entries: &[Entry]) -> Option<Report> {
    let (first, opening) =
        entries.iter().enumerate().find(|(_, entry)| matches!(entry.record, Record::WindowOpened { .. }))?;
    let Record::WindowOpened { id, origin, ends_at, plan, .. } = &opening.record else { return None };
    let mut assembly = Assembly::new(id, origin, plan, opening.at, *ends_at);
    for entry in entries.iter().skip(first) {
        let belongs = match &entry.window {
            Some(window) => window == id,
            None => assembly.report.ended_at.is_none(),
        };
        if belongs {
            assembly.take(entry);
        }
    }
    Some(assembly.finish())
}

/// A report in the making, and what is needed only while it is made.
struct Assembly<'a> {
    plan: &'a Plan,
    narrator: Narrator,
    report: Report,
    /// Steps by their place in the report.
    steps: Vec<Step>,
    phase: StateName,
    /// Whether decisions are held.
    held: bool,
    settled: Option<(WindowOutcome, String)>,
    /// The last reason for which an operator is needed.
    needed: Option<String>,
    last_at: Timestamp,
}

impl<'a> Assembly<'a> {
    fn new(id: &str, origin: &Origin, plan: &'a Plan, at: Timestamp, hard_end: Timestamp) -> Self {
        let gate = |gate: &crate::plan::GatePlan| Gate {
            name: gate.name.clone(),
            required: gate.required,
            position: GatePosition::Untouched,
            closed_at: None,
            reopened_at: None,
            failure: None,
        };
        let report = Report {
            plan: plan.name.clone(),
            host: plan.host.clone(),
            window: id.to_owned(),
            origin: opener(origin),
            state: "",
            outcome: None,
            headline: String::new(),
            summary: Vec::new(),
            class: None,
            costs: None,
            started_at: at,
            hard_end,
            ended_at: None,
            duration: jiff::SignedDuration::ZERO,
            preflight_skipped: plan.preflight_skipped.clone(),
            command: plan.window.command.as_ref().map(|command| command.join(" ")),
            backup: None,
            trigger: None,
            rungs: Vec::new(),
            manual: Vec::new(),
            checks: Vec::new(),
            remains: None,
            gates: plan.rollback.gates.iter().map(gate).collect(),
            preflight: Vec::new(),
            steps: Vec::new(),
            timeline: Vec::new(),
            notices: Vec::new(),
        };
        Self {
            plan,
            narrator: Narrator::default(),
            report,
            steps: Vec::new(),
            phase: StateName::Preparing,
            held: false,
            settled: None,
            needed: None,
            last_at: at,
        }
    }

    fn take(&mut self, entry: &Entry) {
        let line = self.narrator.tell(entry);
        self.report.timeline.push(line);
        // What still happens to notices after the settlement is no part of the window's time.
        if self.settled.is_none() {
            self.last_at = entry.at;
        }
        match &entry.record {
            Record::StepStarted { number, step, .. } => self.step_started(*number, step, entry.at),
            Record::StepEnded { number, outcome } => self.step_ended(*number, outcome, entry.at),
            Record::MigrationFinished { .. } => self.phase = StateName::Soaking,
            Record::HoldStarted { .. } => self.held = true,
            Record::HoldEnded { .. } => self.held = false,
            Record::BreachDetected { trigger } => self.breached(trigger, entry.at),
            Record::RungStarted { rung } => self.rung_started(*rung, entry.at),
            Record::RungFailed { rung, reason } => self.rung_failed(*rung, reason),
            Record::OperatorNeeded { reason, manual } => {
                self.phase = StateName::NeedsOperator;
                self.needed = Some(reason.clone());
                self.report.manual.clone_from(manual);
            }
            Record::ResolutionStarted { .. } => self.phase = StateName::Verifying,
            Record::ResolutionFailed { .. } => self.phase = StateName::NeedsOperator,
            Record::WindowSettled { outcome, detail } => {
                self.settled = Some((*outcome, detail.clone()));
                self.report.ended_at = Some(entry.at);
            }
            Record::NoticeOwed { notice } => self.report.notices.push(NoticeLine {
                id: notice.id.clone(),
                event: notice.message.event.as_str(),
                severity: notice.message.severity,
                contact: notice.contact.clone(),
                at: notice.at,
                summary: notice.message.summary.clone(),
                channels: notice
                    .channels
                    .iter()
                    .map(|channel| Delivery {
                        channel: channel.clone(),
                        state: DeliveryState::Owed,
                        at: None,
                        reason: None,
                    })
                    .collect(),
            }),
            Record::NoticeDelivered { notice, channel } => {
                self.delivery(notice, Some(channel), DeliveryState::Delivered, entry.at, None);
            }
            Record::NoticeDead { notice, channel, reason } => {
                self.delivery(notice, Some(channel), DeliveryState::Undeliverable, entry.at, Some(reason));
            }
            Record::NoticeCancelled { notice } => {
                self.delivery(notice, None, DeliveryState::Cancelled, entry.at, None);
            }
            Record::Condensed { .. }
            | Record::Started { .. }
            | Record::OpeningMissed { .. }
            | Record::ClockMoved { .. }
            | Record::WindowOpened { .. }
            | Record::ProcessStarted { .. }
            | Record::WarmedUp { .. }
            | Record::VerdictChanged { .. }
            | Record::RulePaged { .. }
            | Record::RuleQuieted { .. }
            | Record::ApprovalRequested { .. }
            | Record::ApprovalGiven { .. }
            | Record::Acknowledged { .. }
            | Record::PageRepeated => {}
            Record::Classified { class, reasons } => {
                self.report.costs = Some(Costs { class: *class, reasons: reasons.clone() });
            }
        }
    }

    fn step_started(&mut self, number: u64, step: &Step, at: Timestamp) {
        match step {
            Step::CloseGate { gate } | Step::OpenGate { gate } => {
                if let Some(gate) = self.report.gates.get_mut(*gate) {
                    gate.position = GatePosition::Unsure;
                }
            }
            Step::Verify { .. } if self.phase == StateName::RollingBack => self.phase = StateName::Verifying,
            Step::Migrate if self.phase == StateName::Preparing => self.phase = StateName::Watching,
            Step::Preflight
            | Step::Backup
            | Step::Migrate
            | Step::EndProcess { .. }
            | Step::AwaitProcess { .. }
            | Step::ReadGate { .. }
            | Step::Inspect { .. }
            | Step::Act { .. }
            | Step::Verify { .. } => {}
        }
        self.steps.push(step.clone());
        self.report.steps.push(StepLine {
            number,
            name: step.name(),
            words: self.narrator.words(step),
            started_at: at,
            ended_at: None,
            took: None,
            result: None,
            detail: None,
        });
    }

    fn step_ended(&mut self, number: u64, outcome: &Outcome, at: Timestamp) {
        let Some(place) = self.report.steps.iter().rposition(|line| line.number == number) else { return };
        let Some(step) = self.steps.get(place).cloned() else { return };
        if let Some(line) = self.report.steps.get_mut(place) {
            line.ended_at = Some(at);
            line.took = Some(at.duration_since(line.started_at));
            line.result = Some(outcome.result);
            line.detail = Some(outcome.detail.clone());
        }
        match step {
            Step::Preflight => self.report.preflight = outcome.checks().iter().map(check).collect(),
            Step::Backup => self.backed_up(outcome),
            Step::ReadGate { gate } => self.gate_ended(gate, outcome, None, at),
            Step::CloseGate { gate } => self.gate_ended(gate, outcome, Some(GatePosition::Closed), at),
            Step::OpenGate { gate } => self.gate_ended(gate, outcome, Some(GatePosition::Reopened), at),
            Step::Inspect { rung, moment } => self.inspected(rung, moment, outcome, at),
            Step::Act { rung } => self.acted(rung, outcome),
            Step::Verify { stage } => self.verified(stage, outcome),
            Step::Migrate | Step::EndProcess { .. } | Step::AwaitProcess { .. } => {}
        }
    }

    fn backed_up(&mut self, outcome: &Outcome) {
        if let Finding::Backup { directory, bytes, .. } = &outcome.finding {
            self.report.backup = Some(Backup { directory: directory.clone(), bytes: *bytes });
            // Without a command of ours the migration is somebody else's from here on.
            if outcome.is_success() && self.plan.window.command.is_none() && self.phase == StateName::Preparing {
                self.phase = StateName::Watching;
            }
        }
    }

    fn gate_ended(&mut self, gate: usize, outcome: &Outcome, reached: Option<GatePosition>, at: Timestamp) {
        let Some(gate) = self.report.gates.get_mut(gate) else { return };
        if !outcome.is_success() {
            gate.failure = Some(outcome.detail.clone());
            return;
        }
        gate.failure = None;
        match reached {
            Some(GatePosition::Closed) => gate.closed_at = Some(at),
            Some(GatePosition::Reopened) => gate.reopened_at = Some(at),
            Some(GatePosition::Untouched | GatePosition::Unsure) | None => {}
        }
        gate.position = reached.unwrap_or(gate.position);
    }

    fn inspected(&mut self, rung: usize, moment: Moment, outcome: &Outcome, at: Timestamp) {
        let words = if let Finding::Difference { difference, .. } = &outcome.finding {
            self.report.remains = Some(remains(difference, at));
            difference.summary()
        } else {
            format!("could not be seen: {}", outcome.detail)
        };
        if let Some(attempt) = self.attempt(rung) {
            match moment {
                Moment::Before => attempt.before = Some(words),
                Moment::After => attempt.after = Some(words),
            }
        }
    }

    fn acted(&mut self, rung: usize, outcome: &Outcome) {
        let Some(attempt) = self.attempt(rung) else { return };
        attempt.work = Some(outcome.result);
        attempt.detail = Some(outcome.detail.clone());
        match &outcome.finding {
            Finding::Process { exit_code, output, output_file } => {
                attempt.process = Some(ProcessEnd {
                    exit_code: *exit_code,
                    output: output.clone(),
                    output_file: output_file.clone(),
                });
            }
            Finding::Removal(removal) => match &mut attempt.removal {
                Some(earlier) if earlier.more => earlier.join(removal),
                Some(_) | None => attempt.removal = Some(removal.clone()),
            },
            Finding::Nothing
            | Finding::Checks { .. }
            | Finding::Backup { .. }
            | Finding::Gate { .. }
            | Finding::Difference { .. } => {}
        }
    }

    /// A verification begins with traffic stopped; what is checked with traffic resumed belongs to the same.
    fn verified(&mut self, stage: Stage, outcome: &Outcome) {
        let found = outcome.checks();
        match stage {
            Stage::Closed => self.report.checks.clear(),
            Stage::Open => self.report.checks.retain(|known| found.iter().all(|new| new.name != known.name)),
        }
        self.report.checks.extend(found.iter().map(check));
    }

    fn breached(&mut self, trigger: &Trigger, at: Timestamp) {
        self.phase = StateName::RollingBack;
        let evidence = match trigger {
            Trigger::Rules { evidence } => evidence.iter().map(Into::into).collect(),
            Trigger::Migration { .. } | Trigger::HardEnd | Trigger::Operator { .. } => Vec::new(),
        };
        self.report.trigger = Some(Why { kind: trigger.name(), at, sentence: trigger.sentence(), evidence });
    }

    fn rung_started(&mut self, rung: usize, at: Timestamp) {
        self.phase = StateName::RollingBack;
        let planned = self.plan.rollback.rungs.get(rung);
        self.report.rungs.push(Attempt {
            number: rung.saturating_add(1),
            kind: planned.map_or("unknown", |rung| rung.method.kind()),
            method: planned.map(method).unwrap_or_default(),
            started_at: at,
            result: AttemptResult::Unfinished,
            failure: None,
            work: None,
            detail: None,
            before: None,
            after: None,
            removal: None,
            process: None,
        });
    }

    fn rung_failed(&mut self, rung: usize, reason: &str) {
        self.phase = StateName::RollingBack;
        if let Some(attempt) = self.attempt(rung) {
            attempt.result = AttemptResult::Failed;
            attempt.failure = Some(reason.to_owned());
        }
    }

    fn attempt(&mut self, rung: usize) -> Option<&mut Attempt> {
        self.report.rungs.iter_mut().rfind(|attempt| attempt.number == rung.saturating_add(1))
    }

    /// Notes how far a notice is, on one channel or on all that are still owed.
    fn delivery(&mut self, id: &str, channel: Option<&str>, state: DeliveryState, at: Timestamp, reason: Option<&str>) {
        let notices = self.report.notices.iter_mut().filter(|notice| notice.id == id);
        for delivery in notices.flat_map(|notice| &mut notice.channels) {
            let meant = channel.map_or(delivery.state == DeliveryState::Owed, |channel| delivery.channel == channel);
            if meant {
                delivery.state = state;
                delivery.at = Some(at);
                delivery.reason = reason.map(str::to_owned);
            }
        }
    }

    fn finish(mut self) -> Report {
        let state = match self.settled.as_ref().map(|(outcome, _)| *outcome) {
            Some(WindowOutcome::Passed) => StateName::Passed,
            Some(WindowOutcome::Refused) => StateName::Refused,
            Some(WindowOutcome::Cancelled) => StateName::Cancelled,
            Some(WindowOutcome::Recovered) => StateName::Recovered,
            // Nobody has shown that the application recovered.
            Some(WindowOutcome::Abandoned) => StateName::NeedsOperator,
            None if self.held && self.phase != StateName::NeedsOperator => StateName::Held,
            None => self.phase,
        };
        self.report.state = state.as_str();
        self.report.outcome = match state {
            StateName::Passed
            | StateName::Refused
            | StateName::Cancelled
            | StateName::Recovered
            | StateName::NeedsOperator => Some(state.as_str()),
            StateName::Scheduled
            | StateName::Preparing
            | StateName::Watching
            | StateName::Soaking
            | StateName::Held
            | StateName::RollingBack
            | StateName::Verifying => None,
        };
        if self.settled.is_some() {
            self.report.manual.clear();
        }
        self.report.duration = self.last_at.duration_since(self.report.started_at);
        let by_rung = state == StateName::Recovered && self.needed.is_none();
        if let Some(last) = self.report.rungs.last_mut().filter(|last| by_rung && last.failure.is_none()) {
            last.result = AttemptResult::Recovered;
        }
        self.report.class = outcome::class(&self.report.rungs, self.report.costs.as_ref());
        let ending = Ending { state, settled: self.settled, needed: self.needed, last_at: self.last_at };
        self.report.headline = ending.headline(&self.report);
        self.report.summary = ending.summary(&self.report);
        self.report
    }
}

fn check(result: &CheckResult) -> Check {
    Check { name: result.name.clone(), kind: result.kind.clone(), passed: result.passed, detail: result.detail.clone() }
}

fn remains(difference: &Difference, at: Timestamp) -> Remains {
    Remains {
        at,
        summary: difference.summary(),
        added: difference.added.iter().map(ToString::to_string).collect(),
        removed: difference.removed.iter().map(ToString::to_string).collect(),
        changed: difference.changed.iter().map(|change| change.id.to_string()).collect(),
    }
}
