//! Whether the wall clock was set, or time went by in which nothing was looked at.
//!
//! Three clocks are compared from look to look: the wall clock, the monotonic one, and how long the machine slept. What the
//! wall clock went on by beyond the time that passed is a step; a sleep, and a wake-up that comes far too late (a stopped
//! process, a paused machine), is time in which nobody looked. What follows from either is the core's to say; here the judge's
//! memory is moved along, and samples that were read before it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::run::event::Event;
use rollbackd_core::sample::Sample;
use tokio::time::Instant;

use super::{Driver, Parts};
use crate::samples::line::Line;

/// A step of the wall clock, a sleep or a delay that is shorter than this is none.
const NOTABLE: Duration = Duration::from_secs(2);
/// Reading the clocks takes no longer, or they do not belong together.
const AT_ONCE: Duration = Duration::from_millis(100);
/// For so long samples may still come that were read before the clock moved.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// What the clocks show at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    wall: Timestamp,
    passed: Instant,
    asleep: Duration,
}

/// How the clock moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    /// The wall clock was set by so much.
    by: SignedDuration,
    /// Nobody looked for so long.
    unseen: SignedDuration,
}

/// The last time that it moved, for samples that were read before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    /// What is known is dated so much later.
    shift: SignedDuration,
    /// What the wall clock showed afterwards.
    wall: Timestamp,
    at: Instant,
}

impl Moment {
    pub(super) fn now(parts: &Parts) -> Self {
        let read = || {
            let passed = Instant::now();
            Self { wall: (parts.clock)(), passed, asleep: (parts.asleep)() }
        };
        // We may be stopped between two clocks; not again and again.
        let (first, second) = (read(), read());
        if second.passed.duration_since(first.passed) < AT_ONCE { first } else { read() }
    }

    /// How the clock moved up to another moment, when we stood still for so long before that.
    fn until(self, later: Self, still: Duration) -> Option<Moved> {
        let passed = later.passed.duration_since(self.passed);
        let asleep = later.asleep.saturating_sub(self.asleep);
        let step = later.wall.duration_since(self.wall) - signed(passed) - signed(asleep);
        let notable = |time: Duration| if time >= NOTABLE { signed(time) } else { SignedDuration::ZERO };
        let by = if step.unsigned_abs() >= NOTABLE { step } else { SignedDuration::ZERO };
        let moved = Moved { by: whole(by), unseen: whole(notable(asleep) + signed(still)) };
        (!moved.by.is_zero() || !moved.unseen.is_zero()).then_some(moved)
    }
}

/// Cut to milliseconds, which is what records and recordings keep.
fn whole(time: SignedDuration) -> SignedDuration {
    SignedDuration::from_millis_i128(time.as_millis())
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

impl Last {
    /// The same sample, dated as if it had been read now: what was read before the clock moved is as old as it was.
    fn date(&self, sample: &mut Sample) {
        let age = self.at.elapsed();
        let half = self.shift / 2;
        let turn = self.wall.saturating_sub(half).unwrap_or(self.wall);
        let before = if self.shift.is_negative() {
            // A clock that was set back comes by these times again.
            sample.at > turn && age < half.unsigned_abs()
        } else {
            sample.at < turn
        };
        if before && age < STRAGGLERS {
            sample.at = sample.at.saturating_add(self.shift).unwrap_or(sample.at);
        }
    }
}

impl Driver {
    /// Takes note of clocks that were set and of time that nobody saw: the loop began to wait at `begun`, and was to wake up
    /// at `due` at the latest. To be called before anything else is made of the time.
    pub(super) async fn mind_the_clocks(&mut self, begun: Instant, due: Instant) {
        let now = Moment::now(&self.parts);
        let is_late = now.passed.saturating_duration_since(due) >= NOTABLE;
        // When in the wait we were stopped is not known.
        let still = if is_late { now.passed.saturating_duration_since(begun) } else { Duration::ZERO };
        let moved = self.clocks.until(now, still);
        self.clocks = now;
        let Some(Moved { by, unseen }) = moved else { return };
        let shift = by.saturating_add(unseen);
        self.judge.shift(shift);
        self.moved = Some(Last { shift, wall: now.wall, at: now.passed });
        self.parts.recorder.write(Line::moved(shift, now.wall));
        // What was found for the calendar of before may be far away by now.
        self.next_opening = None;
        self.handle(Event::ClockMoved { by, unseen }).await.ok();
    }

    /// Dates a sample that may have been read before the clock moved.
    pub(super) fn date(&self, sample: &mut Sample) {
        if let Some(moved) = &self.moved {
            moved.date(sample);
        }
    }
}
