//! Records → what happened, for people.
//!
//! [`of`] turns the records of one window into a [`Report`]; `serde` makes JSON of it and [`Report::markdown`] a
//! text. Nothing is looked up elsewhere: a report rests on what the journal holds, so it can be made at any time,
//! of a window that is still open as well, and is the same each time. The sentences of the timeline come from the
//! [`Narrator`], which live progress uses too.

mod assemble;
mod markdown;
mod narrate;
mod outcome;
mod text;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

pub use self::narrate::{Level, Line, Narrator, step_words};
use crate::baseline::Class;
use crate::judge::Evidence;
use crate::plan::Severity;
use crate::run::record::Entry;
use crate::run::step::{RemovalFinding, StepResult};

/// What happened in one window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The plan's name.
    pub plan: String,
    /// The host that guards.
    pub host: String,
    /// The window's id.
    pub window: String,
    /// Who or what opened it.
    pub origin: String,
    /// Where it stands, in the words of the API's `state`.
    pub state: &'static str,
    /// How it ended: `passed`, `refused`, `cancelled`, `recovered`, `needs_operator`; absent while it is open.
    pub outcome: Option<&'static str>,
    /// The outcome in a few words.
    pub headline: String,
    /// The outcome in sentences.
    pub summary: Vec<String>,
    /// What the removal of tables means for their rows, where rows were counted.
    pub class: Option<Class>,
    /// When it opened.
    #[serde(serialize_with = "instant")]
    pub started_at: Timestamp,
    /// The hard end of the migration.
    #[serde(serialize_with = "instant")]
    pub hard_end: Timestamp,
    /// When it was settled.
    #[serde(serialize_with = "instant_or_none")]
    pub ended_at: Option<Timestamp>,
    /// From the opening to the settlement, or to the last record.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: SignedDuration,
    /// Preflight checks that were configured away.
    pub preflight_skipped: Vec<String>,
    /// The migration's command as shown to people; absent when somebody else runs it.
    pub command: Option<String>,
    /// The backup.
    pub backup: Option<Backup>,
    /// Why it was rolled back.
    pub trigger: Option<Why>,
    /// What taking the migration back would cost.
    pub costs: Option<Costs>,
    /// The rungs that were tried, in order.
    pub rungs: Vec<Attempt>,
    /// What a person has to do, while an operator is needed: comments start with `--`, the rest are the commands.
    pub manual: Vec<String>,
    /// The checks of the last verification.
    pub checks: Vec<Check>,
    /// What differed from the baseline when it was last looked at.
    pub remains: Option<Remains>,
    /// The ways to stop traffic.
    pub gates: Vec<Gate>,
    /// The checks of the preflight.
    pub preflight: Vec<Check>,
    /// Every step.
    pub steps: Vec<StepLine>,
    /// Every record, told.
    pub timeline: Vec<Line>,
    /// Who was told what.
    pub notices: Vec<NoticeLine>,
}

/// What taking the migration back would cost, as the first look showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// The class; absent when the catalog could not be read.
    pub class: Option<Class>,
    /// What makes it so, in words.
    pub reasons: Vec<String>,
}

/// Where the backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Its directory.
    pub directory: String,
    /// Its size.
    pub bytes: u64,
}

/// Why a window was rolled back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// What kind of trigger it was: `rule`, `migration`, `hard_end`, `operator`.
    pub kind: &'static str,
    /// When.
    #[serde(serialize_with = "instant")]
    pub at: Timestamp,
    /// In one sentence.
    pub sentence: String,
    /// The evidence of each breached rule.
    pub evidence: Vec<Proof>,
}

/// The evidence of one breached rule, as a report shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The rule.
    pub rule: String,
    /// The signal, or several joined by `, `.
    pub signal: String,
    /// What was observed.
    pub observed: f64,
    /// What is allowed.
    pub threshold: f64,
    /// The window that was looked at, where the condition has one.
    #[serde(rename = "window_seconds", serialize_with = "seconds_or_none")]
    pub window: Option<SignedDuration>,
    /// Events behind the observation.
    pub samples: u64,
    /// The reason that the latest bad sample gave.
    pub last_reason: Option<String>,
    /// When the rule began to hold.
    #[serde(serialize_with = "instant")]
    pub since: Timestamp,
    /// When it was evaluated.
    #[serde(serialize_with = "instant")]
    pub at: Timestamp,
    /// Tables that its signals implicate.
    pub implicates: Vec<String>,
    /// All of this in one sentence.
    pub sentence: String,
}

impl From<&Evidence> for Proof {
    fn from(evidence: &Evidence) -> Self {
        Self {
            rule: evidence.rule.clone(),
            signal: evidence.signal.clone(),
            observed: evidence.observed,
            threshold: evidence.threshold,
            window: evidence.window,
            samples: evidence.samples,
            last_reason: evidence.last_reason.clone(),
            since: evidence.since,
            at: evidence.at,
            implicates: evidence.implicates.clone(),
            sentence: evidence.sentence.clone(),
        }
    }
}

/// How a rung ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// The verification passed after it.
    Recovered,
    /// It did not bring the application back.
    Failed,
    /// It has not come to an end.
    Unfinished,
}

/// One rung that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Its place in the plan, from 1.
    pub number: usize,
    /// Its kind as configured.
    pub kind: &'static str,
    /// What it does.
    pub method: String,
    /// When it was tried.
    #[serde(serialize_with = "instant")]
    pub started_at: Timestamp,
    /// How it ended.
    pub result: AttemptResult,
    /// Why it failed.
    pub failure: Option<String>,
    /// Whether its work was done; what the catalog and the checks say of it is another matter.
    pub work: Option<StepResult>,
    /// What its work came to, in its own words.
    pub detail: Option<String>,
    /// What differed from the baseline before it.
    pub before: Option<String>,
    /// What differed from the baseline after it.
    pub after: Option<String>,
    /// What it removed.
    pub removal: Option<RemovalFinding>,
    /// What its process left.
    pub process: Option<ProcessEnd>,
}

/// What a process left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessEnd {
    /// Its exit code; absent when a signal ended it or nobody knows.
    pub exit_code: Option<i32>,
    /// The end of what it printed.
    pub output: String,
    /// Where all that was kept of it is.
    pub output_file: Option<String>,
}

/// One check of a preflight or a verification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// What differed from the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// When it was looked at.
    #[serde(serialize_with = "instant")]
    pub at: Timestamp,
    /// In one line.
    pub summary: String,
    /// Not in the baseline.
    pub added: Vec<String>,
    /// In the baseline, gone.
    pub removed: Vec<String>,
    /// In both, defined differently.
    pub changed: Vec<String>,
}

/// Where a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GatePosition {
    /// As it was found.
    Untouched,
    /// A change was started, and it is not known to have come about.
    Unsure,
    /// Traffic is stopped.
    Closed,
    /// Put back to what it was.
    Reopened,
}

impl GatePosition {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Unsure => "unsure",
            Self::Closed => "closed",
            Self::Reopened => "reopened",
        }
    }
}

/// One way to stop traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// Whether a rollback may not go on without it.
    pub required: bool,
    /// Where it stands.
    pub position: GatePosition,
    /// When it was last closed.
    #[serde(serialize_with = "instant_or_none")]
    pub closed_at: Option<Timestamp>,
    /// When it was last put back.
    #[serde(serialize_with = "instant_or_none")]
    pub reopened_at: Option<Timestamp>,
    /// Why the last attempt to move it failed.
    pub failure: Option<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepLine {
    /// Its number in the window.
    pub number: u64,
    /// Its stable name.
    pub name: &'static str,
    /// What it does, in words.
    pub words: String,
    /// When it started.
    #[serde(serialize_with = "instant")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(serialize_with = "instant_or_none")]
    pub ended_at: Option<Timestamp>,
    /// How long it took.
    #[serde(rename = "took_seconds", serialize_with = "seconds_or_none")]
    pub took: Option<SignedDuration>,
    /// How it ended.
    pub result: Option<StepResult>,
    /// What it found or did.
    pub detail: Option<String>,
}

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoticeLine {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub event: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// Who is told.
    pub contact: String,
    /// When it became owed.
    #[serde(serialize_with = "instant")]
    pub at: Timestamp,
    /// What it says.
    pub summary: String,
    /// How far it is on each channel.
    pub channels: Vec<Delivery>,
}

/// How far a notice is on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// The channel.
    pub channel: String,
    /// How far it is.
    pub state: DeliveryState,
    /// When it got there.
    #[serde(serialize_with = "instant_or_none")]
    pub at: Option<Timestamp>,
    /// Why it cannot be delivered.
    pub reason: Option<String>,
}

/// How far a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not acknowledged yet.
    Owed,
    /// The receiving server has it.
    Delivered,
    /// It never can be.
    Undeliverable,
    /// It was held back and is not needed any more.
    Cancelled,
}

/// The report of the window whose opening is the first among these records. Records of other windows are left out;
/// those of no window count while it is open. `None` when no window opens in them.
pub fn of(entries: &[Entry]) -> Option<Report> {
    assemble::assemble(entries)
}

impl Report {
    /// The report as a text that can be read as it stands.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }
}

/// An instant in RFC 3339, UTC, with milliseconds: the only form in which times leave a report.
fn instant<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&narrate::rfc(*at))
}

#[expect(clippy::ref_option, reason = "serde hands references")]
fn instant_or_none<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(narrate::rfc).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "serde hands references")]
fn seconds_or_none<S: Serializer>(duration: &Option<SignedDuration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests;
