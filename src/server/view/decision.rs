//! What was decided and on what it rests; what is under way because of it.

use jiff::Timestamp;
use rollbackd_core::judge::{Evidence, asks};
use rollbackd_core::plan::{Plan, Rule};
use rollbackd_core::report;
use rollbackd_core::run::state::{State, Window};
use serde::{Deserialize, Serialize};

use super::milliseconds;

/// The decision to roll the open window, or else the last one, back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// What kind of trigger it was: `rule`, `migration`, `hard_end`, `operator`.
    pub kind: String,
    /// When it was taken.
    #[serde(serialize_with = "milliseconds")]
    pub at: Timestamp,
    /// Why: word for word as in the journal, the notices and the report.
    pub sentence: String,
    /// The evidence of each rule behind it.
    pub evidence: Vec<EvidenceStatus>,
}

/// What a breached rule rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// The rule.
    pub rule: String,
    /// The signal, or several joined by `, `.
    pub signal: String,
    /// What was observed.
    pub observed: f64,
    /// What is allowed.
    pub threshold: f64,
    /// The window that was looked at, where the condition has one.
    pub window_seconds: Option<f64>,
    /// Events behind the observation.
    pub samples: u64,
    /// The reason that the latest bad sample gave.
    pub last_reason: Option<String>,
    /// When the rule began to hold.
    #[serde(serialize_with = "milliseconds")]
    pub since: Timestamp,
    /// When it was evaluated.
    #[serde(serialize_with = "milliseconds")]
    pub at: Timestamp,
    /// All of this in one sentence.
    pub sentence: String,
    /// `observed` in its unit.
    pub observed_words: String,
    /// `threshold` in its unit.
    pub allowed_words: String,
}

/// A step that has started and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// Its stable name.
    pub step: String,
    /// What it does.
    pub what: String,
    /// When it started.
    #[serde(serialize_with = "milliseconds")]
    pub started_at: Timestamp,
    /// When it must have ended.
    #[serde(serialize_with = "milliseconds")]
    pub deadline: Timestamp,
}

/// The decision of the open window, or else of the last one.
pub(super) fn decision(state: &State) -> Option<DecisionStatus> {
    let (trigger, at, plan) = if let Some(open) = &state.window {
        let rollback = open.rollback.as_ref()?;
        (&rollback.trigger, rollback.started_at, &open.plan)
    } else {
        let ending = state.last_ending.as_ref()?;
        let (trigger, at) = ending.rollback.as_ref()?;
        (trigger, *at, &ending.plan)
    };
    Some(DecisionStatus {
        kind: trigger.name().to_owned(),
        at,
        sentence: trigger.sentence(),
        evidence: trigger.evidence().iter().map(|one| shown(one, plan)).collect(),
    })
}

/// Evidence, its numbers also in the unit that the plan's rule gives them.
pub(super) fn shown(evidence: &Evidence, plan: &Plan) -> EvidenceStatus {
    let condition = plan.rules.iter().find(|rule| rule.name == evidence.rule).map(|rule| &rule.condition);
    let seen = evidence.observed;
    EvidenceStatus {
        rule: evidence.rule.clone(),
        signal: evidence.signal.clone(),
        observed: evidence.observed,
        threshold: evidence.threshold,
        window_seconds: evidence.window.map(|window| window.as_secs_f64()),
        samples: evidence.samples,
        last_reason: evidence.last_reason.clone(),
        since: evidence.since,
        at: evidence.at,
        sentence: evidence.sentence.clone(),
        observed_words: condition.map_or_else(|| seen.to_string(), |condition| asks::observed(condition, seen)),
        allowed_words: condition
            .map_or_else(|| evidence.threshold.to_string(), |condition| asks::allowed(condition, seen)),
    }
}

/// What a rule of this name asks for.
pub(super) fn asked(name: &str, plan: &Plan) -> String {
    let named = |rule: &&Rule| rule.name == name;
    plan.rules.iter().find(named).map(asks::asks).unwrap_or_default()
}

/// What is under way in a window.
pub(super) fn steps(open: &Window) -> Vec<StepStatus> {
    let running = open.in_flight.iter().map(|one| StepStatus {
        step: one.step.name().to_owned(),
        what: report::step_words(&open.plan, &one.step),
        started_at: one.started_at,
        deadline: one.deadline,
    });
    running.collect()
}
