//! What a record gives reason to say, and to whom.

use jiff::{SignedDuration, Timestamp};

use super::{Message, MessageLinks, Notice, NoticeEvent, Reason};
use crate::baseline::Class;
use crate::judge::{Evidence, Verdict};
use crate::plan::{Contact, Dispose, Method, Plan, Severity, TableChoice};
use crate::run::apply::later;
use crate::run::record::{Record, Trigger, WindowOutcome};
use crate::run::state::Window;
use crate::words::counted;

/// How long a notice is worth delivering, from when it may be sent.
const NOTICE_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// How many of the things that a rollback costs a message names.
const COSTS_SHOWN: usize = 12;

/// One thing to say, before it is addressed to anybody.
struct Draft {
    event: NoticeEvent,
    summary: String,
    details: Vec<String>,
    reason: Option<Reason>,
}

impl Draft {
    fn new(event: NoticeEvent, summary: impl AsRef<str>, details: Vec<String>) -> Self {
        Self { event, summary: sentence(summary.as_ref()), details, reason: None }
    }
}

/// Words as a sentence: a capital at the start and a full stop at the end.
pub(crate) fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), letters.as_str())
}

/// An instant for people.
fn people(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The notices that a record causes. `window` is the open window after the record, or the one that it settled;
/// `plan` serves where there is none.
pub(crate) fn owed(record: &Record, window: Option<&Window>, plan: &Plan, at: Timestamp) -> Vec<Notice> {
    let drafts = match (record, window) {
        (Record::OpeningMissed { opening, reason }, _) => vec![Draft::new(
            NoticeEvent::WindowRefused,
            format!("the opening of {} was left out: {reason}", people(*opening)),
            vec!["Nothing was changed. The next opening follows the schedule.".to_owned()],
        )],
        (_, Some(window)) => drafts(record, window),
        (_, None) => Vec::new(),
    };
    // Several openings may be left out at once; a window's notices have their sequence.
    let serial = if let Record::OpeningMissed { opening, .. } = record { *opening } else { at }.as_millisecond();
    let mut notices = Vec::new();
    let mut sequence = window.map_or(0, |window| window.messages);
    for draft in drafts {
        sequence += 1;
        let message = message(draft, record, window, plan, sequence);
        notices.extend(address(&message, window, window.map_or(plan, |window| &window.plan), at, serial));
    }
    notices
}

/// A notice that a channel will never take.
pub(crate) struct Loss<'a> {
    /// The notice.
    pub(crate) notice: &'a Notice,
    /// The channel.
    pub(crate) channel: &'a str,
    /// Why not.
    pub(crate) why: &'a str,
    /// The contact's channels that failed before.
    pub(crate) dead: &'a [String],
    /// Whether it was the last of the contact's channels, and none has taken the notice.
    pub(crate) nobody_reached: bool,
    /// Whether somebody has taken charge of the incident.
    pub(crate) acknowledged: bool,
}

/// Escalation: the notices that tell of one that was lost, on the contact's other channels and, when there are none left,
/// to the other contacts.
pub(crate) fn undeliverable(failed: &Loss<'_>, plan: &Plan, at: Timestamp) -> Vec<Notice> {
    let lost = failed.notice;
    if lost.message.event == NoticeEvent::NoticeUndeliverable {
        return Vec::new(); // Or two dead servers would complain about each other for ever.
    }
    let event = NoticeEvent::NoticeUndeliverable;
    let on = match failed.dead {
        [] => format!("on {}", failed.channel),
        dead => format!("on {} and {}, the last", dead.join(", "), failed.channel),
    };
    let said = std::iter::once(format!("What it said: {}", lost.message.summary));
    let message = Message {
        event,
        severity: event.severity(),
        summary: sentence(&format!(
            "\"{}\" did not reach {} {on}: {}",
            lost.message.event.title(),
            lost.contact,
            failed.why
        )),
        details: said.chain(lost.message.details.iter().cloned()).collect(),
        reason: None,
        ..lost.message.clone()
    };
    // Whoever wants to hear of what was lost wants to hear that it was.
    let wanted = |contact: &Contact| contact.severity <= message.severity.max(lost.message.severity);
    let told = plan.contacts.iter().enumerate().filter_map(|(place, contact)| {
        let own = contact.name == lost.contact;
        let channels: Vec<String> = if own {
            let works = |label: &&String| *label != failed.channel && !failed.dead.contains(*label);
            contact.channels.iter().filter(works).cloned().collect()
        } else if failed.nobody_reached && !failed.acknowledged && wanted(contact) {
            contact.channels.clone()
        } else {
            Vec::new()
        };
        (!channels.is_empty()).then(|| Notice {
            id: format!("{}.undeliverable.{place}.{}", lost.id, failed.channel.replace(' ', "-")),
            contact: contact.name.clone(),
            channels,
            at,
            not_before: at,
            expires_at: later(at, NOTICE_LIFE),
            message: message.clone(),
        })
    });
    told.collect()
}

fn message(draft: Draft, record: &Record, window: Option<&Window>, plan: &Plan, sequence: u64) -> Message {
    let plan = window.map_or(plan, |window| &window.plan);
    let state = match (record, window) {
        (Record::WindowSettled { outcome, .. }, _) => outcome.state_name().as_str(),
        (_, Some(window)) => window.state_name().as_str(),
        (_, None) => "scheduled",
    };
    let base = plan.links.base.as_deref();
    let mut details = draft.details;
    if !plan.preflight_skipped.is_empty() {
        details.push(format!("Preflight checks left out by configuration: {}.", plan.preflight_skipped.join(", ")));
    }
    Message {
        event: draft.event,
        severity: draft.event.severity(),
        incident_id: window.map_or_else(|| plan.name.clone(), |window| window.id.clone()),
        sequence,
        plan: plan.name.clone(),
        window: window.map(|window| window.id.clone()),
        host: plan.host.clone(),
        state: state.to_owned(),
        summary: draft.summary,
        details,
        reason: draft.reason,
        links: MessageLinks {
            report: base.zip(window).map(|(base, window)| format!("{base}/api/v1/windows/{}/report", window.id)),
            status: base.map(|base| format!("{base}/api/v1/status")),
            runbook: plan.links.runbook.clone(),
        },
    }
}

/// One notice a contact that the severity reaches.
fn address(message: &Message, window: Option<&Window>, plan: &Plan, at: Timestamp, serial: i64) -> Vec<Notice> {
    let acknowledged = window.is_some_and(|window| window.acknowledged.is_some());
    let reached = plan.contacts.iter().enumerate().filter(|(_, contact)| contact.severity <= message.severity);
    reached
        .filter_map(|(place, contact)| {
            let critical = message.severity == Severity::Critical;
            let held_back = if critical { contact.after } else { SignedDuration::ZERO };
            if held_back.is_positive() && acknowledged {
                return None;
            }
            let id = match &message.window {
                Some(window) => format!("{window}.{}.{place}", message.sequence),
                None => format!("{}.{serial}.{place}", message.incident_id),
            };
            Some(Notice {
                id,
                contact: contact.name.clone(),
                channels: contact.channels.clone(),
                at,
                not_before: later(at, held_back),
                // What is held back does not expire meanwhile.
                expires_at: later(later(at, held_back), NOTICE_LIFE),
                message: message.clone(),
            })
        })
        .collect()
}

/// What a record of a window gives reason to say.
fn drafts(record: &Record, window: &Window) -> Vec<Draft> {
    let id = &window.id;
    match record {
        Record::WindowOpened { ends_at, .. } => vec![Draft::new(
            NoticeEvent::WindowOpened,
            format!("window {id} opened; its hard end is {}", people(*ends_at)),
            opened_details(window),
        )],
        Record::VerdictChanged { to: Verdict::Blind, detail, .. } => vec![Draft::new(
            NoticeEvent::SignalBlind,
            format!("the application cannot be seen: {detail}"),
            vec!["No rollback starts because of this, and the window does not pass while it lasts.".to_owned()],
        )],
        Record::RulePaged { evidence } => vec![Draft {
            reason: Some(reason(evidence)),
            ..Draft::new(NoticeEvent::RulePage, evidence.sentence.clone(), Vec::new())
        }],
        Record::HoldEnded { who, reason } if who == "the clock" => vec![Draft::new(
            NoticeEvent::RulePage,
            format!("the hold on window {id} has ended: {reason}"),
            vec!["Decisions are taken again.".to_owned()],
        )],
        Record::BreachDetected { trigger } => vec![breach(trigger)],
        Record::Classified { class, reasons } => started(window, *class, reasons).into_iter().collect(),
        Record::RungFailed { rung, reason } => vec![Draft::new(
            NoticeEvent::RungFailed,
            format!("{} failed: {reason}", rung_words(window, *rung)),
            vec![match window.plan.rollback.rungs.get(rung + 1) {
                Some(_) => format!("Next: {}.", rung_words(window, rung + 1)),
                None => "It was the last of the ladder.".to_owned(),
            }],
        )],
        Record::ApprovalRequested { rung } => vec![approval(window, *rung)],
        Record::PageRepeated => match (window.phase.needs_operator(), window.rung_now()) {
            (Some((reason, manual)), _) => vec![needs_operator(reason, manual)],
            (None, Some((rung, _))) => vec![approval(window, rung)],
            (None, None) => Vec::new(),
        },
        Record::OperatorNeeded { reason, manual } => vec![needs_operator(reason, manual)],
        Record::ResolutionFailed { reason } => {
            let manual = window.phase.needs_operator().map_or(&[][..], |(_, manual)| manual);
            vec![needs_operator(&format!("it was said to be dealt with, but {reason}"), manual)]
        }
        Record::WindowSettled { outcome, detail } => vec![settled(window, *outcome, detail)],
        Record::Condensed { .. }
        | Record::Started { .. }
        | Record::ClockMoved { .. }
        | Record::OpeningMissed { .. }
        | Record::StepStarted { .. }
        | Record::ProcessStarted { .. }
        | Record::StepEnded { .. }
        | Record::WarmedUp { .. }
        | Record::MigrationFinished { .. }
        | Record::VerdictChanged { .. }
        | Record::RuleQuieted { .. }
        | Record::HoldStarted { .. }
        | Record::HoldEnded { .. }
        | Record::RungStarted { .. }
        | Record::ApprovalGiven { .. }
        | Record::ResolutionStarted { .. }
        | Record::Acknowledged { .. }
        | Record::NoticeOwed { .. }
        | Record::NoticeDelivered { .. }
        | Record::NoticeDead { .. }
        | Record::NoticeCancelled { .. } => Vec::new(),
    }
}

fn opened_details(window: &Window) -> Vec<String> {
    let migration = match &window.plan.window.command {
        Some(command) => format!("The migration: {}", command.join(" ")),
        None => "The migration is run by somebody else, who reports its end with `rollbackd window finished`.".into(),
    };
    let rungs = counted(window.plan.rollback.rungs.len(), "rollback method");
    vec![migration, format!("If the application breaks: {rungs} will be tried, without anybody's help.")]
}

fn reason(evidence: &Evidence) -> Reason {
    Reason {
        rule: evidence.rule.clone(),
        signal: evidence.signal.clone(),
        observed: evidence.observed,
        threshold: evidence.threshold,
        window_seconds: evidence.window.map(|window| window.as_secs_f64()),
        samples: evidence.samples,
    }
}

fn breach(trigger: &Trigger) -> Draft {
    let evidence = trigger.evidence();
    let mut details: Vec<String> = evidence.iter().skip(1).map(|one| one.sentence.clone()).collect();
    details.push("A rollback begins now: traffic is stopped, then the catalog is looked at.".to_owned());
    Draft {
        reason: evidence.first().map(reason),
        ..Draft::new(NoticeEvent::BreachDetected, trigger.sentence(), details)
    }
}

/// The rollback, and what it costs: told as soon as the catalog was looked at.
fn started(window: &Window, class: Option<Class>, reasons: &[String]) -> Option<Draft> {
    let trigger = &window.rollback.as_ref()?.trigger;
    let why = trigger.sentence();
    let gates = counted(window.plan.rollback.gates.len(), "gate");
    let ladder: Vec<String> = (0..window.plan.rollback.rungs.len())
        .map(|rung| format!("{}. {}", rung + 1, method_words(window, rung).unwrap_or_default()))
        .collect();
    let mut plan = vec![format!("Traffic is stopped first ({gates}), then:")];
    plan.extend(ladder);
    let nothing = if class == Some(Class::Irreversible) { "" } else { " You need not do anything now." };
    plan.push(format!("Budget: {:#}.{nothing}", window.plan.rollback.budget));
    plan.splice(0..0, costs(class, reasons));
    let reason = trigger.evidence().first().map(reason);
    Some(Draft { reason, ..Draft::new(NoticeEvent::RollbackStarted, format!("rolling back: {why}"), plan) })
}

/// What taking the migration back costs, in sentences.
fn costs(class: Option<Class>, reasons: &[String]) -> Vec<String> {
    let meaning = match class {
        None => "What it costs is not known: the catalog could not be read.",
        Some(Class::Reversible) => "It is reversible: nothing that was written is lost.",
        Some(Class::Lossy) => "It is lossy: this leaves the live schema, and is kept:",
        Some(Class::Irreversible) => {
            "It is IRREVERSIBLE by statements: only a restore brings this back, so nothing is done without your approval:"
        }
    };
    let shown = reasons.iter().take(COSTS_SHOWN).map(|one| format!("- {one}"));
    let more = reasons.len().saturating_sub(COSTS_SHOWN);
    let rest = (more > 0).then(|| format!("- and {more} more; `rollbackd plan` lists them"));
    std::iter::once(meaning.to_owned()).chain(shown).chain(rest).collect()
}

/// A rung that waits for an approval, and what there is to know before it is given.
pub(crate) fn approval_words(window: &Window, rung: usize) -> (String, Vec<String>) {
    let classified = window.rollback.as_ref().and_then(|rollback| rollback.classified.as_ref());
    let mut details = classified.map(|(class, reasons)| costs(*class, reasons)).unwrap_or_default();
    let attempt = window.rollback.as_ref().and_then(|rollback| rollback.attempts.last());
    let restore = attempt.map_or(&[][..], |attempt| &attempt.restore);
    if !restore.is_empty() {
        details.push("What the restore would do:".to_owned());
        details.extend(restore.iter().take(COSTS_SHOWN).map(|one| format!("- {one}")));
        let more = restore.len().saturating_sub(COSTS_SHOWN);
        details.extend((more > 0).then(|| format!("- and {more} more; `rollbackd report` has them")));
    }
    details.push("Traffic is stopped meanwhile; waiting does not use up the budget.".to_owned());
    (sentence(&format!("{} waits for your approval", rung_words(window, rung))), details)
}

fn approval(window: &Window, rung: usize) -> Draft {
    let (summary, mut details) = approval_words(window, rung);
    details.push("rollbackd approve --reason '…'   or   rollbackd decline --reason '…'".to_owned());
    Draft::new(NoticeEvent::ApprovalRequired, summary, details)
}

fn needs_operator(reason: &str, manual: &[String]) -> Draft {
    let mut details = vec!["Automation has come to its end. What to do now:".to_owned()];
    details.extend(manual.iter().cloned());
    details.push("`rollbackd ack` stops these repeated pages.".to_owned());
    Draft::new(NoticeEvent::RollbackNeedsOperator, format!("an operator is needed: {reason}"), details)
}

fn settled(window: &Window, outcome: WindowOutcome, detail: &str) -> Draft {
    let (event, details) = match outcome {
        WindowOutcome::Passed => (NoticeEvent::WindowPassed, Vec::new()),
        WindowOutcome::Refused => {
            (NoticeEvent::WindowRefused, vec!["The migration was not started; nothing was changed.".to_owned()])
        }
        WindowOutcome::Cancelled => {
            (NoticeEvent::WindowCancelled, vec!["Nobody watches the migration any more.".to_owned()])
        }
        WindowOutcome::Recovered => (NoticeEvent::RollbackRecovered, recovered_details(window)),
        WindowOutcome::Abandoned => (NoticeEvent::WindowCancelled, Vec::new()),
    };
    Draft::new(event, detail, details)
}

fn recovered_details(window: &Window) -> Vec<String> {
    let mut details: Vec<String> = window
        .checks
        .iter()
        .filter(|check| check.passed)
        .map(|check| format!("ok: {} ({})", check.name, check.detail))
        .collect();
    if let Some(rollback) = &window.rollback {
        details.insert(0, format!("Why: {}", rollback.trigger.sentence()));
        if let Some(attempt) = rollback.attempts.last() {
            let earlier = match attempt.groups {
                0 => String::new(),
                groups => {
                    format!(", after {} before it", counted(usize::try_from(groups).unwrap_or(usize::MAX), "group"))
                }
            };
            let act = attempt.act.as_ref().filter(|act| act.is_success());
            details.extend(act.map(|act| format!("Done: {}{earlier}", act.detail)));
        }
    }
    details.extend(window.backup_directory.iter().map(|place| format!("Backup from before the migration: {place}")));
    details
}

/// A rung in words: `rung 1 (script: node scripts/rollback-emergency.js)`.
fn rung_words(window: &Window, rung: usize) -> String {
    let method = method_words(window, rung).map_or_else(String::new, |method| format!(" ({method})"));
    format!("rung {}{method}", rung + 1)
}

fn method_words(window: &Window, rung: usize) -> Option<String> {
    Some(match &window.plan.rollback.rungs.get(rung)?.method {
        Method::Script { command, .. } => format!("script: {}", command.join(" ")),
        Method::Restore => {
            "restore: damaged original tables from the backup, as they were before the migration".to_owned()
        }
        Method::Sql { file } => format!("sql: {file}"),
        Method::Tables(removal) => {
            let which = match &removal.tables {
                TableChoice::Named(names) => counted(names.len(), "named table"),
                TableChoice::Added => "every added table".to_owned(),
                TableChoice::Implicated => "the tables that the signals blame".to_owned(),
            };
            let kind = removal.kind();
            match removal.dispose {
                Dispose::Quarantine => format!("{kind}: {which} to quarantine"),
                Dispose::Drop { archive: true } => format!("{kind}: archive and drop {which}"),
                Dispose::Drop { archive: false } => format!("{kind}: drop {which}"),
            }
        }
    })
}
