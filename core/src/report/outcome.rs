//! How a window ended, in words: the first thing that a reader of its report sees.

use jiff::Timestamp;

use super::narrate::{rfc, span};
use super::{Attempt, AttemptResult, Check, Costs, GatePosition, Report};
use crate::baseline::Class;
use crate::notice::compose::sentence;
use crate::run::record::WindowOutcome;
use crate::run::state::StateName;
use crate::run::step::{RemovalFinding, StepResult};
use crate::words::counted;

/// What the records say of the end.
pub(super) struct Ending {
    /// Where the window stands.
    pub(super) state: StateName,
    /// How it was settled, and why.
    pub(super) settled: Option<(WindowOutcome, String)>,
    /// The last reason for which an operator was needed.
    pub(super) needed: Option<String>,
    /// The last record that counts.
    pub(super) last_at: Timestamp,
}

impl Ending {
    /// The outcome in a few words.
    pub(super) fn headline(&self, report: &Report) -> String {
        let abandoned = self.settled.as_ref().is_some_and(|(outcome, _)| *outcome == WindowOutcome::Abandoned);
        let words = match self.state {
            StateName::Passed => "migration passed",
            StateName::Refused => "refused, nothing was changed",
            StateName::Cancelled => "cancelled",
            StateName::Recovered if self.needed.is_some() => "recovered by an operator",
            StateName::Recovered => "rolled back and recovered",
            StateName::NeedsOperator if abandoned => "settled by an operator, recovery not verified",
            StateName::NeedsOperator => "needs an operator",
            StateName::Scheduled | StateName::Preparing => "preparing",
            StateName::Watching => "watching the migration",
            StateName::Soaking => "soaking",
            StateName::Held => "held by an operator",
            StateName::RollingBack => "rolling back",
            StateName::Verifying => "verifying the recovery",
        };
        format!("{}: {words}", report.plan)
    }

    /// The outcome in a few sentences, the most important first.
    pub(super) fn summary(&self, report: &Report) -> Vec<String> {
        let mut summary = Vec::new();
        if let Some((_, detail)) = &self.settled {
            summary.push(sentence(detail));
        } else if let (StateName::NeedsOperator, Some(reason)) = (self.state, &self.needed) {
            summary.push(sentence(reason));
        } else {
            summary.push(format!("The window is still open; this is what was known at {}.", rfc(self.last_at)));
        }
        summary.extend(self.ladder(report));
        summary.extend(report.gates.iter().filter_map(|gate| match gate.position {
            GatePosition::Closed => Some(format!("Gate {} is closed: traffic is stopped.", gate.name)),
            GatePosition::Unsure => Some(format!("Gate {} may be closed: nobody knows for sure.", gate.name)),
            GatePosition::Untouched | GatePosition::Reopened => None,
        }));
        if report.class == Some(Class::Lossy) {
            summary.push(format!(
                "Rows that had been written to the new tables left the live schema: {}.",
                lost(&report.rungs)
            ));
        }
        summary
    }

    /// How far the ladder was climbed: `Rung 1 (script) failed; from the breach to the recovery it took 12.8 s; …`.
    fn ladder(&self, report: &Report) -> Option<String> {
        let why = report.trigger.as_ref()?;
        let last = report.rungs.last()?;
        let name = |rung: &Attempt| format!("{} ({})", rung.number, rung.kind);
        let failed: Vec<String> =
            report.rungs.iter().filter(|rung| rung.result == AttemptResult::Failed).map(name).collect();
        let noun = if failed.len() == 1 { "rung" } else { "rungs" };
        let failed = (!failed.is_empty()).then(|| format!("{noun} {} failed", failed.join(" and ")));
        let end = match last.result {
            AttemptResult::Recovered => {
                let took = span(self.last_at.duration_since(why.at));
                Some(format!("from the breach to the recovery it took {took}"))
            }
            AttemptResult::Unfinished => Some(format!("rung {} has not come to an end", name(last))),
            AttemptResult::Failed => None,
        };
        let parts: Vec<String> = failed.into_iter().chain(end).chain([tally(&report.checks)]).collect();
        Some(sentence(&parts.join("; ")))
    }
}

/// What was really removed: a finding of work that was not done is what it would have taken.
fn removals(rungs: &[Attempt]) -> impl Iterator<Item = &RemovalFinding> {
    rungs.iter().filter(|rung| rung.work == Some(StepResult::Succeeded)).filter_map(|rung| rung.removal.as_ref())
}

/// Lossy as soon as one removed table held rows; reversible when all were counted and none did; irreversible when the
/// migration had destroyed something.
pub(super) fn class(rungs: &[Attempt], costs: Option<&Costs>) -> Option<Class> {
    let foreseen = costs.and_then(|costs| costs.class);
    if foreseen == Some(Class::Irreversible) {
        return foreseen;
    }
    let rows: Vec<Option<u64>> = removals(rungs).flat_map(|removal| &removal.tables).map(|table| table.rows).collect();
    if rows.iter().flatten().any(|rows| *rows > 0) {
        Some(Class::Lossy)
    } else {
        (!rows.is_empty() && rows.iter().all(Option::is_some)).then_some(Class::Reversible)
    }
}

/// `1204 rows in 2 tables, kept in schema rollbackd_20261122t020000z`.
fn lost(rungs: &[Attempt]) -> String {
    let mut rows = 0_u64;
    let mut tables = 0;
    let mut kept: Vec<String> = Vec::new();
    for removal in removals(rungs) {
        for count in removal.tables.iter().filter_map(|table| table.rows).filter(|rows| *rows > 0) {
            rows = rows.saturating_add(count);
            tables += 1;
        }
        kept.extend(removal.quarantine.iter().map(|schema| format!("schema {schema}")));
        kept.extend(removal.archive.iter().cloned());
    }
    let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
    let place = if kept.is_empty() { "not kept".to_owned() } else { format!("kept in {}", kept.join(" and ")) };
    format!("{rows} in {}, {place}", counted(tables, "table"))
}

/// `all 6 checks passed`, `1 of 6 checks failed`.
fn tally(checks: &[Check]) -> String {
    let failed = checks.iter().filter(|check| !check.passed).count();
    match (checks.len(), failed) {
        (0, _) => "no verification was reached".to_owned(),
        (1, 0) => "its one check passed".to_owned(),
        (all, 0) => format!("all {all} checks passed"),
        (all, failed) => format!("{failed} of {} failed", counted(all, "check")),
    }
}
