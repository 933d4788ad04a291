//! A snapshot → gauges, and the counters that are derived from the journal.

use std::collections::BTreeSet;

use jiff::Timestamp;
use prometheus::IntCounter;
use rollbackd_core::plan::Plan;
use rollbackd_core::run::record::WindowOutcome;
use rollbackd_core::run::state::{Phase, State, StateName};
use rollbackd_core::run::step::CheckResult;

use super::series::{RULE_STATES, Rollback, Series, VERDICTS, rule_state_label, verdict_label};
use super::{seconds, unix};
use crate::driver::snapshot::Snapshot;

/// What a snapshot no longer says once the window is settled.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The rollback that was seen last.
    rollback: Option<Seen>,
}

/// A rollback that was seen in an open window.
#[derive(Debug)]
struct Seen {
    window: String,
    started_at: Timestamp,
    running: bool,
}

/// Sets everything that a snapshot says.
pub(super) fn snapshot(series: &Series, remembered: &mut Remembered, snapshot: &Snapshot) {
    let state = snapshot.state.as_ref();
    series.own.heartbeat.set(unix(snapshot.at));
    series.own.config_pending.set(i64::from(snapshot.renewal.due));
    series.own.config_accepted.set(i64::from(snapshot.renewal.refused.is_none()));
    window(series, state, snapshot.next_window_at);
    judged(series, snapshot);
    counted(series, state);
    notices(series, state);
    rollback(&series.rollback, remembered, snapshot);
}

fn window(series: &Series, state: &State, next_window_at: Option<Timestamp>) {
    let name = state_label(state, next_window_at);
    for one in StateName::ALL {
        series.window.state.with_label_values(&[one.as_str()]).set(i64::from(name == Some(one)));
    }
    let times = match (&state.window, state.history.last()) {
        (Some(open), _) => Some((open.started_at, open.ends_at)),
        (None, Some(last)) => Some((last.started_at, last.ended_at)),
        (None, None) => None,
    };
    series.window.start.set(times.map_or(0.0, |(start, _)| unix(start)));
    series.window.end.set(times.map_or(0.0, |(_, end)| unix(end)));
    series.window.next.set(next_window_at.map_or(0.0, unix));
}

/// The open window's state, or else the last one's, or else whether one is scheduled.
fn state_label(state: &State, next_window_at: Option<Timestamp>) -> Option<StateName> {
    state.state_name().or_else(|| {
        state.history.last().map_or(next_window_at.map(|_| StateName::Scheduled), |last| {
            Some(match last.outcome {
                // Somebody has settled it: nothing is needed from an operator any more, and an alert on
                // `needs_operator` must end.
                WindowOutcome::Abandoned => StateName::Cancelled,
                WindowOutcome::Passed
                | WindowOutcome::Refused
                | WindowOutcome::Cancelled
                | WindowOutcome::Recovered => last.outcome.state_name(),
            })
        })
    })
}

fn judged(series: &Series, snapshot: &Snapshot) {
    for signal in &snapshot.signals {
        let ratio = signal.error_ratio.unwrap_or(f64::NAN);
        series.decisions.error_ratio.with_label_values(&[&signal.name]).set(ratio);
    }
    for rule in &snapshot.rules {
        for state in RULE_STATES {
            let flag = series.decisions.rule_state.with_label_values(&[rule.name.as_str(), rule_state_label(state)]);
            flag.set(i64::from(rule.state == state));
        }
    }
    for verdict in VERDICTS {
        let flag = series.decisions.verdict.with_label_values(&[verdict_label(verdict)]);
        flag.set(i64::from(snapshot.assessment.verdict == verdict));
    }
}

fn counted(series: &Series, state: &State) {
    let counts = &state.counts;
    for (trigger, count) in &counts.rollbacks {
        raise(&series.rollback.started.with_label_values(&[trigger]), *count);
    }
    for (rung, count) in &counts.rung_failures {
        raise(&series.rollback.failures.with_label_values(&[rung]), *count);
    }
    for (decision, count) in &counts.decisions {
        raise(&series.decisions.taken.with_label_values(&[decision]), *count);
    }
    for ((contact, event), count) in &counts.notices {
        raise(&series.notices.made.with_label_values(&[contact.as_str(), event.as_str()]), *count);
    }
    raise(&series.notices.dead_lettered, counts.dead_lettered);
}

/// Sets a counter to what the journal counts. A journal only grows, so that a lower count means another journal.
fn raise(counter: &IntCounter, to: u64) {
    if to < counter.get() {
        counter.reset();
    }
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn notices(series: &Series, state: &State) {
    series.notices.pending.set(i64::try_from(state.owed.len()).unwrap_or(i64::MAX));
    // Of each channel the first: what is behind one that is held back is not late.
    let mut channels = BTreeSet::new();
    let first = state.owed.iter().filter(|owed| {
        let contact = owed.notice.contact.as_str();
        owed.open.iter().filter(|channel| channels.insert((contact, channel.as_str()))).count() > 0
    });
    let oldest = first.map(|owed| owed.notice.not_before).min();
    series.notices.oldest_pending.set(oldest.map_or(0.0, unix));
}

fn rollback(series: &Rollback, remembered: &mut Remembered, snapshot: &Snapshot) {
    let state = snapshot.state.as_ref();
    let open = state.window.as_ref().map(|open| open.checks.as_slice()).filter(|checks| !checks.is_empty());
    checks(series, &snapshot.plan, open.unwrap_or(&state.last_checks));
    if let Some((open, rollback)) = state.window.as_ref().and_then(|open| Some((open, open.rollback.as_ref()?))) {
        let running = matches!(open.phase, Phase::RollingBack);
        series.last_start.set(unix(rollback.started_at));
        series.verified.set(0);
        let was_running = remembered.rollback.as_ref().is_some_and(|seen| seen.window == open.id && seen.running);
        if was_running && !running {
            series.duration.set(seconds(snapshot.at.duration_since(rollback.started_at)));
        }
        remembered.rollback = Some(Seen { window: open.id.clone(), started_at: rollback.started_at, running });
        return;
    }
    let last = state.history.iter().rev().find_map(|settled| match settled.outcome {
        WindowOutcome::Recovered => Some((settled, true)),
        WindowOutcome::Abandoned => Some((settled, false)),
        WindowOutcome::Passed | WindowOutcome::Refused | WindowOutcome::Cancelled => None,
    });
    series.verified.set(i64::from(last.is_some_and(|(_, verified)| verified)));
    let Some(seen) = remembered.rollback.take() else { return };
    let Some((settled, verified)) = last.filter(|(settled, _)| settled.id == seen.window) else { return };
    let took = seconds(settled.ended_at.duration_since(seen.started_at));
    if seen.running {
        series.duration.set(took);
    }
    if verified {
        series.recovery_duration.set(took);
    }
}

/// The results of the last verification; they stay after the window is settled.
fn checks(series: &Rollback, plan: &Plan, results: &[CheckResult]) {
    for result in results.iter().filter(|result| plan.checks.iter().any(|known| known.name == result.name)) {
        series.check.with_label_values(&[&result.name]).set(f64::from(u8::from(result.passed)));
    }
}
