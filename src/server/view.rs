//! A snapshot → what people and programs are shown: the JSON shapes of the HTTP interface and of `--json`.
//!
//! Pure. The server writes these shapes and the command line reads them back, so that both mean the same.

mod decision;

use jiff::Timestamp;
use rollbackd_core::judge::Verdict;
use rollbackd_core::notice;
use rollbackd_core::plan::Consequence;
use rollbackd_core::run::state::{Phase, Settled, State, StateName, Window};
use rollbackd_core::run::step::Step;
use serde::{Deserialize, Serialize, Serializer};

pub use self::decision::{DecisionStatus, EvidenceStatus, StepStatus};
use crate::driver::snapshot::{Renewal, Snapshot};
use crate::metrics::{rule_state_label, verdict_label};

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The plan's name.
    pub plan: String,
    /// The program's version.
    pub version: String,
    /// When this was so.
    #[serde(serialize_with = "milliseconds")]
    pub at: Timestamp,
    /// Whether the daemon can do its work.
    pub ready: Ready,
    /// The open window, or else the last one.
    pub window: Option<WindowStatus>,
    /// What the rules say.
    pub verdict: String,
    /// Why: a sentence a breached rule or unreadable signal.
    pub reasons: Vec<String>,
    /// What each rule that is breached now rests on.
    pub breached: Vec<EvidenceStatus>,
    /// The next scheduled opening.
    #[serde(serialize_with = "optional_milliseconds")]
    pub next_window_at: Option<Timestamp>,
    /// The signals, in configured order.
    pub signals: Vec<SignalStatus>,
    /// The rules, in configured order.
    pub rules: Vec<RuleStatus>,
    /// Why the open window, or else the last one, was rolled back.
    pub decision: Option<DecisionStatus>,
    /// Steps that have started and not ended.
    pub in_flight: Vec<StepStatus>,
    /// The rollback that runs.
    pub rollback: Option<RollbackStatus>,
    /// Who holds decisions.
    pub hold: Option<HoldStatus>,
    /// The rung that waits for an operator's word.
    pub approval: Option<ApprovalStatus>,
    /// What only an operator can do now.
    pub operator: Option<OperatorStatus>,
    /// Who has taken charge of the incident.
    pub acknowledged: Option<String>,
    /// Notices that are still owed.
    pub notices_pending: usize,
    /// The configuration; absent when no daemon runs.
    pub configuration: Option<ConfigurationStatus>,
}

/// The configuration that holds, and what is to come of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// The SHA-256 of the one that holds: the open window's, or else the daemon's.
    pub sha256: String,
    /// Whether another one is taken over when no window is open.
    pub pending: bool,
    /// The SHA-256 of that one; absent when the file is read only then.
    pub next_sha256: Option<String>,
    /// The file was refused when it was read last.
    pub refused: Option<RefusedStatus>,
}

/// A configuration's file that was refused; what was there before goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// When.
    #[serde(serialize_with = "milliseconds")]
    pub at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
}

/// Whether the daemon can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether it can.
    pub ok: bool,
    /// What is missing.
    pub reason: Option<String>,
}

/// The open or last window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// When it opened.
    #[serde(serialize_with = "milliseconds")]
    pub started_at: Timestamp,
    /// Its hard end; absent once it is settled.
    #[serde(serialize_with = "optional_milliseconds")]
    pub ends_at: Option<Timestamp>,
    /// Until when the application must stay healthy; absent when it does not soak.
    #[serde(serialize_with = "optional_milliseconds")]
    pub soak_until: Option<Timestamp>,
    /// When it was settled.
    #[serde(serialize_with = "optional_milliseconds")]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it ended so, once it is settled.
    pub detail: Option<String>,
}

/// One signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalStatus {
    /// Its name.
    pub name: String,
    /// What its readings say.
    pub verdict: String,
    /// When it was last read.
    #[serde(serialize_with = "optional_milliseconds")]
    pub last_sample_at: Option<Timestamp>,
    /// Share of bad events among those remembered.
    pub error_ratio: Option<f64>,
    /// Bad readings in a row.
    pub consecutive_bad: u32,
    /// What the last reading gave as its reason.
    pub reason: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub asks: String,
    /// What it says.
    pub state: String,
    /// What follows when it is breached.
    pub then: String,
}

/// A rollback that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackStatus {
    /// The kind of the rung that is tried; absent before the first.
    pub rung: Option<String>,
    /// The step in flight.
    pub step: Option<String>,
    /// When the rollback started.
    #[serde(serialize_with = "milliseconds")]
    pub started_at: Timestamp,
}

/// A hold on decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// Who holds.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(serialize_with = "milliseconds")]
    pub since: Timestamp,
}

/// A rung that waits for an operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatus {
    /// The rung's kind.
    pub rung: Option<String>,
    /// Since when it waits.
    #[serde(serialize_with = "milliseconds")]
    pub since: Timestamp,
    /// What waits, in a sentence.
    pub sentence: String,
    /// What there is to know before it is given: as the notice says it.
    pub details: Vec<String>,
}

/// What only an operator can do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// Why automation has come to its end.
    pub reason: String,
    /// What to do: comments start with `--`, the rest are the commands.
    pub manual: Vec<String>,
}

/// One row of the history: `GET /api/v1/windows` and `history --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The window's id.
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// How it ended: `passed`, `refused`, `cancelled`, `recovered`, `needs_operator`; absent while that is open.
    pub outcome: Option<String>,
    /// When it opened.
    #[serde(serialize_with = "milliseconds")]
    pub started_at: Timestamp,
    /// When it was settled.
    #[serde(serialize_with = "optional_milliseconds")]
    pub ended_at: Option<Timestamp>,
}

/// The body of a control.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who; absent: as the socket's other end or the address says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// With `window/cancel`: even in the middle of a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandon: Option<bool>,
    /// With `window/resolved`: without verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// The answer to a control that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The window that is open now.
    pub window: Option<String>,
}

/// An error on the wire: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What stands in the way, and the way out.
    pub detail: String,
}

/// Everything that is shown of a snapshot.
pub fn status(snapshot: &Snapshot) -> Status {
    let assessment = &snapshot.assessment;
    let sentences = assessment.breached.iter().map(|evidence| evidence.sentence.clone());
    Status {
        ready: ready(snapshot),
        verdict: verdict_label(assessment.verdict).to_owned(),
        breached: assessment.breached.iter().map(|one| decision::shown(one, &snapshot.plan)).collect(),
        reasons: sentences.chain(assessment.blind.iter().cloned()).collect(),
        next_window_at: snapshot.next_window_at,
        signals: signals(snapshot),
        rules: rules(snapshot),
        configuration: Some(configuration(snapshot)),
        ..unwatched(&snapshot.plan.name, &snapshot.state, snapshot.at, String::new())
    }
}

/// What can be shown when no daemon runs: what the journal says. Nobody reads the signals, so that the verdict is blind.
pub fn unwatched(plan: &str, state: &State, at: Timestamp, reason: String) -> Status {
    let open = state.window.as_ref();
    Status {
        plan: plan.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at,
        window: window(state),
        verdict: verdict_label(Verdict::Blind).to_owned(),
        reasons: Vec::new(),
        breached: Vec::new(),
        decision: decision::decision(state),
        in_flight: open.map(decision::steps).unwrap_or_default(),
        ready: Ready { ok: false, reason: Some(reason) },
        next_window_at: None,
        signals: Vec::new(),
        rules: Vec::new(),
        rollback: open.and_then(rollback),
        hold: open.and_then(hold),
        approval: open.and_then(approval),
        operator: open.and_then(operator),
        acknowledged: open.and_then(|window| window.acknowledged.clone()),
        notices_pending: state.owed.len(),
        configuration: None,
    }
}

fn configuration(snapshot: &Snapshot) -> ConfigurationStatus {
    let Renewal { due, next_sha256, refused } = &snapshot.renewal;
    ConfigurationStatus {
        sha256: snapshot.plan.config_sha256.clone(),
        pending: *due,
        next_sha256: next_sha256.clone(),
        refused: refused.as_ref().map(|refused| RefusedStatus { at: refused.at, reason: refused.reason.clone() }),
    }
}

/// The windows, newest first.
pub fn history(state: &State) -> Vec<WindowRow> {
    let open = state.window.as_ref().zip(state.state_name()).map(|(window, name)| WindowRow {
        id: window.id.clone(),
        state: name.as_str().to_owned(),
        outcome: open_outcome(window).map(str::to_owned),
        started_at: window.started_at,
        ended_at: None,
    });
    open.into_iter().chain(state.history.iter().rev().map(settled_row)).collect()
}

/// Whether the daemon can do its work: what it says itself, and whether it can still write.
pub fn ready(snapshot: &Snapshot) -> Ready {
    let reason = match (&snapshot.journal_error, &snapshot.ready) {
        (Some(error), _) => Some(format!("the journal cannot be written: {error}")),
        (None, Err(reason)) => Some(reason.clone()),
        (None, Ok(())) => None,
    };
    Ready { ok: reason.is_none(), reason }
}

fn window(state: &State) -> Option<WindowStatus> {
    if let Some((open, name)) = state.window.as_ref().zip(state.state_name()) {
        return Some(WindowStatus {
            id: open.id.clone(),
            state: name.as_str().to_owned(),
            started_at: open.started_at,
            ends_at: Some(open.ends_at),
            soak_until: soak_until(open),
            ended_at: None,
            outcome: open_outcome(open).map(str::to_owned),
            detail: None,
        });
    }
    let row = settled_row(state.history.last()?);
    Some(WindowStatus {
        id: row.id,
        state: row.state,
        started_at: row.started_at,
        ends_at: None,
        soak_until: None,
        ended_at: row.ended_at,
        outcome: row.outcome,
        detail: state.last_ending.as_ref().map(|ending| ending.detail.clone()),
    })
}

fn settled_row(settled: &Settled) -> WindowRow {
    let word = settled.outcome.state_name().as_str();
    WindowRow {
        id: settled.id.clone(),
        state: word.to_owned(),
        outcome: Some(word.to_owned()),
        started_at: settled.started_at,
        ended_at: Some(settled.ended_at),
    }
}

const fn soak_until(open: &Window) -> Option<Timestamp> {
    match &open.phase {
        Phase::Soaking { until } => Some(*until),
        Phase::Preparing
        | Phase::Watching
        | Phase::RollingBack
        | Phase::NeedsOperator { .. }
        | Phase::Resolving { .. } => None,
    }
}

/// For automation a window that needs an operator has ended, though it is not settled.
fn open_outcome(open: &Window) -> Option<&'static str> {
    operator(open).map(|_| StateName::NeedsOperator.as_str())
}

fn operator(open: &Window) -> Option<OperatorStatus> {
    match &open.phase {
        Phase::NeedsOperator { reason, manual } | Phase::Resolving { reason, manual, .. } => {
            Some(OperatorStatus { reason: reason.clone(), manual: manual.clone() })
        }
        Phase::Preparing | Phase::Watching | Phase::Soaking { .. } | Phase::RollingBack => None,
    }
}

fn rollback(open: &Window) -> Option<RollbackStatus> {
    let rollback = open.rollback.as_ref().filter(|_| matches!(open.phase, Phase::RollingBack))?;
    // The migration may still be in flight while it is being ended; it is no step of the rollback.
    let step = open.in_flight.iter().rev().find(|one| !matches!(one.step, Step::Migrate));
    Some(RollbackStatus {
        rung: open.rung_now().map(|(_, kind)| kind.to_owned()),
        step: step.map(|one| one.step.name().to_owned()),
        started_at: rollback.started_at,
    })
}

fn hold(open: &Window) -> Option<HoldStatus> {
    open.hold.as_ref().map(|hold| HoldStatus { who: hold.who.clone(), reason: hold.reason.clone(), since: hold.since })
}

fn approval(open: &Window) -> Option<ApprovalStatus> {
    let since = open.rollback.as_ref()?.waiting_since?;
    let (sentence, details) = notice::approval(open).unwrap_or_default();
    Some(ApprovalStatus { rung: open.rung_now().map(|(_, kind)| kind.to_owned()), since, sentence, details })
}

fn signals(snapshot: &Snapshot) -> Vec<SignalStatus> {
    let shown = snapshot.signals.iter().map(|signal| SignalStatus {
        name: signal.name.clone(),
        verdict: verdict_label(signal.verdict).to_owned(),
        last_sample_at: signal.last_sample_at,
        error_ratio: signal.error_ratio,
        consecutive_bad: signal.consecutive_bad,
        reason: signal.reason.clone(),
    });
    shown.collect()
}

fn rules(snapshot: &Snapshot) -> Vec<RuleStatus> {
    let shown = snapshot.rules.iter().map(|rule| RuleStatus {
        name: rule.name.clone(),
        asks: decision::asked(&rule.name, &snapshot.plan),
        state: rule_state_label(rule.state).to_owned(),
        then: consequence_word(rule.then).to_owned(),
    });
    shown.collect()
}

const fn consequence_word(then: Consequence) -> &'static str {
    match then {
        Consequence::Rollback => "rollback",
        Consequence::Page => "page",
        Consequence::Freeze => "freeze",
    }
}

/// RFC 3339, UTC, always three digits of a second.
fn milliseconds<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

/// The same, or null.
#[expect(clippy::ref_option, reason = "serde asks for this shape")]
fn optional_milliseconds<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => milliseconds(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Puts every time in a JSON value into the interface's form; journal and report keep the shortest one.
pub fn unify_times(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            let digits = text.as_bytes().first().is_some_and(u8::is_ascii_digit);
            if digits
                && text.ends_with('Z')
                && let Ok(at) = text.parse::<Timestamp>()
            {
                *text = format!("{at:.3}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unify_times),
        Value::Object(fields) => fields.values_mut().for_each(unify_times),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
