//! Records → one sentence each.
//!
//! The sentences of a report's timeline, of a command's live progress and of the demo are these: told once, the
//! same everywhere. They start in lower case and have no full stop; nothing in them is escaped.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::baseline::Class;
use crate::judge::Verdict;
use crate::plan::{Dispose, Method, Plan, Reach, Rung, Stage, TableChoice};
use crate::run::record::{Entry, MigrationEnd, Origin, Record, WindowOutcome};
use crate::run::step::{Moment, Outcome, Step, StepResult};
use crate::words::{counted, words};

/// How much a line matters to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Only when looking closely.
    Detail,
    /// A milestone.
    Info,
    /// Something is not as it should be.
    Warning,
    /// A breach, a method that failed, an operator who is needed.
    Critical,
}

impl Level {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One record, told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Its place in the journal.
    pub seq: u64,
    /// When it was decided.
    #[serde(serialize_with = "super::instant")]
    pub at: Timestamp,
    /// The time since the window opened.
    #[serde(rename = "offset_seconds", serialize_with = "super::seconds")]
    pub offset: SignedDuration,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub sentence: String,
}

/// Tells records, in their order. It remembers what later records refer to by number: the plan, steps, notices.
#[derive(Debug, Clone, Default)]
pub struct Narrator {
    plan: Option<Arc<Plan>>,
    opened_at: Option<Timestamp>,
    steps: BTreeMap<u64, (Step, Timestamp)>,
    notices: BTreeMap<String, String>,
}

impl Narrator {
    /// Tells the next record.
    pub fn tell(&mut self, entry: &Entry) -> Line {
        self.remember(entry);
        let (level, sentence) = (self.level(&entry.record), self.sentence(entry));
        let offset = self.opened_at.map_or(SignedDuration::ZERO, |opened| entry.at.duration_since(opened));
        Line { seq: entry.seq, at: entry.at, offset, level, sentence }
    }

    fn remember(&mut self, entry: &Entry) {
        if let Record::WindowOpened { plan, .. } = &entry.record {
            *self = Self { plan: Some(Arc::clone(plan)), opened_at: Some(entry.at), ..Self::default() };
        } else if let Record::StepStarted { number, step, .. } = &entry.record {
            self.steps.insert(*number, (step.clone(), entry.at));
        } else if let Record::NoticeOwed { notice } = &entry.record {
            let what = format!("{} to {}", notice.message.event.as_str(), notice.contact);
            self.notices.insert(notice.id.clone(), what);
        }
    }

    fn sentence(&self, entry: &Entry) -> String {
        match &entry.record {
            Record::Condensed { carried } => {
                format!(
                    "the records of {} before this are no longer kept",
                    counted(usize::try_from(carried.windows).unwrap_or(usize::MAX), "window")
                )
            }
            Record::Started { version } => format!("rollbackd {version} started and read the journal"),
            Record::OpeningMissed { opening, reason } => {
                format!("the opening of {} was left out: {reason}", rfc(*opening))
            }
            Record::WindowOpened { id, origin, ends_at, .. } => {
                format!("window {id} opened by {}, until {} at the latest", opener(origin), rfc(*ends_at))
            }
            Record::StepStarted { step, deadline, .. } => {
                format!("{} started, until {} at the latest", self.words(step), rfc(*deadline))
            }
            Record::ProcessStarted { step, process } => {
                format!("{} runs as process {}", self.step_words(*step), process.pid)
            }
            Record::StepEnded { number, outcome } => self.ended(*number, outcome, entry.at),
            Record::WarmedUp { healthy_since, levels: _ } => {
                format!("every signal has been healthy since {}", rfc(*healthy_since))
            }
            Record::MigrationFinished { detail, .. } => format!("the migration is over, the soak begins: {detail}"),
            Record::VerdictChanged { from, to, detail } => {
                with("; ", &format!("the verdict went from {} to {}", verdict(*from), verdict(*to)), detail)
            }
            Record::RulePaged { evidence } => format!("people are asked to look: {}", evidence.sentence),
            Record::RuleQuieted { rule } => format!("rule \"{rule}\" no longer holds"),
            Record::HoldStarted { who, reason } => with(": ", &format!("{who} holds decisions"), reason),
            Record::HoldEnded { who, reason } => with(": ", &format!("{who} ended the hold"), reason),
            Record::BreachDetected { trigger } => format!("the rollback is due and starts: {}", trigger.sentence()),
            Record::RungStarted { rung } => format!("{} is tried", self.rung(*rung)),
            Record::ApprovalRequested { rung } => format!("{} waits for an operator's approval", self.rung(*rung)),
            Record::ApprovalGiven { rung, who, reason } => {
                with(": ", &format!("{who} approved {}", self.rung(*rung)), reason)
            }
            Record::RungFailed { rung, reason } => format!("{} failed: {reason}", self.rung(*rung)),
            Record::OperatorNeeded { reason, .. } => format!("an operator is needed: {reason}"),
            Record::ResolutionStarted { who, reason, force: false } => {
                with(": ", &format!("{who} says that the incident is dealt with"), reason)
            }
            Record::ResolutionStarted { who, reason, force: true } => {
                with(": ", &format!("{who} settles the window by force, without verification"), reason)
            }
            Record::ResolutionFailed { reason } => {
                format!("the verification did not pass, an operator is still needed: {reason}")
            }
            Record::Acknowledged { who, reason } => with(": ", &format!("{who} has taken charge"), reason),
            Record::PageRepeated => "people were paged again".to_owned(),
            Record::ClockMoved { by, unseen } => clock_moved(*by, *unseen),
            Record::Classified { class, reasons } => {
                let class = class.map_or("of a class that cannot be told", Class::as_str);
                with(": ", &format!("the rollback is {class}"), &reasons.join("; "))
            }
            Record::WindowSettled { outcome, detail } => with(": ", settled(*outcome), detail),
            Record::NoticeOwed { notice } => format!("notice {} is owed", self.notice(&notice.id)),
            Record::NoticeDelivered { notice, channel } => {
                format!("notice {} was delivered by {channel}", self.notice(notice))
            }
            Record::NoticeDead { notice, channel, reason } => {
                format!("notice {} cannot be delivered by {channel}: {reason}", self.notice(notice))
            }
            Record::NoticeCancelled { notice } => format!("notice {} is not needed any more", self.notice(notice)),
        }
    }

    fn level(&self, record: &Record) -> Level {
        match record {
            Record::StepStarted { .. }
            | Record::ProcessStarted { .. }
            | Record::NoticeOwed { .. }
            | Record::NoticeDelivered { .. }
            | Record::NoticeCancelled { .. } => Level::Detail,
            Record::WindowOpened { .. }
            | Record::Condensed { .. }
            | Record::WarmedUp { .. }
            | Record::RuleQuieted { .. }
            | Record::HoldEnded { .. }
            | Record::RungStarted { .. }
            | Record::ApprovalGiven { .. }
            | Record::ResolutionStarted { .. }
            | Record::Acknowledged { .. } => Level::Info,
            Record::Started { .. }
            | Record::OpeningMissed { .. }
            | Record::ClockMoved { .. }
            | Record::RulePaged { .. }
            | Record::HoldStarted { .. }
            | Record::PageRepeated
            | Record::Classified { .. }
            | Record::NoticeDead { .. } => Level::Warning,
            Record::BreachDetected { .. }
            | Record::ApprovalRequested { .. }
            | Record::RungFailed { .. }
            | Record::OperatorNeeded { .. }
            | Record::ResolutionFailed { .. } => Level::Critical,
            Record::StepEnded { number, outcome } => match outcome.result {
                StepResult::Succeeded if self.is_minor(*number) => Level::Detail,
                StepResult::Succeeded => Level::Info,
                StepResult::Failed | StepResult::TimedOut | StepResult::Unknown => Level::Warning,
            },
            Record::MigrationFinished { how, .. } => match how {
                MigrationEnd::Succeeded | MigrationEnd::Reported => Level::Info,
                MigrationEnd::FailedAndLeft | MigrationEnd::HardEnd | MigrationEnd::ExitUnknown => Level::Warning,
            },
            Record::VerdictChanged { to, .. } => match to {
                Verdict::Healthy => Level::Info,
                Verdict::Suspect | Verdict::Blind => Level::Warning,
                Verdict::Breached => Level::Critical,
            },
            Record::WindowSettled { outcome, .. } => match outcome {
                WindowOutcome::Passed | WindowOutcome::Recovered => Level::Info,
                WindowOutcome::Refused | WindowOutcome::Cancelled | WindowOutcome::Abandoned => Level::Warning,
            },
        }
    }

    /// How a step ended.
    fn ended(&self, number: u64, outcome: &Outcome, at: Timestamp) -> String {
        let took = self.steps.get(&number).map(|(_, started)| format!(" ({})", span(at.duration_since(*started))));
        let took = took.unwrap_or_default();
        let how = match outcome.result {
            StepResult::Succeeded => format!("succeeded{took}"),
            StepResult::Failed => format!("failed{took}"),
            StepResult::TimedOut => format!("ran out of time{took}"),
            StepResult::Unknown => "was interrupted, nobody knows how it ended".to_owned(),
        };
        with(": ", &format!("{} {how}", self.step_words(number)), &outcome.detail)
    }

    /// Whether a step is no milestone when all is well.
    fn is_minor(&self, number: u64) -> bool {
        matches!(self.steps.get(&number), Some((Step::ReadGate { .. }, _)))
    }

    fn step_words(&self, number: u64) -> String {
        self.steps.get(&number).map_or_else(|| format!("step {number}"), |(step, _)| self.words(step))
    }

    /// What a step does.
    pub(super) fn words(&self, step: &Step) -> String {
        match step {
            Step::Preflight => "the preflight".to_owned(),
            Step::Backup => "the backup with the baseline".to_owned(),
            Step::Migrate => "the migration".to_owned(),
            // Only a journal that is not ours could name an ending here; it must not lead round in circles.
            Step::EndProcess { of } => match self.steps.get(of) {
                Some((Step::EndProcess { .. } | Step::AwaitProcess { .. }, _)) | None => {
                    format!("ending the process of step {of}")
                }
                Some((step, _)) => format!("ending the process of {}", self.words(step)),
            },
            Step::AwaitProcess { .. } => "waiting for the migration that outlived a restart".to_owned(),
            Step::ReadGate { gate } => format!("reading gate {}", self.gate(*gate)),
            Step::CloseGate { gate } => format!("closing gate {}", self.gate(*gate)),
            Step::OpenGate { gate } => format!("reopening gate {}", self.gate(*gate)),
            Step::Inspect { rung, moment: Moment::Before } => format!("the inspection before {}", self.rung(*rung)),
            Step::Inspect { rung, moment: Moment::After } => format!("the inspection after {}", self.rung(*rung)),
            Step::Act { rung } => format!("the work of {}", self.rung(*rung)),
            Step::Verify { stage: Stage::Closed } => "the verification with traffic stopped".to_owned(),
            Step::Verify { stage: Stage::Open } => "the verification with traffic resumed".to_owned(),
        }
    }

    fn gate(&self, place: usize) -> String {
        let gate = self.plan.as_ref().and_then(|plan| plan.rollback.gates.get(place));
        gate.map_or_else(|| format!("{}", place.saturating_add(1)), |gate| gate.name.clone())
    }

    fn rung(&self, place: usize) -> String {
        let number = place.saturating_add(1);
        let rung = self.plan.as_ref().and_then(|plan| plan.rollback.rungs.get(place));
        rung.map_or_else(|| format!("rung {number}"), |rung| format!("rung {number} ({})", rung.method.kind()))
    }

    fn notice(&self, id: &str) -> &str {
        self.notices.get(id).map_or("(unknown)", String::as_str)
    }
}

/// What a step of a window with this plan does: `closing gate edge`.
pub fn step_words(plan: &Arc<Plan>, step: &Step) -> String {
    Narrator { plan: Some(Arc::clone(plan)), ..Narrator::default() }.words(step)
}

/// Who opened a window.
pub(super) fn opener(origin: &Origin) -> String {
    match origin {
        Origin::Schedule => "the schedule".to_owned(),
        Origin::Operator { who, reason } => with(": ", who, reason),
        Origin::Guard { who } => format!("{who} with `rollbackd guard`"),
    }
}

/// What a rung does, with its command or tables.
pub(super) fn method(rung: &Rung) -> String {
    match &rung.method {
        Method::Script { command, .. } => format!("runs {}", command.join(" ")),
        Method::Restore => "restores missing or damaged original tables from the backup".to_owned(),
        Method::Sql { file } => format!("runs {file} in one transaction"),
        Method::Tables(removal) => {
            let tables = match &removal.tables {
                TableChoice::Named(names) => counted(names.len(), "named table"),
                TableChoice::Added => "every table that is not in the baseline".to_owned(),
                TableChoice::Implicated => "the tables that the signals blame".to_owned(),
            };
            let removes = match removal.dispose {
                Dispose::Quarantine => format!("moves {tables} to quarantine"),
                Dispose::Drop { archive: true } => format!("archives and drops {tables}"),
                Dispose::Drop { archive: false } => format!("drops {tables}"),
            };
            match removal.reach {
                Reach::Related | Reach::Attached => removes,
                Reach::Everything => format!("puts the whole catalog back to the baseline and {removes}"),
            }
        }
    }
}

const fn settled(outcome: WindowOutcome) -> &'static str {
    match outcome {
        WindowOutcome::Passed => "the window passed",
        WindowOutcome::Refused => "the window was refused, nothing was changed",
        WindowOutcome::Cancelled => "the window was cancelled",
        WindowOutcome::Recovered => "the application has recovered",
        WindowOutcome::Abandoned => "an operator settled the window without a verification that passed",
    }
}

/// What is so after the clock was set, or nothing was looked at.
fn clock_moved(by: SignedDuration, unseen: SignedDuration) -> String {
    let whole = |time: SignedDuration| words(time.round(jiff::Unit::Second).unwrap_or(time));
    let set = match by.signum() {
        0 => None,
        sign => {
            let way = if sign > 0 { "forward" } else { "back" };
            Some(format!("the clock was set {way} by {}; the window's times move along", whole(by)))
        }
    };
    let stood = (!unseen.is_zero()).then(|| {
        let how_long = whole(unseen);
        format!("nothing was looked at for {how_long} (the machine slept, or rollbackd did not run), which counts for nothing")
    });
    [set, stood].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Suspect => "suspect",
        Verdict::Blind => "blind",
        Verdict::Breached => "breached",
    }
}

/// Two parts of a sentence, or the first alone when the second says nothing.
fn with(joint: &str, words: &str, detail: &str) -> String {
    if detail.trim().is_empty() { words.to_owned() } else { format!("{words}{joint}{detail}") }
}

/// An instant in RFC 3339, UTC, with milliseconds.
pub(super) fn rfc(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A duration for people: `340 ms`, `12.3 s`, `14m 12s`.
pub(super) fn span(duration: SignedDuration) -> String {
    let millis = duration.as_millis();
    match millis {
        -999..=999 => format!("{millis} ms"),
        -59_999..=59_999 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{:#}", SignedDuration::from_secs(duration.as_secs())),
    }
}
