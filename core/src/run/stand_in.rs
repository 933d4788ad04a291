//! Stand-in, to be dropped when the state's own methods are there: just enough for the server's tests.

use super::record::{Entry, Record};
use super::state::{Phase, Settled, State, StateName, Window};
use super::step::Step;

impl State {
    /// Takes a record into the state (stand-in: openings and settlements only).
    pub fn apply(&mut self, entry: &Entry) {
        self.seq = entry.seq;
        let Some(id) = entry.window.clone() else { return };
        if let Record::WindowSettled { outcome, .. } = &entry.record {
            self.history.push(Settled {
                id,
                outcome: *outcome,
                started_at: entry.at,
                ended_at: entry.at,
                first_seq: entry.seq,
            });
        }
    }

    /// The word for where the open window stands.
    pub fn state_name(&self) -> Option<StateName> {
        let window = self.window.as_ref()?;
        if window.hold.is_some() {
            return Some(StateName::Held);
        }
        Some(match &window.phase {
            Phase::Preparing => StateName::Preparing,
            Phase::Watching => StateName::Watching,
            Phase::Soaking { .. } => StateName::Soaking,
            Phase::RollingBack => {
                if window.in_flight.iter().any(|one| matches!(one.step, Step::Verify { .. })) {
                    StateName::Verifying
                } else {
                    StateName::RollingBack
                }
            }
            Phase::NeedsOperator { .. } => StateName::NeedsOperator,
            Phase::Resolving { .. } => StateName::Verifying,
        })
    }
}

impl Window {
    /// The rung that is tried now: its place in the plan and its kind.
    pub fn rung_now(&self) -> Option<(usize, &'static str)> {
        let rung = self.rollback.as_ref()?.attempts.last()?.rung;
        Some((rung, self.plan.rollback.rungs.get(rung)?.method.kind()))
    }
}
