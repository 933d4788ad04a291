//! The state that the records make.
//!
//! Only [`State::apply`] changes it, and only records go in: the same function serves live and after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{MigrationEnd, Origin, Process, Trigger, WindowOutcome};
use super::step::{CheckResult, Outcome, Step};
use crate::baseline::{Baseline, Class, Difference, RowCount};
use crate::judge::{Level, Verdict};
use crate::notice::Notice;
use crate::plan::Plan;

/// Everything that is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// The last record's place in the journal.
    pub seq: u64,
    /// When the program first started with this journal.
    pub first_started_at: Option<Timestamp>,
    /// The last scheduled opening that was opened or left out.
    pub last_opening: Option<Timestamp>,
    /// The window that is not settled yet.
    pub window: Option<Window>,
    /// Settled windows whose records are kept, oldest first.
    pub history: Vec<Settled>,
    /// How many settled windows were let go before them.
    pub let_go: u64,
    /// The results of the verification of the last settled window that was rolled back.
    pub last_checks: Vec<CheckResult>,
    /// How it came that the last settled window ended as it did.
    pub last_ending: Option<Ending>,
    /// Notices that are still owed, in the order in which they became owed.
    pub owed: Vec<Owed>,
    /// Counts that metrics want from the start of the journal.
    pub counts: Counts,
}

/// Counts over the whole journal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Rollbacks started, by [`Trigger::name`].
    pub rollbacks: BTreeMap<String, u64>,
    /// Rungs failed, by [`Method::kind`](crate::plan::Method::kind).
    pub rung_failures: BTreeMap<String, u64>,
    /// Notices owed, by contact and event.
    #[serde(with = "listed")]
    pub notices: BTreeMap<(String, String), u64>,
    /// Deliveries given up.
    pub dead_lettered: u64,
    /// Decisions taken, by name: `rollback`, `page`, `freeze`, `pass`, `refuse`.
    pub decisions: BTreeMap<String, u64>,
}

/// A map whose keys are pairs, as JSON can hold it: `[contact, event, count]`.
mod listed {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Map = BTreeMap<(String, String), u64>;

    pub(super) fn serialize<S: Serializer>(map: &Map, serializer: S) -> Result<S::Ok, S::Error> {
        let list: Vec<(&str, &str, u64)> = map.iter().map(|((one, two), count)| (&**one, &**two, *count)).collect();
        list.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map, D::Error> {
        let list: Vec<(String, String, u64)> = Vec::deserialize(deserializer)?;
        Ok(list.into_iter().map(|(one, two, count)| ((one, two), count)).collect())
    }
}

/// A settled window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub outcome: WindowOutcome,
    /// When it opened.
    pub started_at: Timestamp,
    /// When it was settled.
    pub ended_at: Timestamp,
    /// Place of its first record.
    pub first_seq: u64,
}

/// How it came that a window ended as it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The plan that held for it.
    pub plan: Arc<Plan>,
    /// Why it ended so.
    pub detail: String,
    /// Why it was rolled back, and since when, if it was.
    pub rollback: Option<(Trigger, Timestamp)>,
}

/// A notice and the channels on which it is still owed. It is written down where old windows are let go, so a field that
/// is added here needs `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    /// The notice.
    pub notice: Notice,
    /// Channels without an end yet.
    pub open: Vec<String>,
    /// Channels on which it was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<String>,
    /// Whether a channel has taken it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reached: bool,
}

/// The window that is not settled yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its id.
    pub id: String,
    /// Who opened it.
    pub origin: Origin,
    /// The plan that holds for it.
    pub plan: Arc<Plan>,
    /// When it opened.
    pub started_at: Timestamp,
    /// Its hard end.
    pub ends_at: Timestamp,
    /// Place of its first record.
    pub first_seq: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Who holds decisions, and why.
    pub hold: Option<Hold>,
    /// The number of the last step.
    pub last_step: u64,
    /// Steps that started and did not end: the migration and at most one other.
    pub in_flight: Vec<InFlight>,
    /// Whether every signal has been healthy for long enough.
    pub warmed_up: bool,
    /// What each signal's events were like before the migration, for rules that compare with it.
    pub levels: Vec<Level>,
    /// How the preflight ended, and when.
    pub preflight: Option<(Outcome, Timestamp)>,
    /// How the backup ended.
    pub backup: Option<Outcome>,
    /// The facts from before the migration.
    pub baseline: Option<Arc<Baseline>>,
    /// Where the backup is.
    pub backup_directory: Option<String>,
    /// How the migration's command ended.
    pub migration: Option<Outcome>,
    /// How we know that the migration is over, and since when.
    pub migration_ended: Option<(MigrationEnd, Timestamp)>,
    /// A process of a step that we lost sight of, to be ended or waited for.
    pub orphan: Option<Orphan>,
    /// Why a process that must not run any longer could not be ended.
    pub unending: Option<String>,
    /// How many steps in a row were interrupted, with none between that came to an end.
    pub interruptions: u32,
    /// What the rules said last.
    pub verdict: Verdict,
    /// Rules with `page` or `freeze` that have fired and still hold.
    pub paging: Vec<String>,
    /// The rollback, once there is one.
    pub rollback: Option<Rollback>,
    /// The result of each check of the last verification, by name.
    pub checks: Vec<CheckResult>,
    /// How many messages the incident has had.
    pub messages: u64,
    /// Who has taken charge.
    pub acknowledged: Option<String>,
    /// When people were last paged about something that waits for them.
    pub paged_at: Option<Timestamp>,
}

/// Where a window stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Preflight, warm-up, backup.
    Preparing,
    /// The migration runs.
    Watching,
    /// The migration is over.
    Soaking {
        /// Until when the application must stay healthy.
        until: Timestamp,
    },
    /// The ladder.
    RollingBack,
    /// Automation has come to its end.
    NeedsOperator {
        /// Why.
        reason: String,
        /// What a person does now.
        manual: Vec<String>,
    },
    /// An operator says it is dealt with; the verification decides.
    Resolving {
        /// Why an operator was needed.
        reason: String,
        /// What a person was told to do.
        manual: Vec<String>,
        /// Who says so, and why.
        who: String,
        /// Whether to settle without verification.
        forced: bool,
        /// How far the verification is.
        proof: Proof,
    },
}

/// A hold on decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who holds.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A step that started and did not end.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// Its number.
    pub number: u64,
    /// What it does.
    pub step: Step,
    /// When it started.
    pub started_at: Timestamp,
    /// When it must have ended.
    pub deadline: Timestamp,
    /// The process that it started.
    pub process: Option<Process>,
}

/// A process that we lost sight of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The number of the step that started it.
    pub step: u64,
    /// The process.
    pub process: Process,
}

/// A rollback.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollback {
    /// Why.
    pub trigger: Trigger,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it waited for approvals.
    pub waited: SignedDuration,
    /// Since when it waits for an approval.
    pub waiting_since: Option<Timestamp>,
    /// Whether the approval that was asked for has come.
    pub approved: bool,
    /// What it costs, once the catalog was looked at: the class, when it could be seen, and what makes it so.
    pub classified: Option<(Option<Class>, Vec<String>)>,
    /// The gates, in the plan's order.
    pub gates: Vec<Gate>,
    /// The rungs tried, in order; the last is the current one.
    pub attempts: Vec<Attempt>,
}

/// What is known of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gate {
    /// What it was set to before we changed it.
    pub prior: Option<String>,
    /// Where it stands.
    pub position: GatePosition,
    /// Why the last attempt to read, close or open it failed; `None` when it did not fail.
    pub failure: Option<String>,
}

/// Where a gate stands, as far as we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GatePosition {
    /// As we found it.
    #[default]
    Untouched,
    /// As we found it, and what that is could not be read.
    Unreadable,
    /// We have begun to close it.
    Closing,
    /// Closed, and proved.
    Closed,
    /// We tried to close it, and it is not proved.
    CloseFailed,
    /// We have begun to put it back.
    Opening,
    /// Put back, and proved.
    Reopened,
    /// We tried to put it back, and it is not proved.
    OpenFailed,
}

/// One rung being tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The rung's place in the plan.
    pub rung: usize,
    /// What differed before it acted.
    pub before: Option<Inspection>,
    /// The rows of the added tables at the last look, where they were counted.
    pub rows: Vec<RowCount>,
    /// The statements that would put everything back, as of the last look.
    pub way_back: Vec<String>,
    /// What a restore would bring back and what would be lost, as of the look before it.
    pub restore: Vec<String>,
    /// How its work ended.
    pub act: Option<Outcome>,
    /// How often it was started since something of it last went through.
    pub acts: u32,
    /// How many groups of tables went before the one that is under way.
    pub groups: u32,
    /// What differed after it acted.
    pub after: Option<Inspection>,
    /// Verification with traffic closed, and open.
    pub proof: Proof,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What an inspection gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// The catalog was read.
    Seen(Difference),
    /// It could not be read.
    Unseen(String),
}

/// How far a verification is: `Some(Ok)` when the stage passed, `Some(Err)` with the checks that did not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// With traffic stopped.
    pub closed: Option<Result<(), String>>,
    /// With traffic resumed.
    pub open: Option<Result<(), String>>,
}

/// The words for where a window stands: the label of `window_state` and the API's `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateName {
    /// Known from the schedule.
    Scheduled,
    /// Preflight, warm-up, backup.
    Preparing,
    /// The migration runs.
    Watching,
    /// The migration is over.
    Soaking,
    /// Decisions are held.
    Held,
    /// The ladder.
    RollingBack,
    /// The ladder's verification.
    Verifying,
    /// Automation has come to its end.
    NeedsOperator,
    /// Settled: healthy.
    Passed,
    /// Settled: nothing was changed.
    Refused,
    /// Settled by an operator.
    Cancelled,
    /// Settled: rolled back and verified.
    Recovered,
}

impl StateName {
    /// Every name, in the order of a window's life.
    pub const ALL: [Self; 12] = [
        Self::Scheduled,
        Self::Preparing,
        Self::Watching,
        Self::Soaking,
        Self::Held,
        Self::RollingBack,
        Self::Verifying,
        Self::NeedsOperator,
        Self::Passed,
        Self::Refused,
        Self::Cancelled,
        Self::Recovered,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Preparing => "preparing",
            Self::Watching => "watching",
            Self::Soaking => "soaking",
            Self::Held => "held",
            Self::RollingBack => "rolling_back",
            Self::Verifying => "verifying",
            Self::NeedsOperator => "needs_operator",
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Recovered => "recovered",
        }
    }
}

impl State {
    /// How many windows were settled since the journal began, those that were let go among them.
    pub fn settled(&self) -> u64 {
        self.let_go + u64::try_from(self.history.len()).unwrap_or(u64::MAX)
    }

    /// Where the open window stands; `None` when no window is open.
    pub fn state_name(&self) -> Option<StateName> {
        self.window.as_ref().map(Window::state_name)
    }
}

impl Phase {
    /// Why an operator is needed and what there is to do, when one is.
    pub fn needs_operator(&self) -> Option<(&str, &[String])> {
        if let Self::NeedsOperator { reason, manual } = self { Some((reason, manual)) } else { None }
    }
}

impl Window {
    /// Where the window stands.
    pub fn state_name(&self) -> StateName {
        let verifying = self.in_flight.iter().any(|running| matches!(running.step, Step::Verify { .. }));
        match &self.phase {
            Phase::NeedsOperator { .. } => StateName::NeedsOperator,
            Phase::RollingBack | Phase::Resolving { .. } if verifying => StateName::Verifying,
            _ if self.hold.is_some() => StateName::Held,
            Phase::Preparing => StateName::Preparing,
            Phase::Watching => StateName::Watching,
            Phase::Soaking { .. } => StateName::Soaking,
            Phase::RollingBack | Phase::Resolving { .. } => StateName::RollingBack,
        }
    }

    /// The rung being tried: its place in the plan and its kind.
    pub fn rung_now(&self) -> Option<(usize, &'static str)> {
        let attempt = self.rollback.as_ref()?.attempts.last().filter(|attempt| attempt.failure.is_none())?;
        let rung = self.plan.rollback.rungs.get(attempt.rung)?;
        Some((attempt.rung, rung.method.kind()))
    }
}

impl WindowOutcome {
    /// The state of a window that ended so.
    pub const fn state_name(self) -> StateName {
        match self {
            Self::Passed => StateName::Passed,
            Self::Refused => StateName::Refused,
            Self::Cancelled => StateName::Cancelled,
            Self::Recovered => StateName::Recovered,
            Self::Abandoned => StateName::NeedsOperator,
        }
    }
}
