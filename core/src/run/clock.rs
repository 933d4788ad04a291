//! The wall clock is set, or nobody looks for a while → what becomes of the moments that a window waits for.
//!
//! Records hold wall time, because people read them, and what waits for a moment waits for one of the wall clock. When that
//! clock is set, every such moment moves along, so that what is left of a soak, a budget or a hard end stays as long as it
//! was. Time in which nothing was looked at (the machine slept, the program did not run) counts neither as a soak nor against
//! a budget; the hard end and what people were told stay where they are. How it is noticed is the shell's.

use jiff::{SignedDuration, Timestamp};

use super::apply::later;
use super::state::{Phase, State, Window};

impl State {
    /// Moves every moment that something waits for.
    pub(super) fn clock_moved(&mut self, by: SignedDuration, unseen: SignedDuration) {
        for owed in &mut self.owed {
            shift(&mut owed.notice.not_before, by);
            shift(&mut owed.notice.expires_at, by);
        }
        if let Some(window) = &mut self.window {
            window.clock_moved(by, unseen);
        }
    }
}

impl Window {
    fn clock_moved(&mut self, by: SignedDuration, unseen: SignedDuration) {
        shift(&mut self.ends_at, by);
        for running in &mut self.in_flight {
            shift(&mut running.started_at, by);
            shift(&mut running.deadline, by);
        }
        if let Phase::Soaking { until } = &mut self.phase {
            shift(until, by.saturating_add(unseen));
        }
        if let Some((_, since)) = &mut self.preflight {
            shift(since, by.saturating_add(unseen));
        }
        if let Some(hold) = &mut self.hold {
            shift(&mut hold.since, by);
        }
        if let Some(paged_at) = &mut self.paged_at {
            shift(paged_at, by);
        }
        if let Some(rollback) = &mut self.rollback {
            shift(&mut rollback.started_at, by);
            match &mut rollback.waiting_since {
                // While somebody's word is waited for, no time counts anyway.
                Some(since) => shift(since, by),
                None => rollback.waited = rollback.waited.saturating_add(unseen),
            }
        }
    }

    /// The program begins to live again at `at`. A clock that was set back meanwhile must not make a wait longer than it was
    /// from its beginning.
    pub(super) fn nothing_is_to_come_from_later_than(&mut self, at: Timestamp) {
        self.ends_at = self.ends_at.min(later(at, self.plan.window.duration));
        if let Some((_, since)) = &mut self.preflight {
            *since = (*since).min(at);
        }
        if let Some(hold) = &mut self.hold {
            hold.since = hold.since.min(at);
        }
        self.paged_at = self.paged_at.map(|paged_at| paged_at.min(at));
        if let Some(rollback) = &mut self.rollback {
            rollback.started_at = rollback.started_at.min(at);
            rollback.waiting_since = rollback.waiting_since.map(|since| since.min(at));
        }
    }
}

fn shift(moment: &mut Timestamp, by: SignedDuration) {
    *moment = later(*moment, by);
}
