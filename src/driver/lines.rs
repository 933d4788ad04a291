//! What the log says about records.

use rollbackd_core::run::record::{Entry, Record};

use crate::logging::RECORDS;

/// One line for each record; those that people act on are louder.
pub(super) fn log(entry: &Entry) {
    let kind = serde_json::to_value(&entry.record).ok();
    let kind = kind.as_ref().and_then(|value| value.get("type")).and_then(serde_json::Value::as_str).unwrap_or("?");
    let window = entry.window.as_deref().unwrap_or("-");
    match &entry.record {
        Record::BreachDetected { trigger } => {
            tracing::error!(target: RECORDS, event = "breach.detected", window, reason = trigger.sentence(), "rolling back");
        }
        Record::OperatorNeeded { reason, .. } => {
            tracing::error!(target: RECORDS, event = "rollback.needs_operator", window, reason, "an operator is needed");
        }
        Record::RungFailed { rung, reason } => {
            tracing::error!(target: RECORDS, event = "rung.failed", window, rung = rung + 1, reason, "a rung has failed");
        }
        Record::StepStarted { number, step, .. } => {
            tracing::info!(target: RECORDS, event = "step.started", window, number, step = step.name(), "a step has started");
        }
        Record::StepEnded { number, outcome } => {
            let result = format!("{:?}", outcome.result).to_lowercase();
            tracing::info!(target: RECORDS, event = "step.ended", window, number, result, detail = outcome.detail, "a step has ended");
        }
        Record::WindowSettled { outcome, detail } => {
            let outcome = format!("{outcome:?}").to_lowercase();
            tracing::info!(target: RECORDS, event = "window.settled", window, outcome, detail, "the window is settled");
        }
        Record::VerdictChanged { from, to, detail } => {
            tracing::warn!(target: RECORDS, event = "verdict.changed", window, ?from, ?to, detail, "the rules say something else");
        }
        Record::ClockMoved { by, unseen } => {
            let (by, unseen) = (by.as_secs_f64(), unseen.as_secs_f64());
            tracing::warn!(target: RECORDS, event = "clock.moved", window, by, unseen, "the clock was set, or nothing was looked at for a while");
        }
        Record::NoticeDead { notice, channel, reason } => {
            tracing::error!(target: RECORDS, event = "notice.undeliverable", window, notice, channel, reason, "a notice was given up");
        }
        Record::NoticeOwed { .. } | Record::NoticeDelivered { .. } | Record::NoticeCancelled { .. } => {
            tracing::debug!(target: RECORDS, event = kind, window, seq = entry.seq, "recorded");
        }
        Record::Condensed { .. }
        | Record::Started { .. }
        | Record::OpeningMissed { .. }
        | Record::WindowOpened { .. }
        | Record::ProcessStarted { .. }
        | Record::WarmedUp { .. }
        | Record::MigrationFinished { .. }
        | Record::RulePaged { .. }
        | Record::RuleQuieted { .. }
        | Record::HoldStarted { .. }
        | Record::HoldEnded { .. }
        | Record::Classified { .. }
        | Record::RungStarted { .. }
        | Record::ApprovalRequested { .. }
        | Record::ApprovalGiven { .. }
        | Record::ResolutionStarted { .. }
        | Record::ResolutionFailed { .. }
        | Record::Acknowledged { .. }
        | Record::PageRepeated => tracing::info!(target: RECORDS, event = kind, window, seq = entry.seq, "recorded"),
    }
}
